"""What an evaluation has found as Markdown tables, in kcal/mol and kcal/mol/Å as in the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from deltaserver.evaluation.descriptor import DescriptorAnalysis
from deltaserver.evaluation.held_out_errors import (
    FULL,
    OVERALL,
    TOTAL,
    ComponentErrors,
    FrameErrors,
    Metrics,
    baseline_of,
    improvement,
    metrics,
    wholes,
)
from deltaserver.evaluation.learning_curves import permutations_of
from deltaserver.evaluation.report import Evaluated, reference
from deltaserver.evaluation.scans.report import scan_markdown
from deltaserver.evaluation.training_record import read_report, sigma_search
from deltaserver.statistics.bootstrap import BlockBootstrap, Estimate
from deltaserver.textio.markdown import markdown_table
from deltaserver.units import KCAL_PER_MOL_EV

FEW_BLOCKS = " So few blocks make the intervals themselves rough."
SIGMA_TRIED = "σ tried: validation force MAE (kcal/mol/Å)"
TITLES = {TOTAL: "Δ", FULL: "full"}


def to_markdown(
    found: Evaluated, figures: Sequence[Path] = (), made_with: str = "", command: str = ""
) -> str:
    """Return the report as Markdown.

    Args:
        found: the evaluation.
        figures: PNG files to show, relative to the Markdown file.
        made_with: the command that trained the models.
        command: the command that makes this report again.
    """
    name = found.models[0].model.name
    blocks = [f"# {name}: held-out errors", _introduction(found, made_with), _parts_table(found)]
    blocks += [f"## Full against Δ\n\n{whole_tables(found)}"]
    if len(found.models) > 1:
        blocks.append(f"## Symmetry and decomposition told apart\n\n{grid_table(found)}")
    blocks.append(f"## Each part on its own labels\n\n{_part_errors_table(found)}")
    if found.curves:
        blocks.append(f"## Learning curves\n\n{_curves_table(found)}")
    if found.scan:
        blocks.append(scan_markdown(found.scan))
    blocks.append(f"## What the descriptor compares\n\n{_descriptor_text(found.descriptor)}")
    if figures:
        shown = "\n".join(f"![{path.stem.replace('_', ' ')}]({path})" for path in figures)
        blocks.append(f"## Figures\n\n{shown}")
    if command:
        blocks.append(f"Made again by:\n\n    {command}")
    return "\n\n".join(blocks) + "\n"


def _introduction(found: Evaluated, made_with: str) -> str:
    bootstrap = found.bootstrap
    share = ", ".join(f"{n} of trajectory {k}" for k, n in found.test_per_trajectory.items())
    lines = [
        f"Labels: {found.frames.reference}. Dataset: `{found.dataset}`, "
        f"{len(found.frames)} frames of {len(found.frames.numbers)} atoms.",
        f"Test: {len(found.test)} frames ({share}): {found.request.describe()}. "
        "No test frame is a training point of any part: checked by descriptor.",
        f"Intervals in brackets: {100 * bootstrap.confidence:g} %, bootstrap over "
        f"{_blocks(bootstrap)}, {len(bootstrap.times)} resamples, seed {bootstrap.seed}), "
        "widened by Student's t for the number of blocks."
        + (FEW_BLOCKS if bootstrap.n_blocks < 10 else ""),
    ]
    if found.methods_note:
        lines.append(found.methods_note)
    if made_with:
        lines.insert(0, f"Models trained with `{made_with}`.")
    return "\n".join(lines)


def _blocks(bootstrap: BlockBootstrap) -> str:
    """Return what was resampled, up to where a bracket is open."""
    if bootstrap.n_whole == bootstrap.n_blocks:
        return f"whole trajectories, each of which is a block ({bootstrap.n_blocks} blocks"
    blocks = f"blocks of {bootstrap.block_length} consecutive frames"
    if bootstrap.n_whole:
        blocks += " and whole trajectories that are no longer"
    return f"{blocks} ({bootstrap.n_blocks} blocks"


def _parts_table(found: Evaluated) -> str:
    rows = []
    for model in found.models:
        report = read_report(model.directory)
        for p in model.parts:
            tried = sigma_search(report, p)
            listed = ", ".join(f"{sigma}: {_tried(mae)}" for sigma, mae in tried.items())
            rows.append(
                [
                    model.label,
                    p.name,
                    str(p.n_atoms),
                    str(p.n_train),
                    str(p.n_perms),
                    _sigma(p.sigma, tried),
                    listed,
                ]
            )
    header = ["model", "part", "atoms", "training points M", "permutations S", "σ", SIGMA_TRIED]
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    return "## Models\n\n" + markdown_table(header, rows)


def _sigma(sigma: float, tried: Mapping[str, float | None]) -> str:
    """Return σ, and whether a better one may lie outside those tried."""
    values = [float(value) for value in tried]
    edge = len(values) > 1 and sigma in (min(values), max(values))
    return (
        f"{sigma:g} ({'lowest' if sigma == min(values) else 'highest'} tried)"
        if edge
        else f"{sigma:g}"
    )


def _tried(mae: float | None) -> str:
    return "failed" if mae is None else f"{mae:.3g}"


def whole_tables(found: Evaluated) -> str:
    """Return one table per model directory: full, Δ, and by how much Δ is better."""
    tables = []
    for model in found.models:
        table = _whole_table(found, model.label)
        tables.append(f"**{model.label}**\n\n{table}" if len(found.models) > 1 else table)
    return "\n\n".join(tables)


def _whole_table(found: Evaluated, label: str) -> str:
    delta = wholes(found.results)[label, TOTAL]
    full = baseline_of(found.results, label)
    rows = _energy_rows(delta, full, found.bootstrap)
    for where in delta.forces:
        rows += _error_rows("force", "kcal/mol/Å", delta, full, where, found.bootstrap)
    title = "full" if full is None or full.model == label else f"full of {full.model}"
    return markdown_table(["quantity", "unit", title, "Δ", "improvement"], rows)


def _energy_rows(
    delta: ComponentErrors, full: ComponentErrors | None, bootstrap: BlockBootstrap
) -> list[list[str]]:
    """Errors as they are, then the mean offset: sGDML learns forces, its constant is a fit."""
    ours = metrics(delta.energy, bootstrap)
    theirs = metrics(full.energy, bootstrap) if full else None
    unit = "kcal/mol"
    return [
        *_error_rows("energy", unit, delta, full, None, bootstrap),
        ["energy mean offset", unit, shown(theirs.offset if theirs else None),
         shown(ours.offset), ""],
        ["energy RMSE about the offset", unit,
         shown(theirs.rmse_about_offset if theirs else None), shown(ours.rmse_about_offset), ""],
    ]  # fmt: skip


def _error_rows(
    what: str,
    unit: str,
    delta: ComponentErrors,
    full: ComponentErrors | None,
    where: str | None,
    bootstrap: BlockBootstrap,
) -> list[list[str]]:
    ours = _metrics(delta, where, bootstrap)
    place = "" if where in (None, OVERALL) else f" on {where}"
    if full is None:
        return [
            [f"{what} MAE{place}", unit, "–", shown(ours.mae), "–"],
            [f"{what} RMSE{place}", unit, "–", shown(ours.rmse), "–"],
        ]
    theirs = _metrics(full, where, bootstrap)
    better = improvement(_errors(delta, where), _errors(full, where), bootstrap)
    return [
        [
            f"{what} MAE{place}",
            unit,
            shown(theirs.mae),
            shown(ours.mae),
            percent(better.mae_percent),
        ],
        [
            f"{what} RMSE{place}",
            unit,
            shown(theirs.rmse),
            shown(ours.rmse),
            percent(better.rmse_percent),
        ],
    ]


def _errors(result: ComponentErrors, where: str | None) -> FrameErrors:
    return result.energy if where is None else result.forces[where]


def _metrics(result: ComponentErrors, where: str | None, bootstrap: BlockBootstrap) -> Metrics:
    return metrics(_errors(result, where), bootstrap)


def grid_table(found: Evaluated) -> str:
    """Return force MAEs, full | Δ by model directory, and what each gains over one baseline."""
    known = wholes(found.results)
    rows = []
    for model in found.models:
        first = reference(found, model.label)
        row = [model.label]
        for component in (FULL, TOTAL):
            result = known.get((model.label, component))
            row.append("–" if result is None else _grid_cell(result, first, found.bootstrap))
            row.append("–" if result is None else permutations_of(model, component))
        rows.append(row)
    header = ["model", "full", "its permutations", "Δ", "its permutations"]
    note = (
        "Force MAE in kcal/mol/Å; in parentheses its improvement over the first full model of as "
        "many training points."
    )
    return f"{note}\n\n{markdown_table(header, rows)}"


def _grid_cell(
    result: ComponentErrors, first: ComponentErrors | None, bootstrap: BlockBootstrap
) -> str:
    errors = result.forces[OVERALL]
    text = shown(metrics(errors, bootstrap).mae)
    if first is None or first is result:
        return text
    return f"{text} ({percent(improvement(errors, first.forces[OVERALL], bootstrap).mae_percent)})"


def _part_errors_table(found: Evaluated) -> str:
    rows = []
    for result in found.results:
        if result.is_whole:
            continue
        energy = metrics(result.energy, found.bootstrap)
        force = metrics(result.forces[OVERALL], found.bootstrap)
        rows.append(
            [
                result.model,
                result.component,
                shown(energy.mae),
                shown(energy.offset),
                shown(force.mae),
                shown(force.rmse),
            ]
        )
    header = ["model", "part", "energy MAE (kcal/mol)", "energy mean offset (kcal/mol)",
              "force MAE (kcal/mol/Å)", "force RMSE (kcal/mol/Å)"]  # fmt: skip
    note = "Fragments on the labels of the isolated fragments, binding on the difference."
    return f"{note}\n\n{markdown_table(header, rows)}"


def _curves_table(found: Evaluated) -> str:
    rows = [
        [
            TITLES[curve.component],
            curve.permutations,
            str(point.n_train),
            shown(point.energy.mae),
            shown(point.forces.mae),
            shown(point.forces.rmse),
        ]
        for curve in found.curves
        for point in curve.points
    ]
    header = ["model", "permutations", "M", "energy MAE (kcal/mol)", "force MAE (kcal/mol/Å)",
              "force RMSE (kcal/mol/Å)"]  # fmt: skip
    return markdown_table(header, rows)


def _descriptor_text(found: DescriptorAnalysis) -> str:
    sigma = found.sigma()
    rows = [
        [
            "–".join(label),
            str(int((found.blocks.of_pair == k).sum())),
            f"{found.squared[:, k].mean():.4g}",
            f"{100 * found.shares[k]:.1f} %",
            "–" if np.isnan(sigma[k]) else f"{sigma[k]:.4f}",
        ]
        for k, label in enumerate(found.blocks.labels)
    ]
    header = ["block", "entries", "mean I (1/Å²)", "share of z²", "σ of ΔD (1/Å)"]
    ratio = "" if np.isnan(found.sigma_ratio) else f"; σ_inter/σ_intra = {found.sigma_ratio:.2f}"
    return (
        f"{len(found.pairs)} random pairs of frames, each atom pair counted once{ratio}.\n\n"
        f"{markdown_table(header, rows)}"
    )


def shown(estimate: Estimate | None) -> str:
    """Return an energy or force error in kcal/mol with its interval: ``0.925 [0.785, 1.071]``."""
    if estimate is None:
        return "–"
    e = estimate.scaled(1.0 / KCAL_PER_MOL_EV)
    size = np.floor(np.log10(abs(e.value))) if e.value else 0.0
    places = int(np.clip(2 - size, 1, 4))
    return f"{e.value:.{places}f} [{e.low:.{places}f}, {e.high:.{places}f}]"


def percent(estimate: Estimate) -> str:
    """Return a percentage with its interval: ``83.2 % [81.7, 84.7]``."""
    return f"{estimate.value:.1f} % [{estimate.low:.1f}, {estimate.high:.1f}]"
