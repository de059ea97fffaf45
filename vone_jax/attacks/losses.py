"""Losses per example that an attack raises, and their averages over noise draws."""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy of logits (..., N, C) to labels (N,), shape (..., N)."""
    return jax.nn.logsumexp(logits, axis=-1) - _at(logits, labels)


def margin(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The largest other logit minus the label's: positive where the example is misclassified."""
    return _largest_other(logits, labels) - _at(logits, labels)


def dlr(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Difference-of-logits ratio, unchanged by shifting or scaling the logits.

    -(z_y - max_{i != y} z_i) / (z_(1) - z_(3) + 1e-12), logits in descending order.

    Raises:
      ValueError: with fewer than 3 classes.

    References:
      Croce and Hein, 2020, arXiv:2003.01690, equation 6.
    """
    if logits.shape[-1] < 3:
        raise ValueError(f'loss "dlr" needs at least 3 classes, got {logits.shape[-1]}')
    top = jax.lax.top_k(logits, 3)[0]
    return margin(logits, labels) / (top[..., 0] - top[..., 2] + 1e-12)


def targeted_dlr(logits: jax.Array, labels: jax.Array, targets: jax.Array) -> jax.Array:
    """Targeted difference-of-logits ratio.

    -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12), logits in descending order.

    Args:
      logits: shape (..., N, C).
      labels: the classes to leave, shape (N,).
      targets: the classes to reach, shape (N,).

    Raises:
      ValueError: with fewer than 4 classes.

    References:
      Croce and Hein, 2020, arXiv:2003.01690, equation 7.
    """
    if logits.shape[-1] < 4:
        raise ValueError(f'loss "targeted_dlr" needs at least 4 classes, got {logits.shape[-1]}')
    top = jax.lax.top_k(logits, 4)[0]
    scale = top[..., 0] - 0.5 * (top[..., 2] + top[..., 3]) + 1e-12
    return (_at(logits, targets) - _at(logits, labels)) / scale


LOSSES = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}

# Classes that a loss needs; every other needs 2.
LEAST_CLASSES = {"dlr": 3, "targeted_dlr": 4}

ESTIMATORS = ("mean_loss", "mean_logits", "mean_probability")


def averaged(loss, estimator: str, logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The loss of each example over k noise draws.

    Args:
      loss: one of the functions in ``LOSSES``.
      estimator: "mean_loss" averages the losses of the draws (AutoAttack, torchattacks, the
        ensemble of the VOneNet authors); "mean_logits" takes the loss of the mean logits
        (foolbox); "mean_probability" that of the logarithm of the mean probability.
      logits: shape (k, N, C).
      labels: integers, shape (N,).

    Returns:
      Array of shape (N,).
    """
    if estimator == "mean_loss":
        return jnp.mean(loss(logits, labels), axis=0)
    return loss(combined(estimator, logits), labels)


def combined(estimator: str, logits: jax.Array) -> jax.Array:
    """The logits (N, C) that stand for those of k noise draws, (k, N, C).

    Their mean, or for "mean_probability" the logarithm of the mean probability. What is linear in
    the logits has the same mean as they have, so there "mean_loss" is "mean_logits".
    """
    if estimator != "mean_probability":
        return jnp.mean(logits, axis=0)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - jnp.log(
        jnp.asarray(logits.shape[0], logits.dtype)
    )


def _is_label(logits: jax.Array, labels: jax.Array) -> jax.Array:
    classes = jnp.arange(logits.shape[-1], dtype=labels.dtype)
    hit = labels[:, None] == classes[None]
    return jnp.broadcast_to(hit, logits.shape)


def _at(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.sum(jnp.where(_is_label(logits, labels), logits, 0.0), axis=-1)


def _largest_other(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.max(jnp.where(_is_label(logits, labels), -jnp.inf, logits), axis=-1)
