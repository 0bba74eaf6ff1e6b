"""What learns: a complex by itself, or every two or three molecules of many."""

from __future__ import annotations

from collections.abc import Callable

from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError, InputError
from deltaserver.improve.settings import Settings
from deltaserver.improve.subjects.base import Subject
from deltaserver.improve.subjects.many import ManyMolecules
from deltaserver.improve.subjects.one_complex import OneComplex
from deltaserver.improve.subjects.trimers import Trimers
from deltaserver.model.many.manifest import is_of_many


def subject_of(settings: Settings, base: LabelledFrames, say: Callable[[str], None]) -> Subject:
    """Return what ``settings.models`` are of, its first models not copied yet.

    Raises:
        InputError: models and dataset do not fit each other, or ``--pair`` is of the other kind.
    """
    if is_of_many(settings.models):
        return (Trimers if base.order == 3 else ManyMolecules)(settings, base, say)
    if base.order == 3:
        raise DataError(
            f"{settings.dataset}: of order 3, what three molecules have beyond their pairs, which "
            f"{settings.models}, of one complex, do not have; give models of many molecules"
        )
    if settings.pair is not None:
        raise InputError(
            f"--pair {settings.pair}: is for models of many molecules, and {settings.models} are "
            "of one complex; leave it out"
        )
    return OneComplex(settings, base, say)
