"""Recordings beside the scores of a layer: contrast, tuning of the surround, and variability.

None of them has a published distribution, so none is scored.

contrast/*      of all scored units: contrasts (C,), curves (C, U), the fit's r_max, c50, exponent
                and explained (U,)
surround/*      of all scored units: angles (A,), response to the centre alone (U,), curves (A, U)
variability/*   of some units: their positions among the scored ones, unit (V,); of the gratings
                spatial_frequency and orientation (G,); mean and variance (G, V), and spike_mean
                and spike_variance where responses have spike counts
"""

from typing import Any

import jax
import numpy as np

from vone_jax import neurophysiology
from vone_jax.network import Network
from vone_jax.neurophysiology import stimuli
from vone_jax.neurophysiology.recording import ResponseFn
from vone_jax.neurophysiology.selection import is_stochastic
from vone_jax.v1 import FanoNoise, NeuronalNoise

CONTRASTS = np.array([0.05, 0.1, 0.2, 0.4, 0.8, 1.0])
TRIALS = 100
MAX_UNITS = 200
# The least mean response, in spikes, for a Fano factor. Rectification after the noise makes weak
# responses less variable: the Fano factor of noise whose variance equals its mean is 0.69 at 1
# spike, 0.85 at 2 and 0.99 at 6.
LEAST_MEAN = 2.0

# Layers whose responses are the noise's output, from which spike counts can be recovered.
_SPIKING = ("v1", "stem.noise")


def experiments(
    network: Network,
    layer: str,
    scores: neurophysiology.Scores,
    quiet: ResponseFn,
    noisy: ResponseFn,
    key: jax.Array,
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Record contrast responses, surround tuning and the variability over repeated trials.

    Variability is recorded where the layer's responses depend on the key.

    Args:
      network, layer, scores: the network, the layer's name and its scores.
      quiet, noisy: the layer without noise, and with the network's noise, if it has any.
      key: typed key of the noise.

    Returns:
      Fields of the result's JSON file, and arrays of its NPZ file.
    """
    site = scores.site
    response = neurophysiology.contrast_response(quiet, key, site, CONTRASTS)
    surround = neurophysiology.surround_tuning(quiet, key, site)
    suppression = surround.suppression
    fields: dict[str, Any] = {
        "contrast_response": {
            "median_c50": median(response.c50),
            "median_exponent": median(response.exponent),
        },
        "surround_tuning": {
            "median_parallel": median(suppression[0]),
            "median_orthogonal": median(suppression[-1]),
        },
    }
    arrays = {f"contrast/{name}": array for name, array in vars(response).items()}
    arrays |= {f"surround/{name}": array for name, array in vars(surround).items()}
    if network.stochastic and is_stochastic(noisy, key, scores.display):
        spikes = network.noise if layer in _SPIKING else None
        if isinstance(spikes, FanoNoise):  # Its responses are counts.
            spikes = NeuronalNoise(scale=1.0, level=0.0)
        spikes = spikes if isinstance(spikes, NeuronalNoise) else None
        fields["variability"], recorded = _variability(noisy, key, site, spikes)
        arrays |= recorded
    return fields, arrays


def _variability(
    noisy: ResponseFn, key: jax.Array, site: neurophysiology.Site, noise: NeuronalNoise | None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Fields and arrays; those of spike counts, too, if ``noise`` makes the responses."""
    units = np.unique(np.linspace(0, len(site) - 1, min(len(site), MAX_UNITS)).astype(int))
    some = np.isin(np.arange(len(site)), units)
    frequencies, orientations = stimuli.COARSE_SPATIAL_FREQUENCIES, stimuli.COARSE_ORIENTATIONS
    # (spatial frequency, orientation): (4, 6), 24 images, of radius 1 degree.
    gratings = neurophysiology.grating_set(
        "evaluation of variability",
        spatial_frequency=frequencies,
        orientation=orientations,
        phase=0.0,
        radius=1.0,
        contrast=1.0,
    )
    statistics = neurophysiology.trial_statistics(noisy, key, site.keep(some), TRIALS, gratings)
    fields: dict[str, Any] = {
        "trials": TRIALS,
        "gratings": len(gratings),
        "units": len(units),
    }
    arrays = {
        "variability/unit": units,
        "variability/spatial_frequency": np.repeat(frequencies, len(orientations)),
        "variability/orientation": np.tile(orientations, len(frequencies)),
        "variability/mean": statistics.mean,
        "variability/variance": statistics.variance,
    }
    least_mean = 0.0
    if noise is not None:
        # Counts are an affine function of responses, so their moments need no other recording.
        counts = neurophysiology.TrialStatistics(
            noise.scale * statistics.mean + noise.level,
            noise.scale**2 * statistics.variance,
            TRIALS,
        )
        least_mean = (LEAST_MEAN - noise.level) / noise.scale
        fields |= {
            "median_fano_factor_spikes": median(counts.fano_factor(LEAST_MEAN)),
            "least_mean_spikes": LEAST_MEAN,
            "units_above": int((counts.mean >= LEAST_MEAN).any(axis=0).sum()),
        }
        arrays |= {
            "variability/spike_mean": counts.mean,
            "variability/spike_variance": counts.variance,
        }
    # For the gratings that pass the threshold in spikes.
    fields["median_fano_factor"] = median(statistics.fano_factor(least_mean))
    return fields, arrays


def median(values: np.ndarray) -> float | None:
    """The median over the units that have a value; None if none has."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else None
