"""A data set of a few bytes and runs on it, to be used instead of real ones."""

from types import SimpleNamespace

import jax
import numpy as np

from tests.networks import TinyNet
from vone_jax import data
from vone_jax.training.run import Checkpoints, read_log, read_run, saved_steps
from vone_jax.training.speed import RATES
from vone_jax.training.step import initial_state


def tiny_source(split):
    """Return 24 training or 10 test images of three classes that differ in brightness."""
    rng = np.random.default_rng(0 if split == "train" else 1)
    labels = np.arange(24 if split == "train" else 10) % 3
    images = rng.integers(0, 60, (len(labels), 8, 8, 1)) + 60 * labels[:, None, None, None]
    return data.ArraySource(
        images.astype(np.uint8), labels, class_names=("a", "b", "c"), name="tiny", split=split
    )


def source_of(model, variables, architecture, class_names):
    """A network with weights, as ``open_network`` returns it."""
    return SimpleNamespace(
        name="source",
        architecture=architecture,
        model=model,
        variables=variables,
        class_names=class_names,
        notes=(),
        assumed=(),
    )


def final_state(experiment, run_dir, step=None, model=None):
    """Return the state of a checkpoint, by default of the last one."""
    model = TinyNet() if model is None else model
    like = jax.eval_shape(lambda: initial_state(experiment, model))
    description = read_run(run_dir)
    with Checkpoints(run_dir / "checkpoints", description, read_only=True) as checkpoints:
        return checkpoints.restore(step or saved_steps(run_dir)[-1], like)


def log(run_dir):
    """Return the log without the rates, which depend on the clock."""
    records = read_log(run_dir / "log.jsonl")
    return [{k: v for k, v in r.items() if k not in RATES} for r in records]
