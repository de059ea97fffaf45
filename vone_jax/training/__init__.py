"""Training: experiments, the optimiser, objectives, the loop, and the directories of runs."""

# ruff: noqa: F401

from vone_jax.training.config import (
    DataConfig,
    Distillation,
    Experiment,
    Mixing,
    ModelConfig,
    Similarity,
    config_names,
    from_json,
    load_config,
    to_json,
)
from vone_jax.training.initial import resolve
from vone_jax.training.loop import NonFiniteError, Outcome, train
from vone_jax.training.optimizer import (
    Constant,
    Cosine,
    Cyclic,
    OneCycle,
    OptimizerConfig,
    Plateau,
    Step,
)
from vone_jax.training.perturbations import (
    AWP,
    MART,
    PRIME,
    TRADES,
    Fast,
    Free,
    GaussianImageNoise,
)
from vone_jax.training.run import (
    RunDescription,
    RunDirectoryError,
    read_run,
    saved_steps,
    versions,
)
