"""What learns: a complex by itself, or every two molecules of many."""

from __future__ import annotations

from collections.abc import Callable

from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import InputError
from deltaserver.improve.settings import Settings
from deltaserver.improve.subjects.base import Subject
from deltaserver.improve.subjects.many import ManyMolecules
from deltaserver.improve.subjects.one_complex import OneComplex
from deltaserver.model.many.manifest import is_of_many


def subject_of(settings: Settings, base: LabelledFrames, say: Callable[[str], None]) -> Subject:
    """Return what ``settings.models`` are of, its first models not copied yet.

    Raises:
        InputError: models and dataset do not fit each other, or ``--pair`` is of the other kind.
    """
    if is_of_many(settings.models):
        return ManyMolecules(settings, base, say)
    if settings.pair is not None:
        raise InputError(
            f"--pair {settings.pair}: is for models of many molecules, and {settings.models} are "
            "of one complex; leave it out"
        )
    return OneComplex(settings, base, say)
