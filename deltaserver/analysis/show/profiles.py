"""What biased runs amount to: a figure with the windows below, tables, summary, text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.analysis.results import Profile
from deltaserver.analysis.show import figures, summary, tables
from deltaserver.analysis.show.figures import EnergyUnit
from deltaserver.analysis.show.report_page import with_error
from deltaserver.plots import GREY, PALETTE, save

HISTOGRAM_BINS = 60
LARGE = 1e5  # of a ratio: all its digits would tell nothing
METHODS = {
    "umbrella": "windows joined by MBAR; bands: one standard error, bootstrap",
    "metadynamics": "frames weighted by the hills; bands: one standard error, block bootstrap",
}


def slug_of(profile: Profile) -> str:
    """Return what files of a profile are called."""
    return f"{profile.method}_{profile.label}".replace(" ", "_").replace("/", "_")


def draw(profile: Profile, unit: EnergyUnit, directory: Path) -> Iterator[tuple[Path, str]]:
    """Draw the surfaces; yield PNG files and captions (HTML)."""
    one = profile.as_run()
    for spec, _ in profile.surfaces:
        stem = directory / f"{slug_of(profile)}_{spec.name}"
        caption = f"Free energy of {profile.label} over {' and '.join(spec.variables)}: "
        caption += METHODS[profile.method] + "."
        if len(spec.variables) == 2:
            yield figures.draw_planes([one], spec, unit, stem), caption
        elif spec.variables == (profile.variable,):
            below = " Below: what each window sampled." if profile.method == "umbrella" else ""
            yield _draw_main(profile, unit, stem), caption + below
        else:
            yield figures.draw_curves([one], spec, unit, stem), caption


def _draw_main(profile: Profile, unit: EnergyUnit, stem: Path) -> Path:
    """Draw F over the biased variable, and below it the histograms of what was sampled."""
    assert profile.main is not None
    _, surface = profile.main
    variable = profile.runs[0].definitions.variable(profile.variable)
    x, values = surface.centres[0], surface.free_energy_ev / unit.ev
    error = surface.error_ev / unit.ev

    def fill(figure: Any) -> None:
        top, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.2, 1.0))
        top.plot(x, values, color=PALETTE[0], linewidth=1.4, label="reweighted")
        top.fill_between(x, values - error, values + error, color=PALETTE[0], alpha=0.22, lw=0)
        if profile.hills_ev is not None:
            hills = np.where(np.isfinite(values), profile.hills_ev / unit.ev, np.nan)
            top.plot(x, hills, color=PALETTE[1], linewidth=1.0, ls="--", label="sum of hills")
            top.legend()
        top.set_ylabel(f"$F$ / {unit.text}")
        top.set_ylim(bottom=0.0)
        edges = np.linspace(surface.edges[0][0], surface.edges[0][-1], HISTOGRAM_BINS + 1)
        for k, one in enumerate(profile.runs):
            begin = one.run.bias.settled_at if one.run.bias else 0
            counted = one.values_of(profile.variable)[one.surveyed.steps > begin]
            counts, _ = np.histogram(counted, bins=edges)
            colour = PALETTE[k % len(PALETTE)]
            below.stairs(counts / max(1, counts.max()), edges, color=colour, linewidth=0.9)
        below.set_xlabel(variable.label)
        below.set_yticks([])
        below.set_ylabel("sampled")
        footnote = figures.footnote([surface]).split(";")[0] + f"; {METHODS[profile.method]}"
        figure.supxlabel(footnote, fontsize=6.5, color=GREY)

    return save(fill, stem, (4.4, 4.0))


def write_tables(profile: Profile, unit: EnergyUnit, directory: Path) -> list[Path]:
    """Write a table a surface, and one of the windows."""
    tables.make_directory(directory)
    one = profile.as_run()
    written = [
        tables.write_surface(one, spec, surface, unit, directory)
        for spec, surface in profile.surfaces
    ]
    header = ["run", "centre_ang", "spring_ev_per_ang2", "frames", "inefficiency", "independent"]
    written.append(
        tables.write_rows(
            directory / "windows.csv", [*header, "free_energy_kt", "overlap"], _windows(profile)
        )
    )
    if profile.hills_ev is not None and profile.main:
        name = profile.runs[0].definitions.variable(profile.variable).column
        rows = zip(profile.main[1].centres[0], profile.hills_ev / unit.ev, strict=True)
        energy = tables.energy_column(unit)
        header = [name, f"free_energy_{energy}"]
        written.append(tables.write_rows(directory / "sum_of_hills.csv", header, rows))
    return written


def _windows(profile: Profile) -> Iterator[Sequence[object]]:
    for window in profile.weighted.windows:
        spring = window.bias.spring
        yield (
            window.label,
            spring.centre_ang if spring else "",
            spring.spring_ev_per_ang2 if spring else "",
            window.n_frames,
            round(window.inefficiency, 3),
            window.n_independent,
            round(window.free_energy_kt, 6),
            round(window.overlap, 4) if np.isfinite(window.overlap) else "",
        )


def summary_of(profile: Profile, unit: EnergyUnit) -> dict[str, Any]:
    """Return the numbers that are no curves."""
    one = profile.as_run()
    told: dict[str, Any] = {
        "label": profile.label,
        "method": profile.method,
        "variable": profile.variable,
        "temperature_k": profile.weighted.temperature_k,
        "runs": len(profile.runs),
        "independent_frames": sum(w.n_independent for w in profile.weighted.windows),
        "fes": [
            summary.surface_summary(one, spec, surface, unit)
            | {"error_of": METHODS[profile.method].split("standard error, ")[1]}
            for spec, surface in profile.surfaces
        ],
    }
    if (least := profile.weighted.least_overlap) is not None:
        told["least_overlap"] = {"run": least.label, "with_the_next": least.overlap}
    if (found := profile.binding) is not None:
        told["binding"] = {
            "free_energy": found.free_energy_ev / unit.ev,
            "error": found.error_ev / unit.ev,
            "standard_state": "1 mol/l",
            "constant_l_per_mol": found.constant_per_molar,
            "bound_ang": found.shells.bound_ang,
            "outer_ang": list(found.shells.outer_ang),
            "ratio_bound_to_outer": found.ratio,
            "ratio_error": found.ratio_error,
        }
    return told


def text_of(profile: Profile, unit: EnergyUnit) -> list[str]:
    """Return some lines for the terminal."""
    data = summary_of(profile, unit)
    n = data["independent_frames"]
    runs = f"{data['runs']} runs, " if profile.method == "umbrella" else ""
    lines = [f"{profile.label}, {profile.method}: {runs}{n} independent frames"]
    if (least := profile.weighted.least_overlap) is not None:
        lines.append(f"  neighbours overlap by {least.overlap:.2f} or more (least: {least.label})")
    for surface in data["fes"]:
        lines.append(summary.surface_line(surface, unit))
    if (found := profile.binding) is not None:
        low, high = found.shells.outer_ang
        value = with_error(found.free_energy_ev / unit.ev, found.error_ev / unit.ev)
        ratio = with_error(found.ratio, found.ratio_error)
        if found.ratio > LARGE:
            ratio = f"{found.ratio:.1e}"
        lines.append(
            f"  binding free energy (1 mol/l, bound below {found.shells.bound_ang:g} Å) = {value} "
            f"{unit.name}; P(bound)/P({low:.2f} to {high:.2f} Å) = {ratio}"
        )
    return lines
