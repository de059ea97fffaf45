"""Trial-to-trial variability: mean, variance and Fano factor of repeated presentations.

In V1 the variance of the spike count is proportional to its mean (Tolhurst, Movshon, Dean 1983,
Vision Research 23:775-785). A Fano factor is meaningful for spike counts only. A layer that scales
its responses after the noise has another ratio of variance to mean, so ``trial_statistics`` takes a
function from responses to counts. Rectification after the noise lowers the variance and raises the
mean of weak responses; no function undoes it.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from vone_jax import arguments, prng
from vone_jax.neurophysiology import stimuli
from vone_jax.neurophysiology.recording import OneKey, PerUnit, ResponseFn, Site, present


@dataclasses.dataclass(frozen=True, eq=False)
class TrialStatistics:
    """Mean and variance over trials, for each grating and unit.

    Attributes:
      variance: unbiased variance over trials.
      trials: number of presentations.
    """

    mean: Float[np.ndarray, "gratings units"]
    variance: Float[np.ndarray, "gratings units"]
    trials: int

    def fano_factor(self, least_mean: float = 0.0) -> PerUnit:
        """Return the sum of variances over gratings, divided by the sum of means.

        A ratio of sums weights gratings by the response, as the slope of variance on mean does.
        Gratings with a mean below ``least_mean`` are left out; NaN if none is left for a unit.
        """
        strong = self.mean >= least_mean
        mean = np.where(strong, self.mean, 0.0).sum(axis=0)
        variance = np.where(strong, self.variance, 0.0).sum(axis=0)
        return variance / np.where(mean > 0, mean, np.nan)


def variability_set() -> stimuli.GratingSet:
    """Return (contrast, spatial frequency, orientation): (2, 4, 6), 48 images."""
    factors = stimuli.COARSE | {"phase": 0.0, "radius": 1.0}
    return stimuli.grating_set("variability", contrast=np.array([0.25, 1.0]), **factors)


def trial_statistics(
    response_fn: ResponseFn,
    key: OneKey,
    site: Site,
    trials: int = 100,
    gratings: stimuli.GratingSet | None = None,
    spike_counts: Callable[[np.ndarray], np.ndarray] | None = None,
) -> TrialStatistics:
    """Show gratings repeatedly. Responses are not rectified.

    Args:
      response_fn: the layer, with its noise.
      key: typed key; every trial of every grating has a key of its own.
      site: the units, from ``find_units`` with the layer without noise.
      trials: presentations of each grating, >= 2.
      gratings: the gratings to show. Default: ``variability_set``.
      spike_counts: function from responses to spike counts, for instance
        ``lambda r: 0.35 * r + 0.07`` for the published VOneBlock. Default: the responses.

    Raises:
      ValueError: for fewer than 2 trials.
    """
    prng.check_key(key)
    arguments.count("trials", trials, 2)
    shown = variability_set() if gratings is None else gratings
    images = np.asarray(stimuli.render(shown.table, site.display, site.window))
    # Moments about the first trial, so that a large mean does not swallow a small variance.
    first = np.zeros((len(shown), len(site)))
    total, squares = np.zeros_like(first), np.zeros_like(first)
    for trial in range(trials):
        trial_key = prng.fold(prng.stream(key, shown.name), trial)
        flat = present(
            response_fn, trial_key, images.__getitem__, np.arange(len(shown)), site, rectify=False
        )
        counts = np.asarray(flat if spike_counts is None else spike_counts(flat), np.float64)
        if trial == 0:
            first = counts
        total += counts - first
        squares += np.square(counts - first)
    variance = (squares - np.square(total) / trials) / (trials - 1)
    return TrialStatistics(first + total / trials, np.maximum(variance, 0.0), trials)
