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

from deltaserver.model.fragment_blocks import FragmentBlocks
from deltaserver.model.manifest import IsolatedAtom
from deltaserver.model.parts import Fragment
from deltaserver.model.prior import PairPrior
from deltaserver.model.sgdml import SGDMLModel

if TYPE_CHECKING:
    from deltaserver.model.composite import CompositeModel
    from deltaserver.model.many.model import ManyModel

FORMAT = "deltaserver-fingerprint/1"
MANY_FORMAT = "deltaserver-fingerprint-many/1"
ARRAYS = ("numbers", "x", "a", "perms", "alphas_energy", "lattice")
SCALARS = ("sigma", "c", "std")


def fingerprint(model: CompositeModel) -> str:
    """Return ``sha256:…`` of a model, whatever backend it was loaded for."""
    digest = hashlib.sha256()
    _text(digest, FORMAT, model.name, model.reference)
    parts: dict[int, bytes] = {}  # fragments may share a model: it is read once
    for part in model.parts:
        if isinstance(part, Fragment):
            _text(digest, "fragment", part.name)
            _array(digest, part.atoms.astype(np.int64))
        else:
            _text(digest, part.name)
        if id(part.model) not in parts:
            parts[id(part.model)] = _digest(part.model)
        digest.update(parts[id(part.model)])
    if model.prior is not None:
        _text(digest, "prior", *_words(model.prior))
    return f"sha256:{digest.hexdigest()}"


def fingerprint_of_many(model: ManyModel) -> str:
    """Return ``sha256:…`` of a model of many molecules, whatever backend it was loaded for."""
    digest = hashlib.sha256()
    _text(digest, MANY_FORMAT, model.name, model.reference, str(model.periodic))
    for one in model.species:
        _text(digest, "species", one.name)
        _array(digest, one.atoms.astype(np.int64))
        digest.update(_digest(one.model))
    for pair in model.pairs:
        _text(digest, "pair", str(pair.species))
        for ends in (pair.switch and (pair.switch.start, pair.switch.stop), pair.fade):
            _text(digest, *(number.hex() for number in ends or ()))
        if pair.model is not None:
            digest.update(_digest(pair.model))
        if pair.prior is not None:
            _text(digest, "prior", *_words(pair.prior))
    if model.ewald is not None:
        _text(digest, "ewald", model.ewald.accuracy.hex())
        for charges in model.ewald.charges:
            _array(digest, charges)
    if model.induction is not None:
        ends = model.induction.switch.start, model.induction.switch.stop
        _text(digest, "induction", model.induction.radius.hex(), *(end.hex() for end in ends))
        for k, response in enumerate(model.induction.responses):
            if response is not None:
                _text(digest, str(k))
                _array(digest, response.charges)
                _array(digest, response.matrix)
    for triple in model.triples:
        if (prior := triple.prior) is not None:
            _text(digest, "triple", str(triple.species), prior.radius.hex())
            _text(digest, *(number.hex() for number in prior.cutoff))
            for some in (*prior.sites, prior.table):
                _array(digest, some)
        if triple.model is not None:
            _text(digest, "learned", str(triple.species), *(end.hex() for end in triple.fade))
            digest.update(_digest(triple.model))
    return f"sha256:{digest.hexdigest()}"


def _words(prior: PairPrior) -> Iterator[str]:
    """Yield all that a prior computes with; no limit is none, as before there could be any."""
    for one in prior.classes:
        yield from (one.name, str(one.atoms), float(one.charge).hex())
    for names, terms in prior.terms.items():
        for term in (*terms.walls, *terms.attractions):
            yield from (*names, *(float(number).hex() for number in term))
    if prior.limit:
        yield from ("limit", float(prior.limit).hex())


def _digest(model: SGDMLModel | IsolatedAtom) -> bytes:
    digest = hashlib.sha256()
    if isinstance(model, IsolatedAtom):
        _text(digest, "atom", str(model.number), model.energy_ev.hex())
        return digest.digest()
    parameters, native = model.parameters, model.native
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
