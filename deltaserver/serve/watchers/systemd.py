"""What systemd is told when it has started us: sd_notify(3), in datagrams.

systemd names a socket in ``NOTIFY_SOCKET``, and in ``WATCHDOG_USEC`` within which time it wants
to hear from us again; both only for the process it started.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, Sequence

from deltaserver.serve.answer import Structure
from deltaserver.serve.watchers.watch import ENDED, Condition, Vitals

STATUS_EVERY_S = 10.0


def from_environment(environment: Mapping[str, str] = os.environ) -> Notifier | None:
    """Return a notifier if systemd waits for one."""
    address = environment.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return None  # none, or one of a kind (vsock) that no service of a host has
    watchdog_s = None
    text, pid = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if text.isdecimal() and int(text) > 0 and pid in ("", str(os.getpid())):
        watchdog_s = 1e-6 * int(text)
    return Notifier(address, watchdog_s)


class Notifier:
    """Tells systemd when we are ready, that we live, how we are, and that we stop."""

    def __init__(self, address: str, watchdog_s: float | None) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        self._socket.setblocking(False)
        # Twice in the time that systemd gives, as sd_watchdog_enabled(3) advises.
        self._every_s = min(watchdog_s / 2, STATUS_EVERY_S) if watchdog_s else STATUS_EVERY_S
        self._watchdog = watchdog_s is not None
        self._told_at: float | None = None
        self._condition: Condition | None = None

    def step(self, structures: Sequence[Structure], wall_ms: float, component: str) -> None:
        """Wait for the next tick."""

    def tick(self, vitals: Vitals, now: float) -> None:
        """Send what is due."""
        changed = vitals.condition is not self._condition
        if not changed and self._told_at is not None and now - self._told_at < self._every_s:
            return
        lines = [f"STATUS={vitals.condition.value}, {vitals.n_structures} structures"]
        if self._told_at is None:
            lines.append("READY=1")
        if self._watchdog:
            lines.append("WATCHDOG=1")
        if vitals.condition in ENDED:
            lines.append("STOPPING=1")
        self._told_at, self._condition = now, vitals.condition
        self.send(*lines)

    def reloaded(self) -> None:
        """Tell that SIGHUP was heard, for units of ``Type=notify-reload``."""
        self.send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")
        self.send("READY=1")

    def due(self, now: float) -> float | None:
        """Return when systemd wants to hear from us again."""
        return 0.0 if self._told_at is None else max(0.0, self._told_at + self._every_s - now)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def send(self, *lines: str) -> None:
        """Send one datagram; systemd may be too busy for it, and the run goes on without."""
        with contextlib.suppress(OSError):
            self._socket.sendto("\n".join(lines).encode(), self._address)
