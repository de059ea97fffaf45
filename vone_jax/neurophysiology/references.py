"""Distributions of properties over neurons of macaque V1.

Seven of the 22 were published as counts. The others are known per neuron to their authors; a user
who has such a table gives it, and nothing is put in its place.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np

from vone_jax.neurophysiology.properties import PROPERTIES
from vone_jax.neurophysiology.similarity import histogram


@dataclasses.dataclass(frozen=True, eq=False)
class Reference:
    """The distribution of a property over neurons, in the bins of its ``Property``.

    Attributes:
      counts: neurons per bin, int64 (bins,).
      undefined: neurons without a value.
      source: who measured it.

    Raises:
      ValueError: if counts or ``undefined`` are negative, or there is no neuron with a value.
    """

    counts: np.ndarray
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
        """Size of the sample, neurons without a value included."""
        return int(self.counts.sum()) + self.undefined


def _published(source: str, *counts: int, undefined: int = 0) -> Reference:
    return Reference(np.array(counts, np.int64), undefined, source)


_ORIENTATION = "De Valois, Yund, Hepler (1982), Vision Research 22:531-544"
_FREQUENCY = "De Valois, Albrecht, Thorell (1982), Vision Research 22:545-559"
_SCHILLER = "Schiller, Finlay, Volman (1976), J. Neurophysiology 39:1334-1351"
_CAVANAUGH = "Cavanaugh, Bair, Movshon (2002), J. Neurophysiology 88:2530-2546"

PUBLISHED: dict[str, Reference] = {
    # All cells.
    "pref_or": _published(_ORIENTATION, 110, 83, 100, 92),
    # Simple and complex cells, foveal and parafoveal.
    "peak_sf": _published(_FREQUENCY, 3, 10, 15, 31, 57, 62, 67, 63, 31, 15, 5, 4),
    "sf_selective": _published(_SCHILLER, 14, 73),
    # Simple and complex cells; the others are not selective.
    "sf_bandwidth": _published(_SCHILLER, 0, 3, 4, 16, 22, 16, 9, 3, 0, 0, undefined=14),
    "surround_suppression_index": _published(_CAVANAUGH, 66, 44, 38, 23, 16, 3, 0, 0, 0, 0),
    # Cells with at least 10 % suppression; the other 42 have no diameters.
    "grating_summation_field": _published(_CAVANAUGH, 0, 9, 30, 55, 42, 10, 2, 0, undefined=42),
    "surround_diameter": _published(_CAVANAUGH, 0, 0, 2, 20, 33, 49, 40, 4, undefined=42),
}


def references(tables: Mapping[str, np.ndarray] | None = None) -> dict[str, Reference]:
    """The published distributions, with those of a user's tables added or put in their place.

    Args:
      tables: property -> values of neurons (n,), NaN where undefined; see ``reference_tables``.

    Returns:
      Property -> distribution.

    Raises:
      ValueError: for an unknown property, or values of another shape or all undefined.
    """
    given = {name: from_values(name, values) for name, values in (tables or {}).items()}
    return {**PUBLISHED, **given}


def from_values(name: str, values: np.ndarray) -> Reference:
    """The distribution of a property over neurons whose values are given.

    Args:
      name: one of ``PROPERTIES``.
      values: (n,), NaN where undefined.

    Raises:
      ValueError: for an unknown property, or values of another shape, infinite, or all undefined.
    """
    if name not in PROPERTIES:
        raise ValueError(f"references must be of {', '.join(PROPERTIES)}; got {name!r}")
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or np.isinf(values).any() or np.isnan(values).all():
        raise ValueError(
            f"references[{name!r}] must be finite values or NaN of shape (n,), not all NaN; got "
            f"shape {values.shape} with {int(np.isinf(values).sum())} infinite values"
        )
    counts, undefined = histogram(values, PROPERTIES[name].edges)
    return Reference(counts, undefined, "user table")
