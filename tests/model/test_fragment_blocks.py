"""Binding models on weighted descriptors: identities."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml

from deltaserver import CompositeModel
from deltaserver.errors import ManifestError, ModelFileError
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.files.parameters import WEIGHTED, ModelParameters, parse_parameters
from deltaserver.model.fragment_blocks import FragmentBlocks, Reach
from deltaserver.model.sgdml import NativeUnits, SGDMLModel
from tests.shipped import MODELS
from tests.tolerances import rounding

N, M = 6, 9
FRAGMENT = np.array([0, 0, 0, 1, 1, 1])
PERMS = np.array([[0, 1, 2, 3, 4, 5], [0, 2, 1, 3, 4, 5], [0, 1, 2, 3, 5, 4], [0, 2, 1, 3, 5, 4]])
REACH = Reach((0.5, 1.0), (2.5, 4.5))


def positions(n: int, seed: int = 0, apart: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, N, 3)) * 0.15
    x[:, :3] += np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    x[:, 3:] += np.array([[0, 0, 0], [0, 0, 1], [1, 0, 1]]) + np.array([0, 0.3, apart])
    return x


def parameters(weights: list[list[float]], reach: Reach | None = REACH) -> ModelParameters:
    rng = np.random.default_rng(5)
    x, pairs = positions(M), PairDescriptor(N, compiled=False)  # as a file is read
    geometry = pairs.geometry(x)
    alphas = rng.normal(size=x.shape)
    blocks = FragmentBlocks(FRAGMENT, np.array(weights), reach)
    return ModelParameters(
        np.array([8, 1, 1, 8, 1, 1]), geometry.descriptor, pairs.project(geometry, alphas),
        PERMS, 0.7, c=0.3, std=1.7, blocks=blocks,
    )  # fmt: skip


def model(weights: list[list[float]], reach: Reach | None = REACH) -> SGDMLModel:
    return SGDMLModel(parameters(weights, reach), NativeUnits(1.0, 1.0))


WEIGHTS = [[[0.2, 1.0], [1.0, 0.2]], [[0.0, 1.0], [1.0, 0.0]], [[0.5, 2.0], [2.0, 0.0]]]


def test_weights_of_one_change_nothing() -> None:
    weighted = parameters([[1.0, 1.0], [1.0, 1.0]], None)
    plain = SGDMLModel(replace(weighted, blocks=None), NativeUnits(1.0, 1.0))
    x = positions(4, seed=1)
    found = SGDMLModel(weighted, NativeUnits(1.0, 1.0)).evaluate(x)
    expected = plain.evaluate(x)
    # Sums of M S terms over D entries, in two orders.
    tolerance = rounding(M * len(PERMS) * N * N) * np.abs(expected.forces).max() * 100
    np.testing.assert_allclose(found.energy, expected.energy, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.virial, expected.virial, rtol=0, atol=10 * tolerance)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_weighted_entries_are_a_scaled_descriptor(weights: list[list[float]]) -> None:
    """The sum itself, written out: E = Σ w₂(|Δ|) Δ·a with Δ of w D."""
    p = parameters(weights, None)
    pairs, w = PairDescriptor(N), p.blocks.by_pair
    q = pairs.geometry(positions(1, seed=2)).descriptor[0] * w
    energy = 0.0
    for perm in pairs.permutations(PERMS):
        delta = q - (p.x * w)[:, perm]
        r = np.sqrt(5.0) * np.linalg.norm(delta, axis=1)
        w2 = 5.0 / (3.0 * p.sigma**3) * (p.sigma + r) * np.exp(-r / p.sigma)
        energy += float((w2 * np.einsum("md,md->m", delta, (p.a * w)[:, perm])).sum())
    found = model(weights, None).evaluate(positions(1, seed=2)).energy[0]
    assert found == pytest.approx(energy * p.std + p.c, rel=1e-10)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("apart", [1.1, 3.0, 4.2])  # where it rises, counts and fades
def test_forces_are_the_slopes_of_the_energy(weights: list[list[float]], apart: float) -> None:
    m, x = model(weights), positions(1, seed=3, apart=apart)[0]
    result, h = m.evaluate(x), 1e-4
    for i, a in ((0, 2), (1, 0), (4, 1), (5, 2)):
        step = np.zeros_like(x)
        step[i, a] = h
        low, high = m.evaluate(x - step).energy[0], m.evaluate(x + step).energy[0]
        assert result.forces[0, i, a] == pytest.approx(-(high - low) / (2 * h), abs=1e-6)
    strain = np.array([[0.0, 0.1, 0.2], [0.1, -0.3, 0.0], [0.2, 0.0, 0.4]])
    low, high = (m.evaluate(x @ (np.eye(3) + s * h * strain).T).energy[0] for s in (-1, 1))
    slope = -(high - low) / (2 * h)
    assert np.sum(result.virial[0] * strain) == pytest.approx(slope, abs=1e-6)


@pytest.mark.parametrize("weights", WEIGHTS)
def test_nothing_acts_on_the_whole_and_permutations_do_nothing(weights: list[list[float]]) -> None:
    m, x = model(weights), positions(3, seed=4)
    result = m.evaluate(x)
    bound = rounding(100 * M) * np.abs(result.forces).max()
    assert np.abs(result.forces.sum(axis=1)).max() <= 10 * bound
    torque = np.cross(x, result.forces).sum(axis=1)
    assert np.abs(torque).max() <= 100 * bound
    for perm in PERMS:
        other = m.evaluate(x[:, perm])
        np.testing.assert_allclose(other.energy, result.energy, rtol=1e-9)
        np.testing.assert_allclose(other.forces, result.forces[:, perm], rtol=0, atol=1e-9)


def test_it_ends_where_it_should_and_smoothly() -> None:
    m = model(WEIGHTS[0])
    apart = np.linspace(0.4, 12.0, 400)
    x = np.stack([positions(1, seed=0, apart=d)[0] for d in apart])
    result = m.evaluate(x)
    rho = m.parameters.blocks.shortest(PairDescriptor(N).geometry(x).descriptor)
    outside = (rho > REACH.far[1]) | (rho < REACH.near[0])
    assert outside.any()
    assert not outside.all()
    assert not result.forces[outside].any()
    # E − c is carried through sums: what is left of c is rounding.
    assert np.abs(result.energy[outside]).max() <= rounding(10) * 1.0
    inside = (rho > REACH.near[1]) & (rho < REACH.far[0])
    whole = model(WEIGHTS[0], None).evaluate(x)
    np.testing.assert_array_equal(result.energy[inside], whole.energy[inside])


def test_rho_is_a_smooth_shortest_distance() -> None:
    x = positions(5, seed=7)
    d = np.linalg.norm(x[:, :3, None] - x[:, None, 3:], axis=-1).reshape(5, -1)
    blocks = parameters(WEIGHTS[0]).blocks
    rho = blocks.shortest(PairDescriptor(N).geometry(x).descriptor)
    assert (rho <= d.min(axis=1)).all()
    assert (rho >= d.min(axis=1) * d.shape[1] ** (-1 / 12)).all()
    np.testing.assert_allclose(rho, (d**-12.0).sum(axis=1) ** (-1 / 12), rtol=1e-12)


def test_torch_is_the_same() -> None:
    pytest.importorskip("torch")
    from deltaserver.model.engines.torch_engine import TorchEngine

    for weights in WEIGHTS:
        x = np.concatenate([positions(2, seed=8), positions(2, seed=9, apart=4.0)])
        expected = model(weights).evaluate(x)
        on_torch = TorchEngine(parameters(weights), "cpu")
        found = SGDMLModel(parameters(weights), NativeUnits(1.0, 1.0), on_torch).evaluate(x)
        np.testing.assert_allclose(found.energy, expected.energy, rtol=1e-10)
        np.testing.assert_allclose(found.forces, expected.forces, rtol=0, atol=1e-10)
        np.testing.assert_allclose(found.virial, expected.virial, rtol=0, atol=1e-9)


def arrays() -> dict[str, np.ndarray]:
    x = positions(M)
    return {
        "type": np.array(WEIGHTED), "z": np.array([8, 1, 1, 8, 1, 1]), "R": x,
        "alphas_F": np.random.default_rng(5).normal(size=x.size), "perms": PERMS,
        "sig": np.array(0.7), "c": np.array(0.3), "std": np.array(1.7), "fragments": FRAGMENT,
        "block_weights": np.array(WEIGHTS[0]), "reach": np.array([0.5, 1.0, 2.5, 4.5]),
    }  # fmt: skip


def test_a_file_holds_positions_and_gives_descriptors() -> None:
    found, expected = parse_parameters(arrays(), "here"), parameters(WEIGHTS[0])
    np.testing.assert_array_equal(found.x, expected.x)
    np.testing.assert_array_equal(found.a, expected.a)
    assert found.blocks is not None
    assert found.blocks.reach == REACH


def test_they_are_the_same_to_the_last_bit_on_every_machine() -> None:
    """One rounding an operation, as of Python's numbers, which no processor fuses or widens."""
    content = arrays()
    alphas = content["alphas_F"].reshape(content["R"].shape)
    x, a = [], []
    for at, push in zip(content["R"].tolist(), alphas.tolist(), strict=True):
        for i, j in zip(*np.tril_indices(N, -1), strict=True):
            d = [p - q for p, q in zip(at[i], at[j], strict=True)]
            v = [q - p for p, q in zip(push[i], push[j], strict=True)]
            inverse = 1.0 / math.sqrt(d[0] * d[0] + d[1] * d[1] + d[2] * d[2])
            along = v[0] * d[0] + v[1] * d[1] + v[2] * d[2]
            x.append(inverse)
            a.append(along * inverse * inverse * inverse)
    found = parse_parameters(content, "here")
    assert found.x.ravel().tolist() == x
    assert found.a.ravel().tolist() == a


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fragments", np.array([0, 0, 0, 2, 2, 2]), "not numbered from 0"),
        ("fragments", np.array([0, 0, 1]), "fragments has shape"),
        ("block_weights", np.array([[0.2, 1.0], [0.5, 0.2]]), "symmetric"),
        ("block_weights", np.zeros((2, 2)), "symmetric"),
        ("block_weights", np.eye(3), "block_weights has shape"),
        ("reach", np.array([1.0, 0.5, 2.5, 4.5]), "four rising lengths"),
        ("R", np.zeros((M, N, 3)), "at the same place"),
        ("R", np.zeros((M, N)), "R has shape"),
        ("alphas_F", np.zeros(3), "alphas_F has shape"),
        ("perms", np.array([[3, 4, 5, 0, 1, 2], [0, 1, 2, 3, 4, 5]]), None),
    ],
)
def test_a_wrong_file_is_refused(key: str, value: np.ndarray, message: str | None) -> None:
    broken = arrays() | {key: value}
    if message is None:  # exchange, with weights that are not alike
        broken["block_weights"] = np.array(WEIGHTS[2])
        with pytest.raises(ModelFileError, match="different weights"):
            SGDMLModel(parse_parameters(broken, "here"), NativeUnits(1.0, 1.0))
        return
    with pytest.raises(ModelFileError, match=message):
        parse_parameters(broken, "here")


def test_sgdml_refuses_it() -> None:
    predict = pytest.importorskip("sgdml.predict")
    with pytest.raises((SystemExit, AssertionError, KeyError)):
        predict.GDMLPredict(arrays(), max_processes=1)


def test_a_binding_in_the_place_of_the_full_model_is_refused(tmp_path):
    directory = shutil.copytree(MODELS / "methane_dimer", tmp_path / "m")
    shutil.copy(directory / "binding.npz", directory / "full.npz")
    with pytest.raises(ManifestError, match="the full model is a binding model"):
        CompositeModel.load(directory)


def test_a_binding_without_the_prior_that_it_was_trained_on_is_refused(tmp_path):
    """Served alone, it is off by the whole of the wall: 0.4 eV of H2O@benzene."""
    directory = shutil.copytree(MODELS / "methane_dimer", tmp_path / "m")
    manifest = directory / "model.yaml"
    content = yaml.safe_load(manifest.read_text())
    del content["prior"]
    manifest.write_text(yaml.safe_dump(content))
    with pytest.raises(ManifestError, match="trained on what a prior leaves") as caught:
        CompositeModel.load(directory)
    assert str(caught.value).startswith(str(manifest))
