"""One number for what a model directory computes: SHA-256 over its contents.

Two directories with one fingerprint give the same energies and forces. It covers what is
evaluated (elements, fragments, training arrays, permutations, scales, units, the energies of lone
atoms) and what it is called, and nothing else: not the time of writing, the compression, file
names, or what is only told about a training.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from deltaserver.model.files.parameters import ModelParameters
from deltaserver.model.fragment_blocks import FragmentBlocks
from deltaserver.model.manifest import IsolatedAtom
from deltaserver.model.prior import PairPrior

if TYPE_CHECKING:
    from deltaserver.model.composite import CompositeModel

FORMAT = "deltaserver-fingerprint/1"
ARRAYS = ("numbers", "x", "a", "perms", "alphas_energy", "lattice")
SCALARS = ("sigma", "c", "std")


def fingerprint(model: CompositeModel) -> str:
    """Return ``sha256:…`` of a model, whatever backend it was loaded for."""
    digest = hashlib.sha256()
    _text(digest, FORMAT, model.name, model.reference)
    parts: dict[int, bytes] = {}  # fragments may share a model: it is read once
    for fragment in model.fragments:
        _text(digest, "fragment", fragment.name)
        _array(digest, fragment.atoms.astype(np.int64))
        digest.update(_part(fragment.model, parts))
    for name, part in (("binding", model.binding), ("full", model.full)):
        if part is not None:
            _text(digest, name)
            digest.update(_part(part, parts))
    if model.prior is not None:
        _text(digest, "prior", *_words(model.prior))
    return f"sha256:{digest.hexdigest()}"


def _words(prior: PairPrior) -> Iterator[str]:
    """Yield all that a prior computes with."""
    for one in prior.classes:
        yield from (one.name, str(one.atoms), float(one.charge).hex())
    for names, terms in prior.terms.items():
        for term in (*terms.walls, *terms.attractions):
            yield from (*names, *(float(number).hex() for number in term))


def _part(part: object, known: dict[int, bytes]) -> bytes:
    if id(part) not in known:
        known[id(part)] = _digest(part)
    return known[id(part)]


def _digest(part: object) -> bytes:
    digest = hashlib.sha256()
    if isinstance(part, IsolatedAtom):
        _text(digest, "atom", str(part.number), part.energy_ev.hex())
        return digest.digest()
    parameters, native = getattr(part, "parameters", None), getattr(part, "native", None)
    if not isinstance(parameters, ModelParameters) or native is None:
        _text(digest, "unknown", type(part).__name__)
        return digest.digest()
    for name in ARRAYS:
        array = getattr(parameters, name)
        _text(digest, name)
        if array is not None:
            _array(digest, array)
    for name in SCALARS:
        _text(digest, name, float(getattr(parameters, name)).hex())
    _blocks(digest, parameters.blocks)
    if parameters.linear is not None:
        for key, array in parameters.linear.arrays().items():
            _text(digest, key)
            _array(digest, array)
    _text(digest, "units", native.length_ang.hex(), native.energy_ev.hex())
    return digest.digest()


def _blocks(digest: Any, blocks: FragmentBlocks | None) -> None:
    """Hash weights and reach; nothing where there are none, as before there could be any."""
    if blocks is None:
        return
    _text(digest, "blocks")
    _array(digest, blocks.fragment)
    _array(digest, blocks.weights)
    if blocks.reach is not None:
        _array(digest, np.array([*blocks.reach.near, *blocks.reach.far]))


def _array(digest: Any, array: np.ndarray[Any, Any]) -> None:
    """Hash shape and values, the same on every machine: eight bytes each, little-endian."""
    kind = "<f8" if array.dtype.kind == "f" else "<i8"
    _text(digest, kind, str(array.shape))
    digest.update(np.ascontiguousarray(array, dtype=kind).data)


def _text(digest: Any, *words: str) -> None:
    for word in words:
        data = word.encode()
        digest.update(len(data).to_bytes(8, "little") + data)
