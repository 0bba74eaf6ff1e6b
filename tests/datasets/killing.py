"""Kill -9 a process when a journal has so many records."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path


def kill_when(process: subprocess.Popen[bytes], journal: Path, records: int) -> None:
    """Wait for ``records`` lines in ``journal``, then kill the process that writes them."""
    deadline = time.monotonic() + 120
    while not journal.exists() or journal.read_bytes().count(b"\n") < records:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
