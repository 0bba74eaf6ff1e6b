"""``analysis.yaml``: which variables, surfaces, rotations and distributions an analysis has.

Parsed once into frozen dataclasses; every fault is one line that names the file and the entry.
Without a file, a complex of two or more fragments has the distance of their centres of mass.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltaserver.analysis.measure.free_energy import JACOBIANS, Jacobian
from deltaserver.analysis.measure.variables import (
    CENTRES,
    MIN_PLANE_ATOMS,
    N_GROUPS,
    PLANES,
    Variable,
)
from deltaserver.errors import DataError
from deltaserver.model.manifest import parse_atoms
from deltaserver.textio.strict_yaml import Checker, shown

FORMAT = "deltaserver-analysis/1"
FILE_NAME = "analysis.yaml"
DEFAULT_BINS = {1: 60, 2: 40}  # by the number of variables
MAX_BINS = 2000
DEFAULT_RDF_MAX_ANG, DEFAULT_RDF_BINS = 15.0, 150
Fragments = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class SurfaceSpec:
    """A free energy surface over one or two variables; a range is (low, high) or None."""

    variables: tuple[str, ...]
    bins: tuple[int, ...]
    ranges: tuple[tuple[float, float] | None, ...]
    jacobian: Jacobian = "keep"

    @property
    def name(self) -> str:
        """For file names."""
        return "_".join(("fes", *self.variables))


@dataclass(frozen=True)
class RotationSpec:
    """A guest whose rotation is followed, in the frame of a host (None: of the laboratory).

    Of a ``linear`` guest only the axis is followed: a turn about it is none.
    """

    guest: str
    host: str | None
    guest_atoms: tuple[int, ...]
    host_atoms: tuple[int, ...] = ()
    linear: bool = False


@dataclass(frozen=True)
class PairsSpec:
    """A distribution of distances between the atoms of two groups, which may share atoms."""

    name: str
    first: tuple[int, ...]
    second: tuple[int, ...]
    max_ang: float = DEFAULT_RDF_MAX_ANG
    bins: int = DEFAULT_RDF_BINS

    @property
    def n_pairs(self) -> int:
        """Pairs of two atoms: none is its own neighbour."""
        return len(self.first) * len(self.second) - len(set(self.first) & set(self.second))


@dataclass(frozen=True)
class Definitions:
    """All that is to be found from a trajectory."""

    variables: tuple[Variable, ...]
    surfaces: tuple[SurfaceSpec, ...]
    rotations: tuple[RotationSpec, ...]
    pairs: tuple[PairsSpec, ...]
    fragments: Fragments

    def variable(self, name: str) -> Variable:
        """Return a variable by its name, or raise DataError."""
        for variable in self.variables:
            if variable.name == name:
                return variable
        known = ", ".join(variable.name for variable in self.variables) or "none"
        raise DataError(f"no variable {name!r}; there are: {known}")


def default_definitions(fragments: Fragments) -> Definitions:
    """Return what any complex has: centre-of-mass distances, and the smaller fragments' rotation.

    The host is the largest fragment; the others are its guests.
    """
    pairs = list(itertools.combinations(fragments, 2))
    variables = tuple(
        Variable(
            name="R_CM" if len(pairs) == 1 else f"R_CM_{a}_{b}",
            kind="distance",
            groups=(fragments[a], fragments[b]),
            symbol="$R_{\\mathrm{CM}}$" if len(pairs) == 1 else f"R({a}–{b})",
            about=f"distance of the centres of mass of {a} and {b}",
        )
        for a, b in pairs
    )
    return Definitions(
        variables,
        default_surfaces(variables),
        default_rotations(fragments),
        default_pairs(fragments),
        fragments,
    )


def default_surfaces(variables: tuple[Variable, ...]) -> tuple[SurfaceSpec, ...]:
    """Return the plane of the first two variables, and every variable alone."""
    names = [variable.name for variable in variables]
    sets = ([tuple(names[:2])] if len(names) > 1 else []) + [(name,) for name in names]
    return tuple(SurfaceSpec(s, (DEFAULT_BINS[len(s)],) * len(s), (None,) * len(s)) for s in sets)


def default_rotations(fragments: Fragments) -> tuple[RotationSpec, ...]:
    """Return every fragment but the largest, in the frame of the largest."""
    if len(fragments) < 2:
        return ()
    host = max(fragments, key=lambda name: len(fragments[name]))
    return tuple(
        RotationSpec(name, host, atoms, fragments[host])
        for name, atoms in fragments.items()
        if name != host and len(atoms) > 1
    )


def default_pairs(fragments: Fragments) -> tuple[PairsSpec, ...]:
    """Return every pair of fragments."""
    return tuple(
        PairsSpec(f"{a}-{b}", fragments[a], fragments[b])
        for a, b in itertools.combinations(fragments, 2)
    )


def read_definitions(path: Path, fragments: Fragments) -> Definitions:
    """Read an ``analysis.yaml``; what it does not mention is as without a file.

    Raises:
        DataError: not there, not YAML, or an entry that is wrong.
    """
    parser = _Parser(path, fragments)
    return parser.parse(parser.read())


class _Parser(Checker):
    """Checks one file, entry by entry."""

    def __init__(self, path: Path, fragments: Fragments) -> None:
        super().__init__(path, DataError)
        self.fragments = dict(fragments)

    def parse(self, data: Any) -> Definitions:
        optional = ("fragments", "variables", "fes", "msad", "rdf")
        top = self.mapping(data, "the file", ("format",), optional)
        self.format(top, FORMAT)
        if "fragments" in top:
            entries = top["fragments"]
            if not isinstance(entries, dict):
                raise self.error(f"fragments is {shown(entries)}; expected a mapping of atoms")
            for name, atoms in entries.items():
                self.fragments[str(name)] = self.atoms(atoms, f"fragment {name!r}")
        default = default_definitions(self.fragments)
        variables = default.variables
        if "variables" in top:
            listed = self.sequence(top["variables"], "variables")
            variables = tuple(self.variable(item, k) for k, item in enumerate(listed))
            self.unlike([v.name for v in variables])
        surfaces = default_surfaces(variables)
        if "fes" in top:
            listed = self.sequence(top["fes"], "fes")
            surfaces = tuple(self.surface(item, k, variables) for k, item in enumerate(listed))
        rotations, pairs = default.rotations, default.pairs
        if "msad" in top:
            listed = self.sequence(top["msad"], "msad")
            rotations = tuple(self.rotation(item, k) for k, item in enumerate(listed))
        if "rdf" in top:
            listed = self.sequence(top["rdf"], "rdf")
            pairs = tuple(self.pair(item, k) for k, item in enumerate(listed))
        return Definitions(variables, surfaces, rotations, pairs, self.fragments)

    # -- entries -------------------------------------------------------------------------------

    def variable(self, data: Any, index: int) -> Variable:
        what = f"variables[{index}]"
        optional = ("centre", "symbol", "about")
        entry = self.mapping(data, what, ("name", "kind", "groups"), optional)
        name = self.text(entry["name"], f"{what}.name")
        if not name.replace("_", "").replace("-", "").isalnum() or not name.isascii():
            raise self.error(f"{what}.name is {name!r}; expected letters, digits, '_' or '-'")
        what = f"variable {name}"
        kind = self.choice(entry["kind"], f"{what}: kind", tuple(N_GROUPS))
        groups = self.sequence(entry["groups"], f"{what}: groups")
        if len(groups) != N_GROUPS[kind]:  # type: ignore[index]
            raise self.error(
                f"{what}: {len(groups)} groups; a {kind} has {N_GROUPS[kind]}"  # type: ignore[index]
            )
        atoms = tuple(self.atoms(group, what) for group in groups)
        for k in PLANES.get(kind, ()):  # type: ignore[call-overload]
            if len(atoms[k]) < MIN_PLANE_ATOMS:
                raise self.error(
                    f"{what}: a plane of {len(atoms[k])} atoms; expected {MIN_PLANE_ATOMS} or more"
                )
        return Variable(
            name=name,
            kind=kind,  # type: ignore[arg-type]
            groups=atoms,
            centre=self.choice(entry.get("centre", "mass"), f"{what}: centre", CENTRES),  # type: ignore[arg-type]
            symbol=self.text(entry.get("symbol", name), f"{what}: symbol"),
            about=str(entry.get("about", "")),
        )

    def surface(self, data: Any, index: int, variables: tuple[Variable, ...]) -> SurfaceSpec:
        what = f"fes[{index}]"
        entry = self.mapping(data, what, ("variables",), ("bins", "range", "jacobian"))
        names = tuple(str(n) for n in self.sequence(entry["variables"], f"{what}.variables"))
        if not 1 <= len(names) <= 2 or len(set(names)) < len(names):
            raise self.error(f"{what}: {len(names)} variables; expected one or two")
        known = [variable.name for variable in variables]
        for name in names:
            if name not in known:
                raise self.error(f"{what}: no variable {name!r}; there are: {', '.join(known)}")
        bins = entry.get("bins", DEFAULT_BINS[len(names)])
        bins = [bins] * len(names) if isinstance(bins, int) else bins
        if not isinstance(bins, list) or len(bins) != len(names):
            raise self.error(f"{what}: bins is {bins!r}; expected one number a variable")
        ranges = entry.get("range", [None] * len(names))
        if (
            isinstance(ranges, list)
            and len(names) == 1
            and not any(isinstance(r, list) or r is None for r in ranges)
        ):
            ranges = [ranges]
        if not isinstance(ranges, list) or len(ranges) != len(names):
            raise self.error(f"{what}: range is {ranges!r}; expected [low, high] a variable")
        return SurfaceSpec(
            variables=names,
            bins=tuple(self.count(n, f"{what}: bins") for n in bins),
            ranges=tuple(self.range(r, f"{what}: range") for r in ranges),
            jacobian=self.choice(entry.get("jacobian", "keep"), f"{what}: jacobian", JACOBIANS),  # type: ignore[arg-type]
        )

    def rotation(self, data: Any, index: int) -> RotationSpec:
        what = f"msad[{index}]"
        entry = self.mapping(data, what, ("guest",), ("host",))
        host = entry.get("host")
        return RotationSpec(
            guest=str(entry["guest"]),
            host=None if host is None else str(host),
            guest_atoms=self.atoms(entry["guest"], f"{what}.guest"),
            host_atoms=() if host is None else self.atoms(host, f"{what}.host"),
        )

    def pair(self, data: Any, index: int) -> PairsSpec:
        what = f"rdf[{index}]"
        entry = self.mapping(data, what, ("groups",), ("name", "max", "bins"))
        groups = self.sequence(entry["groups"], f"{what}.groups")
        if len(groups) != 2:
            raise self.error(f"{what}: {len(groups)} groups; expected two")
        longest = entry.get("max", DEFAULT_RDF_MAX_ANG)
        if isinstance(longest, bool) or not isinstance(longest, (int, float)) or longest <= 0:
            raise self.error(f"{what}: max is {longest!r}; expected a distance in Å")
        spec = PairsSpec(
            name=str(entry.get("name", "-".join(str(group) for group in groups))),
            first=self.atoms(groups[0], what),
            second=self.atoms(groups[1], what),
            max_ang=float(longest),
            bins=self.count(entry.get("bins", DEFAULT_RDF_BINS), f"{what}: bins"),
        )
        if not spec.n_pairs:
            raise self.error(f"{what}: both groups are atom {spec.first[0]}; expected two atoms")
        return spec

    # -- values --------------------------------------------------------------------------------

    def choice(self, value: Any, what: str, known: tuple[str, ...]) -> str:
        if value not in known:
            raise self.error(f"{what} is {value!r}; expected one of {', '.join(known)}")
        return str(value)

    def count(self, value: Any, what: str) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not 2 <= value <= MAX_BINS:
            raise self.error(f"{what} is {value!r}; expected a whole number from 2 to {MAX_BINS}")
        return value

    def range(self, value: Any, what: str) -> tuple[float, float] | None:
        if value is None:
            return None
        numbers = isinstance(value, list) and all(
            isinstance(v, (int, float)) and not isinstance(v, bool) for v in value
        )
        if not numbers or len(value) != 2 or not value[0] < value[1]:
            raise self.error(f"{what} is {value!r}; expected [low, high]")
        return float(value[0]), float(value[1])

    def atoms(self, value: Any, what: str) -> tuple[int, ...]:
        """Return atoms of a fragment's name, an index, or ranges such as ``"0-4,9"``."""
        if isinstance(value, str) and value in self.fragments:
            return self.fragments[value]
        if isinstance(value, bool) or not isinstance(value, (str, int)):
            raise self.error(f"{what}: {value!r} is no group; expected atoms such as '0-4,9'")
        try:
            atoms = parse_atoms(value)
        except ValueError:
            names = ", ".join(self.fragments) or "none is known"
            raise self.error(
                f"{what}: {value!r} is neither atoms such as '0-4,9' nor a fragment ({names})"
            ) from None
        if len(set(atoms)) < len(atoms):
            raise self.error(f"{what}: an atom stands twice in {value!r}")
        return atoms

    def unlike(self, names: list[str]) -> None:
        for name in names:
            if names.count(name) > 1:
                raise self.error(f"two variables have the name {name!r}")
