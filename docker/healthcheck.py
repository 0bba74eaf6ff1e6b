#!/usr/bin/env python3
"""Tell whether the daemon of this container lives: exit code 0 if it does, 1 if not.

A container's first process is the daemon; a process that has ended or is a zombie has no command.
"""

import sys
from pathlib import Path

command = Path("/proc/1/cmdline").read_bytes()
sys.exit(0 if b"deltaserver" in command else 1)
