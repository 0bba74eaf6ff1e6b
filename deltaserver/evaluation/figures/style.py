"""Colours, sizes and words that the evaluation's figures share."""

from __future__ import annotations

from deltaserver.evaluation.held_out_errors import FULL, TOTAL

FORMATS = ("png", "svg")
DPI = 200
COLOUR = {FULL: "#9aa5b1", TOTAL: "#1f6f8b"}
TITLE = {FULL: "full sGDML", TOTAL: "Δ-sGDML"}
BLOCK_COLOURS = ("#c8553d", "#e0a030", "#6a994e", "#7d5ba6")
INTER_COLOUR = "#1f6f8b"
STYLE = {
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "deltaserver",
}


def pretty(name: str) -> str:
    """Return a name with spaces for underscores, as figures show it."""
    return name.replace("_", " ")
