"""A lone ion, three fragments' worth of generality, and splits by trajectory, on made-up labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml

from deltaserver.datasets.files import write_frames
from deltaserver.datasets.frames import FragmentSpec
from deltaserver.evaluation.figures import held_out
from deltaserver.evaluation.figures.descriptor import draw_distances
from deltaserver.evaluation.held_out_errors import metrics
from deltaserver.evaluation.markdown import to_markdown
from deltaserver.evaluation.report import to_json
from deltaserver.evaluation.splits import SplitRequest
from deltaserver.evaluation.workflow import EvaluationPlan, evaluate, write_evaluation
from tests import builders

pytestmark = pytest.mark.usefixtures("one_format")
BY_TRAJECTORY = EvaluationPlan(split=SplitRequest("trajectory", (1,)), n_resamples=30, n_pairs=20)


def model_directory(directory: Path, *, full: bool) -> Path:
    """Water and a sodium ion."""
    directory.mkdir()
    numbers = np.array([8, 1, 1, 11])
    builders.write_model(directory / "water.npz", builders.water_model())
    builders.write_model(directory / "binding.npz", builders.sgdml_model(numbers, seed=3))
    manifest = {
        "format": "deltaserver-model/1",
        "name": "Na+@water",
        "fragments": [
            {"name": "H2O", "atoms": "0-2", "model": "water.npz"},
            {"name": "Na+", "atoms": "3", "species": ["Na"], "energy": 3.3, "energy_unit": "eV"},
        ],
        "binding": {"model": "binding.npz"},
    }
    if full:
        builders.write_model(directory / "full.npz", builders.sgdml_model(numbers, seed=4))
        manifest["full"] = {"model": "full.npz"}
    (directory / "model.yaml").write_text(yaml.safe_dump(manifest))
    return directory


@pytest.fixture
def dataset(frames, tmp_path):
    write_frames(frames, tmp_path / "data", {})
    return tmp_path / "data"


def draw_ion_labels(figure, found):
    held_out.draw_binding_labels(figure, [found.frames])


def test_a_lone_ion_has_forces_but_no_model_of_its_own(dataset, tmp_path):
    found = evaluate(dataset, [model_directory(tmp_path / "m", full=True)], BY_TRAJECTORY)
    assert found.test.trajectory.tolist() == [1] * 6
    assert [r.component for r in found.results] == ["full", "total", "H2O", "binding"]
    assert list(found.results[1].forces) == ["overall", "H2O", "Na+"]
    written = write_evaluation(found, tmp_path / "out", draw=False, readme=True)
    assert all(path.exists() for path in written)
    for draw in (held_out.draw_fragment_errors, draw_ion_labels):
        assert held_out.save(lambda figure, draw=draw: draw(figure, found), tmp_path / "f").exists()
    assert "force MAE on Na+" in (tmp_path / "m" / "README.md").read_text()
    assert "all frames of trajectory 1" in (tmp_path / "out" / "evaluation.md").read_text()
    blocks = to_json(found)["descriptor"]["blocks"]
    assert blocks[1]["fragments"] == ["Na+", "Na+"]
    assert blocks[1]["sigma_delta_per_ang"] is None


def test_frames_of_as_many_trajectories_have_intervals_between_these(frames, tmp_path):
    write_frames(replace(frames, trajectory=np.arange(12)), tmp_path / "data", {})
    all_of_it = replace(BY_TRAJECTORY, split=SplitRequest("all"))
    found = evaluate(tmp_path / "data", [model_directory(tmp_path / "m", full=True)], all_of_it)
    errors = found.results[1].energy.absolute
    estimate = metrics(found.results[1].energy, found.bootstrap).mae
    assert estimate.high - estimate.low > 2.0 * errors.std() / np.sqrt(12)
    assert to_json(found)["bootstrap"]["kind"].startswith("whole trajectories, ")
    assert "over whole trajectories, each of which is a block (12 blocks, 30 " in to_markdown(found)


@pytest.mark.parametrize(("method", "said"), [("GFN1-xTB", True), ("GFN2-xTB tblite", False)])
def test_labels_of_another_method_than_the_models_are_told(frames, tmp_path, method, said):
    write_frames(replace(frames, reference=method), tmp_path / "data", {})
    directory = model_directory(tmp_path / "m", full=False)
    manifest = directory / "model.yaml"
    manifest.write_text(manifest.read_text() + "reference: GFN2-xTB\n")
    found = evaluate(tmp_path / "data", [directory], BY_TRAJECTORY)
    assert ("labels are of GFN1-xTB, m of GFN2-xTB" in to_markdown(found)) is said
    assert bool(to_json(found)["note"]) is said


def test_one_frame_has_errors_without_an_interval(dataset, tmp_path):
    one = replace(BY_TRAJECTORY, max_test=1)
    found = evaluate(dataset, [model_directory(tmp_path / "m", full=True)], one)
    energy = to_json(found)["errors"][1]["energy"]
    assert energy["mae_ev_interval"] == [0.0, None]
    assert energy["mean_offset_ev_interval"] == [None, None]
    drawn = held_out.save(lambda figure: held_out.draw_errors(figure, found), tmp_path / "f")
    assert drawn.exists()


def test_without_a_full_model_there_is_nothing_to_compare_with(dataset, tmp_path):
    found = evaluate(dataset, [model_directory(tmp_path / "m", full=False)], BY_TRAJECTORY)
    assert to_json(found)["improvements"] == []
    text = to_markdown(found)
    assert "| force MAE " in text
    assert "| –" in text
    assert held_out.save(
        lambda figure: held_out.draw_errors(figure, found), tmp_path / "f"
    ).exists()


def test_full_of_another_directory_stands_in(dataset, tmp_path):
    directories = [
        model_directory(tmp_path / "first", full=False),
        model_directory(tmp_path / "second", full=True),
    ]
    found = evaluate(dataset, directories, BY_TRAJECTORY)
    pairs = [(i["model"], i["baseline_model"]) for i in to_json(found)["improvements"]]
    assert pairs == [("first", "second"), ("second", "second")]
    assert "full of second" in to_markdown(found)


def test_three_fragments_are_drawn(frames, tmp_path):
    three = (FragmentSpec("OH", (0, 1)), FragmentSpec("H", (2,)), FragmentSpec("sodium", (3,), 1))
    energies = np.column_stack([frames.fragment_energies[:, :1], np.full((12, 2), 1.0)])
    forces = frames.fragment_forces.copy()
    forces[:, 2:] = 0.0
    write_frames(
        replace(frames, fragments=three, fragment_energies=energies, fragment_forces=forces),
        tmp_path / "data", {},
    )  # fmt: skip
    directory = model_directory(tmp_path / "m", full=True)
    manifest = yaml.safe_load((directory / "model.yaml").read_text())
    builders.write_model(directory / "oh.npz", builders.sgdml_model(np.array([8, 1]), seed=6))
    manifest["fragments"] = [
        {"name": "OH", "atoms": "0-1", "model": "oh.npz"},
        {"name": "H", "atoms": "2", "species": ["H"], "energy": 1.0, "energy_unit": "eV"},
        {"name": "Na+", "atoms": "3", "species": ["Na"], "energy": 1.0, "energy_unit": "eV"},
    ]
    (directory / "model.yaml").write_text(yaml.safe_dump(manifest))
    found = evaluate(tmp_path / "data", [directory], BY_TRAJECTORY)
    assert len(found.descriptor.blocks.labels) == 6
    drawn = held_out.save(
        lambda figure: draw_distances(figure, found.frames, found.descriptor), tmp_path / "f"
    )
    assert drawn.exists()
