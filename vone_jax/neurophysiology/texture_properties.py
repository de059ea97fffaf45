"""The seven texture properties of Freeman & Ziemba (2013), from rates.

The host computes them in float64, because variances in a denominator may vanish. Definitions follow
Freeman, Ziemba et al. (2013), Nature Neuroscience 16:974-981, and Ziemba et al. (2016), PNAS
113:E3140-E3149, as Brain-Score applies them to models: the response to grey is subtracted from the
rates, and the result is not rectified. Only the variance ratio takes the rates themselves.

Rates have the shape (families, samples, 2, units) in spikes per second; type 0 is the spectrally
matched noise, type 1 the texture. A property is NaN for a unit for which it is not defined.
"""

import numpy as np
from jaxtyping import Bool, Float

from vone_jax.neurophysiology.recording import RESPONSE_THRESHOLD, PerUnit
from vone_jax.neurophysiology.tuning import ratio

# Spikes in 100 ms per spike per second.
_WINDOW = 0.1
# Keeps the variance ratio finite; Ziemba et al. (2016).
_VARIANCE_OFFSET = 0.02
Rates = Float[np.ndarray, "families samples 2 units"]


def texture_properties(rates: Rates, blank: PerUnit) -> dict[str, np.ndarray]:
    """Measure every unit: float64 (units,) under the names of ``properties.PROPERTIES``.

    Rates and ``blank``, the rates at uniform grey, are in spikes per second.

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


def responsive(rates: Rates, blank: PerUnit) -> Bool[np.ndarray, " units"]:
    """Return True for units whose rate for any image exceeds that at grey by 5 spikes/s."""
    return (rates - blank).max(axis=(0, 1, 2)) > RESPONSE_THRESHOLD


def texture_modulation_index(
    texture: Float[np.ndarray, "families units"], noise: Float[np.ndarray, "families units"]
) -> PerUnit:
    """Return the mean over families of (T - N) / (T + N), from mean rates above grey, in float64.

    Families with T + N = 0 are left out; NaN where no family is left. The index of weak units may
    exceed 1 in size, because the rate at grey has been subtracted.
    """
    texture, noise = texture.astype(np.float64), noise.astype(np.float64)
    total = texture + noise
    defined = total != 0
    index = np.where(defined, (texture - noise) / np.where(defined, total, 1.0), 0.0)
    return ratio(index.sum(axis=0), defined.sum(axis=0).astype(np.float64))


def sparseness(responses: Float[np.ndarray, "n units"]) -> PerUnit:
    """Return (1 - mean(r)^2 / mean(r^2)) / (1 - 1/n), from n >= 2 responses, in float64.

    It is 0 for equal responses, 1 if only one is not 0, and NaN if all are 0. Means over samples of
    a family give the selectivity. Vinje and Gallant (2000), Science 287:1273-1276.
    """
    responses = responses.astype(np.float64)
    count = responses.shape[0]
    share = ratio(responses.mean(axis=0) ** 2, np.square(responses).mean(axis=0))
    return (1 - share) / (1 - 1 / count)


def variance_ratio(rates: Float[np.ndarray, "families samples units"]) -> PerUnit:
    """Return the variance between families relative to that between samples of a family.

    This is a nested analysis of variance of v = sqrt(s) + sqrt(s + 1), with s the spikes in 100 ms,
    so that Poisson noise has the same variance everywhere. The ratio is
    (V_family / V + 0.02) / (V_sample / V + 0.02) with V = V_family + V_sample. The estimate of
    V_family, and with it the ratio, can be a little below 0. The rates, in spikes per second, are
    those for textures, without subtraction. The ratio is at most 51; NaN where all rates are equal.
    """
    rates = rates.astype(np.float64)
    families, samples = rates.shape[:2]
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
    family, sample = ratio(family_variance, total), ratio(sample_square, total)
    return (family + _VARIANCE_OFFSET) / (sample + _VARIANCE_OFFSET)


def _checked(rates: np.ndarray, blank: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return both arrays in float64, or raise a ValueError that names what is wrong."""
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
