"""Begin a training where another one, on fewer points, has ended.

Its points are found again in the dataset by their descriptors, wherever they stand now, and are
all trained on again; the coefficients of the new ones begin at zero. Several entries may be one
geometry, as where ``dataset place`` has taken one molecule for several places: a point is one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import DataError
from deltaserver.model.descriptor import PairDescriptor
from deltaserver.model.files.archive import read_arrays
from deltaserver.model.files.parameters import KEYS, parse_parameters
from deltaserver.training.components import LabelledSet

SAME = 1e-9  # of descriptor entries, 1/Å: further apart are two geometries


@dataclass(frozen=True)
class WarmStart:
    """What is known from another model.

    Attributes:
        entries: of the labelled set that it was trained on, shape (K,).
        points: which of its points each of them is, shape (K,).
        v: their coefficients times the spread of its labels, kcal/mol/Å, shape (K, N, 3).
        energies: those of energies, shape (K,); of a model of forces alone, zeros.
        n_train: how many points that model has, those that are not in the dataset included.
    """

    entries: Ints
    points: Ints
    v: Floats
    energies: Floats
    n_train: int

    def once(self, entries: Ints) -> Ints:
        """Return which of ``entries`` are its points, ascending, each point once."""
        there = np.flatnonzero(np.isin(self.entries, entries))
        first = np.unique(self.points[there], return_index=True)[1]
        found: Ints = np.sort(self.entries[there[first]])
        return found

    def vector(self, train: Ints, std: float, weight: float = 0.0) -> Floats:
        """Return v for the points ``train`` and labels of spread ``std``.

        Shape (3NM,), or ((3N + 1)M,) where energies of ``weight`` are labels too.
        """
        values = self.v.reshape(len(self.v), -1)
        if weight:
            values = np.hstack([values, self.energies[:, None] / weight])
        result = np.zeros((len(train), values.shape[1]))
        begun = np.isin(self.entries, self.once(train))
        place = {int(self.entries[k]): k for k in np.flatnonzero(begun)}
        for row, entry in zip(result, train, strict=True):
            if int(entry) in place:
                row[:] = values[place[int(entry)]] / std
        return result.ravel()


def read_warm_start(path: Path, data: LabelledSet) -> WarmStart:
    """Read a model file and find its training points in ``data``.

    Raises:
        DataError: there is no such file, it is another molecule's or no sGDML model, or none of
            its points is in the dataset.
    """
    numbers, x, a, v, energies = _read(path)
    if not np.array_equal(numbers, data.numbers):
        raise DataError(f"{path}: a model of other atoms than {data.name}; it cannot be begun with")
    pairs = PairDescriptor(len(numbers))
    known = {_key(row): k for k, row in enumerate(x)}
    entries, found = [], []
    for entry in range(len(data.positions)):
        geometry = pairs.geometry(data.positions[entry : entry + 1])
        q = geometry.descriptor[0]
        k = known.get(_key(q))
        if k is None or np.abs(x[k] - q).max() > SAME:
            continue
        # Turned in space, it would need other coefficients: those in descriptor space tell.
        if np.allclose(-pairs.project(geometry, v[k : k + 1])[0], a[k], atol=1e-6):
            entries.append(entry)
            found.append(k)
    if not entries:
        raise DataError(f"{path}: none of its {len(x)} training points is in {data.name}")
    points = np.array(found)
    return WarmStart(np.array(entries), points, v[points], energies[points], len(x))


def _key(descriptor: Floats) -> tuple[int, ...]:
    """Return what equal geometries have in common and others hardly: coarse first entries."""
    return tuple(np.rint(descriptor[:6] * 1e6).astype(np.int64))


def _read(path: Path) -> tuple[Ints, Floats, Floats, Floats, Floats]:
    """Return atomic numbers, descriptors, J α (both in rows) and v = −α·std of a model file.

    Those of forces, and those of energies.
    """
    if not path.exists():
        raise DataError(f"{path}: no such model to begin with")
    try:
        arrays = read_arrays(path, KEYS)
        known = parse_parameters(arrays, str(path))
        alphas = arrays["alphas_F"].astype(float)
        v = -known.std * alphas.reshape(len(known.x), len(known.numbers), 3)
    except Exception as error:  # numpy and zipfile raise a dozen kinds at broken files
        raise DataError(f"{path}: no model that can be begun with ({error})") from None
    of_energy = known.alphas_energy
    energies = np.zeros(len(known.x)) if of_energy is None else -known.std * of_energy
    return known.numbers, known.x, known.a * known.std, v, energies
