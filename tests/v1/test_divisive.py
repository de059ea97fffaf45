"""Learned normalisation against closed forms and against dense kernels."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from vone_jax import models, v1


@pytest.fixture(scope="module")
def responses():
    """Responses of 12 channels on a map whose sides differ."""
    return jax.random.uniform(jax.random.key(0), (2, 9, 14, 12), minval=-0.5, maxval=2.0)


def _pairs(channels: int):
    """Parameters of ``OrientedPools`` as they start."""
    keys = jax.random.split(jax.random.key(1), 4)
    shape = (channels, channels)
    angle = jax.random.uniform(keys[0], shape, maxval=math.pi)
    along, across = (jax.random.uniform(key, shape, minval=2.0, maxval=6.0) for key in keys[1:3])
    return angle, along, across, jax.random.normal(keys[3], shape)


def _dense_pools(responses, angle, along, across, strength, size):
    """The pools by the published formula: one dense kernel for all pairs, in NumPy's float64."""
    angle, along, across, strength = (
        np.asarray(v, np.float64)[None, None] for v in (angle, along, across, strength)
    )
    u, v = (o[..., None, None] for o in np.mgrid[:size, :size].astype(float) - size // 2)
    u_r = u * np.cos(angle) + v * np.sin(angle)
    v_r = -u * np.sin(angle) + v * np.cos(angle)
    kernels = np.exp(-0.5 * (u_r**2 / along**2 + v_r**2 / across**2))
    kernels *= np.abs(strength) / (2.0 * np.pi * along * across)
    return lax.conv_general_dilated(
        jnp.maximum(responses, 0.0),
        jnp.asarray(kernels.swapaxes(2, 3), jnp.float32),
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision="highest",
    )


@pytest.mark.parametrize("size", [5, 25])
def test_oriented_pools_equal_dense_kernels(responses, size):
    pairs = _pairs(12)
    expected = responses / (1.0 + _dense_pools(responses, *pairs, size))
    found = v1.divide_by_oriented_pools(responses, *pairs, size)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.slow
def test_gradients_of_oriented_pools_equal_those_of_dense_kernels(responses):
    pairs = _pairs(12)

    def dense(responses):
        return jnp.sum(jnp.square(responses / (1.0 + _dense_pools(responses, *pairs, 5))))

    def pooled(responses):
        return jnp.sum(jnp.square(v1.divide_by_oriented_pools(responses, *pairs, 5)))

    np.testing.assert_allclose(
        jax.grad(pooled)(responses), jax.grad(dense)(responses), rtol=1e-4, atol=1e-5
    )
    some = responses[:1, :5, :4, :3], *_pairs(3)
    check_grads(
        lambda *a: v1.divide_by_oriented_pools(*map(jnp.asarray, a), size=3),
        some,
        1,
        ["rev"],
        atol=2e-2,
        rtol=2e-2,
    )


def test_an_oriented_pool_reads_rows_and_columns_as_published():
    """A pulse below the centre, in the second channel, seen by the first."""
    pulse = jnp.zeros((1, 9, 9, 2)).at[0, 6, 4, 1].set(1.0).at[..., 0].set(1.0)
    strength = jnp.array([[0.0, 3.0], [0.0, 0.0]])
    same = jnp.ones((2, 2))
    found = v1.divide_by_oriented_pools(pulse, 0.0 * same, 2.0 * same, 4.0 * same, strength, 9)
    # At angle 0 the width along counts rows.
    for row, column in ((6, 4), (4, 4), (6, 7)):
        squares = ((6 - row) / 2.0) ** 2 + ((4 - column) / 4.0) ** 2
        expected = 1.0 / (1.0 + 3.0 / (2.0 * math.pi * 8.0) * math.exp(-0.5 * squares))
        assert found[0, row, column, 0] == pytest.approx(expected, rel=1e-5)


def test_pooled_squares_equal_the_published_sum(responses):
    beta = np.linspace(0.5, 2.0, 12)
    gamma = np.asarray(jax.random.uniform(jax.random.key(2), (12, 12)))
    squares = np.square(np.asarray(responses, np.float64))
    expected = np.asarray(responses) / np.sqrt(beta + np.einsum("ij,nhwj->nhwi", gamma, squares))
    found = v1.divide_by_pooled_squares(
        responses, jnp.asarray(beta, jnp.float32), jnp.asarray(gamma)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    nothing = v1.divide_by_pooled_squares(responses, jnp.ones(12), jnp.zeros((12, 12)))
    np.testing.assert_array_equal(nothing, responses)


@pytest.mark.parametrize("rule", [v1.OrientedPools(5), v1.GDN()])
def test_a_rule_starts_as_stated_and_has_finite_gradients(responses, rule):
    module = v1.LearnedNormalization(rule)
    variables = module.init(jax.random.key(0), responses)
    params = variables["params"]
    if isinstance(rule, v1.OrientedPools):
        assert v1.OrientedPools().size == 25
        assert sum(p.size for p in params.values()) == 4 * 12**2
        assert float(params["angle"].min()) >= 0.0 and float(params["angle"].max()) <= math.pi
        widths = jnp.exp(params["log_along"])
        assert float(widths.min()) >= 2.0 and float(widths.max()) <= 6.0
        expected = v1.divide_by_oriented_pools(
            responses, params["angle"], widths, jnp.exp(params["log_across"]), params["strength"], 5
        )
    else:
        gamma = jnp.where(jnp.eye(12) > 0, 0.1, 1e-4)
        expected = v1.divide_by_pooled_squares(responses, 1.000001 * jnp.ones(12), gamma)
    np.testing.assert_allclose(module.apply(variables, responses), expected, rtol=1e-5, atol=1e-7)
    slopes = jax.jit(jax.grad(lambda v, x: jnp.sum(module.apply(v, x) ** 2), (0, 1)))
    for images in (responses, jnp.zeros_like(responses)):
        grads = slopes(variables, images)
        assert all(bool(jnp.all(jnp.isfinite(g))) for g in jax.tree.leaves(grads))


def test_a_key_gives_the_same_parameters_where_double_precision_is_on(responses):
    module = v1.LearnedNormalization(v1.OrientedPools(5))
    first = module.init(jax.random.key(0), responses)
    with jax.enable_x64(True):
        again = module.init(jax.random.key(0), responses)
    chex.assert_trees_all_equal(first, again)
    chex.assert_trees_all_equal_dtypes(first, again)


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="size must be odd, got 4"):
        v1.OrientedPools(4)
    with pytest.raises(ValueError, match="learned_normalization is for networks with V1"):
        models.create("resnet18", learned_normalization=v1.GDN())
