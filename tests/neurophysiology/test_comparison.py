"""The similarity of distributions, and the ceilings of the published distributions.

The ceilings are asserted by Brain-Score's own tests (brain-score/vision, MarquesEtAl2020, tolerance
0.005) for the per-cell data; the published counts must give the same.
"""

import jax
import numpy as np
import pytest

from vone_jax import neurophysiology
from vone_jax.neurophysiology.comparison import distance, similarity
from vone_jax.neurophysiology.properties import histogram

CEILINGS = {
    "pref_or": 0.962,
    "peak_sf": 0.967,
    "sf_bandwidth": 0.933,
    "sf_selective": 0.963,
    "grating_summation_field": 0.956,
    "surround_diameter": 0.955,
    "surround_suppression_index": 0.958,
}


@pytest.mark.parametrize("name", CEILINGS)
def test_the_published_counts_have_the_published_ceilings(name):
    reference = neurophysiology.PUBLISHED[name]
    found = neurophysiology.ceiling(jax.random.key(0), reference)
    assert found == pytest.approx(CEILINGS[name], abs=0.005)


def test_scores_of_units_that_are_known():
    """The numbers by which the page on neurophysiology explains the scale."""
    rng, keys = np.random.default_rng(0), iter(jax.random.split(jax.random.key(0), 2000))
    references = neurophysiology.PUBLISHED.values()
    ceilings = [neurophysiology.ceiling(next(keys), each) for each in references]

    def mean(draw, populations=1):
        scores = []
        for reference, ceiling in zip(references, ceilings, strict=True):
            for _ in range(populations):
                *counts, undefined = draw(reference)
                fields = np.array(counts), int(undefined), reference.counts, reference.undefined
                found, _ = similarity(next(keys), *fields, bootstraps=200)
                scores.append(found / ceiling)
        return np.mean(scores)

    assert mean(lambda r: [100_000] * len(r.counts) + [0]) == pytest.approx(0.73, abs=0.01)
    shares = lambda r: np.append(r.counts, r.undefined) / r.neurons  # noqa: E731
    for units, score in ((20, 0.90), (100, 0.97), (1000, 0.995)):
        drawn = mean(lambda r, n=units: rng.multinomial(n, shares(r)), 60)
        assert drawn == pytest.approx(score, abs=0.01)


def test_a_property_without_stimuli_is_said_to_need_them():
    scored = neurophysiology.compare(jax.random.key(0), {"max_dc": np.arange(30.0)}, {}, 10)
    assert scored["max_dc"].status == "needs data" and scored["max_dc"].units == 30
    assert scored["texture_sparseness"].status == "needs stimuli"


def test_a_draw_of_units_equals_the_multinomial_draw_of_their_bins():
    # The definition, unit by unit: resample with NaN, drop them, compare histograms.
    rng = np.random.default_rng(0)
    values = np.where(rng.random(200) < 0.3, np.nan, rng.normal(1.0, 1.0, 200))
    edges = np.linspace(-1.0, 3.0, 9)
    reference = np.array([4, 10, 30, 40, 30, 10, 4, 2])
    counts, undefined = histogram(values, edges)
    found, deviation = similarity(jax.random.key(1), counts, undefined, reference, 20, 4000)
    each = []
    for _ in range(4000):
        drawn = rng.choice(values, 150)
        drawn = np.clip(drawn[~np.isnan(drawn)], edges[0], edges[-1])
        m = np.histogram(drawn, edges)[0] / len(drawn)
        gap = np.abs(np.cumsum(m) - np.cumsum(reference) / reference.sum()).max()
        largest = max(1 - 4 / 130, 1 - 2 / 130)
        each.append(1 - gap / largest)
    assert found == pytest.approx(np.mean(each), abs=4 * np.std(each) / np.sqrt(4000) * np.sqrt(2))
    assert deviation == pytest.approx(np.std(each), rel=0.1)


def test_histograms_clip_to_the_edges_and_count_what_is_undefined():
    counts, undefined = histogram(
        np.array([-5.0, 0.0, 0.5, 1.0, 9.0, np.nan]), np.array([0.0, 0.5, 1.0])
    )
    np.testing.assert_array_equal(counts, [2, 3])
    assert undefined == 1


def test_distance_is_0_for_equal_and_1_for_the_farther_end():
    reference = np.array([0.1, 0.2, 0.3, 0.4])
    ends = np.eye(4)[[0, 3]]
    assert distance(reference, reference) == 0.0
    np.testing.assert_allclose(distance(ends, reference), [1.0, 0.6 / 0.9])


def test_keys_decide_the_bootstrap():
    arguments = (np.array([3, 4, 5]), 2, np.array([5, 4, 3]), 0)
    first, again, same, other = (
        similarity(jax.random.key(seed, impl=implementation), *arguments, bootstraps=50)
        for seed, implementation in ((1, None), (1, None), (1, "rbg"), (2, None))
    )
    assert first == again == same != other


def test_mostly_undefined_populations_have_no_similarity():
    # Each of 3 draws is undefined with probability 0.9: 73 % of populations have no value.
    assert similarity(jax.random.key(0), np.array([1, 0]), 9, np.array([2, 1]), 0) == (0.0, 0.0)


def test_undefined_values_count_among_the_units_and_not_in_the_median():
    values = {"or_bandwidth": np.array([10.0, 20.0, np.nan, 60.0])}
    score = neurophysiology.compare(jax.random.key(0), values)["or_bandwidth"]
    assert (score.units, score.undefined, score.median) == (4, 1, 20.0)
    assert score.status == "needs data" and sum(score.distribution) == pytest.approx(1)
