"""The numbers of an analysis that are not curves: one JSON file, and a short text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import deltaserver
from deltaserver.analysis.measure.definitions import SurfaceSpec
from deltaserver.analysis.measure.free_energy import Surface
from deltaserver.analysis.measure.msad import SAFE_RMS_RAD, Msad
from deltaserver.analysis.read import contributions
from deltaserver.analysis.results import Analysis, RunAnalysis
from deltaserver.analysis.show.figures import EnergyUnit, label_of
from deltaserver.analysis.show.liquid import liquid_lines, liquid_summary
from deltaserver.analysis.show.report_page import number, with_error
from deltaserver.errors import DataError
from deltaserver.statistics.correlation import circular_mean_of, mean_of
from deltaserver.units import PS_FS

FORMAT = "deltaserver-analysis-result/1"
FAST_EXPONENT, SLOW_EXPONENT = 1.25, 0.75  # beyond these, a window does not show diffusion


def write_summary(
    analysis: Analysis, unit: EnergyUnit, path: Path, profiles: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Write every number that is not a curve as JSON, and return it; NaN becomes null."""
    data = {
        "format": FORMAT,
        "version": deltaserver.__version__,
        "energy_unit": unit.name,
        "runs": [summary_of(found, unit) for found in analysis.runs],
        "profiles": list(profiles),
        "notes": list(analysis.notes),
        "problems": list(analysis.problems),
    }
    try:
        path.write_text(
            json.dumps(_plain(data), indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error
    return data


def summary_of(found: RunAnalysis, unit: EnergyUnit) -> dict[str, Any]:
    """Return what is known of one run."""
    times = found.time_ps
    return {
        "label": label_of(found),
        "directory": str(found.run.directory),
        "component": found.run.component,
        "temperature_k": found.run.temperature_k,
        "timestep_fs": None if found.step_ps is None else 1e3 * found.step_ps,
        "frame_ps": found.frame_ps,
        "atoms": len(found.symbols),
        "beads": found.surveyed.values.shape[1],
        "frames": len(found.surveyed.steps),
        "first_step": int(found.surveyed.steps[0]),
        "last_step": int(found.surveyed.steps[-1]),
        "length_ps": float(times[-1] - times[0]) if found.step_ps else None,
        "frames_overwritten": found.surveyed.n_overwritten,
        "status": found.run.status or None,
        "reason": found.run.reason or None,
        "broken": found.broken and vars(found.broken),
        "variables": {v.name: _variable(found, v.name) for v in found.definitions.variables},
        "fes": [surface_summary(found, spec, surface, unit) for spec, surface in found.surfaces],
        "msad": {guest: msad_summary(result) for guest, result in found.msads.items()},
        "rdf": [_pair(pair) for pair in found.pairs],
        "thermo": _thermo(found),
        "molecules": liquid_summary(found.liquid) if found.liquid else None,
        "contributions": {name: _contribution(s) for name, s in found.contributions.items()},
    }


def _contribution(series: contributions.Series) -> dict[str, float]:
    """Return mean and spread of a part's energy, and how far its forces could be trusted."""
    told = {"mean_ev": float(series.energy.mean()), "std_ev": float(series.energy.std())}
    if contributions.known(series.novelty):
        told["largest_novelty"] = float(np.nanmax(series.novelty))
    if contributions.known(series.uncertainty):
        told["mean_uncertainty_ev_per_ang"] = float(np.nanmean(series.uncertainty))
    return told


def _variable(found: RunAnalysis, name: str) -> dict[str, Any]:
    variable = found.definitions.variable(name)
    values = found.values_of(name)
    mean = (
        circular_mean_of(values, variable.period)
        if variable.period
        else mean_of(values.mean(axis=1))
    )
    return {
        "about": variable.about,
        "unit": variable.unit,
        "mean": mean.value,
        "error": mean.error,
        "std": float(values.std()),
        "min": float(values.min()),
        "max": float(values.max()),
        "independent_frames": mean.n_independent,
    }


def surface_summary(
    found: RunAnalysis, spec: SurfaceSpec, surface: Surface, unit: EnergyUnit
) -> dict[str, Any]:
    """Return what is known of a surface beside its values."""
    lowest = np.unravel_index(np.nanargmin(surface.free_energy_ev), surface.free_energy_ev.shape)
    return {
        "variables": list(spec.variables),
        "definition": "F = -kT ln P" if surface.jacobian == "keep" else "F = -kT ln (P / J)",
        "jacobian": surface.jacobian,
        "jacobian_of": {n: _jacobian(found.definitions.variable(n).kind) for n in spec.variables},
        "temperature_k": surface.temperature_k,
        "bins": [len(edges) - 1 for edges in surface.edges],
        "range": [[float(edges[0]), float(edges[-1])] for edges in surface.edges],
        "samples": surface.n_samples,
        "samples_within": surface.kept,
        "empty_bins": int(np.isnan(surface.free_energy_ev).sum()),
        "minimum_at": [float(c[k]) for c, k in zip(surface.centres, lowest, strict=True)],
        "highest": float(np.nanmax(surface.free_energy_ev) / unit.ev),
        "median_error": _median(surface.error_ev / unit.ev),
        "error_of": "block bootstrap",
        "blocks": surface.n_blocks,
        "block_frames": surface.block_frames,
    }


def _jacobian(kind: str) -> str:
    known = {"distance": "R^2", "angle": "sin(theta)", "plane_angle": "sin(theta)"}
    return known.get(kind, "1")


def _median(values: Any) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def msad_summary(result: Msad) -> dict[str, Any]:
    """Return D with its error and window, and what tells whether it means anything."""
    fit = result.diffusion
    slope = f"slope_{2 * fit.n_dof}d"  # 6D; of a linear guest 4D
    return {
        "d_rad2_per_ps": fit.d_rad2_per_ps,
        "d_error_rad2_per_ps": fit.error_rad2_per_ps,
        f"{slope}_rad2_per_fs": fit.slope_rad2_per_fs,
        f"{slope}_error_rad2_per_fs": 2.0 * fit.n_dof * fit.error_rad2_per_ps / PS_FS,
        "degrees_of_freedom": fit.n_dof,
        "fit_from_ps": fit.begin_ps,
        "fit_to_ps": fit.end_ps,
        "fit_blocks": fit.n_blocks,
        "exponent_in_window": fit.exponent,
        "kind_of_motion": motion(result),
        "rms_per_frame_rad": result.rms_per_frame_rad,
        "frame_ps": result.frame_ps,
        "frames": result.n_frames,
        "first_lag_ps": float(result.lag_ps[0]),
        "integrated_at_first_lag_rad2": float(result.integrated.value[0]),
        "integrated_at_first_lag_error_rad2": float(result.integrated.error[0]),
        "integrated_at_fit_end_rad2": float(np.interp(fit.end_ps, result.lag_ps,
                                                      result.integrated.value)),
        "net_at_fit_end_rad2": float(np.interp(fit.end_ps, result.lag_ps, result.net.value)),
        "aliased": result.aliased,
    }  # fmt: skip


def motion(result: Msad) -> str:
    """Say in words what the window of the fit shows."""
    exponent = result.diffusion.exponent
    if result.aliased:
        return f"unclear: more than {SAFE_RMS_RAD:g} rad from frame to frame"
    if not np.isfinite(exponent):
        return "no rotation"
    if exponent > FAST_EXPONENT:
        return "inertial: the window is too early for diffusion"
    if exponent < SLOW_EXPONENT:
        return "hindered: slower than diffusion"
    return "diffusive"


def _pair(pair: Any) -> dict[str, Any]:
    peak = int(np.argmax(pair.density))
    return {
        "name": pair.name,
        "normalisation": "integral of 4 pi r^2 rho dr is 1",
        "peak_at_ang": float(pair.r_ang[peak]),
        "peak_per_ang3": float(pair.density[peak]),
        "frames": pair.n_frames,
    }


def _thermo(found: RunAnalysis) -> dict[str, Any] | None:
    thermo = found.thermo
    if thermo is None:
        return None
    data: dict[str, Any] = {"rows": len(thermo.time_ps)}
    if thermo.drift:
        data["drift"] = {
            "ev_per_ps": thermo.drift.ev_per_ps,
            "error_ev_per_ps": thermo.drift.error_ev_per_ps,
            "mev_per_atom_ps": thermo.drift.mev_per_atom_ps,
            "scatter_ev": thermo.drift.scatter_ev,
        }
    if thermo.temperature:
        data["temperature"] = {
            "mean_k": thermo.temperature.mean.value,
            "error_k": thermo.temperature.mean.error,
            "target_k": thermo.temperature.target_k,
            "std_k": thermo.temperature.std_k,
            "expected_std_k": thermo.temperature.expected_std_k,
        }
    return data


def _plain(value: Any) -> Any:
    """Return a value that JSON knows."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (np.integer, np.floating)):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


# -- terminal ----------------------------------------------------------------------------------


def text_of(analysis: Analysis, unit: EnergyUnit) -> str:
    """Return some lines a run: what a user wants to know first."""
    lines = []
    for found in analysis.runs:
        data = summary_of(found, unit)
        length = f", {data['length_ps']:.4g} ps" if data["length_ps"] is not None else ""
        lines.append(f"{label_of(found)}: {data['frames']} frames{length}")
        if found.run.fate:
            lines.append(f"  {found.run.fate}")
        if found.broken:
            lines.append(f"  what follows is of the frames before step {found.broken.step}")
        for name, values in data["variables"].items():
            lines.append(
                f"  {name} = {with_error(values['mean'], values['error'])} {values['unit']}, "
                f"σ = {values['std']:.4g}, {values['min']:.4g} to {values['max']:.4g}"
            )
        for surface in data["fes"]:
            lines.append(surface_line(surface, unit))
        for guest, result in found.msads.items():
            fit = result.diffusion
            lines.append(
                f"  {guest}: D = {with_error(fit.d_rad2_per_ps, fit.error_rad2_per_ps)} rad²/ps "
                f"({fit.begin_ps:.3g} to {fit.end_ps:.3g} ps, exponent {fit.exponent:.2f}: "
                f"{motion(result)})"
            )
        lines += liquid_lines(found.liquid) if found.liquid else []
        thermo = found.thermo
        if thermo and thermo.temperature:
            target = thermo.temperature.target_k
            aim = f" (set: {target:g})" if target else ""
            lines.append(
                f"  T = {with_error(thermo.temperature.mean.value, thermo.temperature.mean.error)}"
                f" K{aim}, σ = {thermo.temperature.std_k:.3g}"
                + _expected(thermo.temperature.expected_std_k)
            )
        if thermo and thermo.drift:
            drift = thermo.drift
            scale = 1e3 / drift.n_atoms
            lines.append(
                f"  drift = {with_error(scale * drift.ev_per_ps, scale * drift.error_ev_per_ps)} "
                "meV/atom/ps"
            )
    return "\n".join(lines)


def surface_line(surface: dict[str, Any], unit: EnergyUnit) -> str:
    """Return a line on one surface."""
    place = ", ".join(f"{value:.3g}" for value in surface["minimum_at"])
    return (
        f"  FES({', '.join(surface['variables'])}): lowest at {place}; up to "
        f"{surface['highest']:.2f} {unit.name}; error {number(surface['median_error'], 2)} "
        f"(median, {surface['blocks']} blocks); {surface['empty_bins']} bins empty"
    )


def _expected(std_k: float | None) -> str:
    return "" if std_k is None else f" (expected: {std_k:.3g})"
