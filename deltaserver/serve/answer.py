"""From a request's positions to the bytes of its answer: units, evaluation, extras. No IO."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.arrays import Floats
from deltaserver.model.composite import CompositeEvaluation
from deltaserver.model.force_field import ForceField
from deltaserver.model.many.model import ManyEvaluation
from deltaserver.model.trust.uncertainty import TOTAL
from deltaserver.serve.settings import Extras
from deltaserver.serve.wire import PosData, force_ready
from deltaserver.units import BOHR_ANG, HARTREE_EV

UNCERTAINTY = "uncertainty_ev_per_ang"
Novelty = Mapping[str, float]  # by component


@dataclass(frozen=True)
class Trust:
    """What tells how far one structure's result can be trusted, by component.

    Attributes:
        novelty: see :mod:`deltaserver.model.trust.novelty`.
        uncertainty_ev_per_ang: see :mod:`deltaserver.model.trust.uncertainty`; of models that
            say nothing of it empty.
    """

    novelty: Novelty = field(default_factory=dict)
    uncertainty_ev_per_ang: Novelty = field(default_factory=dict)


UNKNOWN = Trust()
# Sees positions (B, N, 3) and cells in Å and their results before anything is sent; returns how
# far each structure's can be trusted, or raises.
Guard = Callable[[Floats, Floats, CompositeEvaluation], Sequence[Trust]]


@dataclass(frozen=True)
class Request:
    """Structures whose forces a server waits for, in Å: here the wire's Bohr end.

    Attributes:
        positions: shape (B, N, 3).
        cells: shape (B, 3, 3), lattice vectors in columns.
        n_padding: so many at the end repeat the one before them: i-PI fills short batches.
    """

    positions: Floats
    cells: Floats
    n_padding: int = 0

    @staticmethod
    def of(data: PosData) -> Request:
        """Convert what arrived."""
        n_padding = count_padding(data.positions, data.cells)
        return Request(BOHR_ANG * data.positions, BOHR_ANG * data.cells, n_padding)


@dataclass(frozen=True)
class Contribution:
    """What one part adds to one structure, reduced to two numbers for logs and extras.

    The force RMS runs over the Cartesian components of the atoms that the part acts on.
    """

    energy_ev: float
    force_rms_ev_per_ang: float


@dataclass(frozen=True)
class Structure:
    """One evaluated structure: total energy, contributions, novelty, uncertainty by part."""

    energy_ev: float
    contributions: dict[str, Contribution]
    novelty: Novelty = field(default_factory=dict)
    uncertainty_ev_per_ang: Novelty = field(default_factory=dict)


@dataclass(frozen=True)
class Answer:
    """A reply ready to send and what it says, padded structures left out."""

    reply: bytes
    structures: tuple[Structure, ...]


def answer(
    model: ForceField, request: Request, component: str = "total", extras: Extras = "summary"
) -> Answer:
    """Evaluate one request and serialise FORCEREADY; see :func:`answer_together`."""
    return answer_together(model, [request], component, extras)[0]


def answer_together(
    model: ForceField,
    requests: Sequence[Request],
    component: str = "total",
    extras: Extras = "summary",
    guard: Guard | None = None,
) -> list[Answer]:
    """Evaluate requests of several connections as one batch; serialise a FORCEREADY for each.

    ``guard`` sees every result first, and may refuse it.

    Padding is computed once, answered each, and not counted as structures.
    """
    n_real = [len(request.positions) - request.n_padding for request in requests]
    pairs = list(zip(requests, n_real, strict=True))
    positions = np.concatenate([request.positions[:n] for request, n in pairs])
    cells = np.concatenate([request.cells[:n] for request, n in pairs])
    result = _evaluate(model, positions, cells, component)
    trust = guard(positions, cells, result) if guard else [UNKNOWN] * len(positions)
    starts = np.cumsum([0, *n_real])
    return [
        _reply(model, result, trust, range(start, start + n), len(request.positions), extras)
        for start, n, request in zip(starts[:-1], n_real, requests, strict=True)
    ]


def _reply(
    model: ForceField,
    result: CompositeEvaluation,
    trust: Sequence[Trust],
    rows: range,
    n_batch: int,
    extras: Extras,
) -> Answer:
    """Serialise the structures at ``rows``, the last one as often as fills ``n_batch``."""
    atoms = model.atoms_of
    structures, texts = [], []
    for row in rows:
        one = result[row]
        structure = summarise(one, atoms, trust[row])
        structures.append(structure)
        texts.append(_encode_extras(structure, one, extras))
    padding = [len(rows) - 1] * (n_batch - len(rows))
    at = [*rows, *(rows[k] for k in padding)] if padding else slice(rows.start, rows.stop)
    reply = force_ready(
        result.energy[at] / HARTREE_EV,
        result.forces[at] * (BOHR_ANG / HARTREE_EV),
        result.virial[at] / HARTREE_EV,
        texts + [texts[k] for k in padding],
    )
    return Answer(reply, tuple(structures))


def summarise(
    result: CompositeEvaluation, atoms: Mapping[str, NDArray[np.int64]], trust: Trust
) -> Structure:
    """Reduce one structure's evaluation to the numbers that are logged."""
    return Structure(
        float(result.energy),
        {
            name: Contribution(
                float(part.energy), _rms(part.forces, len(atoms.get(name, part.forces)))
            )
            for name, part in result.contributions.items()
        },
        trust.novelty,
        trust.uncertainty_ev_per_ang,
    )


def _rms(forces: Floats, n_atoms: int) -> float:
    """Return the RMS over the components of so many atoms; forces on others are zero."""
    return math.sqrt(np.vdot(forces, forces) / (3 * n_atoms))


def count_padding(positions: Floats, cells: Floats) -> int:
    """Count the structures at the end that repeat, to the last bit, the one before them."""
    n_batch, padding = len(positions), 0
    while (
        padding < n_batch - 1
        and np.array_equal(positions[-1], positions[-2 - padding])
        and np.array_equal(cells[-1], cells[-2 - padding])
    ):
        padding += 1
    return padding


def _evaluate(
    model: ForceField, positions: Floats, cells: Floats, component: str
) -> CompositeEvaluation:
    """Evaluate structures in Å, together unless the model is periodic and cells differ."""
    if not model.periodic or (cells == cells[0]).all():
        return model.evaluate(positions, component, cells[0] if model.periodic else None)
    one_by_one = [
        model.evaluate(x[None], component, cell) for x, cell in zip(positions, cells, strict=True)
    ]
    return CompositeEvaluation.join(one_by_one)


def _encode_extras(structure: Structure, result: CompositeEvaluation, extras: Extras) -> bytes:
    """Encode the extras as a JSON object: i-PI's poll thread dies of anything else."""
    fields: dict[str, Any] = {"energy_ev": structure.energy_ev}
    for name, part in structure.contributions.items():
        fields[f"{name}_energy_ev"] = part.energy_ev
        fields[f"{name}_force_rms_ev_per_ang"] = part.force_rms_ev_per_ang
        if name in structure.novelty:
            fields[f"{name}_novelty"] = structure.novelty[name]
        if name in structure.uncertainty_ev_per_ang:
            fields[f"{name}_{UNCERTAINTY}"] = structure.uncertainty_ev_per_ang[name]
        if extras == "full":
            fields[f"{name}_forces_ev_per_ang"] = result.contributions[name].forces.tolist()
    if extras == "full" and isinstance(result, ManyEvaluation):
        for name, shares in result.molecules.items():
            fields[f"{name}_molecule_energies_ev"] = shares.tolist()
    if TOTAL in structure.uncertainty_ev_per_ang:
        fields[UNCERTAINTY] = structure.uncertainty_ev_per_ang[TOTAL]
    return json.dumps(fields).encode("ascii")
