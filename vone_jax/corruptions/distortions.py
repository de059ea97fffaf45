"""Distortions of studies with human observers, on grey photographs.

``distort`` has the five of Geirhos et al., Generalisation in humans and deep neural networks, 2018,
arXiv:1808.08750, whose levels are not severities but what the observers saw. ``mask`` adds the
noise of critical-band masking: Subramanian et al., Spatial-frequency channels, shape bias, and
adversarial robustness, 2023, arXiv:2309.13190. Lengths are for images of 224 pixels and are scaled
to others.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key

from vone_jax import arguments, prng
from vone_jax.corruptions import matrices, noise
from vone_jax.corruptions.catalogue import Corruption, check_images
from vone_jax.corruptions.levels import Images, Keys, Shape, channels
from vone_jax.filters import filter_matrix

# Weights of red, green and blue in a grey image, as in scikit-image.
_GREY = (0.2125, 0.7154, 0.0721)
# The mean grey of the authors' photographs: what filters see outside of an image.
_MEAN = 0.4423
_SIDE = 224
# Uniform noise is added at this contrast.
_CONTRAST = 0.3
# Contrast and mean of images behind band noise, and the filter of the pyramid that makes the bands.
_MASKED_CONTRAST, _MASKED_MEAN = 0.2, 0.449
# Where noise takes a pixel out of [0, 1], the image is moved so that this much is left to the end.
_MASKED_MARGIN = 0.1
_BINOMIAL = np.array([1, 4, 6, 4, 1]) / 16


def _with_contrast(images: Images, contrast: Any) -> Images:
    return (1 - contrast) / 2 + contrast * images


def contrast(draws: Any, images: Images, level: Float[Array, ""]) -> Images:
    """Move values towards grey; 1 keeps the image."""
    return _with_contrast(images, level)


def draw_uniform(keys: Keys, shape: Shape, arrays: Any) -> Float[Array, "n h w 1"]:
    """Draw a number for each pixel, uniform in (-1, 1)."""
    return noise.uniform(keys, (*shape[:2], 1))


def uniform_noise(draws: Array, images: Images, level: Float[Array, ""]) -> Images:
    """Add noise, uniform between -level and level, to images of low contrast."""
    return _with_contrast(images, _CONTRAST) + level * draws


def prepare_filter(deviation: float, shape: Shape) -> tuple[np.ndarray, ...]:
    """Return the matrices of a Gaussian filter that sees zeros outside of the image."""
    if deviation == math.inf:
        return tuple(np.zeros((side, side), np.float32) for side in shape[:2])
    return matrices.gaussian(deviation * max(shape[:2]) / _SIDE, shape, "constant")


def low_pass(draws: Any, images: Images, arrays: tuple[Array, Array]) -> Images:
    """Blur; the surroundings of the image are grey."""
    return _MEAN + matrices.separable(images - _MEAN, *arrays)


def high_pass(draws: Any, images: Images, arrays: tuple[Array, Array]) -> Images:
    """Subtract the blurred image, and bring the mean to grey."""
    high = images - low_pass(draws, images, arrays)
    return high - jnp.mean(high, axis=(1, 2, 3), keepdims=True) + _MEAN


def draw_phase_shifts(keys: Keys, shape: Shape, arrays: Any) -> Float[Array, "n draws"]:
    """Draw a number, uniform in (-1, 1), for half of the frequencies that are shifted."""
    return noise.uniform(keys, (math.prod(_shifted(shape)) // 2,))


def _shifted(shape: Shape | tuple[int, ...]) -> tuple[int, ...]:
    """The rows and columns of a spectrum without those of the Nyquist frequency."""
    return tuple(side - 1 + side % 2 for side in shape[:2])


def phase_noise(draws: Array, images: Images, level: Float[Array, ""]) -> Images:
    """Shift the phase of each Fourier coefficient by at most ``level`` degrees, as published.

    The published code means to move each coefficient and its conjugate by opposite shifts. But the
    second half of the spectrum gets the shifts in the order of the first half and not in the
    mirrored order. So two conjugates move independently, and the real part of the result is taken:
    a frequency is multiplied by (exp(i a) + exp(i b)) / 2 with independent shifts a and b, and
    loses amplitude. The frequency 0 and those of the Nyquist row and column stay as they are.
    """
    height, width = images.shape[1:3]
    rows, columns = _shifted((height, width))
    shifts = jnp.concatenate([draws, jnp.zeros((len(draws), 1), draws.dtype), -draws], axis=1)
    shifts = shifts.reshape(-1, rows, columns) * jnp.deg2rad(level)
    # The frequency 0 is in the centre of these, and Nyquist in the first row and column.
    shifts = jnp.pad(shifts, ((0, 0), (height - rows, 0), (width - columns, 0)))
    shifts = jnp.fft.ifftshift(shifts, axes=(1, 2))[..., None]
    turned = jax.lax.complex(jnp.cos(shifts), jnp.sin(shifts))
    return jnp.real(jnp.fft.ifft2(jnp.fft.fft2(images, axes=(1, 2)) * turned, axes=(1, 2)))


DISTORTIONS = {
    "contrast": Corruption(contrast),
    "uniform_noise": Corruption(uniform_noise, draw=draw_uniform),
    "low_pass": Corruption(low_pass, prepare_filter),
    "high_pass": Corruption(high_pass, prepare_filter),
    "phase_noise": Corruption(phase_noise, draw=draw_phase_shifts),
}


def distort(
    key: Key[Array, ""] | Keys,
    images: Images | Float[np.ndarray, "n h w c"],
    name: str,
    level: float,
) -> Images:
    """Distort images as human observers saw them, after they are made grey.

    Args:
      key: one typed key, or one key for each image, as for ``corrupt``. The random numbers are the
        same at every level.
      images: float32 in [0, 1], with 1 or 3 channels.
      name: one of ``DISTORTIONS``.
      level: contrast in [0, 1]; half the width of uniform noise, which is added at a contrast of
        0.3; the standard deviation of a low- or high-pass filter in pixels of 224, where infinity
        lets all but the mean pass through a high-pass filter; or the largest shift of phases, in
        degrees.

    Returns:
      Grey images in [0, 1], of the same shape and dtype.

    Raises:
      ValueError, TypeError: for a name, a level, a key or images that do not fit.
    """
    arguments.choice("name", name, DISTORTIONS)
    if (name, level) != ("high_pass", math.inf):
        most = 1.0 if name == "contrast" else math.inf
        arguments.number("level", level, arguments.Range(0.0, most))
    images = check_images(images)
    keys = prng.example_keys(key, images.shape[0])
    shape: Any = images.shape[1:]
    return _distort(name, keys, images, DISTORTIONS[name].prepare(level, shape))


@functools.partial(jax.jit, static_argnames="name")
def _distort(name: str, keys: jax.Array, images: jax.Array, arrays: Any) -> jax.Array:
    keys = prng.stream(keys, f"distortion {name}")
    shape: Any = images.shape[1:]
    draws = DISTORTIONS[name].draw(keys, shape, arrays)
    return _as_given(DISTORTIONS[name].apply(draws, _grey(images), arrays), images)


def _grey(images: jax.Array) -> jax.Array:
    images = images.astype(jnp.float32)
    if images.shape[-1] == 1:
        return images
    red, green, blue = channels(images)
    return _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue


def _as_given(grey: jax.Array, images: jax.Array) -> jax.Array:
    """Clipped grey images, with the channels and the dtype of given images."""
    return jnp.broadcast_to(jnp.clip(grey, 0.0, 1.0), images.shape).astype(images.dtype)


def band_centres(height: int, width: int) -> tuple[float, ...]:
    """The centres of the octave bands of ``mask`` in cycles per image, from low to high.

    There are 7 bands at 224 pixels, from 1.75 to 112, and fewer in smaller images. The centres are
    those that the authors give. The noise itself is lower: between the two ends, the mean frequency
    of its power is about half of the centre.
    """
    return tuple(min(height, width) / 2**number for number in range(_bands(height, width), 0, -1))


def _bands(height: int, width: int) -> int:
    """The number of bands: the side is halved until the pyramid's filter does not fit."""
    side, number = min(height, width), 1
    while side >= len(_BINOMIAL):
        side, number = -(-side // 2), number + 1
    return number


@functools.lru_cache(maxsize=64)
def _blur(side: int, times: int) -> np.ndarray:
    """Blur and sample an axis several times, and bring it back: a level of the pyramid."""
    matrix = np.eye(side)
    sides = [side]
    for _ in range(times):
        matrix = filter_matrix(sides[-1], _BINOMIAL, "mirror")[::2] @ matrix
        sides.append(len(matrix))
    for length in sides[-2::-1]:
        matrix = 2 * filter_matrix(length, _BINOMIAL, "mirror")[:, ::2] @ matrix
    return matrix.astype(np.float32)


def mask(
    key: Key[Array, ""] | Keys,
    images: Images | Float[np.ndarray, "n h w c"],
    band: int,
    deviation: float,
) -> Images:
    """Make images grey and low in contrast, and add noise of one octave.

    White noise is filtered to a level of a Laplacian pyramid. In each image, its power is that of
    the finest level, so it is the same in all bands. Where the sum leaves [0, 1], the pixel of the
    image is moved and the noise is kept, as the authors do: the sum becomes 0.1 or 0.9. Where the
    moved pixel would leave [0, 1] itself, the noise is replaced by white noise that fits.

    Args:
      key: one typed key, or one key for each image. The white noise is the same in all bands and at
        all deviations.
      images: float32 in [0, 1], with 1 or 3 channels.
      band: position in ``band_centres``.
      deviation: standard deviation of the white noise; the observers saw 0.02 to 0.16.

    Returns:
      Grey images in [0, 1], of the same shape and dtype: contrast 0.2 around a mean of 0.449.

    Raises:
      ValueError, TypeError: for a band, a deviation, a key or images that do not fit.
    """
    images = check_images(images)
    height, width = images.shape[1:3]
    last = _bands(height, width) - 1
    arguments.count("band", band, 0, most=last)
    arguments.number("deviation", deviation)
    keys = prng.example_keys(key, images.shape[0])
    level = last - band
    sides = (height, width)
    blurs = [[_blur(side, times) for side in sides] for times in (level, level + 1, 1)]
    if level == last:  # What is left at the top of the pyramid has all lower frequencies.
        blurs[1] = [np.zeros_like(each) for each in blurs[0]]
    return _mask(keys, images, blurs, np.float32(deviation))


@jax.jit
def _mask(keys: jax.Array, images: jax.Array, blurs: Any, deviation: jax.Array) -> jax.Array:
    grey = _grey(images)
    mean = jnp.mean(grey, axis=(1, 2, 3), keepdims=True)
    white = noise.normal(prng.stream(keys, "band noise"), grey.shape[1:])
    fine, coarse, first = (matrices.separable(white, *each) for each in blurs)

    def size(values: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.mean(values**2, axis=(1, 2, 3), keepdims=True))

    band = fine - coarse
    added = deviation * band * size(white - first) / size(band)
    plain = (grey - mean) * _MASKED_CONTRAST + _MASKED_MEAN
    below, above = plain + added < 0, plain + added > 1
    moved = jnp.where(below, _MASKED_MARGIN, 1 - _MASKED_MARGIN)
    fits = jnp.where(below, moved - added <= 1, moved - added >= 0)
    fitting = plain + deviation * jax.vmap(jax.random.truncated_normal)(
        prng.stream(keys, "noise that fits"), -plain / deviation, (1 - plain) / deviation
    )
    outside = jnp.where(fits, moved, fitting)
    return _as_given(jnp.where(below | above, outside, plain + added), images)
