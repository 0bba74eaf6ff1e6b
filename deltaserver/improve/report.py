"""What the rounds have found: ``report.json`` and, to be read, ``report.html``, written anew."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

from deltaserver.improve.settings import Settings, Stop
from deltaserver.textio.journal import write_atomically

Record = dict[str, Any]

FORMAT = "deltaserver-improvement/1"
STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;color:#22303a;max-width:1080px;margin:2rem auto;"
    "padding:0 1.25rem}table{border-collapse:collapse;font-size:.88rem;margin:1rem 0}"
    "th,td{padding:.3rem .7rem;text-align:right;border-bottom:1px solid #dfe4e8}"
    "th{color:#5f6b76}td:first-child,th:first-child{text-align:left}"
)
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write_report(settings: Settings, stop: Stop, records: Sequence[Record]) -> None:
    """Write both files into the directory of the work."""
    content = {
        "format": FORMAT,
        "settings": settings.deciding(),
        "until_force_mae_kcal_mol_ang": stop.force_mae,
        "rounds": list(records),
    }
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomically(settings.output / "report.json", text.encode())
    write_atomically(settings.output / "report.html", page(settings, stop, records).encode())


def page(settings: Settings, stop: Stop, records: Sequence[Record]) -> str:
    """Return the report as one page that opens offline."""
    title = html.escape(f"{settings.models}: improved")
    body = [
        f"<h1>{title}</h1>",
        f"<p>Labels: {html.escape(settings.calculator)}. Frames chosen by {settings.selection}. "
        f"Wanted: force MAE {stop.force_mae:g} kcal/mol/Å where the dynamics goes. Every round "
        "is tested on fresh dynamics of its own model, labelled and never trained on.</p>",
        "<h2>Rounds</h2>",
        _table(*_rounds(records)),
    ]
    for record in records:
        if record["chosen"]:
            body += [f"<h2>Added in round {record['round']}</h2>", _added(record)]
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{title}</title><style>{STYLE}</style></head><body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


def _rounds(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    parts = list(records[0]["test"]["parts"])
    head = ["round", "frames added", *(f"{p}: force MAE" for p in parts), "total: energy MAE",
            "within u", "runs that survive", "sure", "hours"]  # fmt: skip
    rows = []
    for record in records:
        test = record["test"]
        within = test["within"]
        rows.append([
            str(record["round"]), str(record["n_added"]),
            *(f"{test['parts'][p]['force_mae_kcal_mol_ang']:.4f}" for p in parts),
            f"{test['parts']['total']['energy_mae_kcal_mol']:.4f}",
            "–" if within is None else f"{100 * within:.0f} %",
            f"{100 * record['survival']:.0f} %", f"{100 * record['sure']:.0f} %",
            f"{record['hours']:.2f}",
        ])  # fmt: skip
    return head, rows


def _added(record: Record) -> str:
    head = ["run", "step", "temperature / K", "uncertainty / eV/Å", "novelty",
            "distance from the nearest", "why"]  # fmt: skip
    rows = []
    for one in record["chosen"]:
        u, distance = one["uncertainty_ev_per_ang"], one["distance"]
        rows.append([
            str(one["run"]), str(one["step"]), f"{one['temperature_k']:g}",
            "–" if u is None else f"{u:.4f}", f"{one['novelty']:.2f}",
            "–" if distance is None else f"{distance:.2f}",
            "tells most of what was seen" if one["sure"] else "the run left what is known",
        ])  # fmt: skip
    aside = f"<p>{record['set_aside']} frames were torn or had reacted and were set aside; "
    return aside + f"runs went back {sum(record['returns'])} times.</p>" + _table(head, rows)


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{html.escape(text)}</th>" for text in head)
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>" for row in rows
    ]
    return f"<table><tr>{cells}</tr>\n" + "\n".join(lines) + "</table>"
