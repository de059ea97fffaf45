"""The 22 properties of the MarquesEtAl2020 benchmarks, and their distributions over neurons.

Reference: Marques, Schrimpf, DiCarlo (2021), bioRxiv 2021.03.01.433495. The neurons are those of
the papers that name the benchmarks.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int, Shaped

from vone_jax import arguments

Experiment = Literal["orientation", "spatial frequency", "size", "texture"]
# The response that must exceed 5 spikes per second for a unit to count: "f0", the largest
# F0 - grey; "f0 or f1", the larger of F0 - grey and F1; "texture", the largest rate - grey.
Driven = Literal["f0", "f0 or f1", "texture"]

# If more populations than this fraction have no defined value, the similarity is 0.
MOST_UNDEFINED = 0.1


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


# The studies: name in Brain-Score, experiment, driven, neurons.
_ORIENTATION = ("DeValois1982", "orientation", "f0", 385)
_FREQUENCY = ("DeValois1982", "spatial frequency", "f0 or f1", 363)
_SCHILLER = ("Schiller1976", "spatial frequency", "f0", 87)
_RINGACH = ("Ringach2002", "orientation", "f0", 304)
_CAVANAUGH = ("Cavanaugh2002", "size", "f0 or f1", 190)
_TEXTURES = ("FreemanZiemba2013", "texture", "texture", 102)

_UNIT_INTERVAL = np.linspace(0.0, 1.0, 14)
_YES_NO = np.array([0.0, 0.5, 1.0])
_RATE = "spikes/s"
_DIAMETERS = 2.0 ** np.arange(-4.0, 5.0)

# Name, study, label, unit, group, edges.
_TABLE: tuple[tuple[str, tuple[str, Any, Any, int], str, str, str, np.ndarray], ...] = (
    ("pref_or", _ORIENTATION, "preferred orientation", "deg", "orientation",
     np.array([-22.5, 22.5, 67.5, 112.5, 157.5])),
    ("circular_variance", _RINGACH, "circular variance", "", "orientation", _UNIT_INTERVAL),
    ("or_bandwidth", _RINGACH, "orientation half-bandwidth", "deg", "orientation",
     np.linspace(0.0, 90.0, 18)),
    ("orth_pref_ratio", _RINGACH, "orthogonal to preferred response", "", "orientation",
     _UNIT_INTERVAL),
    ("or_selective", _RINGACH, "orientation selective", "", "orientation", _YES_NO),
    ("cv_bandwidth_ratio", _RINGACH, "circular variance to half-bandwidth", "1/deg", "orientation",
     np.logspace(-3.0, 0.0, 16)),
    ("opr_cv_diff", _RINGACH, "orthogonal ratio minus circular variance", "", "orientation",
     np.linspace(-1.0, 1.0, 20)),
    ("peak_sf", _FREQUENCY, "preferred spatial frequency", "cycles/deg", "spatial_frequency",
     np.array([0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8, 4.0, 5.6, 8.0, 11.2, 16.0, 22.4])),
    ("sf_bandwidth", _SCHILLER, "spatial-frequency bandwidth, low to high", "%",
     "spatial_frequency", np.linspace(0.0, 100.0, 11)),
    ("sf_selective", _SCHILLER, "spatial-frequency selective", "", "spatial_frequency", _YES_NO),
    ("modulation_ratio", _RINGACH, "modulation ratio F1/F0", "", "response_selectivity",
     np.linspace(0.0, 2.0, 11)),
    ("texture_selectivity", _TEXTURES, "selectivity for texture families", "",
     "response_selectivity", np.linspace(0.0, 1.0, 11)),
    ("texture_sparseness", _TEXTURES, "sparseness over textures", "", "response_selectivity",
     np.linspace(0.0, 1.0, 11)),
    ("texture_variance_ratio", _TEXTURES, "variance across to within families", "",
     "response_selectivity", np.logspace(-2.0, 1.0, 13)),
    ("grating_summation_field", _CAVANAUGH, "grating summation field", "deg",
     "receptive_field_size", _DIAMETERS),
    ("surround_diameter", _CAVANAUGH, "surround diameter", "deg", "receptive_field_size",
     _DIAMETERS),
    ("surround_suppression_index", _CAVANAUGH, "surround suppression index", "",
     "surround_modulation", np.linspace(0.0, 2.0, 11)),
    ("texture_modulation_index", _TEXTURES, "texture modulation index", "", "texture_modulation",
     np.linspace(-1.0, 1.0, 25)),
    ("abs_texture_modulation_index", _TEXTURES, "size of the texture modulation index", "",
     "texture_modulation", np.linspace(0.0, 1.0, 13)),
    ("max_dc", _RINGACH, "largest response to gratings", _RATE, "response_magnitude",
     np.logspace(0.0, 3.0, 10)),
    ("max_texture", _TEXTURES, "largest response to textures", _RATE, "response_magnitude",
     np.logspace(-1.0, 3.0, 13)),
    ("max_noise", _TEXTURES, "largest response to spectrally matched noise", _RATE,
     "response_magnitude", np.logspace(-1.0, 3.0, 13)),
)  # fmt: skip

PROPERTIES: dict[str, Property] = {
    name: Property(f"{study}-{name}", label, unit, group, experiment, driven, neurons, edges)
    for name, (study, experiment, driven, neurons), label, unit, group, edges in _TABLE
}
GROUPS: dict[str, tuple[str, ...]] = {
    group: tuple(name for name, p in PROPERTIES.items() if p.group == group)
    for group in dict.fromkeys(p.group for p in PROPERTIES.values())
}

# The source of neurons that are no published ones.
USER_TABLE = "user table"


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """The distribution of a property over neurons, in the bins of its ``Property``.

    Attributes:
      counts: neurons per bin.
      undefined: neurons without a value.
      source: the paper, or "user table".

    Raises:
      ValueError: if counts or ``undefined`` are negative, or there is no neuron with a value.
    """

    counts: Int[np.ndarray, " bins"]
    undefined: int
    source: str

    def __post_init__(self):
        if self.counts.min() < 0 or self.counts.sum() < 1 or self.undefined < 0:
            raise ValueError(
                f"counts must be >= 0 with at least one neuron and undefined >= 0, got "
                f"{self.counts} and {self.undefined}"
            )

    @property
    def neurons(self) -> int:
        """The size of the sample, including neurons without a value."""
        return int(self.counts.sum() + self.undefined)


def _published(source: str, *counts: int, undefined: int = 0) -> Reference:
    return Reference(np.array(counts, np.int64), undefined, source)


_DE_VALOIS = "De Valois, Albrecht, Thorell (1982), Vision Research 22:545-559"
_SCHILLER_1976 = "Schiller, Finlay, Volman (1976), J. Neurophysiology 39:1334-1351"
_CAVANAUGH_2002 = "Cavanaugh, Bair, Movshon (2002), J. Neurophysiology 88:2530-2546"

# Seven of the 22 were published as counts. The authors of the studies have the others per neuron;
# a user with such a table passes it (``reference_tables``). Nothing replaces a missing one.
PUBLISHED: dict[str, Reference] = {
    # All cells.
    "pref_or": _published(
        "De Valois, Yund, Hepler (1982), Vision Research 22:531-544", 110, 83, 100, 92
    ),
    # Simple and complex cells, foveal and parafoveal.
    "peak_sf": _published(_DE_VALOIS, 3, 10, 15, 31, 57, 62, 67, 63, 31, 15, 5, 4),
    "sf_selective": _published(_SCHILLER_1976, 14, 73),
    # Simple and complex cells; the others are not selective.
    "sf_bandwidth": _published(_SCHILLER_1976, 0, 3, 4, 16, 22, 16, 9, 3, 0, 0, undefined=14),
    "surround_suppression_index": _published(_CAVANAUGH_2002, 66, 44, 38, 23, 16, 3, 0, 0, 0, 0),
    # Cells with at least 10 % suppression; the other 42 have no diameters.
    "grating_summation_field": _published(
        _CAVANAUGH_2002, 0, 9, 30, 55, 42, 10, 2, 0, undefined=42
    ),
    "surround_diameter": _published(_CAVANAUGH_2002, 0, 0, 2, 20, 33, 49, 40, 4, undefined=42),
}


def references(
    tables: Mapping[str, Shaped[np.ndarray, " _"]] | None = None,
) -> dict[str, Reference]:
    """Return the published distributions; those of a user's tables are added or replace them.

    Tables have values of neurons by property, NaN where undefined; see ``reference_tables``.

    Raises:
      ValueError: for an unknown property, or values of another shape, or too many undefined ones.
    """
    known = dict(PUBLISHED)
    for name, values in (tables or {}).items():
        arguments.choice("references", name, PROPERTIES)
        values = np.asarray(values, np.float64)
        if values.ndim != 1 or np.isinf(values).any() or np.isnan(values).all():
            raise ValueError(
                f"references[{name!r}] must be finite values or NaN of shape (n,), not all NaN; "
                f"got shape {values.shape} with {int(np.isinf(values).sum())} infinite values"
            )
        counts, undefined = histogram(values, PROPERTIES[name].edges)
        if (undefined / len(values)) ** len(values) > MOST_UNDEFINED / 2:
            raise ValueError(
                f"references[{name!r}] must have more values, or the bootstrap draws populations "
                f"without any; got {counts.sum()} values and {undefined} NaN"
            )
        known[name] = Reference(counts, undefined, USER_TABLE)
    return known


def histogram(
    values: Float[np.ndarray, " n"], edges: Float[np.ndarray, " edges"]
) -> tuple[Int[np.ndarray, " bins"], int]:
    """Return the counts per bin and the number of undefined values, which are NaN.

    Values beyond the edges, which ascend, count in the outer bins.
    """
    defined = values[~np.isnan(values)]
    counts, _ = np.histogram(np.clip(defined, edges[0], edges[-1]), edges)
    return counts.astype(np.int64), len(values) - len(defined)
