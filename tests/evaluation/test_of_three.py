"""What three molecules have beyond their pairs, tested as it is served."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from deltaserver.cli import app
from deltaserver.errors import DataError
from deltaserver.evaluation.of_three import evaluate_three
from deltaserver.evaluation.splits import SplitRequest
from deltaserver.evaluation.workflow import EvaluationPlan
from deltaserver.model import force_field
from deltaserver.textio.strict_yaml import dump_yaml
from deltaserver.textio.xyz_frames import xyz_text
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from tests.model.many.builders import BENZENE_DIMER, INDUCTION, directory, manifest
from tests.shipped import MODELS
from tests.training.labelled import dispersion, water_trimer

pytest.importorskip("networkx")
pytest.importorskip("scipy")
TRIMERS = MODELS.parent / "data" / "carbon_dioxide_trimers"
LAST = EvaluationPlan(split=SplitRequest("time", test_fraction=0.2), n_resamples=50)


@pytest.fixture(scope="module")
def frames():
    return water_trimer(100, prior=dispersion(900.0, 60.0))


@pytest.fixture(scope="module")
def model(tmp_path_factory, frames):
    """Three waters with dispersion, induction and a kernel."""
    path = tmp_path_factory.mktemp("models")
    data = manifest(3, 0, periodic=False)
    del data["cutoff"]
    data["bindings"] = data["bindings"][:1]
    pairs, structure = directory(path / "pairs", data), path / "three.xyz"
    structure.write_text(xyz_text([*"OHH" * 3], frames.positions[0], "in Å"))
    plan = TrainingPlan(component="binding", n_train=12, n_valid=9, sigmas=(8.0,), prior="triples")
    train_directory(frames, replace(plan, induction=pairs), path / "trimers")
    words = ["assemble", pairs, path / "trimers", "--structure", structure, "-o", path / "wet"]
    assert app.main([str(word) for word in words]) == 0
    return path / "wet"


def test_errors_are_those_of_what_is_served(frames, model):
    """Of none, of the prior and of all: also where they end."""
    found = evaluate_three(model, frames, [model], LAST)
    test = found.test
    assert len(test) == 20
    many = force_field.load(model)
    whole = many.evaluate(test.positions, "binding").contributions["triples"]
    data = yaml.safe_load((model / "model.yaml").read_text())
    for entry in data["bindings"]:
        if len(entry["between"]) == 3:
            del entry["model"], entry["fade"]
    (model.parent / "prior").mkdir()
    for name in ("water.npz", "pair.npz", "structure.xyz"):
        (model.parent / "prior" / name).write_bytes((model / name).read_bytes())
    (model.parent / "prior" / "model.yaml").write_text(dump_yaml(data))
    alone = force_field.load(model.parent / "prior")
    prior = alone.evaluate(test.positions, "binding").contributions["triples"]
    by_name = {one.component: one for one in found.results}
    assert list(by_name) == ["none", "prior", "triples"]
    zero = np.zeros(20), np.zeros(test.forces.shape)
    expected = {
        "none": zero, "prior": (prior.energy, prior.forces), "triples": (whole.energy, whole.forces)
    }  # fmt: skip
    for name, (energy, forces) in expected.items():
        one = by_name[name]
        np.testing.assert_allclose(one.energy.signed, energy - test.binding_energy, atol=1e-12)
        off = np.abs(forces - test.binding_forces).reshape(20, -1).mean(axis=1)
        np.testing.assert_allclose(one.forces["overall"].absolute, off, atol=1e-12)


def test_frames_that_a_kernel_was_trained_on_are_no_test(frames, model):
    with pytest.raises(DataError, match="triples was trained on 12 of the 100 test frames"):
        evaluate_three(model, frames, [model], replace(LAST, split=SplitRequest("all")))
    found = evaluate_three(model, frames, [model], replace(LAST, max_test=7))
    assert len(found.test) == 7


def test_what_has_nothing_of_three_is_refused(tmp_path, frames):
    with pytest.raises(DataError, match="of one complex, and water_trimer is of order 3"):
        evaluate_three(tmp_path, frames, [BENZENE_DIMER], LAST)
    data = manifest(3, 0)
    data["bindings"] = data["bindings"][:1]
    for models in (directory(tmp_path / "wet", data), MODELS / "benzenes"):
        with pytest.raises(DataError, match="it has nothing that three molecules of water_trimer"):
            evaluate_three(tmp_path, frames, [models], LAST)
    found = evaluate_three(
        tmp_path, frames, [directory(tmp_path / "flowing", data | {"induction": INDUCTION})], LAST
    )
    assert [one.component for one in found.results] == ["none", "prior"]
    assert found.notes[0].startswith("The labels are of springs, flowing of random numbers")


def test_the_command_on_what_ships(tmp_path, capsys):
    """As docs/molecules.md has it: of 0.015 kcal/mol 0.003 is left."""
    words = ["evaluate", TRIMERS, "--models", MODELS / "carbon_dioxides", "--split", "time"]
    words += ["--test-fraction", "0.2", "-o", tmp_path / "out", "--debug"]
    assert app.main([str(word) for word in words]) == 0
    out = capsys.readouterr().out
    assert "dispersion and induction of carbon_dioxides were fitted to" in out
    report = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    rmse = {one["component"]: one["energy"]["rmse_kcal_mol"] for one in report["errors"]}
    assert rmse["none"] == pytest.approx(0.0149, abs=5e-4)
    assert rmse["prior"] == pytest.approx(0.0031, abs=5e-4)
    assert report["split"]["n_test"] == 136
    text = (tmp_path / "out" / "evaluation.md").read_text()
    assert "| carbon_dioxides | pairs alone" in text
    assert "--split time --test-fraction 0.2" in text
    assert app.main([*map(str, words), "--train-sizes", "5"]) == 2
    assert "of order 3, on which directories of many molecules" in capsys.readouterr().err
