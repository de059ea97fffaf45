"""Trial-to-trial variability: mean, variance and Fano factor of repeated presentations.

In V1 the variance of the spike count is proportional to its mean (Tolhurst, Movshon, Dean 1983,
Vision Research 23:775-785). A Fano factor only means something for counts of spikes: a layer that
scales its responses after the noise has another variance-to-mean ratio than its counts, so say
how a response becomes a count. Rectification after the noise lowers the variance and raises the
mean of weak responses; no transform undoes it.
"""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from vone_jax import prng
from vone_jax.neurophysiology import stimuli
from vone_jax.neurophysiology.recording import ResponseFn, Site, present


@dataclasses.dataclass(frozen=True, eq=False)
class TrialStatistics:
    """Moments over trials, for each grating and unit.

    Attributes:
      mean: float64 (gratings, U).
      variance: unbiased, float64 (gratings, U).
      trials: number of presentations.
    """

    mean: np.ndarray
    variance: np.ndarray
    trials: int

    def fano_factor(self, least_mean: float = 0.0) -> np.ndarray:
        """Sum of variances over gratings, relative to the sum of means.

        A ratio of sums weighs gratings by the response, as the slope of variance on mean does.

        Args:
          least_mean: leaves out gratings to which a unit responds less.

        Returns:
          (U,); NaN for a unit that responds to no grating, or to none strongly enough.
        """
        strong = self.mean >= least_mean
        mean = np.where(strong, self.mean, 0.0).sum(axis=0)
        variance = np.where(strong, self.variance, 0.0).sum(axis=0)
        return np.where(mean > 0, variance / np.where(mean > 0, mean, 1.0), np.nan)


def variability_set() -> stimuli.GratingSet:
    """(contrast, spatial frequency, orientation): (2, 4, 6), 48 images, of radius 1 degree."""
    return stimuli.grating_set(
        "variability",
        contrast=np.array([0.25, 1.0]),
        spatial_frequency=stimuli.COARSE_SPATIAL_FREQUENCIES,
        orientation=stimuli.COARSE_ORIENTATIONS,
        phase=0.0,
        radius=1.0,
    )


def trial_statistics(
    response_fn: ResponseFn,
    key: jax.Array,
    site: Site,
    trials: int = 100,
    gratings: stimuli.GratingSet | None = None,
    spike_counts: Callable[[np.ndarray], np.ndarray] | None = None,
) -> TrialStatistics:
    """Shows gratings again and again. Responses are not rectified.

    Args:
      response_fn: the layer, with its noise.
      key: typed key; every trial of every grating has its own.
      site: the units, from ``find_units`` with the layer without noise.
      trials: presentations of each grating, >= 2.
      gratings: what to show. Default: ``variability_set``.
      spike_counts: from responses to spike counts, for instance
        ``lambda r: 0.35 * r + 0.07`` for the published VOneBlock. Default: as they are.

    Raises:
      ValueError: for fewer than 2 trials.
    """
    prng.check_key(key)
    if trials < 2:
        raise ValueError(f"trials must be >= 2, got {trials}")
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
