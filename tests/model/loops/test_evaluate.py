"""The compiled loops and the NumPy code that stands in for them give the same numbers."""

import subprocess
import sys

import numpy as np
import pytest

from deltaserver.compute import jit
from deltaserver.compute.thread_pool import ONE_THREAD, ThreadPool
from deltaserver.errors import GeometryError
from deltaserver.model.descriptor import PairDescriptor, compiled_cell
from deltaserver.model.groups import inversion
from deltaserver.model.kernel import base, direct
from deltaserver.model.kernel import group as kernel_fourier
from deltaserver.model.kernel.training_sum import Task, training_sum
from tests.builders import TRICLINIC, geometry, shaken
from tests.model.groups.test_representations import (
    QUATERNION_I,
    QUATERNION_J,
    cyclic,
    generated,
    product,
    symmetric,
)
from tests.tolerances import WEIGHT, assert_same_sum, rounding, terms_of_kernel

needs_numba = pytest.mark.skipif(not jit.AVAILABLE, reason="numba is not installed")


def sum_of(n_train, pair_perms, seed=0, pool=ONE_THREAD, *, energies=False):
    rng = np.random.default_rng(seed)
    shape = (n_train, pair_perms.shape[1])
    x, a = rng.uniform(0.3, 1.0, shape), rng.normal(size=shape)
    alphas = rng.normal(size=n_train) if energies else None
    return training_sum(0.7, x, a, pair_perms, alphas, pool)


LARGE = product(cyclic(2), cyclic(2), symmetric(3))  # its centre has four elements
QUATERNION = generated(QUATERNION_I, QUATERNION_J)
GROUPS = {
    "none": np.arange(7)[None],
    "C3": product(cyclic(3), np.arange(4)[None]),
    "C2 x C4": product(cyclic(2), cyclic(4), np.arange(1)[None]),
    "S3 x C4": product(symmetric(3), cyclic(4)),
}


@needs_numba
@pytest.mark.parametrize("cell", [None, TRICLINIC])
@pytest.mark.parametrize("n_batch", [0, 1, 7, 8, 9, 17])
@pytest.mark.parametrize("n_train", [1, 3, 4, 9])
@pytest.mark.parametrize("group", GROUPS)
def test_geometries_in_one_call_equal_numpy(monkeypatch, group, n_train, n_batch, cell):
    monkeypatch.setattr(direct, "COLUMNS", 8)  # three panels of columns
    monkeypatch.setattr(kernel_fourier, "FEW_ELEMENTS", 1 << 10)
    pairs = PairDescriptor(7, compiled=False)
    total = sum_of(n_train, pairs.permutations(GROUPS[group]), seed=n_train)
    x = shaken(geometry(7), n_batch, seed=5)
    energy, forces, virial = np.empty(n_batch), np.empty(x.shape), np.empty((n_batch, 3, 3))
    task = Task(x, compiled_cell(cell), 3.0, -2.0, energy, forces, virial)
    finite = total.evaluator()(task)
    assert np.isfinite(finite)
    here = pairs.geometry(x, cell)
    expected_energy, g = total(here.descriptor)
    expected = pairs.pull_back(3.0 * g, here)
    n_terms = terms_of_kernel(pairs.permutations(GROUPS[group]), n_train, 7)
    assert_same_sum((energy + 2.0) / 3.0, expected_energy, n_terms)
    for ours, theirs in zip((forces, virial), expected, strict=True):
        assert_same_sum(ours, theirs, n_terms)


@needs_numba
@pytest.mark.parametrize("n_threads", [2, 3])
@pytest.mark.parametrize("n_batch", [1, 5, 24])
@pytest.mark.parametrize("group", [*GROUPS, "large"])
def test_threads_give_the_same_numbers(monkeypatch, group, n_batch, n_threads):
    monkeypatch.setattr(base, "SHARED_NUMBERS", 1)
    perms = GROUPS.get(group, LARGE)
    n_atoms = perms.shape[1]
    x = shaken(geometry(n_atoms), n_batch, seed=5)
    found = []
    for pool in (ONE_THREAD, ThreadPool(n_threads)):
        total = sum_of(13, PairDescriptor(n_atoms).permutations(perms), pool=pool)
        parameters = (np.empty(n_batch), np.empty(x.shape), np.empty((n_batch, 3, 3)))
        if evaluator := total.evaluator():
            evaluator(Task(x, compiled_cell(None), 2.0, 1.0, *parameters))
            found.append(parameters)
        else:
            found.append(total(PairDescriptor(n_atoms).geometry(x).descriptor))
    for alone, together in zip(*found, strict=True):
        pair_perms = PairDescriptor(n_atoms).permutations(perms)
        assert_same_sum(together, alone, terms_of_kernel(pair_perms, 13, n_atoms))


@needs_numba
@pytest.mark.parametrize("n_batch", [0, 1, 3])
@pytest.mark.parametrize("n_train", [1, 3, 4, 5])
@pytest.mark.parametrize("perms", [symmetric(5), product(cyclic(2), cyclic(3)), LARGE, QUATERNION])
def test_queries_and_a_large_group_equal_matrix_products(monkeypatch, perms, n_train, n_batch):
    monkeypatch.setattr(inversion, "MANY", 1)
    pair_perms = PairDescriptor(perms.shape[1]).permutations(perms)
    total = sum_of(n_train, pair_perms, seed=n_train)
    q = np.random.default_rng(n_train).uniform(0.3, 1.0, (n_batch, pair_perms.shape[1]))
    monkeypatch.setattr(kernel_fourier, "FEW_ELEMENTS", 1)
    fast = total(q)
    monkeypatch.setattr(jit, "AVAILABLE", False)
    for ours, theirs in zip(fast, total(q), strict=True):
        assert_same_sum(ours, theirs, terms_of_kernel(pair_perms, n_train) + 2 * len(perms))


@needs_numba
@pytest.mark.parametrize("n_batch", [1, 9])
@pytest.mark.parametrize("n_train", [3, 9])
@pytest.mark.parametrize("group", GROUPS)
def test_energies_that_were_trained_on_count_in_compiled_loops(
    monkeypatch, group, n_train, n_batch
):
    monkeypatch.setattr(direct, "COLUMNS", 8)
    monkeypatch.setattr(kernel_fourier, "FEW_ELEMENTS", 1 << 10)
    pairs = PairDescriptor(7, compiled=False)
    total = sum_of(n_train, pairs.permutations(GROUPS[group]), seed=n_train, energies=True)
    x = shaken(geometry(7), n_batch, seed=5)
    energy, forces, virial = np.empty(n_batch), np.empty(x.shape), np.empty((n_batch, 3, 3))
    total.evaluator()(Task(x, compiled_cell(None), 3.0, -2.0, energy, forces, virial))
    here = pairs.geometry(x)
    monkeypatch.setattr(jit, "AVAILABLE", False)
    expected, g = total(here.descriptor)
    n_terms = terms_of_kernel(pairs.permutations(GROUPS[group]), n_train, 7)
    assert_same_sum((energy + 2.0) / 3.0, expected, n_terms)
    assert_same_sum(forces, pairs.pull_back(3.0 * g, here)[0], n_terms)


@needs_numba
@pytest.mark.parametrize("n_train", [3, 9])
def test_energies_count_in_compiled_sums_over_large_groups(monkeypatch, n_train):
    pair_perms = PairDescriptor(len(LARGE[0])).permutations(LARGE)
    total = sum_of(n_train, pair_perms, seed=n_train, energies=True)
    q = np.random.default_rng(n_train).uniform(0.3, 1.0, (3, pair_perms.shape[1]))
    monkeypatch.setattr(kernel_fourier, "FEW_ELEMENTS", 1)
    fast = total(q)
    monkeypatch.setattr(jit, "AVAILABLE", False)
    for ours, theirs in zip(fast, total(q), strict=True):
        assert_same_sum(ours, theirs, terms_of_kernel(pair_perms, n_train) + 2 * len(LARGE))


def test_nothing_is_compiled_without_numba(monkeypatch):
    monkeypatch.setattr(jit, "AVAILABLE", False)
    assert sum_of(3, np.arange(10)[None]).evaluator() is None
    assert sum_of(3, PairDescriptor(5).permutations(symmetric(5))).evaluator() is None


@needs_numba
def test_the_exponential_is_the_c_librarys_to_two_last_places():
    from deltaserver.model.loops import sum as loops_sum  # which needs numba

    x = -np.concatenate([np.linspace(0.0, 40.0, 4001), np.geomspace(1e-12, 700.0, 999)])
    ours = np.array([loops_sum.exponential(value) for value in x])
    np.testing.assert_array_max_ulp(ours, np.exp(x), 2)
    assert loops_sum.exponential(0.0) == 1.0
    assert 0.0 < loops_sum.exponential(-1e9) < 1e-300
    assert np.isnan(loops_sum.exponential(np.nan))


@needs_numba
@pytest.mark.parametrize("cell", [None, TRICLINIC])
def test_geometry_and_pull_back_equal_numpy(cell):
    positions = shaken(geometry(7), 3, seed=1)
    fast, plain = PairDescriptor(7, compiled=True), PairDescriptor(7, compiled=False)
    here, there = fast.geometry(positions, cell), plain.geometry(positions, cell)
    # Nearest images: a difference, its parts along the vectors, and back; of a number of the
    # cell's size that leaves one of a bond's.
    shrinks = 1.0 if cell is None else np.linalg.norm(cell) * there.descriptor.max()
    np.testing.assert_allclose(
        here.descriptor, there.descriptor, rtol=2.0 * rounding(WEIGHT) * max(shrinks, 1.0)
    )
    g = np.random.default_rng(2).normal(size=here.descriptor.shape)
    for ours, theirs in zip(fast.pull_back(g, here), plain.pull_back(g, there), strict=True):
        assert_same_sum(ours, theirs, 7 + 2 * WEIGHT)  # neighbours; the nearest image


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=needs_numba)])
def test_coinciding_atoms_are_found_either_way(compiled):
    positions = shaken(geometry(5), 2, seed=3)
    positions[1, 4] = positions[1, 2]
    with pytest.raises(GeometryError, match="atoms 2 and 4 are at the same place"):
        PairDescriptor(5, compiled=compiled).geometry(positions)


@needs_numba
@pytest.mark.parametrize("perms", [np.arange(4)[None], product(cyclic(2), cyclic(2))])
@pytest.mark.parametrize("nowhere", [np.nan, np.inf])
def test_what_is_not_finite_does_not_look_finite(perms, nowhere):
    total = sum_of(5, PairDescriptor(4).permutations(perms))
    x = shaken(geometry(4), 2, seed=1)
    x[1, 2, 0] = nowhere
    energy, forces, virial = np.empty(2), np.empty((2, 4, 3)), np.empty((2, 3, 3))
    found = total.evaluator()(Task(x, compiled_cell(None), 1.0, 0.0, energy, forces, virial))
    assert not np.isfinite(found)
    assert np.isfinite(energy[0])
    assert np.isfinite(forces[0]).all()
    assert np.isnan(forces[1]).any()


def test_everything_works_without_numba():
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from deltaserver.compute import jit\n"
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
    # The binding model's terms, 2e7 eV without their signs, cancel down to -0.2 eV.
    assert float(without.stdout) == pytest.approx(float(here), abs=1e-15 * 2e7)
