"""Linear expansions in distances: identities, and files that hold them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from deltaserver.compute import jit
from deltaserver.errors import ModelFileError
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.files.parameters import LINEAR, WEIGHTED, ModelParameters, parse_parameters
from deltaserver.model.fragment_blocks import FragmentBlocks, Reach
from deltaserver.model.linear.embedding import Densities, Embedding
from deltaserver.model.linear.expansion import Expansion, Together
from deltaserver.model.linear.radials import Radials
from deltaserver.model.linear.sites import SitePairs, Sites
from deltaserver.model.linear.valence import LIMIT, Valence, held
from deltaserver.model.sgdml import NativeUnits, SGDMLModel
from tests.model.linear.builders import products
from tests.tolerances import rounding

N = 6
FRAGMENT = np.array([0, 0, 0, 1, 1, 1])
CELL = np.array([[14.0, 1.0, 0.0], [0.0, 13.0, -1.0], [0.5, 0.0, 15.0]])
H = 1e-5  # Å, of finite differences


def positions(n: int = 3, seed: int = 0, apart: float = 3.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, N, 3)) * 0.12
    x[:, :3] += np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    x[:, 3:] += np.array([[0, 0, 0], [0, 0, 1], [1, 0, 1]]) + np.array([0, 0.3, apart])
    return x


def valence(compiled: bool = jit.AVAILABLE) -> Valence:
    """Every distance of the first molecule, every product of two and three of them."""
    rng = np.random.default_rng(1)
    pairs = np.array([[1, 0], [2, 0], [2, 1]])
    couplings = np.array([[1, 0], [2, 0], [2, 1]])
    triples = np.array([[1, 0, 0], [2, 1, 0], [2, 2, 1]])
    return Valence(
        pairs, np.array([1.0, 1.0, 1.4]), np.array([0.05, 0.07, 0.1]), rng.normal(size=(3, 4)),
        couplings, rng.normal(size=3), triples, rng.normal(size=3), rng.uniform(0.5, 1.0, 3), N,
        compiled,
    )  # fmt: skip


def site_pairs(compiled: bool = jit.AVAILABLE) -> SitePairs:
    """Atoms, and the middle of each molecule, of two classes that both fragments share."""
    members = np.array([0, 1, 2, 0, 1, 2, 3, 4, 5, 3, 4, 5])
    starts = np.array([0, 1, 2, 3, 6, 7, 8, 9, 12])
    kind = np.array([0, 0, 0, 1, 0, 0, 0, 1])
    sites = Sites(members, starts, np.repeat([0, 1], 4), kind, N)
    radials = Radials((1.3, 2.6, 3.0), ((1, 0.0), (6, 1.5)))  # one a multiple
    table = np.random.default_rng(2).normal(size=(5, 2, 2))
    return SitePairs(sites, radials, table + table.transpose(0, 2, 1), compiled)


def embedding(compiled: bool = jit.AVAILABLE) -> Embedding:
    """Two groups of neighbours and two decays; bonds at the first atom, products of like atoms."""
    rng = np.random.default_rng(6)
    stretches = np.array([[0, 0, 1], [0, 0, 2], [3, 3, 4], [3, 3, 5], [1, 0, 2], [4, 4, 5]])
    products = np.array([[0, 0], [3, 3], [1, 2], [4, 5], [0, 1]])
    quadratic = rng.normal(size=(3, 4, 4))
    return Embedding(
        Densities(FRAGMENT, np.array([0, 1, 1, 0, 1, 1]), (0.9, 1.7)),
        stretches, np.array([0, 0, 0, 0, 1, 2]), np.array([0.9, 1.4, 1.5]),
        rng.normal(size=(3, 4)), products, np.array([0, 0, 1, 1, 2]),
        quadratic + quadratic.transpose(0, 2, 1), compiled,
    )  # fmt: skip


def together() -> Together:
    return Together((site_pairs(), embedding(), products()))


def model(linear: Expansion, reach: Reach | None = None) -> SGDMLModel:
    return SGDMLModel(parameters(linear, reach), NativeUnits(1.0, 1.0))


def parameters(linear: Expansion, reach: Reach | None = None) -> ModelParameters:
    x, pairs = positions(7, seed=9), PairDescriptor(N)
    geometry = pairs.geometry(x)
    a = pairs.project(geometry, np.random.default_rng(3).normal(size=x.shape))
    blocks = None
    if not isinstance(linear, Valence):
        blocks = FragmentBlocks(FRAGMENT, np.array([[0.2, 1.0], [1.0, 0.2]]), reach)
    return ModelParameters(
        np.array([8, 1, 1, 8, 1, 1]), geometry.descriptor, a, np.arange(N)[None], 0.9, c=0.4,
        std=1.7, blocks=blocks, linear=linear,
    )  # fmt: skip


EXPANSIONS = [valence, site_pairs, embedding, products, together]
MODELS = [
    lambda: model(valence()),
    lambda: model(site_pairs()),
    lambda: model(site_pairs(), Reach((0.5, 1.0), (2.5, 4.5))),
    lambda: model(together(), Reach((0.5, 1.0), (2.5, 4.5))),
]


@pytest.mark.parametrize("make", EXPANSIONS)
def test_forces_and_virial_are_derivatives(make):
    expansion, x = make(), positions(1)
    _, forces, virial = expansion.evaluate(x)
    scale = np.abs(forces).max()
    # Of a central difference: h² of the third derivative, and rounding over h.
    np.testing.assert_allclose(forces[0], slope(expansion, x[0]), rtol=0, atol=2e-6 * scale)
    for a in range(3):
        for b in range(3):
            strain = np.eye(3)
            strain[a, b] += H
            up = expansion.evaluate(x @ strain)[0][0]
            strain[a, b] -= 2 * H
            down = expansion.evaluate(x @ strain)[0][0]
            assert virial[0, a, b] == pytest.approx(-(up - down) / (2 * H), abs=5e-6 * scale)


def slope(expansion, x: np.ndarray) -> np.ndarray:
    forces = np.zeros_like(x)
    for index in np.ndindex(x.shape):
        moved = np.stack([x, x])
        moved[0][index] += H
        moved[1][index] -= H
        up, down = expansion.evaluate(moved)[0]
        forces[index] = -(up - down) / (2 * H)
    return forces


@pytest.mark.parametrize("apart", [1.4, 3.0, 3.9])
@pytest.mark.parametrize("make", MODELS)
def test_a_model_that_stands_on_one_conserves_energy(make, apart):
    """Where it rises, counts and fades: E and F are one function's."""
    m, x = make(), positions(1, seed=4, apart=apart)
    found = m.evaluate(x)
    expected = slope(_Energies(m), x[0])
    scale = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found.forces[0], expected, rtol=0, atol=3e-6 * scale)


class _Energies:
    def __init__(self, m: SGDMLModel) -> None:
        self.m = m

    def evaluate(self, x):
        return (self.m.evaluate(x).energy,)


@pytest.mark.parametrize("make", [valence, site_pairs, embedding])
@pytest.mark.parametrize("cell", [None, CELL])
def test_loops_and_numpy_agree(make, cell):
    if not jit.AVAILABLE:
        pytest.skip("numba is not installed")
    x = positions(5)
    found, expected = (make(compiled).evaluate(x, cell) for compiled in (True, False))
    for one, other in zip(found, expected, strict=True):
        # Some hundred terms, in two orders.
        np.testing.assert_allclose(
            one, other, rtol=0, atol=10 * rounding(200) * np.abs(other).max()
        )


@pytest.mark.parametrize("make", EXPANSIONS)
def test_images_of_a_cell_change_nothing(make):
    """Atoms on the other side of the cell, and a molecule as a whole: as without a cell."""
    expansion, x = make(), positions(4)
    moved = x.copy()
    moved[:, 1] += CELL @ [1, 0, -1]
    moved[:, 3:] -= CELL @ [0, 1, 0]
    for one, other in zip(expansion.evaluate(moved, CELL), expansion.evaluate(x), strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-11 * np.abs(other).max())


def test_sites_of_exchanged_alike_fragments():
    x = positions(3)
    swapped = np.concatenate([x[:, 3:], x[:, :3]], axis=1)
    energy, forces, _ = site_pairs().evaluate(x)
    other, others, _ = site_pairs().evaluate(swapped)
    np.testing.assert_allclose(energy, other, rtol=1e-12)
    np.testing.assert_allclose(forces[:, :3], others[:, 3:], rtol=0, atol=1e-12)


def test_an_embedding_is_the_sum_written_out():
    e, x = embedding(), positions(1)[0]
    rho = np.zeros((N, 4))
    for a in range(N):
        for b in range(N):
            if FRAGMENT[a] != FRAGMENT[b]:
                r = np.linalg.norm(x[a] - x[b])
                group = e.densities.group[b]
                rho[a, 2 * group : 2 * group + 2] += np.exp(-np.array([0.9, 1.7]) * r)
    expected = 0.0
    for (a, i, j), k in zip(e.stretches, e.of_stretch, strict=True):
        expected += e.linear[k] @ rho[a] * (np.linalg.norm(x[i] - x[j]) - e.mean[k])
    for (a, b), k in zip(e.products, e.of_product, strict=True):
        expected += rho[a] @ e.quadratic[k] @ rho[b]
    assert e.evaluate(x[None])[0][0] == pytest.approx(expected, rel=1e-12)


def test_nothing_is_felt_from_afar():
    for values in embedding().evaluate(positions(1, apart=60.0)):
        assert np.abs(values).max() < 1e-20


def test_a_site_hands_its_force_to_its_atoms_in_equal_parts():
    members, starts = np.array([0, 1, 2, 3]), np.array([0, 3, 4])
    sites = Sites(members, starts, np.array([0, 1]), np.array([0, 1]), N)
    table = np.zeros((1, 2, 2))
    table[0, 0, 1] = table[0, 1, 0] = 1.0
    x = positions(1)
    _, forces, _ = SitePairs(sites, Radials((), ((1, 0.0),)), table).evaluate(x)
    d = x[0, 3] - x[0, :3].mean(axis=0)
    expected = -d / np.linalg.norm(d) ** 3  # of −1/r on atom 3
    np.testing.assert_allclose(forces[0, 3], expected, rtol=1e-12)
    np.testing.assert_allclose(forces[0, :3], -np.tile(expected, (3, 1)) / 3, rtol=1e-12)


def test_beyond_its_limit_a_distance_is_held():
    z = np.array([0.0, LIMIT, LIMIT + 1e-3, -LIMIT - 0.5, 50.0])
    value, bent = held(z)
    np.testing.assert_allclose(value[:2], z[:2])
    assert value[2] == pytest.approx(z[2], abs=1e-9)  # third order
    assert value[3] == pytest.approx(-LIMIT - np.tanh(0.5))
    assert value[4] == pytest.approx(LIMIT + 1.0)
    assert bent[-1] == pytest.approx(0.0, abs=1e-12)
    far = np.array([1.0, 30.0, 60.0])[:, None, None] * positions(1)
    free = replace(valence(), springs=np.zeros(3)).evaluate(far)
    assert np.abs(free[0][2] - free[0][1]) < 1e-9 * abs(free[0][1])  # flat
    assert np.abs(free[1][2]).max() < 1e-9


def test_beyond_its_limit_springs_pull_a_distance_back():
    made = valence()
    loose = replace(made, springs=np.zeros(3))
    x = positions(1)
    for one, other in zip(made.evaluate(x), loose.evaluate(x), strict=True):
        np.testing.assert_array_equal(one, other)  # within, springs say nothing
    x[0, 1] += (made.mean[0] + 20 * made.width[0] - 1.0) * np.array([1.0, 0.0, 0.0])
    energy, forces, _ = (a - b for a, b in zip(made.evaluate(x), loose.evaluate(x), strict=True))
    i, j = made.pairs.T
    z = (np.linalg.norm(x[0, i] - x[0, j], axis=1) - made.mean) / made.width
    beyond = np.abs(z) > LIMIT
    assert beyond.any()
    expected = (0.5 * made.springs * (z**2 - held(z)[0] ** 2))[beyond].sum()
    assert energy[0] == pytest.approx(expected, rel=1e-9)
    assert forces[0, 1, 0] < 0.0  # back
    # All of it is still one function's.
    whole = made.evaluate(x)[1]
    scale = np.abs(whole).max()
    np.testing.assert_allclose(whole[0], slope(made, x[0]), rtol=0, atol=1e-5 * scale)


def arrays(linear: Expansion) -> dict[str, object]:
    p, x = parameters(linear, Reach((0.5, 1.0), (2.5, 4.5))), positions(7, seed=9)
    known: dict[str, object] = {
        "type": LINEAR, "z": p.numbers, "c": p.c, "std": p.std, "sig": p.sigma, "perms": p.perms,
        "R": x, "alphas_F": np.random.default_rng(3).normal(size=x.shape),
        **linear.arrays(),
    }  # fmt: skip
    if not isinstance(linear, Valence):
        known |= {"type": WEIGHTED, "fragments": FRAGMENT}
        known |= {"block_weights": [[0.2, 1.0], [1.0, 0.2]], "reach": [0.5, 1.0, 2.5, 4.5]}
    return known


@pytest.mark.parametrize("make", EXPANSIONS)
def test_what_a_file_holds_is_what_was_written(make):
    read = parse_parameters(arrays(make()), "test")
    expected = parameters(make(), Reach((0.5, 1.0), (2.5, 4.5)))
    x = positions(3, seed=5)
    one, other = (SGDMLModel(p, NativeUnits(1.0, 1.0)).evaluate(x) for p in (read, expected))
    np.testing.assert_allclose(one.energy, other.energy, rtol=1e-12)
    np.testing.assert_allclose(one.forces, other.forces, rtol=0, atol=1e-10)


def test_a_file_of_before_there_were_springs_has_none():
    old = {key: value for key, value in arrays(valence()).items() if key != "valence_springs"}
    linear = parse_parameters(old, "test").linear
    assert isinstance(linear, Valence)
    assert not linear.springs.any()


N_CLASSES = products().coupling.shape[1]
UNEQUAL = np.arange(4.0 * N_CLASSES).reshape(2, 2, N_CLASSES)
WRONG = [
    (valence, {"valence_pairs": [[1, 0], [2, 0], [6, 1]]}, "counts to 6; expected 0 to 5"),
    (valence, {"valence_pairs": [[1, 0], [2, 0], [1, 1]]}, "distance to itself"),
    (valence, {"valence_width": [1.0, 0.0, 1.0]}, "not positive"),
    (valence, {"valence_springs": [1.0, -1.0, 1.0]}, "negative"),
    (valence, {"valence_springs": [1.0]}, "expected \\(3,\\)"),
    (valence, {"valence_triples": [[0, 1, 3]], "valence_cubic": [1.0]}, "valence_triples counts"),
    (valence, {"valence_cubic": [1.0]}, "expected \\(3,\\)"),
    (valence, {"valence_mean": None}, "lacks valence_mean"),
    (valence, {"valence_powers": np.full((3, 4), np.nan)}, "not finite"),
    (site_pairs, {"site_members": np.arange(12)}, "site_members counts to 11"),
    (site_pairs, {"site_starts": [0, 1, 2, 3, 6, 7, 8, 9, 11]}, "does not cut up"),
    (site_pairs, {"site_kinds": [0, 0, 0, 2, 0, 0, 0, 2]}, "numbered from 0"),
    (site_pairs, {"site_decays": [1.3, -2.5]}, "not positive"),
    (site_pairs, {"site_powers": [[1.5, 0.0], [6, 1.5]]}, "no power"),
    (site_pairs, {"site_coefficients": np.arange(20.0).reshape(5, 2, 2)}, "not symmetric"),
    (site_pairs, {"site_members": [0, 1, 2, 0, 1, 3, 3, 4, 5, 3, 4, 5]}, "of two fragments"),
    (embedding, {"embedding_groups": [0, 1, 1, 0, 1, 6]}, "embedding_groups counts to 6"),
    (embedding, {"embedding_decays": [0.9, 0.0]}, "not positive, or none"),
    (embedding, {"embedding_decays": np.ones(51)}, "102 densities of an atom"),
    (embedding, {"embedding_mean": None}, "lacks embedding_mean"),
    (embedding, {"embedding_linear": np.ones((3, 3))}, "expected \\(3, 4\\)"),
    (embedding, {"embedding_quadratic": np.arange(48.0).reshape(3, 4, 4)}, "not symmetric in the"),
    (embedding, {"embedding_stretches": [[0, 1, 1, 0]]}, "distance to itself"),
    (embedding, {"embedding_stretches": [[0, 0, 4, 0]]}, "atoms of two fragments together"),
    (embedding, {"embedding_products": [[0, 0, 3]]}, "counts to 3; expected 0 to 2"),
    (embedding, {"embedding_products": [[0, 0]]}, "expected \\(1, 3\\)"),
    (products, {"product_perms": [[0, 1, 2, 3, 4, 4]]}, "no permutation"),
    (products, {"product_perms": [[3, 1, 2, 0, 4, 5]]}, "tears a fragment apart"),
    (products, {"product_perms": [[0, 1, 2, 3, 4, 5]]}, "classes; its permutations make 225"),
    (products, {"product_decays": [0.8, -1.6]}, "not positive, or not 1 to 8"),
    (products, {"product_mean": np.zeros(5)}, "expected \\(6,\\)"),
    (products, {"product_coupling": None}, "lacks product_coupling"),
    (
        products,
        {"product_quadratic": UNEQUAL},
        "not symmetric in the distances",
    ),
]


@pytest.mark.parametrize(("make", "change", "message"), WRONG)
def test_unsound_files_are_refused(make, change, message):
    known = arrays(make()) | change
    known = {key: value for key, value in known.items() if value is not None}
    with pytest.raises(ModelFileError, match=message):
        parse_parameters(known, "test")


def test_torch_agrees():
    torch_engine = pytest.importorskip("deltaserver.model.engines.torch_engine")
    for linear in (valence(), together()):
        p = parameters(linear, Reach((0.5, 1.0), (2.5, 4.5)))
        x = np.concatenate([positions(2, seed=4, apart=a) for a in (1.4, 3.0, 3.9)])
        found = SGDMLModel(p, NativeUnits(1.0, 1.0), torch_engine.TorchEngine(p, "cpu")).evaluate(x)
        expected = SGDMLModel(p, NativeUnits(1.0, 1.0)).evaluate(x)
        for name in ("energy", "forces", "virial"):
            one, other = getattr(found, name), getattr(expected, name)
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-10 * np.abs(other).max())


def test_sgdml_is_told_that_it_cannot():
    reference = pytest.importorskip("deltaserver.model.engines.reference")
    with pytest.raises(ModelFileError, match="linear expansion"):
        reference.ReferenceEngine(parameters(valence()))


def test_the_fingerprint_knows_it():
    from deltaserver import CompositeModel
    from deltaserver.model.composite import Fragment

    prints = set()
    for scale in (1.0, 2.0):
        linear = replace(valence(), products=scale * valence().products)
        fragment = Fragment("all", np.arange(N), model(linear))
        prints.add(CompositeModel((fragment,), None).fingerprint())
    assert len(prints) == 2
