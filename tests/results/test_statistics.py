"""Intervals and differences: against SciPy, published numbers, and in simulations."""

import numpy as np
import pytest
from scipy import stats

from tests.results import built
from tests.results.built import CLEAN, accuracy
from vone_jax import results
from vone_jax.results import statistics
from vone_jax.results.statistics import wilson


def ends(interval):
    return interval.low, interval.high


def test_the_interval_of_yes_or_no_answers_is_wilsons():
    for correct, seen in ((0, 10), (10, 10), (3, 10), (450, 500), (1, 1)):
        expected = stats.binomtest(correct, seen).proportion_ci(0.95, "wilson")
        right = np.arange(seen) < correct
        for decisions in (right, right[:, None], np.repeat(right[:, None], 10, axis=1)):
            assert ends(results.accuracy(decisions)) == pytest.approx(tuple(expected), abs=1e-9)
    with pytest.raises(ValueError, match="at least one image"):
        results.accuracy(np.zeros((0, 10)))


def covered(truth, probabilities, images, draws=10, repeats=1500, seed=0):
    """How often the interval holds the truth, for images drawn from a distribution."""
    rng = np.random.default_rng(seed)
    count = 0
    for _ in range(repeats):
        chosen = probabilities(rng, images)
        right = rng.random((images, draws)) < chosen[:, None]
        interval = results.accuracy(right)
        count += interval.low <= truth <= interval.high
    return count / repeats


@pytest.mark.parametrize("images", [20, 500])
@pytest.mark.parametrize(
    ("truth", "probabilities"),
    [
        (0.5, lambda rng, n: np.full(n, 0.5)),  # All images are alike.
        (0.5, lambda rng, n: rng.beta(0.2, 0.2, n)),  # Most are always right or always wrong.
        (0.1, lambda rng, n: rng.beta(0.1, 0.9, n)),
        (0.97, lambda rng, n: rng.beta(0.97, 0.03, n)),
        (0.3, lambda rng, n: (rng.random(n) < 0.3).astype(float)),  # No noise.
    ],
)
def test_the_interval_covers_the_truth(truth, probabilities, images):
    assert covered(truth, probabilities, images) > 0.93


def test_the_interval_is_no_wider_than_the_noise_makes_it():
    """Shares of draws are no coin flips: Wilson's interval of their mean is three times as wide."""
    right = np.random.default_rng(0).random((100, 10)) < 0.5
    interval, flips = results.accuracy(right), wilson(right.mean(axis=1).sum(), 100)
    assert interval.high - interval.low < 0.4 * (flips.high - flips.low)
    # That of a normal mean, with four invented images at the ends of the scale.
    padded = np.array([*right.mean(axis=1), 0, 0, 1, 1])
    half = 1.959964 * padded.std() / np.sqrt(104)
    assert ends(interval) == pytest.approx((padded.mean() - half, padded.mean() + half))


def test_a_difference_pairs_images():
    ours, base = np.array([1, 1, 0.5, 1]), np.array([1, 0, 0, 1])
    item = results.paired_difference(ours, base)
    # With one image more at either end.
    half = 1.959964 * np.array([*(ours - base), -1, 1]).std() / np.sqrt(6)
    assert item.value == pytest.approx(1.5 / 4)
    assert ends(item) == pytest.approx((1.5 / 6 - half, 1.5 / 6 + half))
    back = results.paired_difference(base, ours)
    assert (back.value, back.low) == pytest.approx((-item.value, -item.high))


@pytest.mark.parametrize(("images", "disagree"), [(10, 0.4), (50, 0.2), (200, 0.05)])
def test_equal_networks_rarely_differ(images, disagree):
    """Two networks that are as often right, and disagree on a share of the images."""
    rng = np.random.default_rng(0)
    signs = []
    for _ in range(1000):
        change = rng.choice([-1, 0, 1], images, p=[disagree / 2, 1 - disagree, disagree / 2])
        signs.append(results.paired_difference(change > 0, change < 0).sign)
    assert np.mean(np.abs(signs)) < 0.06


@pytest.mark.parametrize("images", [2, 5, 100])
def test_equal_answers_are_no_certainty(images):
    wrong, right = np.zeros(images), np.ones(images)
    item = results.paired_difference(right, wrong)
    assert (item.value, item.high) == (1, 1) and item.low < 1 and item.sign == (images >= 5)
    # Bonett and Price: shares (0 + 1) / (n + 2) of images that change either way.
    same, share = results.paired_difference(wrong, wrong), 1 / (images + 2)
    assert same.high == -same.low == pytest.approx(1.959964 * np.sqrt(2 * share / (images + 2)))


def test_a_difference_of_other_images_is_newcombes():
    """Newcombe 1998, table II, (a): 56/70 against 48/80, method 10."""
    ours = accuracy(CLEAN, np.arange(70) < 56)
    base = accuracy(CLEAN, np.arange(80) < 48)
    item = results.difference(ours, base)
    assert (item.value, *ends(item)) == pytest.approx((0.2, 0.0524, 0.3339), abs=2e-4)


@pytest.mark.parametrize(
    ("fields", "paired"),
    [({"fingerprint": "b"}, False), ({"name": "moved"}, True), ({}, True)],
)
def test_only_the_same_images_are_paired(fields, paired):
    dataset = built.DATASET | {"examples": 40}
    right = built.answers(0.5, images=40)
    made = [accuracy(CLEAN, right, dataset=each) for each in (dataset, dataset | fields)]
    item = results.difference(*made)
    assert item.value == 0 and (item.high < 0.08) == paired


def test_images_that_are_some_of_the_others_are_of_one_set():
    """By index and checksum; the first forty of another set have the same indices."""

    def on(count, fingerprint, start):
        arrays = {"checksum": np.arange(start, start + count)}
        dataset = built.DATASET | {"fingerprint": fingerprint}
        return accuracy(CLEAN, np.ones(count), arrays=arrays, dataset=dataset)

    whole = on(100, "a", 0)
    assert statistics.comparable(whole, on(40, "b", 0))
    assert not statistics.comparable(whole, on(40, "c", 1000))
    assert not statistics.comparable(whole, accuracy(CLEAN, np.ones(40), dataset=built.DATASET))


def test_the_interval_of_a_mean_that_is_no_share_is_students():
    values = np.random.default_rng(0).normal(3.0, 2.0, 12)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    found = results.mean(values, share=False)
    assert found.value == pytest.approx(values.mean()) and ends(found) == pytest.approx(
        tuple(expected)
    )
    # Of several draws of each example, and of pairs.
    draws = values[:, None] + np.array([-1.0, 1.0])
    assert ends(results.mean(draws, share=False)) == pytest.approx(ends(found))
    other = np.random.default_rng(1).normal(2.0, 2.0, 12)
    expected = stats.ttest_rel(values, other).confidence_interval(0.95)
    item = results.paired_difference(values, other, share=False)
    assert ends(item) == pytest.approx(tuple(expected))
    assert np.isnan(results.mean(np.array([1.0, np.inf]), share=False).value)
    alone = results.mean(np.array([2.0]), share=False)
    assert alone.value == 2 and np.isnan(alone.low)


def test_a_number_of_a_user_is_paired_where_it_has_values_by_example():
    """Values that are no shares, of the same images and of others."""
    values = np.arange(6.0)
    made = [
        built.result(
            {"condition": "rooms"},
            {"sure": {**vars(results.mean(of, share=False)), "of": "logit"}},
            {"logit": of, "index": index},
        )
        for of, index in (
            (values, np.arange(6)), (values + [0, 1, 1, 0, 1, 1], np.arange(6)),
            (values, np.arange(6, 12)),
        )
    ]  # fmt: skip
    item = results.difference(made[1], made[0], "sure")
    expected = stats.ttest_1samp([0, 1, 1, 0, 1, 1], 0).confidence_interval(0.95)
    assert item.value == pytest.approx(4 / 6) and ends(item) == pytest.approx(tuple(expected))
    apart = results.difference(made[2], made[0], "sure")
    assert apart.value == 0 and apart.high > 2


def test_values_of_other_numbers_of_examples_have_no_paired_difference():
    """One value would be taken from each of the others."""
    for other in (np.zeros(5), np.zeros(1)):
        with pytest.raises(ValueError, match=f"of the same examples, got 6 and {len(other)}"):
            results.paired_difference(np.ones(6), other)
