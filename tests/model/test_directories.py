"""Models by name: what is installed, what is in the working directory, what is neither."""

import shutil

import pytest

from deltaserver.errors import ManifestError
from deltaserver.model import directories
from deltaserver.model.composite import CompositeModel
from deltaserver.model.directories import model_directory, shipped_models
from deltaserver.model.manifest import read_manifest
from tests.shipped import MODELS

SMALL = "methane_dimer"


def test_every_model_of_the_repository_is_shipped():
    in_repository = {path.parent.name for path in MODELS.glob("*/model.yaml")}
    assert set(shipped_models()) >= in_repository
    assert list(shipped_models()) == sorted(shipped_models())


def test_a_name_is_the_installed_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_directory(SMALL) == shipped_models()[SMALL]
    assert CompositeModel.load(SMALL).fingerprint() == (
        CompositeModel.load(MODELS / SMALL).fingerprint()
    )


def test_what_is_in_the_working_directory_goes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / SMALL).mkdir()  # of a run perhaps: no model
    assert model_directory(SMALL) == shipped_models()[SMALL]
    shutil.copy(MODELS / SMALL / "model.yaml", tmp_path / SMALL)
    assert str(model_directory(SMALL)) == SMALL


@pytest.mark.parametrize("path", [f"models/{SMALL}", f"./sub/{SMALL}", "nowhere", "", "a\0b"])
def test_anything_else_stays_what_it_is(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ManifestError):
        read_manifest(path)


def test_any_distribution_may_ship_models(tmp_path, monkeypatch):
    shutil.copytree(MODELS / SMALL, tmp_path / directories.PACKAGE / "mine")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert model_directory("mine") == tmp_path / directories.PACKAGE / "mine"
    assert {"mine", SMALL} <= set(shipped_models())
