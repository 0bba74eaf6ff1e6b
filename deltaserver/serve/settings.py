"""What a daemon is told: what to serve, where, and what to refuse."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from deltaserver.model.trust import NOVELTY_LIMIT
from deltaserver.serve.transport import Address

Extras = Literal["summary", "full"]
EXTRAS: tuple[Extras, ...] = ("summary", "full")
OnExtrapolation = Literal["warn", "stop", "label", "ignore"]
ON_EXTRAPOLATION: tuple[OnExtrapolation, ...] = ("warn", "stop", "label", "ignore")
ENDING = ("stop", "label")  # of these, what ends the daemon
# How long i-PI may be away where it is not said; a longer pause is somebody's decision.
RECONNECT_LIMIT_S = 600.0


@dataclass(frozen=True)
class GuardSettings:
    """What is refused, validated by whoever builds it.

    Attributes:
        structure_check: whether the first structures must be the model's molecule, and none may
            be wrapped or in a cell too small for it.
        extrapolation: what to do with structures beyond one of the limits.
        novelty_limit: see :mod:`deltaserver.model.trust.novelty`.
        uncertainty_limit: of the forces, eV/Å, beyond which a structure counts as well; or None.
        frame_file: where the structure goes that ends the run for its novelty.
        single_precision: whether rounding is that of float32.
        continues: whether a run goes on whose first structures were compared when it began: what
            it has become, stretched at will, is no start.
    """

    structure_check: bool = True
    extrapolation: OnExtrapolation = "warn"
    novelty_limit: float = NOVELTY_LIMIT
    uncertainty_limit: float | None = None
    frame_file: Path = Path("extrapolation.xyz")
    single_precision: bool = False
    continues: bool = False


def frame_beside(log_file: Path | None) -> Path:
    """Name the file of the structure that ends a run after the log file, beside it."""
    beside = Path("deltaserver") if log_file is None else log_file.with_suffix("")
    return beside.with_name(f"{beside.name}_extrapolation.xyz")


@dataclass(frozen=True)
class ServeSettings:
    """What to serve and where, validated by whoever builds it.

    With ``keeper`` a second process ends our connections in order if we are killed.
    With ``reconnect_limit_s`` a connection that ends without EXIT is made again, if the server
    is back within that time; without it, its end is the end of serving that address.
    """

    addresses: tuple[Address, ...]
    component: str = "total"
    extras: Extras = "summary"
    connect_timeout_s: float = 60.0
    batch_window_s: float = 0.0
    reconnect_limit_s: float | None = None
    guard: GuardSettings = field(default_factory=GuardSettings)
    keeper: bool = False
