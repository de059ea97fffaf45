"""Calibration of a network with noise, against the number of draws that are averaged.

An evaluation cannot keep the logits of all draws. So the draws of an image are reduced to a few
scores on the way (``average``, ``score``), and ``summarise`` makes the numbers of all images.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Int

from vone_jax import arguments, batches

# The numbers of draws of an evaluation, as far as it has so many.
DRAWS = (1, 3, 10, 30)
BINS = 15

# What the draws of images say: the mean probabilities (draws, n, classes), the logarithms of that
# of the label (draws, n), and the mean entropies of single draws (draws, n).
Averages = tuple[Array, Array, Array]
# The columns are the number of draws, whether the answer is right, its confidence, the logarithm of
# the label's probability, the Brier score, the entropy, and its part that the noise causes.
Scores = Float[Array | np.ndarray, "n m 7"]


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """How well probabilities that are averaged over draws agree with the labels.

    Arrays have one entry for each number of draws. Entropies and likelihoods are in nats.

    Attributes:
      draws: number of draws that are averaged.
      accuracy: share of right answers.
      calibration_error: expected calibration error (Guo et al. 2017, arXiv:1706.04599): the mean
        difference of confidence and accuracy over bins of confidence, weighted by their counts.
      negative_log_likelihood: mean of -log p of the label.
      brier: mean squared distance of probabilities from the label, summed over classes, in [0, 2].
      entropy: mean entropy of averaged probabilities.
      noise_entropy: its part that the noise causes: the entropy minus the mean entropy of single
        draws, which is the mutual information of answer and draw. It is 0 for one draw.
    """

    draws: Int[np.ndarray, " m"]
    accuracy: Float64[np.ndarray, " m"]
    calibration_error: Float64[np.ndarray, " m"]
    negative_log_likelihood: Float64[np.ndarray, " m"]
    brier: Float64[np.ndarray, " m"]
    entropy: Float64[np.ndarray, " m"]
    noise_entropy: Float64[np.ndarray, " m"]


def measure_calibration(
    logits: Float[Array | np.ndarray, "n draws classes"],
    labels: Int[Array | np.ndarray, " n"],
    draws: Sequence[int] = DRAWS,
    bins: int = BINS,
) -> Calibration:
    """Return the calibration of a network for several numbers of draws.

    Args:
      logits: of each image and draw of the noise; a network without noise has one draw.
      labels: classes.
      draws: numbers of draws; the first ones of ``logits`` are averaged. Larger numbers than there
        are draws are left out.
      bins: number of bins of confidence, of equal width.

    Raises:
      ValueError: if a number or a label is out of range, or logits are not finite.
      TypeError: if labels are not integers.
    """
    arguments.count("bins", bins)
    logits = jnp.asarray(logits, jnp.float32)
    labels = batches.check_labels(labels, logits.shape[0], logits.shape[-1])
    if not bool(jnp.isfinite(logits).all()):
        raise ValueError("logits must be finite, got NaN or infinite values")
    for number in draws:
        arguments.count("draws", number)
    singles = jax.vmap(lambda one: average(one[None], labels))(logits.swapaxes(0, 1))
    return summarise(np.asarray(score(singles, labels, draws)), bins)


def average(logits: Float[Array, "draws n classes"], labels: Int[Array, " n"]) -> Averages:
    """Return the averages of several draws, without the axis of draws."""
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    of_label = jnp.take_along_axis(log_p, labels[None, :, None], axis=-1)[..., 0]
    likelihood = jax.nn.logsumexp(of_label, axis=0) - math.log(len(logits))
    return p.mean(axis=0), likelihood, _entropy(p).mean(axis=0)


def score(averages: Averages, labels: Array, draws: Sequence[int], each: int = 1) -> Scores:
    """Return the scores of images after several numbers of averages.

    Args:
      averages: of equally many draws.
      labels: classes (n,).
      draws: numbers of averages; the first ones are used. Larger numbers than there are, are left
        out.
      each: number of draws in an average.
    """
    probability, likelihood, entropy = averages
    columns = []
    for count in [number for number in draws if number <= len(probability)]:
        mean = probability[:count].mean(axis=0)
        of_label = jax.nn.logsumexp(likelihood[:count], axis=0) - math.log(count)
        truth = jax.nn.one_hot(labels, mean.shape[-1], dtype=mean.dtype)
        total = _entropy(mean)
        columns.append(
            (
                jnp.full_like(total, count * each),
                (mean.argmax(axis=-1).astype(labels.dtype) == labels).astype(mean.dtype),
                mean.max(axis=-1),
                of_label,
                jnp.sum((mean - truth) ** 2, axis=-1),
                total,
                jnp.maximum(total - entropy[:count].mean(axis=0), 0.0),
            )
        )
    return jnp.array(columns).reshape(-1, 7, len(labels)).transpose(2, 0, 1)


def _entropy(probability: Array) -> Array:
    return -jnp.sum(jax.scipy.special.xlogy(probability, probability), axis=-1)


def summarise(scores: Scores, bins: int = BINS) -> Calibration:
    """Return the calibration over all images, from the scores of each."""
    scores = np.asarray(scores, np.float64)
    draws, accuracy, _, likelihood, *others = scores.mean(axis=0).T
    errors = [
        _calibration_error(right, sure, bins) for _, right, sure, *_ in scores.transpose(1, 2, 0)
    ]
    return Calibration(draws.astype(int), accuracy, np.array(errors), -likelihood, *others)


def _calibration_error(right: np.ndarray, confidence: np.ndarray, bins: int) -> float:
    # A confidence on an edge is in the lower bin.
    inside = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    differences = np.bincount(inside, weights=confidence - right, minlength=bins)
    return float(np.abs(differences).sum() / len(right))
