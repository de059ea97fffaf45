"""The colours of networks can be told apart with every kind of colour vision, on both pages."""

import itertools
import re

import numpy as np
import pytest

from vone_jax.report import charts, page

# Linear RGB as seen without one kind of cone (Machado, Oliveira, Fernandes 2009, severity 1).
VISION = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}  # fmt: skip
# From linear RGB to CIE XYZ, relative to white D65.
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
XYZ /= XYZ.sum(axis=1, keepdims=True)


def modes():
    """The colours of the light and of the dark page, name -> linear RGB."""
    style, _, _ = page.environment().loader.get_source(page.environment(), "style.css")
    for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL)[:2]:
        colors = dict(re.findall(r"--([\w-]+): #(\w{6})", block))
        values = {
            n: np.array([int(c[i : i + 2], 16) for i in (0, 2, 4)]) for n, c in colors.items()
        }
        yield {n: _linear(value / 255) for n, value in values.items()}


def _linear(value):
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(linear):
    """CIE L*a*b*."""
    xyz = XYZ @ np.clip(linear, 0, 1)
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("vision", VISION)
def test_colours_can_be_told_apart(vision):
    for colors in modes():
        seen = [lab(np.array(VISION[vision]) @ colors[f"net-{i}"]) for i in range(charts.COLORS)]
        for i, j in itertools.combinations(range(charts.COLORS), 2):
            assert np.linalg.norm(seen[i] - seen[j]) > (22 if j < 4 else 16), (i, j)


def test_colours_stand_out_from_the_page():
    for colors in modes():
        luminance = {name: XYZ[1] @ value for name, value in colors.items()}
        for name in luminance:
            if name.startswith("net-"):
                pair = sorted((luminance[name], luminance["page"]))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 3


def test_lines_of_many_networks_differ_in_colour_or_dashes():
    looks = {(charts.color(n), tuple(charts.dashes(n))) for n in range(32)}
    assert len(looks) == 32
