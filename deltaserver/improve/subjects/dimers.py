"""Every two molecules that touch, or three that are near, cut out of the dynamics of many."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.sampling.dynamics import POSITION_DECIMALS
from deltaserver.evaluation.held_out_errors import TOTAL, evaluate_batches
from deltaserver.improve.choose import MOST_CANDIDATES
from deltaserver.improve.doubt import Doubt, Look
from deltaserver.improve.dynamics import Limits
from deltaserver.improve.seen import Seen
from deltaserver.model.composite import CompositeEvaluation
from deltaserver.model.many.model import ManyModel
from deltaserver.model.many.triples import find_triples

POOL = 4 * MOST_CANDIDATES  # groups that are looked at, of all frames
MOST_OF_A_FRAME = 500  # triples: a liquid has some ten thousand


class Watch:
    """Novelty of frames of many molecules: that of the newest molecule, pair or triple."""

    def __init__(self, model: ManyModel) -> None:
        self.model = model
        self._guards = model.guards()

    def __call__(self, positions: Floats, result: CompositeEvaluation) -> Look:
        """Look at frames (B, N, 3), Å, and what the model says of them."""
        found = list(self._guards.novelty(positions, result.contributions, None).values())
        novelty = np.max(found, axis=0) if found else np.zeros(len(positions))
        return Look(novelty, np.full(len(positions), np.nan))


def touching(model: ManyModel, binding: int, x: Floats) -> Floats:
    """Return the pairs of one frame (N, 3) that a binding's model acts on, (P, n, 3), Å.

    Molecules are whole, images moved to where they meet the others; the first one's centre is 0.
    """
    both = model.touching(model.frame(x, model.box(None)), binding)[1]
    first = both[:, : model.pairs[binding].sizes[0]]
    found: Floats = both - first.mean(axis=1, keepdims=True)
    return found


def looks_at(doubt: Doubt) -> Callable[[Floats], Look]:
    """Return what looks at pairs (B, N, 3), Å."""
    return lambda x: doubt(x, evaluate_batches(doubt.model, x, TOTAL))


def near(model: ManyModel, binding: int, rng: np.random.Generator, x: Floats) -> Floats:
    """Return triples of one frame (N, 3) within reach of a binding of three, (T, n, 3), Å.

    As :func:`touching` returns pairs; of very many some, drawn at random.
    """
    frame, three = model.frame(x, model.box(None)), model.triples[binding]
    triples = find_triples(frame.neighbours, three.reach[0]).of(frame.first, three.species)
    some = triples.some(np.sort(rng.permutation(len(triples))[:MOST_OF_A_FRAME]))
    found = [x for _, x in three.joined(frame, some)]
    all_ = np.concatenate(found) if found else np.zeros((0, sum(three.sizes), 3))
    moved: Floats = all_ - all_[:, : three.sizes[0]].mean(axis=1, keepdims=True)
    return moved


def groups_of(
    frames: Seen,
    cut: Callable[[Floats], Floats],
    looking: Callable[[Floats], Look],
    limits: Limits,
    rng: np.random.Generator,
    newest: Callable[[Floats], Floats] | None,
) -> Seen:
    """Return groups out of the frames that were seen, with what their model thinks of them.

    Args:
        frames: of many molecules.
        cut: from a frame to its groups.
        looking: looks at groups.
        limits: what counts as known of them.
        rng: draws.
        newest: the novelty of groups, if half of them are to be the newest of all; None: all are
            drawn at random.
    """
    x, of = _drawn(frames, cut, newest, rng)
    if not len(x):
        return Seen(returns=frames.returns, lost=frames.lost)
    look = looking(x)
    kept = rng.permutation(len(x))
    if newest is not None:
        by_novelty = np.argsort(-look.novelty, kind="stable")[: MOST_CANDIDATES // 2]
        kept = np.concatenate([by_novelty, kept[~np.isin(kept, by_novelty)]])
    kept = np.sort(kept[:MOST_CANDIDATES])
    told = (frames.run, frames.step, frames.temperature)
    run, step, temperature = ([values[n] for n in of[kept]] for values in told)
    return Seen(
        [*x[kept]],
        run,
        step,
        temperature,
        look.novelty[kept].tolist(),
        look.uncertainty[kept].tolist(),
        limits.sure(look)[kept].tolist(),
        frames.returns,
        frames.lost,
    )


def _drawn(
    frames: Seen,
    cut: Callable[[Floats], Floats],
    newest: Callable[[Floats], Floats] | None,
    rng: np.random.Generator,
) -> tuple[Floats, Ints]:
    """Return groups drawn at random, and of which frame each is; with ``newest`` that one too."""
    most = max(1, POOL // max(1, len(frames.positions)))
    found, of = [], []
    for n, frame in enumerate(frames.positions):
        pairs = cut(frame)
        some = rng.permutation(len(pairs))[:most]
        if newest is not None and len(pairs):
            some = np.union1d(some, newest(pairs).argmax())
        found.append(pairs[some].round(POSITION_DECIMALS))
        of += [n] * len(some)
    x = np.concatenate(found) if found else np.zeros((0, 0, 3))
    return x, np.array(of, dtype=np.int64)
