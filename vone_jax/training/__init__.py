"""Training: experiments, the optimiser, the loop, checkpoints."""

from vone_jax.training.checkpoint import CheckpointError
from vone_jax.training.config_files import config_names, load_config
from vone_jax.training.experiment import (
    DataConfig,
    Experiment,
    ModelConfig,
    OptimizerConfig,
    from_json,
    to_json,
)
from vone_jax.training.loop import Outcome, train
from vone_jax.training.monitor import NonFiniteError, UnreadableDataError
from vone_jax.training.perturbation import GaussianImageNoise
from vone_jax.training.run_dir import RunDirectoryError
from vone_jax.training.runs import load_run, restore_run
from vone_jax.training.schedules import Constant, Cosine, OneCycle, Plateau, Step
from vone_jax.training.similarity import Similarity

__all__ = [
    "CheckpointError",
    "Constant",
    "Cosine",
    "DataConfig",
    "Experiment",
    "GaussianImageNoise",
    "ModelConfig",
    "NonFiniteError",
    "OneCycle",
    "OptimizerConfig",
    "Outcome",
    "Plateau",
    "RunDirectoryError",
    "Similarity",
    "Step",
    "UnreadableDataError",
    "config_names",
    "from_json",
    "load_config",
    "load_run",
    "restore_run",
    "to_json",
    "train",
]
