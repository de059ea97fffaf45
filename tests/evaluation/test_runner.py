"""Result files: what is in them, that a killed evaluation goes on, that nothing is mixed."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import jax
import numpy as np
import pytest

from tests.evaluation import tiny
from vone_jax import evaluation, models
from vone_jax.attacks import FGSM, PGD
from vone_jax.evaluation import store
from vone_jax.report.load import load_runs

ATTACKED = evaluation.Attacked(PGD("linf", 0.05, steps=2, eot_samples=2))
WORST = evaluation.WorstOf((ATTACKED.attack, FGSM("linf", 0.05, loss="margin")))
NOISE = evaluation.Corrupted("gaussian_noise", 5)


@pytest.fixture(scope="module")
def subject():
    return tiny.tiny_subject()


def contents(results, name):
    """The JSON without times, and the bytes of the NPZ."""
    record = json.loads((results / f"{name}.json").read_text())
    for field in ("started", "wall_seconds"):
        del record[field]
    return record, (results / f"{name}.npz").read_bytes()


class Stop(Exception):
    pass


def test_a_result_says_what_was_measured(subject, tmp_path):
    job = tiny.tiny_job(subject, tmp_path / "results", examples=5, seed=3)
    record = evaluation.evaluate(job, ATTACKED)
    assert record == json.loads((tmp_path / "results/attack-linf-0.05.json").read_text())
    with np.load(tmp_path / "results/attack-linf-0.05.npz") as archive:
        arrays = dict(archive)
    np.testing.assert_array_equal(arrays["index"], [0, 2, 4, 6, 8])  # every second one
    np.testing.assert_array_equal(arrays["label"], np.arange(0, 10, 2) % 3)
    np.testing.assert_allclose(arrays["distance"], 0.05, atol=1e-6)
    assert set(arrays) == {
        "index", "label", "key", "right", "probability_correct", "loss", "distance",
        "attack", "eps", "draws",
    }  # fmt: skip
    assert arrays["right"].shape == (5, 3) and arrays["right"].dtype == bool
    np.testing.assert_allclose(arrays["probability_correct"], arrays["right"].mean(1))
    assert (str(arrays["attack"]), arrays["eps"]) == (repr(ATTACKED.attack), 0.05)
    assert arrays["draws"] == 3
    keys = jax.random.key_data(job.example_keys(np.arange(0, 10, 2, dtype=np.uint32)))
    np.testing.assert_array_equal(arrays["key"], keys)
    each = arrays["right"].mean(0)
    assert record["between_draws"]["accuracy"] == pytest.approx(each.tolist())
    assert record["between_draws"]["standard_error"] == pytest.approx(each.std(ddof=1) / 3**0.5)
    assert record["statistics"]["right_in_every_draw"] == arrays["right"].all(1).mean()
    assert record["successes"] == {"wrong": int((~arrays["right"]).sum()), "decisions": 15}
    assert record["accuracy"] == pytest.approx(arrays["probability_correct"].mean())
    assert record["sums"]["seen"] == 5 and record["dataset"]["stride"] == 2
    assert record["model"] == {
        "name": "vone_resnet18",
        "label": "VOneResNet-18",
        "stochastic": True,
        "parameters": sum(x.size for x in jax.tree.leaves(subject.variables["params"])),
    }
    assert record["condition"]["attack"] == repr(ATTACKED.attack)
    assert record["protocol"] == {
        "name": "fresh noise", "noise": "fresh", "draws": 3, "decision": "single", "averaged": 1
    }  # fmt: skip
    assert (record["condition"]["eot_samples"], record["condition"]["estimator"]) == (
        2, "mean_loss"
    )  # fmt: skip
    assert record["key"]["seed"] == 3 and record["checkpoint_step"] == 7
    assert record["matmul_precision"] == "highest" and record["config"] == {"seed": 0}
    files = sorted(path.name for path in (tmp_path / "results").iterdir())
    assert files == ["attack-linf-0.05.json", "attack-linf-0.05.npz"]


def test_numbers_are_those_of_the_arrays(subject, tmp_path):
    """The same examples through ``robust_accuracy``, with the keys of their indices."""
    job = tiny.tiny_job(subject, tmp_path)
    evaluation.evaluate(job, ATTACKED)
    source = tiny.tiny_source()
    images = np.stack([source[i]["image"] for i in range(10)]).astype(np.float32) / 255
    result = evaluation.robust_accuracy(
        job.example_keys(np.arange(10, dtype=np.uint32)),
        models.logits_fn(subject.model, subject.variables),
        images,
        np.arange(10) % 3,
        attack=ATTACKED.attack,
        draws=3,
        batch_size=4,
    )
    with np.load(tmp_path / "attack-linf-0.05.npz") as archive:
        np.testing.assert_array_equal(archive["probability_correct"], result.per_example)
        np.testing.assert_allclose(archive["loss"], result.loss, rtol=1e-6)
    assert 0 < result.accuracy < 1


@pytest.mark.parametrize("condition", [ATTACKED, WORST, NOISE], ids=["attack", "worst", "noise"])
def test_a_stopped_evaluation_goes_on(subject, tmp_path, condition):
    job = tiny.tiny_job(subject, tmp_path / "whole")
    evaluation.evaluate(job, condition)

    seen = []

    def stop_after_two(count):
        seen.append(count)
        if len(seen) == 3:  # 0 examples found, then two batches
            raise Stop

    half = dataclasses.replace(job, results=tmp_path / "half")
    with pytest.raises(Stop):
        evaluation.evaluate(half, condition, stop_after_two)
    assert not list((tmp_path / "half").glob("*.json"))
    # What a killed writer leaves behind.
    (tmp_path / "half" / f"{condition.name}.partial" / ".00000008.npz.tmp").write_bytes(b"PK")
    seen.clear()
    evaluation.evaluate(half, condition, seen.append)
    assert seen == [8, 2]
    assert contents(tmp_path / "half", condition.name) == contents(
        tmp_path / "whole", condition.name
    )
    assert not list((tmp_path / "half").glob("*.partial"))
    seen.clear()
    evaluation.evaluate(half, condition, seen.append)
    assert seen == [10]  # found finished


def test_batch_size_and_devices_change_nothing(subject, tmp_path):
    found = []
    for devices, batch_size in ((1, 4), (4, 8)):
        results = tmp_path / f"{devices}-{batch_size}"
        for condition in (ATTACKED, NOISE, WORST):
            job = tiny.tiny_job(subject, results, devices=devices, batch_size=batch_size)
            record = evaluation.evaluate(job, condition)
            with np.load(results / f"{condition.name}.npz") as archive:
                found.append((condition.name, record["accuracy"], dict(archive)))
    for (name, accuracy, arrays), reference in zip(found[3:], found[:3], strict=True):
        assert (name, accuracy) == reference[:2]
        for field, values in reference[2].items():
            if np.issubdtype(values.dtype, np.floating):
                np.testing.assert_allclose(arrays[field], values, rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(arrays[field], values)


def test_other_evaluations_are_not_mixed(subject, tmp_path):
    clean = evaluation.Clean()
    job = tiny.tiny_job(subject, tmp_path)
    first = evaluation.evaluate(job, clean)
    other = dataclasses.replace(job, seed=1)
    with pytest.raises(
        evaluation.ResultError, match=r"another evaluation \(key.seed is 1, was 0\)"
    ):
        evaluation.evaluate(other, clean)
    trained_on = dataclasses.replace(job, subject=tiny.tiny_subject(seed=5))
    with pytest.raises(evaluation.ResultError, match="config.seed is 5, was 0; weights is"):
        evaluation.evaluate(trained_on, clean)
    tagged = evaluation.evaluate(dataclasses.replace(other, tag="again"), clean)
    assert tagged["name"] == "clean-again" and tagged["config_hash"] != first["config_hash"]
    replaced = evaluation.evaluate(dataclasses.replace(other, overwrite=True), clean)
    assert replaced["key"]["seed"] == 1
    # Chunks, too.
    with pytest.raises(Stop):
        evaluation.evaluate(job, NOISE, lambda count: (_ for _ in ()).throw(Stop))
    with pytest.raises(evaluation.ResultError, match="key.seed is 1"):
        evaluation.evaluate(other, NOISE)
    evaluation.evaluate(dataclasses.replace(other, overwrite=True), NOISE)


def test_damaged_files_are_named(subject, tmp_path):
    job = tiny.tiny_job(subject, tmp_path)
    with pytest.raises(Stop):
        evaluation.evaluate(job, NOISE, lambda count: (_ for _ in ()).throw(Stop))
    chunk = tmp_path / "corruption-gaussian_noise-5.partial" / "00000000.npz"
    chunk.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(evaluation.ResultError, match="00000000.npz is damaged"):
        evaluation.evaluate(job, NOISE)
    evaluation.evaluate(job, evaluation.Clean())
    arrays = tmp_path / "clean.npz"
    arrays.write_bytes(arrays.read_bytes()[:-40])
    with pytest.raises(evaluation.ResultError, match="clean.npz is damaged"):
        evaluation.evaluate(job, evaluation.Clean())
    (tmp_path / "clean.json").write_text('{"format": 1,')
    with pytest.raises(evaluation.ResultError, match="clean.json is damaged"):
        evaluation.evaluate(job, evaluation.Clean())


def test_every_flipped_bit_of_a_chunk_is_found_or_harmless(tmp_path):
    """Its lists of arrays too: zipfile passes over an array that its list does not have."""
    identity = dict.fromkeys(store.IDENTITY, 1) | {"name": "clean"}
    store.open_chunks(tmp_path, identity)
    arrays = {"index": np.arange(3), "right": np.array([True, False, True])}
    store.write_chunk(tmp_path, "clean", 0, arrays)
    chunk = tmp_path / "clean.partial" / "00000000.npz"
    whole = chunk.read_bytes()
    found = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        chunk.write_bytes(damaged)
        try:
            read = store.open_chunks(tmp_path, identity)[0]
        except store.ResultError:
            found += 1
        else:
            assert read.keys() == arrays.keys()
            assert all(np.array_equal(read[name], arrays[name]) for name in arrays)
    assert found > 4 * len(whole)


def test_frozen_noise_has_its_own_name(subject, tmp_path):
    job = tiny.tiny_job(subject, tmp_path, protocol=evaluation.Protocol("frozen", 1))
    record = evaluation.evaluate(job, evaluation.Clean())
    assert record["name"] == "clean-frozen"
    assert (record["protocol"]["noise"], record["protocol"]["draws"]) == ("frozen", 1)


def test_an_averaged_decision_has_its_own_name(subject, tmp_path):
    protocol = evaluation.Protocol("fresh", 2, "vote", 3)
    job = tiny.tiny_job(subject, tmp_path, protocol=protocol)
    record = evaluation.evaluate(job, evaluation.Clean())
    assert record["name"] == "clean-vote-3" and record["protocol"] == {
        "name": "averaged decision", "noise": "fresh", "draws": 2, "decision": "vote", "averaged": 3
    }  # fmt: skip


def test_a_network_without_noise_has_one_draw(tmp_path):
    job = tiny.tiny_job(tiny.tiny_subject(noise=None), tmp_path)
    record = evaluation.evaluate(job, evaluation.Clean())
    assert (record["protocol"]["name"], record["protocol"]["draws"]) == ("no noise", 1)
    assert record["protocol"]["noise"] == "none"
    assert record["between_draws"]["standard_error"] is None
    with np.load(tmp_path / "clean.npz") as archive:
        assert set(archive["probability_correct"]) <= {0.0, 1.0}


def test_noise_free_gradients_attack_the_quiet_network(subject, tmp_path):
    quiet = tiny.tiny_subject(noise=None)
    surrogate = evaluation.Attacked(PGD("linf", 0.05, steps=2), noise_free_gradients=True)
    job = tiny.tiny_job(subject, tmp_path, batch_size=10)
    record = evaluation.evaluate(job, surrogate)
    assert record["condition"]["attack"].endswith(" on the network without noise")
    source = tiny.tiny_source()
    images = np.stack([source[i]["image"] for i in range(10)]).astype(np.float32) / 255
    expected = evaluation.robust_accuracy(
        job.example_keys(np.arange(10, dtype=np.uint32)),
        models.logits_fn(subject.model, subject.variables),
        images,
        np.arange(10) % 3,
        attack=surrogate.attack,
        surrogate=models.logits_fn(quiet.model, subject.variables),
        draws=3,
    )
    with np.load(tmp_path / "attack-linf-0.05-noise-free.npz") as archive:
        np.testing.assert_array_equal(archive["probability_correct"], expected.per_example)


def test_exhibits_hold_what_the_report_shows(subject, tmp_path):
    """Read back by the report itself, which checks every array."""
    job = tiny.tiny_job(subject, tmp_path / "tiny-run" / "results")
    evaluation.evaluate(job, evaluation.Clean())
    evaluation.evaluate(job, ATTACKED)
    gallery = evaluation.gallery(job, ATTACKED, 3)
    front_end = evaluation.front_end(job)
    assert evaluation.gallery(job, ATTACKED, 3) == gallery  # found finished
    assert evaluation.front_end(job) == front_end
    (run,) = load_runs([tmp_path / "tiny-run"])
    shown = {result.kind: result for result in run.results}
    assert set(shown) == {"clean", "attack", "gallery", "v1"}
    images = shown["gallery"].arrays
    assert images["images"].shape == (3, 12, 12, 1)
    assert np.abs(images["adversarial"] - images["images"]).max() == pytest.approx(0.05, abs=1e-6)
    v1 = shown["v1"].arrays
    assert v1["kernels_in_phase"].shape == (4, 5, 5) and v1["simple_channels"] == 2
    assert v1["responses_clean"].shape == (3, 3, 4)
    assert np.any(v1["responses_noisy"] != v1["responses_clean"])
    np.testing.assert_array_equal(v1["image"], images["images"][0])
    np.testing.assert_allclose(v1["published_sf_edges"][[0, -1]], [0.5, 8.0])


def test_jobs_that_do_not_fit_are_refused(subject, tmp_path):
    with pytest.raises(ValueError, match="batch_size must be a positive multiple"):
        tiny.tiny_job(subject, tmp_path, devices=4, batch_size=6)
    for fields, message in ((dict(seed=-1), "seed"), (dict(tag="a/b"), "tag"),
                            (dict(workers=-1), "workers")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{message} must"):
            tiny.tiny_job(subject, tmp_path, **fields)
    with pytest.raises(ValueError, match="examples must be between 1 and the 10"):
        tiny.tiny_job(subject, tmp_path, examples=11)
    grey = tiny.tiny_job(subject, tmp_path)
    with pytest.raises(ValueError, match="3 channels"):
        colour = evaluation.Examples(tiny.tiny_source(channels=3))
        dataclasses.replace(grey, examples=colour)


def test_a_result_that_another_process_is_writing_is_refused(subject, tmp_path):
    job = tiny.tiny_job(subject, tmp_path)
    with store.locked(tmp_path, "clean"):
        with pytest.raises(evaluation.ResultError, match="another process is writing .*/clean; "):
            evaluation.evaluate(job, evaluation.Clean())
        evaluation.evaluate(job, NOISE)
    assert evaluation.evaluate(job, evaluation.Clean())["name"] == "clean"
    # What a process leaves that was killed between publishing and tidying up.
    (tmp_path / "clean.partial").mkdir()
    (tmp_path / ".clean.lock").touch()
    evaluation.evaluate(job, evaluation.Clean())
    names = {"clean.json", "clean.npz", f"{NOISE.name}.json", f"{NOISE.name}.npz"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_files_appear_complete(tmp_path, monkeypatch):
    """A write that fails half-way leaves no file under the final name."""

    def fail(file, **arrays):
        file.write(b"PK")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        store.publish(tmp_path, {"name": "clean"}, {})
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".json", ".npz")]


KILLED = """
import sys, time
from pathlib import Path
import jax
jax.config.update("jax_default_matmul_precision", "highest")
from tests.evaluation import tiny, test_runner
from vone_jax import evaluation
job = tiny.tiny_job(tiny.tiny_subject(), Path(sys.argv[1]), batch_size=1)
evaluation.evaluate(job, test_runner.ATTACKED, lambda count: time.sleep(float(sys.argv[2])))
"""


@pytest.mark.slow
def test_kill_9_loses_at_most_the_chunk_in_progress(tmp_path):
    def start(results, pause):
        return subprocess.Popen([sys.executable, "-c", KILLED, str(results), str(pause)])

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
