import json

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from deltaserver.analysis import workflow
from deltaserver.analysis.measure import free_energy
from deltaserver.analysis.read.contributions import Series
from deltaserver.analysis.read.directory import find_runs
from deltaserver.analysis.reading import Notes, evenly_spaced
from deltaserver.analysis.results import Options
from deltaserver.analysis.show.figures import EnergyUnit
from deltaserver.analysis.show.summary import summary_of, text_of
from deltaserver.bias.coordinate import Coordinate
from deltaserver.bias.settings import Bias
from deltaserver.bias.terms import Spring
from deltaserver.errors import DataError
from deltaserver.simulate.ipi.bias import forcefield
from deltaserver.units import KB_EV_PER_K
from tests.analysis.written import (
    FRAGMENTS,
    INPUT,
    POSITIONS,
    SYMBOLS,
    free_rotation,
    ipi_text,
    ornstein_uhlenbeck,
    turned,
    write_properties,
    write_run,
)


def moving(n, seed=1, sigma=0.2):
    """Water and methane whose distance is harmonic about 4 Å, methane turning freely."""
    frames = turned(POSITIONS, FRAGMENTS["methane"], free_rotation(n, 1e-3, seed))
    away = ornstein_uhlenbeck(n, 1, sigma, 3, seed)
    frames[:, 3:, 2] += away
    return frames


def analysed(paths, parts=workflow.PARTS, **options):
    told = []
    found = workflow.analyse(find_runs(paths), Options(**options), parts, told.append)
    return found, told


def test_a_run_from_its_directory(tmp_path):
    n = 2000
    directory = write_run(tmp_path / "300K", moving(n), np.arange(0, 20 * n, 20))
    rng = np.random.default_rng(2)
    write_properties(
        directory / "run.out", np.arange(0, 20 * n, 10), rng.normal(size=2 * n),
        300 + rng.normal(size=2 * n), rng.normal(size=2 * n),
    )  # fmt: skip
    analysis, told = analysed([directory])
    (found,) = analysis.runs
    assert not analysis.problems
    assert told == [analysis.notes[0]]
    assert "fragment1 (3 atoms), fragment2 (5 atoms)" in told[0]
    assert found.frame_ps == pytest.approx(0.01)
    assert found.time_ps[-1] == pytest.approx((n - 1) * 0.01)
    ((_, surface),) = found.surfaces
    assert surface.temperature_k == 300.0
    assert surface.centres[0][np.nanargmin(surface.free_energy_ev)] == pytest.approx(4.05, abs=0.2)
    assert found.msads["fragment1"].n_frames == n
    assert found.thermo.drift.n_atoms == 8
    assert found.thermo.temperature.expected_std_k == pytest.approx(300 * np.sqrt(2 / 21))
    assert found.pairs[0].n_frames == 2000 // 2
    assert found.broken is None


def test_a_harmonic_well_from_a_trajectory(tmp_path):
    """F of the distance is ½kx², k = kT/σ², within its error bars."""
    n, sigma = 20_000, 0.15
    directory = write_run(tmp_path / "r", moving(n, 3, sigma), np.arange(n))
    analysis, _ = analysed([directory], ("fes",), bins=24)
    surface = analysis.runs[0].surfaces[0][1]
    away = surface.centres[0] - 4.0 - (POSITIONS[0] * 16 + POSITIONS[1] + POSITIONS[2])[2]
    kt = KB_EV_PER_K * 300.0
    away = surface.centres[0] - np.average(
        surface.centres[0], weights=np.nan_to_num(np.exp(-surface.free_energy_ev / kt))
    )
    known = np.isfinite(surface.error_ev) & (np.abs(away) < 2.5 * sigma)
    difference = (surface.free_energy_ev - kt * away**2 / (2 * sigma**2))[known]
    pull = (difference - difference.mean()) / surface.error_ev[known]
    assert np.sqrt(np.mean(pull**2)) < 2.0


def test_runs_of_a_sweep_share_their_bins(tmp_path):
    for kelvin, sigma in ((100, 0.1), (300, 0.3)):
        write_run(tmp_path / f"{kelvin}K", moving(500, 1, sigma), range(500), kelvin=kelvin)
    analysis, _ = analysed([tmp_path], ("fes",))
    cold, warm = (found.surfaces[0][1] for found in analysis.runs)
    assert np.array_equal(cold.edges[0], warm.edges[0])
    assert (cold.temperature_k, warm.temperature_k) == (100.0, 300.0)
    assert np.isnan(cold.free_energy_ev).sum() > np.isnan(warm.free_energy_ev).sum()


def test_start_and_end_can_be_left_out(tmp_path):
    directory = write_run(tmp_path / "r", moving(100), range(0, 2000, 20))
    analysis, _ = analysed([directory], ("variables",), skip_ps=0.1, until_ps=0.5)
    assert analysis.runs[0].surveyed.steps[[0, -1]].tolist() == [200, 1000]
    with pytest.raises(DataError, match="no frames from 5 ps on; it has 100 whole frames"):
        analysed([directory], ("variables",), skip_ps=5.0)


def write_window(directory, n_frames=100):
    """A window of 600 steps of way, and a frame every 20 steps."""
    write_run(directory, moving(n_frames), range(0, 20 * n_frames, 20))
    between = Coordinate("R_CM", ((0, 1, 2), (3, 4, 5, 6, 7)), ((1.0,) * 3, (1.0,) * 5))
    path = directory / "input.xml"
    window = forcefield(Bias(between, Spring(4.0, 1.0, 3.0, pull_steps=600)))
    path.write_text(path.read_text().replace("  <system>", f"{window}\n  <system>"))
    return directory


def test_a_window_that_has_hardly_begun_does_not_keep_the_others_waiting(tmp_path):
    long, short = write_window(tmp_path / "long"), write_window(tmp_path / "short", 30)
    analysis, told = analysed([long, short], ("variables",), skip_ps=0.1)
    assert [one.run.directory.name for one in analysis.runs] == ["long"]
    assert any("no frames from 0.1 ps on" in line and "is left out" in line for line in told)
    for skip_ps in (0.0, 0.1):
        expected = rf"no frames from {skip_ps:g} ps on after its pulling phase; it has 30 whole"
        with pytest.raises(DataError, match=expected):
            analysed([short], ("variables",), skip_ps=skip_ps)


def test_of_a_window_the_start_is_left_out_after_its_way(tmp_path):
    directory = write_window(tmp_path / "r")
    for skip_ps, first in ((0.0, 600), (0.1, 600 + 200)):
        analysis, _ = analysed([directory], ("variables",), skip_ps=skip_ps)
        assert analysis.runs[0].surveyed.steps[0] == first


def test_a_broken_bond_ends_the_analysis(tmp_path):
    frames = moving(300)
    frames[200:, 4] += 3.0
    directory = write_run(tmp_path / "r", frames, range(0, 600, 2))
    analysis, told = analysed([directory], ("variables", "fes"))
    (found,) = analysis.runs
    assert found.broken.step == 400
    assert found.broken.time_ps == pytest.approx(0.2)
    assert len(found.surveyed.steps) == 200
    assert any("at step 400 (0.200 ps); the 100 frames from there on are left out" in t
               for t in told)  # fmt: skip


def test_positions_that_are_no_numbers_end_it_too(tmp_path):
    frames = moving(100)
    frames[60:] = np.nan
    analysis, _ = analysed([write_run(tmp_path / "r", frames, range(100))])
    assert len(analysis.runs[0].surveyed.steps) == 60
    frames[0] = np.nan
    with pytest.raises(DataError, match="the first frame has positions that are not numbers"):
        analysed([write_run(tmp_path / "s", frames, range(100))])


def test_atoms_out_of_range_are_left_out_and_the_rest_is_done(tmp_path):
    definitions = tmp_path / "d.yaml"
    definitions.write_text(
        "format: deltaserver-analysis/1\nvariables:\n"
        "  - {name: good, kind: distance, groups: [0, 3]}\n"
        "  - {name: bad, kind: distance, groups: [0, 8]}\n"
        "msad: [{guest: '0-9'}]\nrdf: [{groups: ['0-2', '9']}]\n"
    )
    directory = write_run(tmp_path / "r", moving(100), range(100))
    analysis, told = analysed([directory], definitions=definitions)
    assert [v.name for v in analysis.runs[0].definitions.variables] == ["good"]
    assert [spec.name for spec, _ in analysis.runs[0].surfaces] == ["fes_good"]
    assert len(analysis.problems) == 3
    assert analysis.problems[0].startswith("variable bad: atom 8 is out of range; the trajectory")
    assert set(analysis.problems) <= set(told)


def test_of_what_stands_on_a_line_the_axis_is_followed(tmp_path):
    definitions = tmp_path / "d.yaml"
    definitions.write_text("format: deltaserver-analysis/1\nmsad: [{guest: '0-1'}]\n")
    directory = write_run(tmp_path / "r", moving(100), range(100))
    analysis, told = analysed([directory], definitions=definitions)
    (found,) = analysis.runs[0].msads.values()
    assert found.diffusion.n_dof == 2
    assert any("a linear molecule; the rotation of its axis" in line for line in told)


def test_a_host_on_a_line_has_no_frame_of_its_own(tmp_path):
    definitions = tmp_path / "d.yaml"
    definitions.write_text("format: deltaserver-analysis/1\nmsad: [{guest: '3-7', host: '0-1'}]\n")
    directory = write_run(tmp_path / "r", moving(100), range(100))
    analysis, _ = analysed([directory], definitions=definitions)
    assert not analysis.runs[0].msads
    assert "stand on a line" in analysis.problems[0]


def test_a_guest_that_spins_about_its_own_axis_does_not_turn(tmp_path):
    """CO2 bends in every frame; turned about its axis at random it is where it was."""
    rng = np.random.default_rng(7)
    co2 = np.array([[0.0, 0.0, -1.16], [0.0, 0.0, 0.0], [0.0, 0.0, 1.16]])
    complex_ = np.concatenate([POSITIONS, co2 + np.array([6.0, 0.0, 0.0])])
    frames = np.repeat(complex_[None], 400, axis=0)
    bent = co2 + rng.normal(0.0, 0.05, (400, 3, 3))
    spin = Rotation.from_rotvec(np.outer(rng.uniform(0, 2 * np.pi, 400), [0.0, 0.0, 1.0]))
    frames[:, 8:] = bent @ spin.as_matrix().swapaxes(-1, -2) + [6.0, 0.0, 0.0]
    path = tmp_path / "co2.xyz"
    path.write_text(ipi_text(frames, range(400), symbols=(*SYMBOLS, "O", "C", "O")))
    definitions = tmp_path / "d.yaml"
    definitions.write_text("format: deltaserver-analysis/1\nmsad: [{guest: '8-10', host: '0-7'}]\n")
    analysis, _ = analysed([path], ("msad",), definitions=definitions, timestep_fs=1.0)
    (found,) = analysis.runs[0].msads.values()
    assert found.diffusion.n_dof == 2
    # Two ends, each of 0.05 Å across at ±1.16 Å: 2·2·0.05²/2/1.16² rad² between two frames.
    assert found.net.value == pytest.approx(2.0 * 2.0 * 0.05**2 / 2.0 / 1.16**2, rel=0.2)


def test_frames_too_far_apart_are_told_with_what_to_do(tmp_path):
    frames = turned(POSITIONS, FRAGMENTS["water"], free_rotation(400, 0.4, 2))
    directory = write_run(tmp_path / "r", frames, range(0, 40_000, 100))
    analysis, told = analysed([directory], ("msad",))
    assert analysis.runs[0].msads["fragment1"].aliased
    (line,) = (t for t in told if "rad RMS from frame to frame" in t)
    assert "write positions every" in line
    assert "(now 50 fs)" in line


def test_a_gap_leaves_the_longest_stretch(tmp_path):
    steps = np.concatenate([np.arange(0, 100), np.arange(200, 400)])
    directory = write_run(tmp_path / "r", moving(300), steps)
    analysis, told = analysed([directory], ("msad",))
    assert analysis.runs[0].msads["fragment1"].n_frames == 200
    assert any("the MSAD is of frames 100 to 300 of 300" in t for t in told)
    assert evenly_spaced(np.array([5])) == slice(0, 1)


def test_without_time_step_or_temperature(tmp_path):
    path = tmp_path / "t.xyz"
    path.write_text(ipi_text(moving(200), range(200)))
    analysis, _ = analysed([path])
    assert analysis.problems == (
        "t.xyz: no temperature is known; give --temperature for the FES",
        "t.xyz: no time step is known; give --timestep for the MSAD",
    )
    analysis, _ = analysed([path], temperature_k=200.0, timestep_fs=2.0)
    assert not analysis.problems
    assert analysis.runs[0].frame_ps == pytest.approx(2e-3)


def test_surfaces_that_are_asked_for(tmp_path):
    directory = write_run(tmp_path / "r", moving(200), range(200))
    analysis, _ = analysed([directory], ("fes",), variables=("R_CM",), ranges=((3.0, 5.0),),
                           bins=10, jacobian="remove")  # fmt: skip
    ((spec, surface),) = analysis.runs[0].surfaces
    assert surface.edges[0] == pytest.approx(np.linspace(3, 5, 11))
    assert (spec.jacobian, surface.jacobian) == ("remove", "remove")
    for given, message in (
        ({"variables": ("q",)}, "no variable 'q'; there are: R_CM"),
        ({"variables": ("R_CM", "R_CM")}, "expected one, or two that differ"),
        ({"ranges": ((1.0, 2.0),)}, "give the --variable"),
    ):
        with pytest.raises(DataError, match=message):
            analysed([directory], ("fes",), **given)
    analysis, _ = analysed([directory], ("fes",), variables=("R_CM",), ranges=((30.0, 50.0),))
    assert "no frame lies within the bins" in analysis.problems[0]


def test_the_jacobian_of_an_angle_of_planes_is_told(tmp_path):
    directory = write_run(tmp_path / "r", moving(200), range(200))
    definitions = tmp_path / "d.yaml"
    definitions.write_text(
        "format: deltaserver-analysis/1\n"
        "variables: [{name: tilt, kind: plane_angle, groups: ['0-2', '3-5']}]\n"
    )
    analysis, _ = analysed([directory], ("fes",), definitions=definitions, jacobian="remove")
    (told,) = summary_of(analysis.runs[0], EnergyUnit("eV"))["fes"]
    assert told["jacobian_of"] == {"tilt": "sin(theta)"}


def test_a_model_of_another_size(tmp_path, model_directory):
    frames = np.repeat(POSITIONS[None], 3, axis=0)[:, :3]
    path = tmp_path / "t.xyz"
    path.write_text(ipi_text(frames, range(3), symbols=("O", "H", "H")))
    with pytest.raises(DataError, match=r"a model of 7 atoms, but t\.xyz has 3"):
        analysed([path], models=model_directory)


def log_of(energies):
    lines = [
        json.dumps(
            {"event": "step", "seq": k, "energy_ev": e, "fragments": {},
             "binding": {"energy_ev": e, "force_rms_ev_per_ang": 0.1}}
        )
        for k, e in enumerate(energies)
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def test_a_log_that_does_not_match_is_left_out(tmp_path):
    directory = write_run(tmp_path / "r", moving(100), range(100))
    rng = np.random.default_rng(3)
    potential = -7000 + rng.normal(size=100)
    write_properties(directory / "run.out", range(100), potential, potential, potential)
    (directory / "deltaserver.jsonl").write_text(log_of(potential))
    analysis, _ = analysed([directory], ("contributions",))
    assert set(analysis.runs[0].contributions) == {"total", "binding"}
    (directory / "deltaserver.jsonl").write_text(log_of(-7000 + rng.normal(size=100)))
    analysis, _ = analysed([directory], ("contributions",))
    assert not analysis.runs[0].contributions
    assert "does not match" in analysis.problems[0]
    (directory / "deltaserver.jsonl").write_text("{}\n")
    analysis, _ = analysed([directory], ("contributions",))
    assert "no step events" in analysis.problems[0]


def test_parts_that_are_served_in_turn_are_no_other_run_s(tmp_path):
    """As in multiple time stepping: no line of the log has the potential, and all are kept."""
    directory = write_run(tmp_path / "r", moving(100), range(100))
    potential = np.linspace(-7000.0, -6999.0, 100)
    write_properties(directory / "run.out", range(100), potential, potential, potential)
    part = {"energy_ev": -1.0, "force_rms_ev_per_ang": 0.1}
    lines = [
        {"event": "step", "seq": k, "energy_ev": -1.0}
        | ({"fragments": {}, "binding": part} if k % 2 else {"fragments": {"one": part}})
        for k in range(40)
    ]
    (directory / "deltaserver.jsonl").write_text("".join(json.dumps(d) + "\n" for d in lines))
    analysis, _ = analysed([directory], ("contributions",))
    assert not analysis.problems
    assert {name: len(part.seq) for name, part in analysis.runs[0].contributions.items()} == {
        "total": 40, "one": 20, "binding": 20,
    }  # fmt: skip


def test_matching_allows_for_strides_restarts_and_i_pis_electronvolt():
    energy = -7377.0 + np.random.default_rng(4).normal(size=500)
    total = Series(np.arange(500), *[energy] * 4)
    assert workflow.matching(total, np.arange(500), energy * (1 + 1e-7)) == 1.0
    assert workflow.matching(total, np.arange(0, 500, 10), energy[::10]) == 1.0
    shifted = np.concatenate([energy[:200], energy[201:]])
    assert workflow.matching(total, np.arange(499), shifted) > 0.5
    assert workflow.matching(total, np.arange(500), energy[::-1]) < 0.1
    assert workflow.matching(total, np.arange(9000, 9100), energy[:100]) == 0.0


def write_exchange(directory, temperatures):
    """Two systems that swap 100 and 200 K; a frame's distance is 3 Å at 100 K, 4 Å at 200 K."""
    whole = INPUT.format(kelvin=1, timestep=0.5, beads=1)
    start, end = whole.index("  <system>"), whole.index("</simulation>")
    systems = '<smotion mode="remd"/>' + "".join(f'<system prefix="{k}"/>' for k in range(2))
    directory.mkdir()
    (directory / "input.xml").write_text(whole[:start] + systems + whole[end:])
    head = "# column   1     --> step : .\n# column   2     --> ensemble_temperature{kelvin} : .\n"
    for k, kelvin in enumerate(temperatures):
        frames = np.repeat(POSITIONS[None], len(kelvin), axis=0)
        frames[:, 3:, 2] += (np.array(kelvin) / 100.0 - 2.0)[:, None]
        (directory / f"{k}_run.pos_0.xyz").write_text(ipi_text(frames, range(len(kelvin))))
        rows = "".join(f" {step} {t}\n" for step, t in enumerate(kelvin))
        (directory / f"{k}_run.out").write_text(head + rows)
    return directory


def test_replica_exchange_is_sorted_by_temperature(tmp_path):
    swaps = np.random.default_rng(5).integers(0, 2, size=60).astype(bool)
    first, second = np.where(swaps, 100.0, 200.0), np.where(swaps, 200.0, 100.0)
    directory = write_exchange(tmp_path / "remd", (first, second))
    analysis, told = analysed([directory], ("variables", "fes", "rdf", "msad"))
    cold, warm = analysis.runs
    assert (cold.run.temperature_k, warm.run.temperature_k) == (100.0, 200.0)
    assert np.array_equal(cold.surveyed.steps, np.arange(60))
    assert np.ptp(cold.values_of("R_CM")) == pytest.approx(0.0, abs=1e-9)
    assert warm.values_of("R_CM").mean() - cold.values_of("R_CM").mean() == pytest.approx(
        1.0, abs=0.02
    )
    assert not cold.msads
    assert cold.surveyed.sampled.positions.shape == (60, 8, 3)
    assert any("no MSAD" in line for line in told)


def test_a_ramp_has_no_surface(tmp_path):
    kelvin = np.linspace(100, 200, 60)
    directory = write_exchange(tmp_path / "ramp", (kelvin, kelvin))
    analysis, told = analysed([directory], ("variables", "fes"))
    assert not analysis.runs[0].surfaces
    assert any("the temperature is ramped" in line for line in told)


def test_an_exchange_without_its_temperatures_stays_by_system(tmp_path):
    directory = write_exchange(tmp_path / "remd", ([100.0] * 9, [200.0] * 9))
    (directory / "1_run.out").unlink()
    analysis, _ = analysed([directory], ("variables",))
    assert len(analysis.runs) == 2
    assert "frames stay by system" in analysis.problems[0]


def test_notes_are_told_once():
    told = []
    notes = Notes(told.append)
    for _ in range(2):
        notes.note("a")
        notes.problem("b")
    assert told == ["a", "b"]


def test_beads_all_or_their_centroid(tmp_path):
    directory = write_run(tmp_path / "r", moving(100), range(100), beads=2)
    text = (directory / "run.pos_0.xyz").read_text()
    (directory / "run.pos_1.xyz").write_text(text)
    every, _ = analysed([directory], ("variables", "fes"))
    assert every.runs[0].surveyed.values.shape == (100, 2, 1)
    assert every.runs[0].surfaces[0][1].n_samples == 200
    centroid, _ = analysed([directory], ("variables",), beads="centroid")
    assert centroid.runs[0].surveyed.values.shape == (100, 1, 1)
    assert free_energy.N_RESAMPLES == 200


def test_a_run_too_short_for_an_msad_is_a_fault_only_if_it_was_asked_for(tmp_path):
    directory = write_run(tmp_path / "r", moving(10), range(10))
    analysis, told = analysed([directory])
    assert not analysis.problems
    assert any("10 frames are too few for an MSAD; expected 20 or more" in line for line in told)
    analysis, _ = analysed([directory], ("msad",))
    assert len(analysis.problems) == 1
    directory = write_run(tmp_path / "one", moving(1), range(1))
    analysis, told = analysed([directory])  # of which the time between frames is not known
    assert not analysis.problems
    assert any("1 frames are too few for an MSAD; expected 20 or more" in line for line in told)


PEROXIDE = ("H", "O", "O", "H")


def turning(degrees):
    """H2O2 whose dihedral is as given, frame by frame."""
    phi = np.radians(degrees)
    frames = np.zeros((len(phi), 4, 3))
    frames[:, 0] = [1.0, 0.0, 0.9]
    frames[:, 1, 2], frames[:, 2, 2] = 0.7, -0.7
    frames[:, 3] = np.stack([np.cos(phi), -np.sin(phi), np.full(len(phi), -0.9)], axis=1)
    return frames


def dihedral_of(tmp_path, degrees):
    path = tmp_path / f"{degrees[0]:.3f}.xyz"
    path.write_text(ipi_text(turning(degrees), range(len(degrees)), symbols=PEROXIDE))
    definitions = tmp_path / "phi.yaml"
    definitions.write_text(
        "format: deltaserver-analysis/1\nvariables:\n"
        "  - {name: phi, kind: dihedral, groups: ['0', '1', '2', '3']}\n"
        "fes:\n  - {variables: [phi]}\n"
    )
    analysis, _ = analysed([path], ("fes", "variables"), definitions=definitions,
                           temperature_k=300.0, bins=20)  # fmt: skip
    return analysis.runs[0]


@pytest.mark.parametrize("centre", [180.0, -175.0, 120.0])
def test_a_dihedral_across_the_seam_is_what_it_is_elsewhere(tmp_path, centre):
    wobble = np.random.default_rng(2).normal(0.0, 10.0, 2000)
    here, there = (dihedral_of(tmp_path, wobble + at) for at in (0.0, centre))
    unit = EnergyUnit("eV")
    told, expected = (summary_of(f, unit)["variables"]["phi"] for f in (there, here))
    assert abs((told["mean"] - centre - expected["mean"] + 180.0) % 360.0 - 180.0) < 0.01
    for key in ("std", "error", "independent_frames"):
        assert told[key] == pytest.approx(expected[key], rel=0.02)
    assert told["std"] == pytest.approx(10.0, rel=0.05)
    assert told["max"] - told["min"] == pytest.approx(expected["max"] - expected["min"], abs=0.01)
    surfaces = [found.surfaces[0][1] for found in (there, here)]
    assert np.ptp(surfaces[0].edges[0]) == pytest.approx(np.ptp(surfaces[1].edges[0]), abs=0.01)
    for surface in surfaces:
        assert np.isfinite(surface.free_energy_ev[5:-5]).all()
        assert surface.kept == 1.0


def blown_up(tmp_path, n_sound=400, n_wild=12):
    """A run whose last frames drift apart, its bonds stretching until they break."""
    frames = moving(n_sound + n_wild)
    grown = 0.02 * np.arange(1.0, n_wild + 1)[:, None] ** 2
    frames[n_sound:, 4] += grown
    frames[n_sound:, 3:, 2] += 5.0 * grown
    n = len(frames)
    directory = write_run(tmp_path / "r", frames, range(n))
    record = {"status": "blown up", "reason": "the bond C3–H4 is 2.95 Å long", "step": n - 1}
    (directory / "run.json").write_text(json.dumps(record))
    energies = np.where(np.arange(n) < n_sound + 4, 1.0, 1e4)
    lines = [
        {"event": "step", "seq": k, "energy_ev": e, "force_rms_ev_per_ang": 1.0,
         "fragments": {"water": {"energy_ev": e, "force_rms_ev_per_ang": 1.0}}}
        for k, e in enumerate(energies)
    ]  # fmt: skip
    log = directory / "deltaserver.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return directory


def test_no_mean_holds_the_explosion_of_a_run_that_blew_up(tmp_path):
    analysis, _ = analysed([blown_up(tmp_path)])
    (found,) = analysis.runs
    assert found.broken.step in range(400, 404)
    sound, _ = analysed([write_run(tmp_path / "s", moving(412)[:400], range(400))])
    unit = EnergyUnit("eV")
    told, expected = (summary_of(f, unit) for f in (found, sound.runs[0]))
    for name, values in expected["variables"].items():
        for key in ("mean", "std"):
            assert told["variables"][name][key] == pytest.approx(values[key], rel=0.05)
        # the explosion goes on to 4 + 14 Å
        assert told["variables"][name]["max"] < values["max"] + 4.0 * values["std"]
    assert found.contributions["total"].energy.max() == 1.0
    assert told["status"] == "blown up"
    text = text_of(analysis, unit).splitlines()
    assert text[1].strip() == "blown up: the bond C3–H4 is 2.95 Å long"
    assert f"before step {found.broken.step}" in text[2]


def test_a_sound_run_is_left_whole(tmp_path):
    directory = write_run(tmp_path / "r", moving(500), range(500))
    for status in ("finished", "blown up"):
        (directory / "run.json").write_text(json.dumps({"status": status, "reason": "drift"}))
        analysis, _ = analysed([directory], ("variables",))
        assert len(analysis.runs[0].surveyed.steps) == 500


def write_log_of_two(directory, energies):
    """One log of two systems, (2, T): either first in a step; the first step is one structure."""
    rng = np.random.default_rng(6)
    pairs = [rng.permutation(pair) for pair in np.transpose(energies)]
    (directory / "deltaserver.jsonl").write_text(log_of([pairs[0][0], *np.ravel(pairs[1:])]))


def test_of_systems_with_one_log_each_has_its_own_contributions(tmp_path):
    """As of --replicas: half of the log is another run's, and means are of one temperature."""
    directory = write_exchange(tmp_path / "side_by_side", ([100.0] * 60, [200.0] * 60))
    text = (directory / "input.xml").read_text()
    (directory / "input.xml").write_text(text.replace('<smotion mode="remd"/>', ""))
    energies = -7000.0 + np.random.default_rng(7).normal(size=(2, 60)) + [[0.0], [5.0]]
    energies[1, 0] = energies[0, 0]
    for k, energy in enumerate(energies):
        write_properties(directory / f"{k}_run.out", range(60), energy, energy, energy)
    write_log_of_two(directory, energies)
    analysis, _ = analysed([directory], ("contributions",))
    assert not analysis.problems
    for one, energy in zip(analysis.runs, energies, strict=True):
        found = one.contributions["binding"].energy
        assert np.allclose(found[-59:], energy[1:], atol=1e-3)
    write_log_of_two(directory, energies + 1.0)
    analysis, told = analysed([directory], ("contributions",))
    assert not any(one.contributions for one in analysis.runs)
    assert any("do not tell which structures" in line for line in told)


def test_contributions_of_an_exchange_are_those_of_a_temperature(tmp_path):
    swaps = np.random.default_rng(5).integers(0, 2, size=60).astype(bool)
    kelvin = np.array([np.where(swaps, 100.0, 200.0), np.where(swaps, 200.0, 100.0)])
    directory = write_exchange(tmp_path / "remd", kelvin)
    energies = -7000.0 + 0.05 * kelvin + np.random.default_rng(8).normal(size=(2, 60))
    head = "# column   1     --> step : .\n# column   2     --> ensemble_temperature{kelvin} : .\n"
    head += "# column   3     --> potential{electronvolt} : .\n"
    for k in range(2):
        rows = zip(range(60), kelvin[k], energies[k], strict=True)
        (directory / f"{k}_run.out").write_text(
            head + "".join(f" {step} {t} {e:.8e}\n" for step, t, e in rows)
        )
    write_log_of_two(directory, energies)
    analysis, _ = analysed([directory], ("contributions",))
    cold, warm = (one.contributions["total"].energy for one in analysis.runs)
    assert np.allclose(np.sort(cold)[-50:], np.sort(energies[kelvin == 100.0])[-50:], atol=1e-3)
    assert np.allclose(np.sort(warm)[-50:], np.sort(energies[kelvin == 200.0])[-50:], atol=1e-3)
