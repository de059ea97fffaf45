"""Projection onto a hyperplane within the pixel box, in three norms.

Per example: the smallest delta with point + delta in [0, 1] and w.(point + delta) = b. Each value
moves towards the hyperplane, at most by its room to the border. Where the hyperplane does not meet
the box, the corner of the box that is nearest to it is the answer.

References:
  Croce and Hein, Minimally distorted adversarial examples with a fast adaptive boundary attack,
    2020, arXiv:1907.02044, section 2.
"""

import jax
import jax.numpy as jnp

# Weights this much smaller than the largest do not move a value.
_NEGLIGIBLE = 1e-8

# Newton's method takes about 2 to 14 rounds; the bound only guards against rounding.
_MOST_ROUNDS = 64


def project(points: jax.Array, normal: jax.Array, residual: jax.Array, norm: str) -> jax.Array:
    """The smallest perturbations that lead onto the hyperplane.

    Args:
      points: in [0, 1], shape (N, H, W, C).
      normal: w, same shape. Where it is zero nothing moves.
      residual: w.point - b, shape (N,).
      norm: "linf", "l2" or "l1", the norm that is minimised.

    Returns:
      Perturbations of the same shape.
    """
    flat = normal.reshape(normal.shape[0], -1)
    # In units of the largest weight, so that tiny gradients count as much as large ones.
    unit = jnp.max(jnp.abs(flat), axis=-1, keepdims=True)
    unit = jnp.where(unit == 0, jnp.ones_like(unit), unit)
    weights = jnp.abs(flat) / unit
    way = -jnp.sign(residual)[:, None] * jnp.sign(flat)
    values = points.reshape(flat.shape)
    room = jnp.maximum(jnp.where(way > 0, 1.0 - values, values), 0.0)
    room = jnp.where(weights < _NEGLIGIBLE, 0.0, room)
    amount = {"linf": _level, "l2": _proportional, "l1": _greedy}[norm]
    delta = way * amount(weights, room, jnp.abs(residual)[:, None] / unit)
    return delta.reshape(points.shape)


def _level(weights, room, residual):
    """Everything moves by the same amount, as far as there is room."""
    return jnp.minimum(_water_level(weights, room, residual), room)


def _proportional(weights, room, residual):
    """Everything moves in proportion to its weight, as far as there is room."""
    safe = jnp.where(room > 0, weights, jnp.ones_like(weights))
    level = _water_level(weights**2, room / safe, residual)
    return jnp.minimum(level * weights, room)


def _greedy(weights, room, residual):
    """The largest weights move all the way; those at the threshold share what is left."""
    gain = weights * room

    def halve(_, bracket):
        low, high = bracket
        middle = 0.5 * (low + high)
        enough = _sum(jnp.where(weights > middle, gain, 0.0)) >= residual
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    bracket = (jnp.zeros_like(residual), jnp.ones_like(residual))
    rounds = jnp.finfo(weights.dtype).nmant + 8
    low, high = jax.lax.fori_loop(0, rounds, halve, bracket)
    above, at = weights > high, (weights > low) & (weights <= high)
    left = residual - _sum(jnp.where(above, gain, 0.0))
    among = _sum(jnp.where(at, gain, 0.0))
    share = jnp.clip(left / jnp.where(among > 0, among, jnp.ones_like(among)), 0.0, 1.0)
    return room * jnp.where(above, 1.0, jnp.where(at, share, 0.0))


def _water_level(rates, limits, residual):
    """The level with sum(rates min(level, limits)) = residual, or the highest useful one.

    The sum is concave in the level, so Newton's method climbs from zero without passing the
    solution, and it is there as soon as it has found which limits lie below.
    """

    def unfinished(state):
        _, climbing, number = state
        return jnp.any(climbing) & (number < _MOST_ROUNDS)

    def climb(state):
        level, _, number = state
        missing = residual - _sum(rates * jnp.minimum(level, limits))
        rising = _sum(jnp.where(limits > level, rates, 0.0))
        higher = level + missing / jnp.where(rising > 0, rising, jnp.ones_like(rising))
        climbing = (rising > 0) & (higher > level)
        # The maximum keeps a residual of NaN.
        level = jnp.where(rising > 0, jnp.maximum(level, higher), level)
        return level, climbing, number + 1

    level = jnp.zeros_like(residual)
    state = (level, jnp.ones_like(level, bool), 0)
    return jax.lax.while_loop(unfinished, climb, state)[0]


def _sum(values):
    return jnp.sum(values, axis=-1, keepdims=True)
