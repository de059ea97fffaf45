"""The corruptions against ``references`` with the same draws; errors in grey levels (1/255)."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from tests.corruptions import references
from vone_jax import corruptions, prng
from vone_jax.corruptions import blur, tables

KEY = jax.random.key(5)
SIDE = 32


@pytest.fixture(scope="module")
def images():
    """A smooth colour image of 32 pixels with black, white and grey parts, and a rough one."""
    rng = np.random.default_rng(1)
    smooth = ndimage.gaussian_filter(rng.random((SIDE, SIDE, 3)), (2, 2, 0))
    smooth = np.clip(2.5 * (smooth - 0.5) + 0.5, 0, 1)
    smooth = 1.2 * (smooth - smooth.min()) / np.ptp(smooth) - 0.1
    smooth[:6, :6], smooth[:6, 6:12], smooth[6:12, :6] = 0, 1, 0.6
    rough = np.clip(smooth + rng.normal(0, 0.1, smooth.shape), 0, 1)
    return np.round(255 * np.clip(np.stack([smooth, rough]), 0, 1)) / 255


def cases(*names, severities=corruptions.SEVERITIES):
    all_cases = list(itertools.product(names, corruptions.TABLES, severities))
    return pytest.mark.parametrize(("name", "table", "severity"), all_cases)


def run(name, table, severity, images):
    """(parameters, draws as NumPy, result before clipping) of a corruption."""
    shape = images.shape[1:]
    keys = prng.example_keys(prng.stream(KEY, name), len(images))
    corruption = corruptions.CORRUPTIONS[name]
    arrays = corruptions.prepare(name, severity, shape, table)
    draws = corruption.draw(keys, shape, arrays)
    out = _applied[name](draws, jnp.asarray(images, jnp.float32), arrays)
    parameters = tables.PARAMETERS[name][table][severity - 1]
    return parameters, draws, np.asarray(out, np.float64)


_applied = {name: jax.jit(one.apply) for name, one in corruptions.CORRUPTIONS.items()}


def errors(ours, expected):
    return 255 * np.abs(ours - np.stack(expected))


@cases(*references.STILL)
def test_corruptions_without_draws(images, name, table, severity):
    parameters = tables.PARAMETERS[name][table][severity - 1]
    ours = corruptions.corrupt(KEY, np.float32(images), name, severity, table=table)
    definition, largest = references.STILL[name]
    expected = [np.clip(definition(image, parameters), 0, 1) for image in images]
    assert errors(np.float64(ours), expected).max() < largest


@cases("glass_blur", severities=(1, 3, 5))
def test_glass_blur(images, name, table, severity):
    parameters, moves, ours = run(name, table, severity, images)
    reach = parameters[1]
    assert set(np.unique(moves)) == set(range(-reach, reach))
    pairs = zip(images, np.asarray(moves), strict=True)
    error = errors(ours, [references.glass(image, parameters, move) for image, move in pairs])
    # Before the shuffle values are cut to 8 bits. One in some thousand falls on the other side
    # of a whole number in float32, and the second blur spreads that.
    assert error.max() < 1.0 and error.mean() < 2e-3


@pytest.mark.parametrize("severity", [1, 4])
def test_glass_blur_copies_the_same_pixels(severity):
    """The walk over the pixels, one by one, with a ramp that numbers them."""
    shape = (40, 29, 1)
    arrays = corruptions.prepare("glass_blur", severity, shape, "imagenet")
    moves = corruptions.CORRUPTIONS["glass_blur"].draw(KEY[None], shape, arrays)
    numbers = np.arange(40 * 29).reshape(40, 29)
    ours = blur.shuffled(jnp.asarray(numbers[None], jnp.int32), moves, *arrays[1:])[0]
    reach, passes = int(arrays[1]), int(arrays[2])
    walked = references.walk(numbers, reach, np.asarray(moves[0])[:passes])
    np.testing.assert_array_equal(ours, walked)


@cases("motion_blur")
def test_motion_blur(images, name, table, severity):
    parameters, angles, ours = run(name, table, severity, images)
    pairs = zip(images, np.asarray(angles), strict=True)
    exact = np.stack([references.motion(255 * image, parameters, angle) for image, angle in pairs])
    # Whole numbers; only within rounding errors of one is it open which.
    levels = np.round(255 * ours)
    assert np.all(np.floor(exact - 1e-3) <= levels) and np.all(levels <= np.floor(exact + 1e-3))


@pytest.mark.parametrize(
    ("table", "counts"), [("imagenet", (12, 16, 11, 13, 11)), ("cifar", (7, 12, 16, 21, 26))]
)
def test_numbers_of_zoom_factors(table, counts):
    """The counts that the benchmark's numpy.arange gives, the factor 1 included."""
    ours = [corruptions.prepare("zoom_blur", s, (32, 32, 3), table)[2] + 1 for s in (1, 2, 3, 4, 5)]
    assert tuple(ours) == counts


@cases("snow")
def test_snow(images, name, table, severity):
    parameters, (normal, angles), ours = run(name, table, severity, images)
    normal = np.asarray(normal)[..., 0]
    expected = [
        references.snow(*one) for one in zip(images, [parameters] * 2, normal, angles, strict=True)
    ]
    error = errors(ours, expected)
    assert error.max() < 2.01 and (error > 0.01).mean() < 3e-3


@cases("fog", severities=(1, 5))
def test_fog(images, name, table, severity):
    parameters, draws, ours = run(name, table, severity, images)
    draws = np.asarray(draws, np.float64)
    pairs = zip(images, draws, strict=True)
    expected = [references.fog(image, parameters, draw, SIDE) for image, draw in pairs]
    assert errors(ours, expected).max() < 2e-3


def moves_of_points(move):
    """Draws of the affine map, (2, 3, 2). One that is nearly singular enlarges the rounding errors
    of its numbers, so the triangle of the points keeps three quarters of its area."""
    rng, found = np.random.default_rng(0), []
    points = 10 * np.array([[1, 1], [1, -1], [-1, -1]])
    while len(found) < 2:
        draws = rng.uniform(-1, 1, (3, 2)).astype(np.float32)
        if abs(np.linalg.det(np.diff(points + move * draws, axis=0))) > 300:
            found.append(draws)
    return np.stack(found)


@cases("elastic_transform", severities=(1, 3, 5))
def test_elastic_transform(images, name, table, severity):
    parameters = tables.PARAMETERS[name][table][severity - 1]
    shape, moves = images.shape[1:], moves_of_points(parameters[2])
    arrays = corruptions.prepare(name, severity, shape, table)
    _, fields = corruptions.CORRUPTIONS[name].draw(prng.example_keys(KEY, 2), shape, arrays)
    ours = _applied[name]((moves, fields), jnp.asarray(images, jnp.float32), arrays)
    moves, fields = np.asarray(moves, np.float64), np.asarray(fields, np.float64)
    expected = [
        references.elastic(*one)
        for one in zip(images, [parameters] * 2, moves, fields, strict=True)
    ]
    assert errors(np.asarray(ours, np.float64), expected).max() < 0.05


@pytest.mark.parametrize(
    "shape", [(28, 28, 1), (33, 21, 3), (17, 16, 3), (9, 1, 3), (9, 4, 3), (9, 5, 3)]
)
def test_jpeg_compression_is_exact_at_odd_sizes_and_on_noise(shape):
    """libjpeg smooths chroma from three columns on, those of images of 5 pixels."""
    noise = np.random.default_rng(2).integers(0, 256, (1, *shape)) / 255
    for severity in (1, 5):
        parameters, _, ours = run("jpeg_compression", "imagenet", severity, noise)
        assert errors(ours, [references.jpeg(noise[0], parameters)]).max() < 1e-3


@pytest.mark.parametrize("table", corruptions.TABLES)
@pytest.mark.parametrize("severity", [4, 5])
def test_mud(images, table, severity):
    parameters, normal, ours = run("spatter", table, severity, images)
    normal = np.asarray(normal, np.float64)[..., 0]
    expected = [references.mud(*one) for one in zip(images, [parameters] * 2, normal, strict=True)]
    assert errors(ours, expected).max() < 2e-3
