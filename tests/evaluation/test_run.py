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
from tests.evaluation.result_files import roughly
from vone_jax import attacks, data, evaluation, models, results, v1
from vone_jax import mesh as meshes
from vone_jax.attacks import FGSM, PGD
from vone_jax.dataclass_json import encode
from vone_jax.network import Network

ATTACKED = evaluation.Attacked(PGD("linf", 0.05, steps=2, step_size=0.05, eot_samples=2))
STRONGEST = evaluation.Attacked(
    attacks.Strongest((ATTACKED.attack, FGSM("linf", 0.05, loss="margin")), draws=3)
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
    job = tiny.tiny_job(network, tmp_path, examples=5, seed=3, tag="mine")
    result = evaluation.evaluate(job, ATTACKED)
    assert result.name == "attack-linf-0.05-mine" and result.label == "PGD L∞ 0.05"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "attack-linf-0.05-mine.json", "attack-linf-0.05-mine.npz"
    ]  # fmt: skip
    arrays = dict(result.arrays)
    assert set(arrays) == {
        "index", "label", "key", "right", "probability_correct", "loss", "predicted", "distance",
        "scores",
    }  # fmt: skip
    np.testing.assert_array_equal(arrays["index"], [0, 2, 4, 6, 8])  # every second one
    np.testing.assert_array_equal(arrays["label"], np.arange(0, 10, 2) % 3)
    np.testing.assert_allclose(arrays["distance"], 0.05, atol=1e-6)
    right = arrays["right"]
    assert right.shape == (5, 3) and right.dtype == bool
    np.testing.assert_allclose(arrays["probability_correct"], right.mean(1))
    keys = jax.random.key_data(job.example_keys(np.arange(0, 10, 2, dtype=np.uint32)))
    np.testing.assert_array_equal(arrays["key"], keys)
    measured = result.measured
    assert measured["accuracy"] == dataclasses.asdict(results.accuracy(right))
    assert measured["right in every draw"]["value"] == right.all(1).mean()
    error = measured["standard error over draws"]["value"]
    assert error == pytest.approx(right.mean(0).std(ddof=1) / 3**0.5)
    identity = result.identity
    assert identity["condition"] == encode(ATTACKED)
    assert identity["protocol"] == encode(evaluation.Protocol("fresh", 3))
    assert (identity["seed"], identity["tag"]) == (3, "mine")
    assert identity["matmul_precision"] == "highest"
    dataset = identity["dataset"]
    assert dataset["checksum"] == data.fingerprint(data.Subset(tiny.tiny_source(), 5))
    expected = ("tiny", "test", 5, 2, 10, 3)
    assert expected == tuple(
        dataset[name] for name in ("name", "split", "examples", "stride", "total", "classes")
    )
    of = identity["network"]
    assert (of["name"], of["label"]) == ("tiny-run", "VOneResNet-18")
    assert of["checksum"] == network.checksum and of["image_size"] == 12
    assert of["trained_noise"] == of["test_noise"] == encode(v1.GaussianNoise(3.0))
    assert result.provenance["command"] == "test" and result.provenance["checkpoint_step"] == 7
    assert result.provenance["class_names"] == ["a", "b", "c"]


def test_a_seed_gives_the_same_numbers_as_before(network, tmp_path):
    """Expected are those of the commit fa2ef183, see ``tests/test_reproduction.py``."""
    job = tiny.tiny_job(network, tmp_path)
    attacked = evaluation.Attacked(PGD("linf", 0.05, steps=2, eot_samples=2))
    measured = [evaluation.evaluate(job, each) for each in (CLEAN, attacked, NOISE)]
    for result in measured:
        assert result.arrays["key"][3].tolist() == [1905052781, 3706272737]
    losses = [result.arrays["loss"].mean() for result in measured]
    np.testing.assert_allclose(losses, [1.446953, 1.568251, 1.442419], rtol=1e-5)
    # The mean over three draws is better than a draw: averaging takes the noise's entropy away.
    found = {name: each["value"] for name, each in measured[0].measured.items() if "draws" in each}
    assert len(found) == 8 and found["entropy from noise, 1 draw"] < 1e-6
    assert found["entropy from noise, 3 draws"] > 0.01
    for number in ("negative log likelihood", "Brier score"):
        assert found[f"{number}, 3 draws"] < found[f"{number}, 1 draw"] <= losses[0] + 0.1


def test_numbers_are_those_of_the_arrays(network, tmp_path):
    """The same examples through ``robust_accuracy``, with the keys of their indices."""
    job = tiny.tiny_job(network, tmp_path)
    result = evaluation.evaluate(job, ATTACKED)
    images, labels = tiny.tiny_images()
    again = evaluation.robust_accuracy(
        job.example_keys(np.arange(10, dtype=np.uint32)),
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
    assert result.measured["accuracy"] == {"value": again.accuracy, "low": low, "high": high}
    assert 0 < again.accuracy < 1


@pytest.mark.parametrize("condition", [
    ATTACKED,
    pytest.param(STRONGEST, marks=pytest.mark.slow),
    NOISE,
], ids=["attack", "strongest", "noise"])  # fmt: skip
def test_a_stopped_evaluation_goes_on(network, tmp_path, condition):
    job = tiny.tiny_job(network, tmp_path / "whole")
    evaluation.evaluate(job, condition)
    seen = []

    def stop_after_two(*counted):
        seen.append(counted)
        if len(seen) == 3:  # 0 examples found, then two batches
            raise Stop

    half = dataclasses.replace(job, directory=tmp_path / "half")
    with pytest.raises(Stop):
        evaluation.evaluate(half, condition, stop_after_two)
    assert not list((tmp_path / "half").glob("*.json"))
    # What a killed writer leaves behind.
    (tmp_path / "half" / f"{condition.name}.partial" / ".00000008.npz.tmp").write_bytes(b"PK")
    seen.clear()
    evaluation.evaluate(half, condition, lambda *counted: seen.append(counted))
    assert seen == [(8, True), (2, False)]
    assert contents(tmp_path / "half", condition.name) == contents(
        tmp_path / "whole", condition.name
    )
    assert not list((tmp_path / "half").glob("*.partial"))
    # A finished result is used again, and what a killed process has left is removed.
    (tmp_path / "half" / f"{condition.name}.partial").mkdir()
    seen.clear()
    evaluation.evaluate(half, condition, lambda *counted: seen.append(counted))
    assert seen == [(10, True)] and not list((tmp_path / "half").glob("*.partial"))


def test_the_images_that_an_attack_keeps_are_spread_over_the_examples(network, tmp_path):
    kept = dataclasses.replace(ATTACKED, kept=3)
    result = evaluation.evaluate(tiny.tiny_job(network, tmp_path), kept)
    assert result.arrays["kept"].tolist() == [0, 3, 6]
    images, _ = tiny.tiny_images()
    np.testing.assert_allclose(result.arrays["original"], images[[0, 3, 6]], atol=1e-7)
    moved = result.arrays["adversarial"] - result.arrays["original"]
    np.testing.assert_allclose(np.abs(moved).max(axis=(1, 2, 3)), 0.05, atol=1e-6)
    assert len(result.arrays["right"]) == 10


@pytest.mark.slow
def test_batch_size_and_devices_change_nothing(network, tmp_path):
    made = []
    for devices, batch_size in ((1, 4), (4, 8)):
        directory = tmp_path / f"{devices}-{batch_size}"
        for condition in (ATTACKED, NOISE, STRONGEST):
            job = tiny.tiny_job(network, directory, devices=devices, batch_size=batch_size)
            made.append(evaluation.evaluate(job, condition))
    for result, reference in zip(made[3:], made[:3], strict=True):
        assert result.name == reference.name
        assert result.measured == roughly(reference.measured)
        for field, values in reference.arrays.items():
            if np.issubdtype(values.dtype, np.floating):
                np.testing.assert_allclose(result.arrays[field], values, rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(result.arrays[field], values)


def refused(job, condition, *parts):
    with pytest.raises(results.ResultError) as caught:
        evaluation.evaluate(job, condition)
    for part in ("another evaluation", *parts):
        assert part in str(caught.value)


def test_other_evaluations_are_not_mixed(network, tmp_path):
    job = tiny.tiny_job(network, tmp_path)
    first = evaluation.evaluate(job, CLEAN)
    other = dataclasses.replace(job, seed=1)
    refused(other, CLEAN, "seed is 1, was 0", "--tag")
    refused(dataclasses.replace(job, network=tiny.tiny_trained(seed=5)), CLEAN, "network.checksum")
    cropped = dataclasses.replace(network, preprocessing=data.Preprocessing(center_crop=0.5))
    refused(dataclasses.replace(job, network=cropped), CLEAN, "center_crop is 0.5, was null")
    changed = tiny.tiny_source()
    changed.checksums = lambda indices: np.zeros(len(indices), np.uint32)
    refused(dataclasses.replace(job, source=changed), CLEAN, "dataset.checksum is")
    tagged = evaluation.evaluate(dataclasses.replace(other, tag="again"), CLEAN)
    assert tagged.name == "clean-again" and tagged.identity != first.identity
    # Chunks, too.
    with pytest.raises(Stop):
        evaluation.evaluate(job, NOISE, stop)
    refused(other, NOISE, "seed is 1, was 0")
    # A field that a stored identity lacks is a difference.
    path = tmp_path / "clean.json"
    record = json.loads(path.read_text())
    del record["identity"]["dataset"]["checksum"]
    path.write_text(json.dumps(record))
    refused(job, CLEAN, "was absent")


def test_processes_with_other_evaluations_are_refused(network, tmp_path, monkeypatch):
    monkeypatch.setattr(meshes, "agree", lambda decide: [{"seed": 1}, 4])
    with pytest.raises(results.ResultError, match="the processes evaluate different things"):
        evaluation.evaluate(tiny.tiny_job(network, tmp_path / "results"), CLEAN)
    assert not (tmp_path / "results").exists()


def test_protocols_have_their_own_names(network, tmp_path):
    for protocol, name in (
        (evaluation.Protocol("frozen", 1), "clean-frozen"),
        (evaluation.Protocol("fresh", 2, "vote", 3), "clean-vote-3"),
    ):
        job = tiny.tiny_job(network, tmp_path, protocol=protocol)
        result = evaluation.evaluate(job, CLEAN)
        assert (result.name, result.identity["protocol"]) == (name, encode(protocol))


def test_the_front_end_has_its_kernels_and_responses(network, tmp_path):
    result = evaluation.evaluate(tiny.tiny_job(network, tmp_path), evaluation.FrontEnd())
    arrays = result.arrays
    assert result.name == "v1" and result.measured == {}
    np.testing.assert_array_equal(arrays["kernels_in_phase"], tiny.CONFIG.gabor_kernels().in_phase)
    assert arrays["image"].shape == (12, 12, 1) and arrays["sf"].shape == (4,)
    assert arrays["responses_clean"].shape == arrays["responses_noisy"].shape
    assert np.any(arrays["responses_clean"] != arrays["responses_noisy"])
    # It does not depend on how decisions are made.
    again = tiny.tiny_job(network, tmp_path, protocol=evaluation.Protocol("frozen", 1))
    assert evaluation.evaluate(again, evaluation.FrontEnd()).provenance == result.provenance
    with pytest.raises(ValueError, match="suite v1 is for VOneNets"):
        evaluation.FrontEnd().check(Network("x", network.logits_fn, (12, 12, 1)))


def test_logits_that_are_not_finite_are_found_again(tmp_path):
    bad = float(tiny.tiny_images()[0][7, 0, 0, 0])

    def logits_fn(keys, images):
        first = images[:, 0, 0, :]
        return jnp.where(first == bad, jnp.nan, first * jnp.arange(3.0)[None])

    network = Network("nan", logits_fn, (12, 12, 1), ("a", "b", "c"))
    job = tiny.tiny_job(network, tmp_path, batch_size=5)
    with pytest.raises(FloatingPointError, match=r"^nan, attack.* begins at example 5 of the"):
        evaluation.evaluate(job, ATTACKED)
    with pytest.raises(FloatingPointError, match=r"^nan, clean: .* for the examples \[7\]"):
        evaluation.evaluate(job, CLEAN)


class Watched(evaluation.Clean):
    """The images as they are; notes the precision in which they are measured."""

    def measure(self, trial):
        Watched.seen = jax.config.jax_default_matmul_precision
        return super().measure(trial)


def test_the_precision_of_products_is_used_and_told_apart(network, tmp_path, monkeypatch):
    """The devices play a GPU, since a CPU has the highest precision whatever is asked for."""
    job = tiny.tiny_job(network, tmp_path)
    assert evaluation.evaluate(job, Watched()).identity["matmul_precision"] == "highest"
    assert Watched.seen == "highest"
    monkeypatch.setattr(evaluation.Job, "matmul_precision", "default")
    refused(job, Watched(), 'matmul_precision is "default", was "highest"')


def test_the_time_of_a_long_attack_is_known_before_it_starts(network, tmp_path):
    job = tiny.tiny_job(network, tmp_path)
    long = evaluation.Attacked(PGD("linf", 0.05, steps=100))
    # The time itself depends on how busy the machine is.
    assert evaluation.expected_seconds(job, CLEAN) == 0 < evaluation.expected_seconds(job, long)
    assert not list(tmp_path.iterdir())


@dataclasses.dataclass(frozen=True)
class Brightness(evaluation.Condition):
    """A kind of measurement of one's own: the mean of each image."""

    channel: int = 0
    name = "brightness"

    def measure(self, trial):
        return {"mean": trial.images[..., self.channel].mean(axis=(1, 2))}

    def summary(self, arrays):
        return evaluation.Summary({"brightness": {"value": float(arrays["mean"].mean())}})


def test_a_kind_of_measurement_is_one_class(network, tmp_path):
    """It is stored, resumed and shown in the frame, and no other module knows it."""
    job = tiny.tiny_job(network, tmp_path)
    with pytest.raises(Stop):
        evaluation.evaluate(job, Brightness(), stop)
    result = evaluation.evaluate(job, Brightness())
    images, _ = tiny.tiny_images()
    assert result.value("brightness") == pytest.approx(images.mean(), rel=1e-5)
    frame = results.load([tmp_path]).to_frame()
    assert frame["condition.type"].tolist() == ["Brightness"]
    assert frame["condition.channel"].tolist() == [0]


@dataclasses.dataclass(frozen=True)
class Long(Brightness):
    """As much work per image as a noisy attack on large images."""

    def passes(self, draws):
        return 30_000


def test_the_progress_moves_within_few_images_of_long_work(network, tmp_path):
    """Unless a size of batches is given, those of long work are small. Results are the same."""
    made = {}
    for condition in (Brightness(), Long()):
        job = tiny.tiny_job(network, tmp_path / type(condition).__name__, batch_size=None)
        seen = made[type(condition)] = []
        result = evaluation.evaluate(job, condition, lambda *counted, to=seen: to.append(counted))
        seen[0] = result.measured  # in the place of the examples found
    assert made[Brightness] == [made[Long][0], (10, False)]
    assert made[Long][1:] == [(4, False), (4, False), (2, False)]


KILLED = """
import sys, time
from pathlib import Path
from tests.evaluation import tiny, test_run
from vone_jax import evaluation
job = tiny.tiny_job(tiny.tiny_trained(), Path(sys.argv[1]), batch_size=1)
evaluation.evaluate(job, test_run.ATTACKED, lambda *counted: time.sleep(float(sys.argv[2])))
"""


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_kill_9_loses_at_most_the_chunk_in_progress(tmp_path):
    def start(directory, pause):
        return subprocess.Popen([sys.executable, "-c", KILLED, str(directory), str(pause)])

    assert start(tmp_path / "whole", 0).wait() == 0
    process = start(tmp_path / "killed", 0.5)
    partial = tmp_path / "killed" / "attack-linf-0.05.partial"
    deadline = time.monotonic() + 300
    while len(list(partial.glob("0*.npz"))) < 3:
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    kept = len(list(partial.glob("0*.npz")))
    assert 3 <= kept < 10
    assert start(tmp_path / "killed", 0).wait() == 0
    assert contents(tmp_path / "killed", "attack-linf-0.05") == contents(
        tmp_path / "whole", "attack-linf-0.05"
    )
