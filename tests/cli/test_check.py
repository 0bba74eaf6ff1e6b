"""``deltaserver check`` on the shipped models, and on models that were changed."""

import json
import re
import shutil

import pytest
from ase.data import chemical_symbols

from deltaserver import CompositeModel
from deltaserver.cli.app import main
from deltaserver.model import force_field
from tests.builders import COMPLEX, water_model, write_directory, write_model
from tests.integration.conftest import ROOT

SHIPPED = sorted(path.parent.name for path in ROOT.glob("models/*/model.yaml"))


@pytest.fixture(autouse=True)
def _no_hang():
    """Nothing here waits for anybody: no limit of time, however busy the machine is."""


@pytest.mark.usefixtures("shipped_loaded_once")
@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_models_are_what_they_were_stored_as(capsys, name):
    """After a new training: deltaserver check --models DIR --store, as models/train.sh does."""
    code = main(["check", "--models", str(ROOT / "models" / name)])
    out, err = capsys.readouterr()
    said = [line for line in err.splitlines() if "compiling for this processor" not in line]
    assert (code, said) == (0, [])  # the first of all tests compiles
    assert out.endswith("ok\n")
    fingerprint = force_field.load(ROOT / "models" / name).fingerprint()
    assert f"fingerprint  {fingerprint}\n" in out
    assert re.search(r"^total +\d+ +\de-\d+ +\de[-+]\d+ +\de[-+]\d+$", out, re.MULTILINE)


@pytest.fixture
def dimer(tmp_path):
    """A copy of the smallest shipped model directory."""
    return shutil.copytree(ROOT / "models" / "methane_dimer", tmp_path / "dimer")


def test_store_then_check(capsys, dimer):
    (dimer / "check.json").unlink()
    assert main(["check", "-m", str(dimer)]) == 0
    assert "no frame to compare with" in capsys.readouterr().out
    assert main(["check", "-m", str(dimer), "--store"]) == 0
    assert capsys.readouterr().out.endswith(f"stored: {dimer}/check.json\n")
    assert main(["check", "-m", str(dimer), "--quiet"]) == 0
    assert capsys.readouterr().out == ""


def test_single_precision_has_a_tolerance_of_its_own(capsys, tmp_path, positions):
    pytest.importorskip("torch")
    directory = write_directory(tmp_path / "m")
    symbols = [chemical_symbols[number] for number in COMPLEX]
    rows = [f"{s} {x} {y} {z}" for s, (x, y, z) in zip(symbols, positions, strict=True)]
    (directory / "structure.xyz").write_text("7\n\n" + "\n".join(rows) + "\n")
    assert main(["check", "-m", str(directory), "--store"]) == 0
    single = ["check", "-m", str(directory), "--device", "cpu", "--precision", "float32"]
    assert main(single) == 0
    assert main([*single, "--tolerance", "1e-12"]) == 4
    assert "computes wrongly" in capsys.readouterr().err


def test_single_precision_is_refused_where_it_keeps_nothing(capsys):
    """These models were trained exactly: their forces are small sums of large terms."""
    pytest.importorskip("torch")
    ion = ROOT / "models" / "na_benzene"
    assert main(["check", "-m", str(ion), "--device", "cpu", "--precision", "float32"]) == 4
    assert "% of this model's forces" in capsys.readouterr().err


def test_a_model_that_was_exchanged(capsys, dimer):
    shutil.copy(dimer / "full.npz", dimer / "binding.npz")
    assert main(["check", "-m", str(dimer)]) == 4
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "the models have been changed since" in err


def test_another_structure_is_compared_with_nothing(capsys, dimer):
    code = main(["check", "-m", str(dimer), "--structure", str(dimer / "structure.xyz")])
    assert code == 0
    assert "no frame to compare with" in capsys.readouterr().out


def test_a_directory_that_is_damaged(capsys, dimer):
    path = dimer / "methane1.npz"
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["check", "-m", str(dimer)]) == 2
    assert "methane1.npz: corrupt or truncated" in capsys.readouterr().err


def test_nothing_to_evaluate(capsys, tmp_path):
    directory = write_directory(tmp_path / "m")
    write_model(directory / "water.npz", water_model())
    assert main(["check", "-m", str(directory)]) == 2
    err = capsys.readouterr().err
    assert "nothing to evaluate" in err
    assert "--structure" in err


def test_the_fingerprint_is_in_the_header_of_a_log(capsys, dimer, tmp_path):
    log = tmp_path / "log.jsonl"
    address = f"unix:{tmp_path}/nobody"
    code = main(["-m", str(dimer), "-s", address, "--connect-timeout", "0", "-l", str(log)])
    assert code == 3
    loaded = json.loads(log.read_text().splitlines()[0])
    assert loaded["event"] == "loaded"
    assert loaded["fingerprint"] == CompositeModel.load(dimer).fingerprint()
