import bz2
import gzip
import lzma

import numpy as np
import pytest

from deltaserver.analysis.read.trajectory import Trajectory
from deltaserver.errors import DataError
from deltaserver.textio.compressed import is_xyz
from tests.analysis.written import POSITIONS, SYMBOLS, ipi_text
from tests.textio.written import FRAMES, text


def frames_at(steps, shift=0.0):
    """Frames that tell their step: the first atom's x is the step, y the shift."""
    frames = np.repeat(POSITIONS[None], len(steps), axis=0)
    frames[:, 0, 0], frames[:, 0, 1] = steps, shift
    return frames


def write(path, steps, shift=0.0, opener=open, **given):
    with opener(path, "wt") as file:
        file.write(ipi_text(frames_at(steps, shift), steps, **given))
    return path


def read(*beads):
    """Steps, positions (T, P, N, 3) and what was told."""
    told = []
    trajectory = Trajectory([list(pieces) for pieces in beads], told.append)
    blocks = list(trajectory.blocks())
    steps = np.concatenate([block.steps for block in blocks])
    return steps, np.concatenate([block.positions for block in blocks]), told


@pytest.mark.parametrize("opener", [open, gzip.open, bz2.open, lzma.open])
def test_compressed_files_are_known_by_their_first_bytes(tmp_path, opener):
    path = write(tmp_path / "pos_0.xyz", range(0, 50, 5), opener=opener)
    steps, positions, told = read([path])
    assert steps.tolist() == list(range(0, 50, 5))
    assert np.array_equal(positions[:, 0], frames_at(steps))
    assert not told


@pytest.mark.parametrize("opener", [gzip.open, bz2.open, lzma.open])
def test_a_compressed_file_cut_short_keeps_what_is_there(tmp_path, opener):
    rng = np.random.default_rng(1)
    frames = POSITIONS + rng.normal(size=(4000, 8, 3))
    path = tmp_path / "pos.xyz"
    with opener(path, "wt") as file:
        file.write(ipi_text(frames, range(4000)))
    path.write_bytes(path.read_bytes()[: int(0.9 * path.stat().st_size)])
    steps, _, told = read([path])
    assert 1000 < len(steps) < 4000
    assert np.array_equal(steps, np.arange(len(steps)))
    assert any("what is there is used" in line for line in told)


def test_later_pieces_replace_what_they_begin_with(tmp_path):
    first = write(tmp_path / "a.xyz", range(0, 100, 10), shift=1)
    second = write(tmp_path / "b.xyz", range(60, 150, 10), shift=2)
    steps, positions, _ = read([first, second])
    assert steps.tolist() == list(range(0, 150, 10))
    assert positions[:, 0, 0, 1].tolist() == [1.0] * 6 + [2.0] * 9


def test_a_run_begun_anew_replaces_all(tmp_path):
    first = write(tmp_path / "a.xyz", range(0, 100, 10), shift=1)
    second = write(tmp_path / "b.xyz", range(0, 30, 10), shift=2)
    steps, positions, _ = read([first, second])
    assert steps.tolist() == [0, 10, 20]
    assert (positions[:, 0, 0, 1] == 2).all()


def test_beads_are_read_side_by_side(tmp_path):
    beads = [[write(tmp_path / f"p_{k}.xyz", range(300), shift=k, bead=k)] for k in range(3)]
    steps, positions, _ = read(*beads)
    assert positions.shape == (300, 3, 8, 3)
    assert np.array_equal(steps, np.arange(300))
    assert positions[5, :, 0, 1].tolist() == [0, 1, 2]


def test_a_frame_that_one_bead_lacks_is_left_out(tmp_path):
    whole = write(tmp_path / "p_0.xyz", range(0, 100, 10))
    lacking = write(tmp_path / "p_1.xyz", [0, 10, 20, 40, 50, 60, 70, 80])
    steps, _, _ = read([whole], [lacking])
    assert steps.tolist() == [0, 10, 20, 40, 50, 60, 70, 80]


def test_plain_pieces_follow_one_another(tmp_path):
    text = "1\n\nAr 0 0 {}\n"
    for name in "ab":
        (tmp_path / f"{name}.xyz").write_text("".join(text.format(k) for k in range(5)))
    steps, positions, _ = read([tmp_path / "a.xyz", tmp_path / "b.xyz"])
    assert steps.tolist() == list(range(10))
    assert positions[:, 0, 0, 2].tolist() == [0, 1, 2, 3, 4] * 2


def test_what_ase_reads(tmp_path):
    from ase import Atoms
    from ase.io import write as ase_write

    images = [Atoms(SYMBOLS, p) for p in frames_at(range(200))]
    for name in ("t.traj", "t.extxyz"):
        path = tmp_path / name
        ase_write(path, images)
        steps, positions, _ = read([path])
        assert np.array_equal(steps, np.arange(200))
        assert np.allclose(positions[:, 0], frames_at(range(200)), atol=1e-7)


@pytest.mark.parametrize("shift", [0.0, 3.3, 7.0])
def test_wrapped_molecules_are_whole_again_and_told(tmp_path, shift):
    path = tmp_path / "t.extxyz"
    frames = FRAMES + shift
    path.write_text(text(frames % 10.0, comment='Lattice="10 0 0 0 10 0 0 0 10" pbc="T T T"'))
    _, positions, told = read([path])
    moved = positions[:, 0] - frames
    np.testing.assert_allclose(moved, np.repeat(moved[:, :1], 6, axis=1), atol=2e-8)
    wrapped = np.ptp(frames % 10.0, axis=1).max(axis=1) > 5.0
    expected = f"{path}: molecules that the cell had cut were made whole in {wrapped.sum()} frames"
    assert told == ([expected] if wrapped.any() else [])


def test_i_pi_s_extended_xyz_says_periodic_of_what_it_has_not_wrapped(tmp_path):
    path = tmp_path / "t.extxyz"
    comment = 'Lattice="4 0 0 0 4 0 0 0 4" ipi_comment="Step: {k} positions{{ase}}" pbc="T T T"'
    path.write_text(text(FRAMES, comment=comment))
    _, positions, told = read([path])
    np.testing.assert_allclose(positions[:, 0], FRAMES)
    assert not told


def test_names():
    from pathlib import Path

    for name in ("a.xyz", "a.xyz.gz", "#a.pos_0.xyz#3#", "a.extxyz.bz2"):
        assert is_xyz(Path(name)), name
    for name in ("a.traj", "a.dcd", "#a.pos_0.pdb#3#"):
        assert not is_xyz(Path(name)), name


def test_refused(tmp_path):
    path = write(tmp_path / "a.xyz", range(3))
    other = tmp_path / "b.xyz"
    other.write_text("1\n\nAr 0 0 0\n")
    with pytest.raises(DataError, match="1 atoms that differ from the 8 of"):
        Trajectory([[path, other]], print)
    with pytest.raises(DataError, match=r"none\.xyz: cannot be read \(No such file"):
        Trajectory([[tmp_path / "none.xyz"]], print)
    (tmp_path / "c.traj").write_text("nonsense")
    with pytest.raises(DataError, match="not a trajectory that ASE can read"):
        Trajectory([[tmp_path / "c.traj"]], print)
    with pytest.raises(DataError, match="no such file"):
        Trajectory([[tmp_path / "none.traj"]], print)
    with pytest.raises(DataError, match="no trajectory given"):
        Trajectory([], print)
