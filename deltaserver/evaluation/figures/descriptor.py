"""Figures of the descriptor that mirror the paper's Figs. 2 and 3."""

from __future__ import annotations

from typing import Any

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.evaluation.descriptor import DescriptorAnalysis, PairBlocks, cm_matrix
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.plots import BLOCK_COLOURS, INTER_COLOUR, pretty

DECADES = 4.0  # of ΔD² that the map shows


def draw_blocks(figure: Any, frames: LabelledFrames) -> None:
    """Draw the matrix 1/|r_i − r_j| of the first frame, fragments set apart (Fig. 2)."""
    figure.set_size_inches(5.2, 4.4)
    axes = figure.subplots()
    _matrix(
        figure,
        axes,
        frames,
        cm_matrix(frames.positions[0], frames.fragments),
        "$1/r_{ij}$ / Å$^{-1}$",
        cmap="YlOrRd",
    )


def _matrix(
    figure: Any, axes: Any, frames: LabelledFrames, matrix: Floats, label: str, **options: Any
) -> None:
    image = axes.imshow(matrix, interpolation="nearest", rasterized=True, **options)
    figure.colorbar(image, ax=axes, label=label, shrink=0.85)
    sizes = [len(fragment.atoms) for fragment in frames.fragments]
    edges = np.cumsum([0, *sizes])
    for edge in edges[1:-1]:
        axes.axhline(edge - 0.5, color="black", linewidth=0.9)
        axes.axvline(edge - 0.5, color="black", linewidth=0.9)
    middles = (edges[:-1] + edges[1:] - 1) / 2.0
    names = [pretty(fragment.name) for fragment in frames.fragments]
    axes.set_xticks(middles, names)
    axes.set_yticks(middles, names, rotation=90, va="center")
    axes.tick_params(length=0)
    axes.spines[["top", "right"]].set_visible(True)


def draw_distances(figure: Any, frames: LabelledFrames, analysis: DescriptorAnalysis) -> None:
    """Draw what makes two geometries differ in the eyes of the kernel (Fig. 3).

    A: three descriptor entries along the longest trajectory, and (ΔD)² of the random pair with
    the median z². B: its z² by block. C: standard deviations over all random pairs by block.
    """
    figure.set_size_inches(9.4, 6.6)
    above, below = figure.subfigures(2, 1, height_ratios=(1.15, 1.0))
    series, matrix = above.subplots(1, 2, width_ratios=(1.25, 1.0))
    _draw_series(series, frames, analysis)
    middle = int(np.argsort(analysis.total)[len(analysis.total) // 2])
    _draw_difference(above, matrix, frames, analysis, middle)
    bars, sigma, sigma_squared = below.subplots(1, 3)
    _draw_decomposition(bars, analysis, middle)
    _draw_sigma(sigma, analysis, squared=False)
    _draw_sigma(sigma_squared, analysis, squared=True)
    for axes, letter in ((series, "A"), (bars, "B"), (sigma, "C")):
        axes.set_title(letter, loc="left", fontweight="bold")


def _draw_series(axes: Any, frames: LabelledFrames, analysis: DescriptorAnalysis) -> None:
    numbers, counts = np.unique(frames.trajectory, return_counts=True)
    inside = np.flatnonzero(frames.trajectory == numbers[np.argmax(counts)])
    inside = inside[np.argsort(frames.step[inside], kind="stable")]
    descriptor = PairDescriptor(len(frames.numbers))
    d = np.concatenate([descriptor.geometry(frames.positions[m][None]).descriptor for m in inside])
    colours = _colours(analysis.blocks)
    for k, pair in _shown_entries(analysis.blocks, d.mean(axis=0)).items():
        i, j = (int(index[pair]) for index in (descriptor.i, descriptor.j))
        first, second = (SYMBOLS[frames.numbers[atom]] for atom in (j, i))
        label = f"{first}{j}–{second}{i}, {_block_name(analysis.blocks, k)}"
        axes.plot(frames.step[inside], d[:, pair], color=colours[k], linewidth=0.9, label=label)
    axes.set_xlabel("step")
    axes.set_ylabel("$D_{ij}$ / Å$^{-1}$")
    axes.margins(x=0.01)
    axes.legend(fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2)


def _shown_entries(blocks: PairBlocks, mean: Floats) -> dict[int, int]:
    """Return of every block the pair that is closest on average; of inter blocks, one at most."""
    chosen: dict[int, int] = {}
    for k in range(len(blocks.labels)):
        pairs = np.flatnonzero(blocks.of_pair == k)
        if len(pairs) and not any(known >= blocks.n_fragments for known in chosen):
            chosen[k] = int(pairs[np.argmax(mean[pairs])])
    return chosen


def _draw_difference(
    figure: Any, axes: Any, frames: LabelledFrames, analysis: DescriptorAnalysis, pair: int
) -> None:
    from matplotlib.colors import LogNorm

    first, second = (cm_matrix(frames.positions[m], frames.fragments) for m in analysis.pairs[pair])
    squared = (first - second) ** 2
    top = float(np.nanmax(squared))
    norm = LogNorm(vmin=top / 10.0**DECADES, vmax=top, clip=True)
    _matrix(figure, axes, frames, squared, "$(ΔD_{ij})^2$ / Å$^{-2}$", cmap="magma_r", norm=norm)
    axes.set_title("difference of two random frames")


def _draw_decomposition(axes: Any, analysis: DescriptorAnalysis, pair: int) -> None:
    from matplotlib.patches import Patch

    blocks = analysis.blocks
    places = np.arange(len(blocks.labels))
    names = [_block_name(blocks, k, "\n") for k in range(len(blocks.labels))]
    colours = _colours(blocks)
    axes.bar(places - 0.2, analysis.squared[pair], 0.38, color=colours)
    axes.bar(places + 0.2, analysis.squared.mean(axis=0), 0.38, color=colours, alpha=0.45)
    axes.set_xticks(places, names, fontsize="small")
    axes.set_ylabel("$I$ / Å$^{-2}$")
    axes.set_title("$z^2 = Σ I$")
    # Neutral keys: the colours tell the blocks.
    keys = [Patch(color="#4a4a4a"), Patch(color="#4a4a4a", alpha=0.45)]
    axes.legend(keys, ["these two frames", "mean of all pairs"], fontsize="x-small")


def _draw_sigma(axes: Any, analysis: DescriptorAnalysis, *, squared: bool) -> None:
    blocks = analysis.blocks
    entries = analysis.entry_sigma_squared if squared else analysis.entry_sigma
    there = [k for k in range(len(blocks.labels)) if (blocks.of_pair == k).any()]
    drawn = axes.boxplot(
        [entries[blocks.of_pair == k] for k in there],
        widths=0.5,
        whis=(5, 95),
        showfliers=False,
        patch_artist=True,
        medianprops={"color": "black"},
    )
    colours = _colours(blocks)
    for box, k in zip(drawn["boxes"], there, strict=True):
        box.set(facecolor=colours[k], edgecolor="#33404a", linewidth=0.8)
    labels = [_block_name(blocks, k, "\n") for k in there]
    axes.set_xticks(range(1, len(there) + 1), labels, fontsize="small")
    axes.set_ylim(bottom=0.0)
    if squared:
        axes.set_ylabel("σ of $(ΔD_{ij})^2$ / Å$^{-2}$")
        return
    axes.set_ylabel("σ of $ΔD_{ij}$ / Å$^{-1}$")
    if not np.isnan(analysis.sigma_ratio):
        axes.set_title(f"$σ_{{inter}}/σ_{{intra}}$ = {analysis.sigma_ratio:.2f}")


def _block_name(blocks: PairBlocks, k: int, separator: str = "") -> str:
    if k >= blocks.n_fragments and blocks.n_fragments == 2:
        return "between"
    first, second = (pretty(name) for name in blocks.labels[k])
    return first if first == second else f"{first}–{separator}{second}"


def _colours(blocks: PairBlocks) -> list[str]:
    intra = [BLOCK_COLOURS[k % len(BLOCK_COLOURS)] for k in range(blocks.n_fragments)]
    return intra + [INTER_COLOUR] * (len(blocks.labels) - blocks.n_fragments)
