import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from vone_jax import corruptions
from vone_jax.corruptions import frost, weather

KEY = jax.random.key(1)


@pytest.fixture(scope="module")
def photographs():
    """Five images whose values say where they are: (number, row, column)."""
    images = []
    for number, (height, width) in enumerate([(62, 50), (47, 70), (82, 41), (52, 50), (67, 90)]):
        rows, columns = np.mgrid[:height, :width]
        images.append(np.stack([0 * rows + number, rows, columns], -1).astype(np.uint8))
    return corruptions.FrostImages(tuple(images))


def test_frost_adds_a_crop(photographs):
    """0.7 x + 0.7 crop at severity 3, and the crop is in one piece and inside."""
    images = jax.random.uniform(jax.random.key(2), (64, 32, 32, 3)) / 8
    out = corruptions.corrupt(KEY, images, "frost", 3, "imagenet", frost_images=photographs)
    crops = 255 * (np.asarray(out) / 0.7 - np.asarray(images))
    np.testing.assert_allclose(crops, np.round(crops), atol=1e-3)
    crops = np.round(crops).astype(int)
    numbers, tops, lefts = crops[:, 0, 0].T
    for crop, number, top, left in zip(crops, numbers, tops, lefts, strict=True):
        whole = photographs.images[number].astype(int)
        np.testing.assert_array_equal(crop, whole[top : top + 32, left : left + 32])
    assert set(numbers) == {0, 1, 2, 3, 4}
    assert len(set(tops)) > 10 and len(set(lefts)) > 10
    # There are 5 photographs, and a multiple of 5 places in each: one key for both would show here.
    assert 0.05 < np.mean(tops % 5 == numbers) < 0.45


def test_photographs_are_enlarged_for_larger_images(photographs):
    """To one pixel more than the images, also where the table makes the photographs smaller."""
    images = jnp.zeros((32, 48, 48, 3))
    out = corruptions.corrupt(KEY, images, "frost", 1, "imagenet", frost_images=photographs)
    crops = 255 * np.asarray(out) / 0.4
    # The rows count up by one, and 41 columns became 49.
    np.testing.assert_allclose(np.diff(crops[..., 1], axis=1).mean(), 41 / 49, atol=0.02)


def test_photographs_are_interpolated_linearly_up_to_their_borders():
    """SciPy interpolates in the same way between the centres of pixels."""
    levels = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3)).astype(np.uint8)
    photographs = corruptions.FrostImages(tuple(levels))
    _, enlarged, _ = frost.prepare((1.0, 0.4), (7, 5, 3), photographs, 0.2)
    places = np.meshgrid(*((np.arange(2 * side) + 0.5) / 2 - 0.5 for side in (4, 3)), indexing="ij")
    for image, found in zip(levels.astype(float), enlarged, strict=True):
        for plane in range(3):
            expected = ndimage.map_coordinates(image[..., plane], places, order=1, mode="nearest")
            np.testing.assert_allclose(found[..., plane], expected, atol=0.5)


@pytest.mark.parametrize("scale", [0.2, 0.3])
def test_smaller_photographs_are_as_small_as_they_can_be(photographs, scale):
    """In front of images that the scale of the table would not cover."""
    sizes = frost.prepare((1.0, 0.4), (48, 32, 3), photographs, scale)[2]
    assert sizes.min(axis=0).tolist() == [49, 43]


def test_load_frost_checks_the_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="lacks the frost images frost1.png, frost2.png"):
        corruptions.load_frost(tmp_path)
    for name in frost.MD5:
        Image.new("RGBA" if name.endswith("png") else "RGB", (6, 4), (9, 8, 7)).save(
            tmp_path / name, quality=100
        )
    with pytest.raises(ValueError, match="frost1.png is not ImageNet-C's file: its MD5 sum is"):
        corruptions.load_frost(tmp_path)
    loaded = corruptions.load_frost(tmp_path, verify=False)
    assert [image.shape for image in loaded.images] == [(4, 6, 3)] * 5
    assert loaded.images[0][0, 0].tolist() == [9, 8, 7]


@pytest.mark.slow
def test_the_drawn_texture_has_the_statistics_of_photographs():
    """Mean and contrast of crops of the benchmark's five photographs lie in these ranges:
    means 0.44 to 0.80, standard deviations of the grey values 0.06 to 0.14; all are bluish."""
    draws = weather.draw_frost(jax.random.split(KEY, 16), (64, 64, 3), jnp.zeros(2))
    alone = jnp.asarray([1.0, 1.0])
    texture = jax.jit(weather.drawn_frost)(draws, jnp.zeros((16, 64, 64, 3)), alone)
    grey = np.asarray(texture).mean(axis=-1)
    assert 0.4 < grey.mean() < 0.8
    assert 0.06 < grey.std(axis=(1, 2)).mean() < 0.2
    red, green, blue = np.asarray(texture).mean(axis=(0, 1, 2))
    assert red < green < blue
