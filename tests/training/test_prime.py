"""PRIME. References: sums over pixels, filters and sines, written here in float64 numpy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import fast, prng
from vone_jax import mesh as meshes
from vone_jax.training import PRIME
from vone_jax.training.objectives import prime

SHAPES = [(9, 9, 1), (7, 12, 3)]
# Frequencies that do not magnify rounding errors.
SMOOTH = PRIME(warp_cutoff=6, colour_terms=3, colour_cutoff=6, filter_scale=0.3)


def image_of(shape):
    return jnp.asarray(np.random.default_rng(sum(shape)).random(shape), jnp.float32)


def normals(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def keys_of(count, seed=0):
    return prng.index_keys(jax.random.key(seed), jnp.arange(count))


def reference_filtered(image, kernel):
    height, width, channels = image.shape
    reach, result = len(kernel) // 2, np.zeros(image.shape)
    for y, x, c in np.ndindex(height, width, channels):
        for row, column in np.ndindex(*kernel.shape):
            up = min(max(y + row - reach, 0), height - 1)
            left = min(max(x + column - reach, 0), width - 1)
            result[y, x, c] += kernel[row, column] * image[up, left, c]
    return result.clip(0, 1)


def reference_displacements(amplitudes, shape):
    result = np.zeros((*shape[:2], 2))
    for k, l, part in np.ndindex(*amplitudes.shape):  # noqa: E741
        down = np.sin(np.pi * (k + 1) * np.linspace(0, 1, shape[0]))
        across = np.sin(np.pi * (l + 1) * np.linspace(0, 1, shape[1]))
        result[..., part] += shape[part] * amplitudes[k, l, part] * np.outer(down, across)
    return result


def reference_warped(image, moves):
    result = np.zeros(image.shape)
    last = np.array(image.shape[:2]) - 1
    for y, x in np.ndindex(*image.shape[:2]):
        place = np.clip(np.array([y, x]) + moves[y, x], 0, last)
        (top, left), (down, across) = np.floor(place).astype(int), place % 1
        bottom, right = np.minimum([top + 1, left + 1], last)
        upper = (1 - across) * image[top, left] + across * image[top, right]
        lower = (1 - across) * image[bottom, left] + across * image[bottom, right]
        result[y, x] = (1 - down) * upper + down * lower
    return result


def reference_recoloured(image, coefficients, first):
    waves = np.sin(np.pi * (first + np.arange(coefficients.shape[1])) * image[..., None])
    return (image + (coefficients * waves).sum(-1)).clip(0, 1)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1, 5])
def test_filters(shape, size):
    image, kernel = image_of(shape), normals(size, size)
    expected = reference_filtered(np.float64(image), np.float64(kernel))
    np.testing.assert_allclose(prime.filtered(image, jnp.asarray(kernel)), expected, atol=2e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_displacements_and_the_warp(shape):
    """Large ones reach beyond the border, whose pixels themselves stay at their place."""
    amplitudes = normals(4, 5, 2) / 10
    moves = np.asarray(prime.displacements(jnp.asarray(amplitudes), shape))
    expected = reference_displacements(np.float64(amplitudes), shape)
    np.testing.assert_allclose(moves, expected, atol=1e-5)
    assert np.abs(expected).max() > max(shape[:2]) / 4
    for border in (moves[0], moves[-1], moves[:, 0], moves[:, -1]):
        np.testing.assert_allclose(border, 0, atol=1e-5)
    image = image_of(shape)
    expected = reference_warped(np.float64(image), np.float64(moves))
    np.testing.assert_allclose(prime.warped(image, jnp.asarray(moves)), expected, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("first", "terms", "tolerance"), [(1, 20, 5e-6), (481, 20, 3e-4)])
def test_colour_maps(shape, first, terms, tolerance):
    """At frequency 500, the rounding of an angle in float32 is 5e-5 radian."""
    coefficients = normals(shape[-1], terms) / 5
    image = image_of(shape).at[0, :3, 0].set(jnp.asarray([0.0, 0.5, 1.0]))
    expected = reference_recoloured(np.float64(image), np.float64(coefficients), first)
    found = prime.recoloured(image, jnp.asarray(coefficients), first)
    np.testing.assert_allclose(found, expected, atol=tolerance)


def test_filters_and_coefficients_have_uniform_strengths():
    """A mixture over s of N(0, s^2), with s or s^2 uniform: the second and the fourth moments."""
    keys = keys_of(4000)
    noise = np.array(jax.vmap(lambda key: prime.draw_filter(key, 3, 4.0))(keys))
    noise[:, 1, 1] -= 1
    assert abs(noise.mean()) < 0.05
    np.testing.assert_allclose(np.mean(noise**2), 4**2 / 3, rtol=0.05)
    np.testing.assert_allclose(np.mean(noise**4), 3 * 4**4 / 5, rtol=0.1)
    drawn = np.asarray(jax.vmap(lambda key: prime.draw_colours(key, (3, 20), 500, 0.05)[0])(keys))
    assert drawn.shape == (4000, 3, 20) and abs(drawn.mean()) < 0.002
    np.testing.assert_allclose(np.mean(drawn**2), 0.05 / 2, rtol=0.05)
    np.testing.assert_allclose(np.mean(drawn**4), 3 * 0.05**2 / 3, rtol=0.1)


def test_frequencies_of_colour_maps():
    draw = jax.vmap(lambda key: prime.draw_colours(key, (1, 20), 500, 0.05)[1])
    first = np.asarray(draw(keys_of(4000)))
    assert first.min() == 1 and 440 < first.max() <= 500 - 20 + 1
    # Uniform below a uniform number: half of a half of the 480 places.
    np.testing.assert_allclose(first.mean(), 1 + 480 / 4, rtol=0.05)
    only = jax.vmap(lambda key: prime.draw_colours(key, (1, 20), 20, 0.05)[1])(keys_of(9))
    assert np.all(only == 1)


def test_temperatures_lie_between_the_bounds_of_the_paper():
    shape, side = (20, 20, 3), 20
    draw = jax.vmap(lambda key: prime.draw_temperature(key, shape, 50))
    cut, temperature = (np.asarray(x, np.float64) for x in draw(keys_of(4000)))
    assert cut.min() == 2 and 45 < cut.max() <= 50
    np.testing.assert_allclose(cut.mean(), 2 + 48 / 4, rtol=0.05)
    half_pixel = 1 / (np.pi * side**2 * np.log(cut))
    unfolded = 4 / (np.pi**3 * cut**2 * np.log(cut))
    place = (temperature - half_pixel) / (unfolded - half_pixel)
    place = place[np.abs(unfolded / half_pixel - 1) > 0.1]
    assert -1e-3 < place.min() < 0.01 and 0.99 < place.max() < 1 + 1e-3
    np.testing.assert_allclose(place.mean(), 0.5, atol=0.02)


@pytest.mark.parametrize(("side", "cut"), [(9, 40), (12, 5), (3, 6)])
def test_sines_that_are_alike_on_the_pixels_are_drawn_once(side, cut):
    """The reference adds all sines up to the cut-off: the covariance of all pairs of pixels."""
    shape = (side, side + 1, 1)
    draw = jax.jit(jax.vmap(lambda key: prime.draw_modes(key, shape, 40, cut)))
    modes = np.asarray(draw(keys_of(8000)))
    rows, columns = (np.arange(1, n + 1) for n in modes.shape[1:3])
    assert len(rows) <= side - 2 and len(columns) <= side - 1
    variance = np.zeros((side - 2, side - 1))
    for k in range(1, cut + 1):
        for l in range(1, cut + 1):  # noqa: E741
            # The products of a sine on the pixels with the lower ones: one is 1 or -1.
            if k * k + l * l <= cut**2:
                down, across = lower(k, side), lower(l, side + 1)
                variance += np.outer(down**2, across**2) / (k * k + l * l)
    # Five standard deviations of an estimated variance.
    np.testing.assert_allclose(
        np.mean(modes**2, axis=(0, 3)), variance, rtol=5 / math.sqrt(8000), atol=1e-6
    )


def lower(frequency, side):
    """Coefficients of a sine on the pixels in the sines of frequencies 1 to side - 2."""
    places = np.linspace(0, 1, side)
    basis = np.sin(np.pi * np.arange(1, side - 1)[:, None] * places)
    return basis @ np.sin(np.pi * frequency * places) * 2 / (side - 1)


def test_the_lower_temperature_is_that_of_half_a_pixel():
    """Petrini et al.: a root mean square of n sqrt(pi T log(c)) / 2 pixels, for large c."""
    side, cut = 64, 50
    temperature = 1 / (math.pi * side**2 * math.log(cut))

    def squares(key):
        modes = prime.draw_modes(key, (side, side, 1), cut, cut)
        moves = prime.displacements(math.sqrt(temperature) * modes, (side, side, 1))
        return jnp.mean(jnp.sum(moves**2, axis=-1))

    found = float(jnp.sqrt(jnp.mean(jax.vmap(squares)(keys_of(50)))))
    assert abs(found - 0.5) < 0.1


def test_weights_are_those_of_the_paper():
    """Dirichlet(1, 1, 1): means of 1/3 and variances of 1/18. Beta(1, 1): uniform."""
    shares, weight = jax.vmap(lambda key: prime.draw_weights(key, 3))(keys_of(4000))
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(shares.mean(axis=0), 1 / 3, atol=0.02)
    np.testing.assert_allclose(shares.var(axis=0), 1 / 18, rtol=0.1)
    np.testing.assert_allclose([weight.mean(), weight.var()], [1 / 2, 1 / 12], rtol=0.05)


def test_the_mixture():
    image, branches = image_of((4, 5, 3)), np.asarray(image_of((2, 4, 5, 3)))
    mix = lambda weight: prime.mixture(  # noqa: E731
        image, jnp.asarray(branches), jnp.asarray([0.25, 0.75]), jnp.float32(weight)
    )
    np.testing.assert_array_equal(mix(0), image)
    mean = 0.25 * branches[0] + 0.75 * branches[1]
    np.testing.assert_allclose(mix(1), mean, atol=1e-6)
    np.testing.assert_allclose(mix(0.2), 0.8 * np.asarray(image) + 0.2 * mean, atol=1e-6)


class Steps(PRIME):
    """PRIME whose primitives multiply by 2, 3 and 5, so that a result tells its chain."""

    def _filtered(self, key, image):
        return image * 2

    def _warped(self, key, image):
        return image * 3

    def _recoloured(self, key, image):
        return image * 5


def test_a_chain_has_one_to_depth_primitives_of_equal_probability():
    chain = jax.jit(jax.vmap(lambda key: Steps()._chain(key, jnp.ones((1, 1, 1)))))
    found = np.asarray(chain(keys_of(6000))).ravel().astype(int)
    expected = np.zeros(126)
    for length in (1, 2, 3):
        for factors in np.ndindex(*[3] * length):
            expected[np.prod([(2, 3, 5)[i] for i in factors])] += 1 / 3 / 3**length
    shares = np.bincount(found, minlength=126) / len(found)
    # Five standard deviations of a share.
    assert np.all(np.abs(shares - expected) <= 5 * np.sqrt(expected / len(found)))


def perturb(config):
    return jax.jit(lambda keys, images: config.perturb(keys, images))


@pytest.fixture(scope="module")
def whole():
    """A compiled function, 8 copies of an image, their keys, and the result."""
    function, images = perturb(PRIME()), jnp.stack([image_of(SHAPES[0])] * 8)
    return function, images, np.asarray(function(keys_of(8), images))


def test_images_are_in_range_and_differ_by_their_keys(whole):
    _, images, found = whole
    assert found.shape == images.shape and found.dtype == np.float32
    assert np.all((found >= 0) & (found <= 1))
    assert len({one.tobytes() for one in found}) == 8


@pytest.mark.slow
def test_four_devices_do_what_one_does(whole):
    function, images, found = whole
    split = meshes.shard_batch(meshes.data_mesh(), {"image": np.asarray(images)})["image"]
    np.testing.assert_array_equal(function(keys_of(8), split), found)


@pytest.mark.slow
def test_all_platforms_compute_the_same():
    """A CPU computes image by image, a TPU and a GPU all at once; here batches differ, too."""
    images = jnp.stack([image_of(SHAPES[1])] * 6)
    expected = np.asarray(perturb(SMOOTH)(keys_of(6)[2:], images[2:]))
    with fast.forms_of("tpu"):
        found = np.asarray(perturb(SMOOTH)(keys_of(6), images))
    np.testing.assert_allclose(found[2:], expected, atol=1e-5)
    assert np.abs(found - np.asarray(images)).max() > 0.1
