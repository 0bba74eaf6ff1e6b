"""What was trained of three molecules, as ``deltaserver assemble`` puts it beside their pairs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.errors import ManifestError
from deltaserver.model.files.parameters import read_parameters
from deltaserver.model.many.electrostatics.block import rename_species
from deltaserver.simulate.structures.collected import Collected
from deltaserver.textio.strict_yaml import Checker


def take_bindings(found: Collected, path: Path) -> None:
    """Take over what was trained of three molecules, in the place of what binds them already."""
    check = Checker(path, ManifestError)
    top = check.mapping(check.read(), "the file", ("bindings",), ("induction",))
    called: dict[str, str] = {}
    for k, one in enumerate(check.sequence(top["bindings"], "bindings")):
        what = f"bindings[{k}]"
        entry = check.mapping(one, what, ("between",), ("model", "fade", "prior"))
        given = [check.text(name, what) for name in check.sequence(entry["between"], what)]
        names, kept = given, dict[str, Any]()
        if "model" in entry:
            own = path.parent / check.text(entry["model"], f"{what}.model")
            names = [found.species[place].name for place in _places(found, path, own, names)]
            kept["model"] = found.take(own, f"triple{own.suffix}")
        elif "prior" not in entry or len(names) != 3 or not _known(found, names):
            raise ManifestError(
                f"{path}: {what} has no model: expected its prior, and between: three of the "
                f"species {', '.join(one.name for one in found.species)}"
            )
        called |= zip(given, names, strict=True)
        found.bindings = [known for known in found.bindings if known["between"] != names]
        found.bindings.append({**entry, "between": names, **kept})
    induction = None
    if "induction" in top:
        keys = ("radius", "cutoff", "species")
        induction = check.mapping(top["induction"], "induction", keys)
        for k, one in enumerate(check.sequence(induction["species"], "induction.species")):
            check.mapping(one, f"induction.species[{k}]", ("name", "charges", "flows"))
    _take_induction(found, path, induction, called)


def _take_induction(
    found: Collected, path: Path, induction: dict[str, Any] | None, called: dict[str, str]
) -> None:
    """Take over what flows beside what was trained of three, in the place of what flowed before.

    ``called`` are the species by the names that they have in the file.
    """
    before = found.induction.get("induction")
    if induction is not None:
        found.induction = {"induction": rename_species(induction, called)}
    elif before and {*called.values()} <= {one["name"] for one in before["species"]}:
        found.induction = {}
    if before and found.induction.get("induction") != before:
        found.notes.append(
            f"induction is that of {path}, with which its three molecules were fitted"
            if induction
            else f"induction is left out: the three molecules of {path} were fitted without"
        )


def _known(found: Collected, names: Sequence[str]) -> bool:
    return set(names) <= {one.name for one in found.species}


def _places(found: Collected, path: Path, model: Path, named: Sequence[str]) -> list[int]:
    """Return which species the molecules of a binding's model are, by their elements."""
    parameters = read_parameters(model)
    if parameters.blocks is None or len(parameters.blocks.weights) != len(named):
        raise ManifestError(
            f"{path}: {model.name} does not say which atoms are of which of {', '.join(named)}; "
            "train it anew"
        )
    places: list[int] = []
    for k, name in enumerate(named):
        numbers = parameters.numbers[parameters.blocks.fragment == k]
        there = [s for s, one in enumerate(found.species) if np.array_equal(one.numbers, numbers)]
        if not there:
            raise ManifestError(
                f"{path}: no directory before it has a molecule of the elements of {name}; give "
                "that of its pairs first"
            )
        places += there
    if places != sorted(places):
        between = ",".join(found.species[k].name for k in sorted(places))
        raise ManifestError(
            f"{path}: its molecules stand in another order than the species; cut trimers "
            f"--between {between}"
        )
    return places
