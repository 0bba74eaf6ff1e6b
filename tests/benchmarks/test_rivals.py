"""The logic of benchmarks/rivals.py: rows, tables, turns, survival, what a failure leaves."""

import json
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.calculator import all_changes

from benchmarks import rivals
from benchmarks.contest import environments, survival, table
from benchmarks.contest.calculators import Evaluated
from benchmarks.contest.cases import DISPLACEMENTS_ANG, HELD_OUT, ROOT
from benchmarks.contest.entries import BY_NAME, DIMER, LABELS, OURS, RIVALS, STAGES, SYSTEMS, Rival
from benchmarks.contest.trained import HOLD_OUT, last_epoch
from deltaserver.errors import DataError, InputError
from deltaserver.units import KCAL_PER_MOL_EV

# Two H2 side by side, 4 Å apart.
BOND_ANG, APART_ANG = 0.74, 4.0
PAIR = np.array([[0, 0, 0], [0, 0, BOND_ANG], [APART_ANG, 0, 0], [APART_ANG, 0, BOND_ANG]])
FRAGMENTS = [np.array([0, 1]), np.array([2, 3])]
SPRING_EV, SOFT_EV = 30.0, 0.5  # per Å²; the first is about H2's


def springs(push_ev_per_ang=0.0):
    """Harmonic bonds, and a soft spring between the molecules or a constant push apart."""

    def evaluate(x):
        energy, forces = 0.0, np.zeros_like(x)
        for i, j in FRAGMENTS:
            bond = x[j] - x[i]
            length = np.linalg.norm(bond)
            energy += 0.5 * SPRING_EV * (length - BOND_ANG) ** 2
            pull = SPRING_EV * (length - BOND_ANG) * bond / length
            forces[i] += pull
            forces[j] -= pull
        between = x[2:].mean(axis=0) - x[:2].mean(axis=0) - [APART_ANG, 0, 0]
        push = np.array([push_ev_per_ang, 0, 0]) if push_ev_per_ang else -SOFT_EV * between
        forces[:2] -= push / 2
        forces[2:] += push / 2
        stored = -push @ between if push_ev_per_ang else 0.5 * SOFT_EV * between @ between
        return energy + stored, forces

    return Evaluated(evaluate)


def run(calculator, ps=0.2, limit_s=60.0):
    return survival.survive(Atoms("H4", PAIR, calculator=calculator), FRAGMENTS, ps, limit_s)


def test_bound_molecules_stay_whole_and_are_as_hot_as_asked():
    found = run(springs(), ps=1.0)
    assert (found["end"], found["ps"], found["reason"]) == (survival.WHOLE, 1.0, "")
    # Twelve momenta: their energy spreads by √(2/12), and half a run is 5 τ long, 2 τ a sample.
    assert found["mean_k"] == pytest.approx(400.0, rel=4 * np.sqrt(2 / 12 / 2.5))


def test_atoms_that_nothing_holds_break_their_bond():
    found = run(Evaluated(lambda x: (0.0, np.zeros_like(x))))
    assert found["end"] == survival.BROKEN
    assert "H0–H1" in found["reason"] or "H2–H3" in found["reason"]
    assert 0.0 < found["ps"] < 0.2


def test_a_guest_that_is_pushed_out_has_left():
    assert run(springs(5.0))["end"] == survival.LEFT


def test_a_calculator_that_fails_ends_the_run_in_one_line():
    def fail(x):
        raise RuntimeError("SCF not\nconverged")

    found = run(Evaluated(fail))
    assert (found["end"], found["reason"]) == (survival.BROKEN, "RuntimeError: SCF not converged")


def test_a_run_that_is_out_of_time_says_how_far_it_came():
    found = run(springs(), ps=1000.0, limit_s=0.0)
    assert found["end"] == survival.SHORT
    assert found["ps"] * 1000.0 == survival.LOOK_EVERY * survival.TIME_STEP_FS


def test_results_are_merged_stage_by_stage():
    rows = table.merged({}, DIMER, "mace", "errors", {"force_mae": 1.0})
    rows = table.merged(rows, DIMER, "mace", "speed", {"error": "no"})
    assert table.finished(rows, DIMER, "mace", "errors")
    assert not table.finished(rows, DIMER, "mace", "speed")
    assert not table.finished(rows, "c60", "mace", "errors")
    again = table.merged(rows, DIMER, "mace", "errors", {"error": "killed"})
    assert again == rows  # what is finished stays
    assert table.merged(rows, DIMER, "mace", "speed", {"cpu_ms": 2.0})[DIMER]["mace"] == {
        "errors": {"force_mae": 1.0},
        "speed": {"cpu_ms": 2.0},
    }


def test_rows_come_back_from_the_file(tmp_path):
    rows = table.merged({}, DIMER, OURS, "version", {"version": "1"})
    assert table.read_rows(tmp_path / "none.json") == {}
    table.write_rows(tmp_path / "rows.json", rows)
    assert table.read_rows(tmp_path / "rows.json") == rows


def test_nanoseconds_a_day():
    # 1 ms a step: 86.4 million steps of 0.5 fs are 43.2 ns.
    assert table.ns_a_day(1.0) == pytest.approx(43.2)


E_B = [1.1, -0.1, -0.5, -0.4, *[0.0] * (len(DISPLACEMENTS_ANG) - 4)]
ROWS = {
    DIMER: {
        LABELS: {"curve": {"e_b": E_B, "of_fragments": True}, "version": {"version": "22.1"}},
        OURS: {
            "version": {"version": "0.2"},
            "errors": {"force_mae": 2 * KCAL_PER_MOL_EV, "binding_mae": KCAL_PER_MOL_EV},
            "curve": {"e_b": [9.0, -0.1, -0.5, -0.43, *E_B[4:]], "of_fragments": True},
            "speed": {"cpu_ms": 10.0, "wall_ms": 25.0, "ratio": 1.0},
            "survival": {"end": survival.WHOLE, "ps": 20.0},
        },
        "sgdml": {
            "errors": {"force_mae": KCAL_PER_MOL_EV, "binding_mae": None},
            "curve": {"e_b": E_B, "of_fragments": False},
            "survival": {"end": survival.BROKEN, "ps": 0.25},
            "speed": {"error": "its process | has ended"},
        },
        "mbgdml": {"errors": {"error": "does not install: no"}},
    }
}


def test_the_table_has_a_row_a_rival_and_says_what_failed():
    lines = table.table(ROWS, DIMER).splitlines()
    cells = {line.split("|")[1].strip(): [c.strip() for c in line.split("|")[2:-1]]
             for line in lines[4:]}  # fmt: skip
    assert cells["deltaserver"] == [
        "0.2", "GFN2-xTB", "2", "1", "10", "1", "4.3", "whole, 20 ps", "-0.500", "0.03 (+0.5 Å)",
    ]  # fmt: skip
    assert cells["GFN2-xTB (xtb)"][-2:] == ["-0.500", "–"]
    assert cells["sgdml, one model"][2:] == [
        "1", "–", "–", "–", "–", "broken at 0.25 ps", "-0.500†", "0 (-0.5 Å)†"
    ]  # fmt: skip
    assert cells["mbGDML"][2] == "does not install: no"
    assert len({line.count("|") for line in lines[2:]}) == 1


def test_errors_of_a_curve_are_compared_off_the_wall():
    errors = table.curve_errors(ROWS[DIMER], OURS)
    assert DISPLACEMENTS_ANG[0] not in errors  # 1.1 eV
    assert max(errors.values(), key=abs) == pytest.approx(-0.03)


def test_a_machine_is_busy_where_wall_time_exceeds_processor_time():
    assert table.busy(ROWS)
    assert not table.busy({})


def test_figure_is_drawn_of_what_is_there(tmp_path):
    from deltaserver.plots import save

    assert save(lambda f: table.draw(f, ROWS), tmp_path / "x", (3, 3), ("png",)).stat().st_size


def test_ratios_are_of_turns_that_followed_each_other():
    ours = [{"cpu_ms": v, "wall_ms": v, "n": 1} for v in (1.0, 10.0, 1.0)]
    turns = [{"cpu_ms": 3 * one["cpu_ms"], "wall_ms": 1.0, "n": 2} for one in ours]
    found = rivals.of_turns(turns, ours)
    assert (found["ratio"], found["cpu_ms"], found["steps"]) == (3.0, 3.0, 6)


def test_names_that_are_not_known_are_refused():
    assert rivals.names("c60, benzene_dimer", SYSTEMS) == ["c60", "benzene_dimer"]
    with pytest.raises(InputError, match=r"^gromacs: not known; choose among"):
        rivals.names("gromacs", tuple(BY_NAME))


def test_a_rival_that_does_not_install_is_told_in_one_line(tmp_path, monkeypatch):
    create = environments.venv.create  # without pip, which takes seconds to unpack
    monkeypatch.setattr(environments.venv, "create", lambda d, with_pip: create(d, symlinks=True))
    none = Rival("x", "x", "x", "x", "x", (str(tmp_path / "no-such-wheel.whl"),))
    with pytest.raises(environments.NotInstalledError, match=r"^does not install: .*") as caught:
        environments.python_of(none, tmp_path)
    assert "\n" not in str(caught.value)
    assert environments.python_of(BY_NAME[OURS], tmp_path).samefile(sys.executable)


def test_a_worker_that_dies_is_one_line(tmp_path):
    asked = rivals.argparse.Namespace(venvs=tmp_path, output=tmp_path)
    told = r"^its process has ended; see .*c60-gfn2-xtb.txt$"
    with (
        rivals.opened(BY_NAME[LABELS], "c60", asked) as process,  # there is no c60.npz
        pytest.raises(DataError, match=told),
    ):
        process.ask("version")


def test_the_last_checkpoint_is_found(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    assert last_epoch(tmp_path) == 0
    for epoch in (9, 10):
        (tmp_path / "checkpoints" / f"benzene_dimer_run-0_epoch-{epoch}.pt").touch()
    assert last_epoch(tmp_path) == 10


def test_test_frames_are_those_that_models_are_not_trained_on():
    # Behind two trajectories of another dataset: models/train.sh.
    assert tuple(k + 2 for k in HELD_OUT[DIMER]) == HOLD_OUT
    script = (ROOT / "models" / "train.sh").read_text()
    assert f"--hold-out {','.join(map(str, HOLD_OUT))}" in script
    assert '--hold-out "14,20,' in script


def test_every_rival_is_complete():
    for rival in RIVALS:
        assert set(rival.systems) <= set(SYSTEMS)
        assert set(rival.stages) <= set(STAGES)
        assert set(rival.systems) <= dict(rival.ps).keys()
        assert bool(rival.environment) == bool(rival.packages)


def test_a_calculator_of_a_function_gives_what_the_function_gives():
    atoms = Atoms("H4", PAIR, calculator=springs())
    atoms.calc.calculate(atoms, ["energy"], all_changes)
    assert json.dumps(atoms.calc.results["energy"]) == "0.0"
