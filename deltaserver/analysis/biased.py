"""Runs with a bias, put together: the windows of an umbrella, or a metadynamics run with its hills.

Each alone shows a biased distribution; the free energy is of all of them, weighted.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from deltaserver.analysis.measure.binding import BindingFreeEnergy, Shells, binding_free_energy
from deltaserver.analysis.measure.definitions import Definitions, SurfaceSpec
from deltaserver.analysis.measure.free_energy import Surface, bin_edges
from deltaserver.analysis.measure.reweighting import (
    LEAST_OVERLAP,
    Series,
    Weighted,
    join_windows,
    sum_of_hills,
    weigh_metadynamics,
)
from deltaserver.analysis.reading import Notes
from deltaserver.analysis.results import Options, Profile, RunAnalysis
from deltaserver.arrays import Ints
from deltaserver.bias.coordinate import Coordinate
from deltaserver.bias.hills_file import read_hills
from deltaserver.bias.settings import HILLS_NAME, Bias
from deltaserver.bias.terms import Hills
from deltaserver.errors import DataError, InputError

FILLING = 0.2  # of a metadynamics run, in which hills still fill the first well
OUTER_SHARE = 0.1  # of the range, where molecules count as free if nothing else is said


def profiles(found: Sequence[RunAnalysis], options: Options, notes: Notes) -> Iterator[Profile]:
    """Yield what the biased ones of these runs amount to; what cannot be done is told."""
    logging.getLogger("pymbar").setLevel(logging.ERROR)  # it speaks when it is imported
    for label, mine in groups(found).items():
        try:
            yield _profile(label, mine, options, notes)
        except (DataError, InputError) as error:
            notes.problem(f"{label}: {error}")


def groups(found: Sequence[RunAnalysis]) -> dict[str, list[RunAnalysis]]:
    """Return the biased runs that belong together, by a name: windows of one directory.

    Runs that have but a wall are windows too, of their own temperature: a sweep has several.
    """
    still = [one for one in found if one.run.bias and one.run.bias.growth is None]
    of_windows = {
        (one.run.directory.parent, one.run.temperature_k)
        for one in still
        if one.run.bias and one.run.bias.spring
    }
    together: dict[Hashable, list[RunAnalysis]] = {}
    for one in found:
        if one.run.bias is None:
            continue
        place = one.run.directory.parent, one.run.temperature_k
        key: Hashable = one.run.directory, one.run.label
        if one.run.bias.growth is None:
            key = place[0] if one.run.bias.spring or place in of_windows else place
        together.setdefault(key, []).append(one)
    return _named(together.values())


def _named(together: Iterable[list[RunAnalysis]]) -> dict[str, list[RunAnalysis]]:
    """Name runs by their directory, one alone by its own label; longer where two would be alike."""
    named: dict[str, list[RunAnalysis]] = {}
    for mine in together:
        first, several = mine[0].run, len(mine) > 1
        name = first.group if several else first.label
        if name in named:
            place = first.directory.parent if several else first.directory
            kelvin = "" if first.temperature_k is None else f" {first.temperature_k:g}K"
            name = f"{place}{kelvin}"
        named[name] = mine
    return named


def settled_from(bias: Bias, n_last: int) -> int:
    """Return the step from which on frames count, of a run with so many steps."""
    if bias.growth is not None:
        return int(FILLING * n_last)
    return bias.settled_at


def _profile(label: str, mine: Sequence[RunAnalysis], options: Options, notes: Notes) -> Profile:
    first = mine[0]
    bias, kelvin = first.run.bias, first.run.temperature_k
    assert bias is not None
    if kelvin is None:
        raise DataError("no temperature is known; give --temperature for the free energy")
    _check_alike(mine)
    variable = bias.coordinate.name
    names = [v.name for v in first.definitions.variables]
    _check_variable(first.definitions, bias.coordinate)
    series = [_series(one, options, names.index(variable), notes) for one in mine]
    hills = None
    if bias.growth is None:
        weighted = join_windows([s for s, _ in series], kelvin)
        _warn_of_gaps(weighted, notes)
    else:
        path = first.run.directory / HILLS_NAME
        hills = Hills(bias.growth.hill_width_ang, read_hills(path))
        weighted = weigh_metadynamics(*series[0], hills)
    surfaces = tuple(_surfaces(first, weighted, names))
    profile = Profile(
        label,
        "umbrella" if hills is None else "metadynamics",
        tuple(mine),
        variable,
        weighted,
        surfaces,
    )
    if hills is not None and profile.main:
        spec, surface = profile.main
        free = sum_of_hills(hills, bias, surface.centres[0])
        if spec.jacobian == "remove":
            free = free + 2.0 * weighted.kt_ev * np.log(surface.centres[0])
        known = np.isfinite(surface.free_energy_ev)
        profile = replace(profile, hills_ev=free - free[known].min())
    return replace(profile, binding=_binding(profile, names.index(variable), options, notes))


def _warn_of_gaps(found: Weighted, notes: Notes) -> None:
    least = found.least_overlap
    if least is not None and least.overlap < LEAST_OVERLAP:
        notes.note(
            f"{least.label}: overlaps with the next window by {least.overlap:.3f} only; "
            f"{LEAST_OVERLAP:g} or more is wanted: add a window between, or a weaker spring"
        )


def _check_variable(definitions: Definitions, biased: Coordinate) -> None:
    """Refuse definitions in which the biased variable is none, or another one of its name."""
    found = next((v for v in definitions.variables if v.name == biased.name), None)
    if found is None:
        raise DataError(
            f"the biased variable {biased.name!r} is in no definition; see --definitions"
        )
    same = found.kind == "distance" and set(map(frozenset, found.groups)) == set(
        map(frozenset, biased.groups)
    )
    weights = {weight for group in biased.weights if len(group) > 1 for weight in group}
    if not same or (weights and (found.centre == "geometry") != (weights == {1.0})):
        raise DataError(
            f"{biased.name!r} of the definitions is another variable than the one that was biased; "
            "see --definitions"
        )


def _check_alike(mine: Sequence[RunAnalysis]) -> None:
    """Refuse runs of which one free energy cannot be: other variables, temperatures, models."""
    first = mine[0].run
    for one in mine[1:]:
        run = one.run
        assert run.bias is not None
        assert first.bias is not None
        if run.bias.coordinate != first.bias.coordinate:
            raise DataError(f"{run.label} is biased along another variable than {first.label}")
        if run.temperature_k != first.temperature_k:
            raise DataError(f"{run.label} has another temperature than {first.label}")
        if (run.models, run.component) != (first.models, first.component):
            raise DataError(f"{run.label} is of another model than {first.label}")


def _series(one: RunAnalysis, options: Options, biased: int, notes: Notes) -> tuple[Series, Ints]:
    """Return the frames that count, and their steps."""
    bias = one.run.bias
    assert bias is not None
    begin = settled_from(bias, one.last_step)
    if options.skip_ps and bias.growth is not None:
        begin = 0  # the user has said where it begins
    elif bias.growth is not None:
        notes.note(
            f"{one.run.label}: the first {FILLING:.0%}, in which hills fill the wells, are left "
            "out; --skip sets another time"
        )
    kept = one.surveyed.steps > begin
    if not kept.any():
        raise DataError(f"{one.run.label}: no frame after step {begin}, where sampling begins")
    values = one.surveyed.values[kept].mean(axis=1)
    return Series(one.run.label, bias, values, biased), one.surveyed.steps[kept]


def _surfaces(
    first: RunAnalysis, weighted: Weighted, names: Sequence[str]
) -> Iterator[tuple[SurfaceSpec, Surface]]:
    for spec in first.definitions.surfaces:
        columns = [names.index(name) for name in spec.variables]
        kinds = tuple(first.definitions.variable(name).kind for name in spec.variables)
        edges = tuple(
            bin_edges(weighted.samples[:, column], n_bins, limits)
            for column, n_bins, limits in zip(columns, spec.bins, spec.ranges, strict=True)
        )
        yield spec, weighted.surface(columns, edges, kinds, spec.jacobian)


def _binding(
    profile: Profile, column: int, options: Options, notes: Notes
) -> BindingFreeEnergy | None:
    """Return ΔG° where it was asked for; if nothing is said, free is the outermost tenth."""
    if options.bound_ang is None:
        return None
    outer = options.outer_ang
    if outer is None:
        s = profile.weighted.samples[:, column]
        biases = [one.run.bias for one in profile.runs]
        walls = [bias.wall.wall_ang for bias in biases if bias and bias.wall]
        high = min([float(s.max()), *walls])
        outer = (high - OUTER_SHARE * (high - float(s.min())), high)
        notes.note(
            f"{profile.label}: molecules count as free from {outer[0]:.2f} to {outer[1]:.2f} Å; "
            "--outer sets another shell"
        )
    return binding_free_energy(profile.weighted, column, Shells(options.bound_ang, outer))
