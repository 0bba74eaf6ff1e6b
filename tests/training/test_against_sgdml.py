"""Our models and sgdml's from the same benzene-dimer frames, σ and permutations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from deltaserver.datasets.files import read_dataset
from deltaserver.model.sgdml import SGDMLModel
from deltaserver.training.components import components, labelled_set
from deltaserver.training.native import write_model
from deltaserver.training.request import TrainingRequest
from deltaserver.training.selection import split_in_time
from deltaserver.training.symmetry_modes import resolve
from deltaserver.training.trainer import train_one
from deltaserver.units import KCAL_PER_MOL_EV

sgdml_train = pytest.importorskip("sgdml.train")
sgdml_predict = pytest.importorskip("sgdml.predict")
pytest.importorskip("networkx")

DATA = Path(__file__).parents[2] / "data" / "benzene_dimer_gfn2_150K.xyz.gz"
# At larger sigma coefficients grow so large that both evaluators' rounding shows at 1e-9.
SIGMA = 10.0


def request_for(name, n_train, n_perms):
    frames = read_dataset(DATA)
    available = components(frames)
    component = next(c for c in available if c.name == name)
    data = labelled_set(frames, component)
    split = split_in_time(frames.trajectory, frames.step)
    points = split.train[:: len(split.train) // n_train][:n_train]
    perms = resolve("product", frames, available, component, data, points).perms
    assert len(perms) == n_perms
    return TrainingRequest(data, perms, points, split.valid[:5]), split.held_out[::3]


def trained_by_sgdml(request):
    data, k = request.data, KCAL_PER_MOL_EV
    task = {
        "type": "t", "code_version": "1.0.3", "dataset_name": "d", "dataset_theory": "t",
        "z": data.numbers.astype(np.uint8), "R_train": data.positions[request.train],
        "F_train": data.forces[request.train] / k, "E_train": data.energy[request.train] / k,
        "idxs_train": request.train, "md5_train": b"0", "idxs_valid": request.valid,
        "md5_valid": b"0", "sig": SIGMA, "lam": request.lam, "use_E": True, "use_E_cstr": False,
        "use_sym": True, "perms": request.perms, "r_unit": "Ang", "e_unit": "kcal/mol",
    }  # fmt: skip
    return sgdml_train.GDMLTrain(max_processes=1).train(task)


@pytest.mark.parametrize(
    ("name", "n_train", "n_perms"),
    [
        ("benzene1", 20, 12),
        pytest.param("binding", 20, 288, marks=pytest.mark.slow),
        pytest.param("full", 20, 288, marks=pytest.mark.slow),
    ],
)
def test_same_forces_on_unseen_frames(tmp_path, name, n_train, n_perms):
    request, unseen = request_for(name, n_train, n_perms)
    positions = request.data.positions[unseen]
    flat = positions.reshape(len(positions), -1)
    path = tmp_path / "model.npz"
    write_model(path, train_one(request, SIGMA).native)
    ours = SGDMLModel.load(path).evaluate(positions)
    forces = ours.forces.reshape(flat.shape) / KCAL_PER_MOL_EV
    scale = np.abs(forces).max()

    with np.load(path, allow_pickle=False) as arrays:
        predictor = sgdml_predict.GDMLPredict(dict(arrays), max_processes=1)
    energy_read, forces_read = predictor.predict(flat)
    assert np.abs(forces - forces_read).max() < 1e-9 * scale
    np.testing.assert_allclose(ours.energy / KCAL_PER_MOL_EV, energy_read, rtol=1e-9)

    theirs = sgdml_predict.GDMLPredict(trained_by_sgdml(request), max_processes=1)
    _, forces_theirs = theirs.predict(flat)
    assert np.abs(forces - forces_theirs).max() < 1e-6 * scale
