from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest

from deltaserver.model.sgdml import SGDMLModel
from deltaserver.training.iterative import checkpoint, conjugate, system
from deltaserver.training.iterative.conjugate import Bounds, Problem, State, begin, solve
from deltaserver.training.iterative.plan import Columns
from deltaserver.training.matrix.solver import UnsolvableError
from deltaserver.training.native import write_model
from deltaserver.training.trainer import train_one
from tests.training.test_trainer import SIGMA, request_for


def iterative(request, **changes):
    return replace(request, solver="iterative", **changes)


def forces(tmp_path, trained, positions):
    path = tmp_path / f"{time.monotonic_ns()}.npz"
    write_model(path, trained.native)
    return SGDMLModel.load(path).evaluate(positions)


@pytest.mark.parametrize(("name", "mode"), [("binding", "product"), ("full", "none")])
def test_the_model_is_the_exact_one(tmp_path, name, mode):
    request = request_for(name, mode, 30)
    unseen = request.data.positions[30:80]
    exact = forces(tmp_path, train_one(request, SIGMA), unseen)
    trained = train_one(iterative(request), SIGMA)
    found = forces(tmp_path, trained, unseen)
    record = trained.native.record
    assert record["converged"]
    assert record["residual"] <= record["tolerance"]
    assert np.abs(found.forces - exact.forces).max() < 1e-6 * np.abs(exact.forces).max()
    assert np.abs(found.energy - exact.energy).max() < 1e-6 * np.ptp(exact.energy)


def test_the_file_says_how_it_was_solved(tmp_path):
    path = tmp_path / "model.npz"
    write_model(path, train_one(iterative(request_for("left")), SIGMA).native)
    with np.load(path, allow_pickle=False) as arrays:
        assert str(arrays["solver_name"]) == "cg"
        assert bool(arrays["converged"])
        assert float(arrays["solver_resid"]) <= float(arrays["solver_tol"])
        assert int(arrays["solver_iters"]) > 0


def test_what_has_not_converged_says_so(tmp_path):
    request = iterative(request_for("binding", n_train=30), bounds=Bounds(1e-9, 4))
    trained = train_one(request, SIGMA)
    record = trained.native.record
    assert record["converged"] is False
    assert record["residual"] > 1e-9
    assert record["products"] == 4
    assert any("not converged: the residual is" in note for note in record["notes"])
    path = tmp_path / "model.npz"
    write_model(path, trained.native)
    with np.load(path, allow_pickle=False) as arrays:
        assert not bool(arrays["converged"])


def test_what_is_worse_than_no_model_is_refused(monkeypatch):
    def astray(problem, state, bounds, each):
        state.v = 1e9 * problem.y

    monkeypatch.setattr(system, "solve", astray)
    request = iterative(request_for("binding", n_train=30))
    with pytest.raises(UnsolvableError, match=r"has diverged: after \d+ products the residual is"):
        train_one(request, SIGMA)


def dense(n=60, seed=0, least=1e-3):
    rng = np.random.default_rng(seed)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    matrix = (basis * np.geomspace(least, 1.0, n)) @ basis.T
    y = rng.normal(size=n)
    return matrix, y, Problem(y, lambda v: matrix @ v, lambda r: r, lambda v: 1.0)


def test_the_residual_that_is_reported_is_the_true_one():
    matrix, y, problem = dense()
    state = solve(problem, begin(problem), Bounds(1e-8, 1000))
    assert state.converged
    assert np.linalg.norm(y - matrix @ state.v) <= 1e-8 * np.linalg.norm(y)


def test_it_goes_on_until_the_validation_error_has_settled():
    _, _, problem = dense()
    errors = iter([1.0, 0.5, 0.4, 0.3, 0.2, 0.1, 0.09, 0.08, 0.07, 0.06, 0.05] + 500 * [0.049])
    restless = replace(problem, validate=lambda v: next(errors))
    early = solve(problem, begin(problem), Bounds(0.5, 1000))
    late = solve(restless, begin(problem), Bounds(0.5, 1000))
    assert early.converged
    assert late.converged
    assert late.products > early.products
    assert late.checks[-1][2] == pytest.approx(late.checks[-2][2], rel=conjugate.SETTLED)


def test_what_rounding_forbids_is_given_up(monkeypatch):
    monkeypatch.setattr(conjugate, "PATIENCE", 60)
    _, _, problem = dense(least=1e-14)
    state = solve(problem, begin(problem), Bounds(1e-17, 100000))
    assert not state.converged
    assert state.products < 100000
    assert np.isfinite(state.v).all()


def test_a_state_survives_the_disk(tmp_path):
    _, _, problem = dense()
    kept = checkpoint.Checkpoint(
        tmp_path / "state.npz", {"of": 1}, Columns(3, single=True), interval_s=0.0
    )
    straight = solve(problem, begin(problem), Bounds(1e-9, 40))
    solve(problem, begin(problem), Bounds(1e-9, 17), kept.keep)
    again = checkpoint.Checkpoint(tmp_path / "state.npz", {"of": 1}, Columns(99))
    state = again.read()
    assert again.columns == Columns(3, single=True)
    assert state.products == 17
    assert np.array_equal(solve(problem, state, Bounds(1e-9, 40)).v, straight.v)
    assert state.checks == straight.checks
    assert checkpoint.Checkpoint(tmp_path / "state.npz", {"of": 2}, Columns(3)).read() is None
    (tmp_path / "state.npz").write_bytes(b"PK\x03\x04 torn")
    assert again.read() is None


def test_a_solution_to_begin_with_needs_no_step():
    matrix, y, problem = dense()
    state = begin(problem, np.linalg.solve(matrix, y))
    assert isinstance(state, State)
    assert solve(problem, state, Bounds(1e-8, 1000)).products == 1
    assert state.converged


SLOW = """
    import sys, time
    from pathlib import Path
    from deltaserver.training.iterative import checkpoint, conjugate, system
    from deltaserver.training.iterative.conjugate import Bounds
    from deltaserver.training.sigmas import train
    from dataclasses import replace
    from tests.training.test_trainer import request_for

    pause = float(sys.argv[2])
    original = checkpoint.Checkpoint.keep
    def keep(self, state):
        if pause:  # to be killed: every state is kept
            self.interval_s = 0.0
        original(self, state)
        time.sleep(pause)
    checkpoint.Checkpoint.keep = keep
    request = replace(request_for("binding", n_train=12), solver="iterative",
                      bounds=Bounds(1e-9, 3000))
    train(request, Path(sys.argv[1]), (8.0,))
"""


def run(directory, pause):
    code = textwrap.dedent(SLOW)
    return subprocess.Popen([sys.executable, "-c", code, str(directory), str(pause)])


def test_killed_and_run_again_it_gives_the_same_model(tmp_path):
    killed = tmp_path / "killed"
    process = run(killed, 0.05)
    unfinished = killed / "unfinished-sigma-8.npz"
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        state = read_products(unfinished)
        if state >= 5:
            break
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert read_products(unfinished) >= 5
    assert not (killed / "sigma-8.npz").exists()
    assert run(killed, 0.0).wait() == 0
    assert not unfinished.exists()
    request = iterative(request_for("binding", n_train=12), bounds=Bounds(1e-9, 3000))
    straight = train_one(request, 8.0).native.arrays()
    with np.load(killed / "sigma-8.npz") as resumed:
        for key in ("alphas_F", "R_d_desc_alpha", "c", "std", "solver_iters"):
            assert np.array_equal(resumed[key], straight[key]), key


def read_products(path):
    import json

    try:
        with np.load(path, allow_pickle=False) as arrays:
            return json.loads(str(arrays["scalars"]))["products"]
    except (OSError, ValueError, KeyError):
        return 0
