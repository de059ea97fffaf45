"""Gaussian, defocus and zoom blur: linear maps that are built on the host."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import fast
from vone_jax.corruptions import matrices


def gaussian_matrices(deviation: float, shape: tuple[int, int, int]) -> tuple:
    """Row and column matrices of a Gaussian cut off at 4 deviations, border values repeated.

    This is ``skimage.filters.gaussian`` with its defaults, as ImageNet-C calls it.
    """
    return tuple(matrices.gaussian(side, deviation) for side in shape[:2])


def separable(keys: jax.Array, images: jax.Array, arrays: tuple) -> jax.Array:
    """Applies one matrix per axis to images (N, H, W, C); draws nothing."""
    return matrices.separable(images, *arrays)


def zoom_places(parameters: tuple[float, float], shape: tuple[int, int, int]) -> tuple:
    """Where the zooms from 1 to ``stop`` read, see ``matrices.zoom_places``.

    Returns:
      (rows, columns, count): three arrays (factors, side) for either axis, padded with zeros to
      the same number at all severities. ``count`` is the number of zooms to use; the one by 1,
      which is the image itself, is left out.
    """
    stop, step = parameters
    # The benchmark's numpy.arange: rounding decides whether ``stop`` is among the factors.
    factors = np.arange(1, stop, step)[1:]
    missing = ((0, _MOST_FACTORS - len(factors)), (0, 0))

    def padded(side):
        places = zip(*(matrices.zoom_places(side, float(f)) for f in factors), strict=True)
        low, high, weight = (np.pad(np.stack(column), missing) for column in places)
        return low.astype(np.int32), high.astype(np.int32), weight.astype(np.float32)

    return padded(shape[0]), padded(shape[1]), np.int32(len(factors))


def zoom(keys: jax.Array, images: jax.Array, arrays: tuple) -> jax.Array:
    """The mean of the image, once more the image, and its zooms; draws nothing."""
    return fast.one_by_one(functools.partial(_zoomed, arrays=arrays), images)


def _zoomed(images: jax.Array, arrays: tuple) -> jax.Array:
    rows, columns, count = arrays

    def add(index, total):
        low, high, weight = (column[index] for column in rows)
        weight = weight[None, :, None, None]
        between = fast.stage(
            lambda images: (1 - weight) * _read(images, low, 1) + weight * _read(images, high, 1),
            images,
        )
        low, high, weight = (column[index] for column in columns)
        weight = weight[None, None, :, None]
        return total + (1 - weight) * _read(between, low, 2) + weight * _read(between, high, 2)

    total = fast.repeated(count, _MOST_FACTORS, add, 2 * images)
    return total / (count + 2).astype(images.dtype)


def _read(images: jax.Array, places: jax.Array, axis: int) -> jax.Array:
    index = (slice(None),) * axis + (places,)
    return images.at[index].get(mode="promise_in_bounds")


def disk_kernel(parameters: tuple[float, float], shape: tuple[int, int, int]) -> np.ndarray:
    """The kernel of a lens out of focus: a disk with a smoothed border.

    Args:
      parameters: radius of the disk and standard deviation of the smoothing, in pixels.
      shape: (H, W, C) of the images.

    Returns:
      float32 array (21, 21). It sums to 1 where the smoothed disk does not touch its border, and
      to 1.013 at most where it does, as in the benchmark. Smaller kernels are padded with zeros,
      so that one compiled function serves all severities.

    Raises:
      ValueError: if the image is too small to be mirrored at its border.
    """
    radius, smoothing = parameters
    reach = 8 if radius <= 8 else int(radius)
    if min(shape[:2]) <= _LARGEST_REACH:
        raise ValueError(
            f"defocus_blur needs images larger than {_LARGEST_REACH} pixels, got "
            f"{shape[0]}x{shape[1]}"
        )
    across = np.arange(-reach, reach + 1)
    disk = (across[:, None] ** 2 + across[None] ** 2 <= radius**2).astype(np.float64)
    # OpenCV smooths with a window of 3 or 5 taps and mirrors the disk at its border.
    window = 1 if radius <= 8 else 2
    positions = matrices.mirrored(matrices.neighbours(len(across), window), len(across))
    smooth = matrices.from_taps(matrices.gaussian_taps(smoothing, window), positions)
    # The benchmark's kernels are float32.
    smooth = smooth.astype(np.float32)
    kernel = smooth @ (disk / disk.sum()) @ smooth.T
    return np.pad(kernel, _LARGEST_REACH - reach).astype(np.float32)


def disk(keys: jax.Array, images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlates each channel with the kernel, mirroring at the border; draws nothing."""
    return fast.one_by_one(functools.partial(_correlated, kernel=kernel), images)


def _correlated(images: jax.Array, kernel: jax.Array) -> jax.Array:
    reach = _LARGEST_REACH
    count, height, width, channels = images.shape
    border = ((0, 0), (reach, reach), (reach, reach), (0, 0))

    # Channels side by side, so that rows are long enough for vector units.
    def pad(images):
        return jnp.pad(images, border, mode="reflect").reshape(count, height + 2 * reach, -1)

    padded = fast.stage(pad, images)

    # A sum of shifted images, row by row of the kernel: XLA's convolution of single channels is
    # several times slower on a CPU. Opposite rows and columns have the same weights.
    def add_rows(row, total):
        above, below = reach - row, reach + row
        band = jax.lax.dynamic_slice_in_dim(padded, above, height, axis=1)
        band = band + jax.lax.dynamic_slice_in_dim(padded, below, height, axis=1)
        weights = kernel[above] * jnp.where(row == 0, 0.5, 1.0)

        def column(place):
            return band[:, :, channels * place : channels * (place + width)]

        for step in range(1, reach + 1):
            total = total + weights[reach + step] * (column(reach - step) + column(reach + step))
        return total + weights[reach] * column(reach)

    start = jnp.zeros((count, height, width * channels), images.dtype)
    # Smaller kernels have rows of zeros above and below.
    rows = jnp.sum(jnp.any(kernel != 0, axis=1), dtype=jnp.int32) // 2 + 1
    return fast.repeated(rows, reach + 1, add_rows, start).reshape(images.shape)


_LARGEST_REACH = 10
# Of all tables, without the factor 1.
_MOST_FACTORS = 25
