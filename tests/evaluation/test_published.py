"""Corrupted images from published files in the place of those made in memory."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.evaluation import tiny
from vone_jax import evaluation, models
from vone_jax.evaluation.published import Published, from_files


@pytest.fixture
def files(tmp_path):
    """As CIFAR-10-C is laid out: ten images at each of five severities."""
    rng = np.random.default_rng(2)
    images = rng.integers(0, 256, (50, 12, 12, 1)).astype(np.uint8)
    np.save(tmp_path / "fog.npy", images)
    np.save(tmp_path / "frost.npy", images)
    np.save(tmp_path / "labels.npy", np.tile(np.arange(10) % 3, 5))
    return tmp_path


def test_the_images_are_those_of_the_files(files, tmp_path):
    model, variables = tiny.tiny_network(noise=None, classes=10)
    subject = dataclasses.replace(tiny.tiny_subject(), model=model, variables=variables)
    job = tiny.tiny_job(subject, tmp_path / "results", examples=5)
    tasks = [
        (job, evaluation.Clean()),
        (job, evaluation.Corrupted("fog", 3)),
        (job, evaluation.Corrupted("frost_procedural", 5)),
    ]
    found = from_files(tasks, f"npy:{files}", None)
    names = [condition.name for _, condition in found]
    assert names == ["clean", "corruption-fog-3-published", "corruption-frost-5-published"]
    assert found[0] == tasks[0]
    record = evaluation.evaluate(*found[1])
    assert record["condition"] == {"corruption": "fog", "severity": 3, "form": "published"}
    assert record["dataset"]["name"] == f"npy:{files}/fog" and record["dataset"]["examples"] == 5
    with np.load(tmp_path / "results" / "corruption-fog-3-published.npz") as archive:
        right = archive["right"]
    # Severity 3 is rows 20 to 29, of which every second is taken.
    images = np.load(files / "fog.npy")[20:30:2].astype(np.float32) / 255
    logits = models.logits_fn(subject.model, subject.variables)(jax.random.key(0), images)
    np.testing.assert_array_equal(right[:, 0], np.argmax(logits, -1) == np.arange(0, 10, 2) % 3)
    assert isinstance(found[2][1], Published) and found[2][1].corruption == "frost"


def test_what_is_not_there_is_told(files, tmp_path):
    job = tiny.tiny_job(tiny.tiny_subject(noise=None), tmp_path / "results")
    fog = evaluation.Corrupted("fog", 3)
    for given, error, message in (
        (f"npy:{files}/nowhere", FileNotFoundError, "nowhere is not a directory"),
        ("tfds:cifar10", ValueError, "no corrupted images 'tfds:cifar10'; accepted are"),
        ("tfds:cifar10_corrupted", FileNotFoundError, "is not prepared in"),
    ):
        with pytest.raises(error, match=message):
            from_files([(job, fog)], given, tmp_path / "data")
    snow = evaluation.Corrupted("snow", 3)
    with pytest.raises(FileNotFoundError, match="no corruption 'snow'.* fog, frost"):
        from_files([(job, snow)], f"npy:{files}", None)
    with pytest.raises(ValueError, match="corrupted_files is for the suites corruptions"):
        from_files([(job, evaluation.Clean())], f"npy:{files}", None)
    with pytest.raises(ValueError, match="form is for images that are made in memory, got 'uint8'"):
        from_files([(job, evaluation.Corrupted("fog", 3, "uint8"))], f"npy:{files}", None)
