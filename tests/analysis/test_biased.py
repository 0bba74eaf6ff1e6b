"""Which biased runs are put together."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

from deltaserver.analysis.biased import groups
from deltaserver.bias.coordinate import Coordinate
from deltaserver.bias.settings import Bias
from deltaserver.bias.terms import Spring, UpperWall, WellTempered

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


def test_a_sweep_with_a_wall_has_a_free_energy_at_every_temperature():
    """None of them had one: "400K has another temperature than 300K"."""
    assert names(run("300K", WALL), run("400K", WALL, 400.0)) == {
        "300K": ["300K"], "400K": ["400K"],
    }  # fmt: skip
    twice = [run(f"{t:g}K-{k}", WALL, t) for t in (300.0, 400.0) for k in (1, 2)]
    assert names(*twice) == {"set": ["300K-1", "300K-2"], "set 400K": ["400K-1", "400K-2"]}
    # Windows of two temperatures are a mistake, which is told.
    assert names(run("a", WINDOW), run("b", WINDOW, 400.0)) == {"set": ["a", "b"]}
