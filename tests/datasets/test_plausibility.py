"""Frames in other units than Å, eV and eV/Å are noticed, whatever they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deltaserver.datasets.files import read_dataset, write_dataset
from deltaserver.datasets.plausibility import (
    _check_contacts,
    _check_forces,
    binding_notes,
    bond_stiffness,
    check_binding,
    check_plausible,
    work_ratio,
)
from deltaserver.errors import DataError
from deltaserver.units import BOHR_ANG, HARTREE_EV, KCAL_PER_MOL_EV

pytest.importorskip("ase")

DATA = Path(__file__).parents[2] / "data"
KJ_PER_MOL_EV = KCAL_PER_MOL_EV / 4.184


def tumbling(angle):
    """Rotations about z, one per angle."""
    turn = np.zeros((len(angle), 3, 3))
    turn[:, 2, 2] = 1.0
    turn[:, 0, 0] = turn[:, 1, 1] = np.cos(angle)
    turn[:, 0, 1], turn[:, 1, 0] = np.sin(angle), -np.sin(angle)
    return turn


def harmonic(frames, n_frames=40):
    """A bond that swings, with energies and forces that belong together."""
    time = np.linspace(0.0, 20.0, n_frames)
    positions = np.repeat(frames.positions[:1], n_frames, axis=0)
    stretch = 0.1 * np.sin(time)
    bond = positions[0, 1] - positions[0, 0]
    along = bond / np.linalg.norm(bond)
    positions[:, 1] += stretch[:, None] * along
    forces = np.zeros_like(positions)
    forces[:, 1] = -30.0 * stretch[:, None] * along
    forces[:, 0] = -forces[:, 1]
    positions[:, :3] = positions[:, :3] @ tumbling(time)
    forces[:, :3] = forces[:, :3] @ tumbling(time)
    return replace(
        frames,
        positions=positions,
        energy=-500.0 + 15.0 * stretch**2,
        forces=forces,
        fragment_energies=np.column_stack([15.0 * stretch**2, np.zeros(n_frames)]),
        fragment_forces=forces,
        trajectory=np.zeros(n_frames, dtype=int),
        step=np.arange(n_frames),
    )


def in_units(frames, energy_ev, length_ang):
    """The same frames with their numbers in other units."""
    force = energy_ev / length_ang
    return replace(
        frames,
        positions=frames.positions / length_ang,
        energy=frames.energy / energy_ev,
        forces=frames.forces / force,
        fragment_energies=frames.fragment_energies / energy_ev,
        fragment_forces=frames.fragment_forces / force,
    )


def refused(frames):
    with pytest.raises(DataError) as info:
        check_plausible(frames, "here")
    assert "\n" not in str(info.value)
    assert str(info.value).startswith("here: ")
    return str(info.value)


def test_the_stiffness_is_the_spring_constant(frames):
    swinging = harmonic(frames)
    assert bond_stiffness(swinging) == pytest.approx(30.0, rel=1e-9)
    assert work_ratio(swinging) == pytest.approx(1.0, abs=0.2)
    check_plausible(swinging, "here")


@pytest.mark.parametrize(
    ("energy_ev", "length_ang", "said"),
    [
        (KCAL_PER_MOL_EV, 1.0, "bonds as stiff as"),
        (KJ_PER_MOL_EV, 1.0, "bonds as stiff as"),
        (HARTREE_EV, 1.0, "bonds as stiff as"),
        (HARTREE_EV, BOHR_ANG, "are the lengths in Bohr?"),
        (1.0, BOHR_ANG, "are the lengths in Bohr?"),
        (1.0, 10.0, "are the lengths in nm?"),
        (KJ_PER_MOL_EV, 10.0, "are the lengths in nm?"),
    ],
)
def test_a_dataset_wholly_in_other_units(energy_ev, length_ang, said):
    real = read_dataset(DATA / "methane_dimer")
    assert said in refused(in_units(real, energy_ev, length_ang))


def test_energies_in_other_units_than_forces(frames, tmp_path):
    good = harmonic(frames)
    write_dataset(good, tmp_path / "good")
    read_dataset(tmp_path / "good")
    in_kcal = replace(
        good,
        energy=good.energy / KCAL_PER_MOL_EV,
        fragment_energies=good.fragment_energies / KCAL_PER_MOL_EV,
    )
    write_dataset(in_kcal, tmp_path / "bad")
    with pytest.raises(DataError, match="times as much as the forces say"):
        read_dataset(tmp_path / "bad")


def test_gradients_for_forces():
    real = read_dataset(DATA / "methane_dimer")
    turned = replace(real, forces=-real.forces, fragment_forces=-real.fragment_forces)
    assert "energies change -" in refused(turned)


def test_rigid_bonds_say_nothing(frames):
    swinging = harmonic(frames)
    still = replace(
        swinging,
        positions=np.repeat(swinging.positions[:1], len(swinging), axis=0),
        fragment_forces=np.zeros_like(swinging.forces),
    )
    assert bond_stiffness(still) is None


def test_binding_that_nothing_physical_has(real):
    check_binding(real, "here")
    assert binding_notes(real, "here") == []
    for shift in (-560.0, 19.4):
        with pytest.raises(DataError, match="no frame's binding energy is within 5 eV of zero"):
            check_binding(replace(real, energy=real.energy + shift), "here")
    # Between ions 20 eV can be; a wall that some frames climb is none of it.
    ions = tuple(replace(f, charge=q) for f, q in zip(real.fragments, (2, -2), strict=True))
    check_binding(replace(real, energy=real.energy - 20.0, fragments=ions), "here")
    check_binding(replace(real, energy=real.energy + np.arange(len(real))), "here")


def test_binding_forces_above_the_fragments_own_are_noted(real):
    rng = np.random.default_rng(1)
    much = 3.0 * real.fragment_forces.std() * rng.normal(size=real.forces.shape)
    (note,) = binding_notes(replace(real, forces=real.forces + much), "here")
    assert note.startswith("here: binding forces are larger than the fragments' own")
    assert "could not be checked" in binding_notes(real.select(slice(0, 4)), "here")[0]


def test_few_frames_say_nothing(frames):
    assert bond_stiffness(frames) is None
    assert work_ratio(frames) is None


@pytest.fixture(scope="module")
def real():
    return read_dataset(DATA / "methane_dimer")


def with_frame(frames, k, **arrays):
    """The frames with one frame's arrays replaced."""
    changed = {}
    for name, value in arrays.items():
        changed[name] = getattr(frames, name).copy()
        changed[name][k] = value
    return replace(frames, **changed)


def test_forces_of_a_complex_that_is_pressed_together_are_a_wall(real):
    pressed = real.positions[17].copy()
    apart = pressed[None, :5] - pressed[5:, None]
    near = np.unravel_index(np.linalg.norm(apart, axis=-1).argmin(), apart.shape[:2])
    pressed[5:] += 0.85 * apart[near]  # the nearest hydrogens, nearer than in H2
    wall = with_frame(real, 17, forces=1e3 * real.forces[17], positions=pressed)
    _check_forces(wall, "here")
    with pytest.raises(DataError, match="frame 17 has forces up to"):
        _check_forces(with_frame(wall, 17, positions=real.positions[17]), "here")


@pytest.mark.parametrize("k", [0, 17])
@pytest.mark.parametrize("name", ["forces", "fragment_forces"])
def test_one_frame_with_forces_of_another_size_is_named(real, k, name):
    said = refused(with_frame(real, k, **{name: 1e3 * getattr(real, name)[k]}))
    assert f"frame {k} has forces up to " in said
    assert "times the others'; label it again or take it out" in said


@pytest.mark.parametrize("k", [0, 17])
def test_one_frame_with_a_torn_atom_or_a_molecule_far_away_is_named(real, k):
    positions = real.positions[k].copy()
    positions[4] += [0.0, 0.0, 3.0]
    assert f"frame {k}: atom 4 (H) is " in refused(with_frame(real, k, positions=positions))
    positions = real.positions[k].copy()
    last = list(real.fragments[1].atoms)
    centre = real.positions[k].mean(axis=0)
    away = positions[last].mean(axis=0) - centre
    positions[last] += 10.0 * away / np.linalg.norm(away)
    said = refused(with_frame(real, k, positions=positions))
    assert f"frame {k}: " in said
    assert "Å from the other fragments; in the others at most " in said


def test_a_scan_of_the_distance_is_no_fault(real):
    positions = real.positions.copy()
    last = list(real.fragments[1].atoms)
    positions[:, last] += np.linspace(0.0, 30.0, len(real))[:, None, None] * [0.0, 0.0, 1.0]
    _check_contacts(replace(real, positions=positions), "here")
