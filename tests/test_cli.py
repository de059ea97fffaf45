"""The common part of the commands: messages, exit statuses, signals."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import jax
import pytest

from vone_jax import cli, fast, mesh
from vone_jax.cli import evaluate, train


def test_a_failure_is_one_line_on_stderr_and_the_exit_status(capsys):
    assert cli.fail(ValueError("no such split")) == cli.WRONG_ARGUMENTS
    assert cli.fail(OSError(28, "No space left", "page.html"), cli.FAILED) == 1
    assert cli.stopped("eval.py") == 75
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[:2] == ["error: no such split", "error: page.html: No space left"]
    assert lines[2].startswith("eval.py: stopped; ")


def test_signals_are_passed_to_the_handler_and_restored():
    before, received = list(map(signal.getsignal, cli.SIGNALS)), []
    with cli.handling_signals(lambda number, frame: received.append(number)):
        for number in (*cli.SIGNALS, *cli.SIGNALS):
            os.kill(os.getpid(), number)
    assert received == [*cli.SIGNALS, *cli.SIGNALS]
    assert list(map(signal.getsignal, cli.SIGNALS)) == before


def test_the_first_signal_interrupts_a_program_and_lets_it_end():
    """A cluster and the sweep that it has told may both send one."""
    before = signal.getsignal(signal.SIGTERM)
    with cli.interrupted_by_signals("eval.py") as interrupted:
        assert not interrupted.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupted.is_set()
    assert signal.getsignal(signal.SIGTERM) == before
    # The process is not ended by force afterwards.
    time.sleep(cli._PATIENCE + 0.2)


def test_a_process_that_ends_at_once_does_nothing_at_its_end():
    program = (
        "import atexit\n"
        "from vone_jax import cli\n"
        "atexit.register(print, 'at the end')\n"
        "print('stopped')\n"
        "cli.end_at_once(75)\n"
    )
    command = [sys.executable, "-c", program]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (75, "stopped\n")


def test_a_signal_ends_an_evaluation_that_is_busy_outside_python():
    """No Python runs in a compiled program; here a hash function takes its place."""
    program = (
        "import hashlib\n"
        "from vone_jax.cli import interrupted_by_signals\n"
        "with interrupted_by_signals('eval.py'):\n"
        "    while True:\n"
        "        try:\n"
        "            print('busy', flush=True)\n"
        "            hashlib.pbkdf2_hmac('sha256', b'', b'', 200_000_000)\n"
        # The signal can arrive before the hash function begins.
        "        except KeyboardInterrupt:\n"
        "            pass\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdout=pipe, stderr=pipe) as busy:
        assert busy.stdout.readline() == b"busy\n"
        busy.send_signal(signal.SIGTERM)
        try:
            assert busy.wait(10.0) == cli.STOPPED
        finally:
            busy.kill()
        assert busy.stderr.read() == b"eval.py: stopped; run the same command again to continue\n"


@pytest.mark.parametrize(
    ("command", "argv", "expected"),
    [
        (train, ["quickstart/resnet18"], ["use_all_cores", "keep_memory", "join"]),
        (evaluate, ["run"], ["use_all_cores", "keep_memory", "join"]),
    ],
)
def test_settings_of_the_process_are_made_before_all_else(monkeypatch, command, argv, expected):
    """They act on the threads that JAX starts when it looks for devices."""
    made = []
    for name in ("use_all_cores", "keep_memory"):
        monkeypatch.setattr(fast, name, partial(made.append, name))
    monkeypatch.setattr(mesh, "join_processes", lambda cluster: made.append("join"))

    def refuse():
        raise ValueError("no")

    monkeypatch.setattr(mesh, "check_jax", refuse)
    assert command.main([*argv, "--distributed", "auto"]) == cli.WRONG_ARGUMENTS
    assert made == expected


@pytest.mark.parametrize(
    ("command", "argv"), [(train, ["quickstart/resnet18"]), (evaluate, ["run", "--suite", "clean"])]
)
def test_other_random_numbers_of_jax_are_refused(monkeypatch, capsys, tmp_path, command, argv):
    monkeypatch.chdir(tmp_path)
    with jax.threefry_partitionable(False):
        assert command.main(argv) == cli.WRONG_ARGUMENTS
    assert "JAX_THREEFRY_PARTITIONABLE=0 gives other random numbers" in capsys.readouterr().err
