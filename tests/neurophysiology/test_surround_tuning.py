"""Gratings around gratings, and the orientation tuning of surrounds."""

import jax
import numpy as np
import pytest

from tests.neurophysiology.conftest import SMALL_DISPLAY, pixel_of, small_layer, surrounded
from vone_jax.neurophysiology import Display, stimuli, surround_tuning
from vone_jax.neurophysiology.experiments import ANGLES, SurroundTuning
from vone_jax.neurophysiology.selection import locate

KEY = jax.random.key(0)
DISPLAY = Display(8.0, 112, 1)
# y, x, radius, frequency, orientation, phase, contrast
CENTRE = np.array([[0.5, 0.5, 0.75, 2.0, 30.0, 45.0, 1.0]])


def around(radius, angle):
    table = CENTRE.copy()
    table[:, 2], table[:, 4] = radius, table[0, 4] + angle
    return table


def test_a_parallel_surround_makes_one_large_grating():
    with_surround = stimuli.render(CENTRE, DISPLAY, below=around(2.0, 0.0))
    np.testing.assert_array_equal(with_surround, stimuli.render(around(2.0, 0.0), DISPLAY))
    alone = stimuli.render(CENTRE, DISPLAY, below=CENTRE)
    np.testing.assert_array_equal(alone, stimuli.render(CENTRE, DISPLAY))


def test_the_centre_covers_the_surround():
    image = np.asarray(stimuli.render(CENTRE, DISPLAY, below=around(2.0, 90.0)))[0]
    centre = np.asarray(stimuli.render(CENTRE, DISPLAY))[0]
    surround = np.asarray(stimuli.render(around(2.0, 90.0), DISPLAY))[0]
    y, x = np.mgrid[:112, :112] - pixel_of(DISPLAY, 0.5)
    distance = np.hypot(y, x) / DISPLAY.pixels_per_degree
    inside, outside = distance < 0.65, distance > 0.85
    np.testing.assert_array_equal(image[inside], centre[inside])
    np.testing.assert_array_equal(image[outside], surround[outside])


def test_suppression_is_relative_to_the_centre_alone():
    measured = SurroundTuning(ANGLES, np.array([2.0, 0.0]), np.array([[1.0, 1.0]] * 4))
    np.testing.assert_array_equal(measured.suppression, [[0.5, np.nan]] * 4)


def suppression(layer):
    site = locate(layer, KEY, SMALL_DISPLAY)
    return np.nanmedian(surround_tuning(layer, KEY, site).suppression, axis=1)


@pytest.mark.slow
def test_the_tuning_of_a_surround_is_measured():
    plain, untuned, tuned = map(suppression, (small_layer, surrounded(False), surrounded(True)))
    # A filter without a surround is not suppressed; what it sees of the larger grating adds.
    assert plain.max() < 0.05
    assert untuned.min() > 0.3 and np.ptp(untuned) < 0.1
    assert tuned[0] > 2 * tuned[-1] > 0 and (np.diff(tuned) < 0).all()
