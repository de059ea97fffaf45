"""JPEG compression without its lossless part; the result equals Pillow's (libjpeg) exactly.

This is baseline JPEG with chroma at half the resolution. The transform is libjpeg's integer one:
an 8-point DCT with constants of 13 bits (Loeffler, Ligtenberg and Moschytz, 1989). It is written
as one integer matrix, with a rounding shift after each of the two passes.

The pass along the rows is a matrix product in float32, the pass along the columns a sum of eight
rows in int32. A float32 represents whole numbers below 2^24 exactly. In the forward pass along the
rows, sums of products reach 128 x 8 x 8192 = 2^23. In the backward pass they would exceed 2^24, so
its matrix is split into multiples of 128 and the rest. There the values are below 2^14, and the
sums are below 2^14 x 8 x 127.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from vone_jax import fast
from vone_jax.corruptions import levels, matrices
from vone_jax.corruptions.levels import Images, Shape

_LUMINANCE = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMINANCE = np.full((8, 8), 99)
_CHROMINANCE[:4, :4] = ((17, 18, 24, 47), (18, 21, 26, 66), (24, 26, 56, 99), (47, 66, 99, 99))

_BITS = 13  # of the constants of the DCT
_FRACTION_BITS = 2  # between the two passes
# The 8-point DCT times 2^13 sqrt(8), with the sums and rounded constants of libjpeg's algorithm.
_DCT = np.array(
    (
        (8192, 8192, 8192, 8192, 8192, 8192, 8192, 8192),
        (11363, 9633, 6437, 2260, -2260, -6437, -9633, -11363),
        (10703, 4433, -4433, -10703, -10703, -4433, 4433, 10703),
        (9633, -2259, -11362, -6436, 6436, 11362, 2259, -9633),
        (8192, -8192, -8192, 8192, 8192, -8192, -8192, 8192),
        (6437, -11362, 2261, 9633, -9633, -2261, 11362, -6437),
        (4433, -10704, 10704, -4433, -4433, 10704, -10704, 4433),
        (2260, -6436, 9633, -11363, 11363, -9633, 6436, -2260),
    )
)
_FORWARD = _DCT.T / 2 ** (_BITS - _FRACTION_BITS)
_BACKWARD = np.concatenate([_DCT // 128, _DCT % 128], axis=1)

# Weights of red, green and blue, like those of the luma. They are rounded to multiples of 2^-16.
_TO_BLUENESS = (-0.16874, -0.33126, 0.5)
_TO_REDNESS = (0.5, -0.41869, -0.08131)
# Weights of blueness and of redness in red, green and blue.
_FROM_BLUENESS = (0.0, -0.34414, 1.772)
_FROM_REDNESS = (1.402, -0.71414, 0.0)


def quantisers(quality: float, shape: Shape) -> np.ndarray:
    """Return the steps of luminance and chrominance at a quality from 1 to 100, int32 (2, 8, 8)."""
    quality = int(quality)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = np.stack([np.asarray(_LUMINANCE), _CHROMINANCE])
    return np.clip((tables * scale + 50) // 100, 1, 255).astype(np.int32)


@matrices.image_by_image
def compress(draws: Any, images: Images, tables: Int[Array, "2 8 8"]) -> Images:
    """Round images to eight bits, compress them with JPEG and decode them; draws nothing."""
    height, width, channels = images.shape[1:]
    planes = fast.stage(_planes, images)
    luma = _coded(planes[0], tables[0])
    if channels == 1:
        return (luma[:, :height, :width, None] + 128) / 255

    def enlarged(*chroma):
        # The blocks cover pixels outside the image, which this filter does not read.
        size = slice(-(-height // 2)), slice(-(-width // 2))
        # libjpeg has no filter for one or two columns.
        double = _doubled if width > 4 else _repeated
        return [double(plane[:, *size])[:, :height, :width, None] for plane in chroma]

    blueness, redness = fast.stage(enlarged, *(_coded(plane, tables[1]) for plane in planes[1:]))
    coded = luma[:, :height, :width, None] + blueness * _fixed(_FROM_BLUENESS)
    # The sums of red and blue may exceed the 24 bits of float32. No fraction is so near 1 that
    # the rounding error would carry.
    coded = jnp.floor(coded + redness * _fixed(_FROM_REDNESS) + 128.5)
    return jnp.clip(coded, 0, 255) / 255


def _planes(images: jax.Array) -> list[jax.Array]:
    """Return luma, and blueness and redness at half the resolution: whole levels minus 128."""
    values = [levels.from_images(images[..., channel]) for channel in range(images.shape[-1])]
    if len(values) == 1:
        return [_padded(values[0] - 128)]

    def mixed(weights: tuple[float, ...], half: float):
        parts = zip(_fixed(weights).flatten(), values, strict=True)
        return jnp.floor(sum(weight * value for weight, value in parts) + half)

    below_half = 0.5 - 2.0**-16
    chroma = [_halved(mixed(weights, below_half)) for weights in (_TO_BLUENESS, _TO_REDNESS)]
    return [_padded(plane) for plane in (mixed(levels.LUMA, 0.5) - 128, *chroma)]


def _fixed(weights: tuple[float, ...]) -> np.ndarray:
    """Round weights to 16 fractional bits, float32 (1, 1, 1, n)."""
    return (np.floor(np.array([[[weights]]]) * 2**16 + 0.5) / 2**16).astype(np.float32)


def _padded(plane: jax.Array) -> jax.Array:
    """Repeat the last row and column until there are whole blocks."""
    height, width = plane.shape[1:]
    return jnp.pad(plane, ((0, 0), (0, -height % 8), (0, -width % 8)), mode="edge")


def _halved(plane: jax.Array) -> jax.Array:
    """Return means of 2 x 2 pixels. Along a row, halves are rounded down and up in turn."""
    height, width = plane.shape[1:]
    plane = jnp.pad(plane, ((0, 0), (0, height % 2), (0, -width % 16)), mode="edge")
    total = plane[:, ::2] + plane[:, 1::2]
    total = total[:, :, ::2] + total[:, :, 1::2]
    bias = 1 + jnp.arange(total.shape[2]) % 2
    return jnp.floor((total + bias[None, None].astype(total.dtype)) / 4)


def _doubled(plane: jax.Array) -> jax.Array:
    """Double both sides: 3/4 of the nearest value plus 1/4 of the second nearest."""
    plane = plane.astype(jnp.int32)
    count, height, width = plane.shape
    padded = jnp.pad(plane, ((0, 0), (1, 1), (0, 0)), mode="edge")
    rows = jnp.stack([3 * plane + padded[:, :-2], 3 * plane + padded[:, 2:]], axis=2)
    rows = rows.reshape(count, 2 * height, width)
    padded = jnp.pad(rows, ((0, 0), (0, 0), (1, 1)), mode="edge")
    left = (3 * rows + padded[:, :, :-2] + 8) >> 4
    right = (3 * rows + padded[:, :, 2:] + 7) >> 4
    doubled = jnp.stack([left, right], axis=3).reshape(count, 2 * height, 2 * width)
    return doubled.astype(jnp.float32)


def _repeated(plane: jax.Array) -> jax.Array:
    """Double both sides: each value four times."""
    return jnp.repeat(jnp.repeat(plane, 2, axis=1), 2, axis=2)


def _coded(plane: jax.Array, table: jax.Array) -> jax.Array:
    """Transform, quantise and transform back levels minus 128, whole blocks (N, H, W), float32."""
    count, height, width = plane.shape
    table = jnp.tile(table, (1, width // 8)).astype(jnp.float32)
    rows = jnp.floor(_along_rows(plane, _FORWARD) + 0.5).astype(jnp.int16)
    # The transform is scaled by 8.
    rows = fast.stage(_quantised, rows.reshape(plane.shape), 8 * table, 1 / (8 * table))
    rows = fast.stage(lambda rows: _along_columns(rows, _DCT.T, _BITS - _FRACTION_BITS), rows)
    parts = _along_rows(rows.astype(jnp.float32), _BACKWARD)
    return fast.stage(_joined, parts.reshape(count, height, width // 8, 2, 8))


def _quantised(rows: jax.Array, steps: jax.Array, inverse: jax.Array) -> jax.Array:
    """Do the second pass of the transform and quantise in ``steps`` (8, W); int16."""
    coefficients = _along_columns(rows, _DCT, _BITS + _FRACTION_BITS).astype(jnp.float32)
    blocks = coefficients.reshape(len(rows), -1, *steps.shape)
    steps, inverse = steps[None, None], inverse[None, None]
    # Halves are rounded away from zero. The other 0.5 keeps quotients away from whole numbers.
    number = jnp.floor((jnp.abs(blocks) + steps / 2 + 0.5) * inverse)
    return (jnp.sign(blocks) * number * (steps / 8)).astype(jnp.int16).reshape(rows.shape)


def _joined(parts: jax.Array) -> jax.Array:
    """Finish the last pass: add its two parts (N, H, W / 8, 2, 8), round and clip."""
    total = parts[..., 0, :] + jnp.floor(parts[..., 1, :] / 128)
    total = jnp.floor(total / 2 ** (_BITS + _FRACTION_BITS + 3 - 7) + 0.5)
    return jnp.clip(total, -128, 127).reshape(*parts.shape[:2], -1)


def _along_rows(plane: jax.Array, matrix: np.ndarray) -> jax.Array:
    """Multiply each group of eight values in a row by a matrix (8, n); shape (blocks, n)."""
    blocks = plane.reshape(-1, 8)
    return jnp.matmul(blocks, jnp.asarray(matrix, jnp.float32), precision=matrices.PRECISION)


def _along_columns(plane: jax.Array, matrix: np.ndarray, shift: int) -> jax.Array:
    """Multiply a matrix by each group of eight values in a column, with a rounding shift; int32."""
    count, height, width = plane.shape
    blocks = plane.astype(jnp.int32).reshape(count, height // 8, 8, width)
    # Each product computes all outputs at once. The compiler would not use vector units for
    # outputs that are computed one by one and stacked.
    total = jnp.full(blocks.shape, 1 << (shift - 1), jnp.int32)
    for k in range(8):
        column = jnp.asarray(matrix[:, k], jnp.int32)[None, None, :, None]
        total = total + column * blocks[:, :, k : k + 1]
    return (total >> shift).reshape(plane.shape)
