"""Signals as requests: to stop, to reopen the log. Handled between two requests, never inside."""

from __future__ import annotations

import contextlib
import selectors
import signal
import socket
import threading
from collections.abc import Iterator
from types import FrameType

STOPPING = (signal.SIGTERM, signal.SIGINT)
HANDLED = (*STOPPING, signal.SIGHUP)


class Stopped(KeyboardInterrupt):
    """A signal has stopped what was only beginning: for a daemon an end in order."""


class Signals:
    """What signals have asked for. While :meth:`handled`, they wake the selector too."""

    def __init__(self) -> None:
        self.stop: str | None = None  # the name of the signal that asked to stop
        self.hangup = False  # SIGHUP has come: the log is to be opened anew
        self._ours: socket.socket | None = None

    @contextlib.contextmanager
    def handled(self, selector: selectors.BaseSelector) -> Iterator[None]:
        """Handle signals for the time of a ``with`` block; then put the old handlers back."""
        self._ours, wake = socket.socketpair()
        self._ours.setblocking(False)
        wake.setblocking(False)
        selector.register(self._ours, selectors.EVENT_READ, None)
        old_fd = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        old = [signal.signal(number, self._note) for number in HANDLED]
        try:
            yield
        finally:
            signal.set_wakeup_fd(old_fd)
            for number, handler in zip(HANDLED, old, strict=True):
                signal.signal(number, handler)
            self._ours.close()
            wake.close()

    def woken(self) -> None:
        """Take the wake-up bytes, so that the selector sleeps again."""
        assert self._ours is not None
        with contextlib.suppress(BlockingIOError):
            self._ours.recv(4096)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number in STOPPING:
            self.stop = signal.Signals(number).name
        else:
            self.hangup = True


@contextlib.contextmanager
def stoppable_once() -> Iterator[threading.Event]:
    """Let the first SIGTERM or SIGINT raise KeyboardInterrupt, and nothing after it.

    A batch system signals every process of a job, and more than once: what ends in order must not
    be ended while it does. Whoever sets the event has begun to end, and hears no signal any more;
    a process that was interrupted stays deaf until it has ended, or its exit code would be lost.
    """
    ending = threading.Event()
    interrupted = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal interrupted
        if not ending.is_set():
            ending.set()
            interrupted = True
            raise KeyboardInterrupt

    old = [signal.signal(number, interrupt) for number in STOPPING]
    try:
        yield ending
    except KeyboardInterrupt:
        interrupted = True  # by a signal that somebody else heard and passes on
        raise
    finally:
        for number, handler in zip(STOPPING, old, strict=True):
            signal.signal(number, signal.SIG_IGN if interrupted else handler)
