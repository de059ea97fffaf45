"""Each front end is trained, opened, saved as a folder and evaluated, as any network."""

import numpy as np
import pytest

import vone_jax
from vone_jax import convert, results
from vone_jax.cli import evaluate, train

CONFIG = """
from dataclasses import replace

import jax.numpy as jnp
from configs.quickstart.resnet18 import experiment as quickstart
from vone_jax import models
from vone_jax.front_ends import PushPull, PushPullV1, RBlur
from vone_jax.v1 import VOneBlockConfig

model = replace(quickstart.model, width=4)
bank = replace(models.v1_config(28, 1), simple_channels=8, complex_channels=0, noise=None)
stem = model.complete().stem(jnp.float32)
model = replace(model, front_end={}, mean=(0.0,), std=(1.0,))
experiment = replace(quickstart, name="mine", model=model, steps=2)
"""
FRONT_ENDS = {
    "push-pull": "PushPull(4, strength=None)",
    "push-pull over the bank": "PushPullV1(bank, 4)",
    "r-blur": "RBlur(stem)",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FRONT_ENDS)
def test_a_run_is_opened_and_has_the_quick_suite(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(CONFIG.format(FRONT_ENDS[name]))
    assert train.main(["mine.py", "--data.batch-size", "8"]) == 0
    network = vone_jax.open_network("runs/mine")
    convert.save_folder("folder", network.model, network.variables)
    folder = vone_jax.open_network("folder")
    assert folder.model.spec == network.model.spec and folder.checksum == network.checksum
    assert network.stochastic == (name == "r-blur")
    few = ("--examples", "4", "--batch-size", "4", "--eps", "4/255", "--draws", "2")
    assert evaluate.main(["runs/mine", *few]) == 0
    measured = {each.row["condition"] for each in results.load("runs/mine")[0].results}
    assert {"clean", "attack", "corruption"} <= measured
    assert np.isfinite(
        [each.value("accuracy") for each in results.load("runs/mine")[0].results]
    ).all()
