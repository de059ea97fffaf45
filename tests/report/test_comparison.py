"""Pairs of networks, rows of equal conditions, and the table of differences."""

import dataclasses
import itertools

import numpy as np
import pytest

from tests.results import built
from tests.results.built import STRONG, WEAK, judged
from vone_jax import results
from vone_jax.report import accuracy, cautions, comparison, paired, scores, wording


def compare(base, vone, **fields):
    """The comparison of a network and its VOneNet with given accuracies."""
    (item,) = paired.comparisons(built.pair(base, vone, **fields))
    return item


def linf(eps, draws=1, **fields):
    return built.attacked("linf", eps, draws=draws, **fields)


def verdicts(item, kind="attack"):
    return [line.verdict for line in item.lines if line.kind == kind]


def test_a_line_for_each_condition_with_its_verdict():
    item = compare(WEAK, STRONG, corruptions=("fog", "snow"))
    assert [line.label for line in item.lines] == [
        *("Clean images", "L∞ 1/255", "L∞ 4/255", "L∞ 16/255", "L2 0.15", "L2 0.6", "L1 40"),
        "Mean of 2 corruptions, severities 1 and 3",
    ]
    assert verdicts(item, "clean") == ["less accurate"]
    robust = "more robust"
    assert verdicts(item) == [robust, robust, paired.BROKEN, robust, robust, robust]
    assert [line.tone for line in item.lines[:4]] == ["bad", "good", "good", "neutral"]
    assert len(item.lines[-1].base) == 4 and item.lines[-1].difference.paired
    for line in item.lines[:-1]:
        expected = line.vone[0].accuracy - line.base[0].accuracy
        assert line.difference.value == pytest.approx(expected)
        assert line.images == ""


def test_the_mean_over_corruptions_is_the_one_of_the_scores():
    """Extra corruptions count in neither, and a drawn texture stands in for frost in both."""
    made = built.measure("resnet18", corruptions=("fog", "frost_procedural", "spatter"))
    run = built.run(made)
    mean, *_ = results.mean_accuracy(list(comparison.averaged(run).values()))
    (line,) = scores.table([run]).lines
    assert mean == pytest.approx(line.scores["corruptions"].value)
    item = compare(WEAK, STRONG, corruptions=("fog", "frost_procedural", "spatter"))
    assert item.lines[-1].label == "Mean of 2 corruptions, severities 1 and 3"
    extra = built.run(built.measure("resnet18", corruptions=("spatter",)))
    assert list(comparison.averaged(extra)) == [("spatter", 1), ("spatter", 3)]


def test_headlines_are_of_conditions_that_most_networks_have():
    """Else one label would stand for means over different corruptions."""
    quick, whole = ("fog", "snow"), ("fog", "snow", "contrast", "pixelate")

    def network(name, corruptions, norms=WEAK):
        return built.run(built.measure("resnet18", norms, corruptions=corruptions), name)

    runs = [network("a", quick), network("b", whole), network("c", whole)]
    kept = [{name for name, _ in shown.corrupted} for shown in comparison.headlines(runs)]
    assert kept == [set(), set(whole), set(whole)]
    # Of two networks the common ones count.
    pair = [shown.corrupted for shown in comparison.headlines(runs[:2])]
    assert pair[0].keys() == pair[1].keys() and {name for name, _ in pair[1]} == set(quick)
    assert accuracy.overview(runs[:2]).description.count("Corruptions") == 2
    assert accuracy.overview(runs).description.count("Corruptions") == 2
    # Three of four share one corruption, in other company.
    several = [network(n, ("fog", n)) for n in ("snow", "contrast", "pixelate")]
    several.append(network("d", ("brightness",)))
    kept = [{name for name, _ in shown.corrupted} for shown in comparison.headlines(several)]
    assert kept == [{"fog"}, {"fog"}, {"fog"}, set()]
    # Any two of these three share another one, too, which only they have.
    pairs = [("snow", "contrast"), ("snow", "pixelate"), ("contrast", "pixelate")]
    several[:3] = [network(str(pair), ("fog", *pair)) for pair in pairs]
    kept = [{name for name, _ in shown.corrupted} for shown in comparison.headlines(several)]
    assert kept == [{"fog"}, {"fog"}, {"fog"}, set()]
    # Without common ones, each has its own, and a caution tells it.
    apart = [network("a", ("fog",)), network("b", ("snow",))]
    assert all(shown.corrupted for shown in comparison.headlines(apart))
    assert any("over different corruptions" in text for text in cautions.cautions(apart))
    assert not any("over different corruptions" in text for text in cautions.cautions(runs))
    # The radius in the middle of a ladder is one that the other network has, too.
    short = network("d", (), {"clean": 0.9, "linf": WEAK["linf"][:2]})
    first, second = comparison.headlines([runs[0], short])
    assert [r.attack.label for r in first.attacked[:1]] == [r.attack.label for r in second.attacked]


@pytest.mark.parametrize(
    ("base", "vone", "sentence"),
    [
        (
            WEAK,
            STRONG,
            "VOneResNet-18 is more robust than ResNet-18 in 5 of 5 attack conditions. 1 further "
            "attack left both at chance or below.",
        ),
        (
            STRONG,
            WEAK,
            "VOneResNet-18 is less robust than ResNet-18 in 5 of 5 attack conditions. 1 further "
            "attack left both at chance or below.",
        ),
        (
            WEAK | {"linf": (0.5, 0.6, 0.0)},
            STRONG,
            "VOneResNet-18 is more robust than ResNet-18 in 4 of 5 attack conditions and less "
            "robust than ResNet-18 in 1 of 5 attack conditions. 1 further attack left both at "
            "chance or below.",
        ),
        ({"linf": (0.5,)}, {"linf": (0.5,)}, "x"),
        ({"clean": 0.9}, {"clean": 0.9}, "VOneResNet-18 and ResNet-18 share no attack."),
    ],
)
def test_one_sentence_counts_the_verdicts(base, vone, sentence):
    if sentence == "x":
        models = ("resnet18", "vone_resnet18")
        (item,) = paired.comparisons([judged(each, (linf(0.1), 0.5, "a")) for each in models])
        sentence = "VOneResNet-18 and ResNet-18 cannot be told apart in 1 of 1 attack condition."
        assert verdicts(item) == ["cannot be told apart"]
    else:
        item = compare(base, vone)
    assert item.sentence == sentence


def test_below_chance_nothing_is_won():
    """A stochastic network is right by luck where both are broken; that is not robustness."""
    lucky = {"clean": 0.9, "linf": (0.1, 0.1, 0.1), "l2": (0.1, 0.1), "l1": (0.1,)}
    broken = {"clean": 0.9, "linf": (0.0, 0.0, 0.0), "l2": (0.0, 0.0), "l1": (0.0,)}
    item = compare(broken, lucky)
    assert set(verdicts(item)) == {paired.BROKEN}
    assert item.sentence.startswith("Every attack here leaves")
    assert all(line.tone == "neutral" for line in item.lines if line.kind == "attack")
    # So is an accuracy that is above chance by luck alone.
    above = {"clean": 0.9, "linf": (0.13, 0.13, 0.13), "l2": (0.13, 0.13), "l1": (0.13,)}
    assert set(verdicts(compare(broken, above))) == {paired.BROKEN}


def test_each_network_has_the_chance_of_its_classes():
    """An accuracy of 0.3 is below the chance of three classes and above that of ten."""
    base, vone = built.pair({"clean": 0.9, "l1": (0.0,)}, {"clean": 0.9, "l1": (0.3,)})
    base, other = (built.change(each, class_names=built.CLASSES[:3]) for each in (base, vone))
    (item,) = paired.comparisons([base, vone])
    assert verdicts(item) == ["more robust"]
    (item,) = paired.comparisons([base, other])
    assert verdicts(item) == [paired.BROKEN]
    # Without names of classes, chance is not known, and no accuracy is a guess.
    assert comparison.guessing(base.results[1])
    assert not comparison.guessing(built.change(base, class_names=()).results[1])


def test_images_of_a_folder_that_changed_are_not_compared():
    base, vone = built.pair(dataset="folder:x", split="val", checksum="a")
    for checksum, lines in (("a", 7), ("b", 0)):
        (item,) = paired.comparisons([base, built.change(vone, checksum=checksum)])
        assert len(item.lines) == lines
    assert item.sentence == "VOneResNet-18 and ResNet-18 were attacked on different images."


def test_means_without_values_of_images_support_no_verdict():
    corrupted = [(built.corrupted(name, 3), name) for name in ("fog", "snow")]
    base, vone = (
        judged(model, *((condition, share, name) for condition, name in corrupted))
        for model, share in (("resnet18", 0.2), ("vone_resnet18", 0.9))
    )
    assert verdicts(paired.comparisons([base, vone])[0], "corruption") == ["more robust"]
    unknown = [built.change(run, arrays={}) for run in (base, vone)]
    assert verdicts(paired.comparisons(unknown)[0], "corruption") == ["no interval"]


def test_few_images_support_no_verdict():
    item = compare(WEAK, STRONG, examples=20)
    assert "Too few images" in item.sentence
    assert {line.verdict for line in item.lines} == {paired.TOO_FEW}
    assert paired.TOO_FEW not in verdicts(compare(WEAK, STRONG, examples=30))


def test_one_attack_on_few_images_does_not_silence_the_others():
    base, vone = (
        built.measure(model, of) for model, of in (("resnet18", WEAK), ("vone_resnet18", STRONG))
    )
    for made in (base, vone):
        few = built.accuracy(built.attacked("l1", 80.0), built.answers(0.1, 5), of=made[0].network)
        made.append(few)
    (item,) = paired.comparisons([built.run(base), built.run(vone)])
    assert item.sentence.startswith("VOneResNet-18 is more robust than ResNet-18 in ")
    assert " of 5 attack conditions" in item.sentence


def test_a_difference_over_fewer_images_says_so():
    base = built.run([built.accuracy(built.CLEAN, 0.9)], "a")
    vone = built.accuracy(built.CLEAN, built.answers(0.8, 60), of=built.network("vone_resnet18"))
    (item,) = paired.comparisons([base, built.run([vone], "b")])
    assert item.lines[0].images == "on 60 common images"
    # Without the values of images nothing is known to be common.
    bare = [
        built.accuracy(built.CLEAN, built.answers(0.9, images), index=False) for images in (100, 60)
    ]
    difference = results.difference(bare[:1], bare[1:])
    assert not difference.paired and paired.on_common(difference, bare) == ""


def test_the_strongest_attack_counts_and_controls_of_the_noise_do_not():
    usual = built.attacked("l2", 0.6, draws=10)
    quiet = built.network("vone_resnet18", test_noise=None)
    run = judged(
        "vone_resnet18",
        (usual, 0.5, "honest"),
        (built.attacked("l2", 0.6, draws=10, name="FGSM"), 0.7, "fgsm"),
        (usual, 0.3, "frozen", {"protocol": results.Protocol("frozen", 1)}),
        (built.attacked("l2", 0.6, noise="frozen"), 0.2, "frozen-attack"),
        (built.attacked("l2", 0.6, noise="none"), 0.4, "no-noise"),
        (usual, 0.1, "vote", {"protocol": results.Protocol("fresh", 4, "vote", 5)}),
        (usual, 0.1, "removed", {"of": quiet, "protocol": built.QUIET}),
    )
    (counted,) = comparison.curve(run, "l2").values()
    # Gradients without noise are an attack on the network as it is.
    assert counted.name == "no-noise"
    labels = [(row.label, row.detail) for row in comparison.rows([run])]
    assert sorted(labels) == sorted(
        ("L2 0.6", detail)
        for detail in (
            *("FGSM", "PGD", "PGD, frozen noise", "PGD, gradients without noise"),
            *("PGD, frozen at the attack, fresh noise, 10 draws", "PGD, noise removed"),
            "PGD, vote of 5 draws, 4 decisions",
        )
    )
    # On other images, one decision more of the 50 in common may be chance.
    right = np.arange(150) % 2.0
    usual = built.accuracy(linf(0.1), right[:100], name="usual")
    right = np.where(np.arange(150) == 51, 0.0, right)
    moved = built.accuracy(linf(0.1, name="APGD"), right[50:], np.arange(50, 150), name="moved")
    (counted,) = comparison.curve(built.run([usual, moved]), "linf").values()
    assert counted.name == "usual"


@pytest.mark.parametrize("order", [1, -1])
def test_of_several_evaluations_the_one_on_the_most_images_counts(order):
    """In the headline and in the scores, whatever the names of the files are."""
    pgd = built.attacked("linf", 0.1)
    made = [
        built.accuracy(condition, built.answers(share, images), name=str(images))
        for condition in (built.CLEAN, pgd, built.corrupted("fog", 1))
        for images, share in ((200, 0.6), (50, 0.4))
    ]
    # Another attack at that radius counts where it is stronger, also on fewer images.
    other = built.accuracy(built.attacked("l2", 0.1, steps=5), built.answers(0.2, 50), name="5")
    stronger = built.accuracy(built.attacked("l2", 0.1), built.answers(0.5, 200), name="64")
    run = built.run([*made, other, stronger][::order])
    counted = [
        comparison.clean(run),
        *comparison.curve(run, "linf").values(),
        *comparison.averaged(run).values(),
    ]
    assert [result.images for result in counted] == [200, 200, 200]
    assert [result.name for result in comparison.curve(run, "l2").values()] == ["5"]
    line = next(line for line in scores.table([run]).lines if "linf_0.1" in line.radii)
    values = [line.scores["clean"], line.radii["linf_0.1"], line.scores["corruptions"]]
    assert [score.value for score in values] == pytest.approx([0.6] * 3)


def test_on_fewer_images_an_attack_counts_if_it_is_stronger_on_them():
    """Neither 0 % of 2 or 20 images nor the half that no attack leaves right is a reason."""
    whole, other = built.accuracy(linf(0.1), [1, 0] * 50, name="whole"), linf(0.1, steps=9)
    for correct, counts in (
        ([0, 0], "whole"),
        ([0] * 20, "whole"),
        ([1] * 50, "whole"),
        ([1, 0] * 25, "half"),
    ):
        index = range(0, 2 * len(correct), 2)  # These are all right in the first attack.
        half = built.accuracy(other, correct, index, name="half")
        (result,) = comparison.curve(built.run([whole, half]), "linf").values()
        assert result.name == counts
    broken = built.accuracy(other, [0] * 50, range(1, 100, 2), name="half")
    (result,) = comparison.curve(built.run([whole, broken]), "linf").values()
    assert result.name == "whole" and broken.accuracy < whole.accuracy


@pytest.mark.parametrize(("usual", "tagged"), [(10, 1), (10, 100)])
def test_of_as_many_attacks_those_without_a_tag_are_usual(usual, tagged):
    """Else the weaker of two attacks would be compared, and the stronger be its control."""
    run = judged("vone_resnet18", *(
        (linf(eps, draws), 0.5, name)
        for eps in (0.1, 0.2)
        for draws, name in ((usual, f"attack-{eps}"), (tagged, f"attack-{eps}-draws"))
    ))  # fmt: skip
    noun = "draw" if tagged == 1 else "draws"
    controls = [comparison.control(run, result) for result in run.results]
    assert controls == ["", f"gradients of {tagged} {noun}"] * 2


def test_a_result_that_was_measured_once_more_is_not_the_usual_one(tmp_path):
    """Among files, clean-try.json comes before clean.json."""
    made = [
        built.accuracy(condition, share, name=f"{name}{tag}")
        for condition, name in (
            (built.CLEAN, "clean"),
            (built.attacked("linf", 0.1), "attack"),
            (built.corrupted("fog", 3), "corruption"),
        )
        for share, tag in ((0.9, "-try"), (0.7, ""))
    ]
    (run,) = results.load([built.write(tmp_path, made)])
    assert comparison.clean(run).name == "clean"
    first = [row.results[0].name for row in comparison.rows([run]) if not row.repeat]
    assert first == ["clean", "attack", "corruption"]
    assert [each.name for each in comparison.curve(run, "linf").values()] == ["attack"]
    assert [each.name for each in comparison.corruptions(run).values()] == ["corruption"]
    (line,) = scores.table([run]).lines
    values = line.scores["clean"], line.radii["linf_0.1"], line.scores["corruptions"]
    assert [score.value for score in values] == pytest.approx([0.7] * 3)


def test_a_corruption_at_more_severities_does_not_weigh_more():
    measured = (("fog", 1, 0.7), ("fog", 2, 0.3), ("snow", 1, 0.9))
    run = judged("resnet18", *(
        (built.corrupted(name, severity), share, name) for name, severity, share in measured
    ))  # fmt: skip
    assert list(comparison.averaged(run)) == [("fog", 1), ("snow", 1)]
    assert len(comparison.corruptions(run)) == 3
    (line,) = scores.table([run]).lines
    assert line.scores["corruptions"].value == pytest.approx(0.8)
    # Without a common severity, all count.
    run = built.run(run.results[1:])
    assert list(comparison.averaged(run)) == [("fog", 2), ("snow", 1)]


def test_the_data_set_of_most_results_counts():
    """A larger evaluation on training images does not take the place of the test images."""
    few = built.answers(0.6, 50)
    train = (built.CLEAN, built.answers(0.9, 200), "t", {"split": "train"})
    run = judged("resnet18", (built.CLEAN, few, "0"), (linf(0.1), few, "1"), train)
    assert comparison.clean(run).accuracy == pytest.approx(0.6)
    (line,) = scores.table([run]).lines
    assert line.scores["clean"].value == pytest.approx(0.6)


def test_rows_of_one_name_are_told_apart_by_their_settings():
    few, many = (linf(0.1, steps=steps) for steps in (5, 64))
    run = judged("resnet18", (few, 0.5, "5"), (many, 0.5, "64"), (many, 0.4, "64-s1"))
    labels = [row.detail for row in comparison.rows([run])]
    of_64 = "PGD(steps=64, step_size=eps/32)"
    assert labels == ["PGD(steps=5, step_size=eps/32)", of_64, f"{of_64}, 64-s1"]


def test_a_result_with_another_seed_is_named():
    seed = {"key": results.Key(1, "evaluation / index / purpose")}
    run = judged("resnet18", (built.CLEAN, 0.9, "clean"), (built.CLEAN, 0.8, "clean-s1", seed))
    labels = [(row.label, row.detail) for row in comparison.rows([run])]
    assert labels == [("Clean images", ""), ("Clean images", "clean-s1")]


def test_forms_of_corrupted_images_are_rows_of_their_own():
    shares = {"uint8": 0.4, "float": 0.5, "jpeg85": 0.3}
    fog = ((built.corrupted("fog", 1, form), share, form) for form, share in shares.items())
    run = judged("resnet18", *fog)
    assert [row.detail for row in comparison.rows([run])] == ["", "8 bits", "JPEG 85"]
    assert comparison.corruptions(run)["fog", 1].name == "float"


def test_seeds_are_paired_in_order():
    models = ["resnet18", "vone_resnet18", "resnet18", "vone_resnet18", "vone_resnet18"]
    runs = [built.run(built.measure(m, {"clean": 0.9}), f"r{i}") for i, m in enumerate(models)]
    pairs = [(runs.index(base), runs.index(vone)) for base, vone in paired.pairs(runs)]
    assert pairs == [(0, 1), (2, 3), (2, 4)]


def test_a_base_network_of_the_same_seed_comes_first():
    """The second VOneNet has seed 0, as the first, and the last has a seed of no base network."""
    seeds = {"resnet18": (0, 1), "vone_resnet18": (0, 0, 1, 2)}
    runs = [
        built.run(built.measure(m, {"clean": 0.9}), f"{m}-{i}", config={"experiment": {"seed": s}})
        for m, own in seeds.items()
        for i, s in enumerate(own)
    ]
    pairs = [(runs.index(base), runs.index(vone)) for base, vone in paired.pairs(runs)]
    assert pairs == [(0, 2), (0, 3), (1, 4), (1, 5)]


def test_a_base_network_that_was_trained_alike_comes_first():
    """In the order of names, adversarial training comes between the plain networks."""
    hard = {"perturbation": {"type": "AdversarialTraining", "eps": 0.03}}
    ways = {"base": {}, "base-hard": hard, "base-stem": {"model": {"stem_noise": {"scale": 1}}}}
    more = {"vone": {}, "vone-hard": hard, "vone-warm": {"epochs": 3}, "vone-z": {}}
    runs = [
        built.run(built.measure(m, {"clean": 0.9}), name, config={"experiment": {"seed": 0} | way})
        for m, named in (("resnet18", ways), ("vone_resnet18", more))
        for name, way in named.items()
    ]
    names = [(base.name, vone.name) for base, vone in paired.pairs(runs)]
    assert names == [
        ("base", "vone"), ("base-hard", "vone-hard"), ("base", "vone-warm"), ("base", "vone-z")
    ]  # fmt: skip


def test_a_setting_that_is_off_is_as_one_that_is_not_recorded():
    """An earlier version did not write it."""
    ways = {"longer": {"epochs": 3}, "off": {"freeze": [], "data": {"corruption_probability": 0}}}
    runs = [
        built.run(built.measure("resnet18", {"clean": 0.9}), name, config={"experiment": way})
        for name, way in ways.items()
    ]
    vone = built.run(built.measure("vone_resnet18", {"clean": 0.9}), "vone", config={})
    ((base, _),) = paired.pairs([*runs, vone])
    assert base.name == "off"


def test_only_like_is_compared_with_like(tmp_path):
    """Results on other images, or with another form of a corruption, give no difference."""
    small, large = (built.attacked("linf", eps) for eps in (0.01, 0.02))
    runs = loaded(
        tmp_path,
        resnet18=[on("a", built.CLEAN, 0.9), on("b", built.CLEAN, 0.5), on("a", small, 0.4)],
        vone_resnet18=[on("b", built.CLEAN, 0.6), on("b", small, 0.3), on("b", large, 0.2)],
    )
    base, vone = runs
    assert base.sets == vone.sets == (("b", "test"), ("a", "test"))
    assert comparison.clean(base).accuracy == 0.5
    assert list(comparison.curve(vone, "linf")) == [0.01, 0.02]
    (one,) = paired.comparisons(runs)
    assert [(line.label, round(line.difference.value, 9)) for line in one.lines] == [
        ("Clean images", 0.1)
    ]
    table = comparison.rows(runs)
    # The results on "a" have rows of their own.
    details = ["", "a (test split)", "PGD", "PGD, a (test split)", "PGD"]
    assert [row.detail for row in table] == details
    measured = [[each for each in row.results if each is not None] for row in table]
    assert all(len({each.dataset.name for each in several}) == 1 for several in measured)
    # A line of scores is on one set: the attack on "a" is not beside the clean images of "b".
    lines = scores.table(runs).lines
    assert [list(line.scores) for line in lines] == [["clean"], ["clean", "linf", "white_box"]]


def test_networks_on_other_images_are_told_apart(tmp_path):
    runs = loaded(
        tmp_path, resnet18=[on("a", built.CLEAN, 0.9)], vone_resnet18=[on("b", built.CLEAN, 0.6)]
    )
    assert paired.pairs(runs) == []
    assert scores.table(runs).notes[0] == (
        "The lines are of different data sets and must not be compared: a (test split) and b "
        "(test split)."
    )


def test_the_set_is_chosen_among_results_that_count(tmp_path):
    """Controls on another set do not hide the attack of the network as deployed, nor its norms."""
    linf, l2 = built.attacked("linf", 0.01), built.attacked("l2", 0.5)
    frozen = [dataclasses.replace(linf, attack_noise="frozen", eot_samples=n) for n in (1, 2, 3)]
    several = [on("a", each, 0.5) for each in frozen]
    (vone,) = loaded(tmp_path, vone_resnet18=[*several, on("b", linf, 0.4), on("c", l2, 0.3)])
    assert [r.dataset.name for r in comparison.curve(vone, "linf").values()] == ["b"]
    assert [r.dataset.name for r in comparison.curve(vone, "l2").values()] == ["c"]


def test_networks_on_published_images_alone_are_paired(tmp_path):
    fog = on("npy:fog", built.corrupted("fog", 3, "published"), 0.5)
    runs = loaded(tmp_path, resnet18=[fog], vone_resnet18=[fog])
    (one,) = paired.comparisons(runs)
    assert [line.kind for line in one.lines] == ["corruption"]


def test_images_of_different_sets_are_not_paired():
    one, other = on("a", built.CLEAN, 0.5), on("b", built.CLEAN, 0.5)
    assert results.difference([one], [one]).paired
    assert not results.difference([one], [other]).paired


def test_forms_of_a_corruption_are_not_compared(tmp_path):
    fog = {form: on("a", built.corrupted("fog", 3, form), 0.5) for form in ("float", "jpeg85")}
    snow = on("a", built.corrupted("snow", 3), 0.5)
    clean = on("a", built.CLEAN, 0.9)
    runs = loaded(
        tmp_path,
        resnet18=[clean, fog["float"], snow],
        vone_resnet18=[clean, fog["jpeg85"], snow],
    )
    (one,) = paired.comparisons(runs)
    (_, corrupted) = one.lines
    assert [each.condition.corruption for each in corrupted.base + corrupted.vone] == ["snow"] * 2
    # Neither is a mean over the same conditions as the other.
    assert sum("corruptions" in line.scores for line in scores.table(runs).lines) == 1


def on(dataset, condition, share):
    """A result on a data set."""
    return built.accuracy(condition, share, dataset=dataset)


def loaded(root, **made):
    """Runs that are read together, by architecture."""
    for model, several in made.items():
        of = built.network(model)
        protocol = built.FRESH if of.stochastic else built.QUIET
        several = [
            dataclasses.replace(one, network=of, protocol=protocol, name=f"r{place}")
            for place, one in enumerate(several)
        ]
        built.write(root, several, name=model)
    return results.load([root / model for model in made])


def test_attack_settings_are_relative_to_the_radius():
    condition = built.attacked("linf", 0.015, draws=10, inner={"name": "FGSM", "eps": 0.015})
    made = built.accuracy(condition, [1.0])
    assert comparison.attack_settings(made) == "PGD(steps=64, step_size=eps/32, inner=FGSM())"
    still = comparison.attack_fields({"step_size": 0.0}, "linf", 0.015)
    assert still == {"step_size": "0.0"}


def test_all_rules_for_balls_of_other_norms_make_no_difference_in_l_infinity():
    rules = {"l1_step": "sparse", "norm_offset": 1e-7, "projection": "exact", "order": "as in ART"}
    kept = {norm: comparison.attack_fields(rules, norm, 0.1) for norm in ("linf", "l2", "l1")}
    assert kept["linf"] == {} and kept["l1"].keys() == rules.keys()
    assert kept["l2"].keys() == rules.keys() - {"l1_step"}


@pytest.mark.parametrize(
    ("form", "detail"), [("published", "published"), ("float", "npy:shapes-c (fog split)")]
)
def test_published_images_are_not_told_as_another_data_set(form, detail):
    fog = built.corrupted("fog", 3, form)
    fog = built.accuracy(fog, 0.5, dataset="npy:shapes-c", split="fog", name="corruption-fog-3")
    made = [*built.measure("resnet18", {"clean": 0.9}), fog]
    _, row = comparison.rows([built.run(made, sets=(("shapes", "test"),))])
    assert row.detail == detail


def test_attacks_of_one_name_have_their_own_fields():
    """The suite "worst" has two PGDs, and a change of the first alone is another result."""
    made = []
    for loss in ("dlr", "margin"):
        first, second = (built.attacked("linf", 0.1, loss=each) for each in (loss, "margin"))
        both = dataclasses.replace(first, attacks=(*first.attacks, *second.attacks))
        made.append(built.accuracy(both, [1.0], name=loss))
    fields = comparison.result_fields(made[0])
    assert (fields["PGD 1.loss"], fields["PGD 2.loss"]) == ("dlr", "margin")
    assert len(scores.attack_groups(made)) == 2


@pytest.mark.parametrize(
    ("severities", "label"),
    [([3], "severity 3"), ([1, 5], "severities 1 and 5"), ([3, 2, 1], "severities 1 to 3"),
     ([1, 3, 5], "severities 1, 3 and 5")],
)  # fmt: skip
def test_severities_in_words(severities, label):
    assert wording.severity_label(severities) == label


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (wording.percent(0.8123), "81.2\u202f%"),
        (wording.points(-0.289), "\u221228.9"),
        (wording.points(-0.0001), "0.0"),
        (wording.points(0.031), "+3.1"),
        (wording.listing(["a"]), "a"),
        (wording.listing(["a", "b", "c"]), "a, b and c"),
        (wording.words("jpeg_compression"), "JPEG compression"),
        (wording.duration(3725), "1\u202fh 2\u202fmin"),
        (wording.duration(75), "1\u202fmin 15\u202fs"),
        (wording.duration(119.6), "2\u202fmin 0\u202fs"),
        (wording.duration(0.25), "0.25\u202fs"),
        (wording.count(2000, "image"), "2,000 images"),
        (wording.count(1, "radius", "radii"), "1 radius"),
        (wording.printable("a\x00\ud800\n"), "a\ufffd\ufffd\n"),
        (wording.printable("a\u202eb\u2066\u200f"), "a\ufffdb\ufffd\u200f"),
    ],
)
def test_wording(text, expected):
    assert text == expected


# What counts, where a network was measured in several ways.


def test_controls_do_not_say_how_many_draws_are_usual():
    frozen, quiet = (results.Protocol(noise, 1) for noise in ("frozen", "none"))
    radii = (0.1, 0.2, 0.3)
    ways = (("", 10, {}), ("-frozen", 1, {"protocol": frozen}), ("-none", 1, {"protocol": quiet}))
    vone = judged("vone_resnet18", *(
        (linf(eps, draws), 0.6, f"attack-{eps}{tag}", fields)
        for tag, draws, fields in ways for eps in radii
    ))  # fmt: skip
    base = judged("resnet18", *((linf(eps), 0.3, f"attack-{eps}") for eps in radii))
    rows = [row for row in comparison.rows([base, vone]) if not row.control]
    assert [[each.name for each in row.results] for row in rows] == [
        [f"attack-{eps}"] * 2 for eps in radii
    ]
    # Another attack has a usual number of its own. Other noise at the attack is a control as well.
    auto = (linf(0.1, 20, name="AutoAttack"), 0.2, "auto")
    usual = [(linf(eps, 10), 0.6, f"attack-{eps}") for eps in radii]
    quiet = [(linf(eps, noise="none"), 0.6, f"quiet-{eps}") for eps in (*radii, 0.4)]
    both = judged("vone_resnet18", *usual, auto, *quiet)
    assert [comparison.control(both, each) for each in both.results[:4]] == [""] * 4


def test_networks_are_compared_under_the_attacks_that_both_have():
    """The base was broken by AutoAttack at 0.2, the VOneNet at 0.1; PGD is on both."""
    base = judged("resnet18", (linf(0.1), 0.8, "a"), (linf(0.2), 0.6, "b"),
              (linf(0.2, name="AutoAttack"), 0.2, "c"))  # fmt: skip
    vone = judged("vone_resnet18", (linf(0.1), 0.8, "a"), (linf(0.2), 0.5, "b"),
              (linf(0.1, name="AutoAttack"), 0.75, "c"))  # fmt: skip
    (item,) = paired.comparisons([base, vone])
    assert [(line.base[0].name, line.vone[0].name) for line in item.lines] == [
        ("a", "a"),
        ("b", "b"),
    ]
    assert "less robust than ResNet-18 in 1 of 2" in item.sentence
    told = "in the same way at L∞ 0.1: AutoAttack on VOneResNet-18 and PGD on ResNet-18 and VOneRes"
    assert any(told in each for each in cautions.cautions([base, vone]))
    apart = judged("vone_resnet18", (linf(0.2, name="AutoAttack"), 0.4, "c"))
    pgd = judged("resnet18", (linf(0.2), 0.6, "b"))
    ((line,),) = (each.lines for each in paired.comparisons([pgd, apart]))
    assert line.label == "L∞ 51/255, by different attacks"
    # Other noise at the attack is another way, which a network without noise does not have.
    usual, free = linf(0.2), linf(0.2, noise="none")
    both = judged("vone_resnet18", (usual, 0.5, "b"), (free, 0.2, "d"))
    ((line,),) = (each.lines for each in paired.comparisons([pgd, both]))
    assert (line.vone[0].name, line.label) == ("b", "L∞ 51/255")


def test_replaced_noise_at_the_attack_counts_only_where_it_is_stronger():
    surrogate = dataclasses.replace(linf(0.2), attack_noise="none")
    alone = judged("vone_resnet18", (surrogate, 0.3, "s"))
    assert comparison.curve(alone, "linf") == {} and comparison.norms([alone]) == []
    assert comparison.norms([alone], deployed=False) == ["linf"]
    frozen = {"protocol": results.Protocol("frozen", 1)}
    judgement = judged("vone_resnet18", (linf(0.2), 0.3, "frozen", frozen))
    assert comparison.norms([judgement]) == []
    for share, name in ((0.3, "s"), (0.7, "usual"), (0.6, "usual")):
        both = judged("vone_resnet18", (surrogate, share, "s"), (linf(0.2), 0.6, "usual"))
        (result,) = comparison.curve(both, "linf").values()
        assert result.name == name


def test_of_two_data_sets_that_without_a_tag_is_usual():
    tagged = (built.CLEAN, 0.99, "clean-train", {"split": "train"})
    usual = (built.CLEAN, 0.7, "clean")
    for order in ([tagged, usual], [usual, tagged]):
        assert comparison.clean(judged("resnet18", *order)).name == "clean"


def test_rows_begin_with_the_result_on_the_most_images():
    many = (built.CLEAN, built.answers(0.7, 400), "clean-big")
    run = judged("resnet18", (built.CLEAN, 0.9, "clean"), many)
    first, again = comparison.rows([run])
    assert first.results[0] is run.results[1] is comparison.clean(run) and again.repeat


def test_a_network_without_the_smallest_radius_is_shown_at_the_common_one():
    ladder = [(linf(eps), share, str(eps)) for eps, share in ((0.1, 0.8), (0.2, 0.6), (0.3, 0.4))]
    runs = [
        judged("resnet18", *ladder[first:], label=label)
        for label, first in (("a", 0), ("b", 0), ("c", 1))
    ]
    assert [[each.attack.radius for each in shown.attacked]
            for shown in comparison.headlines(runs)] == [[0.2]] * 3  # fmt: skip
    # One that lacks it is shown at another radius of the others, not at one of its own.
    own = judged("resnet18", *((linf(eps), 0.5, str(eps)) for eps in (0.2, 0.25, 0.27)), label="d")
    *_, third, last = comparison.headlines([*runs, own])
    assert [each.attack.radius for shown in (third, last) for each in shown.attacked] == [0.3, 0.2]


def test_what_all_networks_share_counts_also_where_each_two_share_more():
    # Each network has "fog", and one more corruption with each of the four others.
    more = iter([name for name in built.COMMON if name != "fog"])
    shared = {pair: next(more) for pair in itertools.combinations(range(5), 2)}
    runs = [
        built.run(
            built.measure(
                "resnet18",
                {"clean": 0.9},
                corruptions=["fog", *(name for pair, name in shared.items() if place in pair)],
            ),
            str(place),
        )
        for place in range(5)
    ]
    kept = [{name for name, _ in shown.corrupted} for shown in comparison.headlines(runs)]
    assert kept == [{"fog"}] * 5


def test_a_control_changes_no_mean_of_the_usual_line():
    ladder = [
        (linf(eps), share, f"attack-{eps}") for eps, share in ((0.1, 0.9), (0.2, 0.6), (0.3, 0.4))
    ]
    base = judged("resnet18", (linf(0.3), 0.1, "attack-0.3"))
    quiet = built.network("vone_resnet18", test_noise=None)
    vone = judged("vone_resnet18", *ladder)
    control = (linf(0.3), 0.2, "attack-0.3-test-none", {"of": quiet})
    more = judged("vone_resnet18", *ladder, control)
    for runs in ([base, vone], [base, more]):
        (line,) = [line for line in scores.table(runs).lines if len(line.radii) == 3]
        assert line.scores["linf"].value == pytest.approx((0.9 + 0.6 + 0.4) / 3)


def test_frost_of_two_kinds_is_not_compared_and_is_named():
    base = judged(
        "resnet18", (built.corrupted("frost", 1), 0.8, "a"), (built.corrupted("fog", 1), 0.7, "b")
    )
    vone = judged("vone_resnet18", (built.corrupted("frost_procedural", 1), 0.5, "a"),
              (built.corrupted("fog", 1), 0.7, "b"))  # fmt: skip
    (item,) = paired.comparisons([base, vone])
    (line,) = item.lines
    assert line.label == "Fog, severity 1"
    told = (
        "other textures of frost: a drawn texture for VOneResNet-18 and photographs for ResNet-18"
    )
    assert any(told in each for each in cautions.cautions([base, vone]))


def test_forms_of_corrupted_images_are_named():
    mixed = judged(
        "resnet18",
        (built.corrupted("fog", 1), 0.8, "a"),
        (built.corrupted("fog", 3, "uint8"), 0.6, "b"),
    )
    for figure in (accuracy.overview([mixed]), accuracy.by_corruption([mixed])):
        assert "severities 1 and 3, 8 bits, floating point" in str(figure.spec)
    jpeg = judged("resnet18", (built.corrupted("fog", 1, "jpeg85"), 0.3, "a"), label="b")
    floats = judged("resnet18", (built.corrupted("fog", 1), 0.6, "a"), label="a")
    assert "at severity 1, in JPEG 85." in " ".join(scores.table([jpeg]).notes)
    assert "at severity 1." in " ".join(scores.table([floats]).notes)
    told = "in other forms: JPEG 85 for b and floating point for a"
    assert any(told in each for each in cautions.cautions([floats, jpeg]))


def test_published_images_of_two_data_sets_are_not_paired():
    one, other = (
        built.accuracy(built.corrupted("fog", 3, "published"), 0.5, class_names=classes)
        for classes in (built.CLASSES, ("a", "b"))
    )
    assert not one.same_images(other) and one.same_images(one)
    assert one.same_images(built.change(one, class_names=()))
    of_99, of_100 = (built.change(one, total=total) for total in (99, 100))
    assert not of_99.same_images(of_100) and of_99.same_images(one)


def test_the_number_of_steps_tells_attacks_apart_without_a_length():
    apgd = {steps: results.Attack("APGD", "linf", 0.1, {"steps": steps}) for steps in (20, 100)}
    run = judged("resnet18", (results.AttackCondition((apgd[20],)), 0.5, "a"),
             (results.AttackCondition((apgd[100],)), 0.3, "b"))  # fmt: skip
    assert sorted(line.attack for line in scores.table([run]).lines) == [
        "APGD, steps 100",
        "APGD, steps 20",
    ]
