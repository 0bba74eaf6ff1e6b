"""Figures of an evaluation that mirror the paper's Figs. 5, 6 and 7, and learning curves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver import plots
from deltaserver.arrays import Floats
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.evaluation.figures import descriptor
from deltaserver.evaluation.figures.scan import draw_scan
from deltaserver.evaluation.held_out_errors import (
    FULL,
    OVERALL,
    TOTAL,
    ComponentErrors,
    FrameErrors,
    baseline_of,
    improvement,
    metrics,
)
from deltaserver.evaluation.learning_curves import LearningCurve
from deltaserver.evaluation.report import Evaluated
from deltaserver.plots import BLOCK_COLOURS, INTER_COLOUR, pretty
from deltaserver.statistics.bootstrap import BlockBootstrap, Estimate
from deltaserver.units import KCAL_PER_MOL_EV

SCAN_FIGURE = "scan"
FORMATS = ("png", "svg")
COLOUR = {FULL: "#9aa5b1", TOTAL: INTER_COLOUR}
TITLE = {FULL: "full sGDML", TOTAL: "Δ-sGDML"}


def draw_all(found: Evaluated, directory: Path) -> list[Path]:
    """Draw every figure of an evaluation into ``directory``; return the PNG files.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: the directory cannot be written to.
    """
    figures: dict[str, Callable[[Any], None]] = {
        "fig5_binding_labels": lambda f: draw_binding_labels(f, [_titled(found)]),
        "fig6_errors": lambda f: draw_errors(f, found),
        "fig7_fragment_errors": lambda f: draw_fragment_errors(f, found),
        "fig2_descriptor_blocks": lambda f: descriptor.draw_blocks(f, found.frames),
        "fig3_descriptor_distances": lambda f: descriptor.draw_distances(
            f, found.frames, found.descriptor
        ),
    }
    if found.curves:
        figures["learning_curves"] = lambda f: draw_learning_curves(f, found.curves)
    if found.scan:
        scan = found.scan
        figures[SCAN_FIGURE] = lambda f: draw_scan(f, scan)
    return [save(draw, directory / name) for name, draw in figures.items()]


def _titled(found: Evaluated) -> LabelledFrames:
    """Return the frames under the model's name, which reads better than a file's."""
    return replace(found.frames, name=found.models[0].model.name)


def save(draw: Callable[[Any], None], stem: Path) -> Path:
    """Let ``draw`` fill a figure and write it as PNG and SVG; return the PNG's path.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: the files cannot be written.
    """
    return plots.save(draw, stem, (7.0, 4.0), FORMATS)


def draw_binding_labels(figure: Any, datasets: Sequence[LabelledFrames]) -> None:
    """Draw boxes of binding energies and binding-force magnitudes (Fig. 5), per fragment too.

    The line is the median, the dashed one the mean, the box the quartiles, whiskers 5 to 95 %.
    """
    n_boxes = sum(2 * len(frames.fragments) for frames in datasets)
    wide, wider = 1.2 + 0.9 * len(datasets), 0.6 + 1.05 * n_boxes
    figure.set_size_inches(wide + wider, 3.6)
    left, right = figure.subplots(1, 2, width_ratios=(wide, wider))
    _boxes(
        left,
        [frames.binding_energy / KCAL_PER_MOL_EV for frames in datasets],
        [pretty(frames.name) for frames in datasets],
        ["#5b7f95"] * len(datasets),
    )
    left.set_ylabel("binding energy / kcal mol$^{-1}$")
    values, labels, colours = [], [], []
    for frames in datasets:
        magnitude = np.linalg.norm(frames.binding_forces, axis=-1) / KCAL_PER_MOL_EV
        covalent = np.linalg.norm(frames.fragment_forces, axis=-1) / KCAL_PER_MOL_EV
        for index, fragment in enumerate(frames.fragments):
            colour = BLOCK_COLOURS[index % len(BLOCK_COLOURS)]
            some = list(fragment.atoms)
            values += [magnitude[:, some].ravel(), covalent[:, some].ravel()]
            labels += [f"$F_b$\n{pretty(fragment.name)}", f"$F^0$\n{pretty(fragment.name)}"]
            colours += [colour, "#d5dade"]
    there = [k for k, value in enumerate(values) if value.max() > 0.0]  # lone atoms have no F⁰
    _boxes(
        right, [values[k] for k in there], [labels[k] for k in there], [colours[k] for k in there]
    )
    right.set_yscale("log")
    right.set_ylabel("force on an atom / kcal mol$^{-1}$ Å$^{-1}$")
    left.set_title("binding energy")
    right.set_title("binding force $F_b$ and isolated fragments' force $F^0$")


def _boxes(
    axes: Any, values: Sequence[Floats], labels: Sequence[str], colours: Sequence[str]
) -> None:
    drawn = axes.boxplot(
        list(values),
        widths=0.55,
        whis=(5, 95),
        showfliers=False,
        showmeans=True,
        meanline=True,
        patch_artist=True,
        medianprops={"color": "black", "linewidth": 1.2},
        meanprops={"color": "black", "linestyle": (0, (2, 1.5)), "linewidth": 1.0},
    )
    for box, colour in zip(drawn["boxes"], colours, strict=True):
        box.set(facecolor=colour, edgecolor="#33404a", linewidth=0.8)
    axes.set_xticks(range(1, len(labels) + 1), labels)


def draw_errors(figure: Any, found: Evaluated) -> None:
    """Draw MAE and RMSE of energies and forces, full and Δ, and the improvement (Fig. 6)."""
    panels = _panels(figure, 2, len(found.models))
    _bars(panels[0], found, None)
    panels[0].set_ylabel("energy error / kcal mol$^{-1}$")
    panels[0].set_title("energy")
    _bars(panels[1], found, OVERALL)
    panels[1].set_ylabel("force error / kcal mol$^{-1}$ Å$^{-1}$")
    panels[1].set_title("forces")
    _legend_below(figure, panels[0])


def draw_fragment_errors(figure: Any, found: Evaluated) -> None:
    """Draw force errors on each fragment's atoms, full and Δ, and the improvement (Fig. 7)."""
    names = [fragment.name for fragment in found.frames.fragments]
    panels = _panels(figure, len(names), len(found.models))
    for index, (axes, name) in enumerate(zip(panels, names, strict=True)):
        _bars(axes, found, index)
        axes.set_title(f"forces on {pretty(name)}")
        if index == 0 or len(found.models) > 2:
            axes.set_ylabel("force error / kcal mol$^{-1}$ Å$^{-1}$")
    _legend_below(figure, panels[0])


def _panels(figure: Any, n_panels: int, n_models: int) -> Any:
    """Return axes side by side, or one above the other where many models need the width."""
    wide = n_models > 2
    width = 1.2 + 1.35 * n_models * (1 if wide else n_panels)
    height = 0.9 + 2.6 * n_panels if wide else 3.7
    figure.set_size_inches(max(width, 3.5 * (1 if wide else n_panels)), height)
    rows, columns = (n_panels, 1) if wide else (1, n_panels)
    return figure.subplots(rows, columns, squeeze=False).ravel()


def _bars(axes: Any, found: Evaluated, where: str | int | None) -> None:
    """Draw, for every Δ model, four bars: MAE and RMSE of full and of Δ."""
    ticks, labels = [], []
    deltas = [result for result in found.results if result.component == TOTAL]
    for position, delta in enumerate(deltas):
        full = baseline_of(found.results, delta.model)
        for offset, which in ((-0.5, "mae"), (0.5, "rmse")):
            _pair(axes, position * 2.4 + offset, delta, full, where, which, found.bootstrap)
            ticks.append(position * 2.4 + offset)
            labels.append(which.upper())
        if len(deltas) > 1:
            axes.text(
                position * 2.4,
                -0.14,
                pretty(delta.model),
                ha="center",
                va="top",
                transform=axes.get_xaxis_transform(),
                fontsize="small",
            )
    axes.set_xticks(ticks, labels)
    axes.margins(y=0.16)
    axes.set_ylim(bottom=0.0)


def _pair(
    axes: Any,
    x: float,
    delta: ComponentErrors,
    full: ComponentErrors | None,
    where: str | int | None,
    which: str,
    bootstrap: BlockBootstrap,
) -> None:
    """Draw one error of full and Δ side by side, and the improvement above them."""
    top = 0.0
    for shift, result in ((-0.2, full), (0.2, delta)):
        if result is None:
            continue
        estimate: Estimate = getattr(metrics(_errors(result, where), bootstrap), which)
        kcal = estimate.scaled(1.0 / KCAL_PER_MOL_EV)
        error = [[max(kcal.value - kcal.low, 0.0)], [max(kcal.high - kcal.value, 0.0)]]
        axes.bar(
            x + shift,
            kcal.value,
            0.38,
            yerr=error if np.isfinite(error).all() else None,
            capsize=2.5,
            color=COLOUR[result.component],
            label=TITLE[result.component],
            error_kw={"elinewidth": 0.9, "ecolor": "#33404a"},
        )
        top = max(top, kcal.high if np.isfinite(kcal.high) else kcal.value)
    if full is not None:
        better = improvement(_errors(delta, where), _errors(full, where), bootstrap)
        value = getattr(better, f"{which}_percent").value
        axes.annotate(
            f"{-value:+.0f} %".replace("-", "−"),
            (x, top),
            (0, 4),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontweight="bold",
            fontsize="small",
            color=COLOUR[TOTAL],
        )


def _errors(result: ComponentErrors, where: str | int | None) -> FrameErrors:
    """Return energy errors, or forces' overall or on the n-th fragment (names may differ)."""
    if where is None:
        return result.energy
    if isinstance(where, int):
        return list(result.forces.values())[1 + where]
    return result.forces[where]


def _legend_below(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=len(unique))


def draw_learning_curves(figure: Any, curves: Sequence[LearningCurve]) -> None:
    """Draw energy and force MAE against the number of training points, log-log."""
    figure.set_size_inches(7.5, 3.8)
    panels = figure.subplots(1, 2)
    markers = "osD^v"
    seen: dict[str, int] = {}
    for curve in curves:
        rank = seen[curve.component] = seen.get(curve.component, -1) + 1
        n_train = [point.n_train for point in curve.points]
        for axes, quantity in zip(panels, ("energy", "forces"), strict=True):
            estimates = [
                getattr(point, quantity).mae.scaled(1.0 / KCAL_PER_MOL_EV) for point in curve.points
            ]
            axes.errorbar(
                n_train,
                [e.value for e in estimates],
                [[e.value - e.low for e in estimates], [e.high - e.value for e in estimates]],
                color=COLOUR[curve.component],
                marker=markers[rank % len(markers)],
                capsize=2.5,
                linestyle="-" if rank == 0 else "--",
                label=f"{TITLE[curve.component]} (S: {curve.permutations})",
            )
    for axes, title, unit in zip(
        panels, ("energy", "forces"), ("kcal mol$^{-1}$", "kcal mol$^{-1}$ Å$^{-1}$"), strict=True
    ):
        axes.set(xscale="log", yscale="log", xlabel="training points $M$", title=title)
        axes.set_ylabel(f"MAE / {unit}")
        sizes = sorted({point.n_train for curve in curves for point in curve.points})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.minorticks_off()
    _legend_below_rows(figure, panels[0])


def _legend_below_rows(figure: Any, axes: Any) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=1, fontsize="small")
