"""How strong an adversarial image is, judged with noise draws that no attack has seen."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from vone_jax.attacks import classifier, losses


class Verdict(NamedTuple):
    """What a classifier makes of images over several noise draws.

    Attributes:
      right: number of draws in which an image is classified right, shape (N,), float. For a
        target: in which it is not reached.
      margin: mean over the draws of the largest other logit minus the label's, shape (N,). For a
        target: of the target's logit minus the largest other.
    """

    right: jax.Array
    margin: jax.Array

    def beats(self, other: "Verdict") -> jax.Array:
        """Where this one is right less often or, if as often, with the larger margin."""
        fewer = self.right < other.right
        return fewer | ((self.right == other.right) & (self.margin > other.margin))


def judge(
    logits_fn: classifier.LogitsFn,
    keys: jax.Array,
    images: jax.Array,
    labels: jax.Array,
    draws: int,
    targeted: bool = False,
) -> Verdict:
    """The verdict on images; a classifier without noise is called once whatever the draws.

    Args:
      logits_fn: classifier with one key per example.
      keys: typed keys of shape (N,). Candidates that are compared get the same keys.
      images: shape (N, H, W, C).
      labels: the true classes or, for a target, the classes to reach; shape (N,).
      draws: number of noise draws.
      targeted: whether they are classes to reach.
    """
    logits = classifier.draws(logits_fn, keys, images, draws)
    fooled = misled(logits, labels[None], targeted)
    margin = jnp.mean(losses.margin(logits, labels), axis=0)
    return Verdict(jnp.sum(~fooled, axis=0, dtype=logits.dtype), -margin if targeted else margin)


def misled(logits: jax.Array, labels: jax.Array, targeted: bool) -> jax.Array:
    """Which decisions an attacker wants: another class than the label or, for a target, it."""
    at_label = jnp.argmax(logits, axis=-1).astype(labels.dtype) == labels
    return at_label if targeted else ~at_label


def either(chosen: jax.Array, ours: Verdict, theirs: Verdict) -> Verdict:
    """``ours`` where ``chosen`` holds and ``theirs`` elsewhere."""
    return jax.tree.map(lambda one, other: jnp.where(chosen, one, other), ours, theirs)


def nothing_yet(like: jax.Array) -> Verdict:
    """A verdict that every other one beats; ``like`` has shape (N,)."""
    return Verdict(jnp.full_like(like, jnp.inf), jnp.full_like(like, -jnp.inf))
