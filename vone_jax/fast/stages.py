"""Loops over images and ends of stages, in the forms that XLA compiles well."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vone_jax.fast import switch


def stage(function: Callable[..., Any], *operands: Any) -> Any:
    """Return ``function(*operands)``, with operands and results as arrays in memory.

    XLA fuses a value into the operations that read it, and computes it again in each of them. In a
    chain of filters with a few taps that multiplies the work at every filter, up to a hundred times
    on a CPU, where ``lax.optimization_barrier`` has no effect. XLA does not fuse across the ends of
    a conditional, so the function runs in one that is always true. A loop hides that from XLA.

    Args:
      function: from arrays to a tree of arrays.
      *operands: its arguments.
    """
    if not switch.enabled():
        return function(*operands)
    always = jax.lax.fori_loop(0, 2, jnp.add, jnp.int32(0)) == 1
    shapes = jax.eval_shape(function, *operands)
    nothing = lambda *_: jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes)  # noqa: E731
    return jax.lax.cond(always, function, nothing, *operands)


def one_by_one(function: Callable[..., jax.Array], *batches: jax.Array) -> jax.Array:
    """Return ``function(*batches)``, computed image by image on a CPU and at once elsewhere.

    A loop that reads its images again and again is several times faster when one image stays in
    the cache, and it needs memory for one image only. The cores then share an image, not the batch.

    Args:
      function: takes and returns arrays whose first axis counts the images.
      *batches: its arguments.
    """
    if not switch.enabled():
        return function(*batches)

    def mapped(*batches):
        alone = lambda arrays: function(*(array[None] for array in arrays))[0]  # noqa: E731
        return jax.lax.map(alone, batches)

    return jax.lax.platform_dependent(*batches, cpu=mapped, default=function)


def repeated(
    count: jax.Array, most: int, body: Callable[[jax.Array, jax.Array], jax.Array], start: jax.Array
) -> jax.Array:
    """Return the result of ``body(number, value)`` for the numbers 0 to ``count - 1`` in turn.

    It is a ``lax.fori_loop`` that gradients pass through, for which the largest number of rounds
    must be known. The fast form skips the rounds beyond ``count``; the plain form drops their
    results.

    Args:
      count: int32, shape (), at most ``most``.
      most: the largest number of rounds.
      body: from the number of the round and the value to the next value.
      start: the first value.
    """

    def skip(value, number):
        return jax.lax.cond(number < count, body, lambda _, same: same, number, value), None

    def drop(value, number):
        return jnp.where(number < count, body(number, value), value), None

    step = skip if switch.enabled() else drop
    return jax.lax.scan(step, start, jnp.arange(most, dtype=jnp.int32))[0]
