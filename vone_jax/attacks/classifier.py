"""Calls of a classifier ``logits_fn(keys, images) -> logits``, and verdicts on its answers.

A classifier takes one key per example. Verdicts take noise draws that no attack has used.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vone_jax import prng
from vone_jax.attacks import losses

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
    """Return the logits of ``count`` noise draws of each example, shape (count, N, C).

    The draws are a ``vmap`` over keys, so whatever comes before the noise is computed once. For
    a gradient, ``jax.grad`` belongs around this function and not inside it: then the backward
    pass through the deterministic part runs once, too.
    """
    numbers = jnp.arange(count, dtype=jnp.uint32)
    draw_keys = jax.vmap(lambda number: prng.fold(keys, number))(numbers)
    return jax.vmap(logits_fn, in_axes=(0, None))(draw_keys, images)


class Verdict(NamedTuple):
    """The decisions of a classifier on images over several noise draws.

    Attributes:
      right: number of draws in which an image is classified right, shape (N,), float. For a
        target: in which it is not reached.
      margin: mean over the draws of the largest other logit minus the label's, shape (N,). For a
        target: of the target's logit minus the largest other.
    """

    right: jax.Array
    margin: jax.Array

    def beats(self, other: "Verdict") -> jax.Array:
        """Compare two verdicts: which is right less often or, if as often, has the larger margin.

        Returns:
          Booleans (N,), true where this verdict is the stronger one for an attacker.
        """
        fewer = self.right < other.right
        return fewer | ((self.right == other.right) & (self.margin > other.margin))


def judge(
    logits_fn: LogitsFn,
    keys: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    count: int,
    targeted: bool = False,
) -> Verdict:
    """The verdict on images; a classifier without noise is called once whatever the draws.

    Args:
      logits_fn: classifier with one key per example.
      keys: typed keys of shape (N,). Candidates that are compared get the same keys.
      images: shape (N, H, W, C).
      labels: the true classes or, for a target, the classes to reach; shape (N,).
      count: number of noise draws.
      targeted: whether they are classes to reach.
    """
    logits = draws(logits_fn, keys, images, count)
    fooled = misled(logits, labels[None], targeted)
    margin = jnp.mean(losses.margin(logits, labels), axis=0)
    return Verdict(jnp.sum(~fooled, axis=0, dtype=logits.dtype), -margin if targeted else margin)


def misled(logits: jax.Array, labels: jax.Array, targeted: bool) -> jax.Array:
    """Return the successes of an attacker, booleans (..., N).

    A success is a class other than the label or, with ``targeted``, the label itself.
    """
    at_label = jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels
    return at_label if targeted else ~at_label


def either(chosen: jax.Array, ours: Verdict, theirs: Verdict) -> Verdict:
    """``ours`` where ``chosen`` holds and ``theirs`` elsewhere."""
    return jax.tree.map(lambda one, other: jnp.where(chosen, one, other), ours, theirs)


def nothing_yet(like: jax.Array) -> Verdict:
    """A verdict that every other one beats; ``like`` has shape (N,)."""
    return Verdict(jnp.full_like(like, jnp.inf), jnp.full_like(like, -jnp.inf))
