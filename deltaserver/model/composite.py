"""The Δ model: fragments and binding composed into one force field.

    E(X) = Σ_j E_j(x_j) + E_b(X)        F(X) = (F_1(x_1), F_2(x_2), …) + F_b(X)

[Cázares-Trejo, Loreto-Silva, Sauceda, 2025, Eqs. 1 and 2]. E_b may be a pair potential, the prior,
and a binding model that has learned what is left. Everything that can be wrong with the
combination is found when it is built, not at step 40,000.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from deltaserver.arrays import Floats, Ints
from deltaserver.compute.thread_pool import ONE_THREAD, ThreadPool
from deltaserver.model.base import SummedModel, add_up
from deltaserver.model.descriptor import as_batch, spread
from deltaserver.model.engines import Backend, Precision, Storage
from deltaserver.model.kernel.base import SHARED_NUMBERS
from deltaserver.model.loading import Choice, ModelLoader
from deltaserver.model.lone_atoms import LoneAtoms
from deltaserver.model.manifest import (
    BINDING,
    PRIOR,
    WHOLE_MODEL_PARTS,
    IsolatedAtom,
    read_manifest,
)
from deltaserver.model.parts import (
    Fragment,
    Part,
    check_fit,
    check_on_a_prior,
    check_order,
    facts_of,
)
from deltaserver.model.prior import PairPrior
from deltaserver.model.sgdml import (
    Evaluation,
    SGDMLModel,
    concatenate,
)
from deltaserver.model.trust.fingerprint import fingerprint
from deltaserver.model.trust.guards import ComplexGuards


@dataclass(frozen=True)
class CompositeEvaluation(Evaluation):
    """An evaluation and what each part contributes to it.

    Attributes:
        contributions: by fragment name, ``"prior"`` where there is one, and ``"binding"`` (or
            only ``"full"``): energy, forces and virial on all N atoms. They sum to the total.
    """

    contributions: Mapping[str, Evaluation]

    def __getitem__(self, index: int | slice | Ints) -> CompositeEvaluation:
        """Return one geometry of the batch, or a part of it."""
        of_lone: dict[int, tuple[Floats, Floats]] = {}  # they share their zeros: one view of them
        parts = {}
        for name, part in self.contributions.items():
            views = of_lone.get(id(part.forces))
            if views is None:
                views = of_lone[id(part.forces)] = part.forces[index], part.virial[index]
            parts[name] = Evaluation(part.energy[index], *views)
        return CompositeEvaluation(
            self.energy[index], self.forces[index], self.virial[index], parts
        )

    @staticmethod
    def mean(members: Sequence[CompositeEvaluation]) -> CompositeEvaluation:
        """Return the mean of several models' evaluations; a part that one has not is nothing there.

        So it is with a prior: what one model learns beside it another one learns as a whole.
        """
        by_number = sorted(members, key=lambda one: len(one.contributions), reverse=True)
        names = dict.fromkeys(name for one in by_number for name in one.contributions)
        parts = {name: _mean([member._part(name) for member in members]) for name in names}
        total = _mean(members)
        return CompositeEvaluation(total.energy, total.forces, total.virial, parts)

    def _part(self, name: str) -> Evaluation:
        """Return a contribution, zeros where there is none of that name."""
        if name in self.contributions:
            return self.contributions[name]
        return Evaluation(*map(np.zeros_like, (self.energy, self.forces, self.virial)))

    @staticmethod
    def join(batches: Sequence[CompositeEvaluation]) -> CompositeEvaluation:
        """Concatenate batches of the same component into one."""
        names = batches[0].contributions
        total = concatenate(batches)
        return CompositeEvaluation(
            total.energy,
            total.forces,
            total.virial,
            {name: concatenate([b.contributions[name] for b in batches]) for name in names},
        )


class CompositeModel(SummedModel):
    """A Δ-sGDML force field of a complex of any number of fragments.

    Load one with :meth:`load`; the constructor takes models that are in memory already.

    Raises:
        ManifestError: the parts do not fit together.
    """

    one_complex = True  # whose fragments stay together

    def __init__(
        self,
        fragments: tuple[Fragment, ...],
        binding: SGDMLModel | None,
        full: SGDMLModel | None = None,
        *,
        name: str = "model",
        reference: str = "not stated",
        source: str = "model",
        pool: ThreadPool = ONE_THREAD,
        prior: PairPrior | None = None,
    ) -> None:
        self.fragments = fragments
        self.binding = binding
        self.full = full
        self.prior = prior
        self.name = name
        self.reference = reference
        self.numbers = check_fit(fragments, binding, full, source)
        wholes = {"binding": binding, "full": full}
        everything = np.arange(self.n_atoms)
        self.parts: tuple[Part, ...] = (
            *fragments,
            *(Part(name, everything, model) for name, model in wholes.items() if model),
        )
        summed = [part.trained for part in self.parts if part.name != "full"]
        size = sum(m.parameters.x.size + m.parameters.a.size for m in summed if m)
        self._pool = pool if size > SHARED_NUMBERS else ONE_THREAD
        self._lone = LoneAtoms(fragments, self.n_atoms)

    @classmethod
    def load(
        cls,
        path: str | Path,
        backend: Backend = "numpy",
        device: str = "auto",
        precision: Precision = "float64",
        threads: int = 1,
        storage: Storage = "double",
    ) -> CompositeModel:
        """Load a model directory.

        Args:
            path: the directory, or its ``model.yaml``.
            backend: ``"numpy"``, our evaluator; ``"torch"``, the same on torch tensors; or
                ``"sgdml"``, sgdml's own predictor, kept as a reference.
            device: of the torch backend: ``auto``, ``cpu``, ``cuda``, ``cuda:1``.
            precision: of the torch backend.
            threads: of the numpy backend's compiled loops.
            storage: of training points, numpy backend: ``"double"``; ``"auto"``, in single
                precision where that costs less than 1e-4 of the forces, native sGDML files
                excepted; or ``"single"``, those too.

        Raises:
            ManifestError: ``model.yaml`` is wrong, or disagrees with the model files.
            ModelFileError: a model file cannot be used.
            MissingExtraError: the backend is not installed.
        """
        manifest = read_manifest(path)
        choice = Choice(backend, device, precision, threads, storage)
        pool = choice.pool()
        loader = ModelLoader(manifest.length_unit, manifest.energy_unit, choice, pool)
        fragments = tuple(
            Fragment(
                entry.name,
                np.array(entry.atoms),
                entry.model if isinstance(entry.model, IsolatedAtom) else loader(entry.model),
            )
            for entry in manifest.fragments
        )
        binding = loader(manifest.binding) if manifest.binding else None
        check_on_a_prior(binding, manifest.prior, str(manifest.path))
        check_order(binding, 2, str(manifest.path))
        model = cls(
            fragments,
            binding,
            loader(manifest.full) if manifest.full else None,
            name=manifest.name,
            reference=manifest.reference,
            source=str(manifest.path),
            pool=pool,
            prior=manifest.prior,
        )
        model.stored = loader.stored
        return model

    @cached_property
    def components(self) -> tuple[str, ...]:
        """Every value that ``component`` may take with this model."""
        names = ["total", "fragments"]
        names += ["binding"] if self.binding or self.prior else []
        names += ["full"] if self.full else []
        return (*names, *(fragment.name for fragment in self.fragments))

    @property
    def molecules(self) -> tuple[Ints, ...]:
        """The atoms of every fragment."""
        return tuple(fragment.atoms for fragment in self.fragments)

    @property
    def atoms_of(self) -> Mapping[str, Ints]:
        """The atoms that a contribution acts on, where that is not all of them."""
        return {fragment.name: fragment.atoms for fragment in self.fragments}

    @property
    def own_names(self) -> tuple[str, ...]:
        """The names of the contributions of fragments by themselves."""
        return tuple(fragment.name for fragment in self.fragments)

    def facts(self) -> Mapping[str, tuple[str, str, str, str]]:
        """Return atoms, training points, permutations and σ of every part that has such."""
        return {part.name: facts_of(len(part.atoms), part.trained) for part in self.parts}

    @property
    def bound(self) -> tuple[str, ...]:
        """The names of the contributions that bind fragments."""
        found = {PRIOR: self.prior, BINDING: self.binding}
        return tuple(name for name, part in found.items() if part)

    @property
    def models(self) -> tuple[SGDMLModel, ...]:
        """Every part that is a model: fragments but lone atoms, binding, full."""
        return tuple(part.trained for part in self.parts if part.trained)

    @cached_property
    def lattices(self) -> tuple[Floats, ...]:
        """The lattice vectors, in columns, Å, of every part that takes nearest images."""
        found = [model.lattice for model in self.models]
        return tuple(lattice for lattice in found if lattice is not None)

    @property
    def periodic(self) -> bool:
        """Whether any part takes nearest images."""
        return bool(self.lattices)

    @property
    def n_threads(self) -> int:
        """How many threads evaluate it; small models use one, whatever is given."""
        return self._pool.n_threads

    def use_threads(self, n_threads: int) -> None:
        """Evaluate with so many threads, of those that it was loaded with, from now on."""
        if self._pool is not ONE_THREAD:
            self._pool.limit(n_threads)

    def warm_up(self) -> None:
        """Evaluate once, far from anything: compiles the loops before the first real step."""
        positions = spread(self.n_atoms, self.lattices)
        for component in ("total", "full"):
            if component in self.components:
                self.evaluate(positions, component)

    def guards(self) -> ComplexGuards:
        """Return what looks at structures and results: :mod:`deltaserver.model.trust.guards`."""
        return ComplexGuards(self)

    def fingerprint(self) -> str:
        """Return ``sha256:…`` of everything that is evaluated; ``deltaserver check`` prints it."""
        return fingerprint(self)

    def evaluate(
        self, positions: ArrayLike, component: str = "total", cell: ArrayLike | None = None
    ) -> CompositeEvaluation:
        """Evaluate energies, forces, virials and contributions.

        Args:
            positions: Å, shape (N, 3) or (B, N, 3). For (N, 3) the result has no batch axis.
            component: ``"total"`` (fragments and binding), ``"fragments"``, ``"binding"``
                (with its prior), ``"full"`` (the single-model baseline) or a fragment's name.
            cell: lattice vectors in columns, Å; only periodic models look at it.

        Raises:
            GeometryError: wrong shape, non-finite coordinates, coinciding atoms.
            ComponentError: the model has no such component.
        """
        self.check_component(component)
        batch = as_batch(positions, self.n_atoms, self.name)
        box = None if cell is None else np.asarray(cell, dtype=np.float64)
        acting = self._acting(batch, component, box)
        lone = self._lone.of(component, len(batch))
        terms = list(acting.values())
        summed = terms or [lone.total]  # lone atoms exert nothing
        energy = add_up([part.energy for part in terms] + [lone.total.energy])
        forces = add_up([part.forces for part in summed])
        virial = add_up([part.virial for part in summed])
        if np.ndim(positions) == 2:
            parts = self._in_order(lone.first, {name: part[0] for name, part in acting.items()})
            return CompositeEvaluation(energy[0], forces[0], virial[0], parts)
        return CompositeEvaluation(energy, forces, virial, self._in_order(lone.parts, acting))

    def _acting(self, batch: Floats, component: str, cell: Floats | None) -> dict[str, Evaluation]:
        """Return what all but lone atoms contribute, in no order."""
        if component == "full" and self.full:
            return {"full": self.full.evaluate(batch, cell)}
        evaluate: dict[str, Callable[[Floats, Floats | None], Evaluation]] = {
            fragment.name: fragment.evaluate
            for fragment in self._trained
            if component in ("total", "fragments", fragment.name)
        }
        if component in ("total", "binding") and self.prior:
            evaluate["prior"] = self._evaluate_prior
        if component in ("total", "binding") and self.binding:
            evaluate["binding"] = self.binding.evaluate
        # The binding model is the largest: the sooner begun, the more threads end up helping it.
        largest_first = sorted(evaluate, key=lambda name: name != "binding")
        results = self._pool.map(lambda name: evaluate[name](batch, cell), largest_first)
        return dict(zip(largest_first, results, strict=True))

    def _in_order(
        self, lone: Mapping[str, Evaluation], acting: dict[str, Evaluation]
    ) -> Mapping[str, Evaluation]:
        """Return contributions fragment by fragment, then prior and binding."""
        if not acting:
            return lone
        found = {**lone, **acting}
        return {name: found[name] for name in self._names if name in found}

    @cached_property
    def _names(self) -> tuple[str, ...]:
        """The names that contributions may have, in their order."""
        return (*self.own_names, *WHOLE_MODEL_PARTS)

    @cached_property
    def _trained(self) -> tuple[Fragment, ...]:
        """The fragments but lone atoms."""
        return tuple(fragment for fragment in self.fragments if fragment.trained)

    def _evaluate_prior(self, batch: Floats, cell: Floats | None) -> Evaluation:
        """Evaluate the prior; where the model is periodic, of nearest images as its parts are."""
        assert self.prior is not None
        if not self.periodic:
            return self.prior.evaluate(batch)
        return self.prior.evaluate(batch, self.lattices[-1] if cell is None else cell)


def _mean(members: Sequence[Evaluation]) -> Evaluation:
    return Evaluation(
        np.mean([member.energy for member in members], axis=0),
        np.mean([member.forces for member in members], axis=0),
        np.mean([member.virial for member in members], axis=0),
    )
