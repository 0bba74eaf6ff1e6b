from __future__ import annotations

import shutil

import numpy as np
import pytest
import yaml

from deltaserver.cli import app
from deltaserver.model import force_field
from deltaserver.model.files.archive import read_arrays, write_arrays
from tests import shipped
from tests.model.many.builders import BENZENE_DIMER
from tests.shipped import MODELS


def assemble(*words, code=0):
    assert app.main(["assemble", *map(str, words)]) == code


def test_a_dimer_becomes_what_it_is_taken_apart_of(capsys, tmp_path):
    assemble(BENZENE_DIMER, "--structure", BENZENE_DIMER / "structure.xyz", "-o", tmp_path / "two")
    assert "2 benzene, 24 atoms" in capsys.readouterr().out
    model, dimer = force_field.load(tmp_path / "two"), shipped.load(BENZENE_DIMER)
    x = np.loadtxt(BENZENE_DIMER / "structure.xyz", skiprows=2, usecols=(1, 2, 3))
    assert model.evaluate(x).energy == pytest.approx(float(dimer.evaluate(x).energy), abs=1e-9)
    assert model.reference == "GFN2-xTB"
    assemble(BENZENE_DIMER, "-o", tmp_path / "two", code=2)
    assert "there is a model.yaml already" in capsys.readouterr().err


def test_how_a_binding_was_trained_goes_with_it(tmp_path):
    """For improve, which trains it again; also where a liquid is used for another structure."""
    assemble(BENZENE_DIMER, "-o", tmp_path / "liquid")
    assemble(tmp_path / "liquid", "-o", tmp_path / "again")
    told = (BENZENE_DIMER / "training.json").read_bytes()
    assert (tmp_path / "again" / "training.json").read_bytes() == told
    assemble(MODELS / "benzene_water", MODELS / "na_benzene", "-o", tmp_path / "wet")
    assert not (tmp_path / "wet" / "training.json").exists()  # which of two would it be?


def test_what_is_refused_is_not_in_the_way_of_another_try(capsys, tmp_path):
    wrong, output = MODELS / "benzene_water" / "structure.xyz", tmp_path / "two"
    assemble(BENZENE_DIMER, "--structure", wrong, "-o", output, code=2)
    assert "has the elements of none of benzene" in capsys.readouterr().err
    assert not output.exists()
    assemble(BENZENE_DIMER, "--structure", BENZENE_DIMER / "structure.xyz", "-o", output)


def test_what_repeats_has_a_cell(capsys, tmp_path):
    plain, boxed, output = tmp_path / "plain.xyz", tmp_path / "box.xyz", tmp_path / "two"
    count, _, *rows = (BENZENE_DIMER / "structure.xyz").read_text().splitlines()
    plain.write_text("\n".join([count, "", *rows]) + "\n")
    boxed.write_text("\n".join([count, 'Lattice="30 0 0 0 30 0 0 0 30"', *rows]) + "\n")
    assemble(BENZENE_DIMER, "--structure", plain, "--periodic", "-o", output, code=2)
    assert "has no cell that --periodic could repeat" in capsys.readouterr().err
    assert not output.exists()
    assemble(BENZENE_DIMER, "--structure", boxed, "-o", tmp_path / "cluster")
    assert f"the cell of {boxed} is ignored, as of a cluster" in capsys.readouterr().out
    assemble(BENZENE_DIMER, "--structure", boxed, "--periodic", "-o", output)
    assert "ignored" not in capsys.readouterr().out
    words = ["input", "--models", str(output), "--kind", "nvt"]
    assert app.main(words) == 0
    assert app.main([*words, "--structure", str(plain)]) == 2  # in a cell of 300 Å before
    assert f"{plain}: has no cell, and two is periodic" in capsys.readouterr().err


def test_a_file_is_no_directory(capsys, tmp_path):
    (tmp_path / "liquid").write_text("")
    words = ["assemble", "models/benzene_dimer", "--output", str(tmp_path / "liquid")]
    assert app.main(words) == 2
    assert "liquid: is a file; expected a directory" in capsys.readouterr().err


def test_two_dimers_are_a_mixture(capsys, tmp_path):
    assemble(MODELS / "benzene_water", MODELS / "na_benzene", "-o", tmp_path / "wet")
    assert "it lacks structure.xyz" in capsys.readouterr().out
    path = tmp_path / "wet" / "model.yaml"
    data = yaml.safe_load(path.read_text(encoding="utf-8"))
    names = [one["name"] for one in data["species"]]
    assert sorted(names) == ["benzene", "sodium", "water"]
    assert {frozenset(one["between"]) for one in data["bindings"]} == {
        frozenset({"benzene", "water"}), frozenset({"benzene", "sodium"}),
    }  # fmt: skip
    for species in data["species"]:
        species["count"] = 2 if species["name"] == "benzene" else 1
    path.write_text(yaml.safe_dump(data), encoding="utf-8")
    unbound = "no binding of benzene and benzene, water and sodium: nothing keeps them apart"
    with pytest.warns(force_field.UnboundWarning, match=unbound):
        assert force_field.load(path).n_atoms == 28
    assemble(BENZENE_DIMER, MODELS / "benzene_water", "-o", tmp_path / "no", code=2)
    assert "its atoms in another order" in capsys.readouterr().err


def test_a_liquid_is_used_for_another_structure(capsys, tmp_path):
    structure = BENZENE_DIMER / "structure.xyz"
    assemble(MODELS / "benzenes", "--structure", structure, "-o", tmp_path / "again")
    model = force_field.load(tmp_path / "again")
    assert (len(model.molecules), model.periodic, len(model.triples)) == (2, False, 1)
    assemble(MODELS / "c60", MODELS / "benzenes", "-o", tmp_path / "no", code=2)
    assert "can only be given alone, or first" in capsys.readouterr().err


def test_dispersion_and_induction_of_three_are_taken_over_without_a_kernel(capsys, tmp_path):
    """As models/trimers.py leaves them, beside the pairs."""
    shipped_one = MODELS / "carbon_dioxides"
    pairs, three = tmp_path / "pairs", tmp_path / "three"
    shutil.copytree(shipped_one, pairs)
    three.mkdir()
    data = yaml.safe_load((pairs / "model.yaml").read_text(encoding="utf-8"))
    of_pairs, of_three = data["bindings"]
    taken = {"bindings": [of_three], "induction": data.pop("induction")}
    (three / "bindings.yaml").write_text(yaml.safe_dump(taken), encoding="utf-8")
    (pairs / "model.yaml").write_text(yaml.safe_dump(data | {"bindings": [of_pairs]}))
    structure = shipped_one / "structure.xyz"
    options = ["--structure", structure, "--periodic", "-o", tmp_path / "both"]
    assemble(pairs, three, *options, "--name", data["name"])
    found, known = (force_field.load(path) for path in (tmp_path / "both", shipped_one))
    assert found.fingerprint() == known.fingerprint()
    of_three["between"] = ["carbon_dioxide", "carbon_dioxide", "water"]
    (three / "bindings.yaml").write_text(yaml.safe_dump(taken), encoding="utf-8")
    capsys.readouterr()
    assemble(pairs, three, "-o", tmp_path / "no", code=2)
    assert "has no model: expected its prior, and between: three of" in capsys.readouterr().err


def test_check_stores_a_frame_of_many_and_finds_it_again(capsys, tmp_path):
    structure = BENZENE_DIMER / "structure.xyz"
    assemble(BENZENE_DIMER, "--structure", structure, "-o", tmp_path / "two")
    directory = str(tmp_path / "two")
    assert app.main(["check", "--models", directory, "--store", "--quiet"]) == 0
    assert app.main(["check", "--models", directory]) == 0
    out = capsys.readouterr().out
    assert out.endswith("ok\n")
    assert "benzene" in out


@pytest.mark.filterwarnings("ignore::deltaserver.model.force_field.ChargedCellWarning")
def test_ions_and_polar_molecules_are_summed_over_all_images(capsys, tmp_path):
    """Benzene has charges, and no dipole; whoever wants the sum asks for it."""
    apart = 'Lattice="20 0 0 0 20 0 0 0 20"'
    for name, polar in (("benzene_dimer", False), ("benzene_water", True), ("na_benzene", True)):
        lines = (MODELS / name / "structure.xyz").read_text(encoding="utf-8").splitlines()
        box = tmp_path / f"{name}.xyz"
        box.write_text("\n".join([lines[0], apart, *lines[2:]]) + "\n", encoding="utf-8")
        assemble(MODELS / name, "--structure", box, "--periodic", "-o", tmp_path / name)
        assert ("by an Ewald sum" in capsys.readouterr().out) == polar
        assert (force_field.load(tmp_path / name).ewald is not None) == polar
    again = ["--structure", tmp_path / "benzene_water.xyz", "--periodic", "-o"]
    assemble(tmp_path / "benzene_water", *again, tmp_path / "kept")
    assert force_field.load(tmp_path / "kept").ewald is not None
    assemble(tmp_path / "benzene_water", "--no-ewald", *again, tmp_path / "cut")
    assert force_field.load(tmp_path / "cut").ewald is None
    asked = ["--structure", BENZENE_DIMER / "structure.xyz", "-o", tmp_path / "no", "--ewald"]
    assemble(BENZENE_DIMER, *asked, code=2)
    assert "--ewald is of what repeats" in capsys.readouterr().err
    assert app.main(["check", "--models", str(tmp_path / "na_benzene")]) == 0


def test_a_molecule_of_another_method_is_told_to_be_left_out(capsys, tmp_path):
    assemble(MODELS / "benzene_water", MODELS / "na_benzene", "-o", tmp_path / "wet")
    said = capsys.readouterr().out
    assert "benzene: its model is that of " in said
    assert "(GFN2-xTB), not of " in said


def test_isomers_are_not_one_molecule(capsys, tmp_path):
    """The second directory's benzene has two carbons in each other's places."""
    second = tmp_path / "second"
    shutil.copytree(BENZENE_DIMER, second)
    arrays = read_arrays(second / "benzene1.npz")
    i, j = np.tril_indices(12, k=-1)
    place = np.zeros((12, 12), dtype=int)
    place[i, j] = place[j, i] = np.arange(len(i))
    swap = np.arange(12)
    swap[[0, 2]] = 2, 0
    moved = arrays["R_desc"][place[swap[i], swap[j]]]
    write_arrays(second / "benzene1.npz", {**arrays, "R_desc": moved})
    assemble(BENZENE_DIMER, second, "-o", tmp_path / "no", code=2)
    assert "isomers, or atoms in another order" in capsys.readouterr().err


def test_a_liquid_keeps_its_cutoff_a_cluster_has_none(tmp_path):
    source, structure = tmp_path / "source", BENZENE_DIMER / "structure.xyz"
    shutil.copytree(MODELS / "benzenes", source)
    path = source / "model.yaml"
    path.write_text(path.read_text(encoding="utf-8") + "cutoff: [6.0, 8.0]\n", encoding="utf-8")
    assemble(source, "--structure", source / "structure.xyz", "--periodic", "-o", tmp_path / "box")
    assemble(source, "--structure", structure, "-o", tmp_path / "two")
    box, two = (
        yaml.safe_load((tmp_path / name / "model.yaml").read_text(encoding="utf-8"))
        for name in ("box", "two")
    )
    assert box["cutoff"] == [6.0, 8.0]
    assert "cutoff" not in two


def test_files_without_units_are_in_one_unit(capsys, tmp_path):
    """One of two directories is in eV, as it says; its files do not."""
    for name, energy in (("benzene_water", None), ("na_benzene", "eV")):
        shutil.copytree(MODELS / name, tmp_path / name)
        for path in (tmp_path / name).glob("*.npz"):
            arrays = read_arrays(path)
            write_arrays(path, {k: v for k, v in arrays.items() if k not in ("r_unit", "e_unit")})
        path = tmp_path / name / "model.yaml"
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        units = {"units": {"energy": energy}} if energy else {}
        path.write_text(yaml.safe_dump(data | units), encoding="utf-8")
    both = [tmp_path / "benzene_water", tmp_path / "na_benzene"]
    assemble(*both, "-o", tmp_path / "wet", code=2)
    assert "no unit of energy and are in eV" in capsys.readouterr().err
    assemble(MODELS / "benzene_water", both[1], "-o", tmp_path / "known")
    data = yaml.safe_load((tmp_path / "known" / "model.yaml").read_text(encoding="utf-8"))
    assert data["units"] == {"length": "Ang", "energy": "eV"}
