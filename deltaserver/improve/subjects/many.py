"""Many molecules, whose dynamics shows dimers: those are labelled, and the model of two learns.

Beside the models of a round, ``models``, stands the complex of two that was trained, ``pair``.
Training works on that one; then its binding with its prior, and its molecules, take the places of
those that the models of many had of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError
from deltaserver.evaluation.of_many import pair_of
from deltaserver.improve.doubt import Compared, Doubt
from deltaserver.improve.dynamics import Limits, Runs
from deltaserver.improve.retrain import trained_there
from deltaserver.improve.seen import Seen
from deltaserver.improve.settings import Settings, round_paths
from deltaserver.improve.subjects.base import Subject, copy_models, limits_at
from deltaserver.improve.subjects.dimers import Watch, groups_of, looks_at, touching
from deltaserver.improve.subjects.served import Place, put_into
from deltaserver.model import force_field
from deltaserver.model.directories import MANIFEST_NAME, STRUCTURE_NAME
from deltaserver.model.many.manifest import ManyManifest, read_many
from deltaserver.model.many.model import ManyModel
from deltaserver.model.trust import NOVELTY_LIMIT
from deltaserver.textio.journal import write_atomically
from deltaserver.textio.structures import read_first
from deltaserver.training.components import BINDING, Component, components
from deltaserver.training.directory.files import read_report, write_served

DRAWS = 1 << 21  # beyond the number of any run
FAR = 2.0  # times the novelty that is usual: of many pairs one is always new
Files = Mapping[str, Path]


class ManyMolecules(Subject):
    """Models of many molecules whose pairs are the complex of ``base``; see :class:`Subject`.

    Raises:
        InputError: ``base`` is of no two of them, or it is not told how their binding was trained.
    """

    def __init__(
        self, settings: Settings, base: LabelledFrames, say: Callable[[str], None]
    ) -> None:
        models = settings.models
        record = settings.pair or models
        many, self.start = load_started(models)
        pair = pair_of(many, base, models)
        self.binding = next(k for k, one in enumerate(many.pairs) if one is pair)
        self._files = _files(read_many(models), pair.species, base)
        parts = _parts(record, self._files, base)
        super().__init__(settings, base, record, parts, say)
        self._record = record
        if pair.fade is not None:
            raise DataError(
                f"{models}: the binding of two ends over fade, so that two are no complex; train "
                "it with --prior pairs, which ends it, and assemble again"
            )

    def begin(self) -> None:
        """Copy the models, and make the complex of two that they are of."""
        settings, pair = self.settings, self.trained(0)
        copy_models(settings.models, round_paths(settings.output, 0).models)
        if (pair / MANIFEST_NAME).exists():
            return
        _copy(self._files, pair)
        report = read_report(self._record)
        names = [part.name for part in self.parts]
        report["components"] = {name: report["components"][name] for name in names}
        write_served(pair, self.base, components(self.base), self.split, report)

    def trained(self, number: int) -> Path:
        """Return the complex of two of a round."""
        return round_paths(self.settings.output, number).pair

    def prepare(self, number: int) -> None:
        """Copy what is not trained, without which the complex of two is not whole."""
        trained = {part.name for part in self.parts}
        rest = {name: path for name, path in self._files.items() if name not in trained}
        _copy(rest, self.trained(number))

    def serve(self, number: int) -> None:
        """Write the models of many with what was trained of two."""
        pair = self.trained(number)
        files = {self._files[part.name].name: pair / f"{part.name}.npz" for part in self.parts}
        first, now = (round_paths(self.settings.output, k).models for k in (0, number))
        place = Place(self._files[BINDING].name, self.start)
        put_into(first, now, place, files, read_report(pair))

    def see(
        self, doubt: Compared, number: int, seed: tuple[int, ...], wanted: float, *, returning: bool
    ) -> Seen:
        """Run all molecules from ``structure.xyz``; what is seen are pairs of them that touch."""
        assert isinstance(doubt, Doubt)
        model, frames = run_many(self.settings, self.start, number, seed, returning=returning)
        cut = partial(touching, model, self.binding)
        of_two = limits_at(doubt, cut(self.start), wanted, np.inf)
        newest = returning and self.settings.selection != "random"
        rng = np.random.default_rng([*seed, DRAWS])
        by = doubt.binding_novelty if newest else None
        return groups_of(frames, cut, looks_at(doubt), of_two, rng, by)


def run_many(
    settings: Settings, start: Floats, number: int, seed: tuple[int, ...], *, returning: bool
) -> tuple[ManyModel, Seen]:
    """Run all molecules of round ``number`` from ``start`` (N, 3), Å; return model and frames."""
    directory = round_paths(settings.output, number).models
    model = force_field.load(directory, threads=settings.threads)
    assert isinstance(model, ManyModel)
    watch = Watch(model)
    starts = np.repeat(start[None], settings.dynamics.runs, axis=0)
    usual = float(watch(starts[:1], model.evaluate(starts[:1])).novelty[0])
    limits = Limits(max(NOVELTY_LIMIT, FAR * usual), np.inf, np.inf)
    return model, Runs(watch, settings.dynamics, limits, seed, returning).run(starts)


def load_started(models: Path) -> tuple[ManyModel, Floats]:
    """Return the models and their structure, from which runs start, Å, (N, 3)."""
    many = force_field.load(models)
    assert isinstance(many, ManyModel)
    path = models / STRUCTURE_NAME
    frame = read_first(path) if path.is_file() else None
    if frame is None or not np.array_equal(frame.numbers, many.numbers):
        raise DataError(
            f"{path}: not the molecules of model.yaml, from which the dynamics is to start; make "
            "the directory with deltaserver assemble --structure"
        )
    many.check_structure(frame.positions, many.cell)
    return many, frame.positions


def _copy(files: Files, pair: Path) -> None:
    pair.mkdir(parents=True, exist_ok=True)
    for name, path in files.items():
        write_atomically(pair / f"{name}.npz", path.read_bytes())


def _files(manifest: ManyManifest, kinds: tuple[int, int], base: LabelledFrames) -> Files:
    """Return the model files of two molecules and of their binding, by component of ``base``."""
    found = {}
    for part in components(base):
        if part.name == BINDING:
            entry = next(one for one in manifest.bindings if one.between == kinds)
            if entry.model is not None:
                found[BINDING] = entry.model
        elif part.is_fragment and not part.is_lone_atom:
            model = manifest.species[kinds[part.members[0]]].model
            assert isinstance(model, Path)
            found[part.name] = model
    return found


def _parts(record: Path, files: Files, base: LabelledFrames) -> tuple[Component, ...]:
    """Return what is trained: the binding, and molecules whose models are those of the record.

    Raises:
        DataError: it is not told how the binding was trained, or that is another one.
    """
    there = {part.name: part for part in trained_there(record, base)}
    if BINDING not in there:
        raise DataError(
            f"{record}: no record of how the binding of two was trained; give the directory that "
            "deltaserver train made, with its training.json: --pair DIR"
        )
    same = {
        name for name in files if (record / f"{name}.npz").is_file()
        and (record / f"{name}.npz").read_bytes() == files[name].read_bytes()
    }  # fmt: skip
    if BINDING not in same:
        raise DataError(
            f"{record}: its binding.npz is not the binding of two molecules of the models; give "
            "--pair the directory that they were assembled from"
        )
    return tuple(part for name, part in there.items() if name in same)
