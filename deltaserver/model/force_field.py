"""Load a model directory, whichever kind it is: one complex, or many molecules."""

from __future__ import annotations

import warnings
from itertools import combinations
from pathlib import Path
from typing import TypeAlias

import numpy as np

from deltaserver.arrays import Floats, Ints
from deltaserver.errors import ManifestError
from deltaserver.model.composite import CompositeModel
from deltaserver.model.directories import STRUCTURE_NAME
from deltaserver.model.engines import Backend, Precision, Storage
from deltaserver.model.loading import Choice, ModelLoader
from deltaserver.model.manifest import IsolatedAtom
from deltaserver.model.many.census import count_molecules
from deltaserver.model.many.charges import charges_of, shared_charges
from deltaserver.model.many.electrostatics.charge_sets import NEUTRAL_E
from deltaserver.model.many.electrostatics.ewald import Ewald
from deltaserver.model.many.electrostatics.induction import OfThree
from deltaserver.model.many.manifest import BindingEntry, ManyManifest, is_of_many, read_many
from deltaserver.model.many.model import Box, ManyModel
from deltaserver.model.many.molecules import Species
from deltaserver.model.many.pairs import PairBinding
from deltaserver.model.many.switch import Switch
from deltaserver.model.many.triple_binding import TripleBinding, may_be_exchanged
from deltaserver.model.many.triples import TripleLabels, TriplePrior
from deltaserver.model.parts import Fragment, check_fit, check_on_a_prior, check_order
from deltaserver.model.prior import PairPrior
from deltaserver.model.sgdml import SGDMLModel
from deltaserver.textio.structures import read_first

ForceField: TypeAlias = CompositeModel | ManyModel

FAIR = 1e-9  # of energies, eV and relative


class ChargedCellWarning(UserWarning):
    """A cell that repeats is not neutral."""


class UnboundWarning(UserWarning):
    """Molecules that meet have no binding."""


def load(
    path: str | Path,
    backend: Backend = "numpy",
    device: str = "auto",
    precision: Precision = "float64",
    threads: int = 1,
    storage: Storage = "double",
) -> ForceField:
    """Load a model directory; see :meth:`deltaserver.model.composite.CompositeModel.load`.

    Raises:
        ManifestError: ``model.yaml`` is wrong, or disagrees with the model files.
        ModelFileError: a model file cannot be used.
        MissingExtraError: the backend is not installed.
    """
    if not is_of_many(path):
        return CompositeModel.load(path, backend, device, precision, threads, storage)
    return _load_many(read_many(path), Choice(backend, device, precision, threads, storage))


def _load_many(manifest: ManyManifest, choice: Choice) -> ManyModel:
    pool = choice.pool()
    loader = ModelLoader(manifest.length_unit, manifest.energy_unit, choice, pool)
    found, cell = _structure(manifest.path.parent)
    models = [
        entry.model if isinstance(entry.model, IsolatedAtom) else loader(entry.model)
        for entry in manifest.species
    ]
    numbers = [model.numbers for model in models]
    tables = count_molecules(manifest.species, numbers, found, str(manifest.path))
    species = tuple(
        Species(entry.name, model, atoms)
        for entry, model, atoms in zip(manifest.species, models, tables, strict=True)
    )
    charges = shared_charges(manifest.bindings, species, str(manifest.path), manifest.ewald)
    pairs, triples = [], []
    for entry in manifest.bindings:
        if len(entry.between) == 3:
            triples.append(_triple(manifest, entry, species, loader))
        else:
            pairs.append(_pair(manifest, entry, species, loader, charges))
    if manifest.periodic and any(model.lattice is not None for model in loader.loaded.values()):
        raise ManifestError(
            f"{manifest.path}: a model file takes nearest images itself, and the molecules are put "
            "together here already; train it without a cell"
        )
    model = ManyModel(
        species,
        tuple(pairs),
        tuple(triples),
        name=manifest.name,
        reference=manifest.reference,
        box=Box(cell, manifest.periodic),
        pool=pool,
        ewald=_ewald(manifest, species, charges),
        induction=manifest.induction,
    )
    model.stored = loader.stored
    _tell_unbound(manifest, species)
    return model


def _tell_unbound(manifest: ManyManifest, species: tuple[Species, ...]) -> None:
    """Warn of molecules that pass through each other, or collapse where charges attract them."""
    known = {pair for entry in manifest.bindings for pair in combinations(entry.between, 2)}
    unbound = [
        f"{one.name} and {species[t].name}"
        for s, one in enumerate(species)
        for t in range(s, len(species))
        if (s, t) not in known and (s < t or len(one.atoms) > 1)
    ]
    if unbound:
        warnings.warn(
            f"{manifest.path}: no binding of {', '.join(unbound)}: nothing keeps them apart; "
            "deltaserver assemble takes the directory of each such dimer",
            UnboundWarning,
            stacklevel=2,
        )


def _structure(directory: Path) -> tuple[Ints | None, Floats | None]:
    """Return elements and cell (vectors in columns, Å) of the directory's structure."""
    path = directory / STRUCTURE_NAME
    if not path.is_file():
        return None, None
    frame = read_first(path)
    if frame is None:
        return None, None
    return frame.numbers, None if frame.cell is None else frame.cell.T


def _pair(
    manifest: ManyManifest,
    entry: BindingEntry,
    species: tuple[Species, ...],
    loader: ModelLoader,
    charges: tuple[Floats, ...] | None,
) -> PairBinding:
    """Return the binding of two molecules, or raise ManifestError where it does not fit."""
    assert not isinstance(entry.prior, TriplePrior)
    s, t = entry.between
    sizes = (len(species[s].numbers), len(species[t].numbers))
    model = loader(entry.model) if entry.model else None
    where = f"{manifest.path}: between {species[s].name} and {species[t].name}"
    ends = (np.arange(sizes[0]), sizes[0] + np.arange(sizes[1]))
    fragments = (Fragment("first", ends[0], species[s].model),
                 Fragment("second", ends[1], species[t].model))  # fmt: skip
    check_fit(fragments, model, None, where)
    check_on_a_prior(model, entry.prior, where)
    check_order(model, 2, where)
    if s == t and not _is_fair(model, entry.prior, sizes[0]):
        raise ManifestError(
            f"{where}: exchanging the two molecules changes their binding: train the model with "
            "--symmetry product, and give both the same classes in the prior"
        )
    if model is not None and entry.fade is None:
        blocks = model.parameters.blocks
        if blocks is None or blocks.reach is None:
            raise ManifestError(
                f"{where}: the binding model does not end by itself; give fade: [6.0, 8.0], Å "
                "over which it does, or train it on a prior"
            )
    if entry.prior is not None and manifest.cutoff is not None and charges is None:
        for kind, atoms in zip((s, t), ends, strict=True):
            charge = float(charges_of(entry.prior)[atoms].sum())
            if abs(charge) > NEUTRAL_E:
                raise ManifestError(
                    f"{where}: prior gives {species[kind].name} a charge of {charge:+.2g} e, which "
                    "a cutoff would cut; give ewald: true of what repeats, no cutoff of a cluster"
                )
    switch = Switch(*manifest.cutoff) if manifest.cutoff else None
    counted = None if charges is None else (charges[s], charges[t])
    return PairBinding((s, t), sizes, model, entry.prior, switch, entry.fade, counted)


def _ewald(
    manifest: ManyManifest, species: tuple[Species, ...], charges: tuple[Floats, ...] | None
) -> Ewald | None:
    """Return the sum of all charges, if there is any; warn of a cell that is not neutral."""
    if charges is None or not any(own.any() for own in charges):
        return None
    found = Ewald(charges, tuple(len(one.atoms) for one in species))
    if abs(found.net) > NEUTRAL_E:
        warnings.warn(
            f"{manifest.path}: all molecules have a charge of {found.net:+.2g} e together, which "
            "a uniform background neutralises: do not compare cells of other sizes, nor pressures",
            ChargedCellWarning,
            stacklevel=2,
        )
    return found


def _triple(
    manifest: ManyManifest, entry: BindingEntry, species: tuple[Species, ...], loader: ModelLoader
) -> TripleBinding:
    """Return the binding of three molecules, or raise ManifestError where it does not fit."""
    assert not isinstance(entry.prior, PairPrior)
    prior = entry.prior
    s, t, u = entry.between
    own = [species[k] for k in entry.between]
    first, second, third = (len(one.numbers) for one in own)
    sizes = (first, second, third)
    if prior is not None and not prior.is_fair(entry.between):
        raise ManifestError(
            f"{manifest.path}: exchanging two molecules of one species changes the energy "
            "of three: give triples' coefficients for every order of their classes"
        )
    if entry.model is None:
        return TripleBinding((s, t, u), prior, sizes)
    model = loader(entry.model)
    where = f"{manifest.path}: between {', '.join(one.name for one in own)}"
    ends = np.split(np.arange(sum(sizes)), np.cumsum(sizes)[:2])
    fragments = tuple(
        Fragment(f"{k + 1}", atoms, one.model)
        for k, (atoms, one) in enumerate(zip(ends, own, strict=True))
    )
    check_fit(fragments, model, None, where)
    check_order(model, 3, where)
    check_on_a_prior(model, _beside(manifest, prior, (s, t, u), sizes), where)
    if not may_be_exchanged(model.parameters.perms, sizes, entry.between):
        raise ManifestError(
            f"{where}: exchanging two molecules of one species changes what is learned of three: "
            "train the model with --symmetry product"
        )
    assert entry.fade is not None
    return TripleBinding((s, t, u), prior, sizes, model, entry.fade)


def _beside(
    manifest: ManyManifest,
    prior: TriplePrior | None,
    species: tuple[int, int, int],
    sizes: tuple[int, int, int],
) -> TripleLabels | None:
    """Return what a model of three molecules stands on here; None is nothing."""
    induction = manifest.induction
    if prior is None and induction is None:
        return None
    flowing = None if induction is None else OfThree(induction, species, sizes)
    return TripleLabels(prior, flowing)


def _is_fair(model: SGDMLModel | None, prior: PairPrior | None, n: int) -> bool:
    """Return whether two alike molecules, of n atoms each, may be exchanged."""
    if model is not None and not (model.parameters.perms[:, :n] >= n).all(axis=1).any():
        return False
    if prior is None:
        return True
    x = np.random.default_rng(0).uniform(-2.0, 2.0, (2, 2 * n, 3))
    x[:, n:, 2] += 5.0
    energy = prior.evaluate(x).energy
    other = prior.evaluate(np.concatenate([x[:, n:], x[:, :n]], axis=1)).energy
    return bool(np.allclose(other, energy, rtol=FAIR, atol=FAIR))
