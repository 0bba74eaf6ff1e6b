from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deltaserver import CompositeModel
from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.errors import DataError
from deltaserver.evaluation.held_out_errors import (
    ComponentErrors,
    FrameErrors,
    baseline_of,
    component_errors,
    improvement,
    load_models,
    metrics,
)
from deltaserver.evaluation.leakage import check_unseen, trained_on, training_frames
from deltaserver.statistics.bootstrap import BlockBootstrap
from tests import builders

WATER, AMMONIA = tuple(builders.WATER_ATOMS), tuple(builders.AMMONIA_ATOMS)


def labelled(composite: CompositeModel, n_frames: int = 6) -> LabelledFrames:
    """Frames whose labels are the model's own, fragment by fragment; fragments in other order."""
    positions = builders.shaken(builders.geometry(7, 3), n_frames, 5)
    found = composite.evaluate(positions)
    water, ammonia = found.contributions["water"], found.contributions["ammonia"]
    return LabelledFrames(
        name="water-ammonia", reference="itself", numbers=composite.numbers,
        fragments=(FragmentSpec("one", tuple(sorted(AMMONIA))), FragmentSpec("two", WATER)),
        positions=positions, energy=found.energy, forces=found.forces,
        fragment_energies=np.column_stack([ammonia.energy, water.energy]),
        fragment_forces=ammonia.forces + water.forces,
        trajectory=np.zeros(n_frames, dtype=int), step=np.arange(n_frames),
    )  # fmt: skip


@pytest.fixture(scope="module")
def perfect(model_directory: Path, composite: CompositeModel):
    frames = labelled(composite)
    return load_models([model_directory], frames)[0], frames


def test_a_model_has_no_error_on_its_own_labels_but_the_full_model_has(perfect):
    evaluated, frames = perfect
    results = {r.component: r for r in component_errors(evaluated, frames)}
    assert list(results) == ["full", "total", "ammonia", "water", "binding"]
    assert results["full"].forces["overall"].absolute.min() > 1e-3
    for name in ("total", "ammonia", "water", "binding"):
        assert results[name].energy.absolute.max() < 1e-9
        assert results[name].forces["overall"].absolute.max() < 1e-9
    assert list(results["total"].forces) == ["overall", "ammonia", "water"]


def test_errors_land_in_their_fragment_and_part(perfect):
    evaluated, frames = perfect
    forces = frames.forces.copy()
    forces[2, builders.WATER_ATOMS[1], 0] -= 0.9  # a label that is 0.9 eV/Å too low
    wrong = replace(frames, forces=forces, energy=frames.energy + 0.25)
    results = {r.component: r for r in component_errors(evaluated, wrong)}
    total = results["total"]
    np.testing.assert_allclose(total.energy.signed, -0.25, atol=1e-9)
    np.testing.assert_allclose(total.forces["overall"].absolute[2], 0.9 / 21, atol=1e-9)
    np.testing.assert_allclose(total.forces["water"].signed[2], 0.9 / 9, atol=1e-9)
    np.testing.assert_allclose(total.forces["water"].squared[2], 0.81 / 9, atol=1e-9)
    assert total.forces["ammonia"].absolute.max() < 1e-9
    assert results["water"].forces["overall"].absolute.max() < 1e-9  # isolated labels are right
    np.testing.assert_allclose(results["binding"].forces["overall"].absolute[2], 0.9 / 21)
    np.testing.assert_allclose(results["binding"].energy.signed, -0.25, atol=1e-9)


def test_metrics_by_hand():
    errors = FrameErrors.of(np.array([[1.0, -3.0], [2.0, 0.0], [-1.0, 1.0]]))
    found = metrics(errors, BlockBootstrap.draw(np.zeros(3, dtype=int), 1))
    assert found.mae.value == pytest.approx(8 / 6)
    assert found.rmse.value == pytest.approx(np.sqrt(16 / 6))
    assert found.offset.value == pytest.approx(0.0)
    assert found.rmse_about_offset.value == pytest.approx(np.sqrt(16 / 6))
    assert found.mae.low < found.mae.value < found.mae.high


def test_offset_is_told_apart():
    errors = FrameErrors.of(np.array([4.0, 6.0, 5.0, 5.0]))
    found = metrics(errors, BlockBootstrap.draw(np.zeros(4, dtype=int), 1))
    assert found.mae.value == found.offset.value == 5.0
    assert found.rmse.value == pytest.approx(np.sqrt(25.5))
    assert found.rmse_about_offset.value == pytest.approx(np.sqrt(0.5))


def test_improvement_is_paired_and_in_percent():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(40, 5))
    bootstrap = BlockBootstrap.draw(np.zeros(40, dtype=int), 2)
    found = improvement(FrameErrors.of(0.25 * base), FrameErrors.of(base), bootstrap)
    for estimate in (found.mae_percent, found.rmse_percent):  # the same frames: no spread at all
        assert (estimate.low, estimate.value, estimate.high) == pytest.approx((75.0, 75.0, 75.0))
    worse = improvement(FrameErrors.of(2.0 * base), FrameErrors.of(base), bootstrap)
    assert worse.mae_percent.value == pytest.approx(-100.0)


def test_a_model_without_full_is_compared_with_the_first_full():
    error = FrameErrors.of(np.ones(3))
    results = [
        ComponentErrors("a", "total", error, {}),
        ComponentErrors("b", "full", error, {}),
        ComponentErrors("b", "total", error, {}),
        ComponentErrors("c", "full", error, {}),
    ]
    assert baseline_of(results, "a") is results[1]
    assert baseline_of(results, "c") is results[3]
    assert baseline_of(results[:1], "a") is None


def test_labels_are_the_shortest_that_differ(perfect, tmp_path):
    _, frames = perfect
    for parent in ("with", "without"):
        (tmp_path / parent).mkdir()
        builders.write_directory(tmp_path / parent / "m50")
    models = load_models([tmp_path / "with" / "m50", tmp_path / "without" / "m50"], frames)
    assert [model.label for model in models] == ["with/m50", "without/m50"]
    assert {part.name: part.n_perms for part in models[0].parts} == {
        "ammonia": 6, "water": 2, "binding": 1, "full": 1,
    }  # fmt: skip
    with pytest.raises(DataError, match="given twice"):
        load_models([tmp_path / "with" / "m50"] * 2, frames)


def test_models_of_something_else_are_refused(perfect, model_directory):
    _, frames = perfect
    other = frames.numbers.copy()
    other[0] = 15
    with pytest.raises(DataError, match="H5N1O1, but water-ammonia has H5O1P1"):
        load_models([model_directory], replace(frames, numbers=other))
    fragments = (FragmentSpec("a", (0, 1, 2)), FragmentSpec("b", (3, 4, 5, 6)))
    with pytest.raises(DataError, match="fragments water, ammonia are not the dataset's a, b"):
        load_models([model_directory], replace(frames, fragments=fragments))


@pytest.fixture
def seen(tmp_path: Path, composite: CompositeModel):
    """A directory whose full model was trained on frames 1 and 4."""
    directory = builders.write_directory(tmp_path / "model")
    frames = labelled(composite)
    x = builders.inverse_distances(frames.positions[[4, 1]])
    full = builders.sgdml_model(builders.COMPLEX, n_train=2)
    builders.write_model(directory / "full.npz", full | {"R_desc": x.T})
    return directory, frames


def test_training_frames_are_known_by_their_descriptors(seen):
    directory, frames = seen
    (evaluated,) = load_models([directory], frames)
    found = training_frames(evaluated, frames)
    assert found["full"].tolist() == [1, 4]
    assert all(len(found[name]) == 0 for name in ("water", "ammonia", "binding"))
    nearly = frames.positions + 1e-4 * np.random.default_rng(0).normal(size=frames.positions.shape)
    assert len(trained_on(evaluated.model.full, nearly)) == 0


def test_test_frames_that_were_trained_on_are_refused(seen):
    directory, frames = seen
    models = load_models([directory], frames)
    with pytest.raises(DataError, match=r"full was trained on 1 of the 2 test frames.*frame 4"):
        check_unseen(models, frames, np.array([4, 5]))
    assert check_unseen(models, frames, np.array([0, 2]))["model"].tolist() == [1, 4]


def test_frames_that_chose_sigma_are_refused_where_the_report_tells(seen):
    directory, frames = seen
    report = (
        '{"dataset": "water-ammonia", "n_frames": 10, "train_fraction": 1.0, '
        '"held_out_trajectories": []}'
    )
    frames = replace(
        frames.select(np.resize(np.arange(6), 10)), step=np.arange(10), positions=
        builders.shaken(builders.geometry(7, 3), 10, 8),
    )  # fmt: skip
    models = load_models([directory], frames)
    test = np.array([8, 9])
    check_unseen(models, frames, test)  # no report: nothing known
    (directory / "training.json").write_text("not JSON")
    check_unseen(models, frames, test)
    (directory / "training.json").write_text(report.replace("10", "11"))  # another dataset's
    check_unseen(models, frames, test)
    (directory / "training.json").write_text(report)
    with pytest.raises(DataError, match="sigma was chosen by 2 of the 2 test frames"):
        check_unseen(models, frames, test)
