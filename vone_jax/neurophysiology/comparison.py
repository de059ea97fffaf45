"""Properties of a layer's units beside those of neurons."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

from vone_jax import prng
from vone_jax.neurophysiology.properties import GROUPS, PROPERTIES
from vone_jax.neurophysiology.references import PUBLISHED, Reference
from vone_jax.neurophysiology.similarity import BOOTSTRAPS, histogram, similarity

# "needs data": the distribution over neurons has to come from the user. "needs stimuli": the
# property was not measured, because its images have to come from the user.
Status = Literal["scored", "needs data", "needs stimuli"]


@dataclasses.dataclass(frozen=True, eq=False)
class PropertyScore:
    """One property of a layer, and how its distribution compares with neurons.

    Attributes:
      name: one of ``properties.PROPERTIES``, which says what it is.
      status: whether there is a score, and what is missing.
      similarity: to the neurons, in [0, 1]; None unless scored.
      similarity_std: its bootstrap standard deviation.
      ceiling: similarity of the neurons to populations drawn from themselves.
      score: similarity / ceiling, which may exceed 1 a little.
      units: number of units that count, those without a value included.
      undefined: units among them for which the property is not defined.
      median: of the defined values; None if there are none.
      distribution: fraction of the defined values in each bin, (bins,).
      neurons: size of the reference sample; None without one.
      reference_undefined: neurons without a value.
      reference_distribution: as ``distribution``, for the neurons.
      source: of the reference.
    """

    name: str
    status: Status
    similarity: float | None = None
    similarity_std: float | None = None
    ceiling: float | None = None
    score: float | None = None
    units: int | None = None
    undefined: int | None = None
    median: float | None = None
    distribution: tuple[float, ...] | None = None
    neurons: int | None = None
    reference_undefined: int | None = None
    reference_distribution: tuple[float, ...] | None = None
    source: str | None = None

    def summary(self) -> dict[str, Any]:
        """Everything as JSON-able values, with what the property is."""
        about = PROPERTIES[self.name]
        return {
            **dataclasses.asdict(self),
            "benchmark": f"Marques2020_{about.benchmark}",
            "label": about.label,
            "unit": about.unit,
            "group": about.group,
            "edges": about.edges.tolist(),
        }


def compare(
    key: jax.Array,
    values: Mapping[str, np.ndarray],
    references: Mapping[str, Reference] = PUBLISHED,
    bootstraps: int = BOOTSTRAPS,
) -> dict[str, PropertyScore]:
    """Scores properties against neurons.

    Args:
      key: typed key of the bootstraps. Every property has a stream of its own.
      values: property -> (units that count,), NaN where undefined.
      references: property -> distribution over neurons.
      bootstraps: populations drawn for each similarity and ceiling.

    Returns:
      All 22 properties in the order of ``PROPERTIES``, also those that are not measured.

    Raises:
      ValueError: for an unknown property, or values that are infinite or of another shape.
    """
    unknown = set(values) - set(PROPERTIES)
    if unknown:
        raise ValueError(f"values must be of {', '.join(PROPERTIES)}; got {sorted(unknown)}")
    return {
        name: _score(
            prng.stream(key, name), name, values.get(name), references.get(name), bootstraps
        )
        for name in PROPERTIES
    }


def ceiling(key: jax.Array, reference: Reference, bootstraps: int = BOOTSTRAPS) -> float:
    """Similarity of a sample of neurons to populations drawn from it: the most to expect."""
    counts, undefined = reference.counts, reference.undefined
    return similarity(key, counts, undefined, counts, undefined, bootstraps)[0]


def group_scores(scores: Mapping[str, PropertyScore]) -> dict[str, float | None]:
    """Mean score of each group of properties; None where a member has no score."""

    def mean(members: tuple[str, ...]) -> float | None:
        each = [score for name in members if (score := scores[name].score) is not None]
        return sum(each) / len(each) if len(each) == len(members) else None

    return {group: mean(members) for group, members in GROUPS.items()}


def _score(
    key: jax.Array,
    name: str,
    values: np.ndarray | None,
    reference: Reference | None,
    bootstraps: int,
) -> PropertyScore:
    known: dict[str, Any] = {}
    if reference is not None:
        known = {
            "neurons": reference.neurons,
            "reference_undefined": reference.undefined,
            "reference_distribution": _fractions(reference.counts),
            "source": reference.source,
        }
    if values is None:
        return PropertyScore(name, "needs stimuli", **known)
    if values.ndim != 1 or np.isinf(values).any():
        raise ValueError(
            f"values[{name!r}] must be finite or NaN, of shape (units,); got shape {values.shape}"
        )
    counts, undefined = histogram(values, PROPERTIES[name].edges)
    defined = values[~np.isnan(values)]
    known |= {
        "units": len(values),
        "undefined": undefined,
        "median": float(np.median(defined)) if len(defined) else None,
        "distribution": _fractions(counts),
    }
    if reference is None:
        return PropertyScore(name, "needs data", **known)
    if len(values):
        mean, deviation = similarity(
            prng.stream(key, "model"),
            counts,
            undefined,
            reference.counts,
            reference.undefined,
            bootstraps,
        )
    else:
        mean, deviation = 0.0, 0.0  # No unit passes the response filter.
    most = ceiling(prng.stream(key, "ceiling"), reference, bootstraps)
    return PropertyScore(
        name,
        "scored",
        similarity=mean,
        similarity_std=deviation,
        ceiling=most,
        score=mean / most,
        **known,
    )


def _fractions(counts: np.ndarray) -> tuple[float, ...]:
    return tuple((counts / max(counts.sum(), 1)).tolist())
