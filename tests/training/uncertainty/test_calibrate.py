"""The calibration: on frames whose errors are known by construction."""

import numpy as np
import pytest

from deltaserver.model.files.parameters import parse_parameters
from deltaserver.model.files.uncertainty import MAX_POINTS
from deltaserver.model.trust.novelty import TrainingDistance
from deltaserver.model.trust.uncertainty import PosteriorSpread, rms, uncertainty
from deltaserver.training.uncertainty.calibrate import ONE_SIGMA, Residuals, calibrate
from tests.builders import AMMONIA, AMMONIA_PERMS, geometry, sgdml_model, shaken


def parameters(n_train=40):
    raw = sgdml_model(AMMONIA, perms=AMMONIA_PERMS, n_train=n_train)
    return parse_parameters(raw, "test")


def made(known, n=400, p=1.3, q=0.6, seed=1):
    """Frames with normal errors of the spread 0.2 s^p F^q."""
    rng = np.random.default_rng(seed)
    distance = TrainingDistance.of(known)
    x = shaken(geometry(4), n, seed, amplitude=0.1)
    points = np.arange(len(known.x))
    nearest = np.linalg.norm(distance.points[:, None] - distance.points, axis=-1)
    np.fill_diagonal(nearest, np.inf)
    length = 10.0 * np.median(nearest.min(axis=1))
    s = PosteriorSpread(distance, points, float(length))(distance.features_of(x))
    forces = rng.normal(size=x.shape) * np.exp(rng.normal(size=n))[:, None, None]
    spread = 0.2 * s**p * rms(forces) ** q
    return Residuals(x, forces, spread[:, None, None] * rng.normal(size=x.shape)), spread


def test_known_exponents_are_found_again():
    known = parameters()
    found, spread = made(known)
    block = calibrate(known, found)
    assert block.spread_exponent == pytest.approx(1.3, abs=0.25)
    assert block.force_exponent == pytest.approx(0.6, abs=0.05)
    distance = TrainingDistance.of(known)
    s = PosteriorSpread(distance, block.points, block.length)(distance.features_of(found.positions))
    u = uncertainty(block, s, rms(found.forces))
    assert np.std(np.log(u / spread)) < 0.1
    covered = np.mean(np.abs(found.errors) <= u[:, None, None])
    assert covered == pytest.approx(ONE_SIGMA, abs=0.002)


def test_other_frames_are_covered_as_well():
    known = parameters()
    block = calibrate(known, made(known)[0])
    fresh, _ = made(known, seed=7)
    distance = TrainingDistance.of(known)
    s = PosteriorSpread(distance, block.points, block.length)(distance.features_of(fresh.positions))
    u = uncertainty(block, s, rms(fresh.forces))
    assert np.mean(np.abs(fresh.errors) <= u[:, None, None]) == pytest.approx(ONE_SIGMA, abs=0.05)


def test_exponents_are_not_negative():
    """Where errors fall with the force, the force is left out."""
    known = parameters()
    block = calibrate(known, made(known, q=-0.8)[0])
    assert block.force_exponent == 0.0


@pytest.mark.parametrize(("n_train", "n_frames"), [(40, 19), (10, 40), (40, 0)])
def test_too_little_tells_nothing(n_train, n_frames):
    known = parameters(n_train)
    frames = made(parameters(), max(n_frames, 1))[0]
    some = Residuals(
        frames.positions[:n_frames], frames.forces[:n_frames], frames.errors[:n_frames]
    )
    assert calibrate(known, some) is None


def test_many_points_are_thinned():
    known = parameters(n_train=MAX_POINTS + 50)
    block = calibrate(known, made(known, n=40)[0])
    assert len(block.points) == MAX_POINTS
    assert (np.diff(block.points) > 0).all()
