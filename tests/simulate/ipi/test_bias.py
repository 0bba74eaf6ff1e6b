"""A bias that is told where its run begins, and which hills there are by then."""

from __future__ import annotations

import pytest

from deltaserver.bias.coordinate import Coordinate
from deltaserver.bias.hills_file import HillsFile, read_hills
from deltaserver.bias.settings import HILLS_NAME, Bias
from deltaserver.bias.terms import Hill, WellTempered
from deltaserver.errors import InputError
from deltaserver.simulate.ipi.bias import forcefield, start_at
from deltaserver.simulate.ipi.input import parse_input

GROWTH = WellTempered(0.01, 0.1, 5, 5.0, 300.0)  # a hill every 5 steps
BIAS = Bias(Coordinate("R", ((0,), (1,)), ((1.0,), (1.0,))), growth=GROWTH)


@pytest.fixture
def ipi_input(tmp_path):
    socket = '<ffsocket name="delta" mode="unix"><address>a</address></ffsocket>'
    text = f"<simulation>{socket}{forcefield(BIAS)}</simulation>"
    return parse_input(tmp_path / "input.xml", text)


def write(path, steps):
    file = HillsFile(path)
    for step in steps:
        file.keep(Hill(step, 2.0, 0.01))
    file.close()


def test_a_run_is_continued_with_the_hills_that_it_has_left(ipi_input, tmp_path):
    path = tmp_path / HILLS_NAME
    write(path, (5, 10, 15))
    for step, n_hills in ((17, 3), (15, 3), (14, 2), (0, 0)):  # each cuts those beyond
        told = start_at(ipi_input, tmp_path, step)
        assert f"first_step:{step}" in told.text
        assert len(read_hills(path)) == n_hills


@pytest.mark.parametrize("steps", [(), (5,), (10,)])
def test_without_some_of_them_it_is_not(ipi_input, tmp_path, steps):
    """It went on in another potential, and the analysis took the frames before for unbiased."""
    path = tmp_path / HILLS_NAME
    if steps:
        write(path, steps)
    before = path.read_bytes() if steps else None
    with pytest.raises(InputError, match=rf"has {len(steps)} of the 2 hills that 12 steps"):
        start_at(ipi_input, tmp_path, 12)
    assert (path.read_bytes() if path.exists() else None) == before
