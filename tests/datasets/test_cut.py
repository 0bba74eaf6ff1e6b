"""``deltaserver dataset cut`` from structures and runs to datasets."""

import numpy as np
import pytest
from click.testing import CliRunner

from deltaserver.cli.dataset import dataset
from deltaserver.datasets.files import read_dataset
from deltaserver.errors import DataError, DeltaserverError, InputError
from deltaserver.textio.xyz_frames import xyz_text
from tests.datasets.cheap_calculators import Cubed
from tests.datasets.sampling.test_cutting import CELL, liquid

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
