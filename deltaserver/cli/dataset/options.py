"""Options that several commands of ``deltaserver dataset`` have."""

from __future__ import annotations

from typing import Any

import click

from deltaserver.cli.options.common import (
    AT_LEAST_0,
    AT_LEAST_1,
    PATH,
    POSITIVE,
    Decorator,
    together,
)


def fragment_option(required: bool) -> Decorator[Any]:
    """Return the option that names the fragments."""
    return click.option(
        "-f",
        "--fragment",
        "fragments",
        multiple=True,
        required=required,
        metavar="NAME:ATOMS[:CHARGE[:SPIN]]",
        help="A fragment, its 0-based atoms, its charge in e and its unpaired electrons: "
        "water:0-2, sodium:12:+1, oxygen:0-1:0:2. "
        "Once per fragment; together they have every atom once.",
    )


SPIN = click.option(
    "--spin",
    type=AT_LEAST_0,
    metavar="ELECTRONS",
    help="Unpaired electrons of the complex. [default: those of all fragments]",
)


OUTPUT = click.option(
    "-o",
    "--output",
    type=PATH,
    required=True,
    help="Dataset directory. What is in it already is continued, never done twice.",
)
CALCULATOR = click.option(
    "-c",
    "--calculator",
    default="GFN2-xTB",
    show_default=True,
    help="GFN2-xTB, GFN1-xTB, GFN-FF, tblite:GFN2-xTB, PBE-D4/def2-SVP or another "
    "[DF-]FUNCTIONAL[-D3BJ|-D4]/BASIS through PySCF, package.module:Factory for any ASE "
    "calculator, or a model directory.",
)
TEMPERATURES = click.option(
    "-t",
    "--temperature",
    "temperatures",
    type=POSITIVE,
    multiple=True,
    default=(300.0,),
    show_default=True,
    metavar="KELVIN",
    help="Temperature of the Langevin dynamics; may be repeated.",
)
NAME = click.option("--name", help="The dataset's name. [default: the directory's]")
REFERENCE = click.option(
    "--reference", help="The reference method's name. [default: the calculator]"
)
LABELLING = together(
    click.option(
        "--scheduler",
        default="local",
        show_default=True,
        metavar="local|tcp://HOST:PORT",
        help="Label on this machine's cores, or on the workers of a Dask scheduler.",
    ),
    click.option(
        "-w",
        "--workers",
        type=AT_LEAST_1,
        help="Local processes, one label each at a time. [default: one per core, or one if "
        "Dask is not installed]",
    ),
    NAME,
    REFERENCE,
)
