"""How many threads the BLAS libraries of this process use, where that can be set."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

try:
    import threadpoolctl
except ImportError:  # without it the environment's OPENBLAS_NUM_THREADS holds
    threadpoolctl = None


def blas_threads(count: int) -> AbstractContextManager[Any]:
    """Limit BLAS to ``count`` threads within the context."""
    if threadpoolctl is None:
        return nullcontext()
    limit: AbstractContextManager[Any] = threadpoolctl.threadpool_limits(count, user_api="blas")
    return limit


def keep_blas_threads(count: int) -> None:
    """Limit BLAS to ``count`` threads from now on."""
    blas_threads(count).__enter__()


def one_blas_thread() -> AbstractContextManager[Any]:
    """Keep BLAS to the calling thread: blocks are computed in threads of our own."""
    return blas_threads(1)
