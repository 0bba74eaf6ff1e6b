"""What is fuzzed, and what must hold whatever the input: each target takes bytes.

A target returns a word for what became of the input, raises AssertionError where a property is
violated, and lets through whatever the code should not have raised.
"""

from __future__ import annotations

import random
import tempfile
import warnings
from pathlib import Path

import numpy as np

from deltaserver.errors import (
    GeometryError,
    ManifestError,
    ModelFileError,
    ProtocolError,
    UnitError,
)
from deltaserver.model.directories import MANIFEST_NAME
from deltaserver.model.files.parameters import read_parameters
from deltaserver.model.manifest import read_manifest
from deltaserver.model.sgdml import SGDMLModel, resolve_units
from deltaserver.serve.protocol import ClientProtocol, Closed, ForceRequest, Introduced
from deltaserver.serve.wire import CELL_BYTES, MAX_BATCH_SIZE, MAX_INIT_LENGTH, force_ready
from tests.builders import geometry, water_model, write_model

IN_MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None  # a file system may take long
N_ATOMS = 2
# The largest message that the reader may wait for, and a header.
MAX_BUFFERED = max(MAX_INIT_LENGTH, MAX_BATCH_SIZE * (CELL_BYTES + 24 * N_ATOMS)) + 32


def wire(data: bytes) -> str:
    """A peer's bytes: in one piece and in many they must mean the same, and nothing else."""
    whole = converse([data])
    chooser = random.Random(len(data))
    pieces, at = [], 0
    while at < len(data):
        step = chooser.choice((1, 2, 7, 12, 13, 100, 4096))
        pieces.append(data[at : at + step])
        at += step
    assert converse(pieces) == whole, "the same bytes in pieces mean something else"
    return whole[2] or f"{len(whole[0])} events"


def converse(pieces: list[bytes]) -> tuple[list[tuple[object, ...]], bytes, str]:
    """Feed a protocol and answer it; return its events, its bytes and how it ended."""
    protocol = ClientProtocol(N_ATOMS)
    events: list[tuple[object, ...]] = []
    fed = 0
    try:
        for piece in pieces:
            protocol.receive(piece)
            fed += len(piece)
            while (event := protocol.next_event()) is not None:
                events.append(describe(event))
                if isinstance(event, ForceRequest):
                    protocol.answer(reply(event))
                if isinstance(event, Closed):
                    return events, bytes(protocol.outgoing), "closed"
            buffered = len(protocol._reader._buffer)
            assert buffered <= min(fed, MAX_BUFFERED + len(piece)), f"{buffered} bytes are kept"
    except ProtocolError as error:
        message = str(error)
        assert message, "an error without a word"
        assert len(message) < 1000, "an error of a thousand words"
        return events, bytes(protocol.outgoing), "ProtocolError"
    return events, bytes(protocol.outgoing), ""


def describe(event: object) -> tuple[object, ...]:
    if isinstance(event, Introduced):
        assert 1 <= event.batch_size <= MAX_BATCH_SIZE
        return "introduced", event.bead, event.batch_size, tuple(event.parameters.items())
    if isinstance(event, ForceRequest):
        data = event.data
        assert data.positions.shape == (len(data.cells), N_ATOMS, 3)
        assert data.cells.shape[1:] == (3, 3)
        assert data.positions.dtype == data.cells.dtype == np.float64
        return "force", data.positions.tobytes(), data.cells.tobytes()
    return (type(event).__name__,)


def reply(event: ForceRequest) -> bytes:
    n = len(event.data.positions)
    forces = np.zeros((n, N_ATOMS, 3))
    return force_ready(np.zeros(n), forces, np.zeros((n, 3, 3)), [b"{}"] * n)


class ModelFiles:
    """A model file's bytes: a model that evaluates, or one line that says why not."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-model-", dir=IN_MEMORY)
        self.path = Path(self._folder.name) / "m.npz"
        assert self(write_model(self.path, water_model()).read_bytes()) == "a model"

    def __call__(self, data: bytes) -> str:
        self.path.write_bytes(data)
        try:
            parameters = read_parameters(self.path)
        except ModelFileError as error:
            return one_line(error)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")  # a file without units says so
            try:
                model = SGDMLModel(parameters, resolve_units(parameters))
                result = model.evaluate(geometry(len(parameters.numbers)))
            except (UnitError, GeometryError) as error:
                return one_line(error)
        assert result.forces.shape == (1, len(parameters.numbers), 3)
        return "a model"


class Manifests:
    """A manifest's bytes beside model files that exist: a manifest, or one line."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fuzz-manifest-", dir=IN_MEMORY)
        directory = Path(self._folder.name) / "model"
        directory.mkdir()
        for name in ("a.npz", "b.npz", "binding.npz"):
            (directory / name).touch()
        (directory / "out.npz").symlink_to("/etc/passwd")
        (Path(self._folder.name) / "secret.npz").touch()
        self.directory = directory

    def __call__(self, data: bytes) -> str:
        (self.directory / MANIFEST_NAME).write_bytes(data)
        try:
            manifest = read_manifest(self.directory)
        except ManifestError as error:
            return one_line(error)
        atoms = [atom for fragment in manifest.fragments for atom in fragment.atoms]
        assert sorted(atoms) == list(range(len(atoms))), "an atom in no fragment, or in two"
        inside = self.directory.resolve()
        files = [manifest.binding, manifest.full, *(part.model for part in manifest.fragments)]
        assert all(path.parent == inside for path in files if isinstance(path, Path))
        return "a manifest"


def one_line(error: Exception) -> str:
    message = str(error)
    assert not isinstance(error.__cause__, MemoryError), "what was announced was allocated"
    assert message.strip(), "an error without a word"
    assert len(message) < 2000, "an error of a thousand words"
    assert "\n" not in message, "an error of several lines"
    return type(error).__name__


TARGETS = {"wire": lambda: wire, "model": ModelFiles, "manifest": Manifests}
