"""The command on the benzene dimer that ships."""

import gzip
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from deltaserver.cli import app
from deltaserver.datasets.files import read_dataset, write_dataset
from deltaserver.errors import DataError, MissingExtraError
from deltaserver.evaluation.figures.held_out import save

HERE = Path(__file__).parents[2]
MODELS = HERE / "models" / "benzene_dimer"
DATA = HERE / "data" / "benzene_dimer_gfn2_150K.xyz.gz"


def run(*arguments):
    return app.main(["evaluate", *map(str, arguments)])


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """The command's output on ten test frames, figures and all, in a copy of the models."""
    root = tmp_path_factory.mktemp("evaluate")
    models = root / "benzene_dimer"
    shutil.copytree(MODELS, models)
    made = root / "out"
    code = run(DATA, "--models", models, "--output", made, "--max-test", 10, "--readme",
               "--made-with", "models/train.sh benzene_dimer")  # fmt: skip
    assert code == 0
    return made


@pytest.fixture(scope="module")
def report(output):
    return json.loads((output / "evaluation.json").read_text())


def errors(report, component):
    return next(e for e in report["errors"] if e["component"] == component)


def test_json_has_every_error_in_both_units_with_intervals(report):
    assert report["format"] == "deltaserver-evaluation/1"
    assert [e["component"] for e in report["errors"]][:2] == ["full", "total"]
    force = errors(report, "total")["forces"]["overall"]
    kcal_per_mol_ev = 4184.0 / (6.02214076e23 * 1.602176634e-19)
    for name in ("mae", "rmse", "mean_offset", "rmse_about_offset"):
        ev, kcal = force[f"{name}_ev_per_ang"], force[f"{name}_kcal_mol_ang"]
        assert ev == pytest.approx(kcal * kcal_per_mol_ev, rel=1e-12)
        low, high = force[f"{name}_kcal_mol_ang_interval"]
        assert low <= kcal <= high
    assert report["split"]["n_test"] == 10
    assert report["split"]["kind"] == "time"
    assert report["bootstrap"]["n_resamples"] == 2000
    assert report["models"][0]["parts"]["benzene1"]["n_perms"] == 12


def test_delta_beats_full_on_the_benzene_dimer(report):
    (entry,) = report["improvements"]
    assert (entry["component"], entry["baseline_component"]) == ("total", "full")
    assert set(entry["forces"]) == {"overall", "benzene1", "benzene2"}
    for where in entry["forces"].values():
        assert where["mae_percent"] > 70.0
        assert where["mae_percent_interval"][0] > 60.0


def test_descriptor_blocks_are_reported(report):
    blocks = report["descriptor"]["blocks"]
    assert sum(block["share_of_squared_distance"] for block in blocks) == pytest.approx(1.0)
    assert sum(b["mean_squared_per_ang2"] for b in blocks) == pytest.approx(
        report["descriptor"]["mean_squared_distance_per_ang2"]
    )
    assert report["descriptor"]["sigma_inter_over_intra"] > 3.0


def test_markdown_states_what_it_measured(output):
    text = (output / "evaluation.md").read_text()
    for part in ("| force MAE on benzene1 ", "Made again by", "blocks of", "σ_inter/σ_intra",
                 "`models/train.sh benzene_dimer`", "last 16 %"):  # fmt: skip
        assert part in text
    readme = (output.parent / "benzene_dimer" / "README.md").read_text()
    assert "| force MAE " in readme
    assert ".png" not in readme


def test_figures_are_drawn_as_png_and_svg(output):
    names = ("fig2_descriptor_blocks", "fig3_descriptor_distances", "fig5_binding_labels",
             "fig6_errors", "fig7_fragment_errors")  # fmt: skip
    for name in names:
        assert (output / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
        assert "<svg" in (output / f"{name}.svg").read_text()
        assert f"({name}.png)" in (output / "evaluation.md").read_text()


@pytest.fixture(scope="module")
def of_one_size(tmp_path_factory):
    """The shipped models; full has as many points as the binding, further ones of no weight."""
    directory = tmp_path_factory.mktemp("one") / "benzene_dimer"
    shutil.copytree(MODELS, directory)
    with np.load(directory / "binding.npz", allow_pickle=False) as archive:
        count = len(archive["idxs_train"])
    with np.load(directory / "full.npz", allow_pickle=False) as archive:
        model = {key: archive[key] for key in archive.files}
    more = count - len(model["idxs_train"])
    again = np.arange(more) % len(model["idxs_train"])
    model["idxs_train"] = np.concatenate([model["idxs_train"], model["idxs_train"][again]])
    model["R_desc"] = np.concatenate([model["R_desc"], model["R_desc"][:, again]], axis=1)
    for key, rows in (("R_d_desc_alpha", more), ("alphas_F", 3 * more * len(model["z"]))):
        nothing = np.zeros((rows, *model[key].shape[1:]))
        model[key] = np.concatenate([model[key], nothing])
    np.savez(directory / "full.npz", **model)
    return directory


@pytest.fixture(scope="module")
def less_trained(of_one_size, tmp_path_factory):
    """The same models from half of the training points each: coefficients of the rest dropped."""
    directory = tmp_path_factory.mktemp("less") / "half"
    shutil.copytree(of_one_size, directory)
    for path in directory.glob("*.npz"):
        with np.load(path, allow_pickle=False) as archive:
            # Not its uncertainty, which stands on all of the points.
            kept = [key for key in archive.files if not key.startswith("uncertainty")]
            model = {key: archive[key] for key in kept}
        half = len(model["idxs_train"]) // 2
        if "R" in model:  # of our own type
            model["R"] = model["R"][:half]
        else:
            model["R_desc"] = model["R_desc"][:, :half]
            model["R_d_desc_alpha"] = model["R_d_desc_alpha"][:half]
        model["alphas_F"] = model["alphas_F"][: half * 3 * len(model["z"])]
        np.savez(path, **model)
    return directory


def test_several_models_give_a_grid_and_learning_curves(of_one_size, less_trained, tmp_path):
    code = run(DATA, "--models", of_one_size, "--models", less_trained, "--output", tmp_path,
               "--max-test", 5, "--block-length", 2, "--resamples", 50, "--no-figures")  # fmt: skip
    assert code == 0
    text = (tmp_path / "evaluation.md").read_text()
    assert "## Symmetry and decomposition told apart" in text
    assert "**half**" in text
    assert "benzene1 12, benzene2 12, binding 288" in text
    again = f"--models {less_trained} --max-test 5 --block-length 2 --resamples 50 --output"
    assert again in text
    report = json.loads((tmp_path / "evaluation.json").read_text())
    assert report["bootstrap"]["block_length_frames"] == 2
    pairs = [
        (i["model"], i["component"], i["baseline_model"], i["baseline_component"])
        for i in report["improvements"]
    ]
    own = [("benzene_dimer", "total", "benzene_dimer", "full"), ("half", "total", "half", "full")]
    assert pairs == own  # of different sizes: none is measured against the other's full model
    curves = {curve["component"]: curve for curve in report["learning_curves"]}
    with np.load(of_one_size / "binding.npz", allow_pickle=False) as archive:
        count = len(archive["idxs_train"])
    assert [point["n_train"] for point in curves["total"]["points"]] == [count // 2, count]
    mae = [p["forces"]["mae_ev_per_ang"] for p in curves["total"]["points"]]
    assert mae[1] < mae[0]


def test_random_split_is_asked_for_and_marked(tmp_path, capsys):
    models = tmp_path / "unreported"  # without the report that tells which frames chose sigma
    shutil.copytree(MODELS, models, ignore=shutil.ignore_patterns("training.json"))
    code = run(DATA, "--models", models, "--split", "random", "--output", tmp_path,
               "--max-test", 4, "--no-figures", "--resamples", 20)  # fmt: skip
    assert code == 0
    assert "these errors are too low" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.png"))


def one_line(capsys):
    err = capsys.readouterr().err
    assert err.startswith("deltaserver: ")
    assert err.count("\n") == 1
    return err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((DATA,), "--models is missing"),
        ((DATA, "--models", "nowhere"), "no such file"),
        (("nothing.xyz", "--models", MODELS), "no such file"),
        ((DATA, "--models", HERE / "models" / "methane_dimer"), "expected the same atoms"),
        ((DATA, "--models", MODELS, "--test-trajectory", "1"), "trained on"),
        ((DATA, "--models", MODELS, "--test-trajectory", "9"), "no trajectory 9"),
        ((DATA, "--models", MODELS, "--split", "trajectory"), "needs a --test-trajectory"),
        ((DATA, "--models", MODELS, "--split", "random", "--test-trajectory", 1), "contradicts"),
        ((DATA, "--models", MODELS, "--split", "shuffle"), "shuffle"),
        ((DATA, "--models", MODELS, "--test-fraction", "0.5"), "trained on"),
        ((DATA, "--models", MODELS, "--symmetry", "none"), "--symmetry is for --train-sizes"),
        ((DATA, "--train-sizes", "ten"), "expected numbers"),
        ((DATA, "--train-sizes", "0"), "expected positive"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path, capsys):
    assert run(*arguments, "--output", tmp_path / "out") == 2
    assert message in one_line(capsys)
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_nan_label_is_one_line(tmp_path, capsys):
    text = gzip.decompress(DATA.read_bytes()).decode()
    broken = tmp_path / "broken.xyz"
    broken.write_text(text.replace("energy_full=-864.0651983735265", "energy_full=nan", 1))
    assert run(broken, "--models", MODELS, "--output", tmp_path / "out") == 2
    assert "frame 0: energy_full" in one_line(capsys)


def test_output_that_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code = run(DATA, "--models", MODELS, "--output", tmp_path / "file", "--max-test", 2,
               "--no-figures", "--resamples", 5)  # fmt: skip
    assert code == 2
    assert "cannot be written" in one_line(capsys)


def test_figure_without_matplotlib_or_directory(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="cannot be written"):
        save(lambda figure: None, tmp_path / "missing" / "figure")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match="analysis"):
        save(lambda figure: None, tmp_path / "figure")


def test_the_module_imports_nothing_heavy():
    import subprocess

    code = (
        "import sys, deltaserver.cli.evaluate as m; "
        "assert 'numpy' not in vars(m) and 'matplotlib' not in sys.modules "
        "and 'ase' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_all_of_a_new_trajectory_is_tested(tmp_path):
    """The last frames of the data, which trained nothing, as a dataset of their own."""
    frames = read_dataset(DATA)
    write_dataset(frames.select(np.arange(len(frames) - 12, len(frames))), tmp_path / "new")
    (trajectory,) = set(frames.trajectory[-12:].tolist())
    for k, options in enumerate(((), ("--test-trajectory", trajectory), ("--split", "all"))):
        out = tmp_path / f"out{k}"
        code = run(tmp_path / "new", "--models", MODELS, "--output", out, "--no-figures",
                   "--resamples", 20, *options)  # fmt: skip
        assert code == 0
        assert json.loads((out / "evaluation.json").read_text())["split"]["n_test"] == 12


def test_a_dataset_that_trained_a_model_is_split_in_time(tmp_path):
    out = tmp_path / "out"
    assert run(DATA, "--models", MODELS, "--output", out, "--no-figures", "--resamples", 20,
               "--max-test", 4) == 0  # fmt: skip
    assert json.loads((out / "evaluation.json").read_text())["split"]["kind"] == "time"
    assert run(DATA, "--models", MODELS, "--output", out, "--split", "all") == 2


def test_molecules_numbered_as_mirror_images_are_no_test(tmp_path, capsys):
    """A liquid's methanes are numbered alike; the model's two are each other's mirror images."""
    words = (
        HERE / "data" / "methane_pairs_pbe0",
        "--models",
        HERE / "models" / "methane_dimer_pbe0",
    )
    assert run(*words, "--test-trajectory", 0, "--output", tmp_path / "out") == 2
    assert "frame 0 of methane_pairs_pbe0: methane2 is the mirror image" in capsys.readouterr().err
