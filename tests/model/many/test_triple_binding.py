from __future__ import annotations

import itertools

import numpy as np
import pytest

from deltaserver.compute import jit
from deltaserver.errors import ManifestError, ModelFileError
from deltaserver.model import force_field
from deltaserver.model.many.switch import Switch
from deltaserver.model.many.triple_binding import may_be_exchanged
from deltaserver.model.sgdml import SGDMLModel
from tests.builders import WATER, inverse_distances, sgdml_model, write_model
from tests.model.many.builders import (
    CELL,
    THREE,
    WATER_PAIR_PERMS,
    directory,
    manifest,
    positions,
    slope,
)
from tests.tolerances import assert_same_sum

N_WATER = 6
SIZES = (3, 3, 3)
OWN = [np.array([0, 1, 2]), np.array([0, 2, 1])]
PERMS = np.array(
    [
        np.concatenate([3 * m + OWN[flip] for m, flip in zip(order, flips, strict=True)])
        for order in itertools.permutations(range(3))
        for flips in itertools.product((0, 1), repeat=3)
    ]
)
FADE = [4.0, 5.5]
REACH = [0.5, 0.8, 2.5, 4.5]  # of which no triple is out, and not all are in


def three_waters(path, kind="native", n_train=5, **overrides):
    """Write a random model of three waters: a native one, or one that ends by itself too."""
    model = sgdml_model(np.tile(WATER, 3), seed=7, n_train=n_train, perms=PERMS, c=-1.1)
    if kind == "weighted":
        rng = np.random.default_rng(8)
        x = rng.normal(0.0, 0.5, (n_train, 9, 3)) + np.repeat(3.0 * np.eye(3), 3, axis=0)
        model = {key: value for key, value in model.items() if not key.startswith("R_d")} | {
            "type": "deltaserver-weighted",
            "R": x,
            "alphas_F": rng.normal(size=x.size),
            "fragments": np.repeat([0, 1, 2], 3),
            "block_weights": np.where(np.eye(3) == 1.0, 0.3, 1.0),
            "reach": np.array(REACH),
            "order": np.array(3),
            "prior_energy_ev": np.zeros(2),  # trained beside none
            "sig": np.float64(1.5),
        }
        assert np.isfinite(inverse_distances(x)).all()
    model |= overrides
    write_model(path, {key: value for key, value in model.items() if value is not None})


def learned(path, kind="native", **changes):
    """Write a directory of waters, bound by pairs, by a prior of three and a model of three."""
    data = manifest(N_WATER, 0)
    entry = data["bindings"][1]
    entry |= {"model": "triple.npz", "fade": FADE} | changes
    data["bindings"][1] = {key: value for key, value in entry.items() if value is not None}
    found = directory(path, data)
    three_waters(path / "triple.npz", kind)
    return found


@pytest.fixture(scope="module", params=["native", "weighted"])
def model(request, tmp_path_factory):
    return force_field.load(learned(tmp_path_factory.mktemp("three"), request.param, prior=None))


@pytest.fixture(scope="module")
def x():
    return positions(N_WATER, 0)


def triples(model, x, cell=CELL):
    return model.evaluate(x, "binding", cell).contributions["triples"]


def test_forces_and_virial_are_slopes_through_both_ends(model, x):
    result = triples(model, x)
    assert abs(result.energy) > 1e-4
    rng = np.random.default_rng(1)
    way = rng.normal(size=x.shape) / np.sqrt(x.size)
    found = slope(lambda h: triples(model, x + h * way).energy)
    assert found == pytest.approx(-(result.forces * way).sum(), rel=1e-6, abs=1e-7)
    strain = rng.normal(size=(3, 3))

    def strained(h):
        deform = np.eye(3) + h * strain
        return triples(model, x @ deform.T, deform @ CELL).energy

    expected = -(result.virial * strain).sum()
    assert slope(strained) == pytest.approx(expected, rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("kind", ["native", "weighted"])
def test_one_triple_is_the_model_times_its_end(tmp_path, kind):
    data = manifest(3, 0, periodic=False)
    data["bindings"] = [{"between": ["water"] * 3, "model": "triple.npz", "fade": FADE}]
    path = directory(tmp_path, data)
    three_waters(path / "triple.npz", kind)
    many, alone = force_field.load(path), SGDMLModel.load(path / "triple.npz")
    own = positions(3, 0).reshape(3, 3, 3)
    corners = np.array([[0.0, 0.0, 0.0], [4.4, 0.0, 0.0], [1.9, 4.2, 0.0]])
    x = (own - own.mean(axis=1, keepdims=True) + corners[:, None]).reshape(-1, 3)
    centres = x.reshape(3, 3, 3).mean(axis=1)
    sides = [np.linalg.norm(centres[a] - centres[b]) for a, b in ((0, 1), (1, 2), (2, 0))]
    end = Switch(*FADE)
    shares = np.array([end(np.array([side]))[0][0] for side in sides])
    assert (shares > 0.0).all()
    assert (shares < 1.0).any()
    found = many.evaluate(x)
    expected = shares.prod() * alone.evaluate(x[None]).energy[0]
    assert found.contributions["triples"].energy == pytest.approx(expected, rel=1e-12)
    assert abs(expected) > 1e-6
    assert found.molecules["triples"] == pytest.approx(np.full(3, expected / 3.0), rel=1e-12)


@pytest.mark.parametrize("away", [0, 1, 2])
def test_nothing_is_left_where_any_one_of_them_is_far(tmp_path, away):
    data = manifest(3, 0, periodic=False)
    data["bindings"] = [{"between": ["water"] * 3, "model": "triple.npz", "fade": FADE}]
    path = directory(tmp_path, data)
    three_waters(path / "triple.npz")
    model = force_field.load(path)
    x = positions(3, 0, cell=6.0 * np.eye(3))
    assert triples(model, x, None).energy != 0.0
    x[3 * away : 3 * away + 3] += 6.0 * np.array([1.0, -1.0, 1.0])
    found = triples(model, x, None)
    assert found.energy == 0.0
    assert not found.forces.any()


def test_halves_far_apart_are_the_sum_of_both(tmp_path, x):
    data = manifest(N_WATER, 0)
    both = learned(tmp_path / "both")
    half = learned(tmp_path / "half")
    for path, count in ((both, 2 * N_WATER), (half, N_WATER)):
        text = (path / "model.yaml").read_text()
        text = text.replace(f"count: {N_WATER}", f"count: {count}")
        (path / "model.yaml").write_text(text.replace("periodic: true", "periodic: false"))
    assert data["periodic"]
    one, two = force_field.load(half), force_field.load(both)
    y = positions(N_WATER, 0, seed=2) + 60.0
    together = triples(two, np.concatenate([x, y]), None).energy
    apart = triples(one, x, None).energy + triples(one, y, None).energy
    assert together == pytest.approx(apart, rel=1e-11)


def test_molecules_may_change_places_and_alike_atoms_too(model, x):
    one = triples(model, x)
    order = np.random.default_rng(3).permutation(N_WATER)
    moved = x.reshape(N_WATER, 3, 3)[order]
    moved[2] = moved[2][[0, 2, 1]]
    found = triples(model, moved.reshape(-1, 3))
    assert found.energy == pytest.approx(one.energy, rel=1e-11)
    forces = one.forces.reshape(N_WATER, 3, 3)[order]
    forces[2] = forces[2][[0, 2, 1]]
    assert_same_sum(found.forces.reshape(forces.shape), forces, 4000)


def test_images_are_counted_as_two_cells_count_them(tmp_path, x):
    path = learned(tmp_path)
    model = force_field.load(path)
    text = (path / "model.yaml").read_text()
    (path / "model.yaml").write_text(text.replace(f"count: {N_WATER}", f"count: {2 * N_WATER}"))
    twice = force_field.load(path)
    found = triples(twice, np.concatenate([x, x + CELL[:, 1]]), CELL * np.array([1.0, 2.0, 1.0]))
    one = triples(model, x)
    assert found.energy == pytest.approx(2.0 * one.energy, rel=1e-10)
    assert_same_sum(found.forces[: len(x)], one.forces, 4000)
    assert_same_sum(found.virial, 2.0 * one.virial, 40000)


@pytest.mark.parametrize("kind", ["native", "weighted"])
def test_loops_numpy_and_threads_are_the_same(tmp_path, monkeypatch, x, kind):
    path = learned(tmp_path, kind, **({} if kind == "native" else {"prior": None}))
    expected = force_field.load(path).evaluate(x, cell=CELL)
    several = force_field.load(path, threads=3).evaluate(x, cell=CELL)
    for module in ("compute.jit", "model.many.pairs.jit"):
        monkeypatch.setattr(f"deltaserver.{module}.AVAILABLE", False)
    assert not jit.AVAILABLE
    plain = force_field.load(path).evaluate(x, cell=CELL)
    for found in (several, plain):
        for name in ("energy", "forces", "virial"):
            parts = (getattr(one.contributions["triples"], name) for one in (found, expected))
            assert_same_sum(*parts, 40000)
        assert_same_sum(found.molecules["triples"], expected.molecules["triples"], 40000)


def test_prior_and_model_of_three_add_up(tmp_path, x):
    both = force_field.load(learned(tmp_path / "both"))
    alone = force_field.load(learned(tmp_path / "alone", prior=None))
    prior = force_field.load(directory(tmp_path / "prior", manifest(N_WATER, 0)))
    parts = [triples(one, x) for one in (alone, prior)]
    for name in ("energy", "forces", "virial"):
        expected = sum(getattr(part, name) for part in parts)
        assert_same_sum(getattr(triples(both, x), name), expected, 40000)
    assert len({one.fingerprint() for one in (both, alone, prior)}) == 3
    assert both.facts()["triples"][1:3] == ("5", "48")


def test_the_newest_triple_counts_too(tmp_path, x):
    path = learned(tmp_path, prior=None)
    three_waters(path / "triple.npz", "weighted", n_train=40)
    model = force_field.load(path)
    result = model.evaluate(x[None], cell=CELL)
    guards = model.guards()
    found = guards.novelty(x[None], result.contributions, CELL)
    frame = model.frame(x, CELL)
    _, three = next(model.triples[0].joined(frame, model.near(frame, 0)))
    model_of_three = model.triples[0].model
    each = guards._distance(model_of_three)(three / model_of_three.native.length_ang)
    assert found["triples"][0] == pytest.approx(each.max())


def test_which_permutations_exchange_molecules():
    assert may_be_exchanged(PERMS, SIZES, (0, 0, 0))
    kept = PERMS[(PERMS[:, 6:] >= 6).all(axis=1)]  # the first two alone
    assert not may_be_exchanged(kept, SIZES, (0, 0, 0))
    assert may_be_exchanged(kept, SIZES, (0, 0, 1))
    assert may_be_exchanged(PERMS[:1], SIZES, (0, 1, 2))


def test_what_does_not_fit_is_refused(tmp_path):
    path = learned(tmp_path, "weighted", prior=None)
    three_waters(path / "triple.npz", "weighted", order=None)
    with pytest.raises(ManifestError, match=r"triple.npz was trained on all that binds a complex"):
        force_field.load(path)
    three_waters(path / "triple.npz", "weighted", order=np.array(4))
    with pytest.raises(ModelFileError, match="order is 4; expected 2 or 3"):
        force_field.load(path)
    three_waters(path / "triple.npz", "weighted", perms=PERMS[:1])
    with pytest.raises(ManifestError, match="changes what is learned of three"):
        force_field.load(path)
    three_waters(path / "triple.npz", "weighted", prior_energy_ev=np.array([0.1, 0.2]))
    with pytest.raises(ManifestError, match="was trained on what a prior leaves"):
        force_field.load(path)
    three_waters(path / "triple.npz", "weighted", prior_energy_ev=np.zeros(2))
    force_field.load(path)
    path = learned(tmp_path, "weighted", prior=THREE)
    three_waters(path / "triple.npz", "weighted", prior_energy_ev=np.zeros(2))
    with pytest.raises(ManifestError, match="was trained beside another prior"):
        force_field.load(path)
    write_model(path / "triple.npz", sgdml_model(np.tile(WATER, 2), perms=WATER_PAIR_PERMS))
    with pytest.raises(ManifestError, match="have 9 atoms together"):
        force_field.load(path)


def test_what_three_have_beyond_pairs_binds_no_pair(tmp_path):
    path = directory(tmp_path, manifest(2, 0))
    rng = np.random.default_rng(8)
    pair = sgdml_model(np.tile(WATER, 2), perms=WATER_PAIR_PERMS) | {
        "type": "deltaserver-weighted",
        "R": rng.normal(size=(5, 6, 3)),
        "alphas_F": rng.normal(size=90),
        "fragments": np.repeat([0, 1], 3),
        "block_weights": np.ones((2, 2)),
        "order": np.array(3),
        "prior_energy_ev": np.zeros(0),
    }
    write_model(path / "pair.npz", pair)
    with pytest.raises(ManifestError, match=r"pair.npz is what three molecules have beyond"):
        force_field.load(path)
