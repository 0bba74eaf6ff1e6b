"""What many molecules cost: from 64 to 512 benzenes of the shipped crystal, and where it goes.

    python benchmarks/molecules.py [--models models/benzenes] [--threads 1] [--repeats 3]

Processor time of this process, of all its threads; the median of a few evaluations.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from deltaserver.model import force_field
from deltaserver.model.many.model import Box, ManyModel
from deltaserver.model.many.molecules import Species
from deltaserver.model.many.triples import find_triples
from deltaserver.textio.xyz_frames import read_frames

CELLS = ((2, 2, 4), (4, 2, 4), (4, 4, 4), (4, 4, 8))  # of four molecules each


def repeated(model: ManyModel, x: np.ndarray, n: tuple[int, int, int]) -> ManyModel:
    """Return the model of so many of the structure's cells."""
    assert model.cell is not None
    copies = int(np.prod(n))
    starts = len(x) * np.arange(copies)
    species = tuple(
        Species(one.name, one.model, np.concatenate([one.atoms + start for start in starts]))
        for one in model.species
    )
    return ManyModel(
        species, model.pairs, model.triples, box=Box(model.cell * np.array(n), periodic=True),
        pool=model.pool,
        ewald=model.ewald and replace(model.ewald, counts=tuple(len(o.atoms) for o in species)),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=Path("models/benzenes"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    model = force_field.load(asked.models, threads=asked.threads)
    assert isinstance(model, ManyModel)
    assert model.cell is not None
    x = read_frames(asked.models / "structure.xyz", print, True)[0].positions
    rng = np.random.default_rng(0)
    print("molecules  atoms  touching pairs  triples  processor ms  wall  each  novelty")
    for n in CELLS:
        steps = np.stack(np.meshgrid(*map(np.arange, n), indexing="ij"), -1).reshape(-1, 3)
        all_x = (x + (steps @ model.cell.T)[:, None]).reshape(-1, 3)
        many = repeated(model, x, n)
        guards = many.guards()
        guards.prepare()
        cpu, wall, looked = [], [], []
        many.evaluate(all_x)
        for _ in range(asked.repeats):
            moved = all_x + rng.normal(0.0, 0.01, all_x.shape)
            start = time.process_time(), time.perf_counter()
            result = many.evaluate(moved)
            cpu.append(time.process_time() - start[0])
            wall.append(time.perf_counter() - start[1])
            begun = time.process_time()
            guards.novelty(moved[None], result.contributions, None)
            looked.append(time.process_time() - begun)
        frame = many.frame(moved, many.box(None))
        touching = sum(len(pairs.i) for pairs, _ in frame.touching.values())
        triples = sum(
            len(find_triples(frame.neighbours, one.reach[0]).weight) for one in many.triples
        )
        ms = 1e3 * float(np.median(cpu))
        print(
            f"{len(many.molecules):9d}  {many.n_atoms:5d}  {touching:14d}  {triples:7d}  "
            f"{ms:12.0f}  {1e3 * float(np.median(wall)):6.0f}  {ms / len(many.molecules):13.2f}  "
            f"{1e3 * float(np.median(looked)):10.0f}"
        )


if __name__ == "__main__":
    main()
