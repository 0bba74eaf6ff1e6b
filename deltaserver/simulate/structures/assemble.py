"""Make a directory of many molecules of those of complexes, and of a structure.

Fragments that share a model file are one species, whose binding model and prior are taken over as
they are: nothing is trained.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import InputError, ManifestError
from deltaserver.model.composite import CompositeModel
from deltaserver.model.directories import (
    BINDINGS_NAME,
    MANIFEST_NAME,
    REPORT_NAME,
    STRUCTURE_NAME,
    refuse_file,
)
from deltaserver.model.files.parameters import read_parameters
from deltaserver.model.manifest import (
    FORMAT,
    IsolatedAtom,
    Manifest,
    format_atoms,
    manifest_path,
    parse_atoms,
    read_manifest,
)
from deltaserver.model.many.charges import dipole_e_ang
from deltaserver.model.many.electrostatics.charge_sets import NEUTRAL_E
from deltaserver.model.many.manifest import is_of_many
from deltaserver.model.prior_block import format_prior
from deltaserver.model.sgdml import resolve_units
from deltaserver.model.trust.structure import ExpectedStructure
from deltaserver.molecules.bonds import find_bonds, training_distances
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.simulate.structure import on_its_cell
from deltaserver.simulate.structures.collected import Collected, Species
from deltaserver.simulate.structures.of_three import take_bindings
from deltaserver.simulate.structures.units import shared_units
from deltaserver.textio.strict_yaml import dump_yaml, load_yaml

POLAR_E_ANG = 0.05  # fitted charges of water have 0.08, those of benzene 0.01 by vibrations


def assemble(
    sources: Sequence[Path],
    structure: Path | None,
    output: Path,
    name: str | None,
    periodic: bool,
    ewald: bool | None = None,
) -> tuple[Path, list[str]]:
    """Write the directory; return where its ``model.yaml`` is, and what to tell of it.

    Args:
        sources: model directories, of complexes or of many molecules, and of trimers trained.
        structure: XYZ that tells how many molecules there are, each with its atoms in its model's
            order.
        output: the new directory.
        name: the model's; else the directory's.
        periodic: whether the structure repeats.
        ewald: whether charges are summed over all images; None: as the directory of many molecules
            has it, else where the structure repeats and molecules have a charge or a dipole.

    Raises:
        InputError: the directory holds a model already, an Ewald sum is of a cluster, or what
            repeats has no cell.
        ManifestError: a source cannot be taken apart.
    """
    if (output / MANIFEST_NAME).exists():
        raise InputError(f"{output}: there is a {MANIFEST_NAME} already; give another directory")
    refuse_file(output)
    if ewald and not periodic:
        raise InputError("--ewald is of what repeats; give --periodic as well")
    notes = [] if structure is None else on_its_cell(structure, periodic)
    found = Collected()
    for source in sources:
        if (source / BINDINGS_NAME).is_file() and not (source / MANIFEST_NAME).exists():
            take_bindings(found, source / BINDINGS_NAME)
        elif is_of_many(source):
            _take_many(found, source)
        else:
            _take_complex(found, read_manifest(source))
    _take_record(found)
    output.mkdir(parents=True, exist_ok=True)
    for target, origin in found.files.items():
        shutil.copyfile(origin, output / target)
    if structure is not None:
        shutil.copyfile(structure, output / STRUCTURE_NAME)
    data = {
        "format": FORMAT,
        "name": name or output.resolve().name,
        "reference": ", ".join(dict.fromkeys(found.references)),
        **({"units": found.units} if found.units else {}),
        "species": [one.entry for one in found.species],
        "bindings": found.bindings,
        **found.induction,
        "periodic": periodic,
        **_cutoff(found, periodic),
        **({"ewald": True} if periodic and _sums_charges(found, ewald) else {}),
    }
    path = output / MANIFEST_NAME
    path.write_text(dump_yaml(data), encoding="utf-8")
    return path, [*notes, *found.notes]


def _take_record(found: Collected) -> None:
    """Take over how the binding was trained, which improve trains again; of several none tells."""
    if len(found.origins) == 1 and (record := found.origins[0] / REPORT_NAME).is_file():
        found.files[REPORT_NAME] = record


def _cutoff(found: Collected, periodic: bool) -> dict[str, Any]:
    """Return the cutoff that is taken over: a cluster needs none of what repeats."""
    if found.cutoff is None:
        return {}
    cutoff, repeats = found.cutoff
    return {"cutoff": cutoff} if periodic or not repeats else {}


def _sums_charges(found: Collected, ewald: bool | None) -> bool:
    """Return whether charges are to be summed over all images."""
    if ewald is not None or found.ewald is not None:
        return bool(found.ewald if ewald is None else ewald)
    names = [one.name for one in found.species]
    for entry in found.bindings:
        if len(entry["between"]) != 2 or "prior" not in entry:
            continue
        kinds = [names.index(name) for name in entry["between"]]
        charges = np.zeros(sum(len(found.species[kind].numbers) for kind in kinds))
        for one in entry["prior"]["classes"]:
            charges[list(parse_atoms(one["atoms"]))] = one.get("charge", 0.0)
        own = np.split(charges, [len(found.species[kinds[0]].numbers)])
        if any(_acts_far(found, k, some) for k, some in zip(kinds, own, strict=True)):
            return True
    return False


def _acts_far(found: Collected, kind: int, charges: Floats) -> bool:
    """Return whether a molecule has a charge, or a dipole in training."""
    if abs(charges.sum()) > NEUTRAL_E:
        return True
    entry = found.species[kind].entry
    if "model" not in entry:
        return False
    parameters = read_parameters(found.files[entry["model"]])
    native = resolve_units(parameters, found.units.get("length"), found.units.get("energy"))
    return dipole_e_ang(charges, parameters.x, native.length_ang) > POLAR_E_ANG


def _take_complex(found: Collected, manifest: Manifest) -> None:
    """Take over the fragments and the binding of a complex of two."""
    if len(manifest.fragments) != 2:
        raise ManifestError(
            f"{manifest.path}: it has {len(manifest.fragments)} fragments; a complex of two tells "
            "what binds two molecules"
        )
    found.references.append(manifest.reference)
    found.origins.append(manifest.path.parent)
    units = {"length": manifest.length_unit, "energy": manifest.energy_unit}
    models = [one.model for one in manifest.fragments] + [manifest.binding]
    files = [model for model in models if isinstance(model, Path)]
    found.units = shared_units(found.units, units, files, manifest.path)
    shared = manifest.fragments[0].model == manifest.fragments[1].model
    atoms: list[int] = []
    places = []
    for fragment in manifest.fragments:
        atoms += fragment.atoms
        name = re.sub(r"\d+\Z", "", fragment.name) or fragment.name if shared else fragment.name
        places.append(_species(found, name, fragment.model, manifest))
    if atoms != list(range(len(atoms))):
        raise ManifestError(
            f"{manifest.path}: the fragments' atoms are {format_atoms(tuple(atoms))}; to be taken "
            "apart they stand one fragment after the other"
        )
    if places != sorted(places):
        raise ManifestError(
            f"{manifest.path}: its fragments stand in another order than those of the directories "
            "before it; give this directory first"
        )
    entry: dict[str, Any] = {"between": [found.species[k].name for k in places]}
    if manifest.binding and places[0] == places[1]:
        _numbered_alike(manifest)
    if manifest.binding:
        entry["model"] = found.take(manifest.binding, manifest.binding.name)
    if manifest.prior:
        entry["prior"] = format_prior(manifest.prior, format_atoms)
    found.bindings.append(entry)


def _numbered_alike(manifest: Manifest) -> None:
    """Refuse equal molecules that are known as each other's mirror images alone (ManifestError)."""
    handedness = ExpectedStructure.of(CompositeModel.load(manifest.path)).handedness
    if handedness is not None and not handedness.knows_two_alike():
        raise ManifestError(
            f"{manifest.path}: its two molecules are numbered as each other's mirror images, and "
            "no permutation of its binding mirrors one alone: it is for two; train on a dataset "
            "whose molecules are numbered alike, or with --symmetry product and enough "
            "--max-permutations"
        )


def _species(found: Collected, name: str, model: Path | IsolatedAtom, manifest: Manifest) -> int:
    """Return the number of a species: that of the same molecule, with its model, if there is one.

    Raises:
        ManifestError: two molecules of the same elements, or two of one name.
    """
    if isinstance(model, IsolatedAtom):
        numbers, bonds = np.array([model.number]), frozenset[tuple[int, int]]()
    else:
        numbers, bonds = _molecule(model, found.units)
    where, reference = manifest.path.parent, manifest.reference
    for k, known in enumerate(found.species):
        if np.array_equal(known.numbers, numbers):
            _same_molecule(known, bonds, where)
            if known.reference != reference:
                found.notes.append(
                    f"{known.name}: its model is that of {known.directory} ({known.reference}), "
                    f"not of {where} ({reference})"
                )
            return k
    if any(known.name == name for known in found.species):
        raise ManifestError(
            f"two directories have a {name} with its atoms in another order, or with other atoms: "
            "train them on datasets that agree"
        )
    entry: dict[str, Any] = {"name": name}
    if isinstance(model, IsolatedAtom):
        entry |= {
            "element": SYMBOLS[model.number],
            "energy": float(model.energy_ev),
            "energy_unit": "eV",
        }
    else:
        entry["model"] = found.take(model, model.name)
    found.species.append(Species(entry, numbers, bonds, where, reference))
    return len(found.species) - 1


def _molecule(model: Path, units: dict[str, str]) -> tuple[Ints, frozenset[tuple[int, int]]]:
    """Return atomic numbers and bonds of the molecule of a model file."""
    parameters = read_parameters(model)
    native = resolve_units(parameters, units.get("length"), units.get("energy"))
    distances = training_distances(parameters.x, native.length_ang)
    atoms = np.arange(len(parameters.numbers))
    bonds = find_bonds(model.stem, parameters.numbers, atoms, distances)
    return parameters.numbers, frozenset(zip(bonds.i.tolist(), bonds.j.tolist(), strict=True))


def _same_molecule(known: Species, bonds: frozenset[tuple[int, int]], where: Path) -> None:
    """Refuse isomers, and a molecule whose equal atoms stand in another order (ManifestError)."""
    if known.bonds and bonds and known.bonds != bonds:
        i, j = min(known.bonds ^ bonds)
        raise ManifestError(
            f"{where}: a molecule has the elements of {known.name} of {known.directory}, but other "
            f"bonds (atoms {i} and {j} are bonded in one of the two): isomers, or atoms in another "
            "order; train them on datasets that agree"
        )


def _take_many(found: Collected, source: Path) -> None:
    """Take over everything of a directory of many molecules but how many there are."""
    path = manifest_path(source)
    data = load_yaml(path.read_bytes())
    if found.species:
        raise ManifestError(
            f"{path}: a directory of many molecules can only be given alone, or first"
        )
    reference = str(data.get("reference", "not stated"))
    found.references.append(reference)
    found.origins.append(path.parent)
    entries = [*data["species"], *data.get("bindings", [])]
    files = [path.parent / entry["model"] for entry in entries if "model" in entry]
    found.units = shared_units({}, data.get("units", {}), files, path)
    if data.get("periodic"):
        found.ewald = bool(data.get("ewald", False))
    found.induction = {key: data[key] for key in ("induction",) if key in data}
    if "cutoff" in data:
        found.cutoff = (data["cutoff"], bool(data.get("periodic")))
    for entry in data["species"]:
        kept = {key: value for key, value in entry.items() if key not in ("count", "atoms")}
        if "model" in kept:
            own = path.parent / kept["model"]
            kept["model"] = found.take(own, own.name)
            molecule = _molecule(own, found.units)
        else:
            molecule = np.array([SYMBOLS.index(kept["element"])]), frozenset()
        found.species.append(Species(kept, *molecule, source, reference))
    for entry in data.get("bindings", []):
        kept = dict(entry)
        if "model" in kept:
            own = path.parent / kept["model"]
            kept["model"] = found.take(own, own.name)
        found.bindings.append(kept)
