"""Virtual environments of rivals: made once, outside the repository."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

from benchmarks.contest.entries import WORKER_PACKAGES, Rival
from deltaserver.errors import MissingExtraError

DEFAULT = Path.home() / ".cache" / "deltaserver" / "rivals"
READY = "ready.txt"  # written when pip has done everything


def python_of(rival: Rival, venvs: Path) -> Path:
    """Return the rival's Python, installing it first where it is not there.

    Raises:
        MissingExtraError: pip could not install it; its last line.
    """
    if not rival.environment:
        return Path(sys.executable)
    directory = venvs / rival.environment
    python = directory / "bin" / "python"
    if (directory / READY).is_file():
        return python
    venv.create(directory, with_pip=True)
    for packages in (*((one,) for one in rival.packages), WORKER_PACKAGES):
        done = subprocess.run(
            [python, "-m", "pip", "install", "-qq", "--disable-pip-version-check", *packages],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            lines = (done.stderr or done.stdout).strip().splitlines() or ["pip failed"]
            why = next((line for line in lines if line.startswith("ERROR")), lines[-1])
            raise NotInstalledError(f"does not install: {why[:200]}")
    (directory / READY).write_text(" ".join(rival.packages) + "\n")
    return python


class NotInstalledError(MissingExtraError):
    """A rival that pip does not install; the table says so."""

    def __init__(self, reason: str) -> None:
        Exception.__init__(self, reason)
