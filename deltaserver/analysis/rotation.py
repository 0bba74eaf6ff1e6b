"""How a fragment is turned: Kabsch alignment of labelled atoms, and the host's rotation removed.

Orientations come from atoms that keep their labels, never from axes of inertia: C60 is a
spherical top whose axes are degenerate, and any other symmetric molecule's jump.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from deltaserver.errors import DataError

Floats = NDArray[np.float64]
LINEAR = 1e-3  # second singular value over the first, below which atoms stand on a line


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


def check_orientable(reference: Floats, weights: Floats, name: str) -> None:
    """Raise DataError if atoms stand on a line: a turn about it cannot be seen."""
    values = np.linalg.svd(centred(reference, weights) * np.sqrt(weights)[:, None],
                           compute_uv=False)  # fmt: skip
    if len(reference) < 3 or values[1] < LINEAR * values[0]:
        raise DataError(
            f"{name}: its {len(reference)} atoms stand on a line; "
            "expected at least three that do not, to see how it turns"
        )


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
