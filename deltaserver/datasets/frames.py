"""Labelled frames of a complex: what every step of the training workflow hands to the next."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError
from deltaserver.model.manifest import NAME_PATTERN, RESERVED_NAMES, format_atoms, parse_atoms

RESERVED_DATASET_NAMES = (*RESERVED_NAMES, "noninteracting", "frames", "dataset", "complex")


@dataclass(frozen=True)
class FragmentSpec:
    """One fragment of a complex: its name, its atoms (0-based, model order), its charge in e.

    ``spin`` is its number of unpaired electrons.
    """

    name: str
    atoms: tuple[int, ...]
    charge: int = 0
    spin: int = 0

    def as_option(self) -> str:
        """Return ``NAME:ATOMS[:CHARGE[:SPIN]]``, as ``--fragment`` takes it."""
        atoms = format_atoms(self.atoms)
        extra = f":{self.charge:+d}" if self.charge or self.spin else ""
        return f"{self.name}:{atoms}{extra}" + (f":{self.spin}" if self.spin else "")


@dataclass(frozen=True)
class LabelledFrames:
    """M frames of an N-atom complex with labels of the complex and of every isolated fragment.

    Lengths in Å, energies in eV, forces in eV/Å. ``fragment_forces[m, i]`` is the force on atom i
    in its own fragment alone at the same coordinates. ``trajectory`` and ``step`` say where a
    frame comes from: splits are made along them, never at random.

    Frames of order 3 have what pairs add as well, so that binding is of three bodies alone:
    ``two_body_energy`` is Σ_(i<j) (E_ij − E_i − E_j), with its forces.
    """

    name: str
    reference: str
    numbers: Ints  # [N]
    fragments: tuple[FragmentSpec, ...]
    positions: Floats  # [M, N, 3]
    energy: Floats  # [M]
    forces: Floats  # [M, N, 3]
    fragment_energies: Floats  # [M, n_fragments]
    fragment_forces: Floats  # [M, N, 3]
    trajectory: Ints  # [M]
    step: Ints  # [M]
    two_body_energy: Floats | None = None  # [M]
    two_body_forces: Floats | None = None  # [M, N, 3]

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.positions)

    @property
    def order(self) -> int:
        """How many molecules at once binding is of: 3 where that of pairs is taken off, else 2."""
        return 2 if self.two_body_energy is None else 3

    @property
    def binding_energy(self) -> Floats:
        """Return E − Σ E_j of every frame, in eV, shape (M,); of order 3 less that of pairs."""
        result: Floats = self.energy - self.fragment_energies.sum(axis=1)
        return result if self.two_body_energy is None else result - self.two_body_energy

    @property
    def binding_forces(self) -> Floats:
        """Return F − (F_1, F_2, …) in eV/Å, shape (M, N, 3); of order 3 less that of pairs."""
        result: Floats = self.forces - self.fragment_forces
        return result if self.two_body_forces is None else result - self.two_body_forces

    def select(self, index: Ints | slice) -> LabelledFrames:
        """Return the frames at ``index``, in that order."""
        return LabelledFrames(
            self.name,
            self.reference,
            self.numbers,
            self.fragments,
            self.positions[index],
            self.energy[index],
            self.forces[index],
            self.fragment_energies[index],
            self.fragment_forces[index],
            self.trajectory[index],
            self.step[index],
            None if self.two_body_energy is None else self.two_body_energy[index],
            None if self.two_body_forces is None else self.two_body_forces[index],
        )


def parse_fragments(entries: Any, where: str) -> tuple[FragmentSpec, ...]:
    """Turn ``[{name, atoms: "0-11", charge: 0}, …]`` into fragments.

    Raises:
        DataError: an entry that is wrong; ``where`` begins the message.
    """
    if not isinstance(entries, list) or not entries:
        raise DataError(f"{where}: fragments is {entries!r}; expected a list of fragments")
    fragments = []
    for entry in entries:
        if not isinstance(entry, dict) or not {"name", "atoms"} <= set(entry):
            raise DataError(f"{where}: fragment {entry!r}; expected name, atoms and charge")
        name, charge = entry["name"], entry.get("charge", 0)
        check_fragment_name(name, where)
        if isinstance(charge, bool) or not isinstance(charge, int):
            raise DataError(f"{where}: fragment {name!r}: charge is {charge!r}; expected a number")
        try:
            atoms = parse_atoms(entry["atoms"])
        except ValueError as error:
            raise DataError(f"{where}: fragment {name!r}: atoms: {error}") from None
        spin = entry.get("spin", 0)
        if isinstance(spin, bool) or not isinstance(spin, int) or spin < 0:
            raise DataError(
                f"{where}: fragment {name!r}: spin is {spin!r}; expected its unpaired electrons"
            )
        fragments.append(FragmentSpec(name, atoms, charge, spin))
    return tuple(fragments)


def describe_fragment(fragment: FragmentSpec) -> dict[str, Any]:
    """Return the entry that :func:`parse_fragments` reads; closed shells go without saying."""
    entry = {
        "name": fragment.name,
        "atoms": format_atoms(fragment.atoms),
        "charge": fragment.charge,
    }
    return entry | ({"spin": fragment.spin} if fragment.spin else {})


def check_fragment_name(name: Any, where: str) -> None:
    """Refuse a name that cannot be a file's or that the datasets use themselves (DataError)."""
    if not isinstance(name, str) or not NAME_PATTERN.match(name) or name in RESERVED_DATASET_NAMES:
        raise DataError(
            f"{where}: fragment name {name!r}; expected letters, digits, '_', '+' or '-', "
            f"and none of {', '.join(RESERVED_DATASET_NAMES)}"
        )


def numbered_name(name: str, number: int, taken: Collection[str]) -> str:
    """Return a fragment's name with this number, or with the first one after it that is free."""
    while f"{name}{number}" in taken:
        number += 1
    return f"{name}{number}"


def check_partition(fragments: tuple[FragmentSpec, ...], n_atoms: int, where: str) -> None:
    """Refuse fragments that miss an atom of the complex or double one (DataError)."""
    names = [fragment.name for fragment in fragments]
    for name in names:
        if names.count(name) > 1:
            raise DataError(f"{where}: two fragments have the name {name!r}")
    owner: dict[int, str] = {}
    for fragment in fragments:
        for atom in fragment.atoms:
            if atom in owner:
                raise DataError(
                    f"{where}: atom {atom} is in fragment {owner[atom]!r} and in "
                    f"{fragment.name!r}; expected every atom in exactly one"
                )
            if atom >= n_atoms:
                raise DataError(
                    f"{where}: fragment {fragment.name!r} has atom {atom}; the complex has atoms "
                    f"0-{n_atoms - 1}"
                )
            owner[atom] = fragment.name
    if missing := tuple(atom for atom in range(n_atoms) if atom not in owner):
        raise DataError(
            f"{where}: no fragment has atoms {format_atoms(missing)}; expected every atom in "
            "exactly one"
        )
