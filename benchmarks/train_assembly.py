"""Time the kernel matrix against sgdml's, in one run: ``python benchmarks/train_assembly.py``.

Prints one JSON object. Both assemble the same C60@buckycatcher frames on one core; sgdml fills
all M² ordered pairs' blocks, we the M(M+1)/2 of the lower triangle: "per matrix" compares the
work that is done for the same model, "per block" what one block costs. C60 alone is timed with
all its 120 permutations, the complex with the 480 of the product group.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from sgdml.train import GDMLTrain
from sgdml.utils.desc import Desc

from deltaserver.datasets.files import read_dataset
from deltaserver.training.components import components, fragment_symmetry
from deltaserver.training.matrix import assembly, blocks
from deltaserver.training.symmetry_modes import product_of_fragments

DATA = Path(__file__).parents[1] / "data" / "c60_buckycatcher_gfn2_400K.xyz.gz"
SIGMA = 20.0


def ours(positions, perms, repeats, **options):
    assembly.assemble(positions[:2], perms, SIGMA, **options)  # compiles
    return min(timed(lambda: assembly.assemble(positions, perms, SIGMA, **options), repeats))


def timed(function, repeats):
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        yield time.perf_counter() - began


def theirs(positions, repeats):
    desc = Desc(positions.shape[1], max_processes=1)
    x, jacobians = desc.from_R(positions.reshape(len(positions), -1))
    trainer = GDMLTrain(max_processes=1)
    identity = np.arange(desc.dim)
    assemble = trainer._assemble_kernel_mat
    return min(timed(lambda: assemble(x, jacobians, identity, SIGMA, desc), repeats))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--points", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    frames = read_dataset(DATA)
    M, repeats = options.points, options.repeats
    positions = frames.positions[:: len(frames) // M][:M]
    identity = np.arange(positions.shape[1])[None]
    blocks_of = M * (M + 1) / 2
    sgdml_s, ours_s = theirs(positions, repeats), ours(positions, identity, repeats)
    numpy_s = ours(positions, identity, repeats, backend=blocks)
    c60 = fragment_symmetry(frames, frames.fragments[0], 1000).perms
    whole = product_of_fragments(frames, components(frames)).perms
    result = {
        "n_points": M,
        "sgdml_ms_per_block": 1e3 * sgdml_s / M**2,
        "ours_ms_per_block": 1e3 * ours_s / blocks_of,
        "numpy_ms_per_block": 1e3 * numpy_s / blocks_of,
        "times_faster_per_block": sgdml_s / M**2 / (ours_s / blocks_of),
        "times_faster_per_matrix": sgdml_s / ours_s,
        "numpy_times_faster_per_block": sgdml_s / M**2 / (numpy_s / blocks_of),
        f"c60_{len(c60)}_perms_ms_per_block": 1e3 * ours(positions[:, :60], c60, 1) / blocks_of,
        f"complex_{len(whole)}_perms_ms_per_block": 1e3 * ours(positions, whole, 1) / blocks_of,
    }
    print(json.dumps({k: round(v, 3) for k, v in result.items()}, indent=2))


if __name__ == "__main__":
    main()
