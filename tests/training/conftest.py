"""Experiments on a network and a data set of a few bytes."""

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache
from tiny import TinyNet, tiny_source

from vone_jax import data, training


@pytest.fixture
def tiny(monkeypatch):
    """An experiment that trains ``TinyNet`` on ``tiny_source`` with 3 steps per epoch."""
    monkeypatch.setattr(data, "load", lambda name, split, data_dir=None: tiny_source(split))
    monkeypatch.setattr(training.Experiment, "build", lambda self: TinyNet())
    return training.Experiment(
        name="tiny",
        model=training.ModelConfig(name="resnet18", image_size=8, in_channels=1),
        data=training.DataConfig(
            source="tiny", batch_size=8, eval_batch_size=4, augment=data.Augment(flip=True)
        ),
        optimizer=training.OptimizerConfig(learning_rate=0.1, schedule=training.Cosine()),
        steps=6,
        log_every=2,
    )


@pytest.fixture(scope="session")
def _cache_directory(tmp_path_factory):
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module")
def cached_compilation(_cache_directory):
    """Keep compiled programs, so that the second run of an experiment does not compile again."""
    settings = {
        "jax_compilation_cache_dir": str(_cache_directory),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
