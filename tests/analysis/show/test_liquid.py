"""What the terminal and ``summary.json`` say of a liquid."""

import numpy as np
import pytest

from deltaserver.analysis.measure.liquid import CentreDistribution, Liquid
from deltaserver.analysis.show.liquid import liquid_lines, liquid_summary

EDGES = np.linspace(0.0, 2.9, 30)  # Å


@pytest.mark.parametrize(("at", "told", "peak"), [
    (17, "g(a-b): highest at 1.75 Å, 2.00", 1.75), (None, "g(a-b): no two within 2.9 Å", None),
])  # fmt: skip
def test_where_no_two_are_within_reach_there_is_no_highest_g(at, told, peak):
    g = np.zeros(len(EDGES) - 1)
    if at is not None:
        g[at] = 2.0
    one = CentreDistribution("a-b", EDGES, g, np.zeros_like(g), np.zeros_like(g), 4)
    liquid = Liquid(2, np.arange(4.0), (one,), (), None, None, None)
    assert any(told in line for line in liquid_lines(liquid))
    assert liquid_summary(liquid)["g"]["a-b"]["peak_at_ang"] == pytest.approx(peak)
