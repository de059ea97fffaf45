"""Two processes with two devices each give the results of one process with four devices.

Noise is equal to the bit, everything else up to the order of float32 sums. The processes
communicate over Gloo on this machine.
"""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from job import EVALUATION, EXPERIMENT, network, noise_of_a_batch, open_source
from tiny import final_state, log

from tests.evaluation.result_files import numbers, read_results, roughly
from vone_jax import data, training
from vone_jax.cli import evaluate as eval_program

# This process computes what the others are compared with, and their programs are optimised.
pytestmark = pytest.mark.usefixtures("optimised")

ROOT = Path(__file__).resolve().parents[2]
TOLERANCE = 1e-5


def free_port(ports):
    for port in random.sample(ports, len(ports)):
        with socket.socket() as probe:
            try:
                probe.bind(("localhost", port))
            except OSError:
                continue
            return port
    pytest.fail("no free port")


def start(what, run_dir, cluster, index, fault="", devices=2, **environment):
    environment = os.environ | environment
    environment |= {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "PYTHONPATH": str(ROOT),
    }
    script = Path(__file__).with_name("job.py")
    command = [sys.executable, script, what, run_dir, cluster, fault]
    with open(f"{run_dir}.{index}.err", "w") as said:
        return subprocess.Popen(command, env=environment, stdout=said, stderr=said)


def start_two(run_dir, fault="", what="train", **environment):
    """Start a pair described by the command line; the fault happens in process 1."""
    cluster, faults = f"localhost:{free_port(range(20_000, 30_000))},2", ("", fault)
    return [
        start(what, run_dir, f"{cluster},{index}", index, faults[index], **environment)
        for index in range(2)
    ]


def start_two_under_slurm(run_dir):
    """Start a pair described by the environment of a Slurm step."""
    # JAX makes the port from the number of the job.
    job = free_port(range(65535 - 2**12 + 1, 65535)) - (65535 - 2**12 + 1)
    slurm = {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": "2",
    }
    return [
        start("train", run_dir, "auto", i, **slurm, SLURM_PROCID=str(i), SLURM_LOCALID=str(i))
        for i in range(2)
    ]


def statuses(pair, run_dir):
    """Return the exit statuses of both processes, and their output."""
    try:
        ended = [process.wait(timeout=240) for process in pair]
    finally:
        for process in pair:
            process.kill()
            process.wait()
    return ended, [Path(f"{run_dir}.{index}.err").read_text() for index in range(2)]


def content(run_dir):
    """Return the state of the last checkpoint, and the log without speeds."""
    return final_state(EXPERIMENT, run_dir, model=network()), log(run_dir)


def assert_same_run(ours, theirs):
    state1, log1 = content(ours)
    state2, log2 = content(theirs)
    assert state1.step == state2.step == 9
    for one, other in zip(log1, log2, strict=True):
        assert one.pop("kind") == other.pop("kind")
        assert one == pytest.approx(other, rel=TOLERANCE)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE),
        state1,
        state2,
    )


def train_here(run_dir, **arguments):
    """Train with one process and four devices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", open_source)
        patch.setattr(training.Experiment, "build", network)
        return training.train(EXPERIMENT, run_dir, **arguments)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The directory of a run of one process."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    assert train_here(run_dir) == training.Outcome(step=9, finished=True)
    return run_dir


@pytest.mark.slow
def test_two_processes_train_as_one(whole, tmp_path):
    run_dir = tmp_path / "run"
    ended, said = statuses(start_two_under_slurm(run_dir), run_dir)
    assert ended == [0, 0], said
    assert_same_run(run_dir, whole)
    for index in range(2):
        noise = np.load(run_dir / f"noise-{index}.npy")
        np.testing.assert_array_equal(noise, noise_of_a_batch())
        refused = np.load(run_dir / f"refusals-{index}.npy").tolist()
        assert len(refused) == 2 and all("got values from 2 to 2" in each for each in refused)
    # Process 0 alone writes and reports.
    assert "4 x cpu" in said[0] and "finished at step 9" in said[0]
    assert "finished" not in said[1]
    checkpoints = sorted((run_dir / "checkpoints").iterdir())
    assert [path.name for path in checkpoints] == ["6", "9"]


@pytest.mark.slow
def test_a_signal_to_one_stops_both_and_one_process_goes_on(whole, tmp_path):
    run_dir = tmp_path / "run"
    ended, said = statuses(start_two(run_dir, fault="term"), run_dir)
    assert ended == [75, 75], said
    assert content(run_dir)[0].step in (5, 6, 7)
    assert train_here(run_dir).finished
    assert_same_run(run_dir, whole)


@pytest.mark.slow
def test_two_processes_go_on_where_one_was_stopped(whole, tmp_path):
    run_dir, asked = tmp_path / "run", []

    def stop():
        asked.append(None)
        return len(asked) > 2

    assert train_here(run_dir, stop=stop) == training.Outcome(step=2, finished=False)
    ended, said = statuses(start_two(run_dir), run_dir)
    assert ended == [0, 0], said
    assert_same_run(run_dir, whole)


@pytest.mark.slow
def test_the_checkpoints_that_process_0_finds_decide(whole, tmp_path):
    """Processes that found others restored other steps, or waited for each other for ever."""
    run_dir = tmp_path / "run"
    ended, said = statuses(start_two(run_dir, fault="term"), run_dir)
    assert ended == [75, 75], said
    ended, said = statuses(start_two(run_dir, fault="stale"), run_dir)
    assert ended == [0, 0] and "from step 0" not in said[0], said
    assert "from step " in said[0]
    assert_same_run(run_dir, whole)


@pytest.mark.slow
def test_an_error_in_one_ends_both_and_leaves_the_checkpoints(whole, tmp_path):
    run_dir = tmp_path / "run"
    ended, said = statuses(start_two(run_dir, fault="unreadable"), run_dir)
    assert "error: image 3 cannot be decoded" in said[1]
    # JAX ends both, once process 1 has waited for the other at its end.
    assert all(ended), said
    assert content(run_dir)[0].step == 3
    assert train_here(run_dir).finished
    assert_same_run(run_dir, whole)


@pytest.mark.slow
def test_two_processes_evaluate_as_one_also_when_stopped(whole, tmp_path):
    """One of the two is stopped at its second batch. Process 0 alone writes and reports."""
    one, two = tmp_path / "one" / "run", tmp_path / "two" / "run"
    for run_dir in (one, two):
        shutil.copytree(whole, run_dir)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "load", open_source)
        patch.setattr(training.Experiment, "build", network)
        assert eval_program.main([str(one), *EVALUATION]) == 0
    ended, said = statuses(start_two(two, fault="term", what="eval"), two)
    assert ended[1] == 75 and ended[0] in (1, 75, -signal.SIGABRT), said
    # Whether process 0 could still write the first batch is up to how soon it saw the other end.
    assert not (two / "results" / "clean.json").exists()
    ended, said = statuses(start_two(two, what="eval"), two)
    assert ended == [0, 0], said
    expected = read_results(one)
    assert len(expected) == 8
    assert read_results(two) == expected
    assert expected["clean.json"]["provenance"]["device"] == "4 x cpu (cpu)"
    assert "results in" in said[0] and "clean" not in said[1]


@pytest.mark.slow
def test_a_pod_in_small_is_preempted_and_leaves_no_trace(tmp_path):
    """Two processes with four devices each are stopped, go on and evaluate, equal to the bit."""

    def run(run_dir, **arguments):
        return statuses(start_two(run_dir, devices=4, **arguments), run_dir)

    whole, stopped = tmp_path / "whole" / "run", tmp_path / "stopped" / "run"
    for run_dir in (whole, stopped):
        run_dir.parent.mkdir()
    ended, said = run(whole)
    assert ended == [0, 0] and "8 x cpu" in said[0], said
    ended, said = run(stopped, fault="term")
    assert ended == [75, 75], said
    assert content(stopped)[0].step in (5, 6, 7)
    ended, said = run(stopped)
    assert ended == [0, 0], said
    jax.tree.map(np.testing.assert_array_equal, content(stopped), content(whole))
    for run_dir in (whole, stopped):
        ended, said = run(run_dir, what="eval")
        assert ended == [0, 0], said
    expected = read_results(whole)
    assert expected["clean.json"]["provenance"]["device"] == "8 x cpu (cpu)"
    assert len(expected) == 8 and read_results(stopped) == expected


@pytest.mark.slow
def test_eight_devices_train_and_evaluate_as_one(tmp_path):
    """Curve, sums and adversarial images agree up to rounding, the noise to the bit."""
    found = []
    for devices in (1, 8):
        run_dir = tmp_path / str(devices) / "run"
        run_dir.parent.mkdir()
        for what in ("train", "eval"):
            cluster = f"localhost:{free_port(range(20_000, 30_000))},1,0"
            process = start(what, run_dir, cluster, 0, devices=devices)
            assert process.wait() == 0, Path(f"{run_dir}.0.err").read_text()
        files = {path.name: path for path in (run_dir / "results").iterdir()}
        arrays = {name: dict(np.load(path)) for name, path in files.items() if ".npz" in name}
        records = {
            name: json.loads(path.read_text()) for name, path in files.items() if ".json" in name
        }
        found.append((run_dir, arrays, records, np.load(run_dir / "noise-0.npy")))
    (one, arrays, records, noise), (eight, *others, noise_of_eight) = found
    assert_same_run(eight, one)
    np.testing.assert_array_equal(noise_of_eight, noise)
    assert records["clean.json"]["provenance"]["device"] == "1 x cpu (cpu)"
    assert others[1]["clean.json"]["provenance"]["device"] == "8 x cpu (cpu)"
    for name, record in records.items():
        assert numbers(record["numbers"]) == roughly(numbers(others[1][name]["numbers"]))
    assert "adversarial" in arrays["attack-pgd-linf-0.0156863-2-steps.npz"]
    for name, values in arrays.items():
        for field, value in values.items():
            if np.issubdtype(value.dtype, np.floating):
                np.testing.assert_allclose(
                    others[0][name][field], value, rtol=TOLERANCE, atol=TOLERANCE
                )
            else:
                np.testing.assert_array_equal(others[0][name][field], value)
