"""Does energy stay what it is while pairs go through the ends of what binds them?"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import yaml

from deltaserver.model import force_field
from tests.model.many.builders import BENZENE_DIMER, benzenes
from tests.shipped import MODELS

MASS = np.tile([12.011, 1.008], 6)
FS = 0.0982269478  # in √(u Å²/eV)
K_EV = 8.617333e-5


def packed(n, apart, seed=0):
    """Benzenes on a cubic grid, turned at random."""
    rng = np.random.default_rng(seed)
    one = np.loadtxt(BENZENE_DIMER / "structure.xyz", skiprows=2, usecols=(1, 2, 3))[:12]
    one = one - one.mean(axis=0)
    side = int(np.ceil(n ** (1 / 3)))
    grid = apart * np.array(list(itertools.product(range(side), repeat=3)))
    turned = [one @ np.linalg.qr(rng.normal(size=(3, 3)))[0].T for _ in range(n)]
    return np.concatenate([x + at for x, at in zip(turned, grid[:n], strict=True)])


def trajectory(model, x, n_steps, timestep_fs, kelvin, seed=1):
    """Velocity Verlet; return total energies, eV, and all distances of centres, Å."""
    mass = np.tile(MASS, len(x) // 12)[:, None]
    v = np.random.default_rng(seed).normal(size=x.shape) * np.sqrt(K_EV * kelvin / mass)
    result, step = model.evaluate(x), timestep_fs * FS
    energies, distances = [], []
    for _ in range(n_steps):
        v = v + 0.5 * step * result.forces / mass
        x = x + step * v
        result = model.evaluate(x)
        v = v + 0.5 * step * result.forces / mass
        energies.append(float(result.energy) + 0.5 * float((mass * v * v).sum()))
        centres = x.reshape(-1, 12, 3).mean(axis=1)
        i, j = np.triu_indices(len(centres), k=1)
        distances.append(np.linalg.norm(centres[i] - centres[j], axis=1))
    return np.array(energies), np.array(distances)


def test_pairs_go_through_the_switch_and_energy_stays(tmp_path):
    """Verlet's error goes with the square of the step, unless the energy has a kink somewhere."""
    dimer = yaml.safe_load((BENZENE_DIMER / "model.yaml").read_text(encoding="utf-8"))
    bindings = [{"between": ["benzene"] * 2, "prior": dimer["prior"]}]
    model = force_field.load(benzenes(tmp_path, 4, bindings=bindings, cutoff=[6.3, 6.65]))
    x = packed(4, 6.6)
    coarse, distances = trajectory(model, x, 300, 0.5, 300.0)
    fine, _ = trajectory(model, x, 600, 0.25, 300.0)
    assert ((distances[:-1] < 6.65) != (distances[1:] < 6.65)).any()
    assert ((distances[:-1] < 6.3) != (distances[1:] < 6.3)).any()
    ratio = coarse.std() / fine.std()
    assert ratio == pytest.approx(4.0, rel=0.2)


@pytest.mark.slow
def test_a_cluster_of_eight_with_everything_conserves_its_energy(tmp_path):
    """Pairs, triples and all ends of them: less than 1e-5 eV/atom/ps over half a picosecond."""
    path = tmp_path / "eight"
    path.mkdir()
    for name in ("benzene.npz", "binding.npz", "model.yaml"):
        (path / name).write_bytes((MODELS / "benzenes" / name).read_bytes())
    data = yaml.safe_load((path / "model.yaml").read_text(encoding="utf-8"))
    data |= {"periodic": False, "cutoff": [8.0, 10.0]}
    data["species"][0]["count"] = 8
    (path / "model.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")
    energies, _ = trajectory(force_field.load(path), packed(8, 6.6), 1000, 0.5, 150.0)
    time_ps = 0.5e-3 * np.arange(len(energies))
    slope = np.polyfit(time_ps, energies, 1)[0]
    assert abs(slope) / 96 < 1e-5
