"""Our own evaluation: compiled loops from positions to forces, or NumPy where there are none."""

from __future__ import annotations

import copy
import math

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.compute import jit
from deltaserver.compute.thread_pool import ONE_THREAD, ThreadPool
from deltaserver.model.descriptor import Geometry, PairDescriptor, as_batch, compiled_cell
from deltaserver.model.engines.base import Engine, Evaluated
from deltaserver.model.files.parameters import ModelParameters
from deltaserver.model.kernel.base import Evaluator, Task
from deltaserver.model.kernel.ways import Ways
from deltaserver.model.kernel.weighted import WeightedSum, sum_of
from deltaserver.model.linear.expansion import Expansion


class NumpyEngine(Engine):
    """The kernel sum of :mod:`deltaserver.model.kernel`, and a linear expansion if there is one."""

    def __init__(self, parameters: ModelParameters, pool: ThreadPool = ONE_THREAD) -> None:
        self.parameters = parameters
        self._pairs = PairDescriptor(len(parameters.numbers))
        self._sum = sum_of(parameters, self._pairs, pool)
        self._loops = self._sum.evaluator()

    def single(self) -> NumpyEngine:
        """Return the same engine with training points that are stored in single precision."""
        found = copy.copy(self)
        found._sum = self._sum.single()
        found._loops = found._sum.evaluator()
        return found

    def gradient(self, descriptor: Floats) -> Floats:
        """Return −∂E/∂D (B, D) of the kernel sum at descriptors (B, D), in units of std."""
        return self._sum(descriptor)[1]

    @property
    def compiled(self) -> bool:
        """See :class:`Engine`."""
        return self._sum.compiled

    def evaluate(self, x: Floats, cell: Floats | None, scale: float) -> Evaluated:
        """See :class:`Engine`."""
        linear = self.parameters.linear
        if linear is None:
            return self._evaluate(x, cell, scale)
        if isinstance(self._sum, WeightedSum):
            return self._evaluate_faded(self._sum, linear, x, cell, scale)
        result = self._evaluate(x, cell, scale)
        for array, addend in zip(result, linear.evaluate(x, cell), strict=True):
            array += addend * scale
        return result

    def _evaluate_faded(
        self,
        total: WeightedSum,
        linear: Expansion,
        x: Floats,
        cell: Floats | None,
        scale: float,
    ) -> Evaluated:
        """Kernel sum and linear expansion, fading out together."""
        if jit.AVAILABLE and cell is None and not total.has_sum:
            return self._evaluate_faded_alone(total, linear, x, scale)
        if isinstance(self._loops, Ways):
            return self._evaluate_faded_in_loops(self._loops, linear, x, cell, scale)
        geometry, std = self._geometry(x, cell), self.parameters.std
        more, forces, virial = linear.evaluate(x, cell)
        energy, g, share = total.with_more(geometry.descriptor, more / std)
        pulled, strained = self._pairs.pull_back(g * (std * scale), geometry)
        share = share[:, None, None] * scale
        energy = energy * (std * scale) + self.parameters.c * scale
        return energy, pulled + share * forces, strained + share * virial

    def _evaluate_faded_alone(
        self, total: WeightedSum, linear: Expansion, x: Floats, scale: float
    ) -> Evaluated:
        """Linear expansion without a kernel sum, fading out: in loops."""
        result = linear.evaluate(x)
        total.blocks.fade_in_loops(x, self.parameters.c, result)
        if not np.isfinite(result[0]).all():
            self._geometry(x, None)  # says what is wrong
        for array in result:
            array *= scale
        return result

    def _evaluate_faded_in_loops(
        self, ways: Ways, linear: Expansion, x: Floats, cell: Floats | None, scale: float
    ) -> Evaluated:
        """Kernel sum and linear expansion, fading out together: in loops."""
        addends = linear.evaluate(x, cell)
        for array in addends:
            array *= scale
        share = np.empty(len(x))
        result = self._filled(lambda task: ways.with_more(task, addends[0], share), x, cell, scale)
        for array, addend in zip(result[1:], addends[1:], strict=True):
            array += share[:, None, None] * addend
        return result

    def _evaluate(self, x: Floats, cell: Floats | None, scale: float) -> Evaluated:
        """Kernel sum alone."""
        if self._loops is not None:
            return self._filled(self._loops, x, cell, scale)
        geometry, std = self._geometry(x, cell), self.parameters.std * scale
        energy, g = self._sum(geometry.descriptor)
        return energy * std + self.parameters.c * scale, *self._pairs.pull_back(g * std, geometry)

    def _filled(self, loops: Evaluator, x: Floats, cell: Floats | None, scale: float) -> Evaluated:
        """Return what compiled loops fill."""
        result = (np.empty(len(x)), np.empty(x.shape), np.empty((len(x), 3, 3)))
        std, shift = self.parameters.std * scale, self.parameters.c * scale
        total = loops(Task(x, compiled_cell(cell), std, shift, *result))
        if not math.isfinite(total):
            self._geometry(x, cell)  # says what is wrong
        return result

    def _geometry(self, x: Floats, cell: Floats | None) -> Geometry:
        return self._pairs.geometry(as_batch(x, self._pairs.n_atoms, self.parameters.source), cell)
