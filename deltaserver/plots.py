"""Colours, sizes and saving that all figures share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.errors import DataError, MissingExtraError

FORMATS = ("png", "svg", "pdf")
DPI = 200
GREY = "#5f6b76"
# Told apart by colour-blind readers too: Okabe and Ito's colours without their yellow, which white
# paper swallows [Wong, DOI 10.1038/nmeth.1618].
PALETTE = ("#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#4d4d4d")
INTER_COLOUR, BLOCK_COLOURS = PALETTE[0], PALETTE[1:5]  # between fragments, within each
# The time of writing is kept out of files: what is drawn again is the same.
STAMPS = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.5,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "xtick.direction": "out",
    "ytick.direction": "out",
    "svg.fonttype": "none",
    "svg.hashsalt": "deltaserver",
    "pdf.fonttype": 42,
    "mathtext.default": "it",
}


def pretty(name: str) -> str:
    """Return a name with spaces for underscores, as figures show it."""
    return name.replace("_", " ")


def save(
    draw: Callable[[Any], None],
    stem: Path,
    size: tuple[float, float],
    formats: Sequence[str] | None = None,
) -> Path:
    """Write what ``draw`` fills a figure with in all formats, PNG first; return the PNG's path.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: the files cannot be written.
    """
    paths = [stem.with_name(f"{stem.name}.{suffix}") for suffix in formats or FORMATS]
    write(draw, paths, size)
    return paths[0]


def write(draw: Callable[[Any], None], paths: Sequence[Path], size: tuple[float, float]) -> None:
    """Let ``draw`` fill a figure of ``size`` inches, and write it to every path.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: a file cannot be written.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "analysis") from error
    with rc_context(STYLE):
        figure = Figure(figsize=size, layout="constrained")
        draw(figure)
        for path in paths:
            stamp: dict[str, None] = STAMPS.get(path.suffix, {})
            try:
                figure.savefig(path, dpi=DPI, metadata=stamp, bbox_inches="tight", pad_inches=0.05)
            except (OSError, ValueError) as error:
                raise DataError(f"{path}: the figure cannot be written ({error})") from error
            figure.set_layout_engine("none")  # found for the first; all formats have the same


def colours_of(temperatures_k: list[float | None]) -> list[Any]:
    """Return a colour a run: from cold to hot if the temperatures differ, else of the palette."""
    known = [t for t in temperatures_k if t is not None]
    if len(known) == len(temperatures_k) > 1 and len(set(known)) == len(known):
        from matplotlib import colormaps

        order = np.argsort(np.argsort(known)) / (len(known) - 1)
        return [colormaps["plasma"](0.05 + 0.78 * k) for k in order]
    return [PALETTE[k % len(PALETTE)] for k in range(len(temperatures_k))]
