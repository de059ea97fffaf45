"""Suites of conditions, the radii of their attacks, and the plan of an evaluation."""

import dataclasses
import types
from pathlib import Path

import numpy as np
import pytest

from tests import networks
from tests.evaluation import tiny
from tests.photographs import write_photographs
from vone_jax import corruptions, data, evaluation, results, v1
from vone_jax.attacks import AutoAttack
from vone_jax.certification.measured import Certified
from vone_jax.cli import evaluate as program
from vone_jax.evaluation import suites
from vone_jax.evaluation.judging import parse_noise, parse_protocol
from vone_jax.network import Network, Split
from vone_jax.neurophysiology.measured import ExplainedVariance, Physiology
from vone_jax.suites import GROUPS, SUITES

FULL = (224, 224, 3)


def uncalled(shape=FULL, stochastic=False):
    """A network of a function that is not called."""
    return Network("base", lambda keys, images: images[:, :5, 0, 0], shape, stochastic=stochastic)


def made(*names, network=None, given=None, **fields):
    """The conditions of suites for a network with noise, or another one, by name."""
    whole = evaluation.Evaluation(network or uncalled(stochastic=True), **fields)
    found = suites.conditions(suites.find(names, SUITES, GROUPS), whole, given)
    return {results.stem(whole.row(each)): each for each in found}


def test_ladders_are_the_authors_at_full_size():
    assert evaluation.ladder("linf", 4, FULL) == pytest.approx(
        (1 / 1020, 1 / 255, 4 / 255, 16 / 255)
    )
    assert evaluation.ladder("l2", 4, FULL) == pytest.approx((0.15, 0.6, 2.4, 9.6))
    assert evaluation.ladder("l1", 4, FULL) == pytest.approx((40, 160, 640, 2560))
    whole = evaluation.ladder("l2", 9, FULL)
    assert whole[0] == 0.0375 and all(b == 2 * a for a, b in zip(whole, whole[1:], strict=False))
    assert evaluation.ladder("l1", 2, FULL) == (40.0, 160.0)


def test_ladders_of_small_images_change_values_as_much():
    small, count = (28, 28, 1), 28 * 28
    assert evaluation.ladder("linf", 4, small) == evaluation.ladder("linf", 4, FULL)
    l2 = evaluation.ladder("l2", 4, small)[0] / count**0.5
    assert l2 == pytest.approx(0.15 / (224 * 224 * 3) ** 0.5)
    assert evaluation.ladder("l1", 4, small)[0] / count == pytest.approx(40 / (224 * 224 * 3))
    for bad in (("l3", 4), ("linf", 3)):
        with pytest.raises(ValueError):
            evaluation.ladder(*bad, FULL)


def test_suites_and_groups_have_their_conditions():
    quick, every = made("quick"), made("all")
    assert len(quick) == 1 + 4 + 9 and {"clean", "corruption-pixelate-severity-3"} <= quick.keys()
    assert quick["attack-pgd-linf-0.00392157-64-steps"].attack == evaluation.vonenet_pgd(
        "linf", 1 / 255
    )
    assert len(every) == 1 + 3 * 4 + 5 * 19 and "attack-pgd-l2-9.6-64-steps" in every
    # Each once, whatever the groups have in common.
    assert len(made("quick", "corruptions")) == 1 + 4 + 5 * 19
    # The images of one attack are kept, to be shown.
    assert {name for name, each in quick.items() if getattr(each, "kept", 0)} == {
        "attack-pgd-linf-0.0156863-64-steps"
    }
    drawn = {*corruptions.SETS["common"], *corruptions.SETS["extra"]} - {"frost"}
    found = [each for name, each in every.items() if name.startswith("corruption")]
    assert {each.corruption for each in found} == drawn | {"frost_procedural"}


def test_gradients_average_over_draws_that_differ():
    quiet = uncalled()
    one = {"eps": (0.1,)}
    (attacked,) = made("linf", given=one, network=quiet).values()
    assert attacked.attack.eot_samples == 1
    for noise, samples in (("none", 1), ("frozen", 1), (v1.GaussianNoise(2.0), 10)):
        network = uncalled(stochastic=samples == 1)
        for suite in ("linf", "minimal"):
            (attacked,) = made(suite, given=one, network=network, attack_noise=noise).values()
            assert attacked.attack.eot_samples == samples
    for suite in ("certified", "masking"):
        with pytest.raises(ValueError, match="attack_noise is not for"):
            made(suite, given=one, attack_noise="none")


def test_suites_that_are_not_judged_are_the_same_under_any_protocol():
    """Frozen noise made a certificate of V1's noise one of noise on the pixels."""
    of = tiny.tiny_trained()
    frozen = parse_protocol("frozen", "single", None)
    for suite in ("certified", "geometry"):
        given = {"norm": "l2"}
        ours = made(suite, network=of, given=given)
        assert ours and made(suite, network=of, protocol=frozen, given=given) == ours


def test_suites_of_other_attacks():
    """Each is named after its attack, in the norm of the request, at its radii or at 4/255."""
    other = ("apgd", "autoattack", "square", "worst", "minimal")
    found = made(*other)
    assert list(found) == [
        "attack-apgd-linf-0.0156863-100-steps",
        "attack-autoattack-rand-linf-0.0156863",
        "attack-square-linf-0.0156863",
        "attack-strongest-of-pgd-apgd-linf-0.0156863",
        "minimal-linf-fmn-100-steps",
    ]
    apgd, auto, square, worst, minimal = found.values()
    assert auto.attack == AutoAttack("linf", 4 / 255, version="rand")
    assert apgd.attack.eot_samples == square.attack.eot_samples == 10
    usual, margin, *apgd = worst.attack.attacks
    assert usual == evaluation.vonenet_pgd("linf", 4 / 255)
    assert margin == dataclasses.replace(usual, loss="margin", random_start=True)
    assert [each.loss for each in apgd] == ["cross_entropy", "margin"]
    assert minimal.radii == evaluation.ladder("linf", 9, FULL) and minimal.moved
    quiet = made(*other, network=uncalled())
    assert quiet["attack-autoattack-linf-0.0156863"].attack.version == "standard"
    assert not quiet["minimal-linf-fmn-100-steps"].moved
    found = made("apgd", "minimal", given={"norm": "l1", "eps": (3.0, 6.0)})
    assert list(found) == [
        "attack-apgd-l1-3-100-steps", "attack-apgd-l1-6-100-steps", "minimal-l1-fmn-100-steps"
    ]  # fmt: skip
    assert found["minimal-l1-fmn-100-steps"].radii == (3.0, 6.0)


def test_others_are_for_suites_of_ones_own_too(tmp_path):
    """The other network was ignored, and the checks had no transfer."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from vone_jax import evaluation\n"
        "def mine(given):\n"
        "    return [evaluation.Masking('linf', 0.1, given.noisy)]\n"
    )
    assert made(f"{file}:mine", others=(uncalled(),))
    with pytest.raises(ValueError, match="others has no effect"):
        made("clean", others=(uncalled(),))


def mine(evaluation, *, eps: tuple[float, ...] = (), level: int = 3):
    """what I measure (12)"""
    return Certified(eps or (0.25,), "l2", draws=100 * level)


def test_each_suite_gets_the_options_that_it_has():
    """One value for all; a suite may be a single condition, and return one."""
    known = SUITES | {"mine": mine, "one": evaluation.Clean()}
    found = suites.find(("mine", "one", "linf", "v1"), known, GROUPS)
    assert {n: each.default for n, each in suites.options(found).items()} == {"eps": (), "level": 3}
    plan = evaluation.Evaluation(tiny.tiny_trained())
    own, clean, attacked, _ = suites.conditions(found, plan, {"eps": (0.5,), "level": 4})
    assert own == Certified((0.5,), "l2", draws=400) and clean == evaluation.Clean()
    assert attacked.attack.eps == 0.5
    assert suites.conditions({"mine": mine}, plan) == [Certified((0.25,), "l2", draws=300)]
    (told,) = [line for line in suites.explained(known, {}).splitlines() if "mine" in line]
    assert told.split() == ["mine", "what", "I", "measure", "(12)", "[--eps", "--level]"]


def test_two_suites_with_one_option_have_one_default():
    """The default of one suite was the value of another."""

    def other(evaluation, *, eps: tuple[float, ...] = (0.5,)):
        return evaluation.Clean()

    with pytest.raises(ValueError, match=r"linf has the option eps.*another suite eps.*0\.5"):
        suites.options({"other": other, "linf": SUITES["linf"]})


@pytest.mark.parametrize(("suite", "message"), [
    (lambda evaluation: None, "must return conditions, got None"),
    (lambda evaluation: [None], "must return conditions, got None"),
    (lambda evaluation: "clean", "must return conditions, got 'clean'"),
    (evaluation.Clean, r"is a class.*Clean\(\)"),
    (types.SimpleNamespace(), "must return conditions, got namespace"),
])  # fmt: skip
def test_what_is_no_suite_is_one_sentence(suite, message):
    plan = evaluation.Evaluation(uncalled())
    with pytest.raises(TypeError, match=f"suite mine {message}"):
        suites.conditions({"mine": suite}, plan)


def test_images_of_another_size_than_the_networks_are_said():
    for side, told in ((8, "enlarged"), (16, "resized"), (12, None)):
        images = data.ArraySource(
            np.zeros((3, side, side, 3), np.uint8), np.arange(3), class_names=("0", "1", "2"),
            name="squares",
        )  # fmt: skip
        notes = evaluation.Evaluation(uncalled((12, 12, 3)), images).notes
        expected = f"its images of {side} x {side} pixels are {told} to 12"
        assert notes == (() if told is None else (expected,))


def test_the_checks_for_masked_gradients_are_a_suite():
    base = uncalled()
    (condition,) = made("masking", given={"norm": "l2"}).values()
    assert condition == evaluation.Masking("l2", 2.4, True)
    # As many images as are asked for, and 50 by default.
    (more,) = made("masking", network=base, examples=200).values()
    assert (condition.examples, more.examples) == (50, 200)
    assert condition.by_name()["4 k draws"].eot_samples == 40
    (quiet,) = made("masking", network=base).values()
    assert quiet.by_name()["eps"].eot_samples == 1


def test_a_suite_of_ones_own_is_a_list_or_a_function_in_a_file(tmp_path, monkeypatch):
    file = tmp_path / "mine.py"
    file.write_text(
        "from vone_jax import evaluation\n"
        "listed = [evaluation.Clean(), *evaluation.corrupted(['fog'], (2, 5))]\n"
        "def longer(given, *, eps: tuple[float, ...] = ()):\n"
        "    return evaluation.white_box(given, 'linf', 2, 'long', eps, steps=256)\n"
        "wrong = ['clean']\n"
    )
    monkeypatch.chdir(tmp_path)
    found = made("mine.py:listed", f"{file}:longer", "clean")
    assert list(found) == [
        "clean", "corruption-fog-severity-2", "corruption-fog-severity-5",
        "attack-pgd-long-linf-0.000980392-256-steps", "attack-pgd-long-linf-0.00392157-256-steps",
    ]  # fmt: skip
    assert found["attack-pgd-long-linf-0.00392157-256-steps"].attack.steps == 256
    longer = made("mine.py:longer", given={"eps": (0.5,)})
    assert list(longer) == ["attack-pgd-long-linf-0.5-256-steps"]
    with pytest.raises(ValueError, match="has no 'nothing'"):
        made("mine.py:nothing")
    with pytest.raises(TypeError, match="suite mine.py:wrong must return conditions, got 'clean'"):
        made("mine.py:wrong")


@pytest.mark.parametrize(
    ("text", "noise"),
    [
        ("trained", v1.GaussianNoise(1.0)),
        ("none", None),
        ("neuronal", v1.NeuronalNoise()),
        ("stabilised:0.5,0.1", v1.StabilisedNoise(0.5, 0.1)),
    ],
)
def test_noise_is_given_as_text(text, noise):
    assert parse_noise("noise", text, v1.GaussianNoise(1.0)) == noise


def test_decisions_are_given_with_their_draws():
    protocol = evaluation.Protocol
    assert parse_protocol("trained", "single", None) == protocol("fresh", 10)
    assert parse_protocol("none", "vote:8", 3) == protocol("fresh", 3, "vote", 8)
    assert parse_protocol("frozen", "single", None) == protocol("frozen", 1)


def colours(classes="abc", **fields):
    """A network for photographs of 8 x 8 pixels: the mean of each colour."""
    return Network(
        "mean", lambda keys, x: x.mean((1, 2))[:, : len(classes)], (8, 8, 3), tuple(classes),
        **fields,
    )  # fmt: skip


def planned(network, *suite, own=None, **fields):
    return program.tasks(network, program.Arguments("network", suite, **fields), own or {})


@pytest.mark.parametrize("suite", ["l2", "masking", "minimal"])
def test_a_radius_is_at_most_the_largest_change_of_an_image(suite, tmp_path):
    """It is printed with fewer digits than it has, and may be typed so."""
    write_photographs(tmp_path, "val/a/a.png", size=(96, 96))
    classes = tuple("abcde")
    network = Network("net", lambda keys, x: x[:, :5, 0, 0], (96, 96, 3), class_names=classes)
    where = {"source": f"folder:{tmp_path}", "split": "val"}
    own = {"norm": "l2"}
    assert planned(network, suite, own=own | {"eps": (166.277,)}, **where)
    with pytest.raises(ValueError, match="eps must be at most 166.277 in norm l2, .* got 166.3"):
        planned(network, suite, own=own | {"eps": (166.3,)}, **where)


def test_a_network_that_was_not_opened_keeps_the_contract_too():
    """Without a stated noise, it was attacked and judged as if it had none."""
    with pytest.raises(ValueError, match="network unstated: the logits depend on the keys"):
        planned(networks.unstated(), "clean", source="fashion_mnist_small")


def test_the_folder_of_a_run_without_splits_gives_its_validation_images(tmp_path, monkeypatch):
    """All of it, with the images that the network has learned, is another split."""
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path, *(f"all/{'ab'[i % 2]}/{i}.png" for i in range(20)))
    network = colours("ab", validation=Split("folder:all", "validation"))

    def examples(**fields):
        ((job, _),) = planned(network, "clean", **fields)
        return job.images.split, len(job.data.subset)

    # The numbers 1, 16 and 18, by their names.
    assert examples() == ("validation", 3)
    for source in ("folder:all", f"folder:{tmp_path}/all"):
        assert examples(source=source) == ("validation", 3)
    assert examples(source="folder:all", split=".") == (".", 20)
    with pytest.raises(ValueError, match="source must name the images, since mean is not a run"):
        planned(colours("ab"), "clean")


def test_published_corruptions_are_a_data_set_of_their_own(tmp_path):
    """They are shown as they are, and an extra corruption may be missing."""
    for folder in ("val", "c/fog/1", "c/frost/1"):
        write_photographs(tmp_path, *(f"{folder}/{name}/0.png" for name in "abc"))
    file = tmp_path / "mine.py"
    file.write_text(
        "from vone_jax import evaluation\n"
        "few = evaluation.corrupted(['fog', 'frost', 'spatter'], (1,))\n"
        "more = evaluation.corrupted(['snow'], (1,))\n"
    )
    files = {"source": f"folder:{tmp_path}/c"}
    with pytest.warns(UserWarning) as told:
        tasks = planned(colours(), f"{file}:few", **files)
    assert any("spatter, severity 1" in str(each.message) for each in told)
    assert [(condition.label, job.images.name) for job, condition in tasks] == [
        ("fog, severity 1, published", f"folder:{tmp_path}/c/fog"),
        ("frost, severity 1, published", f"folder:{tmp_path}/c/frost"),
    ]
    with pytest.raises(ValueError, match="split is not for published corruptions"):
        planned(colours(), f"{file}:few", split="val", **files)
    assert tasks[0][0].network.preprocessing.center_crop == 1.0
    with pytest.raises(FileNotFoundError, match="snow"):
        planned(colours(), f"{file}:more", **files)
    with pytest.raises(ValueError, match="clean needs others"):
        planned(colours(), "clean", f"{file}:few", **files)


def test_files_of_neurons_are_told_apart(tmp_path):
    """A folder has textures, an NPZ file recordings, and a CSV file is a table of cells."""
    names = ("cells.csv", "textures", "recordings.npz")
    table, textures, recordings = (tmp_path / name for name in names)
    textures.mkdir()
    network = Network(
        "base", lambda keys, x: x[:, :5, 0, 0], (32, 32, 3), features=lambda keys, x: {"conv": x}
    )
    found = made("physiology", network=network, given={"neurons": (table, textures, recordings)})
    assert list(found.values()) == [
        Physiology("conv", references=(table,), textures=textures),
        ExplainedVariance("conv", recordings),
    ]


def test_a_file_and_a_run_of_one_name_have_results_of_their_own(tmp_path, monkeypatch):
    """``loud.pth`` and the run ``runs/loud``."""
    monkeypatch.chdir(tmp_path)
    network = dataclasses.replace(uncalled(), name="loud")
    assert suites.default_directory(network) == Path("runs/loud/results")
    (tmp_path / "runs" / "loud").mkdir(parents=True)
    (tmp_path / "runs" / "loud" / "config.json").write_text("{}")
    assert suites.default_directory(network) == Path("runs/loud-network/results")
