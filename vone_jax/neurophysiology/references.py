"""Distributions of properties over neurons of macaque V1.

Seven of the 22 were published as counts. The authors of the studies have the others per neuron; a
user with such a table passes it (``reference_tables``). Nothing replaces a missing distribution.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int, Shaped

from vone_jax import arguments
from vone_jax.neurophysiology.properties import PROPERTIES


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


def references(
    tables: Mapping[str, Shaped[np.ndarray, " _"]] | None = None,
) -> dict[str, Reference]:
    """Return the published distributions; those of a user's tables are added or replace them.

    Args:
      tables: property -> values of neurons, NaN where undefined; see ``reference_tables``.

    Raises:
      ValueError: for an unknown property, or values of another shape or all undefined.
    """
    return PUBLISHED | {name: from_values(name, values) for name, values in (tables or {}).items()}


def from_values(name: str, values: Shaped[np.ndarray, " neurons"]) -> Reference:
    """Return the distribution of a property over neurons with known values, NaN where undefined."""
    arguments.choice("references", name, PROPERTIES)
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or np.isinf(values).any() or np.isnan(values).all():
        raise ValueError(
            f"references[{name!r}] must be finite values or NaN of shape (n,), not all NaN; got "
            f"shape {values.shape} with {int(np.isinf(values).sum())} infinite values"
        )
    counts, undefined = histogram(values, PROPERTIES[name].edges)
    return Reference(counts, undefined, "user table")


def histogram(
    values: Float[np.ndarray, " n"], edges: Float[np.ndarray, " edges"]
) -> tuple[Int[np.ndarray, " bins"], int]:
    """Return the counts per bin and the number of undefined values, which are NaN.

    Values beyond the edges, which ascend, count in the outer bins.
    """
    defined = values[~np.isnan(values)]
    counts, _ = np.histogram(np.clip(defined, edges[0], edges[-1]), edges)
    return counts.astype(np.int64), len(values) - len(defined)
