"""Synthesised images against linear algebra and the kernels of V1."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.ndimage

from vone_jax import fast, models, v1
from vone_jax.perception import synthesis

pytestmark = pytest.mark.usefixtures("optimised")

SHAPE = (6, 6, 1)
PIXELS = 36


def key(seed=0):
    return jax.random.key(seed)


def linear(matrix):
    """A layer that multiplies the pixels by a matrix (features, pixels)."""
    matrix = np.asarray(matrix, np.float32)

    def response_fn(keys, images):
        flat = images.reshape(len(images), -1)
        return jnp.matmul(flat, matrix.T, precision="highest")

    return response_fn


def references(number=2, seed=1):
    random = np.random.default_rng(seed)
    return (0.5 + 0.1 * random.uniform(-1, 1, (number, *SHAPE))).astype(np.float32)


def orthogonal(rows, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(PIXELS, PIXELS)))[0][:rows]


RECIPE = {"rounds": 8, "steps": 200, "step_size": 0.1}


def test_a_layer_that_keeps_everything_gives_the_image_back():
    images = references()
    matrix = np.vstack([orthogonal(PIXELS), orthogonal(5, seed=3)])
    found = synthesis.metamers(key(), linear(matrix), images, **RECIPE)
    np.testing.assert_allclose(found.images[0], images, atol=2e-3)
    natural = linear(matrix)(None, references(50, seed=2))
    assert found.matched(synthesis.null_decibel(natural)).all()


def test_a_metamer_keeps_what_the_layer_does_not_see_of_its_start():
    images = references()
    seen = orthogonal(20)
    found = synthesis.metamers(key(), linear(seen), images, **RECIPE)
    start = synthesis.metamers(key(), linear(seen), images, rounds=0).images[0]
    flat, begun, kept = (
        np.asarray(each).reshape(2, -1) for each in (images, start, found.images[0])
    )
    expected = begun + (flat - begun) @ seen.T @ seen
    np.testing.assert_allclose(kept, expected, atol=2e-3)
    assert np.abs(kept - flat).max() > 0.02


def test_units_that_are_silent_in_the_start_are_reached():
    images = references(1)
    matrix = orthogonal(PIXELS)
    start = synthesis.metamers(key(), linear(matrix), images, rounds=0).images[0]
    # Every unit responds to the reference and not to the start.
    signs = np.sign((np.asarray(images) - start).reshape(-1) @ matrix.T)
    middle = (0.5 * (np.asarray(images) + start)).reshape(-1)
    rows = signs[:, None] * matrix

    def rectified(keys, batch):
        return jax.nn.relu(linear(rows)(keys, batch) - jnp.asarray(rows @ middle)[None])

    found = synthesis.metamers(key(), rectified, images, **RECIPE)
    np.testing.assert_allclose(found.images[0], images, atol=2e-3)


@pytest.mark.slow
def test_v1_with_frozen_noise_reaches_its_reference_to_a_thousandth():
    config = v1.VOneBlockConfig(
        simple_channels=32, complex_channels=32, image_size=28, visual_degrees=1.0, kernel_size=21,
        stride=2, gabor_seed=0, in_channels=1, noise=v1.NeuronalNoise(),
    )  # fmt: skip
    block = v1.VOneBlock(config)
    raw = [np.random.default_rng(seed).uniform(0, 1, (28, 28)) for seed in range(3)]
    smooth = np.stack([scipy.ndimage.gaussian_filter(each, 1.5) for each in raw])
    smooth = 0.5 + 0.15 * (smooth - smooth.mean()) / smooth.std()
    images = smooth.clip(0, 1).astype(np.float32)[..., None]
    found = synthesis.metamers(key(), lambda keys, x: block.apply({}, x, keys), images)
    # Cells that are silent in both images have no gradient, so some images stop a little above.
    assert np.median(found.error) < 1e-3 and found.error.max() < 2e-3
    assert found.matched(20.0).all()
    assert np.abs(np.asarray(found.images[0]) - images).max() > 0.02


def test_distinct_metamers_differ_more_than_their_starts_alone():
    images, seen = references(), linear(orthogonal(20))
    plain, apart = (
        synthesis.metamers(key(), seen, images, **RECIPE, distinct=2, diversity=weight).images
        for weight in (0.0, 0.3)
    )
    plain, apart = (np.linalg.norm(np.asarray(each[0] - each[1])) for each in (plain, apart))
    assert apart > 1.2 * plain


def test_distinct_metamers_are_not_moved_apart_in_the_last_round():
    """The layer keeps everything, so that they end at the reference if nothing drives them away."""
    images, seen = references(), linear(orthogonal(PIXELS))
    found = synthesis.metamers(
        key(), seen, images, rounds=2, steps=600, step_size=0.02, distinct=2, diversity=2.0
    )
    # The last steps have a length of 0.01.
    np.testing.assert_allclose(found.images, np.stack([images, images]), atol=0.01)


def test_a_metamer_does_not_depend_on_the_rest_of_the_batch():
    images, seen = references(3), linear(orthogonal(20))
    three = synthesis.metamers(key(), seen, images, rounds=2, steps=20).images
    one = synthesis.metamers(key(), seen, images[:1], rounds=2, steps=20).images
    np.testing.assert_allclose(three[:, :1], one, atol=1e-5)


def test_the_null_is_the_closest_pair():
    responses = np.array([[3.0, 0.0], [3.0, 1.0], [0.0, 5.0]])
    # The second is at a distance of 1 from the first, of norm sqrt(10).
    assert synthesis.null_decibel(responses) == pytest.approx(10 * np.log10(np.sqrt(10)))
    with pytest.raises(ValueError, match="two images or more"):
        synthesis.null_decibel(responses[:1])


# Layers that end in no ReLU. (Complex cells end in a root, but are a slice of all cells.)
WITHOUT_RELU = {"logits", "bottleneck"}


PUBLISHED = ("resnet18", "resnet50", "cornet_s", "cornet_z", "vone_resnet18", "vone_cornet_s")


@pytest.mark.parametrize("name", [
    "alexnet", "vone_alexnet", *(pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED)
])  # fmt: skip
def test_each_layer_of_the_published_networks_has_a_straight_through_estimator(name):
    model = models.create(name, 3, image_size=64, width=4)
    keys, images = jax.random.split(key(), 2), jnp.zeros((2, 64, 64, 3))
    variables = jax.eval_shape(lambda: models.init(model, key()))
    layers = jax.eval_shape(
        lambda variables: models.features_fn(model, variables)(keys, images), variables
    )

    def has_estimator(layer):
        def gradient(variables, images):
            layer_fn = functools.partial(models.response_fn(model, variables, layer), keys)
            straight = fast.with_straight_through_relus(layer_fn)
            return straight(images)

        return "straight_through" in str(jax.make_jaxpr(gradient)(variables, images))

    found = {layer for layer in layers if has_estimator(layer)}
    assert found == set(layers) - WITHOUT_RELU


def test_responses_that_are_not_finite_are_an_error():
    def broken(keys, images):
        return images.reshape(len(images), -1) * jnp.nan

    with pytest.raises(FloatingPointError, match="not finite"):
        synthesis.metamers(key(), broken, references(), rounds=1, steps=2)
