"""What ``--symmetry`` means for each component of a complex.

none
    No permutations at all.
fragment
    Each fragment's model has all automorphisms of its own bonded graph; binding and full have
    none. Cheap, and most of the gain: fragments carry most of the energy.
product
    As ``fragment``, and binding and full have the direct product of the fragments' groups,
    times the exchange of identical fragments (the benzene dimer: 12 · 12 · 2 = 288). Of three
    molecules beyond their pairs exchange is never given up for the cap.
rotations
    As ``product``, but binding and full keep only what turns every molecule, or mirrors all of
    them. A permutation that mirrors one molecule alone leads to no structure that occurs, while
    a mirror image of all has the same distances: half of the permutations do what all do (two
    methanes: 576 of 1152; Longuet-Higgins, Mol. Phys. 6, 445 (1963), DOI
    10.1080/00268976300100501). Flat molecules are their own mirror images;
    of molecules whose groups turn freely, as ethane's, it is all of ``product``.
sgdml
    sgdml's own search on the training points of each component. Where it finds no closed group
    within its limit of 100 it gives up, and so do we: the identity, with a note.
FILE
    ``.npz``: one array (S, N) per component name; components without one have no permutations.
    ``.npy`` or text (one permutation a line): a group of the whole complex, used for binding
    and full; each fragment gets what those permutations that keep it in place do to it.

Every group is checked to be one, and to exchange atoms of one element only.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.datasets.frames import LabelledFrames
from deltaserver.errors import DataError, InputError, MissingExtraError
from deltaserver.model.files.archive import read_arrays
from deltaserver.model.files.parameters import UNREADABLE
from deltaserver.training import symmetry
from deltaserver.training.components import Component, LabelledSet, fragment_symmetry
from deltaserver.training.symmetry import DEFAULT_CAP, Symmetry
from deltaserver.training.three.checks import check_exchange, is_of_three
from deltaserver.training.three.exchange import product_with_exchange

MODES = ("none", "fragment", "product", "rotations", "sgdml")
SGDML_POINTS = 1000  # sgdml's own limit for its search
FLAT_ANG = 0.3  # thickness, as a standard deviation: benzene has up to 0.24 at 500 K, methane 0.54
CLEAR = 0.5  # 1 or −1 of what turns or mirrors a rigid molecule; what bends it is between


def resolve(
    mode: str,
    frames: LabelledFrames,
    components: tuple[Component, ...],
    component: Component,
    data: LabelledSet,
    train: Ints,
    cap: int = DEFAULT_CAP,
) -> Symmetry:
    """Return the permutations of ``component`` under ``--symmetry mode``.

    Args:
        mode: see the module's text.
        frames: the dataset.
        components: all of the dataset's, which tell what fragments are identical.
        component: the one to be trained.
        data: its labelled set.
        train: its training points, for sgdml's search.
        cap: the most permutations wanted.

    Raises:
        DataError: a fragment is not connected; a file's permutations are no group of the atoms;
            alike ones of three molecules cannot be exchanged.
        InputError: no such mode or file.
        MissingExtraError: ase, networkx or sgdml is not installed.
    """
    n_atoms = len(data.numbers)
    if component.is_lone_atom:
        return Symmetry.trivial(n_atoms)
    if mode == "none":
        found = Symmetry.trivial(n_atoms)
    elif mode in ("fragment", "product", "rotations"):
        if component.is_fragment:
            found = fragment_symmetry(frames, frames.fragments[component.members[0]], cap)
        elif mode != "fragment" and is_of_three(frames, component):
            found = product_with_exchange(frames, components, cap)
        elif mode == "rotations":
            turning = _rotations(frames, components, cap)
            found = turning or _product(frames, components, cap)
        elif mode == "product":
            found = product_of_fragments(frames, components, cap)
        else:
            found = Symmetry.trivial(n_atoms)
    elif mode == "sgdml":
        found = _searched_by_sgdml(data, train)
    else:
        found = _from_file(Path(mode), component, data.numbers, cap)
    symmetry.check_group(found.perms, f"symmetry of {component.name}")
    symmetry.check_elements(found.perms, data.numbers, f"symmetry of {component.name}")
    if is_of_three(frames, component):
        check_exchange(frames, components, found.perms)
    return found


def product_of_fragments(
    frames: LabelledFrames, components: tuple[Component, ...], cap: int = DEFAULT_CAP
) -> Symmetry:
    """Return the direct product of the fragments' groups, times exchange, on the complex.

    Where ``cap`` has room only for that half of it that does what all do, it is that half.
    """
    found = _product(frames, components, cap)
    if len(found.perms) == found.full_order:
        return found
    turning = _rotations(frames, components, cap)
    if turning is None:
        return found
    note = (
        f"{found.full_order} permutations are more than the cap of {cap}; kept "
        f"{len(turning.perms)}, without those that mirror one molecule alone, which leads to no "
        "structure that occurs"
    )
    notes = [turning.note] if turning.note else []
    return Symmetry(turning.perms, found.full_order, "; ".join([*notes, note]))


def _rotations(
    frames: LabelledFrames, components: tuple[Component, ...], cap: int
) -> Symmetry | None:
    """Return what of the product turns every molecule, or mirrors all that are not flat.

    None where that is more than ``cap``, or where molecules bend too much for it to be told.
    """
    whole = _product(frames, components, 2 * cap)
    if len(whole.perms) < whole.full_order:
        return None
    x = frames.positions[0]
    solid = [np.array(f.atoms) for f in frames.fragments if not _is_flat(x[list(f.atoms)])]
    found = whole.perms
    if solid:
        sides = np.array([[_handedness(x[some], x[p[some]]) for some in solid] for p in found])
        found = found[(np.sign(sides) == np.sign(sides[:, :1])).all(axis=1)]
        if (np.abs(sides) < CLEAR).any() or not _is_group(found):
            return None
    return Symmetry(found, len(found), whole.note) if len(found) <= cap else None


def _product(frames: LabelledFrames, components: tuple[Component, ...], cap: int) -> Symmetry:
    atoms: list[Ints] = []
    groups: list[Ints] = []
    exchanges = []
    notes = []
    for component in components:
        if not component.is_fragment:
            continue
        own = _own_group(frames, component, cap)
        notes += [f"{component.name}: {own.note}"] if own.note else []
        same = range(len(atoms), len(atoms) + len(component.atoms))
        # Pooled fragments' atoms are in corresponding order, so exchange maps like to like.
        atoms += [np.array(some) for some in component.atoms]
        groups += [own.perms] * len(component.atoms)
        exchanges.append([(j, np.arange(len(component.atoms[0]))) for j in same])
    found = symmetry.product_group(len(frames.numbers), atoms, groups, exchanges, cap)
    notes += [found.note] if found.note else []
    return Symmetry(found.perms, found.full_order, "; ".join(notes))


def _is_flat(x: Floats) -> bool:
    return len(x) < 4 or bool(np.linalg.svd(x - x.mean(axis=0))[1][2] < FLAT_ANG * len(x) ** 0.5)


def _handedness(before: Floats, after: Floats) -> float:
    """Return about 1 where turning fits ``before`` (N, 3) onto ``after``, −1 with a mirror."""
    first, second = before - before.mean(axis=0), after - after.mean(axis=0)
    scale = np.linalg.det(first.T @ first) * np.linalg.det(second.T @ second)
    return float(np.linalg.det(second.T @ first) / np.sqrt(scale))


def _is_group(perms: Ints) -> bool:
    try:
        symmetry.check_group(perms, "")
    except DataError:
        return False
    return True


def _own_group(frames: LabelledFrames, component: Component, cap: int) -> Symmetry:
    if component.is_lone_atom:
        return Symmetry.trivial(1)
    return fragment_symmetry(frames, frames.fragments[component.members[0]], cap)


def _searched_by_sgdml(data: LabelledSet, train: Ints) -> Symmetry:
    try:
        from sgdml.utils import perm
    except ImportError:
        raise MissingExtraError("sgdml", "train") from None
    n_atoms = len(data.numbers)
    positions = data.positions[train[:SGDML_POINTS]]
    found: Any = perm.find_perms(positions, data.numbers.astype(np.uint8), max_processes=1)
    if found is None:
        note = "sgdml's search found no closed group within its limit of 100; using the identity"
        return Symmetry.trivial(n_atoms, note)
    perms = np.unique(np.asarray(found, dtype=np.int64), axis=0)
    return Symmetry(perms, len(perms))


def _from_file(path: Path, component: Component, numbers: Ints, cap: int) -> Symmetry:
    if not path.is_file():
        raise InputError(f"--symmetry {path}: expected {', '.join(MODES)} or an existing file")
    perms = _read(path, component)
    if perms is None:
        return Symmetry.trivial(len(numbers), f"{path} has nothing for {component.name}")
    if perms.ndim != 2 or perms.shape[1] != len(numbers):
        raise DataError(
            f"{path}: {component.name} has {len(numbers)} atoms; the permutations have shape "
            f"{perms.shape}; expected (S, {len(numbers)})"
        )
    if len(perms) > cap:
        raise DataError(f"{path}: {len(perms)} permutations are more than the cap of {cap}")
    return Symmetry(perms, len(perms))


def _read(path: Path, component: Component) -> Ints | None:
    try:
        if path.suffix == ".npz":
            found = read_arrays(path, (component.name,)).get(component.name)
            return None if found is None else _whole(found, path)
        perms = _whole(np.load(path) if path.suffix == ".npy" else np.loadtxt(path), path)
    except DataError:
        raise
    except UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DataError(f"{path}: not readable as permutations ({reason})") from None
    return restricted(perms, component.atoms[0]) if component.is_fragment else perms


def _whole(values: Any, path: Path) -> Ints:
    """Return an array of permutations (S, N); refuse what is no table of whole numbers."""
    table = np.atleast_2d(values)
    if table.ndim != 2 or not table.size or table.dtype.kind not in "iuf":
        raise DataError(f"{path}: holds {table.dtype} {table.shape}; expected whole numbers (S, N)")
    whole = table.astype(np.int64)
    if not np.array_equal(whole, table):
        raise DataError(f"{path}: holds numbers that are not whole; expected atom indices from 0")
    return whole


def restricted(perms: Ints, atoms: tuple[int, ...]) -> Ints:
    """Return what those of ``perms`` (S, N) that map ``atoms`` onto themselves do to them."""
    if perms.shape[1] <= max(atoms):
        return perms  # of another size: the caller refuses it
    inside = np.array(atoms)
    images = perms[:, inside]
    stay = (np.sort(images, axis=1) == np.sort(inside)).all(axis=1)
    order = np.argsort(inside)
    places = order[np.searchsorted(inside[order], images[stay])]
    result: Ints = np.unique(places, axis=0)
    return result
