"""Spatter: drops of water (severities 1 to 3) or of mud (4 and 5)."""

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import fast
from vone_jax.corruptions import edges, levels, matrices

_WATER = (175, 238, 238)
_MUD = (63, 42, 20)
_FARTHEST = 20  # pixels to the edge of a drop
_RELIEF = ((-2, -1, 0), (-1, 1, 1), (0, 1, 2))
_BOX = ((1, 1, 1), (1, 1, 1), (1, 1, 1))


def prepare(parameters: tuple, shape: tuple[int, int, int]) -> dict:
    """The severity's numbers, the smoothing of the liquid and, for mud, of its mask."""
    mean, deviation, smoothing, threshold, strength, is_mud = parameters
    if min(shape[:2]) < 2:
        raise ValueError(f"spatter needs images of 2x2 pixels, got {shape[0]}x{shape[1]}")
    both = lambda sigma: tuple(matrices.gaussian(side, sigma) for side in shape[:2])  # noqa: E731
    return {
        "numbers": np.asarray([mean, deviation, threshold], np.float32),
        "smoothing": both(smoothing),
        # Water and mud are compiled apart: only one of these is there.
        "water": None if is_mud else np.float32(strength),
        "mud": both(strength) if is_mud else None,
    }


def draw(keys: jax.Array, shape: tuple[int, int, int], arrays: dict) -> jax.Array:
    """Standard normal numbers, shape (N, H, W, 1)."""
    draw_one = lambda key: fast.standard_normal(key, (*shape[:2], 1))  # noqa: E731
    return jax.vmap(draw_one)(keys)


def spatter(normal: jax.Array, images: jax.Array, arrays: dict) -> jax.Array:
    """Spatter with given draws, see ``draw``."""
    mean, deviation, threshold = arrays["numbers"]
    liquid = matrices.separable(mean + deviation * normal, *arrays["smoothing"])
    if arrays["mud"] is None:
        liquid = jnp.where(liquid < threshold, 0.0, liquid)
        # Eight bits overflow where the liquid is thicker than 1, as they do in the benchmark.
        liquid = levels.truncate(255 * liquid[..., 0]) % 256
        film = arrays["water"] * fast.one_by_one(water, liquid)[..., None]
        return images + film * levels.colour(_WATER, images.shape[-1])
    # What is below the threshold counts as none, what equals it too.
    mask = (liquid > threshold).astype(jnp.float32)
    mask = matrices.separable(mask, *arrays["mud"])
    mask = jnp.where(mask < 0.8, 0.0, mask)
    return images * (1 - mask) + mask * levels.colour(_MUD, images.shape[-1])


def water(liquid: jax.Array) -> jax.Array:
    """Thickness of the film of water, from 0 to 1, for levels of liquid (N, H, W).

    The liquid is weighted with a relief that follows from the distance to the edges of the drops.
    """
    points = edges.canny(liquid.astype(jnp.int32), 50, 150)
    distance = edges.truncated_distance(points, _FARTHEST)
    # The mean of 9, cut to whole pixels.
    distance = edges.correlated(distance, _BOX) // (9 * edges.UNIT)
    distance = edges.equalised(distance, _FARTHEST)
    relief = jnp.clip(edges.correlated(distance, _RELIEF), 0, 255)
    relief = (2 * edges.correlated(relief, _BOX) + 9) // 18
    film = liquid * relief.astype(jnp.float32)
    thickest = jnp.max(film, axis=(1, 2), keepdims=True)
    return jnp.where(thickest > 0, film / jnp.where(thickest > 0, thickest, 1.0), 0.0)
