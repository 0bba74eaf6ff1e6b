from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from deltaserver.model.many.switch import Switch, tail_ev_ang3
from deltaserver.model.prior import AtomClass, Attraction, PairPrior, PairTerms

SWITCH = Switch(9.0, 11.0)


def test_it_falls_from_one_to_nothing_and_is_twice_differentiable():
    r = np.array([0.0, 8.9, 9.0, 10.0, 11.0, 12.0])
    value, slope = SWITCH(r)
    assert value == pytest.approx([1.0, 1.0, 1.0, 0.5, 0.0, 0.0])
    assert slope == pytest.approx([0.0, 0.0, 0.0, -15.0 / 16.0, 0.0, 0.0])
    h = 1e-5
    for end in (9.0, 11.0):  # where the second derivative begins and ends: at zero
        near = np.array([end - h, end, end + h])
        assert np.abs(np.diff(SWITCH(near)[1]) / h).max() < 60.0 / 4.0 * h
    r = np.linspace(9.1, 10.9, 7)
    numeric = (SWITCH(r + h)[0] - SWITCH(r - h)[0]) / (2.0 * h)
    assert SWITCH(r)[1] == pytest.approx(numeric, abs=1e-8)


@pytest.mark.parametrize(("power", "radius"), [(6, 2.5), (8, 3.0), (4, 2.0), (6, 0.0)])
def test_what_it_cuts_off_is_the_integral(power, radius):
    def shell(r):
        return (1.0 - SWITCH(np.array(r))[0]) * 4.0 * np.pi * r**2 / (r**power + radius**power)

    expected = quad(shell, 9.0, 11.0)[0] + quad(shell, 11.0, np.inf)[0]
    assert SWITCH.cut_off(power, radius) == pytest.approx(expected, rel=1e-8)


def test_the_tail_counts_every_pair_of_atoms_but_no_charges():
    classes = (AtomClass("a", (0, 1), 0.3), AtomClass("b", (2, 3, 4), -0.3))
    terms = {("a", "b"): PairTerms(attractions=(Attraction(6, 2.5, 7.0),))}
    prior = PairPrior(np.array([0, 0, 1, 1, 1]), classes, terms)
    expected = -2 * 3 * 7.0 * SWITCH.cut_off(6, 2.5)
    assert tail_ev_ang3(prior, SWITCH) == pytest.approx(expected)
