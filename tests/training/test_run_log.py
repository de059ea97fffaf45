"""The log holds every step once, also after a run was stopped or killed."""

import csv
import json
import math
import time

import pytest

from vone_jax.training.monitor import RunLog, read_log


def train_record(step):
    return {"kind": "train", "step": step, "loss": 1.0 / step}


def validation_record(step):
    return {"kind": "validation", "step": step, "accuracy": 0.5, "seen": 10}


@pytest.fixture
def path(tmp_path):
    """A log of the steps 2, 4 and 6 with validations at 3 and 6."""
    path = tmp_path / "log.jsonl"
    with RunLog(path, step=0, validated=0) as log:
        for record in (
            train_record(2),
            validation_record(3),
            train_record(4),
            train_record(6),
            validation_record(6),
        ):
            log.write(record)
    return path


def test_a_run_that_starts_again_describes_its_start_again(path):
    start = {"kind": "initial_weights", "step": 0, "part": "stem", "taken": 3}
    for step, expected in ((0, [start]), (4, [start, start]), (0, [start])):
        with RunLog(path, step=step, validated=0) as log:
            log.write(start)
        found = [record for record in read_log(path) if record["kind"] == "initial_weights"]
        assert found == expected


def steps(path, kind):
    return [record["step"] for record in read_log(path) if record["kind"] == kind]


def test_records_come_back(path):
    assert read_log(path)[:2] == [train_record(2), validation_record(3)]
    assert [json.loads(line) for line in path.read_text().splitlines()] == read_log(path)


def test_no_file_is_an_empty_log(tmp_path):
    assert read_log(tmp_path / "log.jsonl") == []


def test_a_record_is_in_the_file_as_soon_as_it_is_written(tmp_path):
    with RunLog(tmp_path / "log.jsonl", step=0, validated=0) as log:
        log.write(train_record(1))
        log.sync()
        assert read_log(tmp_path / "log.jsonl") == [train_record(1)]


def test_a_sync_writes_to_the_disk(tmp_path, monkeypatch):
    synced = []
    with RunLog(tmp_path / "log.jsonl", step=0, validated=0) as log:
        log.write(train_record(1))
        monkeypatch.setattr("os.fsync", synced.append)
        log.sync()
    assert len(synced) == 1


@pytest.mark.parametrize(
    ("step", "validated", "trained", "validations"),
    [
        (4, 3, [2, 4], [3]),
        # A validation that the checkpoint does not know is dropped.
        (6, 3, [2, 4, 6], [3]),
        # A new start.
        (0, 0, [], []),
    ],
)
def test_going_on_from_a_checkpoint_drops_what_comes_after_it(
    path, step, validated, trained, validations
):
    with RunLog(path, step, validated) as log:
        assert (steps(path, "train"), steps(path, "validation")) == (trained, validations)
        log.write(train_record(8))
    assert steps(path, "train") == [*trained, 8]


def test_a_line_that_was_cut_off_is_dropped(path):
    with open(path, "a") as file:
        file.write('{"kind": "train", "st')
    assert steps(path, "train") == [2, 4, 6]
    with RunLog(path, step=6, validated=6) as log:
        log.write(train_record(8))
    assert steps(path, "train") == [2, 4, 6, 8]


def test_a_broken_line_elsewhere_is_an_error_that_names_it(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], "oops", *lines[1:]]))
    with pytest.raises(ValueError, match="log.jsonl, line 2, 'oops': Expecting value"):
        read_log(path)


@pytest.mark.parametrize("line", ["5", '{"step": 3}'])
def test_a_line_that_is_no_record_is_an_error_that_names_it(path, line):
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ValueError, match="log.jsonl, line .* must hold .* a kind and a step"):
        read_log(path)


def test_a_damaged_last_line_with_its_end_is_an_error(path):
    """The writer ends a line last, so it was not cut off."""
    path.write_text(path.read_text() + '{"kind": "train", "st\n')
    with pytest.raises(ValueError, match="log.jsonl, line .* Unterminated string"):
        read_log(path)


def test_a_log_that_is_no_text_is_named(path):
    path.write_bytes(path.read_bytes() + b"\xff\n")
    with pytest.raises(ValueError, match="log.jsonl is damaged"):
        read_log(path)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_never_logged(path, value):
    with RunLog(path, step=6, validated=6) as log:
        with pytest.raises(ValueError, match="Out of range float values"):
            log.write({"kind": "train", "step": 7, "loss": value})
    assert steps(path, "train") == [2, 4, 6]


def test_csv_has_a_column_for_every_name(path):
    with open(path.with_suffix(".csv")) as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "3", "4", "6", "6"]
    assert rows[0] == {"kind": "train", "step": "2", "loss": "0.5", "accuracy": "", "seen": ""}


def test_tensorboard_files_on_request(tmp_path):
    with RunLog(tmp_path / "log.jsonl", step=0, validated=0, tensorboard=tmp_path / "tb") as log:
        log.write(train_record(1))
        # On the disk before the log is closed, for runs that are killed.
        (events,) = (tmp_path / "tb").iterdir()
        end = time.monotonic() + 30
        while b"train/loss" not in events.read_bytes():
            assert time.monotonic() < end
            time.sleep(0.05)


@pytest.mark.parametrize("later", [True, False])
def test_tensorboard_files_have_the_curves_from_the_start_once(path, tmp_path, later):
    if not later:
        (tmp_path / "tb").mkdir()
    with RunLog(path, step=4, validated=3, tensorboard=tmp_path / "tb") as log:
        log.write(train_record(6))
    (events,) = (tmp_path / "tb").iterdir()
    # Asked for at a resume, the records of the steps 2 and 4 as well.
    assert events.read_bytes().count(b"train/loss") == (3 if later else 1)


def test_a_log_that_cannot_be_written_is_named(path, full_disk):
    problem = "log.jsonl cannot be written: File too large"
    with full_disk() as limit_to:
        with pytest.raises(OSError, match=f"{problem}; the checkpoin"):
            with RunLog(path, step=6, validated=6) as log:
                limit_to(path.stat().st_size)
                log.write(train_record(8))
        limit_to(10)
        with pytest.raises(OSError, match=problem):
            RunLog(path, step=6, validated=6)


def test_a_full_disk_does_not_hide_the_error_before(path, full_disk):
    """The CSV file that is written when the log is closed does not fit either."""
    with full_disk() as limit_to, pytest.raises(KeyError, match="the error"):
        with RunLog(path, step=6, validated=6):
            limit_to(10)
            raise KeyError("the error")
    with full_disk() as limit_to, pytest.raises(OSError, match="log.jsonl cannot be written"):
        with RunLog(path, step=6, validated=6):
            limit_to(10)
