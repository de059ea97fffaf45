"""A run whose V1 is trained opens as a network with a fixed bank."""

import jax
import numpy as np
import pytest

from vone_jax import models, open_network, runs, v1
from vone_jax.cli import train
from vone_jax.training.step import initial_state

CONFIG = """
from dataclasses import replace
from configs.quickstart.vone_resnet18 import experiment as base
from vone_jax import v1
model = replace(
    base.model,
    v1=replace(base.model.v1, simple_channels=4, complex_channels=4, tuned=True),
    learned_normalization=v1.{rule},
)
experiment = replace(base, model=model)
"""


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["OrientedPools(5)", "GDN()"])
def test_a_run_trains_v1_and_opens_with_what_it_has_learned(tmp_path, rule):
    config, run_dir = tmp_path / "config.py", tmp_path / "run"
    config.write_text(CONFIG.format(rule=rule))
    size = ["--model.width=2", "--data.batch-size=32", "--log-every=1"]
    assert train.main([str(config), *size, "--steps=2", "--run-dir", str(run_dir)]) == 0
    run = runs.load_run(run_dir)
    experiment, model, variables = run.experiment, run.model, run.variables
    assert experiment.model.learned_normalization == eval(f"v1.{rule}")
    start = initial_state(experiment, model).variables["params"]
    for part in models.V1_MODULES:
        changes = jax.tree.map(lambda a, b: float(abs(a - b).max()), variables["params"][part],
                               start[part])  # fmt: skip
        assert min(jax.tree.leaves(changes)) > 0.0, changes

    network = open_network(run_dir)
    fixed = network.model
    assert isinstance(fixed, models.VOneNet) and isinstance(fixed.v1.bank, v1.GaborParameters)
    assert fixed.v1.bank != model.v1.gabor_parameters()
    images = jax.random.uniform(jax.random.key(0), (2, 28, 28, 1))
    found = network.logits_fn(jax.random.key(1), images)
    expected = models.logits_fn(model, variables)(jax.random.key(1), images)
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert "v1.normalized" in models.features_fn(fixed, network.variables)(
        jax.random.key(1), images
    )
