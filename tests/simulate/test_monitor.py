"""How many structures the first evaluation sends where all beads begin at one place."""

from __future__ import annotations

import numpy as np
import pytest

from deltaserver.simulate.monitor import FirstRound

START = np.arange(6.0).reshape(2, 3)
MOVED = START + 1e-4


def told(per_step, *requests) -> list[int]:
    heard: list[int] = []
    first = FirstRound(per_step, heard.append)
    for structures, n_counted in requests:
        first.add(np.array(structures), n_counted)
    return heard


@pytest.mark.parametrize(
    ("per_step", "requests", "expected"),
    [
        (4, [([START] * 4, 1), ([MOVED, START], 2)], [3]),
        (4, [([START], 1)] * 4 + [([MOVED], 1)], []),
        (4, [([START, MOVED], 2)], []),  # beads that differ from the start on
        (1, [([START] * 4, 1), ([MOVED] * 4, 1)], []),  # a short batch, filled up
        (6, [([START, START + 1e-13, START, START], 3), ([START] * 4, 1), ([MOVED], 1)], [2]),
        (4, [([START] * 4, 1)], []),  # it never moved
    ],
)
def test_what_is_missing_is_told_once(per_step, requests, expected):
    assert told(per_step, *requests, *requests[-1:]) == expected
