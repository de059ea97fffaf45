"""Blurs as linear maps that are built on the host, once per size and severity.

The separable ones are one matrix per axis with the treatment of the border folded in, so that
on the device a blur is two matrix products.
"""

import jax
import jax.numpy as jnp
import numpy as np

# The default on accelerators would round the operands: errors up to one grey level.
_PRECISION = jax.lax.Precision.HIGHEST


def gaussian_matrices(deviation: float, shape: tuple[int, int, int]) -> tuple:
    """Row and column matrices of a Gaussian cut off at 4 deviations, border values repeated.

    This is ``skimage.filters.gaussian`` with its defaults, as ImageNet-C calls it.
    """
    radius = int(4 * deviation + 0.5)
    taps = _gaussian_taps(deviation, radius)
    return tuple(
        _matrix(taps, np.clip(_neighbours(side, radius), 0, side - 1)) for side in shape[:2]
    )


def separable(keys: jax.Array, images: jax.Array, matrices: tuple) -> jax.Array:
    """Applies one matrix per axis to images (N, H, W, C); draws nothing."""
    rows, columns = matrices
    images = jnp.einsum("ih,nhwc->niwc", rows, images, precision=_PRECISION)
    return jnp.einsum("jw,niwc->nijc", columns, images, precision=_PRECISION)


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
    smooth = _matrix(
        _gaussian_taps(smoothing, window), _mirrored(_neighbours(len(across), window), len(across))
    )
    kernel = smooth @ (disk / disk.sum()) @ smooth.T
    return np.pad(kernel, _LARGEST_REACH - reach).astype(np.float32)


def disk(keys: jax.Array, images: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlates each channel with the kernel, mirroring at the border; draws nothing."""
    reach = _LARGEST_REACH
    padded = jnp.pad(images, ((0, 0), (reach, reach), (reach, reach), (0, 0)), mode="reflect")
    planes = jnp.moveaxis(padded, -1, 1).reshape(-1, *padded.shape[1:3], 1)
    blurred = jax.lax.conv_general_dilated(
        planes,
        kernel[:, :, None, None],
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=_PRECISION,
    )
    count, height, width, channels = images.shape
    return jnp.moveaxis(blurred.reshape(count, channels, height, width), 1, -1)


_LARGEST_REACH = 10


def _gaussian_taps(deviation: float, radius: int) -> np.ndarray:
    taps = np.exp(-0.5 * (np.arange(-radius, radius + 1) / deviation) ** 2)
    return taps / taps.sum()


def _neighbours(side: int, radius: int) -> np.ndarray:
    """Positions read for each output position, shape (side, 2 radius + 1), borders ignored."""
    return np.arange(side)[:, None] + np.arange(-radius, radius + 1)[None]


def _mirrored(positions: np.ndarray, side: int) -> np.ndarray:
    """Reflection that does not repeat the border value (OpenCV's default)."""
    positions = np.abs(positions)
    return np.where(positions >= side, 2 * (side - 1) - positions, positions)


def _matrix(taps: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The linear map that reads ``positions`` with weights ``taps``."""
    side = len(positions)
    matrix = np.zeros((side, side))
    np.add.at(matrix, (np.arange(side)[:, None], positions), np.broadcast_to(taps, positions.shape))
    return matrix.astype(np.float32)
