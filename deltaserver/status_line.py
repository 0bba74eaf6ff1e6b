"""A line that tells how far something is, on a terminal or in a batch job's log."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from typing import TextIO


class StatusLine:
    """One line, rewritten in place on a terminal; elsewhere lines, ever more rarely.

    Args:
        stream: where it is shown.
        clock: seconds.
        every_s: between two showings on a terminal.
        plain_s: between the first two elsewhere, and between the last: a batch log stays short.
    """

    def __init__(
        self,
        stream: TextIO,
        clock: Callable[[], float] = time.monotonic,
        *,
        every_s: float,
        plain_s: tuple[float, float],
    ) -> None:
        self.stream = stream
        self.clock = clock
        self.in_place = stream.isatty()
        self._last_s = plain_s[1]
        self._every_s = every_s if self.in_place else plain_s[0]
        self._shown_at = clock()
        self._width = 0

    @property
    def elapsed_s(self) -> float:
        """Since the last showing."""
        return self.clock() - self._shown_at

    @property
    def due(self) -> bool:
        """Whether the last showing is long enough ago."""
        return self.elapsed_s >= self._every_s

    def show(self, text: str, plain: Sequence[str] | None = None) -> None:
        """Show ``text``, or where it cannot be rewritten the lines ``plain``, if there are such."""
        self._shown_at = self.clock()
        if self.in_place:
            show(self.stream, "\r" + text.ljust(self._width))
            self._width = len(text)
        else:
            for line in plain or [text]:
                show(self.stream, line + "\n")
            self._every_s = min(2 * self._every_s, self._last_s)

    def clear(self) -> None:
        """Make room for another line."""
        if self.in_place and self._width:
            show(self.stream, "\r" + " " * self._width + "\r")
            self._width = 0


def show(stream: TextIO, text: str) -> None:
    """Write to a terminal that may be gone: a run does not end because nobody looks."""
    try:
        stream.write(text)
        stream.flush()
    except (OSError, ValueError):
        # What is left in the stream's buffer must go somewhere, or Python ends with code 120.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)
