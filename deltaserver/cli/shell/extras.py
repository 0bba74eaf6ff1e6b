"""A library that is not installed is told as the extra that brings it, whoever needs it first."""

from __future__ import annotations

from collections.abc import Sequence

from deltaserver.errors import MissingExtraError

# The extras of setup.cfg by the modules that they bring; the first one is named.
EXTRAS = {
    "ase": ("train", "analysis"),
    "chemiscope": ("analysis",),
    "dask": ("dask", "train"),
    "distributed": ("dask", "train"),
    "ipi": ("ipi",),
    "matplotlib": ("analysis", "sampling"),
    "networkx": ("train",),
    "numba": ("fast", "train"),
    "prometheus_client": ("metrics",),
    "pymbar": ("sampling",),
    "rich": ("train",),
    "scipy": ("train", "analysis"),
    "sgdml": ("train",),
    "tblite": ("tblite",),
    "torch": ("gpu",),
}
OF_COMMAND = {"analyze": "analysis"}  # what a command needs, where several extras would do


def missing_extra(error: ModuleNotFoundError, arguments: Sequence[str]) -> MissingExtraError | None:
    """Return what to tell of a module of an extra; None if no extra brings it."""
    module = (error.name or "").partition(".")[0]
    extras = EXTRAS.get(module)
    if extras is None:
        return None
    wanted = next((OF_COMMAND[word] for word in arguments if word in OF_COMMAND), None)
    return MissingExtraError(module, wanted if wanted in extras else extras[0])
