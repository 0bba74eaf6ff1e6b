from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deltaserver.datasets.files import read_dataset
from deltaserver.model.sgdml import SGDMLModel
from deltaserver.training.components import components, labelled_set
from deltaserver.training.iterative.preconditioner import Preconditioner, choose_points
from deltaserver.training.iterative.product import KernelProduct
from deltaserver.training.matrix import blocks
from deltaserver.training.matrix.assembly import _FASTEST, assemble
from deltaserver.training.matrix.blocks import PairFields
from deltaserver.training.native import write_model
from deltaserver.training.request import TrainingRequest
from deltaserver.training.symmetry_modes import resolve
from deltaserver.training.trainer import train_one
from deltaserver.training.warm_start import read_warm_start
from deltaserver.units import KCAL_PER_MOL_EV
from tests.training.test_trainer import SIGMA, request_for

DATA = Path(__file__).parents[2] / "data"


def matrix_of(request, **options):
    x = request.data.positions[request.train]
    lower = np.tril(np.asarray(assemble(x, request.perms, SIGMA, **options)))
    return lower + np.tril(lower, -1).T


@pytest.fixture(scope="module")
def request_():
    return replace(request_for("binding", n_train=10), energies=0.3)


def loaded(tmp_path, trained, name="model"):
    path = tmp_path / f"{name}.npz"
    write_model(path, trained.native)
    return SGDMLModel.load(path)


@pytest.mark.parametrize("backend", [blocks, _FASTEST])
def test_rows_of_energies_are_what_the_kernel_says_of_them(request_, backend):
    """A column of −E, moved along a coordinate of its point, changes as that one's says."""
    x, perms, step = request_.data.positions[:2], request_.perms, 1e-5
    matrix = np.tril(assemble(x, perms, SIGMA, backend=backend, energy=0.3))
    n = 3 * x.shape[1]
    for k in (0, n - 1):
        moved = []
        for sign in (1, -1):
            there = x.copy()
            there[0].ravel()[k] += sign * step
            moved.append(np.tril(assemble(there, perms, SIGMA, backend=backend, energy=0.3))[-1, n])
        slope = (moved[0] - moved[1]) / (2 * step) / 0.3
        assert matrix[-1, k] == pytest.approx(slope, rel=1e-6, abs=1e-10)
    forces = np.tril(assemble(x, perms, SIGMA, backend=backend))
    assert np.array_equal(matrix[:n, :n], forces[:n, :n])
    assert np.array_equal(matrix[n + 1 : -1, :n], forces[n:, :n])


@pytest.mark.parametrize("device", ["cpu", "torch:cpu"])
@pytest.mark.parametrize("mode", ["none", "product"])
def test_the_product_is_the_matrix_times_the_vector(device, mode):
    if device != "cpu":
        pytest.importorskip("torch")
    request = request_for("binding", mode, n_train=10)
    matrix = matrix_of(request, energy=0.3)
    v = np.random.default_rng(0).normal(size=len(matrix))
    x = request.data.positions[request.train]
    found = KernelProduct(x, request.perms, SIGMA, device=device, energy=0.3)(v)
    expected = matrix @ v
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * np.abs(expected).max())


def test_the_preconditioner_of_all_points_inverts_the_matrix(request_):
    x, lam = request_.data.positions[request_.train], 1e-4
    fields = PairFields.of(x, energy=0.3)
    inverse = Preconditioner(fields, request_.perms, SIGMA, choose_points(10, 10), lam)
    matrix = matrix_of(request_, energy=0.3)
    matrix += lam * np.eye(len(matrix))
    y = matrix @ np.random.default_rng(3).normal(size=len(matrix))
    assert np.linalg.norm(matrix @ inverse(y) - y) < 1e-3 * np.linalg.norm(y)


def test_iterative_is_exact(tmp_path, request_):
    unseen = request_.data.positions[30:50]
    exact = loaded(tmp_path, train_one(request_, SIGMA), "exact").evaluate(unseen)
    trained = train_one(replace(request_, solver="iterative"), SIGMA)
    assert trained.native.record["converged"]
    found = loaded(tmp_path, trained, "iterative").evaluate(unseen)
    assert np.abs(found.forces - exact.forces).max() < 1e-6 * np.abs(exact.forces).max()
    assert np.abs(found.energy - exact.energy).max() < 1e-6 * np.ptp(exact.energy)


def test_energies_of_the_training_points_are_met_and_forces_are_their_slopes(tmp_path, request_):
    data, points = request_.data, request_.train
    x, energy = data.positions[points], data.energy[points]
    missed = []
    for weight in (0.0, 100.0):
        trained = train_one(replace(request_, energies=weight, lam=1e-6), SIGMA)
        model = loaded(tmp_path, trained)
        missed.append(np.abs(model.evaluate(x).energy - energy).max())
    assert missed[1] < 0.1 * missed[0]
    x = data.positions[60]
    forces = model.evaluate(x[None]).forces[0]
    for atom, axis in ((0, 0), (3, 2)):
        step = np.zeros_like(x)
        step[atom, axis] = 1e-3
        up, down = model.evaluate(np.array([x + step, x - step])).energy
        assert forces[atom, axis] == pytest.approx((down - up) / 2e-3, rel=1e-4, abs=2e-6)


def test_another_model_is_begun_with_its_energies_too(tmp_path, request_):
    trained = train_one(request_, SIGMA)
    path = tmp_path / "model.npz"
    write_model(path, trained.native)
    warm = read_warm_start(path, request_.data)
    again = replace(request_, solver="iterative", warm_start=warm)
    assert train_one(again, SIGMA).native.record["products"] < 3


def test_the_model_is_sgdmls_with_its_energy_constraints(tmp_path):
    """Of one methane, 24 permutations; sgdml takes the mean of the labels for its constant."""
    sgdml_train = pytest.importorskip("sgdml.train")
    sgdml_predict = pytest.importorskip("sgdml.predict")
    frames = read_dataset(DATA / "methane_dimer")
    available = components(frames)
    data = labelled_set(frames, available[0])
    points, k = np.arange(0, 400, 50), KCAL_PER_MOL_EV
    perms = resolve("product", frames, available, available[0], data, points).perms
    request = TrainingRequest(data, perms, points, points + 7, lam=1e-8, energies=1.0)
    task = {
        "type": "t", "code_version": "1.0.3", "dataset_name": "d", "dataset_theory": "t",
        "z": data.numbers.astype(np.uint8), "R_train": data.positions[points],
        "F_train": data.forces[points] / k, "E_train": data.energy[points] / k,
        "idxs_train": points, "md5_train": b"0", "idxs_valid": points, "md5_valid": b"0",
        "sig": SIGMA, "lam": 1e-8, "use_E": True, "use_E_cstr": True, "use_sym": True,
        "perms": perms, "r_unit": "Ang", "e_unit": "kcal/mol",
    }  # fmt: skip
    theirs = sgdml_train.GDMLTrain(max_processes=1).train(task)
    unseen = data.positions[points + 20]
    flat = unseen.reshape(len(unseen), -1)
    energy, forces = sgdml_predict.GDMLPredict(theirs, max_processes=1).predict(flat)
    trained = train_one(request, SIGMA)
    ours = loaded(tmp_path, trained).evaluate(unseen)
    scale = np.abs(forces).max()
    assert np.abs(ours.forces.reshape(flat.shape) / k - forces).max() < 1e-6 * scale
    assert np.abs(ours.energy / k - energy).max() < 1e-6 * np.ptp(energy)
    with np.load(tmp_path / "model.npz", allow_pickle=False) as arrays:  # and it reads our file
        energy, _ = sgdml_predict.GDMLPredict(dict(arrays), max_processes=1).predict(flat)
    np.testing.assert_allclose(ours.energy / k, energy, rtol=1e-9)
