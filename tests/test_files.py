"""Files that appear whole, locks and digests."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vone_jax import files


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "result.json"
    files.replace_json(path, {"accuracy": 0.5})
    assert json.loads(path.read_text()) == {"accuracy": 0.5}

    def fails(file):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="result.json cannot be written: No space left") as raised:
        files.replace(path, fails)
    assert raised.value.errno == errno.ENOSPC
    assert [each.name for each in tmp_path.iterdir()] == ["result.json"]
    assert json.loads(path.read_text()) == {"accuracy": 0.5}


def test_two_processes_that_write_one_file_do_not_share_the_temporary_one(tmp_path, monkeypatch):
    written = []
    for process in (1, 2):
        monkeypatch.setattr(files.os, "getpid", lambda number=process: number)
        files.replace(tmp_path / "result.npz", lambda file: written.append(file.name))
    assert len(set(written)) == 2


def test_a_device_or_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="pipe cannot be written: it is a device or a pipe"):
        files.replace(tmp_path / "pipe", lambda file: file.write(b"page"))
    assert [path.is_fifo() for path in tmp_path.iterdir()] == [True]
    # A link, to a file if the output of a command is one.
    with pytest.raises(OSError, match="/dev/stdout cannot be written: it is a device or a pipe"):
        files.replace(Path("/dev/stdout"), lambda file: file.write(b"page"))


def test_json_has_no_nan(tmp_path):
    with pytest.raises(ValueError):
        files.replace_json(tmp_path / "x.json", float("nan"))
    assert not list(tmp_path.iterdir())


def test_a_digest_of_json_does_not_depend_on_the_order_of_keys():
    value, reordered = {"a": {"b": 1, "c": 2}, "d": [3]}, {"d": [3], "a": {"c": 2, "b": 1}}
    assert files.json_digest(value) == files.json_digest(reordered)
    assert files.json_digest(value) != files.json_digest(value | {"d": [4]})


def test_a_lock_is_exclusive_and_ends_with_its_process(tmp_path):
    path = tmp_path / "lock"
    program = (
        "import sys, time; from pathlib import Path; from vone_jax import files\n"
        f"with files.locked(Path({str(path)!r})):\n    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(files.LockedError, match=f"process {other.pid} on "):
            with files.locked(path):
                pytest.fail("two processes hold the lock")
        other.kill()
    with files.locked(path):
        assert f"process {os.getpid()} on " in path.read_text()


def test_a_lock_that_was_removed_meanwhile_is_not_held(tmp_path, monkeypatch):
    """The last holder removes the file between its opening and its locking by the next."""
    path, lock = tmp_path / "lock", files.fcntl.flock
    removals = [lambda: None, path.unlink]

    def flock(file, operation):
        removals.pop()()
        lock(file, operation)

    monkeypatch.setattr(files.fcntl, "flock", flock)
    with files.locked(path):
        monkeypatch.setattr(files.fcntl, "flock", lock)
        assert not removals and f"process {os.getpid()} on " in path.read_text()
        with pytest.raises(files.LockedError):
            with files.locked(path):
                pytest.fail("the lock is held twice")
