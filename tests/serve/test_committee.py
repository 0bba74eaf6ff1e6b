"""A committee behind i-PI's ffcommittee: one socket, the members in the extras."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import numpy as np
import pytest

from deltaserver import CompositeModel
from deltaserver.cli.app import main
from deltaserver.molecules.elements import SYMBOLS
from deltaserver.serve.answer import Request, answer_together, examine
from deltaserver.serve.guard import ServingGuard
from deltaserver.serve.settings import GuardSettings
from deltaserver.textio.xyz_frames import xyz_text
from deltaserver.training.directory.job import TrainingPlan
from deltaserver.training.model_directory import train_directory
from deltaserver.units import BOHR_ANG, HARTREE_EV
from tests.integration.conftest import start_daemon, start_ipi
from tests.serve.server_double import split_reply
from tests.training.labelled import water_and_ion, water_dimer

INPUT = """<simulation verbosity="medium">
  <output prefix="run">
    <properties stride="1" filename="out">[ step, potential ]</properties>
    <trajectory stride="1" filename="pot" extra_type="committee_pot">extras</trajectory>
    <trajectory stride="1" filename="spread" extra_type="committee_uncertainty">extras</trajectory>
    <trajectory stride="1" filename="f" format="xyz">forces</trajectory>
  </output>
  <total_steps>3</total_steps>
  <ffcommittee name="committee"><parse_json>true</parse_json>
    <ffsocket mode="unix" name="delta" pbc="false"><address>{name}</address>
      <latency>1e-4</latency></ffsocket></ffcommittee>
  <system>
    <initialize nbeads="1"><file mode="xyz">start.xyz</file>
      <velocities mode="thermal" units="kelvin">100</velocities></initialize>
    <forces><force forcefield="committee"/></forces>
    <ensemble><temperature units="kelvin">100</temperature></ensemble>
    <motion mode="dynamics"><dynamics mode="nve"><timestep units="femtosecond">0.5</timestep>
      </dynamics></motion>
  </system>
</simulation>
"""


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    """Three models of two waters, each of other points."""
    directory, frames = tmp_path_factory.mktemp("members"), water_dimer(120)
    for seed in range(3):
        for part in ("left", "binding"):
            plan = TrainingPlan(
                n_train=12, n_valid=20, sigmas=(8.0,), symmetry="none", component=part, seed=seed
            )
            train_directory(frames, plan, directory / str(seed))
    return [directory / str(seed) for seed in range(3)]


@pytest.mark.ipi
def test_i_pi_reads_the_members(members, tmp_path):
    """Potential and forces are the members' mean; i-PI's own uncertainty is their spread."""
    name, x = f"committee{os.getpid()}", water_dimer(1, seed=4).positions
    symbols = [SYMBOLS[z] for z in water_dimer(1).numbers]
    comment = "# CELL(abcABC): 50 50 50 90 90 90 cell{angstrom} positions{angstrom}"
    (tmp_path / "start.xyz").write_text(xyz_text(symbols, x[0], comment))
    (tmp_path / "input.xml").write_text(INPUT.format(name=name))
    ipi = start_ipi(tmp_path, "input.xml")
    words = [word for path in members[1:] for word in ("--committee", str(path))]
    daemon = start_daemon(
        members[0], *words, "--socket", f"unix:{name}", "--log-file", tmp_path / "log"
    )
    said = (tmp_path / "i-pi.log").read_text
    assert ipi.wait(120) == 0, said()[-2000:]
    assert daemon.wait(30) == 0
    found = [CompositeModel.load(path).evaluate(x) for path in members]
    energies = np.array([float(one.energy[0]) for one in found])
    assert np.ptp(energies) > 1e-6
    # The start goes to i-PI with eight decimals, in Å, and comes back in Bohr.
    close = {"rtol": 0.0, "atol": 1e-6}
    first = np.loadtxt(tmp_path / "run.out")[0]
    np.testing.assert_allclose(first[1] * HARTREE_EV, energies.mean(), **close)
    pots = np.loadtxt(tmp_path / "run.pot_0")[0] * HARTREE_EV
    np.testing.assert_allclose(pots, energies, **close)
    spread = np.loadtxt(tmp_path / "run.spread_0")[0] * HARTREE_EV
    np.testing.assert_allclose(spread, energies.std(ddof=1), **close)


@pytest.mark.parametrize("first", [0, 1])
def test_members_with_and_without_a_prior_have_a_mean(members, tmp_path, first):
    """What the one has in two parts the other has in one: an internal error, or a refusal."""
    plan = TrainingPlan(
        n_train=12, n_valid=20, sigmas=(8.0,), symmetry="none", component="binding", prior="pairs"
    )
    train_directory(water_dimer(120), plan, tmp_path / "with")
    left = replace(plan, component="left", prior="none")
    train_directory(water_dimer(120), left, tmp_path / "with")
    models = [CompositeModel.load(path) for path in (members[0], tmp_path / "with")]
    models = models[first:] + models[:first]
    x = water_dimer(3, seed=4).positions
    guard = ServingGuard(models[0], GuardSettings())
    cells = np.zeros((3, 3, 3))
    found = examine(models[0], x, cells, guard=guard.after, others=models[1:])
    alone = [model.evaluate(x) for model in models]
    energy = np.mean([one.energy for one in alone], axis=0)
    np.testing.assert_allclose(found.energies * HARTREE_EV, energy, rtol=1e-12)
    bound = np.mean([model.evaluate(x, "binding").energy for model in models], axis=0)
    told = [one.binding_energy_ev for one in found.structures]
    np.testing.assert_allclose(told, bound, rtol=1e-12)


def test_members_of_another_molecule_are_refused(members, tmp_path, capsys):
    plan = TrainingPlan(n_train=12, n_valid=20, sigmas=(8.0,), symmetry="none")
    train_directory(water_and_ion(60), plan, tmp_path)
    words = ["--models", str(members[0]), "--committee", str(tmp_path), "--socket", "unix:no"]
    assert main(words) == 2
    assert "all members are models of one molecule" in capsys.readouterr().err


def test_one_model_twice_and_models_of_two_methods_are_refused(members, tmp_path, capsys):
    def said(*committee):
        words = [word for path in committee for word in ("--committee", str(path))]
        assert main(["--models", str(members[0]), *words, "--socket", "unix:no"]) == 2
        return capsys.readouterr().err

    copy = shutil.copytree(members[1], tmp_path / "copy")
    assert f"--committee {copy}: is a member already" in said(members[1], copy)
    manifest = copy / "model.yaml"
    text = manifest.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("reference: ")]
    manifest.write_text(text.replace(line, "reference: another"))
    assert f"its labels are of another, those of {members[0]} of " in said(copy)


def test_what_a_member_says_is_in_the_extras(members):
    models = [CompositeModel.load(path) for path in members]
    x = water_dimer(2, seed=4).positions
    request = Request(x, np.tile(50.0 * np.eye(3), (2, 1, 1)))
    reply = answer_together(models[0], [request], others=models[1:])[0].reply
    told = split_reply(reply, 2)
    alone = [split_reply(answer_together(m, [request])[0].reply, 2) for m in models]
    for k, extras in enumerate(told["extras"]):
        ev, ev_per_ang = HARTREE_EV, HARTREE_EV / BOHR_ANG
        for key, name, unit in (
            ("committee_pot", "energy", ev),
            ("committee_force", "forces", ev_per_ang),
            ("committee_virial", "virial", ev),
        ):
            known = np.array([one[name][k] for one in alone])
            found = unit * np.reshape(extras[key], known.shape)
            np.testing.assert_allclose(found, known, rtol=1e-9, atol=1e-12)
            np.testing.assert_allclose(told[name][k], known.mean(axis=0), rtol=1e-9, atol=1e-12)
