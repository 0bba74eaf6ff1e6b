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

A linear body has an axis u and two degrees of freedom: φ(t) = Σ_k θ_k (u_k × u_{k+1})/sin θ_k with
θ_k the angle between them, 4Dt for free diffusion; the net angle is that of u(t₀) and u(t₀+t), at
random (π² − 4)/2; C₁ = ⟨cos θ⟩ and C₂ = ⟨3 cos² θ − 1⟩/2, exp(−2Dt) and exp(−6Dt) again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError
from deltaserver.units import PS_FS

AXIS = 3  # numbers of an axis; a quaternion has four
LAGS_A_DECADE = 20
MAX_BLOCKS = 10
MIN_BLOCKS = 4
N_FIT_BLOCKS = 8
MIN_FRAMES = 20
WINDOW_FROM, WINDOW_TO = 1 / 50, 1 / 10  # of the trajectory
SAFE_RMS_RAD = 0.8  # beyond it, turns of more than π a frame, which alias, are no longer rare
# ⟨θ²⟩ of an axis and of a rotation drawn at random, rad², by degrees of freedom
RANDOM_PLATEAU = {2: (np.pi**2 - 4) / 2, 3: np.pi**2 / 3 + 2}


@dataclass(frozen=True)
class Diffusion:
    """⟨|Δφ|²⟩ = 2nDt + c of n degrees of freedom, fitted from ``begin_ps`` to ``end_ps``.

    n is 3, of a linear body 2.
    ``exponent`` is d ln⟨|Δφ|²⟩ / d ln t there: 1 diffuses, 2 is inertial, less than 1 is hindered.
    """

    d_rad2_per_ps: float
    error_rad2_per_ps: float
    begin_ps: float
    end_ps: float
    exponent: float
    n_blocks: int
    n_dof: int = 3

    @property
    def slope_rad2_per_ps(self) -> float:
        """2nD, of the fitted line: 6D, of a linear body 4D."""
        return 2.0 * self.n_dof * self.d_rad2_per_ps

    @property
    def slope_rad2_per_fs(self) -> float:
        """The same slope a femtosecond."""
        return self.slope_rad2_per_ps / PS_FS


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


def increments(orientations: Floats) -> Floats:
    """Return rotvec(R_k⁻¹ R_{k+1}), (T − 1, 3) in rad, of (T, 4) quaternions (x, y, z, w).

    Of (T, 3) axes the shortest turns from one to the next.
    """
    from scipy.spatial.transform import Rotation

    if orientations.shape[1] == AXIS:
        normal = np.cross(orientations[:-1], orientations[1:])
        sine = np.linalg.norm(normal, axis=1)
        angle = np.arctan2(sine, (orientations[:-1] * orientations[1:]).sum(axis=1))
        return np.asarray(normal * (angle / np.where(sine > 0.0, sine, 1.0))[:, None])
    rotations = Rotation.from_quat(orientations)
    return np.asarray((rotations[:-1].inv() * rotations[1:]).as_rotvec())


def lags(n_frames: int, longest: int | None = None) -> Ints:
    """Return lags in frames, all below ten and then evenly on a logarithmic scale."""
    longest = max(1, min(n_frames - 1, longest or n_frames // 2))
    n = max(2, int(LAGS_A_DECADE * np.log10(max(longest, 2))) + 1)
    return np.unique(np.round(np.geomspace(1, longest, n)).astype(np.int64))


def mean_squared_angular_displacement(
    orientations: Floats,
    frame_ps: float,
    window_ps: tuple[float, float] | None = None,
    longest_ps: float | None = None,
) -> Msad:
    """Return the displacements of a body from its (T, 4) quaternions, ``frame_ps`` apart.

    Of a linear body from its (T, 3) axes.

    The work is O(T log T): every origin, at lags on a logarithmic scale.

    Raises:
        DataError: too few frames, or a window that the trajectory does not hold.
    """
    n_frames = len(orientations)
    n_dof = 2 if orientations.shape[1] == AXIS else 3
    if n_frames < MIN_FRAMES:
        raise DataError(f"{n_frames} frames are too few for an MSAD; expected {MIN_FRAMES} or more")
    steps = increments(orientations)
    phi = np.concatenate([np.zeros((1, 3)), np.cumsum(steps, axis=0)])
    longest = round(longest_ps / frame_ps) if longest_ps else None
    every = lags(n_frames, longest)
    rows = [_at_lag(phi, orientations, int(lag)) for lag in every]
    integrated, net, c1, c2 = (Curve(*np.array(column).T) for column in zip(*rows, strict=True))
    return Msad(
        lag_ps=every.astype(np.float64) * frame_ps,
        integrated=integrated,
        net=net,
        c1=c1,
        c2=c2,
        diffusion=fit_diffusion(phi, frame_ps, window_ps, n_dof),
        rms_per_frame_rad=float(np.sqrt((steps**2).sum(axis=1).mean())),
        frame_ps=frame_ps,
        n_frames=n_frames,
    )


def _at_lag(phi: Floats, orientations: Floats, lag: int) -> tuple[tuple[float, float], ...]:
    squares = ((phi[lag:] - phi[:-lag]) ** 2).sum(axis=1)
    overlap = np.einsum("ti,ti->t", orientations[lag:], orientations[:-lag])
    if orientations.shape[1] == AXIS:
        first = np.clip(overlap, -1.0, 1.0)
        angle, second = np.arccos(first), 1.5 * first**2 - 0.5
    else:
        half = np.minimum(np.abs(overlap), 1.0)
        cosine = 2.0 * half**2 - 1.0
        angle, first = 2.0 * np.arccos(half), (1.0 + 2.0 * cosine) / 3.0
        second = (1.0 + 2.0 * cosine + 2.0 * (2.0 * cosine**2 - 1.0)) / 5.0
    return tuple(_with_error(values, lag) for values in (squares, angle**2, first, second))


def _with_error(values: Floats, lag: int) -> tuple[float, float]:
    """Return the mean over origins and its error from blocks at least two lags long."""
    n_blocks = min(MAX_BLOCKS, len(values) // (2 * lag))
    if n_blocks < MIN_BLOCKS:
        return float(values.mean()), np.nan
    length = len(values) // n_blocks
    means = values[: n_blocks * length].reshape(n_blocks, length).mean(axis=1)
    return float(values.mean()), float(means.std(ddof=1) / np.sqrt(n_blocks))


def fit_diffusion(
    phi: Floats,
    frame_ps: float,
    window_ps: tuple[float, float] | None = None,
    n_dof: int = 3,
) -> Diffusion:
    """Fit ⟨|Δφ|²⟩ = 2 n_dof Dt + c in a window of lags, by default T/50 to T/10.

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
        d_rad2_per_ps=float(np.polyfit(times, mean, 1)[0] / (2.0 * n_dof)),
        error_rad2_per_ps=float(error / (2.0 * n_dof)),
        begin_ps=float(times[0]),
        end_ps=float(times[-1]),
        exponent=_exponent(times, mean),
        n_blocks=n_blocks,
        n_dof=n_dof,
    )


def _exponent(times: Floats, mean: Floats) -> float:
    if mean.min() <= 1e-20:
        return np.nan  # it does not turn at all
    return float(np.polyfit(np.log(times), np.log(mean), 1)[0])
