"""What of many molecules can be evaluated, calibrated and improved, and what says why it cannot."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import yaml

from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.errors import DataError
from deltaserver.evaluation.held_out_errors import component_errors, load_models
from deltaserver.evaluation.of_many import load_complex
from deltaserver.training.uncertainty.directory import calibrate_directory
from tests import shipped
from tests.model.many.builders import BENZENE_DIMER, benzenes, directory, manifest

BENZENE = tuple(range(12))


@pytest.fixture(scope="module")
def frames():
    """Two benzenes, labelled by the shipped dimer."""
    base = np.loadtxt(BENZENE_DIMER / "structure.xyz", skiprows=2, usecols=(1, 2, 3))
    x = base + np.random.default_rng(0).normal(0.0, 0.01, (5, *base.shape))
    found = shipped.load(BENZENE_DIMER).evaluate(x)
    one, other = found.contributions["benzene1"], found.contributions["benzene2"]
    return LabelledFrames(
        name="two", reference="itself", numbers=np.tile([6, 1] * 6, 2),
        fragments=(FragmentSpec("a", BENZENE), FragmentSpec("b", tuple(k + 12 for k in BENZENE))),
        positions=x, energy=found.energy, forces=found.forces,
        fragment_energies=np.column_stack([one.energy, other.energy]),
        fragment_forces=one.forces + other.forces,
        trajectory=np.zeros(5, dtype=int), step=np.arange(5),
    )  # fmt: skip


def test_two_of_many_molecules_are_evaluated_as_a_dimer(tmp_path, frames):
    """However many there are, and without the cutoff, which a cell has."""
    many = benzenes(tmp_path, 7, cutoff=[4.0, 5.0])
    results = {r.component: r for r in component_errors(load_models([many], frames)[0], frames)}
    assert list(results) == ["total", "a", "b", "binding"]
    for one in results.values():
        assert one.energy.absolute.max() < 1e-9
        assert one.forces["overall"].absolute.max() < 1e-9


def test_of_species_of_equal_elements_the_dataset_means_those_of_its_names(tmp_path, frames):
    """The second is bound by a part of the prior of the first."""
    block = yaml.safe_load((BENZENE_DIMER / "model.yaml").read_text(encoding="utf-8"))["prior"]
    priors = {"cold": block, "hot": {**block, "pairs": block["pairs"][1:]}}
    path = benzenes(
        tmp_path,
        3,
        species=[{"name": name, "model": "benzene1.npz", "count": 2} for name in priors],
        bindings=[{"between": [name] * 2, "prior": prior} for name, prior in priors.items()],
    )
    energy = {}
    for name in ("cold", "hot", "some"):
        fragments = tuple(
            replace(fragment, name=f"{name}{k + 1}") for k, fragment in enumerate(frames.fragments)
        )
        model = load_complex(path, replace(frames, fragments=fragments))
        energy[name] = model.evaluate(frames.positions).contributions["prior"].energy
    np.testing.assert_array_equal(energy["some"], energy["cold"])
    assert np.abs(energy["hot"] - energy["cold"]).min() > 1e-4


def test_what_is_no_dimer_of_them_is_refused(tmp_path, frames):
    many = benzenes(tmp_path / "many", 2)
    apart = (FragmentSpec("a", (0, *range(2, 13))), FragmentSpec("b", (1, *range(13, 24))))
    with pytest.raises(DataError, match="no two of which are the complex of two, atom by atom"):
        load_models([many], replace(frames, fragments=apart))
    with pytest.raises(DataError, match="no two of which are the complex"):
        load_models([directory(tmp_path / "wet", manifest(2, 1))], frames)
    waters = replace(
        frames,
        numbers=np.array([8, 1, 1] * 2),
        fragments=(FragmentSpec("a", (0, 1, 2)), FragmentSpec("b", (3, 4, 5))),
    )
    with pytest.raises(DataError, match="ends over fade, which no complex has"):
        load_models([tmp_path / "wet"], waters)
    three = replace(frames, two_body_energy=np.zeros(5), two_body_forces=np.zeros((5, 24, 3)))
    for models in (many, BENZENE_DIMER):
        with pytest.raises(DataError, match="two: of order 3, whose binding is no complex's"):
            load_models([models], three)


def test_there_is_no_uncertainty_to_be_calibrated(tmp_path, frames):
    with pytest.raises(DataError, match="an uncertainty is calibrated of one complex"):
        calibrate_directory(benzenes(tmp_path, 2), frames)
