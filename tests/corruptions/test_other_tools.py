"""Comparisons with OpenCV, scikit-image and imagecorruptions, with the same draws, in grey levels.

This module leaves out what imagecorruptions does differently from ImageNet-C: its elastic
transform has no affine map, it rounds snow, and it scales frost.
"""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.corruptions import references
from vone_jax import corruptions
from vone_jax.corruptions import frost, spatter, tables

cv2 = pytest.importorskip("cv2")
imagecorruptions = pytest.importorskip("imagecorruptions")
skimage_data = pytest.importorskip("skimage.data")

pytestmark = pytest.mark.extras


@pytest.fixture(scope="module")
def photograph():
    """64 pixels of a photograph of Eileen Collins (NASA, public domain), float64."""
    image = Image.fromarray(skimage_data.astronaut()[:440, 20:460]).resize((64, 64))
    return np.asarray(image) / 255


def apply(name, table, severity, images, draws):
    arrays = corruptions.prepare(name, severity, images.shape[1:], table)
    function = jax.jit(corruptions.CORRUPTIONS[name].apply)
    out = function(draws, jnp.asarray(images, jnp.float32), arrays)
    return np.asarray(jnp.clip(out, 0, 1), np.float64)


def liquids(parameters, side, count=6):
    """Layers of liquid as the benchmark makes them, in 8 bits, and their standard normal draws."""
    mean, deviation, smoothing, threshold = parameters[:4]
    normal = np.random.default_rng(3).standard_normal((count, side, side)).astype(np.float32)
    layers = []
    for draw in normal.astype(np.float64):
        liquid = references.smooth(mean + deviation * draw, smoothing)
        liquid[liquid < threshold] = 0
        # Eight bits overflow above 1.
        layers.append((np.floor(liquid * 255) % 256).astype(np.uint8))
    return np.stack(layers), normal


def opencv_water(liquid):
    distance = 255 - cv2.Canny(liquid, 50, 150)
    distance = cv2.distanceTransform(distance, cv2.DIST_L2, 5)
    distance = cv2.threshold(distance, 20, 20, cv2.THRESH_TRUNC)[1]
    distance = cv2.equalizeHist(cv2.blur(distance, (3, 3)).astype(np.uint8))
    relief = cv2.filter2D(distance, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
    film = liquid.astype(np.float32) * cv2.blur(relief, (3, 3)).astype(np.float32)
    return film / max(film.max(), 1e-9)


WATER = [
    (table, severity, side)
    for table, side in (("imagenet", 96), ("tiny", 64), ("cifar", 32))
    for severity in (1, 2, 3)
]


@pytest.mark.slow
@pytest.mark.parametrize(("table", "severity", "side"), WATER)
def test_water_step_by_step(table, severity, side):
    layers, _ = liquids(tables.PARAMETERS["spatter"][table][severity - 1], side)
    points = np.asarray(spatter.canny(jnp.asarray(layers, jnp.int32), 50, 150))
    expected = np.stack([cv2.Canny(layer, 50, 150) for layer in layers]) > 0
    np.testing.assert_array_equal(points, expected)
    ours = np.asarray(spatter.truncated_distance(jnp.asarray(points), 20)) / spatter.UNIT
    distances = [
        cv2.distanceTransform(np.where(one, 0, 255).astype(np.uint8), cv2.DIST_L2, 5)
        for one in expected
    ]
    np.testing.assert_allclose(ours, np.minimum(distances, 20), atol=1e-4)
    film = np.asarray(spatter.water(jnp.asarray(layers, jnp.float32)))
    np.testing.assert_allclose(film, [opencv_water(layer) for layer in layers], atol=1e-6)


def test_canny_on_noise_and_photographs(photograph):
    """Gradients in all directions, thresholds that leave weak edges to be followed."""
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.random((5, 48, 64)), (0, 1.5, 1.5))
    noise = (255 * (noise - noise.min()) / np.ptp(noise)).astype(np.uint8)
    for images in (noise, references.eight_bit(photograph[None, ..., 1])):
        ours = np.asarray(spatter.canny(jnp.asarray(images, jnp.int32), 50, 150))
        expected = np.stack([cv2.Canny(image, 50, 150) for image in images]) > 0
        assert 0.02 < expected.mean() < 0.4
        np.testing.assert_array_equal(ours, expected)


@pytest.mark.parametrize(("table", "severity", "side"), WATER)
def test_spatter_with_water(photograph, table, severity, side):
    parameters = tables.PARAMETERS["spatter"][table][severity - 1]
    layers, normal = liquids(parameters, side)
    image = np.tile(photograph, (2, 2, 1))[:side, :side]
    images = np.broadcast_to(image, (len(layers), *image.shape))
    ours = apply("spatter", table, severity, images, jnp.asarray(normal[..., None]))
    film = parameters[4] * np.stack([opencv_water(layer) for layer in layers])[..., None]
    expected = np.clip(images + film * np.array([175, 238, 238]) / 255, 0, 1)
    error = 255 * np.abs(ours - expected)
    # A level of liquid that float32 puts on the other side of a whole number, here and there.
    assert error.mean() < 0.02 and (error > 0.6).mean() < 1e-3


@pytest.mark.parametrize("table", corruptions.TABLES)
@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_affine_map_of_elastic_transform(photograph, table, severity):
    """OpenCV's warpAffine of the three points, without the displacements."""
    move = tables.PARAMETERS["elastic_transform"][table][severity - 1][2]
    moves = np.random.default_rng(severity).uniform(-1, 1, (1, 3, 2)).astype(np.float32)
    ours = apply(
        "elastic_transform", table, severity, photograph[None], (moves, jnp.zeros((1, 64, 64, 2)))
    )
    before = np.float32(32 + 21 * np.array([[1, 1], [1, -1], [-1, -1]]))
    matrix = cv2.getAffineTransform(before, before + np.float32(move) * moves[0])
    image = photograph.astype(np.float32)
    expected = cv2.warpAffine(image, matrix, (64, 64), borderMode=cv2.BORDER_REFLECT_101)
    # OpenCV before version 5 interpolates on a grid of 1/32 pixel.
    largest = 0.05 if int(cv2.__version__.split(".")[0]) >= 5 else 4.0
    assert 255 * np.abs(ours[0] - expected).max() < largest


def test_defocus_kernel_and_frost_scale():
    """OpenCV's smoothing of the disk and its resizing of the photographs."""
    for severity in corruptions.SEVERITIES:
        radius, smoothing = tables.PARAMETERS["defocus_blur"]["imagenet"][severity - 1]
        reach, window = (8, 3) if radius <= 8 else (radius, 5)
        x, y = np.meshgrid(*[np.arange(-reach, reach + 1)] * 2)
        disk = np.float32(x**2 + y**2 <= radius**2)
        expected = cv2.GaussianBlur(disk / disk.sum(), (window, window), smoothing)
        ours = corruptions.prepare("defocus_blur", severity, (32, 32, 3), "imagenet")
        np.testing.assert_allclose(
            ours[10 - reach : 11 + reach, 10 - reach : 11 + reach], expected, atol=1e-6
        )
    image = np.random.default_rng(0).integers(0, 256, (90, 61, 3), np.uint8)
    for scale in (0.2, 0.3):
        ours = frost._resized(image, scale)
        expected = cv2.resize(image, (0, 0), fx=scale, fy=scale)
        assert ours.shape == expected.shape
        assert np.abs(ours.astype(int) - expected).max() <= 1


def test_frost_reads_the_photographs_of_imagecorruptions(photograph):
    folder = os.path.join(os.path.dirname(imagecorruptions.__file__), "frost")
    loaded = corruptions.load_frost(folder)
    expected = cv2.imread(os.path.join(folder, "frost1.png"))[..., ::-1]
    np.testing.assert_array_equal(loaded.images[0], expected)
    images = jnp.asarray(np.stack([photograph] * 8), jnp.float32)
    out = corruptions.corrupt(jax.random.key(0), images, "frost", 2, frost_images=loaded)
    assert 0.2 < float(out.mean()) < 0.9


def imagecorruptions_module():
    from imagecorruptions import corruptions as module

    return module


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_fog_with_the_generator_of_imagecorruptions(photograph, severity):
    """The plasma takes its draws in the same order, so that NumPy's seed gives the same fog."""
    module = imagecorruptions_module()
    image = Image.fromarray(references.eight_bit(photograph))
    np.random.seed(severity)  # noqa: NPY002  what imagecorruptions draws from
    expected = module.fog(image, severity) / 255
    # It draws U(-w, w) with the w of each level: the same stream, scaled.
    np.random.seed(severity)  # noqa: NPY002
    draws = np.random.uniform(-1, 1, 64 * 64 - 1)  # noqa: NPY002
    ours = apply(
        "fog", "imagenet", severity, photograph[None], jnp.asarray(draws[None], jnp.float32)
    )
    assert 255 * np.abs(ours[0] - expected).max() < 5e-3


@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_motion_blur_with_the_generator_of_imagecorruptions(photograph, severity):
    """It does not round down, and it breaks off where the motion leaves the image."""
    module = imagecorruptions_module()
    image = Image.fromarray(references.eight_bit(photograph))
    np.random.seed(severity)  # noqa: NPY002
    expected = module.motion_blur(image, severity)
    np.random.seed(severity)  # noqa: NPY002
    angle = np.random.uniform(-45, 45)  # noqa: NPY002
    ours = 255 * apply(
        "motion_blur", "imagenet", severity, photograph[None], jnp.asarray([angle], jnp.float32)
    )
    difference = expected - ours[0]
    assert difference.min() > -2e-3 and difference.max() < 1.0 and 0.4 < difference.mean() < 0.6


@pytest.mark.parametrize("name", sorted(references.STILL))
@pytest.mark.parametrize("severity", corruptions.SEVERITIES)
def test_what_draws_nothing_equals_imagecorruptions(photograph, name, severity):
    image = references.eight_bit(photograph)
    function = getattr(imagecorruptions_module(), name)
    expected = np.asarray(function(Image.fromarray(image), severity), np.float64)
    ours = 255 * apply(name, "imagenet", severity, photograph[None], None)
    assert np.abs(ours[0] - expected).max() < 0.01


@pytest.mark.parametrize(("name", "severity"), [("saturate", 3), ("brightness", 2)])
def test_uint8_differs_only_where_a_level_is_whole(photograph, name, severity):
    """imagecorruptions truncates float64 numbers, some of which are just below a whole level."""
    image = references.eight_bit(photograph)
    expected = imagecorruptions.corrupt(image, severity=severity, corruption_name=name).astype(int)
    exact = getattr(imagecorruptions_module(), name)(Image.fromarray(image), severity)
    ours = corruptions.corrupt(
        jax.random.key(0), jnp.asarray(image[None], jnp.float32) / 255, name, severity, "imagenet",
        form="uint8",
    )  # fmt: skip
    difference = np.round(255 * np.asarray(ours[0])).astype(int) - expected
    assert set(np.unique(difference)) == {0, 1} and (difference == 1).mean() < 0.15
    lost = exact[difference == 1]
    np.testing.assert_allclose(lost, np.round(lost), atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ("pixelate", "jpeg_compression"))
def test_eight_bit_corruptions_are_exact_on_photographs(name):
    """Four photographs of 224 pixels that come with scikit-image."""
    for photograph in ("astronaut", "chelsea", "coffee", "rocket"):
        levels = getattr(skimage_data, photograph)()[50:274, 100:324]
        for severity in corruptions.SEVERITIES:
            function = getattr(imagecorruptions_module(), name)
            expected = np.asarray(function(Image.fromarray(levels), severity), np.float64)
            ours = 255 * apply(name, "imagenet", severity, levels[None] / 255, None)
            assert np.abs(ours[0] - expected).max() < 1e-3, (photograph, severity)
