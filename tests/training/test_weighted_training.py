"""Binding models on weighted descriptors and a prior, from training to serving."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from deltaserver import CompositeModel
from deltaserver.errors import ManifestError
from deltaserver.model.files.archive import read_arrays, write_arrays
from deltaserver.model.files.parameters import read_parameters
from deltaserver.model.fragment_blocks import FragmentBlocks
from deltaserver.model.sgdml import SGDMLModel
from deltaserver.training.components import components, labelled_set
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.iterative.product import KernelProduct
from deltaserver.training.matrix.assembly import assemble
from deltaserver.training.model_directory import train_directory
from deltaserver.training.native import write_model
from deltaserver.training.request import TrainingRequest
from deltaserver.training.symmetry_modes import resolve
from deltaserver.training.trainer import train_one
from deltaserver.training.warm_start import read_warm_start
from tests.training.labelled import both_triples, water_dimer

SIGMA = 4.0
FRAGMENT = np.array([0, 0, 0, 1, 1, 1])


def blocks(weight: float) -> FragmentBlocks:
    return FragmentBlocks(FRAGMENT, np.array([[weight, 1.0], [1.0, weight]]))


def request(weight: float, n_train: int = 30, **changes) -> TrainingRequest:
    frames = water_dimer(100)
    available = components(frames)
    binding = next(c for c in available if c.name == "binding")
    data = labelled_set(frames, binding)
    points = np.arange(n_train)
    perms = resolve("product", frames, available, binding, data, points).perms
    return TrainingRequest(
        data, perms, points, np.arange(80, 100), blocks=blocks(weight), **changes
    )


@pytest.mark.parametrize("weight", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("device", ["cpu", "torch:cpu"])
def test_the_product_is_the_matrix_times_the_vector(weight, device):
    if device != "cpu":
        pytest.importorskip("torch")
    r = request(weight, 12)
    x, b = r.data.positions[r.train], blocks(weight)
    lower = np.tril(np.asarray(assemble(x, r.perms, SIGMA, weights=b.by_atoms)))
    matrix = lower + np.tril(lower, -1).T
    v = np.random.default_rng(0).normal(size=x.size)
    expected = matrix @ v
    found = KernelProduct(x, r.perms, SIGMA, device=device, blocks=b)(v)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    if weight == 1.0:
        np.testing.assert_allclose(matrix, _symmetric(assemble(x, r.perms, SIGMA)), rtol=1e-14)


@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_the_product_of_a_large_group_is_the_matrix_times_the_vector(weight):
    """Weighted descriptors are shorter than their molecule has pairs."""
    r = request(weight, 35)
    x, b, perms = r.data.positions[r.train], blocks(weight), both_triples()
    matrix = _symmetric(assemble(x, perms, SIGMA, weights=b.by_atoms))
    v = np.random.default_rng(0).normal(size=x.size)
    expected = matrix @ v
    for threads in (1, 2):
        found = KernelProduct(x, perms, SIGMA, threads, blocks=b)(v)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def _symmetric(lower):
    lower = np.tril(np.asarray(lower))
    return lower + np.tril(lower, -1).T


@pytest.mark.parametrize("weight", [0.0, 0.2])
def test_both_solvers_give_a_model_that_reproduces_its_points(tmp_path, weight):
    found = {}
    for solver in ("exact", "iterative"):
        trained = train_one(request(weight, solver=solver), SIGMA)
        path = tmp_path / f"{solver}.npz"
        write_model(path, trained.native)
        model = SGDMLModel.load(path)
        data = request(weight).data
        found[solver] = model.evaluate(data.positions)
        error = np.abs(found[solver].forces[:30] - data.forces[:30]).max()
        assert error < 2e-3 * np.abs(data.forces[:30]).max()  # λ is what they may miss
    difference = np.abs(found["iterative"].forces - found["exact"].forces).max()
    assert difference < 1e-5 * np.abs(found["exact"].forces).max()


def test_a_warm_start_takes_up_a_weighted_model(tmp_path):
    path = tmp_path / "binding.npz"
    write_model(path, train_one(request(0.2, solver="iterative"), SIGMA).native)
    warm = read_warm_start(path, request(0.2).data)
    assert list(warm.entries) == list(range(30))
    again = train_one(request(0.2, solver="iterative", warm_start=warm), SIGMA)
    first = train_one(request(0.2, solver="iterative"), SIGMA)
    assert again.native.record["products"] < 0.2 * first.native.record["products"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    output = tmp_path_factory.mktemp("weighted") / "model"
    plan = TrainingPlan(
        n_train=20, n_valid=10, sigmas=(2.0, 4.0), prior="pairs", intra_weights=(0.2, 1.0)
    )
    train_directory(water_dimer(80), plan, output)
    return output


def test_the_directory_is_served_with_its_prior(directory):
    model, frames = CompositeModel.load(directory), water_dimer(80)
    found = model.evaluate(frames.positions[-10:])
    assert set(found.contributions) == {"left", "right", "prior", "binding"}
    parts = sum(part.forces for part in found.contributions.values())
    np.testing.assert_allclose(parts, found.forces, rtol=0, atol=1e-12)
    binding = model.evaluate(frames.positions[-10:], "binding")
    assert set(binding.contributions) == {"prior", "binding"}
    truth = frames.binding_forces[-10:]
    assert np.abs(binding.forces - truth).mean() < 0.2 * np.abs(truth).mean()
    alone = model.evaluate(frames.positions[-10:], "binding").contributions["prior"].forces
    assert np.abs(binding.forces - truth).mean() < 0.5 * np.abs(alone - truth).mean()


def test_only_the_prior_is_left_at_infinity(directory):
    model = CompositeModel.load(directory)
    apart = water_dimer(1).positions
    apart[:, 3:] += [60.0, 0, 0]
    found = model.evaluate(apart)
    assert np.abs(found.contributions["binding"].energy).max() < 1e-12
    assert not found.contributions["binding"].forces.any()
    assert np.abs(found.contributions["prior"].energy).max() < 1e-4


def test_every_weight_was_tried_and_the_best_is_there(directory):
    report = json.loads((directory / "training.json").read_text())["components"]["binding"]
    tried = {(c["sigma"], c["intra_weight"]) for c in report["candidates"]}
    assert tried == {(2.0, 0.2), (4.0, 0.2), (2.0, 1.0), (4.0, 1.0)}
    errors = {c["valid_force_mae_kcal_mol_ang"] for c in report["candidates"]}
    assert report["valid_force_mae_kcal_mol_ang"] == min(errors)
    blocks = read_parameters(directory / "binding.npz").blocks
    weight = 1.0 if blocks is None else blocks.weights[0, 0]
    assert weight == report["intra_weight"]


def test_a_prior_changes_the_fingerprint(directory, tmp_path):
    model = CompositeModel.load(directory)
    classes = tuple(replace(one, charge=one.charge + 0.01) for one in model.prior.classes)
    other = CompositeModel(
        model.fragments, model.binding, model.full, name=model.name, reference=model.reference,
        prior=replace(model.prior, classes=classes),
    )  # fmt: skip
    without = CompositeModel(
        model.fragments, model.binding, model.full, name=model.name, reference=model.reference
    )
    lifted = CompositeModel(
        model.fragments, model.binding, model.full, name=model.name, reference=model.reference,
        prior=replace(model.prior, limit=-0.5),
    )  # fmt: skip
    all_ = (model, other, without, lifted)
    assert len({one.fingerprint() for one in all_}) == len(all_)


def test_a_binding_beside_another_prior_is_refused(directory, tmp_path):
    """It is served nowhere: wrong by what the two differ, which nobody would see."""
    there = tmp_path / "model"
    shutil.copytree(directory, there)
    path = there / "model.yaml"
    manifest = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(manifest))
    CompositeModel.load(there)  # the same numbers in another writing
    manifest["prior"]["classes"][0]["charge"] += 1e-3
    path.write_text(yaml.safe_dump(manifest))
    with pytest.raises(ManifestError, match=r"binding\.npz was trained beside another prior"):
        CompositeModel.load(there)
    del manifest["prior"]
    path.write_text(yaml.safe_dump(manifest))
    with pytest.raises(ManifestError, match="no prior stands here"):
        CompositeModel.load(there)
    arrays = read_arrays(there / "binding.npz")
    assert np.abs(arrays.pop("prior_energy_ev")).min() > 1e-3
    manifest["prior"] = yaml.safe_load((directory / "model.yaml").read_text())["prior"]
    manifest["prior"]["classes"][0]["charge"] += 1e-3
    path.write_text(yaml.safe_dump(manifest))
    write_arrays(there / "binding.npz", arrays)  # as files were before
    CompositeModel.load(there)


def test_a_model_on_a_prior_may_be_native(tmp_path):
    plan = TrainingPlan(n_train=20, n_valid=10, sigmas=(4.0,), prior="pairs", component="binding")
    train_directory(water_dimer(80), plan, tmp_path / "model")
    assert read_parameters(tmp_path / "model" / "binding.npz").blocks is None


def test_the_binding_is_judged_with_its_prior(directory):
    from deltaserver.evaluation.held_out_errors import component_errors, load_models

    frames = water_dimer(80).select(np.arange(70, 80))
    (loaded,) = load_models([directory], frames)
    errors = {one.component: one for one in component_errors(loaded, frames)}
    found = CompositeModel.load(directory).evaluate(frames.positions, "binding")
    expected = np.abs(found.energy - frames.binding_energy)
    np.testing.assert_allclose(errors["binding"].energy.absolute, expected, rtol=0, atol=1e-12)
    force = np.abs(found.forces - frames.binding_forces).mean()
    assert errors["binding"].forces["overall"].absolute.mean() == pytest.approx(force, rel=1e-9)
