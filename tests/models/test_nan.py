"""NaN in one pixel, or behind the front end, reaches the logits on a CPU."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.networks import MeanBackEnd, random_variables
from vone_jax import models, v1

SIDE = 64


def prepared(name):
    """A network with small weights of both signs and the batch statistics of a new one."""
    model = models.create(name, 3, image_size=SIDE)
    variables = random_variables(model)
    params = jax.tree.map(lambda values: 0.1 * (values - 1.0), variables["params"])
    stats = jax.tree.map(np.ones_like, variables.get("batch_stats", {}))
    return model, {"params": params, "batch_stats": stats}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=[] if each in ("resnet18", "vone_resnet18") else pytest.mark.slow)
        for each in models.list_models()
    ],
)
def test_a_pixel_that_is_nan_reaches_the_logits(name):
    model, variables = prepared(name)
    images = np.full((1, SIDE, SIDE, model.in_channels), 0.5, np.float32)
    call = jax.jit(lambda fn, images: fn(jax.random.key(0), images))
    fn = models.logits_fn(model, variables)
    assert np.isfinite(call(fn, images)).all()
    images[0, SIDE // 2, SIDE // 2, 0] = np.nan
    assert np.isnan(call(fn, images)).all()


def test_a_pixel_that_is_nan_reaches_the_logits_through_complex_cells_alone():
    config = v1.VOneBlockConfig(0, 4, image_size=16, visual_degrees=0.5, kernel_size=5, stride=2)
    model = models.create("vone_resnet18", 3, v1=config, back_end=MeanBackEnd(), width=2)
    variables = random_variables(model)
    images = np.full((1, 16, 16, 3), 0.5, np.float32)
    images[0, 8, 8] = np.nan
    assert np.isnan(models.logits_fn(model, variables)(jax.random.key(0), images)).all()


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(each, marks=[] if each == "resnet18" else pytest.mark.slow)
        for each in models.list_models()
        if not each.startswith(("vone_", "ev_"))
    ],
)
def test_a_value_behind_the_front_end_that_is_nan_reaches_the_logits(name):
    """VOneNets and EVNets have the same back ends."""
    model, variables = prepared(name)
    images = jnp.zeros((1, SIDE, SIDE, model.in_channels))
    stem = nn.apply(lambda model, x: list(model.stem(x, False).values())[-1], model)
    values = np.full(jax.eval_shape(stem, variables, images).shape, 0.5, np.float32)
    back_end = jax.jit(nn.apply(lambda model, x: model.back_end(x, False)["logits"], model))
    assert np.isfinite(back_end(variables, values)).all()
    values[0, values.shape[1] // 2, values.shape[2] // 2, 0] = np.nan
    assert np.isnan(back_end(variables, values)).all()
