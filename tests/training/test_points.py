from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deltaserver.errors import DataError
from deltaserver.statistics.draws import draw_farthest
from deltaserver.training.components import components, labelled_set
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from deltaserver.training.points import SELECTIONS, Candidates
from deltaserver.training.symmetry_modes import resolve
from tests.training.labelled import water_dimer


def nobody(count):
    return np.zeros(count, dtype=bool)


def candidates(frames, name="binding"):
    available = components(frames)
    component = next(c for c in available if c.name == name)
    data = labelled_set(frames, component)
    entries = np.arange(len(data))
    return Candidates(
        data, entries, frames.trajectory[data.frame],
        lambda: resolve("product", frames, available, component, data, entries).perms,
    )  # fmt: skip


def test_points_on_a_line_are_halved_again_and_again():
    line = np.arange(17.0)[:, None]
    for seed in range(4):
        found = draw_farthest(line, np.zeros(17, dtype=int), 5, seed, nobody(17))
        assert np.diff(found).min() >= 2
        assert np.diff(found).max() <= 8


def test_no_trajectory_is_starved_and_single_frames_share_a_quota():
    rng = np.random.default_rng(0)
    trajectory = np.concatenate([np.repeat([0, 1], 30), np.arange(2, 22)])
    spread = np.repeat([0.001, 10.0, 1.0], [30, 30, 20])[:, None]
    found = draw_farthest(spread * rng.normal(size=(80, 4)), trajectory, 16, 0, nobody(80))
    kind = np.minimum(trajectory[found], 2)
    assert np.bincount(kind).tolist() == [6, 6, 4]


def test_what_is_known_stays_and_is_kept_away_from():
    line = np.arange(20.0)[:, None]
    known = nobody(20)
    known[:6] = True
    found = draw_farthest(line, np.zeros(20, dtype=int), 8, 0, known)
    assert set(range(6)) < set(found)
    assert found[-1] == 19
    assert 10 <= found[-2] <= 14


def test_what_permutations_exchange_is_the_same_frame():
    frames = water_dimer(40)
    some = candidates(frames)
    exchanged = some.data.positions[:, some.perms()[1]]
    twice = np.concatenate([some.data.positions, exchanged])
    both = replace(
        some, data=replace(some.data, positions=twice), entries=np.arange(80),
        trajectory=np.tile(some.trajectory, 2),
    )  # fmt: skip
    features = both.features()
    np.testing.assert_allclose(features[:40], features[40:], rtol=0, atol=1e-12)


@pytest.mark.parametrize("how", SELECTIONS)
def test_every_way_gives_as_many_as_are_wanted_or_says_that_there_are_fewer(how):
    some = candidates(water_dimer(40))
    found = some.draw(how, 12, 3)
    assert len(np.unique(found)) == 12
    assert np.array_equal(found, np.sort(found))
    assert np.array_equal(found, some.draw(how, 12, 3))
    assert not np.array_equal(found, some.draw(how, 12, 4))
    more = some.draw(how, 20, 3, known=found)
    assert set(found) < set(more)
    assert len(more) == 20
    assert np.array_equal(some.draw(how, 12, 3, known=found), found)
    with pytest.raises(DataError, match="training frames are wanted and 40 are there"):
        some.draw(how, 41, 0)


def test_the_report_says_how_they_were_chosen(tmp_path):
    plan = TrainingPlan(
        n_train=10, n_valid=8, sigmas=(8.0,), component="left", selection="farthest"
    )
    train_directory(water_dimer(80), plan, tmp_path)
    assert '"left": "farthest"' in (tmp_path / "training.json").read_text()
