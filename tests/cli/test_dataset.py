"""``deltaserver dataset`` from the command line to the files."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from deltaserver.cli.dataset import dataset
from deltaserver.datasets.calculators import calculator_factory, evaluate, nominal_charges
from deltaserver.datasets.files import read_dataset, write_dataset
from deltaserver.datasets.frames import FragmentSpec
from deltaserver.datasets.sampling.dynamics import read_frames
from deltaserver.errors import EXIT_INPUT, DeltaserverError
from deltaserver.textio.journal import read_journal
from deltaserver.textio.xyz_frames import read_frames as read_xyz

pytest.importorskip("ase")
pytest.importorskip("rich")

FRAGMENTS = ["-f", "copper:0-2", "-f", "gold:3,4"]
SHORT = ["-c", "cheap_calculators:SlowEMT", "-n", "4", "--trajectories", "2", "--interval", "2",
         "--equilibrate", "2", "-w", "1"]  # fmt: skip


def run(*arguments):
    """Run ``deltaserver dataset ARGUMENTS``; return what it prints, raise what it raises."""
    result = CliRunner().invoke(dataset, [*map(str, arguments)], catch_exceptions=True)
    if isinstance(result.exception, DeltaserverError):
        raise result.exception
    assert result.exception is None, result.output
    return result.output


def refused(*arguments):
    with pytest.raises(DeltaserverError) as info:
        run(*arguments)
    assert info.value.exit_code == EXIT_INPUT
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.fixture(scope="module")
def built_once(cheap, cluster, tmp_path_factory):
    output = tmp_path_factory.mktemp("built") / "set"
    run("build", cluster, *FRAGMENTS, *SHORT, "-t", "200", "-o", output)
    return output


@pytest.fixture
def built(built_once, tmp_path):
    """A copy of a dataset: every test may change its own."""
    return shutil.copytree(built_once, tmp_path / "set")


def test_frames_in_which_a_molecule_is_torn_are_left_out_and_counted(cheap, tmp_path):
    water = ((0.0, 0.0, 0.0), (0.96, 0.0, 0.0), (-0.24, 0.93, 0.0))
    atoms = [("O", "H", "H")[k] + " {} {} {}".format(*water[k]) for k in range(3)]
    neon = "Ne 0.0 0.0 -4.0"
    start = tmp_path / "start.xyz"
    start.write_text("\n".join(["4", "", neon, *atoms]) + "\n")
    short = ["-n", "20", "--trajectories", "1", "--interval", "1", "--equilibrate", "0", "-w", "1"]
    output = run("build", start, "-f", "neon:0", "-f", "water:1-3", "-c", "cheap_calculators:Torn",
                 "-t", "1", *short, "--time-step", "2", "--no-relax",
                 "-o", tmp_path / "set")  # fmt: skip
    # Not by read_dataset: such forces are no molecule's, and it would say so.
    frames = read_xyz(tmp_path / "set" / "frames.xyz.gz", lambda text: None)
    lengths = np.array([np.linalg.norm(f.positions[3] - f.positions[1]) for f in frames])
    left_out = 20 - len(frames)
    assert 0 < left_out < 20
    assert lengths.max() < 1.4 * 1.3 * (0.66 + 0.31) < lengths.max() + 0.5
    assert f"{left_out} frames left out: a molecule has reacted or is torn" in output
    provenance = yaml.safe_load((tmp_path / "set" / "dataset.yaml").read_text())["provenance"]
    assert provenance["reacted"] == left_out


@pytest.mark.parametrize("option", ["-c", "--label-calculator", "--prepare-calculator"])
def test_a_calculator_that_is_not_known_is_refused_before_anything_is_written(
    cheap, cluster, tmp_path, option
):
    bad = [*SHORT, option, "GFN9"]
    message = refused("build", cluster, *FRAGMENTS, *bad, "-o", tmp_path / "set")
    assert "calculator 'GFN9' is not known" in message
    assert not (tmp_path / "set").exists()


def test_a_file_is_not_labelled_with_a_calculator_that_is_not_known(cluster, tmp_path):
    bad = [*FRAGMENTS, "-c", "GFN9", "-o", tmp_path / "set"]
    assert "calculator 'GFN9' is not known" in refused("label", cluster, *bad)
    assert not (tmp_path / "set").exists()


def test_build_writes_everything(built):
    frames = read_dataset(built)
    assert len(frames) == 4
    assert set(frames.trajectory.tolist()) == {0, 1}
    assert frames.reference == "cheap_calculators:SlowEMT"
    assert [(f.name, f.atoms) for f in frames.fragments] == [
        ("copper", (0, 1, 2)),
        ("gold", (3, 4)),
    ]
    names = {path.name for path in built.glob("*.npz")}
    assert names == {"full.npz", "binding.npz", "noninteracting.npz", "copper.npz", "gold.npz"}
    provenance = yaml.safe_load((built / "dataset.yaml").read_text())["provenance"]
    assert provenance["sampling"]["temperatures"] == [200.0]
    assert provenance["trajectories"][1]["seed"] == [2025, 1]
    assert provenance["trajectories"][1]["start"] == "made for this test"
    assert "ase" in provenance["labels"]["programs"]


def test_build_again_does_nothing_twice_and_more_frames_go_on(built, cluster):
    before = read_dataset(built)
    labels = built / "journal" / "labels.jsonl"
    content = labels.read_bytes()
    run("build", cluster, *FRAGMENTS, *SHORT, "-t", "200", "-o", built)
    assert labels.read_bytes() == content
    run("build", cluster, *FRAGMENTS, *SHORT, "-n", "8", "-t", "200", "-o", built)
    after = read_dataset(built)
    assert len(after) == 8
    assert len(list(read_journal(labels))) == 24
    for m in range(len(before)):
        where = (after.trajectory == before.trajectory[m]) & (after.step == before.step[m])
        np.testing.assert_array_equal(after.positions[where][0], before.positions[m])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["-t", "300"], "was begun with temperatures [200.0], not [300.0]"),
        (["-t", "200", "--interval", "3"], "was begun with interval 2, not 3"),
        (["-t", "200", "-n", "2"], "was begun with frames_per_trajectory 2, not 1"),
        (["-t", "200", "--label-calculator", "GFN-FF"], "labels are from cheap_calculators"),
    ],
)
def test_other_settings_are_refused(built, cluster, options, expected):
    if "GFN-FF" in options:
        pytest.importorskip("xtb")
    assert expected in refused("build", cluster, *FRAGMENTS, *SHORT, *options, "-o", built)


def test_sample_then_label_gives_what_build_gives(built, cluster, tmp_path):
    output = tmp_path / "steps"
    run("sample", cluster, *FRAGMENTS, *SHORT[:-2], "-t", "200", "-o", output)
    assert not (output / "dataset.yaml").exists()
    run("label", output, *SHORT[:2], "-w", "1", "--name", "set")
    assert (output / "frames.xyz.gz").read_bytes() == (built / "frames.xyz.gz").read_bytes()


def test_what_is_labelled_so_far_is_written(built, cluster, tmp_path):
    output = tmp_path / "partial"
    run("sample", cluster, *FRAGMENTS, *SHORT[:-2], "-t", "200", "-o", output)
    assert "nothing is labelled yet" in refused("write", output)
    journal = output / "journal"
    lines = (built / "journal" / "labels.jsonl").read_bytes().splitlines(keepends=True)
    (journal / "labels.jsonl").write_bytes(b"".join(lines[:7]))  # two frames and a bit
    (journal / "calculator.txt").write_text("cheap_calculators:SlowEMT")
    assert "2 frames of 2 trajectories" in run("write", output, "--reference", "EMT")
    assert read_dataset(output).reference == "EMT"


def test_frames_of_a_file_are_labelled_anew(built, tmp_path):
    output = tmp_path / "relabelled"
    file = tmp_path / "given.xyz"
    from ase.io import read, write

    write(file, read(built / "frames.xyz.gz", ":"))
    run("label", file, *FRAGMENTS, *SHORT[:2], "-w", "1", "-o", output)
    ours, theirs = read_dataset(output), read_dataset(built)
    np.testing.assert_array_equal(ours.forces, theirs.forces)
    np.testing.assert_array_equal(ours.trajectory, theirs.trajectory)
    np.testing.assert_array_equal(ours.step, theirs.step)
    assert "expected --fragment and --output" in refused("label", file)
    assert "begin with: deltaserver dataset sample" in refused("label", tmp_path)


def test_merge_keeps_trajectories_apart(built, cluster, tmp_path):
    hot = tmp_path / "hot"
    run("build", cluster, *FRAGMENTS, *SHORT, "-t", "600", "-o", hot, "--reference", "EMT")
    assert "if both are one method, name it" in refused("merge", built, hot, "-o", tmp_path / "m")
    run("merge", built, hot, "-o", tmp_path / "m", "--reference", "EMT")
    merged = read_dataset(tmp_path / "m")
    assert merged.name == "m"
    assert merged.trajectory.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    sources = yaml.safe_load((tmp_path / "m" / "dataset.yaml").read_text())["provenance"]["merged"]
    assert sources[1]["trajectories"] == {0: 2, 1: 3}
    assert sources[1]["provenance"]["sampling"]["temperatures"] == [600.0]


def moved(dataset, tmp_path):
    """The same frames somewhere else, as a dataset of its own."""
    frames = read_dataset(dataset)
    write_dataset(replace(frames, positions=frames.positions + 1.0), tmp_path / "moved")
    return tmp_path / "moved"


def test_merge_leaves_out_frames_that_stand_there_twice(built, tmp_path):
    """One of two trajectories held out, the test would be of what was trained."""
    said = run("merge", built, built, moved(built, tmp_path), "-o", tmp_path / "m")
    assert f"note: {built}: 4 frames that a dataset before it has too are left out" in said
    merged, one = read_dataset(tmp_path / "m"), read_dataset(built)
    assert len(merged) == 2 * len(one)
    assert sorted({*merged.trajectory.tolist()}) == [0, 1, 4, 5]


def test_merge_tells_how_labels_of_one_frame_disagree(built, tmp_path):
    frames = read_dataset(built)
    for name, shift in (("near", 0.004), ("far", 266.0)):
        write_dataset(replace(frames, energy=frames.energy + shift), tmp_path / name)
    said = run("merge", built, tmp_path / "near", "-o", tmp_path / "m")
    assert "too are left out; their energies differ by up to 0.004 eV" in said
    said = refused("merge", built, tmp_path / "far", "-o", tmp_path / "n")
    assert "that a dataset before it has too differ by up to 266 eV" in said


def test_frames_that_one_dataset_has_twice_are_its_own_matter(built, tmp_path):
    """They stand in one trajectory, on one side of any split."""
    frames = read_dataset(built)
    twice = frames.select(np.array([0, 0, 1]))
    write_dataset(replace(twice, step=np.arange(3)), tmp_path / "twice")
    said = run("merge", tmp_path / "twice", moved(built, tmp_path), "-o", tmp_path / "m")
    assert "left out" not in said
    assert len(read_dataset(tmp_path / "m")) == 3 + len(frames)


def test_merge_leaves_out_what_is_bound_too_weakly(built, tmp_path):
    energy = read_dataset(built).binding_energy
    highest = int(np.argmax(energy))
    limit = np.sort(energy)[-2:].mean()
    out = tmp_path / "m"
    run("merge", built, moved(built, tmp_path), "-o", out, f"--max-binding={limit}")
    merged = read_dataset(out)
    np.testing.assert_allclose(merged.binding_energy, np.tile(np.delete(energy, highest), 2))
    assert merged.trajectory.max() == 3  # numbers of trajectories as with these frames
    sources = yaml.safe_load((out / "dataset.yaml").read_text())["provenance"]["merged"]
    assert [(s["frames"], s["left_out"]) for s in sources] == [(3, 1), (3, 1)]
    none = refused("merge", built, "-o", tmp_path / "n", f"--max-binding={energy.min() - 1}")
    assert "no frame's binding energy is below" in none


def test_merge_leaves_out_a_fragment_that_has_come_apart(built, tmp_path):
    frames = read_dataset(built)
    energies = frames.fragment_energies.copy()
    lowest = energies.min(axis=0)
    energies[2, 0] = lowest[0] + 9.0
    shifted = frames.energy + (energies - frames.fragment_energies).sum(axis=1)
    write_dataset(
        replace(frames, energy=shifted, fragment_energies=energies), tmp_path / "torn", {}
    )
    run("merge", tmp_path / "torn", "-o", tmp_path / "m", "--max-strain=8")
    merged = read_dataset(tmp_path / "m")
    np.testing.assert_allclose(merged.energy, np.delete(frames.energy, 2))


def test_check_and_export(built, tmp_path):
    assert "4 frames of 2 trajectories" in run("check", built)
    listed = run("export", built, "-o", tmp_path / "native")
    assert "binding.npz" in listed
    with np.load(tmp_path / "native" / "gold.npz", allow_pickle=False) as native:
        assert native["R"].shape == (4, 2, 3)


def test_complex_of_two_molecules(cheap, tmp_path):
    from ase.io import read

    (tmp_path / "copper.xyz").write_text("3\n\nCu 0 0 0\nCu 2.4 0 0\nCu 1.2 2.1 0\n")
    (tmp_path / "gold.xyz").write_text("2\n\nAu 0 0 0\nAu 0 0 2.5\n")
    files = [tmp_path / "copper.xyz", tmp_path / "gold.xyz", tmp_path / "gold.xyz"]
    start = tmp_path / "start.xyz"
    said = run("complex", *files, "--gap", "2.5", "-o", start)
    assert said.split() == ["--fragment", "copper:0-2", "--fragment", "gold2:3-4", "--fragment",
                            "gold3:5-6"]  # fmt: skip
    distances = read(start).get_all_distances()
    assert 2.5 <= min(distances[:3, 3:].min(), distances[3:5, 5:].min()) < 2.6
    np.testing.assert_allclose(distances[3, 4], 2.5, atol=1e-6)
    run("build", start, *said.split(), *SHORT, "-o", tmp_path / "set")
    assert [f.name for f in read_dataset(tmp_path / "set").fragments] == [
        "copper",
        "gold2",
        "gold3",
    ]
    assert "no such file" in refused("complex", tmp_path / "no.xyz", "-o", start)
    told = files[1].read_text()
    assert "would overwrite what is read" in refused("complex", *files, "-o", files[1])
    assert files[1].read_text() == told


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-f", "copper:0-2"], "no fragment has atoms 3-4"),
        (["-f", "copper:0-2", "-f", "gold:2-4"], "atom 2 is in fragment 'copper' and in 'gold'"),
        (["-f", "copper:0-2", "-f", "gold:3-5"], "has atom 5; the complex has atoms 0-4"),
        (["-f", "copper:0-2", "-f", "gold:4-3"], "range '4-3' runs backwards"),
        (["-f", "copper"], "expected NAME:ATOMS"),
        (["-f", "binding:0-4"], "fragment name 'binding'"),
        (["-f", "copper:0-4:much"], "--fragment copper:0-4:much"),
        ([*FRAGMENTS, "-c", "GFN3"], "calculator 'GFN3' is not known"),
        ([*FRAGMENTS, "-c", "no.such:Thing"], "calculator 'no.such:Thing' cannot be imported"),
        ([*FRAGMENTS, "-c", "math:pi"], "is no class or function"),
        ([*FRAGMENTS, "--wall", "far"], "--wall far: expected a distance"),
    ],
)
def test_bad_input_is_one_line(cluster, tmp_path, arguments, expected):
    assert expected in refused("build", cluster, *arguments, "-o", tmp_path / "set")
    assert not (tmp_path / "set" / "dataset.yaml").exists()


def test_bad_structures(cluster, tmp_path):
    other = tmp_path / "other.xyz"
    other.write_text(cluster.read_text().replace("Cu 1.2", "Ag 1.2"))
    options = [*FRAGMENTS, "-c", "ase.calculators.emt:EMT", "-o", tmp_path / "set"]
    assert "atom 2 is Ag; the first structure has Cu" in refused("build", cluster, other, *options)
    assert "no such file" in refused("build", tmp_path / "nowhere.xyz", *options)
    other.write_text("3\nnothing here\n")
    assert "frame 0 cannot be read: line 1: the frame is cut short" in refused(
        "build", other, *options
    )


def test_wall_is_the_start_and_two_angstrom(cheap, cluster, tmp_path):
    run("sample", cluster, *FRAGMENTS, *SHORT[:-2], "-o", tmp_path / "auto")
    run("sample", cluster, *FRAGMENTS, *SHORT[:-2], "--wall", "none", "-o", tmp_path / "none")
    import json

    plans = [
        json.loads((tmp_path / name / "journal" / "settings.json").read_text())["plan"]
        for name in ("auto", "none")
    ]
    assert plans[0]["wall_distance"] == pytest.approx(5.21, abs=0.01)
    assert plans[1]["wall_distance"] is None


NITRATE = (
    np.array([7, 8, 8, 8, 2]),
    np.array([[0, 0, 0], [1.25, 0, 0], [-0.625, 1.083, 0], [-0.625, -1.083, 0], [0, 0, 4.0]]),
)


@pytest.mark.parametrize("name", ["GFN2-xTB", "GFN1-xTB"])
def test_xtb_takes_the_charge(name):
    pytest.importorskip("xtb")
    numbers, positions = NITRATE
    factory = calculator_factory(name)
    neutral = np.zeros(5, dtype=int)
    anion = nominal_charges(5, (FragmentSpec("no3", (0, 1, 2, 3), -1), FragmentSpec("he", (4,))))
    assert anion.tolist() == [-1, 0, 0, 0, 0]
    energies = [evaluate(factory, numbers, positions, charges)[0] for charges in (neutral, anion)]
    assert energies[1] < energies[0] - 2.0


def test_gfnff_gives_the_charge_to_the_fragment_that_has_it():
    pytest.importorskip("xtb")
    numbers, positions = NITRATE
    order = np.array([4, 0, 1, 2, 3])  # helium first: libxtb would charge it
    factory = calculator_factory("GFN-FF")
    first, forces = evaluate(factory, numbers, positions, np.array([-1, 0, 0, 0, 0]))
    last, moved = evaluate(factory, numbers[order], positions[order], np.array([0, -1, 0, 0, 0]))
    assert last == pytest.approx(first, abs=1e-8)
    np.testing.assert_allclose(moved, forces[order], atol=1e-8)


def test_gfnff_samples_a_charged_complex_behind_a_wall(tmp_path):
    pytest.importorskip("xtb")
    numbers, positions = NITRATE
    from ase import Atoms
    from ase.io import write

    write(tmp_path / "pair.xyz", Atoms(numbers, positions))
    fragments = ["-f", "nitrate:0-3:-1", "-f", "helium:4"]
    run("sample", tmp_path / "pair.xyz", *fragments, "-c", "GFN-FF", *SHORT[2:-2], "--wall", "3.5",
        "-o", tmp_path / "set")  # fmt: skip
    assert len(read_frames(tmp_path / "set" / "journal" / "sampling.jsonl")) == 4


def test_a_model_directory_samples(tmp_path):
    model = Path(__file__).resolve().parents[2] / "models" / "benzene_dimer"
    if not (model / "binding.npz").is_file():
        pytest.skip("no trained model in this checkout")
    from deltaserver.model.composite import CompositeModel

    numbers = CompositeModel.load(model).numbers
    positions = np.random.default_rng(0).normal(scale=3.0, size=(len(numbers), 3))
    charges = np.zeros(len(numbers), dtype=int)
    energy, forces = evaluate(calculator_factory(str(model)), numbers, positions, charges)
    direct = CompositeModel.load(model).evaluate(positions)
    assert energy == pytest.approx(float(direct.energy))
    np.testing.assert_allclose(forces, direct.forces)


def test_pyscf_by_name():
    pytest.importorskip("pyscf")
    pytest.importorskip("pyscf.dispersion")
    hydrogen = np.array([1, 1])
    factory = calculator_factory("PBE-D4/sto-3g")
    energies = []
    for length in (0.9 - 1e-3, 0.9 + 1e-3, 0.9):
        positions = np.array([[0, 0, 0], [0, 0, length]])
        energies.append(evaluate(factory, hydrogen, positions, np.array([0, 0])))
    slope = -(energies[1][0] - energies[0][0]) / 2e-3
    assert energies[2][1][1, 2] == pytest.approx(slope, abs=1e-3)


def test_real_xtb_dataset(tmp_path):
    pytest.importorskip("xtb")
    path = tmp_path / "pair.xyz"
    path.write_text("4\n\nH 0 0 0\nH 0 0 0.75\nHe 0 0 3.2\nHe 3.0 0 3.2\n")
    fragments = ["-f", "h2:0-1", "-f", "he2:2-3"]
    run("build", path, *fragments, "-t", "50", *SHORT[2:], "-o", tmp_path / "set")
    frames = read_dataset(tmp_path / "set")
    assert frames.reference == "GFN2-xTB"
    assert abs(frames.binding_energy).max() < 0.1
