from __future__ import annotations

import pytest

from deltaserver.errors import InputError
from deltaserver.training.matrix import memory
from deltaserver.training.matrix.memory import Size, available_bytes, check_memory


def test_c60_catcher_with_100_points_fits_18_gb():
    assert Size(148, 480, threads=2).bytes_for(100) < 18e9
    assert Size(148, 480, device="cuda").bytes_for(100) > 8 * 44400**2


def test_refusal_says_how_many_points_fit():
    size = Size(148, 1)
    with pytest.raises(InputError, match="binding: 100 training points of 148") as caught:
        check_memory(size, 100, 2e9, "binding")
    fits = int(str(caught.value).split("at most ")[1].split()[0])
    assert size.bytes_for(fits) <= 2e9 < size.bytes_for(fits + 1)
    assert check_memory(size, fits, 2e9, "binding") <= 2e9


def test_the_smallest_limit_counts(tmp_path, monkeypatch):
    info = tmp_path / "meminfo"
    info.write_text("MemTotal: 9000 kB\nMemAvailable: 8000 kB\n")
    limit, usage = tmp_path / "max", tmp_path / "current"
    monkeypatch.setattr(memory, "MEMINFO", info)
    monkeypatch.setattr(memory, "CGROUP_V2", (limit, usage))
    monkeypatch.setattr(memory, "CGROUP_V1", (tmp_path / "none", tmp_path / "none"))
    assert available_bytes() == 8000 * 1024
    limit.write_text("5000000\n")
    usage.write_text("1000000\n")
    assert available_bytes() == 4e6
    (tmp_path / "memory.stat").write_text("anon 7\ninactive_file 500000\n")
    assert available_bytes() == 4.5e6
    limit.write_text("max\n")
    assert available_bytes() == 8000 * 1024
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "none")
    assert available_bytes() == float("inf")
