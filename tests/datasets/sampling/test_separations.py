"""Windows along the separation: where they start, what holds them, and that they continue."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import yaml

from deltaserver.datasets.coverage import coverage, shortest_distances
from deltaserver.datasets.files import read_dataset
from deltaserver.datasets.frames import FragmentSpec
from deltaserver.datasets.sampling.dynamics import SamplingPlan, Start, runs_of, sample
from deltaserver.datasets.sampling.separations import SeparationPlan, approach, make_windows
from deltaserver.errors import InputError
from tests.cli.test_dataset import FRAGMENTS, refused, run
from tests.datasets.killing import kill_when

pytest.importorskip("ase")
pytest.importorskip("rich")

PAIR = (FragmentSpec("copper", (0, 1, 2)), FragmentSpec("gold", (3, 4)))
X = np.array([[0, 0, 0], [2.4, 0, 0], [1.2, 2.1, 0], [0, 0.5, 3.2], [2.5, 0.5, 3.2]])
START = Start(np.array([29, 29, 29, 79, 79]), X, "made for this test")
MASSES = np.array([63.5, 63.5, 63.5, 197.0, 197.0])
PLAN = SeparationPlan(2.5, 9.0, orientations=6, windows=3, frames_per_window=2)
APART = ["--separations", "2.5:9", "--orientations", "3", "--windows", "2", "-n", "0",
         "--interval", "2", "--equilibrate", "2", "-w", "1", "-c", "cheap_calculators:SlowEMT",
         "-t", "100", "-t", "200"]  # fmt: skip


def all_windows(plan=PLAN, seed=1, fragments=PAIR, positions=X):
    return [
        window
        for o in range(plan.orientations)
        for window in make_windows(plan, o, seed, (positions, MASSES), fragments)
    ]


def between(window, fragments=PAIR):
    first, second = (np.array(f.atoms) for f in fragments)
    x = window.positions
    return np.linalg.norm(x[first][:, None] - x[second], axis=-1)


def centre(window, atoms):
    return np.average(window.positions[atoms], axis=0, weights=MASSES[atoms])


@pytest.mark.parametrize("fragments", [PAIR, (PAIR[0], FragmentSpec("rest", (4, 3)))])
def test_windows_begin_with_the_shortest_distance_that_was_asked_for(fragments):
    windows = all_windows(fragments=fragments)
    shortest = [between(w, fragments).min() for w in windows]
    np.testing.assert_allclose(shortest, PLAN.distances.T.ravel(), atol=1e-9)
    np.testing.assert_allclose(shortest, [w.shortest_distance for w in windows], atol=1e-9)
    assert min(shortest) == pytest.approx(2.5)
    assert max(shortest) == pytest.approx(9.0)
    for w in windows:
        distance = np.linalg.norm(centre(w, [0, 1, 2]) - centre(w, [3, 4]))
        assert w.centre_distance == pytest.approx(distance)


def test_windows_are_dense_at_contact_and_orientations_fill_the_gaps_of_each_other():
    gaps = np.sort(PLAN.distances.ravel())
    np.testing.assert_allclose(gaps[1:] / gaps[:-1], gaps[1] / gaps[0])
    assert (np.diff(PLAN.distances, axis=0) > 0).all()


def test_fragments_are_turned_and_not_bent():
    for w in all_windows():
        for part in ([0, 1, 2], [3, 4]):
            x, before = w.positions[part], X[part]
            np.testing.assert_allclose(
                np.linalg.norm(x[:, None] - x, axis=-1),
                np.linalg.norm(before[:, None] - before, axis=-1),
                atol=1e-12,
            )
    # A triangle's normal, turned uniformly, and the approach point everywhere alike.
    many = replace(PLAN, orientations=400, windows=1)
    normals, approaches = [], []
    for w in all_windows(many):
        x = w.positions
        normal = np.cross(x[1] - x[0], x[2] - x[0])
        normals.append(normal / np.linalg.norm(normal))
        approaches.append((centre(w, [3, 4]) - centre(w, [0, 1, 2])) / w.centre_distance)
    for directions in (np.array(normals), np.array(approaches)):
        assert abs(directions.mean(axis=0)).max() < 5 / np.sqrt(3 * 400)
        assert abs(np.cov(directions.T) - np.eye(3) / 3).max() < 0.1


def test_a_fragment_is_stopped_where_it_first_touches_from_outside():
    ring = np.array([[np.cos(t), np.sin(t), 0.0] for t in np.linspace(0, 2 * np.pi, 9)[:-1]]) * 4.0
    ion, along_axis, in_plane = np.zeros((1, 3)), np.array([0, 0, 1.0]), np.array([1.0, 0, 0])
    assert approach(ring, ion, in_plane, 2.5) == pytest.approx(6.5)
    assert approach(ring, ion, along_axis, 5.0) == pytest.approx(3.0)
    assert approach(ring, ion, along_axis, 2.5) == 0.0  # it fits through
    for distance in np.linspace(6.5, 20.0, 50):
        moved = ion + distance * in_plane
        assert np.linalg.norm(ring - moved, axis=1).min() >= 2.5 - 1e-9


def test_pulled_orientations_are_the_starts_own_from_pushed_in_to_out():
    ring = np.array([[np.cos(t), np.sin(t), 0.0] for t in np.linspace(0, 2 * np.pi, 9)[:-1]])
    cup = np.concatenate([4.0 * ring, 4.0 * ring + [0, 0, 3.0], [[0, 0, -3.0]]])
    x = np.concatenate([cup, [[0.0, 0.0, 0.5]]])
    host = (FragmentSpec("cup", tuple(range(17))), FragmentSpec("ion", (17,), 1))
    plan = SeparationPlan(2.2, 15.0, orientations=3, windows=8, pulled=2)
    windows = [
        window for o in range(3) for window in make_windows(plan, o, 1, (x, np.ones(18)), host)
    ]
    centre_z = cup[:, 2].mean()
    for w in windows[:16]:  # nothing is turned, and the ion is on the axis
        moved = w.positions[:17] - w.positions[:17].mean(axis=0)
        np.testing.assert_allclose(moved, cup - cup.mean(axis=0), atol=1e-12)
        assert abs(w.positions[17, :2]).max() < 1e-12
    heights = np.sort([w.centre_distance for w in windows[:16]]) + centre_z
    # The centre of the cup is above where it would be 2.2 Å from the bottom: it stops there.
    assert heights[0] == pytest.approx(max(centre_z, -0.8))
    assert max(w.shortest_distance for w in windows[:16]) > 12.0
    assert max(w.shortest_distance for w in windows) == pytest.approx(15.0)
    assert ((heights > 0.5) & (heights < 4.0)).sum() >= 3  # a guest on its way out still touches


def test_a_guest_in_a_host_is_pushed_to_the_wall_and_not_to_the_mouth():
    wall, mouth = np.array([[0, 0, -1.0]]), np.array([[0, 1.5, 6.0], [0, -1.5, 6.0]])
    host, up = np.concatenate([wall, mouth]), np.array([0, 0, 1.0])
    guest = np.zeros((1, 3))
    assert approach(host, guest, up, 2.5) == pytest.approx(8.0)
    assert approach(host, guest, up, 2.5, before=3.0) == pytest.approx(1.5)


def test_a_lone_ion_comes_from_everywhere():
    ion = (FragmentSpec("cluster", (0, 1, 2, 3)), FragmentSpec("ion", (4,), 1))
    windows = all_windows(fragments=ion)
    np.testing.assert_allclose(
        [between(w, ion).min() for w in windows], PLAN.distances.T.ravel(), atol=1e-9
    )


def test_the_same_seed_gives_the_same_windows_and_orientations_differ():
    again, other = all_windows(), all_windows(seed=2)
    for w, same, different in zip(all_windows(), again, other, strict=True):
        np.testing.assert_array_equal(w.positions, same.positions)
        assert abs(w.positions - different.positions).max() > 0.1
    # More orientations leave those that are there alone, but for their distances.
    more = make_windows(replace(PLAN, orientations=9), 2, 1, (X, MASSES), PAIR)
    few = make_windows(PLAN, 2, 1, (X, MASSES), PAIR)
    assert more[0].positions[1] == pytest.approx(few[0].positions[1])


def test_windows_have_trajectories_of_their_own_behind_those_in_the_well():
    plan = SamplingPlan("x", (100.0, 300.0), trajectories=2, separations=PLAN)
    runs = runs_of(plan, [START, START], PAIR)
    assert [run.index for run in runs] == list(range(4 + 18))
    assert all(run.window is None for run in runs[:4])
    assert [run.window.orientation for run in runs[4:]] == sorted(list(range(6)) * 3)
    assert plan.n_frames == 400 + 36 == sum(run.n_frames for run in runs)
    for part in (runs[4::3], runs[4:7]):  # one place along the separation, one orientation
        assert {run.temperature for run in part} == {100.0, 300.0}
    apart = runs_of(replace(plan, frames_per_trajectory=0), [START], PAIR)
    assert [run.index for run in apart] == list(range(4, 22))


def test_the_spring_holds_the_window_and_the_wall_does_not_touch_it(cheap, tmp_path):
    far = SeparationPlan(12.0, 12.0, orientations=4, windows=1, frames_per_window=25, spring=2.0)
    plan = SamplingPlan(
        "cheap_calculators:NoForces", (300.0,), 1, 0, 12, 100, time_step=8.0, friction=0.02,
        wall_distance=0.5, separations=far,
    )  # fmt: skip
    ions = (FragmentSpec("copper", (0,), 1), FragmentSpec("gold", (1,), -1))
    pair = Start(np.array([29, 79]), X[:2], "made for this test")
    frames = sample(plan, [pair], ions, tmp_path / "s.jsonl")
    lengths = np.array([np.linalg.norm(f.positions[1] - f.positions[0]) for f in frames])
    assert len(lengths) == 100
    width = np.sqrt(8.617e-5 * 300.0 / 2.0)  # √(kT/k)
    assert lengths.std() == pytest.approx(width, rel=0.3)
    assert lengths.mean() == pytest.approx(12.0, abs=0.4 * width)


@pytest.fixture
def built(cheap, cluster, tmp_path):
    said = run("build", cluster, *FRAGMENTS, *APART, "-o", tmp_path / "set")
    return tmp_path / "set", said


def test_build_records_windows_and_says_what_is_covered(built):
    directory, said = built
    frames = read_dataset(directory)
    assert len(frames) == 12
    provenance = yaml.safe_load((directory / "dataset.yaml").read_text())["provenance"]
    assert [t["trajectory"] for t in provenance["trajectories"]] == list(range(6, 12))
    assert set(frames.trajectory.tolist()) == set(range(6, 12))
    windows = [t["window"] for t in provenance["trajectories"]]
    assert [w["orientation"] for w in windows] == [0, 0, 1, 1, 2, 2]
    assert sorted(w["shortest_distance"] for w in windows) == pytest.approx(
        np.geomspace(2.5, 9.0, 6), abs=1e-4
    )
    assert {w["spring"] for w in windows} == {2.0}
    assert provenance["sampling"]["separations"]["orientations"] == 3
    counts = provenance["frames_by_shortest_distance"]
    assert counts == coverage(frames)
    assert sum(counts.values()) == 12
    assert "shortest distance between fragments" in said
    checked = run("check", directory)
    assert all(f"{name} " in checked for name in counts)
    assert shortest_distances(frames).max() == pytest.approx(9.0, abs=0.5)


def test_a_well_is_added_to_windows_and_windows_to_a_well(built, cluster, tmp_path):
    directory, _ = built
    before = read_dataset(directory)
    well = ["-n", "12", "--trajectories", "3"]
    run("build", cluster, *FRAGMENTS, *APART, *well, "-o", directory)
    apart = APART[:6]
    assert apart[0] == "--separations"
    rest = APART[8:]
    run("build", cluster, *FRAGMENTS, *rest, *well, "-o", tmp_path / "well")
    run("build", cluster, *FRAGMENTS, *rest, *well, *apart, "-o", tmp_path / "well")
    one, other = read_dataset(directory), read_dataset(tmp_path / "well")
    np.testing.assert_array_equal(one.positions, other.positions)
    np.testing.assert_array_equal(one.trajectory, other.trajectory)
    assert len(one) == 24
    np.testing.assert_array_equal(one.positions[one.trajectory >= 6], before.positions)
    message = refused(
        "build", cluster, *FRAGMENTS, *APART, "--windows", "3", *well, "-o", directory
    )
    assert "was begun with windows 2, not 3" in message
    run("build", cluster, *FRAGMENTS, *APART, "--window-frames", "3", *well, "-o", directory)
    assert len(read_dataset(directory)) == 30


def test_killed_and_repeated_it_gives_the_same_frames(built, cluster, tmp_path):
    directory, _ = built
    output = tmp_path / "killed"
    arguments = ["build", str(cluster), *FRAGMENTS, *APART, "-o", str(output)]
    code = "import sys; from deltaserver.cli.dataset import dataset;dataset(sys.argv[1:])"
    journal = output / "journal" / "sampling.jsonl"
    for records in (2, 9):
        process = subprocess.Popen(
            [sys.executable, "-c", code, *arguments], env={**os.environ, "SLOW": "0.05"}
        )
        kill_when(process, journal, records)
    run(*arguments)
    assert (output / "frames.xyz.gz").read_bytes() == (directory / "frames.xyz.gz").read_bytes()
    assert journal.read_bytes() == (directory / "journal" / "sampling.jsonl").read_bytes()


def test_relaxing_a_window_ends_when_nothing_clashes(cheap, tmp_path):
    plan = SamplingPlan(
        "cheap_calculators:SlowEMT", (1.0,), 1, 0, 1, 0,
        separations=SeparationPlan(1.3, 1.3, 1, 1, 1),
    )  # fmt: skip
    sample(plan, [START], PAIR, tmp_path / "s.jsonl")
    first = json.loads((tmp_path / "s.jsonl").read_text().splitlines()[0])
    x = np.array(first["positions"])
    assert np.linalg.norm(x[:3, None] - x[3:], axis=-1).min() > 1.8


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"nearest": 0.0}, "expected the shorter one first"),
        ({"nearest": 10.0}, "expected the shorter one first"),
        ({"orientations": 0}, "orientations is 0"),
        ({"spring": -1.0}, "spring is -1"),
        ({"pulled": 7}, "7 of 6 orientations cannot be pulled"),
        ({"orientations": 1, "windows": 2, "farthest": 12.0}, r"9\.5 Å between the last two"),
    ],
)
def test_windows_that_cannot_be(changes, expected):
    with pytest.raises(InputError, match=expected):
        replace(PLAN, **changes)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--separations", "2.5-12"], "expected NEAREST:FARTHEST"),
        (["--separations", "12:2.5"], "expected the shorter one first"),
        (
            ["--orientations", "3", "--window-frames", "2"],
            "--orientations, --window-frames without",
        ),
        (["-n", "0"], "frames per trajectory is 0"),
    ],
)
def test_options_that_do_not_fit_are_one_line(cheap, cluster, tmp_path, arguments, expected):
    assert expected in refused("build", cluster, *FRAGMENTS, *arguments, "-o", tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_only_two_fragments_are_apart(cheap, cluster, tmp_path):
    three = ["-f", "a:0-1", "-f", "b:2", "-f", "c:3,4"]
    message = refused("build", cluster, *three, *APART, "-o", tmp_path / "set")
    assert "those of two fragments, here are 3" in message
