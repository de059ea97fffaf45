"""Each objective gives the losses that it gave before objectives were a tuple.

Expected are the sums of the loss in the first and the fifth step at the commit f389f74c, where the
step knew each of them by its class. Over 20 steps all losses and weights had the same bits, but
those of the last row: there, float32 rounding of the first step is 1e-7, and of the weights after
twenty steps 6e-6.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_perturbation import FeaturesNet
from test_train_step import EXPERIMENT
from tiny import tiny_source

from vone_jax import mesh as meshes
from vone_jax import training
from vone_jax.attacks import PGD
from vone_jax.training.step import initial_state, make_train_step

pytestmark = pytest.mark.slow

SOURCE = tiny_source("train")
PARTS = {"accumulation_steps": 2}
PGD_LINF = PGD("linf", 0.1, steps=2, random_start=True)
TRADES = training.TRADES(0.1, 0.03, steps=3)
FREE = training.Free(0.1, step_size=0.04, replays=2)
SIMILARITY = training.Similarity(
    "v1", alpha=3.0, layers=("pixels", "logits"), images=16, batch_size=8
)
TEACHER = training.Distillation("unused", 3.0, 0.4)
NOT_SMOOTHED = {"optimizer": replace(EXPERIMENT.optimizer, label_smoothing=0.0)}


def batch(number):
    """One of the three batches of an epoch."""
    rows = np.arange(8) + 8 * (number % 3)
    return {
        "image": np.stack([SOURCE[i]["image"] for i in rows]).astype(np.float32) / 255,
        "label": np.array([SOURCE[i]["label"] for i in rows], np.int32),
        "index": rows.astype(np.uint32),
    }


WEIGHTS = jnp.asarray(np.random.default_rng(3).normal(size=(64, 3)), jnp.float32)
RESOURCES = {
    "Similarity": {
        "images": np.concatenate([batch(0)["image"], batch(1)["image"]]),
        "similarity": np.corrcoef(np.random.default_rng(1).random((16, 20))).astype(np.float32),
    },
    "Distillation": jax.tree_util.Partial(
        jax.jit(lambda keys, images: images.reshape(len(images), -1) @ WEIGHTS)
    ),
}


@pytest.mark.parametrize(
    ("objectives", "fields", "expected"),
    [
        ((), {"ema_decay": 0.9}, (7.237350, 6.266400)),
        ((training.Corruptions(("gaussian_noise", "brightness")),), {}, (7.265206, 6.514129)),
        ((training.Mixing(0.4, 1.0),), {}, (8.800247, 8.010653)),
        ((training.GaussianImageNoise(0.1),), {}, (7.252903, 6.323395)),
        ((training.PRIME(),), {}, (7.969787, 8.073415)),
        ((PGD_LINF,), {}, (7.976073, 7.116627)),
        ((PGD_LINF,), PARTS, (8.598559, 6.601895)),
        ((training.Fast(0.1),), {}, (7.922965, 6.828568)),
        ((training.Fast(0.1),), PARTS, (8.585034, 6.503729)),
        ((FREE,), {}, (7.237350, 6.313987)),
        ((FREE, training.Mixing(0.4)), {}, (8.412442, 6.596802)),
        ((replace(TRADES, beta=3.0),), {}, (8.736303, 7.848202)),
        ((training.MART(0.1, 0.03, steps=3),), NOT_SMOOTHED, (13.649697, 11.086573)),
        ((training.AWP(0.01, warmup_epochs=1),), {}, (7.237350, 6.324376)),
        ((SIMILARITY,), {}, (7.237350, 6.241364)),
        ((TEACHER,), {}, (4.677076, 4.299756)),
        ((TRADES, training.AWP(0.01), SIMILARITY), {}, (10.341438, 8.216032)),
        (
            (
                training.Corruptions(("brightness",)), training.Mixing(0.4), TEACHER, TRADES,
                training.AWP(0.01), SIMILARITY,
            ),
            PARTS | {"remat": True, "ema_decay": 0.9},
            (9.917083, 5.539997),
        ),
    ],
)  # fmt: skip
def test_an_objective_has_the_losses_that_it_had(objectives, fields, expected):
    experiment = replace(EXPERIMENT, objectives=objectives, steps=20, **fields)
    mesh = meshes.data_mesh(jax.devices()[:1])
    resources = {each.name: RESOURCES.get(each.name) for each in experiment.applied}
    step = make_train_step(FeaturesNet(), experiment, 3, mesh, resources)
    state = meshes.replicate(mesh, meshes.fetch(initial_state(experiment, FeaturesNet())))
    losses = []
    for number in range(5):
        state, metrics = step(state, meshes.shard_batch(mesh, batch(number)))
        losses.append(float(metrics.sums.loss))
    np.testing.assert_allclose([losses[0], losses[-1]], expected, rtol=2e-5)
