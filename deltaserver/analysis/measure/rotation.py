"""How a fragment is turned: Kabsch alignment of labelled atoms, and the host's rotation removed.

Orientations come from atoms that keep their labels, never from axes of inertia: C60 is a
spherical top whose axes are degenerate, and any other symmetric molecule's jump.
"""

from __future__ import annotations

import numpy as np

from deltaserver.arrays import Floats

# A linear molecule bends, so that no single frame is straight: it is slender, and its width goes
# through zero in two dimensions (a Rayleigh distribution, whose mean is 1.9 standard deviations;
# of several bends up to 4), where a bent one's keeps its value.
SLENDER, BENDS = 0.25, 5.0
STRAIGHT = 0.02  # slender enough to be straight whatever it does
FEW_FRAMES = 5


def centred(positions: Floats, weights: Floats) -> Floats:
    """Return (…, n, 3) positions about their weighted centre."""
    return np.asarray(positions - (weights @ positions)[..., None, :] / weights.sum())


def kabsch(reference: Floats, positions: Floats, weights: Floats) -> Floats:
    """Return the proper rotations A that minimise Σ w |x − A x_ref|², both about their centres.

    Args:
        reference: (n, 3).
        positions: (B, n, 3), the same atoms in the same order.
        weights: (n,), masses as a rule.

    Returns:
        (B, 3, 3). A = V diag(1, 1, det(V Uᵀ)) Uᵀ of U S Vᵀ = X_refᵀ W X (Kabsch 1976,
        DOI 10.1107/S0567739476001873).
    """
    weighted = centred(reference, weights) * weights[:, None]
    # reference is centred with weights, so that positions' own centre falls out of the sum
    covariance = np.matmul(weighted.T, positions)
    u, _, vt = np.linalg.svd(covariance)
    sign = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    u[..., :, 2] *= sign[..., None]
    return np.asarray(np.matmul(u, vt).swapaxes(-1, -2))


def is_linear(positions: Floats, weights: Floats) -> bool:
    """Tell whether frames (B, n, 3) are of a linear molecule, though it may bend in each."""
    scaled = centred(positions, weights) * np.sqrt(weights)[:, None]
    values = np.linalg.svd(scaled, compute_uv=False)
    if positions.shape[-2] == 2:
        return True
    width = values[:, 1] / values[:, 0]
    typical = float(np.median(width))
    if typical < STRAIGHT:
        return True
    if len(positions) < FEW_FRAMES:
        return False
    return typical < SLENDER and float(width.mean()) < BENDS * float(width.std())


def axes(reference: Floats, positions: Floats, weights: Floats) -> Floats:
    """Return the unit vectors (B, 3) along a linear molecule, from its first atom to its last.

    Least squares: Σ w z x / |Σ w z x| with z the atoms' places along the reference's own axis.
    """
    first = centred(reference, weights)
    along = np.linalg.svd(first * np.sqrt(weights)[:, None])[2][0]
    along = along * np.sign((first[-1] - first[0]) @ along)
    vectors = (weights * (first @ along)) @ positions
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def quaternions(rotations: Floats) -> Floats:
    """Return (B, 4) unit quaternions (x, y, z, w) of (B, 3, 3) rotations."""
    from scipy.spatial.transform import Rotation

    return np.asarray(Rotation.from_matrix(rotations).as_quat())


def relative(guest: Floats, host: Floats) -> Floats:
    """Return the guest's rotations in the host's frame, A_hᵀ A_g, (B, 3, 3) each."""
    return np.asarray(np.matmul(host.swapaxes(-1, -2), guest))


def rms_deviation(reference: Floats, positions: Floats, weights: Floats) -> Floats:
    """Return the weighted RMS deviation (Å) of (B, n, 3) positions from a turned reference."""
    rotations = kabsch(reference, positions, weights)
    turned = np.matmul(centred(reference, weights), rotations.swapaxes(-1, -2))
    squares = ((centred(positions, weights) - turned) ** 2).sum(axis=-1)
    return np.asarray(np.sqrt(squares @ weights / weights.sum()))
