"""Training points in single precision: another model, whose forces are still its energy's slope."""

import numpy as np
import pytest
import structlog

from deltaserver.model.composite import CompositeModel
from deltaserver.model.engines import storage
from deltaserver.model.engines.numpy_engine import NumpyEngine
from deltaserver.model.engines.storage import MAX_LOSS, choose, force_loss
from deltaserver.model.files.parameters import read_parameters
from deltaserver.serve.loading import announce, load_model
from tests.integration.conftest import DIMER
from tests.shipped import MODELS

OURS = MODELS / "c60" / "binding.npz"


@pytest.fixture(scope="module")
def ours():
    return read_parameters(OURS)


@pytest.fixture(scope="module")
def engines(ours):
    double = NumpyEngine(ours)
    return double, double.single()


def test_its_forces_are_the_slope_of_its_energy(ours, engines):
    _, single = engines
    x = ours.positions[:1]
    forces = single.evaluate(x, None, 1.0)[1][0]
    step = 1e-3
    rng = np.random.default_rng(0)
    for _ in range(4):
        v = rng.normal(size=x.shape[1:])
        energies = single.evaluate(
            np.concatenate([x + k * step * v for k in (-2, -1, 1, 2)]), None, 1.0
        )[0]
        slope = (energies @ [1.0, -8.0, 8.0, -1.0]) / (12.0 * step)
        assert -slope == pytest.approx((forces * v).sum(), abs=1e-6 * np.abs(forces).sum())


def test_it_is_nearly_the_same_model(ours, engines):
    loss = force_loss(*engines, ours)
    assert 0.0 < loss < MAX_LOSS


def test_a_batch_is_its_geometries(ours, engines):
    _, single = engines
    x = ours.positions[:5]
    together = single.evaluate(x, None, 1.0)[1]
    alone = np.concatenate([single.evaluate(x[k : k + 1], None, 1.0)[1] for k in range(5)])
    assert np.abs(together - alone).max() < 1e-9 * np.abs(alone).max()


def test_what_costs_too_much_is_not_done(ours, engines, monkeypatch):
    double, _ = engines
    assert choose(double, ours, "auto")[1].precision == "float32"
    monkeypatch.setattr(storage, "MAX_LOSS", 1e-12)
    engine, stored = choose(double, ours, "auto")
    assert engine is double
    assert stored.precision == "float64"
    assert stored.loss > 1e-12


def test_terms_that_cancel_keep_their_digits():
    cancelling = read_parameters(DIMER / "binding.npz")
    engine = NumpyEngine(cancelling)
    chosen, stored = choose(engine, cancelling, "auto")
    assert chosen is engine
    assert stored.loss > MAX_LOSS


def test_native_files_stay_double_unless_that_is_asked_for():
    native = read_parameters(MODELS / "c60" / "full.npz")
    engine = NumpyEngine(native)
    assert native.positions is None
    assert choose(engine, native, "auto") == (engine, storage.Stored())
    assert choose(engine, native, "single")[1].loss is not None


def test_double_is_what_python_gets_and_the_daemon_says_what_it_took():
    assert all(one.precision == "float64" for one in CompositeModel.load(DIMER).stored.values())
    model, _ = load_model(DIMER, "total", threads=1, storage="auto")
    with structlog.testing.capture_logs() as logs:
        announce(model, DIMER, "numpy", [])
    said = {log["file"]: log for log in logs if log["event"] == "storage"}
    assert said["binding.npz"]["precision"] == "float64"
    assert said["binding.npz"]["float32_costs"] > MAX_LOSS
    assert "full.npz" not in said  # native: not measured
