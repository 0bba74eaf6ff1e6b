"""One HTML file with everything: tables, figures, and the structures to look at, without network.

The viewer is chemiscope (Fraux, Cersonsky and Ceriotti, DOI 10.21105/joss.02117). Its program and
the structures stand in the file itself; a content security policy keeps the page off the network.
"""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import deltaserver
from deltaserver.analysis.measure import rotation
from deltaserver.analysis.read.contributions import binding_energy
from deltaserver.analysis.results import Analysis, RunAnalysis
from deltaserver.analysis.show.figures import EnergyUnit, label_of
from deltaserver.analysis.show.report_page import PAGE, VIEWER, number, with_error
from deltaserver.analysis.show.summary import motion, summary_of
from deltaserver.arrays import Floats
from deltaserver.errors import DataError, MissingExtraError
from deltaserver.plots import DPI
from deltaserver.statistics.correlation import mean_of

MAX_STRUCTURES = 300
SCREEN_DPI = 115  # pixels of the page an inch of a figure
MAX_COORDINATES = 300_000  # of all structures together: some 3 MB


def write_report(
    analysis: Analysis,
    figures: Sequence[tuple[Path, str]],
    unit: EnergyUnit,
    path: Path,
    title: str,
) -> None:
    """Write the report; ``figures`` are PNG files and what is said about each.

    Raises:
        MissingExtraError: chemiscope is not installed.
        DataError: the file cannot be written.
    """
    viewer = _viewer(analysis.runs)
    text = PAGE.format(
        title=html.escape(title),
        version=html.escape(deltaserver.__version__),
        notes=_notes(analysis),
        summary=_summary(analysis.runs, unit),
        figures="\n".join(_figure(png, caption) for png, caption in figures),
        viewer=viewer,
    )
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror})") from error


def _notes(analysis: Analysis) -> str:
    """Return how runs ended that did not finish, then what could not be done, then notes."""
    lines = [(f"{f.run.label}: {f.run.fate}", "problem") for f in analysis.runs if f.run.fate]
    lines += [(text, "problem") for text in analysis.problems]
    lines += [(text, "note") for text in analysis.notes]
    if not lines:
        return ""
    items = "".join(f'<li class="{kind}">{html.escape(text)}</li>' for text, kind in lines)
    return f'<ul class="notes">{items}</ul>'


def _figure(png: Path, caption: str) -> str:
    content = png.read_bytes()
    data = base64.b64encode(content).decode()
    name = html.escape(png.stem)
    width = int.from_bytes(content[16:20], "big") * SCREEN_DPI // DPI  # from the PNG's header
    return (
        f'<figure><img alt="{name}" width="{width}" src="data:image/png;base64,{data}">'
        f"<figcaption>{caption} <span class='file'>figures/{name}</span></figcaption></figure>"
    )


# -- tables ------------------------------------------------------------------------------------


def _summary(runs: Sequence[RunAnalysis], unit: EnergyUnit) -> str:
    """Return a table with a row a run."""
    rows = [_row(found, summary_of(found, unit)) for found in runs]
    header = list(dict.fromkeys(key for row in rows for key in row))
    cells = "".join(
        "<tr>" + "".join(f"<td>{row.get(key, '')}</td>" for key in header) + "</tr>" for row in rows
    )
    head = "".join(f"<th>{key}</th>" for key in header)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{cells}</tbody></table>"
    return f'<div class="wide">{table}</div>'


def _row(found: RunAnalysis, data: dict[str, Any]) -> dict[str, str]:
    row = {"run": html.escape(found.run.label)}
    if found.run.temperature_k is not None:
        row["T / K"] = f"{found.run.temperature_k:g}"
    row["served"] = html.escape(found.run.component)
    if data["length_ps"] is not None:
        row["length / ps"] = f"{data['length_ps']:.4g}"
    row["frames"] = str(data["frames"])
    row["intact"] = _intact(found)
    for name, values in data["variables"].items():
        row[f"{html.escape(name)} / {values['unit']}"] = with_error(values["mean"], values["error"])
    if bound := binding_energy(found.contributions):
        row["⟨E<sub>b</sub>⟩ / eV"] = with_error(*_mean_and_error(bound.energy))
    told = data["contributions"].values()
    if novelties := [part["largest_novelty"] for part in told if "largest_novelty" in part]:
        row["largest novelty"] = number(max(novelties), 3)
    for guest, result in found.msads.items():
        fit = result.diffusion
        value = with_error(1e3 * fit.d_rad2_per_ps, 1e3 * fit.error_rad2_per_ps)
        row[f"D of {html.escape(guest)} / 10⁻³ rad² ps⁻¹"] = value
        row["motion in the fit"] = html.escape(motion(result).split(":")[0])
    if found.thermo and found.thermo.temperature:
        mean = found.thermo.temperature.mean
        row["⟨T⟩ / K"] = with_error(mean.value, mean.error)
    if found.thermo and found.thermo.drift:
        drift = found.thermo.drift
        scale = 1e3 / drift.n_atoms
        row["drift / meV atom⁻¹ ps⁻¹"] = with_error(
            scale * drift.ev_per_ps, scale * drift.error_ev_per_ps
        )
    return row


def _mean_and_error(values: Floats) -> tuple[float, float]:
    mean = mean_of(values)
    return mean.value, mean.error


def _intact(found: RunAnalysis) -> str:
    if found.broken is None:
        return html.escape(found.run.reason) if found.run.blew_up else "yes"
    when = found.broken.time_ps
    return f"broke at {when:.2f} ps" if when is not None else f"broke at step {found.broken.step}"


# -- structures --------------------------------------------------------------------------------


def _viewer(runs: Sequence[RunAnalysis]) -> str:
    try:
        import chemiscope
    except ImportError as error:
        raise MissingExtraError("chemiscope", "analysis") from error
    program = Path(chemiscope.__file__).parent / "sphinx" / "static" / "chemiscope.min.js"
    if not program.is_file():
        raise DataError(f"{program}: chemiscope has no such file; install chemiscope 1.x")
    script = program.read_text(encoding="utf-8").replace("</script", "<\\/script")
    data = json.dumps(_dataset(runs), separators=(",", ":"), allow_nan=False)
    return VIEWER.replace("@PROGRAM@", script).replace("@DATA@", data.replace("</", "<\\/"))


def _dataset(runs: Sequence[RunAnalysis]) -> dict[str, Any]:
    """Return evenly spaced frames of all runs, in the host's frame, as chemiscope's dataset."""
    n_atoms = max(len(found.symbols) for found in runs)
    n_all = max(len(runs), min(MAX_STRUCTURES, MAX_COORDINATES // (3 * n_atoms)))
    structures: list[dict[str, Any]] = []
    columns: dict[str, list[Any]] = {}
    for found in runs:
        chosen = _spread(len(found.surveyed.sampled.steps), max(1, n_all // len(runs)))
        structures += [_structure(found, frame) for frame in _in_host_frame(found)[chosen]]
        for name, values in _properties(found, found.surveyed.sampled.steps[chosen]).items():
            columns.setdefault(name, []).extend(values)
    whole = {n: v for n, v in columns.items() if len(v) == len(structures)}
    from chemiscope import quick_settings

    variables = [v for v in runs[0].definitions.variables if _name(v.name, v.unit) in whole]
    axes = [_name(v.name, v.unit) for v in variables[:2]]
    first = next(iter(whole))
    x, y = (axes[1], axes[0]) if len(axes) == 2 else (first, axes[0] if axes else first)
    several = len({found.run.temperature_k for found in runs}) > 1
    colour = "T / K" if several and "T / K" in whole else first
    return {
        "meta": {"name": "trajectory", "description": "Frames of the runs, host held still."},
        "structures": structures,
        "properties": {
            name: {"target": "structure", "values": values} for name, values in whole.items()
        },
        "settings": quick_settings(x=x, y=y, map_color=colour, trajectory=True,
                                   map_settings={"joinPoints": len(runs) == 1},
                                   structure_settings={"spaceFilling": False}),
    }  # fmt: skip


def _spread(n: int, wanted: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, n - 1, min(n, wanted)).round().astype(np.int64))


def _structure(found: RunAnalysis, frame: Floats) -> dict[str, Any]:
    x, y, z = (np.round(frame[:, k].astype(float), 3).tolist() for k in range(3))
    return {"size": len(frame), "names": list(found.symbols), "x": x, "y": y, "z": z}


def _in_host_frame(found: RunAnalysis) -> Floats:
    """Return the sampled frames turned so that the host, or the whole, stays where it was."""
    frames = found.surveyed.sampled.positions.astype(np.float64)
    hosts = [spec.host_atoms for spec in found.definitions.rotations if spec.host_atoms]
    atoms = list(hosts[0]) if hosts else list(range(frames.shape[1]))
    weights = np.ones(len(atoms))
    turns = rotation.kabsch(frames[0, atoms], frames[:, atoms], weights)
    about = frames - frames[:, atoms].mean(axis=1, keepdims=True)
    return np.asarray(about @ turns)


def _name(name: str, unit: str) -> str:
    return f"{name} / {'deg' if unit == '°' else unit}"


def _properties(found: RunAnalysis, steps: NDArray[np.int64]) -> dict[str, list[Any]]:
    rows = np.searchsorted(found.surveyed.steps, steps)
    time = "time / ps" if found.step_ps else "step"
    columns: dict[str, list[Any]] = {time: np.round(found.time_ps[rows], 6).tolist()}
    if found.run.temperature_k is not None:
        columns["T / K"] = [found.run.temperature_k] * len(rows)
    for variable in found.definitions.variables:
        values = found.values_of(variable.name)[rows].mean(axis=1)
        columns[_name(variable.name, variable.unit)] = np.round(values, 5).tolist()
    columns["run"] = [label_of(found)] * len(rows)
    return columns
