import gzip

import numpy as np
import pytest

from deltaserver.analysis.read.properties import read_properties
from deltaserver.errors import DataError
from deltaserver.units import HARTREE_EV, KB_EV_PER_K
from tests.analysis.written import PROPERTIES_HEAD, write_properties


def rows(path, steps, conserved=1.0):
    n = np.ones(len(steps))
    write_properties(path, np.array(steps), conserved * n, 300.0 * n, -2.0 * n)
    return path


def test_columns_and_units(tmp_path):
    told = []
    found = read_properties([rows(tmp_path / "run.out", range(5))], told.append)
    assert found.steps.tolist() == [0, 1, 2, 3, 4]
    assert found.time_ps() == pytest.approx(5e-4 * np.arange(5))
    assert found.energy_ev("conserved") == pytest.approx(np.ones(5))
    assert found.temperature_k() == pytest.approx(300 * np.ones(5))
    assert found.energy_ev("kinetic_md") is None
    assert not told


def test_atomic_units_and_wide_columns(tmp_path):
    path = tmp_path / "run.out"
    path.write_text(
        "# column   1     --> step : .\n"
        "# cols.    2-4   --> atom_x{angstrom}(1) : three.\n"
        "# column   5     --> conserved : energy.\n"
        "# column   6     --> temperature(nm=1){kelvin} : of a mode.\n"
        "# column   7     --> time{picosecond} : .\n"
        "  0 1 2 3 2.0 310 0.5\n"
    )
    found = read_properties([path], print)
    assert found.energy_ev("conserved") == pytest.approx([2 * HARTREE_EV])
    assert found.temperature_k() == pytest.approx([310.0])
    assert found.time_ps() == pytest.approx([0.5])
    assert found.columns["atom_x"].index == 1


def test_temperature_in_atomic_units(tmp_path):
    path = tmp_path / "run.out"
    path.write_text("# column   1     --> temperature : .\n 9.5e-4\n")
    expected = 9.5e-4 * HARTREE_EV / KB_EV_PER_K
    assert read_properties([path], print).temperature_k() == pytest.approx([expected])


def test_pieces_of_a_resumed_run(tmp_path):
    """Appended to one file, or a backup beside it."""
    backup = rows(tmp_path / "#run.out#0#", range(10), 1.0)
    path = rows(tmp_path / "run.out", range(6, 12), 2.0)
    found = read_properties([backup, path], print)
    assert found.steps.tolist() == list(range(12))
    assert found.energy_ev("conserved").tolist() == [1.0] * 6 + [2.0] * 6
    assert found.n_overwritten == 4
    path.write_text(backup.read_text() + path.read_text().replace(PROPERTIES_HEAD, ""))
    found = read_properties([path], print)
    assert found.steps.tolist() == list(range(12))
    assert found.n_overwritten == 4


def test_a_cut_row_is_left_out_and_told(tmp_path):
    path = rows(tmp_path / "run.out", range(5))
    text = path.read_text()
    path.write_text(text[:-30] + text[len(PROPERTIES_HEAD) :])  # half a row, then appended rows
    told = []
    found = read_properties([path], told.append)
    assert found.steps.tolist() == [0, 1, 2, 3, 4] or found.steps.tolist() == [1, 2, 3, 4]
    assert told == [f"{path}: 1 cut or damaged row(s) left out"]
    path.write_text(text + "  5.0 abc\n")
    assert read_properties([path], told.append).steps.tolist() == [0, 1, 2, 3, 4]


def test_compressed(tmp_path):
    path = rows(tmp_path / "run.out", range(5))
    packed = tmp_path / "run.out.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_properties([packed], print).steps.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (PROPERTIES_HEAD, "no rows"),
        ("1 2 3\n", "no header with columns"),
        ("# column   1     --> step : .\n a b\n", "no rows of numbers"),
    ],
)
def test_refused(tmp_path, text, message):
    path = tmp_path / "run.out"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_properties([path], print)


def test_unknown_unit(tmp_path):
    path = tmp_path / "run.out"
    path.write_text("# column   1     --> conserved{furlong} : .\n 1.0\n")
    with pytest.raises(DataError, match="conserved: 'furlong' is no unit of energy"):
        read_properties([path], print).energy_ev("conserved")


@pytest.mark.parametrize(
    ("unit", "ev"), [("kilocal/mol", 0.0433931), ("millielectronvolt", 1e-3), ("kelvin", 8.617e-5)]
)
def test_every_unit_of_ipi(tmp_path, unit, ev):
    path = tmp_path / "run.out"
    path.write_text(f"# column   1     --> conserved{{{unit}}} : .\n 2.0\n")
    assert read_properties([path], print).energy_ev("conserved") == pytest.approx(
        [2 * ev], rel=1e-4
    )
