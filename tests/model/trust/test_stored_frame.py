"""What is stored of a model is found again; what is not the same is told."""

import dataclasses
import json

import numpy as np
import pytest

from deltaserver import CompositeModel
from deltaserver.errors import GuardError, InputError
from deltaserver.model.trust import stored_frame


@pytest.fixture
def stored(composite, positions, tmp_path):
    (tmp_path / stored_frame.CHECK_NAME).write_text(stored_frame.store(composite, positions))
    return stored_frame.read_stored(tmp_path, 7)


def test_everything_comes_back_to_the_last_bit(composite, positions, stored):
    assert stored.fingerprint == composite.fingerprint()
    np.testing.assert_array_equal(stored.positions, positions)
    assert set(stored.energy_ev) == {"total", "water", "ammonia", "binding", "full"}
    result = composite.evaluate(positions)
    assert stored.energy_ev["total"] == result.energy
    np.testing.assert_array_equal(stored.forces["water"], result.contributions["water"].forces)
    full = composite.evaluate(positions, "full")
    np.testing.assert_array_equal(stored.forces["full"], full.forces)


def test_a_model_that_is_the_same_passes(composite, positions, stored):
    found = stored_frame.check_parts(composite, positions, stored)
    assert [part.name for part in found] == ["total", "water", "ammonia", "binding", "full"]
    for part in found:
        assert part.slope_error < 1e-7
        assert part.energy_error_ev < 1e-9
        assert part.force_error_ev_per_ang < 1e-9
    stored_frame.refuse(found, stored, composite.fingerprint(), stored_frame.TOLERANCE)


def test_without_a_stored_frame_the_slopes_are_checked(composite, positions):
    found = stored_frame.check_parts(composite, positions, None)
    assert all(part.energy_error_ev is None for part in found)
    stored_frame.refuse(found, None, composite.fingerprint(), stored_frame.TOLERANCE)


def refusal(found, stored, fingerprint):
    with pytest.raises(GuardError) as caught:
        stored_frame.refuse(found, stored, fingerprint, stored_frame.TOLERANCE)
    return str(caught.value)


def test_another_energy_is_told_and_the_cause(composite, positions, stored):
    energies = dict(stored.energy_ev) | {"ammonia": stored.energy_ev["ammonia"] + 1e-4}
    other = dataclasses.replace(stored, energy_ev=energies)
    found = stored_frame.check_parts(composite, positions, other)
    said = refusal(found, other, composite.fingerprint())
    assert said.startswith("ammonia: energy off by 1.0e-04 eV")
    assert "this machine or version computes wrongly" in said
    assert "the models have been changed" in refusal(found, other, "sha256:0")


def test_another_fingerprint_alone_is_told(composite, positions, stored):
    found = stored_frame.check_parts(composite, positions, stored)
    assert "fingerprint is not the one in check.json" in refusal(found, stored, "sha256:0")


def test_forces_that_are_no_slope(composite, positions, monkeypatch):
    evaluate = CompositeModel.evaluate

    def wrong(self, *args, **kwargs):
        result = evaluate(self, *args, **kwargs)
        result.contributions.get("binding", result).forces[...] *= 1.01
        return result

    monkeypatch.setattr(CompositeModel, "evaluate", wrong)
    found = stored_frame.check_parts(composite, positions, None)
    assert "binding: forces are not the slope of the energy" in refusal(found, None, "")


def test_no_file_is_no_error(tmp_path):
    assert stored_frame.read_stored(tmp_path, 7) is None


@pytest.mark.parametrize(
    "change",
    [
        {"format": "deltaserver-check/2"}, {"positions_ang": [[0, 0, 0]]}, {"parts": []},
        {"parts": {"total": {}}}, {"positions_ang": [["x"] * 3] * 7}, {"fingerprint": None},
        {"parts": {"total": {"energy_ev": None, "forces_ev_per_ang": []}}},
        {"positions_ang": [[float("nan")] * 3] * 7},
    ],
)  # fmt: skip
def test_files_that_are_wrong(composite, positions, tmp_path, change):
    data = json.loads(stored_frame.store(composite, positions)) | change
    if change == {"fingerprint": None}:
        data.pop("fingerprint")
    (tmp_path / stored_frame.CHECK_NAME).write_text(json.dumps(data))
    with pytest.raises(InputError, match="not a stored frame of this model"):
        stored_frame.read_stored(tmp_path, 7)


@pytest.mark.parametrize("text", ["", "{", "[1]", "null", "[" * 100_000])
def test_files_that_are_no_json(tmp_path, text):
    (tmp_path / stored_frame.CHECK_NAME).write_text(text)
    with pytest.raises(InputError, match="--store"):
        stored_frame.read_stored(tmp_path, 7)
