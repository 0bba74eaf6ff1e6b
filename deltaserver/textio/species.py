"""What stands for an atom in a file: a symbol in any case, an isotope, a number, a label."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from deltaserver.errors import DataError
from deltaserver.molecules.elements import ATOMIC_WEIGHT_U, NUMBER_OF, SYMBOLS

# Hydrogen of its own mass, u [AME 2016, DOI 10.1088/1674-1137/41/3/030003].
ISOTOPES = {"D": (1, 2.01410178), "T": (1, 3.01604928)}
LABEL = re.compile(r"([A-Za-z]{1,3})[\d_.+'*-]*\Z")  # C1, H12, O_2


@dataclass(frozen=True)
class Species:
    """An atom's element: its symbol (``D`` and ``T`` stay), atomic number and mass in u."""

    symbol: str
    number: int
    mass_u: float


@lru_cache(maxsize=4096)
def parse_species(label: str) -> Species:
    """Tell which element a label means.

    Raises:
        DataError: none; the message names the label, not the place.
    """
    if label.isdecimal() and 0 < int(label) < len(SYMBOLS):
        number = int(label)
        return Species(SYMBOLS[number], number, ATOMIC_WEIGHT_U[number])
    match = LABEL.match(label)
    symbol = match[1].capitalize() if match else ""
    if symbol in ISOTOPES:
        return Species(symbol, *ISOTOPES[symbol])
    if symbol in NUMBER_OF:
        number = NUMBER_OF[symbol]
        return Species(symbol, number, ATOMIC_WEIGHT_U[number])
    raise DataError(f"{label[:20]!r} is no element; expected symbols such as C, or atomic numbers")
