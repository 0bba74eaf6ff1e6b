"""The sGDML kernel sum: descriptors in, energy and its descriptor gradient out.

sGDML predicts with the Hessian of a Matérn kernel, ν = 5/2, summed over the M training points
x_m and the S permutations of the molecule [Chmiela et al., Nat. Commun. 9, 3887 (2018),
DOI 10.1038/s41467-018-06169-2]. With Δ = q − P_s x_m, r = √5 |Δ|, and a_m = J_mᵀα_m:

    w₂ = 5/(3σ³) (σ + r) exp(−r/σ),   w₁ = 25/(3σ⁴) exp(−r/σ) Δ·P_s a_m
    E  = Σ w₂ Δ·P_s a_m               g = −∂E/∂q = Σ (w₁ Δ − w₂ P_s a_m)

Permuting the S queries instead of the S·M training points leaves the training arrays as they
are, small, and turns every sum into a matrix product:  |Δ|² = |q_s|² + |x|² − 2 q_s·x.  That form
cancels where q is close to x, so descriptors are centred on the training mean first: what is
subtracted is then of the size of the fluctuations, not of the descriptor. What is left of the
error in |Δ|² enters E in second order, since w₂ is flat at r = 0.

Three ways to the same sum, :meth:`TrainingSum.prepare` takes the cheapest:

- permutations that are a group, as symmetries are: :class:`FourierSum`, which correlates in the
  group's Fourier space (:mod:`deltaserver.model.fourier`);
- any set of permutations, or none but the identity: :class:`DirectSum`, plain matrix products;
- one query leaves a matrix product little to reuse: compiled loops read the training arrays
  once (:mod:`deltaserver.model.loops`), where numba is installed and the group is not large.

x and a stand in one array of 2M rows, so that both products of a pass are one call.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from deltaserver.model import jit
from deltaserver.model.fourier import GroupFourier
from deltaserver.model.team import ALONE, Team

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


class Task(NamedTuple):
    """What compiled loops take besides the model: see ``loops.direct``.

    Attributes:
        positions: shape (B, N, 3), the model's length.
        cell, inverse, periodic: lattice vectors in columns, their inverse, whether to look at them.
        scale, shift: from E to the energies that are asked for.
        energy, forces, virial: to be filled, shape (B,), (B, N, 3), (B, 3, 3).
    """

    positions: Floats
    cell: Floats
    inverse: Floats
    periodic: bool
    scale: float
    shift: float
    energy: Floats
    forces: Floats
    virial: Floats

    def part(self, some: slice) -> Task:
        """Return the task of some of the geometries."""
        filled = (self.energy[some], self.forces[some], self.virial[some])
        return Task(self.positions[some], *self[1:6], *filled)

    def addend(self) -> Task:
        """Return a task whose results are to be added to this one's."""
        filled = [np.empty_like(array) for array in self[6:]]
        return Task(*self[:5], 0.0, *filled)


Evaluator = Callable[[Task], float]
Share = Callable[[slice, Task], float]

SQRT5 = np.sqrt(5.0)
CHUNK_ELEMENTS = 1 << 22  # numbers in the largest temporary array: 32 MiB of float64
HUGE_PAGE = 2**18  # float64 numbers in 2 MiB
COLUMNS = 296  # descriptor entries of eight queries at a time in compiled loops
FEW_ELEMENTS = 1 << 6  # S × matrix elements up to which they are gone through one by one
LINE = 8  # float64 numbers in a cache line
SHARED_NUMBERS = 1 << 20  # of the training arrays; with fewer, one thread is done before another
SHARES = 3  # for each thread, so that one that comes late takes fewer


@dataclass(frozen=True)
class Weights:
    """w₁ and w₂, and the energy they give: all from |Δ|² and Δ·a.

    Attributes:
        sigma: kernel length scale.
        alphas_energy: coefficients of energy constraints, shape (M,), or None.
    """

    sigma: float
    alphas_energy: Floats | None

    def __call__(self, squared: Floats, delta_a: Floats, w1: Floats, w2: Floats) -> Floats:
        """Fill w₁ and w₂; return each term of E. The axis before the last is the M points."""
        sigma = self.sigma
        r = np.maximum(squared, 0.0, out=squared)
        np.sqrt(r, out=r)
        r *= SQRT5
        exponential = np.exp(r / -sigma)
        decay = exponential * (5.0 / (3.0 * sigma**3))
        np.multiply(delta_a * (5.0 / sigma), decay, out=w1)
        np.multiply(decay, r + sigma, out=w2)
        terms = delta_a * w2
        if self.alphas_energy is not None:
            alphas = self.alphas_energy[:, None]
            w1 += w2 * alphas
            terms += (1.0 + r / sigma * (1.0 + r / (3.0 * sigma))) * exponential * alphas
        return terms


class TrainingSum(ABC):
    """The training arrays of one model, laid out for the kernel sum.

    Build with :meth:`prepare`. All quantities in the model's own units.
    """

    per_query: int  # numbers in the largest temporary array, for one query
    weights: Weights
    team: Team

    @staticmethod
    def prepare(
        sigma: float,
        x: Floats,
        a: Floats,
        pair_perms: Ints,
        alphas_energy: Floats | None,
        team: Team = ALONE,
    ) -> TrainingSum:
        """Lay out the training arrays and precompute what does not depend on the query.

        Args:
            sigma: kernel length scale.
            x: training descriptors, shape (M, D).
            a: Jᵀα of each training point, shape (M, D).
            pair_perms: permutations of the descriptor entries, shape (S, D).
            alphas_energy: coefficients of energy constraints, shape (M,), or None.
            team: the threads that compiled loops are shared out among.
        """
        weights = Weights(sigma, alphas_energy)
        if len(pair_perms) > 1 and pair_perms.shape[1]:
            fourier = GroupFourier.of(pair_perms)
            if fourier:
                return FourierSum(weights, x, a, pair_perms, fourier, team)
        return DirectSum(weights, x, a, pair_perms, team)

    def __call__(self, q: Floats) -> tuple[Floats, Floats]:
        """Return E (B,) and g = −∂E/∂q (B, D) for query descriptors q (B, D)."""
        step = max(1, CHUNK_ELEMENTS // max(1, self.per_query))
        parts = [self.contract(q[k : k + step]) for k in range(0, len(q), step)]
        if not parts:
            return np.zeros(0), np.zeros_like(q)
        if len(parts) == 1:
            return parts[0]
        energies, gradients = zip(*parts, strict=True)
        return np.concatenate(energies), np.concatenate(gradients)

    def evaluator(self) -> Evaluator | None:
        """Return the compiled way from positions to forces, None where there is none."""
        return None

    @abstractmethod
    def contract(self, q: Floats) -> tuple[Floats, Floats]:
        """Return E and g of queries that fit into memory at once."""

    def _shares(self, n: int, numbers: int) -> list[slice]:
        """Cut n groups of training points, of so many numbers together, into threads' shares."""
        team = self.team.n_threads
        n_shares = min(n, SHARES * team) if team > 1 and numbers > SHARED_NUMBERS else 1
        ends = [n * k // n_shares for k in range(n_shares + 1)]
        return [slice(a, b) for a, b in pairwise(ends)]

    def _by_points(self, run: Share, shares: list[slice], task: Task) -> float:
        """Evaluate in shares of the training points: energies and forces are sums over them."""
        if len(shares) == 1:
            return run(shares[0], task)
        tasks = [task] + [task.addend() for _ in shares[1:]]
        totals = self.team.map(lambda pair: run(*pair), list(zip(shares, tasks, strict=True)))
        for other in tasks[1:]:
            for array, more in zip(task[6:], other[6:], strict=True):
                array += more
        return totals[0]


class DirectSum(TrainingSum):
    """The sum by matrix products over permuted queries, for any set of permutations."""

    def __init__(
        self, weights: Weights, x: Floats, a: Floats, pair_perms: Ints, team: Team = ALONE
    ) -> None:
        self.weights = weights
        self.team = team
        self.n_train = len(x)
        self.centre = x.mean(axis=0)  # [D]
        self._rows = lasting(2 * len(x), _round_up(x.shape[1], LINE))
        self.xa = self._rows[:, : x.shape[1]]  # [2M, D]
        np.subtract(x, self.centre, out=self.xa[: len(x)])
        self.xa[len(x) :] = a
        self.x_squared, self.x_dot_a = _row_products(self.xa)  # [M, 1] each
        self.gather = np.argsort(pair_perms, axis=1)  # [S, D]: their inverses
        self._scratch: list[Floats] = []
        self.per_query = max(self.gather.size, 2 * self.n_train * len(pair_perms))

    def evaluator(self) -> Evaluator | None:
        """Compiled, where there is but the identity."""
        plain = self.weights.alphas_energy is None and len(self.gather) == 1
        return self._evaluate if jit.AVAILABLE and plain else None

    def contract(self, q: Floats) -> tuple[Floats, Floats]:
        """Return E (B,) and g (B, D)."""
        m = self.n_train
        permuted = q.take(self.gather, axis=1)  # [B, S, D]
        permuted -= self.centre
        rows = permuted.reshape(-1, q.shape[1])  # [B·S, D]
        products = self.xa @ rows.T  # [2M, B·S]
        squared = np.einsum("rd,rd->r", rows, rows) + self.x_squared - 2.0 * products[:m]
        w = np.empty_like(products)
        terms = self.weights(squared, products[m:] - self.x_dot_a, w[:m], w[m:])
        rows *= w[:m].sum(axis=0)[:, None]
        rows -= w.T @ self.xa
        energy: Floats = terms.reshape(m, len(q), -1).sum(axis=(0, 2))
        return energy, self._permute_back(permuted)

    def _evaluate(self, task: Task) -> float:
        """Read the training arrays once for one geometry, or once for eight of many."""
        n_batch = len(task.positions)
        if n_batch == 1:
            shares = self._shares(self.n_train, self.xa.size)
            return self._by_points(self._evaluate_one, shares, task)
        n_eights = -(-n_batch // 8)
        n_parts = min(self.team.n_threads, n_eights)
        ends = [8 * (n_eights * k // n_parts) for k in range(n_parts + 1)] if n_parts else []
        return sum(
            self.team.map(self._evaluate_eights, [task.part(slice(*ab)) for ab in pairwise(ends)])
        )

    def _evaluate_one(self, points: slice, task: Task) -> float:
        m = self.n_train
        total: float = jit.loops().direct(
            self._row_centre, self._rows[:m][points], self._rows[m:][points],
            self.weights.sigma, *task,
        )  # fmt: skip
        return total

    def _evaluate_eights(self, task: Task) -> float:
        panels, centre = self._panels
        known = (self.x_squared[:, 0], self.x_dot_a[:, 0])
        try:
            descriptors = self._scratch.pop()
        except IndexError:
            descriptors = lasting(len(panels), 8, panels.shape[2])
        total: float = jit.loops().direct_by_eights(
            centre, panels, *known, self.weights.sigma, descriptors, *task
        )
        self._scratch.append(descriptors)  # new memory would cost a page fault for every 4 KiB
        return total

    @cached_property
    def _row_centre(self) -> Floats:
        centre = aligned(self._rows.shape[1])
        centre[: len(self.centre)] = self.centre
        return centre

    @cached_property
    def _panels(self) -> tuple[Floats, Floats]:
        """The training arrays (P, R, C), C columns of all rows after the next C, and the centre."""
        n_rows, n_desc = self.xa.shape
        n_panels = max(1, -(-n_desc // COLUMNS))
        columns = _round_up(-(-n_desc // n_panels), LINE)
        panels = lasting(n_panels, _round_up(n_rows, 3), columns)
        for p, panel in enumerate(panels):
            part = self.xa[:, p * columns : (p + 1) * columns]
            panel[:n_rows, : part.shape[1]] = part
        centre = aligned(n_panels, columns)
        centre.ravel()[:n_desc] = self.centre
        return panels, centre

    def _permute_back(self, values: Floats) -> Floats:
        """Sum ``values[b, s, k]`` into ``g[b, gather[s, k]]``."""
        g = np.empty((len(values), values.shape[2]))
        for row, value in zip(g, values, strict=True):
            row[:] = np.bincount(self.gather.ravel(), value.ravel(), minlength=len(row))
        return g


class FourierSum(TrainingSum):
    """The sum in the Fourier space of a group of permutations.

    The centre is the training mean averaged over the group: then |q_s|² is the same for all s.
    """

    def __init__(
        self,
        weights: Weights,
        x: Floats,
        a: Floats,
        pair_perms: Ints,
        fourier: GroupFourier,
        team: Team = ALONE,
    ) -> None:
        self.weights = weights
        self.team = team
        self.fourier = fourier
        self.n_train = len(x)
        self._kept: dict[tuple[int, int], tuple[object, ...]] = {}
        self.centre = x.mean(axis=0)[pair_perms].mean(axis=0)  # [D]
        xa = np.concatenate([x - self.centre, a])  # [2M, D]
        self.x_squared, self.x_dot_a = _row_products(xa)  # [M, 1] each
        transformed = fourier.forward(xa)
        self.parts = [
            np.ascontiguousarray(
                transformed[:, part.rows]
                .reshape(len(xa), part.dim, part.copies)
                .swapaxes(0, 1)
                .reshape(-1, part.copies)
            )  # [d·2M, n_copies]
            for part in fourier.components
        ]
        self.per_query = max(3 * len(xa) * fourier.order, len(self.centre))

    @cached_property
    def _layout(self) -> _Layout:
        return _Layout.of(self)

    def evaluator(self) -> Evaluator | None:
        """Compiled for small groups; of large ones only the sum is, behind :meth:`contract`."""
        return self._evaluate_few if self._compiled and self._few else None

    def _evaluate_few(self, task: Task) -> float:
        n_batch = len(task.positions)
        shares = self._shares(len(self._layout.xa), self._layout.xa.size)
        if n_batch == 1:
            return self._by_points(self._evaluate_groups, shares, task)
        if len(shares) == 1:
            return self._evaluate_groups(shares[0], task)
        parts = [task.part(slice(k, k + 1)) for k in range(n_batch)]
        return sum(self.team.map(partial(self._evaluate_groups, slice(None)), parts))

    def _evaluate_groups(self, groups: slice, task: Task) -> float:
        total: float = jit.loops().small_group(*self._arguments(groups), *task)
        return total

    def _arguments(self, groups: slice) -> tuple[object, ...]:
        """What ``loops.small_group`` takes of the model; kept, where it is the same every time."""
        key = (groups.start, groups.stop)
        if key not in self._kept:
            layout = self._layout
            points = slice(4 * (groups.start or 0), 4 * (groups.stop or len(layout.xa)))
            self._kept[key] = (
                self.centre, *self._sparse_basis, layout.xa[groups], layout.x_squared[points],
                layout.x_dot_a[points], layout.components, self._values, self.weights.sigma,
            )  # fmt: skip
        return self._kept[key]

    @cached_property
    def _sparse_basis(self) -> tuple[Ints, Ints, Floats]:
        return self.fourier.sparse_basis(self._layout.places, self._layout.xa.shape[2])

    @cached_property
    def _values(self) -> Floats:
        """Every permutation's matrix elements, (S, n_elements)."""
        return self.fourier.at_elements(np.eye(self.fourier.n_elements))

    @property
    def _compiled(self) -> bool:
        return jit.AVAILABLE and self.weights.alphas_energy is None

    @property
    def _few(self) -> bool:
        return self.fourier.order * self.fourier.n_elements <= FEW_ELEMENTS

    def contract(self, q: Floats) -> tuple[Floats, Floats]:
        """Return E (B,) and g (B, D)."""
        centred = q - self.centre
        if self._compiled and not self._few:
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
        """Do the same in compiled loops, which read the training arrays once."""
        layout, fourier = self._layout, self.fourier
        queries = aligned(len(centred), layout.xa.shape[2])
        fourier.mix(centred).take(layout.gather, axis=1, out=queries, mode="clip")
        queries *= layout.present
        shares = self._shares(len(layout.xa), layout.xa.size)
        parts = self.team.map(lambda groups: self._sum_of_groups(groups, queries), shares)
        slopes, energy, w1_sum = (sum(arrays[1:], arrays[0]) for arrays in zip(*parts, strict=True))
        g = w1_sum[:, None] * centred
        g += fourier.unmix(slopes.take(layout.gather_back, axis=1))
        return energy, g

    def _sum_of_groups(self, groups: slice, queries: Floats) -> tuple[Floats, Floats, Floats]:
        layout, fourier = self._layout, self.fourier
        points = slice(4 * groups.start, 4 * groups.stop)
        slopes, energy = aligned(*queries.shape), np.zeros(len(queries))
        w1_sum = np.zeros(len(queries))
        jit.loops().group_sum(
            queries, layout.xa[groups], layout.x_squared[points], layout.x_dot_a[points],
            layout.components, layout.values, layout.transposed, fourier.signs,
            len(fourier.sectors[0].values), self.weights.sigma, slopes, energy, w1_sum,
        )  # fmt: skip
        return slopes, energy, w1_sum

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
    """A :class:`FourierSum` as compiled loops take it: whole cache lines, zeros between.

    Attributes:
        xa: four x, then the four a, in Fourier space, shape (G, 8, W).
        x_squared, x_dot_a: of these points, shape (4G,).
        places: where in W each Fourier coefficient is, shape (D,).
        gather: for every place in W the coefficient that is there, as :meth:`GroupFourier.mix`
            numbers them, shape (W,).
        present: 1 where there is one, 0 where zeros fill a line, shape (W,).
        gather_back: where in W each of these coefficients is, shape (D,).
        components: start in W, dim, copies, first matrix element of each.
        values: matrix elements at the cosets of the centre, shape (n_sectors, K, P).
        transposed: the same, shape (n_sectors, P, K).
    """

    xa: Floats
    x_squared: Floats
    x_dot_a: Floats
    places: Ints
    gather: Ints
    present: Floats
    gather_back: Ints
    components: Ints
    values: Floats
    transposed: Floats

    @classmethod
    def of(cls, total: FourierSum) -> _Layout:
        fourier, m = total.fourier, total.n_train
        n_elements = _round_up(max(s.values.shape[1] for s in fourier.sectors), LINE)
        n_cosets = _round_up(len(fourier.sectors[0].values), LINE)
        values = aligned(len(fourier.sectors), n_elements, n_cosets)
        numbers = np.empty(fourier.n_elements, dtype=np.int64)
        few = total._few
        for k, sector in enumerate(fourier.sectors):
            n = sector.values.shape[1]
            values[k, :n, : len(sector.values)] = sector.values.T
            first = sector.elements.start if few else k * n_elements
            numbers[sector.elements] = first + np.arange(n)
        components, places, width = [], [], 0
        for part in fourier.components:
            copies = _round_up(part.copies, 2 * LINE)
            components.append((width, part.dim, copies, numbers[part.first]))
            rows = width + copies * np.arange(part.dim)[:, None] + np.arange(part.copies)
            places.append(rows.ravel())
            width += part.dim * copies
        xa = lasting(-(-m // 4), 8, width)
        for part, x, place in zip(fourier.components, total.parts, places, strict=True):
            rows = x.reshape(part.dim, 2, m, part.copies).transpose(1, 2, 0, 3)
            for k, values_of in enumerate(rows.reshape(2, m, -1)):  # x, then a
                for i in range(4):
                    xa[: len(values_of[i::4]), 4 * k + i, place] = values_of[i::4]
        known = aligned(2, 4 * len(xa))
        known[:, :m] = total.x_squared[:, 0], total.x_dot_a[:, 0]
        transposed = aligned(len(values), n_cosets, n_elements)
        transposed[:] = values.swapaxes(1, 2)
        place = np.concatenate(places)
        gather, present = np.zeros(width, dtype=np.int64), np.zeros(width)
        gather[place], present[place] = fourier.gather, 1.0
        return cls(
            xa, known[0], known[1], place, gather, present, place[fourier.gather_back],
            np.array(components), values, transposed,
        )  # fmt: skip


def aligned(*shape: int) -> Floats:
    """Return zeros from the start of a cache line: a vector across two lines costs two loads."""
    return _from_multiple_of(LINE, shape, LINE)


def lasting(*shape: int) -> Floats:
    """Do the same for what is kept; large arrays begin where a huge page may, and fill it.

    Where they lie in memory, and how fast they are read, is then the same in every process.
    """
    size = int(np.prod(shape))
    if size < HUGE_PAGE // 4:
        return aligned(*shape)
    return _from_multiple_of(HUGE_PAGE, shape, 2 * HUGE_PAGE)  # less than 4 MiB gets none


def _from_multiple_of(start: int, shape: tuple[int, ...], least: int) -> Floats:
    size = int(np.prod(shape))
    raw = np.zeros(max(size, least) + start)
    skip = -(raw.ctypes.data // raw.itemsize) % start
    return raw[skip : skip + size].reshape(shape)


def _round_up(n: int, multiple: int) -> int:
    return -(-n // multiple) * multiple


def _row_products(xa: Floats) -> tuple[Floats, Floats]:
    """|x|² and x·a of rows x, then a; columns, shape (M, 1)."""
    x, a = np.split(xa, 2)
    return np.einsum("md,md->m", x, x)[:, None], np.einsum("md,md->m", x, a)[:, None]
