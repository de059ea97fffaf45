"""A network and a data set of a few bytes, to be used instead of real ones."""

from types import SimpleNamespace

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import data, prng
from vone_jax.models.layers import BatchNorm
from vone_jax.training.run import Checkpoints, read_log
from vone_jax.training.state import initial_state


class TinyNet(nn.Module):
    """A network with everything the loop must handle: noise per example, batch norm, dropout."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, images, train=False, noise_key=None):
        keys = prng.example_keys(noise_key, len(images)) if noise_key is not None else None
        x = nn.Conv(4, (3, 3), use_bias=False, name="conv")(images)
        if keys is not None:
            x += 0.1 * jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
        x = nn.relu(BatchNorm(name="norm")(x, train))
        x = nn.Dropout(0.2, deterministic=not train)(jnp.mean(x, axis=(1, 2)))
        return nn.Dense(self.num_classes, name="logits")(x)


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
    with Checkpoints(run_dir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore(step or checkpoints.steps()[-1], like)


def log(run_dir):
    """Return the log without the speed, which depends on the clock."""
    records = read_log(run_dir / "log.jsonl")
    return [{k: v for k, v in r.items() if k != "examples_per_second"} for r in records]
