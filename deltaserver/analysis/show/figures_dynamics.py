"""Figures along time: variables, angular displacement, temperature, drift, distances."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.analysis.measure.msad import RANDOM_PLATEAU, Curve, Msad
from deltaserver.analysis.results import RunAnalysis
from deltaserver.analysis.show.figures import labels_of
from deltaserver.arrays import Floats
from deltaserver.plots import GREY, PALETTE, colours_of, save

MAX_POINTS = 4000  # of a line along time: more cannot be seen, and make files large
DASH_DOT = (0, (4, 2, 1, 2))


def thin(*series: Floats) -> list[Floats]:
    """Return every k-th point of series so that at most ``MAX_POINTS`` are left."""
    every = max(1, -(-len(series[0]) // MAX_POINTS))
    return [values[::every] for values in series]


def draw_variables(runs: Sequence[RunAnalysis], stem: Path) -> Path:
    """Draw every variable along time, and how often it has each value."""
    variables = runs[0].definitions.variables
    colours = colours_of([found.run.temperature_k for found in runs])

    def draw(figure: Any) -> None:
        axes = figure.subplots(
            len(variables), 2, squeeze=False, sharey="row", width_ratios=(4, 1), sharex="col"
        )
        for (left, right), variable in zip(axes, variables, strict=True):
            for found, colour, label in _backwards(runs, colours):
                if variable not in found.definitions.variables:
                    continue
                values = found.values_of(variable.name)
                time, shown = thin(found.time_ps, values.mean(axis=1))
                left.plot(time, shown, color=colour, linewidth=0.7, label=label)
                right.hist(
                    values.ravel(),
                    bins=60,
                    orientation="horizontal",
                    color=colour,
                    density=True,
                    histtype="step",
                    linewidth=1.1,
                )
            left.set_ylabel(variable.label)
            right.set_xticks([])
            right.spines["bottom"].set_visible(False)
        axes[-1][0].set_xlabel(time_label(runs))
        axes[0][1].set_title("density")
        if len(runs) > 1:
            _legend(figure, axes[0][0])

    return save(draw, stem, (6.8, 1.7 * len(variables) + 0.8))


def _backwards(
    runs: Sequence[RunAnalysis], colours: Sequence[Any]
) -> Iterator[tuple[RunAnalysis, Any, str]]:
    """Yield runs, colours and labels from the last on: what moves least is drawn on top."""
    yield from reversed(list(zip(runs, colours, labels_of(runs), strict=True)))


def _legend(figure: Any, panel: Any) -> None:
    """Name the runs above the panels, in their own order."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside upper left", ncols=5)


def time_label(runs: Sequence[RunAnalysis]) -> str:
    """Return the label of a time axis."""
    return "time / ps" if all(found.step_ps for found in runs) else "step"


def draw_msad(runs: Sequence[RunAnalysis], guest: str, stem: Path) -> Path:
    """Draw integrated and net displacements on logarithmic scales, and C₁ and C₂."""
    known = [found for found in runs if guest in found.msads]
    colours = colours_of([found.run.temperature_k for found in known])
    if len(known) == 1:
        colours = [PALETTE[0]]

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2, width_ratios=(1.25, 1))
        top = 0.0
        for found, colour, label in _backwards(known, colours):
            result = found.msads[guest]
            top = max(top, float(np.nanmax(result.net.value)))
            _band(left, result, result.integrated, colour, "-", label)
            _band(left, result, result.net, colour, "--", None)
            _fit(left, result, colour)
            _band(right, result, result.c1, colour, "-", None)
            _band(right, result, result.c2, colour, ":", None)
        n_dof = known[0].msads[guest].diffusion.n_dof
        plateau = RANDOM_PLATEAU[n_dof]
        if top > 0.05 * plateau:
            left.axhline(plateau, color=GREY, linewidth=0.6, linestyle=(0, (1, 2)))
            left.annotate(
                "net angle of random turns",
                (0.01, 1.1 * plateau),
                fontsize=6.5,
                xycoords=("axes fraction", "data"),
                color=GREY,
            )
        left.set(
            xscale="log",
            yscale="log",
            xlabel="lag / ps",
            ylabel=f"angular displacement of {guest} / rad$^2$",
        )
        right.set(xscale="log", xlabel="lag / ps", ylabel="reorientation")
        right.set_ylim(top=1.02)
        if len(known) > 1:
            _legend(figure, left)
        fitted = f"${2 * n_dof}Dt+c$ fitted"
        _key(left, (("integrated", "-"), ("net angle", "--"), (fitted, DASH_DOT)), "lower right")
        _key(right, (("$C_1$", "-"), ("$C_2$", ":")), "lower left")

    return save(draw, stem, (6.8, 3.2))


def _band(
    panel: Any, result: Msad, curve: Curve, colour: Any, style: str, label: str | None
) -> None:
    panel.plot(result.lag_ps, curve.value, style, color=colour, linewidth=1.3, label=label)
    low, high = np.maximum(curve.value - curve.error, 1e-12), curve.value + curve.error
    panel.fill_between(result.lag_ps, low, high, color=colour, alpha=0.18, linewidth=0)


def _fit(panel: Any, result: Msad, colour: Any) -> None:
    """Draw the fitted line over its window."""
    fit = result.diffusion
    inside = (result.lag_ps >= fit.begin_ps * 0.99) & (result.lag_ps <= fit.end_ps * 1.01)
    if inside.sum() < 2:
        return
    lag = result.lag_ps[inside]
    line = fit.slope_rad2_per_ps * lag
    line += (result.integrated.value[inside] - line).mean()
    shown = line > 0
    panel.plot(lag[shown], 1.35 * line[shown], color=colour, linewidth=0.9, linestyle=DASH_DOT)


def _key(panel: Any, entries: Sequence[tuple[str, Any]], place: str) -> None:
    """Add a legend that says what the line styles are."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], color=GREY, linestyle=style, linewidth=1.2) for _, style in entries]
    panel.legend(lines, [name for name, _ in entries], loc=place)


def draw_thermo(runs: Sequence[RunAnalysis], stem: Path) -> Path:
    """Draw the conserved quantity about its start, per atom, and the temperature."""
    known = [found for found in runs if found.thermo]
    colours = colours_of([found.run.temperature_k for found in known])

    def draw(figure: Any) -> None:
        above, below = figure.subplots(2, 1, sharex=True)
        for found, colour, label in _backwards(known, colours):
            thermo = found.thermo
            assert thermo is not None
            if thermo.conserved_ev is not None:
                change = 1e3 * (thermo.conserved_ev - thermo.conserved_ev[0]) / len(found.symbols)
                above.plot(*thin(thermo.time_ps, change), color=colour, linewidth=0.7, label=label)
            if thermo.temperature_k is not None:
                below.plot(
                    *thin(thermo.time_ps, thermo.temperature_k),
                    color=colour,
                    linewidth=0.5,
                    alpha=0.85,
                )
                if thermo.temperature and thermo.temperature.target_k:
                    below.axhline(
                        thermo.temperature.target_k,
                        color=GREY,
                        linewidth=0.6,
                        linestyle=(0, (4, 2)),
                    )
        above.set_ylabel("conserved quantity\n− start / meV atom$^{-1}$")
        below.set_ylabel("temperature / K")
        below.set_xlabel("time / ps")
        if len(known) > 1:
            _legend(figure, above)

    return save(draw, stem, (6.8, 3.9))


def draw_pairs(runs: Sequence[RunAnalysis], name: str, stem: Path) -> Path:
    """Draw the density of pair distances with its error, and the neighbours within r."""
    known = [(f, p) for f in runs for p in f.pairs if p.name == name]
    colours = colours_of([found.run.temperature_k for found, _ in known])

    def draw(figure: Any) -> None:
        left, right = figure.subplots(1, 2)
        labels = labels_of([found for found, _ in known])
        for (_, pair), colour, label in zip(known, colours, labels, strict=True):
            left.plot(pair.r_ang, 1e3 * pair.density, color=colour, linewidth=1.3, label=label)
            left.fill_between(
                pair.r_ang,
                1e3 * (pair.density - pair.density_error),
                1e3 * (pair.density + pair.density_error),
                color=colour,
                alpha=0.2,
                linewidth=0,
            )
            right.plot(pair.edges_ang[1:], pair.neighbours, color=colour, linewidth=1.3)
        begin = min(float(p.r_ang[p.density > 0.0].min()) for _, p in known) - 0.5
        for panel in (left, right):
            panel.set_xlabel("$r$ / Å")
            panel.set_xlim(left=max(0.0, begin))
        left.set_ylabel("pair density / 10$^{-3}$ Å$^{-3}$")
        left.set_ylim(bottom=0.0)
        right.set_ylabel("neighbours within $r$")
        left.set_title(name.replace("-", " – "))
        if len(known) > 1:
            left.legend()

    return save(draw, stem, (6.8, 2.9))
