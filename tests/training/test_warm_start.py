from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deltaserver.errors import DataError
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from deltaserver.training.native import read_record, write_model
from deltaserver.training.trainer import train_one
from deltaserver.training.warm_start import read_warm_start
from tests.training.labelled import water_dimer
from tests.training.test_trainer import SIGMA, request_for

PLAN = TrainingPlan(n_train=12, n_valid=8, sigmas=(SIGMA,), component="binding", solver="iterative")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    request = request_for("binding", n_train=12)
    path = tmp_path_factory.mktemp("warm") / "binding.npz"
    write_model(path, train_one(request, SIGMA).native)
    return request, path


def test_all_points_are_found_again(small):
    request, path = small
    warm = read_warm_start(path, request.data)
    assert sorted(warm.entries) == sorted(request.train)


def test_it_begins_where_the_other_has_ended(small):
    request, path = small
    again = replace(
        request, solver="iterative", warm_start=read_warm_start(path, request.data)
    )  # fmt: skip
    trained = train_one(again, SIGMA)
    assert trained.native.record["converged"]
    assert trained.native.record["products"] == 1


def test_with_more_points_it_begins_nearer_and_ends_at_the_same(small):
    _, path = small
    request = replace(request_for("binding", n_train=16), solver="iterative")
    cold = train_one(request, SIGMA).native
    warm = train_one(replace(request, warm_start=read_warm_start(path, request.data)), SIGMA).native
    assert warm.record["checks"][0][1] < 0.3  # of the labels' norm, before the first step
    assert warm.record["converged"]
    assert np.abs(warm.a - cold.a).max() < 1e-4 * np.abs(cold.a).max()


def test_frames_that_were_turned_do_not_begin_with_wrong_coefficients(small):
    request, path = small
    turned = request.data.positions.copy()
    turned[0] = turned[0] @ np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    warm = read_warm_start(path, replace(request.data, positions=turned))
    assert sorted(warm.entries) == list(range(1, 12))


def test_a_point_is_one_however_often_its_geometry_is_there(small, tmp_path):
    """One molecule in several places, as ``dataset place`` puts it: too many points were known."""
    request, path = small
    twice = {
        name: np.concatenate([values, values])
        for name, values in vars(request.data).items()
        if name in ("positions", "energy", "forces", "frame")
    }
    warm = read_warm_start(path, replace(request.data, **twice))
    n, entries = len(request.data), np.sort(warm.entries)
    assert len(entries) == 24
    assert sorted(warm.once(entries)) == sorted(request.train)
    assert sorted(warm.once(np.arange(n, 2 * n))) == sorted(n + request.train)
    begun = warm.vector(entries, 1.0).reshape(24, -1)
    np.testing.assert_array_equal(
        begun[:12], warm.vector(np.sort(request.train), 1.0).reshape(12, -1)
    )
    assert not begun[12:].any()  # else the start would be twice the model

    again = np.arange(80) // 2  # every frame twice
    frames = water_dimer(40).select(again)
    train_directory(frames, PLAN, tmp_path / "first")
    more = replace(PLAN, n_train=14, warm_start=tmp_path / "first")
    assert train_directory(frames, more, tmp_path / "more")["binding"]["n_train"] == 14


def test_the_directory_trains_on_the_points_of_the_smaller_model(tmp_path):
    frames = water_dimer(80)
    train_directory(frames, PLAN, tmp_path / "small")
    more = replace(PLAN, n_train=20, warm_start=tmp_path / "small")
    report = train_directory(frames, more, tmp_path / "large")
    with (
        np.load(tmp_path / "small" / "binding.npz") as few,
        np.load(tmp_path / "large" / "binding.npz") as many,
    ):
        assert set(few["idxs_train"]) < set(many["idxs_train"])
        assert len(many["idxs_train"]) == 20
    assert report["binding"]["solver"] == "iterative"
    assert report["binding"]["converged"] is True
    first = read_record(tmp_path / "large" / "binding.npz")["checks"][0]
    assert first[1] < 0.5
    with pytest.raises(DataError, match="more than 8; raise --n-train"):
        train_directory(frames, replace(more, n_train=8), tmp_path / "fewer")


def test_what_cannot_be_begun_with_is_one_line(small, tmp_path):
    request, path = small
    with pytest.raises(DataError, match="no such model to begin with"):
        read_warm_start(tmp_path / "none.npz", request.data)
    with pytest.raises(DataError, match="a model of other atoms"):
        read_warm_start(path, request_for("left").data)
    moved = replace(request.data, positions=request.data.positions * 1.01)
    with pytest.raises(DataError, match="none of its 12 training points"):
        read_warm_start(path, moved)
    (tmp_path / "torn.npz").write_bytes(path.read_bytes()[:500])
    with pytest.raises(DataError, match="no model that can be begun with"):
        read_warm_start(tmp_path / "torn.npz", request.data)
