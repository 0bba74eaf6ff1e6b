"""Which frames are chosen: none twice, none that are known, and those that tell of many."""

from dataclasses import replace

import numpy as np
import pytest

from deltaserver import CompositeModel
from deltaserver.datasets.complexes import shortest_distance
from deltaserver.datasets.geometries import unreacted
from deltaserver.improve.choose import ALIKE, choose, choose_at_random
from deltaserver.improve.doubt import Doubt
from deltaserver.improve.starts import (
    APART,
    EVERY,
    _turned,
    draw_starts,
    longest_centre_distance,
)
from deltaserver.molecules.elements import ATOMIC_WEIGHT_U
from tests.training.labelled import water_dimer


@pytest.fixture(scope="module")
def doubt(first):
    return Doubt(CompositeModel.load(first / "models"))


def frames():
    return water_dimer(160, seed=5)


def test_no_two_are_alike(doubt):
    x = frames().positions[:60]
    found = choose(doubt, np.concatenate([x, x]), np.full(120, 0.1), 12)
    assert len(found.places) == 12
    assert len(set((found.places % 60).tolist())) == 12
    assert (found.distance >= ALIKE).all()


def test_nothing_is_chosen_of_what_is_known(doubt, first):
    """Training frames have a distance of nothing from the training points."""
    with np.load(first / "models" / "binding.npz") as arrays:
        trained = arrays["idxs_train"]
    x = water_dimer(160).positions[trained]
    assert not len(choose(doubt, x, np.full(len(x), 0.1), 5).places)


def test_the_expected_error_falls_more_than_with_any_other_first_frame(doubt):
    """The first frame is the best of all by the sum that is written in the module."""
    x, u = frames().positions[:40], np.random.default_rng(0).uniform(0.1, 0.3, 40)
    found = choose(doubt, x, u, 1)
    c = doubt.spread.covariance(doubt.features(x))
    left = [
        (u**2 * (np.diag(c) - c[:, j] ** 2 / (c[j, j] + 1e-6)) / np.diag(c)).sum()
        for j in range(40)
    ]
    assert int(np.argmin(left)) == found.places[0]


def test_covariance_is_the_spread_squared_on_its_diagonal(doubt):
    f = doubt.features(frames().positions[:20])
    c = doubt.spread.covariance(f)
    np.testing.assert_allclose(np.sqrt(np.diag(c)), doubt.spread(f), rtol=1e-6)
    assert np.linalg.eigvalsh(c).min() > -1e-6


def test_what_must_be_taken_is_taken_first(doubt):
    """Also a training frame, which tells nothing; and nothing is taken that is like it then."""
    x = np.concatenate([water_dimer(160).positions[:1], frames().positions[:20]])
    found = choose(doubt, x, np.full(21, 0.1), 4, first=0)
    assert found.places[0] == 0
    assert len(set(found.places.tolist())) == 4


def test_without_candidates_nothing_is_chosen(doubt):
    assert not len(choose(doubt, np.zeros((0, 6, 3)), np.zeros(0), 5).places)


def test_at_random_is_without_repetition_and_by_its_seed():
    one, same, other = (choose_at_random(5, 30, (0, k, 2)).places.tolist() for k in (1, 1, 2))
    assert one == same != other
    assert len(set(one)) == 5
    assert len(choose_at_random(5, 3, (1,)).places) == 3


def test_torn_frames_are_found():
    known = frames()
    x = known.positions[:4].copy()
    x[1, 1] += 9.0  # a hydrogen gone
    x[2, 1] = x[2, 0] + [0.0, 0.0, 0.2]  # squeezed
    found = unreacted(known.numbers, x, known.fragments, known.positions[0])
    assert found.tolist() == [True, False, False, True]


def test_all_runs_begin_turned_and_of_four_one_apart():
    """Each molecule is what it was, and where it was unless it is moved along the line of both."""
    known = frames()
    train = np.arange(40)
    closest = min(shortest_distance(x[:3], x[3:]) for x in known.positions[train])
    starts = draw_starts(known, train, 8, np.random.default_rng(3))
    weights = np.array([ATOMIC_WEIGHT_U[z] for z in known.numbers])
    for number, start in enumerate(starts):
        rest = np.abs(known.positions[train, 3:] - start[3:]).max(axis=(1, 2))
        assert rest.min() == 0.0
        before = known.positions[int(rest.argmin())]
        distances = [np.linalg.norm(x[:3, None] - x[:3], axis=-1) for x in (before, start)]
        np.testing.assert_allclose(*distances, atol=1e-12)
        centres = [np.average(x[:3], axis=0, weights=weights[:3]) for x in (before, start)]
        other = np.average(start[3:], axis=0, weights=weights[3:])
        moved = centres[1] - centres[0]
        assert (np.linalg.norm(moved) > 0.3) == (number % EVERY == APART)
        np.testing.assert_allclose(np.cross(moved, centres[0] - other), 0.0, atol=1e-12)
        assert np.abs(before[:3] + moved - start[:3]).max() > 0.1
        assert shortest_distance(start[:3], start[3:]) >= closest
    assert 2.0 < longest_centre_distance(known, train) < 4.5


def test_where_there_is_no_room_to_turn_it_stays():
    known = frames()
    squeezed = replace(known, positions=known.positions[:1])
    kept = _turned(
        squeezed,
        squeezed.positions[0],
        (np.arange(3), np.arange(3, 6)),
        99.0,
        np.random.default_rng(0),
    )
    assert np.array_equal(kept, squeezed.positions[0, :3])
