"""The torch sums on CPU tensors against NumPy's, which are held against sgdml."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from deltaserver import CompositeModel  # noqa: E402
from deltaserver.errors import GeometryError, InputError  # noqa: E402
from deltaserver.model.engines.torch_engine import TorchEngine, resolve_device  # noqa: E402
from deltaserver.model.files.parameters import parse_parameters  # noqa: E402
from deltaserver.model.sgdml import NativeUnits, SGDMLModel  # noqa: E402
from tests.builders import (  # noqa: E402
    AMMONIA,
    AMMONIA_PERMS,
    TRICLINIC,
    geometry,
    sgdml_model,
    shaken,
)

UNITS = NativeUnits(0.529, 27.2)


def pair(precision="float64", **options):
    parameters = parse_parameters(sgdml_model(AMMONIA, perms=AMMONIA_PERMS, **options), "test")
    ours = SGDMLModel(parameters, UNITS, TorchEngine(parameters, "cpu", precision))
    return ours, SGDMLModel(parameters, UNITS)


def assert_equal(ours, theirs, rtol=1e-10):
    for name in ("energy", "forces", "virial"):
        expected = getattr(theirs, name)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(getattr(ours, name), expected, rtol=0, atol=rtol * scale)


@pytest.mark.parametrize(
    "options", [{}, {"energy_constraints": True}, {"lattice": TRICLINIC}, {"n_train": 1}]
)
def test_equals_numpy(options):
    ours, theirs = pair(**options)
    positions = 0.5 * shaken(geometry(4), 5, seed=1)
    cell = 0.55 * TRICLINIC if "lattice" in options else None
    assert_equal(ours.evaluate(positions, cell), theirs.evaluate(positions, cell))


def test_far_from_the_origin_single_precision_keeps_its_digits():
    ours, theirs = pair("float32")
    positions = 0.5 * shaken(geometry(4), 2, seed=2)
    assert_equal(ours.evaluate(positions + 1e4), theirs.evaluate(positions), rtol=3e-5)


def test_precision_loss_tells_single_from_double():
    double, _ = pair()
    single, _ = pair("float32")
    assert double.engine.precision_loss() < 1e-12
    assert 1e-9 < single.engine.precision_loss() < 1e-4


def test_running_out_of_memory_halves_the_chunk(monkeypatch):
    ours, theirs = pair()
    positions = 0.5 * shaken(geometry(4), 7, seed=3)
    whole = ours.engine._evaluate
    sizes = []

    def small_device(x, cell, more=None):
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.cuda.OutOfMemoryError("out of memory")
        return whole(x, cell, more)

    monkeypatch.setattr(ours.engine, "_evaluate", small_device)
    monkeypatch.setattr(ours.engine, "_chunk", 8)
    assert_equal(ours.evaluate(positions), theirs.evaluate(positions))
    assert sizes == [7, 4, 2, 2, 2, 1]
    large = np.zeros((9, 4, 3))
    monkeypatch.setattr(ours.engine, "_evaluate", lambda x, *more: small_device(large, *more))
    with pytest.raises(InputError, match="more memory than cpu has"):
        ours.evaluate(positions)


def test_coinciding_atoms_and_unknown_devices_are_refused():
    ours, _ = pair()
    positions = geometry(4)
    positions[2] = positions[0]
    with pytest.raises(GeometryError, match="same place"):
        ours.evaluate(positions)
    with pytest.raises(InputError, match="--device warp"):
        resolve_device("warp")
    assert resolve_device("auto").type in ("cpu", "cuda")


def test_a_composite_on_torch_tells_where_it_computes():
    ours = CompositeModel.load("models/benzene_dimer", "torch", "cpu")
    theirs = CompositeModel.load("models/benzene_dimer")
    from ase.io import read

    positions = read("ipi_inputs/benzene_dimer.xyz").positions
    assert_equal(ours.evaluate(positions), theirs.evaluate(positions), rtol=1e-8)
    facts = ours.device_facts()
    assert facts["device"] == "cpu"
    assert facts["relative_force_error"] < 1e-8
    assert theirs.device_facts() == {}
