"""The loss, and metrics as sums: batches add up, and one division at the end gives the mean."""

import flax.struct
import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy of each example.

    Args:
      logits: float (N, classes); computed in float32.
      labels: int (N,).
      label_smoothing: share s of the target spread evenly, so that the target of the right class
        is 1 - s + s / classes and that of the others s / classes (PyTorch's definition).

    Returns:
      float32 (N,), in nats.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    right = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    return -(1.0 - label_smoothing) * right - label_smoothing * jnp.mean(log_probabilities, axis=1)


@flax.struct.dataclass
class Sums:
    """Totals over examples.

    Attributes:
      loss: sum of the losses, float32.
      correct: examples whose largest logit is the label's, int32.
      seen: number of examples, int32.
    """

    loss: jax.Array
    correct: jax.Array
    seen: jax.Array


def batch_sums(
    losses: jax.Array, logits: jax.Array, labels: jax.Array, mask: jax.Array | None = None
) -> Sums:
    """Sums over a batch.

    Args:
      losses: float32 (N,).
      logits: (N, classes).
      labels: int (N,).
      mask: bool (N,), False for padding, which may then hold anything; None counts all rows.
    """
    if mask is None:
        mask = jnp.ones(labels.shape, bool)
    hit = jnp.argmax(logits, axis=-1) == labels
    # Selected, not multiplied: a NaN in a padded row must not reach the sum.
    return Sums(
        loss=jnp.sum(jnp.where(mask, losses, 0.0)),
        correct=jnp.sum(hit & mask, dtype=jnp.int32),
        seen=jnp.sum(mask, dtype=jnp.int32),
    )
