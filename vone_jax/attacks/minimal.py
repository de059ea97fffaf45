"""Minimal-norm attacks: the closest adversarial image, whatever its distance.

One run serves a whole ladder of radii: an image resists all radii below the distance found. These
attacks can also be called like any other, and then keep to their ``eps``.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vone_jax import fast, prng
from vone_jax.attacks import classifier, losses, norms
from vone_jax.attacks.attack import Attack, Estimator, Norm, check_finite
from vone_jax.attacks.classifier import (
    AnyImages,
    AnyKey,
    AnyLabels,
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
from vone_jax.attacks.losses import AnyLogits, AnyValues

# A classifier with noise misclassifies an image if its mean margin is as many standard errors.
STANDARD_ERRORS = 2.0
# If new draws do not confirm the closest image, images at these multiples of its distance are
# judged.
FARTHER = (1.1, 1.25, 1.5, 2.0, 3.0, 5.0)


class MinimalPerturbation(NamedTuple):
    """The result of a minimal-norm attack for each image.

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


class MinimalNormAttack(Attack):
    """Base of the attacks that look for the closest adversarial image.

    The classifier decides by its mean logits over ``eot_samples`` noise draws. With several draws
    an image counts as adversarial only if the mean margin is positive by two standard errors. The
    search selects lucky draws, so draws that it has not used must confirm its closest image. If
    they do not, images farther out on the line from the original are judged, at up to five times
    the distance. The result is the closest of them that is adversarial. A single draw is for
    classifiers without noise. With noise, lucky draws count as success, so a call warns of it.

    Attributes:
      norm: norm of the distance.
      eps: radius that a call keeps to: it returns the closest adversarial image where that lies
        within ``eps``, and the original elsewhere. ``minimal`` does not restrict the distance.
      eot_samples: noise draws per decision and gradient.
      estimator: what a gradient averages over the draws, see ``GradientAttack``. Decisions always
        take the mean logits.
      targeted: whether labels are classes to reach rather than to leave.
    """

    decides_by_draws = True

    norm: Norm
    eps: float
    _: dataclasses.KW_ONLY
    eot_samples: int = 1
    estimator: Estimator = "mean_logits"
    targeted: bool = False

    def minimal(
        self, key: AnyKey, logits_fn: LogitsFn, images: AnyImages, labels: AnyLabels
    ) -> MinimalPerturbation:
        """Return the closest adversarial images; arguments and errors are those of a call."""
        result = _compiled(*self.prepared(key, logits_fn, images, labels))
        check_finite(result.images)
        return result

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        return self.within(self.closest(keys, logits_fn, images, labels), images)

    def within(self, result: MinimalPerturbation, images: Images) -> Images:
        """Return the closest adversarial images within ``eps``, and the originals elsewhere."""
        kept = (result.distance <= self.eps) | jnp.isnan(result.distance)
        return where(kept, result.images, images)

    def closest(
        self,
        keys: Keys,
        logits_fn: LogitsFn,
        images: Images,
        labels: Labels,
        search: Callable[..., Closest] | None = None,
    ) -> MinimalPerturbation:
        """Search, and confirm the result: pure, on checked input, with one key per example."""
        search = search or self.search
        nothing = Closest(images, jnp.full(images.shape[:1], jnp.inf, images.dtype))
        logits = self.logits(prng.stream(keys, "clean"), logits_fn, images)
        clean, _ = self.closer(nothing, images, logits, images, labels)
        best = search(prng.stream(keys, "search"), logits_fn, images, labels, clean)
        confirming = self.logits(prng.stream(keys, "confirm"), logits_fn, best.images)
        margin = self.margin(jnp.mean(confirming, axis=0), labels)
        unconfirmed = ~(margin > 0) & jnp.isfinite(best.distance)
        confirmed = where(unconfirmed, nothing, best)
        confirmed = where(jnp.isfinite(margin), confirmed, jnp.nan)
        factors = jnp.asarray(FARTHER, images.dtype)

        def farther(number: Array, confirmed: Closest) -> Closest:
            points = jnp.clip(images + factors[number] * (best.images - images), 0.0, 1.0)
            farther_keys = prng.fold(prng.stream(keys, "farther"), number)
            logits = self.logits(farther_keys, logits_fn, points)
            closer, _ = self.closer(confirmed, points, logits, images, labels)
            return where(unconfirmed, closer, confirmed)

        if self.eot_samples > 1:
            confirmed = jax.lax.fori_loop(0, len(FARTHER), farther, confirmed)
        closest, distance = confirmed
        return MinimalPerturbation(closest, distance, jnp.isfinite(distance))

    @abc.abstractmethod
    def search(
        self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels, closest: Closest
    ) -> Closest:
        """Search for closer adversarial images, starting from ``closest``."""

    def logits(self, keys: Keys, logits_fn: LogitsFn, images: Images) -> Draws:
        """Return the logits of the noise draws by which the classifier decides."""
        return classifier.draws(logits_fn, keys, images, self.eot_samples)

    def margin(self, logits: AnyLogits, labels: Labels) -> AnyValues:
        """Return the margin of logits: positive for an adversarial image."""
        margin = losses.margin(logits, labels)
        return -margin if self.targeted else margin

    def closer(
        self, closest: Closest, candidates: Images, logits: Draws, images: Images, labels: Labels
    ) -> tuple[Closest, Mask]:
        """Return the closest images so far, and True for the candidates that are adversarial.

        Where the logits of a candidate are not finite, the closest image becomes and stays NaN.
        """
        mean = jnp.mean(logits, axis=0)
        margin = self.margin(mean, labels)
        adversarial = margin > STANDARD_ERRORS * _standard_error(logits, mean, labels)
        distance = norms.size(candidates - images, self.norm)
        better = adversarial & (distance < closest.distance)
        closest = where(better, Closest(candidates, distance), closest)
        # No distance is less than NaN, so nothing replaces it.
        return where(jnp.isfinite(margin), closest, jnp.nan), adversarial


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
def _compiled(
    attack: MinimalNormAttack, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels
) -> MinimalPerturbation:
    logits_fn = classifier.checked(logits_fn, keys, images)
    attack = classifier.in_dtype(attack, images.dtype)
    return jax.lax.stop_gradient(attack.closest(keys, logits_fn, images, labels))
