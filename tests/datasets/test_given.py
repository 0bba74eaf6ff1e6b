import numpy as np
import pytest

from deltaserver.datasets.frames import FragmentSpec
from deltaserver.datasets.geometries import check_lengths
from deltaserver.datasets.given import read_structures
from deltaserver.datasets.sampling.dynamics import Run, SamplingPlan, _Trajectory
from deltaserver.datasets.workspace import open_given, open_sampling, read_start, reopen
from deltaserver.errors import DataError
from deltaserver.units import BOHR_ANG
from tests.textio.written import ALIKE, CELL, FRAMES, SYMBOLS, as_bytes, text

PAIR = (FragmentSpec("a", (0, 1, 2)), FragmentSpec("b", (3, 4, 5)))
NUMBERS = np.array([8, 1, 1, 8, 1, 1])
LATTICE = 'Lattice="10 0 0 0 10 0 0 0 10" Properties=species:S:1:pos:R:3'


@pytest.fixture
def path(tmp_path):
    return tmp_path / "t.xyz"


def opened(path, fragments=PAIR):
    told = []
    return open_given(path.parent / "set", path, fragments, told.append), told


@pytest.mark.parametrize("name", ALIKE)
def test_frames_to_label_are_the_same_however_they_are_written(path, name):
    path.write_bytes(as_bytes(ALIKE[name]))
    workspace, told = opened(path)
    found = np.array([start.positions for start in workspace.starts])
    np.testing.assert_allclose(found, FRAMES, atol=2e-8)
    assert workspace.numbers.tolist() == NUMBERS.tolist()
    assert len(told) == (name == "blank lines")


@pytest.mark.parametrize("pbc", [' pbc="T T T"', ""])
def test_wrapped_molecules_are_made_whole_and_told(path, pbc):
    path.write_text(text(FRAMES % 10.0, comment=LATTICE + pbc))
    workspace, told = opened(path)
    for start, frame in zip(workspace.starts, FRAMES, strict=True):
        moved = start.positions - frame
        np.testing.assert_allclose(moved, np.tile(moved[0], (6, 1)), atol=2e-8)
    assert told == [f"{path}: molecules that the cell had cut were made whole in 5 frames"]


def refused(path, fragments=PAIR):
    with pytest.raises(DataError) as caught:
        opened(path, fragments)
    return str(caught.value)


def test_wrapped_molecules_that_nothing_says_are_periodic_are_refused(path):
    path.write_text(text(FRAMES % 10.0))
    assert "frame 0: atom " in refused(path)
    assert "the molecule is torn or wrapped" in refused(path)


@pytest.mark.parametrize("which", [0, 3])
def test_one_frame_with_hydrogens_exchanged_is_named(path, which):
    frames = FRAMES.copy()
    frames[which, [1, 4]] = frames[which, [4, 1]]
    path.write_text(text(frames))
    assert f"{path}: frame {which}: atom 1 (H) is " in refused(path)


def test_lengths_in_another_unit_are_refused(path):
    path.write_text(text(FRAMES / BOHR_ANG))
    assert "frame 0: the bonds of a are" in refused(path)
    assert "times as long as in Å; if the lengths are in Bohr" in refused(path)
    path.write_text(text(FRAMES / 10.0))
    assert "frame 0: atoms 0 (O) and 2 (H) are 0.093 Å apart" in refused(path)
    assert "are the lengths in nm?" in refused(path)
    benzene = np.array(
        [[r * np.cos(t), r * np.sin(t), 0] for r in (1.39, 2.48) for t in np.arange(6) * np.pi / 3]
    )
    numbers, whole = np.repeat([6, 1], 6), (FragmentSpec("benzene", tuple(range(12))),)
    check_lengths(numbers, benzene[None], whole, "here")
    with pytest.raises(DataError, match=r"bonds of benzene are 1\.83 times as long"):
        check_lengths(numbers, benzene[None] / BOHR_ANG, whole, "here")


def test_one_fragment_of_the_wrong_atoms_is_no_other_unit():
    swapped = (FragmentSpec("a", (0, 2)), FragmentSpec("b", (3, 4, 5)), FragmentSpec("c", (1,)))
    check_lengths(NUMBERS, FRAMES, swapped, "here")
    apart = FRAMES.copy()
    apart[:, 2] = apart[:, 0] + [0.0, 0.0, 1.9]  # 1.97 times O-H: as in Bohr, but water b is not
    with pytest.raises(DataError, match=r"frame 0: atom 2 \(H\) is 1\.90 Å from the rest of a"):
        check_lengths(NUMBERS, apart, swapped, "here")


def test_hot_molecules_clusters_and_ions_are_left_alone():
    stretched = FRAMES.copy()
    stretched[2, 1] = stretched[2, 0] + [0.0, 0.0, -1.55]  # 1.6 times O-H
    check_lengths(NUMBERS, stretched, PAIR, "here")
    check_lengths(NUMBERS, FRAMES, (FragmentSpec("cluster", tuple(range(6))),), "here")
    check_lengths(np.array([11]), np.zeros((1, 1, 3)), (FragmentSpec("ion", (0,), 1),), "here")
    hydrogen = np.array([[[0, 0, 0], [0, 0, 0.80]]])
    check_lengths(np.array([1, 1]), hydrogen, (FragmentSpec("h2", (0, 1)),), "here")


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        ("traj=md1 step={k}", "frame 0: traj is 'md1'; expected a whole number"),
        ("traj=1 step={k}fs", "frame 0: step is '0fs'; expected a whole number"),
        ("traj=0.5 step={k}", "frame 0: traj is '0.5'; expected a whole number"),
    ],
)
def test_numbers_that_are_none_are_named(path, comment, message):
    path.write_text(text(comment=comment))
    assert message in refused(path)


def test_other_formats_and_damage(path):
    from ase import Atoms
    from ase.io import write

    write(path.with_suffix(".traj"), [Atoms(SYMBOLS, frame) for frame in FRAMES])
    found = read_structures(path.with_suffix(".traj"))
    np.testing.assert_allclose([frame.positions for frame in found], FRAMES)
    path.write_text(text(number="{:.3f}").replace("\nO", "\nO nan", 1))
    assert "frame 0 has positions that are not finite" in refused(path)
    path.write_text("")
    assert "no structure in it" in refused(path)
    path.write_text(text(comment=CELL + "forces{{ev/ang}}"))
    assert "frame 0 cannot be read: line 1: holds forces" in refused(path)


def test_deuterium_moves_with_its_own_mass(path):
    path.write_bytes(as_bytes(ALIKE["isotopes"]))
    start = read_start(path, PAIR)
    assert dict(start.isotopes_u) == pytest.approx({1: 2.0141, 4: 3.0160, 5: 2.0141}, abs=1e-3)
    trajectory = _Trajectory(SamplingPlan("GFN2-xTB"), Run(0, 300.0, start, 1), PAIR, None)
    expected = [15.999, 2.0141, 1.008, 15.999, 3.0160, 2.0141]
    assert trajectory.atoms.get_masses() == pytest.approx(expected, abs=1e-3)
    plan = SamplingPlan("ase.calculators.emt:EMT")
    begun = open_sampling(path.parent / "set", (path,), PAIR, plan)
    assert reopen(begun.directory).starts[0].isotopes_u == start.isotopes_u
