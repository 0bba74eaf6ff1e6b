from dataclasses import replace

import numpy as np
import pytest

from deltaserver.datasets.frames import FragmentSpec
from deltaserver.errors import DataError
from deltaserver.evaluation.descriptor import analyse_descriptor, cm_matrix, pair_blocks


def by_hand(positions, fragments):
    """I of every block of one frame pair, straight from the definition."""
    found = {}
    owner = {atom: f.name for f in fragments for atom in f.atoms}
    order = [f.name for f in fragments]
    for i in range(positions.shape[1]):
        for j in range(i):
            d = [1.0 / np.linalg.norm(x[i] - x[j]) for x in positions]
            key = tuple(sorted((owner[i], owner[j]), key=order.index))
            found[key] = found.get(key, 0.0) + (d[0] - d[1]) ** 2
    return found


def test_blocks_add_up_to_the_squared_distance(frames):
    found = analyse_descriptor(frames, n_pairs=60)
    np.testing.assert_allclose(found.squared.sum(axis=1), found.total, rtol=1e-12)
    assert found.shares.sum() == pytest.approx(1.0)
    assert (found.pairs[:, 0] != found.pairs[:, 1]).all()


def test_each_block_is_what_the_definition_says(frames):
    found = analyse_descriptor(frames, n_pairs=5, seed=3)
    for pair, squared in zip(found.pairs, found.squared, strict=True):
        expected = by_hand(frames.positions[pair], frames.fragments)
        for label, value in zip(found.blocks.labels, squared, strict=True):
            assert value == pytest.approx(expected.get(label, 0.0), abs=1e-15)


def test_three_fragments_out_of_order(frames):
    fragments = (FragmentSpec("b", (3, 1)), FragmentSpec("a", (2,)), FragmentSpec("c", (0,)))
    found = analyse_descriptor(replace(frames, fragments=fragments), n_pairs=8)
    assert found.blocks.labels == (
        ("b", "b"), ("a", "a"), ("c", "c"), ("b", "a"), ("b", "c"), ("a", "c"),
    )  # fmt: skip
    np.testing.assert_allclose(found.squared.sum(axis=1), found.total, rtol=1e-12)
    expected = by_hand(frames.positions[found.pairs[0]], fragments)
    for label, value in zip(found.blocks.labels, found.squared[0], strict=True):
        assert value == pytest.approx(expected.get(label, 0.0), abs=1e-15)


def test_sigma_ratio_by_hand(frames):
    found = analyse_descriptor(frames, n_pairs=40)
    inter = pair_blocks(frames.fragments).is_inter
    assert inter.tolist() == [False, False, False, True, True, True]
    intra_sigma = np.sqrt(np.mean(found.entry_sigma[:3] ** 2))
    inter_sigma = np.sqrt(np.mean(found.entry_sigma[3:] ** 2))
    assert found.sigma_ratio == pytest.approx(inter_sigma / intra_sigma)
    assert found.sigma()[0] == pytest.approx(intra_sigma)
    assert np.isnan(found.sigma()[1])  # a lone ion has no pair of its own
    assert found.sigma(squared=True).shape == (3,)


def test_moving_one_fragment_rigidly_changes_only_what_lies_between(frames):
    moved = np.repeat(frames.positions[:1], 4, axis=0)
    moved[:, 3, 2] += np.arange(4) * 0.3
    found = analyse_descriptor(replace(frames.select(np.arange(4)), positions=moved), n_pairs=20)
    np.testing.assert_allclose(found.shares, [0.0, 0.0, 1.0], atol=1e-20)
    assert np.isnan(found.sigma_ratio)


def test_matrix_is_in_order_of_fragments(frames):
    fragments = (FragmentSpec("ion", (3,)), FragmentSpec("water", (2, 0, 1)))
    matrix = cm_matrix(frames.positions[0], fragments)
    x = frames.positions[0]
    assert matrix[0, 1] == pytest.approx(1.0 / np.linalg.norm(x[3] - x[2]))
    assert matrix[2, 3] == matrix[3, 2] == pytest.approx(1.0 / np.linalg.norm(x[0] - x[1]))
    assert np.isnan(np.diag(matrix)).all()


def test_one_frame_cannot_be_compared(frames):
    with pytest.raises(DataError, match="1 frames"):
        analyse_descriptor(frames.select(np.arange(1)))
