"""Sixteen rows of one-dimensional representations: eight copies side by side in a vector.

Where rows lie side by side (:mod:`deltaserver.model.loops.vectors`) the way back has to add up
every vector, which pays where several columns share the work. Of one dimension there is one
column; here its sums are vectors, added up once, at the end, and on the way back the weights of all
rows stay in registers. Blocks are (copies / 8, 16, 8), and lie one after the other in memory.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.model.loops.vectors import EIGHT, FOUR, Flat, Sums, half_totals, totals

Numbers = NDArray[np.floating[Any]]

ROWS = 2 * EIGHT
_cgutils = importlib.import_module("numba.core.cgutils")
_types = importlib.import_module("numba.core.types")
_intrinsic = importlib.import_module("numba.extending").intrinsic


def in_blocks(rows: Numbers) -> Numbers:
    """Return rows (…, copies, 16) in blocks of eight copies, in an array of the same shape."""
    blocks = rows.reshape(*rows.shape[:-2], -1, EIGHT, ROWS).swapaxes(-1, -2)
    return blocks.reshape(rows.shape)


@_intrinsic
def block_products(_context, x, x_start, copies, y, y_start, out, out_start):  # type: ignore[no-untyped-def]
    """Fill out (16,) with Σ_i x_ri y_i of sixteen rows in blocks."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        rows = Flat(context, builder, x, arguments[0])
        column = Flat(context, builder, y, arguments[3])
        to = Flat(context, builder, out, arguments[5])
        x_at, n_copies, y_at, out_at = arguments[1], arguments[2], arguments[4], arguments[6]
        word = n_copies.type
        sums = Sums(builder, ROWS)
        with _cgutils.for_range(builder, builder.udiv(n_copies, word(EIGHT))) as block:
            factor = column.load(builder.add(y_at, builder.mul(block.index, word(EIGHT))))
            start = builder.add(x_at, builder.mul(block.index, word(EIGHT * ROWS)))
            for r in range(ROWS):
                at = builder.add(start, word(EIGHT * r))
                if rows.single and r % 4 == 0:  # the processor brings the next line by itself
                    rows.ask_ahead(at)
                sums.add(r, rows.load(at), factor)
        for start in range(0, ROWS, EIGHT):
            halves = [
                half_totals(builder, [sums[k + i] for i in range(FOUR)])
                for k in (start, start + FOUR)
            ]
            to.store(totals(builder, *halves), builder.add(out_at, word(start)))
        return context.get_dummy_value()

    whole = _types.intp
    return _types.void(x, whole, whole, y, whole, out, whole), generate


@_intrinsic
def block_pulls(_context, x, x_start, copies, w, w_start, g, g_start):  # type: ignore[no-untyped-def]
    """Subtract Σ_r w_r x_ri of sixteen rows in blocks from g (copies,)."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        rows = Flat(context, builder, x, arguments[0])
        weights = Flat(context, builder, w, arguments[3])
        to = Flat(context, builder, g, arguments[5])
        x_at, n_copies, w_at, g_at = arguments[1], arguments[2], arguments[4], arguments[6]
        word = n_copies.type
        factors = [weights.everywhere(builder.add(w_at, word(r))) for r in range(ROWS)]
        with _cgutils.for_range(builder, builder.udiv(n_copies, word(EIGHT))) as block:
            sums = Sums(builder, FOUR)
            start = builder.add(x_at, builder.mul(block.index, word(EIGHT * ROWS)))
            for r in range(ROWS):
                sums.add(r % FOUR, rows.load(builder.add(start, word(EIGHT * r))), factors[r])
            place = builder.add(g_at, builder.mul(block.index, word(EIGHT)))
            to.store(builder.fsub(to.load(place), sums.total(range(FOUR))), place)
        return context.get_dummy_value()

    whole = _types.intp
    return _types.void(x, whole, whole, w, whole, g, whole), generate
