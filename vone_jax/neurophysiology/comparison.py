"""Compares the properties of a layer's units with those of neurons.

The similarity of the MarquesEtAl2020 benchmarks is one minus the Kolmogorov-Smirnov distance
between histograms, relative to the largest possible distance. It is averaged over populations of
the size of the neural sample, drawn with replacement from the model's units.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped

from vone_jax import arguments, prng
from vone_jax.neurophysiology.properties import (
    GROUPS,
    MOST_UNDEFINED,
    PROPERTIES,
    PUBLISHED,
    Reference,
    histogram,
)

BOOTSTRAPS = 1000
Counts = Int[np.ndarray, " bins"]


@dataclasses.dataclass(frozen=True)
class PropertyScore:
    """One property of a layer, and the comparison of its distribution with neurons.

    Attributes:
      name: a name in ``neurophysiology.PROPERTIES``, which also has the benchmark, label, unit,
        group and edges.
      status: "scored", or what is missing for a score. "needs data": the user has to supply the
        distribution over neurons. "needs stimuli": the property was not measured, because the user
        has to supply its images.
      benchmark: name in Brain-Score.
      label: name in words.
      unit: unit of the values; empty for a pure number.
      group: the group of properties over which scores are averaged.
      edges: bin edges of the distributions.
      similarity: similarity to the neurons, in [0, 1]; None unless scored.
      similarity_std: bootstrap standard deviation of the similarity. It is no error of the score:
        with few units, the score also varies, and is lower.
      ceiling: similarity of the neurons to populations drawn from themselves.
      score: similarity / ceiling, which may exceed 1 a little.
      units: number of units that count, with and without a value.
      undefined: number of units that count and have no value.
      median: median of the defined values; None if there are none.
      distribution: fraction of the defined values in each bin.
      neurons: size of the reference sample; None without one.
      reference_undefined: number of neurons without a value.
      reference_distribution: fraction of the neurons' values in each bin.
      source: source of the reference.
    """

    name: str
    status: Literal["scored", "needs data", "needs stimuli"]
    benchmark: str
    label: str
    unit: str
    group: str
    edges: tuple[float, ...]
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


def compare(
    key: Key[Array, ""],
    values: Mapping[str, Shaped[np.ndarray, " _"]],
    references: Mapping[str, Reference] = PUBLISHED,
    bootstraps: int = BOOTSTRAPS,
) -> dict[str, PropertyScore]:
    """Score properties against neurons.

    The values of a property are those of the units that count, NaN where undefined. For each
    similarity and each ceiling, ``bootstraps`` populations are drawn. Each property has its own
    stream of the key.

    Returns:
      All 22 properties in the order of ``PROPERTIES``, also those that were not measured.

    Raises:
      ValueError: for an unknown property, or values that are infinite or of another shape.
    """
    for name in values:
        arguments.choice("values", name, PROPERTIES)
    return {
        name: _score(
            prng.stream(key, name), name, values.get(name), references.get(name), bootstraps
        )
        for name in PROPERTIES
    }


def group_scores(scores: Mapping[str, PropertyScore]) -> dict[str, float | None]:
    """Return the mean score of each group of properties; None where a member has no score."""

    def mean(members: tuple[str, ...]) -> float | None:
        values = [score for name in members if (score := scores[name].score) is not None]
        return sum(values) / len(values) if len(values) == len(members) else None

    return {group: mean(members) for group, members in GROUPS.items()}


def ceiling(key: Key[Array, ""], reference: Reference, bootstraps: int = BOOTSTRAPS) -> float:
    """Return the similarity of a sample of neurons to populations drawn from it."""
    counts, undefined = reference.counts, reference.undefined
    return similarity(key, counts, undefined, counts, undefined, bootstraps)[0]


def similarity(
    key: Key[Array, ""],
    counts: Counts,
    undefined: int,
    reference_counts: Counts,
    reference_undefined: int,
    bootstraps: int = BOOTSTRAPS,
) -> tuple[float, float]:
    """Return the mean similarity of a population to a reference, and its bootstrap deviation.

    Populations have the size of the neural sample with its undefined values. Undefined values are
    drawn like all others and then left out. ``bootstraps`` populations are drawn. As in the
    benchmarks, the similarity is 0 if more than 10 % of them have no defined value.
    """
    if counts.shape != reference_counts.shape or counts.ndim != 1:
        raise ValueError(
            f"counts and reference_counts must have one shape (bins,), got {counts.shape} and "
            f"{reference_counts.shape}"
        )
    arguments.count("bootstraps", bootstraps)
    if counts.sum() + undefined < 1 or reference_counts.sum() < 1:
        raise ValueError("counts and reference_counts must not be empty")
    words = jax.random.key_data(prng.threefry(key))
    generator = np.random.default_rng(np.asarray(words).ravel().tolist())
    # A draw of units with replacement, counted in bins, is a multinomial draw.
    population = np.append(counts, undefined).astype(np.float64)
    size = int(reference_counts.sum() + reference_undefined)
    drawn = generator.multinomial(size, population / population.sum(), bootstraps)[:, :-1]
    totals = drawn.sum(axis=1)
    defined = totals > 0
    if np.mean(~defined) > MOST_UNDEFINED:
        return 0.0, 0.0
    fractions = drawn[defined] / totals[defined, None]
    values = np.asarray(1.0 - distance(fractions, reference_counts / reference_counts.sum()))
    return float(values.mean()), float(values.std())


def distance(
    fractions: Float[np.ndarray, "*populations bins"], reference: Float[np.ndarray, " bins"]
) -> Float[np.ndarray, "*populations"] | np.float64:
    """Return the Kolmogorov-Smirnov distance of histograms, relative to the largest possible one.

    It is 0 for equal histograms, and 1 if all values lie in the outer bin that is farther from the
    reference. All histograms sum to 1.
    """
    cumulative = np.cumsum(reference)
    apart = np.abs(np.cumsum(fractions, axis=-1) - cumulative).max(axis=-1)
    # All in the first bin: cumulative 1 throughout; all in the last: 0 until there.
    largest = max(1.0 - cumulative[0], cumulative[-2])
    return apart / largest


def _score(
    key: jax.Array,
    name: str,
    values: np.ndarray | None,
    reference: Reference | None,
    bootstraps: int,
) -> PropertyScore:
    about = PROPERTIES[name]
    fields: dict[str, Any] = {
        "name": name,
        "benchmark": f"Marques2020_{about.benchmark}",
        "label": about.label,
        "unit": about.unit,
        "group": about.group,
        "edges": tuple(about.edges.tolist()),
    }
    if reference is not None:
        fields |= {
            "neurons": reference.neurons,
            "reference_undefined": int(reference.undefined),
            "reference_distribution": _fractions(reference.counts),
            "source": reference.source,
        }
    if values is None:
        return PropertyScore(status="needs stimuli", **fields)
    values = np.asarray(values)
    if values.ndim != 1 or np.isinf(values).any():
        raise ValueError(
            f"values[{name!r}] must be finite or NaN, of shape (units,); got shape {values.shape}"
        )
    counts, undefined = histogram(values, about.edges)
    defined = values[~np.isnan(values)]
    fields |= {
        "units": len(values),
        "undefined": undefined,
        "median": float(np.median(defined)) if len(defined) else None,
        "distribution": _fractions(counts),
    }
    if reference is None:
        return PropertyScore(status="needs data", **fields)
    fields |= {"similarity": 0.0, "similarity_std": 0.0}  # If no unit counts.
    if len(values):
        neurons = reference.counts, reference.undefined
        similar = similarity(prng.stream(key, "model"), counts, undefined, *neurons, bootstraps)
        fields["similarity"], fields["similarity_std"] = similar
    most = ceiling(prng.stream(key, "ceiling"), reference, bootstraps)
    score = fields["similarity"] / most
    return PropertyScore(status="scored", ceiling=most, score=score, **fields)


def _fractions(counts: np.ndarray) -> tuple[float, ...]:
    return tuple((counts / max(counts.sum(), 1)).tolist())
