import numpy as np
import structlog
from ase.io import read

from deltaserver.serve.watchers.extrapolation import (
    ExtrapolationWatch,
    is_power_of_ten,
    write_frame,
)


def test_powers_of_ten():
    assert [n for n in range(1, 2001) if is_power_of_ten(n)] == [1, 10, 100, 1000]


def test_a_warning_at_the_first_tenth_hundredth_of_each_component():
    with structlog.testing.capture_logs() as events:
        watch = ExtrapolationWatch(1.5)
        for k in range(250):
            watch.look({"a": 2.0 + 0.01 * k, "b": 1.0, "c": 1.6 if k == 40 else 1.5}, k)
    assert [(e["component"], e["structure"]) for e in events] == [
        ("a", 0), ("a", 9), ("c", 40), ("a", 99),
    ]  # fmt: skip
    assert {e["event"] for e in events} == {"extrapolation"}
    assert {e["log_level"] for e in events} == {"warning"}
    assert (events[3]["structures_beyond"], events[3]["largest"]) == (100, 2.99)


def test_the_farthest_component_is_returned():
    watch = ExtrapolationWatch(1.0)
    with structlog.testing.capture_logs():
        assert watch.look({"a": 0.9, "b": 1.0}, 0) is None
        assert watch.look({"a": 1.1, "b": 1.3, "c": 0.2}, 1) == ("b", 1.3)
        assert watch.look({"a": float("nan")}, 2)[0] == "a"


def test_a_frame_that_ase_reads(tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 3))
    write_frame(tmp_path / "f.xyz", np.array([8, 1, 1]), x, ("water", 2.5), 17)
    atoms = read(tmp_path / "f.xyz")
    assert atoms.get_chemical_formula() == "H2O"
    np.testing.assert_allclose(atoms.positions, x, atol=1e-8)
    assert (atoms.info["component"], atoms.info["novelty"]) == ("water", 2.5)
    assert atoms.info["structure"] == 17


def test_a_disk_that_is_full_is_no_other_error(tmp_path):
    write_frame(tmp_path / "no" / "f.xyz", np.array([1]), np.zeros((1, 3)), ("h", 2.0), 0)
    assert not (tmp_path / "no").exists()
