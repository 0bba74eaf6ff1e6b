"""The compiled loops and the NumPy code that stands in for them give the same numbers."""

import subprocess
import sys

import numpy as np
import pytest

from deltaserver.errors import GeometryError
from deltaserver.model import jit
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.kernel import TrainingSum
from tests.builders import TRICLINIC, geometry, shaken

needs_numba = pytest.mark.skipif(not jit.AVAILABLE, reason="numba is not installed")


@needs_numba
@pytest.mark.parametrize("n_train", [1, 2, 3, 4, 5, 9])
def test_one_query_in_one_pass_equals_matrix_products(n_train):
    rng = np.random.default_rng(n_train)
    x, a = rng.uniform(0.3, 1.0, (n_train, 28)), rng.normal(size=(n_train, 28))
    q = rng.uniform(0.3, 1.0, (1, 28))
    identity = np.arange(28)[None]
    fused = TrainingSum.prepare(0.7, x, a, identity, None, compiled=True)
    plain = TrainingSum.prepare(0.7, x, a, identity, None, compiled=False)
    assert fused.fused_sum
    assert not plain.fused_sum
    for ours, theirs in zip(fused(q), plain(q), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@needs_numba
@pytest.mark.parametrize("cell", [None, TRICLINIC])
def test_geometry_and_pull_back_equal_numpy(cell):
    positions = shaken(geometry(7), 3, seed=1)
    fast, plain = PairDescriptor(7, compiled=True), PairDescriptor(7, compiled=False)
    here, there = fast.geometry(positions, cell), plain.geometry(positions, cell)
    np.testing.assert_allclose(here.displacements, there.displacements, atol=1e-14)
    np.testing.assert_allclose(here.descriptor, there.descriptor, rtol=1e-14)
    g = np.random.default_rng(2).normal(size=here.descriptor.shape)
    for ours, theirs in zip(fast.pull_back(g, here), plain.pull_back(g, there), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_numba)])
def test_coinciding_atoms_are_found_either_way(compiled):
    positions = shaken(geometry(5), 2, seed=3)
    positions[1, 4] = positions[1, 2]
    with pytest.raises(GeometryError, match="atoms 2 and 4 are at the same place"):
        PairDescriptor(5, compiled=compiled).geometry(positions)


@needs_numba
def test_not_a_number_stays_not_a_number():
    x = np.random.default_rng(4).uniform(0.3, 1.0, (5, 6))
    total = TrainingSum.prepare(0.7, x, x, np.arange(6)[None], None, compiled=True)
    energy, g = total(np.full((1, 6), np.nan))
    assert np.isnan(energy).all()
    assert np.isnan(g).all()


def test_everything_works_without_numba():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from deltaserver.model import jit\n"
        "from deltaserver import CompositeModel\n"
        "assert not jit.AVAILABLE\n"
        "import numpy as np\n"
        "model = CompositeModel.load('models/benzene_dimer')\n"
        "from ase.io import read\n"
        "frame = read('ipi_inputs/benzene_dimer.xyz')\n"
        "print(repr(float(model.evaluate(frame.positions).energy)))\n"
    )
    without = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert without.returncode == 0, without.stderr
    from ase.io import read

    from deltaserver import CompositeModel

    frame = read("ipi_inputs/benzene_dimer.xyz")
    here = CompositeModel.load("models/benzene_dimer").evaluate(frame.positions).energy
    assert float(without.stdout) == pytest.approx(float(here), rel=1e-12)
