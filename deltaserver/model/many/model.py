"""Any number of molecules as one force field.

    E = Σ_i E_i + Σ_(i<j) E_b(i, j) + Σ_(i<j<k) E_b(i, j, k)

Fragment models are shared by all molecules of a species, binding models by every pair or triple,
so that all of one kind are one batch; charges may be summed over all images as well, and polarise
molecules (:mod:`deltaserver.model.many.electrostatics`). Where the structure repeats, every pair is
of nearest images and of farther ones within the cutoff; molecules that the cell has cut are put
together first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

from deltaserver.arrays import Floats, Ints
from deltaserver.compute.thread_pool import ONE_THREAD, ThreadPool
from deltaserver.errors import GeometryError
from deltaserver.model.base import SummedModel, add_up
from deltaserver.model.composite import CompositeEvaluation
from deltaserver.model.descriptor import as_batch, as_cell
from deltaserver.model.manifest import BINDING, PRIOR, TRIPLES
from deltaserver.model.many.electrostatics.ewald import Ewald
from deltaserver.model.many.electrostatics.induction import Induction
from deltaserver.model.many.guards import ManyGuards
from deltaserver.model.many.molecules import Assembled, Species, Total
from deltaserver.model.many.neighbours import Neighbours
from deltaserver.model.many.pairs import PairBinding
from deltaserver.model.many.triple_binding import TripleBinding
from deltaserver.model.many.triples import Triples
from deltaserver.model.parts import facts_of
from deltaserver.model.sgdml import Evaluation, SGDMLModel, concatenate
from deltaserver.model.trust.fingerprint import fingerprint_of_many

FRAGMENTS = 16  # molecules of one call of the kernel, which a thread takes
# A cell is at least so many times as high as any bond: else nobody can tell which image is bonded.
HEIGHT_IN_BONDS = 2.5


@dataclass(frozen=True)
class ManyEvaluation(CompositeEvaluation):
    """An evaluation, what each part contributes to it, and each molecule's share.

    Attributes:
        molecules: by part, each molecule's share of its energy, eV, shape (B, n_molecules): a
            pair's energy is shared by two, a triple's by three.
    """

    molecules: Mapping[str, Floats]

    def __getitem__(self, index: int | slice | Ints) -> ManyEvaluation:
        """Return one geometry of the batch, or a part of it."""
        one = super().__getitem__(index)
        molecules = {name: shares[index] for name, shares in self.molecules.items()}
        return ManyEvaluation(one.energy, one.forces, one.virial, one.contributions, molecules)

    @staticmethod
    def join(batches: Sequence[CompositeEvaluation]) -> CompositeEvaluation:
        """Concatenate batches of the same component into one."""
        whole = CompositeEvaluation.join(batches)
        shares = [one.molecules for one in batches if isinstance(one, ManyEvaluation)]
        molecules = {
            name: np.concatenate([each[name] for each in shares]) for name in whole.contributions
        }
        parts = (whole.energy, whole.forces, whole.virial, whole.contributions)
        return ManyEvaluation(*parts, molecules)


@dataclass(frozen=True)
class Box:
    """Of the directory's structure.

    Attributes:
        cell: lattice vectors in columns, Å; None: it has none.
        periodic: whether it repeats.
    """

    cell: Floats | None = None
    periodic: bool = False


OPEN = Box()


class ManyModel(SummedModel):
    """A Δ-sGDML force field of many molecules.

    Load one with :func:`deltaserver.model.force_field.load`; the constructor takes what is in
    memory already. It offers what :class:`deltaserver.model.composite.CompositeModel` does.

    Args:
        species: of molecules.
        pairs: what binds two.
        triples: what three have beyond their pairs.
        box: of the directory's structure.
        ewald: the sum of charges beyond what pairs have, counted to the prior; None: there is none.
        induction: what molecules polarise in each other beyond pairs, counted to the triples.
    """

    full = None  # the baseline of one complex
    one_complex = False

    def __init__(
        self,
        species: tuple[Species, ...],
        pairs: tuple[PairBinding, ...],
        triples: tuple[TripleBinding, ...] = (),
        *,
        name: str = "model",
        reference: str = "not stated",
        box: Box = OPEN,
        pool: ThreadPool = ONE_THREAD,
        ewald: Ewald | None = None,
        induction: Induction | None = None,
    ) -> None:
        self.species = species
        self.pairs = pairs
        self.triples = triples
        self.name = name
        self.reference = reference
        self.periodic = box.periodic
        self.cell = box.cell
        self.pool = pool
        self.ewald = ewald
        self.induction = induction
        self.numbers: Ints = np.zeros(sum(one.atoms.size for one in species), dtype=np.int64)
        for one in species:
            self.numbers[one.atoms] = one.numbers
        self._last: tuple[Floats, Floats | None, Assembled] | None = None

    @cached_property
    def molecules(self) -> tuple[Ints, ...]:
        """The atoms of every molecule."""
        return tuple(atoms for one in self.species for atoms in one.atoms)

    @cached_property
    def atoms_of(self) -> Mapping[str, Ints]:
        """The atoms that a contribution acts on, where that is not all of them."""
        return {one.name: one.atoms.ravel() for one in self.species}

    @property
    def own_names(self) -> tuple[str, ...]:
        """The names of the contributions of molecules by themselves."""
        return tuple(one.name for one in self.species)

    def facts(self) -> Mapping[str, tuple[str, str, str, str]]:
        """Return atoms, training points, permutations and σ of every part that has such."""
        own = {one.name: facts_of(one.atoms.size, one.trained) for one in self.species}
        learned = [pair for pair in self.pairs if pair.model]
        of_three = [triple for triple in self.triples if triple.model]
        if len(learned) == 1:  # of several none speaks for all
            own[BINDING] = facts_of(self.n_atoms, learned[0].model)
        if len(of_three) == 1:
            own[TRIPLES] = facts_of(self.n_atoms, of_three[0].model)
        return own

    @cached_property
    def bound(self) -> tuple[str, ...]:
        """The names of the contributions that bind molecules."""
        found = [PRIOR] if any(pair.prior for pair in self.pairs) else []
        found += [BINDING] if any(pair.model for pair in self.pairs) else []
        found += [TRIPLES] if self.triples or self.induction else []
        return tuple(found)

    @property
    def components(self) -> tuple[str, ...]:
        """Every value that ``component`` may take with this model."""
        return ("total", "fragments", *(["binding"] if self.bound else []), *self.own_names)

    @property
    def models(self) -> tuple[SGDMLModel, ...]:
        """Every model file's, once."""
        found = [one.trained for one in self.species]
        found += [pair.model for pair in self.pairs]
        found += [triple.model for triple in self.triples]
        return tuple({id(model): model for model in found if model}.values())

    @property
    def n_threads(self) -> int:
        """How many threads evaluate it."""
        return self.pool.n_threads

    def warm_up(self) -> None:
        """Evaluate every pair and triple once: compiles the loops before the first step."""
        for one in self.species:
            one.evaluate(_apart(len(one.numbers))[None])
        for pair in self.pairs:
            first, second = pair.sizes
            x = _apart(first + second)[None]
            if pair.model:
                pair.model.evaluate(x)
            if pair.prior:
                pair.prior.evaluate(x)
        for triple in self.triples:
            x = _apart(sum(triple.sizes))[None]
            if triple.model:
                triple.model.evaluate(x)
            if triple.prior:
                triple.prior.of_whole(x)
        if self.ewald:
            self.ewald.warm_up()

    def evaluate(
        self, positions: ArrayLike, component: str = "total", cell: ArrayLike | None = None
    ) -> ManyEvaluation:
        """Evaluate energies, forces, virials and contributions.

        Args:
            positions: Å, shape (N, 3) or (B, N, 3). For (N, 3) the result has no batch axis.
            component: ``"total"``, ``"fragments"``, ``"binding"`` (all that binds molecules) or a
                species' name.
            cell: lattice vectors in columns, Å, shape (3, 3); only a periodic model looks at it.
                None stands for that of the directory's structure.

        Raises:
            GeometryError: wrong shape, non-finite coordinates, coinciding atoms, a cell that is
                missing, or too small for a molecule.
            ComponentError: the model has no such component.
        """
        self.check_component(component)
        batch = as_batch(positions, self.n_atoms, self.name)
        box = self.box(cell)
        found = [self._evaluate(x, component, box) for x in batch]
        names = self._named(component)
        parts = {name: self._stacked([one[name] for one in found]) for name in names}
        energies = np.array([part.energy for part in parts.values()])
        result = ManyEvaluation(
            energy=energies.sum(axis=0),
            forces=add_up([part.forces for part in parts.values()]),
            virial=add_up([part.virial for part in parts.values()]),
            contributions=parts,
            molecules={
                name: np.array([one[name].molecules for one in found]).reshape(
                    len(found), len(self.molecules)
                )
                for name in names
            },
        )
        return result[0] if np.ndim(positions) == 2 else result

    def box(self, cell: ArrayLike | None) -> Floats | None:
        """Return the cell that is looked at: lattice vectors in columns, Å, or None.

        Raises:
            GeometryError: there is none of a periodic model, or it is too small.
        """
        if not self.periodic:
            return None
        given = self.cell if cell is None else cell
        if given is None:
            raise GeometryError(
                f"{self.name} is periodic and has no cell: give one, or put one into the comment "
                "of structure.xyz"
            )
        box = as_cell(given, self.name)
        height = float((1.0 / np.linalg.norm(np.linalg.inv(box), axis=1)).min())
        if height < HEIGHT_IN_BONDS * self._longest_bond:
            raise GeometryError(
                f"{self.name}: the cell is {height:.2f} Å high, too small to tell which images are "
                f"bonded; expected at least {HEIGHT_IN_BONDS * self._longest_bond:.2f} Å"
            )
        return box

    @cached_property
    def _longest_bond(self) -> float:
        return max((one.longest_step for one in self.species), default=0.0)

    def frame(self, positions: Floats, box: Floats | None) -> Assembled:
        """Return the molecules of positions (N, 3), Å; the last ones are kept for the guards."""
        last = self._last
        if last and np.array_equal(last[0], positions) and _same_cell(last[1], box):
            return last[2]
        reaches = [pair.reach for pair in self.pairs] + [one.reach for one in self.triples]
        if self.ewald and box is not None:
            reaches.append(self.ewald.reach(box))
        if self.induction:
            reaches.append(self.induction.reach)
        frame = Assembled.of(self.species, positions, box, reaches)
        self._last = (positions.copy(), box, frame)
        return frame

    def touching(self, frame: Assembled, binding: int) -> tuple[Neighbours, Floats]:
        """Return the pairs that one binding's model says anything of, and their atoms."""
        if binding not in frame.touching:
            frame.touching[binding] = self.pairs[binding].touching(frame)
        return frame.touching[binding]

    def near(self, frame: Assembled, binding: int) -> Triples:
        """Return the triples that one binding's model says anything of."""
        if binding not in frame.near:
            frame.near[binding] = self.triples[binding].near(frame)
        return frame.near[binding]

    def _evaluate(self, x: Floats, component: str, box: Floats | None) -> dict[str, Total]:
        frame = self.frame(x, box)
        parts: dict[str, Total] = {}
        for k, one in enumerate(self.species):
            if component in ("total", "fragments", one.name):
                parts[one.name] = self._by_itself(frame, k)
        if component in ("total", "binding"):
            parts |= self._bound(frame)
        return parts

    def _by_itself(self, frame: Assembled, kind: int) -> Total:
        """Evaluate the molecules of one species, as if they were alone."""
        total = Total.zero(frame)
        own, one = frame.x[kind], self.species[kind]
        batches = [own[k : k + FRAGMENTS] for k in range(0, len(own), FRAGMENTS)]
        found = concatenate(self.pool.map(one.evaluate, batches))
        members = np.arange(frame.first[kind], frame.first[kind + 1])
        total.add(frame, (kind,), (members,), (found.energy, (found.forces,), found.virial))
        return total

    def _bound(self, frame: Assembled) -> dict[str, Total]:
        """Evaluate all that binds molecules, by the names of :attr:`bound`."""
        parts = {name: Total.zero(frame) for name in self.bound}
        for k, pair in enumerate(self.pairs):
            if pair.prior:
                pair.add_prior(frame, self.pool, parts[PRIOR])
            if pair.model:
                pair.add_model(frame, self.touching(frame, k), self.pool, parts[BINDING])
        if self.ewald:
            self.ewald.add(frame, self.pool, parts[PRIOR])
        for k, triple in enumerate(self.triples):
            triple.add_prior(frame, self.pool, parts[TRIPLES])
            if triple.model:
                triple.add_model(frame, self.near(frame, k), self.pool, parts[TRIPLES])
        if self.induction:
            self.induction.add(frame, self.pool, parts[TRIPLES])
        return parts

    def _stacked(self, totals: Sequence[Total]) -> Evaluation:
        n = len(totals)
        forces = np.array([one.on_atoms(self.species, self.n_atoms) for one in totals])
        return Evaluation(
            np.array([one.energy for one in totals]),
            forces.reshape(n, self.n_atoms, 3),
            np.array([one.virial for one in totals]).reshape(n, 3, 3),
        )

    def _named(self, component: str) -> list[str]:
        """Return the contributions that a component is the sum of."""
        alone = ("total", "fragments")
        names = [one.name for one in self.species if component in (*alone, one.name)]
        return names + [*self.bound] * (component in ("total", "binding"))

    def fingerprint(self) -> str:
        """Return ``sha256:…`` of everything that is evaluated; ``deltaserver check`` prints it."""
        return fingerprint_of_many(self)

    def guards(self) -> ManyGuards:
        """Return what looks at structures and results: see :mod:`deltaserver.model.many.guards`."""
        return ManyGuards(self)


def _same_cell(one: Floats | None, other: Floats | None) -> bool:
    if one is None or other is None:
        return one is other
    return np.array_equal(one, other)


def _apart(n_atoms: int) -> Floats:
    """Return positions (n, 3), Å, of which no two are near each other."""
    return np.outer(10.0 * np.arange(1.0, n_atoms + 1.0), [1.0, 0.0, 0.0])
