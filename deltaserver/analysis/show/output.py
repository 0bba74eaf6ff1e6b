"""Write what an analysis has found: tables, figures, the summary and the report."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from pathlib import Path

from deltaserver.analysis.measure.definitions import SurfaceSpec
from deltaserver.analysis.results import Analysis, RunAnalysis
from deltaserver.analysis.show import (
    figures,
    figures_contributions,
    figures_dynamics,
    profiles,
    summary,
    tables,
)
from deltaserver.analysis.show.figures import EnergyUnit
from deltaserver.analysis.show.liquid import LIQUID_CAPTION, draw_liquid
from deltaserver.analysis.show.report import write_report
from deltaserver.plots import FORMATS

SUMMARY_NAME = "summary.json"
REPORT_NAME = "report.html"

MSAD_CAPTION = (
    "Angular displacement of {guest} by Kabsch alignment of its labelled atoms, the host's "
    "rotation removed. Integrated: ⟨|φ(t₀+t) − φ(t₀)|²⟩ with "
    "φ = Σ rotvec(R<sub>k</sub>⁻¹R<sub>k+1</sub>), 6Dt for free diffusion (fit shown raised). "
    "Net: ⟨θ²⟩ of the rotation from t₀ to t₀+t, which ends in a plateau where rotation is "
    "hindered. Where the two part, the integrated form counts libration as diffusion. "
    "Right: C₁ and C₂, averaged over all axes."
)
PAIRS_CAPTION = (
    "Distances between the atoms of two groups. The density is normalised to ∫4πr²ρ dr = 1, as a "
    "complex in vacuum has no bulk density to divide by."
)

CONTRIBUTIONS_CAPTION = (
    "what each fragment and the binding contribute; the legend has the means. E<sub>b</sub> is the "
    "prior and what the binding model adds to it. Novelty is the distance from a part's training "
    "set; beyond the dashed line the daemon warns. 68 % of the errors of the forces are within the "
    "uncertainty."
)


def write_all(
    analysis: Analysis,
    directory: Path,
    unit: EnergyUnit,
    title: str,
    *,
    parts: Sequence[str],
    report: bool,
) -> list[Path]:
    """Write what was asked for into ``directory``; return the files a user looks at first."""
    tables.make_directory(directory / "figures")
    runs = analysis.runs
    many = len(runs) > 1
    for found, slug in zip(runs, tables.slugs(runs), strict=True):
        tables.write_tables(found, unit, directory / "data" / (slug if many else ""), parts)
    for profile in analysis.profiles:
        profiles.write_tables(profile, unit, directory / "data" / profiles.slug_of(profile))
    told = [profiles.summary_of(profile, unit) for profile in analysis.profiles]
    summary.write_summary(analysis, unit, directory / SUMMARY_NAME, told)
    drawn = list(_figures(runs, unit, directory / "figures", parts))
    for profile in analysis.profiles:
        drawn += profiles.draw(profile, unit, directory / "figures")
    looked_at = [directory / SUMMARY_NAME, *(path for path, _ in drawn)]
    if report:
        path = directory / REPORT_NAME
        write_report(analysis, drawn, unit, path, title)
        looked_at.insert(0, path)
    return looked_at


def _figures(
    runs: Sequence[RunAnalysis], unit: EnergyUnit, directory: Path, parts: Sequence[str]
) -> Iterator[tuple[Path, str]]:
    """Draw what there is to draw; yield PNG files and captions (HTML)."""
    yield from _surfaces(runs, unit, directory)
    for group, mine in figures.groups_of(runs).items():
        yield from _along_time(mine, directory, f"_{group}" if group else "", parts)
    for found, slug in zip(runs, tables.slugs(runs), strict=True):
        if found.liquid:
            stem = directory / (f"molecules_{slug}" if len(runs) > 1 else "molecules")
            yield (
                draw_liquid(found.liquid, stem),
                f"{html.escape(found.run.label)}: {LIQUID_CAPTION}",
            )
        if found.contributions:
            name = f"contributions_{slug}" if len(runs) > 1 else "contributions"
            paths = [directory / f"{name}.{suffix}" for suffix in FORMATS]
            last = max(int(part.seq.max()) for part in found.contributions.values())
            ps = figures_contributions.ps_per_structure(last, found.last_step, found.step_ps)
            figures_contributions.draw_contributions(found.contributions, paths, ps)
            yield paths[0], f"{html.escape(found.run.label)}: {CONTRIBUTIONS_CAPTION}"


def _along_time(
    runs: Sequence[RunAnalysis], directory: Path, suffix: str, parts: Sequence[str]
) -> Iterator[tuple[Path, str]]:
    """Draw what stands in one figure for the runs of one group; ``suffix`` tells groups apart."""
    named = f" <b>{html.escape(suffix[1:])}</b>" if suffix else ""
    for guest in dict.fromkeys(guest for found in runs for guest in found.msads):
        path = figures_dynamics.draw_msad(runs, guest, directory / f"msad_{guest}{suffix}")
        yield path, MSAD_CAPTION.format(guest=guest) + named
    shown = [found for found in runs if found.definitions.variables]
    if "variables" in parts and shown:
        about = "; ".join(f"{v.name}: {v.about or v.kind}" for v in shown[0].definitions.variables)
        path = figures_dynamics.draw_variables(shown, directory / f"variables{suffix}")
        yield path, f"Collective variables along time, and their distribution. {about}.{named}"
    for name in dict.fromkeys(pair.name for found in runs for pair in found.pairs):
        stem = directory / f"rdf_{name}{suffix}".replace("/", "_")
        path = figures_dynamics.draw_pairs(runs, name, stem)
        yield path, PAIRS_CAPTION + named
    if any(found.thermo for found in runs):
        path = figures_dynamics.draw_thermo(runs, directory / f"thermo{suffix}")
        yield path, f"Conserved quantity from its start, and temperature (dashed: as set).{named}"


def _surfaces(
    runs: Sequence[RunAnalysis], unit: EnergyUnit, directory: Path
) -> Iterator[tuple[Path, str]]:
    specs: dict[tuple[str, ...], SurfaceSpec] = {}
    for found in runs:
        for spec, _ in found.surfaces:
            specs.setdefault(spec.variables, spec)
    for variables, spec in specs.items():
        known = [found for found in runs if figures.surface_of(found, spec)]
        surface = figures.surface_of(known[0], spec)
        assert surface is not None
        jacobian = "stands in P" if spec.jacobian == "keep" else "is removed"
        caption = (
            f"Free energy −kT ln P over {' and '.join(variables)}, zero at its lowest; bins that "
            f"no frame visited are white. The Jacobian (R² of a distance) {jacobian}."
        )
        if len(variables) == 2:
            yield figures.draw_planes(known, spec, unit, directory / spec.name), caption
        else:
            caption += " Bands: one standard error by block bootstrap."
            yield figures.draw_curves(known, spec, unit, directory / spec.name), caption
