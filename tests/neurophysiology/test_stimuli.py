"""Stimuli against a pixel-by-pixel definition and against Pillow."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.neurophysiology.conftest import DISPLAY
from vone_jax.neurophysiology import stimuli
from vone_jax.neurophysiology.stimuli import Display, Window


def canvas_of(grating):
    """Draw the 672-pixel canvas from the definition."""
    y0, x0, radius, frequency, orientation, phase, contrast = grating
    degrees = (np.arange(672) - 336) / 56
    y, x = (degrees - y0)[:, None], (degrees - x0)[None, :]
    o = math.radians(orientation)
    wave = 2 * math.pi * frequency * (x * math.cos(o) + y * math.sin(o)) + math.radians(phase)
    value = np.floor((contrast * np.sin(wave) + 1) / 2 * 255)
    return np.where(x**2 + y**2 <= radius**2, value, 128).astype(np.uint8)


def seen(grating, display):
    """Cut or pad a grating to the field of view and resize it with Pillow."""
    n = round(display.visual_degrees * 56)
    padded = np.pad(canvas_of(grating), 336, constant_values=128)
    start = 672 - n // 2
    field = Image.fromarray(padded[start : start + n, start : start + n])
    return np.asarray(field.resize((display.image_size,) * 2, Image.Resampling.BILINEAR))


@pytest.mark.parametrize(
    "display", [Display(8.0, 224, 1), Display(7.0, 224, 1), Display(13.0, 96, 1)]
)
def test_gratings_are_those_of_the_definition_seen_through_pillow(display):
    table = np.concatenate(
        [
            stimuli.orientation_set().table[[5, 700]],
            stimuli.size_set().table[[2303, 11]],
            stimuli.spatial_frequency_set().table[[2111]],
            stimuli.grating_set("low", contrast=0.1, radius=1.0, spatial_frequency=2.0,
                                orientation=30.0, phase=90.0).table,
        ]
    )  # fmt: skip
    images = np.asarray(stimuli.render(table, display))
    assert images.dtype == np.uint8
    for image, grating in zip(images, table, strict=True):
        np.testing.assert_array_equal(image, seen(grating, display))


def test_a_window_is_a_cut_of_the_image():
    table = stimuli.receptive_field_set().table[1700:1710]
    window = Window(90, 101, 40, 33)
    whole = np.asarray(stimuli.render(table, DISPLAY))
    np.testing.assert_array_equal(stimuli.render(table, DISPLAY, window), whole[:, 90:130, 101:134])


def test_gratings_that_are_not_visible_leave_a_window_grey():
    table = stimuli.receptive_field_set().table[::8]
    window = Window(100, 100, 56, 56)
    images = np.asarray(stimuli.render(table, DISPLAY, window))
    changed = (images != 128).any(axis=(1, 2))
    visible = stimuli.visible(table, DISPLAY, window)
    assert 0 < changed.sum() < 441
    assert not (changed & ~visible).any()


@pytest.mark.parametrize("shapes", [(448, 224), (392, 224), (448, 64), (364, 600), (448, 448)])
def test_resize_is_pillows_to_the_bit(shapes):
    source, size = shapes
    display = Display(source / 56, size, 1)
    field = np.random.default_rng(0).integers(0, 256, (1, source, source), np.uint8)
    image = Image.fromarray(field[0]).resize((size, size), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(
        stimuli.resize(jnp.asarray(field), display, display.whole())[0], np.asarray(image)
    )


def test_the_sets_have_the_published_levels():
    # Numbers of the MarquesEtAl2020 stimulus sets.
    counts = [len(f()) for f in (stimuli.receptive_field_set, stimuli.orientation_set,
                                 stimuli.spatial_frequency_set, stimuli.size_set)]  # fmt: skip
    assert counts == [3528, 1152, 2112, 2304]
    np.testing.assert_allclose(stimuli.COARSE_SPATIAL_FREQUENCIES, [0.771, 1.542, 3.084, 6.169],
                               atol=6e-4)  # fmt: skip
    np.testing.assert_allclose(stimuli.SPATIAL_FREQUENCIES[[0, 1, 20, 21]],
                               [0.386, 0.459, 12.338, 14.672], atol=6e-4)  # fmt: skip
    np.testing.assert_allclose(stimuli.RADII[[0, 4, 11]], [0.105, 0.420, 4.757], atol=6e-4)


def test_the_last_factor_varies_fastest_and_cycles_set_the_diameter():
    gratings = stimuli.orientation_set()
    table = gratings.table.reshape(*gratings.shape, -1)
    assert gratings.shape == (3, 4, 12, 8)
    np.testing.assert_array_equal(table[1, 2, 3, :, 5], np.arange(8) * 45.0)
    np.testing.assert_array_equal(table[1, 2, :, 3, 4], np.arange(12) * 15.0)
    np.testing.assert_allclose(2 * table[2, :, 0, 0, 2] * table[2, :, 0, 0, 3], 4.0)
    assert (table[..., :2] == 0.5).all() and (table[..., 6] == 1).all()


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        # One of several values is enough.
        ({"contrast": np.array([-0.5, 0.5])}, "contrast"),
        ({"x": -5.5}, "degrees of fixation"),
        ({"phase": math.nan}, "finite"),
        ({"cycles": 2.0}, "one of cycles and radius"),
    ],
)
def test_gratings_that_cannot_be_drawn_are_refused(factors, message):
    valid = {"radius": 1.0, "spatial_frequency": 2.0, "orientation": 0.0, "phase": 0.0}
    with pytest.raises(ValueError, match=message):
        stimuli.grating_set("bad", **valid | factors)
