"""What i-PI's input says in the ``<parameters>`` of an ffdirect that is ours. No IO."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from deltaserver.errors import InputError
from deltaserver.model.engines import PRECISIONS, STORAGES, Precision, Storage
from deltaserver.model.trust import NOVELTY_LIMIT
from deltaserver.serve.settings import (
    EXTRAS,
    ON_EXTRAPOLATION,
    Extras,
    GuardSettings,
    frame_beside,
)

Choice = TypeVar("Choice", bound=str)
OF_IPI = ("verbosity",)  # what i-PI adds of its own
# A daemon is started again with the models that were taught; i-PI keeps its force field.
UNTAUGHT = tuple(name for name in ON_EXTRAPOLATION if name != "label")


@dataclass(frozen=True)
class PluginSettings:
    """What to evaluate, and what to refuse; the daemon's options of the same names.

    Attributes:
        models: the model directory.
        component: what is served.
        extras: what i-PI gets beside forces.
        device: of the torch backend; None: the numpy backend.
        precision: of the torch backend.
        threads: of the evaluation; None: as the daemon takes them.
        storage: of training points.
        guard: what is refused.
        log_file: of JSON lines, or None.
        log_every: structures between two of its lines.
        first_seq: number of the first structure, of a run that is continued.
        max_stretch, max_separation: beyond which a structure has come apart, see
            :class:`deltaserver.simulate.blowup.Limits`; None: that is not looked at.
    """

    models: Path
    component: str = "total"
    extras: Extras = "summary"
    device: str | None = None
    precision: Precision = "float64"
    threads: int | None = None
    guard: GuardSettings = field(default_factory=GuardSettings)
    log_file: Path | None = None
    log_every: int = 1
    first_seq: int = 0
    max_stretch: float | None = None
    max_separation: float | None = None
    storage: Storage = "auto"


KEYS = (
    "models", "component", "extras", "device", "precision", "threads", "structure_check",
    "on_extrapolation", "novelty_limit", "uncertainty_limit", "log_file", "log_every",
    "first_seq", "max_stretch", "max_separation", "storage", "continues",
)  # fmt: skip


def parse_settings(parameters: Mapping[str, Any]) -> PluginSettings:
    """Read what i-PI has made of ``<parameters>``: texts, numbers, truth values.

    Raises:
        InputError: a key that is not known, a value that cannot be used, no models.
    """
    given = {key: str(value) for key, value in parameters.items() if key not in OF_IPI}
    if unknown := [key for key in given if key not in KEYS]:
        near = difflib.get_close_matches(unknown[0].lower(), KEYS, n=1)
        meant = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"<parameters> of the ffdirect has the unknown key {unknown[0][:40]!r}; known keys: "
            f"{', '.join(KEYS)}{meant}"
        )
    if not given.get("models"):
        raise InputError(
            "<parameters> of the ffdirect names no models; expected "
            "{models:DIRECTORY}, with a model.yaml in it"
        )
    read = _Reader(given)
    log_file = Path(given["log_file"]) if "log_file" in given else None
    precision = read.choice("precision", PRECISIONS, "float64")
    return PluginSettings(
        Path(given["models"]),
        given.get("component", "total"),
        read.choice("extras", EXTRAS, "summary"),
        given.get("device"),
        precision,
        read.number("threads", "a whole number from 1 on", _at_least(1), None),
        GuardSettings(
            read.number("structure_check", "True or False", _truth, True),
            read.choice("on_extrapolation", UNTAUGHT, "warn"),
            read.number("novelty_limit", POSITIVE, _positive, NOVELTY_LIMIT),
            read.number("uncertainty_limit", POSITIVE, _positive, None),
            frame_beside(log_file),
            precision == "float32",
            read.number("continues", "True or False", _truth, False),
        ),
        log_file,
        read.number("log_every", "a whole number from 1 on", _at_least(1), 1),
        read.number("first_seq", "a whole number", _at_least(0), 0),
        read.number("max_stretch", POSITIVE, _positive, None),
        read.number("max_separation", POSITIVE, _positive, None),
        read.choice("storage", STORAGES, "auto"),
    )


POSITIVE = "a number above 0"


class _Reader:
    """Takes values out of texts, or says which text is none."""

    def __init__(self, given: Mapping[str, str]) -> None:
        self.given = given

    def number(self, key: str, expected: str, parse: Callable[[str], Any], default: Any) -> Any:
        """Return the value of ``key`` as ``parse`` reads it; ``default`` where there is none."""
        if key not in self.given:
            return default
        try:
            return parse(self.given[key])
        except ValueError:
            raise InputError(
                f"<parameters> of the ffdirect: {key} is {self.given[key][:40]!r}; "
                f"expected {expected}"
            ) from None

    def choice(self, key: str, known: tuple[Choice, ...], default: Choice) -> Choice:
        """Return the value of ``key``, one of those known."""
        found: Choice = self.number(
            key, f"one of {', '.join(known)}", lambda text: known[known.index(text)], default
        )
        return found


def _at_least(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        number = int(text)
        if number < least:
            raise ValueError(text)
        return number

    return parse


def _positive(text: str) -> float:
    number = float(text)
    if not 0.0 < number < float("inf"):
        raise ValueError(text)
    return number


def _truth(text: str) -> bool:
    return ("false", "true").index(text.lower()) == 1
