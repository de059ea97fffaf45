"""How alike two distributions of a property are, and how alike they could be at all.

The similarity of the MarquesEtAl2020 benchmarks: one minus the Kolmogorov-Smirnov distance between
histograms, relative to the largest distance possible, averaged over populations of the size of
the neural one that are drawn with replacement from the model's units.
"""

import jax
import numpy as np

from vone_jax import prng

BOOTSTRAPS = 1000
# If more populations than this fraction have no defined value, the similarity is 0.
_MOST_UNDEFINED = 0.1


def histogram(values: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, int]:
    """Counts per bin and the number of undefined values.

    Args:
      values: (n,), NaN where undefined. Values beyond the edges count in the outer bins.
      edges: ascending, (bins + 1,).

    Returns:
      int64 counts (bins,) and the number of NaN.
    """
    defined = values[~np.isnan(values)]
    counts, _ = np.histogram(np.clip(defined, edges[0], edges[-1]), edges)
    return counts.astype(np.int64), len(values) - len(defined)


def similarity(
    key: jax.Array,
    counts: np.ndarray,
    undefined: int,
    reference_counts: np.ndarray,
    reference_undefined: int,
    bootstraps: int = BOOTSTRAPS,
) -> tuple[float, float]:
    """Similarity of a population to a reference one, with its bootstrap standard deviation.

    Undefined values are drawn like all others and then left out, so that a population with many
    of them is judged by as few values as the neurons were.

    Args:
      key: typed key of the bootstrap.
      counts: units per bin, (bins,).
      undefined: units without a value.
      reference_counts: neurons per bin, (bins,).
      reference_undefined: neurons without a value.
      bootstraps: number of populations drawn, >= 1.

    Returns:
      Mean over bootstraps, in [0, 1], and their standard deviation.

    Raises:
      ValueError: for an empty population or reference, or histograms of different bins.
    """
    if counts.shape != reference_counts.shape or counts.ndim != 1:
        raise ValueError(
            f"counts and reference_counts must have one shape (bins,), got {counts.shape} and "
            f"{reference_counts.shape}"
        )
    if bootstraps < 1:
        raise ValueError(f"bootstraps must be >= 1, got {bootstraps}")
    if counts.sum() + undefined < 1 or reference_counts.sum() < 1:
        raise ValueError("counts and reference_counts must not be empty")
    # A draw of units with replacement, counted in bins, is a multinomial draw.
    population = np.append(counts, undefined).astype(np.float64)
    size = int(reference_counts.sum() + reference_undefined)
    drawn = _generator(key).multinomial(size, population / population.sum(), bootstraps)[:, :-1]
    totals = drawn.sum(axis=1)
    defined = totals > 0
    if np.mean(~defined) > _MOST_UNDEFINED:
        return 0.0, 0.0
    fractions = drawn[defined] / totals[defined, None]
    values = 1.0 - distance(fractions, reference_counts / reference_counts.sum())
    return float(values.mean()), float(values.std())


def distance(fractions: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Kolmogorov-Smirnov distance, relative to the largest one possible.

    Args:
      fractions: histograms that sum to 1, (..., bins).
      reference: the histogram to compare with, (bins,).

    Returns:
      (...), 0 for equal histograms, 1 for the outer bin that is farther away.
    """
    cumulative = np.cumsum(reference)
    apart = np.abs(np.cumsum(fractions, axis=-1) - cumulative).max(axis=-1)
    # All in the first bin: cumulative 1 throughout; all in the last: 0 until there.
    largest = max(1.0 - cumulative[0], cumulative[-2])
    return apart / largest


def _generator(key: jax.Array) -> np.random.Generator:
    prng.check_key(key)
    words = np.asarray(jax.random.key_data(key)).ravel()
    return np.random.Generator(np.random.PCG64([int(word) for word in words]))
