import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deltaserver.errors import DataError
from deltaserver.textio import xyz_stream
from deltaserver.textio.xyz_stream import XyzText
from deltaserver.units import BOHR_ANG
from tests.analysis.written import POSITIONS, SYMBOLS, ipi_frame, ipi_text

STEPS = np.arange(0, 400, 4)


@pytest.fixture
def frames():
    return POSITIONS + np.random.default_rng(1).normal(scale=30.0, size=(100, 8, 3))


class Read:
    """All frames of a text, and what was told."""

    def __init__(self, text):
        self.told = []
        data = text.encode() if isinstance(text, str) else text
        self.text = XyzText(io.BytesIO(data), "t.xyz", self.told.append)
        blocks = list(self.text)
        self.n_blocks = len(blocks)
        self.steps = np.concatenate([b.steps for b in blocks]) if blocks else np.zeros(0)
        empty = np.zeros((0, 8, 3))
        self.positions = np.concatenate([b.positions for b in blocks]) if blocks else empty


def as_written(frames):
    """What six digits leave of numbers."""
    return np.array([float(f"{v:.5e}") for v in np.ravel(frames)]).reshape(np.shape(frames))


def test_reads_every_number_as_float_does(frames):
    read = Read(ipi_text(frames, STEPS))
    assert np.array_equal(read.positions, as_written(frames))
    assert np.array_equal(read.steps, STEPS)
    assert read.text.symbols == SYMBOLS
    assert read.n_blocks == 1
    assert not read.told


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e90, 1e90), min_size=24, max_size=24))
def test_any_number_that_i_pi_writes(values):
    positions = np.array(values).reshape(8, 3)
    read = Read(ipi_text([positions], [3]))
    assert read.positions[0] == pytest.approx(as_written(positions), rel=1e-14, abs=1e-105)


def test_reads_what_i_pi_itself_writes(frames, tmp_path):
    io_xyz = pytest.importorskip("ipi.utils.io.backends.io_xyz")
    from ipi.engine.atoms import Atoms
    from ipi.engine.cell import Cell

    atoms = Atoms(8)
    atoms.names[:] = SYMBOLS
    path = tmp_path / "t.xyz"
    with path.open("w") as file:
        for frame, step in zip(frames, STEPS, strict=True):
            atoms.q[:] = frame.ravel()
            title = f"Step:  {step:10d}  Bead:   {0:5d} positions{{atomic_unit}}  cell{{angstrom}}"
            io_xyz.print_xyz(atoms, Cell(100 * np.eye(3)), file, title)
    read = Read(path.read_bytes())
    assert np.array_equal(read.positions, as_written(frames) * BOHR_ANG)
    assert np.array_equal(read.steps, STEPS)


@pytest.mark.parametrize(
    ("comment", "factor"),
    [
        ("# CELL(abcABC): 1 1 1 90 90 90 Step: 7 Bead: 0 positions{angstrom} cell{angstrom}", 1.0),
        ("# CELL(abcABC): 1 1 1 90 90 90 Step: 7 positions{atomic_unit}", BOHR_ANG),
        ("# CELL(abcABC): 1 1 1 90 90 90 Step: 7", BOHR_ANG),
        ("# CELL(abcABC): 1 1 1 90 90 90 Step: 7 x_centroid{nanometer}", 10.0),
        ("water, step=7", 1.0),
        ('Lattice="1 0 0 0 1 0 0 0 1" Properties=species:S:1:pos:R:3 step=7', 1.0),
    ],
)
def test_units_and_steps_of_comments(comment, factor):
    lines = [f"{s} {x} {y} {z}" for s, (x, y, z) in zip(SYMBOLS, POSITIONS, strict=True)]
    read = Read("\n".join(["8", comment, *lines, ""]) * 3)
    assert read.positions == pytest.approx(np.repeat(POSITIONS[None] * factor, 3, axis=0))
    assert read.steps.tolist() == [7, 7, 7]


def test_plain_files_count_frames():
    lines = [f"{s}\t{x} {y} {z} extra" for s, (x, y, z) in zip(SYMBOLS, POSITIONS, strict=True)]
    read = Read("\n".join([" 8 ", "", *lines, ""]) * 300)
    assert np.array_equal(read.steps, np.arange(300))
    assert not read.text.has_steps
    assert not read.told


def test_no_newline_at_the_end(frames):
    read = Read(ipi_text(frames[:3], STEPS[:3])[:-1])
    assert read.steps.tolist() == [0, 4, 8]
    assert not read.told


def test_a_last_frame_cut_anywhere_is_left_out_and_told(frames):
    text = ipi_text(frames[:4], STEPS[:4])
    last = len(text) // 4
    for cut in (1, 2, 20, 100, 150, 300, last - 1):
        read = Read(text[:-cut])
        if cut == 1:
            continue  # only the newline is missing
        assert read.steps.tolist() == [0, 4, 8], cut
        assert len(read.told) == 1
        assert "the last frame is left out" in read.told[0]


def test_a_frame_cut_in_the_middle_by_a_kill(frames):
    """i-PI appends after a restart: the next frame's count stands behind half a line."""
    text = ipi_text(frames[:5], STEPS[:5])
    one = len(text) // 5
    broken = text[: 3 * one - 130] + text[3 * one :]
    read = Read(broken)
    assert read.steps.tolist() == [0, 4, 12, 16]
    assert np.array_equal(read.positions, as_written(frames[[0, 1, 3, 4]]))
    assert len(read.told) == 1
    assert "a frame in the middle is left out" in read.told[0]


def test_damaged_digits_are_not_read_as_numbers(frames):
    text = ipi_text(frames[:3], STEPS[:3])
    one = len(text) // 3
    read = Read(text[: one + 300] + "x" + text[one + 301 :])
    assert read.steps.tolist() == [0, 8]
    assert len(read.told) == 1


def test_numbers_that_do_not_fit_the_columns_are_read(frames):
    frames = frames.copy()
    frames[40, 2, 1] = np.nan
    frames[60, 0, 0] = -1.5e120
    read = Read(ipi_text(frames, STEPS))
    assert np.array_equal(read.steps, STEPS)
    assert np.array_equal(read.positions, as_written(frames), equal_nan=True)


def test_a_changing_cell_stays_on_the_fast_way(frames):
    text = "".join(
        ipi_frame(f, s).replace(" 300.00000", f"{300 + s / 3:10.5f}")
        for f, s in zip(frames, STEPS, strict=True)
    )
    read = Read(text)
    assert read.n_blocks == 1
    assert np.array_equal(read.steps, STEPS)


def test_long_step_numbers(frames):
    steps = 10**9 - 50 + STEPS
    assert np.array_equal(Read(ipi_text(frames, steps)).steps, steps)


def test_files_larger_than_a_chunk(frames, monkeypatch):
    monkeypatch.setattr(xyz_stream, "CHUNK_BYTES", 5000)
    monkeypatch.setattr(xyz_stream, "PART_BYTES", 999)
    monkeypatch.setattr(xyz_stream, "MAX_HEADER_BYTES", 200)
    read = Read(ipi_text(frames, STEPS))
    assert read.n_blocks > 5
    assert np.array_equal(read.positions, as_written(frames))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("hello\nworld\n", "'hello' is no number of atoms"),
        ("2\n\nC 0 0 0\n", "the frame is cut short"),
        ("1\n\nC 0 0\n", "no three numbers"),
        (ipi_frame(POSITIONS, 1).replace("positions{", "velocities{"), "holds velocities"),
        (ipi_frame(POSITIONS, 1).replace("positions{angstrom", "positions{furlong"), "'furlong'"),
        ("0\n\n", "no number of atoms"),
    ],
)
def test_what_is_no_trajectory(text, message):
    with pytest.raises(DataError, match=message) as caught:
        Read(text)
    assert "\n" not in str(caught.value)
