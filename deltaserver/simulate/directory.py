"""What a run's directory holds, and that nothing else in it is touched."""

from __future__ import annotations

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from deltaserver.arrays import Floats, Ints
from deltaserver.bias.settings import HILLS_NAME
from deltaserver.errors import InputError
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.simulate.ipi.input import IpiInput
from deltaserver.simulate.ipi.process import EXIT_FILE, IPI_LOG
from deltaserver.simulate.record import RUN_FILE, read_record
from deltaserver.simulate.restart import CONTINUED_INPUT, RESTART_NAME
from deltaserver.textio.xyz_frames import xyz_text

INPUT_NAME = "input.xml"
LOG_NAME = "deltaserver.jsonl"
FRAME_NAME = "blow_up.xyz"
SWEEP_FILE = "sweep.json"  # of a set of runs, each in a directory of its own below
LOCK_NAME = "run.lock"
LEARNING_NAME = "learning"  # what the run's model was taught on the way
# How long an i-PI whose daemon was killed may take to end, for what goes on with its run. A new run
# is not to wait for another's end and then take its place.
LOCK_PATIENCE_S, NEW_RUN_PATIENCE_S = 60.0, 3.0
OF_ONE_RUN = (
    LOG_NAME, IPI_LOG, RESTART_NAME, CONTINUED_INPUT, FRAME_NAME, RUN_FILE, HILLS_NAME,
)  # fmt: skip
OURS = (*OF_ONE_RUN, INPUT_NAME, LOCK_NAME, EXIT_FILE)


def refuse_strangers(directory: Path, ipi_input: IpiInput) -> None:
    """Refuse a directory where a file that is not a run's would be written over or renamed.

    Raises:
        InputError: naming the file; or an output has the name of a file of ours.
    """
    for output in ipi_input.files:
        pattern = output.pattern(ipi_input.system_prefixes)
        if taken := [name for name in OURS if pattern.fullmatch(name)]:
            raise InputError(
                f"{ipi_input.path}: its output {output.name!r} would be called {taken[0]}, as a "
                "file of the run itself; give it another prefix or filename"
            )
    if not directory.is_dir() or read_record(directory) is not None:
        return
    if (directory / SWEEP_FILE).exists():
        raise InputError(
            f"{directory}: holds a set of runs, which --resume would go on with in place of this "
            "one; choose another --directory"
        )
    there = [directory / name for name in OURS if name != LOCK_NAME]
    there += [path for path, _ in ipi_input.written(directory)]
    there += [directory / link.name for link in ipi_input.links]
    for path in there:
        if path.exists():
            raise InputError(
                f"{directory}: is no run's directory and holds {path.name}, which a run would "
                "write over; choose another --directory"
            )


def set_old_files_aside(directory: Path, ipi_input: IpiInput) -> None:
    """Let nothing of an earlier run be taken for this one's: i-PI's states, logs, outputs."""
    for name in OF_ONE_RUN:
        set_aside(directory / name)
    for path, _ in ipi_input.written(directory):
        set_aside(path)


def set_aside(path: Path) -> None:
    """Rename a file of an earlier run the way i-PI does: ``#NAME#0#``."""
    if not path.is_file():
        return
    k = 0
    while (aside := path.with_name(f"#{path.name}#{k}#")).exists():
        k += 1
    path.rename(aside)


def keep_old_input(directory: Path, text: str) -> None:
    """Set the directory's input aside if it is not what would be written: it may be edited."""
    path = directory / INPUT_NAME
    if path.is_file() and path.read_bytes() != text.encode():
        set_aside(path)


def frame_text(
    numbers: Ints, positions: Floats, step: int, reason: str, cell: Floats | None
) -> str:
    """Format what blew up as extended XYZ, Å; ``cell`` has its vectors in columns."""
    quoted = reason.replace('"', "'")
    box = 'pbc="F F F"'
    if cell is not None:
        box = f'Lattice="{" ".join(f"{x:.8f}" for x in cell.T.ravel())}" pbc="T T T"'
    comment = f'{box} Properties=species:S:1:pos:R:3 step={step} reason="{quoted}"'
    return xyz_text([SYMBOLS[number] for number in numbers], positions, comment)


def link_files(directory: Path, ipi_input: IpiInput) -> None:
    """Put files that i-PI looks for in its own directory there."""
    for source in ipi_input.links:
        place = directory / source.name
        if place.is_symlink():
            place.unlink()
        if not place.exists():
            place.symlink_to(source)


@contextlib.contextmanager
def lock(directory: Path, patience_s: float) -> Iterator[int]:
    """Hold a run directory; yield the file descriptor, which i-PI inherits.

    As long as an i-PI of an earlier command lives, the directory is still held by it: it is waited
    for, for ``patience_s``.

    Raises:
        InputError: another run goes on there.
    """
    with (directory / LOCK_NAME).open("a") as file:
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise InputError(
                        f"{directory}: another run goes on there; wait, or choose another "
                        "--directory"
                    ) from None
                time.sleep(0.2)
        yield file.fileno()
