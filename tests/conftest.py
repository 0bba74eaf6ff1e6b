"""What several test files share: a model directory, the model in it, and its geometry."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fontTools import subset
from hypothesis import HealthCheck, settings
from matplotlib.figure import Figure

from deltaserver import CompositeModel, plots
from deltaserver.evaluation.figures import held_out as evaluation_figures
from tests import builders, shipped

# sgdml gives every logger made after its import a handler of its own, on what stderr is at that
# moment: pytest's for one test. Whatever prints later, matplotlib or dask, would fail in the next.
with contextlib.suppress(ImportError):
    import sgdml  # noqa: F401
logging.setLoggerClass(logging.Logger)

# How long an example takes says how busy the machine is, and no test here is about that.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run what takes longest first, so that workers end together."""
    items.sort(key=lambda item: "integration" not in item.path.parts)


@pytest.fixture(autouse=True)
def _quiet_root_logger() -> None:
    """Take back what a library has made of the root logger: sgdml has it print every message."""
    root = logging.getLogger()
    root.setLevel(logging.WARNING)
    root.handlers[:] = [h for h in root.handlers if type(h).__module__.startswith("_pytest")]


@pytest.fixture(scope="session", autouse=True)
def _children_are_not_measured() -> None:
    """Tests start i-PI and daemons by the dozen: with coverage a start takes twice as long."""
    os.environ.pop("COVERAGE_PROCESS_CONFIG", None)


@pytest.fixture(scope="session", autouse=True)
def _fonts_are_cut_quickly() -> Iterator[None]:
    """A PDF needs none of a font's tables for shaping; to read them takes half of its time."""
    with pytest.MonkeyPatch.context() as patch:
        unused = ["GDEF", "GPOS", "GSUB", "MATH", "kern"]
        kept = subset.Options._drop_tables_default
        patch.setattr(subset.Options, "_drop_tables_default", kept + unused)
        yield


@pytest.fixture(scope="session", autouse=True)
def _drawing_is_not_traced() -> Iterator[None]:
    """What matplotlib does in millions of lines of its own takes twice as long under coverage."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", untraced(Figure.savefig))
        yield


def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Call a function of others without telling a tracer of its lines."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        tracer = sys.gettrace()
        sys.settrace(None)
        try:
            return function(*arguments, **options)
        finally:
            sys.settrace(tracer)

    return call


@pytest.fixture(scope="session", autouse=True)
def _representations_are_remembered() -> Iterator[None]:
    """The same few models are loaded by the hundred, and most of a load is their group's."""
    with pytest.MonkeyPatch.context() as patch:
        builders.remember_representations(patch.setattr)
        yield


@pytest.fixture
def one_format(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures as PNG alone, for what draws them only by the way; other tests want every format."""
    for module in (plots, evaluation_figures):
        monkeypatch.setattr(module, "FORMATS", ("png",))


@pytest.fixture(scope="session")
def model_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A valid model directory; read only."""
    return builders.write_directory(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def composite(model_directory: Path) -> CompositeModel:
    return CompositeModel.load(model_directory)


@pytest.fixture(scope="session")
def periodic(tmp_path_factory: pytest.TempPathFactory) -> CompositeModel:
    """The same complex, of which the binding takes nearest images in a cell without symmetry."""
    directory = builders.write_directory(tmp_path_factory.mktemp("periodic"))
    binding = builders.binding_model(lattice=builders.TRICLINIC)
    builders.write_model(directory / "binding.npz", binding)
    return CompositeModel.load(directory)


@pytest.fixture
def shipped_loaded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have commands take the models that ship as another test has loaded them, not read anew."""
    monkeypatch.setattr(CompositeModel, "load", shipped.load)


@pytest.fixture
def positions() -> np.ndarray:
    """One geometry of the complex, Å."""
    return builders.shaken(builders.geometry(7, 3), 1, 99)[0]


@pytest.fixture
def batch() -> np.ndarray:
    """Three geometries of the complex, Å."""
    return builders.shaken(builders.geometry(7, 3), 3, 98)
