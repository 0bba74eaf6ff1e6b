"""What a dataset says of its own making."""

from __future__ import annotations

import sys

import pytest

from deltaserver.datasets.workspace import command_line


@pytest.mark.parametrize("program", ["/env/bin/deltaserver", "/lib/deltaserver/__main__.py"])
def test_the_command_can_be_typed(program, monkeypatch):
    """However it was begun: ``python -m deltaserver`` has a file's name in the program's place."""
    monkeypatch.setattr(sys, "argv", [program, "dataset", "label", "two words.xyz"])
    assert command_line() == "deltaserver dataset label 'two words.xyz'"
