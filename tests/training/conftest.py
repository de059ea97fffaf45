"""Experiments on a network and a data set of a few bytes."""

import jax
import pytest
from tiny import tiny_source

from tests.networks import TinyNet
from vone_jax import data, models, training


@pytest.fixture
def tiny(monkeypatch):
    """An experiment that trains ``TinyNet`` on ``tiny_source`` with 3 steps per epoch."""
    monkeypatch.setattr(data, "load", lambda name, split, data_dir=None: tiny_source(split))
    monkeypatch.setattr(training.Experiment, "build", lambda self: TinyNet())
    return training.Experiment(
        name="tiny",
        model=models.Spec(name="resnet18", image_size=8),
        data=training.DataConfig(
            source="tiny",
            eval_split="test",
            batch_size=8,
            eval_batch_size=4,
            augment=data.Augment(flip=True),
        ),
        optimizer=training.OptimizerConfig(learning_rate=0.1, schedule=training.Cosine()),
        steps=6,
        log_every=2,
    )


@pytest.fixture
def standard_promotion():
    """The promotion of types that users have: Optax's Adam needs it, for its count of steps."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="session")
def _cache_directory(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def cached_compilation(_cache_directory):
    """Keep compiled programs, so that the second run of an experiment does not compile again."""
    shortest = "jax_persistent_cache_min_compile_time_secs"
    before = jax.config.jax_compilation_cache_dir, getattr(jax.config, shortest)
    jax.config.update(shortest, 0.0)
    jax.config.update("jax_compilation_cache_dir", str(_cache_directory))
    yield
    jax.config.update("jax_compilation_cache_dir", before[0])
    jax.config.update(shortest, before[1])
