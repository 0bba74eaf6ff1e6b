"""Runs whose temperature changes: replica exchange, sorted by temperature, and ramps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from deltaserver.analysis.measure.survey import Sampled, Surveyed
from deltaserver.analysis.read.properties import Properties, read_properties
from deltaserver.analysis.reading import Notes
from deltaserver.analysis.results import RunAnalysis
from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError

TEMPERATURE = "ensemble_temperature"
ROUND_K = 2  # digits: i-PI writes nine


def sort_by_temperature(found: Sequence[RunAnalysis], notes: Notes) -> list[RunAnalysis]:
    """Return the runs, replicas that exchange their temperatures replaced by one a temperature.

    A system's trajectory goes through several temperatures; at every step each temperature has
    one system, so that the frames of one temperature are a trajectory again, though not one in
    time: it has no angular displacement. A ramp is at no temperature long enough for a surface.
    """
    done: list[RunAnalysis] = []
    for directory in dict.fromkeys(one.run.directory for one in found):
        mine = [one for one in found if one.run.directory == directory]
        done += _sorted(mine, notes) if any(one.run.is_exchange for one in mine) else mine
    return done


def _sorted(systems: list[RunAnalysis], notes: Notes) -> list[RunAnalysis]:
    try:
        read = [_properties(one, notes) for one in systems]
        temperatures = [_at_frames(*pair, notes) for pair in zip(systems, read, strict=True)]
    except DataError as error:
        notes.problem(f"{systems[0].run.directory}: {error}; frames stay by system")
        return systems
    known = np.unique(np.concatenate(temperatures)[~np.isnan(np.concatenate(temperatures))])
    if len(known) > len(systems):
        notes.note(f"{systems[0].run.label}: the temperature is ramped; no free energy surfaces")
        return [_without_surfaces(one) for one in systems]
    notes.note(
        f"{systems[0].run.directory}: frames sorted by the temperatures of the exchange; there is "
        "no MSAD, since they are not one trajectory in time"
    )
    return [
        replace(
            _at(systems, temperatures, float(kelvin)), exchanged=_potential_at(read, float(kelvin))
        )
        for kelvin in known
    ]


def _properties(one: RunAnalysis, notes: Notes) -> Properties:
    """Read the properties of one system, which must tell its temperatures."""
    if not one.run.properties:
        raise DataError("no properties, so that the temperature of a frame is not known")
    read = read_properties(one.run.properties, notes.note)
    if read.raw(TEMPERATURE) is None or read.steps is None:
        raise DataError(f"the properties have no step and {TEMPERATURE}{{kelvin}}")
    return read


def _potential_at(read: Sequence[Properties], kelvin: float) -> tuple[Ints, Floats] | None:
    """Return the steps and potential energies, eV, of whatever system is at a temperature."""
    steps, potential = [], []
    for one in read:
        known, energy, at = one.steps, one.energy_ev("potential"), one.temperature_k(TEMPERATURE)
        if known is None or energy is None or at is None:
            return None
        here = np.round(at, ROUND_K) == kelvin
        steps.append(known[here])
        potential.append(energy[here])
    joined = np.concatenate(steps)
    order = np.argsort(joined, kind="stable")
    return joined[order], np.concatenate(potential)[order]


def _at_frames(one: RunAnalysis, read: Properties, notes: Notes) -> Floats:
    """Return the ensemble's temperature (K) at every frame, NaN where it is not written."""
    kelvin = read.temperature_k(TEMPERATURE)
    assert kelvin is not None
    assert read.steps is not None
    found = np.full(len(one.surveyed.steps), np.nan)
    _, at_frame, at_row = np.intersect1d(one.surveyed.steps, read.steps, return_indices=True)
    found[at_frame] = np.round(kelvin[at_row], ROUND_K)
    if np.isnan(found).any():
        n = int(np.isnan(found).sum())
        notes.note(f"{one.run.label}: {n} frames have no row of properties at their step; left out")
    return found


def _without_surfaces(one: RunAnalysis) -> RunAnalysis:
    return replace(
        one,
        run=replace(one.run, temperature_k=None),
        definitions=replace(one.definitions, surfaces=()),
    )


def _at(systems: list[RunAnalysis], temperatures: list[Floats], kelvin: float) -> RunAnalysis:
    """Return the frames of all systems at one temperature, in the order of their steps."""
    which = [np.flatnonzero(t == kelvin) for t in temperatures]
    parts = [one.surveyed for one in systems]
    chosen = list(zip(parts, which, strict=True))
    steps = np.concatenate([part.steps[rows] for part, rows in chosen])
    order = np.argsort(steps, kind="stable")
    first = systems[0]
    return replace(
        first,
        run=replace(
            first.run,
            label=f"{first.run.directory.resolve().name} {kelvin:g}K",
            temperature_k=kelvin,
            properties=(),
        ),
        definitions=replace(first.definitions, rotations=()),
        surveyed=Surveyed(
            steps=steps[order],
            values=np.concatenate([part.values[rows] for part, rows in chosen])[order],
            quaternions={},
            fit_ang={},
            stretch=np.concatenate([part.stretch[rows] for part, rows in chosen])[order],
            sampled=_sampled_at(parts, which),
            n_overwritten=sum(part.n_overwritten for part in parts),
        ),
    )


def _sampled_at(parts: list[Surveyed], which: list[Ints]) -> Sampled:
    rows = [np.isin(p.sampled.steps, p.steps[k]) for p, k in zip(parts, which, strict=True)]
    steps = np.concatenate([p.sampled.steps[r] for p, r in zip(parts, rows, strict=True)])
    order = np.argsort(steps, kind="stable")
    positions = [p.sampled.positions[r] for p, r in zip(parts, rows, strict=True)]
    return Sampled(
        steps=steps[order],
        positions=np.concatenate(positions)[order],
        counts={
            name: np.concatenate(
                [p.sampled.counts[name][r] for p, r in zip(parts, rows, strict=True)]
            )[order]
            for name in parts[0].sampled.counts
        },
    )
