"""Suites of conditions, the radii of their attacks, and the names of both."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.network import user_networks
from tests.photographs import write_photographs
from vone_jax import corruptions, data, evaluation, names, v1
from vone_jax.attacks import PGD, AutoAttack
from vone_jax.data import images, sources
from vone_jax.evaluation import request as requests
from vone_jax.evaluation import suites
from vone_jax.network import Network, Split

FULL = (224, 224, 3)


def uncalled(shape=FULL, stochastic=False):
    """A network of a function that is not called."""
    return Network("base", lambda keys, images: images, shape, stochastic=stochastic)


NOISY, QUIET = uncalled(stochastic=True), uncalled()


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


def test_networks_have_their_names():
    assert names.network_label("vone_resnet50") == "VOneResNet-50"
    assert names.network_label("cornet_s") == "CORnet-S"
    assert names.network_label("vone_cornet_s") == "VOneCORnet-S"
    assert names.network_label("ev_cornet_z") == "EVCORnet-Z"
    assert names.network_label("evolved") == "evolved"


def test_suites_expand_to_conditions():
    assert requests.expand(["linf", "quick"]) == (
        "linf",
        "clean",
        "corruptions_quick",
        "gallery",
        "v1",
    )
    request = evaluation.Request(corruptions=("contrast",), severities=(1, 5), eot_samples=7)
    found = suites.conditions(requests.expand(["all"]), request, NOISY)
    made = [condition.name for condition in found]
    assert made[0] == "clean" and made[-2:] == [
        "corruption-contrast-1",
        "corruption-contrast-5",
    ]
    assert "attack-l2-9.6" in made and len(made) == len(set(made)) == 1 + 12 + 2
    assert found[1].attack == PGD("linf", 1 / 1020, step_rule="eps/32", eot_samples=7)
    # Each once, whatever the groups have in common.
    quick = suites.conditions(requests.expand(["quick"]), evaluation.Request(), NOISY)
    both = suites.conditions(requests.expand(["quick", "corruptions"]), evaluation.Request(), NOISY)
    assert quick[1].attack == evaluation.vonenet_pgd("linf", 1 / 1020)
    assert {condition.severity for condition in quick[5:]} == {3}
    assert len(quick) == 1 + 4 + 9 and len(both) == 1 + 4 + 5 * 19
    # Draws of a network without noise are all the same.
    (attacked,) = suites.conditions(["linf"], evaluation.Request(eps=(0.1,)), QUIET)
    assert attacked.attack.eot_samples == 1 and attacked.attack_noise == "same"
    # So are those of an attack on the network without noise, or with one draw.
    request = evaluation.Request(eps=(0.1,))
    for noise, suffix, samples in (
        ("none", "noise-free", 1),
        ("frozen", "frozen-attack", 1),
        (v1.GaussianNoise(2.0), "attacked-gaussian-2", 10),
    ):
        (attacked,) = suites.conditions(["linf"], request, uncalled(stochastic=samples == 1), noise)
        assert attacked.attack.eot_samples == samples and attacked.attack_noise == noise
        assert attacked.name == f"attack-linf-0.1-{suffix}"
    # A user of Python may write no noise as None, too.
    pgd = attacked.attack
    assert evaluation.Attacked(pgd, attack_noise=None).name == "attack-linf-0.1-noise-free"


def test_suites_of_other_attacks():
    """Each is named after its attack, in the norm of the request, at its radii or at 4/255."""
    request = evaluation.Request(eot_samples=7)
    other = ("apgd", "autoattack", "square", "worst", "minimal")
    found = suites.conditions(other, request, NOISY)
    assert [condition.name for condition in found] == [
        "attack-apgd-linf-0.01569",
        "attack-autoattack-linf-0.01569",
        "attack-square-linf-0.01569",
        "attack-worst-linf-0.01569",
        "minimal-fmn-linf",
    ]
    records = [condition.record() for condition in found]
    # The members of AutoAttack's version for stochastic networks average over 20.
    assert [record.eot_samples for record in records] == [7, 20, 7, 7, 7]
    assert found[1].attack == AutoAttack("linf", 4 / 255, version="rand")
    usual, margin, *apgd = found[3].attacks
    assert usual == request.pgd("linf", 4 / 255) and not usual.random_start
    assert margin == dataclasses.replace(usual, loss="margin", random_start=True)
    assert [each.loss for each in apgd] == ["cross_entropy", "margin"]
    assert found[4].radii == evaluation.ladder("linf", 9, FULL)
    quiet = suites.conditions(other, request, QUIET)
    assert quiet[1].attack == AutoAttack("linf", 4 / 255, version="standard")
    assert [condition.record().eot_samples for condition in quiet] == [1] * 5
    request = evaluation.Request(("apgd", "minimal"), norm="l1", eps=(3.0, 6.0))
    found = suites.conditions(["apgd", "minimal"], request, QUIET)
    assert [condition.name for condition in found] == [
        "attack-apgd-l1-3", "attack-apgd-l1-6", "minimal-fmn-l1"
    ]  # fmt: skip
    assert found[2].radii == (3.0, 6.0)


def test_the_checks_for_masked_gradients_are_a_suite():
    request = evaluation.Request(("masking",), norm="l2", eot_samples=7)
    (condition,) = suites.conditions(["masking"], request, NOISY, other=QUIET)
    text = f"base, weights {QUIET.weights}"
    assert condition == evaluation.Masking(
        "l2", 2.4, True, text, eot_samples=7, without_noise=False
    )
    record = condition.record()
    assert record.attack.eps_label == "2.4" and record.transfer == text
    assert record.attacks["eps"] == record.attack
    assert record.attacks["4 k draws"].fields["eot_samples"] == 28
    (condition,) = suites.conditions(["masking"], request, QUIET)
    assert condition.record().eot_samples == 1 and "without noise" not in condition.attacks()


def test_forms_of_corrupted_images_have_their_names():
    request = evaluation.Request(corruptions=("contrast",), severities=(3,), form="jpeg85")
    (condition,) = suites.conditions(["corruptions"], request, NOISY)
    assert condition.name == "corruption-contrast-3-jpeg85"
    assert condition.record().form == "jpeg85"


def test_images_through_a_noisy_network_average_its_draws():
    """Also where the network that they are tried on has no noise."""
    request = evaluation.Request(("masking",), norm="l2", eot_samples=7)
    for noisy, samples in ((True, 7), (False, 1)):
        other = uncalled(stochastic=noisy)
        (condition,) = suites.conditions(["masking"], request, QUIET, other=other)
        attacks = condition.attacks()
        assert (attacks["transfer"].eot_samples, attacks["eps"].eot_samples) == (samples, 1)


def test_every_name_of_a_suite_has_conditions():
    figures = {requests.PHYSIOLOGY, requests.GALLERY, requests.FRONT_END}
    for name in {*requests.NAMES} - figures - {*requests.GROUPS}:
        assert suites.conditions([name], evaluation.Request(), NOISY), name


def test_frost_of_files_needs_no_photographs():
    request = evaluation.Request(corruptions=("frost", "fog"), corrupted_files="npy:there")
    found = suites.conditions(["corruptions"], request, NOISY)
    assert {condition.corruption for condition in found} == {"frost_procedural", "fog"}


def test_frost_needs_its_photographs(tmp_path):
    found = suites.conditions(["corruptions"], evaluation.Request(), NOISY)
    usual = {*corruptions.SETS["common"], *corruptions.SETS["extra"]}
    assert {condition.corruption for condition in found} == usual - {"frost"} | {"frost_procedural"}
    with pytest.raises(ValueError, match="frost_images must be given"):
        evaluation.Corrupted("frost", 1)
    with pytest.raises(ValueError, match="photographs frost_dir must name"):
        evaluation.Request(corruptions=("frost",))
    with pytest.raises(FileNotFoundError, match="lacks the frost images"):
        request = evaluation.Request(frost_dir=tmp_path)
        suites.conditions(["corruptions"], request, NOISY)
    photographs = corruptions.FrostImages((np.zeros((300, 300, 3), np.uint8),))
    condition = evaluation.Corrupted("frost", 1, frost_images=photographs)
    assert condition.name == "corruption-frost-1"


def test_images_that_are_too_small_are_an_error_of_the_user():
    """Without notes, with which the command tells errors in a user's function."""
    with pytest.raises(ValueError, match="defocus_blur") as caught:
        suites.conditions(["corruptions"], evaluation.Request(), uncalled((10, 10, 3)))
    assert not getattr(caught.value, "__notes__", None)


@pytest.mark.parametrize(
    ("suite", "message"),
    [(["lnf"], "did you mean 'linf'"), (["corruption"], "'corruptions'"), ([], "at least one")],
)
def test_unknown_suites_are_refused(suite, message):
    with pytest.raises(ValueError, match=message):
        requests.expand(suite)


def test_radii_for_several_norms_are_refused():
    for suite in (("linf", "l2"), ("l2", "apgd"), ("l2", "masking")):
        with pytest.raises(ValueError, match="attack in linf, l2"):
            evaluation.Request(suite, eps=(0.1,))
    with pytest.raises(ValueError, match="eps is for suites that attack, got suite"):
        evaluation.Request(("clean",), eps=(0.1,))


@pytest.mark.parametrize("severity", [0, 6])
def test_other_severities_are_refused(severity):
    with pytest.raises(ValueError, match=f"severities must be .* >= 1 and <= 5, got {severity}"):
        evaluation.Request(("corruptions",), severities=(3, severity))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_radius_of_the_gallery_is_within_the_images_where_it_bounds_pixels(norm):
    fields = {"suite": ("l2", "gallery"), "gallery_norm": norm, "gallery_eps": 4.0}
    if norm == "l2":
        assert evaluation.Request(**fields).gallery_eps == 4.0
    else:
        with pytest.raises(ValueError, match="gallery_eps must be at most 1 .* did you mean 4/255"):
            evaluation.Request(**fields)


def test_radii_of_the_same_name_are_refused():
    request = evaluation.Request(("linf",), eps=(0.0156861, 0.0156862))
    with pytest.raises(ValueError, match="differ in the first four digits, .*attack-linf-0.01569"):
        suites.conditions(("linf",), request, uncalled((28, 28, 1)))


def test_corruptions_that_images_are_too_small_for_are_named_when_it_is_planned():
    request = evaluation.Request()
    assert suites.conditions(("corruptions_quick",), request, uncalled((11, 11, 1)))
    with pytest.raises(ValueError, match="defocus_blur needs images larger than 10 pixels"):
        suites.conditions(("clean", "corruptions_quick"), request, uncalled((8, 8, 1)))


@pytest.mark.parametrize(
    ("fields", "task", "least"),
    [
        (dict(suite=("clean", "autoattack"), norm="linf"), "attack-autoattack-linf", 4),
        (dict(suite=("linf",), loss="dlr"), "attack-linf", 3),
        (dict(suite=("gallery",), loss="dlr"), "gallery-linf", 3),
    ],
)
def test_attacks_for_more_classes_are_refused_when_planned(fields, task, least, tmp_path):
    """Before, they failed when the suites before them had been measured."""
    write_photographs(tmp_path, "val/a/a.png", "val/b/a.png")
    request = evaluation.Request(eps=(), source=f"folder:{tmp_path}", split="val", **fields)

    def logits_fn(keys, images):
        return images.mean(axis=(1, 2))[:, :2]

    network = Network("two", logits_fn, (8, 8, 3), class_names=("a", "b"))
    with pytest.raises(ValueError, match=f"{task}.* at least {least} classes, and two has 2"):
        evaluation.plan(network, request, tmp_path / "results")
    fewer = dataclasses.replace(request, suite=("linf", "apgd"), loss="margin")
    assert evaluation.plan(network, fewer, str(tmp_path))[0][0].directory == tmp_path


def test_few_images_are_one_batch_that_is_not_filled_up(tmp_path):
    """Filling images cost as much as the others."""
    names, devices = data.load("fashion_mnist_small", "test").class_names, jax.device_count()
    network = Network("few", lambda keys, x: x[:, :10, 0, 0], (28, 28, 1), class_names=names)

    def sizes(**fields):
        request = evaluation.Request(source="fashion_mnist_small", split="test", **fields)
        return [job.batch_size for job, _ in evaluation.plan(network, request, tmp_path)]

    assert sizes(suite=("clean",), examples=6) == [-(-6 // devices) * devices]
    assert sizes(suite=("clean",), examples=60) == [-(-50 // devices) * devices]
    assert sizes(suite=("clean",), examples=6, batch_size=4 * devices) == [4 * devices]
    assert sizes(suite=("masking",), masking_images=3) == [-(-3 // devices) * devices]


@pytest.mark.parametrize("suite", ["l2", "autoattack", "square", "worst", "masking", "minimal"])
def test_a_radius_is_at_most_the_largest_change_of_an_image(suite, tmp_path):
    """It is printed with fewer digits than it has, and may be typed so."""
    write_photographs(tmp_path, "val/a/a.png", size=(96, 96))
    classes = tuple("abcde")
    network = Network("net", lambda keys, x: x[:, :5, 0, 0], (96, 96, 3), class_names=classes)
    norm = {} if suite == "l2" else {"norm": "l2"}

    def plan(eps):
        request = evaluation.Request(
            suite=(suite,), eps=(eps,), source=f"folder:{tmp_path}", split="val", **norm
        )
        return evaluation.plan(network, request, tmp_path / "results")

    assert plan(166.277)
    with pytest.raises(ValueError, match="eps must be at most 166.277 in norm l2, .* got 166.3"):
        plan(166.3)


def test_images_with_other_channels_are_refused_when_planned(tmp_path):
    write_photographs(tmp_path, "val/a/a.png")
    network = Network("grey", lambda keys, x: x[:, :2, 0, 0], (8, 8, 1), class_names=("a", "b"))
    request = evaluation.Request(suite=("clean",), source=f"folder:{tmp_path}", split="val")
    with pytest.raises(ValueError, match=r"3 channel\(s\), as all folders do; grey takes 1"):
        evaluation.plan(network, request, tmp_path / "results")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (user_networks.unstated, "network unstated: the logits depend on the keys"),
        (user_networks.wrong_names, "2 names of classes for its 10 logits"),
    ],
)
def test_a_network_that_was_not_opened_keeps_the_contract_too(make, message, tmp_path):
    """Without a stated noise, it was attacked and judged as if it had none."""
    request = evaluation.Request(suite=("clean",), source="fashion_mnist_small")
    with pytest.raises(ValueError, match=message):
        evaluation.plan(make(), request, tmp_path)


def test_one_class_is_refused_when_planned(tmp_path):
    write_photographs(tmp_path, "val/a/a.png")
    network = Network("one", lambda keys, x: x.mean(axis=(1, 2))[:, :1], (8, 8, 3))
    network = dataclasses.replace(network, class_names=("a",), source="a file")
    request = evaluation.Request(suite=("clean",), source=f"folder:{tmp_path}", split="val")
    with pytest.raises(ValueError, match="clean, which needs at least 2 classes, and one has 1"):
        evaluation.plan(network, request, tmp_path / "results")


def test_the_folder_of_a_run_without_splits_gives_its_validation_images(tmp_path, monkeypatch):
    """All of it, with the images that the network has learned, is another split."""
    monkeypatch.chdir(tmp_path)
    write_photographs(tmp_path, *(f"all/{'ab'[i % 2]}/{i}.png" for i in range(10)))
    network = Network(
        "run", lambda keys, x: x.mean(axis=(1, 2))[:, :2], (8, 8, 3), class_names=("a", "b"),
        validation=Split("folder:all", "validation"),
    )  # fmt: skip

    def examples(**fields):
        request = evaluation.Request(suite=("clean",), **fields)
        return evaluation.plan(network, request, tmp_path)[0][0].examples

    assert (examples().split, len(examples())) == ("validation", 2)
    for source in ("folder:all", f"folder:{tmp_path}/all"):
        assert (examples(source=source).split, len(examples(source=source))) == ("validation", 2)
    assert len(examples(source="folder:all", split=".")) == 10


def test_images_are_decoded_once_for_all_conditions(tmp_path, monkeypatch):
    write_photographs(tmp_path, *(f"val/{'abc'[i % 3]}/{i}.png" for i in range(6)))
    network = Network("mean", lambda keys, x: x.mean((1, 2)), (8, 8, 3), class_names=tuple("abc"))
    decode, decoded = images.decode_image, []

    def counted(path, channels):
        decoded.append(path)
        return decode(path, channels)

    monkeypatch.setattr(images, "decode_image", counted)

    def losses(name, *suite, **fields):
        decoded.clear()
        source = f"folder:{tmp_path}"
        request = evaluation.Request(suite=suite, source=source, split="val", **fields)
        finished = []
        for each, task in evaluation.plan(network, request, tmp_path / name):
            finished.append(evaluation.evaluate(each, task, finished))
        return [result.arrays["loss"].tolist() for result in finished]

    few = {"corruptions": ("contrast",), "severities": (1, 2)}
    once = losses("once", "clean", "corruptions_quick", **few)
    assert len(decoded) == 6
    # A single condition needs them once, and these would not fit.
    assert losses("one", "clean") == once[:1]
    monkeypatch.setattr(sources, "_MOST_KEPT", 6 * 8 * 8 * 3 - 1)
    assert losses("again", "clean", "corruptions_quick", **few) == once
    assert len(decoded) == 3 * 6


def test_images_are_kept_where_another_condition_reads_them(tmp_path):
    network = Network("mean", lambda keys, x: x.mean((1, 2)), (8, 8, 3), class_names=tuple("abc"))
    for folder in ("val", "c/fog/1", "c/fog/2"):
        write_photographs(tmp_path, *(f"{folder}/{name}/0.png" for name in "abc"))

    def kept(*suite, **fields):
        source = f"folder:{tmp_path}"
        request = evaluation.Request(suite=suite, source=source, split="val", **fields)
        return [job.keep_images for job, _ in evaluation.plan(network, request, tmp_path)]

    assert kept("clean", "linf", "masking", eps=(0.1,)) == [True, True, False]
    fog = {"corruptions": ("fog",), "severities": (1, 2), "corrupted_files": f"folder:{tmp_path}/c"}
    assert kept("clean", "corruptions", **fog)[:3] == [False, False, False]
    assert kept("clean", "linf", "corruptions", eps=(0.1,), **fog)[:4] == [True, True, False, False]


def test_the_attack_of_the_gallery_keeps_its_images(tmp_path):
    """So that the gallery need not attack them again. Other attacks keep none."""

    def logits_fn(keys, images):
        return images.mean(axis=(1, 2))

    write_photographs(tmp_path, *(f"val/{'abc'[i % 3]}/{i}.png" for i in range(6)))
    network = Network("three", logits_fn, (8, 8, 3), class_names=("a", "b", "c"))
    request = evaluation.Request(
        suite=("linf", "gallery"), eps=(0.1, 0.2), gallery_eps=0.2, gallery_images=4,
        source=f"folder:{tmp_path}", split="val",
    )  # fmt: skip
    tasks = [task for _, task in evaluation.plan(network, request, tmp_path)]
    assert [(task.name, getattr(task, "kept", None)) for task in tasks] == [
        ("attack-linf-0.1", 0), ("attack-linf-0.2", 4), ("gallery-linf-0.2", None)
    ]  # fmt: skip
    assert tasks[-1].condition == dataclasses.replace(tasks[1], kept=0)
    # No more images than there are, and no frozen noise for a network without noise.
    more = dataclasses.replace(request, gallery_images=7, attack_noise="frozen")
    tasks = [task for _, task in evaluation.plan(network, more, tmp_path)]
    assert (tasks[1].kept, tasks[-1].count) == (6, 6)
    assert {task.attack_noise for task in tasks[:2]} == {"same"}
