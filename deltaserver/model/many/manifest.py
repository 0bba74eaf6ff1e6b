"""``model.yaml`` of many molecules: which species there are, and what binds them.

species:
- name: benzene
  model: benzene.npz
  count: 64               # or atoms: 0-767; or neither: as many as structure.xyz has
bindings:
- between: [benzene, benzene]
  model: binding.npz      # of the pair's atoms, the first molecule's and then the second's
  prior: {classes: …, pairs: …}
- between: [benzene, benzene, benzene]
  prior: {classes: …, triples: …, cutoff: [7.0, 9.0]}
  model: triple.npz       # of the atoms of three, of what they have beyond their pairs
  fade: [7.0, 9.0]        # Å between centres, over which that model ends
induction:                # how molecules polarise each other, beyond pairs
  radius: 1.0             # Å, over which charges are smeared
  cutoff: [8.0, 10.0]     # Å between centres, over which it ends
  species:
  - name: benzene
    charges: [-0.085, 0.085, …]                # e, of every atom
    flows:
    - {between: [[0, 2], [2, 4]], response: 0.02}   # e/V between two atoms
periodic: true
cutoff: [10.0, 12.0]      # Å between centres, over which a pair's prior ends
ewald: true               # beyond that, charges by an Ewald sum

Everything of a complex of few fragments stays as it is (:mod:`deltaserver.model.manifest`): that
is the special case in which every molecule has an entry of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltaserver.errors import ManifestError
from deltaserver.model.files.parameters import read_parameters
from deltaserver.model.manifest import (
    FORMAT,
    NAME_PATTERN,
    RESERVED_NAMES,
    IsolatedAtom,
    ManifestParser,
    manifest_path,
    parse_atoms,
)
from deltaserver.model.many.electrostatics.induction import Induction, Response
from deltaserver.model.many.switch import Switch
from deltaserver.model.many.triple_block import parse_triples
from deltaserver.model.many.triples import TriplePrior
from deltaserver.model.prior import PairPrior
from deltaserver.model.prior_block import parse_prior
from deltaserver.textio.strict_yaml import shown

DEFAULT_CUTOFF_ANG = (10.0, 12.0)
MAX_MOLECULES = 1_000_000


@dataclass(frozen=True)
class SpeciesEntry:
    """One species as the manifest states it.

    Attributes:
        name: of the species.
        model: of one molecule: a file, or a lone atom.
        n_atoms: of one molecule.
        count: how many molecules stand one after the other, None where that is not said.
        atoms: of all molecules, one molecule after the other, None where that is not said.
    """

    name: str
    model: Path | IsolatedAtom
    n_atoms: int
    count: int | None = None
    atoms: tuple[int, ...] | None = None


@dataclass(frozen=True)
class BindingEntry:
    """What binds two or three molecules, whose atoms stand one molecule after the other.

    Attributes:
        between: the places of their species in the manifest, rising.
        model: a file of what is learned, if anything is.
        prior: what is known, if anything is.
        fade: over which a model ends: of two molecules Å of the smooth shortest distance, where it
            does not by itself; of three Å between centres.
    """

    between: tuple[int, ...]
    model: Path | None
    prior: PairPrior | TriplePrior | None
    fade: tuple[float, float] | None = None


@dataclass(frozen=True)
class ManyManifest:
    """A parsed ``model.yaml`` of many molecules. Paths are absolute.

    Attributes:
        cutoff: Å between centres, over which a pair's prior ends; None: it never does.
        ewald: whether charges beyond it are summed over all images.
        induction: what polarises what, beyond pairs; None: nothing does.
    """

    path: Path
    name: str
    reference: str
    length_unit: str | None
    energy_unit: str | None
    species: tuple[SpeciesEntry, ...]
    bindings: tuple[BindingEntry, ...]
    periodic: bool
    cutoff: tuple[float, float] | None
    ewald: bool = False
    induction: Induction | None = None


def is_of_many(directory: str | Path) -> bool:
    """Tell whether a model directory, or its ``model.yaml``, is of many molecules.

    Raises:
        ManifestError: there is none, or it is no YAML.
    """
    data = ManifestParser(manifest_path(directory), ManifestError).read()
    return isinstance(data, dict) and "species" in data


def read_many(directory: str | Path) -> ManyManifest:
    """Read ``model.yaml`` of a directory of many molecules.

    Raises:
        ManifestError: no such directory or file, not YAML, or any entry that is wrong.
        ModelFileError: a species' model file cannot be read.
    """
    parser = _ManyParser(manifest_path(directory), ManifestError)
    return parser.parse_many(parser.read())


class _ManyParser(ManifestParser):
    """Checks one manifest of many molecules, entry by entry."""

    def parse_many(self, data: Any) -> ManyManifest:
        top = self.mapping(
            data,
            "the manifest",
            required=("format", "species"),
            optional=(
                "name",
                "reference",
                "units",
                "bindings",
                "induction",
                "periodic",
                "cutoff",
                "ewald",
            ),
        )
        self.format(top, FORMAT)
        length_unit, energy_unit = self.units(top.get("units", {}))
        species = self.all_species(top["species"], energy_unit)
        periodic = self.truth(top, "periodic")
        ewald = self.truth(top, "ewald")
        if ewald and not periodic:
            raise ManifestError(
                f"{self.path}: ewald: true is of what repeats; set periodic: true, or leave it out"
            )
        default = DEFAULT_CUTOFF_ANG if periodic else None
        cutoff = self.interval(top["cutoff"], "cutoff") if "cutoff" in top else default
        return ManyManifest(
            path=self.path,
            name=self.title(top),
            reference=self.text(top.get("reference", "not stated"), "reference"),
            length_unit=length_unit,
            energy_unit=energy_unit,
            species=species,
            bindings=self.bindings(top.get("bindings", []), species),
            periodic=periodic,
            cutoff=cutoff,
            ewald=ewald,
            induction=self.induction(top["induction"], species) if "induction" in top else None,
        )

    def truth(self, top: Mapping[str, Any], key: str) -> bool:
        value = top.get(key, False)
        if not isinstance(value, bool):
            raise self.error(f"{key} is {shown(value)}; expected true or false")
        return value

    def all_species(self, data: Any, energy_unit: str | None) -> tuple[SpeciesEntry, ...]:
        items = self.sequence(data, "species")
        if not items:
            raise self.error("species is an empty list; expected at least one species")
        entries = tuple(self.one_species(item, k, energy_unit) for k, item in enumerate(items))
        names = [entry.name for entry in entries]
        for name in names:
            if names.count(name) > 1:
                raise self.error(f"two species have the name {name!r}")
        said = {(entry.count is not None, entry.atoms is not None) for entry in entries}
        if len(said) > 1:
            raise self.error(
                "some species have count or atoms and others have not: give every species count, "
                "or every one atoms, or none anything, and structure.xyz tells"
            )
        return entries

    def one_species(self, data: Any, index: int, energy_unit: str | None) -> SpeciesEntry:
        what = f"species[{index}]"
        optional = ("model", "count", "atoms", "element", "energy", "energy_unit")
        entry = self.mapping(data, what, ("name",), optional)
        name = self.text(entry["name"], f"{what}.name")
        if not NAME_PATTERN.match(name) or name in RESERVED_NAMES:
            raise self.error(
                f"{what}.name is {name!r}; expected letters, digits, '_', '+' or '-', "
                f"and none of {', '.join(RESERVED_NAMES)}"
            )
        model = self.model_of(entry, name, energy_unit)
        n_atoms = 1 if isinstance(model, IsolatedAtom) else len(read_parameters(model).numbers)
        if "count" in entry and "atoms" in entry:
            raise self.error(f"species {name!r} has count and atoms; expected one of them")
        atoms = self.atoms(entry["atoms"], name) if "atoms" in entry else None
        if atoms is not None and len(atoms) % n_atoms:
            raise self.error(
                f"species {name!r} lists {len(atoms)} atoms, no multiple of the {n_atoms} of its "
                "model"
            )
        count = self.count(entry["count"], name) if "count" in entry else None
        return SpeciesEntry(name, model, n_atoms, count, atoms)

    def model_of(
        self, entry: Mapping[str, Any], name: str, energy_unit: str | None
    ) -> Path | IsolatedAtom:
        if "model" in entry and "element" in entry:
            raise self.error(
                f"species {name!r} has a model and an element; expected a model file, or a lone "
                "atom's element and energy"
            )
        if "model" in entry:
            return self.file(entry["model"], f"species {name!r}")
        if "element" not in entry or "energy" not in entry:
            raise self.error(
                f"species {name!r} has no model; expected model: FILE.npz, or for lone atoms "
                "element: Na, energy: NUMBER, energy_unit: eV"
            )
        return self.isolated_atom({**entry, "species": entry["element"]}, name, (0,), energy_unit)

    def count(self, value: Any, name: str) -> int:
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole or not 1 <= value <= MAX_MOLECULES:
            raise self.error(
                f"species {name!r}: count is {shown(value)}; expected how many molecules there "
                f"are, 1 to {MAX_MOLECULES}"
            )
        return int(value)

    def bindings(self, data: Any, species: tuple[SpeciesEntry, ...]) -> tuple[BindingEntry, ...]:
        entries = tuple(
            self.binding(item, f"bindings[{k}]", species)
            for k, item in enumerate(self.sequence(data, "bindings"))
        )
        seen: set[tuple[int, ...]] = set()
        for entry in entries:
            if entry.between in seen:
                names = ", ".join(species[k].name for k in entry.between)
                raise self.error(f"two bindings are between {names}; expected one")
            seen.add(entry.between)
        return entries

    def binding(self, data: Any, what: str, species: tuple[SpeciesEntry, ...]) -> BindingEntry:
        entry = self.mapping(data, what, ("between",), ("model", "prior", "fade"))
        place = {one.name: k for k, one in enumerate(species)}
        names = self.sequence(entry["between"], f"{what}.between")
        if len(names) not in (2, 3) or any(
            not isinstance(name, str) or name not in place for name in names
        ):
            raise self.error(
                f"{what}.between: expected two or three names of species: {', '.join(place)}"
            )
        between = tuple(place[name] for name in names)
        if between != tuple(sorted(between)):
            raise self.error(
                f"{what}.between: expected the names in the order in which the species stand"
            )
        if "model" not in entry and "prior" not in entry:
            raise self.error(f"{what} has neither model nor prior: it binds nothing")
        if len(between) == 3 and "model" in entry and "fade" not in entry:
            raise self.error(
                f"{what}: a model of three molecules needs fade: [7.0, 9.0], Å between centres, "
                "over which it ends"
            )
        if len(between) == 3 and "fade" in entry and "model" not in entry:
            raise self.error(
                f"{what}: fade is of a model of three molecules, and there is none; their prior "
                "ends over its own cutoff"
            )
        model = self.file(entry["model"], what) if "model" in entry else None
        fade = self.interval(entry["fade"], f"{what}.fade") if "fade" in entry else None
        sizes = [species[k].n_atoms for k in between]
        prior = self.bound(entry["prior"], what, sizes) if "prior" in entry else None
        return BindingEntry(between, model, prior, fade)

    def bound(self, data: Any, what: str, sizes: list[int]) -> PairPrior | TriplePrior:
        """Return the potential of a binding's block ``prior``."""
        ends = [sum(sizes[: k + 1]) for k in range(len(sizes))]
        fragments = [tuple(range(end - n, end)) for end, n in zip(ends, sizes, strict=True)]
        try:
            if len(sizes) == 3:
                return parse_triples(data, fragments, parse_atoms)
            prior = parse_prior(data, fragments, parse_atoms)
        except (ValueError, ManifestError) as error:
            raise self.error(f"{what}: {error}") from None
        if prior.limit:
            raise self.error(
                f"{what}: prior.limit is {prior.limit:g} eV, of molecules far apart: of many "
                "molecules every pair would have it; expected 0"
            )
        return prior

    def induction(self, data: Any, species: tuple[SpeciesEntry, ...]) -> Induction:
        top = self.mapping(data, "induction", ("radius", "cutoff", "species"))
        radius = self.number(top["radius"], "induction.radius")
        if radius < 0.0:
            raise self.error(f"induction.radius is {radius:g}; expected Å, from 0 on")
        found: dict[str, Response] = {}
        sizes = {one.name: one.n_atoms for one in species}
        for k, item in enumerate(self.sequence(top["species"], "induction.species")):
            what = f"induction.species[{k}]"
            entry = self.mapping(item, what, ("name", "charges", "flows"))
            name = entry["name"]
            if not isinstance(name, str) or name not in sizes or name in found:
                raise self.error(
                    f"{what}.name is {shown(name)}; expected each species once: {', '.join(sizes)}"
                )
            found[name] = self.response(entry, what, sizes[name])
        switch = Switch(*self.interval(top["cutoff"], "induction.cutoff"))
        return Induction(tuple(found.get(name) for name in sizes), radius, switch)

    def response(self, entry: Mapping[str, Any], what: str, n_atoms: int) -> Response:
        """Return what a species does to others, and others to it."""
        charges = self.sequence(entry["charges"], f"{what}.charges")
        if len(charges) != n_atoms:
            raise self.error(
                f"{what}.charges: {len(charges)} numbers for {n_atoms} atoms; expected one of each"
            )
        values = [self.number(one, f"{what}.charges") for one in charges]
        flows = []
        for k, item in enumerate(self.sequence(entry["flows"], f"{what}.flows")):
            flow = self.mapping(item, f"{what}.flows[{k}]", ("between", "response"))
            response = self.number(flow["response"], f"{what}.flows[{k}].response")
            pairs = self.sequence(flow["between"], f"{what}.flows[{k}].between")
            if response < 0.0 or not all(_are_two_atoms(pair, n_atoms) for pair in pairs):
                raise self.error(
                    f"{what}.flows[{k}]: expected between: lists of two of the atoms 0 to "
                    f"{n_atoms - 1}, such as [[0, 1], [0, 2]], and response: e/V, from 0 on"
                )
            flows.append(([(pair[0], pair[1]) for pair in pairs], response))
        return Response.of(values, flows)

    def interval(self, data: Any, what: str) -> tuple[float, float]:
        """Return two lengths, Å, that a switch goes from and to."""
        values = [self.number(value, what) for value in self.sequence(data, what)]
        if len(values) != 2 or not 0.0 < values[0] < values[1]:
            raise self.error(f"{what}: expected two rising lengths in Å, such as [10.0, 12.0]")
        return values[0], values[1]


def _are_two_atoms(pair: Any, n_atoms: int) -> bool:
    known = range(n_atoms)
    return (
        isinstance(pair, list)
        and len(pair) == 2
        and all(type(atom) is int and atom in known for atom in pair)
        and pair[0] != pair[1]
    )
