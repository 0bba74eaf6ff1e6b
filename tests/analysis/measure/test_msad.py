from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from deltaserver.analysis.measure import msad
from deltaserver.analysis.show.summary import msad_summary
from deltaserver.errors import DataError
from tests.analysis.written import free_rotation, ornstein_uhlenbeck


def test_free_diffusion_gives_6dt_within_its_error():
    d, frame_ps = 0.02, 0.5
    pulls = []
    for seed in range(6):
        quaternions = free_rotation(6000, d * frame_ps, seed)
        result = msad.mean_squared_angular_displacement(quaternions, frame_ps, (5.0, 50.0))
        fit = result.diffusion
        assert fit.d_rad2_per_ps == pytest.approx(d, abs=4.0 * fit.error_rad2_per_ps)
        assert fit.error_rad2_per_ps < 0.4 * d
        pulls.append((fit.d_rad2_per_ps - d) / fit.error_rad2_per_ps)
    assert 0.2 < np.sqrt(np.mean(np.square(pulls))) < 2.5  # the errors are of the right size


def test_free_diffusion_at_every_lag_and_its_reorientation():
    d = 0.01
    result = msad.mean_squared_angular_displacement(free_rotation(40000, d, 7), 1.0)
    short = result.lag_ps < 40
    expected = 6.0 * d * result.lag_ps
    pull = (result.integrated.value - expected)[short] / result.integrated.error[short]
    assert np.abs(pull).max() < 4.0
    assert np.allclose(result.c1.value[short], np.exp(-2 * d * result.lag_ps[short]), atol=0.04)
    assert np.allclose(result.c2.value[short], np.exp(-6 * d * result.lag_ps[short]), atol=0.04)
    assert result.diffusion.exponent == pytest.approx(1.0, abs=0.25)


def test_net_angle_of_random_rotations_is_the_known_plateau():
    quaternions = Rotation.random(20000, rng=np.random.default_rng(3)).as_quat()
    result = msad.mean_squared_angular_displacement(quaternions, 1.0, (2, 20))
    assert result.net.value[5] == pytest.approx(msad.RANDOM_PLATEAU[3], rel=0.02)
    assert result.c1.value[5] == pytest.approx(0.0, abs=0.02)
    assert result.aliased


def test_pure_libration_has_its_plateau_in_the_net_form_and_fakes_diffusion_in_the_integrated():
    """0.2 rad about each axis, forgotten in 0.1 ps: net 6σ² = 0.24, integrated 1.45 at 30 ps."""
    frame_ps = 0.02
    angles = ornstein_uhlenbeck(150_000, 3, 0.2, 0.1 / frame_ps, 5)
    quaternions = Rotation.from_rotvec(angles).as_quat()
    result = msad.mean_squared_angular_displacement(quaternions, frame_ps, (10, 30), 30.0)
    late = result.lag_ps > 1.0
    assert np.allclose(result.net.value[late], 0.24, rtol=0.03)
    assert result.integrated.value[-1] == pytest.approx(1.45, abs=0.12)
    leading = 3.0 * 0.2**4 / 0.1 * 30.0 + 0.24  # the area that the librating axis encloses
    assert 0.75 * leading < result.integrated.value[-1] < leading
    assert not result.aliased


def test_no_rotation_is_zero_and_has_no_exponent():
    result = msad.mean_squared_angular_displacement(np.tile([0.0, 0, 0, 1], (100, 1)), 1.0)
    assert result.integrated.value.max() == 0.0
    assert result.net.value.max() == 0.0
    assert result.diffusion.d_rad2_per_ps == 0.0
    assert np.isnan(result.diffusion.exponent)
    assert np.allclose(result.c2.value, 1.0)


def test_steady_rotation_is_inertial():
    angles = np.outer(np.arange(2000) * 0.01, [0.0, 0.6, 0.8])
    result = msad.mean_squared_angular_displacement(Rotation.from_rotvec(angles).as_quat(), 1.0)
    assert result.diffusion.exponent == pytest.approx(2.0, abs=1e-6)
    assert result.integrated.value == pytest.approx((0.01 * result.lag_ps) ** 2)
    assert result.rms_per_frame_rad == pytest.approx(0.01)


def test_work_grows_little_faster_than_the_trajectory():
    assert len(msad.lags(10**6)) < 130
    assert msad.lags(100)[:5].tolist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("n_dof", "key"), [(3, "slope_6d"), (2, "slope_4d")])
def test_the_slope_is_of_the_fitted_line_in_either_unit(n_dof, key):
    """6D, of a linear guest 4D."""
    orientations = free_rotation(100, 0.01, 1) if n_dof == 3 else diffusing_axes(100, 0.01, 1)
    result = msad.mean_squared_angular_displacement(orientations, 1.0)
    fit = msad.Diffusion(0.005, 0.001, 1, 2, 1.0, 8, n_dof)
    assert fit.slope_rad2_per_ps == pytest.approx(2 * n_dof * 0.005)
    assert fit.slope_rad2_per_fs == pytest.approx(1e-3 * fit.slope_rad2_per_ps)
    told = msad_summary(replace(result, diffusion=fit))
    assert told[f"{key}_rad2_per_fs"] == pytest.approx(fit.slope_rad2_per_fs)
    assert told[f"{key}_error_rad2_per_fs"] == pytest.approx(2 * n_dof * 0.001e-3)
    assert told["degrees_of_freedom"] == n_dof


@pytest.mark.parametrize(
    ("n", "window", "message"),
    [
        (15, None, "15 frames are too few"),
        (100, (10.0, 80.0), "a fit from 10 to 80 ps is not within"),
        (100, (3.0, 3.2), "is not within one frame"),
    ],
)
def test_refused(n, window, message):
    with pytest.raises(DataError, match=message):
        msad.mean_squared_angular_displacement(free_rotation(n, 0.01, 1), 1.0, window)


def diffusing_axes(n_frames, d, seed):
    """Brownian motion on the sphere: turns about axes across u, variance 2D a frame each."""
    kicks = np.random.default_rng(seed).normal(0.0, np.sqrt(2.0 * d), (n_frames, 3))
    axes = np.empty((n_frames, 3))
    u = np.array([0.0, 0.0, 1.0])
    for k, kick in enumerate(kicks):
        u = u + np.cross(kick, u)
        u /= np.linalg.norm(u)
        axes[k] = u
    return axes


def test_free_diffusion_of_an_axis():
    """⟨|Δφ|²⟩ = 4Dt, C₁ = exp(−2Dt), C₂ = exp(−6Dt)."""
    d = 0.002
    result = msad.mean_squared_angular_displacement(diffusing_axes(40_000, d, 5), 1.0, (10, 100))
    fit = result.diffusion
    assert fit.n_dof == 2
    assert abs(fit.d_rad2_per_ps - d) < 4.0 * fit.error_rad2_per_ps + 0.01 * d
    short = result.lag_ps < 100
    lag = result.lag_ps[short]
    pull = (result.integrated.value[short] - 4.0 * d * lag) / result.integrated.error[short]
    assert np.abs(pull).max() < 4.5
    for curve, rate in ((result.c1, 2.0), (result.c2, 6.0)):
        pull = (curve.value[short] - np.exp(-rate * d * lag)) / curve.error[short]
        assert np.abs(pull).max() < 4.5
    assert fit.slope_rad2_per_ps == pytest.approx(4.0 * fit.d_rad2_per_ps)


def test_net_angle_of_random_axes_is_the_known_plateau():
    axes = np.random.default_rng(1).normal(size=(20_000, 3))
    axes /= np.linalg.norm(axes, axis=1, keepdims=True)
    result = msad.mean_squared_angular_displacement(axes, 1.0, (2, 20))
    assert result.net.value[5] == pytest.approx(msad.RANDOM_PLATEAU[2], rel=0.02)
    assert result.c2.value[5] == pytest.approx(0.0, abs=0.02)
