"""Runs a sweep: each training and each evaluation is a process of its own.

A member's directory keeps a line in ``sweep.jsonl`` for each command that has ended well. What is
there is skipped; what was interrupted goes on, since train.py and eval.py do.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from vone_jax.sweep.sweep import Sweep
from vone_jax.training import to_json

STEPS = ("train", "evaluate", "report")
STOPPED = 75
_RECORD = "sweep.jsonl"


class SweepError(RuntimeError):
    """Some commands of a sweep have failed; the message lists them."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count`` of a sweep's members, counted from 1: "3/8" is the third."""

    index: int = 1
    count: int = 1

    def __post_init__(self):
        if not 1 <= self.index <= self.count:
            raise ValueError(
                f"shard must be INDEX/COUNT with 1 <= INDEX <= COUNT, got {self.index}/{self.count}"
            )

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From its written form.

        Raises:
          ValueError: if it is not INDEX/COUNT.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None:
            raise ValueError(f"shard must be INDEX/COUNT such as 3/8, got {text!r}")
        return cls(int(match[1]), int(match[2]))

    def of(self, labels: Sequence[str]) -> list[str]:
        """The labels of this part."""
        return list(labels[self.index - 1 :: self.count])


@dataclasses.dataclass(frozen=True)
class _Command:
    """A process to run for a member, and by what it is known when it has ended well."""

    label: str
    step: str
    arguments: tuple[str, ...]
    key: str


def run(
    name: str,
    sweep: Sweep,
    *,
    root: Path,
    runs: Path,
    shard: Shard = Shard(),
    steps: Sequence[str] = STEPS,
    dry_run: bool = False,
) -> int:
    """Trains and evaluates the members of a shard, one after the other, then writes the report.

    The report needs all members, so a shard of several leaves it to a later call with the step
    "report".

    Args:
      name: of the sweep, as train.py knows it.
      sweep: what to run.
      root: directory of train.py and eval.py.
      runs: directory of run directories; those of this sweep are in ``runs / sweep.group``.
      shard: which of the members.
      steps: any of ``STEPS``.
      dry_run: print the commands that would run, and run none.

    Returns:
      0 if all is done, 75 if the sweep was stopped by SIGTERM or Ctrl-C.

    Raises:
      ValueError: for an unknown step.
      SweepError: if commands have failed; the others were run nevertheless.
    """
    for step in steps:
        if step not in STEPS:
            raise ValueError(f"only must be among {', '.join(STEPS)}; got {step!r}")
    group = runs / sweep.group
    labels = shard.of(list(sweep.members))
    commands = [
        command
        for label in labels
        for command in _commands(name, sweep, label, root, group)
        if command.step in steps
    ]
    failed: list[str] = []
    broken: set[str] = set()
    for number, command in enumerate(commands, start=1):
        record = group / command.label / _RECORD
        if command.label in broken or command.key in _done(record):
            continue
        print(f"[{number}/{len(commands)}] {shlex.join(command.arguments)}", flush=True)
        if dry_run:
            continue
        status = _execute([sys.executable, *command.arguments], root)
        if status == STOPPED:
            return STOPPED
        if status != 0:
            failed.append(f"{shlex.join(command.arguments)} (exit status {status})")
            if command.step == "train":
                broken.add(command.label)
            continue
        _append(record, command)
    if "report" in steps and shard.count == 1 and not failed and not dry_run:
        status = _execute(_report(sweep, group), root)
        if status != 0:
            failed.append(f"the report (exit status {status})")
    if failed:
        raise SweepError("failed:\n  " + "\n  ".join(failed))
    return 0


def _commands(name: str, sweep: Sweep, label: str, root: Path, group: Path) -> Iterator[_Command]:
    run_dir = str(group / label)
    # Known by its experiment, not by the sweep's name: another sweep of the group may have
    # trained it.
    trained = _digest(to_json(sweep.members[label].experiment))
    train = (str(root / "train.py"), f"{name}:{label}", "--run-dir", run_dir)
    yield _Command(label, "train", train, trained)
    for arguments in sweep.evaluations_of(label):
        evaluate = (str(root / "eval.py"), run_dir, *arguments)
        yield _Command(label, "evaluate", evaluate, _digest([trained, list(arguments)]))


def _digest(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _done(record: Path) -> set[str]:
    """Keys of the commands that have ended well."""
    if not record.exists():
        return set()
    found = set()
    for line in record.read_text().splitlines():
        # The last line of a killed process may be cut off: then its command runs once more.
        with contextlib.suppress(json.JSONDecodeError):
            found.add(json.loads(line)["key"])
    return found


def _append(record: Path, command: _Command) -> None:
    line = json.dumps({"key": command.key, "step": command.step, "arguments": command.arguments})
    with open(record, "a") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def _execute(command: Sequence[str], root: Path) -> int:
    """Runs a process; SIGTERM and Ctrl-C are passed on, and the sweep then stops.

    Returns:
      The exit status, 75 if a signal has asked the sweep to stop.
    """
    stopped = False
    # In a session of its own: a terminal sends Ctrl-C to all that it started, and with ours the
    # process would have two, of which the second ends it unsaved.
    process = subprocess.Popen(command, env=_environment(root), start_new_session=True)

    def stop(number, frame):
        nonlocal stopped
        stopped = True
        process.send_signal(number)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        status = process.wait()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return STOPPED if stopped else status


def _environment(root: Path) -> dict[str, str]:
    """Of this process, with the package importable from wherever the sweep was started."""
    path = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path}


def _report(sweep: Sweep, group: Path) -> list[str]:
    directories = [str(group / label) for label in sweep.members]
    out = ["--out", str(group / f"{sweep.name}.html"), "--tables", str(group / sweep.name)]
    return [sys.executable, "-m", "vone_jax.report", *directories, *out, *sweep.report]
