"""Which charges an Ewald sum is of, and how a pair's prior goes over into it.

Every prior of two molecules has charges of its own. Within the manifest's ``cutoff`` these act,
because the binding model was trained beside them; beyond it those of an Ewald sum do, of which a
species has one set:

    E = Σ_pairs S(R) (E_prior − Σ_ab q_a q_b/4πε₀r_ab) + E_Ewald(q)

over the nearest and farther images alike, so that nothing is counted twice (:mod:`.switch`,
:mod:`.electrostatics.ewald`). q are what all bindings together say
(:mod:`.electrostatics.charge_sets`). They are Å, eV and e.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from deltaserver.arrays import Floats
from deltaserver.errors import ManifestError
from deltaserver.model.many.electrostatics.charge_sets import NEUTRAL_E, Products, agree
from deltaserver.model.many.manifest import BindingEntry
from deltaserver.model.many.molecules import Species
from deltaserver.model.prior import AtomClass, PairPrior
from deltaserver.model.sgdml import Evaluation
from deltaserver.molecules.bonds import training_distances

SAME_E = 1e-9  # charges of two priors that are one


def charges_of(prior: PairPrior) -> Floats:
    """Return the charge of every atom, e, shape (N,)."""
    found = np.zeros(len(prior.fragment))
    for one in prior.classes:
        found[list(one.atoms)] = one.charge
    return found


def shared_charges(
    entries: Sequence[BindingEntry], species: Sequence[Species], where: str, ewald: bool
) -> tuple[Floats, ...] | None:
    """Return the charges of one molecule of every species, e, shape (m,) each.

    None where no Ewald sum is wanted: then every pair has its own.

    Raises:
        ManifestError: priors disagree on a molecule's charge, or two species have charges and no
            prior keeps them apart.
    """
    if not ewald:
        return None
    found = charges_by_species(entries, species, where)
    _check_apart(entries, species, found, where)
    return found


def charges_by_species(
    entries: Sequence[BindingEntry], species: Sequence[Species], where: str
) -> tuple[Floats, ...]:
    """Return the charges of one molecule of every species, e, shape (m,) each; zeros: none given.

    Raises:
        ManifestError: priors disagree on a molecule's charge.
    """
    given: list[list[Floats]] = [[] for _ in species]
    products = []
    for entry in entries:
        if isinstance(entry.prior, PairPrior):
            s, t = entry.between
            one, other = np.split(charges_of(entry.prior), [len(species[s].numbers)])
            products.append(Products((s, t), (one, other)))
            given[s].append(one)
            given[t].append(other)
    for sets, kind in zip(given, species, strict=True):
        _check_net(sets, kind, where)
    agreed = agree(products, len(species))
    return tuple(agreed.get(k, np.zeros(len(one.numbers))) for k, one in enumerate(species))


def _check_net(sets: Sequence[Floats], species: Species, where: str) -> None:
    """Refuse priors that give a molecule different charges as a whole."""
    net = np.array([charges.sum() for charges in sets])
    if len(net) and np.ptp(net) > NEUTRAL_E:
        raise ManifestError(
            f"{where}: priors give {species.name} charges of {net.min():+.2g} and {net.max():+.2g} "
            "e, and an Ewald sum takes one: train them on datasets that state the same"
        )


def _check_apart(
    entries: Sequence[BindingEntry],
    species: Sequence[Species],
    charges: Sequence[Floats],
    where: str,
) -> None:
    """Refuse charged molecules that nothing keeps from falling into each other.

    Ions of one sign repel each other, and a molecule by itself meets its images alone.
    """
    known = {entry.between for entry in entries if entry.prior is not None}
    for s, one in enumerate(species):
        for t in range(s, len(species)):
            if (s, t) in known or not charges[s].any() or not charges[t].any():
                continue
            if charges[s].sum() * charges[t].sum() > NEUTRAL_E or (s == t and len(one.atoms) == 1):
                continue
            raise ManifestError(
                f"{where}: no prior between {one.name} and {species[t].name}, and both have "
                "charges: give one, which keeps them apart, or ewald: false"
            )


def dipole_e_ang(charges: Floats, x: Floats, length_ang: float) -> float:
    """Return the mean dipole of a neutral molecule in training, e Å: μ² = −Σ_(a<b) q_a q_b r_ab².

    Args:
        charges: of its atoms, e.
        x: inverse distances of atoms a > b in training, shape (n, pairs).
        length_ang: their unit of length, Å.
    """
    a, b = np.tril_indices(len(charges), k=-1)
    squares = -((training_distances(x, length_ang) ** 2) @ (charges[a] * charges[b]))
    return float(np.sqrt(np.maximum(squares, 0.0)).mean())


def less_charges(
    prior: PairPrior, counted: tuple[Floats, Floats] | None
) -> Callable[[Floats], Evaluation]:
    """Return what evaluates a prior without the charges that an Ewald sum has counted."""
    if counted is None:
        return prior.evaluate
    both, own = np.concatenate(counted), charges_of(prior)
    if not both.any():
        return prior.evaluate
    if np.abs(both - own).max() <= SAME_E:
        classes = tuple(replace(one, charge=0.0) for one in prior.classes)
        return replace(prior, classes=classes).evaluate
    alone = PairPrior(prior.fragment, _by_atom(both), {}, compiled=prior.compiled)

    def evaluate(x: Floats) -> Evaluation:
        found, taken = prior.evaluate(x), alone.evaluate(x)
        return Evaluation(
            found.energy - taken.energy, found.forces - taken.forces, found.virial - taken.virial
        )

    return evaluate


def _by_atom(charges: Floats) -> tuple[AtomClass, ...]:
    return tuple(AtomClass(f"{k}", (k,), float(q)) for k, q in enumerate(charges))
