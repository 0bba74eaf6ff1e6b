"""From trimers' labels beyond their pairs to what many molecules are served with."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from deltaserver.cli import app
from deltaserver.errors import DataError, ManifestError
from deltaserver.model import force_field
from deltaserver.model.composite import CompositeModel
from deltaserver.model.manifest import format_atoms, parse_atoms
from deltaserver.model.many.triple_block import format_triples, parse_triples
from deltaserver.model.sgdml import SGDMLModel
from deltaserver.textio.strict_yaml import dump_yaml
from deltaserver.textio.xyz_frames import xyz_text
from deltaserver.training.components import components
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from deltaserver.training.symmetry import check_group
from deltaserver.training.three.exchange import product_with_exchange
from deltaserver.training.three.prior import fit_three
from deltaserver.training.three.reach import fade_of, widest
from tests.model.many.builders import directory, manifest, positions
from tests.training.labelled import dispersion, water_dimer, water_trimer

pytest.importorskip("networkx")
pytest.importorskip("scipy")
PLAN = TrainingPlan(component="binding", n_train=40, n_valid=12, sigmas=(8.0,), energies=1.0)


def trained(path, frames, plan=PLAN):
    """Train molecules and triples; return what was said and the directory of many molecules."""
    said: list[str] = []
    train_directory(frames, plan, path, said.append)
    train_directory(frames, replace(plan, component="water1", prior="none"), path, said.append)
    return said


def served(path, count=3, **changes):
    """Write model.yaml beside what was trained, of its entry."""
    entries = yaml.safe_load((path / "bindings.yaml").read_text())["bindings"]
    (entry,) = entries
    data = {
        "format": "deltaserver-model/1",
        "species": [{"name": "water", "model": "water1.npz", "count": count}],
        "bindings": [entry | changes],
    }
    (path / "model.yaml").write_text(dump_yaml(data))
    return force_field.load(path)


@pytest.fixture(scope="module")
def frames():
    return water_trimer(100)


@pytest.fixture(scope="module")
def plain(tmp_path_factory, frames):
    path = tmp_path_factory.mktemp("plain")
    return path, trained(path, frames)


@pytest.fixture(scope="module")
def test_frames():
    """Frames as those trained on, near enough to be within the whole of the model."""
    found = water_trimer(100, seed=5)
    inside = widest(found, np.arange(100)) < 5.5
    return found.select(np.flatnonzero(inside))


def test_what_was_trained_is_served_and_right(plain, frames, test_frames):
    path, said = plain
    entry = yaml.safe_load((path / "bindings.yaml").read_text())["bindings"][0]
    assert entry["between"] == ["water"] * 3
    assert any("bindings.yaml has what goes" in line for line in said)
    assert not (path / "model.yaml").exists()
    model = served(path)
    start, stop = entry["fade"]
    points = np.load(path / "binding.npz")["idxs_train"]
    assert stop == pytest.approx(widest(frames, points).max(), abs=0.005)
    assert start == pytest.approx(stop - 2.0)
    alone = SGDMLModel.load(path / "binding.npz")
    assert alone.n_perms == 48
    assert alone.parameters.order == 3
    blocks = alone.parameters.blocks
    rho = blocks.shortest(alone.parameters.x)
    assert blocks.reach.far == pytest.approx((rho.max(), rho.max() + 2.0))
    found = model.evaluate(test_frames.positions).contributions["triples"]
    known = alone.evaluate(test_frames.positions)
    apart = widest(test_frames, np.arange(len(test_frames)))
    whole = apart < start
    assert whole.sum() > 3
    np.testing.assert_allclose(found.energy[whole], known.energy[whole], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.forces[whole], known.forces[whole], rtol=1e-8, atol=1e-10)
    label = test_frames.binding_energy
    assert np.abs(known.energy - label).mean() < 0.1 * np.abs(label - label.mean()).mean()
    report = json.loads((path / "training.json").read_text())["components"]["binding"]
    assert report["fade"] == [start, stop]


def test_a_model_beside_its_own_dispersion(tmp_path, plain, test_frames):
    """The prior is fitted first, the rest is learned; another prior, or none, is refused."""
    said = trained(tmp_path, water_trimer(100, prior=dispersion(900.0, 60.0)),
                   replace(PLAN, prior="triples", n_train=20))  # fmt: skip
    assert said
    model = served(tmp_path)
    (binding,) = model.triples
    assert binding.prior is not None
    alone = SGDMLModel.load(tmp_path / "binding.npz")
    x = test_frames.positions
    near = widest(test_frames, np.arange(len(x))) < min(binding.fade[0], binding.prior.cutoff[0])
    found = model.evaluate(x[near]).contributions["triples"].energy
    expected = alone.evaluate(x[near]).energy + binding.prior.of_whole(x[near]).energy
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    entry = yaml.safe_load((tmp_path / "bindings.yaml").read_text())["bindings"][0]
    without = {key: value for key, value in entry.items() if key != "prior"}
    (tmp_path / "bindings.yaml").write_text(dump_yaml({"bindings": [without]}))
    with pytest.raises(ManifestError, match="trained on what a prior leaves, and no prior"):
        served(tmp_path)
    with pytest.raises(ManifestError, match="trained beside another prior"):
        served(plain[0], prior=entry["prior"])


def test_it_is_no_binding_of_a_complex_of_three(tmp_path, plain):
    fragments = [
        {"name": f"w{k}", "atoms": f"{3 * k}-{3 * k + 2}", "model": "water1.npz"} for k in range(3)
    ]
    data = {
        "format": "deltaserver-model/1",
        "fragments": fragments,
        "binding": {"model": "binding.npz"},
    }
    for name in ("water1.npz", "binding.npz"):
        (tmp_path / name).write_bytes((plain[0] / name).read_bytes())
    (tmp_path / "model.yaml").write_text(dump_yaml(data))
    with pytest.raises(ManifestError, match="is what three molecules have beyond their pairs"):
        CompositeModel.load(tmp_path)


@pytest.mark.parametrize(("hydrogens", "radius"), [(0.0, 3.5), (60.0, 3.5)])
def test_dispersion_that_the_labels_have_is_found(hydrogens, radius):
    """To what the little of |c|² costs that is added, 1e-4 of the columns' norms."""
    known = dispersion(900.0, hydrogens)
    frames = water_trimer(60, prior=known)
    fitted = fit_three(frames, components(frames), np.arange(45), np.arange(45, 60))
    prior = fitted.prior
    assert fitted.induction is None
    assert prior.radius == radius
    assert prior.is_fair((0, 0, 0))
    assert prior.cutoff == fade_of(frames, np.arange(45))
    found, expected = prior.of_whole(frames.positions), known.of_whole(frames.positions)
    left = np.abs(found.energy - expected.energy).max()
    assert left < 1e-3 * np.abs(expected.energy).max()
    block = format_triples(prior, format_atoms)
    again = parse_triples(block, [(0, 1, 2), (3, 4, 5), (6, 7, 8)], parse_atoms)
    assert np.array_equal(again.table, prior.table)
    assert (again.radius, again.cutoff) == (prior.radius, prior.cutoff)


@pytest.mark.parametrize(("cap", "kept"), [(1000, 48), (48, 48), (47, 6), (6, 6)])
def test_exchange_is_never_given_up(frames, cap, kept):
    found = product_with_exchange(frames, components(frames), cap)
    check_group(found.perms, "three")
    assert len(found.perms) == kept
    assert found.full_order == 48
    assert bool(found.note) == (kept < 48)
    swapped = [3, 4, 5, 0, 1, 2, 6, 7, 8]
    assert (found.perms == swapped).all(axis=1).any()


def test_two_alike_and_one_other():
    """Two of a kind exchange, and the third keeps its place."""
    frames = water_trimer(10)
    kinds = (replace(frames.fragments[2], charge=1),)
    frames = replace(frames, fragments=(*frames.fragments[:2], *kinds))
    found = product_with_exchange(frames, components(frames), 1000)
    assert len(found.perms) == 2 * 2 * 2 * 2
    assert (np.sort(found.perms[:, 6:], axis=1) == [6, 7, 8]).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"linear": "distances"}, "--linear distances expands pairs"),
        ({"linear": "products", "component": "all"}, "--linear products expands pairs"),
        ({"prior": "pairs"}, "--prior pairs is of pairs"),
        ({"symmetry": "none"}, "do not exchange alike molecules"),
        ({"symmetry": "fragment"}, "do not exchange alike molecules"),
        ({"cap": 5}, "do not exchange alike molecules"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything(tmp_path, frames, changes, message):
    with pytest.raises(DataError, match=message):
        train_directory(frames, replace(PLAN, **changes), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_frames_that_do_not_fit_are_refused(tmp_path, frames):
    with pytest.raises(DataError, match="--prior triples is of three molecules"):
        train_directory(water_dimer(20), replace(PLAN, prior="triples"), tmp_path / "model")
    first, second, third = frames.fragments
    mixed = (replace(first, atoms=(0, 1, 5)), replace(second, atoms=(3, 4, 2)), third)
    with pytest.raises(DataError, match="water1 does not stand after"):
        train_directory(replace(frames, fragments=mixed), PLAN, tmp_path / "model")
    with pytest.raises(DataError, match="no frames to fit a prior to"):
        fit_three(frames, components(frames), np.zeros(0, dtype=int), np.zeros(0, dtype=int))


def test_assemble_puts_it_beside_pairs(tmp_path, plain, capsys):
    """In the place of a binding of three that stands there; species are known by elements."""
    path = directory(tmp_path / "wet", manifest(4, 1, periodic=False))
    trimers, structure = tmp_path / "trimers", tmp_path / "structure.xyz"
    trimers.mkdir()
    for name in ("binding.npz", "bindings.yaml"):  # others have written a model.yaml beside them
        (trimers / name).write_bytes((plain[0] / name).read_bytes())
    x = positions(4, 1)
    structure.write_text(xyz_text([*"OHH" * 4, "Ne"], x, "in Å"))
    out = tmp_path / "assembled"
    words = ["assemble", path, trimers, "--structure", structure, "-o", out]
    assert app.main([str(word) for word in words]) == 0
    data = yaml.safe_load((out / "model.yaml").read_text())
    three = [one for one in data["bindings"] if len(one["between"]) == 3]
    assert [(one["between"], one["model"]) for one in three] == [(["water"] * 3, "triple.npz")]
    model = force_field.load(out)
    assert model.triples[0].prior is None
    before = force_field.load(path)
    found, known = model.evaluate(x).contributions, before.evaluate(x).contributions
    assert found["binding"].energy == pytest.approx(known["binding"].energy, rel=1e-12)
    words = ["assemble", trimers, path, "-o", tmp_path / "no"]
    assert app.main([str(word) for word in words]) == 2
    assert "give that of its pairs first" in capsys.readouterr().err


def test_assemble_refuses_what_it_cannot_place(tmp_path, plain, capsys):
    """Molecules in another order than the species, and a model that does not tell its molecules."""
    path = directory(tmp_path / "wet", manifest(4, 1, periodic=False))
    trimers = tmp_path / "trimers"
    trimers.mkdir()
    (trimers / "bindings.yaml").write_bytes((plain[0] / "bindings.yaml").read_bytes())
    arrays = dict(np.load(plain[0] / "binding.npz"))
    words = [str(word) for word in ("assemble", path, trimers, "-o", tmp_path / "out")]
    seven = {
        "z": np.array([10, 8, 1, 1, 8, 1, 1]),
        "fragments": np.array([0, 1, 1, 1, 2, 2, 2]),
        "R": arrays["R"][:, :7],
        "alphas_F": np.zeros(21 * len(arrays["R"])),
        "perms": np.arange(7)[None],
    }
    for changes, message in (
        (seven, "cut trimers --between water,water,neon"),
        ({"fragments": np.repeat([0, 1], [3, 6]), "block_weights": np.ones((2, 2))}, "train it an"),
        ({"z": np.array([8, 1, 1, 8, 1, 1, 9, 1, 1]), "perms": np.arange(9)[None]}, "that of its"),
    ):
        np.savez(trimers / "binding.npz", **(arrays | changes))
        assert app.main(words) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "out").exists()
    (trimers / "bindings.yaml").write_text("bindings: [{between: [water]}]")
    assert app.main(words) == 2
    assert "bindings.yaml: bindings[0]" in capsys.readouterr().err
