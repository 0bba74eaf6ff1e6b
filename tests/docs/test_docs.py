"""Documentation shows commands that exist, links that lead somewhere, and a notebook that runs."""

import ast
import itertools
import re
import textwrap
from pathlib import Path

import click
import pytest

from tests.docs.doc_commands import arguments, check, commands, options

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("[a-z]*/README.md"),
        *ROOT.glob("models/*/README.md"),
    ]
)
SCRIPTS = sorted(
    path
    for pattern in (
        "docs/*.sh",
        "docs/*.ipynb",
        "docker/**/*.sh",
        "models/*.sh",
        "ipi_inputs/*.xml",
    )
    for path in ROOT.glob(pattern)
)
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
OTHERS_OPTIONS = {
    *("--help", "--strict", "--inplace"),  # click's, mypy's, jupyter's
    *("--user", "--build-arg", "--format", "--userns"),  # of containers
    *("--signal", "--requeue"),  # Slurm's
    *("--gdml", "--list", "--only"),  # sgdml's, benchmarks/rivals.py's
}


def name_of(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", [*PAGES, *SCRIPTS, ROOT / "Makefile"], ids=name_of)
def test_commands_would_parse(path):
    wrong = []
    for command in commands(path):
        try:
            check(command)
        except click.UsageError as error:
            wrong.append(f"{command}\n    {error.format_message()}")
    assert not wrong, "\n".join(wrong)


def test_commands_are_found():
    found = {name_of(path): list(commands(path)) for path in [*PAGES, *SCRIPTS]}
    assert len(found["README.md"]) >= 7
    assert len(found["docs/datasets.md"]) >= 3
    assert len(found["docs/two_molecules.sh"]) >= 4
    assert len(found["docs/quickstart.ipynb"]) == 2
    assert len(found["ipi_inputs/c60_nvt.xml"]) >= 1


@pytest.mark.parametrize(
    "command",
    [
        "deltaserver --models a --sokcet unix:x",
        "deltaserver evaluate data",  # --output is required
        "deltaserver dataset bild x.xyz",
        "deltaserver --models a --socket unix:x --threads none &",
        'deltaserver train "$data" --output x --n-trian 3',
    ],
)
def test_the_check_finds_what_is_wrong(command):
    with pytest.raises(click.UsageError):
        check(command)


def test_a_command_ends_where_the_shell_says():
    command = "deltaserver -m a -s unix:x -l run.jsonl &  # in the background"
    assert arguments(command) == ["-m", "a", "-s", "unix:x", "-l", "run.jsonl"]


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_options_that_are_spoken_of_exist(path):
    text = re.sub(
        r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE
    )
    spans = re.findall(r"`([^`]+)`", text)  # over the ends of lines too
    # Only what begins with an option, or with our name, is ours.
    named = {
        option
        for span in spans
        if span.startswith(("--", "deltaserver"))
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", span)
    }
    assert named - options() - OTHERS_OPTIONS == set()


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        page = path.parent / file if file else path
        assert page.exists(), f"{target}: no such file"
        if anchor:
            assert anchor in anchors(page.read_text(encoding="utf-8")), f"{target}: no such heading"


def test_every_page_is_reached_from_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    lost = [page.name for page in ROOT.glob("docs/*.md") if f"(docs/{page.name}" not in readme]
    assert not lost


def anchors(text):
    """The anchors that GitHub gives headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_make_targets_exist(path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    text = path.read_text(encoding="utf-8")
    assert set(re.findall(r"(?:^ {4}|`)make ([a-z][a-z-]+)", text, re.MULTILINE)) <= targets


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_python_examples_are_python(path):
    for block in re.findall(r"```python\n(.*?)```", path.read_text(encoding="utf-8"), re.DOTALL):
        ast.parse(block)


def test_the_python_of_the_readme_runs(monkeypatch):
    from ase.io import read

    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## Python\n")[2]
    lines = section.partition("\n## ")[0].splitlines()
    code = textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))
    assert "CompositeModel.load" in code
    assert "DeltaCalculator" in code
    atoms = read(ROOT / "ipi_inputs" / "c60_buckycatcher.xyz")
    names = {"positions": atoms.positions, "atoms": atoms}
    monkeypatch.chdir(ROOT)
    exec(code, names)
    expected = names["result"].energy
    assert names["atoms"].get_potential_energy() == pytest.approx(expected, rel=1e-12)
    assert abs(names["result"].contributions["binding"].energy) < 3.0  # eV: the binding alone


def test_the_picture_names_modules_that_exist():
    picture = (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8")
    lists = re.findall(r"(?:(\w+)/)?((?:\w+/)*\w+\.py(?:, (?:\w+/)*\w+\.py)*)", picture)
    assert len(lists) >= 9
    for folder, names in lists:
        for name in names.split(", "):
            folders = ("", folder, "model", f"model/{folder}")
            places = [ROOT / "deltaserver" / place / name for place in folders]
            assert any(place.exists() for place in places), f"{folder}/{name}"


def _kinds(cells):
    """What each cell has shown; on standard error, a first start tells that it compiles.

    A slow machine breaks one stream into several.
    """
    shown = [[one.output_type for one in cell if one.get("name") != "stderr"] for cell in cells]
    return [[kind for kind, _ in itertools.groupby(cell)] for cell in shown]


def test_the_notebook_runs():
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    stored = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert all(stored[1:]), "run: jupyter execute --inplace docs/quickstart.ipynb"
    client = nbclient.NotebookClient(
        notebook, timeout=120, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    client.execute()
    outputs = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert _kinds(outputs) == _kinds(stored)
    said = "".join(one.text for one in outputs[-1] if one.output_type == "stream")
    varies = re.search(r"varies by ([\d.]+) meV", said)
    assert float(varies[1]) < 5.0  # of some 150 meV: energy is conserved


def test_no_page_names_a_machine():
    for path in [*PAGES, *SCRIPTS]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<![\w.])/(?:root|work)/", text), path
