from __future__ import annotations

import numpy as np
import pytest

from deltaserver.errors import ComponentError, DataError
from deltaserver.training.components import (
    Component,
    choose,
    components,
    fragment_symmetry,
    labelled_set,
    lone_atom_energy,
)
from tests.training.labelled import water_and_ion, water_dimer


def test_identical_fragments_are_pooled_in_matching_order():
    frames = water_dimer()
    left, binding, full = components(frames)
    assert (left.name, left.members) == ("left", (0, 1))
    assert left.atoms[0] == (0, 1, 2)
    assert left.atoms[1][0] == 4  # the oxygen
    assert (binding.name, full.name) == ("binding", "full")
    data = labelled_set(frames, left)
    assert data.positions.shape == (120, 3, 3)
    np.testing.assert_array_equal(data.frame, np.tile(np.arange(60), 2))
    np.testing.assert_array_equal(data.energy[60:], frames.fragment_energies[:, 1])
    np.testing.assert_array_equal(data.forces[60:, 0], frames.fragment_forces[:, 4])
    np.testing.assert_array_equal(data.numbers, [8, 1, 1])


def test_different_charges_are_not_pooled():
    frames = water_dimer()
    object.__setattr__(frames.fragments[1], "charge", 1)
    assert [c.name for c in components(frames)] == ["left", "right", "binding", "full"]


def test_binding_is_what_the_fragments_leave():
    frames = water_dimer()
    _, binding, full = components(frames)
    rest, whole = labelled_set(frames, binding), labelled_set(frames, full)
    np.testing.assert_allclose(rest.energy, frames.energy - frames.fragment_energies.sum(1))
    np.testing.assert_allclose(whole.forces - rest.forces, frames.fragment_forces, atol=1e-12)


def test_a_lone_atom_is_a_constant():
    frames = water_and_ion()
    _, sodium, _, _ = components(frames)
    assert sodium.is_lone_atom
    assert lone_atom_energy(frames, sodium) == -4.5
    frames.fragment_energies[3, 1] = -4.0
    with pytest.raises(DataError, match=r"fragment sodium: a lone atom.*differ by 0.5 eV"):
        lone_atom_energy(frames, sodium)


def test_choosing():
    available = (Component("a", (0,), ((0, 1),)), Component("full", (), ((0, 1),)))
    assert choose(available, "all") == available
    assert choose(available, "a") == available[:1]
    with pytest.raises(ComponentError, match=r"no component 'b' .*all or one of a, full"):
        choose(available, "b")


def test_a_fragment_in_pieces_can_be_trained_but_has_no_automorphisms():
    frames = water_dimer()
    frames.positions[:, 5] += 20.0
    assert [c.name for c in components(frames)] == ["left", "right", "binding", "full"]
    with pytest.raises(DataError, match="fragment right: no bond connects H2 to the rest"):
        fragment_symmetry(frames, frames.fragments[1], 10)
