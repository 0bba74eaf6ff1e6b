"""How much memory a training needs, and how much there is."""

from __future__ import annotations

import contextlib
import mmap
from dataclasses import dataclass
from pathlib import Path

from deltaserver.errors import InputError
from deltaserver.training.matrix.solver import PANEL, ROWS

BASE_BYTES = 400e6  # the interpreter with its libraries
MEMINFO = Path("/proc/meminfo")
CGROUP_V2 = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current"))
CGROUP_V1 = (
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
    Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


@dataclass(frozen=True)
class Size:
    """What memory depends on: atoms, permutations, threads, the device, and energies as labels."""

    n_atoms: int
    n_perms: int
    threads: int = 1
    device: str = "cpu"
    energies: bool = False

    @property
    def n_rows(self) -> int:
        """Return the number of rows of K a training point."""
        return 3 * self.n_atoms + self.energies

    def bytes_for(self, n_train: int) -> float:
        """Return the peak memory in bytes, resident, of training on ``n_train`` points."""
        dim = self.n_rows
        n = dim * n_train
        # Pages above the diagonal stay untouched, except in the tiles along it.
        half = self.device == "cpu" and hasattr(mmap, "MADV_NOHUGEPAGE")
        matrix = 4.0 * n * (n + 2.0 * PANEL) if half else 8.0 * n * n
        tiles = 8.0 * ROWS * PANEL * 3
        fields = 8.0 * n_train * self.n_atoms**2 * (4 + 3)
        blocks = 8.0 * self.threads * (3 * self.n_perms * dim + 3 * dim**2)
        return BASE_BYTES + matrix + tiles + fields + blocks

    def points_within(self, limit: float) -> int:
        """Return the largest number of points whose training fits ``limit`` bytes."""
        low, high = 0, 1
        while self.bytes_for(high) <= limit:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if self.bytes_for(middle) <= limit else (low, middle)
        return low


def check_memory(size: Size, n_train: int, max_bytes: float | None, what: str) -> float:
    """Return the estimate in bytes, or refuse.

    Raises:
        InputError: it is more than ``max_bytes`` or than is available; the message says how many
            points would fit.
    """
    available = available_bytes()
    limit = available if max_bytes is None else min(max_bytes, available)
    needed = size.bytes_for(n_train)
    if needed > limit:
        whose = "--max-memory allows" if limit == max_bytes else "available are"
        raise InputError(
            f"{what}: {n_train} training points of {size.n_atoms} atoms need "
            f"{needed / 1e9:.2f} GB, {whose} {limit / 1e9:.2f} GB; "
            f"at most {size.points_within(limit)} points fit"
        )
    return needed


def available_bytes() -> float:
    """Return how many bytes a process may still take: the machine's, or its cgroup's if less."""
    limits = [_cgroup_bytes(*CGROUP_V2), _cgroup_bytes(*CGROUP_V1)]
    try:
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(1024.0 * int(line.split()[1]))
    except (OSError, ValueError, IndexError):
        pass  # not Linux: only what --max-memory says is known
    return min(limits)


def _cgroup_bytes(limit: Path, usage: Path) -> float:
    try:
        free = float(int(limit.read_text())) - float(int(usage.read_text()))
    except (OSError, ValueError):  # no cgroup, or "max"
        return float("inf")
    return max(0.0, free + _reclaimable_bytes(usage.with_name("memory.stat")))


def _reclaimable_bytes(statistics: Path) -> float:
    """Return the cached files that count as used and would be given up."""
    with contextlib.suppress(OSError, ValueError):
        for line in statistics.read_text().splitlines():
            key, _, value = line.partition(" ")
            if key in ("inactive_file", "total_inactive_file"):
                return float(value)
    return 0.0
