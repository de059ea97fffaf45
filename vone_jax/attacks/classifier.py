"""Calls of a classifier ``logits_fn(keys, images) -> logits``, with one key per example."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vone_jax import prng

LogitsFn = Callable[[jax.Array, jax.Array], jax.Array]


def as_pytree(logits_fn: LogitsFn) -> jax.tree_util.Partial:
    """Return the classifier as a pytree, see ``prng.as_pytree``.

    Raises:
      TypeError: if ``logits_fn`` cannot be called with two positional arguments.
    """
    return prng.as_pytree(logits_fn, "logits_fn")


def checked(logits_fn: LogitsFn, keys: jax.Array, images: jax.Array) -> LogitsFn:
    """Return the classifier as a compiled function, after a check of the shape of its logits.

    Args:
      logits_fn: the classifier, which takes one key per example.
      keys: typed keys of shape (N,). Only their shape is used.
      images: shape (N, H, W, C). Only their shape is used.

    Returns:
      A function of keys (N,) and images (N, H, W, C) to logits (N, C).

    Raises:
      ValueError: if the logits do not have shape (N, C) with C at least 2.
      TypeError: if the logits are not floating point.
    """
    call = functools.partial(_logits, as_pytree(logits_fn))
    logits = jax.eval_shape(call, keys, images)
    shape = getattr(logits, "shape", None)
    if shape is None or len(shape) != 2 or shape[0] != images.shape[0] or shape[1] < 2:
        raise ValueError(
            f"logits_fn must return logits of shape ({images.shape[0]}, classes) with at least "
            f"2 classes, got {type(logits).__name__ if shape is None else shape}"
        )
    if not jnp.issubdtype(logits.dtype, jnp.floating):
        raise TypeError(f"logits_fn must return floating-point logits, got {logits.dtype}")
    return call


@jax.jit
def _logits(logits_fn: jax.tree_util.Partial, keys: jax.Array, images: jax.Array) -> jax.Array:
    # Compiled, although attacks call this while they are traced themselves: JAX then traces a
    # classifier once and not again for each attack.
    return prng.call_with_keys(logits_fn, keys, images, "logits_fn", "attacks.per_example")


def draws(logits_fn: LogitsFn, keys: jax.Array, images: jax.Array, count: int) -> jax.Array:
    """Logits of ``count`` noise draws of each example, shape (count, N, C).

    The draws are a ``vmap`` over keys, so whatever comes before the noise is computed once. For
    a gradient, ``jax.grad`` belongs around this function and not inside it: then the backward
    pass through the deterministic part runs once, too.
    """
    numbers = jnp.arange(count, dtype=jnp.uint32)
    draw_keys = jax.vmap(lambda number: prng.fold(keys, number))(numbers)
    return jax.vmap(logits_fn, in_axes=(0, None))(draw_keys, images)
