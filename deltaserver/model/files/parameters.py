"""Native sGDML model files: read, validate, never unpickle.

Two generations are in use: 0.2.x (``type`` is bytes, no units, no ``alphas_F``) and 1.0.x.
``f_err`` and ``e_err`` are pickled dictionaries in both; they are never touched.

A model whose descriptor is weighted by fragments is none that sgdml could evaluate: its ``type``
is ``WEIGHTED``, which sgdml refuses. It holds training positions ``R`` and their coefficients,
which descriptors and Jᵀα follow from, and ``fragments``, ``block_weights``, ``reach``,
``prior_energy_ev`` and ``order``. Nor could
sgdml evaluate one that stands on a linear expansion (:mod:`deltaserver.model.linear`): of type
``LINEAR`` with that of a molecule, or of its ``units``, of ``WEIGHTED`` with one between fragments.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import GeometryError, ModelFileError
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.files.archive import ArchiveLimitError, NoArchiveError, read_arrays
from deltaserver.model.files.arrays import (
    expect_shape,
    floats,
    integers,
    numbered_from_zero,
    scalar,
    text,
)
from deltaserver.model.files.expansions import LINEAR_KEYS, parse_between, parse_molecule
from deltaserver.model.files.uncertainty import (
    UNCERTAINTY_KEYS,
    UncertaintyBlock,
    parse_uncertainty,
)
from deltaserver.model.fragment_blocks import FragmentBlocks, Reach
from deltaserver.model.linear.expansion import Expansion
from deltaserver.molecules.elements import SYMBOLS

# A table of all permutations of all pairs has so many entries, of eight bytes: 2 GiB. A file can
# hold millions of permutations in some kilobytes.
MAX_PERMUTED_PAIRS = 1 << 28
MIN_SIGMA, MAX_SIGMA = 1e-9, 1e9  # its cube and inverse must be numbers
NATIVE, WEIGHTED, LINEAR = "m", "deltaserver-weighted", "deltaserver-linear"
OWN_REQUIRED = ("R", "alphas_F")  # of the two types that are not sgdml's
WEIGHTED_REQUIRED = (*OWN_REQUIRED, "fragments", "block_weights")
REQUIRED = ("type", "z", "R_desc", "R_d_desc_alpha", "c", "sig", "perms")
OPTIONAL = ("std", "alphas_E", "alphas_F", "lattice", "r_unit", "e_unit")
PRIOR_ENERGY = "prior_energy_ev"  # of the prior that a binding was trained beside
ORDER = "order"  # how many molecules a binding is of: 3 beyond what their pairs have
OF_BINDINGS = ("reach", PRIOR_ENERGY, ORDER)
KEYS = (  # that are read
    *dict.fromkeys(
        (*REQUIRED, *OPTIONAL, *WEIGHTED_REQUIRED, *OF_BINDINGS, *LINEAR_KEYS, *UNCERTAINTY_KEYS)
    ),
)
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
        linear: what the kernel sum is added to; None in a native sGDML model.
        positions: the training frames (M, N, 3); None in a native sGDML model.
        prior_energy_ev: of the first training frames, by the prior that stood beside the model when
            it was trained; None where the file does not say.
        order: 3 of a binding of three molecules beyond their pairs, 2 of all other bindings; None
            where the file does not say.
        uncertainty: how wrong its forces may be; None where the file does not say.
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
    linear: Expansion | None = None
    uncertainty: UncertaintyBlock | None = None
    positions: Floats | None = None
    prior_energy_ev: Floats | None = None
    order: int | None = None
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


def _check_keys(arrays: Mapping[str, Any], source: str) -> str:
    """Return which type of model this is; raise where it is none, or lacks something."""
    kind = text(arrays, "type", source) if "type" in arrays else NATIVE
    own = {WEIGHTED: WEIGHTED_REQUIRED, LINEAR: (*OWN_REQUIRED, "valence_pairs")}.get(kind, ())
    derived = ("R_desc", "R_d_desc_alpha")
    required = [key for key in REQUIRED if not (own and key in derived)] + list(own)
    missing = [key for key in required if key not in arrays]
    if missing:
        raise ModelFileError(
            f"{source}: not an sGDML model: missing {', '.join(missing)}; "
            f"expected the keys {', '.join(required)}"
        )
    if kind not in (NATIVE, WEIGHTED, LINEAR):
        names = {"d": "a dataset", "t": "a training task"}
        what = names.get(kind, f"type {kind!r}")
        raise ModelFileError(f"{source}: {what}, not a trained model; expected type 'm'")
    return kind


def parse_parameters(arrays: Mapping[str, Any], source: str) -> ModelParameters:
    """Validate the arrays of a model file, or of an in-memory sGDML model dictionary."""
    kind = _check_keys(arrays, source)
    numbers = np.atleast_1d(integers(arrays, "z", source))
    n_atoms = len(numbers)
    n_desc = n_atoms * (n_atoms - 1) // 2
    if kind != NATIVE:
        x, a = _descriptors(arrays, n_atoms, source)
    else:
        x = floats(arrays, "R_desc", source).T  # the file keeps it as [n_desc, n_train]
        a = floats(arrays, "R_d_desc_alpha", source)
    n_train = len(x) if x.ndim == 2 else 0
    perms = np.atleast_2d(integers(arrays, "perms", source))
    alphas = floats(arrays, "alphas_E", source).ravel() if "alphas_E" in arrays else None
    lattice = floats(arrays, "lattice", source) if "lattice" in arrays else None
    if "alphas_F" in arrays:
        floats(arrays, "alphas_F", source)  # not needed to predict, but must be sound
    expect_shape(source, "z", numbers, (n_atoms,))
    if n_atoms < 2 or n_train < 1:
        raise ModelFileError(f"{source}: {n_atoms} atoms, {n_train} training points; expected more")
    expect_shape(source, "R_desc", x.T, (n_desc, n_train))
    expect_shape(source, "R_d_desc_alpha", a, (n_train, n_desc))
    expect_shape(source, "perms", perms, (len(perms), n_atoms))
    if alphas is not None:
        expect_shape(source, "alphas_E", alphas, (n_train,))
    if lattice is not None:
        expect_shape(source, "lattice", lattice, (3, 3))
        if abs(np.linalg.det(lattice)) < 1e-12:
            raise ModelFileError(
                f"{source}: lattice is singular; expected three independent vectors"
            )
    _check_numbers(source, numbers)
    _check_permutations(source, perms, numbers)
    sigma = scalar(arrays, "sig", source)
    if not MIN_SIGMA <= sigma <= MAX_SIGMA:
        raise ModelFileError(f"{source}: sig is {sigma}; expected a positive length scale")
    std = scalar(arrays, "std", source) if "std" in arrays else 1.0
    if not std > 0.0:  # all forces would be zero, or turned around
        raise ModelFileError(f"{source}: std is {std}; expected a positive spread of the labels")
    blocks = _blocks(arrays, n_atoms, source) if kind == WEIGHTED else None
    return ModelParameters(
        numbers=numbers,
        x=np.ascontiguousarray(x),
        a=np.ascontiguousarray(a),
        perms=perms,
        sigma=sigma,
        c=scalar(arrays, "c", source),
        std=std,
        alphas_energy=alphas,
        lattice=lattice,
        length_unit=text(arrays, "r_unit", source) if "r_unit" in arrays else None,
        energy_unit=text(arrays, "e_unit", source) if "e_unit" in arrays else None,
        blocks=blocks,
        linear=_linear(arrays, kind, n_atoms, blocks, source),
        uncertainty=parse_uncertainty(arrays, n_train, source),
        positions=floats(arrays, "R", source) if kind != NATIVE else None,
        prior_energy_ev=_prior_energy(arrays, n_train, source) if kind == WEIGHTED else None,
        order=_order(arrays, source) if kind == WEIGHTED else None,
        source=source,
    )


def _descriptors(arrays: Mapping[str, Any], n_atoms: int, source: str) -> tuple[Floats, Floats]:
    """Return descriptors and Jᵀα (M, D) of training positions and their coefficients.

    To the last bit the same on every machine, as what a file states itself would be: the model's
    fingerprint covers them. Compiled loops are not, which fuse products and sums.
    """
    positions = floats(arrays, "R", source)
    n_train = len(positions) if positions.ndim == 3 else 0
    if n_train * n_atoms * (n_atoms - 1) // 2 > MAX_PERMUTED_PAIRS:
        raise ModelFileError(f"{source}: {n_train} training points of {n_atoms} atoms: too large")
    expect_shape(source, "R", positions, (n_train, n_atoms, 3))
    alphas = floats(arrays, "alphas_F", source).ravel()
    expect_shape(source, "alphas_F", alphas, (positions.size,))
    pairs = PairDescriptor(n_atoms, compiled=False)
    try:
        geometry = pairs.geometry(positions)
    except GeometryError as error:
        raise ModelFileError(f"{source}: R: {error}") from None
    return geometry.descriptor, pairs.project(geometry, alphas.reshape(positions.shape))


def _linear(
    arrays: Mapping[str, Any], kind: str, n_atoms: int, blocks: FragmentBlocks | None, source: str
) -> Expansion | None:
    if kind == LINEAR:
        return parse_molecule(arrays, n_atoms, source)
    return None if blocks is None else parse_between(arrays, blocks.fragment, source)


def _blocks(arrays: Mapping[str, Any], n_atoms: int, source: str) -> FragmentBlocks:
    fragment = integers(arrays, "fragments", source)
    expect_shape(source, "fragments", fragment, (n_atoms,))
    weights = floats(arrays, "block_weights", source)
    n_fragments = int(fragment.max()) + 1
    if not numbered_from_zero(fragment):
        raise ModelFileError(f"{source}: fragments are not numbered from 0 on")
    expect_shape(source, "block_weights", weights, (n_fragments, n_fragments))
    if (weights < 0.0).any() or (weights != weights.T).any() or not weights.any():
        raise ModelFileError(
            f"{source}: block_weights is no symmetric table of weights that are not negative"
        )
    return FragmentBlocks(fragment, weights, _reach(arrays, source))


def _prior_energy(arrays: Mapping[str, Any], n_train: int, source: str) -> Floats | None:
    if PRIOR_ENERGY not in arrays:
        return None
    energy = floats(arrays, PRIOR_ENERGY, source)
    expect_shape(source, PRIOR_ENERGY, energy, (min(energy.size, n_train),))
    return energy


def _order(arrays: Mapping[str, Any], source: str) -> int:
    order = scalar(arrays, ORDER, source) if ORDER in arrays else 2.0
    if order not in (2.0, 3.0):
        raise ModelFileError(f"{source}: order is {order:g}; expected 2 or 3")
    return int(order)


def _reach(arrays: Mapping[str, Any], source: str) -> Reach | None:
    if "reach" not in arrays:
        return None
    limits = floats(arrays, "reach", source)
    expect_shape(source, "reach", limits, (4,))
    if not (limits[0] >= 0.0 and (np.diff(limits) > 0.0).all()):
        raise ModelFileError(f"{source}: reach is {limits}; expected four rising lengths")
    a, b, c, d = map(float, limits)
    return Reach((a, b), (c, d))


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
