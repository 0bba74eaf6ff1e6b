"""Linear expansions from the arrays of a model file, checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from deltaserver.arrays import Ints
from deltaserver.errors import ModelFileError
from deltaserver.model.files.arrays import expect_shape, floats, integers, numbered_from_zero
from deltaserver.model.linear.embedding import Densities, Embedding
from deltaserver.model.linear.expansion import Expansion, OfUnits, Together
from deltaserver.model.linear.products import DistancePairs, Products
from deltaserver.model.linear.radials import Radials
from deltaserver.model.linear.sites import SitePairs, Sites
from deltaserver.model.linear.valence import Valence

VALENCE_KEYS = (
    "valence_pairs", "valence_mean", "valence_width", "valence_powers", "valence_couplings",
    "valence_products", "valence_triples", "valence_cubic",
)  # fmt: skip
SPRINGS = "valence_springs"  # of a file made before there were any: none
SITE_KEYS = (
    "site_members", "site_starts", "site_kinds", "site_decays", "site_powers",
    "site_coefficients",
)  # fmt: skip
EMBEDDING_KEYS = (
    "embedding_groups", "embedding_decays", "embedding_stretches", "embedding_mean",
    "embedding_linear", "embedding_products", "embedding_quadratic",
)  # fmt: skip
PRODUCT_KEYS = (
    "product_perms", "product_decays", "product_mean", "product_quadratic", "product_coupling",
)  # fmt: skip
UNITS = "units"  # of a molecule with terms between them
LINEAR_KEYS = (*VALENCE_KEYS, SPRINGS, *SITE_KEYS, *EMBEDDING_KEYS, *PRODUCT_KEYS, UNITS)
MAX_PRODUCT_ATOMS = 40  # 780 distances, whose pairs have matrices of some ten megabytes
MAX_DECAYS = 8
MAX_DENSITIES = 100  # of an atom
MAX_DISTANCES = 4000  # of a valence expansion: its tables have the square, 128 MB each
MAX_SITES, MAX_POWER = 4000, 12


def parse_valence(arrays: Mapping[str, Any], n_atoms: int, source: str) -> Valence | None:
    """Return the expansion of a molecule, None where the file has none.

    Raises:
        ModelFileError: it is no sound one.
    """
    if not _there(arrays, VALENCE_KEYS, source):
        return None
    pairs = integers(arrays, "valence_pairs", source)
    n = len(pairs) if pairs.ndim == 2 else 0
    if n > MAX_DISTANCES:
        raise ModelFileError(f"{source}: valence_pairs holds {n} distances, over {MAX_DISTANCES}")
    expect_shape(source, "valence_pairs", pairs, (n, 2))
    _check_range(source, "valence_pairs", pairs, n_atoms)
    if (pairs[:, 0] == pairs[:, 1]).any():
        raise ModelFileError(f"{source}: valence_pairs holds an atom's distance to itself")
    mean, width = (floats(arrays, key, source) for key in VALENCE_KEYS[1:3])
    expect_shape(source, "valence_mean", mean, (n,))
    expect_shape(source, "valence_width", width, (n,))
    if not (width > 0.0).all():
        raise ModelFileError(f"{source}: valence_width holds one that is not positive")
    powers = floats(arrays, "valence_powers", source)
    expect_shape(source, "valence_powers", powers, (n, powers.shape[-1] if powers.ndim else 0))
    couplings = integers(arrays, "valence_couplings", source).reshape(-1, 2)
    _check_range(source, "valence_couplings", couplings, n)
    products = floats(arrays, "valence_products", source)
    expect_shape(source, "valence_products", products, (len(couplings),))
    triples = integers(arrays, "valence_triples", source).reshape(-1, 3)
    _check_range(source, "valence_triples", triples, n)
    cubic = floats(arrays, "valence_cubic", source)
    expect_shape(source, "valence_cubic", cubic, (len(triples),))
    springs = floats(arrays, SPRINGS, source) if SPRINGS in arrays else np.zeros(n)
    expect_shape(source, SPRINGS, springs, (n,))
    if (springs < 0.0).any():
        raise ModelFileError(f"{source}: valence_springs holds one that is negative")
    return Valence(
        pairs, mean, width, powers, couplings, products, triples, cubic, springs, n_atoms
    )


def parse_molecule(arrays: Mapping[str, Any], n_atoms: int, source: str) -> Expansion | None:
    """Return all that a file has of one molecule, None where it has nothing.

    Raises:
        ModelFileError: it is not sound.
    """
    valence = parse_valence(arrays, n_atoms, source)
    if valence is None or UNITS not in arrays:
        return valence
    units = integers(arrays, UNITS, source)
    expect_shape(source, UNITS, units, (n_atoms,))
    if not numbered_from_zero(units):
        raise ModelFileError(f"{source}: units are not numbered from 0 on")
    found = parse_sites(arrays, units, source), parse_embedding(arrays, units, source)
    return OfUnits((valence, *(part for part in found if part is not None)), units)


def parse_between(arrays: Mapping[str, Any], fragment: Ints, source: str) -> Expansion | None:
    """Return all that a file has between fragments, None where it has nothing.

    Args:
        arrays: of the file.
        fragment: which fragment each atom belongs to, shape (N,).
        source: where they come from.

    Raises:
        ModelFileError: it is not sound.
    """
    found = (
        parse_sites(arrays, fragment, source),
        parse_embedding(arrays, fragment, source),
        parse_products(arrays, fragment, source),
        _parse_limit(arrays, fragment, source),
    )
    parts = tuple(part for part in found if part is not None)
    if len(parts) < 2:
        return parts[0] if parts else None
    return Together(parts)


def _parse_limit(arrays: Mapping[str, Any], fragment: Ints, source: str) -> Valence | None:
    """Return what fragments feel however far apart, None where the file has nothing of it."""
    found = parse_valence(arrays, len(fragment), source)
    if found is not None and (fragment[found.pairs[:, 0]] != fragment[found.pairs[:, 1]]).any():
        raise ModelFileError(f"{source}: valence_pairs holds atoms of two fragments together")
    return found


def parse_embedding(arrays: Mapping[str, Any], fragment: Ints, source: str) -> Embedding | None:
    """Return the embedding of a complex, None where the file has none; as parse_between.

    Raises:
        ModelFileError: it is no sound one.
    """
    if not _there(arrays, EMBEDDING_KEYS, source):
        return None
    n = len(fragment)
    group = integers(arrays, "embedding_groups", source).ravel()
    expect_shape(source, "embedding_groups", group, (n,))
    _check_range(source, "embedding_groups", group, n)
    decays = floats(arrays, "embedding_decays", source).ravel()
    if not len(decays) or not (decays > 0.0).all():
        raise ModelFileError(f"{source}: embedding_decays holds one that is not positive, or none")
    densities = Densities(fragment, group, tuple(decays.tolist()))
    p = len(densities)
    if p > MAX_DENSITIES:
        raise ModelFileError(
            f"{source}: {p} densities of an atom; expected {MAX_DENSITIES} at most"
        )
    mean = floats(arrays, "embedding_mean", source)
    linear, quadratic = (floats(arrays, f"embedding_{k}", source) for k in ("linear", "quadratic"))
    expect_shape(source, "embedding_linear", linear, (len(mean), p))
    expect_shape(source, "embedding_quadratic", quadratic, (len(quadratic), p, p))
    if (quadratic != quadratic.transpose(0, 2, 1)).any():
        raise ModelFileError(f"{source}: embedding_quadratic is not symmetric in the densities")
    stretches = _terms(arrays, "embedding_stretches", 3, fragment, len(linear), source)
    products = _terms(arrays, "embedding_products", 2, fragment, len(quadratic), source)
    if (stretches[:, 1] == stretches[:, 2]).any():
        raise ModelFileError(f"{source}: embedding_stretches holds an atom's distance to itself")
    return Embedding(
        densities,
        stretches[:, :3],
        stretches[:, 3],
        mean,
        linear,
        products[:, :2],
        products[:, 2],
        quadratic,
    )


def _terms(
    arrays: Mapping[str, Any], key: str, n_atoms: int, fragment: Ints, n_classes: int, source: str
) -> Ints:
    """Return rows of atoms of one fragment each, and their class."""
    rows = integers(arrays, key, source)
    expect_shape(source, key, rows, (len(rows), n_atoms + 1))
    _check_range(source, key, rows[:, :n_atoms], len(fragment))
    _check_range(source, key, rows[:, n_atoms], n_classes)
    owner = fragment[rows[:, :n_atoms]]
    if (owner != owner[:, :1]).any():
        raise ModelFileError(f"{source}: {key} holds atoms of two fragments together")
    return rows


def parse_products(arrays: Mapping[str, Any], fragment: Ints, source: str) -> Products | None:
    """Return the products of distances of a complex, None where the file has none.

    Raises:
        ModelFileError: they are no sound ones.
    """
    if not _there(arrays, PRODUCT_KEYS, source):
        return None
    n_atoms = len(fragment)
    if n_atoms > MAX_PRODUCT_ATOMS:
        raise ModelFileError(
            f"{source}: products of the distances of {n_atoms} atoms; expected "
            f"{MAX_PRODUCT_ATOMS} at most"
        )
    perms = integers(arrays, "product_perms", source)
    expect_shape(source, "product_perms", perms, (len(perms), n_atoms))
    if not len(perms) or not (np.sort(perms, axis=1) == np.arange(n_atoms)).all():
        raise ModelFileError(f"{source}: product_perms holds a row that is no permutation")
    pairs = DistancePairs(fragment, perms)
    together = fragment[perms][:, :, None] == fragment[perms][:, None]
    if (together != (fragment[:, None] == fragment)).any():
        raise ModelFileError(f"{source}: product_perms tears a fragment apart")
    decays, mean, quadratic, coupling = (floats(arrays, k, source) for k in PRODUCT_KEYS[1:])
    k, n = decays.size, coupling.shape[-1] if coupling.ndim else 0
    expect_shape(source, "product_decays", decays, (k,))
    if not 0 < k <= MAX_DECAYS or not (decays > 0.0).all():
        raise ModelFileError(
            f"{source}: product_decays holds one that is not positive, or not 1 to {MAX_DECAYS}"
        )
    expect_shape(source, "product_mean", mean, (len(pairs.within),))
    expect_shape(source, "product_coupling", coupling, (k, n))
    expect_shape(source, "product_quadratic", quadratic, (k, k, n))
    if n <= pairs.classes.max():
        raise ModelFileError(
            f"{source}: product_coupling has {n} classes; its permutations make "
            f"{pairs.classes.max() + 1}"
        )
    by_pair = quadratic[:, :, pairs.both]
    if (by_pair != by_pair.transpose(1, 0, 3, 2)).any():
        raise ModelFileError(f"{source}: product_quadratic is not symmetric in the distances")
    return Products(pairs, decays, mean, quadratic, coupling)


def parse_sites(arrays: Mapping[str, Any], fragment: Ints, source: str) -> SitePairs | None:
    """Return the expansion between fragments, None where the file has none.

    Args:
        arrays: of the file.
        fragment: which fragment each atom belongs to, shape (N,).
        source: where they come from.

    Raises:
        ModelFileError: it is no sound one.
    """
    if not _there(arrays, SITE_KEYS, source):
        return None
    sites = _sites(arrays, fragment, source)
    decays = floats(arrays, "site_decays", source).ravel()
    powers = floats(arrays, "site_powers", source).reshape(-1, 2)
    n, radius = powers.T
    if (n != np.rint(n)).any() or (n < 1).any() or (n > MAX_POWER).any() or (radius < 0.0).any():
        raise ModelFileError(f"{source}: site_powers holds no power from 1 to {MAX_POWER}")
    if not (decays > 0.0).all():
        raise ModelFileError(f"{source}: site_decays holds one that is not positive")
    radials = Radials(tuple(decays.tolist()), tuple((int(k), float(r)) for k, r in powers))
    table = floats(arrays, "site_coefficients", source)
    n_kinds = int(sites.kind.max()) + 1
    expect_shape(source, "site_coefficients", table, (len(radials), n_kinds, n_kinds))
    if (table != table.transpose(0, 2, 1)).any():
        raise ModelFileError(f"{source}: site_coefficients is not symmetric in the classes")
    return SitePairs(sites, radials, table)


def _sites(arrays: Mapping[str, Any], fragment: Ints, source: str) -> Sites:
    members, starts, kind = (integers(arrays, key, source).ravel() for key in SITE_KEYS[:3])
    n = len(kind)
    if not 0 < n <= MAX_SITES:
        raise ModelFileError(f"{source}: {n} sites; expected 1 to {MAX_SITES}")
    expect_shape(source, "site_starts", starts, (n + 1,))
    if starts[0] != 0 or starts[-1] != len(members) or not (np.diff(starts) > 0).all():
        raise ModelFileError(f"{source}: site_starts does not cut up site_members")
    _check_range(source, "site_members", members, len(fragment))
    if not numbered_from_zero(kind):
        raise ModelFileError(f"{source}: site_kinds are not numbered from 0 on")
    owner = fragment[members]
    first = owner[starts[:-1]]
    if (owner != np.repeat(first, np.diff(starts))).any() or (np.diff(first) < 0).any():
        raise ModelFileError(f"{source}: a site is of two fragments, or they are not in order")
    return Sites(members, starts, first, kind, len(fragment))


def _there(arrays: Mapping[str, Any], keys: tuple[str, ...], source: str) -> bool:
    """Return whether a file has all of some keys; raise where it has only a part."""
    missing = [key for key in keys if key not in arrays]
    if missing and len(missing) < len(keys):
        raise ModelFileError(f"{source}: lacks {', '.join(missing)} of a linear expansion")
    return not missing


def _check_range(source: str, key: str, values: Ints, n: int) -> None:
    if values.size and not 0 <= values.min() <= values.max() < n:
        raise ModelFileError(f"{source}: {key} counts to {values.max()}; expected 0 to {n - 1}")
