"""``deltaserver evaluate --scan`` on clusters that EMT labels and a pair potential binds."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml

from deltaserver.cli import app
from deltaserver.datasets import labelling
from deltaserver.datasets.files import read_dataset
from deltaserver.evaluation.scans.errors import WALL_EV, scan_errors
from deltaserver.evaluation.scans.labels import read_scan
from deltaserver.model.composite import CompositeModel
from tests import builders

MODELS = Path(__file__).parents[2] / "models" / "benzene_dimer"
DATA = Path(__file__).parents[2] / "data" / "benzene_dimer_gfn2_150K.xyz.gz"
EMT = "ase.calculators.emt:EMT"
FRAGMENTS = ("--fragment", "copper:0-2", "--fragment", "gold:3-4:0")
FEW = ("--orientations", 2, "--rotations", 1, "--displacements", "-0.5,0,0.5,1,4,20")


def run(*arguments):
    return app.main(["evaluate", *map(str, arguments)])


def prior_only(directory, cluster, **overrides):
    """Copper and gold with a pair potential between them, to which the binding model adds 0."""
    directory.mkdir()
    builders.write_model(directory / "copper.npz", builders.sgdml_model(np.array([29] * 3)))
    builders.write_model(directory / "gold.npz", builders.sgdml_model(np.array([79] * 2)))
    nothing = builders.sgdml_model(np.array([29] * 3 + [79] * 2), c=np.float64(0.0))
    nothing["R_d_desc_alpha"] = np.zeros_like(nothing["R_d_desc_alpha"])
    builders.write_model(directory / "binding.npz", nothing)
    manifest = {
        "format": "deltaserver-model/1",
        "name": "CuAu",
        "fragments": [
            {"name": "copper", "atoms": "0-2", "model": "copper.npz"},
            {"name": "gold", "atoms": "3-4", "model": "gold.npz"},
        ],
        "binding": {"model": "binding.npz"},
        "prior": {
            "classes": [{"name": "Cu", "atoms": "0-2"}, {"name": "Au", "atoms": "3-4"}],
            "pairs": [{"between": ["Cu", "Au"], "walls": [[3.0, 700.0]],
                       "attractions": [[6, 2.5, 90.0]]}],
        },
    }  # fmt: skip
    (directory / "model.yaml").write_text(yaml.safe_dump(manifest | overrides))
    shutil.copy(cluster, directory / "structure.xyz")
    return directory


@pytest.fixture
def model(tmp_path, cluster):
    return prior_only(tmp_path / "model", cluster)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory, cluster):
    """The model, its output, and a labelled scan; read only."""
    root = tmp_path_factory.mktemp("scanned")
    model, out, scan = prior_only(root / "model", cluster), root / "out", root / "scan"
    code = run("--scan", scan, "-m", model, "-c", EMT, *FRAGMENTS, *FEW, "-w", 1, "-o", out)
    assert code == 0
    return model, out, scan


def test_the_binding_of_a_prior_alone_is_the_prior(scanned):
    model, _, directory = scanned
    scan, composite = read_scan(directory), CompositeModel.load(model)
    report = json.loads((scanned[1] / "evaluation.json").read_text())["scan"]
    assert report["reference"] == EMT
    (entry,) = report["models"]
    points = [point for curve in entry["curves"] for point in curve["points"]]
    prior = composite.prior.evaluate(scan.frames.positions)
    assert [p["model_ev"] for p in points] == pytest.approx(prior.energy.tolist(), abs=1e-12)
    error = np.abs(prior.forces - scan.frames.binding_forces).mean(axis=(1, 2))
    assert [p["force_mae_ev_per_ang"] for p in points] == pytest.approx(error.tolist(), abs=1e-12)
    assert entry["largest_force_jump_ev_per_ang"] == 0.0
    worst = max(abs(p["difference_ev"]) for p in points if p["label_ev"] < WALL_EV)
    assert entry["worst_abs_difference_ev"] == worst
    end = entry["farthest_binding_kcal_mol"]
    assert (end["displacement_ang"], end["label"]) == (20.0, pytest.approx(0.0, abs=1e-9))


def test_tables_and_figure(scanned):
    _, out, _ = scanned
    text = (out / "evaluation.md").read_text()
    for part in ("## Dissociation and rotation", "**dissociation, orientation 1**",
                 "**rotation, axis 0**", "| -0.5 ", "(scan.png)", "Made again by"):  # fmt: skip
        assert part in text
    assert (out / "scan.png").read_bytes()[:4] == b"\x89PNG"


def test_another_model_reads_the_labels_and_makes_none(
    scanned, cluster, tmp_path, monkeypatch, capsys
):
    model, _, directory = scanned
    worse = yaml.safe_load((model / "model.yaml").read_text())["prior"]
    worse["pairs"][0]["attractions"] = [[6, 2.5, 9000.0]]
    other = prior_only(tmp_path / "other", cluster, prior=worse)
    monkeypatch.setattr(labelling, "run_job", lambda *_: pytest.fail("labelled twice"))
    out = tmp_path / "again"
    assert run("--scan", directory, "-m", model, "-m", other, "-o", out, "--no-figures") == 0
    assert "worst difference (eV)" in capsys.readouterr().out
    first, second = json.loads((out / "evaluation.json").read_text())["scan"]["models"]
    assert (first["model"], second["model"]) == ("model", "other")
    assert second["worst_abs_difference_ev"] > first["worst_abs_difference_ev"]
    assert second["within_ev"] is None
    assert "E_b model other (eV)" in (out / "evaluation.md").read_text()
    assert not list(out.glob("*.png"))


def test_a_cut_off_is_reported_as_a_jump(scanned, monkeypatch):
    """A potential cut off at a distance pulls, and then does not."""
    from deltaserver.evaluation.held_out_errors import load_models
    from deltaserver.model.prior import PairPrior

    model, _, directory = scanned
    whole, scan = PairPrior.evaluate, read_scan(directory)

    def cut(self, positions, cell=None):
        found = whole(self, positions, cell)
        near = np.linalg.norm(positions[:, 0] - positions[:, 3], axis=-1) < 5.0
        found.forces[~near] = 0.0
        return found

    monkeypatch.setattr(PairPrior, "evaluate", cut)
    (found,) = scan_errors(load_models([model], scan.frames), scan).models
    assert 1e-4 < found.jump < 1.0


@pytest.mark.usefixtures("one_format")
def test_held_out_errors_and_a_scan_in_one_report(tmp_path, monkeypatch):
    """The dataset's fragments are the scan's; labels are a stand-in, as none is installed."""
    from ase.calculators.lj import LennardJones

    monkeypatch.setattr(LennardJones, "__init__", _soft(LennardJones.__init__))
    models = tmp_path / "benzene_dimer"
    shutil.copytree(MODELS, models)
    out = tmp_path / "out"
    code = run(DATA, "-m", models, "-o", out, "--max-test", 2, "--resamples", 5, "--readme",
               "--scan", tmp_path / "scan", "-c", "ase.calculators.lj:LennardJones", "-w", 1,
               "--orientations", 1, "--rotations", 0, "--displacements", "0,1,20")  # fmt: skip
    assert code == 0
    assert json.loads((out / "evaluation.json").read_text())["scan"]["n_points"] == 3
    assert "## Dissociation and rotation" in (models / "README.md").read_text()
    assert (out / "scan.png").exists()
    names = [f.name for f in read_dataset(tmp_path / "scan", plausible=False).fragments]
    assert names == ["benzene1", "benzene2"]


def _soft(init):
    return lambda self, **options: init(self, sigma=1.0, epsilon=0.01, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "Missing argument 'DATASET'"),
        (("--scan", "nowhere"), "no labelled scan"),
        (("--scan", "new", "-c", EMT), "charges, which models do not have"),
        (("--scan", "new", "--orientations", 2), "--orientations: only with --calculator"),
        (("-c", EMT, *FRAGMENTS), "--calculator, --fragment: only with --scan"),
        (("--scan", "new", "--readme"), "give DATASET too"),
        (("--scan", "new", "-c", EMT, *FRAGMENTS, "--displacements", "1,0"), "ascending"),
        (("--scan", "new", "-c", EMT, *FRAGMENTS, "--displacements", "x"), "expected Å such as"),
        (("--scan", "new", "-c", EMT, *FRAGMENTS[:2]), "expected every atom"),
    ],
)
def test_bad_input_is_one_line(arguments, message, model, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("-m", model, "-o", tmp_path / "out", *arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_without_a_structure_there_is_no_start(model, tmp_path, capsys):
    (model / "structure.xyz").unlink()
    code = run("-m", model, "--scan", tmp_path / "s", "-c", EMT, *FRAGMENTS, "-o", tmp_path / "o")
    assert code == 2
    assert "no such structure to scan from" in capsys.readouterr().err


def test_of_many_molecules_the_two_are_told(tmp_path, capsys):
    many = MODELS.parent / "carbon_dioxides"
    fragments = ("--fragment", "one:0-2", "--fragment", "other:3-5")
    code = run("-m", many, "--scan", tmp_path / "s", "-c", EMT, *fragments, "-o", tmp_path / "o")
    assert code == 2
    assert "give the two to be scanned with --structure" in capsys.readouterr().err
