"""The figure of a scan: a panel a curve, labels and models."""

from __future__ import annotations

from typing import Any

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.evaluation.scans.curves import ANGLES_DEG, DISSOCIATION, ROTATION, Curve
from deltaserver.evaluation.scans.errors import WALL_EV, ScanErrors
from deltaserver.plots import BLOCK_COLOURS, INTER_COLOUR, pretty

COLUMNS = 3
LINEAR_ANG = 2.0  # displacements beyond are shown on a logarithmic scale
TICKS_ANG = (-1, 0, 1, 2, 5, 10, 20)
ANGLES_SHOWN = (0, 90, 180, 270, 360)


def draw_scan(figure: Any, found: ScanErrors) -> None:
    """Draw E_b along every curve; a model that leaves the labels' range leaves the panel."""
    curves = found.models[0].curves
    rows = -(-len(curves) // COLUMNS)
    columns = min(COLUMNS, len(curves))
    figure.set_size_inches(3.4 * columns, 0.5 + 2.6 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for spare in panels[len(curves) :]:
        spare.set_visible(False)
    colours = (INTER_COLOUR, *BLOCK_COLOURS)
    for k, (axes, shown) in enumerate(zip(panels, curves, strict=False)):
        for number, model in enumerate(found.models):
            axes.plot(
                *_broken(shown.curve, model.curves[k].predicted),
                "-",
                linewidth=1.4,
                color=colours[number % len(colours)],
                label=pretty(model.model),
            )
        axes.plot(
            shown.curve.values,
            shown.label,
            "o",
            markersize=2.8,
            color="black",
            label=found.scan.frames.reference,
        )
        axes.set_title(shown.curve.name)
        _frame(axes, shown.curve.kind == DISSOCIATION, shown.label)
        if k % COLUMNS == 0:
            axes.set_ylabel("$E_b$ / eV")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _broken(curve: Curve, energies: Floats) -> tuple[Floats, Floats]:
    """Return a line's points; a rotation's with a gap where points that clash are left out."""
    x, width = np.array(curve.values), 1.5 * ANGLES_DEG[1]
    wide = np.diff(x) > (width if curve.kind == ROTATION else np.inf)
    gaps = np.flatnonzero(wide) + 1
    return np.insert(x, gaps, np.nan), np.insert(energies, gaps, np.nan)


def _frame(axes: Any, dissociation: bool, label: Any) -> None:
    """Show the labels off the wall, and a margin in which a wrong model is seen to be wrong."""
    low = float(np.min(label, initial=0.0))
    margin = 0.25 * (WALL_EV - low)
    axes.set_ylim(low - margin, max(WALL_EV, float(label.min())) + margin)
    axes.axhline(0.0, color="#9aa5b1", linewidth=0.7, zorder=0)
    if not dissociation:
        axes.set_xticks(ANGLES_SHOWN)
        axes.set_xlabel("angle / °")
        return
    axes.set_xscale("symlog", linthresh=LINEAR_ANG)
    axes.set_xticks(TICKS_ANG, [str(tick) for tick in TICKS_ANG])
    axes.minorticks_off()
    axes.set_xlabel("displacement / Å")
