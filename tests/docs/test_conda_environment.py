"""docker/environment.yml asks for what setup.cfg asks for, in conda's names and with its bounds."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest
import yaml
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
EXTRAS = ("gpu", "train", "dask", "tblite", "fast", "ipi", "analysis", "sampling", "metrics")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# conda-forge's names where they are not PyPI's
PYPI = {
    "pytorch": "torch",
    "matplotlib-base": "matplotlib",
    "dask-core": "dask",
    "xtb-python": "xtb",
    "tblite-python": "tblite",
}


@pytest.fixture(scope="module")
def setup():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


@pytest.fixture(scope="module")
def environment():
    return yaml.safe_load((ROOT / "docker" / "environment.yml").read_text(encoding="utf-8"))


def requirements(text):
    lines = (line.partition("#")[0].strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line]


@pytest.fixture(scope="module")
def wanted(setup):
    """What serving and the extras ask for on any of the Pythons: bounds by name."""
    found = {}
    texts = [setup["options"]["install_requires"]]
    texts += [setup["options.extras_require"][extra] for extra in EXTRAS]
    for requirement in (one for text in texts for one in requirements(text)):
        pythons = [default_environment() | {"python_version": python} for python in PYTHONS]
        if requirement.marker and not any(map(requirement.marker.evaluate, pythons)):
            continue
        name = canonicalize_name(requirement.name)
        found[name] = found.get(name, SpecifierSet()) & requirement.specifier
    return found


@pytest.fixture(scope="module")
def given(environment):
    """What the environment has, from conda-forge and by pip: bounds by PyPI's name."""
    found = {}
    for line in environment["dependencies"]:
        if isinstance(line, str):
            name, _, bounds = line.partition(" ")
            found[canonicalize_name(PYPI.get(name, name))] = SpecifierSet(bounds)
        else:
            texts = [text for text in line["pip"] if "/" not in text and ".." not in text]
            for requirement in map(Requirement, texts):
                found[canonicalize_name(requirement.name)] = requirement.specifier
    return found


def test_what_the_extras_ask_for_is_in_the_environment(wanted, given):
    assert {name: given.get(name) for name in wanted} == wanted


def test_the_environment_asks_for_nothing_else(wanted, given, setup):
    assert given.keys() - wanted.keys() == {"python", "pip"}
    pythons = SpecifierSet(setup["options"]["python_requires"])
    assert all((f"{python}.0" in given["python"]) and (python in pythons) for python in PYTHONS)
    assert "3.9.0" not in given["python"]


def test_the_packages_of_the_repository_are_installed_by_pip(environment):
    (by_pip,) = (line["pip"] for line in environment["dependencies"] if isinstance(line, dict))
    places = [ROOT / "docker" / text.removeprefix("-e ") for text in by_pip if ".." in text]
    assert [place.resolve() for place in places] == [ROOT, ROOT / "models"]
    assert all((place / "pyproject.toml").is_file() for place in places)
    assert environment["channels"] == ["conda-forge", "nodefaults"]
