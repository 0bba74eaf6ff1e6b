"""A directory of many molecules with a binding of two that was trained anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltaserver.arrays import Floats
from deltaserver.model import force_field
from deltaserver.model.directories import MANIFEST_NAME
from deltaserver.model.trust.stored_frame import CHECK_NAME, store
from deltaserver.textio.journal import write_atomically
from deltaserver.textio.strict_yaml import dump_yaml, load_yaml
from deltaserver.training.components import BINDING
from deltaserver.training.directory.files import write_report


@dataclass(frozen=True)
class Place:
    """Where in the directory what was trained belongs.

    Attributes:
        binding: the model file of the two molecules.
        positions: of the structure, Å, (N, 3).
    """

    binding: str
    positions: Floats


def put_into(
    first: Path, output: Path, place: Place, files: Mapping[str, Path], report: dict[str, Any]
) -> None:
    """Write ``first`` anew as ``output``, with other model files and the prior of a training.

    Args:
        first: a directory of many molecules.
        output: the new one.
        place: where the binding belongs.
        files: what takes the place of the files of these names.
        report: ``training.json`` of the binding.
    """
    output.mkdir(parents=True, exist_ok=True)
    for path in sorted(first.iterdir()):
        if path.is_file() and path.name != MANIFEST_NAME:
            write_atomically(output / path.name, files.get(path.name, path).read_bytes())
    write_report(output, report)
    data = load_yaml((first / MANIFEST_NAME).read_bytes())
    entry = next(one for one in data["bindings"] if one.get("model") == place.binding)
    trained = report["components"][BINDING]
    if "prior" in trained:  # else it stands on none, as before
        entry["prior"] = trained["prior"]
    write_atomically(output / MANIFEST_NAME, dump_yaml(data).encode())
    if (output / CHECK_NAME).exists():  # what the models gave before
        stored = store(force_field.load(output), place.positions)
        write_atomically(output / CHECK_NAME, f"{stored}\n".encode())
