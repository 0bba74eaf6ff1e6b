"""``deltaserver analyze`` of a run of many molecules: numbers and figures, nothing refused."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from deltaserver.analysis.read.directory import find_runs
from deltaserver.analysis.results import Options
from deltaserver.analysis.workflow import analyse
from deltaserver.cli.analyze import analyze
from deltaserver.units import AVOGADRO_PER_MOL
from tests.analysis.written import INPUT, ipi_frame, ipi_text, write_properties, write_run
from tests.model.many.builders import directory as models_of
from tests.model.many.builders import manifest, positions

N_WATER, N_NEON, N_FRAMES, EDGE = 8, 2, 40, 12.0
SYMBOLS = ("O", "H", "H") * N_WATER + ("Ne",) * N_NEON


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    """A run at constant pressure of water and neon, which only drift together: the cell grows."""
    run = tmp_path_factory.mktemp("wet") / "run"
    run.mkdir()
    models = models_of(run.parent / "models", manifest(N_WATER, N_NEON))
    x = positions(N_WATER, N_NEON, EDGE * np.eye(3))
    edges = EDGE + 0.01 * np.arange(N_FRAMES)
    text = ""
    for k, edge in enumerate(edges):
        frame = ipi_frame(x + 0.4 * k, 10 * k, SYMBOLS)
        text += frame.replace(f"{300:10.5f}", f"{edge:10.5f}")
    (run / "run.pos_0.xyz").write_text(text)
    (run / "input.xml").write_text(INPUT.format(kelvin=300, timestep=0.5, beads=1))
    (run / "run.json").write_text(json.dumps({"models": str(models)}))
    rows = np.arange(10 * N_FRAMES)
    energy = -30.0 + 0.1 * np.random.default_rng(0).normal(size=len(rows))
    write_properties(run / "run.out", rows, energy, np.full(len(rows), 300.0), energy)
    found = CliRunner().invoke(analyze, [str(run)])
    assert found.exception is None, found.output
    return json.loads((run / "analysis" / "summary.json").read_text()), run, edges, energy, found


def test_density_and_energy_of_a_molecule(result):
    summary, run, edges, energy, _ = result
    (told,) = [one["molecules"] for one in summary["runs"]]
    grams = (N_WATER * 18.015 + N_NEON * 20.180) / AVOGADRO_PER_MOL
    expected = np.mean(grams / (1e-24 * edges.round(5) ** 3))
    assert told["density_g_cm3"]["mean"] == pytest.approx(expected, rel=1e-4)
    assert told["energy_of_a_molecule_ev"]["mean"] == pytest.approx(energy.mean() / 10, rel=1e-6)
    rows = (run / "analysis" / "data" / "density.csv").read_text().splitlines()
    assert rows[0] == "time_ps,density_g_cm3"
    assert len(rows) == N_FRAMES + 1


def test_every_two_species_have_a_g_and_each_its_diffusion(result):
    """What moves as one does not diffuse."""
    told = result[0]["runs"][0]["molecules"]
    assert set(told["g"]) == {"water-water", "water-neon", "neon-neon"}
    assert set(told["diffusion"]) == {"water", "neon"}
    for one in told["diffusion"].values():
        assert abs(one["d_ang2_per_ps"]) < 1e-6


def test_report_and_figure_are_written_and_the_terminal_tells(result):
    _, run, _, _, found = result
    for name in ("report.html", "figures/molecules.png", "figures/thermo.png"):
        assert (run / "analysis" / name).stat().st_size > 1000
    assert "10 molecules" in found.output
    assert "g/cm³" in found.output
    assert "D(water)" in found.output


def walking(n_frames):
    """Molecules that walk at random, each as a whole, (T, N, 3)."""
    steps = np.random.default_rng(2).normal(0.0, 0.1, (n_frames, N_WATER + N_NEON, 3))
    own = np.repeat(np.cumsum(steps, axis=0), [3] * N_WATER + [1] * N_NEON, axis=1)
    return positions(N_WATER, N_NEON, 300.0 * np.eye(3)) + own


def analysed(directory, frames, steps, **options):
    """The liquid of a run, and what is told."""
    write_run(directory, [], [])
    (directory / "run.pos_0.xyz").write_text(ipi_text(frames, steps, symbols=SYMBOLS))
    models = models_of(directory.parent / "models", manifest(N_WATER, N_NEON))
    given, told = Options(models=models, **options), []
    found = analyse(find_runs([directory]), given, ("molecules",), told.append)
    return found.runs[0].liquid, told


def test_molecules_diffuse_as_in_the_longest_stretch_without_a_gap(tmp_path):
    """Of frames that are not evenly spaced a lag is no time."""
    frames = walking(160)
    steps = 10 * np.arange(160)
    written = np.r_[0:30, 80:160]
    whole, told = analysed(tmp_path / "whole", frames[80:], steps[80:])
    assert not any("frames are missing" in line for line in told)
    torn, told = analysed(tmp_path / "torn", frames[written], steps[written])
    assert "torn: frames are missing; the molecules' MSD is of frames 30 to 110 of 110" in told[-1]
    for one, other in zip(torn.displacements, whole.displacements, strict=True):
        assert one.d_ang2_per_ps == pytest.approx(other.d_ang2_per_ps)
        np.testing.assert_allclose(one.lag_ps, other.lag_ps)


def energies_of(directory, **options):
    """The energy rows of a run of 30 frames, of which a bond breaks in the 21st."""
    frames = walking(30)
    frames[20:, 1] += 3.0
    steps = 10 * np.arange(30)
    directory.mkdir()
    energy = np.where(np.arange(300) < 200, -30.0, 1e4)
    write_properties(directory / "run.out", np.arange(300), energy, energy, energy)
    liquid, _ = analysed(directory, frames, steps, **options)
    return liquid


def test_no_energy_of_a_molecule_is_of_a_run_that_came_apart(tmp_path):
    liquid = energies_of(tmp_path / "broken")
    assert len(liquid.time_ps) == 20
    assert liquid.energy.value == pytest.approx(-3.0)
    assert len(liquid.energy_ev) == len(liquid.energy_ps) == 200


def test_until_0_leaves_the_first_frame(tmp_path):
    liquid = energies_of(tmp_path / "first", until_ps=0.0)
    assert len(liquid.time_ps) == 1
    assert liquid.energy_ps.tolist() == [0.0]
