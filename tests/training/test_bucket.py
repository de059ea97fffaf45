"""Runs in a bucket, with the file system in memory of fsspec in place of Google's.

TensorStore writes the checkpoints and reaches real buckets only, so they are replaced here.
"""

from pathlib import Path

import fsspec
import jax
import orbax.checkpoint as ocp
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from test_run import describe, with_bank

from vone_jax import files, runs, training
from vone_jax.training import run


class Bucket(MemoryFileSystem):
    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("gs://", "memory://"))


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """A place in an empty bucket; the working directory must stay empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(MemoryFileSystem, "store", {})
    monkeypatch.setattr(MemoryFileSystem, "pseudo_dirs", [""])
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    yield "gs://bucket/runs/mine"
    assert list(tmp_path.iterdir()) == []


class StoredCheckpoints:
    """Checkpoints in memory in place of Orbax's."""

    stored = {}
    best = None

    def __init__(self, directory, description, keep=2, read_only=False):
        self.kept = self.stored.setdefault(str(directory), {})

    def save(self, step, state):
        self.kept[step] = jax.device_get(state)

    def restore(self, step, like):
        return self.kept[step]

    def restore_variables(self, step, like):
        return self.kept[step].variables

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


def test_a_run_in_a_bucket_is_written_resumed_and_loaded(bucket, tiny, monkeypatch):
    monkeypatch.setattr(run, "Checkpoints", StoredCheckpoints)
    stored = StoredCheckpoints.stored
    monkeypatch.setattr(run, "saved_steps", lambda path: [*stored.get(f"{path}/checkpoints", ())])
    one = jax.devices()[:1]
    polls = iter([False, False, False, True])
    assert not training.train(tiny, bucket, devices=one, stop=polls.__next__).finished
    assert training.train(tiny, bucket, devices=one).finished
    assert list(StoredCheckpoints.stored)[-1] == f"{bucket}/checkpoints"
    path = files.as_path(bucket)
    assert {each.name for each in path.iterdir()} == {"config.json", "log.jsonl"}
    steps = [each["step"] for each in run.read_log(path / run.LOG) if each["kind"] == "train"]
    assert steps == [2, 4, 6]
    assert runs.load_run(bucket).step == 6


def test_a_bank_in_a_bucket_comes_back(bucket):
    experiment = with_bank()
    directory = files.as_path(bucket)
    directory.mkdir(parents=True)
    assert describe(directory, experiment).experiment == experiment


def test_orbax_gets_the_bucket_and_no_local_directory(bucket, monkeypatch):
    """``pathlib`` would make the directories ``gs:`` and ``bucket`` of it."""
    given = []
    monkeypatch.setattr(ocp, "CheckpointManager", lambda path, **options: given.append(path))
    description = training.RunDescription(with_bank(), with_bank(), ("cat", "dog"), 12)
    run.Checkpoints(files.as_path(bucket) / "checkpoints", description)
    assert [str(path) for path in given] == [f"{bucket}/checkpoints"]
    with pytest.raises(ValueError, match="must be text, such as 'gs://BUCKET"):
        training.read_run(Path(bucket))
