"""Model files, each loaded once however many parts use it, and what evaluates them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from deltaserver.compute.thread_pool import ONE_THREAD, ThreadPool
from deltaserver.errors import MissingExtraError
from deltaserver.model.engines import Backend, Precision, Storage
from deltaserver.model.engines.base import Engine
from deltaserver.model.engines.numpy_engine import NumpyEngine
from deltaserver.model.engines.storage import Stored, choose
from deltaserver.model.files.parameters import ModelParameters, read_parameters
from deltaserver.model.sgdml import SGDMLModel, resolve_units


@dataclass(frozen=True)
class Choice:
    """What evaluates: see :meth:`deltaserver.model.composite.CompositeModel.load`."""

    backend: Backend = "numpy"
    device: str = "auto"
    precision: Precision = "float64"
    threads: int = 1
    storage: Storage = "double"

    def pool(self) -> ThreadPool:
        """Return the threads of compiled loops."""
        several = self.threads > 1 and self.backend == "numpy"
        return ThreadPool(self.threads) if several else ONE_THREAD


@dataclass
class ModelLoader:
    """Loads model files, in the manifest's units where they state none.

    Attributes:
        stored: by model file, in which precision its training points are stored.
    """

    length_unit: str | None
    energy_unit: str | None
    choice: Choice
    pool: ThreadPool
    loaded: dict[Path, SGDMLModel] = field(default_factory=dict)
    stored: dict[str, Stored] = field(default_factory=dict)

    def __call__(self, path: Path) -> SGDMLModel:
        """Return the model of a file."""
        if path not in self.loaded:
            self.loaded[path] = self._load(path)
        return self.loaded[path]

    def _load(self, path: Path) -> SGDMLModel:
        parameters = read_parameters(path)
        native = resolve_units(parameters, self.length_unit, self.energy_unit)
        try:
            return SGDMLModel(parameters, native, self._engine(parameters))
        except ImportError as error:
            backend = self.choice.backend
            extra = {"torch": "gpu", "sgdml": "train"}[backend]
            raise MissingExtraError(f"the {backend} backend", extra) from error

    def _engine(self, parameters: ModelParameters) -> Engine:
        if self.choice.backend == "torch":
            from deltaserver.model.engines.torch_engine import TorchEngine

            return TorchEngine(parameters, self.choice.device, self.choice.precision)
        if self.choice.backend == "sgdml":
            from deltaserver.model.engines.reference import ReferenceEngine

            return ReferenceEngine(parameters)
        engine = NumpyEngine(parameters, self.pool)
        chosen, stored = choose(engine, parameters, self.choice.storage)
        self.stored[Path(parameters.source).name] = stored
        return chosen
