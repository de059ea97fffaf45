"""Snow and fog."""

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import fast, prng
from vone_jax.corruptions import levels, matrices, motion


def snow_arrays(parameters: tuple, shape: tuple[int, int, int]) -> dict:
    """The severity's numbers, and the zoom of the flakes as matrices."""
    mean, deviation, zoom, threshold, radius, streak, mix = parameters
    rows, columns = (matrices.zoom(side, zoom) for side in shape[:2])
    return {
        "flakes": np.asarray([mean, deviation, threshold], np.float32),
        "rows": rows,
        "columns": columns,
        "taps": motion.taps((radius, streak), shape),
        "mix": np.float32(mix),
    }


def draw_snow(keys: jax.Array, shape: tuple[int, int, int], arrays: dict) -> tuple:
    """Standard normal numbers (N, H, W, 1), and angles in degrees from -135 to -45, (N,)."""
    normal = lambda key: fast.standard_normal(key, (*shape[:2], 1))  # noqa: E731
    angle = lambda key: jax.random.uniform(key, (), jnp.float32, -135.0, -45.0)  # noqa: E731
    return jax.vmap(normal)(prng.fold(keys, 0)), jax.vmap(angle)(prng.fold(keys, 1))


def snow(draws: tuple, images: jax.Array, arrays: dict) -> jax.Array:
    """Whitens the image and adds moving flakes, once upright and once upside down."""
    normal, angles = draws
    mean, deviation, threshold = arrays["flakes"]
    flakes = matrices.separable(mean + deviation * normal, arrays["rows"], arrays["columns"])
    flakes = jnp.where(flakes < threshold, 0.0, jnp.clip(flakes, 0.0, 1.0))
    flakes = motion.blur_levels(angles, levels.truncate(255 * flakes), arrays["taps"]) / 255
    whitened = jnp.maximum(images, 1.5 * levels.luma(images) + 0.5)
    mixed = arrays["mix"] * images + (1 - arrays["mix"]) * whitened
    return mixed + flakes + flakes[:, ::-1, ::-1]


def fog_arrays(parameters: tuple[float, float], shape: tuple[int, int, int]) -> tuple:
    """Amount of fog and decay of the plasma, as float32."""
    amount, decay = parameters
    return np.float32(amount), np.float32(decay)


def plasma_side(shape: tuple[int, int, int]) -> int:
    """Side of the plasma for images (H, W, C): the smallest power of two that covers them."""
    return max(2, 1 << (max(shape[:2]) - 1).bit_length())


def draw_plasma(keys: jax.Array, shape: tuple[int, int, int], arrays: tuple) -> jax.Array:
    """Draws uniform in (-1, 1) in the order in which ``plasma`` takes them, (N, side^2 - 1)."""
    count = plasma_side(shape) ** 2 - 1
    return jax.vmap(lambda key: fast.symmetric_uniform(key, (count,)))(keys)


def plasma(draws: jax.Array, decay: jax.Array) -> jax.Array:
    """Fractal noise by diamond-square on a torus, from 0 to 1, shape (N, side, side).

    Each level halves the cells and divides the amplitude of the moves by ``decay`` squared. A
    level with g cells per axis takes 3 g g draws: for the centres of the cells, for the midpoints
    of edges in the rows of corners and for those in the columns of corners.
    """
    corners = jnp.zeros((len(draws), 1, 1))
    amplitude = jnp.float32(100.0)
    start = 0
    while start < draws.shape[1]:
        grid = corners.shape[1]
        moves = draws[:, start : start + 3 * grid**2].reshape(-1, 3, grid, grid)
        moves = amplitude**2 * moves
        below = jnp.roll(corners, -1, axis=1)
        right = jnp.roll(corners, -1, axis=2)
        centres = (corners + right + below + jnp.roll(below, -1, axis=2)) / 4 + moves[:, 0]
        in_rows = (corners + right + centres + jnp.roll(centres, 1, axis=1)) / 4 + moves[:, 1]
        in_columns = (corners + below + centres + jnp.roll(centres, 1, axis=2)) / 4 + moves[:, 2]
        upper = jnp.stack([corners, in_rows], axis=3).reshape(-1, grid, 2 * grid)
        lower = jnp.stack([in_columns, centres], axis=3).reshape(-1, grid, 2 * grid)
        corners = jnp.stack([upper, lower], axis=2).reshape(-1, 2 * grid, 2 * grid)
        amplitude = amplitude / decay
        start += 3 * grid**2
    corners = corners - jnp.min(corners, axis=(1, 2), keepdims=True)
    return corners / jnp.max(corners, axis=(1, 2), keepdims=True)


def fog(draws: jax.Array, images: jax.Array, arrays: tuple) -> jax.Array:
    """Adds a plasma and scales so that the brightest value of the image stays."""
    amount, decay = arrays
    height, width = images.shape[1:3]
    veil = plasma(draws, decay)[:, :height, :width, None]
    brightest = jnp.max(images, axis=(1, 2, 3), keepdims=True)
    return (images + amount * veil) * brightest / (brightest + amount)
