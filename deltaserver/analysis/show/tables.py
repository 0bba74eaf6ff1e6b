"""The curves of an analysis as CSV files."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.analysis.measure.definitions import SurfaceSpec
from deltaserver.analysis.measure.free_energy import Surface
from deltaserver.analysis.measure.msad import Msad
from deltaserver.analysis.read import contributions
from deltaserver.analysis.results import RunAnalysis
from deltaserver.analysis.show.figures import EnergyUnit
from deltaserver.analysis.show.liquid import liquid_tables
from deltaserver.errors import DataError


def write_rows(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """Write a CSV file; raise DataError if that fails."""
    try:
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows(rows)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
    return path


def make_directory(path: Path) -> Path:
    """Make a directory and return it; raise DataError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path}: cannot be made ({error.strerror})") from error
    return path


def slugs(runs: Sequence[RunAnalysis]) -> list[str]:
    """Return a name for files a run, each another."""
    names = [found.run.label.replace(" ", "_").replace("/", "_") for found in runs]
    return [name if names.count(name) == 1 else f"{name}_{k}" for k, name in enumerate(names)]


def write_tables(
    found: RunAnalysis, unit: EnergyUnit, directory: Path, parts: Sequence[str]
) -> list[Path]:
    """Write the tables of a run into ``directory``; return the files."""
    make_directory(directory)
    written = [
        *_write_along_time(found, directory, parts),
        *_write_distributions(found, unit, directory),
    ]
    if found.liquid:
        for name, header, rows in liquid_tables(found.liquid):
            written.append(write_rows(directory / name, header, rows))
    if found.contributions:
        path = directory / "contributions.csv"
        contributions.write_csv(found.contributions, path)
        written.append(path)
    return written


def _write_along_time(found: RunAnalysis, directory: Path, parts: Sequence[str]) -> Iterator[Path]:
    variables = found.definitions.variables
    if variables and "variables" in parts:
        n_beads = found.surveyed.values.shape[1]
        header = ["step", *(["time_ps"] if found.step_ps else [])]
        header += ["bead"] if n_beads > 1 else []
        yield write_rows(
            directory / "variables.csv", [*header, *(v.column for v in variables)], _values(found)
        )
    thermo = found.thermo
    if thermo:
        columns = {
            "time_ps": thermo.time_ps,
            "conserved_ev": thermo.conserved_ev,
            "temperature_k": thermo.temperature_k,
        }
        known = {name: values for name, values in columns.items() if values is not None}
        yield write_rows(directory / "thermo.csv", list(known), zip(*known.values(), strict=True))


def _values(found: RunAnalysis) -> Iterator[list[object]]:
    n_beads = found.surveyed.values.shape[1]
    for step, values in zip(found.surveyed.steps, found.surveyed.values, strict=True):
        for bead in range(n_beads):
            row: list[object] = [int(step)]
            row += [round(float(step * found.step_ps), 9)] if found.step_ps else []
            row += [bead] if n_beads > 1 else []
            yield [*row, *(f"{value:.6f}" for value in values[bead])]


def _write_distributions(found: RunAnalysis, unit: EnergyUnit, directory: Path) -> Iterator[Path]:
    for spec, surface in found.surfaces:
        yield write_surface(found, spec, surface, unit, directory)
    for guest, result in found.msads.items():
        columns = [result.lag_ps]
        header = ["lag_ps"]
        for name, curve in _curves(result).items():
            header += [name, name.replace("_rad2", "") + "_error" + ("_rad2" * ("_rad2" in name))]
            columns += [curve.value, curve.error]
        yield write_rows(directory / f"msad_{guest}.csv", header, zip(*columns, strict=True))
    for pair in found.pairs:
        yield write_rows(
            directory / f"rdf_{pair.name}.csv".replace("/", "_"),
            ["r_ang", "density_per_ang3", "density_error_per_ang3", "neighbours_within_bin_end"],
            zip(pair.r_ang, pair.density, pair.density_error, pair.neighbours, strict=True),
        )


def _curves(result: Msad) -> dict[str, Any]:
    return {
        "integrated_rad2": result.integrated,
        "net_rad2": result.net,
        "c1": result.c1,
        "c2": result.c2,
    }


def energy_column(unit: EnergyUnit) -> str:
    """Return a unit as the name of a column has it."""
    return "".join(c if c.isalnum() else "_per_" for c in unit.name.lower())


def write_surface(
    found: RunAnalysis, spec: SurfaceSpec, surface: Surface, unit: EnergyUnit, directory: Path
) -> Path:
    """Write one row a bin: the middles, F and its error; an empty bin has ``nan``."""
    names = [found.definitions.variable(name).column for name in spec.variables]
    energy = energy_column(unit)
    centres = np.meshgrid(*surface.centres, indexing="ij")
    columns = [c.ravel() for c in centres]
    columns += [surface.free_energy_ev.ravel() / unit.ev, surface.error_ev.ravel() / unit.ev]
    return write_rows(
        directory / f"{spec.name}.csv",
        [*names, f"free_energy_{energy}", f"error_{energy}"],
        zip(*columns, strict=True),
    )
