"""Small random models, valid in every respect, and the directories that hold them."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from deltaserver.model.groups import fourier

WATER = np.array([8, 1, 1])
WATER_PERMS = np.array([[0, 1, 2], [0, 2, 1]])
AMMONIA = np.array([7, 1, 1, 1])
AMMONIA_PERMS = np.array([[0, *(1 + np.array(p))] for p in itertools.permutations(range(3))])
# The complex mixes its fragments' atoms, out of order, so that an index mistake shows.
WATER_ATOMS = np.array([5, 1, 3])
AMMONIA_ATOMS = np.array([0, 6, 2, 4])
COMPLEX = np.zeros(7, dtype=int)
COMPLEX[WATER_ATOMS], COMPLEX[AMMONIA_ATOMS] = WATER, AMMONIA
TRICLINIC = np.array([[6.1, 1.7, -0.9], [0.4, 5.3, 1.1], [-0.6, 0.2, 6.7]])  # vectors in columns


def geometry(n_atoms: int, seed: int = 0) -> np.ndarray:
    """Atoms on a jittered grid: no two closer than about 0.7 Å."""
    grid = np.array(list(itertools.product(range(3), repeat=3)), dtype=float)[:n_atoms]
    return 1.3 * grid + np.random.default_rng(seed).uniform(-0.3, 0.3, (n_atoms, 3))


def shaken(base: np.ndarray, n: int, seed: int, amplitude: float = 0.08) -> np.ndarray:
    return base + np.random.default_rng(seed).normal(0.0, amplitude, (n, *base.shape))


def inverse_distances(positions: np.ndarray, lattice: np.ndarray | None = None) -> np.ndarray:
    """1/|r_i − r_j|, i > j, pair by pair, nearest image found by trying all 27 neighbours."""
    shifts = [np.zeros(3)]
    if lattice is not None:
        shifts = [lattice @ np.array(n) for n in itertools.product((-1, 0, 1), repeat=3)]
    i, j = np.tril_indices(positions.shape[-2], -1)
    return 1.0 / min_norm(positions[..., i, :] - positions[..., j, :], shifts)


def min_norm(d: np.ndarray, shifts: list[np.ndarray]) -> np.ndarray:
    nearest = np.full(d.shape[:-1], np.inf)
    for shift in shifts:
        np.minimum(nearest, np.linalg.norm(d + shift, axis=-1), out=nearest)
    return nearest


def sgdml_model(
    numbers: np.ndarray,
    *,
    seed: int = 0,
    n_train: int = 5,
    perms: np.ndarray | None = None,
    lattice: np.ndarray | None = None,
    energy_constraints: bool = False,
    **overrides: Any,
) -> dict[str, Any]:
    """The dictionary of an sGDML model with random coefficients.

    An override of ``None`` removes the key.
    """
    rng = np.random.default_rng(seed + 100)
    n_atoms = len(numbers)
    x = inverse_distances(shaken(geometry(n_atoms, seed), n_train, seed), lattice)
    model: dict[str, Any] = {
        "type": "m",
        "code_version": "1.0.3",
        "z": np.asarray(numbers, dtype=np.uint8),
        "R_desc": x.T,
        "R_d_desc_alpha": rng.normal(size=x.shape),
        "c": np.float64(-3.25),
        "std": np.float64(1.7),
        "sig": np.float64(2.5),
        "perms": np.arange(n_atoms)[None] if perms is None else perms,
        "r_unit": "Ang",
        "e_unit": "kcal/mol",
    }
    if lattice is not None:
        model["lattice"] = lattice
    if energy_constraints:
        model["alphas_E"] = rng.normal(size=n_train)
    model.update(overrides)
    return {key: value for key, value in model.items() if value is not None}


def old_style(model: dict[str, Any]) -> dict[str, Any]:
    """The same model as sgdml 0.2 wrote it: ``type`` in bytes, no units, pickled errors."""
    old = {k: v for k, v in model.items() if k not in ("r_unit", "e_unit", "alphas_F")}
    return old | {
        "type": np.array(b"m"),
        "f_err": np.array({"mae": 0.1, "rmse": 0.2}, dtype=object),
        "e_err": np.array({"mae": 0.1, "rmse": 0.2}, dtype=object),
    }


def sgdml_predictor(model: dict[str, Any]) -> Any:
    """sgdml's own predictor on the dictionary, with the pair permutations sgdml itself makes."""
    from sgdml.predict import GDMLPredict
    from sgdml.utils.desc import Desc

    tril = np.array([Desc.perm(p) for p in model["perms"]])
    offsets = np.arange(len(tril))[:, None] * tril.shape[1]
    full = model | {"tril_perms_lin": (tril + offsets).flatten("F")}
    return GDMLPredict(full, max_processes=1)


def write_model(path: Path, model: dict[str, Any]) -> Path:
    np.savez_compressed(path, **model)
    return path


def water_model(**overrides: Any) -> dict[str, Any]:
    return sgdml_model(WATER, seed=1, perms=WATER_PERMS, **overrides)


def ammonia_model(**overrides: Any) -> dict[str, Any]:
    perms = {"perms": overrides.pop("perms", AMMONIA_PERMS)}
    model = sgdml_model(AMMONIA, seed=2, **overrides) | perms
    return {key: value for key, value in model.items() if value is not None}


def binding_model(**overrides: Any) -> dict[str, Any]:
    return sgdml_model(COMPLEX, seed=3, **overrides)


def manifest() -> dict[str, Any]:
    return {
        "format": "deltaserver-model/1",
        "name": "water-ammonia",
        "reference": "random numbers",
        "fragments": [
            {"name": "water", "atoms": "5,1,3", "model": "water.npz"},
            {"name": "ammonia", "atoms": "0,6,2,4", "model": "ammonia.npz"},
        ],
        "binding": {"model": "binding.npz"},
        "full": {"model": "full.npz"},
    }


def write_directory(directory: Path, text: str | dict[str, Any] | None = None) -> Path:
    """A model directory of three models and a manifest; ``text`` replaces the manifest."""
    directory.mkdir(exist_ok=True)
    write_model(directory / "water.npz", water_model())
    write_model(directory / "ammonia.npz", ammonia_model())
    write_model(directory / "binding.npz", binding_model())
    write_model(directory / "full.npz", sgdml_model(COMPLEX, seed=4))
    content = manifest() if text is None else text
    if not isinstance(content, str):
        content = yaml.safe_dump(content, sort_keys=False)
    (directory / "model.yaml").write_text(content, encoding="utf-8")
    return directory


def numerical_gradient(energy: Any, x: np.ndarray, step: float = 1e-4) -> np.ndarray:
    """Fourth-order central differences of a scalar function of an array."""
    result = np.empty_like(x)
    for index in np.ndindex(x.shape):
        e = np.zeros_like(x)
        e[index] = step
        near, far = energy(x + e) - energy(x - e), energy(x + 2 * e) - energy(x - 2 * e)
        result[index] = (8.0 * near - far) / (12.0 * step)
    return result


def rotation(seed: int = 0) -> np.ndarray:
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q *= np.sign(np.diag(r))
    return q * np.linalg.det(q)


def remember_representations(set_attribute: Callable[[object, str, object], None]) -> None:
    """Have the irreducible representations of a group found once a process."""
    find, known = fourier.irreducible_representations, {}

    def remembered(group):
        name = hashlib.blake2b(group.table.tobytes()).digest()
        if name not in known:
            known[name] = find(group)
        return known[name]

    set_attribute(fourier, "irreducible_representations", remembered)
