"""Where models are: a directory that is given, or the name of one that is installed.

Any distribution may ship models as data of the namespace package ``deltaserver_models``, a
directory each; ``deltaserver-models``, made from the repository's ``models/``, ships ours. Run
from a checkout, the checkout's own are found as well.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from deltaserver.errors import InputError

MANIFEST_NAME = "model.yaml"
STRUCTURE_NAME = "structure.xyz"  # where simulations start from unless told otherwise
BINDINGS_NAME = "bindings.yaml"  # of trimers: what goes into model.yaml of many molecules
REPORT_NAME = "training.json"  # how models were trained, as the directory of a training tells
PACKAGE = "deltaserver_models"
# What paths that are too long, hold NUL, loop or are forbidden raise.
UNUSABLE_PATH = (OSError, ValueError, RuntimeError)


def refuse_file(output: Path) -> None:
    """Raise InputError where models are to be written, and there is a file."""
    if output.exists() and not output.is_dir():
        raise InputError(f"{output}: is a file; expected a directory for the models")


def refuse_shipped(directory: Path, option: str) -> None:
    """Raise InputError where a model is to be changed that was told by its name alone."""
    if model_directory(directory) in shipped_models().values():
        raise InputError(
            f"{option} writes into the model's directory, and {directory.name} is a shipped one; "
            f"copy it first: deltaserver models get {directory.name}"
        )


def shipped_models() -> dict[str, Path]:
    """Return the directories of all installed models by name, in alphabetical order."""
    found: dict[str, Path] = {}
    for place in _places():
        for manifest in place.glob(f"*/{MANIFEST_NAME}"):
            found.setdefault(manifest.parent.name, manifest.parent)
    return dict(sorted(found.items()))


def model_directory(path: str | Path) -> Path:
    """Return ``path``; where no model is there and it is an installed one's name, that directory.

    What is in the working directory goes before what is installed.
    """
    given = Path(path)
    try:
        is_there = given.is_file() or (given / MANIFEST_NAME).is_file()
    except UNUSABLE_PATH:
        return given  # whoever reads it says what is wrong with it
    if is_there or len(given.parts) != 1:
        return given
    return shipped_models().get(given.name, given)


def _places() -> list[Path]:
    """Return the directories that hold model directories: the installed, then the checkout's."""
    spec = importlib.util.find_spec(PACKAGE)
    installed = (spec.submodule_search_locations or []) if spec else []
    root = Path(__file__).resolve().parents[2]
    checkout = [root / "models"] if (root / "models" / "pyproject.toml").is_file() else []
    return [*map(Path, installed), *checkout]
