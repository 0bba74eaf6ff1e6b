"""The documentation builds as a site without a warning, and every link in it leads somewhere."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from deltaserver.model import manifest
from deltaserver.model.manifest import read_manifest
from tests.docs.doc_commands import every_command

ROOT = Path(__file__).parents[2]
LINK = re.compile(r'(?:href|src)="([^"#:]+)(?:#[^"]*)?"')
SCHEMA = (ROOT / "docs" / "model_yaml.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for package in ("mkdocs", "material", "mkdocstrings_handlers.python", "mkdocs_jupyter"):
        pytest.importorskip(package)
    place = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        # Not --quiet, under which --strict counts no warnings.
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", place],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return place


def test_every_link_leads_somewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            if not link.startswith("/"):  # of the page for what is not found
                assert (page.parent / link.partition("?")[0]).exists(), f"{page.name}: {link}"


def test_every_option_is_on_its_page(site):
    text = (site / "options.html").read_text(encoding="utf-8")
    for names, command in every_command():
        assert f"<code>{' '.join(('deltaserver', *names))}</code>" in text
        for param in command.params:
            if not getattr(param, "hidden", False) and getattr(param, "help", None):
                assert param.opts[-1] in text, (names, param.name)


def test_the_python_reference_comes_from_the_docstrings(site):
    text = (site / "api.html").read_text(encoding="utf-8")
    assert "A Δ-sGDML force field of a complex of any number of fragments." in text
    assert 'id="deltaserver.ase.DeltaCalculator"' in text
    assert ":meth:" not in text


def examples():
    for page in ("model_yaml", "coming_from"):
        text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
        yield from re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("text", list(examples()))
def test_model_yaml_s_examples_are_read(text, tmp_path):
    for name in re.findall(r"[\w]+\.npz", text):
        (tmp_path / name).touch()
    (tmp_path / "model.yaml").write_text(text)
    assert read_manifest(tmp_path).n_atoms == 1 + max(map(int, re.findall(r"(\d+)\"", text)))
    assert yaml.safe_load(text)["format"] == manifest.FORMAT


def test_model_yaml_s_keys_are_those_that_are_read():
    source = Path(manifest.__file__).read_text(encoding="utf-8")
    block = source.partition('"the manifest",')[2].partition("        )\n")[0]
    top, fragments = SCHEMA.partition("## fragments")[::2]

    def keys(text):
        cells = re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
        return {key for cell in cells for key in re.findall(r"`(\w+)`", cell)}

    assert keys(top) == set(re.findall(r'"(\w+)"', block))
    named = re.search(r'data, what, \(("name".*?)\), \((.*?)\)\n', source)
    assert keys(fragments.partition("## prior")[0]) == set(
        re.findall(r'"(\w+)"', named[1] + named[2])
    )
