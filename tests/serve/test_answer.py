"""From i-PI's numbers to i-PI's numbers: atomic units, transposes, padding, extras."""

import json

import numpy as np
import pytest

from deltaserver.serve.answer import Request, answer
from deltaserver.serve.wire import MessageReader
from tests.builders import (
    TRICLINIC,
    WATER_ATOMS,
    numerical_gradient,
)
from tests.serve.server_double import BOHR_ANG, CELL_BOHR, batch_posdata, posdata, split_reply


def single(positions, cell=CELL_BOHR):
    reader = MessageReader(7)
    reader.feed(posdata(positions, cell))
    return Request.of(reader.next_message())


def batched(positions, cells=None):
    reader = MessageReader(7)
    reader.batch_size = len(positions)
    reader.feed(batch_posdata(positions, cells))
    return Request.of(reader.next_message())


def test_energy_forces_and_virial_in_atomic_units(composite, positions):
    reply = split_reply(answer(composite, single(positions)).reply)
    expected = composite.evaluate(positions)
    np.testing.assert_allclose(reply["energy"][0], expected.energy, rtol=1e-10)
    np.testing.assert_allclose(reply["forces"][0], expected.forces, atol=1e-9)
    np.testing.assert_allclose(reply["virial"][0], expected.virial, atol=1e-9)


def test_the_numbers_on_the_wire_are_derivatives_of_each_other(composite, positions):
    """In Hartree and Bohr throughout, with no conversion factor in sight."""

    def energy(x):
        return float(np.frombuffer(answer(composite, single(x * BOHR_ANG)).reply, float, 1, 12)[0])

    raw = answer(composite, single(positions)).reply
    forces = np.frombuffer(raw, float, 21, 24).reshape(7, 3)
    slope = numerical_gradient(energy, positions / BOHR_ANG)
    np.testing.assert_allclose(forces, -slope, rtol=0, atol=1e-6 * np.abs(forces).max())


def test_the_cell_from_the_wire_is_the_model_s_and_not_its_transpose(periodic, positions):
    wrapped = positions.copy()
    wrapped[WATER_ATOMS] += TRICLINIC @ [1, -1, 0]
    expected = periodic.evaluate(positions)
    found = split_reply(answer(periodic, single(wrapped, TRICLINIC / BOHR_ANG)).reply)
    np.testing.assert_allclose(found["energy"][0], expected.energy, rtol=1e-9)
    np.testing.assert_allclose(found["forces"][0], expected.forces, atol=1e-8)
    other = split_reply(answer(periodic, single(wrapped, TRICLINIC.T / BOHR_ANG)).reply)
    assert abs(other["energy"][0] - float(expected.energy)) > 1e-3


def test_a_batch_of_different_cells(periodic, positions):
    cells = [scale * TRICLINIC / BOHR_ANG for scale in (1.0, 1.03, 0.98)]
    x = np.stack([positions + TRICLINIC[:, :1].T * k for k in range(3)])
    x[:, WATER_ATOMS] += TRICLINIC @ [0, 1, 0]
    together = split_reply(answer(periodic, batched(x, cells)).reply, 3)
    for index, cell in enumerate(cells):
        alone = split_reply(answer(periodic, single(x[index], cell)).reply)
        np.testing.assert_allclose(together["energy"][index], alone["energy"][0], rtol=1e-10)
        np.testing.assert_allclose(together["forces"][index], alone["forces"][0], atol=1e-9)
        np.testing.assert_allclose(together["virial"][index], alone["virial"][0], atol=1e-9)


def test_a_free_model_takes_a_batch_of_different_cells_at_once(composite, batch):
    cells = [CELL_BOHR, 2 * CELL_BOHR, 3 * CELL_BOHR]
    found = split_reply(answer(composite, batched(batch, cells)).reply, 3)
    np.testing.assert_allclose(found["energy"], composite.evaluate(batch).energy, rtol=1e-10)


@pytest.mark.parametrize(
    ("order", "n_real"),
    [
        ([0, 1, 1, 1], 2),
        ([0, 1, 2], 3),
        ([0, 0, 0], 1),
        ([0, 1, 0], 3),
        ([1, 1, 0, 2], 4),
        ([2], 1),
    ],
)
def test_padding_is_answered_but_not_counted(composite, batch, order, n_real):
    result = answer(composite, batched(batch[order]))
    assert len(result.structures) == n_real
    found = split_reply(result.reply, len(order))
    np.testing.assert_allclose(found["energy"], composite.evaluate(batch[order]).energy, rtol=1e-10)
    np.testing.assert_allclose(found["forces"], composite.evaluate(batch[order]).forces, atol=1e-9)
    assert [extra["energy_ev"] for extra in found["extras"]] == pytest.approx(list(found["energy"]))


def test_the_same_positions_in_another_cell_are_no_padding(composite, positions):
    x = np.stack([positions, positions])
    assert len(answer(composite, batched(x, [CELL_BOHR, 2 * CELL_BOHR])).structures) == 2


@pytest.mark.parametrize(
    ("component", "names"),
    [
        ("total", ["water", "ammonia", "binding"]),
        ("binding", ["binding"]),
        ("water", ["water"]),
        ("full", ["full"]),
    ],
)
def test_extras_are_an_object_of_numbers_that_add_up(composite, positions, component, names):
    result = answer(composite, single(positions), component)
    (extras,) = split_reply(result.reply)["extras"]
    assert isinstance(extras, dict)
    suffixes = ("energy_ev", "force_rms_ev_per_ang")
    assert set(extras) == {"energy_ev"} | {f"{n}_{s}" for n in names for s in suffixes}
    total = sum(extras[f"{name}_energy_ev"] for name in names)
    assert extras["energy_ev"] == pytest.approx(total, abs=1e-10)
    assert "raw" not in extras  # i-PI refuses that one


def test_the_rms_runs_over_the_components_of_the_part_s_own_atoms(composite, positions):
    (extras,) = split_reply(answer(composite, single(positions)).reply)["extras"]
    parts = composite.evaluate(positions).contributions
    for name, atoms in (("water", WATER_ATOMS), ("binding", np.arange(7))):
        f = parts[name].forces[atoms]
        rms = (sum(v**2 for v in f.ravel()) / (3 * len(atoms))) ** 0.5
        assert extras[f"{name}_force_rms_ev_per_ang"] == pytest.approx(rms, rel=1e-9)


def test_full_extras_hold_every_part_s_forces(composite, positions):
    result = split_reply(answer(composite, single(positions), extras="full").reply)
    (extras,) = result["extras"]
    names = ("water", "ammonia", "binding")
    parts = [np.array(extras[f"{name}_forces_ev_per_ang"]) for name in names]
    assert parts[0].shape == (7, 3)
    assert not np.delete(parts[0], WATER_ATOMS, axis=0).any()
    np.testing.assert_allclose(sum(parts), result["forces"][0], atol=1e-9)


def test_extras_are_plain_ascii_json(composite, positions):
    reply = answer(composite, single(positions)).reply
    text = reply[reply.index(b'{"energy_ev"') :]
    assert json.loads(text.decode("ascii"))
