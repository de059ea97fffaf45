"""Means over corruptions: what they are over stands in their name."""

import numpy as np
import pytest

from tests.results import built
from vone_jax import names, results

COMMON = names.COMMON_CORRUPTIONS
FIVE = names.SEVERITIES


def corruptions(shares, severities=(3,), **fields):
    """Results of corruptions by name, each with one accuracy."""
    return [
        built.accuracy(built.corrupted(name, s), np.arange(100) < 100 * share, **fields)
        for name, share in shares.items()
        for s in severities
    ]


def corruptions_of(category, shares, severities=(3,)):
    """Results of corruptions of one's own that say their category."""
    return [
        built.accuracy(built.corrupted(name, s, category=category), np.arange(100) < 100 * share)
        for name, share in shares.items()
        for s in severities
    ]


def means_of(*made):
    """Label -> value, of results of one network."""
    frame = results.means(built.runs_of(*made).to_frame())
    found = {(r.label, r.number): r.value for r in frame.itertuples()}
    assert len(found) == len(frame)
    return {label if number == "accuracy" else number: v for (label, number), v in found.items()}


def test_the_published_mean_has_its_name_alone():
    shares = {name: 0.5 for name in COMMON} | {"fog": 0.2, "gaussian_noise": 0.8}
    means = means_of(corruptions(shares | {"spatter": 0.0}, FIVE))
    weather = (3 * 0.5 + 0.2) / 4
    assert means == pytest.approx(
        {
            "mean over corruptions": (13 * 0.5 + 1.0) / 15,
            "mean over noise": 0.6,
            "mean over blur": 0.5,
            "mean over weather": weather,
            "mean over digital": 0.5,
            "mean over 4 categories": (0.6 + 0.5 + weather + 0.5) / 4,
        }
    )


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ({"fog": 0.2, "snow": 0.4}, {"mean over 2 of 15 corruptions, severity 3": 0.3,
                                     "mean over 2 of 4 weather corruptions, severity 3": 0.3}),
        ({"fog": 0.2, "contrast": 0.4}, {"mean over 2 of 15 corruptions, severity 3": 0.3}),
        ({"frost_procedural": 0.8, "contrast": 0.0},
         {"mean over 2 of 15 corruptions, severity 3, drawn frost": 0.4}),
        # The drawn texture stands in for frost only where frost was not measured.
        ({"frost_procedural": 0.8, "contrast": 0.0, "frost": 0.2},
         {"mean over 2 of 15 corruptions, severity 3": 0.1}),
        ({"brightness": 0.7, "spatter": 0.2}, {}),
        ({"spatter": 0.2, "saturate": 0.3}, {}),
    ],
)  # fmt: skip
def test_a_subset_is_named(made, expected):
    assert means_of(corruptions(made)) == pytest.approx(expected)


def test_corruptions_of_ones_own_are_averaged_by_the_category_that_they_say():
    published = {name: 0.5 for name in COMMON}
    light = corruptions_of("light", {"shadow": 0.2, "bright_spot": 0.6}, (1, 3))
    light += corruptions_of("light", {"shadow": 0.9}, (5,))
    made = [*corruptions(published, FIVE), *light, *corruptions({"dust": 0.1})]
    own = {"mean over light (shadow, bright spot), severities 1, 3": 0.4}
    assert means_of(made) == pytest.approx(means_of(corruptions(published, FIVE)) | own)
    # A category of a published name is no part of the published one, and one number has no mean.
    weather = [*corruptions_of("weather", {"hail": 0.3}, (1, 2)), *corruptions_of("dust", {"a": 1})]
    expected = {"mean over weather (hail), severities 1, 2": 0.3}
    assert means_of(weather) == pytest.approx(expected)


def test_a_mean_is_over_the_severities_that_all_corruptions_have():
    more = corruptions({"fog": 1.0}, (1, 5)) + corruptions({"fog": 0.6, "contrast": 0.0}, (3,))
    assert means_of(more) == pytest.approx({"mean over 2 of 15 corruptions, severity 3": 0.3})
    uneven = corruptions({"fog": 0.9}, (1, 2)) + corruptions({"contrast": 0.1}, (5,))
    assert means_of(uneven) == pytest.approx(
        {"mean over 2 of 15 corruptions, at different severities": 0.5}
    )


def test_forms_tags_and_noise_have_means_of_their_own():
    shares, of = {"fog": 0.2, "contrast": 0.4}, built.network("vone_resnet18")
    made = [
        *corruptions(shares, of=of),
        *corruptions({"fog": 0.4, "contrast": 0.6}, of=of, tag="b"),
    ]
    for noise in ("none", "frozen"):
        made += [
            built.accuracy(built.corrupted(name, 3, noise=noise), np.arange(100) < 10, of=of)
            for name in shares
        ]
    name = "mean over 2 of 15 corruptions, severity 3"
    assert means_of(made) == pytest.approx(
        {name: 0.3, f"{name}, b": 0.5, f"{name}, without noise": 0.1, f"{name}, frozen noise": 0.1}
    )


@pytest.mark.parametrize("fields", [{"name": "other"}, {"split": "train"}, {"fingerprint": "b"}])
def test_corruptions_of_two_data_sets_are_in_no_common_mean(fields):
    """Together they are the 15 corruptions, but not of one set."""
    first = corruptions(dict.fromkeys(COMMON[:8], 0.2), FIVE)
    other = built.DATASET | fields
    second = corruptions(dict.fromkeys(COMMON[8:], 0.6), FIVE, dataset=other)
    means = means_of([*first, *second])
    assert means["mean over 8 of 15 corruptions"] == pytest.approx(0.2)
    assert means["mean over 7 of 15 corruptions"] == pytest.approx(0.6)
    assert "mean over corruptions" not in means
    assert {round(mean, 6) for mean in means.values()} == {0.2, 0.6}


def test_published_corruptions_are_of_one_set_where_they_lie_together():
    """Each has a data set of its own, and its severity is the split."""

    def published(name, severity, folder):
        of = {"name": f"folder:{folder}/{name}", "split": str(severity), "fingerprint": name}
        condition = built.corrupted(name, severity, form="published")
        return built.accuracy(condition, np.arange(100) < 50, dataset=built.DATASET | of)

    made = [published(name, s, "/c") for name in COMMON for s in FIVE]
    assert means_of(made)["mean over corruptions, published"] == pytest.approx(0.5)
    made[:5] = [published(COMMON[0], s, "/tiny") for s in FIVE]
    assert "mean over 14 of 15 corruptions, published" in means_of(made)


def test_means_of_equal_names_can_be_told_apart():
    """Two networks with other corruptions, of which each has two."""
    runs = built.runs_of(
        corruptions({"fog": 0.2, "contrast": 0.4}), corruptions({"snow": 0.2, "contrast": 0.4}),
        labels=["a", "b"],
    )  # fmt: skip
    found = results.means(runs.to_frame())
    assert found["label"].nunique() == 1 and found["over"].tolist() == [
        "fog, contrast; severity 3", "snow, contrast; severity 3"
    ]  # fmt: skip


def test_mce_is_defined_on_imagenet_alone():
    shares = {name: 1 - results.mce.ALEXNET_ERRORS[name] for name in COMMON}
    clean = np.arange(100) < 57
    imagenet = built.DATASET | {"classes": 1000, "wordnet": True}
    given = {"of": built.network(image_size=224), "dataset": imagenet}
    made = corruptions(shares, FIVE, **given)
    means = means_of([*made, built.accuracy(built.CLEAN, clean, **given)])
    assert means["mCE"] == pytest.approx(100, abs=1)
    assert means["relative mCE"] == pytest.approx(100, abs=3)
    assert "relative mCE" not in means_of(made)
    elsewhere = (
        {"dataset": imagenet | {"wordnet": False}},
        {"dataset": imagenet | {"classes": 10}},
        {"of": built.network(image_size=64)},
    )
    wrong = [corruptions(shares, FIVE, **(given | each)) for each in elsewhere]
    wrong += [made[1:], corruptions(shares | {"frost": 0.2}, (1, 2, 3, 4), **given)]
    drawn = {name.replace("frost", "frost_procedural"): share for name, share in shares.items()}
    for each in [*wrong, corruptions(drawn, FIVE, **given)]:
        assert "mCE" not in means_of(each)


def test_the_interval_of_a_mean_is_that_of_corruptions_that_are_hard_for_the_same_images():
    made = corruptions({"fog": 0.3, "contrast": 0.3})
    found = results.means(built.runs_of(made).to_frame()).iloc[0]
    shares = np.mean([each.arrays["right"].mean(axis=1) for each in made], axis=0)
    exact = results.accuracy(shares)
    assert (found["value"], found["low"], found["high"]) == pytest.approx(
        (exact.value, exact.low, exact.high), abs=0.01
    )


@pytest.mark.parametrize("columns", [{"strength": 2.0}, {"levels": [1, 2]}, {"blurred": True}])
def test_what_differs_in_a_column_that_nobody_knows_is_in_no_common_mean(columns):
    shares = {"fog": 0.2, "contrast": 0.4}
    apart = [
        built.accuracy(built.corrupted(name, 3, **columns), np.arange(100) < 80) for name in shares
    ]
    means = means_of([*corruptions(shares), *apart])
    name = "mean over 2 of 15 corruptions, severity 3"
    assert means.pop(name) == pytest.approx(0.3) and len(means) == 1
    assert means.popitem()[1] == pytest.approx(0.8)


def test_corruptions_of_another_kind_have_means_that_name_it():
    """Its rows have the columns corruption, severity and category."""
    mine = [
        built.accuracy(built.corrupted(name, 3) | {"condition": "mine"}, np.arange(100) < 80)
        for name in ("fog", "contrast")
    ]
    name = "mean over 2 of 15 corruptions, severity 3"
    means = means_of([*corruptions({"fog": 0.2, "contrast": 0.4}), *mine])
    assert means == pytest.approx({name: 0.3, f"{name}, mine": 0.8})
