"""``python train_tiny.py RUN_DIR [WEIGHTS]``: a run of 400 steps on the tiny network, to be killed.

WEIGHTS is an NPZ file of arrays by path, from which the run starts with frozen parts.
"""

import dataclasses
import sys

import numpy as np
from flax.traverse_util import unflatten_dict
from tiny import source_of, tiny_source

from tests.networks import TinyNet
from vone_jax import data, models, training

EXPERIMENT = training.Experiment(
    name="killed",
    model=models.Spec(name="resnet18", image_size=8, in_channels=1),
    data=training.DataConfig("tiny", eval_split="test", batch_size=8, eval_batch_size=4),
    optimizer=training.OptimizerConfig(schedule=training.Plateau(patience=2)),
    steps=400,
    # Every step: most of the time is spent writing checkpoints, so most kills hit one.
    checkpoint_every=1 / 3,
    log_every=3,
)


def starting_from(weights):
    """The experiment that starts from a file, or the plain one for None."""
    if weights is None:
        return EXPERIMENT
    return dataclasses.replace(EXPERIMENT, initial_weights=str(weights), freeze=("conv", "norm"))


def read(path):
    """Read a network as ``vone_jax.open_network`` returns it."""
    with np.load(path) as archive:
        variables = unflatten_dict(dict(archive), sep="/")
    return source_of(TinyNet(), variables, "tiny", ())


def main(run_dir, weights=None):
    data.load = lambda name, split, data_dir=None: tiny_source(split)
    training.Experiment.build = lambda self: TinyNet(self.model.num_classes)
    return training.train(starting_from(weights), run_dir, open_network=read)


if __name__ == "__main__":
    sys.exit(0 if main(*sys.argv[1:]).finished else 1)
