"""Intervals and differences against SciPy and against numbers worked out by hand."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from tests.results import built
from tests.results.built import CLEAN
from vone_jax import names, results
from vone_jax.results.statistics import image_sets


def accuracy(correct, index=False, interval=None):
    made = built.accuracy(CLEAN, correct, index)
    if interval is None:
        return made
    return dataclasses.replace(made, measured=dataclasses.replace(made.measured, interval=interval))


def test_wilson_equals_scipy():
    for correct, seen in ((0, 10), (10, 10), (3, 10), (450, 500), (1, 1)):
        expected = stats.binomtest(correct, seen).proportion_ci(0.95, "wilson")
        assert results.wilson(correct, seen) == pytest.approx(tuple(expected), abs=1e-9)
    low, high = results.wilson(4.35, 10)
    assert 0 < low < 0.435 < high < 1
    for bad in ((-1, 10), (11, 10), (0, 0), (float("nan"), 10)):
        with pytest.raises(ValueError, match="correct"):
            results.wilson(*bad)


def test_difference_pairs_images_by_index():
    base = accuracy([1, 0, 0, 1], index=[7, 3, 9, 1])
    other = accuracy([1, 1, 0.5, 1], index=[3, 1, 9, 7])
    item = results.difference([base], [other])
    change = np.array([1 - 1, 1 - 0, 0.5 - 0, 1 - 1])  # images 7, 3, 9, 1
    # With one image more at either end.
    half = 1.959964 * np.array([*change, -1, 1]).std() / np.sqrt(6)
    assert (item.value, item.paired, item.images) == (change.mean(), True, 4)
    assert (item.low, item.high) == pytest.approx((1.5 / 6 - half, 1.5 / 6 + half))
    back = results.difference([other], [base])
    assert (back.value, back.low) == pytest.approx((-item.value, -item.high))


def test_difference_uses_common_images_and_means_over_conditions():
    base = [accuracy([1, 0, 0], [0, 1, 2]), accuracy([0, 0, 1], [0, 1, 2])]
    other = [accuracy([1, 1, 0], [1, 2, 3]), accuracy([1, 0, 0], [1, 2, 3])]
    item = results.difference(base, other)
    assert item.images == 2
    assert item.value == pytest.approx(np.mean([(1 + 1) / 2 - 0, (1 + 0) / 2 - 0.5]))


@pytest.mark.parametrize(
    ("fields", "paired"),
    [
        ({"checksum": "b"}, False),
        ({"total": 8}, False),
        ({"checksum": "a"}, True),
        ({"checksum": None, "total": None}, True),
        # A checksum is of the chosen images.
        ({"checksum": "b", "stride": 2.0}, True),
    ],
)
def test_images_of_a_folder_that_changed_are_not_paired(fields, paired):
    dataset = results.Dataset("folder:x", "val", 3, total=9, checksum="a")
    other = dataclasses.replace(dataset, **fields)
    made = [built.accuracy(CLEAN, [1, 0, 1], dataset=each) for each in (dataset, other)]
    assert results.difference(made[:1], made[1:]).paired == paired
    assert dataset.changed(other) == other.changed(dataset) == (not paired)


def test_a_part_of_the_images_agrees_with_its_own_time_only():
    """All images of a folder agree with a part of them, before and after it changed."""
    full = results.Dataset("folder:x", "val", 6, total=6, checksum="a")
    part = dataclasses.replace(full, examples=3, stride=2.0, checksum="b")
    changed = dataclasses.replace(part, checksum="c")
    made = [built.accuracy(CLEAN, [1, 0, 1], dataset=each) for each in (full, part, changed, part)]
    assert image_sets(made) == [0, 0, 1, 0]
    assert not results.difference([made[0], made[1]], [made[0], made[2]]).paired


def test_difference_of_independent_images_is_newcombes():
    """Newcombe 1998, table II, (a): 56/70 against 48/80, method 10."""
    first = accuracy([1] * 56 + [0] * 14, interval=(0.69183, 0.87695))
    second = accuracy([1] * 48 + [0] * 32, interval=(0.49046, 0.70038))
    item = results.difference([second], [first])
    assert not item.paired
    assert (item.value, item.low, item.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=2e-4)


def test_unpaired_mean_over_conditions_claims_no_interval():
    item = results.difference([accuracy([1, 0])] * 2, [accuracy([1, 1])] * 2)
    assert item.value == 0.5 and item.sign == 0 and np.isinf(item.low)


@pytest.mark.parametrize("images", [2, 5, 100])
def test_equal_answers_are_no_certainty(images):
    """Wald's interval of all wrong, or of all better, has no width."""
    wrong, right = (accuracy([each] * images, index=range(images)) for each in (0, 1))
    # Agresti and Coull's interval of n images is Wald's of n + 4 with two right.
    high = 2 / (images + 4) + 1.959964 * np.sqrt(2 * (images + 2) / (images + 4) ** 3)
    assert results.mean_accuracy([wrong]) == pytest.approx((0, 0, min(high, 1)))
    assert results.mean_accuracy([right]) == pytest.approx((1, max(1 - high, 0), 1))
    item = results.difference([wrong], [right])
    assert (item.value, item.high) == (1, 1) and item.low < 1
    assert item.sign == (images >= 5)
    # Bonett and Price: shares (0 + 1) / (n + 2) of images that change either way.
    same, share = results.difference([wrong], [wrong]), 1 / (images + 2)
    assert same.value == 0
    assert same.high == -same.low == pytest.approx(1.959964 * np.sqrt(2 * share / (images + 2)))


@pytest.mark.parametrize(("images", "disagree"), [(10, 0.4), (30, 0.2), (50, 0.2), (200, 0.05)])
def test_equal_networks_rarely_differ(images, disagree):
    """Two networks that are as often right, and disagree on a share of the images."""
    rng = np.random.default_rng(0)
    signs = []
    for _ in range(1000):
        change = rng.choice([-1, 0, 1], images, p=[disagree / 2, 1 - disagree, disagree / 2])
        pair = (
            accuracy((change < 0) * 1.0, range(images)),
            accuracy((change > 0) * 1.0, range(images)),
        )
        signs.append(results.difference(pair[:1], pair[1:]).sign)
    assert np.mean(np.abs(signs)) < 0.06


@pytest.mark.parametrize(("images", "share"), [(20, 0.1), (100, 0.03), (200, 0.985)])
def test_the_interval_of_a_mean_covers_it_near_its_ends(images, share):
    rng = np.random.default_rng(0)
    covered = []
    for _ in range(1000):
        _, low, high = results.mean_accuracy([accuracy(rng.random(images) < share, range(images))])
        covered.append(low <= share <= high)
    assert np.mean(covered) > 0.935


def test_an_interval_that_ends_at_zero_does_not_exclude_it():
    for low, high, sign in ((0.0, 0.2, 0), (-0.2, 0.0, 0), (0.1, 0.2, 1), (-0.2, -0.1, -1)):
        assert results.Difference((low + high) / 2, low, high, 9, paired=True).sign == sign


def test_one_image_has_no_interval():
    mean, low, high = results.mean_accuracy([accuracy([1.0], index=[3])])
    assert mean == 1 and np.isnan(low) and np.isnan(high)


def test_mean_accuracy_interval_is_over_images():
    values = np.array([[1, 0, 1, 1], [1, 0, 0, 1.0]])
    conditions = [accuracy(row, index=range(4)) for row in values]
    mean, low, high = results.mean_accuracy(conditions)
    # With two images more at either end.
    half = 1.959964 * np.array([*values.mean(0), 0, 0, 1, 1]).std() / np.sqrt(8)
    assert (mean, low, high) == pytest.approx((0.625, 4.5 / 8 - half, 4.5 / 8 + half))
    mean, low, high = results.mean_accuracy([accuracy([1, 0])])
    assert mean == 0.5 and np.isnan(low) and np.isnan(high)


def test_the_interval_of_a_mean_over_other_images_contains_it():
    """One condition on 40 images, the other on 4 of them, which are hard."""
    whole = accuracy([0, 0, 0, 0, *[1] * 36], index=None)
    few = accuracy([0, 0, 0, 1], index=None)
    mean, low, high = results.mean_accuracy([whole, few])
    assert mean == pytest.approx((0.9 + 0.25) / 2) and low < mean < high
    assert high - low > 0.3


def test_a_difference_ends_where_accuracies_do():
    found = results.difference([accuracy([1] + [0] * 39, None)], [accuracy([1] * 40, None)])
    assert found.value == 0.975 and found.high == 1.0 and 0.8 < found.low < 0.975


def width(*members):
    _, low, high = results.mean_accuracy(members)
    return high - low


def test_the_interval_of_a_mean_over_other_images_is_that_of_a_bootstrap():
    """Half of the images of one result are those of the other, and hard or easy for both."""
    rng = np.random.default_rng(0)
    ease = rng.uniform(0.1, 0.9, 600)
    first, second = (rng.random(600) < ease for _ in range(2))
    members = accuracy(first[:400] * 1.0, range(400)), accuracy(second[200:] * 1.0, range(200, 600))
    weights = np.array([0.3, 0.7])
    drawn = rng.integers(0, 200, (4000, 3, 200)) + np.array([[0], [200], [400]])
    means = np.stack([
        first[drawn[:, :2]].mean(axis=(1, 2)), second[drawn[:, 1:]].mean(axis=(1, 2))
    ])  # fmt: skip
    mean, low, high = results.mean_accuracy(members, weights)
    assert mean == pytest.approx(0.3 * first[:400].mean() + 0.7 * second[200:].mean())
    assert (low, high) == pytest.approx(np.percentile(weights @ means, (2.5, 97.5)), abs=0.004)


def test_the_same_images_twice_are_no_more_evidence():
    one = accuracy(built.answers(0.9), index=range(100))
    assert results.mean_accuracy([one, one]) == pytest.approx(results.mean_accuracy([one]))
    # A result without weight is left out, and its images with it.
    none = accuracy([1, 0], index=None)
    weighted = results.mean_accuracy([one, none], np.array([1.0, 0.0]))
    assert weighted == results.mean_accuracy([one])


@pytest.mark.parametrize(
    ("places", "share"),
    [
        # Three conditions on the same images, some of them, or other images.
        ((range(10), range(10), range(10)), 0.3),
        ((range(40), range(40), range(10)), 0.1),
        ((range(100), range(100), range(20)), 0.97),
        ((range(10), range(10, 20), range(20, 30)), 0.03),
        ((range(50), *[range(50, 100)] * 15), 0.03),
        ((range(60), range(30, 90), range(60, 120)), 0.5),
    ],
)
def test_the_interval_of_a_score_covers_it_on_few_images(places, share):
    """All conditions are alike hard for an image."""
    rng, covered = np.random.default_rng(0), []
    for _ in range(1000):
        ease = rng.beta(4 * share, 4 * (1 - share), max(map(max, places)) + 1)
        members = [accuracy((rng.random(len(p)) < ease[list(p)]) * 1.0, p) for p in places]
        _, low, high = results.mean_accuracy(members)
        covered.append(low <= share <= high)
    assert 0.93 < np.mean(covered) < 0.99


def test_published_images_of_sets_of_other_sizes_are_not_the_same():
    nine, twelve, unknown = (
        built.accuracy(built.corrupted("fog", 1, "published"), [1, 0, 1], total=total)
        for total in (9, 12, None)
    )
    assert not nine.same_images(twelve)
    assert nine.same_images(unknown) and unknown.same_images(twelve)
    assert results.difference([nine], [nine]).paired
    assert not results.difference([nine], [twelve]).paired


def test_images_of_little_weight_are_little_evidence():
    """Else many images that hardly count would stand for a certainty that few images give."""
    few, many = accuracy([1] * 4, index=range(4)), accuracy([1] * 1000, index=range(4, 1004))
    weighted = results.mean_accuracy([few, many], np.array([0.999, 0.001]))
    assert weighted == pytest.approx(results.mean_accuracy([few]), abs=0.01)


def test_photographs_of_frost_go_before_a_drawn_texture():
    measured = {("frost", 1): "photographs", (names.PROCEDURAL_FROST, 1): "drawn"}
    assert results.common_corruptions(measured) == {("frost", 1): "photographs"}
    measured |= {(names.PROCEDURAL_FROST, 2): "drawn"}
    assert results.common_corruptions(measured)[("frost", 2)] == "drawn"


def test_published_images_are_not_the_clean_ones():
    """Sets of published images have the images of each other, and not the clean ones."""
    clean = accuracy(built.answers(0.5), index=range(100))
    published = [
        built.accuracy(built.corrupted(name, 1, "published"), 0.5) for name in ("fog", "snow")
    ]
    assert width(clean, published[0]) == pytest.approx(width(*published) / np.sqrt(2), rel=0.02)


def test_common_images_are_sorted_once(monkeypatch):
    """Else a report on 50,000 images spends its time on sorting the same numbers."""
    sorted_arrays, union = [], np.union1d
    monkeypatch.setattr(np, "union1d", lambda *ab: sorted_arrays.append(ab) or union(*ab))
    monkeypatch.setattr(np, "unique", lambda *_, **__: pytest.fail("np.unique is slow"))
    same = [accuracy(np.roll([1, 0, 0.5, 0], n), index=[9, 3, 5, 7]) for n in range(4)]
    assert results.mean_accuracy(same)[0] == pytest.approx(1.5 / 4)
    assert not sorted_arrays
    monkeypatch.undo()
    item = results.difference(same, [accuracy([1, 0, 1], index=[5, 7, 9])] * 4)
    assert (item.images, item.value) == (3, pytest.approx(2 / 3 - 1.5 / 4))
