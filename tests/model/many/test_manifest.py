from __future__ import annotations

import numpy as np
import pytest

from deltaserver import CompositeModel
from deltaserver.errors import ManifestError
from deltaserver.model import force_field
from deltaserver.model.many.manifest import is_of_many, read_many
from tests.model.many.builders import (
    BENZENE_DIMER,
    CELL,
    INDUCTION,
    OF_BOTH,
    PRIOR,
    WITH_NEON,
    benzenes,
    directory,
    manifest,
    positions,
    write_manifest,
)

XYZ = "{n}\n{comment}\n{rows}\n"


def structure(path, symbols, comment=""):
    rows = "\n".join(f"{s} {3.0 * k} 0 0" for k, s in enumerate(symbols))
    text = XYZ.format(n=len(symbols), comment=comment, rows=rows)
    (path / "structure.xyz").write_text(text, encoding="ascii")


def test_what_stands_in_it_is_read(tmp_path):
    path = directory(tmp_path, manifest(4, 2))
    found = read_many(path)
    assert is_of_many(path)
    assert is_of_many(path / "model.yaml")
    assert not is_of_many(BENZENE_DIMER)
    assert [(one.name, one.n_atoms, one.count) for one in found.species] == [
        ("water", 3, 4), ("neon", 1, 2),
    ]  # fmt: skip
    assert [entry.between for entry in found.bindings] == [(0, 0), (0, 0, 0), (0, 1)]
    assert found.bindings[0].fade == (2.5, 4.0)
    assert (found.periodic, found.cutoff) == (True, (4.5, 6.0))


def test_a_cluster_needs_no_cutoff_and_what_repeats_has_one(tmp_path):
    data = manifest(4, 2)
    del data["cutoff"]
    assert read_many(directory(tmp_path / "a", data)).cutoff == (10.0, 12.0)
    assert read_many(directory(tmp_path / "b", data | {"periodic": False})).cutoff is None


def test_how_many_is_read_off_the_structure(tmp_path):
    data = manifest(1, 1)
    for species in data["species"]:
        del species["count"]
    path = directory(tmp_path, data)
    structure(path, ["Ne", *"OHH", *"OHH", "Ne", "Ne"], 'Lattice="9 0 0 1 8 0 0 0 7"')
    model = force_field.load(path)
    water, neon = (one.atoms.tolist() for one in model.species)
    assert water == [[1, 2, 3], [4, 5, 6]]
    assert neon == [[0], [7], [8]]
    assert np.array_equal(model.cell, np.array([[9.0, 1.0, 0.0], [0.0, 8.0, 0.0], [0.0, 0.0, 7.0]]))
    structure(path, ["Ne", *"OHO"])
    with pytest.raises(
        ManifestError, match=r"from atom 1 \(O\) on, structure.xyz has the elements"
    ):
        force_field.load(path)
    structure(path, ["Ne", "Ne"])
    with pytest.raises(ManifestError, match="has no molecule of species 'water'"):
        force_field.load(path)
    (path / "structure.xyz").unlink()
    with pytest.raises(ManifestError, match="how many molecules"):
        force_field.load(path)


def test_a_complex_is_still_a_complex(tmp_path):
    assert isinstance(force_field.load(BENZENE_DIMER), CompositeModel)
    with pytest.raises(ManifestError, match=r"it is of many molecules \(species\)"):
        CompositeModel.load(directory(tmp_path, manifest(2, 1)))


WATER = {"name": "water", "model": "water.npz"}
PAIR = {"between": ["water", "water"], "model": "pair.npz", "fade": [3.0, 4.0]}
THREE_OF = {"between": ["water"] * 3}
WATER_TWICE = INDUCTION["species"] * 2


def polarised(**changes):
    """Return what polarises, of water described another way."""
    return INDUCTION | {"species": [INDUCTION["species"][0] | changes]}


def flow(pairs, response=0.1):
    return [{"between": pairs, "response": response}]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"species": []}, "species is an empty list"),
        ({"species": [WATER | {"count": 2}] * 2}, "two species have the name 'water'"),
        ({"species": [WATER | {"count": 0}]}, "count is 0; expected how many"),
        ({"species": [WATER | {"count": True}]}, "count is True|count is bool"),
        ({"species": [WATER | {"count": 2, "atoms": "0-5"}]}, "has count and atoms"),
        ({"species": [WATER | {"atoms": "0-4"}]}, "5 atoms, no multiple of the 3"),
        (
            {"species": [WATER | {"atoms": "1-3"}], "bindings": []},
            "do not hold each atom from 0 to 2",
        ),
        ({"species": [WATER | {"name": "prior", "count": 1}]}, "none of total, fragments, prior"),
        ({"species": [{"name": "x", "count": 1}]}, "species 'x' has no model"),
        ({"species": [WATER | {"count": 1, "element": "Ne"}]}, "a model and an element"),
        ({"species": [WATER | {"count": 1}, WATER | {"name": "w2"}]}, "some species have count"),
        ({"periodic": "yes!"}, "periodic is 'yes!'"),
        ({"cutoff": [6.0, 5.0]}, "cutoff: expected two rising lengths"),
        ({"bindings": [PAIR, PAIR]}, "two bindings are between water, water"),
        ({"bindings": [PAIR | {"between": ["water"]}]}, "expected two or three names of species"),
        ({"bindings": [PAIR | {"between": ["neon", "water"]}]}, "in the order in which"),
        ({"bindings": [{"between": ["water", "water"]}]}, "neither model nor prior"),
        ({"bindings": [THREE_OF | {"model": "pair.npz"}]}, "of three molecules needs fade"),
        ({"induction": INDUCTION | {"radius": -1.0}}, "induction.radius is -1; expected Å"),
        ({"induction": INDUCTION | {"cutoff": [5.0]}}, "induction.cutoff: expected two rising"),
        ({"induction": INDUCTION | {"species": WATER_TWICE}}, "is 'water'; expected each species"),
        ({"induction": polarised(name="wine")}, "is 'wine'; expected each species once: water"),
        ({"induction": polarised(charges=[0.1, 0.2])}, "2 numbers for 3 atoms; expected one"),
        ({"induction": polarised(flows=flow([[0, 3]]))}, "lists of two of the atoms 0 to 2"),
        ({"induction": polarised(flows=flow([[1, 1]]))}, "lists of two of the atoms 0 to 2"),
        ({"induction": polarised(flows=flow([[0, True]]))}, "lists of two of the atoms 0 to 2"),
        ({"induction": polarised(flows=flow([[0, 1]], -0.1))}, "response: e/V, from 0 on"),
        ({"bindings": [THREE_OF | {"prior": {}, "fade": [3, 4]}]}, "fade is of a model of three"),
        ({"bindings": [PAIR | {"prior": PRIOR | {"limit": 0.1}}]}, "prior.limit is 0.1 eV"),
        ({"bindings": [PAIR | {"prior": WITH_NEON}]}, "expected one|no such atom"),
        ({"bindings": [{k: PAIR[k] for k in ("between", "model")}]}, "does not end by itself"),
        ({"bindings": [PAIR | {"model": "water.npz"}]}, "have 6 atoms together"),
    ],
)
def test_what_is_wrong_is_refused(tmp_path, change, message):
    path = directory(tmp_path, manifest(2, 1) | change)
    with pytest.raises(ManifestError, match=message):
        force_field.load(path)


def test_charges_that_a_cutoff_would_cut_are_refused(tmp_path):
    charged = [one | {"charge": 0.1} for one in PRIOR["classes"]]
    data = manifest(2, 1, bindings=[PAIR | {"prior": PRIOR | {"classes": charged}}])
    path = directory(tmp_path, data)
    with pytest.raises(ManifestError, match=r"gives water a charge of \+0.3 e"):
        force_field.load(path)
    data = {key: value for key, value in data.items() if key != "cutoff"} | {"periodic": False}
    write_manifest(path, data)
    assert force_field.load(path).n_atoms == 7


def test_what_is_not_the_same_both_ways_round_is_refused(tmp_path):
    classes = [dict(one) for one in PRIOR["classes"]]
    classes[0]["charge"], classes[1]["charge"] = -0.6, 0.3
    lopsided = PRIOR | {"classes": classes, "pairs": PRIOR["pairs"][:2]}
    path = directory(tmp_path, manifest(2, 1, bindings=[PAIR | {"prior": lopsided}]))
    with pytest.raises(ManifestError, match="exchanging the two molecules changes their binding"):
        force_field.load(path)
    unfair = manifest(3, 0)
    three = unfair["bindings"][1]["prior"]
    unfair["bindings"][1]["prior"] = three | {"triples": three["triples"][:2]}
    write_manifest(path, unfair)
    with pytest.raises(ManifestError, match="exchanging two molecules of one species"):
        force_field.load(path)


def test_a_model_that_stands_on_a_prior_is_refused_without(tmp_path):
    bindings = [{"between": ["benzene"] * 2, "model": "binding.npz"}]
    with pytest.raises(ManifestError, match="no prior stands here"):
        force_field.load(benzenes(tmp_path, 2, bindings=bindings))


def test_the_fingerprint_is_of_all_that_is_computed(tmp_path):
    data = manifest(2, 1)
    first = force_field.load(directory(tmp_path, data))
    assert force_field.load(tmp_path, threads=2).fingerprint() == first.fingerprint()
    seen = {first.fingerprint()}
    for change in (
        {"cutoff": [4.5, 6.1]},
        {"periodic": False},
        {"bindings": data["bindings"][:2]},
        {"induction": INDUCTION},
        {"induction": OF_BOTH},
        {"induction": OF_BOTH | {"radius": 0.9}},
    ):
        seen.add(force_field.load(directory(tmp_path, data | change)).fingerprint())
    assert len(seen) == 7
    x = positions(2, 1)
    assert np.isfinite(first.evaluate(x, cell=CELL).energy)
