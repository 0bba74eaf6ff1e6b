"""Whether compiled loops are there, without paying for numba's import before they are used."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

AVAILABLE = importlib.util.find_spec("numba") is not None


@contextlib.contextmanager
def before_compilation(announce: Callable[[], None]) -> Iterator[None]:
    """Call ``announce`` once, before the first loop that is in no cache is compiled."""
    if not AVAILABLE:
        yield
        return
    event = importlib.import_module("numba.core.event")
    told = False

    class FirstCompilation(event.Listener):  # type: ignore[misc, name-defined]
        def on_start(self, event: Any) -> None:
            nonlocal told
            if not told:
                told = True
                announce()

        def on_end(self, event: Any) -> None:
            """Numba asks every listener for both."""

    with event.install_listener("numba:compile", FirstCompilation()):
        yield


def compiled(
    function: Callable[..., Any],
    *,
    inline: str = "never",
    reorder: bool = True,
    allocates: bool = True,
) -> Callable[..., Any]:
    """Compile on the first call and keep the machine code beside the module.

    Where neither there nor in the user's cache directory anything can be written (a read-only
    installation under systemd), it is compiled anew in every process.

    A division by zero gives infinity, as in NumPy: a test for it would keep loops from becoming
    vector instructions.

    Args:
        function: what to compile.
        inline: ``"always"`` puts it into its callers before they are compiled.
        reorder: sums may be reordered, which is what makes them vector instructions.
        allocates: False for functions that make no arrays: views then cost nothing, which else
            count their references, a locked instruction each.
    """
    _use_wide_vectors()
    njit = importlib.import_module("numba").njit
    fastmath = {"contract", "nsz"} | ({"reassoc"} if reorder else set())
    options = {"cache": True, "nogil": True, "fastmath": fastmath, "error_model": "numpy"}
    options |= {"inline": inline, "_nrt": allocates}
    result: Callable[..., Any]
    try:
        result = njit(**options)(function)
    except RuntimeError:  # "cannot cache function": numba found no directory for it
        result = njit(**options | {"cache": False})(function)
    return result


@functools.cache
def _use_wide_vectors() -> None:
    """Let loops use vectors of 512 bits where the processor has them.

    The compiler takes half of them on Intel's, where older ones ran slower with whole ones. Whoever
    sets NUMBA_CPU_NAME or NUMBA_CPU_FEATURES is left alone.
    """
    config: Any = importlib.import_module("numba.core.config")
    if config.CPU_NAME is not None or config.CPU_FEATURES is not None:
        return
    binding = importlib.import_module("llvmlite.binding")
    features = binding.get_host_cpu_features()
    if features.get("avx512f"):
        config.CPU_NAME = binding.get_host_cpu_name()
        config.CPU_FEATURES = f"{features.flatten()},-prefer-256-bit"
