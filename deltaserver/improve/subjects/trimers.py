"""Many molecules, whose dynamics shows trimers: those are labelled, and what three have learns.

Beside the models of a round, ``models``, stands what was trained of three, ``three``: dispersion,
induction and, if the first models had one, a kernel. They take the places of those before. Pairs
and molecules stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError
from deltaserver.evaluation.held_out_errors import FrameErrors
from deltaserver.evaluation.of_three import NONE, load_three
from deltaserver.improve.doubt import Compared, DoubtOfThree
from deltaserver.improve.dynamics import Limits
from deltaserver.improve.measure import told
from deltaserver.improve.retrain import SYMMETRY_NAME, plan_of
from deltaserver.improve.seen import Seen, positions_of
from deltaserver.improve.settings import Settings, round_paths
from deltaserver.improve.subjects.base import Subject, copy_models
from deltaserver.improve.subjects.dimers import groups_of, near
from deltaserver.improve.subjects.many import DRAWS, load_started, run_many
from deltaserver.improve.subjects.served import Three, put_three_into
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.directories import BINDINGS_NAME, REPORT_NAME
from deltaserver.model.files.parameters import ModelParameters, read_parameters
from deltaserver.model.fragment_blocks import FragmentBlocks, owner_of
from deltaserver.model.sgdml import resolve_units
from deltaserver.model.trust import NOVELTY_LIMIT
from deltaserver.textio.journal import write_atomically
from deltaserver.training.components import BINDING, choose, components
from deltaserver.training.directory.files import read_report, split_settings
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.symmetry import DEFAULT_CAP
from deltaserver.training.three.checks import TRIPLES
from deltaserver.training.three.exchange import product_with_exchange
from deltaserver.training.three.flowing import Flowing

CUTS = 1 << 22  # beyond what draws of groups begin with


class Trimers(Subject):
    """Models of many molecules of which three are those of ``base``; see :class:`Subject`.

    Raises:
        InputError: ``base`` is of no three of them, or it is not told how their binding was
            trained.
    """

    def __init__(
        self, settings: Settings, base: LabelledFrames, say: Callable[[str], None]
    ) -> None:
        models, record = settings.models, settings.pair
        many, self.start = load_started(models)
        found = load_three(models.name, models, base)
        if record is None:
            raise DataError(
                f"{settings.dataset}: of trimers; give the directory that deltaserver train made "
                f"of what three of {models} have beyond their pairs: --trimers DIR"
            )
        told_of = read_report(record)["components"].get(BINDING, {})
        if not (record / BINDINGS_NAME).is_file() or "n_train" not in told_of:
            raise DataError(
                f"{record}: no record of how the binding of three was trained; give the directory "
                "that deltaserver train made of trimers, with its training.json: --trimers DIR"
            )
        self._names = [many.species[kind].name for kind in found.species]
        if not Three(record / BINDINGS_NAME, self._names).is_in(models):
            raise DataError(
                f"{record}: its {BINDINGS_NAME} is not what three molecules of {models} have; give "
                "--trimers the directory that they were assembled from"
            )
        self._told, self._record = told_of, record
        self._kernel = bool(told_of["n_train"])
        if "induction" in told_of:  # whose charges each round takes
            Flowing.read(models, base, components(base), DEFAULT_CAP)
        bindings = found.model.triples
        self._place = next(k for k, one in enumerate(bindings) if one is found.binding)
        super().__init__(settings, base, record, choose(components(base), BINDING), say)

    def begin(self) -> None:
        """Copy the models, and what was trained of three."""
        settings, three = self.settings, self.trained(0)
        copy_models(settings.models, round_paths(settings.output, 0).models)
        three.mkdir(parents=True, exist_ok=True)
        for name in (f"{BINDING}.npz",) * self._kernel + (REPORT_NAME, BINDINGS_NAME):
            write_atomically(three / name, (self._record / name).read_bytes())

    def trained(self, number: int) -> Path:
        """Return what was trained of three in a round."""
        return round_paths(self.settings.output, number).three

    def prepare(self, number: int) -> None:
        """Leave it: all of it is trained."""

    def permutations(self) -> Path:
        """Return where a kernel's are; a prior has none to keep."""
        return super().permutations() if self._kernel else self.settings.output / SYMMETRY_NAME

    def plans(self, number: int, n_added: int) -> list[TrainingPlan]:
        """Return how round ``number`` fits what is known of three, and trains a kernel on it."""
        settings, first = self.settings, self.trained(0)
        induction = settings.models if "induction" in self._told else None
        if self._kernel:
            before, (part,) = self.trained(number - 1), self.parts
            plan = plan_of(first, before, part, n_added, settings.threads)
            prior = TRIPLES if "prior" in self._told else "none"
            return [replace(plan, prior=prior, induction=induction)]
        report = read_report(first)
        return [
            TrainingPlan(
                n_train=0,
                n_valid=int(self._told["identity"]["n_valid"]),
                component=BINDING,
                prior=TRIPLES,
                induction=induction,
                seed=int(report.get("seed", 0)),
                threads=settings.threads,
                **split_settings(report, BINDING),
            )
        ]

    def serve(self, number: int) -> None:
        """Write the models of many with what was trained of three."""
        first, now = (round_paths(self.settings.output, k).models for k in (0, number))
        three = Three(self.trained(number) / BINDINGS_NAME, self._names)
        put_three_into(first, now, three, self.start)

    def doubt(self, number: int) -> DoubtOfThree:
        """Return the measures of a kernel, or of the trimers that a prior was fitted to."""
        path = self.trained(number) / f"{BINDING}.npz"
        if self._kernel:
            parameters = read_parameters(path)
            return DoubtOfThree(parameters, resolve_units(parameters).length_ang)
        base = self.base
        rounds = [round_paths(self.settings.output, k) for k in range(1, number + 1)]
        x = [base.positions[self.train], *(positions_of(r.dynamics, r.chosen) for r in rounds)]
        return DoubtOfThree(_points(base, np.concatenate(x)), 1.0)

    def errors(self, number: int, frames: LabelledFrames) -> dict[str, Any]:
        """Return errors of what three have beyond their pairs, and those without it."""
        models = round_paths(self.settings.output, number).models
        found = load_three(models.name, models, self.base).evaluate(frames.positions)
        last = list(found)[-1]
        parts = {}
        for name, of in (("total", last), ("pairs alone", NONE)):
            energy, forces = found[of]
            parts[name] = told(
                FrameErrors.of(energy - frames.binding_energy),
                FrameErrors.of(forces - frames.binding_forces),
            )
        return {"parts": parts, "within": None}

    def see(
        self, doubt: Compared, number: int, seed: tuple[int, ...], wanted: float, *, returning: bool
    ) -> Seen:
        """Run all molecules from ``structure.xyz``; what is seen are triples within reach."""
        assert isinstance(doubt, DoubtOfThree)
        model, frames = run_many(self.settings, self.start, number, seed, returning=returning)
        cut = partial(near, model, self._place, np.random.default_rng([*seed, CUTS]))
        newest = returning and self.settings.selection != "random"
        rng = np.random.default_rng([*seed, DRAWS])
        limits = Limits(NOVELTY_LIMIT, np.inf, np.inf)
        return groups_of(frames, cut, doubt, limits, rng, doubt.novelty if newest else None)


def _points(base: LabelledFrames, x: Floats) -> ModelParameters:
    """Return trimers (M, N, 3), Å, as a kernel would have them, which compares molecules."""
    fragment, n = owner_of([one.atoms for one in base.fragments]), len(base.fragments)
    descriptor = PairDescriptor(len(base.numbers)).geometry(x).descriptor
    perms = product_with_exchange(base, components(base), DEFAULT_CAP).perms
    blocks = FragmentBlocks(fragment, 1.0 - np.eye(n))
    nothing = np.zeros(descriptor.shape)
    return ModelParameters(base.numbers, descriptor, nothing, perms, 1.0, 0.0, blocks=blocks)
