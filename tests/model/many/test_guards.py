from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from deltaserver.ase import DeltaCalculator
from deltaserver.errors import ManifestError, NoveltyError, StructureError
from deltaserver.model import force_field
from deltaserver.model.composite import CompositeModel
from deltaserver.model.files.archive import read_arrays, write_arrays
from deltaserver.serve.answer import Request, answer, answer_together
from deltaserver.serve.guard import ServingGuard
from deltaserver.serve.settings import GuardSettings
from deltaserver.simulate.structures.assemble import assemble
from deltaserver.textio.xyz_frames import xyz_text
from tests import shipped
from tests.model.many.builders import BENZENE_DIMER, benzenes, directory, manifest
from tests.shipped import MODELS

BOX = 24.0 * np.eye(3)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return force_field.load(benzenes(tmp_path_factory.mktemp("three"), 3, periodic=True))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    return force_field.load(benzenes(tmp_path_factory.mktemp("cluster"), 3))


@pytest.fixture
def x():
    """The dimer's start structure, and a third molecule beside it."""
    dimer = np.loadtxt(BENZENE_DIMER / "structure.xyz", skiprows=2, usecols=(1, 2, 3))
    return np.concatenate([dimer, dimer[:12] + np.array([0.0, 0.0, 9.0])])


def test_how_many_bonds_are_checked_is_told_of_none_too(tmp_path, model):
    """Random geometries show no molecule, and a lone atom has nothing to check."""
    assert model.guards().bond_counts == {"benzene": 12}
    wet = force_field.load(directory(tmp_path, manifest(2, 1)))
    assert wet.guards().bond_counts == {"water": 0}


class Connection:
    """Something that a guard can tell from others."""


HERE = Connection()


def guard(model, **settings):
    return ServingGuard(model, GuardSettings(structure_check=True, **settings))


def look(model, x, cell=BOX, component="total", **settings):
    request = Request(x[None], cell[None])
    here = guard(model, **settings)
    here.before(HERE, request, component)
    return answer_together(model, [request], component, guard=here.after)


def test_a_good_structure_is_answered_with_its_novelty(model, x):
    (found,) = look(model, x)
    (structure,) = found.structures
    assert set(structure.contributions) == {"benzene", "prior", "binding"}
    assert set(structure.novelty) == {"benzene", "binding"}
    alone = model.guards().novelty(x[None], structure.contributions, BOX)
    assert structure.novelty["binding"] == pytest.approx(alone["binding"][0], abs=1e-4)


def test_full_extras_have_each_molecules_share(model, x):
    request = Request(x[None], BOX[None])
    found = answer(model, request, extras="full")
    (structure,) = found.structures
    fields = json.loads(found.reply[found.reply.rindex(b'{"energy_ev"') :])
    for name, part in structure.contributions.items():
        shares = fields[f"{name}_molecule_energies_ev"]
        assert len(shares) == 3
        assert sum(shares) == pytest.approx(part.energy_ev, abs=1e-9)


def test_so_they_have_where_cells_differ(model, x):
    """As in runs side by side at constant pressure."""
    cells = np.stack([BOX, 1.1 * BOX])
    found = answer(model, Request(np.stack([x, x]), cells), extras="full")
    assert found.reply.count(b'"prior_molecule_energies_ev"') == 2
    fields = json.loads(found.reply[found.reply.rindex(b'{"energy_ev"') :])
    energy = found.structures[1].contributions["prior"].energy_ev
    assert sum(fields["prior_molecule_energies_ev"]) == pytest.approx(energy, abs=1e-9)


def test_the_newest_pair_decides(model, x):
    structure = look(model, x)[0].structures[0]
    squeezed = x.copy()
    squeezed[12:24] += 0.6 * (x[:12].mean(axis=0) - x[12:24].mean(axis=0))
    with pytest.raises(StructureError, match=r"of two molecules are .* Å apart"):
        look(model, squeezed)
    request = Request(squeezed[None], BOX[None])
    watched = guard(model)
    found = answer_together(model, [request], guard=watched.after)[0].structures[0]
    assert found.novelty["binding"] > 2.0 * structure.novelty["binding"]


def test_one_that_is_too_new_can_stop_a_run(tmp_path, model, x):
    hot = x + np.random.default_rng(0).normal(0.0, 0.15, x.shape)
    here = guard(model, extrapolation="stop", frame_file=tmp_path / "frame.xyz", novelty_limit=1.5)
    with pytest.raises(NoveltyError, match=r"the novelty of (benzene|binding) is"):
        answer_together(model, [Request(hot[None], BOX[None])], guard=here.after)
    assert (tmp_path / "frame.xyz").is_file()


def test_other_atoms_are_refused_by_their_molecule(model, x):
    swapped = x.copy()
    swapped[[25, 28]] = swapped[[28, 25]]  # a hydrogen and a carbon of the third
    with pytest.raises(StructureError, match="the benzene of atoms 24-35, numbered from its first"):
        look(model, swapped)
    here = guard(model)
    here.before(HERE, Request(x[None], BOX[None]), "total")
    with pytest.raises(StructureError, match="atoms 24-35"):
        here.before(HERE, Request(swapped[None], BOX[None]), "total")


def test_a_cluster_that_the_cell_has_cut_is_refused(model, cluster, x):
    x = x + 1.0
    cut = x - BOX[0, 0] * np.floor(x / BOX[0, 0])
    assert np.ptp(cut, axis=0).max() > 12.0
    look(model, cut)
    here = guard(cluster)
    here.before(HERE, Request(x[None], BOX[None]), "total")
    with pytest.raises(StructureError, match="the cell's boundary has cut it"):
        here.before(HERE, Request(cut[None], BOX[None]), "total")
    with pytest.raises(StructureError, match="cut at the cell's boundary"):
        look(cluster, cut)


def test_the_calculator_gives_the_stress(model, cluster, x):
    from ase import Atoms

    atoms = Atoms(model.numbers, x, cell=BOX, pbc=True, calculator=DeltaCalculator(model))
    result = model.evaluate(x, cell=BOX)
    assert atoms.get_potential_energy() == pytest.approx(float(result.energy))
    assert atoms.get_stress(voigt=False) == pytest.approx(-result.virial / 24.0**3)
    alone = Atoms(cluster.numbers, x, calculator=DeltaCalculator(cluster, check_structure=True))
    assert alone.get_forces() == pytest.approx(cluster.evaluate(x).forces)


def numbered_alike(dimer, output):
    """Copy the directory of a dimer with two hydrogens of its second methane exchanged."""
    shutil.copytree(dimer, output)
    arrays = read_arrays(output / "binding.npz")
    swap = np.arange(10)
    swap[[6, 7]] = 7, 6
    arrays["R"] = arrays["R"][:, swap]
    arrays["alphas_F"] = arrays["alphas_F"].reshape(-1, 10, 3)[:, swap].ravel()
    arrays["perms"] = swap[arrays["perms"][:, swap]]
    write_arrays(output / "binding.npz", arrays)
    return output


def test_a_molecule_numbered_as_its_mirror_image_is_refused(tmp_path):
    """Of three methanes one has two hydrogens in each other's places: no bond tells."""
    dimer = MODELS / "methane_dimer"
    with pytest.raises(ManifestError, match="numbered as each other's mirror images"):
        assemble([dimer], None, tmp_path / "no", None, periodic=False)
    x = np.loadtxt(dimer / "structure.xyz", skiprows=2, usecols=(1, 2, 3))
    alike = x.copy()
    alike[[6, 7]] = alike[[7, 6]]
    other = numbered_alike(dimer, tmp_path / "dimer")
    energy = shipped.load(dimer).evaluate(x).energy
    assert CompositeModel.load(other).evaluate(alike).energy == pytest.approx(energy, abs=1e-9)
    three = np.concatenate([alike, x[:5] + np.array([0.0, 3.8, 0.0])])
    (tmp_path / "three.xyz").write_text(xyz_text(["C", "H", "H", "H", "H"] * 3, three, ""))
    assemble([other], tmp_path / "three.xyz", tmp_path / "three", None, periodic=False)
    methanes = force_field.load(tmp_path / "three")
    look(methanes, three)
    three[[11, 12]] = three[[12, 11]]
    with pytest.raises(StructureError, match=r"from atoms [05] and 10 on: second is the mirror"):
        look(methanes, three)
