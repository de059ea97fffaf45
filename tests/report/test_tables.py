"""Lines, differences, cautions and sentences of the page, from results with known accuracies."""

import dataclasses

import numpy as np
import pytest

from tests.report import built_runs
from tests.results import built
from vone_jax import results
from vone_jax.report import comparison, first_screen, provenance, tables
from vone_jax.results import ResultError, Runs

CORRUPTIONS = ("fog", "contrast")
MEAN = "mean over 2 of 15 corruptions, severity 3"
VONE = built.network("vone_resnet18")


@pytest.fixture(scope="module")
def pair():
    return built.runs_of(
        built.measure("resnet18", corruptions=CORRUPTIONS),
        built.measure("vone_resnet18", corruptions=CORRUPTIONS),
    )


def compared(lines, run, base):
    """Label of a line -> comparison."""
    return {lines[at].label: c for at, c in comparison.compare_all(lines, run, base).items()}


def test_lines_are_conditions_in_order_with_a_number_of_each_network(pair):
    lines = tables.lines(pair)
    assert [line.label for line in lines] == [
        "clean", "PGD L∞ 1/255, 64 steps", "PGD L∞ 4/255, 64 steps", "PGD L∞ 16/255, 64 steps",
        "PGD L2 0.15, 64 steps", "PGD L2 0.6, 64 steps", MEAN, "fog, severity 3",
        "contrast, severity 3",
    ]  # fmt: skip
    mean = lines.pop(6)
    for line in lines:
        for label, cell in line.cells.items():
            (run,) = [run for run in pair if run.label == label]
            assert cell.results[0] in run.results and cell.results[0].label == line.label
            assert cell.interval.value == cell.results[0].value()
    for run in pair:
        corrupted = [result.value() for result in run.of("corruption")]
        assert mean.cells[run.label].interval.value == pytest.approx(np.mean(corrupted))
        assert len(mean.cells[run.label].results) == 2


def test_the_main_number_is_that_of_the_networks_own_noise_and_single_draws():
    """Other noise, a vote and a tag have lines of their own, which the base network meets."""
    own = built.measure("vone_resnet18")
    controls = {"noise": ("none", 0.2), "decision": ("vote:8", 0.3)}
    more = [
        built.accuracy(built.CLEAN | {column: word}, share, of=VONE)
        for column, (word, share) in controls.items()
    ]
    tagged = built.accuracy(built.CLEAN, 0.4, of=VONE, tag="again")
    runs = built.runs_of(built.measure(), [*more, tagged, *own])
    lines = {line.label: line for line in tables.lines(runs)}
    assert lines["clean"].cells["VOneResNet-18"].interval.value == own[0].value()
    base = lines["clean"].cells["ResNet-18"].interval
    for label, result in zip(("clean, without noise", "clean, vote:8"), more, strict=True):
        assert not lines[label].is_own and lines[label].cells["ResNet-18"].interval == base
        assert lines[label].cells["VOneResNet-18"].interval.value == result.value()
    assert lines["clean, again"].cells.keys() == {"VOneResNet-18"}


def test_equal_networks_are_never_told_apart_by_how_they_were_judged():
    """One was also evaluated without noise and by votes, where it is better."""
    plain = built.measure("vone_resnet18")
    better = {"clean": 0.99, "linf": (0.99, 0.9, 0.8)}
    more = [
        each
        for fields in ({"noise": "none"}, {"decision": "vote:8"}, {"tag": "again"})
        for each in built.measure("vone_resnet18", better, **fields)
    ]
    runs = built.runs_of(plain, [*more, *plain], labels=["one", "two"])
    said = comparison.sentence(runs[1], runs[0], tables.lines(runs))
    assert said.startswith("two and one cannot be told apart at any of 4 attack radii: at most 0.0")
    assert said.endswith("clean 0.0 (−2.7 to +2.7).")


def test_differences_are_paired_over_the_images(pair):
    base, vone = pair
    found = compared(tables.lines(pair), vone, base)
    for result in vone.results[:6]:
        (other,) = [each for each in base.results if each.label == result.label]
        ours, theirs = (each.arrays["right"] for each in (result, other))
        item = found[result.label]
        assert item.paired and item.difference == results.paired_difference(ours, theirs)
        assert item.difference.value == pytest.approx(np.mean(ours) - np.mean(theirs))
    means = [np.mean([r.value() for r in run.of("corruption")]) for run in pair]
    assert found[MEAN].paired
    assert found[MEAN].difference.value == pytest.approx(means[1] - means[0])
    assert not any(item.cautions for item in found.values())


def test_the_sentence_has_the_largest_difference_and_the_one_on_clean_images(pair):
    base, vone = pair
    lines = tables.lines(pair)
    found = compared(lines, vone, base)
    gains = {label: item.difference for label, item in found.items() if "PGD" in label}
    most = max(gains, key=lambda label: gains[label].value)
    said = comparison.sentence(vone, base, lines)
    radius = most.removeprefix("PGD ").removesuffix(", 64 steps")
    ends = [f"{100 * x:+.1f}" for x in dataclasses.astuple(gains[most])]
    assert said.startswith(
        f"VOneResNet-18 is more robust than ResNet-18 at 4 of 4 attack radii: {ends[0]} points "
        f"(95 % CI {ends[1]} to {ends[2]}) at {radius}; both are at chance at 1 more; clean −"
    )
    back = comparison.sentence(base, vone, lines)
    assert back.startswith("ResNet-18 is less robust than VOneResNet-18 at 4 of 4 attack radii: −")


def test_the_sentence_is_made_of_the_strongest_attack_of_each_radius():
    """PGD alone says that the VOneNet is better, and a stronger attack that it is worse."""
    base, vone = (built.network(model) for model in ("resnet18", "vone_resnet18"))
    strong = {
        n: v
        for n, v in built.attacked("linf", 4 / 255, "strongest of PGD, APGD").items()
        if n != "steps"
    }
    weak = built.attacked("linf", 4 / 255)
    made = [
        [built.accuracy(weak, a, of=of), built.accuracy(strong, b, of=of)]
        for of, a, b in ((base, 0.5, 0.45), (vone, 0.8, 0.2))
    ]
    runs = built.runs_of(*made)
    lines = tables.lines(runs)
    (radius,) = comparison.radii(lines, runs[1], runs[0])
    assert radius.attacks == ("strongest of PGD, APGD, 10 draws",) * 2
    expected = made[1][1].value() - made[0][1].value()
    assert radius.compared.difference.value == pytest.approx(expected)
    said = comparison.sentence(runs[1], runs[0], lines)
    assert "is less robust than ResNet-18 at 1 of 1 attack radius" in said
    facts = [words for words, _ in first_screen.facts(runs, lines, runs[0])]
    assert "strongest attack: strongest of PGD, APGD, 10 draws" in facts


@pytest.mark.parametrize("attack", [{}, {"attack": "strongest of PGD, APGD 1234abcd"}])
def test_a_certificate_is_no_attack(attack):
    """Also one whose row says by which attacks the vote was attacked."""
    better = {"value": 0.9, "low": 0.85, "high": 0.95, "unit": "share", "main": True}
    names = ("accuracy of the vote", "certified accuracy", "accuracy under attack")
    runs = built.runs_of(*(
        [built.result({"condition": "certified", "norm": "l2", **attack}, {
            name: values | ({} if "vote" in name else {"eps": 0.5}) for name in names
        }, of=of)]
        for of, values in ((built.network(), built.INTERVAL), (VONE, better))
    ))  # fmt: skip
    lines = tables.lines(runs)
    assert len(lines) == 3 and comparison.radii(lines, runs[1], runs[0]) == []
    said = comparison.sentence(runs[1], runs[0], lines)
    assert said == "VOneResNet-18 and ResNet-18 have no attack on the same images in common."


def test_an_attack_of_a_user_counts_by_its_columns():
    """Whatever his kind is called: an accuracy of a norm and a radius that is a main number."""
    condition = {"condition": "one pixel", "norm": "linf", "eps": 4 / 255}
    made = [
        [built.accuracy(condition, share, of=of)]
        for of, share in ((built.network(), 0.4), (VONE, 0.7))
    ]
    runs = built.runs_of(*made)
    lines = tables.lines(runs)
    (radius,) = comparison.radii(lines, runs[1], runs[0])
    assert radius.label == "L∞ 4/255" and radius.attacks == ("one pixel",) * 2
    assert "more robust" in comparison.sentence(runs[1], runs[0], lines)


def test_only_what_has_a_reference_of_chance_can_be_at_chance():
    """A certified accuracy of 0 is no guess: it says that nothing was proven."""
    low = {"value": 0.02, "low": 0.0, "high": 0.05, "eps": 0.5, "unit": "share", "main": True}
    numbers = {"certified accuracy": low, "accuracy under attack": low}
    chance = [{"network": "chance", "number": "accuracy under attack", "value": 0.1}]
    certified = {"condition": "certified", "norm": "l2"}
    made = [
        [built.result(certified, numbers, of=of, references=chance)]
        for of in (built.network(), VONE)
    ]
    runs = built.runs_of(*made)
    found = compared(tables.lines(runs), runs[1], runs[0])
    assert {label.split(": ")[1]: item.at_chance for label, item in found.items()} == {
        "certified accuracy": False, "accuracy under attack": True,
    }  # fmt: skip


SETTINGS = [
    ({"settings": {"eot_samples": 1}}, "noise draws per gradient: 1 against 10", True),
    ({"settings": {"step_size": 0.1}}, "step_size: 0.1 against absent", False),
    ({"seed": 1}, "seed: 1 against 0", False),
    ({"matmul_precision": "high"}, "matmul_precision: high against highest", False),
    ({"provenance": {"versions": {"jax": "0.9"}}}, "version of jax: 0.9 against 0.10.2", False),
]


@pytest.mark.parametrize(("fields", "caution", "of_noise"), SETTINGS)
def test_other_settings_are_a_caution_beside_the_difference(fields, caution, of_noise):
    """What follows from a network having no noise is none."""
    condition = built.attacked("linf", 4 / 255)
    for model, told in (("vone_resnet50", True), ("resnet18", not of_noise)):
        first = built.accuracy(condition, 0.5, of=built.network(model))
        second = built.accuracy(condition, 0.7, of=VONE, **fields)
        runs = built.runs_of([first], [second])
        lines = tables.lines(runs)
        (item,) = compared(lines, runs[1], runs[0]).values()
        assert item.difference.value > 0.1 and (caution in item.cautions) == told
        said = comparison.sentence(runs[1], runs[0], lines)
        assert ("measured differently" in said) == told


def test_a_network_on_other_images_leaves_the_comparison_of_the_others_alone():
    other = built.DATASET | {"fingerprint": "other"}
    elsewhere = built.network("vone_resnet50")
    made = [
        built.measure("resnet18"),
        built.measure("vone_resnet18"),
        [built.accuracy(built.CLEAN, 0.9, of=elsewhere, dataset=other)],
    ]
    runs, two = built.runs_of(*made), built.runs_of(*made[:2])
    lines = tables.lines(runs)
    assert compared(lines, runs[1], runs[0]) == compared(tables.lines(two), two[1], two[0])
    (item,) = compared(lines, runs[2], runs[0]).values()
    assert item.difference is None and item.cautions == ("measured on other images",)
    # A moved folder has the same images.
    moved = [built.accuracy(built.CLEAN, 0.9, dataset=built.DATASET | {"name": "elsewhere"})]
    runs = built.runs_of(made[0], moved, labels=["a", "b"])
    (item,) = compared(tables.lines(runs), runs[1], runs[0]).values()
    assert item.paired and not item.cautions


def test_fewer_images_are_named_and_not_paired_and_few_are_not_put_in_words():
    some = built.accuracy(built.attacked("linf", 4 / 255), np.ones((50, 1)))
    runs = built.runs_of(built.measure(), [some], labels=["a", "b"])
    lines = tables.lines(runs)
    (item,) = compared(lines, runs[1], runs[0]).values()
    assert not item.paired and item.cautions == ("images: 50 against 100",)
    few = [built.accuracy(built.attacked("linf", 4 / 255), np.ones((10, 1)))]
    runs = built.runs_of(few, few, labels=["a", "b"])
    assert "fewer than 20 images" in comparison.sentence(*runs, tables.lines(runs))


@pytest.mark.parametrize(("classes", "doubtful"), [(10, True), (1000, False)])
def test_chance_is_one_over_the_classes_whose_logits_count(classes, doubtful):
    """A network with 1,000 classes that has 10 % of ten classes right is far above chance."""
    made = [
        built.accuracy(condition, np.arange(100) < 10, provenance={"logits_classes": classes})
        for condition in (built.CLEAN, built.attacked("linf", 4 / 255))
    ]
    runs = built.runs_of(made, made, labels=["a", "b"])
    lines = tables.lines(runs)
    assert any("at chance" in each for each in first_screen.warnings(runs, lines)) == doubtful
    assert ("at chance" in comparison.sentence(*runs, lines)) == doubtful


def test_the_baseline_is_the_base_network_unless_another_is_named(pair):
    vone, base = pair[1], pair[0]
    runs = Runs([vone, base])
    assert tables.baseline(runs) is base
    assert tables.baseline(Runs([vone])) is vone
    assert tables.baseline(runs, "VOneResNet-18") is vone
    assert tables.baseline(runs, str(vone.path)) is vone
    own = built.network(name="energy")
    own |= {"program": {"digest": "1234abcd", "jax": "0.10.2", "device": "cpu"}}
    front_end = built.runs_of([built.accuracy(built.CLEAN, 0.5, of=own)], labels=["e"])[0]
    assert tables.baseline(Runs([front_end, vone, base])) is base
    with pytest.raises(ResultError, match="baseline must be one of .*, got nobody"):
        tables.baseline(runs, "nobody")


def test_training_seeds_are_counted_and_not_networks():
    three = [built.measure("resnet18", of=built.network(checksum=str(n))) for n in range(3)]
    runs = built.runs_of(*three, labels=["a", "b", "c"])
    seeds = [
        dataclasses.replace(r, experiment={"seed": n, "epochs": 8}) for n, r in enumerate(runs)
    ]
    lines = tables.lines(runs)
    assert ("3 training seeds of each network", False) in first_screen.facts(
        Runs(seeds), lines, seeds[0]
    )
    longer = dataclasses.replace(seeds[2], experiment={"seed": 2, "epochs": 9})
    assert ("1 to 2 training seeds of each network", True) in first_screen.facts(
        Runs([*seeds[:2], longer]), lines, seeds[0]
    )


def test_networks_whose_training_is_not_on_record_have_no_training_seeds():
    """Two files of other weights may differ in anything, and one file twice is one training."""
    files = [built.measure(of=built.network(checksum=each)) for each in ("1", "2", "2")]
    runs = built.runs_of(*files, labels=["a", "b", "c"])
    trained = [dataclasses.replace(run, experiment={"seed": 0}) for run in runs[1:]]
    for shown, said in (
        (runs[:2], "training seeds not known"),
        (runs[1:], "training seeds not known"),
        (trained, "1 training seed of each network"),
        ((runs[0], trained[0]), "1 training seed of each network, not known of a"),
    ):
        facts = first_screen.facts(Runs(shown), tables.lines(Runs(shown)), shown[0])
        assert (said, True) in facts


@pytest.mark.parametrize(
    ("verdict", "told"), [("pass", "2 checks passed"), ("warning", "1 warning"), ("fail", "1 fail")]
)
def test_the_checks_of_each_network_stand_on_the_first_screen(verdict, told):
    runs = built.runs_of([built_runs.checked(verdict)], [built_runs.checked(of=VONE)])
    shown = first_screen.facts(runs, tables.lines(runs), runs[0])
    found = {words: doubtful for words, doubtful in shown if words.startswith("masked gradients")}
    labels = " (ResNet-18)" if verdict != "warning" else ""
    assert found[f"masked gradients, masking: {told}{labels}"] == (verdict != "pass")


def test_the_warnings_of_two_tags_are_told_apart():
    made = [built.accuracy(built.CLEAN, 0.5, tag=tag, warnings=["Few."]) for tag in "ab"]
    runs = built.runs_of(made)
    (said,) = first_screen.warnings(runs, tables.lines(runs))
    assert said == "ResNet-18, clean, a; ResNet-18, clean, b: Few."


def test_the_noise_of_a_function_is_not_said_to_be_none():
    quiet, noisy = (built.network(label=n, stochastic=n == "noisy") for n in ("quiet", "noisy"))
    runs = built.runs_of(*([built.accuracy(built.CLEAN, 0.5, of=of)] for of in (quiet, noisy)))
    assert dict(provenance.differing(runs))["noise"] == ["none", "of its own function"]


def test_corruptions_that_differ_between_networks_are_not_one_mean():
    runs = built.runs_of(
        built.measure("resnet18", corruptions=("fog", "contrast")),
        built.measure("vone_resnet18", corruptions=("snow", "contrast")),
    )
    means = [line for line in tables.lines(runs) if line.label == MEAN]
    assert [list(line.cells) for line in means] == [["ResNet-18"], ["VOneResNet-18"]]


def test_two_settings_of_a_users_kind_stand_apart_with_differences_of_each():
    """By a column that nobody knows, of the condition or of the number."""
    rng = np.random.default_rng(0)

    def rooms(of, columns):
        values = {f"at {k}": rng.normal(k, 1, 9) for k in (1, 2)}
        numbers = {
            k: {"number": "sure", "level": k, "of": k, "value": v.mean()} for k, v in values.items()
        }
        arrays = {"index": np.arange(9), **values}
        return built.result({"condition": "rooms", **columns}, numbers, arrays, of=of)

    settings = ({"power": 1}, {"power": 2}, {"walls": ["red"]}, {"grey": True}, {})
    made = [[rooms(of, each) for each in settings] for of in (built.network(), VONE)]
    runs = built.runs_of(*made)
    lines = tables.lines(runs)
    assert len(lines) == 2 * len(settings) and all(len(line.cells) == 2 for line in lines)
    found = compared(lines, runs[1], runs[0])
    for one, other in zip(*made, strict=True):
        for row in one.rows:
            item = found[f"{results.label(row)}: sure"]
            pairs = [each.arrays[row["of"]] for each in (other, one)]
            assert item.paired and item.difference.value == pytest.approx(
                np.mean(pairs[0] - pairs[1])
            )


def test_the_note_of_an_attack_takes_the_place_of_its_steps():
    """What is not told in a note stays in the title."""
    noted = built.accuracy(built.attacked("linf", 4 / 255), 0.5, of=VONE)
    noted.numbers[0]["note"] = "64 steps of eps/32"
    plain = built.accuracy(built.attacked("linf", 8 / 255), 0.5)
    lines = tables.lines(built.runs_of([noted], [plain]))
    assert [(line.title, line.note) for line in lines] == [
        ("PGD L∞ 4/255", "64 steps of eps/32, 10 draws"), ("PGD L∞ 8/255, 64 steps", ""),
    ]  # fmt: skip


def test_a_difference_without_intervals_is_still_a_difference():
    made = [
        [built.result({"condition": "rooms"}, {"size": {"value": value}}, of=of)]
        for of, value in ((built.network(), 2.0), (VONE, 5.0))
    ]
    runs = built.runs_of(*made)
    (item,) = compared(tables.lines(runs), runs[1], runs[0]).values()
    assert item.difference.value == 3 and np.isnan(item.difference.low) and not item.paired


def test_an_image_size_and_classes_that_differ_are_cautions():
    made = [
        [built.accuracy(built.CLEAN, 0.5, of=built.network(image_size=size),
                        provenance={"logits_classes": classes})]
        for size, classes in ((64, 10), (224, 5))
    ]  # fmt: skip
    runs = built.runs_of(*made, labels=["a", "b"])
    (item,) = compared(tables.lines(runs), runs[1], runs[0]).values()
    assert set(item.cautions) == {"image size in pixels: 224 against 64", "classes: 5 against 10"}
