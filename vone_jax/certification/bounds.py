"""How far a perturbation of an image can move the responses of V1.

Let r(x) be the noise-free responses to an image x. A matrix A has one row for each simple cell and
two for each complex cell, at all positions:

    (k / sd) g0,   and   (k / (sd sqrt 2)) g0,  (k / (sd sqrt 2)) g1,

with the gain k = ``k_exc``, the standard deviation sd by which the channel is divided, and the
kernels g0 and g1. The rectification of a simple cell and the modulus of a complex cell move no more
than their arguments. So, for every image x and every perturbation d, of any size,

    |r_i(x + d) - r_i(x)| <= |A_i d|   for each cell i,   and   ||r(x + d) - r(x)|| <= ||A d||.

The sensitivity L is the largest singular value of A. On a torus, a strided correlation is block
diagonal in the Fourier basis, so its singular values can be computed. A map with zero padding is a
part of the rows and columns of a torus that is large enough. So its L is at most that of the torus.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Float64

from vone_jax import arguments
from vone_jax.v1 import GainControl, VOneBlockConfig

Images = Float[Array | np.ndarray, "n h w c"]
Maps = Float[Array, "n _ _ cells"]

# Covers the rounding of the computation in float64.
_ROUNDING = 1e-9


def check_config(config: VOneBlockConfig) -> None:
    """Check that the responses of a block depend on images through the matrix A alone.

    Raises:
      ValueError: for a block with a normalization or with a bank that is trained.
    """
    if config.normalization is not None:
        raise ValueError(
            "the responses of a block with a normalization do not follow from a matrix: its "
            "divisor depends on the image, too. certify and sensitivity take a GainControl, whose "
            "pools do not overlap; elsewhere, and for a surround, set normalization=None"
        )
    if config.tuned:
        raise ValueError(
            "the bank of a tuned block is in the variables of its network; certify uses them, "
            "elsewhere take the configuration of models.with_fixed_bank(model, variables)"
        )


def without_gain_control(config: VOneBlockConfig) -> VOneBlockConfig:
    """Return the block whose responses gain control divides, or the block itself if it has none."""
    if isinstance(config.normalization, GainControl):
        return dataclasses.replace(config, normalization=None)
    return config


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """Bounds of ||A d|| for perturbations d of images of one shape. Responses per pixel unit.

    Attributes:
      channels: bound of ||A d|| / ||d|| for perturbations of each input channel alone.
      height: number of rows of the images.
      width: number of columns of the images.
      row_norm: bound for a single cell: the largest |A_i d| for perturbations of L2 norm 1.
      row_norm_linf: the same for perturbations of L-infinity norm 1.
    """

    channels: tuple[float, ...]
    height: int
    width: int
    row_norm: float
    row_norm_linf: float

    @property
    def l2(self) -> float:
        """Bound of ||A d|| / ||d||_2. Each row of A reads one channel, so channels do not add."""
        return max(self.channels)

    @property
    def linf(self) -> float:
        """Bound of ||A d|| / ||d||_inf, since ||A d||^2 <= sum_c L_c^2 height width ||d||_inf^2."""
        return math.sqrt(self.height * self.width * sum(bound**2 for bound in self.channels))


def sensitivity(config: VOneBlockConfig, shape: tuple[int, int] | None = None) -> float:
    """Return the bound L of ||r(x + d) - r(x)|| / ||d||, in response units per pixel unit.

    It holds for all images x and perturbations d, in exact arithmetic. It is proportional to
    ``k_exc``, and about to 1 / stride. Gain control with the gain g and the semisaturation c
    multiplies it by g / c, its largest slope, which an image without contrast has.

    Args:
      config: configuration of the block; its noise has no influence.
      shape: rows and columns of the images. Default: ``config.image_size`` squared.

    Raises:
      ValueError: for a block with a normalising surround or with a bank that is trained, and for a
        shape without rows or columns.
    """
    control, slope = config.normalization, 1.0
    if isinstance(control, GainControl):
        slope = control.gain / control.semisaturation
    return slope * sensitivities(without_gain_control(config), shape).l2


@functools.lru_cache(maxsize=32)
def sensitivities(config: VOneBlockConfig, shape: tuple[int, int] | None = None) -> Sensitivity:
    """Return ``sensitivity`` for each input channel and norm, without gain control. Cached."""
    height, width = shape or (config.image_size, config.image_size)
    for side in (height, width):
        arguments.count("rows and columns of shape", side)
    kernels, channel = rows(config)
    bounds = [
        _on_torus(kernels[channel == number], config.stride, height, width)
        for number in range(config.in_channels)
    ]
    return _of_channels(config, bounds, height, width)


@functools.lru_cache(maxsize=32)
def position_sensitivities(config: VOneBlockConfig) -> Sensitivity:
    """Return bounds of ||A d|| for the rows of A at any one position of the map.

    A position reads as many pixels as a kernel has, and fewer at the border.
    """
    kernels, channel = rows(config)
    flat = kernels.reshape(len(kernels), -1)
    bounds = [
        float(np.linalg.norm(flat[channel == number], 2)) * (1 + _ROUNDING)
        for number in range(config.in_channels)
    ]
    return _of_channels(config, bounds, config.kernel_size, config.kernel_size)


def _of_channels(
    config: VOneBlockConfig, bounds: list[float], height: int, width: int
) -> Sensitivity:
    one_norms = of_cells(config, np.sum(np.abs(rows(config)[0]), axis=(1, 2)))
    return Sensitivity(
        tuple(bounds), height, width, float(row_norms(config).max()), float(one_norms.max())
    )


@functools.lru_cache(maxsize=4)
def rows(config: VOneBlockConfig) -> tuple[Float64[np.ndarray, "rows k k"], np.ndarray]:
    """Return the kernels of A and the input channel that each reads.

    The order is: simple cells, complex cells in phase, complex cells in quadrature.
    """
    check_config(config)
    kernels, parameters, simple = (
        config.gabor_kernels(), config.gabor_parameters(), config.simple_channels
    )  # fmt: skip
    channel = np.concatenate([parameters.channel, parameters.channel_quadrature[simple:]])
    stacked = np.concatenate([kernels.in_phase, kernels.quadrature[simple:]]).astype(np.float64)
    deviations = np.broadcast_to(np.asarray(config.image_std, np.float64), (config.in_channels,))
    gain = np.where(np.arange(len(stacked)) < simple, 1.0, math.sqrt(0.5)) * config.k_exc
    return stacked * (gain / deviations[channel])[:, None, None], channel


def _on_torus(
    kernels: Float64[np.ndarray, "rows k k"], stride: int, height: int, width: int
) -> float:
    """The largest singular value of a correlation of one channel with kernels, on a torus.

    The image is cut into stride^2 images of every stride-th pixel. At each frequency of these, the
    correlation is a matrix of (kernels, stride^2), the transforms of the kernels cut likewise.
    """
    size = kernels.shape[1]
    taps = -(-size // stride)
    # So large that no kernel at a position of the map meets the image twice.
    down, across = (-(-(side + size - 1) // stride) for side in (height, width))
    gram = np.zeros((down, across // 2 + 1, stride**2, stride**2), np.complex128)
    for start in range(0, len(kernels), 64):
        padded = np.pad(kernels[start : start + 64], ((0, 0), *[(0, taps * stride - size)] * 2))
        cut = padded.reshape(-1, taps, stride, taps, stride).transpose(2, 4, 0, 1, 3)
        spectra = np.fft.rfft2(cut.reshape(stride**2, -1, taps, taps), (down, across))
        spectra = spectra.transpose(2, 3, 0, 1)
        gram += spectra.conj() @ spectra.swapaxes(2, 3)
    # Negative frequencies have the conjugate matrices, and the same singular values.
    return math.sqrt(max(float(np.linalg.eigvalsh(gram)[..., -1].max()), 0.0)) * (1 + _ROUNDING)


def row_norms(config: VOneBlockConfig) -> Float64[np.ndarray, " cells"]:
    """Return the norm of the row of A of each simple cell, and of both rows of each complex cell.

    It is the largest |A_i d| of a cell i for perturbations of L2 norm 1.
    """
    kernels, channel = rows(config)
    simple = config.simple_channels
    square = np.sum(kernels**2, axis=(1, 2))
    in_phase, quadrature = np.split(np.arange(simple, len(kernels)), 2)
    product = np.sum(kernels[in_phase] * kernels[quadrature], axis=(1, 2))
    product = np.where(channel[in_phase] == channel[quadrature], product, 0.0)
    # The largest eigenvalue of the products of the two rows.
    mean = (square[in_phase] + square[quadrature]) / 2
    spread = np.hypot((square[in_phase] - square[quadrature]) / 2, product)
    return np.sqrt(np.concatenate([square[:simple], mean + spread])) * (1 + _ROUNDING)


def of_cells(config: VOneBlockConfig, of_rows: np.ndarray) -> np.ndarray:
    """Join the values of both rows of complex cells, as the root of the sum of squares."""
    simple, in_phase, quadrature = np.split(
        of_rows, [config.simple_channels, config.num_channels], axis=-1
    )
    return np.concatenate([simple, np.hypot(in_phase, quadrature)], axis=-1)


def linear_responses(config: VOneBlockConfig, perturbations: Images) -> Maps:
    """Return A d for perturbations d, (n, h, w, rows) in the order of ``rows``.

    Blocks of stride x stride pixels become channels, because the transpose is slow with a stride.
    """
    kernels, channel = rows(config)
    size, stride = config.kernel_size, config.stride
    taps = -(-size // stride)
    reads = np.arange(config.in_channels)[:, None] == channel
    dense = np.where(reads, kernels.transpose(1, 2, 0)[:, :, None], 0.0).astype(np.float32)
    dense = np.pad(dense, [(0, taps * stride - size)] * 2 + [(0, 0)] * 2)
    dense = dense.reshape(taps, stride, taps, stride, -1, len(kernels)).transpose(0, 2, 1, 3, 4, 5)

    images = jnp.asarray(perturbations, jnp.float32)
    number, height, width, channels = images.shape
    down, across = (-(-side // stride) + taps - 1 for side in (height, width))
    beyond = [
        (size // 2, blocks * stride - side - size // 2)
        for blocks, side in ((down, height), (across, width))
    ]
    # A window ends within the blocks, so what is cut off on the right has no part in any.
    images = lax.pad(
        images, jnp.float32(0), [(0, 0, 0), *((*ends, 0) for ends in beyond), (0, 0, 0)]
    )
    images = images.reshape(number, down, stride, across, stride, channels)
    images = images.transpose(0, 1, 3, 2, 4, 5).reshape(number, down, across, -1)
    return lax.conv_general_dilated(
        images,
        jnp.asarray(dense.reshape(taps, taps, -1, len(kernels))),
        (1, 1),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )


@functools.partial(jax.jit, static_argnums=0)
def displacements(config: VOneBlockConfig, perturbations: Images) -> Maps:
    """Return |A_i d| for each cell, (n, h, w, cells): no response changes by more."""
    linear = linear_responses(config, perturbations)
    simple, in_phase, quadrature = jnp.split(
        linear, [config.simple_channels, config.num_channels], axis=-1
    )
    return jnp.concatenate([jnp.abs(simple), jnp.hypot(in_phase, quadrature)], axis=-1)
