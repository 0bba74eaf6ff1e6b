"""Whether two names can be of one reference method: names are free text, and spelt in many ways."""

from __future__ import annotations

from collections.abc import Iterable

# What stands where no method was stated: of a model, and of frames imported without --reference.
NOT_STATED = ("not stated", "of ")


def differ(one: str, other: str) -> bool:
    """Tell whether two stated methods are different ones.

    They are one if all words of one begin the other, as in ``GFN2-xTB`` and ``GFN2-xTB tblite``;
    what stands in brackets, the case and a program before a colon do not count.
    """
    if any(name.startswith(NOT_STATED) for name in (one, other)):
        return False
    shorter, longer = sorted((_words(one), _words(other)), key=len)
    return longer[: len(shorter)] != shorter


def labels_of_another(labels: str, models: Iterable[tuple[str, str]]) -> str:
    """Return which models, (name, method) each, are of another method than labels; empty: none."""
    others = [f"{name} of {method}" for name, method in models if differ(method, labels)]
    return f"The labels are of {labels}, {', '.join(others)}" if others else ""


def _words(name: str) -> list[str]:
    return name.partition("(")[0].rpartition(":")[2].casefold().split()
