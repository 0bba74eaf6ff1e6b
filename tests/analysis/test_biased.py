"""Which biased runs are put together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from deltaserver.analysis.biased import _check_variable, groups
from deltaserver.analysis.measure.definitions import Definitions
from deltaserver.analysis.measure.variables import Variable
from deltaserver.bias.coordinate import Coordinate
from deltaserver.bias.settings import Bias
from deltaserver.bias.terms import Spring, UpperWall, WellTempered
from deltaserver.errors import DataError

DISTANCE = Coordinate("R", ((0,), (1,)), ((1.0,), (1.0,)))
WALL = Bias(DISTANCE, wall=UpperWall(9.0))
WINDOW = Bias(DISTANCE, spring=Spring(4.0, 1.0, 4.0))
HILLS = Bias(DISTANCE, growth=WellTempered(0.01, 0.1, 100, 5.0, 300.0))


def run(name, bias, kelvin=300.0, parent="set"):
    directory = Path(parent) / name
    return SimpleNamespace(
        run=SimpleNamespace(
            label=name, group=parent, directory=directory, bias=bias, temperature_k=kelvin
        )
    )


def names(*runs):
    return {name: [one.run.label for one in some] for name, some in groups(runs).items()}


def test_windows_of_one_directory_belong_together_and_runs_with_hills_to_none():
    runs = [run("a", WINDOW), run("b", WINDOW), run("h", HILLS), run("n", None)]
    assert names(*runs) == {"set": ["a", "b"], "h": ["h"]}
    assert names(run("a", WINDOW), run("c", WINDOW, parent="other")) == {"a": ["a"], "c": ["c"]}
    assert names(run("a", WINDOW), run("h", HILLS)) == {"a": ["a"], "h": ["h"]}
    assert names(run("a", WINDOW), run("w", WALL), run("hot", WALL, 400.0)) == {
        "set": ["a", "w"], "hot": ["hot"],
    }  # fmt: skip


def test_sets_of_one_name_in_several_places_are_several(tmp_path):
    """They were joined, as if they were the windows of one."""
    runs = []
    for place in "abc":
        for window in ("3", "4"):
            one = run(window, WINDOW, parent=tmp_path / place / "set")
            one.run.group = "set"
            runs.append(one)
    found = names(*runs)
    assert [*found] == ["set", f"{tmp_path}/b/set 300K", f"{tmp_path}/c/set 300K"]
    assert all(labels == ["3", "4"] for labels in found.values())


def test_a_sweep_with_a_wall_has_a_free_energy_at_every_temperature():
    """None of them had one: "400K has another temperature than 300K"."""
    assert names(run("300K", WALL), run("400K", WALL, 400.0)) == {
        "300K": ["300K"], "400K": ["400K"],
    }  # fmt: skip
    twice = [run(f"{t:g}K-{k}", WALL, t) for t in (300.0, 400.0) for k in (1, 2)]
    assert names(*twice) == {"set": ["300K-1", "300K-2"], "set 400K": ["400K-1", "400K-2"]}
    unknown = [run(f"{k}-{parent}", WALL, None, parent) for parent in "ab" for k in (1, 2)]
    assert [*names(*unknown)] == ["a", "b"]
    # Windows of two temperatures are a mistake, which is told.
    assert names(run("a", WINDOW), run("b", WINDOW, 400.0)) == {"set": ["a", "b"]}


def test_the_variable_is_the_one_that_was_biased():
    """One of the same name and other atoms was reweighted by a bias that it never had."""
    masses = ((12.011, 1.008), (15.999,))
    biased = Coordinate("R", ((0, 1), (2,)), masses)
    plain = Coordinate("R", ((0, 1), (2,)), ((1.0, 1.0), (1.0,)))

    def check(coordinate, **changed):
        told = {"name": "R", "kind": "distance", "groups": ((2,), (1, 0))}
        known = Definitions((Variable(**told | changed),), (), (), (), {})
        _check_variable(known, coordinate)

    check(biased)
    check(plain, centre="geometry")
    atoms = Coordinate("R", ((0,), (2,)), ((12.011,), (15.999,)))
    check(atoms, groups=((0,), (2,)), centre="geometry")  # of lone atoms it is the same
    with pytest.raises(DataError, match="is in no definition"):
        check(biased, name="S")
    for coordinate, changed in (
        (biased, {"groups": ((0,), (2,))}),
        (biased, {"centre": "geometry"}),
        (plain, {}),
        (biased, {"kind": "plane_distance"}),
    ):
        with pytest.raises(DataError, match="another variable than the one that was biased"):
            check(coordinate, **changed)
