"""Unpaired electrons: from the option to every program's own word for them."""

import numpy as np
import pytest

from deltaserver.cli.app import main
from deltaserver.datasets import calculators
from deltaserver.datasets.files import read_dataset
from deltaserver.datasets.frames import FragmentSpec
from deltaserver.datasets.labelling import COMPLEX, label_jobs
from deltaserver.datasets.sampling.dynamics import Frame
from deltaserver.datasets.workspace import parse_fragment
from deltaserver.errors import InputError

O2 = np.array([8, 8])
O2_POSITIONS = np.array([[0.0, 0.0, 0.0], [0.0, 0.0, 1.21]])
# O2 over a hydrogen molecule, Å
NUMBERS = np.array([8, 8, 1, 1])
POSITIONS = np.array([[0.0, 0, 0], [0.0, 0, 1.21], [3.2, 0, 0.2], [3.2, 0, 0.94]])
FRAGMENTS = (FragmentSpec("oxygen", (0, 1), 0, 2), FragmentSpec("hydrogen", (2, 3)))


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("oxygen:0-1:0:2", FragmentSpec("oxygen", (0, 1), 0, 2)),
        ("no:0-1::1", FragmentSpec("no", (0, 1), 0, 1)),
        ("cation:0-1:+1:1", FragmentSpec("cation", (0, 1), 1, 1)),
        ("water:0-2:0:0", FragmentSpec("water", (0, 1, 2))),
    ],
)
def test_fragments_with_unpaired_electrons(text, spec):
    assert parse_fragment(text) == spec


@pytest.mark.parametrize("text", ["o2:0-1:0:two", "o2:0-1:0:-2", "o2:0-1:0:2:1"])
def test_what_is_no_spin(text):
    with pytest.raises(InputError, match="--fragment"):
        parse_fragment(text)


def jobs_of(spin=None):
    frame = Frame(0, 0, POSITIONS, 300.0)
    return {job.key[2]: job for job in label_jobs([frame], NUMBERS, FRAGMENTS, spin)}


def test_each_label_has_its_own_number_of_unpaired_electrons():
    jobs = jobs_of()
    assert {name: int(job.spins.sum()) for name, job in jobs.items()} == {
        COMPLEX: 2, "oxygen": 2, "hydrogen": 0,
    }  # fmt: skip
    assert int(jobs_of(spin=0)[COMPLEX].spins.sum()) == 0


def test_triplet_oxygen_is_xtb_s_own_and_no_singlet():
    interface = pytest.importorskip("xtb.interface")
    factory = calculators.calculator_factory("GFN2-xTB")
    none = np.zeros(2, int)
    singlet, _ = calculators.evaluate(factory, O2, O2_POSITIONS, none)
    triplet, forces = calculators.evaluate(factory, O2, O2_POSITIONS, none, np.array([2, 0]))
    assert abs(triplet - singlet) > 0.05  # eV
    direct = interface.Calculator(
        interface.Param.GFN2xTB, O2, O2_POSITIONS / 0.529177210903, charge=0.0, uhf=2
    )
    direct.set_verbosity(0)
    direct.set_accuracy(calculators.LABEL_ACCURACY)
    result = direct.singlepoint()
    assert triplet == pytest.approx(result.get_energy() * 27.211386245988, abs=1e-4)
    found = -result.get_gradient() * 27.211386245988 / 0.529177210903
    np.testing.assert_allclose(forces, found, atol=1e-3)


@pytest.mark.parametrize(
    ("fragments", "spin", "said"),
    [
        ((FragmentSpec("oxygen", (0, 1), 0, 1), FRAGMENTS[1]), None, "oxygen has 16 electrons"),
        ((FragmentSpec("oxygen", (0, 1), 1), FRAGMENTS[1]), None, "oxygen has 15 electrons"),
        (FRAGMENTS, 1, "the complex has 18 electrons, of which 1 cannot be unpaired"),
        ((FRAGMENTS[0], FragmentSpec("hydrogen", (2, 3), 0, 4)), None, "hydrogen has 2 electrons"),
    ],
)
def test_what_electrons_do_not_allow(fragments, spin, said):
    for name in ("GFN2-xTB", "tblite:GFN2-xTB", "PBE-D4/def2-SVP"):
        with pytest.raises(InputError, match=said):
            calculators.check_spins(name, NUMBERS, fragments, spin)
    calculators.check_spins("GFN-FF", NUMBERS, fragments, spin)
    calculators.check_spins("GFN2-xTB", NUMBERS, FRAGMENTS, 0)


def test_a_dataset_states_what_is_unpaired(tmp_path, capsys):
    frames = tmp_path / "frames.xyz"
    lines = ["O", "O", "H", "H"]
    rng = np.random.default_rng(1)
    text = ""
    for _ in range(2):
        x = POSITIONS + 0.02 * rng.normal(size=(4, 3))
        rows = [f"{s} {a:.6f} {b:.6f} {c:.6f}" for s, (a, b, c) in zip(lines, x, strict=True)]
        text += "4\n\n" + "\n".join(rows) + "\n"
    frames.write_text(text)
    options = ["-f", "oxygen:0-1:0:2", "-f", "hydrogen:2-3", "-c", "GFN2-xTB", "--workers", "1"]
    out = tmp_path / "data"
    assert main(["dataset", "label", str(frames), *options, "-o", str(out)]) == 0
    assert read_dataset(out).fragments == FRAGMENTS
    assert "spin: 2" in (out / "dataset.yaml").read_text()
    binding = read_dataset(out).binding_energy
    assert np.abs(binding).max() < 0.1  # a singlet complex of a triplet would be off by 0.5 eV
    wrong = tmp_path / "wrong"
    options[1] = "oxygen:0-1:0:1"
    assert main(["dataset", "label", str(frames), *options, "-o", str(wrong)]) == 2
    assert "of which 1 cannot be unpaired" in capsys.readouterr().err
    assert not wrong.exists()  # the same --output does once the spin is mended
    # Sampled without electrons, labelled with them: to be told before the hours of sampling.
    asked = ["-c", "ase.calculators.emt:EMT", "--label-calculator", "GFN2-xTB", "-o", str(wrong)]
    assert main(["dataset", "build", str(frames), *options[:4], *asked]) == 2
    assert "of which 1 cannot be unpaired" in capsys.readouterr().err
    assert not wrong.exists()
