"""The real i-PI starts from a wrong C60@buckycatcher: the daemon refuses, i-PI gets no force."""

import numpy as np
import pytest
from ase.io import read, write

from .conftest import ROOT, Setup, render, start_daemon, start_ipi


def permuted(atoms):
    return atoms[np.random.default_rng(4).permutation(len(atoms))]


def exchanged(atoms):
    order = np.arange(len(atoms))
    order[[17, 111]] = 111, 17
    return atoms[order]


def stretched(atoms):
    atoms.positions *= 1.1
    return atoms


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (permuted, "the order of the atoms is not the model's"),
        (exchanged, "atom 17 (C of c60) and atom 111 (C of buckycatcher) are exchanged"),
        (stretched, "the structure is stretched"),
    ],
)
def test_refused_naming_the_cause(tmp_path, change, cause):
    start = tmp_path / "start.xyz"
    atoms = change(read(ROOT / "ipi_inputs" / "c60_buckycatcher.xyz"))
    comment = "# CELL(abcABC): 100 100 100 90 90 90 cell{angstrom} positions{angstrom}"
    write(start, atoms, format="xyz", comment=comment)
    setup = Setup(steps=5, sockets=[{"name": "a", "timeout": "600"}], structure=start)
    (tmp_path / "input.xml").write_text(render(setup, str(tmp_path / "ipi-")[1:]))
    output = tmp_path / "said"
    with output.open("wb") as file:
        daemon = start_daemon(
            ROOT / "models" / "c60", "--socket", f"unix:{tmp_path}/ipi-a", output=file.fileno()
        )
    ipi = start_ipi(tmp_path, "-S", "/", "input.xml")
    try:
        assert daemon.wait(120) == 4
    finally:
        for process in (ipi, daemon):
            process.kill()
            process.wait()
    said = output.read_text()
    assert said.count("\n") == 1
    assert cause in said
    rows = [
        line
        for line in (tmp_path / "run.out").read_text().splitlines()
        if not line.lstrip().startswith("#")
    ] if (tmp_path / "run.out").exists() else []  # fmt: skip
    assert rows == []  # no step was made of anything
