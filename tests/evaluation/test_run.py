"""Result files: what is in them, that a killed evaluation goes on, that nothing is mixed."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import time
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.damage import flipped_bits
from tests.evaluation import tiny
from vone_jax import data, evaluation, models, results, training
from vone_jax import mesh as meshes
from vone_jax.attacks import FGSM, PGD
from vone_jax.cli.evaluate import line, summary
from vone_jax.evaluation.run import Store
from vone_jax.network import Network

ATTACKED = evaluation.Attacked(PGD("linf", 0.05, steps=2, eot_samples=2))
WORST = evaluation.WorstOf((ATTACKED.attack, FGSM("linf", 0.05, loss="margin")))
NOISE = evaluation.Corrupted("gaussian_noise", 5)


@pytest.fixture(scope="module")
def network():
    return tiny.tiny_trained()


def contents(directory, name):
    """The JSON without times, and the bytes of the NPZ."""
    record = json.loads((directory / f"{name}.json").read_text())
    for field in ("started", "wall_seconds"):
        del record["provenance"][field]
    return record, (directory / f"{name}.npz").read_bytes()


def test_processes_with_other_evaluations_are_refused(network, tmp_path, monkeypatch):
    """The parts are compared before any file is read or written."""
    parts = []
    monkeypatch.setattr(meshes, "differing", lambda values: parts.append(values) or [*values])
    job = tiny.tiny_job(network, tmp_path / "results")
    others = {
        "networks": {"network": tiny.tiny_trained(seed=1)},
        "images": {"examples": data.Subset(tiny.tiny_source(9))},
        "--batch-size": {"batch_size": 8},
        "settings": {"seed": 1},
    }
    for fields in ({}, *others.values()):
        with pytest.raises(evaluation.OtherEvaluationError, match="networks, images, --batch-size"):
            evaluation.evaluate(tiny.changed(job, **fields), evaluation.Clean())
    first, *rest = parts
    for part, values in zip(others, rest, strict=True):
        assert {name for name in first if repr(first[name]) != repr(values[name])} == {part}
    assert not job.directory.exists()


class Stop(Exception):
    pass


def test_a_result_says_what_was_measured(network, tmp_path):
    job = tiny.tiny_job(network, tmp_path, examples=5, seed=3, versions={"jax": "1"})
    result = evaluation.evaluate(job, ATTACKED)
    assert results.to_json(result) == json.loads((tmp_path / "attack-linf-0.05.json").read_text())
    arrays = results.read_arrays(tmp_path / "attack-linf-0.05.npz")
    np.testing.assert_array_equal(arrays["index"], [0, 2, 4, 6, 8])  # every second one
    np.testing.assert_array_equal(arrays["label"], np.arange(0, 10, 2) % 3)
    np.testing.assert_allclose(arrays["distance"], 0.05, atol=1e-6)
    assert set(arrays) == set(result.arrays) == {
        "index", "label", "key", "right", "probability_correct", "loss", "predicted", "distance",
    }  # fmt: skip
    assert arrays["right"].shape == (5, 3) and arrays["right"].dtype == bool
    np.testing.assert_allclose(arrays["probability_correct"], arrays["right"].mean(1))
    assert (str(result.attack), result.attack.eps) == (repr(ATTACKED.attack), 0.05)
    assert result.protocol.draws == 3
    keys = jax.random.key_data(job.example_keys(np.arange(0, 10, 2, dtype=np.uint32)))
    np.testing.assert_array_equal(arrays["key"], keys)
    measured, each = result.measured, arrays["right"].mean(0)
    assert measured.between_draws.accuracy == pytest.approx(each.tolist())
    assert measured.between_draws.standard_error == pytest.approx(each.std(ddof=1) / 3**0.5)
    assert measured.right_in_every_draw == arrays["right"].all(1).mean()
    assert result.accuracy == measured.accuracy
    assert measured.accuracy == pytest.approx(arrays["probability_correct"].mean())
    assert measured.seen == 5 and measured.correct == pytest.approx(arrays["right"].sum() / 3)
    assert result.interval == results.wilson(measured.correct, 5)
    noise = results.Noise("gaussian", 3.0)
    assert result.network == results.Network(
        name="vone_resnet18",
        label="VOneResNet-18",
        stochastic=True,
        parameters=sum(x.size for x in jax.tree.leaves(network.variables["params"])),
        weights=network.weights,
        checkpoint_step=7,
        trained_noise=noise,
        test_noise=noise,
        config={"seed": 0, "preprocessing": dataclasses.asdict(data.Preprocessing())},
        image_size=12,
    )
    checksum = data.Subset(tiny.tiny_source(), 5).checksum
    assert result.dataset == results.Dataset("tiny", "test", 5, 2, 10, ("a", "b", "c"), checksum)
    assert str(result.condition.attacks[0]) == repr(ATTACKED.attack)
    assert (result.condition.eot_samples, result.condition.estimator) == (2, "mean_loss")
    assert (result.condition.attack_noise, result.attack.eps_label) == ("same", "0.05")
    assert result.protocol == evaluation.Protocol("fresh", 3, "single", 1)
    assert result.protocol_label == "fresh noise, 3 draws"
    assert (result.run, result.kind, result.key.seed) == ("tiny-run", "attack", 3)
    made = result.provenance
    assert (made.versions, made.command) == ({"jax": "1"}, "test")
    assert result.matmul_precision == "highest"
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "attack-linf-0.05.json", "attack-linf-0.05.npz"
    ]  # fmt: skip


def test_a_seed_gives_the_same_numbers_as_before(network, tmp_path):
    """Expected are those of the commit fa2ef183, see ``tests/test_reproduction.py``."""
    job = tiny.tiny_job(network, tmp_path)
    measured = [evaluation.evaluate(job, each) for each in (evaluation.Clean(), ATTACKED, NOISE)]
    for result in measured:
        assert result.arrays["key"][3].tolist() == [1905052781, 3706272737]
    losses = [result.arrays["loss"].mean() for result in measured]
    np.testing.assert_allclose(losses, [1.446953, 1.568251, 1.442419], rtol=1e-5)


def test_the_seconds_of_a_result_include_the_loading_of_images(network, tmp_path):
    class Slow(data.Subset):
        def __getitem__(self, index):
            time.sleep(0.5 * (index == 0))
            return super().__getitem__(index)

    job = tiny.tiny_job(network, tmp_path, tag="compiled")
    evaluation.evaluate(job, evaluation.Clean())
    job = tiny.changed(job, tag="slow", examples=Slow(tiny.tiny_source()))
    started = time.perf_counter()
    seconds = evaluation.evaluate(job, evaluation.Clean()).provenance.wall_seconds
    assert 0.5 <= seconds <= time.perf_counter() - started


def test_numbers_are_those_of_the_arrays(network, tmp_path):
    """The same examples through ``robust_accuracy``, with the keys of their indices."""
    job = tiny.tiny_job(network, tmp_path)
    evaluation.evaluate(job, ATTACKED)
    images, labels = tiny.tiny_images()
    result = evaluation.robust_accuracy(
        job.example_keys(np.arange(10, dtype=np.uint32)),
        models.logits_fn(network.model, network.variables),
        images,
        labels,
        attack=ATTACKED.attack,
        draws=3,
        batch_size=4,
    )
    with np.load(tmp_path / "attack-linf-0.05.npz") as archive:
        np.testing.assert_array_equal(archive["probability_correct"], result.per_example)
        np.testing.assert_allclose(archive["loss"], result.loss, rtol=1e-6)
    assert 0 < result.accuracy < 1


@pytest.mark.parametrize("condition", [
    ATTACKED,
    pytest.param(WORST, marks=pytest.mark.slow),
    NOISE,
], ids=["attack", "worst", "noise"])  # fmt: skip
def test_a_stopped_evaluation_goes_on(network, tmp_path, condition):
    job = tiny.tiny_job(network, tmp_path / "whole")
    evaluation.evaluate(job, condition)

    seen = []

    def note(count, found):
        seen.append((count, found))

    def stop_after_two(*counted):
        note(*counted)
        if len(seen) == 3:  # 0 examples found, then two batches
            raise Stop

    half = dataclasses.replace(job, directory=tmp_path / "half")
    with pytest.raises(Stop):
        evaluation.evaluate(half, condition, progress=stop_after_two)
    assert not list((tmp_path / "half").glob("*.json"))
    # What a killed writer leaves behind.
    (tmp_path / "half" / f"{condition.name}.partial" / ".00000008.npz.tmp").write_bytes(b"PK")
    seen.clear()
    evaluation.evaluate(half, condition, progress=note)
    assert seen == [(8, True), (2, False)]
    assert contents(tmp_path / "half", condition.name) == contents(
        tmp_path / "whole", condition.name
    )
    assert not list((tmp_path / "half").glob("*.partial"))
    seen.clear()
    evaluation.evaluate(half, condition, progress=note)
    assert seen == [(10, True)]


@pytest.mark.parametrize("first", [0, 3])
def test_images_for_a_gallery_are_those_of_all_chunks_or_none(network, tmp_path, first):
    """A call goes on with what another one has begun; only one of them wants a gallery."""
    job = tiny.tiny_job(network, tmp_path)
    begun, ended = (dataclasses.replace(ATTACKED, kept=kept) for kept in (first, 3 - first))

    def stop(count, found):
        if not found:
            raise Stop

    with pytest.raises(Stop):
        evaluation.evaluate(job, begun, progress=stop)
    result = evaluation.evaluate(job, ended)
    assert len(result.arrays["right"]) == 10
    assert not {"adversarial", "kept"} & result.arrays.keys()


@pytest.mark.slow
def test_batch_size_and_devices_change_nothing(network, tmp_path):
    made = []
    for devices, batch_size in ((1, 4), (4, 8)):
        directory = tmp_path / f"{devices}-{batch_size}"
        for condition in (ATTACKED, NOISE, WORST):
            job = tiny.tiny_job(network, directory, devices=devices, batch_size=batch_size)
            made.append(evaluation.evaluate(job, condition))
    for result, reference in zip(made[3:], made[:3], strict=True):
        assert (result.name, result.accuracy) == (reference.name, reference.accuracy)
        for field, values in reference.arrays.items():
            if np.issubdtype(values.dtype, np.floating):
                np.testing.assert_allclose(result.arrays[field], values, rtol=1e-5, atol=1e-6)
            else:
                np.testing.assert_array_equal(result.arrays[field], values)


def test_other_evaluations_are_not_mixed(network, tmp_path):
    clean = evaluation.Clean()
    job = tiny.tiny_job(network, tmp_path)
    first = evaluation.evaluate(job, clean)
    other = tiny.changed(job, seed=1)
    with pytest.raises(
        evaluation.ResultError, match=r"another evaluation \(key.seed is 1, was 0\)"
    ):
        evaluation.evaluate(other, clean)
    trained_on = dataclasses.replace(job, network=tiny.tiny_trained(seed=5))
    with pytest.raises(evaluation.ResultError, match="config.seed is 5, was 0; network.weights is"):
        evaluation.evaluate(trained_on, clean)
    many = tiny.tiny_trained(config={f"field{i}": i for i in range(20)})
    elsewhere = tiny.changed(job, directory=tmp_path / "many")
    evaluation.evaluate(dataclasses.replace(elsewhere, network=many), clean)
    with pytest.raises(evaluation.ResultError, match=r"absent, was 15; and 12 more\); overwrite"):
        evaluation.evaluate(elsewhere, clean)
    tagged = evaluation.evaluate(tiny.changed(other, tag="again"), clean)
    assert tagged.name == "clean-again" and tagged.identity_hash != first.identity_hash
    replaced = evaluation.evaluate(tiny.changed(other, overwrite=True), clean)
    assert replaced.key.seed == 1
    # Chunks, too.
    with pytest.raises(Stop):
        evaluation.evaluate(job, NOISE, progress=lambda *counted: (_ for _ in ()).throw(Stop))
    with pytest.raises(evaluation.ResultError, match="key.seed is 1"):
        evaluation.evaluate(other, NOISE)
    evaluation.evaluate(tiny.changed(other, overwrite=True), NOISE)


def test_damaged_files_are_named(network, tmp_path):
    job = tiny.tiny_job(network, tmp_path)
    with pytest.raises(Stop):
        evaluation.evaluate(job, NOISE, progress=lambda *counted: (_ for _ in ()).throw(Stop))
    chunk = tmp_path / "corruption-gaussian_noise-5.partial" / "00000000.npz"
    chunk.write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(evaluation.ResultError, match="00000000.npz is damaged"):
        evaluation.evaluate(job, NOISE)
    evaluation.evaluate(job, evaluation.Clean())
    arrays = tmp_path / "clean.npz"
    arrays.write_bytes(arrays.read_bytes()[:-40])
    with pytest.raises(evaluation.ResultError, match="clean.npz is damaged"):
        evaluation.evaluate(job, evaluation.Clean())
    arrays.unlink()
    with pytest.raises(evaluation.ResultError, match="clean.json has lost its arrays; delete it"):
        evaluation.evaluate(job, evaluation.Clean())
    (tmp_path / "clean.json").write_text('{"format": 2,')
    with pytest.raises(evaluation.ResultError, match="clean.json is damaged"):
        evaluation.evaluate(job, evaluation.Clean())


@pytest.mark.slow
def test_every_flipped_bit_of_a_chunk_is_found_or_harmless(network, tmp_path):
    """Its lists of arrays too: zipfile passes over an array that its list does not have."""
    job = tiny.tiny_job(network, tmp_path)
    unfinished = Store(tmp_path, job.identity("clean", results.CleanCondition()))
    assert unfinished.chunks() == []
    arrays = {"index": np.arange(3), "right": np.array([True, False, True])}
    unfinished.add_chunk(0, arrays)
    chunk = tmp_path / "clean.partial" / "00000000.npz"
    found = 0
    for _ in flipped_bits(chunk):
        try:
            (read,) = unfinished.chunks()
        except evaluation.ResultError:
            found += 1
        else:
            assert read.keys() == arrays.keys()
            assert all(np.array_equal(read[name], arrays[name]) for name in arrays)
    assert found > 4 * chunk.stat().st_size


def test_protocols_have_their_own_names(network, tmp_path):
    for protocol, name in (
        (evaluation.Protocol("frozen", 1), "clean-frozen"),
        (evaluation.Protocol("fresh", 2, "vote", 3), "clean-vote-3"),
    ):
        job = tiny.tiny_job(network, tmp_path, **dataclasses.asdict(protocol))
        result = evaluation.evaluate(job, evaluation.Clean())
        assert (result.name, result.protocol) == (name, protocol)


def test_a_network_without_noise_has_one_draw(tmp_path):
    job = tiny.tiny_job(tiny.tiny_trained(noise=None), tmp_path)
    result = evaluation.evaluate(job, evaluation.Clean())
    assert result.protocol == evaluation.Protocol("none", 1)
    assert result.protocol_label == "no noise"
    assert result.measured.between_draws.standard_error is None
    assert set(result.arrays["probability_correct"]) <= {0.0, 1.0}


@pytest.mark.slow
def test_noise_free_gradients_attack_the_quiet_network(network, tmp_path):
    quiet = tiny.tiny_trained(noise=None)
    surrogate = evaluation.Attacked(PGD("linf", 0.05, steps=2), attack_noise="none")
    job = tiny.tiny_job(network, tmp_path, batch_size=10)
    result = evaluation.evaluate(job, surrogate)
    assert (result.name, result.attack_noise) == ("attack-linf-0.05-noise-free", "none")
    assert result.attack_noise_label == "gradients without noise"
    images, labels = tiny.tiny_images()
    expected = evaluation.robust_accuracy(
        job.example_keys(np.arange(10, dtype=np.uint32)),
        models.logits_fn(network.model, network.variables),
        images,
        labels,
        attack=surrogate.attack,
        surrogate=models.logits_fn(quiet.model, network.variables),
        draws=3,
    )
    np.testing.assert_array_equal(result.arrays["probability_correct"], expected.per_example)


def test_noise_frozen_at_the_attack_has_its_own_name(network, tmp_path):
    frozen = evaluation.Attacked(ATTACKED.attack, attack_noise="frozen")
    result = evaluation.evaluate(tiny.tiny_job(network, tmp_path), frozen)
    assert (result.name, result.attack_noise) == ("attack-linf-0.05-frozen-attack", "frozen")
    assert result.attack_noise_label == "frozen at the attack"
    assert result.protocol == evaluation.Protocol("fresh", 3)


def test_a_network_on_other_images_has_another_identity(network, tmp_path):
    """A run says in its experiment how images are made."""
    cropped = dataclasses.replace(network, preprocessing=data.Preprocessing(center_crop=0.5))
    clean = evaluation.Clean()
    first = evaluation.evaluate(tiny.tiny_job(network, tmp_path), clean)
    again = evaluation.evaluate(tiny.tiny_job(network, tmp_path), clean)
    assert again.provenance == first.provenance
    with pytest.raises(evaluation.ResultError, match="center_crop is 0.5, was null"):
        evaluation.evaluate(tiny.tiny_job(cropped, tmp_path), clean)


def test_other_files_under_one_name_have_another_identity(network, tmp_path):
    """Older results do not say which files they are of."""
    clean = evaluation.Clean()
    made = {}
    for checksum in (None, "0a", "0b"):
        source = tiny.tiny_source()
        if checksum is not None:
            source.checksum_of = lambda indices, of=checksum: of
        job = tiny.tiny_job(network, tmp_path / str(checksum), source=source)
        made[checksum] = job, evaluation.evaluate(job, clean)
    assert made["0a"][1].dataset.checksum == "0a"
    other = dataclasses.replace(made["0b"][0], directory=tmp_path / "0a")
    with pytest.raises(evaluation.ResultError, match="dataset.checksum is .*0b.*, was .*0a"):
        evaluation.evaluate(other, clean)
    path = tmp_path / "None" / "clean.json"
    content = json.loads(path.read_text())
    del content["dataset"]["checksum"]
    path.write_text(json.dumps(content))
    old = dataclasses.replace(made["0b"][0], directory=tmp_path / "None")
    assert evaluation.evaluate(old, clean).dataset.checksum is None


def test_jobs_that_do_not_fit_are_refused(network, tmp_path):
    with pytest.raises(ValueError, match="batch_size must be a positive multiple"):
        tiny.tiny_job(network, tmp_path, devices=4, batch_size=6)
    for fields, message in ((dict(seed=-1), "seed"), (dict(tag="a/b"), "tag"),
                            (dict(workers=-1), "workers")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{message} must"):
            tiny.tiny_job(network, tmp_path, **fields)
    with pytest.raises(ValueError, match="examples must be between 1 and the 10"):
        tiny.tiny_job(network, tmp_path, examples=11)
    with pytest.raises(ValueError, match="with 3 channel.s.; tiny-run takes 1"):
        tiny.tiny_job(network, tmp_path, source=tiny.tiny_source(channels=3))
    colour = dataclasses.replace(network, image_shape=(12, 12, 3))
    with pytest.raises(ValueError, match="so none carry over"):
        tiny.tiny_job(network, tmp_path, other=colour)
    fewer = Network("fewer", lambda *inputs: network.logits_fn(*inputs)[:, :2], (12, 12, 1))
    with pytest.raises(ValueError, match="has 2 classes, .* no adversarial images carry over"):
        tiny.tiny_job(network, tmp_path, other=fewer)
    named, other = (tiny.tiny_trained(class_names=tuple(names)) for names in ("abc", "cab"))
    with pytest.raises(ValueError, match="must have the same classes in the same order"):
        tiny.tiny_job(named, tmp_path, other=other)
    tiny.tiny_job(named, tmp_path, other=network)  # without names, as in old runs


def test_logits_that_are_not_finite_are_found_again(tmp_path):
    bad = float(tiny.tiny_images()[0][7, 0, 0, 0])

    def logits_fn(keys, images):
        first = images[:, 0, 0, :]
        return jnp.where(first == bad, jnp.nan, first * jnp.arange(3.0)[None])

    network = Network("nan", logits_fn, (12, 12, 1), ("a", "b", "c"))
    job = tiny.tiny_job(network, tmp_path, batch_size=5)
    message = (
        r"^nan, attack-linf-0.05: .* not finite, at batch positions \[2\]; the batch begins at "
        "example 5 of the split"
    )
    with pytest.raises(FloatingPointError, match=message):
        evaluation.evaluate(job, ATTACKED)
    message = r"^nan, clean: the classifier's logits are not finite for the examples \[7\]"
    with pytest.raises(FloatingPointError, match=message):
        evaluation.evaluate(job, evaluation.Clean())


def test_a_directory_that_may_not_be_written_is_named_with_the_cure(network, tmp_path, monkeypatch):
    def locked(path):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("vone_jax.files.locked", locked)
    message = f"{tmp_path} cannot be written to: Permission denied; .* another directory .--results"
    with pytest.raises(evaluation.ResultError, match=message):
        evaluation.evaluate(tiny.tiny_job(network, tmp_path), evaluation.Clean())


def test_a_result_that_another_process_is_writing_is_refused(network, tmp_path):
    job = tiny.tiny_job(network, tmp_path)
    identity = job.identity("clean", results.CleanCondition())
    with Store(tmp_path, identity).locked():
        with pytest.raises(evaluation.ResultError, match="another process is writing .*/clean; "):
            evaluation.evaluate(job, evaluation.Clean())
        evaluation.evaluate(job, NOISE)
    assert evaluation.evaluate(job, evaluation.Clean()).name == "clean"
    # What a process leaves that was killed between publishing and tidying up.
    (tmp_path / "clean.partial").mkdir()
    (tmp_path / ".clean.lock").touch()
    evaluation.evaluate(job, evaluation.Clean())
    names = {"clean.json", "clean.npz", f"{NOISE.name}.json", f"{NOISE.name}.npz"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_files_appear_complete(network, tmp_path, monkeypatch):
    """A write that fails half-way leaves no file under the final name."""

    def fail(file, **arrays):
        file.write(b"PK")
        raise OSError("disk full")

    arrays = {"index": np.arange(4), "label": np.zeros(4), "probability_correct": np.ones(4)}
    measured = results.Accuracy(1.0, (0.5, 1.0), 4.0, 4)
    job = tiny.tiny_job(network, tmp_path)
    result = tiny.tiny_result(job, evaluation.Clean(), measured, arrays=arrays)
    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        Store(tmp_path, result).publish(result)
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".json", ".npz")]


def test_the_summary_has_a_line_per_measured_result(network, tmp_path):
    job = tiny.tiny_job(network, tmp_path)
    half = results.Accuracy(0.5, (0.4, 0.6), 50.0, 100)
    attacked = evaluation.Attacked(PGD("linf", 4 / 255))
    shown = tiny.tiny_result(job, attacked, half)
    front_end = dataclasses.replace(shown, condition=results.FrontEndCondition(), measured=None)
    heading, table = summary([shown, front_end]).strip().split("\n\n")
    assert heading == (
        "VOneResNet-18 (tiny-run, step 7) on 10 images of tiny test; fresh noise, 3 draws"
    )
    assert len(table.splitlines()) == 3 and table.splitlines()[2].split() == [
        "PGD", "linf", "4/255", "50.0", "40.0", "to", "60.0", "100"
    ]  # fmt: skip
    assert line(shown) == "attack-linf-0.01569: 50.0 % of 100, 1.0 s"
    assert summary([front_end]) == ""
    whole = dataclasses.replace(shown.dataset, name="folder:images", split=".")
    heading = summary([dataclasses.replace(shown, dataset=whole)]).partition("\n")[0]
    assert "on 10 images of folder:images; fresh noise" in heading


def first_format(result):
    """A result of this format in the layout of format 1."""
    values = results.to_json(result)
    network, measured, condition = values["network"], values["measured"], values["condition"]
    old = {
        "format": 1,
        "model": {name: network[name] for name in ("name", "label", "stochastic", "parameters")},
        **{name: network[name] for name in ("weights", "checkpoint_step", "config")},
        **{name: values[name] for name in ("name", "run", "dataset", "key")},
        "kind": condition["kind"],
        "condition": {},
        "protocol": {"name": "fresh noise", **values["protocol"]},
        "config_hash": "0123456789abcdef",
        **values["provenance"],
        **{name: measured[name] for name in ("accuracy", "interval", "between_draws")},
        "sums": {name: measured[name] for name in ("correct", "seen")},
        "statistics": {"right_in_every_draw": measured["right_in_every_draw"]},
        "successes": {"wrong": 1, "decisions": 30},
    }
    if condition["kind"] == "attack":
        old["condition"] = {
            "attack": repr(ATTACKED.attack),
            "norm": "linf",
            "eps": 0.05,
            "eps_label": "0.05",
            "noise_free_gradients": False,
            "eot_samples": condition["eot_samples"],
            "estimator": condition["estimator"],
        }
    return old


def test_results_of_format_1_are_finished(tmp_path):
    job = tiny.tiny_job(tiny.tiny_trained(config=training.to_json(tiny.EXPERIMENT)), tmp_path)
    for condition in (evaluation.Clean(), ATTACKED):
        result = evaluation.evaluate(job, condition)
        path = tmp_path / f"{condition.name}.json"
        path.write_text(json.dumps(first_format(result)))
        before = path.read_bytes(), path.stat().st_mtime_ns
        again = evaluation.evaluate(job, condition)
        assert (path.read_bytes(), path.stat().st_mtime_ns) == before
        # The size of images is not in the old format.
        sizeless = dataclasses.replace(result.network, image_size=None)
        expected = dataclasses.replace(result, network=sizeless)
        assert results.to_json(again) == results.to_json(expected)
        np.testing.assert_array_equal(again.arrays["right"], result.arrays["right"])
        # Its identity is checked as that of any result.
        with pytest.raises(evaluation.ResultError, match="key.seed is 1, was 0"):
            evaluation.evaluate(tiny.changed(job, seed=1), condition)


class Watched(evaluation.Clean):
    """The images as they are; notes the precision in which they are measured."""

    def measure(self, trial):
        Watched.seen = jax.config.jax_default_matmul_precision
        return super().measure(trial)


def test_the_precision_of_products_is_used_and_told_apart(network, tmp_path, monkeypatch):
    """The devices play a GPU, since a CPU has the highest precision whatever is asked for."""
    job = tiny.tiny_job(network, tmp_path, matmul_precision="default")
    assert job.effective_precision == "highest"
    assert evaluation.evaluate(job, Watched()).matmul_precision == Watched.seen == "highest"
    precision = property(lambda job: job.request.matmul_precision)
    monkeypatch.setattr(evaluation.Job, "effective_precision", precision)
    with pytest.raises(evaluation.ResultError, match='matmul_precision is "default", was "highe'):
        evaluation.evaluate(job, Watched())
    job = tiny.changed(job, overwrite=True)
    assert evaluation.evaluate(job, Watched()).matmul_precision == Watched.seen == "default"
    with pytest.raises(ValueError, match="matmul_precision must be one of .* got 'low'"):
        tiny.changed(job, matmul_precision="low")


@pytest.mark.parametrize(
    "platform, asked, used",
    [
        ("cpu", None, "highest"),
        ("cpu", "default", "highest"),
        ("gpu", None, "highest"),
        ("gpu", "high", "high"),
        ("tpu", None, "high"),
        ("tpu", "default", "default"),
    ],
)
def test_the_default_precision_of_each_platform(network, tmp_path, platform, asked, used):
    job = tiny.tiny_job(network, tmp_path, matmul_precision=asked)
    device = types.SimpleNamespace(platform=platform)
    mesh = types.SimpleNamespace(devices=np.array([device]), size=1)
    object.__setattr__(job, "mesh", mesh)
    assert job.effective_precision == used


KILLED = """
import sys, time
from pathlib import Path
import jax
from tests.evaluation import tiny, test_run
from vone_jax import evaluation
job = tiny.tiny_job(tiny.tiny_trained(), Path(sys.argv[1]), batch_size=1)
evaluation.evaluate(job, test_run.ATTACKED, (), lambda *counted: time.sleep(float(sys.argv[2])))
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
