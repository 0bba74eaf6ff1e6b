"""Write native sGDML model files (``.npz``), which sgdml itself loads.

Units are kcal/mol and Å, as sgdml's own tools expect. No pickled object is written: sgdml's
``f_err``, ``e_err`` and ``md5_test``, which are such, are left out; GDMLPredict needs none of
them. One key of ours, ``deltaserver``, holds how the model was trained as JSON text.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.files.archive import packed, read_arrays, write_arrays
from deltaserver.model.files.parameters import LINEAR, NATIVE, ORDER, PRIOR_ENERGY, WEIGHTED
from deltaserver.model.fragment_blocks import FragmentBlocks
from deltaserver.model.linear.expansion import Expansion
from deltaserver.model.prior import Prior

CODE_VERSION = "1.0.3"  # of sgdml, whose format this is
RECORD = "deltaserver"
N_OF_PRIOR = 5  # frames that tell one prior from another


@dataclass(frozen=True)
class Own:
    """What a model file holds besides where sgdml could not evaluate it.

    Attributes:
        positions: training points, Å, shape (M, N, 3).
        blocks: weights of a binding model's descriptor, and where it counts.
        linear: what the kernel sum is added to.
    """

    positions: Floats
    blocks: FragmentBlocks | None
    linear: Expansion | None = None

    def arrays(self) -> dict[str, Any]:
        """Return them by their keys; see :mod:`deltaserver.model.files.parameters`."""
        known: dict[str, Any] = {"R": self.positions}
        if self.linear is not None:
            known |= {"type": np.array(LINEAR), **self.linear.arrays()}
        if self.blocks is not None:
            reach = self.blocks.reach
            known |= {
                "type": np.array(WEIGHTED),
                "fragments": self.blocks.fragment,
                "block_weights": self.blocks.weights,
                **({} if reach is None else {"reach": np.array([*reach.near, *reach.far])}),
            }
        return known


@dataclass(frozen=True)
class NativeModel:
    """What an sGDML model file holds, in kcal/mol and Å.

    Attributes:
        dataset_name: of the training data.
        theory: level of theory of the labels.
        numbers: atomic numbers, shape (N,).
        train: indices of the training points in the dataset, shape (M,).
        valid: indices of the validation points.
        md5: fingerprint of the dataset.
        x: training descriptors, shape (M, D), 1/Å.
        a: J α of every training point, shape (M, D).
        alphas: coefficients, shape (3NM,).
        perms: shape (S, N).
        c: integration constant, kcal/mol.
        std: scale of the labels, kcal/mol/Å.
        sigma: length scale.
        lam: λ.
        record: how it was trained; anything JSON can hold.
        own: of a model that is no native one.
        alphas_energy: coefficients of energies as labels, shape (M,); None is forces alone.
    """

    dataset_name: str
    theory: str
    numbers: Ints
    train: Ints
    valid: Ints
    md5: bytes
    x: Floats
    a: Floats
    alphas: Floats
    perms: Ints
    c: float
    std: float
    sigma: float
    lam: float
    record: Mapping[str, Any]
    own: Own | None = None
    alphas_energy: Floats | None = None

    def arrays(self) -> dict[str, Any]:
        """Return the arrays of the file by their sGDML keys."""
        return {
            "type": np.array(NATIVE),
            "code_version": np.array(CODE_VERSION),
            "dataset_name": np.array(self.dataset_name),
            "dataset_theory": np.array(self.theory),
            **self._solver(),
            "z": self.numbers.astype(np.uint8),
            "idxs_train": self.train,
            "md5_train": np.array(self.md5),
            "idxs_valid": self.valid,
            "md5_valid": np.array(self.md5),
            "n_test": np.array(0),
            "c": np.array(self.c),
            "std": np.array(self.std),
            "sig": np.array(int(self.sigma) if float(self.sigma).is_integer() else self.sigma),
            "lam": np.array(self.lam),
            "alphas_F": self.alphas,
            **({} if self.alphas_energy is None else {"alphas_E": self.alphas_energy}),
            "perms": self.perms,
            "use_E": np.array(True),
            "r_unit": np.array("Ang"),
            "e_unit": np.array("kcal/mol"),
            RECORD: np.array(json.dumps(dict(self.record))),
            **(self._in_descriptor_space() if self.own is None else self.own.arrays()),
        }

    def _in_descriptor_space(self) -> dict[str, Any]:
        """Return what sgdml predicts with, and a model of our own derives from positions."""
        pair_perms = PairDescriptor(len(self.numbers)).permutations(self.perms)  # [S, D]
        offsets = np.arange(len(pair_perms))[:, None] * pair_perms.shape[1]
        return {
            "R_desc": self.x.T,
            "R_d_desc_alpha": self.a,
            "tril_perms_lin": (pair_perms + offsets).flatten("F"),
        }

    def _solver(self) -> dict[str, Any]:
        """Return how the coefficients were found, by sgdml's keys and one of ours."""
        if self.record.get("solver") != "iterative":
            return {"solver_name": np.array("analytic")}
        return {
            "solver_name": np.array("cg"),
            "solver_tol": np.array(self.record["tolerance"]),
            "solver_resid": np.array(self.record["residual"]),
            "solver_iters": np.array(self.record["products"]),
            "converged": np.array(bool(self.record["converged"])),
        }


def write_model(path: Path, model: NativeModel) -> None:
    """Write a model file, whole or not at all."""
    write_arrays(path, model.arrays())


def read_record(path: Path) -> dict[str, Any]:
    """Return how a model that :func:`write_model` has written was trained.

    Raises:
        DataError: the file is not readable, or sgdml or something else has written it.
    """
    try:
        record = json.loads(str(read_arrays(path, (RECORD,))[RECORD]))
    except Exception as error:  # numpy and zipfile raise a dozen kinds at broken files
        raise DataError(f"{path}: not a model that deltaserver has trained ({error})") from None
    if not isinstance(record, dict):
        raise DataError(f"{path}: its training record is no mapping")
    return record


def beside(content: bytes, prior: Prior | None, order: int = 2) -> bytes:
    """Return a binding's file with what the prior that it was trained beside says of some frames.

    And, of three molecules, that it is of what they have beyond their pairs. With another prior, or
    none, the model is wrong by what the two differ, which nobody would see; a native file holds no
    frames, and stays as it is.
    """
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        arrays = dict(file)
    if str(arrays["type"]) != WEIGHTED:
        return content
    some = arrays["R"][:N_OF_PRIOR]
    arrays[PRIOR_ENERGY] = np.zeros(len(some)) if prior is None else prior.evaluate(some).energy
    if order != 2:
        arrays[ORDER] = np.array(order)
    return packed(arrays)
