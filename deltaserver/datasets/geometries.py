"""Are the frames' molecules whole, and their lengths in Å? Every frame is looked at by itself.

A calculator labels whatever it gets, and a model is trained on it: frames in Bohr that are taken
for Å, a molecule that the cell has cut, two hydrogens exchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from deltaserver.arrays import Bools, Floats, Ints
from deltaserver.datasets.frames import FragmentSpec
from deltaserver.errors import DataError, GeometryError
from deltaserver.molecules.bonds import NONMETALS, bond_reach, bonded_pairs, pieces_of
from deltaserver.molecules.elements import COVALENT_RADIUS_ANG, SYMBOLS
from deltaserver.textio.structures import whole_frame
from deltaserver.textio.xyz_frames import Frame, Note

APART = 1.4  # of what counts as a bond, 1.75 times the radii's sum: none is so long, however hot
IN_BOHR = (1.5, 2.4)  # of the radii's sum: Å are 1.0, Bohr taken for Å 1.9
SQUEEZED = 0.5  # of the covalent radii's sum: nuclei are never so close
MONOVALENT = (1, 9, 17, 35, 53)  # alone they are no molecule, but one that has lost them is


def made_whole(frames: list[Frame], where: str, note: Note) -> list[Frame]:
    """Return the frames with molecules whole that a stated cell has cut; tell how many those were.

    Raises:
        DataError: a molecule without end, or a cell too small, naming the frame.
    """
    whole = [_whole(frame, f"{where}: frame {k}") for k, frame in enumerate(frames)]
    n_changed = sum(new is not old for new, old in zip(whole, frames, strict=True))
    if n_changed:
        note(f"{where}: molecules that the cell had cut were made whole in {n_changed} frames")
    return whole


def _whole(frame: Frame, where: str) -> Frame:
    try:
        return whole_frame(frame)
    except GeometryError as error:
        raise DataError(f'{where}: {error}; give whole molecules and pbc="F F F"') from None


def check_lengths(
    numbers: Ints, positions: Floats, fragments: Sequence[FragmentSpec], where: str
) -> None:
    """Refuse frames (M, N, 3) in which a fragment is no molecule but in pieces, or squeezed.

    Raises:
        DataError: naming the first such frame and atom, and the unit that explains it, if one does.
    """
    several = [fragment for fragment in fragments if len(fragment.atoms) > 1]
    _check_scale(numbers, positions, several, where)
    for fragment in several:
        for index, pieces in _torn(numbers, positions, np.array(fragment.atoms)):
            _refuse(numbers, positions[index], pieces, f"{where}: frame {index}", fragment.name)


def unreacted(
    numbers: Ints, positions: Floats, fragments: Sequence[FragmentSpec], start: Floats
) -> Bools:
    """Tell which frames (M, N, 3) have every fragment in one piece, as ``start`` (N, 3) has it.

    None of these is squeezed either. Fragments that are in pieces at the start, clusters, may stay
    so.
    """
    whole = np.ones(len(positions), bool)
    for fragment in fragments:
        atoms = np.array(fragment.atoms)
        if len(atoms) < 2:
            continue
        ratios = _bond_ratios(numbers, positions, atoms)
        whole &= np.fromiter((ratio.min() >= SQUEEZED for ratio in ratios), bool, len(positions))
        was_whole = _in_pieces(numbers, start, atoms) is None
        whole[[index for index, _ in _torn(numbers, positions, atoms, was_whole)]] = False
    return whole


def _torn(
    numbers: Ints, positions: Floats, atoms: Ints, some_whole: bool = False
) -> Iterator[tuple[int, list[Ints]]]:
    """Yield every frame, and the pieces, in which a fragment is in pieces but should not be.

    It should not where any frame, or one that is known, has it whole, nor ever lose a hydrogen.
    """
    suspects, others_whole = _suspects(numbers, positions, atoms)
    for index in suspects:
        pieces = _in_pieces(numbers, positions[index], atoms)
        if pieces and (some_whole or others_whole or _is_torn(numbers, pieces)):
            yield int(index), pieces


def _suspects(numbers: Ints, positions: Floats, atoms: Ints) -> tuple[Ints, bool]:
    """Return the frames in which a fragment may be in pieces, and whether it is whole in any.

    Where all bonds of a frame that is whole are there, another is whole as well: quick to see.
    """
    for frame in positions:
        if _in_pieces(numbers, frame, atoms) is None:
            i, j = (atoms[end] for end in _bonds(numbers[atoms], frame[atoms]))
            lengths = np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)
            intact = (lengths < APART * bond_reach(numbers[i], numbers[j])).all(axis=1)
            return np.flatnonzero(~intact), True
    return np.arange(len(positions)), False


def _bonds(numbers: Ints, positions: Floats) -> tuple[Ints, Ints]:
    """Return the pairs of a fragment's atoms that are not too far apart for a bond."""
    i, j = np.tril_indices(len(numbers), k=-1)
    lengths = np.linalg.norm(positions[i] - positions[j], axis=-1)
    near = lengths < APART * bond_reach(numbers[i], numbers[j])
    bonded = bonded_pairs(numbers, i, j, near)
    return i[bonded], j[bonded]


def _bond_ratios(numbers: Ints, positions: Floats, atoms: Ints) -> Iterator[Floats]:
    """Yield distances over the covalent radii's sum of every frame (n, n), infinite to itself."""
    radii = np.array(COVALENT_RADIUS_ANG)[numbers[atoms]]
    sums = radii[:, None] + radii
    for frame in positions[:, atoms]:
        ratio: Floats = np.linalg.norm(frame[:, None] - frame, axis=-1) / sums
        np.fill_diagonal(ratio, np.inf)
        yield ratio


def _check_scale(
    numbers: Ints, positions: Floats, fragments: Sequence[FragmentSpec], where: str
) -> None:
    """Refuse lengths that no molecule has, but would have in another unit."""
    lengths = []  # of the bonds of each fragment that has such, over what they are in Å
    for fragment in fragments:
        nearest = _nearest(numbers, positions, fragment, where)
        if np.isin(numbers[list(fragment.atoms)], NONMETALS).all():
            lengths.append((fragment.name, np.median(nearest, axis=1)))
    if not lengths:
        return
    # One unit is of all: where another fragment has bonds as in Å, this one's are no bonds.
    low, high = IN_BOHR
    in_bohr = np.all([(low < ratio) & (ratio < high) for _, ratio in lengths], axis=0)
    for index in np.flatnonzero(in_bohr)[:1]:
        name, ratio = lengths[0]
        raise DataError(
            f"{where}: frame {index}: the bonds of {name} are {ratio[index]:.2f} times as long "
            "as in Å; if the lengths are in Bohr, say so in the comment, as in "
            "positions{atomic_unit}, or convert the file"
        )


def _nearest(numbers: Ints, positions: Floats, fragment: FragmentSpec, where: str) -> Floats:
    """Return how far each atom's neighbour is in every frame, over the radii's sum (M, n).

    Raises:
        DataError: two nuclei are nearer than any.
    """
    atoms, found = np.array(fragment.atoms), []
    for index, ratio in enumerate(_bond_ratios(numbers, positions, atoms)):
        nearest = ratio.min(axis=1)
        if nearest.min() < SQUEEZED:
            a = int(nearest.argmin())
            i, j = sorted((a, int(ratio[a].argmin())))
            apart = np.linalg.norm(positions[index, atoms[i]] - positions[index, atoms[j]])
            raise DataError(
                f"{where}: frame {index}: atoms {atoms[i]} ({SYMBOLS[numbers[atoms[i]]]}) and "
                f"{atoms[j]} ({SYMBOLS[numbers[atoms[j]]]}) are {apart:.3f} Å apart; are the "
                "lengths in nm?"
            )
        found.append(nearest)
    return np.array(found).reshape(len(positions), len(atoms))


def _in_pieces(numbers: Ints, positions: Floats, atoms: Ints) -> list[Ints] | None:
    """Return the pieces of a fragment, the largest first; None if it is one."""
    label = pieces_of(len(atoms), *_bonds(numbers[atoms], positions[atoms]))
    if not label.any():
        return None
    pieces = [atoms[label == first] for first in np.unique(label)]
    return sorted(pieces, key=lambda piece: (-len(piece), int(piece[0])))


def _is_torn(numbers: Ints, pieces: Sequence[Ints]) -> bool:
    """Tell whether pieces, as all frames have them, are no molecules of a cluster."""
    return any(len(piece) == 1 and numbers[piece[0]] in MONOVALENT for piece in pieces)


def _refuse(
    numbers: Ints, positions: Floats, pieces: Sequence[Ints], where: str, name: str
) -> None:
    lost, rest = int(pieces[-1][0]), np.concatenate(pieces[:-1])
    gaps = np.linalg.norm(positions[rest] - positions[lost], axis=-1)
    raise DataError(
        f"{where}: atom {lost} ({SYMBOLS[numbers[lost]]}) is {gaps.min():.2f} Å from the rest of "
        f"{name}: the molecule is torn or wrapped, or its atoms stand in another order; mend that "
        "frame or take it out"
    )
