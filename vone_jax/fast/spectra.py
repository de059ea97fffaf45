"""Cross-correlation of one-channel images with large kernels, with half of the products.

Only the rows are transformed to the frequency domain. Along the rows, a correlation at stride s
with one column of a k x k kernel splits into s correlations of stride 1 with ceil(k / s) taps, one
for each phase of the rows. In the frequency domain these are products, one for each frequency.
There, products of matrices sum over phases and columns of the kernel, and each filter is
transformed back once. The published bank at 224 pixels takes 45 % of the products of a direct
convolution, and so does its gradient. Transforming the columns as well would leave fewer products,
but of matrices so small that memory would limit their speed.

The transforms are products with small matrices, so all operations are linear in the images:
derivatives, ``vmap`` and a batch that is split over devices need no rules of their own.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vone_jax.fast import switch
from vone_jax.fast.convolution import convolve

# A CPU uses the frequency domain for at most this share of the products of a convolution. Above it,
# the memory traffic of the transforms outweighs the products that are saved.
_WORTHWHILE = 2 / 3

# The largest number of rows of responses that are transformed together. More rows would take more
# products for the inverse transform than they save where tiles overlap.
_MOST_ROWS = 64


def correlate(images: jax.Array, kernels: np.ndarray, stride: int) -> jax.Array:
    """Cross-correlate one-channel images with kernels, with zero padding k // 2 on all sides.

    The plain form is a convolution. The fast form uses the frequency domain on CPUs if that saves
    at least a third of the products; other platforms convolve.

    Args:
      images: float32 (N, H, W, 1).
      kernels: float32 (k, k, 1, n), k odd.
      stride: in pixels.

    Returns:
      float32 (N, ceil(H/stride), ceil(W/stride), n).
    """
    size = kernels.shape[0]
    padding = size // 2

    def directly(images):
        return convolve(images, jnp.asarray(kernels), (stride, stride), [(padding, padding)] * 2)

    def in_frequency_domain(images):
        return by_spectra(images[..., 0], kernels[:, :, 0], stride)

    positions = (images.shape[1] + 2 * padding - size) // stride + 1
    if not switch.enabled() or share_of_products(size, stride, positions) > _WORTHWHILE:
        return directly(images)
    return switch.by_platform(images, cpu=in_frequency_domain, default=directly)


@dataclasses.dataclass(frozen=True)
class _Tiles:
    """The tiles into which the rows of responses are cut."""

    number: int
    rows: int  # of responses in a tile
    taps: int  # of the kernel in each phase of the rows

    @classmethod
    def of(cls, size: int, stride: int, positions: int) -> "_Tiles":
        number = -(-positions // _MOST_ROWS)
        return cls(number, rows=-(-positions // number), taps=-(-size // stride))

    @property
    def points(self) -> int:
        """The number of rows of one phase that a tile reads, rounded up to an even number."""
        return (self.rows + self.taps) // 2 * 2

    def waves(self) -> np.ndarray:
        """Return exp(-2 pi i (f + 1/2) x / points), complex128 (points / 2, points).

        At odd multiples of half a frequency a real signal has points / 2 complex coefficients and
        no real ones. Responses that such a transform wraps around change their sign, but none of
        these responses is used.
        """
        frequency = np.arange(self.points // 2) + 0.5
        return np.exp(-2j * np.pi * np.outer(frequency, np.arange(self.points)) / self.points)


def share_of_products(size: int, stride: int, positions: int) -> float:
    """Return the products of ``by_spectra`` as a share of those of a direct convolution.

    The small transforms of images and kernels are left out. The share is above 1 if a direct
    convolution takes fewer products. ``positions`` is the number of rows of responses.
    """
    tiles = _Tiles.of(size, stride, positions)
    # A complex product is four real ones; the inverse transform is a matrix of rows x points.
    products = tiles.points // 2 * 4 * stride * size + tiles.rows * tiles.points
    return tiles.number * products / (positions * size * size)


def by_spectra(images: jax.Array, kernels: np.ndarray, stride: int) -> jax.Array:
    """Cross-correlate images with kernels in the frequency domain of the rows.

    The correlation of two signals is the product of one spectrum with the conjugate of the other.
    The result equals a direct correlation up to the rounding of float32. That rounding depends on
    all pixels of the columns that a response reads: pixels outside of its window contribute
    rounding errors. A pixel that is not finite makes all responses that read its column in the same
    tile of rows not finite.

    Args:
      images: float32 (N, H, W).
      kernels: float32 (k, k, n).
      stride: in pixels.

    Returns:
      float32 (N, H', W', n), H' = (H + 2 (k // 2) - k) // stride + 1.
    """
    size = kernels.shape[0]
    height, width = ((side + size // 2 * 2 - size) // stride + 1 for side in images.shape[1:])
    tiles = _Tiles.of(size, stride, height)
    windows = _windows(_spectra_of_images(images, size, stride, tiles, width), size, stride, width)
    spectra = _spectra_of_kernels(kernels, stride, tiles)
    # The axis of images is never merged with an axis before it. On a mesh that splits the images,
    # the merge would gather them on all devices.
    products = jnp.einsum("fpntwk,fkc->fpntwc", windows, spectra)
    back = 2 / tiles.points * tiles.waves()[:, : tiles.rows].conj()
    back = _interleaved(np.real(back), -np.imag(back)).T
    rows = jnp.matmul(back, products.reshape(tiles.points, -1))
    shape = images.shape[0], tiles.number, width, kernels.shape[2]
    rows = rows.reshape(tiles.rows, *shape).transpose(1, 2, 0, 3, 4)
    return rows.reshape(shape[0], tiles.number * tiles.rows, *shape[2:])[:, :height]


def _spectra_of_images(
    images: jax.Array, size: int, stride: int, tiles: _Tiles, width: int
) -> jax.Array:
    """Transform the rows of each phase: (frequencies, 2, 2, N, tiles, blocks, stride ** 2).

    The first axis of length 2 has the spectra X and -iX, the second their real and imaginary parts.
    Columns are cut into blocks of the stride; the last axis has the phases of columns, then rows.
    """
    padding = size // 2
    number, height, last = images.shape
    # Neighbouring tiles overlap, because a tile reads more rows than it has rows of responses.
    length = (tiles.number - 1) * tiles.rows + tiles.points
    blocks = width - 1 + -(-size // stride)
    beyond = length * stride - height - padding, blocks * stride - last - padding
    zero = jnp.zeros((), images.dtype)
    padded = lax.pad(images, zero, [(0, 0, 0), (padding, beyond[0], 0), (padding, beyond[1], 0)])
    phases = padded.reshape(number, length, stride, blocks, stride).transpose(1, 0, 3, 4, 2)
    starts = range(0, tiles.number * tiles.rows, tiles.rows)
    cut = jnp.stack([phases[start : start + tiles.points] for start in starts], axis=2)
    waves = tiles.waves()
    # The imaginary part of a product is the real part of the product with -iX.
    real, imaginary = np.real(waves), np.imag(waves)
    waves = _interleaved(real, imaginary, imaginary, -real)
    spectra = jnp.matmul(waves, cut.reshape(tiles.points, -1))
    return spectra.reshape(tiles.points // 2, 2, 2, *cut.shape[1:4], stride * stride)


def _windows(spectra: jax.Array, size: int, stride: int, width: int) -> jax.Array:
    """Gather the columns of each response: (frequencies, 2, N, tiles, W', 2 * size * stride)."""
    starts = range(0, size, stride)
    windows = [
        spectra[:, :, part, :, :, block : block + width, : min(stride, size - start) * stride]
        for part in range(2)
        for block, start in enumerate(starts)
    ]
    return jnp.concatenate(windows, axis=-1)


def _spectra_of_kernels(kernels: np.ndarray, stride: int, tiles: _Tiles) -> jax.Array:
    """Transform kernels by column and phase: (frequencies, 2 * size * stride, n).

    The second axis has real parts, then imaginary parts.
    """
    size, _, count = kernels.shape
    # Without the barrier XLA computes the spectra while it compiles, which is slow, and stores them
    # in the program, where they are several times as large as the kernels. At run time they take
    # 2 % of the products for one image of 224 pixels.
    kernel = lax.optimization_barrier(jnp.asarray(kernels))
    kernel = jnp.pad(kernel, ((0, tiles.taps * stride - size), (0, 0), (0, 0)))
    phases = kernel.reshape(tiles.taps, stride, size, count).swapaxes(1, 2)
    waves = tiles.waves()[:, : tiles.taps]
    spectra = jnp.matmul(
        _interleaved(np.real(waves), np.imag(waves)), phases.reshape(tiles.taps, -1)
    )
    return spectra.reshape(tiles.points // 2, -1, count)


def _interleaved(*matrices: np.ndarray) -> np.ndarray:
    """Return the first rows of all matrices, then the second rows, and so on, in float32."""
    return np.stack(matrices, axis=1).reshape(-1, matrices[0].shape[1]).astype(np.float32)
