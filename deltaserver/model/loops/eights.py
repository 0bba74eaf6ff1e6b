"""Eight numbers as one value of compiled loops: what one line says is done to all of them at once.

The compiler turns long loops into vector instructions, if it sees that arrays do not overlap. Of
many geometries that go by together there is nothing for it to see: an :data:`EIGHT` is a vector, +
− · / and the functions below are its instructions. A processor of shorter vectors takes several
for one. Arrays are flat, eight numbers lie side by side from ``index`` on; products are fused with
sums. Where there are fewer than eight geometries, the last one fills up.
"""

from __future__ import annotations

import importlib
import operator
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deltaserver.compute.jit import compiled
from deltaserver.model.loops.sum import LN2_HIGH, LN2_LOW, LOG2_E, SHIFT

Floats = NDArray[np.float64]

LANES = 8
_ir = importlib.import_module("llvmlite.ir")
_types = importlib.import_module("numba.core.types")
_cgutils = importlib.import_module("numba.core.cgutils")
_arrays = importlib.import_module("numba.np.arrayobj")
_extending = importlib.import_module("numba.extending")
_intrinsic = _extending.intrinsic

_WORD = _ir.IntType(64)
_VECTOR = _ir.VectorType(_ir.DoubleType(), LANES)
_WORDS = _ir.VectorType(_WORD, LANES)
_FLAGS = ("contract", "nsz")


class _EightType(_types.Type):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__(name="Eight")


EIGHT = _EightType()


@_extending.register_model(_EightType)
class _EightModel(_extending.models.PrimitiveModel):  # type: ignore[misc, name-defined]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _spread(builder: Any, number: Any) -> Any:
    """Return one number as all eight of a vector."""
    none = _ir.Constant(_VECTOR, _ir.Undefined)
    first = builder.insert_element(none, number, _ir.IntType(32)(0))
    zeros = _ir.Constant(_ir.VectorType(_ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(first, none, zeros)


def _lanes(builder: Any, kind: Any, value: Any) -> Any:
    return value if kind is EIGHT else _spread(builder, value)


def _operation(name: str) -> Any:
    """Write one of the four operations of two eights, or of an eight and a number."""

    @_intrinsic
    def apply(_context, one, other):  # type: ignore[no-untyped-def]
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            a, b = (_lanes(builder, *pair) for pair in zip((one, other), arguments, strict=True))
            return getattr(builder, name)(a, b, flags=_FLAGS)

        return EIGHT(one, other), generate

    return apply


_KINDS = (EIGHT, _types.float64)


def _overload(symbol: Callable[[Any, Any], Any], name: str) -> None:
    apply = _operation(name)

    @_extending.overload(symbol)
    def found(one, other):  # type: ignore[no-untyped-def]
        if EIGHT in (one, other) and one in _KINDS and other in _KINDS:
            return lambda one, other: apply(one, other)
        return None


_overload(operator.add, "fadd")
_overload(operator.sub, "fsub")
_overload(operator.mul, "fmul")
_overload(operator.truediv, "fdiv")


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    start = _arrays.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(start, [index]), _VECTOR.as_pointer())


@_intrinsic
def load(_context, array, index):  # type: ignore[no-untyped-def]
    """Return the eight numbers of a flat array from ``index`` on."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.load(_place(context, builder, array, *arguments), align=8)

    return EIGHT(array, _types.intp), generate


@_intrinsic
def store(_context, array, index, value):  # type: ignore[no-untyped-def]
    """Put eight numbers at ``index`` and after."""

    def generate(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        place = _place(context, builder, array, arguments[0], arguments[1])
        builder.store(arguments[2], place, align=8)
        return context.get_dummy_value()

    return _types.void(array, _types.intp, EIGHT), generate


@_intrinsic
def everywhere(_context, number):  # type: ignore[no-untyped-def]
    """Return one number as all eight."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return _spread(builder, arguments[0])

    return EIGHT(_types.float64), generate


def _called(name: str, n: int) -> Any:
    """Write a function of LLVM of n eights."""

    def function(builder: Any) -> Any:
        kind = _ir.FunctionType(_VECTOR, [_VECTOR] * n)
        return _cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}.v8f64")

    if n == 1:

        @_intrinsic
        def of_one(_context, _one):  # type: ignore[no-untyped-def]
            def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
                return builder.call(function(builder), arguments)

            return EIGHT(EIGHT), generate

        return of_one

    @_intrinsic
    def of_two(_context, _one, _other):  # type: ignore[no-untyped-def]
        def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
            return builder.call(function(builder), arguments)

        return EIGHT(EIGHT, EIGHT), generate

    return of_two


root = _called("sqrt", 1)
larger = _called("maxnum", 2)
smaller = _called("minnum", 2)


@_intrinsic
def _times_power(_context, _series, _shifted):  # type: ignore[no-untyped-def]
    """Return series · 2ⁿ of n in the last bits of ``shifted``."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        series, shifted = arguments
        bits = builder.bitcast(shifted, _WORDS)
        bits = builder.add(bits, _ir.Constant(_WORDS, [1023] * LANES))
        bits = builder.shl(bits, _ir.Constant(_WORDS, [52] * LANES))
        return builder.fmul(series, builder.bitcast(bits, _VECTOR))

    return EIGHT(EIGHT, EIGHT), generate


@partial(compiled, allocates=False)
def exponential(x: Any) -> Any:
    """Return exp x for x ≤ 0, to two units in the last place: see ``loops.sum``."""
    x = larger(x, everywhere(-708.0))
    shifted = x * LOG2_E + SHIFT
    n = shifted - SHIFT
    r = (x - n * LN2_HIGH) - n * LN2_LOW
    s = r * r
    even = s * (1.0 / 479001600.0) + 1.0 / 3628800.0
    even = even * s + 1.0 / 40320.0
    even = even * s + 1.0 / 720.0
    even = even * s + 1.0 / 24.0
    even = even * s + 0.5
    odd = s * (1.0 / 6227020800.0) + 1.0 / 39916800.0
    odd = odd * s + 1.0 / 362880.0
    odd = odd * s + 1.0 / 5040.0
    odd = odd * s + 1.0 / 120.0
    odd = odd * s + 1.0 / 6.0
    return _times_power(r + s * (even + r * odd) + 1.0, shifted)


@partial(compiled, allocates=False)
def gather(x: Floats, at: Floats) -> None:
    """Fill at (n, 3, 8) with geometries x (≤ 8, n, 3), the last one as often as it takes."""
    last = len(x) - 1
    for lane in range(LANES):
        one = x[min(lane, last)]
        for i in range(len(one)):
            for k in range(3):
                at[(3 * i + k) * LANES + lane] = one[i, k]


@partial(compiled, allocates=False)
def spread(at: Floats, lane: int, factor: float, one: Floats) -> None:
    """Fill one (n, 3) with one of the eight of at (n, 3, 8), times a factor."""
    for i in range(len(one)):
        for k in range(3):
            one[i, k] = factor * at[(3 * i + k) * LANES + lane]


@partial(compiled, allocates=False)
def spread_stress(stress: Floats, lane: int, virial: Floats) -> None:
    """Fill the virial (3, 3) with one of the eight of −stress (6, 8)."""
    k = 0
    for i in range(3):
        for j in range(i, 3):
            virial[i, j] = virial[j, i] = -stress[k * LANES + lane]
            k += 1


@partial(compiled, allocates=False)
def place(at: Floats, i: int) -> tuple[Any, Any, Any]:
    """Return x, y and z of the place i of at (n, 3, 8)."""
    here = 3 * i * LANES
    return load(at, here), load(at, here + LANES), load(at, here + 2 * LANES)


@partial(compiled, allocates=False)
def apart(at: Floats, i: int, j: int) -> tuple[Any, Any, Any, Any]:
    """Return the displacement of the place i of at (n, 3, 8) from the place j, and its square."""
    x, y, z = place(at, i)
    x_, y_, z_ = place(at, j)
    dx, dy, dz = x - x_, y - y_, z - z_
    return dx, dy, dz, dx * dx + dy * dy + dz * dz


@partial(compiled, allocates=False)
def add_place(at: Floats, i: int, sign: float, x: Any, y: Any, z: Any) -> None:
    """Add ``sign`` times x, y and z to the place i of at (n, 3, 8)."""
    here = 3 * i * LANES
    store(at, here, load(at, here) + x * sign)
    store(at, here + LANES, load(at, here + LANES) + y * sign)
    store(at, here + 2 * LANES, load(at, here + 2 * LANES) + z * sign)


@partial(compiled, allocates=False)
def add_stress_of_eight(stress: Floats, fx: Any, fy: Any, fz: Any, x: Any, y: Any, z: Any) -> None:
    """Add the symmetric f ⊗ d of forces along d to stress (6, 8)."""
    store(stress, 0, load(stress, 0) + fx * x)
    store(stress, LANES, load(stress, LANES) + fx * y)
    store(stress, 2 * LANES, load(stress, 2 * LANES) + fx * z)
    store(stress, 3 * LANES, load(stress, 3 * LANES) + fy * y)
    store(stress, 4 * LANES, load(stress, 4 * LANES) + fy * z)
    store(stress, 5 * LANES, load(stress, 5 * LANES) + fz * z)


@partial(compiled, allocates=False)
def fill_stress(at: Floats, forces: Floats, stress: Floats) -> None:
    """Fill stress (6, 8) with −Σ F ⊗ r of forces (n, 3, 8) that add up to none at (n, 3, 8).

    Distances are counted from the first place, so that it does not matter where the origin is.
    """
    stress[:] = 0.0
    x, y, z = place(at, 0)
    for i in range(1, len(at) // (3 * LANES)):
        x_, y_, z_ = place(at, i)
        fx, fy, fz = place(forces, i)
        add_stress_of_eight(stress, fx, fy, fz, x - x_, y - y_, z - z_)
