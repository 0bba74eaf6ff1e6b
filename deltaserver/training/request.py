"""What one sGDML model is to be trained on, and how."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.labelling import LOCAL
from deltaserver.datasets.native import dataset_md5
from deltaserver.model.fragment_blocks import FragmentBlocks
from deltaserver.model.linear.expansion import Expansion
from deltaserver.training.components import LabelledSet, less
from deltaserver.training.iterative.conjugate import DEFAULT_BOUNDS, Bounds
from deltaserver.training.iterative.plan import Choice, decide
from deltaserver.training.linear.site_fit import SiteFit
from deltaserver.training.matrix.memory import Size
from deltaserver.training.warm_start import WarmStart
from deltaserver.units import KCAL_PER_MOL_EV

LAMBDA = 1e-10


@dataclass(frozen=True)
class TrainingRequest:
    """One model to train.

    Attributes:
        data: frames and labels (eV, Å).
        perms: permutation group, shape (S, N).
        train: entries of ``data`` to train on, shape (M,).
        valid: entries to validate on.
        lam: λ.
        threads: of assembly and factorisation.
        device: ``"cpu"`` or ``"cuda"``.
        max_bytes: memory limit; None is what the machine has.
        solver: ``"exact"``, ``"iterative"``, or ``"auto"``, which chooses by memory and time.
        bounds: when the iterative solver stops.
        warm_start: coefficients of another model that it begins with.
        blocks: weights of the descriptor's entries by fragment; None is sGDML's own descriptor.
        fades: whether the model ends where its training points do, as a binding model on a
            prior may.
        linear_basis: what kind of linear expansion is fitted first, to what; empty is none.
        linear: that expansion (kcal/mol, Å); the kernel learns the rest.
        fitted: entries that the expansion is fitted to where it is all of the model; training
            points then tell only what is new. None: there is a kernel.
        again: the problem that the expansion solves, where it is to be solved again beside the
            kernel: a binding model's.
        energies: weight of energies as labels, Å⁻¹; 0 is forces alone.
        order: 3 of what three molecules have beyond their pairs, else 2.
        scheduler: of the workers that make an iteration's products; "local" is this machine.
        workers: local processes that do.
    """

    data: LabelledSet
    perms: Ints
    train: Ints
    valid: Ints
    lam: float = LAMBDA
    threads: int = 1
    device: str = "cpu"
    max_bytes: float | None = None
    solver: str = "exact"
    bounds: Bounds = DEFAULT_BOUNDS
    warm_start: WarmStart | None = None
    blocks: FragmentBlocks | None = None
    fades: bool = False
    linear_basis: str = ""
    linear: Expansion | None = None
    fitted: Ints | None = None
    again: SiteFit | None = None
    energies: float = 0.0
    order: int = 2
    scheduler: str = LOCAL
    workers: int = 1

    @cached_property
    def rest(self) -> LabelledSet:
        """Return the labels less what the linear expansion says of them: for the kernel."""
        if self.linear is None:
            return self.data
        energy, forces, _ = self.linear.evaluate(self.data.positions)
        return less(self.data, energy * KCAL_PER_MOL_EV, forces * KCAL_PER_MOL_EV)

    @property
    def kernel(self) -> bool:
        """Return whether there is one."""
        return self.fitted is None

    @property
    def size(self) -> Size:
        """Return what the memory estimate depends on."""
        n_atoms, n_perms = len(self.data.numbers), len(self.perms)
        return Size(n_atoms, n_perms, self.threads, self.device, self.energies > 0.0)

    @property
    def by_atoms(self) -> Floats | None:
        """Return the weights of the descriptor's entries, shape (N, N)."""
        return None if self.blocks is None else self.blocks.by_atoms

    def identity(self) -> dict[str, Any]:
        """Return all that decides the result: a checkpoint is only good for the same.

        What ``"auto"`` chooses does not: the solvers differ by less than their bound.
        """
        iterative = {"solver": self.solver, "tolerance": self.bounds.tolerance}
        return {
            "dataset": self.data.name,
            "dataset_md5": data_md5(self.data).decode(),
            "n_train": len(self.train),
            "train_points": _digest(self.train),
            "n_valid": len(self.valid),
            "valid_points": _digest(self.valid),
            "n_perms": len(self.perms),
            "permutations": _digest(self.perms),
            "lambda": self.lam,
            **(iterative if self.solver == "iterative" else {}),
            **({} if self.blocks is None else {"block_weights": self.blocks.weights.tolist()}),
            **({} if not self.linear_basis else {"linear": self.linear_basis}),
            **({} if not self.energies else {"energies": self.energies}),
        }

    def choice(self) -> Choice:
        """Return which solver it takes, with the memory and time estimated.

        Raises:
            InputError: memory does not suffice.
        """
        n_train, name, most = len(self.train), self.data.name, self.bounds.max_products
        return decide(self.size, n_train, self.solver, self.max_bytes, name, most)


def _digest(indices: Ints) -> str:
    return hashlib.sha256(np.ascontiguousarray(indices, dtype=np.int64).tobytes()).hexdigest()[:16]


def data_md5(data: LabelledSet) -> bytes:
    """Return sgdml's fingerprint of the labelled set as a dataset in kcal/mol."""
    return dataset_md5(
        {
            "z": data.numbers.astype(np.uint8),
            "R": data.positions,
            "E": data.energy / KCAL_PER_MOL_EV,
            "F": data.forces / KCAL_PER_MOL_EV,
        }
    )
