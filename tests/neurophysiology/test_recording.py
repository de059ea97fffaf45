"""Recording layers: crops, selection of units, trials, the key contract, and errors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.neurophysiology.conftest import SMALL_DISPLAY, pixel_of, small_layer
from vone_jax import neurophysiology, prng
from vone_jax.neurophysiology import stimuli
from vone_jax.neurophysiology.recording import batch_size, record, record_blank
from vone_jax.neurophysiology.selection import (
    cropped,
    find_units,
    is_stochastic,
    locate,
    receptive_field_centres,
    receptive_field_maps,
)

KEY = jax.random.key(0)
FEW = stimuli.grating_set(
    "few",
    radius=np.array([0.4, 3.0]),
    spatial_frequency=1.0,
    orientation=np.array([0.0, 60.0]),
    phase=np.array([0.0, 90.0]),
)


def noisy_layer(key, images):
    responses = small_layer(key, images)
    keys = prng.example_keys(key, images.shape[0])
    return responses + jax.vmap(lambda k: jax.random.normal(k, responses.shape[1:]))(keys)


@pytest.fixture(scope="module")
def small_site():
    return locate(small_layer, KEY, SMALL_DISPLAY)


def test_crops_are_found_and_give_the_same_responses(small_site):
    whole = locate(small_layer, KEY, SMALL_DISPLAY, crop=False)
    assert whole.window == SMALL_DISPLAY.whole()
    assert small_site.window.height < 64 and len(small_site) == len(whole)
    for name in ("row", "col", "channel"):
        np.testing.assert_array_equal(getattr(small_site, name), getattr(whole, name))
    cropped = record(small_layer, KEY, FEW, small_site)
    np.testing.assert_allclose(cropped, record(small_layer, KEY, FEW, whole), atol=1e-5)
    np.testing.assert_allclose(
        record_blank(small_layer, KEY, small_site), record_blank(small_layer, KEY, whole), atol=1e-6
    )


def test_responses_are_those_of_the_units_to_the_whole_image(small_site):
    pixels = np.asarray(stimuli.render(FEW.table, SMALL_DISPLAY)).astype(np.float32) / 255
    full = np.asarray(small_layer(KEY, jnp.asarray(pixels[..., None])))
    expected = full[:, small_site.row, small_site.col, small_site.channel]
    np.testing.assert_allclose(record(small_layer, KEY, FEW, small_site), expected, atol=1e-5)


def test_few_units_are_seen_through_a_smaller_crop(small_site):
    # 9 of 64 pixels: those in the middle of the site see a quarter of the image.
    middle = (np.abs(small_site.row - 35) < 2) & (np.abs(small_site.col - 35) < 2)
    few = cropped(small_layer, KEY, small_site.keep(middle))
    assert few.window.height < small_site.window.height
    np.testing.assert_allclose(
        record(small_layer, KEY, FEW, few),
        record(small_layer, KEY, FEW, small_site)[:, middle],
        atol=1e-5,
    )
    assert cropped(small_layer, KEY, few) is few
    edge = dataclasses.replace(few, row=few.row - few.row.min(), col=few.col)
    wide = dataclasses.replace(edge, window=SMALL_DISPLAY.whole())
    assert cropped(small_layer, KEY, wide).window.top == 0
    apart = dataclasses.replace(wide, row=np.where(np.arange(len(wide)) % 2, 63, 0))
    assert cropped(small_layer, KEY, apart) is apart


def test_layers_of_one_image_size_are_not_cropped():
    class WrongSize(Exception):
        pass

    def rigid(key, images):
        if images.shape[1] != 64:
            raise WrongSize("images must have 64 pixels")
        return small_layer(key, images)

    assert locate(rigid, KEY, SMALL_DISPLAY).window == SMALL_DISPLAY.whole()


def test_layers_without_a_map_have_units_only():
    def flat(key, images):
        return small_layer(key, images)[:, 30:40, 30:40].reshape(images.shape[0], -1)

    site = locate(flat, KEY, SMALL_DISPLAY)
    assert len(site) == 800 and not site.row.any()
    # The same units as those of the map, at rows and columns 30 to 39.
    mapped = locate(small_layer, KEY, SMALL_DISPLAY)
    one = (mapped.row == 36) & (mapped.col == 35)
    np.testing.assert_allclose(
        record(flat, KEY, FEW, site)[:, (6 * 10 + 5) * 8 :][:, :8],
        record(small_layer, KEY, FEW, mapped.keep(one)),
        atol=1e-5,
    )


def minus_mean(keys, images):
    responses = small_layer(keys, images)
    return responses - responses.mean(axis=0, keepdims=True)


def noise_of_first_key(keys, images):
    responses = small_layer(keys, images)
    return responses + jax.random.normal(keys[0], responses.shape)


def noise_of_the_place(keys, images):
    responses = small_layer(keys, images)
    return responses + jax.random.normal(jax.random.key(1), responses.shape)


@pytest.mark.parametrize("layer", [minus_mean, noise_of_first_key, noise_of_the_place])
def test_layers_that_mix_the_images_of_a_batch_are_refused(layer):
    images = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8)
    arrive = [
        lambda: neurophysiology.score(layer, 8.0, 64, 1, selection_response_fn=small_layer),
        lambda: find_units(layer, KEY, SMALL_DISPLAY),
        lambda: neurophysiology.layer_features(layer, KEY, images, in_channels=1),
    ]
    for recorded in arrive:
        with pytest.raises(ValueError, match="response changes with the other images of the batch"):
            recorded()


def test_rounding_by_the_place_in_a_batch_is_no_mixing():
    """A compiled program may add in another order. In bfloat16, this makes a difference of 1 %."""

    def layer(keys, images):
        place = jnp.arange(1.0, len(images) + 1).reshape(-1, 1, 1, 1)
        return small_layer(keys, images) * (1 + 0.01 / place)

    assert len(locate(layer, KEY, SMALL_DISPLAY)) == len(locate(small_layer, KEY, SMALL_DISPLAY))
    assert not is_stochastic(layer, KEY, SMALL_DISPLAY)


def test_receptive_fields_are_where_the_units_look(small_site):
    maps = receptive_field_maps(small_layer, KEY, small_site)
    centres = receptive_field_centres(maps)
    pixels = np.array(
        [[pixel_of(SMALL_DISPLAY, y), pixel_of(SMALL_DISPLAY, x)] for y, x in centres]
    )
    where = np.stack([small_site.row, small_site.col], axis=1)
    # One step of the grid is 2 pixels.
    assert np.abs(pixels - where).max() < 2.0


def test_centres_are_centroids_above_the_threshold():
    maps = np.zeros((21, 21, 2), np.float32)
    # Positions 0.5 and 1.0 with weights 3 and 1; 4 % of the largest is left out.
    maps[12, 14, 0], maps[14, 14, 0], maps[0, 0, 0] = 3.0, 1.0, 0.12
    centres = receptive_field_centres(maps)
    np.testing.assert_allclose(centres[0], [0.625, 1.0])
    assert np.isnan(centres[1]).all()
    # The threshold of a weak unit is relative to its own response.
    maps[..., 1] = maps[..., 0] / 100
    np.testing.assert_allclose(receptive_field_centres(maps)[1], centres[0])


def test_candidates_are_the_locations_that_respond_most(small_site, monkeypatch):
    """They are as many as memory allows, and respond with a share of the largest response."""
    module = "vone_jax.neurophysiology.selection"
    monkeypatch.setattr(f"{module}.MAX_CANDIDATES", 4 * 8)
    few = locate(small_layer, KEY, SMALL_DISPLAY)
    table = stimuli.receptive_field_set().table
    central = stimuli.render(table[(table[:, :2] == 0.5).all(axis=1)], SMALL_DISPLAY)
    responses = small_layer(KEY, central[..., None].astype(jnp.float32) / 255)
    strongest = np.argsort(-responses.max(axis=0).sum(axis=-1), axis=None)[:4]
    np.testing.assert_array_equal(64 * few.row[::8] + few.col[::8], np.sort(strongest))
    monkeypatch.undo()
    monkeypatch.setattr(f"{module}.CANDIDATE_THRESHOLD", 0.5)
    assert len(few) < len(locate(small_layer, KEY, SMALL_DISPLAY)) < len(small_site)


def test_units_are_kept_within_015_degrees():
    site, maps = find_units(small_layer, KEY, SMALL_DISPLAY)
    centres = receptive_field_centres(maps)
    assert len(site) >= 20 and maps.shape == (21, 21, len(site))
    assert (np.hypot(*(centres - 0.5).T) <= 0.15).all()
    # Stimulus centre at pixel 35.57: the four nearest locations.
    assert set(site.row) | set(site.col) <= {34, 35, 36, 37}


def test_trials_do_not_depend_on_batches_and_average(small_site, monkeypatch):
    site = dataclasses.replace(small_site.keep(np.arange(len(small_site)) < 40))
    together = record(noisy_layer, KEY, FEW, site, trials=3)
    assert batch_size(site.window, 8, 1) == 8
    monkeypatch.setattr("vone_jax.neurophysiology.recording._LARGEST_BATCH", 3)
    assert batch_size(site.window, 8, 1) == 3
    np.testing.assert_allclose(record(noisy_layer, KEY, FEW, site, trials=3), together, atol=1e-5)
    other = record(noisy_layer, jax.random.key(1), FEW, site, trials=3)
    assert np.abs(other - together).max() > 0.1


def test_each_trial_has_noise_of_its_own(small_site):
    """Gratings outside the window are grey in a trial, not the grey that rates are relative to."""
    site = small_site.keep(np.arange(len(small_site)) < 40)
    once, thrice = (record(noisy_layer, KEY, FEW, site, trials=n) for n in (1, 3))
    assert np.abs(once - thrice).max() > 0.1
    # The mean of a standard normal that is clipped at 0.
    often = record_blank(noisy_layer, KEY, site, trials=200)
    np.testing.assert_allclose(often, 1 / np.sqrt(2 * np.pi), atol=0.2)
    outside = stimuli.grating_set(
        "outside", x=-3.5, y=-3.5, radius=0.2, spatial_frequency=1.0, orientation=0.0, phase=0.0
    )
    assert not stimuli.visible(outside.table, site.display, site.window).any()
    unseen = record(noisy_layer, KEY, outside, site)[0]
    assert np.abs(unseen - record_blank(noisy_layer, KEY, site)).max() > 0.1


def score_small(layer, **options):
    return neurophysiology.score(layer, 8.0, 64, 1, KEY, **options)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda key, images: 0 * small_layer(key, images), "to no grating .* above that to grey"),
        (lambda key, images: small_layer(key, images) * jnp.nan, "not finite"),
        (lambda key, images: small_layer(key, images)[0], "shape"),
        (lambda key, images: small_layer(key, images)[..., :4], "at least 20"),
        (noisy_layer, "selection_response_fn"),
    ],
    ids=["silent", "NaN", "no batch", "few units", "noise"],
)
def test_layers_that_cannot_be_scored_are_refused(layer, message):
    with pytest.raises(ValueError, match=message):
        score_small(layer)


@pytest.mark.slow
def test_a_layer_with_an_offset_before_its_nonlinearity_has_no_rates():
    """A linear filter has the same mean response to a drifting grating as to grey."""

    def linear(key, images):
        return small_layer(key, images) - small_layer(key, 256 / 255 - images) + 100

    with pytest.warns(UserWarning, match="expected 33.8: .* behind its nonlinearity"):
        scores = score_small(linear, bootstraps=2)
    assert scores["max_dc"].median > 1000


def test_a_layer_of_other_images_than_declared_is_refused():
    weights = jnp.zeros((64 * 64 * 3, 30))

    def dense(key, images):
        return images.reshape(images.shape[0], -1) @ weights

    with pytest.raises(TypeError, match="dot_general") as caught:
        neurophysiology.score(dense, 8.0, 128, 1, KEY)
    assert any("images of shape (2, 128, 128, 1)" in n for n in caught.value.__notes__)
