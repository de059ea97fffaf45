"""Losses per example, and their averages over noise draws."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from vone_jax import fast
from vone_jax.attacks.classifier import (
    Draws,
    Images,
    Labels,
    Logits,
    Values,
    where,
)

# The logits of one or several draws, and a number for each draw and example.
AnyLogits = Float[Array, "*draws n classes"]
AnyValues = Float[Array, "*draws n"]


def cross_entropy(logits: AnyLogits, labels: Labels) -> AnyValues:
    """Return the cross-entropy of logits to labels."""
    # This is logsumexp(logits) - label. Where the label leads by 17 or more, that rounds to 0, and
    # its gradient loses the part of the label.
    label = _at(logits, labels)
    ahead = jax.nn.logsumexp(_others(logits, labels), axis=-1) - label
    # Where the label is infinite, the product is NaN.
    return jax.nn.softplus(ahead + 0 * label)


def margin(logits: AnyLogits, labels: Labels) -> AnyValues:
    """Return the largest other logit minus the label's: positive for a misclassified example."""
    return fast.largest(_others(logits, labels), axis=-1) - _at(logits, labels)


def dlr(logits: AnyLogits, labels: Labels) -> AnyValues:
    """Return the difference-of-logits ratio, which no shift or scale of the logits changes.

    -(z_y - max_{i != y} z_i) / (z_(1) - z_(3) + 1e-12), logits in descending order (Croce and
    Hein, 2020, arXiv:2003.01690, equation 6).

    Raises:
      ValueError: with fewer than 3 classes.
    """
    _check_classes("dlr", logits)
    top = jax.lax.top_k(logits, 3)[0]
    return margin(logits, labels) / (top[..., 0] - top[..., 2] + 1e-12)


def targeted_dlr(logits: AnyLogits, labels: Labels, targets: Labels) -> AnyValues:
    """Return the difference-of-logits ratio between the labels to leave and the targets to reach.

    -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2 + 1e-12), logits in descending order (Croce and
    Hein, 2020, arXiv:2003.01690, equation 7).

    Raises:
      ValueError: with fewer than 4 classes.
    """
    _check_classes("targeted_dlr", logits)
    top = jax.lax.top_k(logits, 4)[0]
    scale = top[..., 0] - 0.5 * (top[..., 2] + top[..., 3]) + 1e-12
    return (_at(logits, targets) - _at(logits, labels)) / scale


def _check_classes(loss: str, logits: AnyLogits) -> None:
    least, given = LEAST_CLASSES[loss], logits.shape[-1]
    if given < least:
        raise ValueError(
            f'loss "{loss}" needs at least {least} classes, got {given}; take "margin"'
        )


LossFn = Callable[[Logits, Labels], Values]
LOSSES: dict[str, LossFn] = {"cross_entropy": cross_entropy, "margin": margin, "dlr": dlr}

# The smallest number of classes for a loss; every other loss needs 2.
LEAST_CLASSES = {"dlr": 3, "targeted_dlr": 4}

ESTIMATORS = ("mean_loss", "mean_logits", "mean_probability")


def of(loss: str | LossFn) -> LossFn:
    """Return the loss of a name. A function is checked to return one loss per example."""
    if isinstance(loss, str):
        return LOSSES[loss]

    def checked(logits: Logits, labels: Labels) -> Values:
        values = loss(logits, labels)
        if jnp.shape(values) != labels.shape:
            raise ValueError(
                f"loss must return one number per example, shape {labels.shape}, got shape "
                f"{jnp.shape(values)}"
            )
        return values

    return checked


def averaged(loss: LossFn, estimator: str, logits: Draws, labels: Labels) -> Values:
    """Return the loss of each example over the noise draws.

    The estimator "mean_loss" averages the losses of the draws (AutoAttack, torchattacks, the
    ensemble of the VOneNet authors); "mean_logits" takes the loss of the mean logits (foolbox);
    "mean_probability" takes the loss of the logarithm of the mean probability.
    """
    if estimator == "mean_loss":
        return jnp.mean(jax.vmap(loss, (0, None))(logits, labels), axis=0)
    return loss(combined(estimator, logits), labels)


def combined(estimator: str, logits: Draws) -> Logits:
    """Return the mean logits, or for "mean_probability" the logarithm of the mean probability.

    For a linear function of the logits, the mean of the function is the function of the mean. So
    "mean_loss" returns the mean logits, too.
    """
    if estimator != "mean_probability":
        return jnp.mean(logits, axis=0)
    return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - jnp.log(
        jnp.asarray(logits.shape[0], logits.dtype)
    )


def misclassified(logits: AnyLogits, labels: Labels, targeted: bool) -> Bool[Array, "*draws n"]:
    """Return True where an attack succeeds: at another class or, with ``targeted``, the label."""
    decisions = jnp.argmax(logits, axis=-1).astype(labels.dtype)
    at_label = decisions == jnp.broadcast_to(labels, decisions.shape)
    return at_label if targeted else ~at_label


def higher(
    best: tuple[Images, Values], rival_images: Images, rival_loss: Values
) -> tuple[Images, Values]:
    """Return for each example the images and loss of the pair with the higher loss."""
    # A loss that is not finite wins and is kept, with images of NaN, so that it is reported.
    finite = jnp.isfinite(rival_loss)
    rival_images = where(finite, rival_images, jnp.nan)
    rival_loss = jnp.where(finite, rival_loss, jnp.nan)
    wins = ~(rival_loss <= best[1]) & ~jnp.isnan(best[1])
    return where(wins, (rival_images, rival_loss), best)


def rivals(logits: Logits, labels: Labels, count: int) -> Int[Array, "rivals n"]:
    """Return the ``count`` classes with the largest logits besides the labels."""
    return jax.lax.top_k(_others(logits, labels), count)[1].T


def _others(logits: AnyLogits, labels: Labels) -> AnyLogits:
    return jnp.where(_is_label(logits, labels), -jnp.inf, logits)


def _is_label(logits: AnyLogits, labels: Labels) -> Bool[Array, "*draws n classes"]:
    classes = jnp.arange(logits.shape[-1], dtype=labels.dtype)
    return jnp.broadcast_to(labels[:, None] == classes[None], logits.shape)


def _at(logits: AnyLogits, labels: Labels) -> AnyValues:
    return jnp.sum(jnp.where(_is_label(logits, labels), logits, 0.0), axis=-1)
