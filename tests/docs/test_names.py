"""What the pages name is there: extras, files of the repository, options of its scripts, models."""

from __future__ import annotations

import configparser
import re
import shlex

import pytest
import yaml

from deltaserver.model.directories import shipped_models
from tests.docs.test_docs import PAGES, ROOT, name_of

SETUP = configparser.ConfigParser()
SETUP.read(ROOT / "setup.cfg")
FILES = re.compile(
    r"(?<![\w/.-])((?:deltaserver|benchmarks|docs|tests|docker|ipi_inputs)/[\w./-]*\w)"
)
SCRIPT = re.compile(r"python ((?:benchmarks|models|docs)/\w+\.py)((?: [^\n`|#)]*)?)")
MODELS = ROOT / "models"


def text_of(path):
    return re.sub(r"\\\n\s*", " ", path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_extras_exist(path):
    found = re.findall(r"(?:deltaserver|[ \"']\.)\[([a-z,-]+)\]|`\[([a-z-]+)\]`", text_of(path))
    named = {extra for pair in found for extra in ",".join(filter(None, pair)).split(",")}
    assert named <= set(SETUP["options.extras_require"])


def test_no_extra_asks_for_a_package_of_ours():
    """No index has them: pip would find none, or somebody else's of that name."""
    for extra, lines in SETUP["options.extras_require"].items():
        assert "deltaserver" not in lines, extra


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_files_of_the_repository_exist(path):
    gone = [name for name in set(FILES.findall(text_of(path))) if not (ROOT / name).exists()]
    assert not gone


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_scripts_take_the_options_that_they_are_given(path):
    for script, rest in SCRIPT.findall(text_of(path)):
        source = (ROOT / script).read_text(encoding="utf-8")
        given = [word for word in shlex.split(rest.rstrip("'\".,")) if re.match(r"--[a-z]", word)]
        assert [word for word in given if f'"{word}"' not in source] == [], script


def test_the_site_s_contents_have_every_shipped_model():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.parent.name for path in MODELS.glob("*/README.md")}
    assert pages == set(shipped_models())
    assert {name for name in pages if f"- models/{name}/README.md\n" not in text} == set()


# -- the first table of docs/results.md, against each model's own README ------------------------

ROWS = {
    "methane dimer": "methane_dimer",
    "methane dimer, PBE0-D4": "methane_dimer_pbe0",
    "benzene dimer": "benzene_dimer",
    "H2O@benzene": "benzene_water",
    "Na⁺@benzene": "na_benzene",
    "C60@buckycatcher": "c60",
    "NO3⁻@corona arene": "no3_corona_surrogate",
}
OTHER_TEST = {"benzene_dimer", "c60"}  # there the README has the ends of the first trajectories


def shipped_rows():
    """Name, points of fragments and binding, force MAE and largest error, as the page has them."""
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    table = text.partition("| shipped model | points:")[2].partition("\n\n")[0]
    for line in table.splitlines()[2:]:
        name, points, _, mae, worst = (cell.strip() for cell in line.strip("|").split("|"))
        yield pytest.param(ROWS[name], points, mae, worst, id=ROWS[name])


@pytest.mark.parametrize(("model", "points", "mae", "worst"), list(shipped_rows()))
def test_the_table_of_shipped_models_is_that_of_their_readmes(model, points, mae, worst):
    readme = (MODELS / model / "README.md").read_text(encoding="utf-8")
    parts = dict(re.findall(rf"^\| {model} +\| (\w+) +\| +\d+ +\| (\d+) ", readme, re.MULTILINE))
    parts.pop("full")
    fragments, binding = points.split(";")
    assert binding.strip() == parts.pop("binding")
    assert set(re.findall(r"\b(?<!C)\d+\b", fragments)) == set(parts.values())
    found = re.search(rf"^\| {model} +\| ([\d.]+) +\| (?:dissoc|rot)", readme, re.MULTILINE)[1]
    assert float(worst) == pytest.approx(float(found), abs=0.6 * 10 ** -decimals(worst))
    if model not in OTHER_TEST:
        delta = re.search(r"^\| force MAE +\| \S+ +\| [^|]+ \| ([\d.]+) ", readme, re.MULTILINE)[1]
        assert float(mae) == pytest.approx(float(delta), abs=0.6 * 10 ** -decimals(mae))


def decimals(number):
    return len(number.partition(".")[2])


def test_both_wheels_have_the_licence():
    """Apache 2.0 wants a copy of it given with what is passed on."""
    models = (MODELS / "pyproject.toml").read_text(encoding="utf-8")
    assert 'license-files = ["LICENSE"]' in models
    assert (MODELS / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_versions_agree():
    import deltaserver

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    models = (MODELS / "pyproject.toml").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = {
        citation["version"],
        re.search(r'^version = "(.+)"', models, re.MULTILINE)[1],
        re.search(r"^## (\S+)", changes, re.MULTILINE)[1],
    }
    assert found == {deltaserver.__version__}
