"""What the novelty finds: held-out frames, and the same frames changed. Prints Markdown.

    python benchmarks/novelty.py [MODEL …]

Held-out frames are those of models/evaluate.sh. Changed frames: displacements from each
fragment's mean structure scaled (1.41 is twice the temperature of harmonic motion), everything
or one bond stretched, the first fragment moved or turned.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deltaserver import CompositeModel
from deltaserver.datasets.files import read_dataset
from deltaserver.model.trust.novelty import NoveltyMeasure
from deltaserver.training.selection import split_in_time

ROOT = Path(__file__).parents[1]
MAX_FRAMES = 60
DATASETS = {  # model: dataset, trajectories held out, share of the others that may be trained on
    "c60": ("c60_buckycatcher_gfn2_400K.xyz.gz", (), 0.8),
    "benzene_dimer": ("benzene_dimer_gfn2_150K.xyz.gz", (), 0.8),
    "benzene_water": ("benzene_water", (4, 5), 0.8),
    "na_benzene": ("na_benzene", (4, 5), 0.8),
    "methane_dimer": ("methane_dimer", (3,), 1.0),
}
Change = Callable[[np.ndarray], np.ndarray]


def superpose(x: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Move and turn ``x`` onto another structure (Kabsch)."""
    centred, target = x - x.mean(axis=0), onto - onto.mean(axis=0)
    u, _, v = np.linalg.svd(centred.T @ target)
    turn = u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ v))]) @ v
    return centred @ turn + onto.mean(axis=0)


def hotter(factor: float, train: np.ndarray, fragments: list[np.ndarray]) -> Change:
    means = []
    for atoms in fragments:
        mean = train[0, atoms]
        for _ in range(3):
            mean = np.mean([superpose(x[atoms], mean) for x in train[::5]], axis=0)
        means.append(mean)

    def change(x: np.ndarray) -> np.ndarray:
        y = x.copy()
        for atoms, mean in zip(fragments, means, strict=True):
            if len(atoms) > 1:
                rest = superpose(mean, x[atoms])
                y[atoms] = rest + factor * (x[atoms] - rest)
        return y

    return change


def moved(distance: float, atoms: np.ndarray) -> Change:
    def change(x: np.ndarray) -> np.ndarray:
        y = x.copy()
        way = x[atoms].mean(axis=0) - np.delete(x, atoms, axis=0).mean(axis=0)
        y[atoms] += distance * way / np.linalg.norm(way)
        return y

    return change


def turned(degrees: float, atoms: np.ndarray) -> Change:
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    about_z = np.array([[c, -s, 0.0], [s, c, 0.0], [0.0, 0.0, 1.0]])

    def change(x: np.ndarray) -> np.ndarray:
        y = x.copy()
        centre = x[atoms].mean(axis=0)
        y[atoms] = centre + (x[atoms] - centre) @ about_z.T
        return y

    return change


def one_bond(distance: float, atom: int) -> Change:
    def change(x: np.ndarray) -> np.ndarray:
        y = x.copy()
        away = np.linalg.norm(x - x[atom], axis=1)
        other = int(np.argsort(away)[1])
        y[atom] += distance * (x[atom] - x[other]) / away[other]
        return y

    return change


def report(name: str) -> None:
    dataset, held_out, fraction = DATASETS[name]
    model = CompositeModel.load(ROOT / "models" / name)
    frames = read_dataset(ROOT / "data" / dataset)
    split = split_in_time(frames.trajectory, frames.step, fraction, held_out)
    train, test = frames.positions[split.train], frames.positions[split.held_out]
    test = test[:: -(-len(test) // MAX_FRAMES)]
    fragments = [fragment.atoms for fragment in model.fragments]
    changes: dict[str, Change] = {
        "held-out frames": lambda x: x,
        "displacements × 1.2": hotter(1.2, train, fragments),
        "displacements × 1.41": hotter(2.0**0.5, train, fragments),
        "displacements × 2": hotter(2.0, train, fragments),
        "stretched by 2 %": lambda x: 1.02 * x,
        "squeezed by 2 %": lambda x: 0.98 * x,
        "one bond longer by 0.2 Å": one_bond(0.2, int(fragments[0][3])),
        "first fragment moved out by 0.7 Å": moved(0.7, fragments[0]),
        "… by 2 Å": moved(2.0, fragments[0]),
        "first fragment turned by 15°": turned(15.0, fragments[0]),
        "… by 60°": turned(60.0, fragments[0]),
    }
    measure = NoveltyMeasure(model)
    parts = [part for part in measure.components if part != "full"]
    print(f"\n**{model.name}**\n")
    print("| structures | " + " | ".join(f"{part} | ROC" for part in parts) + " |")
    print("|" + "---|" * (1 + 2 * len(parts)))
    base: dict[str, np.ndarray] = {}
    for what, change in changes.items():
        found = measure(np.array([change(x) for x in test]), parts)
        base = base or found
        cells = []
        for part in parts:
            values = found[part]
            low, middle = np.quantile(values, [0.05, 0.5])
            area = (values[:, None] > base[part]).mean() + 0.5 * (
                values[:, None] == base[part]
            ).mean()
            roc = "" if what == "held-out frames" else f"{area:.2f}"
            cells.append(f"{low:.2f} / {middle:.2f} / {values.max():.2f} | {roc}")
        print(f"| {what} | " + " | ".join(cells) + " |")
    cost = _milliseconds(lambda: measure(test[:1], parts))
    evaluation = _milliseconds(lambda: model.evaluate(test[:1]))
    print(f"\n{cost:.3f} ms a structure; the evaluation takes {evaluation:.2f} ms.")


def _milliseconds(call: Callable[[], object]) -> float:
    call()
    times = []
    for _ in range(30):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return 1e3 * float(np.median(times))


if __name__ == "__main__":
    for chosen in sys.argv[1:] or DATASETS:
        report(chosen)
