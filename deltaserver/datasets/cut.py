"""Dimers and trimers cut out of runs and structures of many molecules, ready to be labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.files import silent
from deltaserver.datasets.frames import FragmentSpec, check_fragment_name, numbered_name
from deltaserver.datasets.geometries import check_lengths
from deltaserver.datasets.sampling.cutting import Kind, choose_kinds, cut, features, find_kinds
from deltaserver.datasets.sampling.dynamics import POSITION_DECIMALS, Start
from deltaserver.datasets.workspace import (
    Workspace,
    charge_and_spin,
    check_elements,
    open_frames,
)
from deltaserver.errors import DataError, InputError
from deltaserver.model.files.parameters import read_parameters
from deltaserver.model.manifest import IsolatedAtom
from deltaserver.model.many.census import count_molecules
from deltaserver.model.many.charges import charges_of
from deltaserver.model.many.manifest import ManyManifest, is_of_many, read_many
from deltaserver.model.prior import PairPrior
from deltaserver.molecules.bonds import NONMETALS
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.statistics.correlation import later_wins
from deltaserver.statistics.draws import draw_farthest
from deltaserver.textio.compressed import is_xyz, open_file
from deltaserver.textio.structures import read_structures
from deltaserver.textio.xyz_frames import BadFrame, Frame, Note, iterate

MOST_FRAMES = 200  # of a source, evenly spaced: more would resemble each other
POOL, POOL_LEAST = 20, 4000  # candidates for each that is taken, and in all
WHOLE_E = 0.01  # how far a fitted charge may be from the whole number that it stands for
FAR_ANG = 1e4  # how far images are along what does not repeat


@dataclass(frozen=True)
class Charged:
    """What molecules of one kind have: their charge, e, and unpaired electrons."""

    name: str
    charge: int
    spin: int = 0

    @classmethod
    def parse(cls, text: str) -> Charged:
        """Turn ``chloride:-1`` or ``oxygen:0:2`` into one; InputError if that is not possible."""
        name, *words = text.split(":")
        if not name or len(words) not in (1, 2):
            raise InputError(
                f"--charge {text}: expected NAME:CHARGE or NAME:CHARGE:SPIN, as in Na:+1"
            )
        return cls(name, *charge_and_spin(words, f"--charge {text}"))


@dataclass(frozen=True)
class CutRequest:
    """What is to be cut.

    Attributes:
        order: molecules of a group, 2 or 3.
        within_ang: each two molecules have a pair of atoms that is no farther apart.
        count: groups.
        between: names of their kinds; empty where there is one kind.
        seed: of the candidates.
        charged: kinds that are not neutral, or have unpaired electrons.
        calculator: what will label them, if that is known.
    """

    order: int
    within_ang: float
    count: int
    between: tuple[str, ...] = ()
    seed: int = 0
    charged: tuple[Charged, ...] = ()
    calculator: str | None = None

    def __post_init__(self) -> None:
        """Refuse names that are not as many as molecules."""
        if self.between and len(self.between) != self.order:
            raise InputError(
                f"--between {','.join(self.between)}: names {len(self.between)} molecules; "
                f"--order {self.order} has {self.order}"
            )


@dataclass(frozen=True)
class Source:
    """A trajectory of many molecules, or a structure.

    Attributes:
        label: what it is called.
        paths: its pieces, in the order of writing.
        models: the directory of many molecules that moved it, if that is known: it names molecules
            and says whether they repeat, which i-PI's files do not.
        is_run: of i-PI's: it may have been killed in a frame, and gone on from an earlier one.
    """

    label: str
    paths: tuple[Path, ...]
    models: Path | None = None
    is_run: bool = False


@dataclass(frozen=True)
class _Known:
    """What a model directory says of the molecules.

    Attributes:
        names: of species by the atomic numbers of a molecule.
        species: their names by atoms, where several are of the same atomic numbers.
        charges: what priors give them, e, by their names.
        alone: elements whose atoms are molecules by themselves.
        periodic: whether the structure repeats.
        order: names of species, as the model has them.
    """

    names: Mapping[tuple[int, ...], str] = field(default_factory=dict)
    species: Mapping[int, str] = field(default_factory=dict)
    charges: Mapping[str, float] = field(default_factory=dict)
    alone: tuple[int, ...] = ()
    periodic: bool = False
    order: tuple[str, ...] = ()


def open_cut(
    directory: Path, sources: tuple[Source, ...], request: CutRequest, note: Note = silent
) -> Workspace:
    """Cut groups of molecules and set up their labelling, or continue it.

    Every source is a trajectory of the dataset.

    Raises:
        DataError: a source cannot be read, or its molecules are not those of the first.
        InputError: it is not told which kinds are cut, or there are too few groups.
    """
    rng = np.random.default_rng(request.seed)
    kinds: tuple[Kind, ...] = ()
    groups, trajectory, labels = [], [], []
    charges: list[float | None] = [None] * request.order
    for k, source in enumerate(sources):
        frames, known = _frames(source, note), _known(source.models)
        chosen = frames[:: -(-len(frames) // MOST_FRAMES)]
        own = _kinds(chosen[0], known, request)
        if kinds and [x.numbers.tolist() for x in own] != [x.numbers.tolist() for x in kinds]:
            raise DataError(f"{source.label}: its molecules are not those of {sources[0].label}")
        kinds = kinds or own
        charges = [
            known.charges.get(kind.species) if charge is None else charge
            for charge, kind in zip(charges, own, strict=True)
        ]
        pool = max(POOL * request.count, POOL_LEAST)
        most = -(-pool // (len(chosen) * len(sources)))
        for n, frame in enumerate(chosen):
            check_elements(f"{source.label}: frame {n}", frame.numbers, chosen[0].numbers)
            box = _box(frame, known.periodic)
            found = cut(own, frame.positions, box, request.within_ang, most, rng)
            groups.append(found)
            trajectory += [k] * len(found)
        labels.append(source.label)
    x, of = np.concatenate(groups), np.array(trajectory, dtype=np.int64)
    if len(x) < request.count:
        raise InputError(
            f"{len(x)} groups of {request.order} molecules come within {request.within_ang:g} Å; "
            f"{request.count} are wanted: ask for fewer frames, or cut within more"
        )
    note(f"{request.count} of {len(x)} groups are taken, those that differ most")
    taken = draw_farthest(
        features(kinds, x), of, request.count, request.seed, np.zeros(len(x), dtype=np.bool_)
    )
    charged = [
        _charged(kind, request.charged, charge or 0.0)
        for kind, charge in zip(kinds, charges, strict=True)
    ]
    fragments = _fragments(kinds, charged)
    starts, steps = _starts(fragments, x[taken], of[taken], labels, kinds)
    return open_frames(
        directory,
        starts,
        fragments,
        steps,
        order=len(kinds),
        label_calculator=request.calculator,
    )


def _starts(
    fragments: tuple[FragmentSpec, ...],
    x: Floats,
    trajectory: Ints,
    labels: list[str],
    kinds: tuple[Kind, ...],
) -> tuple[tuple[Start, ...], list[list[int]]]:
    """Return the frames, and of each its trajectory and number in it."""
    numbers = np.concatenate([kind.numbers for kind in kinds])
    x = x.round(POSITION_DECIMALS)
    check_lengths(numbers, x, fragments, "what was cut")
    step = np.arange(len(x)) - np.searchsorted(trajectory, trajectory)  # in the order of time
    steps = np.stack([trajectory, step], axis=1).tolist()
    starts = [
        Start(numbers, frame, labels[k]) for frame, k in zip(x, trajectory.tolist(), strict=True)
    ]
    return tuple(starts), steps


def _charged(kind: Kind, stated: Sequence[Charged], charge: float) -> Charged:
    """Return charge and unpaired electrons of a kind: as stated, else as a model's prior says.

    Raises:
        InputError: that is no whole number of e.
    """
    for one in stated:
        if one.name == kind.name:
            return one
    if abs(charge - round(charge)) > WHOLE_E:
        raise InputError(
            f"the model's prior gives {kind.name} a charge of {charge:+.2g} e, which no molecule "
            f"can be labelled with; say --charge {kind.name}:CHARGE"
        )
    return Charged(kind.name, round(charge))


def _fragments(kinds: tuple[Kind, ...], charged: Sequence[Charged]) -> tuple[FragmentSpec, ...]:
    """Return the fragments of a group: names of kinds, numbered where there are several alike."""
    names = [kind.name for kind in kinds]
    taken = set(names)
    found, begin = [], 0
    for k, kind in enumerate(kinds):
        name = kind.name
        if names.count(name) > 1:
            joint = "_" if name[-1].isdigit() else ""
            name = numbered_name(f"{name}{joint}", names[: k + 1].count(name), taken)
        taken.add(name)
        check_fragment_name(name, "what was cut")
        atoms = tuple(range(begin, begin + len(kind.numbers)))
        found.append(FragmentSpec(name, atoms, charged[k].charge, charged[k].spin))
        begin += len(kind.numbers)
    return tuple(found)


def _kinds(frame: Frame, known: _Known, request: CutRequest) -> tuple[Kind, ...]:
    box = _box(frame, known.periodic)
    stated = [one.name for one in request.charged]
    ions = [*known.alone, *(SYMBOLS.index(name) for name in stated if name in SYMBOLS)]
    # A metal's radius reaches all that solvates its ion; other ions stand apart by themselves.
    alone = [number for number in ions if number not in NONMETALS]
    there = find_kinds(frame.numbers, frame.positions, box, known.names, alone, known.species)
    for name in stated:
        if name not in {kind.name for kind in there}:
            listed = ", ".join(f"{kind.name} ({len(kind.atoms)})" for kind in there)
            raise InputError(f"--charge {name}: no such molecule here; there are {listed}")
    # As the model has its species, in whatever order they are named: what is trained fits it then.
    order = known.order
    names = sorted(request.between, key=lambda name: order.index(name) if name in order else -1)
    return choose_kinds(there, names, request.order)


def _known(models: Path | None) -> _Known:
    if models is None or not is_of_many(models):
        return _Known()
    manifest = read_many(models)
    names = [entry.name for entry in manifest.species]
    numbers = [
        (entry.model.number,)
        if isinstance(entry.model, IsolatedAtom)
        else tuple(read_parameters(entry.model).numbers.tolist())
        for entry in manifest.species
    ]
    return _Known(
        dict(zip(numbers, names, strict=True)),
        _by_atoms(manifest, numbers),
        _charges(manifest),
        tuple(own[0] for own in numbers if len(own) == 1),
        manifest.periodic,
        tuple(names),
    )


def _by_atoms(manifest: ManyManifest, numbers: Sequence[tuple[int, ...]]) -> dict[int, str]:
    """Return the species of atoms in a run of the model, where elements alone do not tell it.

    Raises:
        ManifestError: it is not said how many molecules there are.
    """
    if len(set(numbers)) == len(numbers):
        return {}
    own = [np.array(some) for some in numbers]
    tables = count_molecules(manifest.species, own, None, str(manifest.path))
    return {
        atom: entry.name
        for entry, table in zip(manifest.species, tables, strict=True)
        for atom in table.ravel().tolist()
    }


def _charges(manifest: ManyManifest) -> dict[str, float]:
    """Return the charge, e, that priors give the molecules of each species."""
    found: dict[str, float] = {}
    for entry in manifest.bindings:
        if not isinstance(entry.prior, PairPrior):
            continue
        first, second = (manifest.species[k] for k in entry.between)
        charges = charges_of(entry.prior)
        found[first.name] = float(charges[: first.n_atoms].sum())
        found[second.name] = float(charges[first.n_atoms :].sum())
    return found


def _box(frame: Frame, periodic: bool) -> Floats | None:
    """Return the cell, lattice vectors in columns, Å; long where it does not repeat."""
    pbc = (True, True, True) if periodic else frame.pbc
    if frame.cell is None or not any(pbc):
        return None
    scale = np.where(pbc, 1.0, FAR_ANG / np.linalg.norm(frame.cell, axis=1))
    box: Floats = (frame.cell * scale[:, None]).T
    return box


def _frames(source: Source, note: Note) -> list[Frame]:
    """Return all frames of a source; where a run went on from an earlier step, the later count."""
    frames = [frame for path in source.paths for frame in _read(path, source.is_run, note)]
    if not frames:
        raise DataError(f"{source.label}: no structure in it")
    if source.is_run and all(frame.step is not None for frame in frames):
        kept = later_wins(np.array([frame.step for frame in frames]))
        frames = [frame for frame, counts in zip(frames, kept, strict=True) if counts]
    for index, frame in enumerate(frames):
        if not np.isfinite(frame.positions).all():
            raise DataError(f"{source.label}: frame {index} has positions that are not finite")
    return frames


def _read(path: Path, is_run: bool, note: Note) -> list[Frame]:
    """Return the frames of one file; a run's last one may be cut short."""
    if not is_run or not is_xyz(path):
        try:
            return read_structures(path, note, "train")
        except BadFrame as error:
            raise DataError(f"{path}: frame {error.index} cannot be read: {error.reason}") from None
    frames: list[Frame] = []
    with open_file(path) as file:
        try:
            frames.extend(iterate(file, str(path), note))
        except BadFrame as error:
            note(f"{path}: frames are read up to {error.index}: {error.reason}")
    return frames
