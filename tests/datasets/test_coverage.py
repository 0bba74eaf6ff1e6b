"""How many frames have their fragments how far apart."""

from dataclasses import replace

import numpy as np

from deltaserver.datasets.coverage import coverage, coverage_lines, shortest_distances
from deltaserver.datasets.frames import FragmentSpec


def with_ion_at(frames, distances):
    """Put the ion beyond the water's first hydrogen, so far from it."""
    some = frames.select(np.arange(len(distances)))
    positions = some.positions.copy()
    hydrogen, oxygen = positions[:, 1], positions[:, 0]
    away = (hydrogen - oxygen) / np.linalg.norm(hydrogen - oxygen, axis=1)[:, None]
    positions[:, 3] = hydrogen + np.array(distances)[:, None] * away
    return replace(some, positions=positions)


def test_every_frame_is_counted_in_its_bin_and_holes_show(frames):
    distances = [2.1, 2.4, 2.6, 4.2, 30.0, 7.0, 7.9]
    apart = with_ion_at(frames, distances)
    np.testing.assert_allclose(shortest_distances(apart), distances, atol=1e-12)
    assert coverage(apart) == {
        "2-2.5": 2, "2.5-3": 1, "3-3.5": 0, "3.5-4": 0, "4-5": 1, "5-6": 0, "6-8": 2, "8-10": 0,
        "10-12": 0, "12-15": 0, "15-20": 0, "over 20": 1,
    }  # fmt: skip


def test_of_three_fragments_the_nearest_two_count(frames):
    parts = (FragmentSpec("o", (0,)), FragmentSpec("h2", (1, 2)), FragmentSpec("na", (3,)))
    apart = replace(with_ion_at(frames, [9.0]), fragments=parts)
    x = apart.positions[0]
    assert shortest_distances(apart)[0] == np.linalg.norm(x[1:3] - x[0], axis=1).min()


def test_a_single_fragment_covers_nothing(frames):
    alone = replace(frames, fragments=(FragmentSpec("all", (0, 1, 2, 3)),))
    assert coverage(alone) == {}
    assert coverage_lines({}) == []


def test_lines_have_a_bar_each():
    lines = coverage_lines({"2-2.5": 80, "2.5-3": 0, "over 20": 1})
    assert lines[1:] == ["    2-2.5     80 " + "#" * 40, "    2.5-3      0", "  over 20      1 #"]
