"""Histograms of receptive-field parameters and their sampling."""

import numpy as np
import pytest

from vone_jax.v1 import distributions
from vone_jax.v1.distributions import Histogram


def test_inverse_cdf_is_uniform_inside_a_bin_on_the_stated_scale():
    histogram = Histogram((1.0, 2.0, 8.0), (1.0, 3.0), "log2")
    # Quarter of the mass below 2; half of the upper bin's mass lies below 4 on a log2 scale.
    np.testing.assert_allclose(histogram.inverse_cdf(np.array([0.0, 0.25, 0.625])), [1, 2, 4])


def test_samples_follow_the_weights():
    uniform = np.random.default_rng(0).random(200_000)
    samples = distributions.SPATIAL_FREQUENCY.inverse_cdf(uniform)
    counts, _ = np.histogram(samples, distributions.SPATIAL_FREQUENCY.edges)
    weights = np.array(distributions.SPATIAL_FREQUENCY.weights)
    # Five standard errors of the largest bin.
    np.testing.assert_allclose(counts / counts.sum(), weights / weights.sum(), atol=0.005)


def test_bins_of_weight_zero_are_never_drawn():
    samples = distributions.SIZE_X.inverse_cdf(np.linspace(0, 1, 10_001)[:-1])
    assert samples.max() < distributions.SIZE_EDGES[-2]


@pytest.mark.parametrize(
    ("sf_max", "include_high", "top"),
    [(6, True, 5.6), (9, True, 8.0), (5, True, 4.0), (8, True, 8.0), (8, False, 5.6)],
)
def test_between_keeps_whole_bins(sf_max, include_high, top):
    assert distributions.SPATIAL_FREQUENCY.between(0, sf_max, include_high).edges[-1] == top


def test_size_y_comes_from_the_row_of_size_x():
    size_x = np.full(1000, 0.12)  # First row: only bins 0 and 2 have weight.
    size_y = distributions.size_y_given_x(size_x, np.random.default_rng(0).random(1000))
    bins = np.searchsorted(distributions.SIZE_EDGES, size_y) - 1
    assert set(bins) == {0, 2}
    assert abs((bins == 0).mean() - 2 / 3) < 0.08


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (((0.0, 1.0), (1.0, 1.0)), "one entry more"),
        (((1.0, 0.0), (1.0,)), "ascend"),
        (((0.0, 1.0), (0.0,)), "not all 0"),
    ],
)
def test_malformed_histograms_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Histogram(*arguments)


def test_empty_selection_names_the_limits():
    with pytest.raises(ValueError, match="sf_min=9.*sf_max=10"):
        distributions.SPATIAL_FREQUENCY.between(9, 10)
