"""Native sGDML model files: read, validate, never unpickle.

Two generations are in use: 0.2.x (``type`` is bytes, no units, no ``alphas_F``) and 1.0.x.
``f_err`` and ``e_err`` are pickled dictionaries in both; they are never touched.

A model whose descriptor is weighted by fragments is none that sgdml could evaluate: its ``type``
is ``WEIGHTED``, which sgdml refuses. It holds training positions ``R`` and their coefficients,
which descriptors and Jᵀα follow from, and ``fragments``, ``block_weights`` and ``reach``.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.errors import GeometryError, ModelFileError
from deltaserver.model.archive import ArchiveLimitError, NoArchiveError, read_arrays
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.elements import SYMBOLS
from deltaserver.model.fragment_blocks import FragmentBlocks, Reach

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# A table of all permutations of all pairs has so many entries, of eight bytes: 2 GiB. A file can
# hold millions of permutations in some kilobytes.
MAX_PERMUTED_PAIRS = 1 << 28
MIN_SIGMA, MAX_SIGMA = 1e-9, 1e9  # its cube and inverse must be numbers
MAX_CODE_POINT = 0x10FFFF
MAX_TEXT_BYTES = 400  # of the name of a unit, four a letter
NATIVE, WEIGHTED = "m", "deltaserver-weighted"
WEIGHTED_REQUIRED = ("R", "alphas_F", "fragments", "block_weights")
REQUIRED = ("type", "z", "R_desc", "R_d_desc_alpha", "c", "sig", "perms")
OPTIONAL = ("std", "alphas_E", "alphas_F", "lattice", "r_unit", "e_unit")
KEYS = (*dict.fromkeys((*REQUIRED, *OPTIONAL, *WEIGHTED_REQUIRED, "reach")),)  # that are read
# What numpy and zipfile raise at files that are not, or no longer, what they should be.
UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, TypeError, NotImplementedError, RuntimeError,
    SyntaxError, MemoryError, OverflowError, UnicodeError, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


@dataclass(frozen=True)
class ModelParameters:
    """One sGDML model as its file states it, in the file's own units.

    Attributes:
        numbers: atomic numbers, shape (N,).
        x: training descriptors, shape (M, D), 1/length.
        a: Jᵀα of every training point, shape (M, D).
        perms: atom permutations, shape (S, N).
        sigma: kernel length scale.
        c: integration constant (energy).
        std: scale of the training labels.
        alphas_energy: coefficients of energy constraints, shape (M,), or None.
        lattice: lattice vectors in columns, shape (3, 3), or None.
        length_unit: ``r_unit`` of the file, or None where it does not say.
        energy_unit: ``e_unit`` of the file, or None where it does not say.
        blocks: weights of the descriptor's entries by fragment; None in a native sGDML model.
        source: where the model was read from, for messages.
    """

    numbers: Ints
    x: Floats
    a: Floats
    perms: Ints
    sigma: float
    c: float
    std: float = 1.0
    alphas_energy: Floats | None = None
    lattice: Floats | None = None
    length_unit: str | None = None
    energy_unit: str | None = None
    blocks: FragmentBlocks | None = None
    source: str = "model"


def read_parameters(path: str | Path) -> ModelParameters:
    """Read and validate an sGDML ``.npz`` model file.

    Raises:
        ModelFileError: the file is missing, truncated, no sGDML model, or holds arrays whose
            shapes disagree or whose values are not finite.
    """
    path = Path(path)
    try:
        if not path.is_file():
            raise ModelFileError(f"{path}: no such file; expected an sGDML model (.npz)")
        arrays = read_arrays(path, KEYS)
    except NoArchiveError as error:
        raise ModelFileError(f"{path}: {error}; expected an sGDML model") from None
    except ArchiveLimitError as error:
        raise ModelFileError(f"{path}: refused: {error}") from None
    except UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFileError(f"{path}: corrupt or truncated .npz file ({reason})") from error
    return parse_parameters(arrays, str(path))


def _check_keys(arrays: Mapping[str, Any], source: str) -> bool:
    """Return whether this is a weighted model; raise where it is none, or lacks something."""
    kind = _text(arrays, "type", source) if "type" in arrays else NATIVE
    weighted = kind == WEIGHTED
    derived = ("R_desc", "R_d_desc_alpha")
    required = [key for key in REQUIRED if not (weighted and key in derived)]
    required += WEIGHTED_REQUIRED if weighted else ()
    missing = [key for key in required if key not in arrays]
    if missing:
        raise ModelFileError(
            f"{source}: not an sGDML model: missing {', '.join(missing)}; "
            f"expected the keys {', '.join(required)}"
        )
    if kind not in (NATIVE, WEIGHTED):
        names = {"d": "a dataset", "t": "a training task"}
        what = names.get(kind, f"type {kind!r}")
        raise ModelFileError(f"{source}: {what}, not a trained model; expected type 'm'")
    return weighted


def parse_parameters(arrays: Mapping[str, Any], source: str) -> ModelParameters:
    """Validate the arrays of a model file, or of an in-memory sGDML model dictionary."""
    weighted = _check_keys(arrays, source)
    numbers = np.atleast_1d(_integers(arrays, "z", source))
    n_atoms = len(numbers)
    n_desc = n_atoms * (n_atoms - 1) // 2
    if weighted:
        x, a = _descriptors(arrays, n_atoms, source)
    else:
        x = _floats(arrays, "R_desc", source).T  # the file keeps it as [n_desc, n_train]
        a = _floats(arrays, "R_d_desc_alpha", source)
    n_train = len(x) if x.ndim == 2 else 0
    perms = np.atleast_2d(_integers(arrays, "perms", source))
    alphas = _floats(arrays, "alphas_E", source).ravel() if "alphas_E" in arrays else None
    lattice = _floats(arrays, "lattice", source) if "lattice" in arrays else None
    if "alphas_F" in arrays:
        _floats(arrays, "alphas_F", source)  # not needed to predict, but must be sound
    _expect_shape(source, "z", numbers, (n_atoms,))
    if n_atoms < 2 or n_train < 1:
        raise ModelFileError(f"{source}: {n_atoms} atoms, {n_train} training points; expected more")
    _expect_shape(source, "R_desc", x.T, (n_desc, n_train))
    _expect_shape(source, "R_d_desc_alpha", a, (n_train, n_desc))
    _expect_shape(source, "perms", perms, (len(perms), n_atoms))
    if alphas is not None:
        _expect_shape(source, "alphas_E", alphas, (n_train,))
    if lattice is not None:
        _expect_shape(source, "lattice", lattice, (3, 3))
        if abs(np.linalg.det(lattice)) < 1e-12:
            raise ModelFileError(
                f"{source}: lattice is singular; expected three independent vectors"
            )
    _check_numbers(source, numbers)
    _check_permutations(source, perms, numbers)
    sigma = _scalar(arrays, "sig", source)
    if not MIN_SIGMA <= sigma <= MAX_SIGMA:
        raise ModelFileError(f"{source}: sig is {sigma}; expected a positive length scale")
    return ModelParameters(
        numbers=numbers,
        x=np.ascontiguousarray(x),
        a=np.ascontiguousarray(a),
        perms=perms,
        sigma=sigma,
        c=_scalar(arrays, "c", source),
        std=_scalar(arrays, "std", source) if "std" in arrays else 1.0,
        alphas_energy=alphas,
        lattice=lattice,
        length_unit=_text(arrays, "r_unit", source) if "r_unit" in arrays else None,
        energy_unit=_text(arrays, "e_unit", source) if "e_unit" in arrays else None,
        blocks=_blocks(arrays, n_atoms, source) if weighted else None,
        source=source,
    )


def _descriptors(arrays: Mapping[str, Any], n_atoms: int, source: str) -> tuple[Floats, Floats]:
    """Return descriptors and Jᵀα (M, D) of training positions and their coefficients."""
    positions = _floats(arrays, "R", source)
    n_train = len(positions) if positions.ndim == 3 else 0
    if n_train * n_atoms * (n_atoms - 1) // 2 > MAX_PERMUTED_PAIRS:
        raise ModelFileError(f"{source}: {n_train} training points of {n_atoms} atoms: too large")
    _expect_shape(source, "R", positions, (n_train, n_atoms, 3))
    alphas = _floats(arrays, "alphas_F", source).ravel()
    _expect_shape(source, "alphas_F", alphas, (positions.size,))
    pairs = PairDescriptor(n_atoms)
    try:
        geometry = pairs.geometry(positions)
    except GeometryError as error:
        raise ModelFileError(f"{source}: R: {error}") from None
    return geometry.descriptor, pairs.project(geometry, alphas.reshape(positions.shape))


def _blocks(arrays: Mapping[str, Any], n_atoms: int, source: str) -> FragmentBlocks:
    fragment = _integers(arrays, "fragments", source)
    _expect_shape(source, "fragments", fragment, (n_atoms,))
    weights = _floats(arrays, "block_weights", source)
    n_fragments = int(fragment.max()) + 1
    if n_fragments > n_atoms or not np.array_equal(np.unique(fragment), np.arange(n_fragments)):
        raise ModelFileError(f"{source}: fragments are not numbered from 0 on")
    _expect_shape(source, "block_weights", weights, (n_fragments, n_fragments))
    if (weights < 0.0).any() or (weights != weights.T).any() or not weights.any():
        raise ModelFileError(
            f"{source}: block_weights is no symmetric table of weights that are not negative"
        )
    return FragmentBlocks(fragment, weights, _reach(arrays, source))


def _reach(arrays: Mapping[str, Any], source: str) -> Reach | None:
    if "reach" not in arrays:
        return None
    limits = _floats(arrays, "reach", source)
    _expect_shape(source, "reach", limits, (4,))
    if not (limits[0] >= 0.0 and (np.diff(limits) > 0.0).all()):
        raise ModelFileError(f"{source}: reach is {limits}; expected four rising lengths")
    a, b, c, d = map(float, limits)
    return Reach((a, b), (c, d))


def _text(arrays: Mapping[str, Any], key: str, source: str) -> str:
    array = np.asarray(arrays[key])
    if array.size != 1 or array.dtype.kind not in "US" or array.nbytes > MAX_TEXT_BYTES:
        raise ModelFileError(f"{source}: {key} is not a short text")
    if array.dtype.kind == "U":
        # numpy hands out code points that Python's strings cannot hold: it crashes, or worse.
        codes = np.frombuffer(array.astype(array.dtype.newbyteorder("=")).tobytes(), np.uint32)
        if (codes > MAX_CODE_POINT).any():
            raise ModelFileError(f"{source}: {key} is not a short text")
    item = array.reshape(()).item()
    return item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)


def _floats(arrays: Mapping[str, Any], key: str, source: str) -> Floats:
    try:
        if np.iscomplexobj(arrays[key]):
            raise TypeError
        values = np.asarray(arrays[key], dtype=np.float64)
    except (TypeError, ValueError):
        raise ModelFileError(f"{source}: {key} is not an array of numbers") from None
    if not np.isfinite(values).all():
        bad = int(values.size - np.isfinite(values).sum())
        raise ModelFileError(f"{source}: {key} holds {bad} values that are not finite")
    return values


def _integers(arrays: Mapping[str, Any], key: str, source: str) -> Ints:
    values = _floats(arrays, key, source)
    with np.errstate(invalid="ignore"):  # what is too large for an integer is not equal to it
        whole = values.astype(np.int64)
    if not np.array_equal(whole, values):
        raise ModelFileError(f"{source}: {key} holds values that are not whole numbers")
    return whole


def _scalar(arrays: Mapping[str, Any], key: str, source: str) -> float:
    values = _floats(arrays, key, source)
    if values.size != 1:
        raise ModelFileError(f"{source}: {key} has shape {values.shape}; expected one number")
    return float(values.reshape(()))


def _expect_shape(source: str, key: str, array: NDArray[Any], shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ModelFileError(f"{source}: {key} has shape {array.shape}; expected {shape}")


def _check_numbers(source: str, numbers: Ints) -> None:
    if numbers.min() < 1 or numbers.max() >= len(SYMBOLS):
        raise ModelFileError(f"{source}: z holds atomic numbers outside 1 to {len(SYMBOLS) - 1}")


def _check_permutations(source: str, perms: Ints, numbers: Ints) -> None:
    n_atoms = len(numbers)
    if len(perms) * n_atoms * (n_atoms - 1) // 2 > MAX_PERMUTED_PAIRS:
        raise ModelFileError(
            f"{source}: {len(perms)} permutations of {n_atoms} atoms need more memory than any "
            "model is worth; expected a symmetry group"
        )
    expected = np.arange(n_atoms)
    if len(perms) < 1 or not (np.sort(perms, axis=1) == expected).all():
        raise ModelFileError(f"{source}: perms holds a row that is no permutation of the atoms")
    if not (numbers[perms] == numbers).all():
        raise ModelFileError(f"{source}: perms exchanges atoms of different elements")
