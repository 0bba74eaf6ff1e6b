"""Figures of the surfaces: panels by temperature in two dimensions, curves in one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.analysis.measure.definitions import SurfaceSpec
from deltaserver.analysis.measure.free_energy import Surface
from deltaserver.analysis.results import RunAnalysis
from deltaserver.arrays import Floats
from deltaserver.plots import GREY, colours_of, save
from deltaserver.units import energy_in_ev

CONTOURS = 12
DENSE = 0.15  # of the bins visited, from where contour lines mean something
PANEL_IN = 1.95
MATHS_UNIT = {
    "kcal/mol": "kcal mol$^{-1}$",
    "kj/mol": "kJ mol$^{-1}$",
    "mev": "meV",
    "ev": "eV",
}


@dataclass(frozen=True)
class EnergyUnit:
    """The unit that free energies are shown in."""

    name: str

    @property
    def ev(self) -> float:
        """How many eV it is."""
        return energy_in_ev(self.name)

    @property
    def text(self) -> str:
        """Return the unit as an axis shows it."""
        return MATHS_UNIT.get(self.name.lower(), self.name)


def label_of(found: RunAnalysis) -> str:
    """Return what a run is called: its directory's name, and its temperature if that is new."""
    kelvin = found.run.temperature_k
    if kelvin is None:
        return found.run.label
    name = f"{kelvin:g} K"
    plain = found.run.label.replace(" ", "").replace("_", "").lower()
    if plain == f"{kelvin:g}k":
        return name
    said = plain.endswith(f"{kelvin:g}k")
    return found.run.label if said else f"{found.run.label}, {name}"


def labels_of(runs: Sequence[RunAnalysis]) -> list[str]:
    """Return what runs are called that stand in one figure: their temperatures if these differ."""
    kelvin = [found.run.temperature_k for found in runs]
    one_group = len({found.run.group for found in runs}) == 1
    if len(runs) > 1 and one_group and None not in kelvin and len(set(kelvin)) == len(kelvin):
        return [f"{t:g} K" for t in kelvin]
    return [label_of(found) for found in runs]


def groups_of(runs: Sequence[RunAnalysis]) -> dict[str, list[RunAnalysis]]:
    """Return the runs that stand in one figure, by its name: a group each, unless all have one."""
    groups: dict[str, list[RunAnalysis]] = {}
    for found in runs:
        groups.setdefault(found.run.group, []).append(found)
    if len(groups) == 1 or all(len(mine) == 1 for mine in groups.values()):
        return {"": list(runs)}
    return groups


def surface_of(found: RunAnalysis, spec: SurfaceSpec) -> Surface | None:
    """Return a run's surface over the variables of ``spec``."""
    return next((s for own, s in found.surfaces if own.variables == spec.variables), None)


def grid_of(runs: Sequence[RunAnalysis]) -> list[list[RunAnalysis | None]]:
    """Arrange runs as rows of groups and columns of temperatures; else all in one row or two."""
    groups = list(dict.fromkeys(found.run.group for found in runs))
    kelvin = sorted({found.run.temperature_k or 0.0 for found in runs})
    cells: dict[tuple[str, float], RunAnalysis] = {}
    for found in runs:
        cells.setdefault((found.run.group, found.run.temperature_k or 0.0), found)
    if len(cells) == len(runs) and (len(groups) > 1 or len(kelvin) == len(runs)):
        return [[cells.get((group, t)) for t in kelvin] for group in groups]
    width = min(len(runs), 5)
    padded: list[RunAnalysis | None] = [*runs, *[None] * (-len(runs) % width)]
    return [padded[k : k + width] for k in range(0, len(padded), width)]


def draw_planes(
    runs: Sequence[RunAnalysis], spec: SurfaceSpec, unit: EnergyUnit, stem: Path
) -> Path:
    """Draw F over two variables, a panel a run, all on one colour scale."""
    grid = grid_of(runs)
    n_rows, n_columns = len(grid), len(grid[0])
    one = len(runs) == 1
    scale = 1.9 if one else 1.0
    size = (PANEL_IN * scale * n_columns + 1.1, (PANEL_IN * scale + 0.25) * n_rows + 0.55)

    def draw(figure: Any) -> None:
        axes = figure.subplots(n_rows, n_columns, sharex=True, sharey=True, squeeze=False)
        surfaces = [surface_of(found, spec) for found in runs]
        highest = _highest([s for s in surfaces if s], unit)
        levels = np.linspace(0.0, highest, CONTOURS + 1)
        image = None
        for row, line in enumerate(grid):
            for column, found in enumerate(line):
                surface = surface_of(found, spec) if found else None
                panel = axes[row][column]
                if found is None or surface is None:
                    panel.set_visible(False)
                    continue
                image = _plane(panel, surface, unit, levels)
                panel.set_title(_panel_title(found, grid))
        variables = [runs[0].definitions.variable(name) for name in spec.variables]
        for panel in axes[-1]:
            panel.set_xlabel(variables[0].label)
        for row, line in enumerate(axes):
            group = next((f.run.group for f in grid[row] if f), "")
            named = f"{group}\n" if n_rows > 1 and _by_group(grid) else ""
            first = next(panel for panel in line if panel.get_visible())
            first.set_ylabel(f"{named}{variables[1].label}")
            first.tick_params(labelleft=True)
        if image is not None:
            bar = figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02, aspect=30)
            bar.set_label(f"$F$ / {unit.text}")
            bar.outline.set_visible(False)
        figure.supxlabel(footnote([s for s in surfaces if s]), fontsize=6.5, color=GREY)

    return save(draw, stem, size)


def _by_group(grid: list[list[RunAnalysis | None]]) -> bool:
    return all(len({f.run.group for f in line if f}) == 1 for line in grid)


def _panel_title(found: RunAnalysis, grid: list[list[RunAnalysis | None]]) -> str:
    if found.run.temperature_k is not None and _by_group(grid):
        title = f"{found.run.temperature_k:g} K"
    else:
        title = label_of(found)
    if found.broken:
        when = found.broken.time_ps
        title += f"  (to {when:.1f} ps)" if when is not None else "  (broke)"
    return title


def _highest(surfaces: Sequence[Surface], unit: EnergyUnit) -> float:
    """Return a round top of the colour scale that leaves out the noisiest bins only."""
    tops = [np.nanpercentile(s.free_energy_ev, 98) / unit.ev for s in surfaces]
    highest = max(tops, default=1.0) or 1.0
    step = 10.0 ** np.floor(np.log10(highest)) / 2.0
    return float(np.ceil(highest / step) * step)


def _plane(panel: Any, surface: Surface, unit: EnergyUnit, levels: Floats) -> Any:
    values = surface.free_energy_ev.T / unit.ev
    x, y = surface.edges
    image = panel.pcolormesh(
        x, y, values, cmap="viridis", vmin=0.0, vmax=levels[-1], rasterized=True, linewidth=0
    )
    centres = surface.centres
    if np.isfinite(values).mean() > DENSE and surface.n_samples > 20 * values.size:
        panel.contour(
            *centres, values, levels=levels[1::2], colors="white", linewidths=0.35, alpha=0.7
        )
    panel.tick_params(labelsize=8)
    return image


def draw_curves(
    runs: Sequence[RunAnalysis], spec: SurfaceSpec, unit: EnergyUnit, stem: Path
) -> Path:
    """Draw F over one variable, a curve a run with its standard error, a panel a group."""
    groups = groups_of(runs)
    variable = runs[0].definitions.variable(spec.variables[0])

    def draw(figure: Any) -> None:
        axes = figure.subplots(1, len(groups), sharex=True, sharey=True, squeeze=False)[0]
        for panel, (group, mine) in zip(axes, groups.items(), strict=True):
            colours = colours_of([found.run.temperature_k for found in mine])
            for found, colour, label in zip(mine, colours, labels_of(mine), strict=True):
                surface = surface_of(found, spec)
                if surface:
                    _curve(panel, surface, unit, colour, label)
            panel.set_xlabel(variable.label)
            panel.set_ylim(bottom=0.0)
            if len(groups) > 1:
                panel.set_title(group)
        axes[0].set_ylabel(f"$F$ / {unit.text}")
        axes[-1].legend()
        surfaces = [s for found in runs if (s := surface_of(found, spec))]
        figure.supxlabel(footnote(surfaces), fontsize=6.5, color=GREY)

    return save(draw, stem, (3.4 * len(groups) + 0.6, 3.1))


def _curve(panel: Any, surface: Surface, unit: EnergyUnit, colour: Any, label: str) -> None:
    x = surface.centres[0]
    values, error = surface.free_energy_ev / unit.ev, surface.error_ev / unit.ev
    panel.plot(x, values, color=colour, linewidth=1.4, label=label)
    panel.fill_between(x, values - error, values + error, color=colour, alpha=0.22, linewidth=0)


def footnote(surfaces: Sequence[Surface]) -> str:
    """Say what stands in the density, and what the bands are."""
    if not surfaces:
        return ""
    if surfaces[0].jacobian == "keep":
        text = "$F = -kT\\,\\ln P$; the Jacobian ($R^2$ of a distance) is in $P$"
    else:
        text = "$F = -kT\\,\\ln\\,(P/J)$; Jacobian $J$ ($R^2$ of a distance) removed"
    if surfaces[0].free_energy_ev.ndim == 1:
        text += "; bands: one standard error, block bootstrap"
    return text
