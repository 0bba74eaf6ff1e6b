import numpy as np
import pytest

from deltaserver.analysis.measure import thermo
from deltaserver.errors import DataError
from tests.analysis.written import ornstein_uhlenbeck


def test_drift_and_its_error():
    time = np.arange(0, 50, 0.01)
    pulls = []
    for seed in range(20):
        noise = ornstein_uhlenbeck(len(time), 1, 2e-3, 30.0, seed)[:, 0]
        found = thermo.drift_of(time, -7000.0 + 1e-4 * time + noise, 148)
        pulls.append((found.ev_per_ps - 1e-4) / found.error_ev_per_ps)
        assert found.scatter_ev == pytest.approx(2e-3, rel=0.2)
        assert found.mev_per_atom_ps == pytest.approx(1e3 * found.ev_per_ps / 148)
    assert 0.6 < np.sqrt(np.mean(np.square(pulls))) < 1.5


def test_drift_refuses_what_has_none():
    with pytest.raises(DataError, match="2 rows are too few"):
        thermo.drift_of(np.arange(2.0), np.ones(2), 3)
    with pytest.raises(DataError, match="one time"):
        thermo.drift_of(np.ones(5), np.ones(5), 3)


def test_canonical_temperatures_have_the_expected_spread():
    """The kinetic energy of n momenta is a χ² of n degrees: σ_T = T √(2/n)."""
    n = 441
    samples = 300.0 * np.random.default_rng(1).chisquare(n, 20_000) / n
    found = thermo.temperature_of(samples, n, 300.0, "nvt")
    assert found.mean.value == pytest.approx(300.0, abs=4 * found.mean.error)
    assert found.std_k == pytest.approx(found.expected_std_k, rel=0.03)


def test_other_ensembles_expect_nothing():
    assert thermo.temperature_of(np.ones(5), 9, 300.0, "nve").expected_std_k is None
    assert thermo.temperature_of(np.ones(5), 9, None, "nvt").expected_std_k is None
