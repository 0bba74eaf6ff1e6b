"""What the parts contribute along a run: energies, E_b on its own scale, forces, trust."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.analysis.read.contributions import (
    E_BINDING,
    TOTAL,
    Series,
    binding_energy,
    known,
)
from deltaserver.analysis.show.figures_dynamics import thin
from deltaserver.arrays import Floats
from deltaserver.model.manifest import BOUND_PARTS
from deltaserver.model.trust import NOVELTY_LIMIT
from deltaserver.plots import GREY, PALETTE, pretty, write

WIDTH_IN, PANEL_IN, MARGIN_IN = 6.8, 1.55, 0.9
BLACK = "black"
LOOSE_END = 0.05  # what of a run the frames may lack at its end, where the log has it


@dataclass(frozen=True)
class Panel:
    """One panel: its axis, and the lines in it.

    Attributes:
        label: of the y axis, with the unit.
        values: what is drawn of a series.
        parts: the series' names, in the order in which they are drawn.
        logarithmic: whether y is.
        limit: where a dashed line stands, None for nowhere.
    """

    label: str
    values: Callable[[Series], Floats]
    parts: tuple[str, ...]
    logarithmic: bool = False
    limit: float | None = None


def draw_contributions(
    series: Mapping[str, Series], paths: Sequence[Path], ps_per_structure: float | None = None
) -> None:
    """Draw what there is of energies, binding energy, force RMS, novelty and uncertainty.

    Covalent energies swing by electronvolts where E_b moves by hundredths: each has its own axis.
    They stand over time where it is known how much of it passes from structure to structure.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: a figure cannot be written there.
    """
    bound = binding_energy(series)
    lines = dict(series) | ({E_BINDING: bound} if bound else {})
    panels = panels_of(series, bound)
    size = (WIDTH_IN, PANEL_IN * len(panels) + MARGIN_IN)
    write(lambda figure: _fill(figure, lines, panels, ps_per_structure), paths, size)


def ps_per_structure(last_seq: int, last_step: int, step_ps: float | None) -> float | None:
    """Return the time, ps, that a structure stands for; None where structures and steps differ.

    A step sends one structure, or one for each bead, replica or inner step: a whole number. Of a
    log that begins anew in the middle, or ends early, it would be none.
    """
    if step_ps is None or last_step < 1:
        return None
    per_step = round(last_seq / last_step)
    if per_step < 1 or abs(last_seq / (last_step * per_step) - 1.0) > LOOSE_END:
        return None
    return step_ps / per_step


def panels_of(series: Mapping[str, Series], bound: Series | None) -> list[Panel]:
    """Return the panels that a log has something for."""
    trained = tuple(name for name in series if name != TOTAL)
    covalent = tuple(name for name in trained if name not in BOUND_PARTS)
    total = (TOTAL,) if TOTAL in series else ()
    panels = []
    if covalent:
        panels.append(
            Panel("energy − mean / eV", lambda s: s.energy - s.energy.mean(), (*total, *covalent))
        )
    if bound is not None:
        panels.append(Panel("binding energy\n$E_b$ / eV", lambda s: s.energy, (E_BINDING,)))
    panels.append(Panel("force RMS / eV Å$^{-1}$", lambda s: s.force_rms, trained, True))
    if any(known(part.novelty) for part in series.values()):
        panels.append(Panel("novelty", lambda s: s.novelty, trained, limit=NOVELTY_LIMIT))
    if any(known(part.uncertainty) for part in series.values()):
        label = "uncertainty of\nforces / eV Å$^{-1}$"
        panels.append(Panel(label, lambda s: s.uncertainty, (*total, *trained), True))
    return panels


def _fill(
    figure: Any, lines: Mapping[str, Series], panels: Sequence[Panel], ps: float | None
) -> None:
    from matplotlib.lines import Line2D

    names = [name for name in lines if name not in (TOTAL, E_BINDING)]
    colours = {name: PALETTE[k % len(PALETTE)] for k, name in enumerate(names)}
    colours |= {TOTAL: BLACK, E_BINDING: BLACK}
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axis, panel in zip(axes, panels, strict=True):
        for name in panel.parts:
            _line(axis, lines[name], panel, colours[name], ps or 1.0, behind=name == TOTAL)
        if panel.limit is not None:
            axis.axhline(panel.limit, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
        if panel.logarithmic:
            axis.set_yscale("log")
        axis.set_ylabel(panel.label)
    axes[-1].set_xlabel("$t$ / ps" if ps else "structures served")
    figure.align_ylabels(axes)
    keys = [Line2D([], [], color=colours[name], label=_label(name, lines[name]))
            for name in (TOTAL, *names) if name in lines]  # fmt: skip
    figure.legend(handles=keys, loc="outside upper left", ncols=3)


def _line(
    axis: Any, part: Series, panel: Panel, colour: str, scale: float, *, behind: bool
) -> None:
    values = panel.values(part)
    if not known(values):
        return
    x, y = thin(scale * part.seq.astype(np.float64), values)
    axis.plot(x, y, color=colour, linewidth=0.8, zorder=1 if behind else 2)


def _label(name: str, part: Series) -> str:
    mean = part.energy.mean()
    return f"{pretty(name)} ({mean:{'.2g' if abs(mean) < 0.1 else '.3f'}} eV)"
