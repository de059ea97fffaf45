"""Snow, fog, and a drawn texture of frost; ``frost`` has the photographs of ImageNet-C."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vone_jax import prng
from vone_jax.corruptions import blur, levels, matrices, noise
from vone_jax.corruptions.levels import Images, Keys, Shape

_FROST_TINT = (0.85, 1.0, 1.1)

# Standard normal numbers and angles in degrees.
SnowDraws = tuple[Float[Array, "n h w 1"], Float[Array, " n"]]


def prepare_snow(parameters: tuple, shape: Shape) -> dict:
    """Return the numbers of the severity, and the zoom of the flakes as matrices."""
    mean, deviation, zoom, threshold, radius, streak, mix = parameters
    return {
        "flakes": np.asarray([mean, deviation, threshold], np.float32),
        "zoom": tuple(matrices.zoom(side, zoom) for side in shape[:2]),
        "taps": blur.prepare_motion((radius, streak), shape),
        "mix": np.float32(mix),
    }


def draw_snow(keys: Keys, shape: Shape, arrays: dict) -> SnowDraws:
    """Draw standard normal numbers, and angles in degrees, uniform from -135 to -45."""

    def angle(key: jax.Array):
        return jax.random.uniform(key, (), jnp.float32, -135.0, -45.0)

    normal = noise.normal(prng.fold(keys, 0), (*shape[:2], 1))
    return normal, jax.vmap(angle)(prng.fold(keys, 1))


def snow(draws: SnowDraws, images: Images, arrays: dict) -> Images:
    """Whiten the image and add moving flakes twice: upright, and turned by 180 degrees."""
    normal, angles = draws
    mean, deviation, threshold = arrays["flakes"]
    flakes = matrices.separable(mean + deviation * normal, *arrays["zoom"])
    flakes = jnp.where(flakes < threshold, 0.0, jnp.clip(flakes, 0.0, 1.0))
    flakes = blur.motion_levels(angles, levels.truncate(255 * flakes), arrays["taps"]) / 255
    whitened = jnp.maximum(images, 1.5 * levels.luma(images) + 0.5)
    mixed = arrays["mix"] * images + (1 - arrays["mix"]) * whitened
    return mixed + flakes + flakes[:, ::-1, ::-1]


def draw_fog(keys: Keys, shape: Shape, arrays: Float[Array, "2"]) -> Float[Array, "n draws"]:
    """Draw the side^2 - 1 numbers of ``plasma``, uniform in (-1, 1)."""
    return noise.uniform(keys, (_plasma_side(shape) ** 2 - 1,))


def fog(draws: Float[Array, "n draws"], images: Images, arrays: Float[Array, "2"]) -> Images:
    """Add a plasma and scale the sum so that the largest value of the image stays the same.

    ``arrays`` holds the amount of fog and the decay of the plasma.
    """
    amount, decay = arrays
    height, width = images.shape[1:3]
    veil = plasma(draws, decay)[:, :height, :width, None]
    brightest = jnp.max(images, axis=(1, 2, 3), keepdims=True)
    return (images + amount * veil) * brightest / (brightest + amount)


def plasma(draws: Float[Array, "n draws"], decay: Float[Array, ""]) -> Float[Array, "n side side"]:
    """Make fractal noise from 0 to 1 by diamond-square on a torus.

    Each level halves the cells, and divides the amplitude of the moves by ``decay`` squared. A
    level with g x g cells takes 3 g^2 draws: for the centres of the cells, for the midpoints of
    edges in the rows of corners, and for those in the columns of corners.

    Args:
      draws: side^2 - 1 numbers in (-1, 1), in the order in which ImageNet-C's code takes them.
      decay: divides the amplitude from one level to the next.
    """
    corners = jnp.zeros((len(draws), 1, 1), draws.dtype)
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


def _plasma_side(shape: Shape) -> int:
    """Return the side of the plasma: the smallest power of two that covers images (H, W, C)."""
    return max(2, 1 << (max(shape[:2]) - 1).bit_length())


def draw_frost(keys: Keys, shape: Shape, arrays: Float[Array, " 2"]) -> Float[Array, "n 2 draws"]:
    """Draw the numbers of two plasmas for each image, see ``plasma``."""
    return noise.uniform(keys, (2, _plasma_side(shape) ** 2 - 1))


def drawn_frost(
    draws: Float[Array, "n 2 draws"], images: Images, weights: Float[Array, " 2"]
) -> Images:
    """Blend in a drawn texture: bright needles along the ridges of a plasma, clouds between them.

    The texture has about the mean, contrast and tint of ImageNet-C's photographs of frost, but not
    their shapes.
    """
    height, width = images.shape[1:3]
    needles, clouds = (
        plasma(draws[:, layer], jnp.float32(decay))[:, :height, :width, None]
        for layer, decay in enumerate((1.35, 1.8))
    )
    ridges = (1 - jnp.abs(2 * needles - 1)) ** 3
    frosted = 0.15 + 0.35 * clouds + 0.6 * ridges * (0.4 + 0.6 * clouds)
    tint = jnp.asarray(_FROST_TINT, jnp.float32)[None, None, None]
    layer = jnp.clip(frosted * tint, 0.0, 1.0)
    return levels.blended(images, layer, weights)
