"""Langevin dynamics in batches: its temperature, its independence, and how it goes back."""

import numpy as np
import pytest

from deltaserver import CompositeModel
from deltaserver.improve.doubt import Doubt, Look
from deltaserver.improve.dynamics import MOST_RETURNS, Limits, Runs
from deltaserver.improve.settings import Dynamics
from deltaserver.units import KB_EV_PER_K
from tests.training.labelled import water_dimer

FREE = Limits(np.inf, np.inf, 100.0)


@pytest.fixture(scope="module")
def doubt(first):
    return Doubt(CompositeModel.load(first / "models"))


def starts(n):
    return water_dimer(160).positions[:n]


def test_the_mean_kinetic_energy_is_that_of_the_temperature(doubt):
    """½ Σ m v² has the mean 3/2 N k T: velocities are sampled, whatever the forces are."""
    plan = Dynamics((300.0,), runs=24, steps=20, time_step=0.5, friction=0.05)
    runs = Runs(doubt, plan, FREE, (1,))
    x = starts(24)
    v = np.zeros_like(x)
    forces, energies = runs._forces(x), []
    for k in range(400):
        x, v, forces = runs._step(x, v, forces)
        if k >= 150:
            energies.append(0.5 * (runs._mass * v**2).sum(axis=(1, 2)))
    mean = np.mean(energies)
    expected = 1.5 * 6 * KB_EV_PER_K * 300.0
    assert mean == pytest.approx(expected, rel=0.1)


def test_the_same_seed_gives_the_same_and_another_does_not(doubt):
    plan = Dynamics((100.0, 300.0), runs=3, steps=40)
    one, same, other = (
        Runs(doubt, plan, FREE, seed).run(starts(3)).arrays() for seed in ((1, 2), (1, 2), (1, 3))
    )
    np.testing.assert_array_equal(one["positions"], same["positions"])
    assert np.abs(one["positions"] - other["positions"]).max() > 1e-3
    assert one["temperature"].tolist() == [100.0, 300.0, 100.0] * 2


def test_runs_that_are_not_sure_go_back(doubt):
    """With a limit that nothing is below, every look sends a run back to where it began."""
    plan = Dynamics((300.0,), runs=2, steps=400)
    none = Limits(-1.0, np.inf, 100.0)
    seen = Runs(doubt, plan, none, (1,)).run(starts(2))
    assert seen.returns == [MOST_RETURNS + 1] * 2
    assert len(seen.positions) == 2 * (MOST_RETURNS + 1)
    assert not any(seen.sure)
    moved = np.abs(np.array(seen.positions)[::2] - starts(2)[0]).max(axis=(1, 2))
    assert (moved < 1.0).all()  # ten steps of 0.5 fs from the start, each time anew
    gone = Runs(doubt, plan, none, (1,), returning=False).run(starts(2))
    assert gone.returns == [0, 0]
    assert len(gone.positions) == 2 * 20


def test_a_torn_run_is_lost_and_the_others_go_on(doubt):
    plan = Dynamics((100.0,), runs=3, steps=60)
    x = starts(3)
    x[1, 1] = x[1, 0] + 0.05  # no molecule
    seen = Runs(doubt, plan, FREE, (1,), returning=False).run(x)
    assert seen.lost == [False, True, False]
    assert seen.run.count(0) == seen.run.count(2) == 3
    assert np.isfinite(np.array(seen.positions)).all()


def test_the_wall_pulls_fragments_together_and_moves_nothing_else(doubt):
    plan = Dynamics((100.0,), runs=1)
    runs = Runs(doubt, plan, Limits(1.0, 1.0, 2.0), (1,))
    x = starts(1)[0]
    force = runs._wall(x)
    np.testing.assert_allclose(force.sum(axis=0), 0.0, atol=1e-12)
    torque = np.cross(x, force).sum(axis=0)
    np.testing.assert_allclose(torque, 0.0, atol=1e-10)
    towards = x[3:].mean(axis=0) - x[:3].mean(axis=0)
    assert force[:3].sum(axis=0) @ towards > 0.0
    assert not Runs(doubt, plan, FREE, (1,))._wall(x).any()


def test_what_is_sure():
    limits = Limits(1.5, 0.1, 5.0)
    look = Look(np.array([1.0, 1.0, 2.0, 1.0]), np.array([0.05, 0.2, 0.05, np.nan]))
    assert limits.sure(look).tolist() == [True, False, False, True]
