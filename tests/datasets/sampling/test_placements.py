"""Molecules put together anew: rigid, as near as was asked for, inside and out."""

from __future__ import annotations

import shlex
from dataclasses import replace

import numpy as np
import pytest

from deltaserver.datasets.complexes import shortest_distance
from deltaserver.datasets.files import write_dataset
from deltaserver.datasets.frames import FragmentSpec, LabelledFrames
from deltaserver.datasets.sampling.placements import ROOM_ANG, PlacementPlan, placements
from deltaserver.errors import InputError
from deltaserver.textio.structures import read_first, read_structures
from tests.cli.test_dataset import refused, run
from tests.shipped import MODELS, load
from tests.tolerances import rounding
from tests.training.labelled import water_and_ion, water_dimer

PLAN = PlacementPlan(1.5, 8.0, 120, seed=3)
CAGE_ANG = 6.0


def internal(x: np.ndarray) -> np.ndarray:
    return np.linalg.norm(x[:, None] - x[None], axis=-1)


def caged() -> LabelledFrames:
    """A molecule of two atoms, and a cage of forty on a sphere that has room for it."""
    frames = water_and_ion(4)
    k = np.arange(40) + 0.5
    polar, turn = np.arccos(1 - 2 * k / 40), np.pi * (1 + 5**0.5) * k
    cage = CAGE_ANG * np.stack(
        [np.cos(turn) * np.sin(polar), np.sin(turn) * np.sin(polar), np.cos(polar)], axis=1
    )
    x = np.concatenate([cage, [[0, 0, 0], [0, 0, 1.1]]])[None] + np.zeros((4, 1, 1))
    zero = np.zeros_like(x)
    return replace(
        frames, numbers=np.array([6] * 40 + [7, 8]), positions=x, forces=zero, fragment_forces=zero,
        fragments=(FragmentSpec("cage", tuple(range(40))), FragmentSpec("no", (40, 41), 0, 1)),
    )  # fmt: skip


@pytest.mark.parametrize("frames", [water_dimer(20), water_and_ion(20)], ids=["waters", "ion"])
def test_molecules_are_those_of_the_frames_and_as_near_as_asked(frames):
    groups = [np.array(one.atoms) for one in frames.fragments]
    some = np.arange(5, 20)
    gaps = []
    for x in placements(frames, some, PLAN):
        for group in groups:
            known = np.array([internal(y[group]) for y in frames.positions[some]])
            off = np.abs(known - internal(x[group])).max(axis=(1, 2)).min()
            assert off <= 100 * rounding(3) * np.abs(x).max()
        gaps.append(shortest_distance(x[groups[0]], x[groups[1]]))
    assert min(gaps) >= 1.5 - ROOM_ANG
    assert max(gaps) <= 8.0 + ROOM_ANG
    # Uniform in 1/gap: the median of 1/1.5 and 1/8 is 2.53 Å; 120 draws are within 4 sigma.
    share = np.mean(np.array(gaps) < 2.0 / (1 / 1.5 + 1 / 8.0))
    assert abs(share - 0.5) < 4 * 0.5 / np.sqrt(len(gaps))


def test_a_guest_is_put_into_its_host_as_well_as_around_it():
    frames = caged()
    found = placements(frames, np.arange(4), PlacementPlan(2.0, 3.4, 60))
    away = np.linalg.norm(found[:, 40:].mean(axis=1) - found[:, :40].mean(axis=1), axis=1)
    assert 15 < (away < CAGE_ANG).sum() < 45


def test_the_same_seed_gives_the_same_and_another_another():
    frames, some = water_dimer(20), np.arange(20)
    first = placements(frames, some, PLAN)
    np.testing.assert_array_equal(first, placements(frames, some, PLAN))
    assert not np.array_equal(first, placements(frames, some, replace(PLAN, seed=4)))


def test_what_cannot_be_placed():
    with pytest.raises(InputError, match="expected the shorter one first"):
        PlacementPlan(3.0, 3.0, 10)
    frames = water_dimer(20)
    with pytest.raises(InputError, match="no frames are left"):
        placements(frames, np.arange(0), PLAN)
    three = (*frames.fragments[:1], FragmentSpec("b", (3,)), FragmentSpec("c", (4, 5)))
    with pytest.raises(InputError, match="here are 3"):
        placements(replace(frames, fragments=three), np.arange(20), PLAN)


def test_those_that_are_wanted_are_kept_in_their_order():
    frames, some, plan = water_dimer(20), np.arange(20), PlacementPlan(1.5, 8.0, 30, seed=3)

    def wanted(positions):
        return positions[:, 3, 0] > 0.0

    everything = placements(frames, some, PLAN)
    np.testing.assert_array_equal(
        placements(frames, some, plan, wanted), everything[wanted(everything)][:30]
    )


def test_what_is_hardly_ever_wanted_is_not_looked_for_for_ever():
    frames, plan = water_dimer(20), PlacementPlan(1.5, 8.0, 2)
    with pytest.raises(InputError, match="of 400 places 0 are wanted, not 2; give other --gaps"):
        placements(frames, np.arange(20), plan, lambda x: np.zeros(len(x), dtype=bool))


@pytest.fixture
def water_on_benzene(tmp_path):
    """The shipped model, and a dataset of its atoms."""
    model = load(MODELS / "benzene_water")
    positions = read_first(MODELS / "benzene_water/structure.xyz").positions
    x = positions + np.random.default_rng(1).normal(0.0, 0.02, (12, *positions.shape))
    parts = [FragmentSpec(one.name, tuple(one.atoms)) for one in model.fragments]
    found = model.evaluate(x)
    own = np.stack([found.contributions[one.name].energy for one in parts], axis=1)
    of_fragments = model.evaluate(x, "fragments").forces
    frames = LabelledFrames(
        "near", "shipped", model.numbers, tuple(parts), x, found.energy, found.forces, own,
        of_fragments, np.zeros(12, dtype=int), np.arange(12),
    )  # fmt: skip
    write_dataset(frames, tmp_path / "near", {})
    return model, tmp_path / "near"


def test_places_near_the_wall_of_a_model(water_on_benzene, tmp_path):
    model, dataset = water_on_benzene
    run("place", dataset, "--gaps", "1.4:3", "--models", "benzene_water", "--binding", "0:0.5",
        "-n", "10", "-o", tmp_path / "wall.xyz")  # fmt: skip
    found = read_structures(tmp_path / "wall.xyz", lambda _: None, "train")
    energy = model.evaluate(np.array([one.positions for one in found]), "binding").energy
    assert len(energy) == 10
    assert energy.min() > -1e-6  # the file's digits
    assert energy.max() < 0.5 + 1e-6


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--binding", "0:0.5"), "--binding and --models: give both, or neither"),
        (("--models", "benzene_water"), "--binding and --models: give both, or neither"),
        (
            ("--models", "methane_dimer", "--binding", "0:0.5"),
            "methane_dimer: a model of other atoms than near",
        ),
    ],
)
def test_a_range_is_of_a_model_of_these_atoms(options, said, water_on_benzene, tmp_path):
    _, dataset = water_on_benzene
    output = refused("place", dataset, *options, "-o", tmp_path / "wall.xyz")
    assert said in " ".join(output.split())


def test_the_command_that_is_printed_labels_them(cheap, cluster, tmp_path):
    """Of the dataset that is held out nothing is taken; --fragment says what it is."""
    run("build", cluster, "-f", "copper:0-2", "-f", "gold:3,4", "-n", "4", "--trajectories", "2",
        "--interval", "2", "--equilibrate", "2", "-w", "1", "-c", "cheap_calculators:SlowEMT",
        "-o", tmp_path / "set")  # fmt: skip
    places = tmp_path / "places.xyz"
    said = run("place", tmp_path / "set", "--gaps", "2.2:5", "-n", "3", "--hold-out", "1",
               "-o", places)  # fmt: skip
    program, group, *arguments = shlex.split(said)
    assert [program, group] == ["deltaserver", "dataset"]
    assert len(read_structures(places, lambda _: None, "train")) == 3
    labelled = str(tmp_path / "labelled")
    run(*[labelled if word == "DATASET" else word for word in arguments],
        "-w", "1", "-c", "cheap_calculators:SlowEMT")  # fmt: skip
    assert (tmp_path / "labelled" / "dataset.yaml").exists()


def test_fragments_as_options():
    assert FragmentSpec("a", (0, 2)).as_option() == "a:0,2"
    assert FragmentSpec("a", (0,), -1).as_option() == "a:0:-1"
    assert FragmentSpec("a", (0, 1), 0, 2).as_option() == "a:0-1:+0:2"
