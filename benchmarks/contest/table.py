"""Rows of the rivals' table: kept as JSON, shown as Markdown and as a figure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contest.cases import DISPLACEMENTS_ANG, TIME_STEP_FS
from benchmarks.contest.entries import BY_NAME, LABELS, OURS, RIVALS, TITLES
from benchmarks.contest.survival import SHORT, WHOLE
from deltaserver.textio.markdown import markdown_table
from deltaserver.units import KCAL_PER_MOL_EV

Rows = dict[str, dict[str, dict[str, Any]]]  # system, rival, stage

HEADER = ("", "version", "aims at", "force MAE", "binding force", "ms a step", "× ours", "ns a day",
          "400 K", "E_b at 0 Å", "largest error of E_b")  # fmt: skip
ERROR = "error"
WALL_EV = 0.5  # points above are on the wall, and not compared
SHOWN_ANG = (-1.0, 0.0, 1.0, 2.0, 4.0, 8.0, 12.0)
MS_PER_DAY, FS_PER_NS = 86_400_000.0, 1e6
BUSY = 1.1  # wall over processor time


def read_rows(file: Path) -> Rows:
    return json.loads(file.read_text()) if file.is_file() else {}


def write_rows(file: Path, rows: Rows) -> None:
    partial = file.with_suffix(".tmp")
    partial.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    partial.replace(file)


def merged(rows: Rows, system: str, rival: str, stage: str, found: Mapping[str, Any]) -> Rows:
    """Return the rows with one more result. What failed never takes a finished result's place."""
    old = rows.get(system, {}).get(rival, {})
    if ERROR in found and finished(rows, system, rival, stage):
        return rows
    row = {**old, stage: dict(found)}
    return {**rows, system: {**rows.get(system, {}), rival: row}}


def finished(rows: Rows, system: str, rival: str, stage: str) -> bool:
    found = rows.get(system, {}).get(rival, {}).get(stage)
    return found is not None and ERROR not in found


def ns_a_day(ms: float) -> float:
    """Return the nanoseconds of steps of 0.5 fs that fit into a day of evaluations alone."""
    return MS_PER_DAY / ms * TIME_STEP_FS / FS_PER_NS


def curve_errors(rows: Mapping[str, Mapping[str, Any]], rival: str) -> dict[float, float]:
    """Return E_b − E_b of GFN2-xTB at every displacement off the wall, eV.

    A rival without fragments has its energy at the last displacement for zero.
    """
    label = rows[LABELS]["curve"]["e_b"]
    own = rows[rival]["curve"]["e_b"]
    return {
        d: mine - exact
        for d, mine, exact in zip(DISPLACEMENTS_ANG, own, label, strict=True)
        if exact < WALL_EV
    }


def table(rows: Rows, system: str) -> str:
    """Return one system's table; a rival that failed says so where its numbers would be."""
    known = rows.get(system, {})
    lines = [_line(known, rival.name) for rival in RIVALS if rival.name in known]
    return f"**{TITLES[system]}**\n\n{markdown_table(HEADER, lines)}"


def _line(known: Mapping[str, Mapping[str, Any]], name: str) -> list[str]:
    row, rival = known[name], BY_NAME[name]
    wrong = next((stage[ERROR] for stage in row.values() if ERROR in stage), None)
    done = {stage: found for stage, found in row.items() if ERROR not in found}
    cells = [rival.title, done.get("version", {}).get("version", "–"), rival.level]
    if wrong and not done.keys() - {"version"}:
        return [*cells, wrong.replace("|", "/"), *[""] * (len(HEADER) - 4)]
    return [*cells, *_errors(done), *_speed(done), _survival(done), *_curve(known, done, name)]


def _errors(done: Mapping[str, Any]) -> list[str]:
    found = done.get("errors")
    if not found:
        return ["–", "–"]
    values = (found["force_mae"], found["binding_mae"])
    return ["–" if v is None else f"{v / KCAL_PER_MOL_EV:.3g}" for v in values]


def _speed(done: Mapping[str, Any]) -> list[str]:
    found = done.get("speed")
    if not found:
        return ["–", "–", "–"]
    ms = found["cpu_ms"]
    return [plain(ms, 3), plain(found["ratio"], 2), plain(ns_a_day(ms), 2)]


def plain(value: float, digits: int) -> str:
    """Return so many digits, and those before the point in any case."""
    return f"{value:.0f}" if value >= 10**digits else f"{value:.{digits}g}"


def _survival(done: Mapping[str, Any]) -> str:
    found = done.get("survival")
    if not found:
        return "–"
    if found["end"] in (WHOLE, SHORT):
        return f"whole, {found['ps']:.3g} ps"
    return f"{found['end']} at {found['ps']:.3g} ps"


def _curve(known: Mapping[str, Any], done: Mapping[str, Any], name: str) -> list[str]:
    if "curve" not in done or ERROR in known.get(LABELS, {}).get("curve", {ERROR: ""}):
        return ["–", "–"]
    mark = "" if done["curve"]["of_fragments"] else "†"
    e_b = f"{done['curve']['e_b'][DISPLACEMENTS_ANG.index(0.0)]:.3f}{mark}"
    if name == LABELS:
        return [e_b, "–"]
    errors = curve_errors(known, name)
    worst = max(errors, key=lambda d: abs(errors[d]))
    return [e_b, f"{plain(abs(errors[worst]), 2)} ({worst:+g} Å){mark}"]


def curves(rows: Rows, system: str) -> str:
    """Return E_b along the way out, eV, one row a rival."""
    known = {
        name: row["curve"]
        for name, row in rows.get(system, {}).items()
        if ERROR not in row.get("curve", {ERROR: ""})
    }
    lines = []
    for rival in RIVALS:
        if rival.name not in known:
            continue
        curve = known[rival.name]
        title = rival.title + ("" if curve["of_fragments"] else "†")
        values = [curve["e_b"][DISPLACEMENTS_ANG.index(d)] for d in SHOWN_ANG]
        lines.append([title, *(f"{value:.3f}" for value in values)])
    header = ("E_b, eV, at", *(f"{d:+g} Å" if d else "0 Å" for d in SHOWN_ANG))
    return markdown_table(header, lines)


def busy(rows: Rows) -> bool:
    """Return whether anything was timed while others wanted the core too."""
    timed = [
        row["speed"]["wall_ms"] / row["speed"]["cpu_ms"]
        for of_system in rows.values()
        for row in of_system.values()
        if ERROR not in row.get("speed", {ERROR: ""})
    ]
    return bool(timed) and float(np.median(timed)) > BUSY


LINES = {OURS: "-", LABELS: "o"}
STYLES = ("--", ":", "-.", "-", "--", ":", "-.")


def draw(figure: Any, rows: Rows) -> None:
    """Draw E_b of every rival along the way out, a panel a system."""
    from deltaserver.plots import PALETTE

    systems = [system for system in TITLES if system in rows]
    figure.set_size_inches(3.6 * len(systems), 3.9)
    # A colour and a style a rival, in both panels; precisions of one are one line.
    named = [r.name for r in RIVALS if "curve" in r.stages and not r.name.endswith("double")]
    named = [name for name in named if name not in (LABELS, "gfn2-tblite")]
    found: dict[str, Any] = {}
    for axes, system in zip(figure.subplots(1, len(systems), squeeze=False)[0], systems,
                            strict=True):  # fmt: skip
        label = rows[system][LABELS]["curve"]["e_b"]
        for k, name in enumerate(named):
            curve = rows[system].get(name, {}).get("curve", {ERROR: ""})
            if ERROR in curve:
                continue
            (found[BY_NAME[name].title],) = axes.plot(
                DISPLACEMENTS_ANG, curve["e_b"], STYLES[(k - 1) % len(STYLES)] if k else "-",
                color=PALETTE[k % len(PALETTE)], linewidth=1.4,
            )  # fmt: skip
        (found[BY_NAME[LABELS].title],) = axes.plot(
            DISPLACEMENTS_ANG, label, "o", color="black", markersize=3.0
        )
        low = min(label)
        axes.set_ylim(1.6 * low, -0.9 * low)
        axes.axhline(0.0, color="#9aa5b1", linewidth=0.7, zorder=0)
        axes.set_title(TITLES[system])
        axes.set_xlabel("displacement / Å")
    figure.axes[0].set_ylabel("$E_b$ / eV")
    figure.legend(found.values(), found.keys(), loc="outside lower center", ncols=3)
