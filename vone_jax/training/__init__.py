"""Training: experiments, the optimiser, the loop, checkpoints, and loading of trained runs."""

# ruff: noqa: F401

from vone_jax.training.augmentation import PRIME, GaussianImageNoise
from vone_jax.training.experiment import (
    DataConfig,
    Distillation,
    Experiment,
    ModelConfig,
    Similarity,
)
from vone_jax.training.experiment_files import config_names, from_json, load_config, to_json
from vone_jax.training.inputs import resolve
from vone_jax.training.loop import NonFiniteError, Outcome, train
from vone_jax.training.optimizer import (
    Constant,
    Cosine,
    OneCycle,
    OptimizerConfig,
    Plateau,
    Step,
)
from vone_jax.training.run import (
    Run,
    RunDescription,
    RunDirectoryError,
    load_run,
    read_run,
    saved_steps,
    versions,
)
