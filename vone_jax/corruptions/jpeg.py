"""JPEG compression without its lossless part: what Pillow (libjpeg) returns, level for level.

Baseline JPEG with chroma at half the resolution. All arithmetic is that of libjpeg's integer
transform: an 8-point DCT with constants of 13 bits (Loeffler, Ligtenberg and Moschytz, 1989),
written here as one integer matrix, with rounding shifts after each of the two passes.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax.corruptions import levels, stages

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
_KEPT = 2  # fractional bits that are kept between the two passes


def quantisers(quality: float, shape: tuple[int, int, int]) -> np.ndarray:
    """Quantisation of luminance and chrominance at a quality from 1 to 100, int32 (2, 8, 8)."""
    quality = int(quality)
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    tables = np.stack([np.asarray(_LUMINANCE), _CHROMINANCE])
    return np.clip((tables * scale + 50) // 100, 1, 255).astype(np.int32)


def compress(keys: jax.Array, images: jax.Array, tables: jax.Array) -> jax.Array:
    """Images after JPEG compression, in 8 bits; draws nothing.

    Args:
      keys: not used.
      images: float32 in [0, 1], shape (N, H, W, C); they are rounded to 8 bits first.
      tables: see ``quantisers``.
    """
    values = levels.from_images(images).astype(jnp.int32)
    if images.shape[-1] == 1:
        return _coded(values[..., 0], tables[0])[..., None].astype(jnp.float32) / 255
    height, width = images.shape[1:3]
    red, green, blue = values[..., 0], values[..., 1], values[..., 2]
    luma = _weighted((0.299, 0.587, 0.114), red, green, blue)
    blueness = 128 + _weighted((-0.16874, -0.33126, 0.5), red, green, blue, less=1)
    redness = 128 + _weighted((0.5, -0.41869, -0.08131), red, green, blue, less=1)
    luma, *chroma = stages.stored((luma, _halved(blueness), _halved(redness)))
    luma = _coded(luma, tables[0])
    chroma = [_coded(plane, tables[1])[:, :, : -(-width // 2)] for plane in chroma]
    luma, *chroma = stages.stored((luma, *chroma))
    chroma = stages.stored([_doubled(plane)[:, :height, :width] - 128 for plane in chroma])
    blueness, redness = chroma
    red = luma + _weighted((1.402,), redness)
    green = luma + _weighted((-0.34414, -0.71414), blueness, redness)
    blue = luma + _weighted((1.772,), blueness)
    # As a sum of one channel each: the compiler does not use vector units for stacked ones.
    coded = jnp.zeros((*luma.shape, 3), jnp.int32)
    for channel, plane in enumerate((red, green, blue)):
        coded = coded + plane[..., None] * np.eye(3, dtype=np.int32)[channel][None, None, None]
    return jnp.clip(coded, 0, 255).astype(jnp.float32) / 255


def _weighted(weights: tuple[float, ...], *planes: jax.Array, less: int = 0) -> jax.Array:
    """The rounded sum of weights times planes, in 16-bit fixed point."""
    total = jnp.full_like(planes[0], (1 << 15) - less)
    for weight, plane in zip(weights, planes, strict=True):
        total = total + int(np.floor(weight * (1 << 16) + 0.5)) * plane
    return total >> 16


def _halved(plane: jax.Array) -> jax.Array:
    """Means of 2 x 2 pixels; halves go down and up in turn along a row."""
    height, width = plane.shape[1:]
    plane = jnp.pad(plane, ((0, 0), (0, height % 2), (0, -width % 16)), mode="edge")
    total = plane[:, ::2] + plane[:, 1::2]
    total = total[:, :, ::2] + total[:, :, 1::2]
    bias = 1 + jnp.arange(total.shape[2], dtype=jnp.int32) % 2
    # What lies right of the image is kept: the coder sees it.
    return (total + bias[None, None]) >> 2


def _doubled(plane: jax.Array) -> jax.Array:
    """Twice the size per axis: 3/4 of the nearest value and 1/4 of the next one."""
    count, height, width = plane.shape
    padded = jnp.pad(plane, ((0, 0), (1, 1), (0, 0)), mode="edge")
    rows = jnp.stack([3 * plane + padded[:, :-2], 3 * plane + padded[:, 2:]], axis=2)
    rows = rows.reshape(count, 2 * height, width)
    padded = jnp.pad(rows, ((0, 0), (0, 0), (1, 1)), mode="edge")
    left = (3 * rows + padded[:, :, :-2] + 8) >> 4
    right = (3 * rows + padded[:, :, 2:] + 7) >> 4
    return jnp.stack([left, right], axis=3).reshape(count, 2 * height, 2 * width)


def _coded(plane: jax.Array, table: jax.Array) -> jax.Array:
    """Levels (N, H, W) after transform, quantisation and back."""
    count, height, width = plane.shape
    plane = jnp.pad(plane, ((0, 0), (0, -height % 8), (0, -width % 8)), mode="edge")
    down, across = plane.shape[1] // 8, plane.shape[2] // 8
    # The blocks come last: long rows are what vector units want.
    blocks = plane.reshape(count, down, 8, across, 8).transpose(4, 2, 0, 1, 3).reshape(8, 8, -1)
    blocks = _transformed(_DCT, blocks - 128, (_BITS - _KEPT, _BITS + _KEPT)).swapaxes(0, 1)
    # The transform is scaled by 8. Halves go away from zero. Division of whole numbers is slow; in
    # float32 the half keeps these quotients far enough from whole ones to be cut exactly.
    table = table[:, :, None]
    step = 8 * table
    quotient = ((jnp.abs(blocks) + step // 2).astype(jnp.float32) + 0.5) / step.astype(jnp.float32)
    blocks = jnp.sign(blocks) * quotient.astype(jnp.int32) * table
    blocks = _transformed(_DCT.T, blocks, (_BITS - _KEPT, _BITS + _KEPT + 3))
    blocks = jnp.clip(blocks + 128, 0, 255).reshape(8, 8, count, down, across)
    return blocks.transpose(2, 3, 0, 4, 1).reshape(plane.shape)[:, :height, :width]


def _transformed(matrix: np.ndarray, blocks: jax.Array, shifts: tuple[int, int]) -> jax.Array:
    """An integer matrix along the first axis of blocks (8, 8, N), then along the second one.

    A rounding shift follows each time. The axes keep their places.
    """
    columns = jnp.asarray(matrix.T[:, :, None, None], jnp.int32)
    amounts = jnp.asarray(shifts, jnp.int32)

    # Rounds of a loop are stored. Written out, the compiler would fuse them and repeat the first
    # eight times for the second. Likewise outputs that are computed one by one and stacked would
    # keep it from using vector units: this is a sum of eight products of all outputs at once.
    def one_axis(number, blocks):
        total = jnp.zeros_like(blocks)
        for k in range(8):
            total = total + columns[k] * blocks[k][None]
        half = jnp.int32(1) << (amounts[number] - 1)
        return ((total + half) >> amounts[number]).swapaxes(0, 1)

    return jax.lax.fori_loop(0, 2, one_axis, blocks)


def _dct_matrix() -> np.ndarray:
    """The 8-point DCT of Loeffler, Ligtenberg and Moschytz as integers, scaled by 2^13 sqrt(8)."""
    fixed = lambda number: int(np.floor(number * (1 << _BITS) + 0.5))  # noqa: E731
    matrix = np.zeros((8, 8), np.int64)
    x = np.eye(8, dtype=np.int64)
    total, difference = x[:4] + x[:3:-1], x[:4] - x[:3:-1]
    outer, inner = total[0] + total[3], total[1] + total[2]
    matrix[0], matrix[4] = (outer + inner) << _BITS, (outer - inner) << _BITS
    outer, inner = total[0] - total[3], total[1] - total[2]
    shared = (outer + inner) * fixed(0.541196100)
    matrix[2] = shared + outer * fixed(0.765366865)
    matrix[6] = shared - inner * fixed(1.847759065)
    d0, d1, d2, d3 = difference
    z1, z2 = (d3 + d0) * -fixed(0.899976223), (d2 + d1) * -fixed(2.562915447)
    shared = (d3 + d1 + d2 + d0) * fixed(1.175875602)
    z3 = (d3 + d1) * -fixed(1.961570560) + shared
    z4 = (d2 + d0) * -fixed(0.390180644) + shared
    matrix[7] = d3 * fixed(0.298631336) + z1 + z3
    matrix[5] = d2 * fixed(2.053119869) + z2 + z4
    matrix[3] = d1 * fixed(3.072711026) + z2 + z3
    matrix[1] = d0 * fixed(1.501321110) + z1 + z4
    return matrix


_DCT = _dct_matrix()
