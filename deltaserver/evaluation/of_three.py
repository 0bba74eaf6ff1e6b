"""What a directory of many molecules says of trimers beyond their pairs, as it is served.

Three errors tell what is worth its cost: those of no three-body term at all, of dispersion and
induction, and of these with a kernel. Ends are counted too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.compute.thread_pool import ONE_THREAD
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError
from deltaserver.evaluation.held_out_errors import OVERALL, ComponentErrors, FrameErrors, labels_of
from deltaserver.evaluation.leakage import refuse_seen, trained_on
from deltaserver.evaluation.of_many import is_named
from deltaserver.evaluation.splits import SplitRequest
from deltaserver.evaluation.workflow import EvaluationPlan, resampled, test_frames
from deltaserver.model import force_field
from deltaserver.model.manifest import PRIOR, TRIPLES
from deltaserver.model.many.manifest import is_of_many
from deltaserver.model.many.model import ManyModel
from deltaserver.model.many.molecules import Total, of_threes, threes
from deltaserver.model.many.triple_binding import TripleBinding
from deltaserver.model.trust import methods
from deltaserver.statistics.bootstrap import BlockBootstrap

NONE = "none"  # of the components: pairs alone
AT_ONCE = 256  # trimers


@dataclass(frozen=True)
class OfThree:
    """What a directory has of the three molecules of a dataset.

    Attributes:
        label: what tables call it.
        directory: where it is.
        model: of many molecules.
        species: of the three.
        sizes: atoms of each.
        binding: of three, or None.
    """

    label: str
    directory: Path
    model: ManyModel
    species: tuple[int, int, int]
    sizes: tuple[int, int, int]
    binding: TripleBinding | None

    @property
    def known(self) -> bool:
        """Return whether there is dispersion or induction."""
        dispersion = self.binding is not None and self.binding.prior is not None
        return dispersion or self.model.induction is not None

    @property
    def learned(self) -> bool:
        """Return whether there is a kernel."""
        return self.binding is not None and self.binding.model is not None

    def evaluate(self, x: Floats) -> dict[str, tuple[Floats, Floats]]:
        """Return energies (T,), eV, and forces, eV/Å, of trimers (T, N, 3), Å, by component."""
        parts = [self._some(x[k : k + AT_ONCE]) for k in range(0, len(x), AT_ONCE)]
        return {
            name: (
                np.concatenate([part[name][0] for part in parts]),
                np.concatenate([part[name][1] for part in parts]),
            )
            for name in parts[0]
        }

    def _some(self, x: Floats) -> dict[str, tuple[Floats, Floats]]:
        frame, numbers = threes(x, self.species, self.sizes, len(self.model.species))
        total, found = Total.zero(frame), {NONE: (np.zeros(len(x)), np.zeros(x.shape))}

        def so_far() -> tuple[Floats, Floats]:
            one = of_threes(total, frame, numbers, self.species, x)
            return one.energy, one.forces

        if self.binding is not None:
            self.binding.add_prior(frame, ONE_THREAD, total)
        if self.model.induction is not None:
            self.model.induction.add(frame, ONE_THREAD, total)
        if self.known:
            found[PRIOR] = so_far()
        if self.binding is not None and self.binding.model is not None:
            self.binding.add_model(frame, self.binding.near(frame), ONE_THREAD, total)
            found[TRIPLES] = so_far()
        return found


@dataclass(frozen=True)
class EvaluatedThree:
    """Errors of what three molecules have beyond their pairs.

    Attributes:
        dataset: the path it was read from, as the user gave it.
        frames: all of the dataset.
        test: the held-out frames.
        request: how they were chosen.
        models: the directories.
        results: errors of every component of each.
        bootstrap: the resamples behind every interval.
    """

    dataset: str
    frames: LabelledFrames
    test: LabelledFrames
    request: SplitRequest
    models: tuple[OfThree, ...]
    results: tuple[ComponentErrors, ...]
    bootstrap: BlockBootstrap

    @property
    def notes(self) -> list[str]:
        """Return what is to be known of these errors."""
        known = ", ".join(one.label for one in self.models if one.known)
        models = [(one.label, one.model.reference) for one in self.models]
        other = methods.labels_of_another(self.frames.reference, models)
        notes = [f"{other}."] if other else []
        if known:
            notes.append(
                f"model.yaml does not tell which frames dispersion and induction of {known} were "
                "fitted to: test on trajectories that were held out."
            )
        return notes


def evaluate_three(
    dataset: Path, frames: LabelledFrames, directories: Sequence[Path], plan: EvaluationPlan
) -> EvaluatedThree:
    """Evaluate directories of many molecules on held-out trimers.

    Raises:
        InputError: a directory that does not fit, a split that cannot be made, test frames that a
            kernel has seen.
    """
    labels = labels_of(directories)
    models = tuple(
        load_three(label, directory, frames)
        for label, directory in zip(labels, directories, strict=True)
    )
    seen = {one.label: _seen(one, frames) for one in models}
    known = np.unique(np.concatenate([np.zeros(0, dtype=np.int64), *seen.values()]))
    chosen = test_frames(frames, known, plan)
    for one in models:
        overlap = np.intersect1d(seen[one.label], chosen)
        refuse_seen(one.directory, TRIPLES, "trained on", overlap, len(chosen))
    test = frames.select(chosen)
    results = tuple(error for one in models for error in _errors(one, test))
    bootstrap = resampled(results, test, plan)
    return EvaluatedThree(str(dataset), frames, test, plan.split, models, results, bootstrap)


def load_three(label: str, directory: Path, frames: LabelledFrames) -> OfThree:
    """Load a directory and find its species that are the dataset's molecules.

    Raises:
        DataError: it is of one complex, or has nothing of these three.
    """
    if not is_of_many(directory):
        raise DataError(
            f"{directory}: of one complex, and {frames.name} is of order 3, what three molecules "
            "have beyond their pairs; give a directory of many molecules, as deltaserver assemble "
            "makes them, or evaluate on dimers"
        )
    model = force_field.load(directory)
    assert isinstance(model, ManyModel)
    own = [frames.numbers[np.array(one.atoms)].tolist() for one in frames.fragments]
    fitting = [
        [k for k, one in enumerate(model.species) if one.numbers.tolist() == some] for some in own
    ]
    there = [
        max(some, key=lambda k: is_named(fragment, model.species[k].name))
        for fragment, some in zip(frames.fragments, fitting, strict=True)
        if some
    ]
    atoms = [atom for one in frames.fragments for atom in one.atoms]
    ordered = atoms == list(range(len(atoms))) and there == sorted(there)
    if len(there) == 3 and ordered:
        species = (there[0], there[1], there[2])
        binding = next((one for one in model.triples if one.species == species), None)
        if binding is not None or model.induction is not None:
            sizes = (len(own[0]), len(own[1]), len(own[2]))
            return OfThree(label, directory, model, species, sizes, binding)
    raise DataError(
        f"{directory}: it has nothing that three molecules of {frames.name}, atom by atom, would "
        "have beyond their pairs; train that on trimers, and put it there by deltaserver assemble"
    )


def _seen(one: OfThree, frames: LabelledFrames) -> Ints:
    """Return the frames that a kernel was trained on."""
    if one.binding is None or one.binding.model is None:
        return np.zeros(0, dtype=np.int64)
    return trained_on(one.binding.model, frames.positions)


def _errors(one: OfThree, test: LabelledFrames) -> list[ComponentErrors]:
    found: Mapping[str, tuple[Floats, Floats]] = one.evaluate(test.positions)
    return [
        ComponentErrors(
            one.label,
            name,
            FrameErrors.of(energy - test.binding_energy),
            {OVERALL: FrameErrors.of(forces - test.binding_forces)},
        )
        for name, (energy, forces) in found.items()
    ]
