"""Histograms of receptive-field parameters and their sampling."""

import numpy as np
import pytest

from vone_jax.v1 import distributions


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
