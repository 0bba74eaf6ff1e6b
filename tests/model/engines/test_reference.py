"""``--backend sgdml`` gives what ours gives."""

import numpy as np
import pytest

from deltaserver import CompositeModel, SGDMLModel
from deltaserver.model.engines.reference import ReferenceEngine
from deltaserver.model.files.parameters import parse_parameters
from deltaserver.model.sgdml import NativeUnits
from tests.builders import TRICLINIC, ammonia_model, geometry, sgdml_predictor, shaken

UNITS = NativeUnits(0.529177210903, 27.211386245988)


@pytest.mark.parametrize(
    "raw",
    [ammonia_model(), ammonia_model(energy_constraints=True), ammonia_model(lattice=TRICLINIC)],
    ids=["plain", "energies", "lattice"],
)
def test_equals_sgdml_called_directly_and_our_evaluator(raw):
    parameters = parse_parameters(raw, "test")
    reference, ours = (
        SGDMLModel(parameters, UNITS, ReferenceEngine(parameters)),
        SGDMLModel(parameters, UNITS),
    )
    x = shaken(geometry(4, 2), 3, 0) * UNITS.length_ang
    found, expected = reference.evaluate(x), ours.evaluate(x)
    direct, _ = sgdml_predictor(raw).predict(x.reshape(3, -1) / UNITS.length_ang)
    np.testing.assert_allclose(found.energy, direct * UNITS.energy_ev, rtol=1e-13)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-10)
    size = np.abs(expected.forces).max()
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-10 * size)
    assert reference.numbers.tolist() == [7, 1, 1, 1]
    if "lattice" in raw:
        np.testing.assert_allclose(reference.lattice, TRICLINIC * UNITS.length_ang)
    else:
        assert reference.lattice is None
        np.testing.assert_allclose(found.virial, expected.virial, atol=1e-9 * size)


def test_a_composite_on_either_backend(composite, model_directory, batch):
    reference = CompositeModel.load(model_directory, "sgdml")
    assert isinstance(reference.binding.engine, ReferenceEngine)
    found, expected = reference.evaluate(batch), composite.evaluate(batch)
    np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-10)
    np.testing.assert_allclose(found.forces, expected.forces, atol=1e-10)
    np.testing.assert_allclose(found.virial, expected.virial, atol=1e-9)
