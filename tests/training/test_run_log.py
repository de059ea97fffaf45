"""The log holds every step once, also after a run was stopped or killed."""

import json
import math
import time

import pytest

from vone_jax.training.run import RunLog, read_log


def train_record(step):
    return {"kind": "train", "step": step, "loss": 1.0 / step}


def validation_record(step):
    return {"kind": "validation", "step": step, "accuracy": 0.5, "seen": 10}


@pytest.fixture
def path(tmp_path):
    """A log of the steps 2, 4 and 6 with validations at 3 and 6."""
    path = tmp_path / "log.jsonl"
    with RunLog(path, step=0) as log:
        for record in (
            train_record(2),
            validation_record(3),
            train_record(4),
            train_record(6),
            validation_record(6),
        ):
            log.write(record)
    return path


def steps(path, kind):
    return [record["step"] for record in read_log(path) if record["kind"] == kind]


def test_records_come_back(path):
    assert read_log(path)[:2] == [train_record(2), validation_record(3)]
    assert [json.loads(line) for line in path.read_text().splitlines()] == read_log(path)


@pytest.mark.parametrize(
    ("step", "trained", "validations"),
    [
        (4, [2, 4], [3]),
        # It judged the weights of the checkpoint from which the run resumes.
        (6, [2, 4, 6], [3, 6]),
        # A new start.
        (0, [], []),
    ],
)
def test_going_on_from_a_checkpoint_drops_what_comes_after_it(path, step, trained, validations):
    with RunLog(path, step) as log:
        assert (steps(path, "train"), steps(path, "validation")) == (trained, validations)
        log.write(train_record(8))
    assert steps(path, "train") == [*trained, 8]


def test_a_line_that_was_cut_off_is_dropped(path):
    with open(path, "a") as file:
        file.write('{"kind": "train", "st')
    assert steps(path, "train") == [2, 4, 6]
    with RunLog(path, step=6) as log:
        log.write(train_record(8))
    assert steps(path, "train") == [2, 4, 6, 8]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_never_logged(path, value):
    with RunLog(path, step=6) as log:
        with pytest.raises(ValueError, match="Out of range float values"):
            log.write({"kind": "train", "step": 7, "loss": value})
    assert steps(path, "train") == [2, 4, 6]


def test_tensorboard_files_on_request(tmp_path):
    with RunLog(tmp_path / "log.jsonl", step=0, tensorboard=tmp_path / "tb") as log:
        log.write(train_record(1))
        # On the disk before the log is closed, for runs that are killed.
        (events,) = (tmp_path / "tb").iterdir()
        end = time.monotonic() + 30
        while b"train/loss" not in events.read_bytes():
            assert time.monotonic() < end
            time.sleep(0.05)
