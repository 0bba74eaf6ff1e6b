"""``deltaserver check``: verify a model directory, and say which it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from deltaserver.cli.options.common import DEBUG, PATH, POSITIVE, QUIET
from deltaserver.cli.options.directories import MODELS
from deltaserver.errors import InputError
from deltaserver.model.directories import refuse_shipped
from deltaserver.model.engines import BACKENDS, PRECISIONS
from deltaserver.model.force_field import ForceField


@click.command()
@MODELS
@click.option("--store", is_flag=True, help="Store a frame in check.json, for later checks.")
@click.option(
    "--structure",
    type=PATH,
    metavar="FILE",
    help="The structure to evaluate; else the stored one, or the directory's structure.xyz.",
)
@click.option(
    "--backend",
    type=click.Choice(BACKENDS),
    default="numpy",
    show_default=True,
    help="What to check it with.",
)
@click.option("--device", metavar="DEVICE", help="Check on torch's cpu, cuda, … or auto.")
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    default="float64",
    show_default=True,
    help="Of the torch backend.",
)
@click.option(
    "--tolerance",
    type=POSITIVE,
    metavar="NUMBER",
    help="In eV and eV/Å; 1e-6, or 1e-3 in float32, if not given.",
)
@QUIET
@DEBUG
def check(
    models: Path,
    store: bool,
    structure: Path | None,
    backend: Any,
    device: str | None,
    precision: Any,
    tolerance: float | None,
    quiet: bool,
) -> None:
    """Verify a model directory and print its fingerprint.

    Files, how they fit, forces as slopes of the energy, a stored frame.

    Exit code 0: all is well. 2: the directory cannot be used. 4: it computes something else than
    what was stored, or forces that are not the slope of the energy.
    """
    from deltaserver.model.trust import stored_frame as checks
    from deltaserver.serve.loading import load_model

    if store:
        refuse_shipped(models, "--store")
    if backend == "numpy" and (device or precision != "float64"):
        backend = "torch"
    model, notes = load_model(models, "total", backend, device or "auto", precision, threads=1)
    directory = models if models.is_dir() else models.parent
    stored = None if store else checks.read_stored(directory, model.n_atoms)
    positions = _positions(directory, structure, model, stored)
    if stored is not None and structure is not None:
        stored = None  # what is stored is of another structure
    found = model.fingerprint()
    results = checks.check_parts(model, positions, stored)
    if not quiet:
        for line in (*notes, *_table(model, results), f"fingerprint  {found}"):
            click.echo(line)
    single = precision == "float32"
    limit = tolerance or (checks.SINGLE_TOLERANCE if single else checks.TOLERANCE)
    slope = checks.SINGLE_SLOPE_TOLERANCE if single else checks.SLOPE_TOLERANCE
    checks.refuse(results, stored, found, limit, slope)
    if store:
        path = directory / checks.CHECK_NAME
        path.write_text(checks.store(model, positions) + "\n", encoding="ascii")
    if not quiet:
        click.echo(_verdict(store, stored is not None, directory / checks.CHECK_NAME))


def _verdict(store: bool, compared: bool, path: Path) -> str:
    if store:
        return f"stored: {path}"
    return "ok" if compared else f"ok, but no frame to compare with: --store writes {path}"


def _positions(directory: Path, structure: Path | None, model: ForceField, stored: Any) -> Any:
    from deltaserver.simulate.structure import start_structure

    if structure is None and stored is not None:
        return stored.positions
    try:
        return start_structure(directory, structure, model).positions_ang
    except InputError as error:
        raise InputError(f"nothing to evaluate: {error}") from None


def _table(model: ForceField, results: Any) -> list[str]:
    """Return a table of the parts: what they are and what was found."""
    bonds = {name: str(n) if n else "not checked" for name, n in model.guards().bond_counts.items()}
    facts_of = model.facts()
    rows = [("part", "atoms", "points", "perms", "sigma", "bonds", "slope", "dE (eV)", "dF (eV/Å)")]
    for result in results:
        facts = facts_of.get(result.name, (str(model.n_atoms), "", "", ""))
        rows.append(
            (
                result.name,
                *facts,
                bonds.get(result.name, ""),
                f"{result.slope_error:.0e}",
                _number(result.energy_error_ev),
                _number(result.force_error_ev_per_ang),
            )
        )
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    head = f"{model.name} ({model.reference}), {model.n_atoms} atoms"
    return [
        head,
        *(
            "  ".join(
                cell.ljust(width) if k == 0 else cell.rjust(width)
                for k, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ),
    ]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.0e}"
