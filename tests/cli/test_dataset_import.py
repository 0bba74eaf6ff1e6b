from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import write

from deltaserver.cli.app import main
from deltaserver.datasets.files import read_dataset
from deltaserver.datasets.importing.label_units import parse_units
from deltaserver.errors import UnitError
from deltaserver.units import BOHR_ANG, HARTREE_EV, KCAL_PER_MOL_EV
from tests.textio.written import FRAMES, SYMBOLS

DATA = Path(__file__).parents[2] / "data" / "methane_dimer"
PAIR = ["--fragment", "a:0-4", "--fragment", "b:5-9"]
WHOLE = ["--fragment", "all:0-9"]


@pytest.fixture(scope="module")
def real():
    return read_dataset(DATA).select(slice(0, 40))


def imported(path, *options):
    output = path.parent / "set"
    assert main(["dataset", "import", str(path), "--output", str(output), *options]) == 0
    return read_dataset(output)


def refused(capsys, path, *options):
    output = path.parent / "set"
    assert main(["dataset", "import", str(path), "--output", str(output), *options]) == 2
    *notes, line = capsys.readouterr().err.strip().splitlines()
    assert all(note.startswith("note: ") for note in notes)
    return line


def xyz(frames, energy="REF_energy", forces="REF_forces", alone=(), factor=(1.0, 1.0)):
    """Extended XYZ with labels of these names; ``alone`` are fragments with labels of theirs."""
    text = []
    for m in range(len(frames)):
        columns = f"Properties=species:S:1:pos:R:3:{forces}:R:3"
        columns += ":forces_frag:R:3" if alone else ""
        text += [str(len(frames.numbers)), f"{columns} {energy}={frames.energy[m] / factor[0]:.9f}"]
        for j in alone:
            text[-1] += f" energy_frag{j + 1}={frames.fragment_energies[m, j]:.9f}"
        rows = [frames.positions[m], frames.forces[m] / factor[1]]
        rows += [frames.fragment_forces[m]] if alone else []
        for z, row in zip(frames.numbers, np.hstack(rows), strict=True):
            text.append(f"{z} " + " ".join(f"{value:.9f}" for value in row))
    return "\n".join(text) + "\n"


def sgdml(frames, **more):
    return {
        "z": frames.numbers, "R": frames.positions, "E": frames.energy[:, None] / KCAL_PER_MOL_EV,
        "F": frames.forces / KCAL_PER_MOL_EV, **more,
    }  # fmt: skip


def rmd17(frames):
    return {
        "nuclear_charges": frames.numbers, "coords": frames.positions,
        "energies": frames.energy / KCAL_PER_MOL_EV, "forces": frames.forces / KCAL_PER_MOL_EV,
        "old_indices": np.arange(len(frames)),
    }  # fmt: skip


@pytest.mark.parametrize("made", [sgdml, rmd17])
def test_md17_md22_and_rmd17_of_one_molecule(real, tmp_path, made, capsys):
    path = tmp_path / "md.npz"
    np.savez(path, **made(real))
    found = imported(path, *WHOLE)
    np.testing.assert_allclose(found.energy, real.energy, rtol=1e-12)
    np.testing.assert_allclose(found.forces, real.forces, atol=1e-8)
    np.testing.assert_allclose(found.positions, real.positions, atol=1e-8)
    assert found.step.tolist() == list(range(40))
    assert "states no units; taken for kcal/mol,Ang" in capsys.readouterr().err


def test_stated_units_count_and_given_ones_more(real, tmp_path):
    path = tmp_path / "md.npz"
    in_hartree = sgdml(real, e_unit="kcal/mol", r_unit="Ang")
    in_hartree["E"], in_hartree["F"] = real.energy / HARTREE_EV, real.forces / HARTREE_EV
    np.savez(path, **in_hartree)
    found = imported(path, *WHOLE, "--units", "Hartree,Ang")
    np.testing.assert_allclose(found.energy, real.energy, rtol=1e-12)


def test_our_own_export_comes_back(real, tmp_path):
    assert main(["dataset", "export", str(DATA), "--output", str(tmp_path)]) == 0
    found = imported(tmp_path / "full.npz", *WHOLE, "--frames", "20")
    whole = read_dataset(DATA)
    chosen = np.linspace(0, len(whole) - 1, 20).round().astype(int)
    np.testing.assert_allclose(found.energy, whole.energy[chosen], rtol=1e-12)
    np.testing.assert_array_equal(found.trajectory, whole.trajectory[chosen])
    np.testing.assert_array_equal(found.step, whole.step[chosen])


def test_every_label_of_a_file_is_kept(real, tmp_path):
    path = tmp_path / "t.xyz"
    path.write_text(xyz(real, "energy", "forces", alone=(0, 1)))
    found = imported(path, *PAIR)
    np.testing.assert_allclose(found.binding_energy, real.binding_energy, atol=1e-8)
    np.testing.assert_allclose(found.fragment_forces, real.fragment_forces, atol=1e-8)


def test_a_complex_of_three(tmp_path):
    frames = np.concatenate([FRAMES, FRAMES[:, :3] + [0.0, 5.0, 0.0]], axis=1)
    lines = []
    for frame in frames:
        lines += ["9", "Properties=species:S:1:pos:R:3:forces:R:3:forces_frag:R:3 energy=-6.5 "
                  "energy_frag1=-1 energy_frag2=-2 energy_frag3=-3"]  # fmt: skip
        for s, x in zip([*SYMBOLS, *SYMBOLS[:3]], frame, strict=True):
            lines.append(f"{s} {x[0]:.8f} {x[1]:.8f} {x[2]:.8f} 0 0 0 0 0 0")
    path = tmp_path / "t.xyz"
    path.write_text("\n".join(lines) + "\n")
    found = imported(path, "-f", "a:0-2", "-f", "b:3-5", "-f", "c:6-8")
    np.testing.assert_allclose(found.binding_energy, -0.5)
    assert [f.name for f in found.fragments] == ["a", "b", "c"]


def of_emt(frames):
    """The frames with EMT's labels of the complex."""
    found = [Atoms(frames.numbers, x, calculator=EMT()) for x in frames.positions]
    energy = np.array([one.get_potential_energy() for one in found])
    return replace(frames, energy=energy, forces=np.array([one.get_forces() for one in found]))


def test_fragments_of_another_method_than_the_complex_are_refused(real, tmp_path, capsys):
    path = tmp_path / "t.xyz"
    path.write_text(xyz(real.select(slice(0, 3))))
    said = refused(capsys, path, *PAIR, "--calculator", "ase.calculators.emt:EMT", "--workers", "1")
    assert "no frame's binding energy is within 5 eV of zero" in said
    assert not (tmp_path / "set" / "dataset.yaml").exists()


def test_forces_in_another_unit_than_the_fragments_are_refused(real, tmp_path, capsys):
    path = tmp_path / "t.xyz"
    few = real.select(slice(0, 4))
    for factor, said in (
        (KCAL_PER_MOL_EV, "are 23"),
        (HARTREE_EV, "are 0.036"),
        (-1.0, "are -0.999"),
    ):
        path.write_text(xyz(few, "energy", "forces", alone=(0, 1), factor=(1.0, factor)))
        assert f"the complex' forces {said}" in refused(capsys, path, *PAIR)
    path.write_text(xyz(few, "energy", "forces", alone=(0, 1)))
    imported(path, *PAIR)
    assert "its units could not be checked" in capsys.readouterr().err


def test_only_the_fragments_are_labelled(real, tmp_path):
    path = tmp_path / "t.xyz"
    some = of_emt(real.select(slice(0, 3)))
    path.write_text(xyz(some, "dft", "pull", factor=(HARTREE_EV, HARTREE_EV / BOHR_ANG)))
    keys = ["--energy-key", "dft", "--forces-key", "pull"]
    found = imported(
        path, *PAIR, *keys, "--units", "Hartree,Ang,Hartree/Bohr",
        "--calculator", "ase.calculators.emt:EMT", "--workers", "1",
    )  # fmt: skip
    np.testing.assert_allclose(found.energy, some.energy, atol=1e-6)
    np.testing.assert_allclose(found.forces, some.forces, atol=1e-6)
    alone = Atoms(some.numbers[:5], some.positions[0, :5], calculator=EMT())
    assert found.fragment_energies[0, 0] == pytest.approx(alone.get_potential_energy(), abs=1e-6)


def test_what_cannot_be_imported(real, tmp_path, capsys):
    path = tmp_path / "t.xyz"
    some = real.select(slice(0, 3))
    path.write_text(xyz(some, "my_energy", "my_forces"))
    said = refused(capsys, path, *PAIR)
    assert "frame 0 has no energy called energy_full or energy or" in said
    assert "it has my_energy: give --energy-key" in said.replace("Properties, ", "")
    said = refused(capsys, path, *PAIR, "--energy-key", "my_energy", "--forces-key", "my_forces")
    assert "has labels of the complex only; --calculator labels the fragments" in said
    path.write_text(xyz(some).replace("REF_energy=", "REF_energy=x", 1))
    assert "frame 0: REF_energy is 'x" in refused(capsys, path, *PAIR)
    path.write_text(xyz(some).replace("\n6 ", "\n6 9", 1))
    assert "frame 0: " in refused(capsys, path, *WHOLE)
    path = tmp_path / "t.npz"
    np.savez(path, a=1)
    assert "has a; expected z, R, E, F" in refused(capsys, path, *WHOLE)
    np.savez(path, **{**sgdml(some), "E": some.energy[:2]})
    assert "expected one energy a frame" in refused(capsys, path, *WHOLE)
    for command in (["check", str(path)], ["label", str(path), "-o", str(tmp_path / "x"), *PAIR]):
        assert main(["dataset", *command]) == 2
        assert "make a dataset of it with: deltaserver dataset import" in capsys.readouterr().err
    path.write_bytes(b"nonsense")
    assert "not readable as .npz" in refused(capsys, path, *WHOLE)


@pytest.mark.parametrize(
    ("text", "energy", "length", "force"),
    [
        ("eV, Ang, eV/Bohr", 1.0, 1.0, 1 / BOHR_ANG),
        ("eV/Bohr", 1.0, 1.0, 1 / BOHR_ANG),
        ("kcal/mol,Ang,kcal/mol/Ang", KCAL_PER_MOL_EV, 1.0, KCAL_PER_MOL_EV),
        ("kcal/mol", KCAL_PER_MOL_EV, 1.0, KCAL_PER_MOL_EV),
        ("kcal/mol/A", KCAL_PER_MOL_EV, 1.0, KCAL_PER_MOL_EV),
        ("Hartree,Bohr", HARTREE_EV, BOHR_ANG, HARTREE_EV / BOHR_ANG),
        ("Bohr Hartree", HARTREE_EV, BOHR_ANG, HARTREE_EV / BOHR_ANG),
        ("au", HARTREE_EV, BOHR_ANG, HARTREE_EV / BOHR_ANG),
        ("Hartree,Ang,eV/Ang", HARTREE_EV, 1.0, 1.0),
        ("energy=eV, length=nm, forces=eV/Ang", 1.0, 10.0, 1.0),
    ],
)
def test_units_in_any_order_and_forces_of_their_own(text, energy, length, force):
    units = parse_units(text)
    found = (units.energy_ev, units.length_ang, units.force_ev_per_ang)
    assert found == pytest.approx((energy, length, force), rel=1e-14)


@pytest.mark.parametrize("text", ["Ang", "eV,Ang,eV", "eV,Ang,eV/Ang,x", "eV,furlong", ""])
def test_units_that_say_nothing_are_refused(text):
    with pytest.raises(UnitError):
        parse_units(text)


@pytest.mark.parametrize("factor", [(HARTREE_EV, 1.0), (1.0, HARTREE_EV), (1 / 23.0, 1.0)])
def test_wrong_units_of_a_complex_alone_are_noticed(real, tmp_path, capsys, factor):
    path = tmp_path / "t.xyz"
    path.write_text(xyz(real, factor=factor))
    said = refused(capsys, path, *PAIR, "--calculator", "ase.calculators.emt:EMT")
    assert "as the forces say" in said or "bonds as stiff as" in said
    assert not (tmp_path / "set" / "journal").exists()


def test_a_frame_of_a_complex_alone_is_looked_at_by_itself(real, tmp_path, capsys):
    path = tmp_path / "t.npz"
    arrays = sgdml(real)
    arrays["F"] = arrays["F"].copy()
    arrays["F"][11] *= 1000.0
    np.savez(path, **arrays)
    said = refused(capsys, path, *PAIR, "--calculator", "ase.calculators.emt:EMT")
    assert "frame 11 has forces up to" in said


def test_keys_of_an_archive_may_be_named(real, tmp_path):
    arrays = sgdml(real)
    arrays["dft_e"], arrays["dft_f"] = arrays.pop("E"), arrays.pop("F")
    np.savez(tmp_path / "t.npz", **arrays)
    options = ["--energy-key", "dft_e", "--forces-key", "dft_f"]
    found = imported(tmp_path / "t.npz", *WHOLE, *options)
    np.testing.assert_allclose(found.energy, real.energy, rtol=1e-12)
    np.testing.assert_allclose(found.forces, real.forces, atol=1e-7)


def test_results_of_a_calculator_in_a_trajectory_of_ase(real, tmp_path):
    images = []
    for m in range(len(real)):
        atoms = Atoms(real.numbers, real.positions[m])
        labels = {"energy": real.energy[m], "forces": real.forces[m]}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        images.append(atoms)
    write(tmp_path / "t.traj", images)
    found = imported(tmp_path / "t.traj", *WHOLE)
    np.testing.assert_allclose(found.energy, real.energy, rtol=1e-12)
    np.testing.assert_allclose(found.forces, real.forces, atol=1e-7)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (lambda d: {"step": np.array(3)}, "step has shape (); expected a number for each of 40"),
        (lambda d: {"trajectory": np.zeros(3)}, "trajectory has shape (3,); expected a number for"),
        (lambda d: {"F": d["F"] > 0.0}, "F holds bool; expected numbers"),
        (lambda d: {"R": d["R"].astype("U8")}, "R holds <U8; expected numbers"),
        (lambda d: {"R": d["R"][:0], "E": d["E"][:0], "F": d["F"][:0]}, "no frames in it"),
        (lambda d: {"z": np.array([d["z"]] * 39 + [d["z"][::-1]])}, "frames of other atoms than"),
        (lambda d: {"e_unit": np.array("rod")}, "e_unit and r_unit are ['rod', 'Ang']; give --un"),
    ],
)
def test_archives_that_are_not_what_they_seem(real, tmp_path, capsys, changes, said):
    arrays = sgdml(real, e_unit="kcal/mol", r_unit="Ang")
    np.savez(tmp_path / "t.npz", **arrays | changes(arrays))
    assert said in refused(capsys, tmp_path / "t.npz", *WHOLE)


def test_elements_of_every_frame_and_units_of_bytes_are_read(real, tmp_path):
    units = {"e_unit": np.array(b"kcal/mol"), "r_unit": np.array(b"Ang")}
    arrays = sgdml(real, **units) | {"z": np.array([real.numbers] * len(real))}
    np.savez(tmp_path / "t.npz", **arrays)
    found = imported(tmp_path / "t.npz", *WHOLE)
    np.testing.assert_array_equal(found.numbers, real.numbers)
    np.testing.assert_allclose(found.energy, real.energy, rtol=1e-12)
