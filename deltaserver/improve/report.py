"""What the rounds have found: ``report.json`` and, to be read, ``report.html``, written anew."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from typing import Any

from deltaserver.improve.settings import Settings, Stop
from deltaserver.pages import STYLE
from deltaserver.textio.journal import write_atomically

Record = dict[str, Any]

FORMAT = "deltaserver-improvement/1"
LEARNED = "deltaserver-learned/1"
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def write_report(settings: Settings, stop: Stop, records: Sequence[Record]) -> None:
    """Write both files of an improvement into the directory of the work."""
    content = {
        "format": FORMAT,
        "settings": settings.deciding(),
        "until_force_mae_kcal_mol_ang": stop.force_mae,
        "rounds": list(records),
    }
    _write(settings, content, page(settings, stop, records))


def write_learned(settings: Settings, records: Sequence[Record]) -> None:
    """Write both files of what a long run was taught."""
    content = {"format": LEARNED, "settings": settings.deciding(), "rounds": list(records)}
    _write(settings, content, learned_page(settings, records))


def _write(settings: Settings, content: Record, text: str) -> None:
    as_json = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_atomically(settings.output / "report.json", as_json.encode())
    write_atomically(settings.output / "report.html", text.encode())


def page(settings: Settings, stop: Stop, records: Sequence[Record]) -> str:
    """Return the report of an improvement as one page that opens offline."""
    body = [
        f"<p>Labels: {html.escape(settings.calculator)}. Frames chosen by {settings.selection}. "
        f"Wanted: force MAE {stop.force_mae:g} kcal/mol/Å where the dynamics goes. Every round "
        "is tested on fresh dynamics of its own model, labelled and never trained on.</p>",
        "<h2>Rounds</h2>",
        _table(*_rounds(records)),
    ]
    return _page(f"{settings.models}: improved", [*body, *_all_added(records)])


def learned_page(settings: Settings, records: Sequence[Record]) -> str:
    """Return the report of what a long run was taught as one page that opens offline."""
    body = [
        f"<p>Labels: {html.escape(settings.calculator)}. The run has left what its model knows "
        f"{len(records)} times; each time frames were added, and it went on with a model that was "
        "trained on them too. Errors are those of the model before, on the frames that were "
        "added: it was not trained on them.</p>",
        "<h2>Where the run did not know</h2>",
        _table(*_stops(records)),
    ]
    return _page(f"{settings.models}: taught by a run", [*body, *_all_added(records)])


def _page(title: str, body: Sequence[str]) -> str:
    title = html.escape(title)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        f"<title>{title}</title><style>{STYLE}</style></head><body><main>\n<h1>{title}</h1>\n"
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def _all_added(records: Sequence[Record]) -> list[str]:
    return [
        text
        for record in records
        if record["chosen"]
        for text in (f"<h2>Added in round {record['round']}</h2>", _added(record))
    ]


def _stops(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    parts = list(records[0]["before"]["parts"])
    head = ["round", "after structures", "because", "frames added",
            *(f"{p}: force MAE before" for p in parts), "within u", "hours"]  # fmt: skip
    rows = [
        [
            str(record["round"]), str(record["n_way"]), record["reason"],
            str(record["n_labelled"]), *_force_maes(record["before"], parts),
            f"{record['hours']:.2f}",
        ]
        for record in records
    ]  # fmt: skip
    return head, rows


def _force_maes(errors: Record, parts: Sequence[str]) -> list[str]:
    within = errors["within"]
    return [
        *(f"{errors['parts'][p]['force_mae_kcal_mol_ang']:.4f}" for p in parts),
        "–" if within is None else f"{100 * within:.0f} %",
    ]


def _rounds(records: Sequence[Record]) -> tuple[list[str], list[list[str]]]:
    parts = list(records[0]["test"]["parts"])
    head = ["round", "frames added", *(f"{p}: force MAE" for p in parts), "within u",
            "total: energy MAE", "runs that survive", "sure", "hours"]  # fmt: skip
    rows = []
    for record in records:
        test = record["test"]
        rows.append([
            str(record["round"]), str(record["n_added"]), *_force_maes(test, parts),
            f"{test['parts']['total']['energy_mae_kcal_mol']:.4f}",
            f"{100 * record['survival']:.0f} %", f"{100 * record['sure']:.0f} %",
            f"{record['hours']:.2f}",
        ])  # fmt: skip
    return head, rows


def _added(record: Record) -> str:
    head = ["run", "step", "temperature / K", "uncertainty / eV/Å", "novelty",
            "distance from the nearest", "why"]  # fmt: skip
    rows = []
    for one in record["chosen"]:
        rows.append([
            "the run itself" if one["run"] < 0 else str(one["run"]), str(one["step"]),
            _number(one["temperature_k"], "g"), _number(one["uncertainty_ev_per_ang"], ".4f"),
            f"{one['novelty']:.2f}", _number(one["distance"], ".2f"),
            "tells most of what was seen" if one["sure"] else "the run left what is known",
        ])  # fmt: skip
    aside = f"<p>{record['set_aside']} frames were torn or had reacted and were set aside; "
    return aside + f"runs went back {sum(record['returns'])} times.</p>" + _table(head, rows)


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _table(head: list[str], rows: list[list[str]]) -> str:
    cells = "".join(f"<th>{html.escape(text)}</th>" for text in head)
    lines = [
        "<tr>" + "".join(f"<td>{html.escape(text)}</td>" for text in row) + "</tr>" for row in rows
    ]
    rows_text = "\n".join(lines)
    return f'<div class="wide"><table><tr>{cells}</tr>\n{rows_text}</table></div>'
