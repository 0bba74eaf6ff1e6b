"""Runs of many molecules: a second pass over their trajectory, with the cell of every frame."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from deltaserver.analysis.measure.liquid import (
    BIN_ANG,
    CentreDistribution,
    Displacement,
    Liquid,
    count_shells,
    displacement,
    distribution,
    largest_radius,
    unwrapped,
)
from deltaserver.analysis.read.properties import Properties
from deltaserver.analysis.reading import Notes, times_and_sound_rows, without_gap
from deltaserver.analysis.results import Options, RunAnalysis
from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError
from deltaserver.model import force_field
from deltaserver.model.many.manifest import is_of_many
from deltaserver.model.many.model import ManyModel
from deltaserver.textio.compressed import is_xyz, open_file
from deltaserver.textio.xyz_frames import BadFrame, iterate
from deltaserver.units import AVOGADRO_PER_MOL

G_PER_CM3 = 1e24 / AVOGADRO_PER_MOL  # of 1 u/Å³
MAX_SHELLS = 500  # frames that neighbours are counted in
MIN_SHELLS = 10  # bins, below which a cell is too small for g(r)


def many_of(found: RunAnalysis, options: Options) -> Path | None:
    """Return the model directory of a run of many molecules; None of other runs."""
    models = options.models or found.run.models
    return models if models is not None and is_of_many(models) else None


def liquid_of(
    found: RunAnalysis, read: Properties | None, options: Options, notes: Notes
) -> Liquid | None:
    """Return what a run of many molecules shows; None of other runs."""
    models = many_of(found, options)
    if models is None:
        return None
    model = force_field.load(models)
    assert isinstance(model, ManyModel)
    steps, centres, cells = _centres(found, model, notes)
    if not len(steps):
        notes.problem(f"{found.run.label}: no frames of molecules could be read")
        return None
    inside = np.isin(steps, found.surveyed.steps)
    steps, centres = steps[inside], centres[inside]
    boxes = [cell for cell, kept in zip(cells, inside, strict=True) if kept] if cells else None
    n = len(model.molecules)
    time, energy = _energies(found, read, options)
    mass = float(_masses(found).sum())
    density = None
    if boxes:
        density = np.array([mass * G_PER_CM3 / abs(np.linalg.det(box)) for box in boxes])
    return Liquid(
        n_molecules=n,
        time_ps=steps.astype(np.float64) * (found.step_ps or 1.0),
        distributions=_distributions(model, centres, boxes),
        displacements=_displacements(found, model, steps, unwrapped(centres, boxes), notes),
        density_g_cm3=density,
        energy_ps=time,
        energy_ev=None if energy is None else energy / n,
    )


def _energies(
    found: RunAnalysis, read: Properties | None, options: Options
) -> tuple[Floats | None, Floats | None]:
    """Return times, ps, and potential energies, eV; None where they cannot be told."""
    energy = read.energy_ev("potential") if read else None
    rows = times_and_sound_rows(found, read, options) if read else None
    if energy is None or rows is None or not rows[1].any():
        return None, None
    time, sound = rows
    return time[sound], energy[sound]


def _masses(found: RunAnalysis) -> Floats:
    from deltaserver.textio.species import parse_species

    return np.array([parse_species(symbol).mass_u for symbol in found.symbols])


def _centres(
    found: RunAnalysis, model: ManyModel, notes: Notes
) -> tuple[Ints, Floats, list[Floats]]:
    """Return steps (T,), centres of mass (T, n, 3), species by species, and cells in columns.

    There are no cells where the model does not repeat. Of several beads the first is looked at.
    """
    masses = _masses(found)
    by_step: dict[int, tuple[Floats, Floats | None]] = {}
    for path in found.run.beads[0]:
        if not is_xyz(path):
            notes.note(f"{path}: molecules are looked at in XYZ files alone")
            continue
        with open_file(path) as file:
            try:
                for frame in iterate(file, str(path), notes.note):
                    cell = None if frame.cell is None or not model.periodic else frame.cell.T
                    step = len(by_step) if frame.step is None else frame.step
                    by_step[step] = (_centre(frame.positions, cell, model, masses), cell)
            except BadFrame as error:
                notes.note(f"{path}: frames are read up to {error.index}: {error.reason}")
    steps = np.array(sorted(by_step), dtype=np.int64)
    cells = [cell for s in steps.tolist() if (cell := by_step[s][1]) is not None]
    if len(cells) < len(steps):
        cells = []
    centres = np.array([by_step[s][0] for s in steps.tolist()]).reshape(len(steps), -1, 3)
    return steps, centres, cells


def _centre(positions: Floats, cell: Floats | None, model: ManyModel, masses: Floats) -> Floats:
    parts = []
    for one in model.species:
        weight = masses[one.atoms[0]]
        x = one.whole(positions, cell)
        parts.append(np.einsum("nmx,m->nx", x, weight / weight.sum()))
    return np.concatenate(parts)


def _first(model: ManyModel) -> Ints:
    return np.cumsum([0, *(len(one.atoms) for one in model.species)])


def _distributions(
    model: ManyModel, centres: Floats, cells: list[Floats] | None
) -> tuple[CentreDistribution, ...]:
    """Return g(r) of every two species; nothing of a cluster, which has no density."""
    if not cells:
        return ()
    reach = largest_radius(cells)
    n_bins = int(reach / BIN_ANG)
    edges = np.linspace(0.0, n_bins * BIN_ANG, n_bins + 1)
    if n_bins < MIN_SHELLS:
        return ()
    first = _first(model)
    every = -(-len(centres) // MAX_SHELLS)
    frames = [
        count_shells(x, cell, first, edges)
        for x, cell in zip(centres[::every], cells[::every], strict=True)
    ]
    volume = float(np.mean([abs(np.linalg.det(cell)) for cell in cells]))
    return tuple(
        distribution(
            f"{model.species[s].name}-{model.species[t].name}",
            np.array([frame[s, t] for frame in frames]),
            edges,
            len(model.species[t].atoms) / volume,
        )
        for s, t in frames[0]
    )


def _displacements(
    found: RunAnalysis, model: ManyModel, steps: Ints, centres: Floats, notes: Notes
) -> tuple[Displacement, ...]:
    """Return the MSD of every species' centres, the motion of all together taken off.

    A lag is a number of frames: only of frames without a gap is it a time.
    """
    if found.frame_ps is None:
        notes.note(f"{found.run.label}: no time between frames is known; no diffusion of molecules")
        return ()
    what = f"{found.run.label}: frames are missing; the molecules' MSD"
    centres = centres[without_gap(steps, what, notes)]
    first = _first(model)
    mass = np.repeat([_masses(found)[one.atoms[0]].sum() for one in model.species], np.diff(first))
    relative = centres - np.einsum("tnx,n->tx", centres, mass / mass.sum())[:, None]
    results = []
    for k, one in enumerate(model.species):
        try:
            some = relative[:, first[k] : first[k + 1]]
            results.append(displacement(one.name, some, found.frame_ps))
        except DataError as error:
            notes.note(f"{found.run.label}: {error}")
    return tuple(results)
