"""Cross-correlation with large kernels in half of the products: rows in the frequency domain.

Down the rows of an image a kernel of k x k at stride s is, for each of its columns, s
correlations of stride 1 with ceil(k / s) taps, one for each phase of the rows. In the frequency
domain these are products, one for each frequency, and sums over phases and columns of the
kernel are taken there, as products of matrices; only then each filter is brought back to rows. The
published bank at 224 pixels takes 45 % of the products of a direct convolution, and its gradient
as well. Columns stay as they are: in the frequency domain too there would be fewer products yet,
but of matrices so small that memory bounds them.

The transforms are products with small matrices, so everything here is linear for JAX as it
stands: derivatives, ``vmap`` and a batch cut over devices need no rule of their own.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# Rows of responses that are transformed together, at most: more would take more products for
# the way back than they save in taps at the ends.
_MOST_ROWS = 64


@dataclasses.dataclass(frozen=True)
class _Tiles:
    """How the rows of responses are cut.

    Attributes:
      number: of tiles, beside each other.
      rows: of responses in a tile.
      taps: of the kernel in each phase of the rows.
    """

    number: int
    rows: int
    taps: int

    @classmethod
    def of(cls, size: int, stride: int, positions: int) -> "_Tiles":
        number = -(-positions // _MOST_ROWS)
        return cls(number, rows=-(-positions // number), taps=-(-size // stride))

    @property
    def points(self) -> int:
        """Rows of one phase that a tile reads, brought to an even number."""
        return (self.rows + self.taps) // 2 * 2

    def waves(self) -> np.ndarray:
        """exp(-2 pi i (f + 1/2) x / points), complex128 (points / 2, points).

        At odd multiples of half a frequency a real signal has points / 2 complex coefficients and
        no real ones. Responses that such a transform wraps around change their sign; none of
        them is used.
        """
        frequency = np.arange(self.points // 2) + 0.5
        return np.exp(-2j * np.pi * np.outer(frequency, np.arange(self.points)) / self.points)


def share_of_products(size: int, stride: int, positions: int) -> float:
    """Products that ``correlate`` takes over those of a direct convolution.

    Args:
      size: k of the kernels, which are k x k.
      stride: in pixels.
      positions: rows of responses.

    Returns:
      Of the products for all responses, without the small transforms of images and kernels; above
      1 where a direct convolution takes fewer.
    """
    tiles = _Tiles.of(size, stride, positions)
    # A product of complex numbers is four; the way back is a matrix of rows x points.
    of_tile = tiles.points // 2 * 4 * stride * size + tiles.rows * tiles.points
    return tiles.number * of_tile / (positions * size * size)


def correlate(images: jax.Array, kernels: np.ndarray, stride: int) -> jax.Array:
    """Cross-correlation of images of one channel, with symmetric zero padding of k // 2.

    Each phase of the rows is correlated as in the module's description, by the theorem that a
    correlation is the product of one spectrum with the conjugate of the other. Equal to a direct
    convolution up to the rounding of float32, which depends on all pixels of the
    columns that a response reads: what lies outside of its window contributes rounding, and a pixel
    that is not finite reaches as far.

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
    # The axis of images is never joined with one before it: on a mesh, where the images are
    # cut, that would gather them on all devices.
    products = jnp.einsum("fpntwk,fkc->fpntwc", windows, spectra)
    back = 2 / tiles.points * tiles.waves()[:, : tiles.rows].conj()
    back = np.stack([back.real, -back.imag], axis=1).reshape(-1, tiles.rows).T
    rows = jnp.matmul(back.astype(np.float32), products.reshape(tiles.points, -1))
    shape = images.shape[0], tiles.number, width, kernels.shape[2]
    rows = rows.reshape(tiles.rows, *shape).transpose(1, 2, 0, 3, 4)
    return rows.reshape(shape[0], tiles.number * tiles.rows, *shape[2:])[:, :height]


def _spectra_of_images(images, size, stride, tiles, width):
    """X and -iX of the rows of each phase: (frequencies, 2, 2, N, tiles, blocks, stride ** 2).

    The first pair is X and -iX, the second the real and the imaginary part. Columns are taken in
    blocks of the stride; a block has its phases of columns and, last, of rows.
    """
    padding = size // 2
    number, height, last = images.shape
    # The tiles overlap in the rows that their points have beyond the rows of responses.
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
    waves = np.stack([waves.real, waves.imag, waves.imag, -waves.real], axis=1)
    waves = waves.reshape(-1, tiles.points).astype(np.float32)
    spectra = jnp.matmul(waves, cut.reshape(tiles.points, -1))
    return spectra.reshape(tiles.points // 2, 2, 2, *cut.shape[1:4], stride * stride)


def _windows(spectra, size, stride, width):
    """The columns that each response reads: (frequencies, 2, N, tiles, W', 2 * size * stride)."""
    starts = range(0, size, stride)
    windows = [
        spectra[:, :, part, :, :, block : block + width, : min(stride, size - start) * stride]
        for part in range(2)
        for block, start in enumerate(starts)
    ]
    return jnp.concatenate(windows, axis=-1)


def _spectra_of_kernels(kernels, stride, tiles):
    """Real and imaginary parts by column and phase: (frequencies, 2 * size * stride, n)."""
    size, _, count = kernels.shape
    # Without the barrier XLA computes this when it compiles, slowly, and keeps it with the
    # program, several times as large as the kernels. It takes 2 % of the products for one image
    # of 224 pixels.
    kernel = lax.optimization_barrier(jnp.asarray(kernels))
    kernel = jnp.pad(kernel, ((0, tiles.taps * stride - size), (0, 0), (0, 0)))
    phases = kernel.reshape(tiles.taps, stride, size, count).swapaxes(1, 2)
    waves = tiles.waves()[:, : tiles.taps]
    waves = np.stack([waves.real, waves.imag], axis=1).reshape(-1, tiles.taps).astype(np.float32)
    spectra = jnp.matmul(waves, phases.reshape(tiles.taps, -1))
    return spectra.reshape(tiles.points // 2, -1, count)
