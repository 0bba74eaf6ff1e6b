"""Mean-squared angular displacement and reorientation of a body.

R_k is the body's rotation at frame k, in its host's frame. Two definitions of the angle turned:

- integrated: φ(t) = Σ_k rotvec(R_k⁻¹ R_{k+1}), in the body's frame, and ⟨|φ(t₀+t) − φ(t₀)|²⟩.
  It grows without bound; free rotational diffusion gives 6Dt (Mazza et al. 2007,
  DOI 10.1103/PhysRevE.76.031203; Hunter et al. 2011, DOI 10.1364/OE.19.017189).
- net: the angle θ of R(t₀)⁻¹R(t₀+t), and ⟨θ²⟩. It is bounded: hindered rotation gives a plateau,
  and a body turned at random has π²/3 + 2.

Rotations do not commute. A body that only librates goes around small loops, and the sum of its
turns is then not zero though it is back where it was: the integrated form grows without end,
as a diffusing body's does. That is why both stand side by side, with the reorientation functions
C_l(t) = ⟨χ_l(θ)⟩/(2l+1) averaged over all axes of the body: C₁ = ⟨1 + 2 cos θ⟩/3 and
C₂ = ⟨1 + 2 cos θ + 2 cos 2θ⟩/5, exp(−2Dt) and exp(−6Dt) for free diffusion.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from deltaserver.errors import DataError
from deltaserver.units import PS_FS

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LAGS_A_DECADE = 20
MAX_BLOCKS = 10
MIN_BLOCKS = 4
N_FIT_BLOCKS = 8
MIN_FRAMES = 20
WINDOW_FROM, WINDOW_TO = 1 / 50, 1 / 10  # of the trajectory
SAFE_RMS_RAD = 0.8  # beyond it, turns of more than π a frame, which alias, are no longer rare
RANDOM_PLATEAU = np.pi**2 / 3 + 2  # ⟨θ²⟩ of a rotation drawn at random, rad²


@dataclass(frozen=True)
class Diffusion:
    """⟨|Δφ|²⟩ = 6Dt + c, fitted from ``begin_ps`` to ``end_ps``.

    ``exponent`` is d ln⟨|Δφ|²⟩ / d ln t there: 1 diffuses, 2 is inertial, less than 1 is hindered.
    """

    d_rad2_per_ps: float
    error_rad2_per_ps: float
    begin_ps: float
    end_ps: float
    exponent: float
    n_blocks: int

    @property
    def slope_rad2_per_fs(self) -> float:
        """6D."""
        return 6.0 * self.d_rad2_per_ps / PS_FS


@dataclass(frozen=True)
class Curve:
    """A function of the lag and its standard error (NaN where the run is too short), (L,)."""

    value: Floats
    error: Floats


@dataclass(frozen=True)
class Msad:
    """Angular displacements (rad²) and reorientation functions at lags (ps)."""

    lag_ps: Floats
    integrated: Curve
    net: Curve
    c1: Curve
    c2: Curve
    diffusion: Diffusion
    rms_per_frame_rad: float
    frame_ps: float
    n_frames: int

    @property
    def aliased(self) -> bool:
        """Whether frames are too far apart in time for the integrated form."""
        return self.rms_per_frame_rad > SAFE_RMS_RAD


def increments(quaternions: Floats) -> Floats:
    """Return rotvec(R_k⁻¹ R_{k+1}), (T − 1, 3) in rad, of (T, 4) quaternions (x, y, z, w)."""
    from scipy.spatial.transform import Rotation

    rotations = Rotation.from_quat(quaternions)
    return np.asarray((rotations[:-1].inv() * rotations[1:]).as_rotvec())


def integrated_angle(quaternions: Floats) -> Floats:
    """Return φ, (T, 3) in rad, zero at the first frame."""
    return np.concatenate([np.zeros((1, 3)), np.cumsum(increments(quaternions), axis=0)])


def lags(n_frames: int, longest: int | None = None) -> Ints:
    """Return lags in frames, all below ten and then evenly on a logarithmic scale."""
    longest = max(1, min(n_frames - 1, longest or n_frames // 2))
    n = max(2, int(LAGS_A_DECADE * np.log10(max(longest, 2))) + 1)
    return np.unique(np.round(np.geomspace(1, longest, n)).astype(np.int64))


def mean_squared_angular_displacement(
    quaternions: Floats,
    frame_ps: float,
    window_ps: tuple[float, float] | None = None,
    longest_ps: float | None = None,
) -> Msad:
    """Return the displacements of a body from its (T, 4) quaternions, ``frame_ps`` apart.

    The work is O(T log T): every origin, at lags on a logarithmic scale.

    Raises:
        DataError: too few frames, or a window that the trajectory does not hold.
    """
    n_frames = len(quaternions)
    if n_frames < MIN_FRAMES:
        raise DataError(f"{n_frames} frames are too few for an MSAD; expected {MIN_FRAMES} or more")
    steps = increments(quaternions)
    phi = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
    longest = round(longest_ps / frame_ps) if longest_ps else None
    every = lags(n_frames, longest)
    rows = [_at_lag(phi, quaternions, int(lag)) for lag in every]
    integrated, net, c1, c2 = (Curve(*np.array(column).T) for column in zip(*rows, strict=True))
    return Msad(
        lag_ps=every.astype(np.float64) * frame_ps,
        integrated=integrated,
        net=net,
        c1=c1,
        c2=c2,
        diffusion=fit_diffusion(phi, frame_ps, window_ps),
        rms_per_frame_rad=float(np.sqrt((steps**2).sum(axis=1).mean())),
        frame_ps=frame_ps,
        n_frames=n_frames,
    )


def _at_lag(phi: Floats, quaternions: Floats, lag: int) -> tuple[tuple[float, float], ...]:
    squares = ((phi[lag:] - phi[:-lag]) ** 2).sum(axis=1)
    overlap = np.abs(np.einsum("ti,ti->t", quaternions[lag:], quaternions[:-lag]))
    half = np.minimum(overlap, 1.0)
    cosine = 2.0 * half**2 - 1.0
    first = (1.0 + 2.0 * cosine) / 3.0
    second = (1.0 + 2.0 * cosine + 2.0 * (2.0 * cosine**2 - 1.0)) / 5.0
    return tuple(
        _with_error(values, lag)
        for values in (squares, (2.0 * np.arccos(half)) ** 2, first, second)
    )


def _with_error(values: Floats, lag: int) -> tuple[float, float]:
    """Return the mean over origins and its error from blocks at least two lags long."""
    n_blocks = min(MAX_BLOCKS, len(values) // (2 * lag))
    if n_blocks < MIN_BLOCKS:
        return float(values.mean()), np.nan
    length = len(values) // n_blocks
    means = values[: n_blocks * length].reshape(n_blocks, length).mean(axis=1)
    return float(values.mean()), float(means.std(ddof=1) / np.sqrt(n_blocks))


def fit_diffusion(
    phi: Floats, frame_ps: float, window_ps: tuple[float, float] | None = None
) -> Diffusion:
    """Fit ⟨|Δφ|²⟩ = 6Dt + c in a window of lags, by default T/50 to T/10.

    The error is the scatter of fits over blocks of time origins, each as long as the window's end
    at least.

    Raises:
        DataError: the window is empty or longer than half the trajectory.
    """
    n = len(phi)
    begin, end = window_ps or (WINDOW_FROM * n * frame_ps, WINDOW_TO * n * frame_ps)
    first, last = max(1, round(begin / frame_ps)), round(end / frame_ps)
    if not (first < last <= n // 2):
        raise DataError(
            f"a fit from {begin:g} to {end:g} ps is not within one frame ({frame_ps:g} ps) and "
            f"half the trajectory ({n * frame_ps / 2:g} ps)"
        )
    every = np.unique(np.linspace(first, last, 12).round().astype(np.int64))
    n_blocks = min(N_FIT_BLOCKS, (n - last) // last)
    length = (n - last) // n_blocks
    rows = np.empty((n_blocks, len(every)))
    for column, lag in enumerate(every):
        squares = ((phi[lag:] - phi[:-lag]) ** 2).sum(axis=1)[: n_blocks * length]
        rows[:, column] = squares.reshape(n_blocks, length).mean(axis=1)
    times = every.astype(np.float64) * frame_ps
    slopes = np.polyfit(times, rows.T, 1)[0]
    mean = rows.mean(axis=0)
    error = slopes.std(ddof=1) / np.sqrt(n_blocks) if n_blocks >= MIN_BLOCKS else np.nan
    return Diffusion(
        d_rad2_per_ps=float(np.polyfit(times, mean, 1)[0] / 6.0),
        error_rad2_per_ps=float(error / 6.0),
        begin_ps=float(times[0]),
        end_ps=float(times[-1]),
        exponent=_exponent(times, mean),
        n_blocks=n_blocks,
    )


def _exponent(times: Floats, mean: Floats) -> float:
    if mean.min() <= 1e-20:
        return np.nan  # it does not turn at all
    return float(np.polyfit(np.log(times), np.log(mean), 1)[0])
