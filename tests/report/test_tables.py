"""Rows, differences, sentences and scores of the page, from results with known accuracies."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from tests.results import built
from vone_jax import results
from vone_jax.report import tables
from vone_jax.results import ResultError, Run, Runs

CORRUPTIONS = ("fog", "contrast")


def runs_of(*made, labels=None):
    """Runs of lists of results, without files."""
    labels = labels or [each[0].identity["network"]["label"] for each in made]
    return Runs(
        Run(path=Path("runs", label), label=label, results=each)
        for label, each in zip(labels, made, strict=True)
    )


@pytest.fixture(scope="module")
def pair():
    return runs_of(
        built.measure("resnet18", corruptions=CORRUPTIONS),
        built.measure("vone_resnet18", corruptions=CORRUPTIONS),
    )


def test_rows_are_conditions_in_order_with_a_result_for_each_network(pair):
    rows = tables.conditions(pair)
    assert [row.label for row in rows] == [
        "clean", "PGD L∞ 1/255", "PGD L∞ 4/255", "PGD L∞ 16/255", "PGD L2 0.15", "PGD L2 0.6",
        "contrast, severity 3", "fog, severity 3",
    ]  # fmt: skip
    for row in rows:
        for label, result in row.results.items():
            (run,) = [run for run in pair if run.label == label]
            assert result in run.results and result.name == row.name


def test_a_tag_is_part_of_the_condition(pair):
    tagged = built.accuracy(built.CLEAN, 0.5, "clean-again", tag="again")
    rows = tables.conditions(runs_of([*pair[0].results, tagged]))
    assert [row.label for row in rows[:2]] == ["clean", "clean, again"]


def test_two_results_of_one_network_and_condition_are_an_error(pair):
    with pytest.raises(ResultError, match="a network has a condition twice; give each result a"):
        tables.conditions(runs_of([*pair[0].results, pair[0].results[0]]))
    twice = runs_of(pair[0].results, pair[0].results, labels=["a", "a"])
    with pytest.raises(ResultError, match="or each network a label of its own"):
        tables.conditions(twice)


def test_differences_are_paired_over_the_images_and_put_in_words(pair):
    rows = tables.conditions(pair)
    base, vone = pair
    lines = tables.compare(rows, vone, base)
    assert {label: line.verdict for label, line in lines.items()} == {
        "clean": "less accurate",
        "PGD L∞ 1/255": "more robust",
        "PGD L∞ 4/255": "more robust",
        "PGD L∞ 16/255": tables.BROKEN,
        "PGD L2 0.15": "more robust",
        "PGD L2 0.6": "more robust",
        tables.MEAN: tables.ALIKE,
    }
    for label, row in zip(lines, rows, strict=False):
        if row.kind != "Corrupted":
            ours, theirs = (row.results[run.label].arrays["right"] for run in (vone, base))
            line = lines[label]
            assert line.paired and line.difference == results.paired_difference(ours, theirs)
            assert line.difference.value == pytest.approx(np.mean(ours) - np.mean(theirs))
    assert tables.sentence(vone, base, lines) == (
        "VOneResNet-18 is more robust than ResNet-18 in 4 of 4 attack conditions. 1 further attack "
        "left both at chance or below."
    )


def test_equal_networks_cannot_be_told_apart():
    made = built.measure("vone_resnet18"), built.measure("vone_resnet18")
    runs = runs_of(*made, labels=["one", "two"])
    lines = tables.compare(tables.conditions(runs), runs[1], runs[0])
    assert tables.sentence(runs[1], runs[0], lines).startswith(
        "two and one cannot be told apart in 4 of 4 attack conditions."
    )


def test_attacks_with_other_settings_are_not_compared():
    """The noise draws of a gradient may differ: a network without noise needs one."""
    base, vone = built.measure("resnet18"), built.measure("vone_resnet18")
    condition = {**vone[1].condition}
    for fields, verdict in (({"eot_samples": 10}, "more robust"), ({"steps": 5}, "measured in")):
        attack = {**condition["attack"], **fields}
        identity = vone[1].identity | {"condition": condition | {"attack": attack}}
        changed = [vone[0], dataclasses.replace(vone[1], identity=identity), *vone[2:]]
        runs = runs_of(base, changed)
        rows = tables.conditions(runs)
        lines = tables.compare(rows, runs[1], runs[0])
        assert lines["PGD L∞ 1/255"].verdict.startswith(verdict)
        told = [caution for caution in tables.cautions(runs, rows) if "different ways" in caution]
        assert bool(told) == (verdict != "more robust")


def test_other_images_are_not_compared_and_few_images_are_not_put_in_words():
    base = built.measure("resnet18")
    other = [
        built.accuracy(each.condition, 0.9, each.name, dataset=built.DATASET | {"checksum": "x"})
        for each in base
    ]
    few = [built.accuracy(e.condition, np.ones((10, 1)), e.name) for e in built.measure("resnet18")]
    for made, verdict in ((other, "measured in different ways"), (few, "measured in different")):
        runs = runs_of(base, made, labels=["a", "b"])
        lines = tables.compare(tables.conditions(runs), runs[1], runs[0])
        assert lines["clean"].verdict.startswith(verdict)
    runs = runs_of(few, few, labels=["a", "b"])
    assert tables.compare(tables.conditions(runs), *runs)["clean"].verdict == tables.TOO_FEW


def test_the_baseline_is_the_base_network_unless_another_is_named(pair):
    vone, base = pair[1], pair[0]
    runs = Runs([vone, base])
    assert tables.baseline(runs) is base
    assert tables.baseline(Runs([vone])) is vone
    assert tables.baseline(runs, "VOneResNet-18") is vone
    assert tables.baseline(runs, str(vone.path)) is vone
    own = built.network(name="energy")
    own["description"] = {"model": {"type": "BaseNetwork"}, "program": "1234abcd"}
    front_end = runs_of([built.accuracy(built.CLEAN, 0.5, "clean", network=own)], labels=["e"])[0]
    assert tables.baseline(Runs([front_end, vone, base])) is base
    with pytest.raises(ResultError, match="baseline must be one of .*, got nobody"):
        tables.baseline(runs, "nobody")


def test_means_are_over_the_radii_and_corruptions_that_all_networks_have(pair):
    shorter = runs_of(
        pair[0].results, [r for r in pair[1].results if r.name != pair[1].results[3].name]
    )
    scores = tables.means(tables.conditions(shorter), shorter)
    first = scores["ResNet-18"]
    assert list(first) == [
        "clean", "PGD L∞, mean over 1/255, 4/255", "PGD L2, mean over 0.15, 0.6",
        "mean over corruptions",
    ]  # fmt: skip
    values = [each.value() for each in pair[0].results]
    assert first["clean"].value == values[0]
    assert first["PGD L∞, mean over 1/255, 4/255"].value == pytest.approx(np.mean(values[1:3]))
    assert first["mean over corruptions"].value == pytest.approx(np.mean(values[-2:]))


def test_cautions_are_told_once():
    """Also that a network is near chance."""
    made = built.measure("resnet18", {"clean": 0.02, "linf": (0.0, 0.0)})
    warned = [dataclasses.replace(each, warnings=["Too short."]) for each in made[1:]]
    runs = runs_of([made[0], *warned])
    assert tables.cautions(runs, tables.conditions(runs)) == [
        "ResNet-18, PGD L∞ 1/255; ResNet-18, PGD L∞ 4/255: Too short.",
        "ResNet-18 is near chance on clean images, so its robustness says little.",
    ]


def test_attacks_of_one_radius_are_never_joined_by_their_minimum(pair):
    """Each has a row and a mean of its own: the lowest of noisy estimates is too low."""
    again = [
        built.accuracy(r.condition, 0.4, f"{r.name}-long", tag="long")
        for r in pair[0].results
        if r.condition["type"] == "Attacked"
    ]
    runs = runs_of([*pair[0].results, *again])
    scores = tables.means(tables.conditions(runs), runs)["ResNet-18"]
    assert {
        "PGD L∞, mean over 1/255, 4/255, 16/255",
        "PGD, long L∞, mean over 1/255, 4/255, 16/255",
    } < set(scores)


def test_the_mean_over_corruptions_is_one_number_wherever_it_stands():
    """The extra corruptions are in no mean."""
    corruptions = ("fog", "contrast", "speckle_noise")
    runs = runs_of(*(built.measure(m, corruptions=corruptions) for m in ("resnet18", "resnet50")))
    rows = tables.conditions(runs)
    common = [r.value() for r in runs[0].of_type("Corrupted") if "speckle" not in r.name]
    mean = tables.means(rows, runs)["ResNet-18"][tables.MEAN]
    assert mean.value == pytest.approx(np.mean(common))
    assert tables.compare(rows, runs[1], runs[0])[tables.MEAN].theirs == mean
