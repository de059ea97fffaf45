"""SGD against torch.optim.SGD's rule in NumPy float64; schedules against their closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from vone_jax import models
from vone_jax.training import Cosine, Cyclic, OneCycle, OptimizerConfig, Plateau, Step
from vone_jax.training.optimizer import (
    PlateauState,
    euclidean_norm,
    learning_rate,
)

SHAPES = {"conv": {"kernel": (3, 2)}, "norm": {"scale": (2,), "bias": (2,)}}


def random_tree(seed):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: rng.normal(size=shape), SHAPES, is_leaf=lambda x: isinstance(x, tuple)
    )


def reference(config, params, gradients, rates):
    """Return the parameters after len(rates) steps with one tree of gradients per step."""
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
        params = jax.tree.map(lambda p, v, rate=rate: p - rate * v, params, velocity)
    return params


@pytest.mark.parametrize(
    "config",
    [
        OptimizerConfig(momentum=0.9, weight_decay=0.1),
        OptimizerConfig(momentum=0.9, weight_decay=0.1, decayed="kernels"),
        OptimizerConfig(momentum=0.9, weight_decay=0.1, gradient_clip=0.5),
        OptimizerConfig(momentum=0.9, weight_decay=0.1, gradient_clip=1e6),
    ],
)
def test_updates_are_those_of_pytorch(config):
    """A change of the rate must act on the accumulated momentum."""
    rates = [0.1, 0.1, 0.01, 0.02]
    start, gradients = random_tree(0), [random_tree(seed) for seed in range(1, 5)]
    to_jax = lambda tree: jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), tree)  # noqa: E731
    params = to_jax(start)
    state = config.transformation().init(params)
    for gradient, rate in zip(gradients, rates, strict=True):
        optimizer = config.transformation(jnp.float32(rate))
        updates, state = optimizer.update(to_jax(gradient), state, params)
        params = jax.tree.map(jnp.add, params, updates)
    expected = reference(config, start, gradients, rates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), params, expected)


@pytest.mark.usefixtures("standard_promotion")
def test_lamb_scales_updates_by_the_norms_of_parameters():
    """Algorithm 2 of You et al. in NumPy float64, without a bound on the trust ratio."""
    config = OptimizerConfig(method="lamb", weight_decay=0.1, beta2=0.99, epsilon=1e-6)
    start, gradients = random_tree(0), [random_tree(seed) for seed in range(1, 4)]
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), start)
    state = config.transformation().init(params)
    for gradient in gradients:
        gradient = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), gradient)
        updates, state = config.transformation(jnp.float32(0.05)).update(gradient, state, params)
        params = jax.tree.map(jnp.add, params, updates)

    def expected(p, *gradients):
        m = v = np.zeros_like(p)
        for number, g in enumerate(gradients, start=1):
            m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2
            update = m / (1 - 0.9**number) / (np.sqrt(v / (1 - 0.99**number)) + 1e-6) + 0.1 * p
            p = p - 0.05 * np.linalg.norm(p) / np.linalg.norm(update) * update
        return p

    references = jax.tree.map(expected, start, *gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5), params, references)


def test_what_is_learned_within_v1_does_not_decay():
    params = {name: {"x": jnp.ones((2, 2))} for name in ("block", "normalization", "bottleneck")}
    optimizer = OptimizerConfig(weight_decay=0.5).transformation()
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    largest = {name: float(jnp.max(-each["x"])) for name, each in updates.items()}
    assert largest == {"block": 0.0, "normalization": 0.0, "bottleneck": 0.5}


@pytest.mark.parametrize("name", ["vit_ti16", "convnext_t"])
def test_of_kernels_alone_no_token_and_no_position_decays(name):
    """timm's ``no_weight_decay``, and the kernels of big_vision, which have their name there."""
    model = models.create(name, 3, 16, width=8, depth=1 if name == "vit_ti16" else (1, 1))
    shapes = jax.eval_shape(lambda key: models.init(model, key)["params"], jax.random.key(0))
    params = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)
    optimizer = OptimizerConfig(weight_decay=0.5, decayed="kernels").transformation()
    updates, _ = optimizer.update(
        jax.tree.map(jnp.zeros_like, params), optimizer.init(params), params
    )
    decayed = {path for path, leaf in flatten_dict(updates, sep="/").items() if leaf.any()}
    paths = flatten_dict(params, sep="/")
    assert decayed == {path for path in paths if path.endswith("/kernel")} != set()


def curve(schedule, steps_per_epoch=10, total_steps=50, **config):
    """Return the learning rate at every step of a run of 5 epochs."""
    rate = learning_rate(OptimizerConfig(schedule=schedule, **config), steps_per_epoch, total_steps)
    return np.asarray(jax.vmap(rate)(jnp.arange(total_steps, dtype=jnp.int32)))


def test_the_norm_is_that_over_all_values():
    """NumPy computes it in float64; the arrays have four axes to none."""
    generator = np.random.default_rng(0)
    shapes = [(3, 3, 5, 7), (5, 2), (4,), ()]
    arrays = [np.float32(generator.normal(size=shape)) for shape in shapes]
    everything = np.concatenate([np.ravel(array) for array in arrays]).astype(np.float64)
    norm = euclidean_norm({"a": arrays[:2], "b": jax.tree.map(jnp.asarray, arrays[2:])})
    assert float(norm) == pytest.approx(np.linalg.norm(everything), rel=1e-6)
    assert np.isinf(euclidean_norm([jnp.asarray([1.0, np.inf])]))
    assert np.isnan(euclidean_norm([jnp.asarray([[1.0, np.nan]])]))


def test_step_falls_at_the_start_of_the_given_epochs():
    rates = curve(Step(epochs=(2, 4), decay=0.1), learning_rate=0.5)
    expected = [0.5] * 20 + [0.05] * 20 + [0.005] * 10
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_cosine_goes_from_the_base_rate_to_the_final_one():
    rates = curve(Cosine(final=0.1), learning_rate=2.0)
    expected = [2 * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * t / 50))) for t in range(50)]
    np.testing.assert_allclose(rates, expected, rtol=1e-6)


def test_one_cycle_is_that_of_pytorch():
    """OneCycleLR(max_lr=0.4, total_steps=50) with its other defaults, which are also ours."""
    rates = curve(OneCycle(rise=0.3), learning_rate=0.4)
    start, end = 0.4 / 25, 0.4 / 25 / 1e4

    def anneal(a, b, share):
        return b + (a - b) / 2 * (1 + math.cos(math.pi * share))

    expected = [
        anneal(start, 0.4, t / 14) if t <= 14 else anneal(0.4, end, (t - 14) / 35)
        for t in range(50)
    ]
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-8)
    momenta = [
        float(OneCycle(rise=0.3).momentum(jnp.int32(step), 50)) for step in (0, 7, 14, 32, 49)
    ]
    halfway = anneal(0.85, 0.95, 18 / 35)
    np.testing.assert_allclose(momenta, [0.95, 0.9, 0.85, halfway, 0.95], rtol=1e-5)
    assert OneCycle(cycle_momentum=False).momentum(jnp.int32(3), 50) is None
    assert Cosine().momentum(jnp.int32(3), 50) is None
    assert rates.argmax() == 14
    np.testing.assert_allclose(rates[-1], end, rtol=1e-2)


@pytest.mark.parametrize(("rise", "total"), [(0.0, 20), (1.0, 20), (0.3, 1)])
def test_one_cycle_is_finite_at_its_limits(rise, total):
    rates = curve(OneCycle(rise=rise), total_steps=total)
    assert np.isfinite(rates).all() and (rates > 0).all() and (rates <= 0.1 * (1 + 1e-6)).all()


def test_cyclic_is_that_of_the_authors_of_fast():
    """Their loop for MNIST interpolates the epoch after each step, with the peak at two fifths."""
    after = np.arange(1, 51) / 10
    expected = np.interp(after, [0, 2, 5], [0, 5e-3, 0])
    rates = curve(Cyclic(rise=0.4), learning_rate=5e-3)
    np.testing.assert_allclose(rates, expected, rtol=1e-5, atol=1e-9)


def test_warmup_multiplies_the_schedule_by_a_linear_rise():
    plain = curve(Cosine())
    warm = curve(Cosine(), warmup_epochs=1.5)
    rise = np.minimum(1.0, np.arange(1, 51) / 15)
    np.testing.assert_allclose(warm, plain * rise, rtol=1e-6)


def torch_plateau(losses, decay, patience, threshold):
    """ReduceLROnPlateau, written from its documentation, in Python floats."""
    factor, best, waited, factors = 1.0, math.inf, 0, []
    for loss in losses:
        if loss < best * (1 - threshold):
            best, waited = loss, 0
        else:
            waited += 1
        if waited > patience:
            factor, waited = factor * decay, 0
        factors.append(factor)
    return factors


@pytest.mark.parametrize("threshold", [0.0, 0.2])
def test_plateau_is_that_of_pytorch(threshold):
    losses = [3.0, 2.0, 1.99, 2.1, 1.7, 1.69, 1.69, 1.8, 1.2, 1.2, 1.2, 1.2, 1.2, 1.1, 1.3, 1.3]
    schedule = Plateau(decay=0.5, patience=1, threshold=threshold)
    state = jax.tree.map(np.asarray, PlateauState())
    factors = []
    for loss in losses:
        state = schedule.after_validation(state, loss)
        factors.append(float(state.factor))
    assert factors == torch_plateau(losses, 0.5, 1, threshold)
    assert factors[-1] < 1
    assert state.factor.dtype == state.best.dtype == np.float32 and state.waited.dtype == np.int32
