"""What lone atoms contribute to a complex: their energies, the same at every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from deltaserver.model.manifest import IsolatedAtom
from deltaserver.model.parts import Fragment
from deltaserver.model.sgdml import Evaluation


@dataclass(frozen=True)
class Lone:
    """The contributions of lone atoms to a batch of geometries; all share their zeros.

    Attributes:
        total: their sum.
        parts: by name.
        first: the same of one geometry, without the batch's axis.
    """

    total: Evaluation
    parts: Mapping[str, Evaluation]
    first: Mapping[str, Evaluation]


class LoneAtoms:
    """The lone atoms among the fragments of a complex of ``n_atoms`` atoms."""

    def __init__(self, fragments: Sequence[Fragment], n_atoms: int) -> None:
        self._n_atoms = n_atoms
        self._energies_ev = {
            fragment.name: fragment.model.energy_ev
            for fragment in fragments
            if isinstance(fragment.model, IsolatedAtom)
        }
        self._kept: dict[str, tuple[int, Lone]] = {}

    def of(self, component: str, n_batch: int) -> Lone:
        """Return what they contribute to a component; kept for the last size of a batch."""
        size, found = self._kept.get(component, (-1, None))
        if found is None or size != n_batch:
            found = self._made(component, n_batch)
            self._kept[component] = n_batch, found
        return found

    def _made(self, component: str, n_batch: int) -> Lone:
        chosen = {
            name: energy_ev
            for name, energy_ev in self._energies_ev.items()
            if component in ("total", "fragments", name)
        }
        forces, virial = np.zeros((n_batch, self._n_atoms, 3)), np.zeros((n_batch, 3, 3))
        total = Evaluation(np.full(n_batch, sum(chosen.values())), forces, virial)
        parts = {
            name: Evaluation(np.full(n_batch, energy_ev), forces, virial)
            for name, energy_ev in chosen.items()
        }
        for array in (forces, virial, *(one.energy for one in (total, *parts.values()))):
            array.setflags(write=False)
        first = {name: part[0] for name, part in parts.items()} if n_batch else {}
        return Lone(total, MappingProxyType(parts), MappingProxyType(first))
