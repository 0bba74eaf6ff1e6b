"""Charges in a cell that repeats: literature values, identities, and what a cluster has."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import combinations_with_replacement, product

import numpy as np
import pytest

from deltaserver.compute.thread_pool import ONE_THREAD, ThreadPool
from deltaserver.model.manifest import IsolatedAtom
from deltaserver.model.many.charges import dipole_e_ang
from deltaserver.model.many.electrostatics.ewald import Ewald, Split, erfc
from deltaserver.model.many.molecules import Assembled, Species, Total
from deltaserver.units import COULOMB_EV_ANG
from tests.model.many.builders import slope

FCC = np.array([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5], [0.5, 0.0, 0.5], [0.5, 0.5, 0.0]])
CELL = np.array([[9.3, 1.4, -0.8], [0.0, 8.9, 1.1], [0.0, 0.0, 9.8]])  # vectors in columns, Å
WATER = np.array([[0.0, 0.0, 0.1], [0.76, 0.0, -0.5], [-0.76, 0.0, -0.5]])
OF_WATER = np.array([-0.8, 0.4, 0.4])
ION = np.array([1.0])
FINE = 1e-15  # what is neglected where that must not be seen
# Madelung constants of the distance of unlike neighbours [Borwein et al., Lattice Sums Then and
# Now, Cambridge University Press, 2013].
NACL, CSCL = 1.747564594633182190636212, 1.762674773070988


def molecules(seed=0, n_water=5, n_ions=2, cell=CELL):
    """Waters turned at random and ions, on a jittered grid: two species, (n, m, 3) each."""
    rng = np.random.default_rng(seed)
    grid = np.array(list(product(range(2), repeat=3)))[: n_water + n_ions] / 2.0
    places = rng.permutation(grid) @ cell.T + rng.uniform(-0.3, 0.3, (n_water + n_ions, 3))
    turns = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in range(n_water)]
    water = [at + WATER @ turn.T for at, turn in zip(places[:n_water], turns, strict=True)]
    return [np.array(water), places[n_water:, None]]


def species_of(x):
    """Species of lone atoms' energies, nothing, with as many atoms as x has."""
    found, start = [], 0
    for k, some in enumerate(x):
        atoms = np.arange(start, start + some[..., 0].size).reshape(some.shape[:2])
        found.append(Species(f"s{k}", IsolatedAtom(1, 0.0), atoms))
        start += atoms.size
    return found


class Whole(Species):
    """Molecules that are whole already: nothing is known of their bonds."""

    def whole(self, positions, cell):
        return positions[self.atoms]


def summed(x, charges, cell, pool=ONE_THREAD, **changes):
    ewald = Ewald(tuple(charges), tuple(len(some) for some in x), **changes)
    species = [Whole(one.name, one.model, one.atoms) for one in species_of(x)]
    positions = np.concatenate([some.reshape(-1, 3) for some in x])
    frame = Assembled.of(species, positions, cell, [ewald.reach(cell)])
    total = Total.zero(frame)
    ewald.add(frame, pool, total)
    assert total.molecules.sum() == pytest.approx(total.energy, abs=1e-9)
    return total


def joined(total):
    return np.concatenate([force.reshape(-1, 3) for force in total.forces])


def salt(edge):
    """Rock salt: sodium and chlorine of a cubic cell."""
    return [FCC[:, None] * edge, (FCC + np.array([0.5, 0.0, 0.0]))[:, None] * edge]


@pytest.mark.parametrize("compiled", [True, False])
def test_salts_have_their_madelung_constants(compiled):
    a = 5.64
    ions = [ION, -ION]
    total = summed(salt(a), ions, a * np.eye(3), accuracy=FINE, compiled=compiled)
    assert -total.energy / 4 * (a / 2) / COULOMB_EV_ANG == pytest.approx(NACL, abs=1e-12)
    assert np.allclose(joined(total), 0.0, atol=1e-12)
    assert np.allclose(total.virial, total.energy / 3 * np.eye(3), rtol=1e-10)  # E ~ 1/a
    primitive = a / 2 * np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    pair = [np.zeros((1, 1, 3)), np.full((1, 1, 3), a / 2)]
    total = summed(pair, ions, primitive, accuracy=FINE, compiled=compiled)
    assert -total.energy * (a / 2) / COULOMB_EV_ANG == pytest.approx(NACL, abs=1e-12)
    total = summed(pair, ions, a * np.eye(3), accuracy=FINE, compiled=compiled)
    found = -total.energy * (math.sqrt(3.0) / 2.0 * a) / COULOMB_EV_ANG
    assert found == pytest.approx(CSCL, abs=1e-12)


def test_a_lone_ion_has_the_energy_of_a_wigner_crystal():
    """In a background, simple cubic: −2.837297/2L [Hasimoto, J. Fluid Mech. 5, 317 (1959)]."""
    total = summed([np.zeros((1, 1, 3))], [ION], 11.0 * np.eye(3), accuracy=FINE)
    assert total.energy * 22.0 / COULOMB_EV_ANG == pytest.approx(-2.837297479480619, abs=1e-10)
    assert np.allclose(total.virial, total.energy / 3 * np.eye(3), rtol=1e-10)


@pytest.mark.parametrize("ion", [1.0, -0.5, 0.0])
def test_where_it_is_split_does_not_matter(ion):
    x, charges = molecules(), [OF_WATER, np.array([ion])]
    found = [summed(x, charges, CELL, alpha=alpha, accuracy=FINE) for alpha in (0.25, 0.4, 0.7)]
    for one in found[1:]:
        assert one.energy == pytest.approx(found[0].energy, abs=1e-11)
        assert np.allclose(joined(one), joined(found[0]), atol=1e-11)
        assert np.allclose(one.virial, found[0].virial, atol=1e-10)
        assert np.allclose(one.molecules, found[0].molecules, atol=1e-10)


def test_what_is_neglected_by_default_is_below_a_millionth():
    """Relative to the forces' mean square root; of virials 1e-5 of the largest."""
    x, charges = molecules(), [OF_WATER, ION]
    exact = summed(x, charges, CELL, accuracy=FINE)
    size = np.sqrt((joined(exact) ** 2).mean())
    for cell_of in (CELL, 2.5 * CELL):
        exact = summed(x, charges, cell_of, accuracy=FINE)
        found = summed(x, charges, cell_of)
        assert np.abs(joined(found) - joined(exact)).max() < 3e-7 * size
        assert found.energy == pytest.approx(exact.energy, abs=2e-7)
        assert np.abs(found.virial - exact.virial).max() < 1e-5 * np.abs(exact.virial).max()


def test_loops_numpy_and_threads_are_the_same():
    x, charges = molecules(3), [OF_WATER, -ION]
    found = summed(x, charges, CELL, ThreadPool(2))
    other = summed(x, charges, CELL, compiled=False)
    assert found.energy == pytest.approx(other.energy, abs=1e-11)
    assert np.allclose(joined(found), joined(other), atol=1e-11)
    assert np.allclose(found.virial, other.virial, atol=1e-11)
    assert np.allclose(found.molecules, other.molecules, atol=1e-11)


def test_forces_are_slopes_and_add_up_to_nothing():
    x, charges = molecules(1), [OF_WATER, ION]
    total = summed(x, charges, CELL, alpha=0.45, accuracy=FINE)
    assert np.allclose(joined(total).sum(axis=0), 0.0, atol=1e-12)
    rng = np.random.default_rng(2)
    way = [rng.normal(size=some.shape) for some in x]

    def energy(step):
        moved = [some + step * w for some, w in zip(x, way, strict=True)]
        return summed(moved, charges, CELL, alpha=0.45, accuracy=FINE).energy

    expected = -sum((force * w).sum() for force, w in zip(total.forces, way, strict=True))
    assert slope(energy, h=1e-3) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("a", "b"), list(combinations_with_replacement(range(3), 2)))
def test_the_virial_is_the_slope_by_strain_of_a_charged_cell_too(a, b):
    x, charges = molecules(4), [OF_WATER, ION]

    def energy(step):
        strain = np.eye(3)
        strain[a, b] += step
        moved = [some @ strain.T for some in x]
        return summed(moved, charges, strain @ CELL, alpha=0.45, accuracy=FINE).energy

    virial = summed(x, charges, CELL, accuracy=FINE).virial
    assert slope(energy, h=1e-3) == pytest.approx(-virial[a, b], rel=1e-7, abs=1e-7)
    assert np.allclose(virial, virial.T, atol=1e-11)


def test_a_supercell_is_so_many_cells():
    x, charges = molecules(5), [OF_WATER, -ION]
    one = summed(x, charges, CELL, accuracy=1e-12)
    steps = np.array(list(product(range(2), range(3), range(1)))) @ CELL.T
    many = [np.concatenate([some + step for step in steps]) for some in x]
    found = summed(many, charges, CELL * np.array([2.0, 3.0, 1.0]), accuracy=1e-12)
    assert found.energy == pytest.approx(6.0 * one.energy, abs=1e-8)
    assert np.allclose(found.virial, 6.0 * one.virial, atol=1e-7)
    for force, own in zip(found.forces, one.forces, strict=True):
        assert np.allclose(force, np.tile(own, (6, 1, 1)), atol=1e-9)


def test_halves_far_apart_are_the_sum_of_both():
    """Cubes of eight ions have no dipole and no quadrupole: 1e-8 eV are left over 70 Å."""
    cell, ions = 200.0 * np.eye(3), [ION, -ION]
    corner = np.array(list(product(range(2), repeat=3)))
    even = corner.sum(axis=1) % 2 == 0
    cube = [2.8 * corner[even][:, None].astype(float), 2.8 * corner[~even][:, None].astype(float)]
    moved = [some + np.array([70.0, -20.0, 10.0]) for some in cube]
    one = summed(cube, ions, cell, accuracy=1e-12)
    both = [np.concatenate(pair) for pair in zip(cube, moved, strict=True)]
    found = summed(both, ions, cell, accuracy=1e-12)
    assert one.energy < -10.0
    assert found.energy == pytest.approx(2.0 * one.energy, abs=1e-7)
    assert np.allclose(found.forces[0][:4], one.forces[0], atol=1e-9)


def test_neutral_molecules_in_a_wide_cell_are_a_cluster():
    """But for their images, by a conducting boundary: −2π μ²/3V to the leading order [Makov and
    Payne, Phys. Rev. B 51, 4014 (1995)]."""
    water = molecules(6)[0]
    i, j = np.triu_indices(len(water), k=1)
    r = np.linalg.norm(water[i, :, None] - water[j, None], axis=-1)
    bare = COULOMB_EV_ANG * (np.einsum("a,b->ab", OF_WATER, OF_WATER) / r.swapaxes(1, 2)).sum()
    dipole = np.einsum("a,nax->x", OF_WATER, water)
    left = []
    for edge in (60.0, 120.0):
        images = -2.0 * np.pi / (3.0 * edge**3) * COULOMB_EV_ANG * (dipole @ dipole)
        found = summed([water], [OF_WATER], edge * np.eye(3), accuracy=1e-12).energy
        left.append(found - bare - images)
        assert abs(left[-1]) < 0.1 * abs(images)
    assert abs(left[1]) < 1.1 * abs(left[0]) / 2**5


def test_the_error_function_is_that_of_the_library():
    split = Split.of(1000.0, 100)
    y = np.linspace(0.0, 20.0, 4001)
    exact = np.array([math.erfc(at) for at in y.tolist()])
    assert np.abs(erfc(y, split) - exact).max() < 1e-14
    near = y < split.alpha * split.near
    assert np.abs(erfc(y, split)[near] / exact[near] - 1.0).max() < 1e-13


def test_a_cell_that_grows_alike_keeps_its_vectors():
    small, large = Split.of(1000.0, 100), Split.of(1331.0, 100)
    assert large.near == pytest.approx(1.1 * small.near)
    assert large.far == pytest.approx(small.far / 1.1)
    ewald = Ewald((OF_WATER,), (5,))
    assert replace(ewald, alpha=0.3).split(CELL) == Split.at(0.3)


def test_the_dipole_follows_from_distances_alone():
    a, b = np.tril_indices(3, k=-1)
    inverse = 1.0 / np.linalg.norm(WATER[a] - WATER[b], axis=1)
    expected = np.linalg.norm(OF_WATER @ WATER)
    assert dipole_e_ang(OF_WATER, 0.5 * inverse[None], 0.5) == pytest.approx(expected, rel=1e-12)
