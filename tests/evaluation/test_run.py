"""Result files: what is in them, that a killed evaluation goes on, that nothing is mixed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation import tiny
from tests.evaluation.result_files import numbers, roughly
from vone_jax import attacks, corruptions, data, evaluation, models, results, v1
from vone_jax import mesh as meshes
from vone_jax.attacks import FGSM, PGD
from vone_jax.certification.measured import Certified, Discriminable
from vone_jax.dataclass_json import encode
from vone_jax.evaluation.identity import identity
from vone_jax.evaluation.masking_checks import quick_checks
from vone_jax.network import Network
from vone_jax.perception import CriticalBands, Geometry, Metamers, Psychophysics

ATTACKED = evaluation.Attacked(PGD("linf", 0.05, steps=2, step_size=0.05, eot_samples=2))
STRONGEST = evaluation.Attacked(
    attacks.Strongest((ATTACKED.attack, FGSM("linf", 0.05, loss="margin")), choice_draws=3)
)
NOISE = evaluation.Corrupted("gaussian_noise", 5)
CLEAN = evaluation.Clean()


@pytest.fixture(scope="module")
def network():
    return tiny.tiny_trained()


def contents(directory, name):
    """The JSON without times, and the bytes of the NPZ."""
    record = json.loads((directory / f"{name}.json").read_text())
    for field in ("started", "wall_seconds"):
        del record["provenance"][field]
    return record, (directory / f"{name}.npz").read_bytes()


class Stop(Exception):
    pass


def stop(count, found):
    """Stop an evaluation after its first batch."""
    if not found:
        raise Stop


def test_a_result_says_what_was_measured(network, tmp_path):
    plan = tiny.tiny_evaluation(network, tmp_path, examples=5, seed=3, tag="mine")
    result = evaluation.evaluate(plan, ATTACKED)
    stem = "attack-pgd-linf-0.05-2-steps-mine"
    assert result.name == stem and result.label == "PGD L∞ 0.05, 2 steps, mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"{stem}.json", f"{stem}.npz"
    ]  # fmt: skip
    arrays = dict(result.arrays)
    assert {name for name in arrays if not name.startswith("check ")} == {
        "index", "label", "key", "right", "probability_correct", "loss", "predicted", "distance",
        "scores", "checksum",
    }  # fmt: skip
    np.testing.assert_array_equal(arrays["index"], [0, 2, 4, 6, 8])  # every second one
    np.testing.assert_array_equal(arrays["label"], np.arange(0, 10, 2) % 3)
    np.testing.assert_allclose(arrays["distance"], 0.05, atol=1e-6)
    right = arrays["right"]
    assert right.shape == (5, 3) and right.dtype == bool
    np.testing.assert_allclose(arrays["probability_correct"], right.mean(1))
    keys = jax.random.key_data(plan.data.example_keys(np.arange(0, 10, 2, dtype=np.uint32)))
    np.testing.assert_array_equal(arrays["key"], keys)
    assert result.find("quick checks")["verdict"] == "pass"
    assert not any("probabilities" in warning for warning in result.warnings)
    whole = result.find("accuracy")
    assert dataclasses.asdict(results.accuracy(right)).items() <= whole.items()
    assert result.value("right in every draw") == right.all(1).mean()
    error = result.value("standard error over draws")
    assert error == pytest.approx(right.mean(0).std(ddof=1) / 3**0.5)
    assert result.row == {
        "network": "VOneResNet-18", "condition": "attack", "norm": "linf", "eps": 0.05,
        "attack": "PGD", "steps": 2, "attack_draws": 2, "draws": 3, "dataset": "tiny",
        "split": "test", "examples": 5, "seed": 3, "tag": "mine",
    }  # fmt: skip
    what = result.identity
    assert what == identity(plan, ATTACKED) and what["condition"] == encode(ATTACKED)
    assert what["protocol"] == encode(evaluation.Protocol("fresh", 3))
    assert (what["seed"], what["tag"]) == (3, "mine")
    assert what["matmul_precision"] == "highest"
    dataset = what["dataset"]
    assert dataset["fingerprint"] == data.fingerprint(data.Subset(tiny.tiny_source(), 5))
    expected = ("tiny", "test", 5, 10, 3)
    assert expected == tuple(
        dataset[name] for name in ("name", "split", "examples", "total", "classes")
    )
    of = what["network"]
    assert (of["name"], of["label"]) == ("tiny-run", "VOneResNet-18")
    assert of["checksum"] == network.checksum and of["image_size"] == 12
    assert of["trained_noise"] == of["test_noise"] == encode(v1.GaussianNoise(3.0))
    assert result.provenance["command"] == "test" and result.provenance["checkpoint_step"] == 7
    assert result.provenance["class_names"] == ["a", "b", "c"]


def test_a_seed_gives_the_same_numbers_as_before(network, tmp_path):
    """Expected are those of the commit fa2ef183, see ``tests/test_reproduction.py``."""
    plan = tiny.tiny_evaluation(network, tmp_path)
    attacked = evaluation.Attacked(PGD("linf", 0.05, steps=2, eot_samples=2))
    measured = [evaluation.evaluate(plan, each) for each in (CLEAN, attacked, NOISE)]
    for result in measured:
        assert result.arrays["key"][3].tolist() == [1905052781, 3706272737]
    losses = [result.arrays["loss"].mean() for result in measured]
    np.testing.assert_allclose(losses, [1.446953, 1.568251, 1.442419], rtol=1e-5)

    # The mean over three draws is better than a draw: averaging takes the noise's entropy away.
    def calibration(number):
        return [measured[0].value(number, **{"averaged draws": draws}) for draws in (1, 3)]

    single, averaged = calibration("entropy from noise")
    assert single < 1e-6 and averaged > 0.01
    for number in ("negative log likelihood", "Brier score"):
        single, averaged = calibration(number)
        assert averaged < single <= losses[0] + 0.1


def test_numbers_are_those_of_the_arrays(network, tmp_path):
    """The same examples through ``robust_accuracy``, with the keys of their indices."""
    plan = tiny.tiny_evaluation(network, tmp_path)
    result = evaluation.evaluate(plan, ATTACKED)
    images, labels = tiny.tiny_images()
    again = evaluation.robust_accuracy(
        plan.data.example_keys(np.arange(10, dtype=np.uint32)),
        models.logits_fn(network.model, network.variables),
        images,
        labels,
        attack=ATTACKED.attack,
        draws=3,
        batch_size=4,
    )
    np.testing.assert_array_equal(result.arrays["probability_correct"], again.per_example)
    np.testing.assert_allclose(result.arrays["loss"], again.loss, rtol=1e-6)
    low, high = again.interval
    accuracy = {"value": again.accuracy, "low": low, "high": high}
    assert accuracy.items() <= result.find("accuracy").items()
    assert 0 < again.accuracy < 1


@pytest.mark.parametrize("condition", [
    ATTACKED,
    pytest.param(STRONGEST, marks=pytest.mark.slow),
    NOISE,
], ids=["attack", "strongest", "noise"])  # fmt: skip
def test_a_stopped_evaluation_goes_on(network, tmp_path, condition):
    plan = tiny.tiny_evaluation(network, tmp_path / "whole")
    evaluation.evaluate(plan, condition)
    seen = []

    def stop_after_two(*counted):
        seen.append(counted)
        if len(seen) == 3:  # 0 examples found, then two batches
            raise Stop

    half = dataclasses.replace(plan, directory=tmp_path / "half")
    with pytest.raises(Stop):
        evaluation.evaluate(half, condition, stop_after_two)
    assert not list((tmp_path / "half").glob("*.json"))
    (partial,) = (tmp_path / "half").glob("*.partial")
    # What a killed writer leaves behind.
    name = results.stem(plan.row(condition))
    (partial / ".00000008.npz.77.tmp").write_bytes(b"PK")
    (tmp_path / "half" / f".{name}.json.77.tmp").write_bytes(b"{")
    (tmp_path / "half" / f".{name}.lock").write_bytes(b"process 77")
    seen.clear()
    evaluation.evaluate(half, condition, lambda *counted: seen.append(counted))
    assert seen == [(8, True), (2, False)]
    assert contents(tmp_path / "half", name) == contents(tmp_path / "whole", name)
    files = {path.name for path in (tmp_path / "half").iterdir()}
    assert files == {f"{name}.json", f"{name}.npz"}
    # A finished result is used again, and what a killed process has left is removed.
    partial.mkdir()
    (tmp_path / "half" / f".{name}.lock").write_bytes(b"process 77")
    seen.clear()
    evaluation.evaluate(half, condition, lambda *counted: seen.append(counted))
    assert seen == [(10, True)]
    assert {path.name for path in (tmp_path / "half").iterdir()} == files


def test_the_images_that_an_attack_keeps_are_spread_over_the_examples(network, tmp_path):
    kept = dataclasses.replace(ATTACKED, kept=3)
    result = evaluation.evaluate(tiny.tiny_evaluation(network, tmp_path), kept)
    assert result.arrays["kept"].tolist() == [0, 3, 6]
    images, _ = tiny.tiny_images()
    np.testing.assert_allclose(result.arrays["original"], images[[0, 3, 6]], atol=1e-7)
    moved = result.arrays["adversarial"] - result.arrays["original"]
    np.testing.assert_allclose(np.abs(moved).max(axis=(1, 2, 3)), 0.05, atol=1e-6)
    assert len(result.arrays["right"]) == 10


def test_clean_images_that_are_confident_mistakes_are_kept(network, tmp_path):
    """Also when the result of fewer images grows."""
    for examples in (5, 10):
        plan = tiny.tiny_evaluation(network, tmp_path, examples=examples)
        result = evaluation.evaluate(plan, CLEAN)
    arrays = result.arrays
    (shown,) = [view for view in result.views if isinstance(view, results.Pictures)]
    places = results.confident_mistakes(arrays)
    wrong = np.flatnonzero(arrays["predicted"] != arrays["label"])
    assert len(wrong) and sorted(places) == wrong.tolist()
    assert [int(each.rpartition(" ")[2]) for each in shown.captions] == places.tolist()
    assert np.all(np.diff(arrays["scores"][places, -1, results.CONFIDENCE]) <= 0)
    images, _ = tiny.tiny_images()
    np.testing.assert_allclose(arrays["mistakes"], images[places], atol=1e-7)
    assert len(arrays["right"]) == 10


@pytest.mark.slow
def test_batch_size_and_devices_change_nothing(network, tmp_path):
    made = []
    for devices, batch_size in ((1, 4), (4, 8)):
        directory = tmp_path / f"{devices}-{batch_size}"
        for condition in (ATTACKED, NOISE, STRONGEST):
            plan = tiny.tiny_evaluation(network, directory, devices=devices, batch_size=batch_size)
            made.append(evaluation.evaluate(plan, condition))
    for result, reference in zip(made[3:], made[:3], strict=True):
        assert result.name == reference.name
        assert numbers(result.numbers) == roughly(numbers(reference.numbers))
        for field, values in reference.arrays.items():
            if np.issubdtype(values.dtype, np.floating):
                np.testing.assert_allclose(result.arrays[field], values, rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(result.arrays[field], values)


def refused(plan, condition, *parts):
    with pytest.raises(results.ResultError) as caught:
        evaluation.evaluate(plan, condition)
    for part in ("another evaluation", "--overwrite", *parts):
        assert part in str(caught.value)


def test_other_evaluations_are_not_mixed(network, tmp_path):
    plan = tiny.tiny_evaluation(network, tmp_path)
    first = evaluation.evaluate(plan, CLEAN)
    other = dataclasses.replace(plan, seed=1)
    refused(other, CLEAN, "seed is 1, was 0", "--tag")
    refused(dataclasses.replace(plan, network=tiny.tiny_trained(seed=5)), CLEAN, "network.checksum")
    cropped = dataclasses.replace(network, preprocessing=data.Preprocessing(center_crop=0.5))
    refused(dataclasses.replace(plan, network=cropped), CLEAN, "center_crop is 0.5, was null")
    refused(dataclasses.replace(plan, images=changed(3)), CLEAN, "dataset.fingerprint is")
    tagged = evaluation.evaluate(dataclasses.replace(other, tag="again"), CLEAN)
    assert tagged.name == "clean-again" and tagged.identity != first.identity
    # A field that a stored identity lacks is a difference.
    path = tmp_path / "clean.json"
    record = json.loads(path.read_text())
    del record["identity"]["dataset"]["labels"]
    path.write_text(json.dumps(record))
    refused(plan, CLEAN, "was absent")
    seen, other = [], dataclasses.replace(other, overwrite=True)
    for _ in range(2):
        again = evaluation.evaluate(other, CLEAN, lambda *counted: seen.append(counted))
    assert seen[0] == seen[4] == (0, True) and len(seen) == 8
    assert again.identity["seed"] == 1 and again.value() == tagged.value()
    assert results.read(path).identity == again.identity


def changed(place):
    """The images, of which one has another pixel."""
    source = tiny.tiny_source()
    source._images[place] = 255 - source._images[place]
    return source


def test_chunks_of_another_evaluation_are_never_continued(network, tmp_path):
    """The chunks of the one stay where they are while the other is measured in their place."""
    plan = tiny.tiny_evaluation(network, tmp_path)
    other = dataclasses.replace(plan, network=tiny.tiny_trained(seed=5))
    expected = evaluation.evaluate(
        dataclasses.replace(other, directory=tmp_path / "alone"), CLEAN
    ).arrays["loss"]
    with pytest.raises(Stop):
        evaluation.evaluate(plan, CLEAN, stop)
    assert len(list(tmp_path.glob("clean.*.partial"))) == 1
    seen = []
    found = evaluation.evaluate(other, CLEAN, lambda *counted: seen.append(counted))
    assert seen[0] == (0, True)
    np.testing.assert_array_equal(found.arrays["loss"], expected)


def test_a_network_that_was_renamed_and_images_that_were_moved_are_the_same(network, tmp_path):
    plan = tiny.tiny_evaluation(network, tmp_path)
    first = evaluation.evaluate(plan, CLEAN)
    moved = tiny.tiny_source()
    moved.name = "folder:/elsewhere/tiny"
    renamed = dataclasses.replace(network, name="renamed")
    for other in (
        dataclasses.replace(plan, network=renamed),
        dataclasses.replace(plan, images=moved),
        dataclasses.replace(plan, batch_size=5),
    ):
        assert evaluation.evaluate(other, CLEAN).provenance == first.provenance
    shown = dataclasses.replace(ATTACKED, kept=3)
    assert identity(plan, shown) == identity(plan, ATTACKED)


def test_an_image_that_was_replaced_is_measured_again(network, tmp_path):
    """Of a stopped evaluation, only the images that are as they were are taken from the chunks."""
    plan = tiny.tiny_evaluation(network, tmp_path)
    with pytest.raises(Stop):
        evaluation.evaluate(plan, CLEAN, stop)
    other, seen = dataclasses.replace(plan, images=changed(2)), []
    found = evaluation.evaluate(other, CLEAN, lambda *counted: seen.append(counted))
    assert seen[0] == (3, True)
    alone = dataclasses.replace(other, directory=tmp_path / "alone")
    expected = evaluation.evaluate(alone, CLEAN)
    np.testing.assert_allclose(found.arrays["loss"], expected.arrays["loss"], rtol=1e-6)
    np.testing.assert_array_equal(found.arrays["right"], expected.arrays["right"])


def test_a_result_over_few_images_grows(network, tmp_path):
    """The images of 2 and 5 are among those of 10; those of 4 are not among those of 10."""
    whole = evaluation.evaluate(tiny.tiny_evaluation(network, tmp_path / "whole"), NOISE)
    for examples, expected in ((2, 0), (5, 1), (10, 5)):
        plan, seen = tiny.tiny_evaluation(network, tmp_path, examples=examples), []
        grown = evaluation.evaluate(plan, NOISE, lambda *counted, to=seen: to.append(counted))
        assert seen[0] == (expected, True) and len(grown.arrays["index"]) == examples
    assert grown.identity == whole.identity
    for name, array in whole.arrays.items():
        assert grown.arrays[name].shape == array.shape
        if np.issubdtype(array.dtype, np.integer):
            np.testing.assert_array_equal(grown.arrays[name], array)
    np.testing.assert_array_equal(grown.arrays["right"], whole.arrays["right"])
    # A result does not shrink without a word.
    refused(tiny.tiny_evaluation(network, tmp_path, examples=5), NOISE, "examples is 5, was 10")


def test_a_lost_archive_is_measured_again_and_a_broken_file_is_named(network, tmp_path):
    plan = tiny.tiny_evaluation(network, tmp_path)
    first = evaluation.evaluate(plan, CLEAN)
    before = dict(first.arrays)
    (tmp_path / "clean.npz").unlink()
    again = evaluation.evaluate(plan, CLEAN)
    np.testing.assert_array_equal(again.arrays["loss"], before["loss"])
    with pytest.raises(Stop):
        evaluation.evaluate(plan, NOISE, stop)
    (chunk,) = tmp_path.glob("*.partial/0*.npz")
    chunk.write_bytes(chunk.read_bytes()[:100])
    with pytest.raises(results.ResultError, match="00000000.npz cannot be read"):
        evaluation.evaluate(plan, NOISE)
    (tmp_path / "clean.json").write_text("{")
    with pytest.raises(results.ResultError, match="clean.json cannot be read"):
        evaluation.evaluate(plan, CLEAN)


def test_a_second_process_is_refused_while_the_first_measures(network, tmp_path):
    plan, refusals = tiny.tiny_evaluation(network, tmp_path), []

    def again(count, found):
        if not found and not refusals:
            with pytest.raises(results.ResultError) as caught:
                evaluation.evaluate(plan, CLEAN)
            refusals.append(str(caught.value))

    evaluation.evaluate(plan, CLEAN, again)
    assert f"clean.json is being measured by process {os.getpid()} on" in refusals[0]
    assert not list(tmp_path.glob(".*"))


def test_processes_with_other_evaluations_are_refused(network, tmp_path, monkeypatch):
    monkeypatch.setattr(meshes, "from_process_0", lambda decide: [{"seed": 1}, 4])
    with pytest.raises(results.ResultError, match="the processes evaluate different things"):
        evaluation.evaluate(tiny.tiny_evaluation(network, tmp_path / "results"), CLEAN)
    assert not (tmp_path / "results").exists()


def test_another_noise_or_decision_is_another_condition(network, tmp_path):
    """A plain result stays what it is, whatever is measured after it."""
    plan = tiny.tiny_evaluation(network, tmp_path)
    plain = evaluation.evaluate(plan, CLEAN)
    for other, name, columns in (
        (dict(protocol=evaluation.Protocol("frozen", 1)), "clean-frozen-noise",
         {"noise": "frozen", "draws": 1}),
        (dict(protocol=evaluation.Protocol("fresh", 2, "vote", 3)), "clean-vote-3",
         {"decision": "vote:3", "draws": 2}),
        (dict(network=network.with_noise(None)), "clean-without-noise", {"noise": "none"}),
        (dict(network=network.with_noise(v1.GaussianNoise(2.0))), "clean-gaussian-2",
         {"noise": "gaussian 2", "draws": 3}),
    ):  # fmt: skip
        result = evaluation.evaluate(dataclasses.replace(plan, **other), CLEAN)
        assert result.name == name
        shown = {n: v for n, v in result.row.items() if n in ("noise", "decision", "draws")}
        assert shown == columns
        assert not results.same_condition(result.rows[0], plain.rows[0])
    assert {"noise", "decision"}.isdisjoint(plain.row) and plain.row["draws"] == 3
    # A base network has no noise, and meets the network under any decision.
    base = evaluation.evaluate(
        tiny.tiny_evaluation(tiny.tiny_trained(noise=None), tmp_path / "base"), CLEAN
    )
    assert {"noise", "decision", "draws"}.isdisjoint(base.row)
    voted = results.read(tmp_path / "clean-vote-3.json")
    for each in (plain, voted):
        assert results.same_condition(base.rows[0], each.rows[0])
    frame = results.load([tmp_path]).to_frame()
    assert not frame.duplicated(["network", "label", "number"]).any()


def test_the_noise_at_the_attack_is_said_and_reaches_every_attack(network, tmp_path):
    """FMN attacked the noisy network, whatever was asked for."""
    plan = tiny.tiny_evaluation(network, tmp_path, attack_noise="none", tag="quiet")
    minimal = evaluation.Minimal(attacks.FMN("linf", 1.0, steps=3), (0.05,))
    for condition in (minimal, ATTACKED):
        result = evaluation.evaluate(plan, condition)
        assert result.row["attack_noise"] == "none" and "attack_draws" not in result.row
        assert result.identity["attack_noise"] == "none"
    seen = []

    class Watched(attacks.FMN):
        def minimal(self, key, logits_fn, images, labels):
            seen.append(attacks.classifier.has_noise(logits_fn, key, images))
            return super().minimal(key, logits_fn, images, labels)

    watched = evaluation.Minimal(Watched("linf", 1.0, steps=1, eot_samples=2), (0.05,))
    for noise in ("none", "same"):
        given = dataclasses.replace(plan, attack_noise=noise)
        watched.make(tiny.first_batch(given, watched))
    assert seen == [False, True]
    # A clean image is not attacked, and a certificate sees the noise that it certifies.
    assert "attack_noise" not in identity(plan, CLEAN)
    with pytest.raises(ValueError, match="attack_noise is not for certified"):
        evaluation.evaluate(plan, Certified((0.1,)))


def test_logits_that_are_not_finite_are_found_again(tmp_path):
    bad = float(tiny.tiny_images()[0][7, 0, 0, 0])

    def logits_fn(keys, images):
        first = images[:, 0, 0, :]
        return jnp.where(first == bad, jnp.nan, first * jnp.arange(3.0)[None])

    network = Network("nan", logits_fn, (12, 12, 1), ("a", "b", "c"))
    plan = tiny.tiny_evaluation(network, tmp_path, batch_size=5)
    with pytest.raises(FloatingPointError, match=r"^nan, PGD.* begins at example 5"):
        evaluation.evaluate(plan, ATTACKED)
    with pytest.raises(FloatingPointError, match=r"^nan, clean: .* for the examples \[7\]"):
        evaluation.evaluate(plan, CLEAN)


class Watched(evaluation.Clean):
    """The images as they are; notes the precision in which they are measured."""

    def make(self, batch):
        Watched.seen = jax.config.jax_default_matmul_precision
        return super().make(batch)


def test_the_precision_of_products_is_used_and_told_apart(network, tmp_path, monkeypatch):
    """The devices play a GPU, since a CPU has the highest precision whatever is asked for."""
    plan = tiny.tiny_evaluation(network, tmp_path)
    assert evaluation.evaluate(plan, Watched()).identity["matmul_precision"] == "highest"
    assert Watched.seen == "highest"
    monkeypatch.setattr(evaluation.Evaluation, "matmul_precision", "default")
    refused(plan, Watched(), 'matmul_precision is "default", was "highest"')


@dataclasses.dataclass(frozen=True)
class Brightness(evaluation.Condition):
    """A kind of measurement of one's own: the mean of each image."""

    channel: int = 0

    def make(self, batch):
        return {"mean": batch.images[..., self.channel].mean(axis=(1, 2))}

    def result(self, arrays, evaluation_):
        brightness, largest = arrays["mean"], arrays["mean"].argsort()[-3:]
        return evaluation.Numbers(
            [
                evaluation.number("brightness", of=brightness),
                evaluation.number("squared", of=brightness**2, level=0.5),
                evaluation.number("range", float(np.ptp(brightness))),
            ],
            [results.Pictures(("brightest",))],
            arrays={"brightest": evaluation_.prepared(self, largest)},
        )


def test_a_kind_of_measurement_is_one_class(network, tmp_path):
    """It is stored, resumed and shown in the frame, and no other module knows it."""
    plan = tiny.tiny_evaluation(network, tmp_path)
    with pytest.raises(Stop):
        evaluation.evaluate(plan, Brightness(), stop)
    result = evaluation.evaluate(plan, Brightness())
    images, _ = tiny.tiny_images()
    assert result.value("brightness") == pytest.approx(images.mean(), rel=1e-5)
    frame = results.load([tmp_path]).to_frame()
    assert set(frame["condition.type"]) == {"Brightness"}
    assert set(frame["condition"]) == {"brightness"}
    assert frame["number"].tolist() == ["brightness", "squared", "range"]
    assert set(frame["condition.channel"]) == {0}


def test_what_a_result_has_made_of_few_images_is_made_again_of_more(network, tmp_path):
    """Its pictures, and values by example that ``make`` did not store; also after a stop."""
    whole = evaluation.evaluate(tiny.tiny_evaluation(network, tmp_path / "whole"), Brightness())
    for examples in (2, 10):
        plan = tiny.tiny_evaluation(network, tmp_path, examples=examples)
        if examples == 10:
            with pytest.raises(Stop):
                evaluation.evaluate(plan, Brightness(), stop)
        grown = evaluation.evaluate(plan, Brightness())
    assert grown.rows == whole.rows and grown.arrays.keys() == whole.arrays.keys()
    for name, array in whole.arrays.items():
        np.testing.assert_array_equal(grown.arrays[name], array)
    squared = grown.values(grown.find("squared", level=0.5))
    np.testing.assert_array_equal(squared, grown.arrays["mean"] ** 2)
    assert grown.arrays["brightest"].shape == (3, 12, 12, 1)


def wrong(**methods):
    """A measurement of one's own with methods that are wrong."""
    return type("Mine", (Brightness,), methods)()


@pytest.mark.parametrize(("condition", "error", "message"), [
    (wrong(row=lambda self: "mine"), TypeError, "row.. must return a dictionary"),
    (wrong(row={"condition": "x"}), TypeError, "row.. must return .*got 'an attribute'"),
    (wrong(row=lambda self: {"condition": "x", "draws": 3}), ValueError, "draws must have another"),
    (wrong(row=lambda self: {"condition": "x", "by": {}}), ValueError, "by must be text"),
    (wrong(make=lambda self, batch: [1]), TypeError, "make.. must return a dictionary .*got list"),
    (wrong(make=lambda self, batch: {"mean": 1.0}), TypeError, r"make.* 'mean' of shape \(\)"),
    (wrong(result=lambda self, *_: {"x": 1}), TypeError, "result.. must return evaluation.Numbers"),
    (wrong(result=lambda self, *_: evaluation.Numbers([1.0])), TypeError, "result.. must return"),
    (wrong(result=lambda self, *_: evaluation.Numbers(arrays={"mean": np.ones(2)})), TypeError,
     "result.. must give the array 'mean' another name"),
])  # fmt: skip
def test_a_mistake_in_ones_own_kind_is_one_sentence(network, tmp_path, condition, error, message):
    """With the class, and its file and line where it has them."""
    with pytest.raises(error, match=f"^Mine.*: {message}"):
        evaluation.evaluate(tiny.tiny_evaluation(network, tmp_path), condition)
    assert not list(tmp_path.glob("*.json"))


def test_the_file_of_a_wrong_kind_is_named(network, tmp_path):
    class Mine(Brightness):
        def make(self, batch):
            return None

    with pytest.raises(TypeError, match=r"^Mine \(.*test_run.py, line \d+\): make.. must return"):
        evaluation.evaluate(tiny.tiny_evaluation(network, tmp_path), Mine())


@pytest.mark.parametrize("columns", [{"draws": 3}, {"network": "me"}, {"at": float("nan")}])
def test_a_column_of_a_number_is_its_own_and_finite(columns):
    (name,) = columns
    with pytest.raises(ValueError, match=f"number 'x': {name} must "):
        evaluation.number("x", 1.0, **columns)


@dataclasses.dataclass(frozen=True)
class Drawn(Brightness):
    draws: int = 3


def test_a_field_of_the_name_of_a_column_of_every_row_sets_results_apart(network, tmp_path):
    """The draws of the network stood in its place, and two settings were one row."""
    rows = [
        tiny.tiny_evaluation(network, tmp_path, draws=2).row(Drawn(draws=draws)) for draws in (3, 5)
    ]
    assert [row.get("drawn draws") for row in rows] == [None, 5] and rows[1]["draws"] == 1
    assert not results.same_condition(*rows)


@dataclasses.dataclass(frozen=True)
class Confidence(evaluation.Condition):
    """A measurement of one's own: the largest probability in one draw of the noise."""

    def make(self, batch):
        logits = batch.classifier()(batch.keys("judge"), batch.images)
        return {"largest": jax.nn.softmax(logits).max(axis=1)}

    def result(self, arrays, evaluation_):
        return evaluation.Numbers([evaluation.number("confidence", of=arrays["largest"])])


PROTOCOLS = [
    evaluation.Protocol("fresh", 20),
    evaluation.Protocol("fresh", 2, "vote", 8),
    evaluation.Protocol("frozen", 1),
]


@pytest.mark.slow
@pytest.mark.parametrize("condition", [
    evaluation.FourierMap(1.0, 3),
    Confidence(),
    Certified((0.1,), draws=50),
    Certified((0.1,), local=True, attacks=(PGD("l2", 0.1),)),
    Discriminable(tiny.CONFIG, (0.5,)),
    Geometry("v1"),
], ids=lambda condition: type(condition).__name__)  # fmt: skip
def test_what_is_not_judged_has_nothing_of_the_protocol(network, tmp_path, condition):
    """A map had "vote:8" in its row, and was refused with another number of draws."""
    plan = tiny.tiny_evaluation(network, tmp_path)
    others = [dataclasses.replace(plan, protocol=protocol) for protocol in PROTOCOLS]
    assert all(other.row(condition) == plan.row(condition) for other in others)
    assert all(identity(other, condition) == identity(plan, condition) for other in others)
    assert {"noise", "decision"}.isdisjoint(plan.row(condition))
    # The noise of the network itself is another thing.
    quiet = dataclasses.replace(plan, network=network.with_noise(None))
    assert quiet.row(condition)["noise"] == "none"
    if isinstance(condition, evaluation.FourierMap | Confidence):
        first = evaluation.evaluate(plan, condition)
        for place, other in enumerate(others):
            assert evaluation.evaluate(other, condition).provenance == first.provenance
            alone = dataclasses.replace(other, directory=tmp_path / str(place))
            assert evaluation.evaluate(alone, condition).rows == first.rows


@pytest.mark.parametrize("condition", [
    CLEAN,
    NOISE,
    ATTACKED,
    evaluation.Minimal(attacks.FMN("linf", 1.0, steps=3), (0.05,)),
    evaluation.Masking("linf", 0.05, True),
    Metamers("v1"),
    Psychophysics("contrast"),
    CriticalBands(),
], ids=lambda condition: type(condition).__name__)  # fmt: skip
def test_what_is_judged_has_the_protocol_in_its_row(network, tmp_path, condition):
    plan = tiny.tiny_evaluation(network, tmp_path, protocol=PROTOCOLS[1])
    row = plan.row(condition)
    assert (row["draws"], row["decision"]) == (2, "vote:8")
    frozen = dataclasses.replace(plan, protocol=PROTOCOLS[2])
    assert frozen.row(condition)["noise"] == "frozen"
    assert identity(frozen, condition) != identity(plan, condition)


def halfway(share):
    """An attack of one's own, whose step is a share of the radius."""

    class Halfway(attacks.Attack):
        norm: str
        eps: float

        def run(self, keys, logits_fn, images, labels):
            slope, _, _ = self.gradient(keys, logits_fn, images, labels)
            return jnp.clip(images + self.eps / share * jnp.sign(slope), 0.0, 1.0)

    return evaluation.Attacked(Halfway("linf", 0.05))


@pytest.mark.slow
def test_the_code_of_ones_own_attack_is_part_of_the_identity(network, tmp_path):
    plan = tiny.tiny_evaluation(network, tmp_path)
    condition = halfway(4)
    first = evaluation.evaluate(plan, condition)
    assert evaluation.evaluate(plan, halfway(4)).provenance == first.provenance
    # Other weights are another network, and not another program.
    other = dataclasses.replace(plan, network=tiny.tiny_trained(seed=5))
    programs = [identity(each, condition)["condition"]["program"] for each in (plan, other)]
    assert programs[0] == programs[1]
    refused(plan, halfway(400), "condition.program is")
    assert "program" not in identity(plan, ATTACKED)["condition"]


def corruption(change):
    """A corruption of one's own, by a function of keys and images."""

    @dataclasses.dataclass(frozen=True)
    class Mine(evaluation.Judged):
        def perturb(self, batch):
            return change(batch.keys("corruption"), batch.images), {}

    return Mine()


@pytest.mark.parametrize("change, message", [
    (lambda keys, images: images + 0.5, "got values from .* to 1.5"),
    (lambda keys, images: images - 1e-3, "got values from -0.001 to"),
    (lambda keys, images: images.at[0, 0, 0].set(jnp.nan), "got NaN"),
    (lambda keys, images: images[:, ::2], r"got shape \(4, 6, 12, 1\)"),
    (lambda keys, images: (images * 255).astype(jnp.uint8), "got uint8"),
    (lambda keys, images: images.astype(jnp.bfloat16), "got bfloat16"),
])  # fmt: skip
def test_wrong_images_of_a_corruption_are_refused(network, tmp_path, change, message):
    """They were judged: NaN gave "16.7 %"."""
    plan = tiny.tiny_evaluation(network, tmp_path)
    with pytest.raises(ValueError, match=f"^mine .*{message}"):
        evaluation.evaluate(plan, corruption(change))
    assert not list(tmp_path.glob("*.json"))


def test_wrong_images_of_any_judged_condition_are_refused(network, tmp_path):
    @dataclasses.dataclass(frozen=True)
    class Levels(evaluation.Condition):
        judged = True

        def make(self, batch):
            judged = [batch.judge(level * batch.images) for level in (0.5, 2.0)]
            return {f"right {place}": each["right"] for place, each in enumerate(judged)}

        def result(self, arrays, evaluation_):
            return evaluation.Numbers([evaluation.number("first", of=arrays["right 0"])])

    with pytest.raises(ValueError, match=r"^levels .*in \[0, 1\]"):
        evaluation.evaluate(tiny.tiny_evaluation(network, tmp_path), Levels())


def test_a_corruption_that_does_not_draw_from_its_keys_is_told(network, tmp_path):
    def of_numpy(keys, images):
        return images * np.random.default_rng().uniform(0.2, 1.0)

    def of_keys(keys, images):
        return images * jax.vmap(jax.random.uniform)(keys)[:, None, None, None]

    for change, told in ((of_numpy, True), (of_keys, False)):
        plan = tiny.tiny_evaluation(network, tmp_path / str(told))
        result = evaluation.evaluate(plan, corruption(change))
        assert any("same keys" in warning for warning in result.warnings) == told


def on_host(share):
    """A corruption of one's own in NumPy, which JAX cannot trace."""
    return corruption(lambda keys, images: jnp.asarray(np.asarray(images) * share))


def in_callback(share):
    """The same within a program of JAX."""

    def change(keys, images):
        shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
        return jax.pure_callback(lambda x: np.asarray(x) * np.float32(share), shape, images)

    return corruption(change)


@pytest.mark.parametrize("make", [on_host, in_callback])
def test_code_on_the_host_is_part_of_the_identity_and_a_caution(network, tmp_path, make):
    """Another share in a closure was the same identity, and the first number was returned."""
    plan = tiny.tiny_evaluation(network, tmp_path)
    first = evaluation.evaluate(plan, make(0.9))
    assert evaluation.evaluate(plan, make(0.9)).provenance == first.provenance
    refused(plan, make(0.1), "condition.program is")
    assert any("on the host" in warning for warning in first.warnings)
    assert not any("on the host" in each for each in evaluation.evaluate(plan, CLEAN).warnings)


def test_numbers_of_ones_own_that_have_changed_are_told(network, tmp_path, monkeypatch):
    """The arrays are the same, but not what was made of them."""
    plan = tiny.tiny_evaluation(network, tmp_path)
    first = evaluation.evaluate(plan, Brightness())
    assert evaluation.evaluate(plan, Brightness()).provenance == first.provenance

    def darkness(self, arrays, evaluation_):
        return evaluation.Numbers([evaluation.number("brightness", of=1 - arrays["mean"])])

    monkeypatch.setattr(Brightness, "result", darkness)
    refused(plan, Brightness(), "brightness is")
    again = evaluation.evaluate(dataclasses.replace(plan, overwrite=True), Brightness())
    assert again.value("brightness") == pytest.approx(1 - first.value("brightness"))


def test_images_of_another_shape_are_other_images(network, tmp_path):
    """The bytes of 16 x 4 pixels are those of 8 x 8."""
    plan = tiny.tiny_evaluation(network, tmp_path, source=reshaped(12, 12))
    first = evaluation.evaluate(plan, CLEAN)
    other = dataclasses.replace(plan, images=reshaped(24, 6))
    refused(other, CLEAN, "dataset.fingerprint is")
    alone = dataclasses.replace(other, directory=tmp_path / "alone")
    difference = results.difference(evaluation.evaluate(alone, CLEAN), first)
    assert difference.value == evaluation.evaluate(alone, CLEAN).value() - first.value()
    sums = [reshaped(*shape).checksums(np.arange(10)) for shape in ((12, 12), (24, 6))]
    assert not np.any(sums[0] == sums[1])


def reshaped(height, width):
    """The same bytes as images of a shape."""
    source = tiny.tiny_source()
    images = source._images.reshape(10, height, width, 1)
    return data.ArraySource(
        images, source._labels, class_names=source.class_names, name="tiny", split="test"
    )


def test_what_the_loss_of_an_attack_computes_is_part_of_the_identity(network, tmp_path):
    def with_loss(sign):
        def loss(logits, labels):
            return sign * jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]

        return evaluation.Attacked(dataclasses.replace(ATTACKED.attack, loss=loss))

    plan = tiny.tiny_evaluation(network, tmp_path)
    first, same, other = (identity(plan, with_loss(sign)) for sign in (-1.0, -1.0, 1.0))
    assert first == same != other
    del first["condition"]["program"], other["condition"]["program"]
    assert first == other


def test_what_a_condition_reads_is_part_of_its_identity(network, tmp_path):
    """Photographs of frost, and the weights and the V1 of a network that others are attacked by."""
    plan = tiny.tiny_evaluation(network, tmp_path)
    described = []
    for grey in (0, 1):
        photographs = corruptions.FrostImages((np.full((300, 300, 3), grey, np.uint8),))
        frost = evaluation.Corrupted("frost", 1, frost_images=photographs)
        described.append(identity(plan, frost)["condition"])
    masking = evaluation.Masking("linf", 0.05, True)
    quiet = network.with_noise(None)
    for other in (network, quiet, tiny.tiny_trained(seed=5)):
        given = dataclasses.replace(plan, others=(other,))
        described.append(identity(given, masking)["condition"])
    for surrogate in (network, quiet):
        transfer = attacks.Transfer(ATTACKED.attack, surrogate.logits_fn)
        described.append(identity(plan, evaluation.Attacked(transfer))["condition"])
    texts = [json.dumps(each) for each in described]
    assert len(set(texts)) == len(texts)


@pytest.mark.filterwarnings("ignore:logits_fn returns probabilities")
def test_every_attack_is_checked_for_masked_gradients(tmp_path):
    """Probabilities in place of logits leave more accuracy, and nothing said so."""
    trained = tiny.tiny_trained(noise=None)

    def probabilities(keys, images):
        return jax.nn.softmax(trained.logits_fn(keys, images))

    names = ("a", "b", "c")
    masked = Network("masked", probabilities, (12, 12, 1), names)
    plan = tiny.tiny_evaluation(masked, tmp_path)
    result = evaluation.evaluate(plan, ATTACKED)
    checks = quick_checks(result.arrays, masked.stochastic)
    assert [each.verdict for each in checks] == ["fail", "pass", "pass"]
    assert result.find("quick checks")["verdict"] == "fail"
    assert sum("probabilities" in warning for warning in result.warnings) == 1
    assert evaluation.evaluate(plan, CLEAN).find("quick checks") is None


KILLED = """
import sys, time
from pathlib import Path
from tests.evaluation import tiny, test_run
from vone_jax import evaluation
plan = tiny.tiny_evaluation(tiny.tiny_trained(), Path(sys.argv[1]), batch_size=1)
evaluation.evaluate(plan, test_run.ATTACKED, lambda *counted: time.sleep(float(sys.argv[2])))
"""


@pytest.mark.slow
def test_kill_9_loses_at_most_the_chunk_in_progress(tmp_path):
    def start(directory, pause):
        return subprocess.Popen([sys.executable, "-c", KILLED, str(directory), str(pause)])

    assert start(tmp_path / "whole", 0).wait() == 0
    process = start(tmp_path / "killed", 0.5)
    partial = "attack-pgd-linf-0.05-2-steps.*.partial/0*.npz"
    deadline = time.monotonic() + 300
    while len(list((tmp_path / "killed").glob(partial))) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = len(list((tmp_path / "killed").glob(partial)))
    assert 3 <= kept < 10
    assert start(tmp_path / "killed", 0).wait() == 0
    name = "attack-pgd-linf-0.05-2-steps"
    assert contents(tmp_path / "killed", name) == contents(tmp_path / "whole", name)
