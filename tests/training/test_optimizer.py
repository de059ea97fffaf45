"""The optimiser against torch.optim.SGD's update rule, written out in NumPy float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax.training import OptimizerConfig
from vone_jax.training.optimizer import apply_updates, make_optimizer

SHAPES = {"conv": {"kernel": (3, 2)}, "norm": {"scale": (2,), "bias": (2,)}}


def random_tree(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: rng.normal(size=shape), SHAPES, is_leaf=lambda x: isinstance(x, tuple)
    )


def reference(config, params, gradients, rates):
    """p after len(rates) steps; the gradients are given, one tree per step."""
    velocity = jax.tree.map(np.zeros_like, params)
    for gradient, rate in zip(gradients, rates, strict=True):
        if config.gradient_clip is not None:
            norm = np.sqrt(sum(np.sum(g**2) for g in jax.tree.leaves(gradient)))
            scale = min(1.0, config.gradient_clip / norm)
            gradient = jax.tree.map(lambda g, scale=scale: g * scale, gradient)

        def decayed(p, g):
            return g + (config.weight_decay * p if config.decayed == "all" or p.ndim > 1 else 0.0)

        gradient = jax.tree.map(decayed, params, gradient)
        velocity = jax.tree.map(lambda v, g: config.momentum * v + g, velocity, gradient)
        update = velocity
        if config.nesterov:
            update = jax.tree.map(lambda v, g: g + config.momentum * v, velocity, gradient)
        params = jax.tree.map(lambda p, u, rate=rate: p - rate * u, params, update)
    return params


@pytest.mark.parametrize(
    "config",
    [
        OptimizerConfig(momentum=0.0, weight_decay=0.0),
        OptimizerConfig(momentum=0.9, weight_decay=0.0),
        OptimizerConfig(momentum=0.9, weight_decay=0.1),
        OptimizerConfig(momentum=0.8, nesterov=True, weight_decay=0.1),
        OptimizerConfig(momentum=0.9, weight_decay=0.1, decayed="kernels"),
        OptimizerConfig(momentum=0.9, weight_decay=0.1, gradient_clip=0.5),
        OptimizerConfig(momentum=0.9, weight_decay=0.1, gradient_clip=1e6),
    ],
)
def test_updates_are_those_of_pytorch(config):
    """With a rate that changes on the way: it must act on the momentum gathered so far."""
    rates = [0.1, 0.1, 0.01, 0.02]
    start, gradients = random_tree(0), [random_tree(seed) for seed in range(1, 5)]
    to_jax = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)  # noqa: E731
    optimizer = make_optimizer(config)
    params = to_jax(start)
    state = optimizer.init(params)
    for gradient, rate in zip(gradients, rates, strict=True):
        updates, state = optimizer.update(to_jax(gradient), state, params)
        params = apply_updates(params, updates, jnp.float32(rate))
    expected = reference(config, start, gradients, rates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), params, expected)


def test_decay_spares_biases_and_batch_norm_only_when_asked_to():
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), random_tree(0))
    zeros = jax.tree.map(jnp.zeros_like, params)
    for decayed, spared in (("all", False), ("kernels", True)):
        optimizer = make_optimizer(OptimizerConfig(weight_decay=0.5, decayed=decayed))
        updates, _ = optimizer.update(zeros, optimizer.init(params), params)
        np.testing.assert_allclose(updates["conv"]["kernel"], 0.5 * params["conv"]["kernel"])
        assert (np.abs(updates["norm"]["bias"]).max() == 0) == spared
        assert (np.abs(updates["norm"]["scale"]).max() == 0) == spared
