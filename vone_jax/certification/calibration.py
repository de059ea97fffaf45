"""Calibration of a network with noise, against the number of draws that are averaged."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float, Float64, Int

from vone_jax import arguments


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
    draws: Sequence[int] = (1, 2, 5, 10, 20, 50, 100),
    bins: int = 15,
) -> Calibration:
    """Return the calibration of a network for several numbers of draws.

    Args:
      logits: of each image and draw of the noise; a network without noise has one draw.
      labels: classes.
      draws: numbers of draws; the first ones of ``logits`` are averaged. Larger numbers than there
        are draws are left out.
      bins: number of bins of confidence, of equal width.

    Raises:
      ValueError: if a number is out of range, or logits are not finite.
    """
    arguments.count("bins", bins)
    logits, labels = np.asarray(logits, np.float64), np.asarray(labels)
    if not np.isfinite(logits).all():
        raise ValueError("logits must be finite, got NaN or infinite values")
    for number in draws:
        arguments.count("draws", number)
    used = np.array([number for number in draws if number <= logits.shape[1]], np.int64)
    log_p = logits - logits.max(axis=-1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(axis=-1, keepdims=True))
    rows = [_scores(log_p[:, :number], labels, bins) for number in used]
    return Calibration(used, *np.array(rows, np.float64).reshape(-1, 6).T)


def _scores(log_p: np.ndarray, labels: np.ndarray, bins: int) -> tuple[float, ...]:
    """The numbers of ``Calibration`` from the log probabilities of draws."""
    each = np.exp(log_p)
    mean = each.mean(axis=1)
    of_label = np.logaddexp.reduce(log_p[np.arange(len(labels)), :, labels], axis=1)
    likelihood = of_label - np.log(log_p.shape[1])
    right, confidence = mean.argmax(axis=-1) == labels, mean.max(axis=-1)
    # A confidence on an edge is in the lower bin.
    inside = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    differences = np.bincount(inside, weights=confidence - right, minlength=bins)
    brier = np.sum((mean - np.eye(mean.shape[-1])[labels]) ** 2, axis=-1)
    entropy = -np.sum(mean * np.log(np.maximum(mean, 1e-300)), axis=-1)
    single = -np.sum(each * log_p, axis=-1).mean(axis=1)
    return (
        float(right.mean()),
        float(np.abs(differences).sum() / len(labels)),
        float(-likelihood.mean()),
        float(brier.mean()),
        float(entropy.mean()),
        float(np.maximum(entropy - single, 0.0).mean()),
    )
