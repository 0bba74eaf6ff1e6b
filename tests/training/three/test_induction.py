"""Charge flow fitted to trimers beside their dispersion, served with a kernel and without."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from deltaserver.cli import app
from deltaserver.datasets.files import read_dataset
from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.errors import DataError, InputError, ManifestError
from deltaserver.model import force_field
from deltaserver.model.many.triples import TripleLabels
from deltaserver.model.sgdml import SGDMLModel
from deltaserver.textio.strict_yaml import dump_yaml
from deltaserver.textio.xyz_frames import xyz_text
from deltaserver.training.components import components
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from deltaserver.training.three import flowing as module
from deltaserver.training.three.flowing import Flowing
from deltaserver.training.three.prior import Menu, fit_three, tried
from deltaserver.training.three.reach import widest
from tests.builders import WATER
from tests.model.many.builders import PRIOR, directory, manifest, write_manifest
from tests.shipped import MODELS
from tests.training.labelled import dispersion, water_dimer, water_trimer

pytest.importorskip("networkx")
pytest.importorskip("scipy")
S, KAPPAS = 1.0, [0.05, 0.02]  # of O–H and of H–H
PLAN = TrainingPlan(
    component="binding", n_train=12, n_valid=12, sigmas=(8.0,), energies=1.0, prior="triples"
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Many waters whose prior has charges."""
    data = manifest(3, 0, periodic=False)
    del data["cutoff"]
    data["bindings"] = [one for one in data["bindings"] if len(one["between"]) == 2]
    return directory(tmp_path_factory.mktemp("pairs") / "wet", data)


@pytest.fixture(scope="module")
def frames(pairs):
    """Trimers whose labels have dispersion and induction of three molecules."""
    found = water_trimer(100, prior=dispersion(900.0))
    flow = Flowing.read(pairs, found, components(found), 1000).of(S, KAPPAS)
    more = flow.evaluate(found.positions)
    assert np.abs(more.energy).max() > 1e-4
    return replace(found, energy=found.energy + more.energy, forces=found.forces + more.forces)


@pytest.fixture(scope="module")
def learned(tmp_path_factory, frames, pairs):
    """Directory of trimers with a kernel beside dispersion and induction, and what was said."""
    path, said = tmp_path_factory.mktemp("learned"), []
    train_directory(frames, replace(PLAN, induction=pairs), path, said.append)
    return path, said


def assembled(pairs, three, output):
    """Three molecules, of a directory of pairs and one of trimers."""
    structure = output.with_suffix(".xyz")
    structure.write_text(xyz_text([*"OHH" * 3], water_trimer(1).positions[0], "in Å"))
    words = ["assemble", pairs, three, "--structure", structure, "-o", output]
    assert app.main([str(word) for word in words]) == 0
    return force_field.load(output)


def test_dispersion_and_flows_that_the_labels_have_are_found(frames, pairs):
    available = components(frames)
    flow = Flowing.read(pairs, frames, available, 1000)
    assert flow.alike == ((0, ((0, 1), (0, 2))), (0, ((1, 2),)))
    found = fit_three(frames, available, np.arange(75), np.arange(75, 100), flow)
    assert (found.prior.radius, found.induction.induction.radius) == (3.5, S)
    matrix = found.induction.induction.responses[0].matrix
    assert -matrix[[0, 0, 1], [1, 2, 2]] == pytest.approx([0.05, 0.05, 0.02], rel=1e-3)
    known = found.evaluate(frames.positions)
    np.testing.assert_allclose(known.energy, frames.binding_energy, atol=1e-7)
    alone = fit_three(frames, available, np.arange(75), np.arange(75, 100))
    assert alone.induction is None
    left = np.abs(alone.evaluate(frames.positions).energy - frames.binding_energy)
    assert left.max() > 1e-4


def test_carbon_dioxide_has_the_coefficients_that_ship():
    """As models/trimers.py fits them: C, s and κ of models/carbon_dioxides, of the same trimers."""
    found = read_dataset(MODELS.parent / "data" / "carbon_dioxide_trimers")
    last = np.array([found.step[found.trajectory == k].max() for k in found.trajectory])
    train = found.step < 0.8 * last
    flow = Flowing.read(MODELS / "carbon_dioxides", found, components(found), 1000)
    menu = Menu(radii=(6.5, 7.0), smeared=(1.0, 1.5), classes=("one",), ends=(8.0, 10.0))
    used = np.flatnonzero(train), np.flatnonzero(~train)
    best = min(tried(found, components(found), used, flow, menu), key=lambda one: one.error).known
    known = force_field.load(MODELS / "carbon_dioxides")
    (shipped,) = known.triples
    assert best.prior.radius == shipped.prior.radius
    assert best.prior.cutoff == shipped.prior.cutoff
    np.testing.assert_allclose(best.prior.table, shipped.prior.table, rtol=1e-6)
    ours, theirs = best.induction.induction, known.induction
    assert (ours.radius, ours.switch) == (theirs.radius, theirs.switch)
    for key in ("charges", "matrix"):
        values = [getattr(one.responses[0], key) for one in (ours, theirs)]
        np.testing.assert_allclose(*values, rtol=5e-6)


def test_nothing_flows_where_the_labels_have_none(pairs):
    """No κ helps, and none is negative: the entry is left out."""
    found = water_trimer(100, prior=dispersion(900.0))
    flow = Flowing.read(pairs, found, components(found), 1000)
    away = flow.of(S, KAPPAS).evaluate(found.positions)
    against = replace(found, energy=found.energy - away.energy, forces=found.forces - away.forces)
    used, menu = (np.arange(75), np.arange(75, 100)), Menu(radii=(3.5,), smeared=(S,))
    for one in tried(against, components(against), used, flow, menu):
        assert one.known.induction is None


def test_what_training_took_off_is_what_is_served(tmp_path, frames, pairs, learned):
    """Three molecules: dispersion, induction and kernel, energies and forces, to rounding."""
    path, said = learned
    model = assembled(pairs, path, tmp_path / "wet")
    (binding,) = model.triples
    x = frames.positions
    inside = widest(frames, np.arange(len(x))) < min(binding.fade[0], binding.prior.cutoff[0])
    assert inside.sum() > 10
    x = x[inside]
    kernel = SGDMLModel.load(path / "binding.npz")
    # As the file of the kernel, the labels that it was trained on are less this prior.
    report = json.loads((path / "training.json").read_text())["components"]["binding"]
    flow = Flowing.read(pairs, frames, components(frames), 1000)
    block = report["induction"]
    kappas = [one["response"] for one in block["species"][0]["flows"]]
    off = TripleLabels(binding.prior, flow.of(block["radius"], kappas)).evaluate(x)
    learned_ = kernel.evaluate(x)
    found = model.evaluate(x).contributions["triples"]
    np.testing.assert_allclose(found.energy, off.energy + learned_.energy, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(found.forces, off.forces + learned_.forces, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.energy, frames.binding_energy[inside], atol=1e-4)
    first = np.load(path / "binding.npz")
    there = TripleLabels(binding.prior, flow.of(block["radius"], kappas)).evaluate(first["R"][:3])
    assert first["prior_energy_ev"][:3] == pytest.approx(there.energy, rel=1e-9)
    assert any("induction with s = 1 Å; of 12 validation frames" in line for line in said)


@pytest.mark.parametrize("change", ["none", "other", "radius"])
def test_another_induction_than_the_kernel_stands_on_is_refused(tmp_path, pairs, learned, change):
    assembled(pairs, learned[0], tmp_path / "wet")
    path = tmp_path / "wet" / "model.yaml"
    data = yaml.safe_load(path.read_text())
    if change == "none":
        del data["induction"]
    elif change == "other":
        data["induction"]["species"][0]["flows"][0]["response"] *= 1.01
    else:
        data["induction"]["radius"] = 0.5
    path.write_text(dump_yaml(data))
    with pytest.raises(ManifestError, match="trained beside another prior"):
        force_field.load(path)


def test_a_kernel_without_induction_does_not_stand_beside_one(tmp_path, pairs, frames, learned):
    """It has learned what induction would add once more."""
    plain = tmp_path / "plain"
    train_directory(frames, PLAN, plain)
    assembled(pairs, plain, tmp_path / "wet")
    path = tmp_path / "wet" / "model.yaml"
    data = yaml.safe_load(path.read_text())
    data["induction"] = yaml.safe_load((learned[0] / "bindings.yaml").read_text())["induction"]
    path.write_text(dump_yaml(data))
    with pytest.raises(ManifestError, match="trained beside another prior"):
        force_field.load(path)


def test_the_prior_alone(tmp_path, frames, pairs):
    """--n-train 0: no kernel, and the coefficients that a kernel would stand beside."""
    said = []
    alone = replace(PLAN, n_train=0, induction=pairs)
    entry = train_directory(frames, alone, tmp_path / "three", said.append)["binding"]
    assert not (tmp_path / "three" / "binding.npz").exists()
    assert any("frames, no kernel" in line for line in said)
    assert entry["valid_energy_rmse_kcal_mol"] < 0.01
    told = yaml.safe_load((tmp_path / "three" / "bindings.yaml").read_text())
    assert [[*one] for one in told["bindings"]] == [["between", "prior"]]
    assert told["induction"] == entry["induction"]
    model = assembled(pairs, tmp_path / "three", tmp_path / "wet")
    near = widest(frames, np.arange(len(frames))) < model.triples[0].prior.cutoff[0]
    found = model.evaluate(frames.positions[near]).contributions["triples"]
    np.testing.assert_allclose(found.energy, frames.binding_energy[near], atol=1e-5)


def test_a_kernel_is_replaced_by_the_prior_alone_if_that_is_wanted(tmp_path, frames, pairs):
    alone = replace(PLAN, n_train=0)
    train_directory(frames, PLAN, tmp_path)
    with pytest.raises(InputError, match="give --overwrite"):
        train_directory(frames, alone, tmp_path)
    assert (tmp_path / "binding.npz").exists()
    train_directory(frames, replace(alone, overwrite=True), tmp_path)
    assert not (tmp_path / "binding.npz").exists()
    train_directory(frames, alone, tmp_path)
    train_directory(frames, PLAN, tmp_path)
    entry = yaml.safe_load((tmp_path / "bindings.yaml").read_text())["bindings"][0]
    assert entry["model"] == "binding.npz"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"prior": "none"}, "--induction is fitted beside the dispersion"),
        ({"n_train": 0, "prior": "none", "induction": None}, "--n-train 0 leaves a prior of three"),
        ({"n_train": 0, "component": "all"}, "--n-train 0 leaves a prior of three"),
    ],
)
def test_options_that_need_a_prior_of_three(tmp_path, frames, pairs, changes, message):
    plan = replace(PLAN, induction=pairs)
    with pytest.raises(DataError, match=message):
        train_directory(frames, replace(plan, **changes), tmp_path / "no")
    assert not (tmp_path / "no").exists()


def test_two_molecules_have_no_induction_of_three(tmp_path, pairs):
    plan = replace(PLAN, prior="pairs", induction=pairs)
    with pytest.raises(DataError, match="--induction is fitted beside the dispersion"):
        train_directory(water_dimer(), plan, tmp_path)
    with pytest.raises(DataError, match="--n-train 0 leaves a prior of three"):
        train_directory(water_dimer(), replace(plan, n_train=0, induction=None), tmp_path)


def test_directories_that_cannot_give_charges_are_refused(tmp_path, frames, monkeypatch):
    def read(where):
        return Flowing.read(where, frames, components(frames), 1000)

    with pytest.raises(DataError, match="none of its molecules has the elements of water1"):
        read(MODELS / "benzene_dimer")
    data = manifest(3, 0, periodic=False)
    pair = data["bindings"][0]
    data["bindings"] = [pair | {"prior": PRIOR | {"classes": [
        {key: value for key, value in one.items() if key != "charge"} for one in PRIOR["classes"]
    ]}}]  # fmt: skip
    with pytest.raises(DataError, match="its prior has no charges"):
        read(directory(tmp_path / "neutral", data))
    classes = [
        {"name": name, "atoms": str(k), "charge": q}
        for k, (name, q) in enumerate(zip("abcdef", [-0.4, 0.3, 0.1] * 2, strict=True))
    ]
    data["bindings"] = [{"between": ["water"] * 2, "prior": {"classes": classes, "pairs": []}}]
    with pytest.raises(DataError, match="differ between atoms that are equivalent"):
        read(directory(tmp_path / "odd", data))
    with pytest.raises(DataError, match="its binding has no prior"):
        read(complex_without_prior(tmp_path / "complex"))
    monkeypatch.setattr(module, "MOST", 1)
    data["bindings"] = [{"between": ["water"] * 2, "prior": PRIOR}]
    with pytest.raises(DataError, match="2 kinds of pairs of atoms between which"):
        read(directory(tmp_path / "wet", data))


def complex_without_prior(path):
    directory(path, manifest(2, 0))
    fragments = [
        {"name": f"w{k}", "atoms": f"{3 * k}-{3 * k + 2}", "model": "water.npz"} for k in (0, 1)
    ]
    data = {"format": "deltaserver-model/1", "fragments": fragments}
    write_manifest(path, data | {"binding": {"model": "pair.npz"}})
    assert len(WATER) == 3
    return path


def test_a_dimer_gives_its_charges(frames, tmp_path):
    """Of the molecule of the same elements, by itself or beside another one."""
    path = complex_without_prior(tmp_path)
    data = yaml.safe_load((path / "model.yaml").read_text())
    write_manifest(path, data | {"prior": PRIOR})
    flow = Flowing.read(path, frames, components(frames), 1000)
    assert [q.tolist() for q in flow.charges] == [[-0.4, 0.2, 0.2]]


def test_two_waters_and_an_ion(tmp_path):
    """Two species, of which one has nothing in it that flows."""
    data = manifest(2, 1, periodic=False)
    del data["cutoff"]
    data["bindings"] = [one for one in data["bindings"] if len(one["between"]) == 2]
    ion = [{"name": "Ne", "atoms": "3", "charge": 1.0}]
    prior = data["bindings"][1]["prior"]
    data["bindings"][1]["prior"] = prior | {"classes": prior["classes"][:2] + ion}
    wet = directory(tmp_path / "pairs", data)
    x = water_trimer(100).positions[:, :7]
    zero, none = np.zeros(100), np.zeros(x.shape)
    names = (("water1", (0, 1, 2), 0), ("water2", (3, 4, 5), 0), ("neon", (6,), 1))
    found = LabelledFrames(
        "mixed", "springs", np.array([8, 1, 1, 8, 1, 1, 10]),
        tuple(FragmentSpec(*n) for n in names), x, zero, none, np.zeros((100, 3)), none,
        np.arange(100) // 50, np.arange(100), zero, none,
    )  # fmt: skip
    flow = Flowing.read(wet, found, components(found), 1000)
    assert [q.tolist() for q in flow.charges] == [[-0.4, 0.2, 0.2], [1.0]]
    known = flow.of(S, KAPPAS).evaluate(x)
    found = replace(found, energy=known.energy, forces=known.forces)
    train_directory(found, replace(PLAN, n_train=0, induction=wet), tmp_path / "three")
    structure = tmp_path / "three.xyz"
    structure.write_text(xyz_text([*"OHH" * 2, "Ne"], x[0], "in Å"))
    words = ["assemble", wet, tmp_path / "three", "--structure", structure, "-o", tmp_path / "all"]
    assert app.main([str(word) for word in words]) == 0
    served = force_field.load(tmp_path / "all").evaluate(x).contributions["triples"]
    np.testing.assert_allclose(served.energy, known.energy, atol=1e-7)
    np.testing.assert_allclose(served.forces, known.forces, atol=1e-7)


def test_an_induction_that_was_not_fitted_along_is_left_out(tmp_path, frames, pairs, capsys):
    """Dispersion that was fitted without would count twice what the other has."""
    plain, both = tmp_path / "plain", tmp_path / "both"
    train_directory(frames, replace(PLAN, n_train=0), plain)
    train_directory(frames, replace(PLAN, n_train=0, induction=pairs), both)
    assert assembled(pairs, both, tmp_path / "with").induction is not None
    assert "induction is" not in capsys.readouterr().out
    model = assembled(tmp_path / "with", plain, tmp_path / "without")
    assert model.induction is None
    assert "induction is left out: the three molecules of" in capsys.readouterr().out
    told = yaml.safe_load((both / "bindings.yaml").read_text())
    told["induction"]["species"][0]["flows"][0]["response"] = 0.01
    (both / "bindings.yaml").write_text(dump_yaml(told))
    other = assembled(tmp_path / "with", both, tmp_path / "other")
    assert other.induction.responses[0].matrix[0, 1] == -0.01
    assert "induction is that of" in capsys.readouterr().out


def test_a_species_of_another_name_is_known_by_its_elements(tmp_path, pairs, learned):
    """The kernel's: its induction goes by the same name."""
    three = tmp_path / "three"
    three.mkdir()
    text = (learned[0] / "bindings.yaml").read_text()
    (three / "bindings.yaml").write_text(text.replace("water", "aqua"))
    (three / "binding.npz").write_bytes((learned[0] / "binding.npz").read_bytes())
    model = assembled(pairs, three, tmp_path / "wet")
    assert model.induction.responses[0] is not None
