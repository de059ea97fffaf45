"""Loops and ends of stages, in the forms that the compiler handles well."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def stage(function: Callable[..., Any], *operands: Any) -> Any:
    """``function(*operands)``, computed apart: operands and results are arrays in memory.

    XLA fuses a value into those that read it and computes it anew for each: for a chain of
    filters with a few taps that multiplies the work at each of them, up to a hundred times on a
    CPU, where ``lax.optimization_barrier`` does nothing. What enters and leaves a conditional is
    not fused. The loop only hides from the compiler how this one turns out.
    """
    always = jax.lax.fori_loop(0, 2, jnp.add, jnp.int32(0)) == 1
    shapes = jax.eval_shape(function, *operands)
    nothing = lambda *_: jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes)  # noqa: E731
    return jax.lax.cond(always, function, nothing, *operands)


def one_by_one(function: Callable[..., jax.Array], *batches: jax.Array) -> jax.Array:
    """``function(*batches)``: on a CPU for one image after the other, elsewhere for all at once.

    Loops that go over the images again and again are several times faster where one image at a
    time stays in the cache, and need memory for one. The cores share an image instead of the batch.

    Args:
      function: takes and returns arrays whose first axis counts the images.
      batches: its arguments.
    """

    def mapped(*batches):
        alone = lambda arrays: function(*(array[None] for array in arrays))[0]  # noqa: E731
        return jax.lax.map(alone, batches)

    return jax.lax.platform_dependent(*batches, cpu=mapped, default=function)


def repeated(
    count: jax.Array, most: int, body: Callable[[jax.Array, jax.Array], jax.Array], start: jax.Array
) -> jax.Array:
    """``body(number, value)`` for the numbers 0 to ``count - 1``, of ``most`` that there can be.

    As ``lax.fori_loop``, but gradients pass, for which the number of rounds must be known.
    """

    def step(value, number):
        return jax.lax.cond(number < count, body, lambda _, same: same, number, value), None

    return jax.lax.scan(step, start, jnp.arange(most, dtype=jnp.int32))[0]
