"""Layers with PyTorch's conventions, against their definitions in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import fast
from vone_jax.models import layers


def test_batch_norm_keeps_pytorchs_running_values():
    """Momentum 0.1 for the new value, and an unbiased running variance."""
    x = np.random.default_rng(0).normal(3.0, 2.0, (4, 3, 3, 2)).astype(np.float32)
    norm = layers.BatchNorm()
    variables = norm.init(jax.random.key(0), jnp.asarray(x), train=True)
    np.testing.assert_array_equal(variables["batch_stats"]["mean"], [0, 0])
    y, updates = norm.apply(variables, jnp.asarray(x), train=True, mutable=["batch_stats"])
    flat = x.astype(np.float64).reshape(-1, 2)
    mean, variance = flat.mean(0), flat.var(0)
    np.testing.assert_allclose(y, (x - mean) / np.sqrt(variance + 1e-5), atol=1e-5)
    stats = updates["batch_stats"]
    np.testing.assert_allclose(stats["mean"], 0.1 * mean, rtol=1e-5)
    np.testing.assert_allclose(stats["var"], 0.9 + 0.1 * flat.var(0, ddof=1), rtol=1e-5)


@pytest.mark.parametrize("deviations", [0.0, 30.0, 100.0, 1000.0])
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
def test_batch_norm_in_training_is_accurate_far_from_zero(deviations, platform):
    """Against its definition and its gradient in float64.

    At the first step on CPUs, and on TPUs with running values two deviations off. The error of
    PyTorch in float32 is 9e-5 at 1000 standard deviations.
    """
    rng = np.random.default_rng(0)
    x = (deviations + rng.standard_normal((8, 6, 6, 3))).astype(np.float32)
    weights = rng.standard_normal(x.shape).astype(np.float32)
    norm = layers.BatchNorm()
    variables = norm.init(jax.random.key(0), jnp.asarray(x), train=True)
    before = deviations - 2 if platform == "tpu" else 0.0
    variables["batch_stats"]["mean"] = jnp.full(3, before)

    def weighted(x):
        y, updated = norm.apply(variables, x, train=True, mutable=["batch_stats"])
        return jnp.sum(weights * y), (y, updated["batch_stats"])

    with fast.forms_of(platform):
        slope, (y, kept) = jax.jit(jax.grad(weighted, has_aux=True))(jnp.asarray(x))
    exact = x.astype(np.float64)
    mean, inverse = exact.mean((0, 1, 2)), 1 / np.sqrt(exact.var((0, 1, 2)) + 1e-5)
    expected = (exact - mean) * inverse
    np.testing.assert_allclose(y, expected, atol=1e-4)
    of_x = weights - weights.mean((0, 1, 2)) - expected * (weights * expected).mean((0, 1, 2))
    np.testing.assert_allclose(slope, of_x * inverse, atol=1e-3)
    np.testing.assert_allclose(kept["mean"], 0.9 * before + 0.1 * mean, rtol=1e-6, atol=1e-6)
    unbiased = exact.reshape(-1, 3).var(0, ddof=1)
    np.testing.assert_allclose(kept["var"], 0.9 + 0.1 * unbiased, rtol=1e-5)


def test_batch_norm_has_the_gradient_of_its_definition():
    """Against JAX's own derivatives of the mean and the variance in two passes."""
    rng = np.random.default_rng(1)
    x, weights = jnp.asarray(rng.standard_normal((2, 3, 4, 5, 6)) + 0.5, jnp.float32)
    scale, bias, of_mean, of_var = jnp.asarray(rng.standard_normal((4, 6)), jnp.float32)

    def plain(x, scale, bias, eps):
        mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
        return (x - mean) / jnp.sqrt(var + eps) * scale + bias, mean, var

    def ours(*arguments):
        return layers.batch_norm(*arguments[:3], jnp.zeros(6), *arguments[3:])

    def total(norm):
        def loss(*arguments):
            y, mean, var = norm(*arguments, 1e-5)
            return jnp.sum(weights * jnp.sin(y)) + of_mean @ mean + of_var @ jnp.sin(var)

        return loss

    at, direction = (x, scale, bias), (weights, of_mean, of_var)
    with jax.numpy_rank_promotion("allow"):
        expected = jax.grad(total(plain), (0, 1, 2))(*at)
        forward = jax.jvp(total(plain), at, direction)
        curvature = jax.jvp(jax.grad(total(plain)), at, direction)[1]
    for found, exact in zip(jax.grad(total(ours), (0, 1, 2))(*at), expected, strict=True):
        np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(jax.jvp(total(ours), at, direction), forward, rtol=1e-4)
    found = jax.jvp(jax.grad(total(ours)), at, direction)[1]
    np.testing.assert_allclose(found, curvature, rtol=1e-3, atol=1e-4)


def test_batch_norm_evaluates_with_running_values():
    x = jnp.ones((1, 1, 1, 1))
    variables = {
        "params": {"scale": jnp.array([2.0]), "bias": jnp.array([0.5])},
        "batch_stats": {"mean": jnp.array([0.0]), "var": jnp.array([4.0])},
    }
    y = layers.BatchNorm().apply(variables, x, train=False)
    assert float(y[0, 0, 0, 0]) == pytest.approx(2.0 / np.sqrt(4.0 + 1e-5) + 0.5)


@pytest.mark.parametrize(("length", "size"), [(13, 6), (7, 7), (3, 5), (8, 4)])
def test_adaptive_pool_averages_pytorchs_windows(length, size):
    x = np.random.default_rng(0).random((1, length, length + 1, 2)).astype(np.float32)

    def window(i, n):
        return slice(i * n // size, int(np.ceil((i + 1) * n / size)))

    expected = np.array(
        [
            [x[0, window(i, length), window(j, length + 1)].mean((0, 1)) for j in range(size)]
            for i in range(size)
        ]
    )
    np.testing.assert_allclose(
        layers.adaptive_average_pool(jnp.asarray(x), size)[0], expected, rtol=1e-5
    )


def test_max_pool_ignores_its_padding():
    x = jnp.full((1, 4, 4, 1), -3.0)
    assert float(layers.max_pool(x, padding=1).max()) == -3.0
    assert layers.max_pool(x, padding=1).shape == (1, 2, 2, 1)


def test_initialisation_has_pytorchs_spread():
    conv = layers.conv(64, 3, name="conv")
    kernel = conv.init(jax.random.key(0), jnp.zeros((1, 8, 8, 32)))["params"]["kernel"]
    assert float(kernel.std()) == pytest.approx(np.sqrt(2 / (9 * 64)), rel=0.02)
    dense = layers.linear(500, 200, name="fc")
    params = dense.init(jax.random.key(0), jnp.zeros((1, 200)))["params"]
    bound = 1 / np.sqrt(200)
    for leaf in (params["kernel"], params["bias"]):
        assert float(jnp.abs(leaf).max()) <= bound
        assert float(leaf.std()) == pytest.approx(bound / np.sqrt(3), rel=0.1)


def test_strided_convolutions_pad_the_same_on_both_sides():
    """'SAME' would look one pixel further right than PyTorch does."""
    conv = layers.conv(1, 3, 2, name="conv")
    variables = {"params": {"kernel": jnp.zeros((3, 3, 1, 1)).at[0, 0].set(1.0)}}
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    y = conv.apply(variables, x)[0, :, :, 0]
    np.testing.assert_array_equal(y, [[0, 0], [0, 5]])
