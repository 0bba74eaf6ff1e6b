"""``deltaserver improve`` killed at random moments, and what must be the same afterwards."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from deltaserver.model.files.archive import read_arrays
from deltaserver.textio.journal import read_journal
from tests.integration.conftest import ROOT


def labels_of(output):
    """Every label by what it is of, from all journals; refuses two of one."""
    found = {}
    for path in sorted(output.rglob("labels.jsonl")):
        for record in read_journal(path):
            key = (str(path.relative_to(output)), *(record[k] for k in ("step", "system")))
            assert key not in found, f"labelled twice: {key}"
            found[key] = record
    return found


def kill_at_random(words, output, times, seed):
    """Start the command and kill -9 it, so many times at random moments; then let it end."""
    rng = random.Random(seed)
    words = [sys.executable, "-m", "deltaserver", *map(str, words), "--output", str(output)]
    environment = {**os.environ, "SLOW": "0.02"}
    for _ in range(times):
        process = subprocess.Popen(words, cwd=ROOT, env=environment)
        before, wanted = progress(output), rng.randint(1, 12)
        while process.poll() is None and progress(output) < before + wanted:
            time.sleep(0.002)
        if process.poll() is None:
            time.sleep(rng.random() * 0.1)
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert subprocess.run(words, cwd=ROOT, check=False).returncode == 6


def progress(output):
    """Files and labels so far: something to count moments by on a machine of any speed."""
    count = 0
    for directory, _, names in os.walk(output):  # which passes over what is removed meanwhile
        count += len(names)
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                if name.endswith(".jsonl"):
                    count += (Path(directory) / name).read_bytes().count(b"\n")
    return count


def assert_same(done, output):
    """Labels are, and all models that were trained."""
    assert labels_of(output) == labels_of(done)
    models = sorted(path.relative_to(done) for path in done.glob("round-*/*/*.npz"))
    assert models == sorted(path.relative_to(output) for path in output.glob("round-*/*/*.npz"))
    for path in models:
        one, other = (read_arrays(d / path)["alphas_F"] for d in (done, output))
        np.testing.assert_array_equal(one, other)
