"""Error consistency of observers, from arrays, from trials and from results."""

import dataclasses
import itertools

import numpy as np
import pandas as pd
import pytest

from tests.results import built
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


HEADER = "subj,Session,trial,rt,object_response,category,condition,imagename\n"
ROW = "{subj},1,{n},0.5,{answer},{category},{condition},{name}\n"


def write_trials(path, subject, short, answers):
    """A file as the study has it; the order of its trials is that of the subject."""
    order = np.random.default_rng(len(subject) + ord(subject[-1])).permutation(len(answers))
    condition = ["c10"] * 4 + ["c100"] * 4
    lines = [
        ROW.format(
            subj=subject, n=n, answer=answers[image], category="bear", condition=condition[image],
            name=f"{n:04d}_cop_{short}_{condition[image]}_bear_10_n02132136_{image}.png",
        )
        for n, image in enumerate(order)
    ]  # fmt: skip
    path.write_text(HEADER + "".join(lines))


def test_trials_are_read_from_folders_and_compared_by_image(tmp_path):
    first = ["bear", "dog", "bear", "na", "bear", "bear", "cat", "bear"]
    second = ["bear", "cat", "cat", "car", "bear", "dog", "cat", "bear"]
    write_trials(tmp_path / "one.csv", "subject-01", "s01", first)
    write_trials(tmp_path / "two.csv", "subject-02", "s02", second)
    trials = results.read_trials(tmp_path)
    assert len(trials) == 16 and trials["right"].sum() == 8
    assert trials.groupby("condition")["right"].mean().to_dict() == {"c10": 0.375, "c100": 0.625}
    table = results.consistencies(trials).set_index("condition")
    assert table["images"].tolist() == [4, 4] and table["observer"].tolist() == ["subject-01"] * 2
    for condition, where in (("c10", slice(0, 4)), ("c100", slice(4, 8))):
        one, two = (np.array(each[where]) == "bear" for each in (first, second))
        expected = results.error_consistency(one, two)
        assert table.loc[condition, "value"] == pytest.approx(expected.value)
        assert table.loc[condition, "low"] == pytest.approx(expected.low)
    (tmp_path / "bad.csv").write_text("subj,trial\na,1\n")
    with pytest.raises(
        results.ResultError, match="bad.csv has no column object_response, category"
    ):
        results.read_trials(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(results.ResultError, match="no CSV file"):
        results.read_trials(tmp_path / "empty")


def test_a_network_is_compared_with_observers(tmp_path):
    """Its result is on a folder with a folder for each category."""
    person = ["bear", "dog", "bear", "dog", "bear", "dog", "bear", "dog"]
    write_trials(tmp_path / "one.csv", "subject-01", "s01", person)
    right = np.array([[1, 1], [0, 0], [1, 0], [0, 0], [1, 1], [0, 1], [1, 1], [1, 1]], bool)
    condition = ["c10"] * 4 + ["c100"] * 4
    files = [f"bear/{n:04d}_cop_dnn_{condition[n]}_bear_10_n02132136_{n}.png" for n in range(8)]
    made = built.accuracy(built.CLEAN, right)
    arrays = dict(made.arrays) | {"label": np.full(8, 1), "predicted": np.arange(8)}
    made = dataclasses.replace(made, arrays=arrays)
    own = results.decisions(made, files)
    assert own["subj"].unique() == ["run"] and own["category"].unique() == ["class 1"]
    assert own["object_response"].tolist()[:2] == ["class 0", "class 1"]
    table = results.consistencies(pd.concat([results.read_trials(tmp_path / "one.csv"), own]))
    one = np.array(person) == "bear"
    for row, where in zip(table.itertuples(), (slice(0, 4), slice(4, 8)), strict=True):
        assert (row.observer, row.other, row.images) == ("run", "subject-01", 4)
        expected = results.error_consistency(right[where], one[where])
        assert row.value == pytest.approx(expected.value)
