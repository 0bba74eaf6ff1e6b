import numpy as np
import pytest

from deltaserver.analysis.read.trajectory import Trajectory
from deltaserver.errors import DataError
from deltaserver.units import BOHR_ANG
from tests.textio.written import FRAMES, SYMBOLS

ATOM = "ATOM  {i:5d} {name}   1     1    {x}  0.00  0.00          {element:>2} 0\n"


def pdb(frames, titles, names=SYMBOLS, elements=None, factor=1.0, end="END\n"):
    """PDB as i-PI writes it: the symbol for a name, right-justified, and no element."""
    text = ""
    for frame, title in zip(frames, titles, strict=True):
        text += f"TITLE   {title:>70}\n" if title else ""
        text += "CRYST1  300.000  300.000  300.000  90.00  90.00  90.00 P 1           1\n"
        for i, position in enumerate(frame * factor):
            x = "".join(f"{value:8.3f}" for value in position)
            element = elements[i] if elements else ""
            name = f"{names[i]:>4}"
            text += ATOM.format(i=i + 1, name=name, x=x, element=element)
        text += end
    return text


def read(path):
    told = []
    trajectory = Trajectory([[path]], told.append)
    blocks = list(trajectory.blocks())
    steps = np.concatenate([block.steps for block in blocks])
    return trajectory, steps.tolist(), np.concatenate([b.positions[:, 0] for b in blocks]), told


def titles(unit, steps):
    return [f"Step:  {s:10d}  Bead:       0 positions{{{unit}}}  cell{{{unit}}}" for s in steps]


@pytest.mark.parametrize(
    ("unit", "factor"), [("angstrom", 1.0), ("atomic_unit", 1 / BOHR_ANG), ("picometer", 100.0)]
)
def test_i_pi_s_title_tells_step_and_unit(tmp_path, unit, factor):
    path = tmp_path / "simulation.pos_0.pdb"
    steps = [0, 20, 40, 60, 80]
    path.write_text(pdb(FRAMES, titles(unit, steps), factor=factor))
    trajectory, found, positions, told = read(path)
    assert found == steps
    assert trajectory.has_steps
    assert trajectory.symbols == SYMBOLS
    np.testing.assert_allclose(positions, FRAMES, atol=6e-4)
    assert not told


def test_reads_what_i_pi_itself_writes(tmp_path):
    io_pdb = pytest.importorskip("ipi.utils.io.backends.io_pdb")
    from ipi.engine.atoms import Atoms
    from ipi.engine.cell import Cell

    atoms = Atoms(6)
    atoms.names[:] = SYMBOLS
    path = tmp_path / "t.pdb"
    with path.open("w") as file:
        for frame, title in zip(FRAMES, titles("angstrom", range(5, 30, 5)), strict=True):
            atoms.q[:] = frame.ravel()
            io_pdb.print_pdb(atoms, Cell(100 * np.eye(3)), file, title)
    _, steps, positions, _ = read(path)
    assert steps == [5, 10, 15, 20, 25]
    np.testing.assert_allclose(positions, FRAMES, atol=6e-4)


def test_a_plain_file_counts_frames_and_knows_elements_by_either_place(tmp_path):
    path = tmp_path / "t.pdb"
    path.write_text(pdb(FRAMES, [""] * 5, names=[" CA ", "CA  ", " HB1", "2HG ", "   D", "  Cl"]))
    trajectory, steps, _, _ = read(path)
    assert trajectory.symbols == ("C", "Ca", "H", "H", "D", "Cl")
    assert steps == [0, 1, 2, 3, 4]
    path.write_text(pdb(FRAMES, [""] * 5, elements=["N", "H", "CL", "O", "C", "H"], end="ENDMDL\n"))
    assert read(path)[0].symbols == ("N", "H", "Cl", "O", "C", "H")


def test_a_frame_cut_short_is_left_out_and_told(tmp_path):
    path = tmp_path / "t.pdb"
    whole = pdb(FRAMES, titles("angstrom", range(5)))
    path.write_text(whole[:-100])
    _, steps, _, told = read(path)
    assert steps == [0, 1, 2, 3]
    assert told == [f"{path}: frame 4 is left out (the frame is cut short)"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("REMARK nothing\n", "empty; expected a PDB trajectory"),
        (
            pdb(FRAMES[:1], [""]).replace(f"{FRAMES[0, 0, 0]:8.3f}", " ****** ", 1),
            "no three numbers",
        ),
        (pdb(FRAMES[:1], ["velocities{m/s}"]), "holds velocities"),
        (pdb(FRAMES[:1], [""], names=("Qq", *SYMBOLS[1:])), "'Qq' is no element"),
    ],
)
def test_what_is_no_trajectory(tmp_path, text, message):
    path = tmp_path / "t.pdb"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read(path)


def test_other_atoms_in_a_later_frame_are_refused(tmp_path):
    path = tmp_path / "t.pdb"
    one, other = pdb(FRAMES[:1], [""]), pdb(FRAMES[1:2], [""], names=SYMBOLS[::-1])
    path.write_text(one + other)
    with pytest.raises(DataError, match="frame 1 has other atoms than the first"):
        read(path)
