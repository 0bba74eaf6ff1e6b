"""Waters of a cluster, of which three learn from trimers of their dynamics."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from deltaserver.datasets.files import read_dataset, write_frames
from deltaserver.errors import DataError, EndedEarlyError
from deltaserver.improve.settings import Settings, Stop, round_paths
from deltaserver.improve.subjects import subject_of
from deltaserver.improve.subjects.dimers import MOST_OF_A_FRAME, near
from deltaserver.improve.workflow import improve
from deltaserver.model import force_field
from deltaserver.model.manifest import parse_atoms
from deltaserver.model.many.triple_block import parse_triples
from deltaserver.model.trust.stored_frame import check_parts, read_stored, refuse, store
from deltaserver.simulate.structures.assemble import assemble
from deltaserver.training.components import components
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from deltaserver.training.three.flowing import Flowing
from deltaserver.training.three.prior import fit_three
from tests.improve.killing import assert_same, kill_at_random, labels_of
from tests.improve.test_many import COMMAND, CORNERS, DYNAMICS, water_pairs, waters
from tests.improve.water_springs import three_bodies, water_trimers
from tests.model.many.builders import CELL, THREE, directory, manifest, positions
from tests.training.labelled import WATER

CALCULATOR = "tests.improve.water_springs:WaterTrimers"
TWO_ROUNDS = Stop(1e-9, max_rounds=2)
ONE_ROUND = Stop(1e-9, max_rounds=1)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Pairs, trimers with a kernel (``kernel``) and without (``alone``), and clusters of four."""
    path = tmp_path_factory.mktemp("waters")
    pairs = TrainingPlan(n_train=24, n_valid=20, sigmas=(8.0,), intra_weights=(0.3,))
    for name, prior in (("water1", "none"), ("binding", "pairs")):
        plan = replace(pairs, component=name, prior=prior)
        train_directory(water_pairs(), plan, path / "pair")
    write_frames(water_trimers(80), path / "data", {})
    frames = read_dataset(path / "data")
    plan = TrainingPlan(
        component="binding", n_train=24, n_valid=12, sigmas=(8.0,), energies=1.0, prior="triples",
        induction=path / "pair",
    )  # fmt: skip
    x = (WATER + CORNERS[:, None]).reshape(-1, 3)
    structure = waters(path / "four.xyz", CORNERS)
    for name, n_train in (("kernel", 24), ("alone", 0)):
        train_directory(frames, replace(plan, n_train=n_train), path / name)
        models = path / f"cluster-{name}"
        assemble([path / "pair", path / name], structure, models, None, False)
        (models / "check.json").write_text(store(force_field.load(models), x))
    return path


def settings_of(first, output, name, **changes):
    return Settings(
        first / f"cluster-{name}", first / "data", CALCULATOR, output, DYNAMICS,
        labels_per_round=8, test_frames=8, pair=first / name, **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(first, tmp_path_factory):
    """Two rounds with a kernel."""
    output = tmp_path_factory.mktemp("done") / "out"
    with pytest.raises(EndedEarlyError, match="budget of 2 rounds is spent"):
        improve(settings_of(first, output, "kernel"), TWO_ROUNDS)
    return output


def errors_of(output, part="total"):
    report = json.loads((output / "report.json").read_text())
    return [r["test"]["parts"][part]["force_mae_kcal_mol_ang"] for r in report["rounds"]]


def test_trimers_of_a_cluster_make_three_bodies_better(done):
    errors, alone = errors_of(done), errors_of(done, "pairs alone")
    assert len(errors) == 3
    assert errors[0] < 0.7 * alone[0]
    assert errors[2] < 0.8 * errors[0]
    added = read_dataset(done / "dataset", plausible=False)
    assert added.order == 3
    assert len(added) == 80 + 16
    three = three_bodies().evaluate(added.positions)
    np.testing.assert_allclose(added.binding_energy, three.energy, atol=1e-6)
    assert "pairs alone: force MAE" in (done / "report.html").read_text()


def test_what_was_trained_stands_in_the_models_of_many(done, first):
    """Pairs and molecules, and their record, stay as they are."""
    models, three = round_paths(done, 2).models, round_paths(done, 2).three
    data = yaml.safe_load((models / "model.yaml").read_text())
    trained = yaml.safe_load((three / "bindings.yaml").read_text())
    (entry,) = trained["bindings"]
    assert data["induction"] == trained["induction"]
    assert {**data["bindings"][1], "model": "binding.npz"} == entry
    assert (models / "triple.npz").read_bytes() == (three / "binding.npz").read_bytes()
    for name in ("water1.npz", "binding.npz", "training.json"):
        assert (models / name).read_bytes() == (first / "pair" / name).read_bytes()
    many = force_field.load(models)
    stored = read_stored(models, many.n_atoms)
    refuse(check_parts(many, stored.positions, stored), stored, many.fingerprint(), 1e-6)
    assert many.fingerprint() != force_field.load(first / "cluster-kernel").fingerprint()
    assert len(np.load(three / "binding.npz")["idxs_train"]) == 24 + 16


def test_what_has_learned_may_learn_more(done, first, tmp_path):
    again = replace(
        settings_of(first, tmp_path / "more", "kernel"), models=round_paths(done, 2).models,
        dataset=done / "dataset", pair=round_paths(done, 2).three,
    )  # fmt: skip
    assert improve(again, Stop(1e3)) == round_paths(tmp_path / "more", 0).models


def test_a_prior_without_a_kernel_is_fitted_again(first, tmp_path):
    """To the dataset's training frames and all that were added; nothing is labelled twice."""
    output = tmp_path / "out"
    with pytest.raises(EndedEarlyError):
        improve(settings_of(first, output, "alone"), ONE_ROUND)
    models, three = round_paths(output, 1).models, round_paths(output, 1).three
    assert not (models / "triple.npz").exists()
    assert not (three / "binding.npz").exists()
    data = yaml.safe_load((models / "model.yaml").read_text())
    told = data["bindings"][1]["prior"]
    frames = read_dataset(output / "dataset", plausible=False)
    assert len(frames) == 88
    split = subject_of(settings_of(first, output, "alone"), read_dataset(first / "data"), print)
    report = json.loads((three / "training.json").read_text())["components"]["binding"]
    assert report["n_fitted"] == len(split.train) + 8
    valid, available = split.split.valid[:12], components(frames)
    flow = Flowing.read(first / "pair", frames, available, 1000)
    points = np.concatenate([split.train, np.arange(80, 88)])
    expected = fit_three(frames, available, points, valid, flow)
    prior = parse_triples(told, [(0, 1, 2), (3, 4, 5), (6, 7, 8)], parse_atoms)
    assert prior.radius == expected.prior.radius
    np.testing.assert_allclose(prior.table, expected.prior.table, rtol=1e-6)
    before = yaml.safe_load((first / "cluster-alone" / "model.yaml").read_text())
    assert data["induction"] != before["induction"]
    flows = [one["response"] for one in data["induction"]["species"][0]["flows"]]
    assert flows[0] == pytest.approx(expected.induction.induction.responses[0].matrix[0, 1] * -1)
    assert len(labels_of(output)) == 7 * (1 + 8 + 2 * 8)


def test_killed_at_random_moments_the_labels_are_the_same(done, first, tmp_path):
    words = [*COMMAND[:-1], CALCULATOR, first / "cluster-kernel", "--dataset", first / "data"]
    words[words.index("1e-6")] = "1e-9"
    kill_at_random([*words, "--trimers", first / "kernel"], tmp_path / "out", 2, 3)
    assert_same(done, tmp_path / "out")


def test_triples_of_a_cell_are_whole_and_within_reach(tmp_path):
    """Also with images, of which a small cell has many; of very many some."""
    data = manifest(4, 1)
    (of_three,) = (one for one in data["bindings"] if len(one["between"]) == 3)
    of_three["prior"] = THREE | {"cutoff": [8.0, 9.5]}
    model = force_field.load(directory(tmp_path, data))
    model.cell = CELL
    x, rng = positions(4, 1), np.random.default_rng(0)
    found = near(model, 0, rng, x)
    assert found.shape[1:] == (9, 3)
    assert 10 < len(found) <= MOST_OF_A_FRAME
    centres = found.reshape(-1, 3, 3, 3).mean(axis=2)
    sides = np.linalg.norm(centres - np.roll(centres, 1, axis=1), axis=2)
    assert 9.0 < sides.max() < 9.5
    bonds = np.linalg.norm(found[:, [1, 2, 4, 5, 7, 8]] - found[:, [0, 0, 3, 3, 6, 6]], axis=2)
    assert bonds.max() < 1.4
    np.testing.assert_allclose(centres[:, 0], 0.0, atol=1e-12)
    energy = model.triples[0].prior.of_whole(found).energy
    assert np.isfinite(energy).all()


def refused(settings, match):
    with pytest.raises(DataError, match=match):
        improve(settings, TWO_ROUNDS)
    assert not (settings.output / "improve.json").exists()


def test_what_does_not_belong_together_is_refused(first, tmp_path):
    settings = settings_of(first, tmp_path / "out", "kernel")
    refused(replace(settings, pair=None), "give the directory that deltaserver train made of what")
    refused(replace(settings, pair=first / "pair"), "no record of how the binding of three")
    for name in ("alone", "kernel"):
        other = "kernel" if name == "alone" else "alone"
        models = first / f"cluster-{other}"
        refused(replace(settings, models=models, pair=first / name), "is not what three molecules")
    refused(replace(settings, models=first / "pair"), "of one complex, do not have")
    edited = tmp_path / "edited"
    edited.mkdir()
    for path in (first / "kernel").iterdir():
        if path.is_file():
            (edited / path.name).write_bytes(path.read_bytes())
    with (edited / "binding.npz").open("ab") as file:
        file.write(b" ")
    refused(replace(settings, pair=edited), "is not what three molecules")
