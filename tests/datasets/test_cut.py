"""``deltaserver dataset cut`` from structures and runs to datasets."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

from deltaserver.cli.dataset import dataset
from deltaserver.datasets import cut as cutting
from deltaserver.datasets.cut import Charged
from deltaserver.datasets.files import read_dataset
from deltaserver.datasets.sampling.cutting import Kind
from deltaserver.errors import DataError, DeltaserverError, InputError
from deltaserver.textio.xyz_frames import xyz_text
from tests.analysis.written import ipi_frame, write_run
from tests.datasets.cheap_calculators import Cubed
from tests.datasets.sampling.test_cutting import CELL, liquid
from tests.model.many import builders
from tests.model.many import test_long_range as long_range

pytest.importorskip("ase")
pytest.importorskip("rich")


def run(*arguments):
    result = CliRunner().invoke(dataset, ["cut", *map(str, arguments)])
    if isinstance(result.exception, DeltaserverError):
        raise result.exception
    assert result.exception is None, result.output
    return result.output


def written(path, seeds=(0, 1, 2), periodic=True):
    lattice = " ".join(f"{value:.8f}" for value in CELL.T.ravel())
    frames = []
    for seed in seeds:
        numbers, x = liquid(seed, wrapped=periodic)
        comment = f'Lattice="{lattice}" Properties=species:S:1:pos:R:3' if periodic else ""
        frames.append(xyz_text([{8: "O", 1: "H"}[n] for n in numbers], x, comment))
    path.write_text("".join(frames))
    return path


def test_trimers_have_what_three_molecules_have_beyond_their_pairs(cheap, tmp_path):
    """Of E = S³ that is 6 S₁ S₂ S₃, to the eight decimals of files; a second time does nothing."""
    source, output = written(tmp_path / "box.xyz"), tmp_path / "trimers"
    asked = [source, "--order", 3, "-n", 12, "-c", "cheap_calculators:Cubed", "-w", 1, "-o", output]
    assert "12 of " in run(*asked)
    frames = read_dataset(output)
    assert (len(frames), frames.order) == (12, 3)
    assert [f.name for f in frames.fragments] == ["H2O1", "H2O2", "H2O3"]
    x = frames.positions.reshape(12, 3, 3, 3)
    s = Cubed.scale * (x**2).sum(axis=(2, 3))
    np.testing.assert_allclose(frames.binding_energy, 6.0 * s.prod(axis=1), atol=1e-9)
    others = np.stack([s[:, 1] * s[:, 2], s[:, 2] * s[:, 0], s[:, 0] * s[:, 1]], axis=1)
    forces = -12.0 * Cubed.scale * others[:, :, None, None] * x
    np.testing.assert_allclose(frames.binding_forces.reshape(x.shape), forces, atol=5e-8)
    before = (output / "journal" / "labels.jsonl").read_bytes()
    assert len(before.splitlines()) == 12 * 7
    run(*asked)
    assert (output / "journal" / "labels.jsonl").read_bytes() == before
    with pytest.raises(DataError, match="was begun with other"):
        run(*asked, "--seed", 1)


def test_each_source_is_a_trajectory_with_its_share(cheap, tmp_path):
    one = written(tmp_path / "a.xyz")
    two = written(tmp_path / "b.xyz", (5, 6), periodic=False)
    output = tmp_path / "pairs"
    asked = ["--within", 4, "-n", 20, "-c", "cheap_calculators:Cubed", "-w", 1, "-o", output]
    run(one, two, *asked)
    frames = read_dataset(output)
    assert frames.order == 2
    assert set(frames.trajectory.tolist()) == {0, 1}
    for k in (0, 1):
        np.testing.assert_array_equal(
            np.sort(frames.step[frames.trajectory == k]), np.arange((frames.trajectory == k).sum())
        )


def test_what_cannot_be_cut_is_refused(cheap, tmp_path):
    source, output = written(tmp_path / "box.xyz", (0,)), tmp_path / "set"
    asked = ["-c", "cheap_calculators:Cubed", "-w", 1, "-o", output]
    with pytest.raises(InputError, match="groups of 2 molecules come within 2 Å"):
        run(source, "--within", 2, *asked)
    with pytest.raises(InputError, match="names 2 molecules; --order 3 has 3"):
        run(source, "--order", 3, "--between", "H2O,H2O", *asked)
    with pytest.raises(InputError, match="no such file"):
        run(tmp_path / "nothing", *asked)
    assert not output.exists()


def brine(path):
    """Waters around a sodium, near enough to be taken for its bonds, and a chloride."""
    numbers, x = liquid(2, wrapped=False)
    x = x[:12] - x[:3].mean(axis=0)
    ions = x[0] + np.array([[0.0, -2.3, 0.0], [0.0, -4.9, 0.0]])
    symbols = [{8: "O", 1: "H"}[n] for n in numbers[:12]]
    path.write_text(xyz_text([*symbols, "Na", "Cl"], np.vstack([x, ions]), ""))
    return path


@pytest.mark.parametrize(
    ("between", "charges", "expected"),
    [
        ("H2O,Na", ["Na:+1"], [0, 1]),
        ("Na,Cl", ["Na:+1", "Cl:-1"], [1, -1]),
        ("H2O,H2O", ["Na:1"], [0, 0]),
        ("H2O,Na,Cl", ["Na:+1", "Cl:-1:2"], [0, 1, -1]),
    ],
)
def test_ions_are_labelled_with_their_charges(cheap, tmp_path, between, charges, expected):
    """A molecule, a dimer and a trimer each with what they have together."""
    source, output = brine(tmp_path / "brine.xyz"), tmp_path / "set"
    order = len(expected)
    asked = ["--order", order, "--within", 9, "-n", 1, "--between", between, "-w", 1]
    stated = [word for text in charges for word in ("--charge", text)]
    run(source, *asked, *stated, "-c", "cheap_calculators:OfCharge", "-o", output)
    frames = read_dataset(output)
    assert [fragment.charge for fragment in frames.fragments] == expected
    spins = [2 if charge == -1 and order == 3 else 0 for charge in expected]
    assert [fragment.spin for fragment in frames.fragments] == spins
    own = 10.0 * np.array(expected) + np.array(spins)
    np.testing.assert_allclose(frames.fragment_energies, own[None])
    np.testing.assert_allclose(frames.energy, own.sum())
    np.testing.assert_allclose(frames.binding_energy, 0.0, atol=1e-12)


def test_charges_that_are_wrong_are_refused(cheap, tmp_path):
    source, output = brine(tmp_path / "brine.xyz"), tmp_path / "set"
    asked = [source, "--within", 9, "-n", 1, "-w", 1, "-o", output, "--between", "H2O,Na"]
    with pytest.raises(InputError, match=r"--charge K: no .*; there are H2O \(4\), Na"):
        run(*asked, "--charge", "Na:+1", "--charge", "K:+1", "-c", "cheap_calculators:OfCharge")
    with pytest.raises(InputError, match="expected NAME:CHARGE or NAME:CHARGE:SPIN"):
        run(*asked, "--charge", "Na", "-c", "cheap_calculators:OfCharge")
    with pytest.raises(InputError, match="charge 'one' is no whole number of e"):
        run(*asked, "--charge", "Na:one", "-c", "cheap_calculators:OfCharge")


def test_the_model_of_a_run_knows_the_charges(tmp_path):
    """Whole numbers of e; where a prior has others, whoever cuts must say."""
    data = long_range.brine()
    whole = source_of(tmp_path / "whole", data)
    x = tuple(Kind(name, np.array(z), np.zeros((1, len(z)), int), ()) for name, z in KINDS)
    assert [cutting._charged(k, (), whole.charges[k.name]).charge for k in x] == [0, 1, -1]
    assert whole.alone == (11, 17)
    for entry in data["bindings"][2:]:
        entry["prior"]["classes"][-1]["charge"] *= 0.8
    data["bindings"][-1]["prior"]["classes"][0]["charge"] = 0.8
    broken = source_of(tmp_path / "broken", data)
    with pytest.raises(InputError, match=r"gives sodium a charge of \+0.8 e, which no molecule"):
        cutting._charged(x[1], (), broken.charges["sodium"])
    assert cutting._charged(x[1], (Charged("sodium", 1),), 0.8).charge == 1


KINDS = (("water", (8, 1, 1)), ("sodium", (11,)), ("chloride", (17,)))


def source_of(path, data):
    return cutting._known(builders.directory(path, data))


def two_waters(tmp_path):
    """A directory of two waters, one of another species and a neon, and their run."""
    data = builders.manifest(2, 1, periodic=False)
    del data["cutoff"]
    other = data["species"][0] | {"name": "other", "count": 1}
    data["species"].insert(1, other)
    apart = long_range.water_prior(O1=0.6, O2=-1.4)
    data["bindings"].append({"between": ["water", "other"], "prior": apart})
    models = builders.directory(tmp_path / "models", data)
    source = write_run(tmp_path / "run", [], [])
    frame = ipi_frame(builders.positions(3, 1), 0, ("O", "H", "H") * 3 + ("Ne",))
    (source / "run.pos_0.xyz").write_text(frame)
    (source / "run.json").write_text(json.dumps({"models": str(models)}))
    return models, source


def test_species_of_equal_elements_are_told_by_their_atoms(cheap, tmp_path):
    """Each has its own charge, and neon, which stands after them, its own."""
    models, source = two_waters(tmp_path)
    charges = cutting._known(models).charges
    assert charges == pytest.approx({"water": 1.0, "other": -1.0, "neon": 0.0})
    for between, expected in (("water,other", [1, -1]), ("other,neon", [-1, 0])):
        output = tmp_path / between
        asked = ["--within", 9, "-n", 1, "--between", between, "-w", 1, "-o", output]
        run(source, *asked, "-c", "cheap_calculators:OfCharge")
        frames = read_dataset(output)
        assert [fragment.name for fragment in frames.fragments] == between.split(",")
        assert [fragment.charge for fragment in frames.fragments] == expected
    # Named the other way round they stand as in the model, which its training is to fit.
    turned = ["--between", "neon,other", "-c", "cheap_calculators:OfCharge", "-o"]
    run(source, "--within", 9, "-n", 1, "-w", 1, *turned, tmp_path / "turned")
    assert [one.name for one in read_dataset(tmp_path / "turned").fragments] == ["other", "neon"]
    with pytest.raises(InputError, match=r"there are water \(2\), other \(1\), neon \(1\)"):
        run(source, "--between", "H2O,neon", "-o", tmp_path / "none")


def test_no_two_molecules_of_a_group_have_one_name():
    """A number that another kind has in its name is passed over."""
    one, other = (
        Kind(name, np.array([8, 1, 1]), np.zeros((1, 3), int), ()) for name in ("water", "water1")
    )
    kinds = (one, one, other)
    fragments = cutting._fragments(kinds, [Charged(kind.name, 0) for kind in kinds])
    assert [fragment.name for fragment in fragments] == ["water2", "water3", "water1"]
