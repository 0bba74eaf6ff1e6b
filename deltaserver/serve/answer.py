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
from deltaserver.model.manifest import BOUND_PARTS
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


# Sees a request before it is evaluated; what it raises ends the run.
Inspect = Callable[[Request], None]


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

    @property
    def binding_energy_ev(self) -> float | None:
        """Prior and binding together, as far as they are served; None where neither is."""
        bound = [self.contributions[name] for name in BOUND_PARTS if name in self.contributions]
        return sum(part.energy_ev for part in bound) if bound else None


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
    others: Sequence[ForceField] = (),
) -> list[Answer]:
    """Evaluate requests of several connections as one batch; serialise a FORCEREADY for each.

    ``guard`` sees every result first, and may refuse it. With ``others``, ``model`` is the first
    of a committee: the mean is served, and what each says goes into the extras.

    Padding is computed once, answered each, and not counted as structures.
    """
    n_real = [len(request.positions) - request.n_padding for request in requests]
    pairs = list(zip(requests, n_real, strict=True))
    positions = np.concatenate([request.positions[:n] for request, n in pairs])
    cells = np.concatenate([request.cells[:n] for request, n in pairs])
    found = examine(model, positions, cells, component, extras, guard, others)
    starts = np.cumsum([0, *n_real])
    return [
        _reply(found, range(start, start + n), len(request.positions))
        for start, n, request in zip(starts[:-1], n_real, requests, strict=True)
    ]


@dataclass(frozen=True)
class Examined:
    """Structures evaluated together: in atomic units, and what is told of each.

    Attributes:
        energies: Hartree, shape (B,).
        forces: Hartree/Bohr, shape (B, N, 3).
        virials: Hartree, shape (B, 3, 3).
        structures: what is logged.
        extras: JSON objects.
    """

    energies: Floats
    forces: Floats
    virials: Floats
    structures: tuple[Structure, ...]
    extras: tuple[str, ...]


def examine(
    model: ForceField,
    positions: Floats,
    cells: Floats,
    component: str = "total",
    extras: Extras = "summary",
    guard: Guard | None = None,
    others: Sequence[ForceField] = (),
) -> Examined:
    """Evaluate positions (B, N, 3) in cells (B, 3, 3), Å; ``guard`` may refuse the result.

    Of a committee, ``model`` and ``others``, the mean.
    """
    result = _evaluate(model, positions, cells, component)
    members: tuple[CompositeEvaluation, ...] = ()
    if others:
        members = (result, *(_evaluate(one, positions, cells, component) for one in others))
        result = CompositeEvaluation.mean(members)
    trust = guard(positions, cells, result) if guard else [UNKNOWN] * len(positions)
    atoms = model.atoms_of
    each = [result[row] for row in range(len(positions))]
    structures = [summarise(one, atoms, t) for one, t in zip(each, trust, strict=True)]
    return Examined(
        result.energy / HARTREE_EV,
        result.forces * (BOHR_ANG / HARTREE_EV),
        result.virial / HARTREE_EV,
        tuple(structures),
        tuple(
            _extras(structures[k], one, extras, [member[k] for member in members])
            for k, one in enumerate(each)
        ),
    )


def _reply(found: Examined, rows: range, n_batch: int) -> Answer:
    """Serialise the structures at ``rows``, the last one as often as fills ``n_batch``."""
    padding = [rows[-1]] * (n_batch - len(rows))
    at = [*rows, *padding] if padding else slice(rows.start, rows.stop)
    reply = force_ready(
        found.energies[at],
        found.forces[at],
        found.virials[at],
        [found.extras[k].encode("ascii") for k in (*rows, *padding)],
    )
    return Answer(reply, found.structures[rows.start : rows.stop])


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
    return type(one_by_one[0]).join(one_by_one)


def _extras(
    structure: Structure,
    result: CompositeEvaluation,
    extras: Extras,
    members: Sequence[CompositeEvaluation],
) -> str:
    """Write the extras as a JSON object: i-PI's poll thread dies of anything else."""
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
    if members:
        fields |= _committee(members)
    return json.dumps(fields)


def _committee(members: Sequence[CompositeEvaluation]) -> dict[str, Any]:
    """Return what i-PI's ffcommittee reads with ``<parse_json>``, in atomic units."""
    unit = BOHR_ANG / HARTREE_EV
    return {
        "committee_pot": [float(one.energy) / HARTREE_EV for one in members],
        "committee_force": [(unit * one.forces).ravel().tolist() for one in members],
        "committee_virial": [(one.virial / HARTREE_EV).tolist() for one in members],
    }
