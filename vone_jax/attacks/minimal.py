"""Searches for the smallest change: the closest adversarial image, whatever its distance.

One run serves a whole ladder of radii: an image resists all radii below the distance found. The
same attacks can be called like any other, and then keep to their ``eps``.

The classifier decides by its mean logits over ``eot_samples`` noise draws. With several draws an
image counts as adversarial only if the mean margin is positive by two standard errors. The search
selects lucky draws, so draws that it has not used must confirm its closest image. If they do not,
images farther out on the line from the original are judged, at up to five times the distance. The
result is the closest of them that is adversarial. A single draw is for classifiers without noise.
With noise, lucky draws count as success, so a call warns of it.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vone_jax import fast, prng
from vone_jax.attacks import classifier, norms
from vone_jax.attacks.classifier import (
    Draws,
    Images,
    Keys,
    Labels,
    Logits,
    LogitsFn,
    Mask,
    Values,
    where,
)

# A classifier with noise misclassifies an image if its mean margin is as many standard errors.
STANDARD_ERRORS = 2.0
# If new draws do not confirm the closest image, images at these multiples of its distance are
# judged.
FARTHER = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0)

# An ``attack.Attack`` with a ``search``; that module builds on this one.
AnyAttack = Any


class MinimalPerturbation(NamedTuple):
    """The result of a search for each image.

    Attributes:
      images: the closest adversarial images in [0, 1]; the original image where none was found.
      distance: their distance from the originals in the norm of the attack; 0 for an image that
        is misclassified as it is, infinite where none was found.
      found: whether an adversarial image was found.
    """

    images: Images
    distance: Values
    found: Mask


class Closest(NamedTuple):
    """The closest adversarial images so far, and their distance: infinite before the first."""

    images: Images
    distance: Values

    @classmethod
    def start(cls, images: Images) -> "Closest":
        """Return the originals, for which nothing is found yet."""
        return cls(images, jnp.full(images.shape[:1], jnp.inf, images.dtype))


def closest(
    attack: AnyAttack, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
) -> MinimalPerturbation:
    """Search, and confirm the result: pure, on checked input, with one key per example."""

    def logits(keys: Keys, images: Images) -> Draws:
        return classifier.draws(logits_fn, keys, images, attack.eot_samples)

    nothing = Closest.start(images)
    decisions = logits(prng.stream(keys, "clean"), images)
    clean, _ = attack.closer(nothing, images, decisions, images, labels)
    best = attack.search(prng.stream(keys, "search"), logits_fn, images, labels)
    # An image that is misclassified as it is has distance 0, and one of NaN stays.
    best = where(jnp.isinf(clean.distance), best, clean)
    confirming = logits(prng.stream(keys, "confirm"), best.images)
    margin = attack.margin(jnp.mean(confirming, axis=0), labels)
    unconfirmed = ~(margin > 0) & jnp.isfinite(best.distance)
    confirmed = where(unconfirmed, nothing, best)
    confirmed = where(jnp.isfinite(margin), confirmed, jnp.nan)
    factors = jnp.asarray(FARTHER, images.dtype)

    def farther(number: Array, confirmed: Closest) -> Closest:
        points = jnp.clip(images + factors[number] * (best.images - images), 0.0, 1.0)
        decisions = logits(prng.fold(prng.stream(keys, "farther"), number), points)
        closer, _ = attack.closer(confirmed, points, decisions, images, labels)
        return where(unconfirmed, closer, confirmed)

    if attack.eot_samples > 1:
        confirmed = jax.lax.fori_loop(0, len(FARTHER), farther, confirmed)
    adversarial, distance = confirmed
    return MinimalPerturbation(adversarial, distance, jnp.isfinite(distance))


def within(attack: AnyAttack, result: MinimalPerturbation, images: Images) -> Images:
    """Return the closest adversarial images within ``eps``, and the originals elsewhere."""
    kept = (result.distance <= attack.eps) | jnp.isnan(result.distance)
    return where(kept, result.images, images)


def closer(
    attack: AnyAttack,
    best: Closest,
    candidates: Images,
    logits: Draws,
    images: Images,
    labels: Labels,
) -> tuple[Closest, Mask]:
    """Return the closest images so far, and True for the candidates that are adversarial.

    Where the logits of a candidate are not finite, the closest image becomes and stays NaN.
    """
    mean = jnp.mean(logits, axis=0)
    margin = attack.margin(mean, labels)
    adversarial = margin > STANDARD_ERRORS * _standard_error(logits, mean, labels)
    distance = norms.size(candidates - images, attack.norm)
    better = adversarial & (distance < best.distance)
    best = where(better, Closest(candidates, distance), best)
    # No distance is less than NaN, so nothing replaces it.
    return where(jnp.isfinite(margin), best, jnp.nan), adversarial


def _standard_error(logits: Draws, mean: Logits, labels: Labels) -> Values:
    """Return the standard error of the gap between the label and its rival; 0 for one draw."""
    count = logits.shape[0]
    if count == 1:
        return jnp.zeros(labels.shape, logits.dtype)
    label = jax.nn.one_hot(labels, mean.shape[-1], dtype=mean.dtype)
    rival = jnp.argmax(jnp.where(label > 0, -jnp.inf, mean), axis=-1)
    weights = jax.nn.one_hot(rival, mean.shape[-1], dtype=mean.dtype) - label
    return jnp.std(jnp.sum(logits * weights[None], axis=-1), axis=0, ddof=1) / count**0.5


@jax.jit
@fast.in_fast_layout
def compiled(
    attack: AnyAttack, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
) -> MinimalPerturbation:
    """Do as ``closest`` does, as a compiled function, on checked input."""
    logits_fn = classifier.checked(logits_fn, keys, images)
    attack = classifier.in_dtype(attack, images.dtype)
    return jax.lax.stop_gradient(closest(attack, keys, logits_fn, images, labels))
