from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest

from deltaserver.errors import DataError, InputError
from deltaserver.training.matrix import assembly, blocks
from deltaserver.training.matrix.assembly import allocate_matrix, assemble
from tests.tolerances import assert_same_sum, terms_of_block

SIGMA = 4.0
TERMS = terms_of_block(6, 4)


@pytest.fixture(scope="module")
def ammonia():
    rng = np.random.default_rng(3)
    shape = np.array([[0, 0, 0.3], [0.95, 0, 0], [-0.5, 0.8, 0], [-0.5, -0.8, 0]])
    perms = np.array([(0, *p) for p in permutations((1, 2, 3))])
    return shape + 0.1 * rng.normal(size=(5, 4, 3)), perms


def symmetric(matrix):
    return np.tril(matrix) + np.tril(matrix, -1).T


def test_lower_triangle_equals_sgdml_with_its_sign_flipped(ammonia):
    train = pytest.importorskip("sgdml.train")
    desc_module = pytest.importorskip("sgdml.utils.desc")
    positions, perms = ammonia
    desc = desc_module.Desc(4, max_processes=1)
    R_desc, R_d_desc = desc.from_R(positions.reshape(len(positions), -1))
    pair_perms = np.array([desc_module.Desc.perm(p) for p in perms])
    lin = (pair_perms + np.arange(len(perms))[:, None] * desc.dim).flatten("F")
    trainer = train.GDMLTrain(max_processes=1)
    expected = -trainer._assemble_kernel_mat(R_desc, R_d_desc, lin, SIGMA, desc)
    found = symmetric(assemble(positions, perms, SIGMA))
    assert_same_sum(found, expected, TERMS, np.abs(expected).max())


def test_matrix_is_positive_definite_up_to_rigid_motion(ammonia):
    K = symmetric(assemble(*ammonia, SIGMA))
    spectrum = np.linalg.eigvalsh(K)
    assert spectrum.min() > -1e-13 * spectrum.max()
    # Forces of an isolated molecule sum to nothing: uniform translations are in the null space.
    shift = np.tile([1.0, 0.0, 0.0], 4 * 5)
    assert np.abs(K @ shift).max() < 1e-13 * spectrum.max()


@pytest.mark.parametrize("threads", [1, 3])
def test_backends_and_thread_counts_agree(ammonia, threads):
    one = symmetric(assemble(*ammonia, SIGMA))
    other = symmetric(assemble(*ammonia, SIGMA, threads=threads, backend=blocks))
    assert_same_sum(other, one, TERMS, np.abs(one).max())
    assert (symmetric(assemble(*ammonia, SIGMA, threads=threads)) == one).all()


def test_progress_reaches_the_end(ammonia):
    seen = []
    assemble(*ammonia, SIGMA, progress=lambda what, fraction: seen.append((what, fraction)))
    assert seen[-1] == ("assembling", 1.0)
    assert [fraction for _, fraction in seen] == sorted(fraction for _, fraction in seen)


def test_errors_in_threads_surface(ammonia):
    positions, perms = ammonia
    broken = positions.copy()
    broken[2, 1] = broken[2, 0]
    with pytest.raises(DataError, match="frame 2"):
        assemble(broken, perms, SIGMA)

    class Failing:
        @staticmethod
        def block(*_):
            raise ValueError("boom")

    with pytest.raises(ValueError, match="boom"):
        assemble(positions, perms, SIGMA, threads=2, backend=Failing)


def test_a_matrix_that_cannot_be_reserved_is_one_line(monkeypatch):
    def refuse(*_):
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr(assembly.mmap, "mmap", refuse)
    with pytest.raises(InputError, match=r"10 x 10 .* cannot be reserved .*fewer training points"):
        allocate_matrix(10)


def test_array_is_fortran_ordered_and_writable():
    matrix = allocate_matrix(5)
    matrix[4, 0] = 2.0
    assert matrix.flags.f_contiguous
    assert matrix.shape == (5, 5)
    assert matrix.sum() == 2.0
