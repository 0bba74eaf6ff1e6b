"""Are equal atoms of a molecule numbered as in training, or as in its mirror image?

Three hydrogens on one carbon can be numbered clockwise or the other way round: bonds do not tell.
A model whose permutations turn every molecule, but mirror none alone (``--symmetry rotations``, or
none at all), knows one of the two; with the other, the energy of two methanes is off by 4 meV. All
molecules mirrored together have the same energy again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import StructureError
from deltaserver.molecules.bonds import FragmentBonds
from deltaserver.molecules.handedness import FLAT_ANG3, corners_of, triple_products

if TYPE_CHECKING:
    from deltaserver.model.sgdml import SGDMLModel

FRAMES = 50  # of training that are looked at


@dataclass(frozen=True)
class Handedness:
    """What training shows of how molecules are numbered.

    Attributes:
        names: of the fragments that have a handedness.
        corners: a centre and three of its neighbours each, shape (C, 4).
        fragment: whose each corner is, by its place in ``names``, shape (C,).
        signs: of their triple products in training, shape (C,).
        known: handednesses of the fragments that the model has, relative to training: ±1, shape
            (any, fragments).
    """

    names: tuple[str, ...]
    corners: Ints
    fragment: Ints
    signs: Floats
    known: Ints

    @classmethod
    def of(cls, bonds: Sequence[FragmentBonds], binding: SGDMLModel | None) -> Handedness | None:
        """Read it off the training geometries of a binding; None where a file keeps none."""
        if binding is None or (frames := binding.parameters.positions) is None:
            return None
        frames = frames[:: max(1, len(frames) // FRAMES)] * binding.native.length_ang
        names, corners, signs = list[str](), list[Ints](), list[Floats]()
        for one in bonds:
            found, sign = _clear(_corners(one), frames)
            if len(found):
                names.append(one.name)
                corners.append(found)
                signs.append(sign)
        if len(names) < 2:
            return None  # one alone, or beside such as are their own mirror images: all is as good
        fragment = np.repeat(np.arange(len(names)), [len(found) for found in corners])
        training = np.ones((1, len(names)), dtype=np.int64)
        draft = cls(
            tuple(names), np.concatenate(corners), fragment, np.concatenate(signs), training
        )
        hands = [draft.hands(frames[0][perm]) for perm in binding.parameters.perms]
        return replace(draft, known=np.unique(hands, axis=0))

    def hands(self, positions: Floats) -> Ints:
        """Return of each fragment +1 where it is numbered as in training, −1 as its mirror image.

        Args:
            positions: Å, shape (N, 3).
        """
        agree = self.signs * triple_products(positions, self.corners)
        result: Ints = np.where(np.bincount(self.fragment, agree) < 0.0, -1, 1)
        return result

    def check(self, positions: Floats) -> None:
        """Refuse a numbering that the model does not know (StructureError)."""
        found = self.hands(positions)
        if self._knows(found):
            return
        odd = self.names[int(np.flatnonzero(found != found[0])[0])]
        raise StructureError(
            f"{odd} is the mirror image, beside {self.names[0]}, of what the model was trained on: "
            "its equal atoms are numbered the other way round, or it is the other enantiomer; "
            "deltaserver reorder puts atoms in order"
        )

    def knows_two_alike(self) -> bool:
        """Tell whether two equal molecules may be numbered alike: in training they may not be."""
        first, second = (self.signs[self.fragment == k] for k in (0, 1))
        if len(first) != len(second):
            return True  # different molecules
        return self._knows(np.array([1, 1 if first @ second > 0.0 else -1]))

    def _knows(self, hands: Ints) -> bool:
        """Tell whether one of the model's permutations leads to these; all mirrored are as good."""
        return any((hands == one).all() or (hands == -one).all() for one in self.known)


def _clear(corners: Ints, frames: Floats) -> tuple[Ints, Floats]:
    """Return the corners that have one sign in all frames (M, N, 3), none of flat ones; and it.

    A molecule that turns inside out, as ammonia does, has none.
    """
    products = np.array([triple_products(x, corners) for x in frames])  # [frames, corners]
    signs = np.sign(products)
    clear = (signs == signs[0]).all(axis=0) & (np.abs(products).mean(axis=0) > FLAT_ANG3)
    return corners[clear], signs[0][clear]


def _corners(bonds: FragmentBonds) -> Ints:
    """Return every centre with three of its neighbours, shape (C, 4)."""
    around: dict[int, list[int]] = {}
    for i, j in zip(bonds.i.tolist(), bonds.j.tolist(), strict=True):
        around.setdefault(i, []).append(j)
        around.setdefault(j, []).append(i)
    return corners_of(around)
