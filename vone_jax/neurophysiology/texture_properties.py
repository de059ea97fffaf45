"""The seven texture properties of Freeman & Ziemba (2013), from rates.

They are computed on the host in float64: ratios of variances that may vanish need it, and 450
images of a few thousand units take milliseconds. Definitions follow Freeman, Ziemba et al.
(2013), Nature Neuroscience 16:974-981, and Ziemba et al. (2016), PNAS 113:E3140-E3149, as
Brain-Score applies them to models: rates have the blank response subtracted and are not
rectified, except in the variance ratio, which takes them as they are.

Rates have the shape (families, samples, 2, units) in spikes per second; type 0 is the spectrally
matched noise, type 1 the texture. A property is NaN for a unit for which it is not defined.
"""

import numpy as np
from numpy.typing import ArrayLike

from vone_jax.neurophysiology.rates import RESPONSE_THRESHOLD

PROPERTIES = (
    "texture_modulation_index",
    "abs_texture_modulation_index",
    "texture_selectivity",
    "texture_sparseness",
    "texture_variance_ratio",
    "max_texture",
    "max_noise",
)
# Spikes in 100 ms per spike per second.
_WINDOW = 0.1
# Keeps the variance ratio finite; Ziemba et al. (2016).
_VARIANCE_OFFSET = 0.02


def texture_properties(rates: ArrayLike, blank: ArrayLike) -> dict[str, np.ndarray]:
    """All seven properties of every unit.

    Args:
      rates: (families, samples, 2, units) in spikes per second, >= 0.
      blank: response to the uniform grey, (units,), in spikes per second.

    Returns:
      Property -> float64 (units,), for the names in ``PROPERTIES``.

    Raises:
      ValueError: if shapes do not fit or a value is negative or not finite.
    """
    rates, blank = _checked(rates, blank)
    evoked = rates - blank
    noise, texture = evoked[:, :, 0], evoked[:, :, 1]
    modulation = texture_modulation_index(texture.mean(axis=1), noise.mean(axis=1))
    return {
        "texture_modulation_index": modulation,
        "abs_texture_modulation_index": np.abs(modulation),
        "texture_selectivity": sparseness(texture.mean(axis=1)),
        "texture_sparseness": sparseness(texture.reshape(-1, texture.shape[-1])),
        "texture_variance_ratio": variance_ratio(rates[:, :, 1]),
        "max_texture": texture.max(axis=(0, 1)),
        "max_noise": noise.max(axis=(0, 1)),
    }


def responsive(
    rates: ArrayLike, blank: ArrayLike, threshold: float = RESPONSE_THRESHOLD
) -> np.ndarray:
    """Which units respond to any of the images by more than ``threshold`` spikes per second.

    Args:
      rates: (families, samples, 2, units) in spikes per second, >= 0.
      blank: (units,) in spikes per second.
      threshold: over the blank response.

    Returns:
      Booleans (units,).

    Raises:
      ValueError: as ``texture_properties``.
    """
    rates, blank = _checked(rates, blank)
    return (rates - blank).max(axis=(0, 1, 2)) > threshold


def texture_modulation_index(texture: ArrayLike, noise: ArrayLike) -> np.ndarray:
    """Mean over families of (T - N) / (T + N).

    Args:
      texture: mean response to the textures of each family, (families, units).
      noise: the same for the noise images.

    Returns:
      float64 (units,). Families with T + N = 0 are left out; NaN where that leaves none. Weak
      units may exceed 1 in size, because the blank has been subtracted.
    """
    texture, noise = np.asarray(texture, np.float64), np.asarray(noise, np.float64)
    total = texture + noise
    defined = total != 0
    index = np.where(defined, (texture - noise) / np.where(defined, total, 1.0), 0.0)
    return _ratio(index.sum(axis=0), defined.sum(axis=0).astype(np.float64))


def sparseness(responses: ArrayLike) -> np.ndarray:
    """(1 - mean(r)^2 / mean(r^2)) / (1 - 1/n): 0 for equal responses, 1 for a single one.

    Vinje and Gallant (2000), Science 287:1273-1276.

    Args:
      responses: (n, units), n >= 2. Means over samples of a family give the selectivity.

    Returns:
      float64 (units,); NaN where all responses are 0.

    Raises:
      ValueError: for fewer than two responses.
    """
    responses = np.asarray(responses, np.float64)
    count = responses.shape[0]
    if count < 2:
        raise ValueError(f"responses must hold at least 2 per unit, got {count}")
    share = _ratio(responses.mean(axis=0) ** 2, np.square(responses).mean(axis=0))
    return (1 - share) / (1 - 1 / count)


def variance_ratio(rates: ArrayLike) -> np.ndarray:
    """Variance between families relative to the variance between samples of a family.

    Nested analysis of variance of v = sqrt(s) + sqrt(s + 1), where s are the spikes in 100 ms, so
    that Poisson noise has the same variance everywhere. The ratio is
    (V_family / V + 0.02) / (V_sample / V + 0.02) with V = V_family + V_sample. The estimate of
    V_family, and with it the ratio, can be a little below 0.

    Args:
      rates: responses to the textures, (families, samples, units), in spikes per second,
        >= 0, without subtraction of the blank.

    Returns:
      float64 (units,), at most 51; NaN where all rates are equal.

    Raises:
      ValueError: for fewer than two families or samples, or a negative rate.
    """
    rates = np.asarray(rates, np.float64)
    families, samples = rates.shape[:2]
    if families < 2 or samples < 2:
        raise ValueError(
            f"rates must hold at least 2 families of 2 samples, got {families} of {samples}"
        )
    if not np.all(rates >= 0):
        raise ValueError(f"rates must be >= 0, got values from {rates.min()}")
    spikes = rates * _WINDOW
    values = np.sqrt(spikes) + np.sqrt(spikes + 1)
    family_means = values.mean(axis=1)
    within = values - family_means[:, None]
    between = family_means - family_means.mean(axis=0)
    sample_square = np.square(within).sum(axis=0).sum(axis=0) / (families * (samples - 1))
    family_square = samples * np.square(between).sum(axis=0) / (families - 1)
    family_variance = (family_square - sample_square) / samples
    total = sample_square + family_variance
    # Equal rates leave rounding errors, whose ratio would look like a number.
    negligible = total < 1e-24 * np.square(values).max(axis=(0, 1))
    total = np.where(negligible, 0.0, total)
    return (_ratio(family_variance, total) + _VARIANCE_OFFSET) / (
        _ratio(sample_square, total) + _VARIANCE_OFFSET
    )


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The quotient, NaN where the denominator is 0."""
    defined = denominator != 0
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)


def _checked(rates: ArrayLike, blank: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    rates, blank = np.asarray(rates, np.float64), np.asarray(blank, np.float64)
    if rates.ndim != 4 or rates.shape[2] != 2:
        raise ValueError(f"rates must have shape (families, samples, 2, units), got {rates.shape}")
    if min(rates.shape[:2]) < 2 or rates.shape[-1] == 0:
        raise ValueError(
            f"rates must hold at least 2 families, 2 samples and 1 unit, got shape {rates.shape}"
        )
    if blank.shape != rates.shape[-1:]:
        raise ValueError(f"blank must have shape {rates.shape[-1:]}, got {blank.shape}")
    for name, values in (("rates", rates), ("blank", blank)):
        if not np.all(np.isfinite(values)):
            raise ValueError(f"{name} must be finite, got NaN or infinite values")
        if values.min() < 0:
            raise ValueError(f"{name} must be >= 0 spikes per second, got {values.min()}")
    return rates, blank
