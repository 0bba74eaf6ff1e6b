"""A directory of many molecules with a binding of two, or of three, that was trained anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltaserver.arrays import Floats
from deltaserver.model import force_field
from deltaserver.model.directories import MANIFEST_NAME
from deltaserver.model.many.electrostatics.block import rename_species
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
    _finish(output, data, place.positions)


def _finish(output: Path, data: dict[str, Any], positions: Floats) -> None:
    """Write ``model.yaml``, and anew what the models gave at some positions."""
    write_atomically(output / MANIFEST_NAME, dump_yaml(data).encode())
    if (output / CHECK_NAME).exists():
        stored = store(force_field.load(output), positions)
        write_atomically(output / CHECK_NAME, f"{stored}\n".encode())


@dataclass(frozen=True)
class Three:
    """What a training of three molecules has left for ``model.yaml``.

    Attributes:
        path: of its ``bindings.yaml``.
        names: of the three species in the models of many, in its order.
    """

    path: Path
    names: list[str]

    def told(self) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return the entry of the binding and the induction, by the names of the models."""
        data = load_yaml(self.path.read_bytes())
        (entry,) = data["bindings"]
        called = dict(zip(entry["between"], self.names, strict=True))
        induction = data.get("induction")
        if induction is not None:
            induction = rename_species(induction, called)
        return {**entry, "between": self.names}, induction

    def is_in(self, models: Path) -> bool:
        """Tell whether a directory of many molecules has just this."""
        data = load_yaml((models / MANIFEST_NAME).read_bytes())
        entry, induction = self.told()
        there: dict[str, Any] = next(
            (one for one in data["bindings"] if one["between"] == self.names), {}
        )
        if ("model" in there) != ("model" in entry):
            return False
        if {**there, "model": ""} != {**entry, "model": ""}:
            return False
        if "model" in entry:
            files = models / there["model"], self.path.parent / entry["model"]
            if not files[0].is_file() or files[0].read_bytes() != files[1].read_bytes():
                return False
        return bool(data.get("induction") == induction)


def put_three_into(first: Path, output: Path, three: Three, positions: Floats) -> None:
    """Write ``first``, a directory of many molecules, anew as ``output``, with another binding.

    Args:
        first: the directory.
        output: the new one.
        three: what takes the place of the binding of three and of induction.
        positions: of the structure, Å, (N, 3).
    """
    data = load_yaml((first / MANIFEST_NAME).read_bytes())
    entry, induction = three.told()
    k = next(k for k, one in enumerate(data["bindings"]) if one["between"] == three.names)
    files: dict[str, Path] = {}
    if "model" in entry:
        files[data["bindings"][k]["model"]] = three.path.parent / entry["model"]
        entry = {**entry, "model": data["bindings"][k]["model"]}
    data["bindings"][k] = entry
    if induction is None:
        data.pop("induction", None)
    else:
        data["induction"] = induction
    output.mkdir(parents=True, exist_ok=True)
    for path in sorted(first.iterdir()):
        if path.is_file() and path.name != MANIFEST_NAME:
            write_atomically(output / path.name, files.get(path.name, path).read_bytes())
    _finish(output, data, positions)
