"""Waters of a cluster, and of a cell, whose binding learns from dimers of their dynamics."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from deltaserver import CompositeModel
from deltaserver.datasets.files import read_dataset, write_frames
from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.errors import DataError, EndedEarlyError, InputError
from deltaserver.improve.settings import Dynamics, Settings, Stop, round_paths
from deltaserver.improve.subjects import subject_of
from deltaserver.improve.subjects.dimers import touching
from deltaserver.improve.workflow import improve
from deltaserver.model import force_field
from deltaserver.model.files.archive import read_arrays
from deltaserver.model.trust.stored_frame import check_parts, read_stored, refuse, store
from deltaserver.simulate.structures.assemble import assemble
from deltaserver.textio.xyz_frames import xyz_text
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from tests.improve.conftest import CALCULATOR
from tests.improve.killing import assert_same, kill_at_random, labels_of
from tests.training.labelled import WATER, WATER_Z, attraction, springs

DYNAMICS = Dynamics((150.0, 400.0), runs=2, steps=100)
TWO_ROUNDS = Stop(1e-6, max_rounds=2)
CORNERS = np.array([[0, 0, 0], [3.4, 0, 0], [0, 3.4, 0], [0, 0, 3.4]], dtype=float)
COMMAND = [
    "improve", "--temperature", "150", "--temperature", "400", "--runs", "2", "--steps", "100",
    "--labels-per-round", "8", "--test-frames", "8", "--until-force-mae", "1e-6",
    "--max-rounds", "2", "--quiet", "--calculator", CALCULATOR,
]  # fmt: skip


def water_pairs(n_frames=120, seed=0):
    """Two waters 2.8 to 6 Å apart, turned at random, by the potential of water_dimer."""
    rng = np.random.default_rng(seed)
    turns = np.linalg.qr(rng.normal(size=(n_frames, 2, 3, 3)))[0]
    x = np.einsum("mkxy,ay->mkax", turns, WATER)
    x[:, 1, :, 0] += rng.uniform(2.8, 6.0, (n_frames, 1))
    x = (x + rng.normal(0.0, 0.03, x.shape)).reshape(n_frames, 6, 3)
    own = [springs(x[:, some], WATER) for some in (slice(0, 3), slice(3, 6))]
    energies = np.stack([part[0] - 10.0 for part in own], axis=1)
    forces = np.concatenate([part[1] for part in own], axis=1)
    two, two_forces = attraction(x, [0, 1, 2], [3, 4, 5])
    return LabelledFrames(
        "water_pairs", "springs", np.tile(WATER_Z, 2),
        (FragmentSpec("water1", (0, 1, 2)), FragmentSpec("water2", (3, 4, 5))),
        x, energies.sum(1) + two, forces + two_forces, energies, forces,
        np.arange(n_frames) * 2 // n_frames, np.arange(n_frames),
    )  # fmt: skip


def waters(path, centres, comment=""):
    x = (WATER + centres[:, None]).reshape(-1, 3)
    path.write_text(xyz_text(["O", "H", "H"] * len(centres), x, comment))
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The directory with ``data``, the ``pair`` and the ``cluster``; read only."""
    directory = tmp_path_factory.mktemp("waters")
    write_frames(water_pairs(), directory / "data", {})
    frames = read_dataset(directory / "data")
    plan = TrainingPlan(n_train=24, n_valid=20, sigmas=(8.0,), intra_weights=(0.3,))
    for name, prior in (("water1", "none"), ("binding", "pairs")):
        train_directory(frames, replace(plan, component=name, prior=prior), directory / "pair")
    assemble(
        [directory / "pair"], waters(directory / "four.xyz", CORNERS), directory / "cluster",
        None, False,
    )  # fmt: skip
    model = force_field.load(directory / "cluster")
    x = (WATER + CORNERS[:, None]).reshape(-1, 3)
    (directory / "cluster" / "check.json").write_text(store(model, x))
    return directory


@pytest.fixture
def settings(first, tmp_path):
    return settings_of(first, tmp_path / "out")


def settings_of(first, output, **changes):
    return Settings(
        first / "cluster", first / "data", CALCULATOR, output, DYNAMICS, labels_per_round=8,
        test_frames=8, **changes,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(first, tmp_path_factory):
    output = tmp_path_factory.mktemp("done") / "out"
    with pytest.raises(EndedEarlyError, match="budget of 2 rounds is spent"):
        improve(settings_of(first, output), TWO_ROUNDS)
    return output


def test_dimers_of_a_cluster_make_the_binding_better(done):
    report = json.loads((done / "report.json").read_text())
    errors = [r["test"]["parts"]["binding"]["force_mae_kcal_mol_ang"] for r in report["rounds"]]
    assert len(errors) == 3
    assert errors[2] < 0.8 * errors[0]
    assert [r["n_added"] for r in report["rounds"]] == [0, 8, 16]
    assert len(read_dataset(done / "dataset", plausible=False)) == 120 + 16
    assert "Added in round 2" in (done / "report.html").read_text()


def test_the_new_binding_and_prior_stand_in_the_models_of_many(done):
    models, pair = round_paths(done, 2).models, round_paths(done, 2).pair
    data = yaml.safe_load((models / "model.yaml").read_text())
    trained = json.loads((pair / "training.json").read_text())
    assert data["bindings"][0]["prior"] == trained["components"]["binding"]["prior"]
    assert (
        data["bindings"][0]["prior"]
        != yaml.safe_load((round_paths(done, 0).models / "model.yaml").read_text())["bindings"][0][
            "prior"
        ]
    )
    for name in ("water1.npz", "binding.npz", "training.json"):
        assert (models / name).read_bytes() == (pair / name).read_bytes()
    many, two = force_field.load(models), CompositeModel.load(pair)
    stored = read_stored(models, many.n_atoms)
    refuse(check_parts(many, stored.positions, stored), stored, many.fingerprint(), 1e-6)
    pairs = touching(many, 0, stored.positions)
    bound = many.evaluate(stored.positions).contributions["binding"].energy
    assert two.evaluate(pairs).contributions["binding"].energy.sum() == pytest.approx(bound)


def test_no_test_dimer_was_trained_on_and_no_two_are_alike(done):
    added = read_dataset(done / "dataset", plausible=False).positions[120:]
    tests = [read_arrays(round_paths(done, k).test_dynamics)["positions"] for k in range(3)]
    for one, other in [*((added, x) for x in tests), (added, added)]:
        apart = np.abs(one[:, None] - other[None]).max(axis=(2, 3))
        if one is other:
            np.fill_diagonal(apart, np.inf)
        assert apart.min() > 1e-3


def test_what_has_learned_may_learn_more(done, first, tmp_path):
    """Its directory has the record, so that nothing else is to be given."""
    models = round_paths(done, 2).models
    again = replace(settings_of(first, tmp_path / "more"), models=models, dataset=done / "dataset")
    assert improve(again, Stop(1e3)) == round_paths(tmp_path / "more", 0).models


def test_killed_at_random_moments_the_labels_are_the_same(done, first, tmp_path):
    words = [*COMMAND, first / "cluster", "--dataset", first / "data"]
    kill_at_random(words, tmp_path / "out", 3, 3)
    assert_same(done, tmp_path / "out")


def test_molecules_whose_training_is_not_told_stay_as_they_are(first, settings, tmp_path):
    """The binding alone was trained there, as of models that share their molecules."""
    record = tmp_path / "binding"
    record.mkdir()
    (record / "binding.npz").write_bytes((first / "pair" / "binding.npz").read_bytes())
    report = json.loads((first / "pair" / "training.json").read_text())
    del report["components"]["water1"]
    (record / "training.json").write_text(json.dumps(report))
    settings = replace(settings, pair=record)
    with pytest.raises(EndedEarlyError):
        improve(settings, Stop(1e-6, max_rounds=1))
    own = [round_paths(settings.output, k).models / "water1.npz" for k in (0, 1)]
    assert own[0].read_bytes() == own[1].read_bytes()
    before, after = (round_paths(settings.output, k).pair / "binding.npz" for k in (0, 1))
    assert before.read_bytes() != after.read_bytes()
    CompositeModel.load(round_paths(settings.output, 1).pair)


def test_a_cell_repeats(first, tmp_path):
    """Pairs are taken across its faces, and are whole."""
    edge = 6.6
    centres = np.array([[x, y, z] for x in (0.2, 3.5) for y in (0.2, 3.5) for z in (0.2, 3.5)])
    comment = f'Lattice="{edge} 0 0 0 {edge} 0 0 0 {edge}" pbc="T T T"'
    source = waters(tmp_path / "box.xyz", centres, comment)
    assemble([first / "pair"], source, tmp_path / "box", None, True)
    settings = replace(settings_of(first, tmp_path / "out"), models=tmp_path / "box",
                       dynamics=Dynamics((300.0,), runs=1, steps=40))  # fmt: skip
    with pytest.raises(EndedEarlyError):
        improve(settings, Stop(1e-6, max_rounds=1))
    chosen = read_dataset(settings.output / "dataset", plausible=False).positions[120:]
    assert len(chosen) == 8
    bonds = np.linalg.norm(chosen[:, [0, 0, 3, 3]] - chosen[:, [1, 2, 4, 5]], axis=2)
    assert bonds.max() < 1.3
    assert len(labels_of(settings.output)) == 3 * (1 + 8 + 8 + 8)


def refused(settings, match, kind=DataError):
    with pytest.raises(kind, match=match):
        improve(settings, TWO_ROUNDS)
    assert not (settings.output / "improve.json").exists()  # others may be given there


def test_what_does_not_belong_together_is_refused(first, settings, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for path in (first / "cluster").iterdir():
        if path.name != "training.json":
            (bare / path.name).write_bytes(path.read_bytes())
    refused(replace(settings, models=bare), "no record of how the binding of two was trained")
    other = tmp_path / "other"
    train_directory(
        water_pairs(seed=1),
        TrainingPlan(n_train=20, n_valid=20, sigmas=(8.0,), component="binding"),
        other,
    )
    refused(replace(settings, pair=other), "is not the binding of two molecules of the models")
    refused(replace(settings, models=first / "pair", pair=other), "leave it out", kind=InputError)
    (bare / "structure.xyz").unlink()
    text = (bare / "model.yaml").read_text().replace("name: water\n", "name: water\n  count: 4\n")
    (bare / "model.yaml").write_text(text)
    refused(replace(settings, models=bare), "from which the dynamics is to start")


def test_a_binding_that_ends_over_fade_is_refused(first, settings, tmp_path):
    for name in ("water1.npz", "binding.npz", "training.json", "structure.xyz"):
        (tmp_path / name).write_bytes((first / "cluster" / name).read_bytes())
    data = yaml.safe_load((first / "cluster" / "model.yaml").read_text())
    data["bindings"][0]["fade"] = [4.0, 5.0]
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(data))
    refused(replace(settings, models=tmp_path), "ends over fade, so that two are no complex")


def test_what_is_one_complex_has_no_pair(first, settings):
    subject = subject_of(settings, read_dataset(first / "data"), print)
    assert [part.name for part in subject.parts] == ["water1", "binding"]
