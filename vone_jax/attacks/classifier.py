"""How attacks call a classifier ``logits_fn(key, images) -> logits``: per example and per draw."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from vone_jax import prng

LogitsFn = Callable[[jax.Array, jax.Array], jax.Array]


def as_pytree(logits_fn: LogitsFn) -> jax.tree_util.Partial:
    """The classifier as a pytree, so that compiled functions take it as an ordinary argument.

    ``models.logits_fn`` returns such a pytree already: its weights are leaves, and other weights
    do not compile anew. A plain function becomes one without leaves and is compiled once per
    function object.

    Raises:
      TypeError: if ``logits_fn`` cannot be called.
    """
    if not callable(logits_fn):
        raise TypeError(
            f"logits_fn must be a function of (key, images), got {type(logits_fn).__name__}"
        )
    if isinstance(logits_fn, jax.tree_util.Partial):
        return logits_fn
    return jax.tree_util.Partial(logits_fn)


def per_example(logits_fn: LogitsFn, keys: jax.Array, images: jax.Array) -> LogitsFn:
    """The classifier as a function of one key per example.

    Classifiers of this project take an array of N keys. A function that draws with its key in
    the plain way accepts one scalar key only; it is then applied to each example with that
    example's key, under ``vmap``, which gives the same guarantee: the noise of an example does
    not depend on its batch.

    Args:
      logits_fn: the classifier.
      keys: typed keys of shape (N,), here only for their shape.
      images: shape (N, H, W, C), here only for their shape.

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


# Compiled functions, although they are called while others are traced: JAX then traces a
# classifier once and not again for each attack.


@jax.jit
def _logits(logits_fn, keys, images):
    # The choice is made while this is traced, so it is made once.
    try:
        return _whole_batch(logits_fn, keys, images)
    except Exception:  # Flax, for one, refuses several keys with an error class of its own.
        return jax.vmap(lambda key, image: logits_fn(key, image[None])[0])(keys, images)


@jax.jit
def _whole_batch(logits_fn, keys, images):
    return logits_fn(keys, images)


def draws(logits_fn: LogitsFn, keys: jax.Array, images: jax.Array, count: int) -> jax.Array:
    """Logits of ``count`` noise draws of each example, shape (count, N, C).

    The draws are a ``vmap`` over keys, so whatever comes before the noise is computed once. For
    a gradient, ``jax.grad`` belongs around this function and not inside it: then the backward
    pass through the deterministic part runs once, too.
    """
    numbers = jnp.arange(count, dtype=jnp.uint32)
    draw_keys = jax.vmap(lambda number: prng.fold(keys, number))(numbers)
    return jax.vmap(logits_fn, in_axes=(0, None))(draw_keys, images)
