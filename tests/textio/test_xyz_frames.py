import bz2
import gzip
import lzma

import numpy as np
import pytest

from deltaserver.analysis.read.trajectory import Trajectory
from deltaserver.errors import DataError
from deltaserver.textio.xyz_frames import BadFrame, read_frames
from tests.textio.written import ALIKE, FRAMES, HAVE_STEPS, SYMBOLS, WATER, as_bytes, text


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.xyz"


def streamed(path):
    """Steps, positions and notes of the reader that analyses use."""
    told = []
    trajectory = Trajectory([[path]], told.append)
    blocks = list(trajectory.blocks())
    steps = np.concatenate([block.steps for block in blocks])
    return steps.tolist(), np.concatenate([b.positions[:, 0] for b in blocks]), told


@pytest.mark.parametrize("name", ALIKE)
def test_both_readers_read_alike_whatever_is_written(path, name):
    path.write_bytes(as_bytes(ALIKE[name]))
    told = []
    frames = read_frames(path, told.append)
    steps, positions, told_streaming = streamed(path)
    np.testing.assert_allclose([f.positions for f in frames], FRAMES, atol=2e-8)
    np.testing.assert_allclose(positions, FRAMES, atol=2e-8)
    assert all(f.numbers.tolist() == [8, 1, 1, 8, 1, 1] for f in frames)
    expected = [0, 10, 20, 30, 40]
    assert [f.step for f in frames] == (expected if name in HAVE_STEPS else [None] * 5)
    assert steps == (expected if name in HAVE_STEPS else [0, 1, 2, 3, 4])
    assert told == told_streaming
    assert told == (
        [f"{path}: 8 blank lines between frames were passed over"] if name == "blank lines" else []
    )


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
def test_compressed_whatever_the_name(path, opener):
    with opener(path, "wb") as file:
        file.write(text().encode())
    assert len(read_frames(path, print)) == 5
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(BadFrame, match="damaged") as caught:
        read_frames(path, print)
    assert caught.value.index < 5


def test_deuterium_is_hydrogen_of_its_own_mass(path):
    path.write_bytes(as_bytes(ALIKE["isotopes"]))
    (frame, *_) = read_frames(path, print)
    assert frame.symbols == ("O", "D", "H", "O", "T", "D")
    assert frame.masses_u == pytest.approx(
        [15.999, 2.0141, 1.008, 15.999, 3.0160, 2.0141], abs=1e-3
    )


def test_what_stands_beside_the_positions(path):
    comment = (
        'Lattice="10 0 0 0 11 0 1 0 12" Properties=species:S:1:pos:R:3:REF_forces:R:3:fixed:L:1 '
        "REF_energy=-1.5e2 frag1=3 frag_names='a b' charges=\"0.5 -0.5\" traj=md1 step=3 ok=T"
    )
    path.write_text(text(FRAMES[:1], comment=comment, row="{s} {x} {z} T"))
    (frame,) = read_frames(path, print)
    assert frame.arrays["REF_forces"].tolist() == [[7.5, 8.5, 9.5]] * 6
    assert frame.arrays["fixed"].tolist() == [True] * 6
    assert set(frame.arrays) == {"REF_forces", "fixed"}
    info = dict(frame.info)
    assert info.pop("charges").tolist() == [0.5, -0.5]
    assert info["REF_energy"] == -150.0
    assert (info["frag1"], info["frag_names"], info["traj"], info["ok"]) == (3, "a b", "md1", True)
    assert frame.cell.tolist() == [[10, 0, 0], [0, 11, 0], [1, 0, 12]]
    assert frame.pbc == (True, True, True)


def test_what_ase_writes_is_read_as_ase_reads_it(path):
    from ase import Atoms
    from ase.io import read

    atoms = Atoms("OHHOHH", FRAMES[0], cell=[9, 10, 11], pbc=[True, False, True])
    atoms.info = {
        "numbers": [0, -1], "mixed": [1, "two"], "text": 'a word "quoted"', "matrix": np.eye(2),
        "flag": True, "energy_full": -1.25e-3, "names": "one two", "mapping": {"a": 1}, "n": 7,
    }  # fmt: skip
    atoms.arrays["forces_full"] = FRAMES[1]
    atoms.write(path, format="extxyz")
    theirs, (ours,) = read(path), read_frames(path, print)
    np.testing.assert_array_equal(ours.positions, theirs.positions)
    np.testing.assert_array_equal(ours.arrays["forces_full"], theirs.arrays["forces_full"])
    np.testing.assert_array_equal(ours.cell, theirs.cell[:])
    assert ours.pbc == tuple(theirs.pbc)
    for key in ("numbers", "mixed", "text", "flag", "energy_full", "names", "mapping", "n"):
        np.testing.assert_array_equal(ours.info[key], theirs.info[key], err_msg=key)
    np.testing.assert_array_equal(np.ravel(ours.info["matrix"]), np.ravel(theirs.info["matrix"]))


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ('"T T T"', (True,) * 3),
        ('"F F F"', (False,) * 3),
        ('"T F T"', (True, False, True)),
        ("[T, F, F]", (True, False, False)),
        ('"True False False"', (True, False, False)),
        ('"1 1 0"', (True, True, False)),
        ("T", (True,) * 3),
        ("false", (False,) * 3),
    ],
)
def test_pbc(path, stated, expected):
    path.write_text(text(FRAMES[:1], comment=f'Lattice="9 0 0 0 9 0 0 0 9" pbc={stated}'))
    assert read_frames(path, print)[0].pbc == expected


@pytest.mark.parametrize(
    ("comment", "cell"),
    [
        ("# CELL(abcABC): 10 20 30 90 90 90 positions{{angstrom}} cell{{angstrom}}",
         [[10, 0, 0], [0, 20, 0], [0, 0, 30]]),
        ("# CELL(abcABC): 1 2 3 90 90 90 positions{{angstrom}} cell{{nanometer}}",
         [[10, 0, 0], [0, 20, 0], [0, 0, 30]]),
        ("# CELL(abcABC): 10 10 10 90 90 60 positions{{angstrom}} cell{{angstrom}} e",
         [[10, 0, 0], [5, 8.660254, 0], [0, 0, 10]]),
        ("# CELL(H): 10 5 1 0 20 2 0 0 30 positions{{angstrom}} cell{{angstrom}}",
         [[10, 0, 0], [5, 20, 0], [1, 2, 30]]),
        ("# CELL(abcABC): 0 0 0 90 90 90", None),
        ("nothing of the kind", None),
    ],
)  # fmt: skip
def test_cells(path, comment, cell):
    path.write_text(text(FRAMES[:1], comment=comment))
    found = read_frames(path, print)[0].cell
    assert (found is None) == (cell is None)
    if cell is not None:
        np.testing.assert_allclose(found, cell, atol=1e-6)


@pytest.mark.parametrize(
    ("content", "index", "reason"),
    [
        ("", None, None),
        ("hello\n", 0, "line 1: 'hello' is no number of atoms"),
        (text() + "\n\n6\nx\n", 5, "line 43: the frame is cut short"),
        (text().replace("H", "Qq", 1), 0, "'Qq' is no element"),
        (text(number="{:.3f}").replace("6\nframe 3\nO", "6\nframe 3\nO **** "), 3, "atom 0 has"),
        (text(comment="Properties=species:S:1:forces:R:3"), 0, "expected species:S:1 and pos:R:3"),
        (text(comment="Properties=species:S:1:pos:R:3:forces:R:3"), 0, "atom 0 has 4 columns"),
        (text(comment="# CELL(abcABC): 1 1 1 90 90 90 velocities{{m/s}}"), 0, "holds velocities"),
        (text(comment="positions{{furlong}}"), 0, "'furlong' is no unit of length"),
        (text(comment='Lattice="1 0 0 0 1 0 0 0 1" pbc="yes"'), 0, "pbc is 'yes'"),
        ("99999999999\n\n", 0, "99999999999 atoms"),
    ],
)
def test_what_is_no_frame(path, content, index, reason):
    path.write_text(content)
    if index is None:
        assert read_frames(path, print) == []
        return
    with pytest.raises(BadFrame) as caught:
        read_frames(path, print)
    assert caught.value.index == index
    assert reason in caught.value.reason


def test_only_the_first_frame_is_read_if_no_more_is_wanted(path):
    path.write_text(text(FRAMES[:1]) + "damage\n")
    assert len(read_frames(path, print, first_only=True)) == 1


def test_another_order_in_one_frame_is_named(path):
    swapped = text(FRAMES[2:3], symbols=("H", "O", "H", "O", "H", "H"))
    path.write_text(text(FRAMES[:2]) + swapped + text(FRAMES[3:]))
    with pytest.raises(DataError, match="frame 2: atom 0 is H; the first frame has O there"):
        streamed(path)


def test_a_step_is_a_whole_word_and_a_whole_number(path):
    for comment, step in [
        ("step=7", 7), ("Step: 7", 7), ('step="7"', 7), ("md_step=7 energy=1", 7), ("STEP: 7", 7),
        ("timestep=7", None), ("step=0.5", None), ("step=7fs", None), ("substep=7", None),
        ("Atoms. Timestep: 7", 7), ("i = 7, time = 3.5, E = 1", 7), ("Time step: 7", None),
    ]:  # fmt: skip
        path.write_text(text([WATER], SYMBOLS[:3], comment))
        assert read_frames(path, print)[0].step == step, comment
