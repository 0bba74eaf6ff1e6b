import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from deltaserver.cli.app import main
from deltaserver.units import BOHR_ANG
from tests.analysis.test_workflow import moving
from tests.analysis.written import ipi_frame, write_properties, write_run
from tests.textio.written import FRAMES, text

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two temperatures of water and methane, with i-PI's properties."""
    directory = tmp_path_factory.mktemp("runs") / "sweep"
    for kelvin in (100, 300):
        run = write_run(directory / f"{kelvin}K", moving(400), range(0, 1600, 4), kelvin=kelvin)
        noise = np.random.default_rng(kelvin).normal(size=(3, 1600))
        write_properties(run / "run.out", range(1600), noise[0], kelvin + noise[1], noise[2])
    return directory


@pytest.fixture(scope="module")
def everything(sweep):
    """The files of ``deltaserver analyze DIR``."""
    assert main(["analyze", str(sweep), "--quiet"]) == 0
    return sweep / "analysis"


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_everything_from_one_command(everything):
    summary = json.loads((everything / "summary.json").read_text())
    assert summary["format"] == "deltaserver-analysis-result/1"
    cold, warm = summary["runs"]
    assert (cold["label"], warm["temperature_k"], warm["frames"]) == ("100 K", 300.0, 400)
    assert warm["fes"][0]["jacobian_of"] == {"R_CM": "R^2"}
    assert warm["fes"][0]["error_of"] == "block bootstrap"
    assert warm["msad"]["fragment1"]["fit_from_ps"] < warm["msad"]["fragment1"]["fit_to_ps"]
    assert warm["thermo"]["temperature"]["target_k"] == 300.0
    for stem in ("fes_R_CM", "msad_fragment1", "variables", "thermo", "rdf_fragment1-fragment2"):
        for suffix in ("png", "svg", "pdf"):
            assert (everything / "figures" / f"{stem}.{suffix}").stat().st_size > 3000
    for run in ("100K", "300K"):
        assert len(rows(everything / "data" / run / "variables.csv")) == 400


def test_tables_have_units_and_nan_in_empty_bins(everything):
    table = rows(everything / "data" / "100K" / "fes_R_CM.csv")
    assert list(table[0]) == ["R_CM_ang", "free_energy_kcal_per_mol", "error_kcal_per_mol"]
    msad = rows(everything / "data" / "300K" / "msad_fragment1.csv")
    assert list(msad[0])[:3] == ["lag_ps", "integrated_rad2", "integrated_error_rad2"]
    assert float(msad[0]["c1"]) == pytest.approx(1.0, abs=0.02)
    variables = rows(everything / "data" / "300K" / "variables.csv")
    assert list(variables[0]) == ["step", "time_ps", "R_CM_ang"]
    assert float(variables[2]["time_ps"]) == pytest.approx(0.004)
    assert len(rows(everything / "data" / "300K" / "thermo.csv")) == 1600


def test_the_report_needs_no_network(everything):
    text = (everything / "report.html").read_text(encoding="utf-8")
    page = re.sub(r"<script>.*?</script>", "", text, flags=re.S)
    assert not re.findall(r"""(?:src|href)\s*=\s*["'](?!data:)""", page)
    assert "url(" not in page
    assert "@import" not in page
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    assert policy.startswith("default-src 'none'")
    assert not re.search(r"https?:", policy)
    assert len(text) < 20e6


def test_the_reports_structures(everything):
    text = (everything / "report.html").read_text(encoding="utf-8")
    data = json.loads(re.search(r'id="chsp-data">(.*?)</script>', text, flags=re.S)[1])
    assert len(data["structures"]) == 300
    assert data["structures"][0]["names"][:4] == ["O", "H", "H", "C"]
    assert len(data["properties"]["R_CM / Å"]["values"]) == 300
    assert set(data["properties"]["T / K"]["values"]) == {100.0, 300.0}
    hosts = [np.array([s["x"][3:], s["y"][3:], s["z"][3:]]) for s in data["structures"][:150]]
    assert np.allclose(hosts, hosts[0], atol=2e-3)  # the host is held still


@pytest.mark.usefixtures("one_format")
@pytest.mark.parametrize(
    ("command", "made", "not_made"),
    [
        ("fes", "figures/fes_R_CM.png", "figures/msad_fragment1.png"),
        ("msad", "data/msad_fragment1.csv", "data/variables.csv"),
        ("cv", "data/variables.csv", "report.html"),
        ("thermo", "figures/thermo.png", "data/variables.csv"),
        ("rdf", "data/rdf_fragment1-fragment2.csv", "figures/thermo.png"),
    ],
)
def test_one_thing_at_a_time(sweep, tmp_path, capsys, command, made, not_made):
    assert main(["analyze", command, str(sweep / "300K"), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / made).is_file()
    assert (tmp_path / "out" / "summary.json").is_file()
    assert not (tmp_path / "out" / not_made).exists()
    said = capsys.readouterr()
    assert "300 K: 400 frames, 0.798 ps" in said.out
    assert said.err.startswith("note: 300K: no model directory is known")


@pytest.mark.usefixtures("one_format")
def test_units_windows_and_surfaces(sweep, tmp_path):
    out = tmp_path / "out"
    arguments = ["analyze", "fes", str(sweep), "-o", str(out), "--energy-unit", "meV", "--quiet"]
    assert main([*arguments, "--variable", "R_CM", "--range", "3:5", "--bins", "20"]) == 0
    table = rows(out / "data" / "300K" / "fes_R_CM.csv")
    assert len(table) == 20
    assert list(table[0])[1] == "free_energy_mev"
    msad = ["analyze", "msad", str(sweep / "300K"), "-o", str(out), "--quiet"]
    assert main([*msad, "--fit", "0.1:0.3", "--longest", "0.35"]) == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["runs"][0]["msad"]["fragment1"]["fit_to_ps"] == pytest.approx(0.3)
    assert float(rows(out / "data" / "msad_fragment1.csv")[-1]["lag_ps"]) == pytest.approx(
        0.35, abs=0.01
    )


def test_a_plane_of_two_variables(sweep, tmp_path):
    definitions = tmp_path / "d.yaml"
    definitions.write_text(
        "format: deltaserver-analysis/1\nvariables:\n"
        "  - {name: d, kind: distance, groups: [0, 3]}\n"
        "  - {name: w, kind: angle, groups: [1, 0, 3]}\n"
    )
    out = tmp_path / "out"
    arguments = ["analyze", "fes", str(sweep), "-y", str(definitions), "-o", str(out), "--quiet"]
    assert main(arguments) == 0
    table = rows(out / "data" / "100K" / "fes_d_w.csv")
    assert len(table) == 1600
    assert sum(row["free_energy_kcal_per_mol"] == "nan" for row in table) > 100
    assert (out / "figures" / "fes_d_w.pdf").is_file()


@pytest.mark.usefixtures("one_format")
def test_what_could_be_done_is_kept_when_something_could_not(sweep, tmp_path, capsys):
    definitions = tmp_path / "d.yaml"
    definitions.write_text(
        "format: deltaserver-analysis/1\nvariables:\n"
        "  - {name: good, kind: distance, groups: [0, 3]}\n"
        "  - {name: bad, kind: distance, groups: [0, 99]}\n"
    )
    out = tmp_path / "out"
    path = str(sweep / "300K")
    assert main(["analyze", "cv", path, "-y", str(definitions), "-o", str(out), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "variable bad: atom 99 is out of range" in said
    assert len(rows(out / "data" / "variables.csv")) == 400


@pytest.mark.usefixtures("one_format")
def test_a_truncated_trajectory_is_read_as_far_as_it_goes(sweep, tmp_path, capsys):
    run = tmp_path / "cut"
    write_run(run, moving(50), range(50))
    path = run / "run.pos_0.xyz"
    path.write_text(path.read_text()[:-100])
    assert main(["analyze", "cv", str(run)]) == 0
    assert "the last frame is left out (the frame is cut short" in capsys.readouterr().err
    assert len(rows(run / "analysis" / "data" / "variables.csv")) == 49


def test_an_msad_of_nothing_is_told(tmp_path, capsys):
    write_run(tmp_path, moving(60), range(60))
    definitions = tmp_path / "definitions.yaml"
    definitions.write_text(
        "format: deltaserver-analysis/1\n"
        "variables: [{name: R, kind: distance, groups: [0-2, 3-7]}]\nmsad: []\n"
    )
    words = [str(tmp_path), "-y", str(definitions), "--quiet"]
    assert main(["analyze", "msad", *words]) == 2
    assert "no rotation to take an MSAD of" in capsys.readouterr().err
    assert main(["analyze", "cv", *words]) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{}/none"], "none: no such file or directory"),
        (["{}", "-o", "{}/file/x"], "file/x/figures: cannot be made"),
        (["{}", "-y", "{}/none.yaml"], "none.yaml: cannot be read"),
        (["{}", "--models", "{}/none"], "none: no such file"),
        (["{}", "--energy-unit", "furlong"], "energy unit 'furlong' is not known"),
        (["msad", "{}", "--fit", "3"], "'3' is not LOW:HIGH"),
        (["msad", "{}", "--fit", "3:1"], "3 is not below 1"),
        (["msad", "{}", "--fit", "3:9"], "a fit from 3 to 9 ps is not within"),
        (["fes"], "Missing argument 'DIR...'"),
        (["fes", "{}", "--bins", "1"], "--bins"),
    ],
)
def test_every_error_is_one_line(tmp_path, capsys, arguments, message):
    write_run(tmp_path, moving(60), range(60))
    (tmp_path / "file").write_text("")
    given = [argument.format(tmp_path) for argument in arguments]
    assert main(["analyze", *given, *(["--quiet"] if len(given) > 1 else [])]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.startswith("deltaserver: ")
    assert said.count("\n") == 1


def centre_distance(path, capsys, code=0):
    """Mean distance of two waters' centres of mass by ``analyze cv``, and what it said."""
    output = path.parent / "analysis"
    assert main(["analyze", "cv", str(path), "--timestep", "1", "--output", str(output)]) == code
    (run,) = json.loads((output / "summary.json").read_text())["runs"]
    found = run["variables"].get("R_CM", {"mean": None})
    return found["mean"], capsys.readouterr().err


@pytest.mark.usefixtures("one_format")
def test_centres_of_mass_know_isotopes_and_wrapped_molecules(tmp_path, capsys):
    expected = {}
    for name, masses in (("plain", [15.999, 1.008, 1.008]), ("heavy", [15.999, 2.0141, 1.008])):
        weights = np.array(masses)[:, None] / sum(masses)
        centres = [(frame[k : k + 3] * weights).sum(axis=0) for frame in FRAMES for k in (0, 3)]
        expected[name] = np.linalg.norm(np.array(centres[::2]) - centres[1::2], axis=1).mean()
    lattice = 'Lattice="10 0 0 0 10 0 0 0 10" pbc="T T T"'
    contents = {
        "plain": text(),
        "heavy": text(symbols=["O", "D", "H"] * 2),
        "wrapped": text(FRAMES % 10.0, comment=lattice),
    }
    for name, content in contents.items():
        path = tmp_path / name / "t.xyz"
        path.parent.mkdir()
        path.write_text(content)
        found, _ = centre_distance(path, capsys)
        assert found == pytest.approx(expected["heavy" if name == "heavy" else "plain"], abs=1e-6)
    assert abs(expected["heavy"] - expected["plain"]) > 1e-3


@pytest.mark.usefixtures("one_format")
def test_lengths_in_bohr_that_nothing_says_are_told(tmp_path, capsys):
    path = tmp_path / "t.xyz"
    path.write_text(text(FRAMES / BOHR_ANG))
    _, said = centre_distance(path, capsys, code=2)
    assert "would be if the lengths were in Bohr" in said


def test_help_comes_without_arguments(capsys):
    assert main(["analyze", "--help"]) == 0
    said = capsys.readouterr().out
    for command in ("all", "fes", "msad", "cv", "thermo", "rdf", "contributions"):
        assert f"\n  {command} " in said


def test_the_directory_that_simulate_makes_by_default_is_no_command(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    assert main(["analyze", "run"]) == 2
    assert "run: no run in it" in capsys.readouterr().err


# -- memory ------------------------------------------------------------------------------------

# Not getrusage: its maximum is handed down by a parent larger than the process itself.
MEASURE = """
import re, sys
from pathlib import Path
from deltaserver.cli.app import main
code = main(["analyze", *sys.argv[1:], "--quiet"])
peak_kb = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
print(code, int(peak_kb) / 1024)
"""


def write_long(path, n_frames):
    """A trajectory of 148 atoms from one block of frames that are shaken, steps counted on."""
    from ase.io import read

    atoms = read(ROOT / "ipi_inputs" / "c60_buckycatcher.xyz")
    rng = np.random.default_rng(1)
    n_block = 200
    frames = atoms.positions + rng.normal(scale=0.02, size=(n_block, 148, 3))
    texts = [ipi_frame(f, 0, atoms.get_chemical_symbols()).encode() for f in frames]
    table = np.frombuffer(b"".join(texts), np.uint8).reshape(n_block, -1).copy()
    place = texts[0].index(b"Step:") + 7
    with path.open("wb") as file:
        for begin in range(0, n_frames, n_block):
            some = table[: min(n_block, n_frames - begin)]
            for k in range(len(some)):
                some[k, place : place + 10] = np.frombuffer(b"%10d" % (20 * (begin + k)), np.uint8)
            some.tofile(file)


def peak_mib(directory, n_frames, command="all"):
    """Peak resident memory of an analysis of ``n_frames`` frames, in MiB, by a new process."""
    write_run(directory, [], [])
    write_long(directory / "run.pos_0.xyz", n_frames)
    models = str(ROOT / "models" / "c60")
    arguments = [command, str(directory), "--models", models]
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, *arguments], capture_output=True, text=True, check=True
    )
    code, peak = done.stdout.split()
    assert code == "0", done.stderr
    summary = json.loads((directory / "analysis" / "summary.json").read_text())
    assert summary["runs"][0]["frames"] == n_frames
    return float(peak)


def test_memory_does_not_grow_with_the_trajectory(tmp_path):
    """20,000 frames more would be 68 MiB of positions, and 130 MiB of text."""
    short = peak_mib(tmp_path / "short", 2_000, "msad")
    long = peak_mib(tmp_path / "long", 22_000, "msad")
    assert long - short < 40.0
    assert long < 600.0


@pytest.mark.slow
def test_a_million_frames_of_148_atoms_below_a_gigabyte(tmp_path):
    try:
        assert peak_mib(tmp_path, 1_000_000) < 1000.0
    finally:
        (tmp_path / "run.pos_0.xyz").unlink()
