"""The 22 properties of the MarquesEtAl2020 benchmarks: descriptions and histogram bins.

Reference: Marques, Schrimpf, DiCarlo (2021), bioRxiv 2021.03.01.433495. The neurons are those of
the papers that name the benchmarks.
"""

import dataclasses
from typing import Literal

import numpy as np
from jaxtyping import Float

Experiment = Literal["orientation", "spatial frequency", "size", "texture"]
# The response that must exceed 5 spikes per second for a unit to count: "f0", the largest
# F0 - grey; "f0 or f1", the larger of F0 - grey and F1; "texture", the largest rate - grey.
Driven = Literal["f0", "f0 or f1", "texture"]


@dataclasses.dataclass(frozen=True, eq=False)
class Property:
    """One property of a neuron.

    Attributes:
      benchmark: name in Brain-Score, after "Marques2020_".
      label: name in words.
      unit: unit of the values; empty for a pure number.
      group: one of the seven groups over which scores are averaged.
      experiment: the stimuli that measure the property.
      driven: the response that decides which units count.
      neurons: number of neurons in the published sample, including those without a value.
      edges: bin edges of the histogram.
    """

    benchmark: str
    label: str
    unit: str
    group: str
    experiment: Experiment
    driven: Driven
    neurons: int
    edges: Float[np.ndarray, " edges"]


def _ringach(name: str, label: str, unit: str, group: str, edges: np.ndarray) -> Property:
    return Property(f"Ringach2002-{name}", label, unit, group, "orientation", "f0", 304, edges)


def _texture(name: str, label: str, unit: str, group: str, edges: np.ndarray) -> Property:
    benchmark = f"FreemanZiemba2013-{name}"
    return Property(benchmark, label, unit, group, "texture", "texture", 102, edges)


def _cavanaugh(name: str, label: str, unit: str, group: str, edges: np.ndarray) -> Property:
    return Property(f"Cavanaugh2002-{name}", label, unit, group, "size", "f0 or f1", 190, edges)


_UNIT_INTERVAL = np.linspace(0.0, 1.0, 14)
_YES_NO = np.array([0.0, 0.5, 1.0])
_RATE = "spikes/s"
_DIAMETERS = 2.0 ** np.arange(-4.0, 5.0)

PROPERTIES: dict[str, Property] = {
    "pref_or": Property(
        "DeValois1982-pref_or", "preferred orientation", "deg", "orientation",
        "orientation", "f0", 385, np.array([-22.5, 22.5, 67.5, 112.5, 157.5]),
    ),
    "circular_variance": _ringach(
        "circular_variance", "circular variance", "", "orientation", _UNIT_INTERVAL
    ),
    "or_bandwidth": _ringach(
        "or_bandwidth", "orientation half-bandwidth", "deg", "orientation",
        np.linspace(0.0, 90.0, 18),
    ),
    "orth_pref_ratio": _ringach(
        "orth_pref_ratio", "orthogonal to preferred response", "", "orientation", _UNIT_INTERVAL
    ),
    "or_selective": _ringach(
        "or_selective", "orientation selective", "", "orientation", _YES_NO
    ),
    "cv_bandwidth_ratio": _ringach(
        "cv_bandwidth_ratio", "circular variance to half-bandwidth", "1/deg", "orientation",
        np.logspace(-3.0, 0.0, 16),
    ),
    "opr_cv_diff": _ringach(
        "opr_cv_diff", "orthogonal ratio minus circular variance", "", "orientation",
        np.linspace(-1.0, 1.0, 20),
    ),
    "peak_sf": Property(
        "DeValois1982-peak_sf", "preferred spatial frequency", "cycles/deg", "spatial_frequency",
        "spatial frequency", "f0 or f1", 363,
        np.array([0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.2, 16.0, 22.4]),
    ),
    "sf_bandwidth": Property(
        "Schiller1976-sf_bandwidth", "spatial-frequency bandwidth, low to high", "%",
        "spatial_frequency", "spatial frequency", "f0", 87, np.linspace(0.0, 100.0, 11),
    ),
    "sf_selective": Property(
        "Schiller1976-sf_selective", "spatial-frequency selective", "", "spatial_frequency",
        "spatial frequency", "f0", 87, _YES_NO,
    ),
    "modulation_ratio": _ringach(
        "modulation_ratio", "modulation ratio F1/F0", "", "response_selectivity",
        np.linspace(0.0, 2.0, 11),
    ),
    "texture_selectivity": _texture(
        "texture_selectivity", "selectivity for texture families", "", "response_selectivity",
        np.linspace(0.0, 1.0, 11),
    ),
    "texture_sparseness": _texture(
        "texture_sparseness", "sparseness over textures", "", "response_selectivity",
        np.linspace(0.0, 1.0, 11),
    ),
    "texture_variance_ratio": _texture(
        "texture_variance_ratio", "variance across to within families", "",
        "response_selectivity", np.logspace(-2.0, 1.0, 13),
    ),
    "grating_summation_field": _cavanaugh(
        "grating_summation_field", "grating summation field", "deg", "receptive_field_size",
        _DIAMETERS,
    ),
    "surround_diameter": _cavanaugh(
        "surround_diameter", "surround diameter", "deg", "receptive_field_size", _DIAMETERS
    ),
    "surround_suppression_index": _cavanaugh(
        "surround_suppression_index", "surround suppression index", "", "surround_modulation",
        np.linspace(0.0, 2.0, 11),
    ),
    "texture_modulation_index": _texture(
        "texture_modulation_index", "texture modulation index", "", "texture_modulation",
        np.linspace(-1.0, 1.0, 25),
    ),
    "abs_texture_modulation_index": _texture(
        "abs_texture_modulation_index", "size of the texture modulation index", "",
        "texture_modulation", np.linspace(0.0, 1.0, 13),
    ),
    "max_dc": _ringach(
        "max_dc", "largest response to gratings", _RATE, "response_magnitude",
        np.logspace(0.0, 3.0, 10),
    ),
    "max_texture": _texture(
        "max_texture", "largest response to textures", _RATE, "response_magnitude",
        np.logspace(-1.0, 3.0, 13),
    ),
    "max_noise": _texture(
        "max_noise", "largest response to spectrally matched noise", _RATE, "response_magnitude",
        np.logspace(-1.0, 3.0, 13),
    ),
}  # fmt: skip

GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(name for name, p in PROPERTIES.items() if p.group == group)
    for group in dict.fromkeys(p.group for p in PROPERTIES.values())
}
