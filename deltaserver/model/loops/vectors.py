"""Sixteen rows at a time in vector registers: what compiled loops cannot be trusted to do.

The compiler turns long loops into vector instructions, and these are short: sums of few terms that
have to stay in registers until they are done. Here they are written as instructions of LLVM, on
two vectors of eight numbers; a processor of shorter vectors takes several for one. Products are
fused with sums. Rows may be float32, and are float64 once they are in a register: sums lose
nothing by how rows are stored.

Arrays are flat, indices count numbers. Sixteen rows lie side by side, or as two times eight,
``half`` numbers apart.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled

Floats = NDArray[np.float64]
Numbers = NDArray[np.floating[Any]]

EIGHT, FOUR = 8, 4
AHEAD_BYTES = 4096  # rows are asked for so much sooner: the processor itself stops at a page's end
LINE_BYTES = 64
CHAINS = 8  # sums that a processor adds to at a time, before the first is ready for more
_cgutils = importlib.import_module("numba.core.cgutils")
_types = importlib.import_module("numba.core.types")
_arrays = importlib.import_module("numba.np.arrayobj")
_ir = importlib.import_module("llvmlite.ir")
_intrinsic = importlib.import_module("numba.extending").intrinsic

_DOUBLE = _ir.DoubleType()
_VECTOR = _ir.VectorType(_DOUBLE, EIGHT)
_ZERO = _ir.Constant(_VECTOR, [0.0] * EIGHT)


class Flat:
    """A flat array in the code that is being written."""

    def __init__(self, context: Any, builder: Any, kind: Any, value: Any) -> None:
        self.builder = builder
        self.single = kind.dtype == _types.float32
        self.start = _arrays.make_array(kind)(context, builder, value).data

    def _place(self, index: Any) -> Any:
        number = _ir.FloatType() if self.single else _DOUBLE
        place = self.builder.gep(self.start, [index])
        return self.builder.bitcast(place, _ir.VectorType(number, EIGHT).as_pointer())

    def load(self, index: Any) -> Any:
        """Return eight numbers from ``index`` on, as float64."""
        found = self.builder.load(self._place(index), align=4 if self.single else 8)
        return self.builder.fpext(found, _VECTOR) if self.single else found

    def ask_ahead(self, index: Any) -> None:
        """Ask for sixteen rows that come later, into the second cache."""
        word = _ir.IntType(32)
        kind = _ir.FunctionType(_ir.VoidType(), [_ir.PointerType(), word, word, word])
        function = _cgutils.get_or_insert_function(self.builder.module, kind, "llvm.prefetch.p0")
        size = 4 if self.single else 8
        for line in range(0, 2 * EIGHT * size, LINE_BYTES):
            later = self.builder.add(index, index.type((AHEAD_BYTES + line) // size))
            place = self.builder.bitcast(self.builder.gep(self.start, [later]), _ir.PointerType())
            # To be read, kept in the second cache, data.
            self.builder.call(function, [place, word(0), word(2), word(1)])

    def store(self, vector: Any, index: Any) -> None:
        """Put eight numbers at ``index`` and after."""
        self.builder.store(vector, self._place(index), align=8)

    def everywhere(self, index: Any) -> Any:
        """Return one number as all eight of a vector."""
        one = self.builder.load(self.builder.gep(self.start, [index]))
        word = _ir.IntType(32)
        first = self.builder.insert_element(_ZERO, one, word(0))
        return self.builder.shuffle_vector(
            first, _ZERO, _ir.Constant(_ir.VectorType(word, EIGHT), [0] * EIGHT)
        )


class Sums:
    """Vectors that are added to, kept in registers."""

    def __init__(self, builder: Any, n: int) -> None:
        self.builder = builder
        self.fused = _cgutils.get_or_insert_function(
            builder.module, _ir.FunctionType(_VECTOR, [_VECTOR] * 3), "llvm.fma.v8f64"
        )
        self.places = [_cgutils.alloca_once(builder, _VECTOR) for _ in range(n)]
        for place in self.places:
            builder.store(_ZERO, place)

    def add(self, k: int, one: Any, other: Any) -> None:
        """Add a product to the sum k."""
        old = self.builder.load(self.places[k])
        self.builder.store(self.builder.call(self.fused, [one, other, old]), self.places[k])

    def __getitem__(self, k: int) -> Any:
        """Return the sum k."""
        return self.builder.load(self.places[k])

    def total(self, some: Iterable[int]) -> Any:
        """Return the sum of some of them."""
        first, *others = (self[k] for k in some)
        for other in others:
            first = self.builder.fadd(first, other)
        return first


def _products(n: int) -> Callable[..., None]:
    """Write the products of sixteen rows with n columns: see :func:`products`.

    A sum waits for its last product: of few columns several terms have sums of their own.
    """
    n_chains = max(1, CHAINS // (2 * n))

    @_intrinsic
    def tile(  # type: ignore[no-untyped-def]
        _context, x, x_start, x_step, x_half, y, y_start, y_step, count, out, out_start, out_step,
        out_half,
    ):  # fmt: skip
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            rows = Flat(context, builder, x, arguments[0])
            columns = Flat(context, builder, y, arguments[4])
            to = Flat(context, builder, out, arguments[8])
            x_at, x_by, x_far = arguments[1:4]
            y_at, y_by, n_terms = arguments[5:8]
            out_at, out_by, out_far = arguments[9:]
            sums = Sums(builder, 2 * n * n_chains)
            starts = [builder.add(y_at, builder.mul(y_by, y_by.type(b))) for b in range(n)]

            def add_term(term: Any, chain: int) -> None:
                at = builder.add(x_at, builder.mul(x_by, term))
                halves = rows.load(at), rows.load(builder.add(at, x_far))
                rows.ask_ahead(at)
                for b in range(n):
                    factor = columns.everywhere(builder.add(starts[b], term))
                    for h in range(2):
                        sums.add(2 * (n * chain + b) + h, factor, halves[h])

            word = n_terms.type
            n_rounds = builder.udiv(n_terms, word(n_chains))
            with _cgutils.for_range(builder, n_rounds) as loop:
                first = builder.mul(loop.index, word(n_chains))
                for chain in range(n_chains):
                    add_term(builder.add(first, word(chain)), chain)
            done = builder.mul(n_rounds, word(n_chains))
            with _cgutils.for_range(builder, builder.sub(n_terms, done)) as loop:
                add_term(builder.add(done, loop.index), 0)
            for b in range(n):
                at = builder.add(out_at, builder.mul(out_by, out_by.type(b)))
                for h, place in enumerate((at, builder.add(at, out_far))):
                    to.store(sums.total(range(2 * b + h, 2 * n * n_chains, 2 * n)), place)
            return context.get_dummy_value()

        whole = _types.intp
        kinds = (x, whole, whole, whole, y, whole, whole, whole, out, whole, whole, whole)
        return _types.void(*kinds), generate

    result: Callable[..., None] = tile
    return result


_products_1, _products_2, _products_3 = _products(1), _products(2), _products(3)
_products_4, _products_5, _products_6 = _products(4), _products(5), _products(6)


@partial(compiled, allocates=False)
def products(
    n: int, x: Numbers, x_start: int, x_step: int, x_half: int, y: Floats, y_start: int,
    y_step: int, count: int, out: Floats, out_start: int, out_step: int, out_half: int,
) -> None:  # fmt: skip
    """Fill out with Σ_k y_bk x_kr, of n columns b and sixteen rows r.

    Term k of the rows is at ``x_start + k · x_step``, that of column b at
    ``y_start + b · y_step + k``, of ``count`` terms; its sums go to ``out_start + b · out_step``.
    """
    left = n
    while left > 0:
        some = left if left <= 6 else (6 if left != 7 else 4)
        if some == 6:
            _products_6(
                x, x_start, x_step, x_half, y, y_start, y_step, count, out, out_start, out_step,
                out_half,
            )  # fmt: skip
        elif some == 5:
            _products_5(
                x, x_start, x_step, x_half, y, y_start, y_step, count, out, out_start, out_step,
                out_half,
            )  # fmt: skip
        elif some == 4:
            _products_4(
                x, x_start, x_step, x_half, y, y_start, y_step, count, out, out_start, out_step,
                out_half,
            )  # fmt: skip
        elif some == 3:
            _products_3(
                x, x_start, x_step, x_half, y, y_start, y_step, count, out, out_start, out_step,
                out_half,
            )  # fmt: skip
        elif some == 2:
            _products_2(
                x, x_start, x_step, x_half, y, y_start, y_step, count, out, out_start, out_step,
                out_half,
            )  # fmt: skip
        else:
            _products_1(
                x, x_start, x_step, x_half, y, y_start, y_step, count, out, out_start, out_step,
                out_half,
            )  # fmt: skip
        left -= some
        y_start += some * y_step
        out_start += some * out_step


def _halved(builder: Any, one: Any, other: Any) -> Any:
    """Return the sums of neighbours, those of ``one`` in the even places, ``other`` in the odd."""
    word = _ir.VectorType(_ir.IntType(32), EIGHT)
    even = [n for k in range(0, EIGHT, 2) for n in (k, k + EIGHT)]
    mixed = [
        builder.shuffle_vector(one, other, _ir.Constant(word, [n + odd for n in even]))
        for odd in (0, 1)
    ]
    return builder.fadd(*mixed)


def _merged(builder: Any, one: Any, other: Any, first: list[int], second: list[int]) -> Any:
    word = _ir.VectorType(_ir.IntType(32), EIGHT)
    parts = [
        builder.shuffle_vector(one, other, _ir.Constant(word, places)) for places in (first, second)
    ]
    return builder.fadd(*parts)


def half_totals(builder: Any, vectors: list[Any]) -> Any:
    """Return the sums of the halves of four vectors v as one: v0 v1 v2 v3 v0 v1 v2 v3."""
    one, other = (_halved(builder, vectors[k], vectors[k + 1]) for k in (0, 2))
    low = [0, 1, 8, 9, 4, 5, 12, 13]
    return _merged(builder, one, other, low, [n + 2 for n in low])


def totals(builder: Any, one: Any, other: Any) -> Any:
    """Return the totals of eight vectors as one, from those of the halves of four and four."""
    return _merged(builder, one, other, [0, 1, 2, 3, 8, 9, 10, 11], [4, 5, 6, 7, 12, 13, 14, 15])


def _pulls(n: int) -> Callable[..., None]:
    """Write the adjoint of :func:`products` for n columns: see :func:`pulls`.

    Four copies at a time: the sums of all columns stay in registers, and a row is read, and made
    float64, once for all of them.
    """

    @_intrinsic
    def tile(_context, x, x_start, dim, copies, w, w_start, g, g_start):  # type: ignore[no-untyped-def]
        def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            rows = Flat(context, builder, x, arguments[0])
            weights = Flat(context, builder, w, arguments[4])
            to = Flat(context, builder, g, arguments[6])
            x_at, n_rows, n_copies = arguments[1:4]
            w_at, g_at = arguments[5], arguments[7]
            word = n_rows.type
            row_line = builder.mul(n_copies, word(2 * EIGHT))

            def four_copies(start: Any) -> list[Any]:
                sums = Sums(builder, n * FOUR)
                with _cgutils.for_range(builder, n_rows) as row:
                    here = builder.mul(row.index, word(2 * EIGHT))
                    factor_at = builder.add(w_at, builder.mul(here, n_rows))
                    factors = [
                        weights.load(builder.add(factor_at, word(EIGHT * k))) for k in range(2 * n)
                    ]
                    at = builder.add(start, builder.mul(row.index, row_line))
                    for k in range(2 * FOUR):
                        value = rows.load(builder.add(at, word(EIGHT * k)))
                        for b in range(n):
                            sums.add(b * FOUR + k // 2, factors[2 * b + k % 2], value)
                return [
                    half_totals(builder, [sums[b * FOUR + k] for k in range(FOUR)])
                    for b in range(n)
                ]

            with _cgutils.for_range(builder, builder.udiv(n_copies, word(EIGHT))) as block:
                start = builder.add(x_at, builder.mul(word(2 * EIGHT * EIGHT), block.index))
                one = four_copies(start)
                other = four_copies(builder.add(start, word(2 * EIGHT * FOUR)))
                for b in range(n):
                    place = builder.add(g_at, builder.mul(block.index, word(EIGHT)))
                    place = builder.add(place, builder.mul(n_copies, word(b)))
                    total = totals(builder, one[b], other[b])
                    to.store(builder.fsub(to.load(place), total), place)
            return context.get_dummy_value()

        whole = _types.intp
        return _types.void(x, whole, whole, whole, w, whole, g, whole), generate

    result: Callable[..., None] = tile
    return result


_pulls_1, _pulls_2, _pulls_3 = _pulls(1), _pulls(2), _pulls(3)
_pulls_4, _pulls_5 = _pulls(4), _pulls(5)


@partial(compiled, allocates=False)
def pulls(
    x: Numbers, x_start: int, dim: int, copies: int, w: Floats, w_start: int, g: Floats,
    g_start: int,
) -> None:  # fmt: skip
    """Subtract Σ_ar w_abr x_iar from g_bi: sixteen rows r, ``dim`` a and b, ``copies`` i.

    x is (dim, copies, 16) from ``x_start`` on, w (dim, dim, 16), g (dim, copies); copies are a
    multiple of eight.
    """
    left = dim
    while left > 0:
        some = left if left <= 5 else (4 if left == 8 else (5 if left != 6 else 3))
        if some == 5:
            _pulls_5(x, x_start, dim, copies, w, w_start, g, g_start)
        elif some == 4:
            _pulls_4(x, x_start, dim, copies, w, w_start, g, g_start)
        elif some == 3:
            _pulls_3(x, x_start, dim, copies, w, w_start, g, g_start)
        elif some == 2:
            _pulls_2(x, x_start, dim, copies, w, w_start, g, g_start)
        else:
            _pulls_1(x, x_start, dim, copies, w, w_start, g, g_start)
        left -= some
        w_start += 2 * EIGHT * some
        g_start += some * copies
