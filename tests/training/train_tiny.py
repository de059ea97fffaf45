"""``python train_tiny.py RUN_DIR``: a run of 400 steps on the tiny network, to be killed."""

import sys

from tiny import TinyNet, tiny_source

from vone_jax import data, training
from vone_jax.training import setup as setups

EXPERIMENT = training.Experiment(
    name="killed",
    model=training.ModelConfig(name="resnet18", image_size=8, in_channels=1),
    data=training.DataConfig(source="tiny", batch_size=8, eval_batch_size=4),
    optimizer=training.OptimizerConfig(schedule=training.Plateau(patience=2)),
    steps=400,
    # Every step: most of the time is spent writing checkpoints, so most kills hit one.
    checkpoint_every=1 / 3,
    log_every=3,
)


def main(run_dir):
    data.load = lambda name, split, data_dir=None: tiny_source(split)
    setups.build_model = lambda config, precision: TinyNet()
    return training.train(EXPERIMENT, run_dir)


if __name__ == "__main__":
    sys.exit(0 if main(sys.argv[1]).finished else 1)
