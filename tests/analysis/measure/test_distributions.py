import numpy as np
import pytest

from deltaserver.analysis.measure import survey
from deltaserver.analysis.measure.definitions import PairsSpec
from deltaserver.analysis.measure.distributions import pair_distribution
from deltaserver.analysis.measure.survey import count_pairs
from deltaserver.errors import DataError


def test_points_spread_evenly_have_an_even_density():
    """One point in the middle, many in a sphere of radius 5: ρ = 1/V within it."""
    rng = np.random.default_rng(1)
    spec = PairsSpec("a-b", (0,), tuple(range(1, 401)), 8.0, 40)
    counts = []
    for _ in range(200):
        points = rng.normal(size=(400, 3))
        radius = 5.0 * rng.uniform(size=400) ** (1 / 3)
        points *= (radius / np.linalg.norm(points, axis=1))[:, None]
        counts.append(count_pairs(np.vstack([np.zeros(3), points])[None], spec))
    found = pair_distribution(spec, np.array(counts))
    inside = (found.r_ang > 1.0) & (found.r_ang < 4.9)
    expected = 1.0 / (4.0 / 3.0 * np.pi * 5.0**3)
    pull = (found.density - expected)[inside] / found.density_error[inside]
    assert np.abs(pull).max() < 6.0
    assert found.density[found.r_ang > 5.0].max() == 0.0
    shells = np.diff(4.0 / 3.0 * np.pi * found.edges_ang**3)
    assert (found.density * shells).sum() == pytest.approx(1.0)
    assert found.neighbours[-1] == pytest.approx(400.0)


def test_counts_of_known_distances_and_of_beads():
    positions = np.array([[0.0, 0, 0], [0, 0, 1.5], [0, 0, 2.5], [0, 0, 99.0]])
    spec = PairsSpec("a-b", (0,), (1, 2, 3), 4.0, 4)
    assert count_pairs(positions[None], spec).tolist() == [0, 1, 1, 0]
    beads = np.stack([positions, positions])
    assert count_pairs(beads, spec).tolist() == [0, 2, 2, 0]
    one = pair_distribution(spec, np.array([[0, 1, 1, 0]]))
    two = pair_distribution(spec, np.array([[0, 2, 2, 0]]), 2)
    assert np.array_equal(one.density, two.density)
    assert one.neighbours.tolist() == [0, 1, 2, 2]
    assert np.isnan(one.density_error).all()


@pytest.mark.parametrize("at_once", [survey.PAIRS_AT_ONCE, 4])
def test_no_atom_is_its_own_neighbour(monkeypatch, at_once):
    """Three atoms are six pairs; of three and one of them, two."""
    monkeypatch.setattr(survey, "PAIRS_AT_ONCE", at_once)
    positions = np.array([[[0.0, 0, 0], [0, 0, 1.5], [0, 0, 4.0]]])
    for second, expected, n_pairs in (((0, 1, 2), [0, 2, 2, 0, 2], 6), ((1,), [0, 1, 1, 0, 0], 2)):
        spec = PairsSpec("a-a", (0, 1, 2), second, 5.0, 5)
        counts = count_pairs(np.concatenate([positions, positions]), spec)
        assert counts.tolist() == [2 * n for n in expected]
        found = pair_distribution(spec, counts[None], 2)
        shells = np.diff(4.0 / 3.0 * np.pi * found.edges_ang**3)
        assert spec.n_pairs == n_pairs
        assert (found.density * shells).sum() == pytest.approx(1.0)
        assert found.neighbours[-1] == pytest.approx(n_pairs / 3)


def test_no_frames():
    with pytest.raises(DataError, match="no frames"):
        pair_distribution(PairsSpec("a-b", (0,), (1,)), np.zeros((0, 150), np.int64))
