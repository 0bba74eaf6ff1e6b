"""Threads that work through a list together; compiled loops leave the interpreter to the others."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class ThreadPool:
    """The calling thread and ``n_threads`` − 1 others.

    A list may be worked through within an item of another: whoever called takes items itself, so
    that nobody waits for a thread that is busy elsewhere.
    """

    def __init__(self, n_threads: int = 1) -> None:
        self.n_all = self.n_threads = n_threads
        self._pool = ThreadPoolExecutor(n_threads - 1, "evaluate") if n_threads > 1 else None

    def limit(self, n_threads: int) -> None:
        """Work with so many of the threads from now on; the others wait and cost nothing."""
        self.n_threads = min(n_threads, self.n_all)

    def map(self, function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Return ``function`` of every item, in their order; items are begun in their order.

        Raises:
            Exception: whatever ``function`` raises.
        """
        if self._pool is None or self.n_threads < 2 or len(items) < 2:
            return [function(item) for item in items]
        results: list[Any] = [None] * len(items)
        queue = deque(enumerate(items))
        helpers = [
            self._pool.submit(_work, function, queue, results)
            for _ in range(min(self.n_threads, len(items)) - 1)
        ]
        try:
            _work(function, queue, results)
        finally:
            errors = [error for helper in helpers if (error := _end(helper))]
        if errors:
            raise errors[0]
        return results


ONE_THREAD = ThreadPool()


def _work(
    function: Callable[[Any], Any], queue: deque[tuple[int, Any]], results: list[Any]
) -> None:
    while True:
        try:
            number, item = queue.popleft()  # of all threads only one gets it
        except IndexError:
            return
        results[number] = function(item)


def _end(helper: Future[None]) -> BaseException | None:
    """Wait for a helper, unless it has not begun; return what it raised."""
    return None if helper.cancel() else helper.exception()
