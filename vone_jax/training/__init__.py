"""Training: experiments, the optimiser, objectives, the loop, and the directories of runs."""

# ruff: noqa: F401

from vone_jax.training.config import (
    DataConfig,
    Experiment,
    config_names,
    from_json,
    load_config,
    resolve,
    to_json,
)
from vone_jax.training.loop import NonFiniteError, Outcome, train
from vone_jax.training.objective import (
    Attacked,
    Context,
    Gradient,
    Objective,
    Setup,
    cross_entropy,
    divergence,
)
from vone_jax.training.objectives import (
    AWP,
    MART,
    PRIME,
    TRADES,
    Corruptions,
    Diet,
    Distillation,
    Fast,
    Free,
    GaussianImageNoise,
    Mixing,
    Similarity,
)
from vone_jax.training.optimizer import (
    Constant,
    Cosine,
    Cyclic,
    OneCycle,
    OptimizerConfig,
    Plateau,
    Schedule,
    Step,
)
from vone_jax.training.run import (
    RunDescription,
    RunDirectoryError,
    read_run,
    saved_steps,
    versions,
)
from vone_jax.training.step import TrainState, initial_state, make_eval_step, make_train_step
