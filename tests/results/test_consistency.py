"""Error consistency of two observers: against textbooks and in simulations."""

import itertools

import numpy as np
import pytest

from vone_jax import results


def observers(both, first, second, neither):
    """Decisions of two observers by the number of images that both, one or none has right."""
    table = [(True, True)] * both + [(True, False)] * first + [(False, True)] * second
    return np.array(table + [(False, False)] * neither).T


def kappa(both, first, second, neither):
    """Cohen's kappa of a table of two by two, by its textbook formula."""
    count = both + first + second + neither
    top = 2 * (both * neither - first * second)
    return top / ((both + first) * (first + neither) + (both + second) * (second + neither)), count


@pytest.mark.parametrize(
    "table", [(40, 10, 5, 45), (70, 20, 5, 5), (10, 40, 45, 5), (25, 25, 25, 25)]
)
def test_it_is_cohens_kappa_of_right_and_wrong(table):
    value, count = kappa(*table)
    found = results.error_consistency(*observers(*table))
    assert found.value == pytest.approx(value) and found.low <= value <= found.high
    # The interval is that of Fleiss, Cohen and Everitt (1969).
    p = np.array([[table[0], table[1]], [table[2], table[3]]]) / count
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    chance = rows @ columns
    diagonal = sum(p[i, i] * (1 - (rows[i] + columns[i]) * (1 - value)) ** 2 for i in range(2))
    off = sum(p[i, 1 - i] * (columns[i] + rows[1 - i]) ** 2 for i in range(2)) * (1 - value) ** 2
    variance = (diagonal + off - (value - chance * (1 - value)) ** 2) / (1 - chance) ** 2 / count
    assert found.high - value == pytest.approx(1.959964 * np.sqrt(variance), rel=1e-6)


def test_the_same_errors_opposite_ones_and_none():
    right = np.array([True, False, True, True])
    assert results.error_consistency(right, right).value == 1
    half = np.array([True, False, True, False])
    assert results.error_consistency(half, ~half).value == -1
    always = np.ones(4, bool)
    assert np.isnan(results.error_consistency(always, always).value)
    # An observer that is always right agrees with others as often as chance.
    assert results.error_consistency(always, right).value == pytest.approx(0)
    with pytest.raises(ValueError, match="same images, got 4 and 3"):
        results.error_consistency(right, right[:3])


def test_several_decisions_of_a_network_are_averaged_over_their_pairs():
    rng = np.random.default_rng(0)
    network, person = rng.random((60, 5)) < 0.7, rng.random((60, 1)) < 0.6
    pairs = [network[:, i] == person[:, 0] for i in range(5)]
    agreed, p1, p2 = np.mean(pairs), network.mean(), person.mean()
    chance = p1 * p2 + (1 - p1) * (1 - p2)
    found = results.error_consistency(network, person)
    assert found.value == pytest.approx((agreed - chance) / (1 - chance))
    assert results.error_consistency(network.mean(axis=1), person).value == found.value


def test_intervals_cover_the_true_value():
    """Errors are shared with a probability, so that kappa is known."""
    rng = np.random.default_rng(1)
    accuracy, shared, images, covered = 0.7, 0.4, 200, 0
    for _ in range(1000):
        common = rng.random(images) < accuracy
        one, two = (
            np.where(same, common, rng.random(images) < accuracy)
            for same in itertools.repeat(rng.random(images) < shared, 2)
        )
        found = results.error_consistency(one, two)
        covered += found.low <= shared <= found.high
    assert 930 <= covered <= 970
