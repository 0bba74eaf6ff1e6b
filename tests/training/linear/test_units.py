"""A molecule whose rings turn about bonds: its units act on each other as fragments do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.errors import ModelFileError
from deltaserver.model.files.archive import read_arrays
from deltaserver.model.files.expansions import parse_molecule
from deltaserver.model.files.parameters import read_parameters
from deltaserver.model.linear.expansion import OfUnits
from deltaserver.model.sgdml import NativeUnits, SGDMLModel
from deltaserver.training.components import LabelledSet
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.linear.fit import _between_units
from deltaserver.training.linear.units import unit_topologies, units
from deltaserver.training.linear.valence_fit import ValenceFit
from deltaserver.training.model_directory import train_directory
from deltaserver.training.symmetry import automorphisms
from deltaserver.units import KCAL_PER_MOL_EV
from tests.tolerances import rounding
from tests.training.labelled import attraction, springs

networkx = pytest.importorskip("networkx")

NUMBERS = np.array([6, 6, 6, 8, 6, 6, 6])
RING = 1.5 * np.array([[0.0, 0.0, 0.0], [0.87, 0.5, 0.0], [0.87, -0.5, 0.0]])


def graph_of(edges, colours):
    graph = networkx.Graph()
    graph.add_nodes_from((k, {"colour": c}) for k, c in enumerate(colours))
    graph.add_edges_from(edges)
    return graph


def ether():
    """Two rings of three carbons at an oxygen."""
    edges = [(0, 1), (1, 2), (0, 2), (0, 3), (3, 4), (4, 5), (5, 6), (4, 6)]
    return graph_of(edges, NUMBERS.tolist())


def geometries(n: int) -> np.ndarray:
    rng = np.random.default_rng(1)
    start = np.concatenate([RING, [[-0.8, 1.1, 0.0]], RING @ np.diag([1, 1, -1]) + [-0.4, 2.4, 0]])
    return start + 0.08 * rng.normal(size=(n, 7, 3))


@pytest.fixture(scope="module")
def fit():
    x = geometries(240)
    data = LabelledSet("ether", "none", NUMBERS, x, np.zeros(240), np.zeros_like(x), np.arange(240))
    graph = ether()
    perms = automorphisms(graph).perms
    train, valid = np.arange(200), np.arange(200, 240)
    between = _between_units(data, train, valid, graph, perms)
    assert between is not None
    return ValenceFit(data, train, valid, graph, perms, True, between)


@pytest.fixture(scope="module")
def expansion(fit):
    rng = np.random.default_rng(2)
    c = rng.normal(size=fit._n_columns)
    return fit._expansion(c, np.zeros(len(fit._distances.pairs)))


def peroxide_and_ion(n: int) -> LabelledFrames:
    """H2O2, its atoms on springs, and Na⁺ at its wells."""
    rest = np.array([[0.7, 0, 0], [-0.7, 0, 0], [1.0, 0.9, 0], [-1.0, 0.4, 0.8]])
    start = np.concatenate([rest, [[0.0, -2.8, 0.4]]])
    x = start + 0.04 * np.random.default_rng(3).normal(size=(n, 5, 3))
    within, forces = springs(x[:, :4], rest)
    binding, more = attraction(x, [0, 1, 2, 3], [4])
    own = np.concatenate([forces, np.zeros((n, 1, 3))], axis=1)
    return LabelledFrames(
        "peroxide", "springs", np.array([8, 8, 1, 1, 11]),
        (FragmentSpec("peroxide", (0, 1, 2, 3)), FragmentSpec("sodium", (4,), 1)),
        x, within + binding, own + more, np.stack([within, np.zeros(n)], axis=1), own,
        np.zeros(n, dtype=int), np.arange(n),
    )  # fmt: skip


def test_a_model_with_units_is_trained_and_served(tmp_path):
    frames = peroxide_and_ion(300)
    plan = TrainingPlan(15, 10, sigmas=(5.0,), component="peroxide", linear="units")
    errors = {}
    for linear in ("units", "distances"):
        output = tmp_path / linear
        report = train_directory(frames, replace(plan, linear=linear), output)
        errors[linear] = report["peroxide"]["valid_force_mae_kcal_mol_ang"]
    parameters = read_parameters(tmp_path / "units" / "peroxide.npz")
    assert isinstance(parameters.linear, OfUnits)
    assert parameters.linear.units.tolist() == [0, 1, 0, 1]
    assert errors["units"] < 2.0 * errors["distances"]  # springs need no units
    x = frames.positions[:3, :4]
    model = SGDMLModel(parameters, NativeUnits(1.0, 1.0))
    found = model.evaluate(x).forces
    numeric = np.zeros_like(x)
    for atom, axis in np.ndindex(4, 3):
        step = np.zeros((4, 3))
        step[atom, axis] = 1e-4
        energies = model.evaluate(x - step).energy, model.evaluate(x + step).energy
        numeric[:, atom, axis] = (energies[0] - energies[1]) / 2e-4
    np.testing.assert_allclose(found, numeric, rtol=0, atol=1e-5 * np.abs(found).max())


def test_the_kernel_has_no_points_where_a_molecule_is_strained(tmp_path):
    frames = peroxide_and_ion(300)
    strained = np.zeros((300, 2))
    strained[::4, 0] = 5.0  # eV, more than any other frame has
    frames = replace(
        frames,
        energy=frames.energy + strained.sum(axis=1),
        fragment_energies=frames.fragment_energies + strained,
    )
    plan = TrainingPlan(60, 10, sigmas=(5.0,), component="peroxide", linear="units")
    train_directory(frames, plan, tmp_path)
    points = read_arrays(tmp_path / "peroxide.npz")["R"]
    same = np.isclose(points[:, None], frames.positions[:, :4]).all(axis=(2, 3))
    assert same.any(axis=1).all()
    assert not same[:, ::4].any()


def test_frames_that_do_not_count_say_nothing(fit):
    rng, found = np.random.default_rng(5), {}
    weight = np.ones(240)
    weight[:30] = 0.0
    for name, counts in (("all", None), ("some", weight)):
        for k in range(2):
            forces = fit.data.positions - fit.data.positions.mean(axis=1, keepdims=True)
            forces[:30] = rng.normal(size=(30, 7, 3))
            energy = np.append(rng.normal(size=30), np.zeros(210))
            data = replace(fit.data, energy=energy, forces=forces)
            some = replace(fit, data=data, weight=counts, valid=np.zeros(0, dtype=int))
            found[name, k] = some.solve().evaluate(fit.data.positions[200:])[1]
    size = np.abs(found["some", 0]).max()
    np.testing.assert_allclose(found["some", 1], found["some", 0], rtol=0, atol=1e-6 * size)
    assert np.abs(found["all", 1] - found["all", 0]).max() > 1e-2 * size


def test_bonds_that_turn_cut_a_molecule_into_units():
    assert units(ether()) == [(0, 1, 2), (3,), (4, 5, 6)]
    benzene = networkx.cycle_graph(6)
    benzene.add_edges_from((k, k + 6) for k in range(6))
    assert units(benzene) == [tuple(range(12))]
    ethane = graph_of([(0, 1), *((k // 3, k + 2) for k in range(6))], [6, 6, *[1] * 6])
    assert units(ethane) == [(0, 2, 3, 4), (1, 5, 6, 7)]


def test_units_that_a_symmetry_swaps_share_their_classes():
    graph = ether()
    first, oxygen, other = unit_topologies(graph, automorphisms(graph).perms)
    assert first.species == other.species != oxygen.species
    assert first.sites is other.sites
    assert (first.atoms[0], other.atoms[0]) == (0, 4)  # at the oxygen, both


def test_columns_are_those_of_the_expansion(fit, expansion):
    x = geometries(5)
    c = np.random.default_rng(2).normal(size=fit._n_columns)
    energy, rows = fit._rows(x)
    found = expansion.evaluate(x)
    size = np.abs(energy) @ np.abs(c)
    np.testing.assert_allclose(found[0], energy @ c, rtol=0, atol=rounding(len(c)) * size.max())
    of_forces = (np.abs(rows) @ np.abs(c)).max()
    np.testing.assert_allclose(
        found[1].ravel(), rows @ c, rtol=0, atol=rounding(len(c)) * of_forces
    )


def test_symmetries_change_nothing(fit, expansion):
    x = geometries(3)
    energy, forces, _ = expansion.evaluate(x)
    for p in fit.perms:
        moved = expansion.evaluate(x[:, p])
        np.testing.assert_allclose(moved[0], energy, rtol=1e-9)
        np.testing.assert_allclose(moved[1], forces[:, p], rtol=0, atol=1e-9 * np.abs(forces).max())


def test_what_units_do_to_each_other_is_found(fit, expansion):
    """By terms of bonds, angles and torsions alone it is not."""
    x = fit.data.positions
    between = replace(expansion, parts=expansion.parts[1:])
    energy, forces, _ = between.evaluate(x)
    data = replace(fit.data, energy=energy * KCAL_PER_MOL_EV, forces=forces * KCAL_PER_MOL_EV)
    errors = []
    for problem in (replace(fit, data=data), replace(fit, data=data, between=None)):
        found = problem.solve().evaluate(x[200:])[1]
        errors.append(np.abs(found - forces[200:]).mean() / np.abs(forces[200:]).mean())
    assert errors[0] < 1e-3
    assert errors[1] > 10 * errors[0]


def test_a_file_says_the_same_again_and_is_checked(expansion):
    arrays, x = expansion.arrays(), geometries(2)
    found = parse_molecule(arrays, 7, "ether.npz")
    assert found is not None
    forces = expansion.evaluate(x)[1]
    np.testing.assert_allclose(
        found.evaluate(x)[1], forces, rtol=0, atol=rounding(1000) * np.abs(forces).max()
    )
    for last in (3, 10**15):  # which no table is made for
        wrong = {**arrays, "units": np.array([0, 0, 0, 2, last, last, last])}
        with pytest.raises(ModelFileError, match=r"ether\.npz: units are not numbered from 0 on"):
            parse_molecule(wrong, 7, "ether.npz")
