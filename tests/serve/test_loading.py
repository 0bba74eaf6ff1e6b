import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numba
import pytest

import deltaserver
from deltaserver.cli.app import main
from deltaserver.compute import jit
from deltaserver.model import loops
from deltaserver.model.composite import CompositeModel
from deltaserver.serve import loading
from deltaserver.serve.loading import default_threads, load_model, settle_threads
from tests.integration.conftest import DIMER

LOAD = """
import sys
from pathlib import Path
from deltaserver.serve.loading import load_model
model, _ = load_model(Path(sys.argv[1]), "fragments")
print(model.compiled)
"""


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 2), (64, 4)])
def test_up_to_four_threads_are_tried(monkeypatch, cores, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(cores)))
    assert default_threads() == threads


@pytest.mark.parametrize(("told", "threads"), [("1", 1), ("4", 4), ("3,2", 3), ("", 2), ("x", 2)])
def test_omp_num_threads_is_obeyed(monkeypatch, told, threads):
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    assert default_threads() == threads


class Timed:
    """A model that takes as long as it is told with each number of threads."""

    lattices, n_atoms, n_all = (), 3, 4

    def __init__(self, seconds):
        self.seconds, self.n_threads = seconds, len(seconds)

    def use_threads(self, n):
        self.n_threads = n

    def evaluate(self, positions):
        time.sleep(self.seconds[self.n_threads - 1])


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [((0.03, 0.06), 1), ((0.06, 0.02), 2), ((0.06, 0.03, 0.029), 2), ((0.03,), 1)],
)
def test_as_many_threads_as_are_worth_it(seconds, chosen):
    model = Timed(seconds)
    times = settle_threads(model)
    assert model.n_threads == chosen
    assert sorted(times) == (list(range(1, len(seconds) + 1)) if len(seconds) > 1 else [])
    assert all(times[n] >= 1e3 * seconds[n - 1] for n in times)


def test_a_number_that_is_told_is_not_measured(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    model, _ = load_model(DIMER, "total", threads=2)
    assert not model.thread_times_ms


def test_a_small_model_uses_one_thread():
    model = CompositeModel.load(DIMER, threads=3)
    model.use_threads(2)
    assert model.n_threads == 1


def load(cache=None):
    """Load the dimer in a process of its own, numba's cache in ``cache``; return its stderr."""
    environment = {**os.environ, **({"NUMBA_CACHE_DIR": str(cache)} if cache else {})}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(DIMER)],
        env=environment, capture_output=True, text=True, timeout=300,
        cwd=Path(deltaserver.__file__).parents[1],
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "True\n"
    return done.stderr


def without(names, directory):
    """Copy the cache that this machine has by now, but for some functions; compiling takes 30 s."""
    load()
    caching = pytest.importorskip("numba.core.caching")
    # One of each folder: numba keeps a cache for every one.
    for compiled in (loops.load("groups.orbits").by_orbits, loops.load("evaluate").direct):
        source = compiled.py_func.__code__.co_filename
        place = caching.UserProvidedCacheLocator.get_suitable_cache_subpath(source)
        shutil.copytree(
            compiled.stats.cache_path,
            directory / place,
            ignore=lambda _, files: [f for f in files if not f.endswith((".nbi", ".nbc"))],
        )
    for name in names:
        # Of a source that has changed there are several: the line stands in the name.
        indices = list((directory / place).glob(f"{name}-*.nbi"))
        assert indices
        for index in indices:
            index.unlink()
    return directory


@pytest.fixture
def _longer(_no_hang):
    """Compiling everything takes long where others compute as well."""
    signal.alarm(300)


@pytest.mark.usefixtures("_longer")
@pytest.mark.parametrize(
    "missing",
    [
        ("sites.add_pairs",),
        pytest.param(None, marks=pytest.mark.slow),
    ],
    ids=["some", "all"],
)
def test_compilation_is_told_in_one_line_and_kept(tmp_path, missing):
    cache = without(missing, tmp_path) if missing else tmp_path
    told = load(cache)
    assert told.count("\n") == 1
    assert told.startswith("deltaserver: compiling for this processor")
    assert load(cache) == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [(["--socket", "unix:none"], 0), (["check"], 130), (["simulate", "--kind", "nvt"], 130)],
)
def test_a_signal_while_loops_are_compiled_is_one_clean_end(
    monkeypatch, capsys, tmp_path, words, code
):
    """The compiler calls Python from C, where what a handler raises is printed and lost."""

    def compiling(*_):
        ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGTERM))()
        raise RuntimeError("no compiled object yet")

    lost = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    monkeypatch.setattr(loading, "load", compiling)
    monkeypatch.chdir(tmp_path)
    if code == 0:
        with pytest.raises(SystemExit, match="0"):
            main([*words, "--models", str(DIMER)])
    else:
        assert main([*words, "--models", str(DIMER)]) == code
    said = capsys.readouterr().err.strip()
    assert said == ("" if code == 0 else "deltaserver: interrupted")
    assert not lost


def twice(x):
    return 2.0 * x


def test_where_nothing_can_be_written_it_is_compiled_all_the_same(monkeypatch):
    """A read-only installation and HOME, as under the shipped systemd unit."""
    caching = pytest.importorskip("numba.core.caching")
    monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    with pytest.raises(RuntimeError, match="cannot cache function"):
        numba.njit(cache=True)(twice)
    told = []
    with jit.before_compilation(lambda: told.append("compiling")):
        assert jit.compiled(twice)(1.5) == 3.0
        assert jit.compiled(twice)(2) == 4.0
    assert told == ["compiling"]
