"""Training: experiments, the optimiser, the loop, checkpoints, and loading of trained runs."""

# ruff: noqa: F401

from vone_jax.experiments.augmentation import PRIME, GaussianImageNoise
from vone_jax.experiments.checkpoint import CheckpointError
from vone_jax.experiments.experiment import (
    DataConfig,
    Distillation,
    Experiment,
    ModelConfig,
    Similarity,
)
from vone_jax.experiments.experiment_files import config_names, from_json, load_config, to_json
from vone_jax.experiments.optimizer import (
    Constant,
    Cosine,
    OneCycle,
    OptimizerConfig,
    Plateau,
    Step,
)
from vone_jax.experiments.run_dir import (
    RunDescription,
    RunDirectoryError,
    load_run,
    read_run,
    versions,
)
from vone_jax.training.initial import start_from
from vone_jax.training.loop import Outcome, train
from vone_jax.training.monitor import NonFiniteError
from vone_jax.training.setup import for_data
