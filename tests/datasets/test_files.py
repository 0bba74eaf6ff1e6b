"""Datasets on disk: what is written comes back, and what is wrong is refused in one line."""

import gzip
from dataclasses import replace

import numpy as np
import pytest
import yaml

from deltaserver.datasets.files import read_dataset, rounded, write_dataset
from deltaserver.datasets.frames import FragmentSpec, check_partition
from deltaserver.datasets.native import native_datasets
from deltaserver.errors import EXIT_INPUT, DataError
from deltaserver.units import KCAL_PER_MOL_EV

pytest.importorskip("ase")

ARRAYS = (
    "numbers", "positions", "energy", "forces", "fragment_energies", "fragment_forces",
    "trajectory", "step",
)  # fmt: skip


@pytest.fixture
def directory(frames, tmp_path):
    write_dataset(frames, tmp_path / "ion", {"command": "by hand"})
    return tmp_path / "ion"


def edit_yaml(directory, **changes):
    path = directory / "dataset.yaml"
    data = yaml.safe_load(path.read_text()) | changes
    path.write_text(yaml.safe_dump({k: v for k, v in data.items() if v is not None}))


def edit_frames(directory, old, new, count=1):
    path = directory / "frames.xyz.gz"
    text = gzip.decompress(path.read_bytes()).decode()
    assert old in text
    path.write_bytes(gzip.compress(text.replace(old, new, count).encode()))


def refused(path):
    with pytest.raises(DataError) as info:
        read_dataset(path)
    message = str(info.value)
    assert info.value.exit_code == EXIT_INPUT
    assert "\n" not in message
    assert message.startswith(str(path.parent if path.suffix else path))
    return message


def test_what_is_written_comes_back_exactly(frames, directory):
    read, expected = read_dataset(directory), rounded(frames)
    assert (read.name, read.reference, read.fragments) == ("ion", "made up", frames.fragments)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(read, name), getattr(expected, name))
    assert abs(expected.positions - frames.positions).max() <= 0.5e-8


def test_same_frames_give_the_same_bytes(frames, directory, tmp_path):
    write_dataset(read_dataset(directory), tmp_path / "again", {"command": "by hand"})
    for name in ("frames.xyz.gz", "dataset.yaml"):
        assert (tmp_path / "again" / name).read_bytes() == (directory / name).read_bytes()
    assert not list(directory.glob("*.tmp"))


def test_native_datasets_split_the_whole(frames):
    data = native_datasets(frames)
    assert set(data) == {"full", "noninteracting", "binding", "water"}  # a lone ion has none
    full, free, bound = data["full"], data["noninteracting"], data["binding"]
    np.testing.assert_allclose(full["E"], free["E"] + bound["E"], rtol=1e-12)
    np.testing.assert_allclose(full["F"], free["F"] + bound["F"], atol=1e-12)
    np.testing.assert_array_equal(data["water"]["F"], free["F"][:, :3])
    np.testing.assert_array_equal(data["water"]["R"], full["R"][:, :3])
    np.testing.assert_allclose(full["E"] * KCAL_PER_MOL_EV, frames.energy, rtol=1e-15)
    np.testing.assert_array_equal(full["trajectory"], frames.trajectory)


def test_native_files_hold_no_pickles_and_sgdml_reads_them(directory):
    sgdml_io = pytest.importorskip("sgdml.utils.io")
    for name in ("full", "noninteracting", "binding", "water"):
        with np.load(directory / f"{name}.npz", allow_pickle=False) as file:
            dataset = dict(file)
        assert dataset["type"].astype(str) == "d"
        assert (dataset["r_unit"], dataset["e_unit"]) == ("Ang", "kcal/mol")
        assert dataset["z"].dtype == np.uint8
        assert dataset["md5"].item() == sgdml_io.dataset_md5(dataset)
    task_dir_arg, loaded = sgdml_io.is_file_type(str(directory / "water.npz"), "dataset")
    assert task_dir_arg.endswith("water.npz")
    assert loaded["R"].shape == (12, 3, 3)


@pytest.mark.skipif(not hasattr(np, "in1d"), reason="sgdml 1.0.3 trains with numpy < 2.4 only")
def test_sgdml_makes_a_task_of_a_native_dataset(directory):
    train = pytest.importorskip("sgdml.train")
    with np.load(directory / "water.npz", allow_pickle=False) as file:
        dataset = dict(file)
    trainer = train.GDMLTrain(max_processes=1)
    task = trainer.create_task(dataset, 4, dataset, 4, sig=10, use_sym=False)
    assert task["R_train"].shape == (4, 3, 3)


def test_convention_file_of_two_fragments(tmp_path):
    path = tmp_path / "pair.xyz"
    frame = (
        "2\nProperties=species:S:1:pos:R:3:forces_full:R:3:forces_frag:R:3 frag1=1 "
        'frag_charges="0 1" energy_full=-2.0 energy_frag1=-1.5 energy_frag2=-0.25 '
        'units=eV,Angstrom method="GFN2-xTB" md_step={step} traj=3 pbc="F F F"\n'
        "Ar 0 0 0 0 0 0.5 0 0 0\nNa 0 0 3 0 0 -0.5 0 0 0\n"
    )
    path.write_text(frame.format(step=8) + frame.format(step=16))
    read = read_dataset(path)
    assert read.reference == "GFN2-xTB"
    assert read.fragments == (
        FragmentSpec("fragment1", (0,), 0),
        FragmentSpec("fragment2", (1,), 1),
    )
    assert read.step.tolist() == [8, 16]
    assert read.trajectory.tolist() == [3, 3]
    np.testing.assert_allclose(read.binding_energy, -0.25)
    path.write_text(frame.format(step=8).replace("frag1=1", 'frag1=1 frag_names="argon sodium"'))
    assert [fragment.name for fragment in read_dataset(path).fragments] == ["argon", "sodium"]
    path.write_text(frame.format(step=8).replace("frag1=1", "frag1=1 frag_names=argon"))
    assert "frag_names is 'argon'; expected two" in refused(path)
    path.write_text(frame.format(step=8).replace("frag1=1", "frag1=2"))
    assert "frag1 is 2; expected the first fragment's" in refused(path)
    path.write_text("2\nnothing but positions\nAr 0 0 0\nNa 0 0 3\n")
    assert "frame 0 has no labels; compute them with deltaserver dataset label" in refused(path)
    path.write_text(frame.format(step=8).replace("eV,Angstrom", "kcal/mol,Angstrom"))
    assert "units are 'kcal/mol,Angstrom'; expected eV,Angstrom" in refused(path)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("\nNa ", "\nK  ", "atom 3 is K; expected Na"),
        ("energy_full=", "energy_full=nan energy_was=", "frame 0: energy_full has a value that is"),
        ("energy_frag2=", "energy_was=", "frame 0 lacks energy_frag2"),
        ("forces_frag:R:3", "forces_were:R:3", "frame 0 lacks forces_frag"),
        ("4\n", "four\n", "cannot be read"),
    ],
)
def test_bad_frames(directory, old, new, expected):
    edit_frames(directory, old, new)
    assert expected in refused(directory)


def test_wrong_element_in_a_later_frame_is_named(directory):
    edit_frames(directory, "\nNa ", "\nK  ", count=12)
    edit_frames(directory, "\nK  ", "\nNa ", count=7)
    assert "frame 7: atom 3 is K; expected Na" in refused(directory)


def test_nan_label_names_its_frame(frames, tmp_path):
    forces = frames.forces.copy()
    forces[5, 2, 1] = np.nan
    write_dataset(replace(frames, forces=forces), tmp_path / "nan")
    assert "frame 5: forces_full has a value that is not finite" in refused(tmp_path / "nan")


@pytest.mark.parametrize("keep", [0.5, 0.97])
def test_truncated_file(directory, keep):
    path = directory / "frames.xyz.gz"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    assert "cannot be read" in refused(directory)


def test_frames_cut_off_between_two_frames(directory):
    path = directory / "frames.xyz.gz"
    lines = gzip.decompress(path.read_bytes()).decode().splitlines(keepends=True)
    path.write_bytes(gzip.compress("".join(lines[:-6]).encode()))
    assert "has 11 frames; dataset.yaml states 12" in refused(directory)
    path.write_bytes(gzip.compress("".join(lines[:-1]).encode()))
    assert "cannot be read" in refused(directory)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"units": {"length": "Ang", "energy": "kcal/mol"}}, "units.energy is 'kcal/mol'"),
        ({"units": {"length": "bohr", "energy": "eV"}}, "units.length is 'bohr'"),
        ({"units": {"length": "Ang", "energy": "furlong"}}, "'furlong' is not known"),
        ({"units": None}, "lacks units"),
        ({"format": "deltaserver-dataset/9"}, "this version reads 'deltaserver-dataset/1'"),
        ({"colour": "blue"}, "unknown key 'colour'"),
        ({"name": ""}, "name is ''"),
        ({"elements": "O H H K"}, "atom 3 is Na; expected K"),
        ({"elements": "O H H"}, "has atom 3; the complex has atoms 0-2"),
        ({"elements": "O H H Xx"}, "'Xx' is no element symbol"),
        ({"fragments": [{"name": "water", "atoms": "0-2"}]}, "no fragment has atoms 3"),
        (
            {"fragments": [{"name": "a", "atoms": "0-2"}, {"name": "b", "atoms": "2-3"}]},
            "atom 2 is in fragment 'a' and in 'b'",
        ),
        ({"fragments": [{"name": "a", "atoms": "0-4"}]}, "has atom 4; the complex has atoms 0-3"),
        ({"fragments": [{"name": "a", "atoms": "3-0"}]}, "range '3-0' runs backwards"),
        ({"fragments": [{"name": "full", "atoms": "0-3"}]}, "fragment name 'full'"),
        ({"fragments": [{"name": "a", "atoms": "0-3", "charge": "x"}]}, "charge is 'x'"),
        ({"fragments": "all"}, "expected a list of fragments"),
    ],
)
def test_bad_manifest(directory, changes, expected):
    edit_yaml(directory, **changes)
    assert expected in refused(directory)


def test_not_yaml(directory):
    (directory / "dataset.yaml").write_text("a: [1,\n b: {")
    assert "not readable as YAML" in refused(directory)


def test_no_such_dataset(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_dataset(tmp_path / "nowhere")


def test_a_dataset_that_is_still_made(tmp_path):
    (tmp_path / "half" / "journal").mkdir(parents=True)
    with pytest.raises(DataError, match=r"not written yet; repeat the command that began"):
        read_dataset(tmp_path / "half")


def test_two_fragments_of_one_name():
    twice = (FragmentSpec("a", (0,)), FragmentSpec("a", (1,)))
    with pytest.raises(DataError, match="two fragments have the name 'a'"):
        check_partition(twice, 2, "here")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("traj=0", "traj=md1", "frame 0: traj is 'md1'; expected a whole number"),
        ("step=", "step=x", "frame 0: step is 'x"),
        ("step=", "step=0.5", "expected a whole number"),
    ],
)
def test_numbers_that_are_none_are_named(directory, old, new, expected):
    edit_frames(directory, old, new)
    assert expected in refused(directory)


@pytest.mark.parametrize(
    ("charges", "expected"),
    [
        ("0.5 -0.5", "frame 0: frag_charges is '0.5'; expected a whole number"),
        ("1", "frame 0: frag_charges is [1]; expected two"),
        ("a b", "frame 0: frag_charges is ['a b']; expected two"),
        ("1 0 0", "frame 0: frag_charges is [1, 0, 0]; expected two"),
    ],
)
def test_charges_are_whole_numbers(tmp_path, charges, expected):
    path = tmp_path / "pair.xyz"
    path.write_text(
        "2\nProperties=species:S:1:pos:R:3:forces_full:R:3:forces_frag:R:3 frag1=1 "
        f'frag_charges="{charges}" energy_full=-2.0 energy_frag1=-1.5 energy_frag2=-0.25\n'
        "Ar 0 0 0 0 0 0.5 0 0 0\nNa 0 0 3 0 0 -0.5 0 0 0\n"
    )
    assert expected in refused(path)
