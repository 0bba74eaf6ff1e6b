"""Small molecules get one thread, whatever the machine has."""

import numpy as np
import pytest

from deltaserver.datasets import calculators

threadpoolctl = pytest.importorskip("threadpoolctl")


def threads():
    return {pool["num_threads"] for pool in threadpoolctl.threadpool_info()}


def seen_by(n_atoms):
    from ase.calculators.calculator import Calculator

    found = []

    class Counting(Calculator):
        implemented_properties = ["energy", "forces"]

        def calculate(self, atoms=None, properties=(), system_changes=()):
            super().calculate(atoms, properties, system_changes)
            found.append(threads())
            self.results = {"energy": 0.0, "forces": np.zeros((n_atoms, 3))}

    x = 1.5 * np.arange(3.0 * n_atoms).reshape(-1, 3)
    numbers = np.full(n_atoms, 6)
    calculators.evaluate(lambda atoms: Counting(), numbers, x, np.zeros(n_atoms, int))
    return found[0]


@pytest.mark.parametrize("told", [None, "2"])
def test_small_molecules_are_computed_by_one_thread(monkeypatch, told):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    with threadpoolctl.threadpool_limits(2):
        before = threads()
        assert seen_by(calculators.SMALL_MOLECULE_ATOMS + 1) == before
        assert seen_by(3) == (before if told else {1})
        assert threads() == before
