"""A bias as a whole, and as the ``<parameters>`` of i-PI's input that it is written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import groupby
from typing import Any, TypeVar

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.bias.coordinate import Coordinate
from deltaserver.bias.terms import Spring, UpperWall, WellTempered
from deltaserver.errors import InputError
from deltaserver.model.manifest import format_atoms, parse_atoms

PES_NAME = "ipi_bias.py"  # the file that i-PI loads
HILLS_NAME = "hills.csv"
OF_THE_RUN = ("hills_file", "first_step")  # what a run tells when it starts
OF_IPI = ("verbosity",)  # what i-PI adds of its own
Term = TypeVar("Term", Spring, UpperWall, WellTempered)


@dataclass(frozen=True)
class Bias:
    """What acts on one variable. With none of the terms it does nothing."""

    coordinate: Coordinate
    spring: Spring | None = None
    wall: UpperWall | None = None
    growth: WellTempered | None = None

    @property
    def grows(self) -> bool:
        """Whether it is another one as time goes on: hills, or a window on its way."""
        return self.growth is not None or bool(self.spring and self.spring.pull_steps)

    @property
    def settled_at(self) -> int:
        """The step from which on nothing moves but hills."""
        return self.spring.pull_steps if self.spring else 0

    def fixed_energy(self, s: Floats) -> Floats:
        """Return what does not change with time, eV: the window at its end, and the wall."""
        energy = np.zeros(np.shape(s))
        if self.spring:
            energy = energy + self.spring.energy(s)
        if self.wall:
            energy = energy + self.wall.energy(s)
        return energy

    def parameters(self) -> dict[str, str]:
        """Return the bias as texts without commas or braces, which i-PI would split."""
        one = self.coordinate
        told = {
            "variable": one.name,
            "groups": "/".join(format_atoms(atoms) for atoms in one.groups).replace(",", "+"),
            "weights": "/".join(_runs_text(weights) for weights in one.weights),
        }
        for term in (self.spring, self.wall, self.growth):
            if term:
                told |= {name: repr(value) for name, value in asdict(term).items()}
        return told

    @staticmethod
    def parse(parameters: Mapping[str, Any]) -> Bias:
        """Read what :meth:`parameters` has written, or what i-PI has made of it.

        Raises:
            InputError: a key that is not known, one that lacks, or a value that cannot be used.
        """
        given = {k: str(v) for k, v in parameters.items() if k not in (*OF_IPI, *OF_THE_RUN)}
        known = {field.name for kind in TERMS for field in fields(kind)}
        known |= {"variable", "groups", "weights"}
        if unknown := sorted(given.keys() - known):
            raise InputError(f"<parameters> of the bias: {unknown[0][:40]!r} is not known")
        first, second = _read(given, "groups", _two(_atoms))
        left, right = _read(given, "weights", _two(_weights))
        coordinate = Coordinate(given.get("variable", "R"), (first, second), (left, right))
        return Bias(
            coordinate, _term(given, Spring), _term(given, UpperWall), _term(given, WellTempered)
        )


TERMS: tuple[type[Spring] | type[UpperWall] | type[WellTempered], ...] = (
    Spring, UpperWall, WellTempered,
)  # fmt: skip
CONVERT: dict[str, Callable[[str], Any]] = {"int": int, "float": float}


def split_parameters(text: str) -> dict[str, str]:
    """Split ``{key:value, …}``, as ``<parameters>`` has it."""
    pairs = (piece.partition(":") for piece in text.strip().strip("{}").split(","))
    return {key.strip(): value.strip() for key, _, value in pairs if key.strip()}


def _term(given: Mapping[str, str], kind: type[Term]) -> Term | None:
    """Return a term if any of its own keys is given."""
    names = {field.name: CONVERT[str(field.type)] for field in fields(kind)}
    if not given.keys() & names.keys():
        return None
    return kind(**{name: _read(given, name, convert) for name, convert in names.items()})


def _read(given: Mapping[str, str], key: str, convert: Callable[[str], Any]) -> Any:
    if key not in given:
        raise InputError(f"<parameters> of the bias: {key} is missing")
    try:
        return convert(given[key])
    except ValueError:
        raise InputError(
            f"<parameters> of the bias: {key} is {given[key][:40]!r}, which is no such value"
        ) from None


def _two(convert: Callable[[str], Any]) -> Callable[[str], tuple[Any, Any]]:
    def parse(text: str) -> tuple[Any, Any]:
        first, second = text.split("/")
        return convert(first), convert(second)

    return parse


def _atoms(text: str) -> tuple[int, ...]:
    """Read ``0-4+9``: what stands elsewhere as ``0-4,9``."""
    return parse_atoms(text.replace("+", ","))


def _weights(text: str) -> tuple[float, ...]:
    """Read ``12.011+4*1.008``: a weight for each atom."""
    weights: list[float] = []
    for part in text.split("+"):
        times, star, weight = part.rpartition("*")
        weights += [float(weight)] * (int(times) if star else 1)
    if not all(0.0 < weight < float("inf") for weight in weights):
        raise ValueError(text)
    return tuple(weights)


def _runs_text(weights: tuple[float, ...]) -> str:
    runs = [(weight, len(list(same))) for weight, same in groupby(weights)]
    return "+".join(f"{n}*{weight!r}" if n > 1 else repr(weight) for weight, n in runs)
