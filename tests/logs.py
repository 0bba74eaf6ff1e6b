"""Logs that are read while a daemon writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def records(log: Path) -> list[dict[str, Any]]:
    """What has been logged; a last line that has no end yet is still being written."""
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text().rpartition("\n")[0].splitlines()]


def events(log: Path, name: str) -> list[dict[str, Any]]:
    """Those of the records that are of one event."""
    return [record for record in records(log) if record["event"] == name]
