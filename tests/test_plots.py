"""The figures' colours can be told apart, by colour-blind readers as well.

Simulation of the three dichromacies: Machado, Oliveira and Fernandes, IEEE TVCG 15, 1291 (2009),
DOI 10.1109/TVCG.2009.113, severity 1; differences in CIELAB.
"""

import itertools

import numpy as np
import pytest

from deltaserver.plots import PALETTE

VISION = {
    "normal": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
               [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
               [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
               [0.004733, 0.691367, 0.303900]],
}  # fmt: skip
LEAST = 12.0  # about five just noticeable differences


def linear_rgb(colour):
    s = np.array([int(colour[k : k + 2], 16) for k in (1, 3, 5)]) / 255.0
    return np.where(s <= 0.04045, s / 12.92, ((s + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    ratio = np.array(to_xyz) @ np.clip(rgb, 0.0, 1.0) / [0.9505, 1.0, 1.089]
    f = np.where(ratio > 0.008856, np.cbrt(ratio), 7.787 * ratio + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def least_difference(colours, vision):
    seen = [lab(np.array(VISION[vision]) @ linear_rgb(colour)) for colour in colours]
    return min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2))


@pytest.mark.parametrize("vision", VISION)
def test_colours_can_be_told_apart(vision):
    assert least_difference(PALETTE, vision) > LEAST


def test_the_check_finds_red_beside_green():
    assert least_difference(["#c8553d", "#7a7a2d"], "deutan") < LEAST
    assert least_difference(["#c8553d", "#7a7a2d"], "normal") > LEAST


@pytest.mark.parametrize("colour", PALETTE)
def test_colours_show_on_white_paper(colour):
    luminance = linear_rgb(colour) @ [0.2126, 0.7152, 0.0722]
    assert 1.05 / (luminance + 0.05) > 1.9  # contrast
