from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deltaserver.analysis.measure.definitions import SurfaceSpec, default_definitions
from deltaserver.analysis.measure.free_energy import free_energy
from deltaserver.analysis.measure.survey import Sampled, Surveyed
from deltaserver.analysis.read.directory import Run
from deltaserver.analysis.results import RunAnalysis
from deltaserver.analysis.show import figures
from deltaserver.analysis.show.figures import EnergyUnit
from deltaserver.errors import UnitError
from tests.analysis.written import FRAGMENTS

SPEC = SurfaceSpec(("a", "b"), (8, 8), (None, None))


def found(label, group, kelvin, sigma=1.0):
    """A run with nothing but a surface."""
    samples = sigma * np.random.default_rng(1).normal(size=(2000, 2))
    edges = (np.linspace(-4, 4, 9),) * 2
    nothing = Sampled(np.zeros(0, np.int64), np.zeros((0, 8, 3), np.float32), {})
    surveyed = Surveyed(np.arange(3), np.zeros((3, 1, 0)), {}, {}, np.ones(3), nothing, 0)
    run = Run(label, group, Path(), (), temperature_k=kelvin)
    surface = free_energy(samples, edges, kelvin or 300.0)
    return RunAnalysis(run, default_definitions(FRAGMENTS), (), surveyed, None, None, None,
                 surfaces=((SPEC, surface),))  # fmt: skip


def test_names_say_the_temperature_once():
    assert figures.label_of(found("300K", "s", 300.0)) == "300 K"
    assert figures.label_of(found("warm", "s", 300.0)) == "warm, 300 K"
    assert figures.label_of(found("full/300K", "full", 300.0)) == "full/300K"
    assert figures.label_of(found("t.xyz", "", None)) == "t.xyz"


def test_names_within_a_figure_are_short_if_that_is_enough():
    sweep = [found("a 50K", "s", 50.0), found("a 100K", "s", 100.0)]
    assert figures.labels_of(sweep) == ["50 K", "100 K"]
    twins = [found("a", "s", 50.0), found("b", "s", 50.0)]
    assert figures.labels_of(twins) == ["a, 50 K", "b, 50 K"]
    assert figures.labels_of([found("d/9K", "d", 9.0), found("f/9K", "f", 9.0)]) == ["d/9K", "f/9K"]


def test_two_sweeps_are_two_rows_of_panels():
    runs = [found(f"{g}/{t}K", g, t) for g in ("full", "delta") for t in (300.0, 10.0)]
    names = [[f.run.label for f in line] for line in figures.grid_of(runs)]
    assert names == [["full/10.0K", "full/300.0K"], ["delta/10.0K", "delta/300.0K"]]
    assert list(figures.groups_of(runs)) == ["full", "delta"]
    holes = figures.grid_of(runs[:3])
    assert [f is None for f in holes[1]] == [True, False]


def test_other_runs_fill_rows():
    seven = [found(str(k), "s", 300.0) for k in range(7)]
    grid = figures.grid_of(seven)
    assert [sum(f is not None for f in line) for line in grid] == [5, 2]
    assert list(figures.groups_of(seven)) == [""]
    pair = [found("a", "x", 300.0), found("b", "y", 300.0)]
    assert list(figures.groups_of(pair)) == [""]  # one each: compared in one figure


def test_the_colour_scale_is_round_and_shared():
    unit = EnergyUnit("kcal/mol")
    surfaces = [surface for _, surface in found("a", "s", 300.0).surfaces]
    top = figures._highest(surfaces, unit)
    highest = np.nanmax(surfaces[0].free_energy_ev) / unit.ev
    assert 0.8 * highest < top < 1.6 * highest
    assert top * 2 == pytest.approx(round(top * 2))


def test_the_footnote_says_the_jacobian():
    surface = found("a", "s", 300.0).surfaces[0][1]
    assert "is in $P$" in figures.footnote([surface])
    assert "removed" in figures.footnote([replace(surface, jacobian="remove")])
    assert "bands" not in figures.footnote([surface])
    assert figures.footnote([]) == ""


def test_units():
    assert EnergyUnit("kJ/mol").text == "kJ mol$^{-1}$"
    assert EnergyUnit("meV").ev == 1e-3
    with pytest.raises(UnitError, match="'furlong' is not known"):
        _ = EnergyUnit("furlong").ev
