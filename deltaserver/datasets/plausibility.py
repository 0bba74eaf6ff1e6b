"""Whether labelled frames can be in Å, eV and eV/Å: what molecules are like tells.

Files seldom state their units, and a model trained on others is served without a word. Three
measures need no reference: how long bonds are, whether energies change as the forces say, and
how stiff bonds are.
"""

from __future__ import annotations

import numpy as np

from deltaserver.arrays import Bools, Floats
from deltaserver.datasets.complexes import shortest_distance
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.datasets.geometries import check_lengths
from deltaserver.errors import DataError, MissingExtraError
from deltaserver.model.fragment_blocks import owner_of
from deltaserver.molecules.bonds import NONMETALS

# No bond is shorter than this in Å. Covalent bonds are as long as their radii's sum; 1.9 times
# that in Bohr.
SHORTEST_CONTACT_ANG = 0.6
LONGEST_BOND_RATIO = 1.5
# See work_ratio: 1 for harmonic bonds; kJ, kcal or Hartree beside eV are off by 20 and more.
WORK_RATIO_LIMIT = 3.0
# See bond_stiffness: from 11 eV/Å² in I2 over 30 (C-H, C-C) to 143 in N2 [Huber, Herzberg, 1979,
# DOI 10.1007/978-1-4757-0961-2]; 23 times that in kcal/mol/Å², a 27th of it in Hartree/Å².
STIFFNESS_EV_PER_ANG2 = (3.0, 300.0)
PAIRS_NEEDED = 20
# The correlation of energy changes with the forces' work below which they do not belong together:
# between frames far apart, in which a molecule folds or its parts slide, they say nothing.
ALIKE = 0.5
# One frame's forces beside the others': hot frames' differ by a factor of two or three, and not
# even a bond squeezed to half its length pulls with 50 eV/Å.
FORCES_RATIO, FORCES_EV_PER_ANG = 10.0, 50.0
PRESSED_RATIO = 0.85  # of the covalent radii's sum
# Of neutral molecules, for each beyond the first; ions attract the more, by their charges' squares.
# Pressed together some frames are above, but never all.
BINDING_EV, BINDING_OF_IONS_EV = 5.0, 5.0
# The cosine of a complex' forces with its fragments' above which they differ by a factor alone.
PARALLEL = 0.9
# One frame's gap between fragments beside all others': no step of a scan is so wide.
GAP_ANG = 5.0


def check_plausible(frames: LabelledFrames, where: str) -> None:
    """Refuse frames whose lengths, energies or forces cannot be in Å, eV and eV/Å.

    Raises:
        DataError: what is wrong, begun with ``where``.
        MissingExtraError: ase, which brings the radii, is not installed.
    """
    _check_all(frames, work_ratio(frames), where)


def check_complex_plausible(frames: LabelledFrames, where: str) -> None:
    """Refuse implausible frames of which only the complex has labels, for want of the fragments'.

    What is between fragments pulls little beside what is within: bonds tell the units all the same.
    """
    _check_all(frames, work_ratio(frames, of_complex=True), where)


def _check_all(frames: LabelledFrames, ratio: float | None, where: str) -> None:
    _check_lengths(frames, where)
    check_lengths(frames.numbers, frames.positions, frames.fragments, where)
    _check_forces(frames, where)
    _check_contacts(frames, where)
    if ratio is not None and not 1 / WORK_RATIO_LIMIT < ratio < WORK_RATIO_LIMIT:
        raise DataError(
            f"{where}: energies change {ratio:.3g} times as much as the forces say; expected "
            "energies in eV and forces in eV/Å"
        )
    stiffness = bond_stiffness(frames)
    low, high = STIFFNESS_EV_PER_ANG2
    if stiffness is not None and not low < stiffness < high:
        raise DataError(
            f"{where}: forces make bonds as stiff as {stiffness:.3g} eV/Å², which none are; "
            "expected energies in eV and forces in eV/Å"
        )


def check_binding(frames: LabelledFrames, where: str) -> None:
    """Refuse labels of complex and fragments that cannot be of one method and in one unit.

    Raises:
        DataError: what is wrong, begun with ``where``.
    """
    n_beyond, charges = len(frames.fragments) - 1, [f.charge for f in frames.fragments]
    if not n_beyond:
        return
    limit = BINDING_EV * n_beyond + BINDING_OF_IONS_EV * sum(q * q for q in charges)
    least = float(min(frames.binding_energy, key=abs))
    if abs(least) > limit:
        raise DataError(
            f"{where}: no frame's binding energy is within {limit:g} eV of zero, the nearest is "
            f"{least:.4g} eV; label complex and fragments by one method, in one unit and from one "
            "zero of energy"
        )
    factor = force_factor(frames)
    if factor is not None and not 1 / WORK_RATIO_LIMIT < factor < WORK_RATIO_LIMIT:
        raise DataError(
            f"{where}: the complex' forces are {factor:.3g} times the fragments', along the same "
            "lines; expected both in one unit, as forces and not gradients"
        )


def force_factor(frames: LabelledFrames) -> float | None:
    """Return the slope of the complex' forces against the fragments', None if they aren't alike."""
    inside = (frames.fragment_forces != 0.0).any(axis=(0, 2))  # all but lone atoms
    alone, together = frames.fragment_forces[:, inside], frames.forces[:, inside]
    norm, dot = float((alone**2).sum()), float((alone * together).sum())
    if abs(dot) <= PARALLEL * np.sqrt(norm * float((together**2).sum())):
        return None
    return dot / norm


def binding_notes(frames: LabelledFrames, where: str) -> list[str]:
    """Return what is seldom right of complex and fragments, but can be, and what was not tested."""
    notes = []
    if work_ratio(frames) is None and bond_stiffness(frames) is None:
        notes.append(
            f"{where}: its units could not be checked, for which frames are too few or too unlike "
            "each other; make sure of them"
        )
    mean_squares = [
        (f**2).mean(axis=(1, 2)) for f in (frames.binding_forces, frames.fragment_forces)
    ]
    if len(frames.fragments) > 1 and np.median(mean_squares[0] - mean_squares[1]) > 0.0:
        notes.append(
            f"{where}: binding forces are larger than the fragments' own in most frames; right of "
            "molecules pressed together or at rest, else labels are of two methods or units"
        )
    return notes


def _check_lengths(frames: LabelledFrames, where: str) -> None:
    if len(frames.numbers) < 2:
        return
    separations = _separations(frames.positions[0])
    if separations.min() < SHORTEST_CONTACT_ANG:
        raise DataError(
            f"{where}: frame 0 has two atoms {separations.min():.3f} Å apart; "
            "are the lengths in nm?"
        )
    bonds = _nearest_nonmetals(frames)
    if len(bonds):
        i, j = bonds.T
        ratio = float(np.median(separations[i, j] / _radii_sums(frames)[i, j]))
        if ratio > LONGEST_BOND_RATIO:
            raise DataError(
                f"{where}: bonds of frame 0 are {ratio:.2f} times as long as in Å; "
                "are the lengths in Bohr?"
            )


def _check_forces(frames: LabelledFrames, where: str) -> None:
    """Refuse a frame whose forces are unlike the others', by its number.

    But for those of a complex whose fragments are pressed together: that high are walls.
    """
    for forces, explained in ((frames.forces, _pressed), (frames.fragment_forces, None)):
        size = np.sqrt((forces**2).mean(axis=(1, 2)))
        largest = np.abs(forces).max(axis=(1, 2))
        wrong = (size > FORCES_RATIO * np.median(size)) & (largest > FORCES_EV_PER_ANG)
        if explained is not None and wrong.any():
            wrong &= ~explained(frames)
        if wrong.any() and not wrong.all():
            k = int(np.argmax(wrong))
            raise DataError(
                f"{where}: frame {k} has forces up to {largest[k]:.3g} eV/Å, "
                f"{size[k] / np.median(size):.3g} times the others'; label it again or take it out"
            )


def _pressed(frames: LabelledFrames) -> Bools:
    """Tell in which frames two atoms of different fragments are nearer than a bond would be."""
    fragment = owner_of([one.atoms for one in frames.fragments])
    between = fragment[:, None] != fragment
    sums = _radii_sums(frames)
    return np.array(
        [(_separations(x) < PRESSED_RATIO * sums)[between].any() for x in frames.positions], bool
    )


def _check_contacts(frames: LabelledFrames, where: str) -> None:
    """Refuse a frame in which a fragment is far from where all other frames have it."""
    if len(frames.fragments) < 2 or len(frames) < 3:
        return
    for fragment in frames.fragments:
        atoms = np.array(fragment.atoms)
        others = np.setdiff1d(np.arange(len(frames.numbers)), atoms)
        contacts = np.array([shortest_distance(x[atoms], x[others]) for x in frames.positions])
        order = np.argsort(contacts)
        gaps = np.diff(contacts[order])
        k = int(np.argmax(gaps))
        if gaps[k] > GAP_ANG and len(gaps) - k <= max(1, len(frames) // 10):
            index = int(order[k + 1 :].min())
            raise DataError(
                f"{where}: frame {index}: {fragment.name} is {contacts[index]:.1f} Å from the "
                f"other fragments; in the others at most {contacts[order[k]]:.1f} Å; take the "
                "frame out, or add some between"
            )


def _separations(positions: Floats) -> Floats:
    """Return distances (N, N); infinite from an atom to itself."""
    result: Floats = np.linalg.norm(positions[:, None] - positions[None], axis=-1)
    np.fill_diagonal(result, np.inf)
    return result


def _radii_sums(frames: LabelledFrames) -> Floats:
    try:
        from ase.data import covalent_radii
    except ImportError:
        raise MissingExtraError("ase", "train") from None
    radii = np.asarray(covalent_radii)[frames.numbers]
    result: Floats = radii[:, None] + radii[None]
    return result


def _nearest_nonmetals(frames: LabelledFrames) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    """Return pairs (K, 2) of each nonmetal atom and the nearest one in its fragment: bonds."""
    separations = _separations(frames.positions[0])
    pairs = set()
    for fragment in frames.fragments:
        inside = np.array([a for a in fragment.atoms if frames.numbers[a] in NONMETALS])
        if len(inside) < 2:
            continue
        nearest = inside[separations[np.ix_(inside, inside)].argmin(axis=1)]
        pairs |= {(min(pair), max(pair)) for pair in zip(inside, nearest, strict=True)}
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def bond_stiffness(frames: LabelledFrames) -> float | None:
    """Return the median bond's −df/dr (eV/Å²), or None where there are few frames or no bonds.

    r is the length of a bond between nonmetals, f half the difference of its atoms' forces along
    it, both of isolated fragments; the slope is by least squares over all frames.
    """
    bonds = _nearest_nonmetals(frames)
    if len(frames) < PAIRS_NEEDED or not len(bonds):
        return None
    i, j = bonds.T
    along = frames.positions[:, i] - frames.positions[:, j]
    r = np.linalg.norm(along, axis=-1)
    pull = frames.fragment_forces[:, i] - frames.fragment_forces[:, j]
    f = 0.5 * (pull * along).sum(axis=-1) / r
    dr = r - r.mean(axis=0)
    spread = (dr**2).sum(axis=0)
    moving = spread > 1e-8 * len(frames)  # constrained bonds say nothing
    if not moving.any():
        return None
    slope = ((f - f.mean(axis=0)) * dr).sum(axis=0)[moving] / spread[moving]
    return float(np.median(-slope))


def work_ratio(frames: LabelledFrames, of_complex: bool = False) -> float | None:
    """Return the slope of ΔE against −½(F + F′)·Δx over neighbouring frames, or None.

    None if there are few, or the two are neither alike nor, as with gradients for forces,
    opposite: so it is between frames far apart.

    Of isolated fragments, each turned onto its neighbour: what is left is vibration, which is
    harmonic enough even when frames are far apart and molecules tumble.
    """
    same = np.flatnonzero(frames.trajectory[1:] == frames.trajectory[:-1])
    if len(same) < PAIRS_NEEDED:
        return None
    changes, works = [], []
    for j, fragment in enumerate(frames.fragments):
        atoms = np.array(fragment.atoms)
        changes.append(np.diff(frames.fragment_energies[:, j])[same])
        x, forces = frames.positions[:, atoms], frames.fragment_forces[:, atoms]
        works.append(_work(x[same], x[same + 1], forces[same], forces[same + 1]))
    change, work = np.concatenate(changes), np.concatenate(works)
    if of_complex:  # the sum of the works beside the complex' change in energy
        change, work = np.diff(frames.energy)[same], np.sum(works, axis=0)
    norm = float(work @ work)
    alike = float(change @ work) / np.sqrt(float(change @ change) * norm or 1.0)
    ratio = float(change @ work) / norm if norm else 0.0
    gradients = alike < -ALIKE and 1 / WORK_RATIO_LIMIT < -ratio < WORK_RATIO_LIMIT
    return ratio if alike > ALIKE or gradients else None


def _work(x: Floats, y: Floats, forces_x: Floats, forces_y: Floats) -> Floats:
    """Return −½(F_x + F_y)·(y − x) per pair of structures, y turned onto x (Kabsch)."""
    x, y = x - x.mean(axis=1, keepdims=True), y - y.mean(axis=1, keepdims=True)
    u, _, vt = np.linalg.svd(np.einsum("mia,mib->mab", y, x))
    u[:, :, -1] *= np.sign(np.linalg.det(u @ vt))[:, None]  # turned, never mirrored
    rotation = u @ vt
    mean_forces = 0.5 * (forces_x + forces_y @ rotation)
    result: Floats = -np.einsum("mia,mia->m", mean_forces, y @ rotation - x)
    return result
