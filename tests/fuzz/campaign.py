"""Run a target on many inputs and report: python -m tests.fuzz.campaign wire --inputs 1000000

Watches for what a property cannot say: an input that takes seconds, memory that grows. The input
that breaks something is written to a file, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import resource
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz.mutations import INPUTS
from tests.fuzz.targets import TARGETS

SLOWEST_S = 5.0  # of the processor, for one input; they are some kilobytes
STUCK_S = 600.0  # of the clock: an input that waits for something that never comes
GROWTH_BYTES = 256 << 20  # of the process, over the whole campaign


class HangError(AssertionError):
    """An input took too long."""


@dataclass
class Report:
    target: str
    seed: int
    inputs: int = 0
    seconds: float = 0.0
    processor_s: float = 0.0
    slowest_ms: float = 0.0
    peak_mib: float = 0.0
    growth_mib: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)


def run(target: str, seed: int, n_inputs: int | None, seconds: float | None) -> Report:
    """Fuzz until there were so many inputs, or so many seconds are over."""
    call = TARGETS[target]()
    inputs = INPUTS[target](random.Random(seed))
    report = Report(target, seed)
    numbers = (signal.SIGPROF, signal.SIGALRM)
    old = [signal.signal(number, _hangs) for number in numbers]
    began, busy, memory = time.monotonic(), time.process_time(), _peak()
    try:
        for data in itertools.islice(inputs, n_inputs):
            _one(call, data, report)
            report.seconds = time.monotonic() - began
            report.processor_s = time.process_time() - busy
            if seconds is not None and report.seconds > seconds:
                break
    finally:
        for number, handler in zip(numbers, old, strict=True):
            signal.signal(number, handler)
        report.peak_mib = _peak() / 2**20
        report.growth_mib = (_peak() - memory) / 2**20
    assert report.growth_mib * 2**20 < GROWTH_BYTES, f"memory grew by {report.growth_mib:.0f} MiB"
    return report


def _one(call: Any, data: bytes, report: Report) -> None:
    began = time.process_time()
    _limit(SLOWEST_S, STUCK_S)
    try:
        outcome = call(data)
    except BaseException as error:
        _limit(0.0, 0.0)
        if not isinstance(error, KeyboardInterrupt):
            path = Path(f"crash-{report.target}-{report.seed}-{report.inputs}")
            path.write_bytes(data)
            print(f"{path}: {type(error).__name__}: {error}", file=sys.stderr)
        raise
    _limit(0.0, 0.0)
    report.inputs += 1
    report.slowest_ms = max(report.slowest_ms, 1e3 * (time.process_time() - began))
    report.outcomes[outcome] += 1


def _limit(busy_s: float, waiting_s: float) -> None:
    signal.setitimer(signal.ITIMER_PROF, busy_s)
    signal.setitimer(signal.ITIMER_REAL, waiting_s)


def _hangs(number: int, frame: FrameType | None) -> None:
    raise HangError(f"{signal.Signals(number).name}: it takes too long")


def _peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--inputs", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    report = run(options.target, options.seed, options.inputs, options.seconds)
    told = vars(report) | {"outcomes": dict(report.outcomes.most_common(12))}
    print(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
