"""Warnings at the top of the page: each where it belongs, and none without a reason."""

import dataclasses

import numpy as np
import pytest

from tests.results import built
from tests.results.built import STRONG, pair
from vone_jax import results
from vone_jax.report import accuracy, comparison
from vone_jax.report.cautions import cautions
from vone_jax.report.wording import percent


def warned(runs, *parts):
    """There is one caution that has all these parts."""
    given = cautions(runs)
    assert len([text for text in given if all(part in text for part in parts)]) == 1, given


def silent(runs, part):
    assert not [text for text in cautions(runs) if part in text]


def test_an_attack_on_other_images_than_its_control_is_no_ladder():
    """The control is on the usual data set and hides it, but is no attack by itself."""
    clean, attack = built.measure("vone_resnet18", {"clean": 0.9, "linf": (0.5,)})
    control = built.change(attack, attack_noise="none", name="control")
    run = built.run([clean, control, built.change(attack, dataset="others")])
    assert comparison.norms([run]) == ["linf"] and comparison.ladders(run) == []


def test_good_runs_raise_one_caution():
    (text,) = cautions(pair())
    assert text.startswith("Not every ladder of radii reaches chance: ResNet-18 keeps 20.0")
    assert "VOneResNet-18 keeps 45.1" in text and "at L1 40" in text


def test_networks_of_a_sweep_are_counted():
    shares = (0.5, 0.3, 0.4, 0.6)
    made = [built.measure("vone_resnet18", {"linf": (0.8, s)}) for s in shares]
    (text,) = cautions([built.run(one, f"r{i}") for i, one in enumerate(made)])
    low, high = (percent(made[i][-1].accuracy) for i in (1, 3))
    assert f"4 networks keep {low} to {high} at L∞ 4/255" in text
    assert "Larger radii would show where these networks break." in text


@pytest.mark.parametrize(("number", "all_of_them", "who"), [
    (1, False, "r0 is"), (2, True, "Each of r0 and r1 is"), (4, True, "Each of the 4 networks is"),
    (4, False, "Each of r0, r1, r2 and r3 is"),
])  # fmt: skip
def test_networks_with_the_same_warning_share_it(number, all_of_them, who):
    made = built.accuracy(built.CLEAN, built.answers(0.1, 400), class_names=tuple("abcdefghij"))
    runs = [built.run([made], f"r{i}") for i in range(number)]
    runs = [dataclasses.replace(run, label=f"r{i}") for i, run in enumerate(runs)]
    other = built.run(built.measure("vone_resnet18", {"clean": 0.9}), "other")
    (text,) = (text for text in cautions([*runs, *[other][all_of_them:]]) if "chance" in text)
    assert text.startswith(f"{who} near chance: it is right on 10.0")


def test_mixed_datasets():
    base, vone = pair()
    runs = [base, built.change(vone, dataset="others")]
    warned(runs, "different data sets", "must not be compared", "shapes (test split) by ResNet-18")


def of_folder(run, checksum):
    return built.change(run, dataset="folder:x", split="val", checksum=checksum)


def test_a_folder_that_changed_between_evaluations():
    one, other = pair()
    before, after = (of_folder(one, checksum).results for checksum in "ab")
    runs = [of_folder(one, "a"), of_folder(other, "b")]
    parts = ("x (val split)", "7 results of ResNet-18; 7 results of VOneResNet-18")
    warned(runs, "changed between evaluations", *parts)
    for few, names in ((1, "clean"), (3, "clean, attack-linf-0.00392 and attack-linf-0.01569")):
        mixed = built.run([*before[:few], *after[few:]])
        parts = (
            f"images and must not be compared: {names} of ResNet-18; {7 - few} results of Res",
        )
        warned([mixed], "changed between evaluations", *parts)
    silent([of_folder(one, "a"), of_folder(other, None)], "changed")
    # Before and after a change, no index means the same image.
    few = of_folder(built.run(built.measure("vone_resnet18", examples=50), "few"), None)
    whole = built.change(of_folder(one, None), total=1000)
    for total, told in ((1000, warned), (999, silent)):
        told([whole, built.change(few, total=total)], "tested on different images (100 and 50)")


def test_networks_with_other_numbers_of_classes():
    one, other = pair()
    other = built.change(other, class_names=built.CLASSES[:3])
    warned(
        [one, other], "different numbers of classes", "VOneResNet-18 among 3 and ResNet-18 among 10"
    )


def test_networks_with_images_of_other_sizes():
    """L-infinity bounds each pixel, so there it means the same."""
    one, other = pair(corruptions=["fog"])
    other = built.change(other, image_size=64)
    silent([one, other], "different sizes")
    one = built.change(one, image_size=28)
    warned(
        [one, other],
        "The images have different sizes: 28 x 28 pixels for ResNet-18 and 64 x 64 pixels for VOne",
    )
    for chosen, silence in (("linf", True), ("l2", False), ("fog", False)):
        some = [
            built.run([made for made in run.results if chosen in made.name or made.kind == "clean"])
            for run in (one, other)
        ]
        assert any("different sizes" in text for text in cautions(some)) is not silence
    # What was measured without the noise of a network stands beside nothing.
    silent([one, built.change(other, test_noise=None)], "different sizes")
    # Nothing that depends on the size is compared.
    parts = [
        built.run([made for made in run.results if chosen in made.name])
        for run, chosen in ((one, "l2"), (other, "fog"))
    ]
    silent(parts, "different sizes")


def smallest_changes(norm="l2", moved=True, of="vone_resnet18", **fields):
    condition = results.MinimalCondition(results.Attack("FMN", norm, 1.0, {}), (1.0,), moved=moved)
    distances = results.Distances(100, 90, 0.1, (results.Rung(1.0, 0.5, (0.4, 0.6)),))
    of = built.network(of, **fields)
    return built.result(condition, distances, of=of, name=f"minimal-fmn-{norm}")


@pytest.mark.parametrize(("norm", "told"), [("l1", True), ("linf", False)])
def test_smallest_changes_of_images_of_other_sizes(norm, told):
    runs = [
        built.run([smallest_changes(norm, of=model, image_size=size)], model)
        for model, size in (("resnet18", 28), ("vone_resnet18", 64))
    ]
    (warned if told else silent)(runs, "The images have different sizes")


def test_gaps_and_warnings_of_runs_come_first():
    runs = [built.run(built.measure("resnet18"), gaps=["a gap"], warnings=["a warning"])]
    assert cautions(runs)[:2] == ["a gap", "a warning"]


def test_incomplete_evaluations():
    clean, *others = built.measure("resnet18")
    run = built.run([built.change(clean, examples=300), *others])
    warned([run], "incomplete evaluations", "clean (100 of 300 images)")


def test_results_of_two_checkpoints():
    made = built.measure("resnet18")
    other = built.change(made[0], checkpoint_step=200)
    warned([built.run([other, *made[1:]])], "different checkpoints", "200 and 300")
    other = built.change(made[0], weights="00000000")
    warned([built.run([other, *made[1:]])], "results of different weights")
    # A file of weights has no step.
    other = built.change(other, checkpoint_step=None)
    warned([built.run([other, *made[1:]])], "results of different weights")


@pytest.mark.parametrize(
    ("share", "classes", "near"),
    [(0.1, 10, True), (0.15, 10, True), (0.19, 10, True), (0.3, 10, False), (0.9, 10, False),
     (0.6, 2, True), (0.9, 2, False), (0.05, 0, False)],
)  # fmt: skip
def test_a_network_near_chance(share, classes, near):
    names = tuple("abcdefghij"[:classes])
    made = built.accuracy(built.CLEAN, built.answers(share, 400), class_names=names)
    text = "ResNet-18 is near chance"
    if near:
        warned([built.run([made])], text, "of clean images", f"{100 * share:.1f}\u202f%")
    else:
        silent([built.run([made])], text)


@pytest.mark.parametrize(
    ("largest", "share", "guess"),
    [
        (95, 0.95, "the same answer to all of them is right on 95.0\u202f%"),
        (90, 0.99, None),
        (100, 1.0, "the same answer to all of them is right on 100.0\u202f%"),
        (60, 0.9, None),
        # Far above the largest class, though not twice as good.
        (67, 0.82, None),
    ],
)
def test_a_network_with_the_same_answer_to_all_images(largest, share, guess):
    """One of two classes has ``largest`` of 100 images."""
    made = built.accuracy(built.CLEAN, share, class_names=("a", "b"))
    made.arrays["label"][:] = np.arange(100) >= largest
    text = "ResNet-18 is near chance"
    warned([built.run([made])], text, guess) if guess else silent([built.run([made])], text)


def test_equal_classes_have_the_usual_chance():
    """Also where a part of the images has more of some class than of another."""
    (made, *_) = built.measure("resnet18", {"clean": 0.9})
    assert comparison.majority(made) is None
    made.arrays["label"][:] = np.random.default_rng(0).integers(0, 10, 100)
    assert comparison.majority(made) is None and comparison.chance(made) == 0.1


def test_classes_are_unequal_where_chance_gives_any_of_them_as_much_in_1_of_100_sets():
    """One of 10 equal classes has 20 of 100 images in 2.0 % of the sets, and 21 in 0.8 %."""
    (made, *_) = built.measure("resnet18", {"clean": 0.9})
    for most, share in ((20, None), (21, 0.21)):
        made.arrays["label"][:] = np.append(np.zeros(most, int), 1 + np.arange(100 - most) % 9)
        assert comparison.majority(made) == share


def test_conditions_of_a_network_on_other_images():
    few = built.measure("resnet18", {"linf": (0.3, 0.2, 0.1)}, examples=10)
    made = built.measure("resnet18", {"clean": 0.9})
    text = "ResNet-18 was not tested on the same images everywhere"
    warned([built.run([*made, *few])], text, "100 clean", "10 attacked. Accuracies may")
    silent([built.run(built.measure("resnet18"))], "the same images everywhere")
    several = [built.run([*made, *few], name, label=name) for name in "abcd"]
    warned(several, "a, like 3 other networks, was not tested on the same images everywhere: 100")
    silent(several, "b was not tested")
    spec = accuracy.attack_chart([built.run([*made, *few])], "linf").spec
    (rows,) = [rows for rows in spec["datasets"].values() if "joined" in rows[0]]
    assert [row["joined"] for row in rows] == [False, True, True, True]


@pytest.mark.parametrize(("name", "told"), [("demo", True), ("shapes", False)])
def test_the_few_photographs_of_the_project_are_an_illustration(name, told):
    made = built.accuracy(built.CLEAN, built.answers(0.85, 20), dataset=name, split="validation")
    text = "ResNet-18 was shown 20 photographs. Its numbers are an illustration"
    (warned if told else silent)([built.run([made])], text)


def test_published_images_are_a_data_set_of_their_own():
    made = built.measure("resnet18", {"clean": 0.9})
    corrupted = [
        built.accuracy(built.corrupted("fog", 1, form), built.answers(0.5, 50), name=f"fog-{form}")
        for form in ("published", "float")
    ]
    silent([built.run([*made, corrupted[0]])], "not tested on the same images everywhere")
    warned([built.run([*made, corrupted[1]])], "on the same images everywhere", "50 corrupted")


def test_failed_checks():
    def run(*verdicts):
        checks = tuple(
            results.Check(f"check_{i}", "?", verdict, {}, "!") for i, verdict in enumerate(verdicts)
        )
        attack = built.attacked("linf", 4 / 255).attacks[0]
        condition = results.MaskingCondition(attack, {})
        return [built.run([built.result(condition, results.Checks(checks, 50))])]

    silent(run("pass", "warning"), "masked gradients")
    warned(run("fail", "pass", "fail"), "fails 2 checks", "L∞ 4/255 (check 0 and check 2)")
    ((made,),) = (each.results for each in run("fail"))
    # Two sets of checks that fail alike are those of one network.
    twice = [built.run([made, built.change(made, name="other")])]
    warned(twice, "ResNet-18 fails 1 check")
    silent(twice, "Each of")
    noisy = built.network("vone_resnet18", test_noise=None)
    control = built.run([built.change(made, network=noisy)])
    warned([control], "VOneResNet-18 (noise removed) fails 1 check")


def test_weak_attacks():
    made = built.measure("vone_resnet18", STRONG | {"linf": (0.3, 0.3, 0.8)})
    run = built.run(made)
    warned([run], "a larger L∞ radius (16/255) leaves more accuracy than a smaller one (4/255)")
    warned([run], "reaches chance", "VOneResNet-18 keeps", "at L∞ 16/255")
    silent([run], "single noise draw")
    silent([run], "the whole radius")
    for steps, told in ((3, warned), (32, silent)):
        condition = built.attacked("linf", 4 / 255, steps=steps, step_rule="eps/32")
        few = built.accuracy(condition, 0.3, name=made[2].name)
        told([built.run([*made[:2], few, *made[3:]])], "cannot use the whole radius")
        # Of several such attacks the least weak one is named.
        condition = built.attacked("linf", 1 / 255, steps=1, step_rule="eps/32")
        weaker = built.accuracy(condition, 0.5, name=made[1].name)
        told([built.run([made[0], weaker, few, *made[3:]])], "all steps together reach 9.4")
    one = built.change(made[2], eot_samples=1)
    control = built.change(made[1], eot_samples=1, attack_noise="none")
    warned([built.run([one, control, *made[3:]])], "single noise draw", "1 attack followed")
    silent([run], "moved an image")
    made[2].arrays["distance"] = np.full(100, 4 / 255)
    silent([run], "moved an image")
    made[2].arrays["distance"][3] = 0.5
    warned([run], made[2].name, "moved an image by 0.5, beyond its radius 0.0156863")


@pytest.mark.parametrize(
    "fields", [{"steps": "many"}, {"steps": 0, "step_size": None, "step_rule": "2.5*eps/steps"}]
)
def test_unknown_fields_of_an_attack_tell_nothing_of_its_reach(fields):
    made = built.accuracy(built.attacked("linf", 4 / 255, **fields), 0.5)
    silent([built.run([made])], "the whole radius")


@pytest.mark.parametrize(
    ("eps", "still", "told"), [(0.1, 20, True), (0.1, 10, False), (0.0, 20, False)]
)
def test_an_attack_that_does_not_move_images(eps, still, told):
    made = built.accuracy(built.attacked("linf", eps), 0.5)
    # Images that are wrong already need no change.
    wrong = made.arrays["probability_correct"] == 0
    made.arrays["distance"] = np.where(wrong, 0.0, eps)
    made.arrays["distance"][np.flatnonzero(~wrong)[:still]] = 0.0
    text = "had no gradient there, 20.0\u202f% of all"
    (warned if told else silent)([built.run([made])], text)


def test_the_rounding_of_pixels_does_not_leave_a_tiny_radius():
    made = built.accuracy(built.attacked("linf", 1 / 4080), 0.5)
    made.arrays["distance"] = np.full(100, 1 / 4080 + 1e-7)
    silent([built.run([made])], "moved an image")


def test_what_images_leave_to_chance_is_no_sign_of_a_weak_attack():
    run = built.run(built.measure("resnet18", {"clean": 0.9, "linf": (0.5, 0.12, 0.14)}))
    silent([run], "a larger L∞ radius")
    silent([run], "reaches chance")


@pytest.mark.parametrize(
    ("model", "moved", "told"),
    [("vone_resnet18", False, True), ("vone_resnet18", True, False), ("resnet18", False, False)],
)
def test_images_that_an_earlier_version_judged_where_they_were_found(model, moved, told):
    run = built.run([*built.measure(model), smallest_changes(moved=moved, of=model)])
    if told:
        warned([run], "in minimal-fmn-l2 are far too high", "--overwrite")
        # Labels that are a word or a letter of the warning.
        others = [dataclasses.replace(run, label=label) for label in ("accuracies", "e")]
        warned(others, "Each of accuracies and e: the accuracies in minimal-fmn-l2 are far")
    else:
        silent([run], "far too high")


def _worst_of_two():
    condition = built.attacked("linf", 4 / 255)
    (pgd,) = condition.attacks
    apgd = dataclasses.replace(pgd, name="APGD", fields={"steps": 100})
    return dataclasses.replace(condition, attacks=(pgd, apgd))


def test_networks_measured_differently():
    base = built.measure("resnet18", examples=40)
    vone = built.measure("vone_resnet18", corruptions=("fog",), examples=50)

    def with_attack(condition):
        """The networks, of which the first was attacked in another way at one radius."""
        other = built.accuracy(condition, built.answers(0.1, 40), name=base[2].name)
        return [built.run([*base[:2], other, *base[3:]], "a"), built.run(vone, "b")]

    runs = with_attack(built.attacked("linf", 4 / 255, steps=5))
    warned(runs, "not attacked in the same way under L∞", "PGD(steps=5)", "PGD(steps=64) on Res")
    # A rule for steps in L1 makes no difference in L-infinity.
    other = with_attack(built.attacked("linf", 4 / 255, l1_step="max"))
    silent(other, "not attacked in the same way under L∞")
    other = with_attack(_worst_of_two())
    warned(other, "L∞: PGD on ResNet-18 and VOneResNet-18 and Worst of PGD, APGD on ResNet-18.")
    warned(runs, "ResNet-18 lacks 3 conditions that other networks have")
    few = [built.run(built.measure("resnet18", {"clean": 0.9}), n, label=n) for n in "cdef"]
    warned([*runs, *few], "6 networks lack up to 9 conditions that others have")
    # What a network was measured in twice, another one does not lack.
    twice = [*vone, dataclasses.replace(vone[0], name="clean-again")]
    warned([runs[0], built.run(twice, "b")], "ResNet-18 lacks 3 conditions")
    warned(runs, "tested on different images (40 and 50)")


def test_controls_of_the_noise_are_no_gaps_and_no_other_way_of_attacking():
    base, vone = pair()
    condition = built.attacked("linf", 4 / 255, steps=5, noise="none")
    control = built.accuracy(condition, 0.3, of=vone.results[0].network, name="noise-free")
    runs = [base, built.run([*vone.results, control], "b")]
    silent(runs, "lacks")
    silent(runs, "not attacked in the same way")
