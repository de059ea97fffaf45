"""Galleries, front ends, and means over corruptions."""

import dataclasses
import json
import types
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.evaluation import tiny
from vone_jax import data, evaluation, models, results, v1
from vone_jax.attacks import PGD
from vone_jax.corruptions import SETS, mce
from vone_jax.evaluation import figures
from vone_jax.evaluation.figures import summarise
from vone_jax.models.network import VOneNet

ATTACKED = evaluation.Attacked(PGD("linf", 0.05, steps=2, eot_samples=2))


@pytest.mark.slow
def test_figures_hold_what_the_report_shows(tmp_path):
    """The files are read back and checked array by array, as by a report."""
    job = tiny.tiny_job(tiny.tiny_trained(), tmp_path / "tiny-run" / "results")
    tasks = (evaluation.Gallery(ATTACKED, 3), evaluation.FrontEnd())
    made = [evaluation.evaluate(job, task) for task in tasks]
    for task, result in zip(tasks, made, strict=True):
        again = evaluation.evaluate(job, task)  # finished
        assert results.to_json(again) == results.to_json(result)
    (run,) = results.load([tmp_path / "tiny-run"])
    gallery, front_end = run.results
    assert (gallery.name, front_end.name) == ("gallery-linf-0.05", "v1")
    assert gallery.condition.images == 3 and gallery.condition.selection == "spread"
    images = gallery.arrays
    assert images["images"].shape == (3, 12, 12, 1) and images["eps"] == np.float32(0.05)
    assert np.abs(images["adversarial"] - images["images"]).max() == pytest.approx(0.05, abs=1e-6)
    # The images have the noise that they have among all examples.
    shown = job.spread(3)
    np.testing.assert_array_equal(images["images"], tiny.tiny_images()[0][shown])
    np.testing.assert_array_equal(images["label"], shown % 3)
    arrays = front_end.arrays
    assert arrays["kernels_in_phase"].shape == (4, 5, 5) and arrays["simple_channels"] == 2
    assert arrays["responses_clean"].shape == (3, 3, 4)
    assert np.any(arrays["responses_noisy"] != arrays["responses_clean"])
    np.testing.assert_array_equal(arrays["image"], tiny.tiny_images(1)[0][0])
    np.testing.assert_allclose(arrays["published_sf_edges"][[0, -1]], [0.5, 8.0])
    np.testing.assert_allclose(arrays["published_ny_edges"][[0, -1]], 10 ** np.array([-1.0, 0.2]))


@pytest.mark.slow
def test_the_front_end_of_an_evnet_is_shown_behind_its_subcortical_stage(tmp_path):
    stage = v1.SubcorticalConfig(12, 12 / 28, in_channels=1)
    config = dataclasses.replace(tiny.CONFIG, in_channels=2, distribution="evnet")
    model = VOneNet(v1=config, back_end=tiny.TinyBackEnd(), subcortical=stage)
    network = tiny.tiny_trained(module=(model, models.init(model, jax.random.key(0))))
    arrays = evaluation.evaluate(tiny.tiny_job(network, tmp_path), evaluation.FrontEnd()).arrays
    before = v1.subcortical_responses(stage, arrays["image"][None])
    expected = v1.noise_free_responses(config, before)[0]
    np.testing.assert_allclose(arrays["responses_clean"], expected, rtol=1e-4, atol=1e-4)
    assert np.any(arrays["responses_noisy"] != arrays["responses_clean"])
    # Sizes of EVNets end at 1. The counts of ny are the sums of Ringach's columns.
    for name, counts in (("nx", [3, 22, 39, 8]), ("ny", [11, 11, 25, 25])):
        np.testing.assert_allclose(arrays[f"published_{name}_edges"][[0, -1]], [0.1, 1.0])
        np.testing.assert_array_equal(arrays[f"published_{name}_weights"], counts)


def job_with_labels(directory, labels):
    class_names = tuple(f"class {i}" for i in range(max(labels) + 1))
    images = np.zeros((len(labels), 12, 12, 1), np.uint8)
    source = data.ArraySource(images, labels, class_names=class_names)
    model, variables = tiny.tiny_network(classes=len(class_names))
    network = tiny.tiny_trained(module=(model, variables))
    return tiny.tiny_job(network, directory, source=source)


def test_a_gallery_shows_different_classes(tmp_path):
    # In the order of the classes, as folders have them.
    labels = np.repeat(np.arange(5), 20)
    job = job_with_labels(tmp_path, labels)
    for count in (1, 3, 5, 8, 100):
        positions = job.spread(count)
        assert len(set(positions)) == count and np.all(np.diff(positions) > 0)
        assert 0 <= positions[0] and positions[-1] < 100
        np.testing.assert_array_equal(positions, job.spread(count))
        assert len(set(labels[positions])) == min(count, 5)
        assert np.bincount(labels[positions]).max() <= -(-count // 5)
    np.testing.assert_array_equal(job.spread(101), np.arange(100))
    # Most images are of one class.
    uneven = np.where(np.arange(60) % 12 == 5, np.arange(60) // 12, 0)
    assert set(uneven[job_with_labels(tmp_path, uneven).spread(5)]) == set(uneven)


def test_a_gallery_without_another_class_near_shows_the_next_image(tmp_path):
    last = np.append(np.zeros(59, int), 1)
    assert job_with_labels(tmp_path, last).spread(3).tolist() == [0, 20, 59]
    # After all classes were shown, they come again in turn.
    halves = np.repeat([0, 1], 30)
    assert np.bincount(halves[job_with_labels(tmp_path, halves).spread(4)]).tolist() == [2, 2]


@pytest.mark.slow
def test_the_images_of_a_gallery_are_the_same_on_any_devices(tmp_path):
    made = []
    for devices in (1, 4):
        job = tiny.tiny_job(tiny.tiny_trained(), tmp_path / str(devices), devices=devices)
        made.append(evaluation.evaluate(job, evaluation.Gallery(ATTACKED, 3)).arrays)
    for name in ("images", "label", "predicted_clean", "predicted_adversarial"):
        np.testing.assert_array_equal(made[0][name], made[1][name])
    np.testing.assert_allclose(made[0]["adversarial"], made[1]["adversarial"], atol=1e-6)


def test_a_gallery_takes_the_images_that_its_attack_has_kept(tmp_path, monkeypatch):
    """They are those of an attack on the images alone. The attack is not made again."""
    gallery, made = evaluation.Gallery(ATTACKED, 3), []
    keeping = dataclasses.replace(ATTACKED, kept=3)
    for attacked in (False, True):
        job = tiny.tiny_job(tiny.tiny_trained(), tmp_path / str(attacked))
        earlier = [evaluation.evaluate(job, keeping)] if attacked else []
        if attacked:
            monkeypatch.setattr(evaluation.Attacked, "perturb", None)
        made.append(evaluation.evaluate(job, gallery, earlier).arrays)
    np.testing.assert_array_equal(earlier[0].arrays["kept"], job.spread(3))
    for name in ("images", "label", "predicted_clean", "predicted_adversarial"):
        np.testing.assert_array_equal(made[0][name], made[1][name])
    np.testing.assert_allclose(made[0]["adversarial"], made[1]["adversarial"], atol=1e-6)


def test_an_attack_that_goes_on_without_a_gallery_keeps_no_images(tmp_path):
    job = tiny.tiny_job(tiny.tiny_trained(), tmp_path)

    def stop_after_a_batch(count, found):
        if not found:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        keeping = dataclasses.replace(ATTACKED, kept=3)
        evaluation.evaluate(job, keeping, progress=stop_after_a_batch)
    assert "adversarial" not in evaluation.evaluate(job, ATTACKED).arrays


def test_a_negative_number_of_images_is_refused():
    with pytest.raises(ValueError, match="kept must be"):
        dataclasses.replace(ATTACKED, kept=-1)


def test_a_gallery_of_other_images_or_of_another_attack_makes_its_own(tmp_path):
    job = tiny.tiny_job(tiny.tiny_trained(), tmp_path)
    earlier = [evaluation.evaluate(job, dataclasses.replace(ATTACKED, kept=3))]
    more = evaluation.evaluate(job, evaluation.Gallery(ATTACKED, 4), earlier)
    assert more.arrays["adversarial"].shape[0] == 4
    weaker = evaluation.Attacked(PGD("linf", 0.01, steps=2, eot_samples=2))
    changed = evaluation.evaluate(job, evaluation.Gallery(weaker, 3), earlier).arrays
    assert np.abs(changed["adversarial"] - changed["images"]).max() < 0.011


def table(share, names=SETS["common"]):
    return {name: {severity: share for severity in range(1, 6)} for name in names}


def summarised(accuracy, clean, imagenet):
    """The means of ``accuracy[corruption][severity]``."""
    pairs = {(name, s): share for name, of in accuracy.items() for s, share in of.items()}
    return summarise(pairs, clean, imagenet)


def test_both_rules():
    """Three kinds of noise at 0.9 and twelve others at 0.1: 0.26 against 0.3."""
    accuracy = table(0.1) | table(0.9, SETS["noise"])
    means = summarised(accuracy, None, imagenet=False)
    assert means.of_corruptions == pytest.approx((3 * 0.9 + 12 * 0.1) / 15)
    assert means.of_categories == pytest.approx((0.9 + 3 * 0.1) / 4)
    assert means.categories == pytest.approx({"noise": 0.9, "blur": 0.1, "weather": 0.1,
                                                 "digital": 0.1})  # fmt: skip
    # The extra corruptions do not count.
    more = accuracy | table(1.0, SETS["extra"])
    assert summarised(more, None, imagenet=False) == means


def test_means_are_over_the_severities_that_all_have():
    """Else a corruption at one severity alone would weigh as much as others at all."""
    accuracy = {
        name: {severity: 1 - severity / 10 for severity in range(1, 6)} for name in SETS["common"]
    }
    for name in ("fog", "snow"):
        accuracy[name] = {5: 0.5}
    means = summarised(accuracy, None, imagenet=False)
    assert means.of_corruptions == pytest.approx(0.5)
    assert "of the 15 common corruptions, at severity 5, which all have." in means.note
    # A drawn texture stands in for frost at the severities that photographs lack.
    accuracy = table(0.5) | {"frost": {1: 0.9}, "frost_procedural": {s: 0.1 for s in range(1, 6)}}
    means = summarised(accuracy, None, imagenet=False)
    weather = means.categories["weather"]
    assert weather == pytest.approx((3 * 0.5 + (0.9 + 4 * 0.1) / 5) / 4) and "drawn" in means.note
    assert "drawn" not in summarised(accuracy | {"fog": {1: 0.5}}, None, imagenet=False).note
    accuracy = {name: {1 if name == "fog" else 5: 0.5} for name in SETS["common"]}
    assert "common corruptions, at different severities." in summarised(accuracy, None, False).note


def test_alexnet_has_an_mce_of_one_hundred():
    accuracy = {
        name: {severity: 1 - error for severity in range(1, 6)}
        for name, error in mce.ALEXNET_ERRORS.items()
    }
    clean = 1 - mce.ALEXNET_CLEAN_ERROR
    means = summarised(accuracy, clean, imagenet=True)
    assert (means.mce, means.relative_mce) == (pytest.approx(100), pytest.approx(100))
    assert means.note == "Over 15 of the 15 common corruptions."
    assert summarised(accuracy, None, imagenet=True).relative_mce is None
    means = summarised(accuracy, clean, imagenet=False)
    assert means.mce is None and "ImageNet at 224" in means.note


def test_an_mce_needs_all_of_it():
    accuracy = table(0.5)
    del accuracy["fog"][3]
    means = summarised(accuracy, 0.9, imagenet=True)
    assert means.mce is None and "all 15 at all five" in means.note
    drawn = table(0.5)
    drawn["frost_procedural"] = {s: 0.1 for s in drawn.pop("frost")}
    means = summarised(drawn, 0.9, imagenet=True)
    assert means.mce is None and "drawn texture in the place of frost" in means.note
    assert means.categories["weather"] == pytest.approx((3 * 0.5 + 0.1) / 4)
    assert summarised(table(0.5, SETS["noise"]), 0.9, imagenet=True) is None


@pytest.mark.parametrize(
    ("size", "classes", "expected"), [(224, 1000, True), (224, 2, False), (64, 1000, False)]
)
def test_an_mce_is_over_all_classes_of_imagenet(monkeypatch, size, classes, expected):
    """Fewer classes or smaller images are easier or harder than those of AlexNet's errors."""
    known = []
    monkeypatch.setattr(
        figures, "summarise", lambda accuracy, clean, imagenet: known.append(imagenet)
    )
    job = types.SimpleNamespace(
        network=types.SimpleNamespace(image_size=size, num_classes=1000),
        examples=types.SimpleNamespace(num_classes=classes),
        directory=Path("nowhere"),
    )
    evaluation.MeansOverCorruptions().make(job, [])
    assert known == [expected]


def test_means_of_a_run_are_written_and_read(tmp_path):
    job = tiny.tiny_job(tiny.tiny_trained(), tmp_path / "run" / "results")
    names = ("gaussian_noise", "gaussian_blur", "brightness", "contrast", "defocus_blur")
    measured = [
        evaluation.evaluate(job, condition)
        for condition in (evaluation.Clean(), *(evaluation.Corrupted(n, 2, "uint8") for n in names))
    ]
    task = evaluation.MeansOverCorruptions()
    result = evaluation.evaluate(job, task, measured)
    path = tmp_path / "run" / "results" / "corruption-means-uint8.json"
    assert json.loads(path.read_text()) == results.to_json(result)
    accuracy = {name: each.accuracy for name, each in zip(names, measured[1:], strict=True)}
    common = [accuracy[name] for name in names if name != "gaussian_blur"]
    assert result.measured.of_corruptions == pytest.approx(np.mean(common))
    assert result.condition.form == "uint8" and result.condition.severities == (2,)
    assert result.condition.clean and set(result.condition.corruptions) == set(names)
    again = evaluation.evaluate(job, task, measured)  # finished
    assert results.to_json(again) == results.to_json(result)
    (run,) = results.load([tmp_path / "run"])
    assert len(run.of_kind("corruption_means")) == 1
    # A call that measures a part of them keeps those of the others.
    of_part = evaluation.evaluate(job, task, measured[1:2])
    assert results.to_json(of_part) == results.to_json(result)
    elsewhere = dataclasses.replace(job, directory=tmp_path)
    assert evaluation.evaluate(elsewhere, task, measured[:2]) is None
    # Images in another form, or another way of judging, are in no mean with them.
    other = tiny.changed(job, noise="frozen", draws=1)
    for strange in (
        evaluation.evaluate(job, evaluation.Corrupted("contrast", 2)),
        evaluation.evaluate(other, evaluation.Corrupted("contrast", 2, "uint8")),
    ):
        assert evaluation.evaluate(other, task, [strange]) is None
    # So are the means where a result was replaced by one of the same identity.
    none = {"accuracy": 0.0, "correct": 0.0, "interval": (0.0, 0.5), "between_draws": None}
    worse = dataclasses.replace(measured[1].measured, **none)
    replaced = [measured[0], dataclasses.replace(measured[1], measured=worse), *measured[2:]]
    after = evaluation.evaluate(job, task, replaced).measured.of_corruptions
    assert after == pytest.approx(np.mean(common) - accuracy["gaussian_noise"] / 4)
    assert results.read(path).measured.of_corruptions == after
    # From other results it is made anew.
    more = [*measured, evaluation.evaluate(job, evaluation.Corrupted("fog", 3, "uint8"))]
    assert evaluation.evaluate(job, task, more).condition.severities == (2, 3)
