"""The course of an attack: its loss at each evaluation of the classifier, and the queries used."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array, Float

from vone_jax.attacks.classifier import Images, Keys, Labels, Logits, LogitsFn
from vone_jax.attacks.losses import LossFn


class Trace(NamedTuple):
    """What an attack evaluated, in order.

    Attributes:
      images: the adversarial images, those of a call.
      losses: the loss of each evaluation and image: the mean over the noise draws of that
        evaluation. For ``PGD`` these are the losses at the beginning of each step. Other attacks
        also evaluate the clean image, or choose among several images at the end.
      queries: forward passes through the classifier for each image, a pass for each noise draw.
    """

    images: Images
    losses: Float[np.ndarray, "evaluations n"]
    queries: int


class Recorder:
    """A list of the logits of each evaluation, filled while a compiled attack runs."""

    def __init__(self) -> None:
        self.logits: list[np.ndarray] = []

    def watch(self, logits_fn: LogitsFn) -> LogitsFn:
        """Return the classifier, a pytree, whose logits are recorded."""

        @jax.custom_batching.custom_vmap
        def record(logits: Array) -> Array:
            jax.debug.callback(self.logits.append, logits, ordered=True)
            return logits

        @record.def_vmap
        def _(size: int, is_batched: list[bool], logits: Array) -> tuple[Array, bool]:
            # The draws of an evaluation are a ``vmap``, and belong together.
            return record(logits), True

        def watched(logits_fn: LogitsFn, keys: Keys, images: Images) -> Logits:
            logits = logits_fn(keys, images)
            record(jax.lax.stop_gradient(logits))
            return logits

        return Partial(watched, logits_fn)

    def trace(self, images: Images, labels: Labels, loss: LossFn) -> Trace:
        """Return the trace of an attack that has made these images."""
        jax.effects_barrier()
        several = [jnp.reshape(logits, (-1, *logits.shape[-2:])) for logits in self.logits]
        each = [jnp.mean(jax.vmap(loss, (0, None))(draws, labels), axis=0) for draws in several]
        losses = np.stack(each) if each else np.empty((0, len(labels)), images.dtype)
        return Trace(images, losses, sum(len(draws) for draws in several))
