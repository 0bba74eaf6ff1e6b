"""Errors of what three molecules have beyond their pairs, as JSON and as Markdown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from deltaserver.errors import DataError
from deltaserver.evaluation.held_out_errors import OVERALL, metrics
from deltaserver.evaluation.markdown import shown
from deltaserver.evaluation.of_three import NONE, EvaluatedThree
from deltaserver.evaluation.report import bootstrap_json, dataset_json, errors_json, split_json
from deltaserver.model.manifest import PRIOR, TRIPLES
from deltaserver.textio.journal import write_atomically
from deltaserver.textio.markdown import markdown_table

FORMAT = "deltaserver-evaluation-of-three/1"
TITLES = {NONE: "pairs alone", PRIOR: "dispersion and induction", TRIPLES: "with a kernel"}


def table(found: EvaluatedThree) -> str:
    """Return the errors of every component of every directory as a Markdown table."""
    rows = []
    for result in found.results:
        energy = metrics(result.energy, found.bootstrap)
        force = metrics(result.forces[OVERALL], found.bootstrap)
        errors = (energy.mae, energy.rmse, force.mae, force.rmse)
        rows.append([result.model, TITLES[result.component], *map(shown, errors)])
    head = ("model", "three bodies", "energy MAE", "energy RMSE", "force MAE", "force RMSE")
    return markdown_table(head, rows)


def to_markdown(found: EvaluatedThree, command: str) -> str:
    """Return the report as Markdown."""
    blocks = [
        f"# {found.frames.name}: what three molecules have beyond their pairs",
        f"Labels: {found.frames.reference}. Dataset: `{found.dataset}`, {len(found.frames)} "
        f"frames. Test: {len(found.test)} frames: {found.request.describe()}. Energies in "
        "kcal/mol, forces in kcal/mol/Å, as the directories are served, with the ends of their "
        "potentials.",
        *found.notes,
        table(found),
    ]
    if command:
        blocks.append(f"Made again by:\n\n    {command}")
    return "\n\n".join(blocks) + "\n"


def to_json(found: EvaluatedThree) -> dict[str, Any]:
    """Return the report as JSON can hold it; every field with a unit names it."""
    return {
        "format": FORMAT,
        "dataset": dataset_json(found.dataset, found.frames),
        "split": split_json(found.request, found.test),
        "bootstrap": bootstrap_json(found.bootstrap),
        "notes": found.notes,
        "models": [
            {"label": one.label, "directory": str(one.directory), "name": one.model.name}
            for one in found.models
        ],
        "errors": [errors_json(result, found.bootstrap) for result in found.results],
    }


def write_three(found: EvaluatedThree, output: Path, command: str) -> list[Path]:
    """Write ``evaluation.json`` and ``evaluation.md`` into ``output``.

    Raises:
        DataError: something cannot be written there.
    """
    texts = {
        output / "evaluation.json": json.dumps(to_json(found), indent=2, ensure_ascii=False) + "\n",
        output / "evaluation.md": to_markdown(found, command),
    }
    try:
        output.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            write_atomically(path, text.encode())
    except OSError as error:
        raise DataError(f"{output}: cannot be written to ({error})") from error
    return [*texts]
