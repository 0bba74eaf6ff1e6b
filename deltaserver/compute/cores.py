"""How many processor cores are ours."""

from __future__ import annotations

import os


def usable_cores() -> int:
    """Return the number of cores that this process may use.

    A batch system or a container may have given it fewer than the machine has; macOS keeps no such
    list, where it is those of the machine.
    """
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
