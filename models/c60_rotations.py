"""Write the permutations that turn C60 and the catcher: models/c60_rotations.py OUTPUT.npz

Of the 480 products of the two bonded graphs' automorphisms these are the 240 that a rotation of
each molecule brings about, or a reflection of both: distances, which the descriptor is made of,
do not tell a complex from its mirror image, so that every training point shows one more
orientation of the guest. The others mirror one molecule alone, which no motion does.

With 60 points on a pair potential, 120 permutations give a force error of 0.158 kcal/mol/Å on
orientations that nothing was trained on, 240 give 0.138.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from deltaserver.datasets.files import read_dataset
from deltaserver.training.components import choose, components, labelled_set
from deltaserver.training.symmetry_modes import resolve

DATASET = Path(__file__).parents[1] / "data" / "c60_buckycatcher_turned"


def is_rotation(before, after):
    """Whether turning fits ``before`` (N, 3) onto ``after`` better than turning and mirroring."""
    covariance = (after - after.mean(axis=0)).T @ (before - before.mean(axis=0))
    return np.linalg.det(covariance) > 0.0


def main(output):
    frames = read_dataset(DATASET)
    parts = components(frames)
    binding = choose(parts, "binding")[0]
    data = labelled_set(frames, binding)
    perms = resolve("product", frames, parts, binding, data, np.arange(1)).perms
    x = frames.positions[0]
    turned = [
        [is_rotation(x[atoms], x[p[atoms]]) for p in perms]
        for atoms in (np.array(fragment.atoms) for fragment in frames.fragments)
    ]
    perms = perms[np.array(turned[0]) == np.array(turned[1])]
    Path(output).parent.mkdir(parents=True, exist_ok=True)
    np.savez(output, binding=perms)


if __name__ == "__main__":
    main(sys.argv[1])
