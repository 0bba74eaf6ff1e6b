"""Linear expansions fitted before the kernel: what they can represent they find."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from deltaserver import CompositeModel
from deltaserver.errors import InputError
from deltaserver.model.files.parameters import read_parameters
from deltaserver.model.sgdml import SGDMLModel
from deltaserver.training.components import components, fragment_graph, labelled_set
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.linear import product_terms, site_fit
from deltaserver.training.linear.contacts import GAPS_ANG, contacts
from deltaserver.training.linear.fit import linear_fit, product_fit
from deltaserver.training.linear.least_squares import LeastSquares
from deltaserver.training.linear.site_fit import SiteFit, weight_on_the_wall
from deltaserver.training.linear.topology import Distances, MoleculeSites, bonds_apart, rings
from deltaserver.training.linear.valence_fit import ValenceFit
from deltaserver.training.model_directory import train_directory
from deltaserver.training.symmetry import automorphisms
from deltaserver.units import KCAL_PER_MOL_EV
from tests.tolerances import rounding
from tests.training.labelled import water_and_ion, water_dimer

networkx = pytest.importorskip("networkx")


def benzene():
    graph = networkx.cycle_graph(6)
    graph.add_edges_from((k, k + 6) for k in range(6))
    for atom in graph:
        graph.nodes[atom]["colour"] = "C" if atom < 6 else "H"
    return graph


def test_least_squares_of_rows_as_they_come():
    rng = np.random.default_rng(0)
    a, y = rng.normal(size=(60, 7)), rng.normal(size=60)
    problem = LeastSquares(7)
    for k in range(0, 60, 13):
        problem.add(a[k : k + 13], y[k : k + 13])
    expected = np.linalg.lstsq(a, y, rcond=None)[0]
    np.testing.assert_allclose(problem.solve(0.0), expected, rtol=1e-10)
    some = problem.solve(0.0, 4)
    np.testing.assert_allclose(some[:4], np.linalg.lstsq(a[:, :4], y, rcond=None)[0], rtol=1e-10)
    assert not some[4:].any()


def test_columns_that_depend_on_each_other_are_shared_out():
    a = np.random.default_rng(0).normal(size=(30, 1))
    problem = LeastSquares(3)
    problem.add(np.hstack([a, a, 0 * a]), 2.0 * a[:, 0])
    np.testing.assert_allclose(problem.solve(1e-9), [1.0, 1.0, 0.0], atol=1e-6)
    assert np.isfinite(problem.solve(0.0)).all()


def test_the_distances_of_benzene():
    graph = benzene()
    perms = automorphisms(graph).perms
    apart, found = bonds_apart(graph), Distances.of(graph, perms)
    assert len(perms) == 12
    # C–C in three kinds, C–H in three, H–H over three bonds.
    assert found.of_pair.max() + 1 == 7
    assert len(found.pairs) == (apart[np.tril_indices(12, -1)] <= 3).sum()
    couplings, triples = found.couplings, found.triples
    for products in (couplings, triples):
        assert (np.diff(products.factors, axis=1) <= 0).all()
        assert len(np.unique(products.factors, axis=0)) == len(products.factors)
        assert products.of.max() + 1 == products.levels[-1]
    share = [bool(set(found.pairs[p]) & set(found.pairs[q])) for p, q in couplings.factors]
    assert sum(share) == (couplings.of < couplings.levels[0]).sum()
    # As many as counted one by one.
    n = len(found.pairs)
    touch = [[bool(set(a) & set(b)) for b in found.pairs] for a in found.pairs]
    expected = sum(
        touch[p][q] and touch[p][r] and touch[q][r]
        for p in range(n) for q in range(p + 1) for r in range(q + 1) if r < p
    )  # fmt: skip
    assert len(triples.factors) == expected


def test_a_ring_and_its_links_have_all_products_of_three_distances():
    """A six-membered ring, an ether's oxygen and methyl's carbon at it, and a hydrogen."""
    graph = networkx.cycle_graph(6)
    graph.add_edges_from([(0, 6), (6, 7), (3, 8)])
    for atom in graph:
        graph.nodes[atom]["colour"] = {6: 8, 8: 1}.get(atom, 6)
    perms = automorphisms(graph).perms
    plain, found = Distances.of(graph, perms), Distances.of(graph, perms, in_rings=True)
    n = len(plain.triples.factors)
    np.testing.assert_array_equal(found.triples.factors[:n], plain.triples.factors)
    assert found.triples.levels[:2] == plain.triples.levels
    assert found.triples.of.max() + 1 == found.triples.levels[2]
    inside = [k for k, pair in enumerate(found.pairs.tolist()) if max(pair) <= 6]
    touch = [[bool({*a} & {*b}) for b in found.pairs.tolist()] for a in found.pairs.tolist()]
    expected = {
        (p, q, r)
        for p in inside for q in inside for r in inside
        if p >= q >= r and r < p and not (touch[p][q] and touch[p][r] and touch[q][r])
    }  # fmt: skip
    assert {tuple(three) for three in found.triples.factors[n:].tolist()} == expected
    assert len(expected) == len(found.triples.factors) - n


def test_sites_are_atoms_bonds_and_rings():
    graph = benzene()
    found = MoleculeSites.of(graph, automorphisms(graph).perms)
    assert len(found.atoms) == 12 + 12 + 1
    assert found.n_kinds == 5
    assert found.atoms[-1] == (0, 1, 2, 3, 4, 5)


def test_all_rings_of_a_cage_are_found():
    """A cycle basis of C60 has 31 rings, which no symmetry takes to each other; there are 32."""
    cube = networkx.hypercube_graph(3)
    graph = networkx.convert_node_labels_to_integers(cube)
    assert len([ring for ring in rings(graph) if len(ring) == 4]) == 6


def of_water(n_frames: int = 60):
    frames = water_dimer(n_frames)
    available = components(frames)
    data = labelled_set(frames, available[0])
    fit = linear_fit(
        frames,
        available,
        available[0],
        data,
        np.arange(n_frames),
        np.arange(n_frames, 2 * n_frames),
        100,
    )
    return fit, data


def test_springs_are_found():
    """Springs between atoms are products and powers of distances: nothing is left."""
    fit, data = of_water()
    assert isinstance(fit, ValenceFit)
    energy, forces, _ = fit.solve().evaluate(data.positions)
    # The ridge of 1e-9 of the squared columns leaves its root at worst, of columns that cancel.
    np.testing.assert_allclose(forces * KCAL_PER_MOL_EV, data.forces, rtol=0, atol=1e-3)
    left = data.energy - energy * KCAL_PER_MOL_EV
    assert np.ptp(left) < 1e-4


def test_bonds_hold_beyond_all_frames():
    """Springs beyond the polynomial are those of the labels, and pull back."""
    fit, data = of_water()
    found = fit.solve()
    assert (found.springs >= 0.0).all()
    bonds = found.mean < 1.2  # O–H, not H–H
    assert (found.springs[bonds] > 0.0).all()
    x = data.positions[:1].copy()
    h, o = found.pairs[bonds][0]
    x[0, h] += (x[0, h] - x[0, o]) * 1.5
    pull = found.evaluate(x)[1][0]
    out = x[0, h] - x[0, o]
    assert pull[h] @ out < 0.0
    assert pull[o] @ out > 0.0


def test_equivalent_atoms_are_treated_alike():
    fit, data = of_water()
    expansion = fit.solve()
    swap = [0, 2, 1]
    energy, forces, _ = expansion.evaluate(data.positions[:5])
    other, others, _ = expansion.evaluate(data.positions[:5][:, swap])
    np.testing.assert_allclose(energy, other, rtol=1e-12)
    np.testing.assert_allclose(forces[:, swap], others, rtol=0, atol=1e-11 * np.abs(forces).max())


def test_few_frames_give_few_products():
    fit, _ = of_water()
    assert replace(fit, train=np.arange(3))._n_columns < fit._n_columns


def test_what_sites_can_represent_they_find():
    frames = water_dimer(80)
    available = components(frames)
    binding = available[1]
    data = labelled_set(frames, binding)
    fit = linear_fit(frames, available, binding, data, np.arange(60), np.arange(60, 80), 100)
    assert isinstance(fit, SiteFit)
    made = fit.expansion(np.random.default_rng(0).normal(size=fit.n_columns))
    energy, forces, _ = made.evaluate(data.positions)
    labels = replace(data, energy=energy * KCAL_PER_MOL_EV, forces=forces * KCAL_PER_MOL_EV)
    again = replace(fit, data=labels, n_contacts=0)
    found = again.solve().evaluate(data.positions[60:])
    np.testing.assert_allclose(found[1], forces[60:], rtol=0, atol=1e-3 * np.abs(forces).max())
    np.testing.assert_allclose(found[0], energy[60:], rtol=0, atol=1e-3 * np.abs(energy).max())


def test_a_wall_counts_less_the_higher_it_is():
    heights = np.array([-3.0, 0.0, 1.0, 3.0])
    assert weight_on_the_wall(heights).tolist() == [1.0, 1.0, 0.5, 0.1]


def test_frames_that_count_for_nothing_change_nothing():
    """Labels of half of the frames are nonsense: weight 0 is the same as leaving them out."""
    frames = water_dimer(80)
    available = components(frames)
    data = labelled_set(frames, available[1])
    fit = linear_fit(frames, available, available[1], data, np.arange(60), np.arange(60, 80), 100)
    assert isinstance(fit, SiteFit)
    fit = replace(fit, n_contacts=0)  # which are made of the training frames
    spoilt, weight = data.energy.copy(), np.ones(80)
    spoilt[30:70] += 50.0
    weight[30:70] = 0.0
    with_them = replace(fit, data=replace(data, energy=spoilt), weight=weight)
    without = replace(fit, train=np.arange(30), valid=np.arange(70, 80), weight=None)
    x = data.positions
    found, expected = (one.solve().evaluate(x)[0] for one in (with_them, without))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.fixture(scope="module")
def with_a_wall(tmp_path_factory):
    """Return which frames are on a wall, and the file trained with it 2 or 3 eV high."""
    frames, found = water_dimer(100), {}
    high = np.arange(100) % 3 == 0
    plan = replace(PLAN, component="binding", n_train=20)
    for height in (2.0, 3.0):
        raised = frames.energy + np.where(high, height - frames.binding_energy, 0.0)
        output = tmp_path_factory.mktemp("wall") / "model"
        train_directory(replace(frames, energy=raised), plan, output)
        with np.load(output / "binding.npz") as file:
            found[height] = dict(file)
    return high, found


def test_a_kernel_has_no_points_on_a_wall_that_its_expansion_knows(with_a_wall):
    high, found = with_a_wall
    for file in found.values():
        assert not high[file["idxs_train"]].any()
        assert not high[file["idxs_valid"]].any()


def test_a_wall_is_learned_by_what_is_fitted_beside_the_kernel_alone(with_a_wall):
    """What the kernel learns is the same, however high the wall; the expansion's sites are not."""
    _, found = with_a_wall
    low, high = found[2.0], found[3.0]
    np.testing.assert_array_equal(low["alphas_F"], high["alphas_F"])
    sites = low["site_coefficients"]
    assert np.abs(sites - high["site_coefficients"]).max() > 0.01 * np.abs(sites).max()


def test_of_ridges_as_good_as_each_other_the_largest_is_taken(monkeypatch):
    """Of noise, which none predicts, the largest; of what only the least finds, the least."""
    frames = water_dimer(80)
    available = components(frames)
    data = labelled_set(frames, available[1])
    fit = linear_fit(frames, available, available[1], data, np.arange(60), np.arange(60, 80), 100)
    assert isinstance(fit, SiteFit)
    fit = replace(fit, n_contacts=0)
    energy, forces, _ = fit.expansion(np.ones(fit.n_columns)).evaluate(data.positions)
    exact = replace(data, energy=energy * KCAL_PER_MOL_EV, forces=forces * KCAL_PER_MOL_EV)
    rng = np.random.default_rng(0)
    noise = replace(data, energy=rng.normal(size=80), forces=rng.normal(size=forces.shape))
    for labels, ridge in ((exact, 1e-9), (noise, 1.0)):
        problem = replace(fit, data=labels)
        monkeypatch.setattr(site_fit, "RIDGES", (1e-9, 1.0))
        found = problem.solve(plainest=True).arrays()["site_coefficients"]
        monkeypatch.setattr(site_fit, "RIDGES", (ridge,))
        np.testing.assert_array_equal(found, problem.solve().arrays()["site_coefficients"])


def of_products():
    frames = water_dimer(80)
    available = components(frames)
    data = labelled_set(frames, available[1])
    perms = np.array([[0, 1, 2, 3, 4, 5], [3, 4, 5, 0, 1, 2]])
    train, valid = np.arange(60), np.arange(60, 80)
    return product_fit(frames, available, data, train, valid, perms, 100), data


def test_columns_of_products_are_those_of_the_expansion():
    fit, data = of_products()
    c = np.random.default_rng(1).normal(size=len(fit.products))
    x = data.positions[:4]
    energy, forces, _ = fit.products.expansion(c).evaluate(x)
    for k, one in enumerate(x):
        energies, columns = fit.products.rows(one)
        bound = rounding(len(c))
        assert abs(energies @ c - energy[k]) <= bound * np.abs(energies * c).sum()
        left = np.abs(columns @ c - forces[k].ravel())
        assert (left <= 10 * bound * np.abs(columns * c).sum(axis=1)).all()


def test_what_products_can_represent_they_find():
    fit, data = of_products()
    made = fit.expansion(np.random.default_rng(0).normal(size=fit.n_columns))
    energy, forces, _ = made.evaluate(data.positions)
    labels = replace(data, energy=energy * KCAL_PER_MOL_EV, forces=forces * KCAL_PER_MOL_EV)
    found = replace(fit, data=labels).solve().evaluate(data.positions[60:])
    # More coefficients than these frames tell apart: the ridge decides what is left of them.
    np.testing.assert_allclose(found[1], forces[60:], rtol=0, atol=0.02 * np.abs(forces).max())


def test_contacts_are_of_two_atoms_and_leave_molecules_whole():
    frames, first = water_dimer(20).positions, np.arange(3)
    found = contacts(frames, first, 50)
    nearest = np.linalg.norm(found[:, :3, None] - found[:, None, 3:], axis=-1).min(axis=(1, 2))
    assert (nearest > GAPS_ANG[0] - 0.01).all()
    assert (nearest < GAPS_ANG[1] + 0.01).all()
    apart = np.linalg.norm(found[:, None, :3] - found[:, :3, None], axis=-1)
    known = np.linalg.norm(frames[:, None, :3] - frames[:, :3, None], axis=-1)
    for one in apart:
        assert np.abs(known - one).max(axis=(1, 2)).min() < 1e-10


def test_where_nobody_has_labelled_a_contact_sites_are_quiet():
    frames = water_dimer(80)
    available = components(frames)
    data = labelled_set(frames, available[1])
    train, valid = np.arange(60), np.arange(60, 80)
    fit = linear_fit(frames, available, available[1], data, train, valid, 100)
    assert isinstance(fit, SiteFit)
    new = contacts(frames.positions, np.arange(3), 100, seed=7)
    loud, quiet = (
        np.abs(replace(fit, n_contacts=n).solve().evaluate(new)[0]).mean() for n in (0, 200)
    )
    assert quiet < 0.5 * loud


def test_a_lone_atom_is_a_site_and_has_no_expansion_of_its_own():
    frames = water_and_ion()
    available = components(frames)
    data = labelled_set(frames, available[2])
    fit = linear_fit(frames, available, available[2], data, np.arange(30), np.arange(30, 40), 100)
    assert isinstance(fit, SiteFit)
    assert len(fit.sites) == 3 + 2 + 1
    lone = labelled_set(frames, available[1])
    nothing = np.arange(5)
    assert linear_fit(frames, available, available[1], lone, nothing, nothing, 100) is None


def test_a_full_model_has_the_distances_within_all_its_molecules():
    frames = water_dimer(80)
    available = components(frames)
    full = available[-1]
    data, train, valid = labelled_set(frames, full), np.arange(60), np.arange(60, 80)
    fit = linear_fit(frames, available, full, data, train, valid, 100)
    assert isinstance(fit, ValenceFit)
    owner = np.repeat([0, 1], 3)
    assert len(fit._distances.pairs) == 6
    assert (np.diff(owner[fit._distances.pairs]) == 0).all()
    assert fit._distances.of_pair.max() + 1 == 2  # O–H and H–H, of both waters
    # Its molecules do not feel each other: twice one water's, which the fit of both has found.
    expansion, far = fit.solve(), data.positions[60:].copy()
    far[:, 3:] += 50.0
    energy, forces, _ = expansion.evaluate(data.positions[60:])
    moved = expansion.evaluate(far)
    # Atoms at 50 Å are known to as many digits fewer.
    np.testing.assert_allclose(moved[0], energy, rtol=0, atol=1e-9 * np.abs(energy).max())
    np.testing.assert_allclose(moved[1], forces, rtol=0, atol=1e-9 * np.abs(forces).max())
    left = data.forces[60:] / KCAL_PER_MOL_EV - forces
    bound = np.abs(frames.binding_forces[60:]).mean() / KCAL_PER_MOL_EV
    assert np.abs(left).mean() < 2 * bound


@pytest.mark.parametrize("weight", [1.0, 0.5])
def test_a_full_model_on_an_expansion_is_better_and_is_read_back(tmp_path, weight):
    frames = water_dimer(100)
    plan = replace(PLAN, component="full", prior="none", intra_weights=(weight,))
    found = train_directory(frames, plan, tmp_path / "expanded")["full"]
    plain = train_directory(frames, replace(plan, linear="none"), tmp_path / "plain")["full"]
    assert read_parameters(tmp_path / "expanded" / "full.npz").linear is not None
    key = "valid_force_mae_kcal_mol_ang"
    assert found[key] < 0.5 * plain[key]
    model = SGDMLModel.load(tmp_path / "expanded" / "full.npz")
    forces = model.evaluate(frames.positions[90:]).forces
    error = np.abs(forces - frames.forces[90:]).mean() / KCAL_PER_MOL_EV
    assert error < 0.5 * plain[key]


PLAN = TrainingPlan(
    n_train=15, n_valid=10, sigmas=(5.0,), prior="pairs", intra_weights=(0.3,), linear="distances"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    output = tmp_path_factory.mktemp("linear") / "model"
    report = train_directory(water_dimer(100), PLAN, output)
    return output, report


def test_a_directory_with_expansions_can_be_served(trained):
    output, report = trained
    model, frames = CompositeModel.load(output), water_dimer(100)
    for name in ("left", "binding"):
        assert read_parameters(output / f"{name}.npz").linear is not None
    assert read_parameters(output / "full.npz").linear is None
    found = model.evaluate(frames.positions[90:], "left")
    np.testing.assert_allclose(
        found.forces[:, :3], frames.fragment_forces[90:, :3], rtol=0, atol=1e-3
    )
    energy = model.evaluate(frames.positions[90:], "left").energy
    np.testing.assert_allclose(energy, frames.fragment_energies[90:, 0], rtol=0, atol=1e-4)
    assert report["left"]["valid_force_mae_kcal_mol_ang"] < 0.02
    plain = train_directory(
        frames, replace(PLAN, linear="none", component="left"), output.with_name("plain")
    )
    assert (
        report["left"]["valid_force_mae_kcal_mol_ang"]
        < 0.2 * plain["left"]["valid_force_mae_kcal_mol_ang"]
    )


def test_products_are_all_of_a_binding(tmp_path):
    """Fragments keep their kernels; the binding has none, and its points tell what is new."""
    plan = replace(PLAN, linear="products", n_train=30)
    said: list[str] = []
    report = train_directory(water_dimer(100), plan, tmp_path / "model", said.append)
    assert any("binding: 30 points" in line and "no kernel" in line for line in said)
    model = CompositeModel.load(tmp_path / "model")
    assert not model.binding.has_kernel
    assert model.fragments[0].model.has_kernel
    assert model.binding.parameters.uncertainty is None
    prior = replace(plan, linear="none", n_train=2)
    rough = train_directory(water_dimer(100), prior, tmp_path / "rough")
    name = "valid_force_mae_kcal_mol_ang"
    assert report["binding"][name] < 0.5 * rough["binding"][name]


def test_products_of_too_many_distances_are_refused(monkeypatch):
    monkeypatch.setattr(product_terms, "MAX_PRODUCT_ATOMS", 5)
    with pytest.raises(InputError, match="6 atoms, too many for products"):
        of_products()
    monkeypatch.undo()
    monkeypatch.setattr(product_terms, "MAX_COLUMNS", 100)
    with pytest.raises(InputError, match="products of distances that no symmetry makes alike"):
        of_products()


def test_sgdml_refuses_it(trained):
    predict = pytest.importorskip("sgdml.predict")
    with np.load(trained[0] / "left.npz") as file:
        arrays = dict(file)
    with pytest.raises(SystemExit):  # "not a valid model"
        predict.GDMLPredict(arrays)


def test_kept_when_asked_for_again_and_refused_when_not_the_same(trained):
    output, _ = trained
    said: list[str] = []
    train_directory(water_dimer(100), PLAN, output, said.append)
    assert any("already trained, kept" in line for line in said)
    with pytest.raises(InputError, match="linear"):
        train_directory(water_dimer(100), replace(PLAN, linear="none"), output)


def test_regularisations_are_chosen_from_by_validation(tmp_path):
    plan = replace(PLAN, component="left", lambdas=(1e-10, 1e-2), linear="none")
    report = train_directory(water_dimer(100), plan, tmp_path / "model")
    entry = report["left"]
    assert {one["lambda"] for one in entry["candidates"]} == {1e-10, 1e-2}
    best = min(entry["candidates"], key=lambda one: one["valid_force_mae_kcal_mol_ang"])
    assert entry["lambda"] == best["lambda"]
    known = json.loads((tmp_path / "model" / "training.json").read_text())
    assert known["components"]["left"]["identity"]["lambdas"] == [1e-10, 1e-2]


def test_the_graph_of_a_fragment_has_its_bonds():
    frames = water_dimer(10)
    assert sorted(fragment_graph(frames, frames.fragments[0]).edges) == [(0, 1), (0, 2)]
