"""Adam, elementwise, for attacks that take its steps on images.

The optimisers of optax do not run under strict dtype promotion, and an attack needs no more.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_FIRST, _SECOND, _TINY = 0.9, 0.999, 1e-8


class Moments(NamedTuple):
    """Decaying sums of the gradients and of their squares, each of the gradient's shape."""

    first: jax.Array
    second: jax.Array


def initial(like: jax.Array) -> Moments:
    """The moments before the first step."""
    return Moments(jnp.zeros_like(like), jnp.zeros_like(like))


def direction(
    gradient: jax.Array, moments: Moments, number: jax.Array
) -> tuple[jax.Array, Moments]:
    """The step of a learning rate of one along the gradient, not against it.

    Args:
      gradient: of any shape.
      moments: those of the steps before.
      number: index of the step, an integer from 0.

    Returns:
      The step, and the moments with this gradient.

    References:
      Kingma and Ba, Adam: a method for stochastic optimization, 2015, arXiv:1412.6980,
        algorithm 1, with its constants 0.9, 0.999 and 1e-8.
    """
    first = _FIRST * moments.first + (1 - _FIRST) * gradient
    second = _SECOND * moments.second + (1 - _SECOND) * jnp.square(gradient)
    count = (number + 1).astype(gradient.dtype)
    step = first / (1 - _FIRST**count)
    return step / (jnp.sqrt(second / (1 - _SECOND**count)) + _TINY), Moments(first, second)
