"""What a scan has found, as JSON and as Markdown: energies in eV, forces in kcal/mol/Å."""

from __future__ import annotations

from typing import Any

from deltaserver.evaluation.scans.curves import CONTACT_ANG
from deltaserver.evaluation.scans.errors import (
    JUMP_EV_ANG,
    WALL_EV,
    WITHIN_EV,
    CurveErrors,
    ScanErrors,
    ScannedModel,
)
from deltaserver.textio.markdown import markdown_table
from deltaserver.units import KCAL_PER_MOL_EV


def scan_json(found: ScanErrors) -> dict[str, Any]:
    """Return the scan as JSON can hold it; every field with a unit names it."""
    frames = found.scan.frames
    return {
        "path": str(found.scan.path),
        "reference": frames.reference,
        "n_points": len(frames),
        "fragments": {f.name: len(f.atoms) for f in frames.fragments},
        "counted_below_ev": WALL_EV,
        "models": [_model_json(model) for model in found.models],
    }


def _model_json(found: ScannedModel) -> dict[str, Any]:
    worst, farthest = found.worst, found.farthest
    entry: dict[str, Any] = {
        "model": found.model,
        "worst_abs_difference_ev": None,
        "within_ev": found.within_ev,
        "largest_force_jump_ev_per_ang": found.jump,
        "curves": [_curve_json(curve) for curve in found.curves],
    }
    if worst:
        curve, point = worst
        entry |= {
            "worst_abs_difference_ev": float(abs(curve.difference[point])),
            "worst_curve": curve.curve.name,
            "worst_at": curve.curve.values[point],
        }
    if farthest:
        entry["farthest_binding_kcal_mol"] = _end(farthest)
    return entry


def _end(curve: CurveErrors) -> dict[str, float]:
    """Return the binding energies at the end of a dissociation."""
    return {
        "displacement_ang": curve.curve.values[-1],
        "label": float(curve.label[-1]) / KCAL_PER_MOL_EV,
        "model": float(curve.predicted[-1]) / KCAL_PER_MOL_EV,
    }


def _curve_json(found: CurveErrors) -> dict[str, Any]:
    curve = found.curve
    value = "displacement_ang" if curve.unit == "Å" else "angle_deg"
    return {
        "kind": curve.kind,
        "number": curve.number,
        "centre_distance_at_0_ang": curve.start_ang,
        "largest_force_jump_ev_per_ang": found.jump,
        "points": [
            {
                value: curve.values[k],
                "label_ev": float(found.label[k]),
                "model_ev": float(found.predicted[k]),
                "difference_ev": float(found.difference[k]),
                "counts": bool(found.counts[k]),
                "force_mae_ev_per_ang": float(found.force_mae[k]),
                "force_mae_kcal_mol_ang": float(found.force_mae[k]) / KCAL_PER_MOL_EV,
            }
            for k in range(len(curve.values))
        ],
    }


def scan_markdown(found: ScanErrors) -> str:
    """Return a section: what was scanned, one line a model, and a table a curve."""
    blocks = [f"## Dissociation and rotation\n\n{_introduction(found)}", scan_summary(found)]
    for k, curve in enumerate(found.models[0].curves):
        heading = f"**{curve.curve.name}** (centres {curve.curve.start_ang:.2f} Å apart at 0)"
        blocks.append(f"{heading}\n\n{_curve_table(found, k)}")
    return "\n\n".join(blocks)


def _introduction(found: ScanErrors) -> str:
    frames = found.scan.frames
    first, second = (f.name for f in frames.fragments)
    return (
        f"Labels: {frames.reference}, {len(frames)} points (`{found.scan.path}`). {first} and "
        f"{second} are rigid; displacement is {first}'s along the line of centres of mass, from "
        "the start structure (orientation 0) or from where, turned at random, two atoms are "
        f"{CONTACT_ANG:g} Å apart. The worst difference is of points with E_b < {WALL_EV:g} eV by "
        "the labels, the others (in brackets) are on the wall. A jump is a change of the force "
        f"that stays when points move together; below {JUMP_EV_ANG:g} eV/Å it is rounding."
    )


def scan_summary(found: ScanErrors) -> str:
    """Return one line a model."""
    header = ["model", "worst difference (eV)", "where", "within (eV)", "farthest (Å)",
              "E_b there, label (kcal/mol)", "E_b there, model (kcal/mol)",
              "largest force jump (eV/Å)"]  # fmt: skip
    return markdown_table(header, [_summary_row(model) for model in found.models])


def _summary_row(found: ScannedModel) -> list[str]:
    worst, where, within, end = "–", "–", "–", ["–"] * 3
    if found.worst:
        errors, point = found.worst
        worst = f"{abs(errors.difference[point]):.4f}"
        where = f"{errors.curve.name}, {errors.curve.values[point]:g} {errors.curve.unit}"
        within = f"{found.within_ev:g}" if found.within_ev else f"above {WITHIN_EV[-1]:g}"
    if found.farthest:
        e = _end(found.farthest)
        end = [f"{e['displacement_ang']:g}", f"{e['label']:.4f}", f"{e['model']:.4f}"]
    jump = "–" if found.jump is None else f"{found.jump:.1e}" if found.jump else "none"
    return [found.model, worst, where, within, *end, jump]


def _curve_table(found: ScanErrors, k: int) -> str:
    curves = [model.curves[k] for model in found.models]
    first = curves[0]
    header = [f"{first.curve.kind} ({first.curve.unit})", "E_b label (eV)"]
    for model in found.models:
        of_which = f" {model.model}" if len(found.models) > 1 else ""
        header += [f"E_b model{of_which} (eV)", "difference (eV)", "force MAE (kcal/mol/Å)"]
    rows = []
    for point, value in enumerate(first.curve.values):
        row = [f"{value:g}", f"{first.label[point]:.4f}"]
        for curve in curves:
            difference = f"{curve.difference[point]:+.4f}"
            row += [
                f"{curve.predicted[point]:.4f}",
                difference if curve.counts[point] else f"({difference})",
                f"{curve.force_mae[point] / KCAL_PER_MOL_EV:.3f}",
            ]
        rows.append(row)
    return markdown_table(header, rows)
