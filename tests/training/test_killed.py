"""A run that is killed many times at random moments ends with the same bits as one that is not."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from tiny import final_state, log
from train_tiny import EXPERIMENT, starting_from

from tests.networks import TinyNet

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20


def start(run_dir, *arguments):
    """Start a process that trains; its stderr goes to a file beside the run."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
        "JAX_NUM_CPU_DEVICES": "2" if arguments else "1",
    }
    script = Path(__file__).with_name("train_tiny.py")
    with open(run_dir.with_suffix(".err"), "w") as stderr:
        return subprocess.Popen(
            [sys.executable, str(script), str(run_dir), *map(str, arguments)],
            env=environment,
            stderr=stderr,
        )


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
@pytest.mark.parametrize("from_weights", [False, True])
def test_kills_at_random_moments_leave_no_trace(tmp_path, from_weights):
    """The run from weights is on two devices. Its file is gone once there is a checkpoint."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    arguments, experiment = (), EXPERIMENT
    if from_weights:
        weights = tmp_path / "weights.npz"
        variables = TinyNet().init(jax.random.key(1), np.zeros((1, 8, 8, 1), np.float32))
        np.savez(weights, **flatten_dict(jax.device_get(variables), sep="/"))
        arguments, experiment = (weights,), starting_from(weights)
    assert start(whole, *arguments).wait() == 0, whole.with_suffix(".err").read_text()

    moments = random.Random(0)
    reached, in_a_write = [], 0
    for number in range(KILLS):
        process = start(killed, *arguments)
        before = newest(killed)
        # Mostly soon after the run has got on; now and then while it starts.
        while number % 4 and process.poll() is None and newest(killed) <= before:
            time.sleep(0.005)
        time.sleep(moments.uniform(0.0, 0.1 if number % 4 else 4.0))
        process.kill()
        process.wait()
        reached.append(newest(killed))
        if from_weights and reached[-1]:
            weights.unlink(missing_ok=True)
        in_a_write += any("tmp" in path.name for path in (killed / "checkpoints").glob("*"))
    assert start(killed, *arguments).wait() == 0, killed.with_suffix(".err").read_text()

    assert len(set(reached)) > KILLS // 2, "most kills came before or after the run"
    assert in_a_write, "no kill came while a checkpoint was written"
    state, expected = (final_state(experiment, run_dir) for run_dir in (killed, whole))
    assert int(state.step) == EXPERIMENT.steps
    assert log(killed) == log(whole)
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def newest(run_dir):
    """Return the highest step of a checkpoint that looks complete, 0 if there is none."""
    names = (path.name for path in (run_dir / "checkpoints").glob("*"))
    return max((int(name) for name in names if name.isdigit()), default=0)
