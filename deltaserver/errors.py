"""Everything deltaserver raises on purpose, and the exit code that goes with it.

DeltaserverError
├── InputError (exit 2)            what the user gave us is wrong
│   ├── UnitError
│   ├── ManifestError              model.yaml
│   ├── ModelFileError             an .npz model
│   ├── GeometryError              positions or cell that do not fit the model
│   ├── ComponentError             a component that the model does not have
│   ├── DataError                  datasets, labels, trajectories, logs
│   └── MissingExtraError          an optional dependency is not installed
├── ConnectionLostError (exit 3)   the network or the peer
│   ├── NoServerError              nobody listens at the address
│   └── ProtocolError              the peer sent what the protocol does not allow
├── GuardError (exit 4)            we refuse to send a result that cannot be right
│   ├── StructureError             a structure that is not the model's molecule
│   └── NoveltyError               a structure too far from what the model was trained on
└── EndedEarlyError (exit 6)       a run has ended in order, but before its last step

Users see one line: what is wrong, where, what to do. Any other exception is our fault
(exit 5) and is the only kind that may show a traceback.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from deltaserver.arrays import Floats

EXIT_OK = 0
EXIT_INPUT = 2
EXIT_CONNECTION = 3
EXIT_GUARD = 4
EXIT_INTERNAL = 5
EXIT_ENDED_EARLY = 6
EXIT_INTERRUPTED = 130  # Ctrl-C in a command that was not done: what shells expect


class DeltaserverError(Exception):
    """Base of every error that deltaserver raises on purpose."""

    exit_code = EXIT_INTERNAL


class InputError(DeltaserverError):
    """A file, option or value given by the user cannot be used."""

    exit_code = EXIT_INPUT


class UnitError(InputError):
    """A unit's name is not known."""


class ManifestError(InputError):
    """A model directory's ``model.yaml`` is wrong or disagrees with its model files."""


class ModelFileError(InputError):
    """An sGDML model file is missing, corrupt, or not a model."""


class GeometryError(InputError):
    """Positions or a cell do not fit the model they are given to."""


class ComponentError(InputError):
    """A component was asked for that the model does not have."""


class DataError(InputError):
    """A dataset, trajectory or log cannot be used."""


class MissingExtraError(InputError):
    """An optional dependency is needed that is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} is not installed; run: pip install 'deltaserver[{extra}]'")


class ConnectionLostError(DeltaserverError):
    """The connection to i-PI could not be made or ended in the wrong place."""

    exit_code = EXIT_CONNECTION


class NoServerError(ConnectionLostError):
    """Nobody listens at the address within ``--connect-timeout``."""


class ProtocolError(ConnectionLostError):
    """The peer sent bytes that the i-PI protocol does not allow in this state."""


class GuardError(DeltaserverError):
    """A result cannot be right and is not sent."""

    exit_code = EXIT_GUARD


class StructureError(GuardError):
    """A structure is not the molecule that the model was trained on, atom by atom."""


class NoveltyError(GuardError):
    """A structure is too far from what the model was trained on (``--on-extrapolation stop``).

    With ``--on-extrapolation label`` it has the ``way`` there, (n, N, 3), Å: the structures that
    were served, the one that is too far being the last.
    """

    def __init__(self, message: str, way: Floats | None = None) -> None:
        super().__init__(message)
        self.way = way


class EndedEarlyError(DeltaserverError):
    """A run has ended in order, but before its last step; it can be continued."""

    exit_code = EXIT_ENDED_EARLY
