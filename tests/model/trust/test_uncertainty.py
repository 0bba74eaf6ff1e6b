"""Uncertainty: where it vanishes, what it must not change under, and who has none."""

import dataclasses

import numpy as np
import pytest

from deltaserver import CompositeModel
from deltaserver.model.files.parameters import parse_parameters
from deltaserver.model.files.uncertainty import UncertaintyBlock
from deltaserver.model.trust.novelty import NoveltyMeasure, TrainingDistance
from deltaserver.model.trust.uncertainty import (
    TOTAL,
    PosteriorSpread,
    UncertaintyMeasure,
    matern,
    rms,
    uncertainty,
)
from deltaserver.units import KCAL_PER_MOL_EV
from tests.builders import (
    AMMONIA,
    AMMONIA_PERMS,
    ammonia_model,
    binding_model,
    geometry,
    rotation,
    sgdml_model,
    shaken,
    water_model,
    write_directory,
    write_model,
)

BLOCK = UncertaintyBlock(np.arange(30), 0.3, 0.5, 1.2, 0.7, 0.01)


def measured(n_train=40):
    raw = sgdml_model(AMMONIA, perms=AMMONIA_PERMS, n_train=n_train)
    return TrainingDistance.of(parse_parameters(raw, "test"))


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    directory = write_directory(tmp_path_factory.mktemp("models") / "m")
    for name, make in (
        ("water", water_model), ("ammonia", ammonia_model), ("binding", binding_model),
    ):  # fmt: skip
        write_model(directory / f"{name}.npz", make(n_train=40, **BLOCK.arrays()))
    return directory


def test_the_spread_is_nothing_at_the_data_and_one_far_away():
    distance = measured()
    spread = PosteriorSpread(distance, np.arange(40), 0.3)
    at_points = spread(distance.points.astype(float))
    assert at_points.max() < 0.01
    far = distance.features_of(2.0 * geometry(4)[None])
    np.testing.assert_allclose(spread(far + 100.0), 1.0)
    between = spread(distance.features_of(shaken(geometry(4), 20, 5)))
    assert (at_points.max() < between).all()
    assert (between < 1.0).all()


def test_the_spread_is_that_of_the_whole_matrix():
    """1 − kᵀK⁻¹k, written out."""
    distance = measured()
    points = np.array([0, 3, 7, 20])
    z = distance.points[points].astype(float)
    f = distance.features_of(shaken(geometry(4), 3, 5))
    kernel = matern(((z[:, None] - z) ** 2).sum(-1), 0.2) + 1e-6 * np.eye(4)
    k = matern(((f[:, None] - z) ** 2).sum(-1), 0.2)
    expected = np.sqrt(1.0 - np.einsum("bi,ij,bj->b", k, np.linalg.inv(kernel), k))
    np.testing.assert_allclose(PosteriorSpread(distance, points, 0.2)(f), expected, rtol=1e-6)


def test_one_structure_is_measured_as_many_are():
    distance = measured()
    x = shaken(geometry(4), 6, 5)
    together = distance.features_of(x)
    alone = np.concatenate([distance.features_of(one[None]) for one in x])
    np.testing.assert_allclose(alone, together, atol=1e-6 * np.abs(together).max())


def test_turning_moving_and_relabelling_change_nothing():
    distance = measured()
    spread = PosteriorSpread(distance, np.arange(40), 0.3)
    x = shaken(geometry(4), 5, 5)
    expected = spread(distance.features_of(x))
    for same in (x @ rotation(3), x + 4.0, x[:, AMMONIA_PERMS[4]]):
        np.testing.assert_allclose(spread(distance.features_of(same)), expected, rtol=1e-5)


def test_parts_and_total_of_a_model(calibrated):
    model = CompositeModel.load(calibrated)
    measure = UncertaintyMeasure(model, NoveltyMeasure(model))
    assert measure.components == ("water", "ammonia", "binding")
    x = shaken(geometry(7, 3), 4, 98)
    result = model.evaluate(x)
    found = measure(x, result.contributions)
    assert set(found) == {"water", "ammonia", "binding", TOTAL}
    squared = 3 * found["water"] ** 2 + 4 * found["ammonia"] ** 2 + 7 * found["binding"] ** 2
    np.testing.assert_allclose(found[TOTAL], np.sqrt(squared / 7))
    # of one part, by hand
    distance = NoveltyMeasure(model).distance_of("binding")
    s = PosteriorSpread(distance, BLOCK.points, BLOCK.length)(distance.features_of(x))
    force = rms(result.contributions["binding"].forces) / KCAL_PER_MOL_EV
    expected = KCAL_PER_MOL_EV * BLOCK.scale * s**1.2 * force**0.7
    np.testing.assert_allclose(found["binding"], expected)
    alone = measure(x, model.evaluate(x, "binding").contributions)
    assert set(alone) == {"binding"}


def test_models_without_it_say_nothing(composite, batch):
    measure = UncertaintyMeasure(composite, NoveltyMeasure(composite))
    assert measure.components == ()
    assert measure(batch, composite.evaluate(batch).contributions) == {}


def test_where_one_part_has_none_there_is_no_total(calibrated, tmp_path):
    write_directory(tmp_path / "m")
    for name in ("water", "ammonia"):
        (tmp_path / "m" / f"{name}.npz").write_bytes((calibrated / f"{name}.npz").read_bytes())
    model = CompositeModel.load(tmp_path / "m")
    x = shaken(geometry(7, 3), 2, 98)
    found = UncertaintyMeasure(model, NoveltyMeasure(model))(x, model.evaluate(x).contributions)
    assert set(found) == {"water", "ammonia"}


def test_forces_do_not_vanish_below_the_floor():
    none = uncertainty(BLOCK, np.ones(2), np.array([0.0, BLOCK.floor]))
    assert none[0] == none[1] > 0.0


def test_it_is_nothing_that_is_evaluated(calibrated):
    """The fingerprint is that of the model without it."""
    model = CompositeModel.load(calibrated)
    bare = dataclasses.replace(model.binding.parameters, uncertainty=None)
    before = model.fingerprint()
    model.binding.parameters = bare
    assert model.fingerprint() == before
