"""``model.yaml``: which atoms belong to which fragment, and which file is which model.

Parsed once into frozen dataclasses; every fault is one line that names the file, the entry,
what was expected and what was found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver import units
from deltaserver.arrays import Ints
from deltaserver.errors import ManifestError, UnitError
from deltaserver.model.directories import MANIFEST_NAME, UNUSABLE_PATH, model_directory
from deltaserver.model.prior import PairPrior
from deltaserver.model.prior_block import parse_prior
from deltaserver.molecules.elements import NUMBER_OF
from deltaserver.textio.strict_yaml import Checker, one_line, shown

FORMAT = "deltaserver-model/1"
MAX_ATOM_INDEX = 1_000_000
YAML_SUFFIXES = (".yaml", ".yml")
# Names become keys of JSON objects, i-PI output properties and file names.
NAME_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+\-]*\Z")
PRIOR, BINDING, TRIPLES = "prior", "binding", "triples"  # the last of three molecules alone
BOUND_PARTS = (PRIOR, BINDING, TRIPLES)  # whose sum is the binding energy
WHOLE_MODEL_PARTS = (*BOUND_PARTS, "full")  # contributions that are no fragment's
RESERVED_NAMES = ("total", "fragments", *WHOLE_MODEL_PARTS)


@dataclass(frozen=True)
class IsolatedAtom:
    """A one-atom fragment: a constant energy (eV) and no force."""

    number: int
    energy_ev: float

    @property
    def numbers(self) -> Ints:
        """The atomic number, as models of several atoms have them, shape (1,)."""
        return np.array([self.number])


@dataclass(frozen=True)
class FragmentEntry:
    """One fragment as the manifest states it; ``model`` is a file or a lone atom."""

    name: str
    atoms: tuple[int, ...]
    model: Path | IsolatedAtom


@dataclass(frozen=True)
class Manifest:
    """A parsed ``model.yaml``. Paths are absolute and inside the model directory."""

    path: Path
    name: str
    reference: str
    length_unit: str | None
    energy_unit: str | None
    fragments: tuple[FragmentEntry, ...]
    binding: Path | None
    full: Path | None
    prior: PairPrior | None = None

    @property
    def n_atoms(self) -> int:
        """Number of atoms of the complex."""
        return sum(len(fragment.atoms) for fragment in self.fragments)


def parse_atoms(text: str | int) -> tuple[int, ...]:
    """Turn ``"0-4,9"`` into (0, 1, 2, 3, 4, 9), keeping the order that is written.

    Raises:
        ValueError: not a comma-separated list of indices and ascending ranges.
    """
    atoms: list[int] = []
    for part in str(text).split(","):
        match = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", part)
        if not match:
            raise ValueError(f"{part.strip()!r} is not an atom index or a range such as 0-4")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise ValueError(f"range {part.strip()!r} runs backwards")
        if last > MAX_ATOM_INDEX:
            raise ValueError(f"atom index {last} is larger than {MAX_ATOM_INDEX}")
        if len(atoms) + last - first > MAX_ATOM_INDEX:
            raise ValueError(f"more than {MAX_ATOM_INDEX + 1} atoms")
        atoms.extend(range(first, last + 1))
    return tuple(atoms)


def format_atoms(atoms: tuple[int, ...]) -> str:
    """Turn (0, 1, 2, 3, 4, 9) into ``"0-4,9"``: the inverse of :func:`parse_atoms`."""
    runs: list[list[int]] = []
    for atom in atoms:
        if runs and atom == runs[-1][1] + 1:
            runs[-1][1] = atom
        else:
            runs.append([atom, atom])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in runs)


def read_manifest(directory: str | Path) -> Manifest:
    """Read ``model.yaml`` of a model directory, or the file itself, or of an installed model.

    Raises:
        ManifestError: no such directory or file, not YAML, or any entry that is wrong.
    """
    parser = ManifestParser(manifest_path(directory), ManifestError)
    return parser.parse(parser.read())


def manifest_path(directory: str | Path) -> Path:
    """Return where ``model.yaml`` of a model directory is, which may be given itself or by name.

    Raises:
        ManifestError: no such directory or file.
    """
    path = model_directory(directory)
    try:
        if path.is_dir():
            path = path / MANIFEST_NAME
        if not path.is_file():
            raise ManifestError(
                f"{path}: no such file; expected a model directory with {MANIFEST_NAME}, or a "
                "name that `deltaserver models list` tells"
            )
        if path.suffix.lower() not in YAML_SUFFIXES:
            raise ManifestError(
                f"{path}: no model directory, nor its {MANIFEST_NAME}; expected one of the two, or "
                "a name that `deltaserver models list` tells"
            )
    except UNUSABLE_PATH as error:
        raise ManifestError(f"{path}: cannot be read ({one_line(error)})") from error
    return path


class ManifestParser(Checker):
    """Checks one manifest, entry by entry; that of many molecules has a parser on top of it."""

    path: Path
    n_atoms = 0  # so far: a few lines of ranges could fill any memory

    def parse(self, data: Any) -> Manifest:
        """Return the manifest that the file holds."""
        if isinstance(data, dict) and "species" in data:
            raise self.error(
                "it is of many molecules (species), where one complex (fragments) is expected; "
                "give the directory of a complex"
            )
        top = self.mapping(
            data,
            "the manifest",
            required=("format", "fragments"),
            optional=("name", "reference", "units", "binding", "full", "prior"),
        )
        self.format(top, FORMAT)
        length_unit, energy_unit = self.units(top.get("units", {}))
        fragments = self.fragments(top["fragments"], energy_unit)
        self.check_partition(fragments)
        if "binding" not in top and len(fragments) > 1:
            raise self.error("binding is missing; expected binding: {model: FILE.npz}")
        return Manifest(
            path=self.path,
            name=self.title(top),
            reference=self.text(top.get("reference", "not stated"), "reference"),
            length_unit=length_unit,
            energy_unit=energy_unit,
            fragments=fragments,
            binding=self.model_entry(top, "binding"),
            full=self.model_entry(top, "full"),
            prior=self.prior(top["prior"], fragments) if "prior" in top else None,
        )

    def title(self, top: Mapping[str, Any]) -> str:
        """Return the model's name: the directory's, if none is given."""
        given = top.get("name", self.path.resolve().parent.name)
        return " ".join(self.text(given, "name").split())

    def units(self, data: Any) -> tuple[str | None, str | None]:
        """Return the units of length and energy, as far as they are given."""
        entry = self.mapping(data, "units", required=(), optional=("length", "energy"))
        for key, look_up in (("length", units.length_in_ang), ("energy", units.energy_in_ev)):
            if key in entry:
                try:
                    look_up(self.text(entry[key], f"units.{key}"))
                except UnitError as error:
                    raise self.error(f"units.{key}: {error}") from None
        return entry.get("length"), entry.get("energy")

    def fragments(self, data: Any, energy_unit: str | None) -> tuple[FragmentEntry, ...]:
        """Return all fragments."""
        if not isinstance(data, list) or not data:
            raise self.error(
                f"fragments is {shown(data)}; expected a list of at least one fragment"
            )
        entries = tuple(self.fragment(item, index, energy_unit) for index, item in enumerate(data))
        names = [entry.name for entry in entries]
        for name in names:
            if names.count(name) > 1:
                raise self.error(f"two fragments have the name {name!r}")
        return entries

    def fragment(self, data: Any, index: int, energy_unit: str | None) -> FragmentEntry:
        """Return one fragment."""
        what = f"fragments[{index}]"
        entry = self.mapping(
            data, what, ("name", "atoms"), ("model", "species", "energy", "energy_unit")
        )
        name = self.text(entry["name"], f"{what}.name")
        if not NAME_PATTERN.match(name) or name in RESERVED_NAMES:
            raise self.error(
                f"{what}.name is {name!r}; expected letters, digits, '_', '+' or '-', "
                f"and none of {', '.join(RESERVED_NAMES)}"
            )
        atoms = self.atoms(entry["atoms"], name)
        if "model" in entry:
            extra = [key for key in ("species", "energy", "energy_unit") if key in entry]
            if extra:
                raise self.error(
                    f"fragment {name!r} has a model and {', '.join(extra)}; "
                    "expected a model file, or a lone atom's species and energy"
                )
            return FragmentEntry(name, atoms, self.file(entry["model"], f"fragment {name!r}"))
        return FragmentEntry(name, atoms, self.isolated_atom(entry, name, atoms, energy_unit))

    def atoms(self, value: Any, name: str) -> tuple[int, ...]:
        """Return the atoms that a text lists, each once."""
        if not isinstance(value, (str, int)) or isinstance(value, bool):
            raise self.error(
                f"fragment {name!r}: atoms is {shown(value)}; expected text such as '0-4,9'"
            )
        try:
            atoms = parse_atoms(value)
        except ValueError as error:
            raise self.error(f"fragment {name!r}: atoms {shown(value)}: {error}") from None
        self.n_atoms += len(atoms)
        if self.n_atoms > MAX_ATOM_INDEX + 1:
            raise self.error(f"the fragments have more than {MAX_ATOM_INDEX + 1} atoms")
        if len(set(atoms)) < len(atoms):
            (twice, _), *_ = Counter(atoms).most_common(1)
            raise self.error(f"fragment {name!r}: atom {twice} stands twice in {shown(value)}")
        return atoms

    def isolated_atom(
        self, entry: Mapping[str, Any], name: str, atoms: tuple[int, ...], default: str | None
    ) -> IsolatedAtom:
        """Return what stands for the model of a lone atom."""
        if "species" not in entry or "energy" not in entry:
            raise self.error(
                f"fragment {name!r} has no model; expected model: FILE.npz, "
                "or for a lone atom species: [Na], energy: NUMBER, energy_unit: eV"
            )
        species = entry["species"]
        if isinstance(species, str):
            species = [species]
        if not isinstance(species, list) or len(species) != 1 or len(atoms) != 1:
            raise self.error(
                f"fragment {name!r} has {len(atoms)} atoms and species {shown(entry['species'])}; "
                "only a lone atom can do without a model"
            )
        if not isinstance(species[0], str) or species[0] not in NUMBER_OF:
            raise self.error(f"fragment {name!r}: {shown(species[0])} is no element symbol")
        energy = self.number(entry["energy"], f"fragment {name!r}: energy")
        unit = entry.get("energy_unit", default)
        if unit is None:
            raise self.error(f"fragment {name!r} lacks energy_unit; expected eV, kcal/mol or such")
        try:
            factor = units.energy_in_ev(self.text(unit, f"fragment {name!r}: energy_unit"))
        except UnitError as error:
            raise self.error(f"fragment {name!r}: {error}") from None
        return IsolatedAtom(NUMBER_OF[species[0]], energy * factor)

    def prior(self, data: Any, fragments: tuple[FragmentEntry, ...]) -> PairPrior:
        """Return the pair potential between the fragments."""
        if len(fragments) < 2:
            raise self.error("prior: there is but one fragment, which it could bind to nothing")
        try:
            return parse_prior(data, [fragment.atoms for fragment in fragments], parse_atoms)
        except (ValueError, ManifestError) as error:
            raise self.error(str(error)) from None

    def model_entry(self, top: Mapping[str, Any], key: str) -> Path | None:
        """Return the file of a part that has one."""
        if key not in top:
            return None
        return self.file(self.mapping(top[key], key, required=("model",))["model"], key)

    def file(self, value: Any, what: str) -> Path:
        """Return the path of a file of the model directory."""
        directory = self.path.parent.resolve()
        name = self.text(value, f"{what}: model")
        try:
            path = (directory / name).resolve()
            if not path.is_relative_to(directory):
                raise self.error(f"{what}: {value!r} leads out of the model directory")
            if not path.is_file():
                raise self.error(f"{what}: no file {value!r} in the model directory")
        except UNUSABLE_PATH as error:
            raise self.error(
                f"{what}: {shown(value)} is no file name ({one_line(error)})"
            ) from None
        return path

    def check_partition(self, fragments: tuple[FragmentEntry, ...]) -> None:
        """Every atom from 0 to N − 1 belongs to exactly one fragment."""
        owner: dict[int, str] = {}
        for fragment in fragments:
            for atom in fragment.atoms:
                if atom in owner:
                    raise self.error(
                        f"atom {atom} is in two fragments, {owner[atom]!r} and {fragment.name!r}"
                    )
                owner[atom] = fragment.name
        missing = tuple(sorted(set(range(max(owner) + 1)) - set(owner)))
        if missing:
            raise self.error(
                f"{'atom' if len(missing) == 1 else 'atoms'} {format_atoms(missing)} "
                f"in no fragment; expected every atom from 0 to {max(owner)} in exactly one"
            )
