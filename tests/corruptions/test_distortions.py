"""The distortions of studies with human observers, against NumPy and SciPy in float64."""

import math

import jax
import numpy as np
import pytest
import scipy.ndimage

from vone_jax import corruptions, prng
from vone_jax.corruptions import noise

SIDE = 28
LEVELS = {
    "contrast": 0.3, "uniform_noise": 0.1, "low_pass": 10.0, "high_pass": 10.0, "phase_noise": 60.0,
}  # fmt: skip


def images(number=3, channels=3):
    # Far from 0 and 1, so that nothing is clipped.
    raw = np.random.default_rng(0).uniform(0.4, 0.6, (number, SIDE, SIDE, channels))
    return np.float32(raw)


def keys(number=3):
    return jax.random.split(jax.random.key(3), number)


def grey(batch):
    return batch.astype(np.float64) @ [0.2125, 0.7154, 0.0721]


def uniform(name):
    return np.asarray(noise.uniform(prng.stream(keys(), f"distortion {name}"), (SIDE, SIDE, 1)))


def blurred(image, level):
    return scipy.ndimage.gaussian_filter(image, level * SIDE / 224, mode="constant", cval=0.4423)


def high_passed(image, level):
    high = image - blurred(image, level)
    return high + 0.4423 - high.mean()


def phase_draws():
    key = prng.stream(keys(), "distortion phase_noise")
    return np.asarray(noise.uniform(key, ((SIDE - 1) ** 2 // 2,)))


def phase_shifted(image, draws, level):
    """In the published order: both halves of the coefficients from low to high frequencies."""
    spectrum = np.fft.fftshift(np.fft.fft2(image))
    places = [(row, column) for row in range(1, SIDE) for column in range(1, SIDE)]
    first, centre, second = np.split(places, [len(draws), len(draws) + 1])
    assert tuple(centre[0]) == (SIDE // 2, SIDE // 2)
    for place, opposite, draw in zip(first, second, draws, strict=True):
        spectrum[tuple(place)] *= np.exp(1j * math.radians(level) * draw)
        spectrum[tuple(opposite)] *= np.exp(-1j * math.radians(level) * draw)
    return np.fft.ifft2(np.fft.ifftshift(spectrum)).real


def expected(name, level):
    reference = {
        "contrast": lambda n, x: level * x + (1 - level) / 2,
        "uniform_noise": lambda n, x: 0.35 + 0.3 * x + level * uniform(name)[n, ..., 0],
        "low_pass": lambda n, x: blurred(x, level),
        "high_pass": lambda n, x: high_passed(x, level),
        "phase_noise": lambda n, x: phase_shifted(x, phase_draws()[n], level),
    }[name]
    return np.stack([reference(n, x) for n, x in enumerate(grey(images()))])


@pytest.mark.parametrize("name", LEVELS)
def test_distortions_are_those_of_their_definitions(name):
    assert set(LEVELS) == set(corruptions.DISTORTIONS)
    distorted = np.asarray(corruptions.distort(keys(), images(), name, LEVELS[name]))
    for channel in range(3):
        wanted = expected(name, LEVELS[name])
        np.testing.assert_allclose(distorted[..., channel], wanted, atol=2e-6)


@pytest.mark.parametrize("name", LEVELS)
def test_an_image_is_distorted_in_the_same_way_in_any_batch(name):
    whole = corruptions.distort(keys(), images(), name, LEVELS[name])
    alone = corruptions.distort(keys()[1:2], images()[1:2], name, LEVELS[name])
    np.testing.assert_array_equal(whole[1:2], alone)
    if name in ("uniform_noise", "phase_noise"):
        other = corruptions.distort(keys()[2:], images()[1:2], name, LEVELS[name])
        assert abs(np.asarray(other) - alone).max() > 0.01


def test_the_easiest_levels_leave_the_grey_image():
    for name, level in (("contrast", 1.0), ("low_pass", 0.0), ("phase_noise", 0.0)):
        kept = corruptions.distort(keys(), images(), name, level)
        np.testing.assert_allclose(kept[..., 0], grey(images()), atol=1e-6)
    # An infinite filter takes only the mean away.
    kept = np.asarray(corruptions.distort(keys(), images(), "high_pass", math.inf))[..., 0]
    moved = kept - grey(images())
    np.testing.assert_allclose(moved - moved.mean(axis=(1, 2), keepdims=True), 0, atol=1e-6)


@pytest.mark.parametrize("level", [60.0, 90.0, 120.0, 180.0])
def test_phase_noise_lowers_the_contrast_as_independent_shifts_of_conjugates_do(level):
    """Their mean has the power (1 + s^2) / 2 with s = sin(w) / w, and Nyquist stays."""
    still, width = images(4)[..., :1], math.radians(level)
    shifted = corruptions.distort(keys(4), still, "phase_noise", level)
    before, after = (np.fft.fft2(each[..., 0]) for each in (np.float64(still), np.float64(shifted)))
    nyquist = np.s_[:, SIDE // 2]
    np.testing.assert_allclose(after[nyquist], before[nyquist], atol=1e-4)
    np.testing.assert_allclose(after[:, 0, 0], before[:, 0, 0], rtol=1e-6)
    others = np.ones((SIDE, SIDE), bool)
    others[0, 0] = others[SIDE // 2] = others[:, SIDE // 2] = False
    kept = np.sum(abs(after[:, others]) ** 2) / np.sum(abs(before[:, others]) ** 2)
    assert kept == pytest.approx((1 + (math.sin(width) / width) ** 2) / 2, rel=0.05)


def test_one_channel_is_taken_as_it_is_and_values_stay_in_range():
    extreme = np.float32(np.random.default_rng(1).integers(0, 2, (2, SIDE, SIDE, 1)))
    for name, level in LEVELS.items():
        made = np.asarray(corruptions.distort(keys(2), extreme, name, level))
        assert made.shape == extreme.shape and made.min() >= 0 and made.max() <= 1
    blurred_once = corruptions.distort(keys(2), extreme, "low_pass", 10.0)[0, ..., 0]
    np.testing.assert_allclose(blurred_once, blurred(extreme[0, ..., 0], 10.0), atol=1e-6)


def reduced(values):
    for axis in (0, 1):
        values = scipy.ndimage.correlate1d(
            values, [1 / 16, 0.25, 0.375, 0.25, 1 / 16], axis, mode="mirror"
        )
    return values[::2, ::2]


def expanded(values, shape):
    larger = np.zeros(shape)
    larger[::2, ::2] = values
    for axis in (0, 1):
        larger = scipy.ndimage.correlate1d(
            larger, [1 / 8, 0.5, 0.75, 0.5, 1 / 8], axis, mode="mirror"
        )
    return larger


def pyramid(white):
    """The bands of an image, from low to high, each brought back to full size."""
    stack = [white]
    while min(stack[-1].shape) >= 5:
        stack.append(reduced(stack[-1]))
    bands = []
    for level, values in enumerate(stack):
        if level + 1 < len(stack):
            values = values - expanded(stack[level + 1], values.shape)
        for larger in stack[:level][::-1]:
            values = expanded(values, larger.shape)
        bands.append(values)
    return bands[::-1]


def test_noise_of_a_band_is_a_level_of_a_laplacian_pyramid_with_equal_power():
    white = np.asarray(noise.normal(prng.stream(keys(), "band noise"), (SIDE, SIDE, 1)))
    bands = pyramid(white[1, ..., 0].astype(float))
    np.testing.assert_allclose(sum(bands), white[1, ..., 0], atol=1e-12)
    image = grey(images())[1]
    plain = (image - image.mean()) * 0.2 + 0.449
    published = (1.75, 3.5, 7.0, 14.0, 28.0, 56.0, 112.0)
    assert corruptions.band_centres(SIDE, SIDE) == published[:4] and len(bands) == 4
    assert corruptions.band_centres(224, 224) == published
    for number, band in enumerate(bands):
        masked = np.asarray(corruptions.mask(keys(), images(), number, 0.02))
        scale = np.sqrt(np.mean(bands[-1] ** 2) / np.mean(band**2))
        np.testing.assert_allclose(masked[1, ..., 2], plain + 0.02 * scale * band, atol=2e-6)
        alone = corruptions.mask(keys()[1:2], images()[1:2], number, 0.02)
        np.testing.assert_array_equal(masked[1:2], alone)


def test_noise_that_leaves_the_range_is_kept_and_the_image_is_moved():
    white = np.asarray(noise.normal(prng.stream(keys(), "band noise"), (SIDE, SIDE, 1)))
    plain = (grey(images()) - grey(images()).mean(axis=(1, 2), keepdims=True)) * 0.2 + 0.449
    left = 0
    for number in (1, 3):
        masked = np.asarray(corruptions.mask(keys(), images(), number, 0.5))[..., 0]
        for place in range(3):
            bands = pyramid(white[place, ..., 0].astype(float))
            scale = np.sqrt(np.mean(bands[-1] ** 2) / np.mean(bands[number] ** 2))
            added = 0.5 * scale * bands[number]
            total, shown = plain[place] + added, masked[place]
            inside = (total > 0) & (total < 1)
            np.testing.assert_allclose(shown[inside], total[inside], atol=1e-5)
            # The noise and a pixel in [0, 1] make the sum, which is a tenth from the end.
            moved = np.where(total < 0, 0.1, 0.9)
            fits = ~inside & (moved - added >= 0) & (moved - added <= 1)
            np.testing.assert_allclose(shown[fits], moved[fits], atol=1e-6)
            replaced = shown[~inside & ~fits]
            assert np.all((replaced > 0) & (replaced < 1)) and len(set(replaced)) == len(replaced)
            left += len(replaced)
    assert left > 20


def test_levels_and_bands_that_do_not_exist_are_refused():
    for name, level in (("contrast", 1.5), ("low_pass", math.inf), ("phase_noise", -1.0)):
        with pytest.raises(ValueError, match="level"):
            corruptions.distort(keys(), images(), name, level)
    with pytest.raises(ValueError, match="band"):
        corruptions.mask(keys(), images(), 4, 0.02)
    with pytest.raises(ValueError, match="images"):
        corruptions.mask(keys(), 255 * images(), 0, 0.02)
