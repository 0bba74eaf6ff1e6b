"""Novelty: what it must not change under, what bounds it, and what it finds in real data."""

import functools
import itertools
import shutil

import numpy as np
import pytest

from deltaserver import CompositeModel
from deltaserver.compute import jit
from deltaserver.datasets.files import read_dataset
from deltaserver.model import loops
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.files.parameters import parse_parameters
from deltaserver.model.trust import novelty
from deltaserver.model.trust.novelty import NoveltyMeasure, OrbitFeatures, TrainingDistance
from tests.builders import (
    AMMONIA,
    AMMONIA_PERMS,
    TRICLINIC,
    geometry,
    rotation,
    sgdml_model,
    shaken,
    write_directory,
)
from tests.integration.conftest import ROOT
from tests.tolerances import rounding

# All permutations of six atoms: one orbit of 15 pairs
SIX = np.array(list(itertools.permutations(range(6))))


def distance_of(numbers=AMMONIA, perms=AMMONIA_PERMS, n_train=40, **options):
    raw = sgdml_model(numbers, perms=perms, n_train=n_train, **options)
    return TrainingDistance.of(parse_parameters(raw, "test"))


def rounding_of_squares(measured, positions, cell=None):
    """What single precision may leave of a squared distance to any point, in units of the scale².

    It is Σ (f − p)², or |f|² + |p|² − 2 f·p, of numbers that are themselves rounded: at most four
    roundings a term besides the sum's.
    """
    f = measured.features(measured.pairs.geometry(positions, cell).descriptor) - measured.centre
    sizes = np.linalg.norm(f, axis=1) + np.sqrt(measured.squared.max())
    return rounding(f.shape[1] + 4, np.float32) * sizes**2 / measured.scale**2


def assert_same_novelty(found, measured, positions, cell=None):
    """Two ways of computing it: each may be off by what single precision leaves."""
    expected = measured(positions, cell)
    bound = 2.0 * rounding_of_squares(measured, positions, cell)
    assert (np.sqrt(bound) < 0.1 * expected).all()  # or it would tell little
    np.testing.assert_array_less(np.abs(found**2 - expected**2), bound)


def descriptors(n_atoms, n, seed=1):
    pairs = PairDescriptor(n_atoms)
    return pairs, pairs.geometry(shaken(geometry(n_atoms), n, seed, 0.15)).descriptor


@pytest.mark.parametrize(
    ("n_atoms", "perms"),
    [
        (4, AMMONIA_PERMS),
        (6, SIX),
        (6, np.arange(6)[None]),
        (6, [[0, 1, 2, 3, 4, 5], [1, 2, 0, 3, 4, 5], [2, 0, 1, 3, 4, 5]]),
    ],
)
def test_features_bound_the_kernel_distance_from_below(n_atoms, perms):
    pairs, d = descriptors(n_atoms, 30)
    perms = np.array(perms)
    features = OrbitFeatures.of(pairs, perms, d.mean(axis=0))
    f = features(d)
    for perm in pairs.permutations(perms)[:50]:
        np.testing.assert_allclose(features(d[:, perm]), f, atol=1e-12)
    kernel = np.array(
        [[np.linalg.norm(a - b[pairs.permutations(perms)], axis=1).min() for b in d] for a in d]
    )
    ours = np.linalg.norm(f[:, None] - f, axis=-1)
    assert (ours <= kernel + 1e-10).all()
    assert ours.max() > 0.2 * kernel.max()


def test_without_symmetry_the_distance_is_the_kernel_s():
    pairs, d = descriptors(6, 20)
    features = OrbitFeatures.of(pairs, np.arange(6)[None], d.mean(axis=0))
    np.testing.assert_array_equal(features(d), d)


def test_orbits_of_up_to_four_entries_lose_nothing():
    """Four numbers in any order: sorted ones are at the same distances."""
    pairs = PairDescriptor(5)
    cyclic = np.array([[*np.roll(range(4), k), 4] for k in range(4)])  # orbits 4, 2, 4
    rng = np.random.default_rng(0)
    d = rng.uniform(0.3, 1.0, (20, pairs.dim))
    features = OrbitFeatures.of(pairs, cyclic, d.mean(axis=0))
    ours = np.linalg.norm(features(d)[:, None] - features(d), axis=-1)
    starts = np.append(features.starts, len(features.order))
    ordered = [d[:, features.order[a:b]] for a, b in itertools.pairwise(starts)]
    assert sorted(part.shape[1] for part in ordered) == [2, 4, 4]
    exact = np.concatenate([np.sort(part, axis=1) for part in ordered], axis=1)
    np.testing.assert_allclose(ours, np.linalg.norm(exact[:, None] - exact, axis=-1), atol=1e-7)


def test_calibration_leaves_one_in_a_hundred_training_points_beyond_one():
    """Each point against all the others, by brute force."""
    raw = sgdml_model(AMMONIA, perms=AMMONIA_PERMS, n_train=300)
    measured = TrainingDistance.of(parse_parameters(raw, "test"))
    f = measured.features(raw["R_desc"].T)
    distances = np.linalg.norm(f[:, None] - f, axis=-1)
    np.fill_diagonal(distances, np.inf)
    beyond = distances.min(axis=1) / measured.scale > 1.0
    assert beyond.sum() == 3


def test_training_points_have_no_novelty():
    measured = distance_of()
    positions = shaken(geometry(4), 40, 0)  # those that sgdml_model makes its descriptors of
    np.testing.assert_array_less(measured(positions) ** 2, rounding_of_squares(measured, positions))


@pytest.mark.skipif(not jit.AVAILABLE, reason="numba is not installed")
@pytest.mark.parametrize("interpreted", [False, True])
@pytest.mark.parametrize("perms", [SIX, np.arange(6)[None], SIX[:7]])
def test_compiled_and_batched_agree(monkeypatch, perms, interpreted):
    measured = distance_of(np.full(6, 6), perms)
    x = shaken(geometry(6), 5, 7, 0.3)
    if interpreted:
        compiled = loops.load("novelty")
        monkeypatch.setattr(compiled, "nearest_squared", compiled.nearest_squared.py_func)
    one_by_one = np.concatenate([measured(one[None]) for one in x])
    assert_same_novelty(one_by_one, measured, x)
    monkeypatch.setattr(jit, "AVAILABLE", False)
    assert_same_novelty(np.concatenate([measured(one[None]) for one in x]), measured, x)


def test_turning_and_relabelling_change_nothing():
    measured = distance_of()
    x = shaken(geometry(4), 3, 5, 0.3)
    assert_same_novelty(measured(x @ rotation(1).T + 3.0), measured, x)
    for perm in AMMONIA_PERMS:
        assert_same_novelty(measured(x[:, perm]), measured, x)


def test_too_few_or_identical_training_points_have_no_scale():
    assert distance_of(n_train=novelty.MIN_TRAINING_POINTS - 1) is None
    same = np.repeat(sgdml_model(AMMONIA, n_train=1)["R_desc"], 30, axis=1)
    raw = sgdml_model(AMMONIA, n_train=30) | {"R_desc": same}
    assert TrainingDistance.of(parse_parameters(raw, "test")) is None


def test_many_orbits_are_thinned_out_evenly(monkeypatch):
    monkeypatch.setattr(novelty, "MAX_FEATURES", 20)
    pairs, d = descriptors(12, 30)
    features = OrbitFeatures.of(pairs, np.arange(12)[None], d.mean(axis=0))
    assert len(features.order) == 20
    nearest = np.argsort(-d.mean(axis=0))[:10]
    assert set(nearest) <= set(features.order)


def test_models_of_few_points_have_no_components(tmp_path):
    model = CompositeModel.load(write_directory(tmp_path / "m"))
    measure = NoveltyMeasure(model)
    assert measure.components == ()
    assert measure(shaken(geometry(7), 2, 1), frozenset(model.components)) == {}


def test_periodic_models_take_nearest_images():
    measured = distance_of(lattice=TRICLINIC)
    x = shaken(geometry(4), 2, 3)
    moved = x.copy()
    moved[:, 2] += TRICLINIC @ [1, -1, 0]
    assert_same_novelty(measured(moved, TRICLINIC), measured, x, TRICLINIC)
    assert (measured(moved) > 5.0 * measured(x)).all()


# -- real data --------------------------------------------------------------------------------


@functools.cache
def dimer():
    return CompositeModel.load(ROOT / "models" / "benzene_dimer")


@functools.cache
def measure():
    return NoveltyMeasure(dimer())


NAMES = frozenset({"benzene1", "benzene2", "binding"})


@pytest.fixture(scope="module")
def held_out():
    """The last sixth in time, which no model was trained on."""
    frames = read_dataset(ROOT / "data" / "benzene_dimer_gfn2_150K.xyz.gz").positions
    return frames[-len(frames) // 6 :: 3]


def largest(positions):
    return np.max(list(measure()(positions, NAMES).values()), axis=0)


def test_held_out_frames_are_as_near_as_the_training_set_to_itself(held_out):
    found = measure()(held_out, NAMES)
    assert set(found) == set(NAMES)
    for values in found.values():
        assert np.median(values) < 0.9
        assert values.max() < 1.3


def stretched(x):
    return 1.04 * x


def pushed_together(x):
    return x - 1.5 * np.repeat([0.0, 1.0], 12)[:, None] * direction(x)


def one_bond(x):
    moved = x.copy()
    moved[:, 1] += 0.3 * (x[:, 1] - x[:, 0]) / np.linalg.norm(x[:, 1] - x[:, 0], axis=1)[:, None]
    return moved


def direction(x):
    between = x[:, 12:].mean(axis=1) - x[:, :12].mean(axis=1)
    return (between / np.linalg.norm(between, axis=1)[:, None])[:, None]


@pytest.mark.parametrize("change", [stretched, pushed_together, one_bond])
def test_what_training_never_saw_is_beyond_every_held_out_frame(held_out, change):
    assert largest(change(held_out)).min() > 1.5 > largest(held_out).max()


def test_only_the_part_that_is_new_is_new(held_out):
    found = measure()(one_bond(held_out), NAMES)
    assert found["benzene1"].min() > 1.5
    assert found["benzene2"].max() < 1.3


@pytest.mark.parametrize("edge_ang", [10.0, 12.0, 15.0, 20.0, 25.0, 30.0])
def test_it_begins_in_any_cell(edge_ang, tmp_path):
    """Its loop is compiled with atoms of which no two images coincide."""
    directory = tmp_path / "model"
    shutil.copytree(ROOT / "models" / "methane_dimer", directory)
    for path in directory.glob("*.npz"):
        with np.load(path) as model:
            np.savez(path, **{**model, "lattice": edge_ang * np.eye(3)})
    measure = NoveltyMeasure(CompositeModel.load(directory))
    assert measure.components == ("methane1", "methane2", "binding", "full")
