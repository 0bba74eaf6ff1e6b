"""The kernel sum over a group of permutations; see :mod:`deltaserver.model.kernel`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from deltaserver.arrays import Floats, Ints
from deltaserver.compute import jit
from deltaserver.compute.alignment import aligned, lasting, round_up
from deltaserver.compute.thread_pool import ONE_THREAD, ThreadPool
from deltaserver.model import loops
from deltaserver.model.groups.fourier import GroupFourier
from deltaserver.model.groups.inversion import Inversion
from deltaserver.model.kernel.base import (
    SHARED_NUMBERS,
    Evaluator,
    Task,
    TrainingSum,
    Weights,
    row_products,
)
from deltaserver.model.kernel.ways import Ways

FEW_ELEMENTS = 1 << 6  # S × matrix elements up to which one compiled call does everything
FEW_PAIRS = 1 << 10  # up to which that is quicker than to change basis orbits by orbits
EIGHT = 8  # training points at a time in compiled loops


class FourierSum(TrainingSum):
    """The sum in the Fourier space of a group of permutations.

    The centre is the training mean averaged over the group: then |q_s|² is the same for all s.
    """

    dtype: DTypeLike = np.float64  # of the training points

    def __init__(
        self,
        weights: Weights,
        x: Floats,
        a: Floats,
        pair_perms: Ints,
        fourier: GroupFourier,
        pool: ThreadPool = ONE_THREAD,
    ) -> None:
        self.weights = weights
        self.pool = pool
        self.fourier = fourier
        self.n_train = len(x)
        self._kept: dict[tuple[int, int], Callable[..., float]] = {}  # by share
        self.centre = x.mean(axis=0)[pair_perms].mean(axis=0)  # [D]
        xa = np.concatenate([x - self.centre, a])  # [2M, D]
        self.x_squared, self.x_dot_a = row_products(xa)  # [M, 1] each
        transformed = fourier.forward(xa)
        self.parts: list[NDArray[np.floating[Any]]] = [
            np.ascontiguousarray(
                transformed[:, part.rows]
                .reshape(len(xa), part.dim, part.copies)
                .swapaxes(0, 1)
                .reshape(-1, part.copies)
            )  # [d·2M, n_copies]
            for part in fourier.components
        ]
        self.per_query = max(3 * len(xa) * fourier.order, len(self.centre))

    def single(self) -> FourierSum:
        """See :class:`TrainingSum`; they are rounded in Fourier space."""
        found = copy.copy(self)
        for cached in ("_layout", "_sparse_basis"):
            found.__dict__.pop(cached, None)
        found._kept = {}
        found.dtype = np.float32
        found.parts = [part.astype(np.float32) for part in self.parts]
        found.x_squared, found.x_dot_a = np.zeros_like(self.x_squared), np.zeros_like(self.x_dot_a)
        for component, part in zip(self.fourier.components, found.parts, strict=True):
            rows = part.astype(np.float64).reshape(component.dim, -1, component.copies)
            for row in rows:
                x_squared, x_dot_a = row_products(row)
                found.x_squared += x_squared
                found.x_dot_a += x_dot_a
        return found

    @cached_property
    def _layout(self) -> _Layout:
        return _Layout.of(self)

    def evaluator(self) -> Evaluator | None:
        """Compiled: in one call for small groups, in three for large ones."""
        if not self.compiled:
            return None
        return self._evaluate_few if self._few else Ways.of(self)

    def _evaluate_few(self, task: Task) -> float:
        if self.alone:
            return self._evaluate_groups(slice(None), task)
        n_batch = len(task.positions)
        if n_batch == 1:
            shares = self._shares(len(self._layout.xa), self._layout.xa.size)
            return self._by_points(self._evaluate_groups, shares, task)
        parts = [task.part(slice(k, k + 1)) for k in range(n_batch)]
        return sum(self.pool.map(partial(self._evaluate_groups, slice(None)), parts))

    def _evaluate_groups(self, groups: slice, task: Task) -> float:
        key = (groups.start, groups.stop)
        call = self._kept.get(key)
        if call is None:
            call = self._kept[key] = partial(
                loops.load("evaluate").small_group, *self._arguments(groups)
            )
        return call(tuple(task))

    def _arguments(self, groups: slice) -> tuple[object, ...]:
        """Return what ``small_group`` takes of the model."""
        layout = self._layout
        return (
            self.centre,
            self._sparse_basis,
            layout.xa[groups],
            layout.known[groups],
            layout.components,
            layout.sectors,
            self.weights.sigma,
        )

    @cached_property
    def _sparse_basis(self) -> tuple[Ints, Ints, Floats]:
        return self.fourier.sparse_basis(self._layout.places, self._layout.width)

    @property
    def compiled(self) -> bool:
        """Wherever loops can be compiled."""
        return jit.AVAILABLE

    @property
    def in_loops(self) -> bool:
        """For all but the smallest groups."""
        return self.compiled and not self._few

    @property
    def _few(self) -> bool:
        fourier = self.fourier
        return fourier.order * fourier.n_elements <= FEW_ELEMENTS and len(self.centre) <= FEW_PAIRS

    def contract(self, q: Floats) -> tuple[Floats, Floats]:
        """Return E (B,) and g (B, D)."""
        centred = q - self.centre
        if self.in_loops:
            return self._contract_compiled(centred)
        m, n_batch = self.n_train, len(q)
        q_squared = np.einsum("bd,bd->b", centred, centred)
        elements = self._correlate(self.fourier.forward(centred))
        products = self.fourier.at_elements(elements).reshape(-1, 2 * m, n_batch)  # [S, 2M, B]
        squared = products[:, :m] * -2.0
        squared += q_squared + self.x_squared
        w = np.empty_like(products)
        delta_a = products[:, m:]
        delta_a -= self.x_dot_a
        terms = self.weights(squared, delta_a, w[:, :m], w[:, m:])
        elements = self.fourier.from_elements(w.reshape(len(w), -1))
        g = w[:, :m].sum(axis=(0, 1))[:, None] * centred
        g -= self.fourier.backward(self._spread(elements, n_batch))
        energy: Floats = terms.sum(axis=(0, 1))
        return energy, g

    def _contract_compiled(self, centred: Floats) -> tuple[Floats, Floats]:
        """Evaluate in compiled loops, which read the training arrays once."""
        layout, fourier = self._layout, self.fourier
        queries = aligned(len(centred), layout.width)
        fourier.mix(centred).take(layout.gather, axis=1, out=queries, mode="clip")
        queries *= layout.present
        slopes, (energy, w1_sum) = self.sums_of(queries)
        g = w1_sum[:, None] * centred
        g += fourier.unmix(slopes.take(layout.gather_back, axis=1))
        return energy, g

    @property
    def width(self) -> int:
        """How long a query is in Fourier space, as compiled loops take it: W."""
        return self._layout.width

    @property
    def places(self) -> Ints:
        """Where in W each Fourier coefficient is, shape (D,); zeros fill the rest."""
        return self._layout.places

    @property
    def alone(self) -> bool:
        """Whether one thread goes through all training points."""
        return self.pool.n_threads < 2 or self._is_small

    @cached_property
    def _is_small(self) -> bool:
        return self._layout.xa.size <= SHARED_NUMBERS

    @property
    def points(self) -> tuple[object, ...]:
        """What compiled loops take of the training points: ``loops.groups.orbits.Points``."""
        layout = self._layout
        return layout.xa, layout.known, layout.components, layout.sectors

    def sums_of(self, queries: Floats) -> tuple[Floats, Floats]:
        """Return −Σ (w₁ x + w₂ a) (B, W), and E and Σ w₁ (2, B), of queries (B, W).

        See ``loops.groups.sums.group_sum``; threads share the training points.
        """
        shares = self._shares(len(self._layout.xa), self._layout.xa.size)
        parts = self.pool.map(lambda groups: self._sum_of_groups(groups, queries), shares)
        slopes, sums = parts[0]
        for more_slopes, more_sums in parts[1:]:
            slopes += more_slopes
            sums += more_sums
        return slopes, sums

    def _sum_of_groups(self, groups: slice, queries: Floats) -> tuple[Floats, Floats]:
        layout = self._layout
        slopes, sums = aligned(*queries.shape), np.zeros((2, len(queries)))
        loops.load("evaluate").group_sum(
            queries,
            layout.xa[groups],
            layout.known[groups],
            layout.components,
            layout.sectors,
            self.weights.sigma,
            slopes,
            sums,
        )
        return slopes, sums

    def _correlate(self, y: Floats) -> Floats:
        """Z_ab = Σ_i X_ai Y_bi for queries y (B, D): shape (n_elements, 2M·B)."""
        n_batch, rows = len(y), 2 * self.n_train
        z = np.empty((self.fourier.n_elements, rows * n_batch))
        for part, x in zip(self.fourier.components, self.parts, strict=True):
            d = part.dim
            product = x @ y[:, part.rows].reshape(n_batch * d, -1).T  # [d·2M, B·d]
            target = z[part.elements].reshape(d, d, rows, n_batch)
            target[...] = product.reshape(d, rows, n_batch, d).transpose(0, 3, 1, 2)
        return z

    def _spread(self, z: Floats, n_batch: int) -> Floats:
        """Y_bi = Σ_a Z_ab X_ai: the adjoint of :meth:`_correlate`, shape (B, D)."""
        rows = 2 * self.n_train
        y = np.empty((n_batch, len(self.centre)))
        for part, x in zip(self.fourier.components, self.parts, strict=True):
            d = part.dim
            w = z[part.elements].reshape(d, d, rows, n_batch).transpose(3, 1, 0, 2)
            y[:, part.rows] = (w.reshape(n_batch * d, -1) @ x).reshape(n_batch, -1)
        return y


@dataclass(frozen=True)
class _Layout:
    """A :class:`FourierSum` as compiled loops take it; W is a query's length in Fourier space.

    Attributes:
        xa: eight x, then the eight a, side by side, in Fourier space, shape (G, W, 16); of
            one-dimensional components in blocks of eight copies: ``loops.groups.blocks``.
        known: |x|², x·a and the coefficients of energies of these points, shape (G, 3 · 8).
        places: where in W each Fourier coefficient is, shape (D,).
        gather: for every place in W the coefficient that is there, as :meth:`GroupFourier.mix`
            numbers them, shape (W,).
        present: 1 where there is one, 0 where zeros fill a line, shape (W,).
        gather_back: where in W each of these coefficients is, shape (D,).
        components: start in W, dim, copies, first matrix element, copies that are no zeros.
        sectors: what :class:`Inversion` gives, and the signs of the centre's elements.
    """

    xa: NDArray[np.floating[Any]]
    known: Floats
    places: Ints
    gather: Ints
    present: Floats
    gather_back: Ints
    components: Ints
    sectors: tuple[Floats, Floats, Ints, Ints, Ints, Floats]

    @property
    def width(self) -> int:
        """W."""
        return len(self.gather)

    @classmethod
    def of(cls, total: FourierSum) -> _Layout:
        fourier, m = total.fourier, total.n_train
        inversion = Inversion.of(fourier)
        components, places, width = [], [], 0
        for part in fourier.components:
            copies = round_up(part.copies)
            components.append((width, part.dim, copies, inversion.numbers[part.first], part.copies))
            rows = width + copies * np.arange(part.dim)[:, None] + np.arange(part.copies)
            places.append(rows.ravel())
            width += part.dim * copies
        n_groups = -(-m // EIGHT)
        xa = lasting(n_groups, width, 2 * EIGHT, dtype=total.dtype)
        for part, x, place in zip(fourier.components, total.parts, places, strict=True):
            rows = x.reshape(part.dim, 2, m, part.copies).transpose(1, 2, 0, 3)
            for k, values_of in enumerate(rows.reshape(2, m, -1)):  # x, then a
                for i in range(EIGHT):
                    some = values_of[i::EIGHT]
                    xa[: len(some), place, EIGHT * k + i] = some
        in_blocks = loops.load("groups.blocks").in_blocks
        for start, dim, copies, *_ in components:
            if dim == 1:
                xa[:, start : start + copies] = in_blocks(xa[:, start : start + copies])
        known = aligned(3, EIGHT * n_groups)
        alphas = total.weights.of_energies(m)
        known[:, :m] = total.x_squared[:, 0], total.x_dot_a[:, 0], alphas
        place = np.concatenate(places)
        gather, present = np.zeros(width, dtype=np.int64), np.zeros(width)
        gather[place], present[place] = fourier.gather, 1.0
        return cls(
            xa,
            np.hstack(np.split(known.reshape(-1, EIGHT), 3)),
            place,
            gather,
            present,
            place[fourier.gather_back],
            np.array(components),
            (*inversion.arrays, fourier.signs),
        )
