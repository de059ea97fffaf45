"""The developmental visual diet. References: NumPy and SciPy in float64."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from test_perturbation import context
from test_train_step import EXPERIMENT, MODEL, assert_close
from tiny import final_state, log

from vone_jax import training
from vone_jax.training import Diet
from vone_jax.training.objectives import diet

AGES = [0.0, 0.7, 3.0, 20.0, 60.0, 200.0, 300.0, 590.0]


def image_of(*shape):
    """Smooth images, whose weak frequencies are below a threshold."""
    noise = np.random.default_rng(sum(shape)).normal(size=shape)
    smooth = ndimage.gaussian_filter(noise, (0, 1, 1, 0), mode="wrap")
    return jnp.asarray((0.5 + smooth).clip(0, 1), jnp.float32)


COLOUR = image_of(4, 32, 32, 3)
# The shapes that have been traced: one program for all ages.
TRACES = []
UNKNOWN: Any = "reverse"


@jax.jit
def at_age(images, months):
    TRACES.append(images.shape)
    return diet.at_age(images, months)


def seen(images, months):
    """The images at an age, by the one program for their shape."""
    found = np.asarray(at_age(images, jnp.float32(months)))
    assert TRACES.count(images.shape) == 1
    return found


def reference(images, months):
    """The equations of the module, one image at a time."""
    seen = []
    for image in np.asarray(images, np.float64):
        side = image.shape[0]
        deviation = 18.06 * np.exp(-0.79 * months) + 1.6 * np.exp(-0.027 * months)
        deviation *= side / 224
        radius = (int(8 * deviation) | 1) // 2
        # PyTorch's reflection is SciPy's mirror.
        image = ndimage.gaussian_filter(
            image, (deviation, deviation, 0), mode="mirror", radius=(radius, radius, 0)
        )
        if image.shape[-1] == 3:
            threshold = lambda y: 0.008604134 * y**-0.880761 + 4.38074e-5 * y**0.880761  # noqa: E731
            colour = threshold(20.367) / threshold(months / 12) if months else 0.0
            grey = (image @ [0.299, 0.587, 0.114])[..., None]
            image = colour * image + (1 - colour) * grey
        n = 2.16333759
        sensitivity = months**n / (months**n + 57.6**n) * (300**n + 57.6**n) / 300**n
        spectrum = np.fft.fft2(image, axes=(0, 1))
        power = np.abs(spectrum) ** 2
        share = (1 - sensitivity) * 0.001 * 0.1 / max(2 * np.floor(300 * sensitivity / 150), 1)
        spectrum[power < share * power.max()] = 0
        seen.append(np.fft.ifft2(spectrum, axes=(0, 1)).real.clip(0, 1))
    return np.stack(seen)


@pytest.mark.parametrize("months", AGES)
@pytest.mark.parametrize("shape", [(3, 28, 28, 1), (3, 32, 32, 3)])
def test_images_at_an_age_are_those_of_the_equations(shape, months):
    images = image_of(*shape)
    np.testing.assert_allclose(seen(images, months), reference(images, months), atol=2e-6)


def test_each_stage_changes_the_images_of_the_reference():
    """Otherwise the comparison above would not see a stage that is missing."""
    child = reference(COLOUR, 3.0)
    edges = lambda images: np.abs(np.diff(images, axis=1)).mean()  # noqa: E731
    assert edges(child) < 0.7 * edges(np.asarray(COLOUR))
    assert np.ptp(child, axis=-1).mean() < 0.7 * np.ptp(np.asarray(COLOUR), axis=-1).mean()
    power = np.abs(np.fft.fft2(reference(COLOUR, 60.0), axes=(1, 2))) ** 2
    assert np.mean(power < 1e-9 * power.max()) > 0.2


def test_an_image_does_not_depend_on_its_neighbours():
    brighter = COLOUR.at[1:].set(1.0)
    for images in (brighter, COLOUR[:1]):
        np.testing.assert_allclose(seen(images, 20.0)[0], seen(COLOUR, 20.0)[0], atol=1e-6)


def test_adult_images_are_nearly_the_images():
    grey = COLOUR[..., :1]
    np.testing.assert_allclose(seen(grey, diet.ADULT), grey, atol=1e-6)
    left = np.ptp(seen(COLOUR, diet.ADULT), axis=-1) / np.ptp(COLOUR, axis=-1)
    np.testing.assert_allclose(left, 0.9815, atol=1e-3)


@pytest.mark.parametrize("months", [0.0, 20.0])
def test_the_gradient_is_finite_and_that_of_a_homogeneous_map(months):
    """A brighter image keeps the same frequencies: f(c x) = c f(x), so grad f(x) x = f(x)."""
    images = 0.3 + 0.4 * COLOUR[:1]
    weights = jnp.asarray(np.random.default_rng(0).normal(size=images.shape), jnp.float32)
    value = jax.jit(jax.value_and_grad(lambda x: jnp.sum(weights * diet.at_age(x, months))))
    found, gradient = value(images)
    assert jnp.isfinite(gradient).all()
    np.testing.assert_allclose(jnp.sum(gradient * images), found, rtol=1e-4)
    np.testing.assert_allclose(value(1.2 * images)[0], 1.2 * found, rtol=1e-4)


def ages(order, seed=7, **fields):
    run = training.Setup(replace(EXPERIMENT, seed=seed), MODEL, total_steps=40)
    return Diet(order, **fields).resources(run)


def test_the_orders_have_the_same_ages():
    true, shuffled = ages("true"), ages("shuffled")
    np.testing.assert_allclose(true, np.arange(40) * 15.0)
    np.testing.assert_array_equal(np.sort(shuffled), true)
    # A few ages may stay at their place.
    assert np.mean(shuffled == true) < 0.2
    np.testing.assert_array_equal(ages("shuffled"), shuffled)
    assert np.mean(ages("shuffled", seed=8) == shuffled) < 0.2
    np.testing.assert_array_equal(ages("true", months=300.0), true / 2)
    np.testing.assert_array_equal(ages("adult"), 300.0)


def test_a_step_has_the_images_of_its_age():
    shown = {}
    seen_by = context(
        step=jnp.int32(2),
        resources=jnp.arange(0.0, 40.0, 10.0),
        log=lambda *pair: shown.update([pair]),
    )
    batch = Diet().batch(seen_by, {"image": COLOUR, "label": jnp.arange(4)})
    np.testing.assert_allclose(batch["image"], seen(COLOUR, 20.0), atol=1e-6)
    np.testing.assert_array_equal(batch["label"], np.arange(4))
    assert shown == {"months": 20.0}


def test_a_run_shows_its_ages_and_resumes(tiny, tmp_path, cached_compilation):
    experiment = replace(tiny, objectives=(Diet("shuffled"),), log_every=1)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    training.train(experiment, whole)
    polls = iter([False, False, True])
    assert not training.train(experiment, stopped, stop=lambda: next(polls)).finished
    training.train(experiment, stopped)
    assert_close(
        final_state(experiment, stopped).params, final_state(experiment, whole).params, rtol=0
    )
    shown = [each["Diet.months"] for each in log(whole) if "Diet.months" in each]
    np.testing.assert_allclose(sorted(shown), np.arange(6) * 100.0)
    assert shown == [each["Diet.months"] for each in log(stopped) if "Diet.months" in each]
    assert shown != sorted(shown)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Diet(UNKNOWN), "order must be one of true, shuffled, adult; got 'reverse'"),
        (lambda: Diet(months=0.0), "months must be a finite number > 0, got 0.0"),
        (lambda: diet.at_age(COLOUR, -1.0), "months must be a finite number >= 0, got -1.0"),
        (lambda: Diet().resources(training.Setup(EXPERIMENT, MODEL)), "number of steps"),
    ],
)
def test_what_is_out_of_range_is_named(make, sentence):
    with pytest.raises(ValueError, match=sentence):
        make()
