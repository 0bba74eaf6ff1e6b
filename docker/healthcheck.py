#!/usr/bin/env python3
"""Tell whether the daemon of this container lives: exit code 0 if it does, 1 if not.

Reads the health file that the entry point asks for. The daemon writes it at least every ten
seconds unless it is computing; one structure may take long, several minutes of silence mean that
it hangs. Other commands (train, dataset, …) have no such file: that they run is enough.
"""

import json
import sys
import time
from pathlib import Path

HEALTH_FILE = Path("/tmp/deltaserver-health.json")
SILENT_S = 120


def main() -> int:
    """Read the health file; print what it tells and how old it is."""
    try:
        age_s = time.time() - HEALTH_FILE.stat().st_mtime
        state = json.loads(HEALTH_FILE.read_text())["state"]
    except FileNotFoundError:
        # A process that has ended has no command.
        return 0 if b"deltaserver" in Path("/proc/1/cmdline").read_bytes() else 1
    print(f"{state}, {age_s:.0f} s ago")
    return 1 if state in ("stopped", "failed") or age_s > SILENT_S else 0


if __name__ == "__main__":
    sys.exit(main())
