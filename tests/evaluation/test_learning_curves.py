from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deltaserver.datasets.files import read_dataset
from deltaserver.errors import InputError
from deltaserver.evaluation.figures.held_out import draw_learning_curves, save
from deltaserver.evaluation.held_out_errors import TrainedPart, component_errors, load_models
from deltaserver.evaluation.learning_curves import learning_curves, train_series
from deltaserver.evaluation.splits import SplitRequest, choose_split
from deltaserver.evaluation.training_record import read_report, sigma_search
from deltaserver.statistics.bootstrap import BlockBootstrap

DATA = Path(__file__).parents[2] / "data" / "benzene_dimer_gfn2_150K.xyz.gz"


@pytest.fixture(scope="module")
def frames():
    """Every third frame of the dimer."""
    everything = read_dataset(DATA)
    return everything.select(np.arange(0, len(everything), 3))


@pytest.fixture(scope="module")
def trained(frames, tmp_path_factory):
    output = tmp_path_factory.mktemp("series")
    return train_series(frames, [8, 3], ["none"], output)


def test_trained_series_makes_curves_that_fall(frames, trained, tmp_path):
    assert [directory.name for directory in trained] == ["none-m3", "none-m8"]
    test = frames.select(choose_split(frames, SplitRequest()).held_out)
    models = load_models(trained, frames)
    results = [errors for model in models for errors in component_errors(model, test)]
    bootstrap = BlockBootstrap.draw(test.trajectory, 2, 50)
    curves = learning_curves(models, results, bootstrap)
    assert [curve.component for curve in curves] == ["full", "total"]
    for curve in curves:
        assert [point.n_train for point in curve.points] == [3, 8]
        assert curve.points[1].forces.mae.value < curve.points[0].forces.mae.value
    assert curves[1].permutations == "benzene1 1, benzene2 1, binding 1"
    assert save(lambda figure: draw_learning_curves(figure, curves), tmp_path / "curves").exists()


def test_finished_models_are_kept(frames, trained):
    before = [(d / "full.npz").stat().st_mtime_ns for d in trained]
    lines = []
    train_series(frames, [3, 8], ["none"], trained[0].parent, say=lines.append)
    assert [(d / "full.npz").stat().st_mtime_ns for d in trained] == before
    assert lines[0] == "training none-m3"


def test_equal_models_are_one_point(frames, trained, composite_copy):
    models = load_models([*trained, composite_copy], frames)
    test = frames.select(np.arange(4))
    results = [errors for model in models for errors in component_errors(model, test)]
    curves = learning_curves(models, results, BlockBootstrap.draw(test.trajectory, 1, 5))
    assert all(len(curve.points) == 2 for curve in curves)


@pytest.fixture
def composite_copy(trained, tmp_path):
    import shutil

    return Path(shutil.copytree(trained[0], tmp_path / "again"))


def test_too_many_points_are_refused(frames, tmp_path):
    with pytest.raises(InputError, match=r"1000 .* are wanted"):
        train_series(frames, [1000], ["none"], tmp_path)


def test_sigma_search_is_read_from_the_trainers_report(frames, trained):
    report = read_report(trained[1])
    (model,) = load_models(trained[1:], frames)
    parts = {part.name: part for part in model.parts}
    tried = sigma_search(report, parts["binding"])
    chosen = f"{parts['binding'].sigma:g}"
    assert tried[chosen] == min(mae for mae in tried.values() if mae is not None)
    assert sigma_search(report, replace(parts["binding"], name="nothing")) == {}
    # Another model has taken the file's place since the report was written.
    assert sigma_search(report, replace(parts["full"], n_perms=7)) == {}


@pytest.mark.parametrize(
    "text", ["not JSON", "[]", '{"components": 3}', '{"components": {"full": 1}}', "{}"]
)
def test_other_tools_reports_tell_nothing(tmp_path, text):
    full = TrainedPart("full", 24, 10.0, 5, 1)
    assert sigma_search(read_report(tmp_path), full) == {}
    (tmp_path / "training.json").write_text(text)
    assert sigma_search(read_report(tmp_path), full) == {}
