"""Directories of many molecules: random models of water, lone neon atoms, shipped benzene."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from deltaserver.textio.strict_yaml import dump_yaml
from tests.builders import WATER, sgdml_model, water_model, write_model
from tests.shipped import MODELS

BENZENE_DIMER = MODELS / "benzene_dimer"
FIVE_POINTS = {-2: 1.0 / 12.0, -1: -8.0 / 12.0, 1: 8.0 / 12.0, 2: -1.0 / 12.0}
CELL = np.array([[9.3, 1.4, -0.8], [0.0, 8.9, 1.1], [0.0, 0.0, 9.8]])  # vectors in columns, Å
WATER_PAIR_PERMS = np.array(
    [[*p, *(3 + q)] for p in ([0, 1, 2], [0, 2, 1]) for q in np.array([[0, 1, 2], [0, 2, 1]])]
)
WATER_PAIR_PERMS = np.concatenate([WATER_PAIR_PERMS, WATER_PAIR_PERMS[:, [3, 4, 5, 0, 1, 2]]])
PRIOR = {
    "classes": [
        {"name": "O1", "atoms": "0", "charge": -0.4},
        {"name": "H1", "atoms": "1,2", "charge": 0.2},
        {"name": "O2", "atoms": "3", "charge": -0.4},
        {"name": "H2", "atoms": "4,5", "charge": 0.2},
    ],
    "pairs": [
        {"between": ["O1", "O2"], "walls": [[3.0, 200.0]], "attractions": [[6, 2.0, 9.0]]},
        {"between": ["O1", "H2"], "walls": [[3.4, 30.0]], "attractions": [[6, 2.0, 2.0]]},
        {"between": ["H1", "O2"], "walls": [[3.4, 30.0]], "attractions": [[6, 2.0, 2.0]]},
        {"between": ["H1", "H2"], "attractions": [[8, 1.5, 4.0]]},
    ],
}
WITH_NEON = {
    "classes": [
        {"name": "O", "atoms": "0"},
        {"name": "H", "atoms": "1,2"},
        {"name": "Ne", "atoms": "3"},
    ],
    "pairs": [{"between": ["O", "Ne"], "walls": [[3.2, 90.0]], "attractions": [[6, 2.0, 7.0]]}],
}
THREE = {
    "radius": 1.5,
    "cutoff": [4.0, 5.5],
    "classes": [
        {"name": "O1", "atoms": "0"},
        {"name": "H1", "atoms": "1,2"},
        {"name": "O2", "atoms": "3"},
        {"name": "H2", "atoms": "4,5"},
        {"name": "O3", "atoms": "6"},
        {"name": "H3", "atoms": "7,8"},
    ],
    "triples": [
        {"between": ["O1", "O2", "O3"], "coefficient": 900.0},
        {"between": ["H1", "O2", "O3"], "coefficient": 150.0},
        {"between": ["O1", "H2", "O3"], "coefficient": 150.0},
        {"between": ["O1", "O2", "H3"], "coefficient": 150.0},
    ],
}
INDUCTION = {
    "radius": 0.8,
    "cutoff": [3.5, 5.0],
    "species": [
        {
            "name": "water",
            "charges": [-0.4, 0.2, 0.2],
            "flows": [
                {"between": [[0, 1], [0, 2]], "response": 0.05},
                {"between": [[1, 2]], "response": 0.02},
            ],
        },
    ],
}
OF_NEON = {"name": "neon", "charges": [0.3], "flows": []}  # which only acts on others
OF_BOTH = INDUCTION | {"species": [*INDUCTION["species"], OF_NEON]}


def manifest(n_water: int, n_neon: int, **changes: Any) -> dict[str, Any]:
    """Return a manifest with everything in it: learned and known pairs, triples, two species."""
    species = [{"name": "water", "model": "water.npz", "count": n_water}]
    if n_neon:
        species.append(
            {"name": "neon", "element": "Ne", "energy": -3.0, "energy_unit": "eV", "count": n_neon}
        )
    bindings = [
        {
            "between": ["water", "water"],
            "model": "pair.npz",
            "prior": PRIOR,
            "fade": [2.5, 4.0],
        },
        {"between": ["water", "water", "water"], "prior": THREE},
    ]
    if n_neon:
        bindings.append({"between": ["water", "neon"], "prior": WITH_NEON})
    return {
        "format": "deltaserver-model/1",
        "name": "wet neon",
        "reference": "random numbers",
        "species": species,
        "bindings": bindings,
        "periodic": True,
        "cutoff": [4.5, 6.0],
    } | changes


def directory(path: Path, data: dict[str, Any]) -> Path:
    """Write a model directory of water and neon."""
    path.mkdir(parents=True, exist_ok=True)
    write_model(path / "water.npz", water_model())
    pair = sgdml_model(np.tile(WATER, 2), seed=5, perms=WATER_PAIR_PERMS)
    write_model(path / "pair.npz", pair)
    write_manifest(path, data)
    return path


def write_manifest(path: Path, data: dict[str, Any]) -> None:
    (path / "model.yaml").write_text(dump_yaml(data), encoding="utf-8")


def positions(n_water: int, n_neon: int, cell: np.ndarray = CELL, seed: int = 0) -> np.ndarray:
    """Return molecules on a jittered grid in a cell, whole, in random orientations, (N, 3)."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(3)] * 3, indexing="ij"), -1).reshape(-1, 3) / 3.0
    places = (rng.permutation(grid)[: n_water + n_neon] + rng.uniform(0, 0.08, (1, 3))) @ cell.T
    water = np.array([[0.0, 0.0, 0.1], [0.76, 0.0, -0.5], [-0.76, 0.0, -0.5]])
    found = []
    for k, place in enumerate(places):
        turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
        own = water @ turn.T + rng.normal(0.0, 0.05, (3, 3)) if k < n_water else np.zeros((1, 3))
        found.append(place + own + rng.uniform(-0.2, 0.2, 3))
    return np.concatenate(found)


def benzenes(path: Path, count: int, **changes: Any) -> Path:
    """Write a directory of so many benzenes, of the shipped dimer's models."""
    path.mkdir(parents=True, exist_ok=True)
    for name in ("benzene1.npz", "binding.npz"):
        (path / name).write_bytes((BENZENE_DIMER / name).read_bytes())
    dimer = yaml.safe_load((BENZENE_DIMER / "model.yaml").read_text(encoding="utf-8"))
    data = {
        "format": "deltaserver-model/1",
        "name": "benzenes",
        "reference": "GFN2-xTB",
        "species": [{"name": "benzene", "model": "benzene1.npz", "count": count}],
        "bindings": [
            {"between": ["benzene"] * 2, "model": "binding.npz", "prior": dimer["prior"]},
        ],
    }
    write_manifest(path, data | changes)
    return path


def slope(energy, h=2e-4):
    """Return the slope of an energy at 0, by steps of ``h``."""
    return sum(weight * energy(k * h) for k, weight in FIVE_POINTS.items()) / h


def slope_along(model, x, component, h):
    """Return the slope of the energy along a direction, and what the forces say it is."""
    way = np.random.default_rng(1).normal(size=x.shape)
    way /= np.linalg.norm(way)
    found = slope(lambda step: model.evaluate(x + step * way, component, CELL).energy, h)
    return found, -(model.evaluate(x, component, CELL).forces * way).sum()


def slope_by_strain(model, x, a, b, h):
    """Return the slope of the energy by one component of the strain, and the virial."""

    def energy(step):
        strain = np.eye(3)
        strain[a, b] += step
        return model.evaluate(x @ strain.T, cell=strain @ CELL).energy

    return slope(energy, h), model.evaluate(x, cell=CELL).virial
