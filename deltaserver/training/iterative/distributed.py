"""The kernel matrix times a vector, its rows shared out among Dask workers.

Every worker lays the training points out once and then, product by product, gets v and gives the
rows of its share of the points: 24 N M bytes there, and that divided by the number of workers back.
Rows are computed in the same blocks wherever they are, so that the number of workers changes no
digit. A worker that is lost costs the time of its share: another one computes it, or, if none is
left or the scheduler itself is gone, this process.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.datasets.labelling import LOCAL, cluster
from deltaserver.errors import MissingExtraError
from deltaserver.training.iterative.conjugate import Apply
from deltaserver.training.iterative.product import BLOCK, KernelProduct

Arguments = tuple[Any, ...]  # of KernelProduct

PATIENCE_S = 60.0  # without any worker, after which this process goes on alone
LOOK_S = 2.0  # from one look at the workers to the next

_kept: dict[str, KernelProduct] = {}  # in a worker: of the matrix that is worked on


def rows(key: str, arguments: Arguments | None, v: Floats, points: slice) -> Floats | None:
    """Return rows of K v, in a worker; None where it is new and wants ``arguments`` first."""
    product = _kept.get(key)
    if product is None:
        if arguments is None:
            return None
        _kept.clear()
        product = _kept[key] = KernelProduct(*arguments)
    return product.rows(v, points)


@contextmanager
def over_workers(
    alone: KernelProduct, arguments: Arguments, scheduler: str, workers: int
) -> Iterator[Apply]:
    """Yield what makes products; one local worker is this process.

    Args:
        alone: makes them in this process.
        arguments: of :class:`KernelProduct`, for the others.
        scheduler: ``"local"``, or the address of a Dask scheduler.
        workers: local processes.

    Raises:
        MissingExtraError: Dask is not installed.
        NoServerError: there is no scheduler at that address.
    """
    if scheduler == LOCAL and workers == 1:
        yield alone
        return
    try:
        from dask.distributed import Client, LocalCluster
    except ImportError:
        raise MissingExtraError("Dask", "dask") from None
    with cluster(Client, LocalCluster, scheduler, workers) as client:
        yield DistributedProduct(client, alone, arguments)


class DistributedProduct:
    """K v from the workers of a Dask client.

    Args:
        client: of the scheduler.
        alone: makes what no worker is left for.
        arguments: of :class:`KernelProduct`, for the workers.

    Attributes:
        made_here: shares that no worker has computed.
    """

    made_here: int = 0

    def __init__(self, client: Any, alone: KernelProduct, arguments: Arguments) -> None:
        self._client: Any = client
        self._alone, self._arguments = alone, arguments
        self._n_points = len(arguments[0])
        self._key = uuid.uuid4().hex

    def __call__(self, v: Floats) -> Floats:
        """Return K v."""
        found: dict[int, Floats] = {}
        shares = _shares(self._n_points, 1)
        try:
            shares = _shares(self._n_points, max(1, self._workers()))
            self._ask(v, shares, None, found)  # of workers that know the matrix
            self._ask(v, shares, self._arguments, found)
        except Exception:  # Dask raises what it likes when a scheduler is gone: go on alone
            self._client = None
        self.made_here += len(shares) - len(found)
        parts = [
            found[k] if k in found else self._alone.rows(v, share) for k, share in enumerate(shares)
        ]
        return np.concatenate(parts)

    def _workers(self) -> int:
        return 0 if self._client is None else len(self._client.scheduler_info(-1)["workers"])

    def _ask(
        self, v: Floats, shares: list[slice], arguments: Arguments | None, found: dict[int, Floats]
    ) -> None:
        """Enter into ``found`` what the workers say of those shares that are not there yet."""
        missing = [k for k in range(len(shares)) if k not in found]
        if self._client is None or not missing:
            return
        futures = {
            k: self._client.submit(rows, self._key, arguments, v, shares[k], pure=False)
            for k in missing
        }
        self._wait(list(futures.values()))
        for k, future in futures.items():
            # Of an error nothing is lost but time: the worker died, or has no such package.
            part = future.result() if future.status == "finished" else None
            if part is not None:
                found[k] = part

    def _wait(self, futures: list[Any]) -> None:
        """Wait until all are done, or no worker has been there for long."""
        from dask.distributed import wait

        seen = time.monotonic()
        while True:
            try:
                wait(futures, timeout=LOOK_S)
            except TimeoutError:
                if self._workers():
                    seen = time.monotonic()
                elif time.monotonic() - seen > PATIENCE_S:
                    return
            else:
                return


def _shares(n_points: int, n_workers: int) -> list[slice]:
    """Cut the points into a share for each worker, whole blocks each."""
    n_blocks = -(-n_points // BLOCK)
    n = min(n_workers, n_blocks)
    ends = [min(n_points, BLOCK * (n_blocks * k // n)) for k in range(n + 1)]
    return [slice(a, b) for a, b in pairwise(ends)]
