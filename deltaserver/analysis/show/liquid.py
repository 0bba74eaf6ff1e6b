"""Numbers, tables and the figure of many molecules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.analysis.measure.liquid import Liquid
from deltaserver.analysis.show.report_page import with_error
from deltaserver.plots import PALETTE, save
from deltaserver.units import KJ_PER_MOL_EV

LIQUID_CAPTION = (
    "g(r) of the centres of mass with its error; their mean-squared displacement, the motion of "
    "all together taken off, and the line 6Dt + c that D is of (dashed); density, and potential "
    "energy of a molecule from its start."
)
Table = tuple[str, Sequence[str], Iterable[Sequence[object]]]


def liquid_summary(liquid: Liquid) -> dict[str, Any]:
    """Return what is known of many molecules as numbers."""
    density, energy = liquid.density, liquid.energy
    data: dict[str, Any] = {"count": liquid.n_molecules}
    if density:
        data["density_g_cm3"] = {"mean": density.value, "error": density.error}
    if energy:
        data["energy_of_a_molecule_ev"] = {"mean": energy.value, "error": energy.error}
    data["g"] = {
        one.name: {
            "peak": float(one.g.max()),
            "peak_at_ang": float(one.r_ang[np.argmax(one.g)]) if one.g.any() else None,
            "frames": one.n_frames,
        }
        for one in liquid.distributions
    }
    data["diffusion"] = {
        one.name: {
            "d_ang2_per_ps": one.d_ang2_per_ps,
            "error_ang2_per_ps": one.error_ang2_per_ps,
            "d_cm2_per_s": one.d_cm2_per_s,
            "fit_from_ps": one.begin_ps,
            "fit_to_ps": one.end_ps,
            "molecules": one.n_molecules,
        }
        for one in liquid.displacements
    }
    return data


def liquid_lines(liquid: Liquid) -> list[str]:
    """Return what a user wants to know first."""
    lines = [f"  {liquid.n_molecules} molecules"]
    if density := liquid.density:
        lines.append(f"  density = {with_error(density.value, density.error)} g/cm³")
    for g in liquid.distributions:
        k = int(np.argmax(g.g))
        highest = f"highest at {g.r_ang[k]:.2f} Å, {g.g[k]:.2f}"
        none = f"no two within {g.edges_ang[-1]:.1f} Å, half of the cell's height"
        lines.append(f"  g({g.name}): {highest if g.g[k] else none}")
    for one in liquid.displacements:
        d = with_error(10.0 * one.d_ang2_per_ps, 10.0 * one.error_ang2_per_ps)
        lines.append(
            f"  D({one.name}) = {d} · 10⁻⁵ cm²/s ({one.begin_ps:.3g} to {one.end_ps:.3g} ps)"
        )
    if energy := liquid.energy:
        lines.append(f"  potential energy = {with_error(energy.value, energy.error)} eV a molecule")
    return lines


def liquid_tables(liquid: Liquid) -> Iterator[Table]:
    """Yield names, headers and rows of tables."""
    for g in liquid.distributions:
        columns = (g.r_ang, g.g, g.error, g.neighbours)
        header = ["r_ang", "g", "g_error", "neighbours_within_bin_end"]
        yield f"g_{g.name}.csv", header, zip(*columns, strict=True)
    for one in liquid.displacements:
        rows = zip(one.lag_ps, one.msd_ang2, strict=True)
        yield f"msd_{one.name}.csv", ["lag_ps", "msd_ang2"], rows
    if liquid.density_g_cm3 is not None:
        rows = zip(liquid.time_ps, liquid.density_g_cm3, strict=True)
        yield "density.csv", ["time_ps", "density_g_cm3"], rows
    if liquid.energy_ps is not None and liquid.energy_ev is not None:
        rows = zip(liquid.energy_ps, liquid.energy_ev, strict=True)
        yield "energy_of_a_molecule.csv", ["time_ps", "energy_ev"], rows


def draw_liquid(liquid: Liquid, stem: Path) -> Path:
    """Draw g(r), the MSD, density and energy."""

    def draw(figure: Any) -> None:
        (g, msd), (density, energy) = figure.subplots(2, 2)
        for one, colour in zip(liquid.distributions, _colours(liquid.distributions), strict=True):
            g.plot(one.r_ang, one.g, color=colour, linewidth=1.3, label=one.name)
            g.fill_between(
                one.r_ang, one.g - one.error, one.g + one.error,
                color=colour, alpha=0.2, linewidth=0,
            )  # fmt: skip
        for way, colour in zip(liquid.displacements, _colours(liquid.displacements), strict=True):
            msd.plot(way.lag_ps, way.msd_ang2, color=colour, linewidth=1.3, label=way.name)
            inside = (way.lag_ps >= way.begin_ps) & (way.lag_ps <= way.end_ps)
            line = 6.0 * way.d_ang2_per_ps * way.lag_ps[inside]
            line += (way.msd_ang2[inside] - line).mean()
            msd.plot(way.lag_ps[inside], line, "--", color="black", linewidth=0.9)
        if liquid.density_g_cm3 is not None:
            density.plot(liquid.time_ps, liquid.density_g_cm3, color=PALETTE[0], linewidth=0.7)
        if liquid.energy_ps is not None and liquid.energy_ev is not None:
            change = (liquid.energy_ev - liquid.energy_ev[0]) / KJ_PER_MOL_EV
            every = max(1, len(change) // 4000)
            energy.plot(liquid.energy_ps[::every], change[::every], color=PALETTE[0], linewidth=0.5)
        g.set(xlabel="$r$ / Å", ylabel="$g(r)$ of centres")
        msd.set(xlabel="lag / ps", ylabel="displacement / Å$^2$")
        density.set(xlabel="time / ps", ylabel="density / g cm$^{-3}$")
        energy.set(xlabel="time / ps", ylabel="energy of a molecule\n− start / kJ mol$^{-1}$")
        for panel, known in ((g, liquid.distributions), (msd, liquid.displacements)):
            if len(known) > 1:
                panel.legend()

    return save(draw, stem, (6.8, 4.8))


def _colours(some: Sequence[object]) -> list[Any]:
    return [PALETTE[k % len(PALETTE)] for k in range(len(some))]
