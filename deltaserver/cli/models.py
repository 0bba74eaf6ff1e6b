"""``deltaserver models``: the models that are shipped, by name."""

from __future__ import annotations

import shutil
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from deltaserver.cli.options.common import DEBUG, PATH
from deltaserver.cli.options.directories import offer_names
from deltaserver.errors import InputError
from deltaserver.model.directories import shipped_models

MB = 1e6


class ShippedName(click.ParamType[str]):
    """The name of an installed model."""

    name = "name"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        """Offer what is installed."""
        return offer_names(incomplete)


@click.group()
def models() -> None:
    """List the shipped models, or copy one.

    \b
    Wherever a model directory is expected, a shipped model's name will do:
        deltaserver simulate --models c60 --kind nvt --temperature 300
    """


@models.command("list")
@DEBUG
def list_models() -> None:
    """Tell which models are installed."""
    rows = [("name", "atoms", "complex", "reference", "MB")]
    rows += [_row(name, directory) for name, directory in _installed().items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False))
        click.echo("  ".join((*cells, row[-1].rjust(widths[-1]))))


@models.command()
@click.argument("name", type=ShippedName())
@click.argument("directory", type=PATH, required=False)
@DEBUG
def get(name: str, directory: Path | None) -> None:
    """Copy the model NAME to DIRECTORY, ./NAME if not given.

    \b
    deltaserver models get c60 models/c60

    To look at it, to change it, or to take it to a machine where nothing can be installed.
    """
    installed = _installed()
    if name not in installed:
        raise InputError(f"no shipped model is called {name!r}; there are {', '.join(installed)}")
    target = directory or Path(name)
    if target.exists():
        raise InputError(f"{target}: is there already; name another DIRECTORY")
    shutil.copytree(installed[name], target)
    click.echo(f"{target}: a copy of {installed[name]}")


def _installed() -> dict[str, Path]:
    """Return the installed models; raise InputError where there are none."""
    installed = shipped_models()
    if not installed:
        raise InputError(
            "the shipped models are not installed; run: pip install ./models in a clone of the "
            "repository, or install the wheel deltaserver_models that its make dist writes"
        )
    return installed


def _row(name: str, directory: Path) -> tuple[str, str, str, str, str]:
    """Return what the list says of a model: its manifest is read, its files are not."""
    from deltaserver.model.manifest import Manifest, read_manifest
    from deltaserver.model.many.manifest import ManyManifest, is_of_many, read_many

    size = sum(path.stat().st_size for path in directory.iterdir() if path.is_file())
    manifest: Manifest | ManyManifest
    if is_of_many(directory):
        manifest = read_many(directory)
        parts, atoms = [one.name for one in manifest.species], "any"
    else:
        manifest = read_manifest(directory)
        parts, atoms = [one.name for one in manifest.fragments], str(manifest.n_atoms)
    what = f"{manifest.name} ({' + '.join(parts)})"
    return name, atoms, what, manifest.reference, f"{size / MB:.1f}"
