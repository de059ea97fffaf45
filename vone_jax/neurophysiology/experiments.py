"""Experiments beyond the scores: contrast response, tuning of the surround, trial-to-trial noise.

A site comes from ``find_units``; each image is shown ``trials`` times.

References:
  Albrecht, Hamilton (1982), J. Neurophysiology 48:217-237: contrast response functions.
  Cavanaugh, Bair, Movshon (2002), Selectivity and spatial distribution of signals from the
    receptive field surround in macaque V1 neurons, J. Neurophysiology 88:2547-2556.
  Tolhurst, Movshon, Dean (1983), Vision Research 23:775-785: in V1 the variance of the spike count
    is proportional to its mean.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from vone_jax import arguments, prng
from vone_jax.neurophysiology import recording, stimuli, tuning
from vone_jax.neurophysiology.recording import OneKey, PerUnit, ResponseFn, Site

CONTRASTS = 2.0 ** np.arange(-4.0, 0.5, 0.5)
Levels = Float[np.ndarray, " levels"]
Curves = Float[np.ndarray, "levels units"]

# The grid of the fit. Semi-saturation is searched beyond contrast 1, because a unit that does not
# saturate is fitted best by a very large one.
_EXPONENTS = np.arange(0.5, 5.01, 0.05)
_SEMI_SATURATIONS = 2.0 ** np.arange(-6.0, 4.01, 0.1)

# Orientations of the surround relative to the centre, in degrees.
ANGLES = np.array([0.0, 30.0, 60.0, 90.0])
# Radii of the centre and of the surround, in degrees.
CENTRE_RADII = stimuli.RADII[[3, 5, 7]]
SURROUND_RADIUS = 3.0
_PHASES = stimuli.PHASES[::2]


@dataclasses.dataclass(frozen=True, eq=False)
class ContrastResponse:
    """Contrast response functions of units and their fit r_max c^n / (c^n + c50^n).

    Attributes:
      contrasts: Michelson contrasts, ascending.
      curves: the larger of F0 - grey and F1, at each unit's best frequency and orientation at the
        highest contrast, in units of the layer.
      r_max: largest response of the fit; NaN for a unit that does not respond.
      c50: semi-saturation contrast of the fit. A value far above 1 means no saturation.
      exponent: exponent n of the fit.
      explained: fraction of the curve's power that the fit explains.
    """

    contrasts: Levels
    curves: Curves
    r_max: PerUnit
    c50: PerUnit
    exponent: PerUnit
    explained: PerUnit


def contrast_response(
    response_fn: ResponseFn,
    key: OneKey,
    site: Site,
    contrasts: Levels = CONTRASTS,
    trials: int = 1,
) -> ContrastResponse:
    """Record gratings of rising contrast, of 1 degree radius: 4 frequencies, 6 orientations.

    The contrasts are at least 3, ascending in (0, 1]. One grey level is a contrast of 0.8 %.

    Raises:
      ValueError: for contrasts out of range or order.
    """
    contrasts = np.asarray(contrasts, np.float64)
    ascending = contrasts.ndim == 1 and len(contrasts) >= 3 and np.all(np.diff(contrasts) > 0)
    if not ascending or not (contrasts[0] > 0 and contrasts[-1] <= 1):
        raise ValueError(f"contrasts must be 3 or more, ascending in (0, 1], got {contrasts}")
    gratings = stimuli.grating_set("contrast", contrast=contrasts, **stimuli.COARSE, radius=1.0)
    curves = _curves(response_fn, key, gratings, site, trials, best_at=-1)
    return ContrastResponse(contrasts, curves, *fit_saturation(contrasts, curves))


def _curves(
    response_fn: ResponseFn,
    key: OneKey,
    gratings: stimuli.GratingSet,
    site: Site,
    trials: int,
    best_at: int,
) -> Curves:
    """Return the larger of F0 - grey and F1 along the first factor of a set of gratings.

    The other factors are at each unit's best levels when the first factor is at ``best_at``.
    """
    flat = recording.record(response_fn, key, gratings, site, trials)
    blank = recording.record_blank(response_fn, key, site, trials)
    either = tuning.f0_and_f1(flat.reshape(*gratings.shape, len(site)), blank)
    kind, *best = tuning.best_condition(either[:, best_at])
    varied = np.zeros_like(kind)  # The index of the factor to vary is not used.
    return tuning.curve_along(either, 1, (kind, varied, *best)).astype(np.float64)


def fit_saturation(contrasts: Levels, curves: Curves) -> tuple[PerUnit, ...]:
    """Fit r_max c^n / (c^n + c50^n) to each curve by least squares over a grid of n and c50.

    The exponent is resolved to 0.05, the semi-saturation contrast to a tenth of an octave.

    Returns:
      r_max, c50, n and the explained fraction of the power; NaN for a curve of zeros.
    """
    exponent, semi = (g.ravel() for g in np.meshgrid(_EXPONENTS, _SEMI_SATURATIONS))
    # c^n / (c^n + c50^n) without large powers.
    shapes = 1.0 / (1.0 + (semi[:, None] / contrasts) ** exponent[:, None])
    power = np.square(shapes).sum(axis=1)[:, None]
    projection = shapes @ curves
    gain = np.where(projection > 0, np.square(projection) / power, 0.0)
    best = gain.argmax(axis=0)
    units = np.arange(curves.shape[1])
    total = np.square(curves).sum(axis=0)
    responds = gain[best, units] > 0
    fitted = (
        projection[best, units] / power[best, 0],
        semi[best],
        exponent[best],
        gain[best, units] / np.where(total > 0, total, 1.0),
    )
    return tuple(np.where(responds, values, np.nan) for values in fitted)


@dataclasses.dataclass(frozen=True, eq=False)
class SurroundTuning:
    """Responses of units to their best small grating, alone and with another grating around it.

    Attributes:
      angles: orientation of the surround relative to the centre, in degrees.
      alone: response to the centre alone, the larger of F0 - grey and F1, in units of the layer.
      curves: the same with a surround, by angle.
    """

    angles: Float[np.ndarray, " angles"]
    alone: PerUnit
    curves: Float[np.ndarray, "angles units"]

    @property
    def suppression(self) -> Float[np.ndarray, "angles units"]:
        """The share of the response to the centre that a surround takes away.

        It is negative for facilitation and NaN for a unit that does not respond to the centre.
        """
        return 1.0 - tuning.ratio(self.curves, self.alone)


def surround_tuning(
    response_fn: ResponseFn, key: OneKey, site: Site, trials: int = 1
) -> SurroundTuning:
    """Record a centre of full contrast with and without a surround of full contrast.

    Centres have 3 radii (0.3, 0.6 and 1.2 degrees), 4 frequencies, 6 orientations and 4 phases. For
    each unit, the condition with the largest response to the centre alone counts. The surround
    extends to a radius of 3 degrees, with the frequency and the phase of the centre; at an angle of
    0 both are one large grating.
    """
    factors = stimuli.COARSE | {"phase": _PHASES}
    centres = stimuli.grating_set("surround tuning", radius=CENTRE_RADII, **factors)
    around = np.stack([centres.table] * (1 + len(ANGLES)))
    orientation, radius = (stimuli.PARAMETERS.index(name) for name in ("orientation", "radius"))
    # In the first set the centre is drawn on top of itself, so it is the centre alone.
    around[1:, :, radius] = SURROUND_RADIUS
    around[1:, :, orientation] += ANGLES[:, None]
    gratings = stimuli.GratingSet(
        centres.name,
        (len(around), *centres.shape),
        np.tile(centres.table, (len(around), 1)),
        around.reshape(-1, around.shape[-1]),
    )
    curves = _curves(response_fn, key, gratings, site, trials, best_at=0)
    return SurroundTuning(ANGLES, curves[0], curves[1:])


@dataclasses.dataclass(frozen=True, eq=False)
class TrialStatistics:
    """Mean and unbiased variance over a number of trials, for each grating and unit."""

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


def trial_statistics(
    response_fn: ResponseFn,
    key: OneKey,
    site: Site,
    trials: int = 100,
    gratings: stimuli.GratingSet | None = None,
) -> TrialStatistics:
    """Show gratings repeatedly. Responses are not rectified.

    A Fano factor is meaningful for spike counts only, and a layer that scales its responses after
    the noise has another ratio of variance to mean. Give such a layer as a function that returns
    its counts: ``0.35 * responses + 0.07`` for the published VOneBlock. Rectification after the
    noise lowers the variance and raises the mean of weak responses; no function undoes it.

    Args:
      response_fn: the layer, with its noise.
      key: typed key; every trial of every grating has a key of its own.
      site: the units, from ``find_units`` with the layer without noise.
      trials: presentations of each grating, >= 2.
      gratings: the gratings to show. Default: 2 contrasts (0.25 and 1), 4 frequencies and 6
        orientations, of 1 degree radius.

    Raises:
      ValueError: for fewer than 2 trials.
    """
    prng.check_key(key)
    arguments.count("trials", trials, 2)
    if gratings is None:
        factors = stimuli.COARSE | {"phase": 0.0, "radius": 1.0}
        gratings = stimuli.grating_set("variability", contrast=np.array([0.25, 1.0]), **factors)
    images = np.asarray(stimuli.render(gratings.table, site.display, site.window, gratings.below))
    indices = np.arange(len(gratings))
    # Moments about the first trial, so that rounding of a large mean does not hide the variance.
    first = np.zeros((len(gratings), len(site)))
    total, squares = np.zeros_like(first), np.zeros_like(first)
    for trial in range(trials):
        trial_key = prng.fold(prng.stream(key, gratings.name), trial)
        flat = recording.present(
            response_fn, trial_key, images.__getitem__, indices, site, rectify=False
        )
        responses = flat.astype(np.float64)
        if trial == 0:
            first = responses
        total += responses - first
        squares += np.square(responses - first)
    variance = (squares - np.square(total) / trials) / (trials - 1)
    return TrialStatistics(first + total / trials, np.maximum(variance, 0.0), trials)
