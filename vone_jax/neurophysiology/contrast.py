"""Contrast response functions: the growth and saturation of responses with contrast.

Reference: Albrecht, Hamilton (1982), J. Neurophysiology 48:217-237.
"""

import dataclasses

import numpy as np
from jaxtyping import Float

from vone_jax.neurophysiology import recording, stimuli, tuning
from vone_jax.neurophysiology.recording import OneKey, PerUnit, ResponseFn, Site

CONTRASTS = 2.0 ** np.arange(-4.0, 0.5, 0.5)
Levels = Float[np.ndarray, " levels"]
Curves = Float[np.ndarray, "levels units"]

# The grid of the fit. Semi-saturation is searched beyond contrast 1, because a unit that does not
# saturate is fitted best by a very large one.
_EXPONENTS = np.arange(0.5, 5.01, 0.05)
_SEMI_SATURATIONS = 2.0 ** np.arange(-6.0, 4.01, 0.1)


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

    The contrasts are at least 3, ascending in (0, 1]. One grey level is a contrast of 0.8 %. The
    site comes from ``find_units``; each grating is presented ``trials`` times.

    Raises:
      ValueError: for contrasts out of range or order.
    """
    contrasts = np.asarray(contrasts, np.float64)
    ascending = contrasts.ndim == 1 and len(contrasts) >= 3 and np.all(np.diff(contrasts) > 0)
    if not ascending or not (contrasts[0] > 0 and contrasts[-1] <= 1):
        raise ValueError(f"contrasts must be 3 or more, ascending in (0, 1], got {contrasts}")
    gratings = stimuli.grating_set("contrast", contrast=contrasts, **stimuli.COARSE, radius=1.0)
    flat = recording.record(response_fn, key, gratings, site, trials)
    responses = flat.reshape(*gratings.shape, len(site))
    blank = recording.record_blank(response_fn, key, site, trials)
    either = np.stack([tuning.f0(responses) - blank, tuning.f1(responses)])
    kind, *best = tuning.best_condition(either[:, -1])
    level = np.zeros_like(kind)  # The factor to vary; its index is not used.
    curves = tuning.curve_along(either, 1, (kind, level, *best)).astype(np.float64)
    return ContrastResponse(contrasts, curves, *fit_saturation(contrasts, curves))


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
