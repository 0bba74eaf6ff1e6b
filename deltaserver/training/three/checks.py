"""What frames of order 3 cannot be trained with: said before anything is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from deltaserver.arrays import Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError
from deltaserver.model.many.triple_binding import may_be_exchanged
from deltaserver.training.components import BINDING, Component

TRIPLES = "triples"  # the prior of three molecules


def is_of_three(frames: LabelledFrames, component: Component) -> bool:
    """Return whether a component is what three molecules have beyond their pairs."""
    return frames.order == 3 and component.name == BINDING


def refuse_what_makes_no_sense(
    frames: LabelledFrames, wanted: Sequence[Component], linear: str, prior: str
) -> None:
    """Refuse options that are of pairs alone for triples, and the other way.

    Raises:
        DataError: naming the option.
    """
    three = any(is_of_three(frames, component) for component in wanted)
    if prior == TRIPLES and frames.order != 3:
        raise DataError(
            f"{frames.name}: --prior triples is of three molecules beyond their pairs; cut a "
            "dataset with --order 3"
        )
    if not three:
        return
    if linear != "none":
        raise DataError(
            f"{frames.name}: of order 3: --linear {linear} expands pairs; train --component "
            "binding without it"
        )
    if prior not in ("none", TRIPLES):
        raise DataError(
            f"{frames.name}: of order 3: --prior {prior} is of pairs, which are taken off its "
            "labels; give none or triples"
        )
    start = 0
    for one in frames.fragments:
        if one.atoms != tuple(range(start, start + len(one.atoms))):
            raise DataError(
                f"{frames.name}: of order 3: fragment {one.name} does not stand after the one "
                "before it, as molecules of many do; cut it anew"
            )
        start += len(one.atoms)


def refuse_without_prior(
    frames: LabelledFrames, component: str, prior: str, n_train: int, induction: Path | None
) -> None:
    """Refuse what is of a prior of three molecules where there is none.

    Raises:
        DataError: naming the option.
    """
    if induction is not None and (prior != TRIPLES or frames.order != 3):
        raise DataError(
            f"{frames.name}: --induction is fitted beside the dispersion of three molecules; give "
            "--prior triples, and a dataset that was cut with --order 3"
        )
    if n_train == 0 and (prior != TRIPLES or component != BINDING):
        raise DataError(
            f"{frames.name}: --n-train 0 leaves a prior of three molecules without a kernel; give "
            "--component binding --prior triples, or points to train on"
        )


def check_exchange(frames: LabelledFrames, components: Sequence[Component], perms: Ints) -> None:
    """Refuse permutations by which alike molecules could not be exchanged: no system has such.

    Raises:
        DataError: one is missing.
    """
    species = kinds(components)
    sizes = [len(one.atoms) for one in frames.fragments]
    if not may_be_exchanged(perms, sizes, species):
        raise DataError(
            f"{frames.name}: of order 3: the permutations do not exchange alike molecules atom by "
            "atom, in any of which each can be the first; give --symmetry product and at least "
            "--max-permutations 6"
        )


def kinds(components: Sequence[Component]) -> tuple[int, ...]:
    """Return of every fragment which kind of molecule it is; alike ones have one number."""
    kind = {member: k for k, component in enumerate(components) for member in component.members}
    return tuple(kind[member] for member in sorted(kind))
