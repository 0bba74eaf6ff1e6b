"""What a dataset says of its own making."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from deltaserver.datasets.workspace import command_line, place_molecules
from deltaserver.textio.xyz_frames import xyz_text


@pytest.mark.parametrize("program", ["/env/bin/deltaserver", "/lib/deltaserver/__main__.py"])
def test_the_command_can_be_typed(program, monkeypatch):
    """However it was begun: ``python -m deltaserver`` has a file's name in the program's place."""
    monkeypatch.setattr(sys, "argv", [program, "dataset", "label", "two words.xyz"])
    assert command_line() == "deltaserver dataset label 'two words.xyz'"


@pytest.mark.parametrize(
    ("stems", "names"),
    [
        (("water", "ion"), ("water", "ion")),
        (("water", "water"), ("water1", "water2")),
        (("water", "water", "water2"), ("water1", "water3", "water2")),
        (("water2", "water", "water"), ("water2", "water3", "water4")),
    ],
)
def test_no_two_molecules_have_one_name(tmp_path, stems, names):
    """A number that another file has in its name is passed over."""
    for stem in stems:
        x = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
        (tmp_path / f"{stem}.xyz").write_text(xyz_text(["O", "H", "H"], x, ""))
    paths = tuple(tmp_path / f"{stem}.xyz" for stem in stems)
    told = place_molecules(paths, 3.0, 0, tmp_path / "out.xyz")
    assert tuple(text.split(":")[0].split("=")[0] for text in told) == names
