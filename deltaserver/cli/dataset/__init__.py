"""``deltaserver dataset``: from structures to labelled frames and native sGDML datasets."""

from __future__ import annotations

import click

from deltaserver.cli.dataset import commands
from deltaserver.cli.dataset.anew import fold_command, place_command
from deltaserver.cli.dataset.cutting import cut_command
from deltaserver.cli.dataset.importing import import_command


@click.group(
    commands=[
        commands.sample_command,
        commands.label_command,
        commands.build_command,
        commands.write_command,
        commands.merge_command,
        commands.export_command,
        commands.check_command,
        commands.complex_command,
        place_command,
        fold_command,
        cut_command,
        import_command,
    ]
)
def dataset() -> None:
    """Sample a complex, label it and its fragments, write datasets.

    \b
    All of it in one command; stopped at any moment, it continues when it is repeated:
        deltaserver dataset build complex.xyz --fragment water:0-2 --fragment benzene:3-14 \\
            --calculator GFN2-xTB --temperature 300 --frames 300 --output data/complex
    """
