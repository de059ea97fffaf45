"""Aggregate scores: what they are means of, their intervals, and the lines of the table."""

import csv
import dataclasses
import io

import numpy as np
import pytest

from tests.results import built
from tests.results.built import LADDER, STRONG, WEAK, judged
from vone_jax import corruptions, names, results
from vone_jax.report import scores

COMMON = tuple(n if n != "frost" else "frost_procedural" for n in built.COMMON)
SMALL = {"corruptions": COMMON, "severities": (1, 5)}


def test_categories_are_those_of_the_corruptions():
    assert {name: tuple(corruptions.SETS[name]) for name in names.CORRUPTION_CATEGORIES} == (
        names.CORRUPTION_CATEGORIES
    )
    assert built.COMMON == tuple(corruptions.SETS["common"])


@pytest.mark.parametrize(("model", "shares"), [("resnet18", WEAK), ("vone_resnet18", STRONG)])
def test_scores_are_means_by_their_definitions(model, shares):
    made = built.measure(model, shares, **SMALL)
    # One corruption is harder than the others, so the two rules differ.
    hard = built.corrupted("gaussian_noise", 1)
    made = [made_one for made_one in made if made_one.condition != hard]
    made.append(built.accuracy(hard, 0.0, of=made[0].network))
    table = scores.table([built.run(made)])
    (line,) = table.lines
    accuracy = {}
    for one in made:
        c = one.condition
        key = (
            (c.corruption, c.severity) if one.kind == "corruption"
            else (one.attack.norm, one.attack.eps) if one.kind == "attack" else "clean"
        )  # fmt: skip
        accuracy[key] = one.accuracy
    norms = {n: np.mean([accuracy[n, eps] for eps in LADDER[n]]) for n in LADDER}
    each = {n: np.mean([accuracy[n, s] for s in (1, 5)]) for n in COMMON}
    each["frost"] = each.pop("frost_procedural")
    categories = {
        name: np.mean([each[n] for n in members])
        for name, members in names.CORRUPTION_CATEGORIES.items()
    }
    clean, box = accuracy["clean"], np.mean(list(norms.values()))
    fifteen, four = np.mean(list(each.values())), np.mean(list(categories.values()))
    expected = {
        "clean": clean, **norms, "white_box": box, **categories,
        "corruptions": fifteen, "categories": four,
        "robust": (box + fifteen) / 2, "robust_categories": (box + four) / 2,
        "overall": np.mean([clean, *norms.values(), fifteen]),
        "overall_categories": np.mean([clean, *norms.values(), four]),
    }  # fmt: skip
    assert {name: score.value for name, score in line.scores.items()} == pytest.approx(expected)
    assert abs(fifteen - four) > 1e-4
    assert tuple(line.scores) == tuple(table.columns) == tuple(scores.TITLES)
    assert sorted(name for part in scores.PARTS for name in part) == sorted(scores.TITLES)
    assert all(score.low < score.value < score.high for score in line.scores.values())


def test_photographs_of_frost_are_preferred():
    photographs = (built.corrupted("frost", 1), 0.5, "a")
    drawn = (built.corrupted("frost_procedural", 1), 0.3, "b")
    table = scores.table([judged("resnet18", photographs, drawn)])
    assert table.lines[0].scores["weather"].value == 0.5
    assert "drawn texture" not in " ".join(table.notes)


def test_a_drawn_texture_in_the_place_of_frost_is_named():
    runs = [
        judged("resnet18", (built.corrupted(name, 1), 0.5, "r"), label=label)
        for name, label in (("frost", "a"), ("frost_procedural", "b"))
    ]
    mean = "the mean over 1 of the 15 common ones at severity 1, with a drawn texture in the place"
    assert f"{mean} of frost for b." in " ".join(scores.table(runs).notes)
    assert f"{mean} of frost." in " ".join(scores.table(runs[1:]).notes)


@pytest.mark.parametrize("order", [1, -1])
def test_a_drawn_texture_in_one_of_two_lines_is_named(order):
    """The network was judged with its own noise and with frozen noise, one on photographs."""
    measured = [
        (built.corrupted(name, 1), 0.5, name, {"protocol": results.Protocol(noise, 1)})
        for name, noise in (("frost", "frozen"), ("frost_procedural", "fresh"))
    ]
    table = scores.table([judged("vone_resnet18", *measured[::order])])
    assert len(table.lines) == 2
    assert "with a drawn texture in the place of frost." in " ".join(table.notes)


def test_a_drawn_texture_in_no_mean_is_not_named():
    drawn = judged("resnet18", (built.corrupted("frost_procedural", 1), 0.5, "f"), label="c")
    usual = built.measure("resnet18", corruptions=("fog", "snow"), severities=(1,))
    others = [built.run(usual, label=label) for label in "ab"]
    table = scores.table([drawn, *others])
    assert "the mean over 2 of the 15" in " ".join(table.notes)
    assert "drawn texture" not in " ".join(table.notes)


def test_without_values_of_images_there_is_no_interval():
    table = scores.table([judged("resnet18", (built.CLEAN, 0.9, "r", {"index": False}))])
    value, low, high = table.lines[0].scores["clean"]
    assert value == 0.9 and np.isnan(low) and np.isnan(high)
    assert "| 90.0 |" in table.to_markdown()


def test_names_do_not_break_tables():
    table = scores.table([judged("resnet18", (built.CLEAN, 0.9, "r"), label="a |b|\nc")])
    assert "| a \\|b\\| c |" in table.to_markdown()


def test_without_scores_a_table_has_its_columns():
    table = scores.table([judged("resnet18", (built.corrupted("spatter", 1), 0.9, "r"))])
    assert table.to_csv() == "network,trained,attacked,judged,attack\n"
    assert table.to_markdown() == "- No network has a score.\n"


def test_every_way_of_attacking_and_judging_has_its_line():
    """Noise off at the test, at the attack, more draws: none is mixed with another."""
    shares = {"clean": 0.9, "linf": WEAK["linf"]}
    plain = built.run(built.measure("resnet18", shares), "base")
    made = built.measure("vone_resnet18", shares)
    clean, first = made[0], made[1]
    removed = {"test_noise": None, "protocol": built.QUIET}
    made += [
        built.change(first, name="a", attack_noise="none", eot_samples=1),
        built.change(first, name="b", eot_samples=100),
        built.change(first, name="c", **removed),
        built.change(clean, name="d", **removed),
        built.change(first, name="e", attack_noise=results.Noise("gaussian", 2.0), **removed),
        built.change(first, name="f", attack_noise="frozen", eot_samples=1),
    ]
    table = scores.table([plain, built.run(made, "vone")])
    pgd, noise = "PGD, 64 steps of eps/32", "neuronal 0.35, 0.07"
    assert sorted((line.attacked, line.judged, line.attack) for line in table.lines) == sorted([
        ("none", "none", pgd),
        (noise, noise, f"{pgd}, 10 draws"),
        (noise, noise, f"{pgd}, 100 draws"),
        ("none", noise, pgd),
        (f"{noise}, frozen", noise, pgd),
        ("none", "none", f"{pgd}, 10 draws"),
        ("Gaussian 2", "none", f"{pgd}, 10 draws"),
    ])  # fmt: skip
    # Only whole ladders have a mean; every number is there by its radius.
    assert [line.attack for line in table.lines if "linf" in line.scores] == [
        *(pgd, f"{pgd}, 10 draws")
    ]
    assert all("linf_1/255" in line.radii for line in table.lines)
    noises = {line.noise for line in table.lines}
    assert {"no noise", f"noise {noise}"} < noises
    assert f"noise: {noise} in training, Gaussian 2 at the attack, none at the test" in noises


def test_noise_that_is_not_recorded_is_named():
    of = built.network("vone_resnet18", trained_noise=None, test_noise=None)
    made = built.accuracy(built.CLEAN, 0.9, of=of)
    (line,) = scores.table([built.run([made])]).lines
    assert (line.trained, line.judged, line.noise) == ("noise", "noise", "noise")


def test_fields_without_effect_in_a_norm_make_no_line():
    """Rules of L2 and L1 share the results of L-infinity."""
    made = built.measure("resnet18")
    for one in list(made):
        if one.kind == "attack" and one.attack.norm != "linf":
            condition = built.attacked(
                one.attack.norm, one.attack.eps, l1_step="max", norm_offset=0.0
            )
            made.append(built.change(one, name=f"{one.name}-art", condition=condition))
    table = scores.table([built.run(made)])
    assert all({"linf", "l2", "l1", "white_box"} <= set(line.scores) for line in table.lines)
    assert {line.attack for line in table.lines} == {
        "PGD, 64 steps of eps/32",
        "PGD, 64 steps of eps/32, l1_step max, norm_offset 0.0",
    }
    attacks = [one for one in made if one.kind == "attack"]
    assert scores.attack_groups([]) == [] and len(scores.attack_groups(attacks)) == 2


def test_several_attacks_in_three_norms_are_one_line():
    """Their fields without effect in a norm do not tell them apart either."""

    def worst(norm, eps):
        pgd, apgd = (
            dataclasses.replace(
                built.attacked(norm, eps, l1_step="max", order="ball_then_box").attack, name=name
            )
            for name in ("PGD", "APGD")
        )
        return dataclasses.replace(built.attacked(norm, eps), attacks=(pgd, apgd))

    made = built.measure("resnet18", {"clean": 0.9})
    for norm in ("linf", "l2", "l1"):
        made.append(built.accuracy(worst(norm, 0.1), 0.5, name=norm))
    (line,) = scores.table([built.run(made)]).lines
    assert {"linf", "l2", "l1", "white_box"} <= set(line.scores)


def test_published_corruptions_count():
    published = ((built.corrupted(name, 1, "published"), 0.5, name) for name in COMMON)
    run = judged("resnet18", (built.CLEAN, 0.9, "clean"), *published)
    assert "corruptions" in scores.table([run]).columns


@pytest.mark.parametrize(
    ("shares", "notes", "absent"),
    [
        (WEAK, ["L∞ mean: over the radii 1/255, 4/255 and 16/255.", "L1 mean: accuracy at the "
                "radius 40.", "White box: the mean over L∞, L2 and L1."], "in no other mean"),
        ({"linf": (0.5, 0.4)}, ["White box: the L∞ mean."], "mean over L"),
    ],
)  # fmt: skip
def test_notes_fit_the_numbers_of_norms_and_radii(shares, notes, absent):
    text = " ".join(scores.table([built.run(built.measure("resnet18", shares))]).notes)
    assert all(note in text for note in notes) and absent not in text
    assert "the 1 norm" not in text and "the norms" not in text


def test_notes_are_of_columns_that_are_there():
    """No network has both norms, so none has a mean over them."""
    table = scores.table(built.pair({"linf": (0.5, 0.4)}, {"l2": (0.5, 0.4)}))
    assert {"linf", "l2"} <= table.columns.keys() and "white_box" not in table.columns
    text = " ".join(table.notes)
    assert "L2 mean: " in text and "White box" not in text and "All: " not in text
    assert "A mean is left out where" in text


@pytest.mark.parametrize(("corruptions", "told"), [(("fog",), False), (built.COMMON, True)])
def test_notes_on_one_complete_line(corruptions, told):
    made = built.measure("resnet18", {"clean": 0.9}, corruptions=corruptions)
    table = scores.table([built.run(made)])
    text = " ".join(table.notes)
    assert ("by category: " in text) == ("categories" in table.columns) == told
    assert "left out" not in text


def test_a_norm_of_one_network_does_not_take_the_means_of_the_others():
    shares = [WEAK, *[{"clean": 0.8, "linf": STRONG["linf"]}] * 2]
    runs = [
        built.run(built.measure("resnet18", each, **SMALL), name)
        for name, each in zip("abc", shares, strict=True)
    ]
    table = scores.table(runs)
    for line in table.lines:
        assert line.scores["white_box"] == line.scores["linf"] and "overall" in line.scores
    assert [norm in table.lines[0].scores for norm in ("l2", "l1")] == [True, True]
    text = " ".join(table.notes)
    assert text.count("in no other mean, since at most half of the networks have") == 2
    assert "All: the mean of clean, L∞ and corruptions." in text
    # Two networks of three have L2.
    runs.append(built.run(built.measure("resnet18", {n: WEAK[n] for n in ("linf", "l2")}), "d"))
    lines = scores.table([runs[0], runs[3], runs[1]]).lines
    assert ["white_box" in line.scores for line in lines] == [True, True, False]
    # Of two ladders that are as frequent, the longer one counts.
    two = [built.run(built.measure("resnet18", {"linf": s}), "x") for s in ((0.5, 0.4), (0.5,))]
    two[1] = built.run(two[1].results, "y")
    table = scores.table(two)
    assert ["white_box" in line.scores for line in table.lines] == [True, False]
    assert "in no other mean" not in " ".join(table.notes)
    # A list that more networks have counts before a longer one.
    two.append(built.run(two[1].results, "z"))
    assert ["white_box" in line.scores for line in scores.table(two).lines] == [False, True, True]
    # A norm that one of two networks lacks is in no mean over norms.
    pair = [built.run(built.measure("resnet18", {n: WEAK[n] for n in norms}), str(len(norms)))
            for norms in (("linf",), ("linf", "l2"))]  # fmt: skip
    for line in scores.table(pair).lines:
        assert line.scores["white_box"] == line.scores["linf"]


def test_without_attacks_no_mean_is_over_all():
    made = built.measure("resnet18", {"clean": 0.9}, **SMALL)
    (line,) = scores.table([built.run(made)]).lines
    assert "corruptions" in line.scores
    assert not {"white_box", "robust", "overall", "overall_categories"} & line.scores.keys()


def test_a_decision_tells_the_draws_that_it_is_made_of():
    made = built.measure("vone_resnet18", protocol=results.Protocol("fresh", 10, "vote", 5))
    (line,) = scores.table([built.run(made)]).lines
    assert line.judged == "neuronal 0.35, 0.07; vote of 5 draws"


def test_the_tables_have_the_same_numbers():
    table = scores.table(built.pair(**SMALL))
    rows = list(csv.DictReader(io.StringIO(table.to_csv())))
    assert [row["network"] for row in rows] == ["ResNet-18", "VOneResNet-18"]
    assert rows[1]["trained"] == "neuronal 0.35, 0.07" and rows[0]["trained"] == "none"
    for row, line in zip(rows, table.lines, strict=True):
        for name, score in line.scores.items():
            assert float(row[name]) == score.value
            assert float(row[f"{name}_low"]) == score.low < score.value
            assert float(row[f"{name}_high"]) == score.high > score.value
        assert float(row["linf_4/255"]) == line.radii["linf_4/255"].value
        shown = f"{100 * line.scores['overall'].value:.1f}"
        assert f"| {shown} (" in table.to_markdown()
    assert "95 % over images (Agresti and Coull)" in table.to_markdown()
