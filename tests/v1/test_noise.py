"""Moments of the noise, its exact equations, and errors."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import fast, models, prng, v1

SMALL = v1.VOneBlockConfig(
    simple_channels=4, complex_channels=4, image_size=8, visual_degrees=0.25, kernel_size=5,
    stride=2,
)  # fmt: skip


@pytest.mark.parametrize(
    ("response", "mean", "variance"),
    [(0.0, 0.3018, 0.1950), (1.0, 1.3440, 1.9568), (10.0, 10.067, 27.532)],
)
def test_moments_of_the_released_noise(response, mean, variance):
    """Closed form: moments of a rectified normal, for scale 0.35 and level 0.07."""
    z = v1.standard_normal(prng.example_keys(jax.random.key(0), 20), (50_000,))
    noisy = v1.NeuronalNoise(0.35, 0.07)(jnp.full_like(z, response), z)
    count = z.size
    assert float(noisy.mean()) == pytest.approx(mean, abs=5 * (variance / count) ** 0.5 + 1e-3)
    assert float(noisy.var()) == pytest.approx(variance, rel=0.02)


def test_an_example_has_its_own_draws_with_keys_of_any_kind():
    keys = jax.random.split(jax.random.key(1, impl="rbg"), 3)
    whole = v1.standard_normal(keys, (4, 4, 2))
    np.testing.assert_array_equal(whole[1:2], v1.standard_normal(keys[1:2], (4, 4, 2)))
    assert not np.array_equal(whole[0], whole[1])


def test_neuronal_noise_is_the_published_equation():
    rng = np.random.default_rng(0)
    r, z = rng.random(100) * 5, rng.standard_normal(100)
    u = 0.2 * r + 0.1
    expected = np.maximum((u + z * np.sqrt(u + 1e-4) - 0.1) / 0.2, 0)
    result = v1.NeuronalNoise(0.2, 0.1)(jnp.float32(r), jnp.float32(z))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_gaussian_noise_rectifies_the_sum():
    r, z = jnp.array([0.0, 1.0, 1.0]), jnp.array([-1.0, 1.0, -4.0])
    np.testing.assert_allclose(v1.GaussianNoise(0.5)(r, z), [0.0, 1.5, 0.0])
    np.testing.assert_array_equal(v1.GaussianNoise(0.0)(r, z), r)


def test_stabilised_noise_has_the_moments_of_a_poisson_count_and_an_eighth():
    z = v1.standard_normal(prng.example_keys(jax.random.key(1), 1), (400_000,))
    scale, level, rate = 0.5, 2.0, 50.0
    noisy = v1.StabilisedNoise(scale, level)(jnp.full_like(z, (rate - level) / scale), z)
    counts = np.asarray(noisy, np.float64) * scale + level
    assert counts.mean() == pytest.approx(rate, abs=5 * (rate / z.size) ** 0.5)
    assert counts.var() == pytest.approx(rate + 1 / 8, rel=0.01)


def test_stabilised_noise_is_gaussian_in_the_root():
    r, z = np.linspace(0.0, 9.0, 7), np.linspace(-2.0, 2.0, 7)
    count = (np.sqrt(0.35 * r + 0.07) + z / 2) ** 2 - 1 / 4
    result = v1.StabilisedNoise(0.35, 0.07)(jnp.float32(r), jnp.float32(z))
    np.testing.assert_allclose(result, np.maximum((count - 0.07) / 0.35, 0), rtol=1e-5, atol=1e-5)
    slope = jax.vmap(jax.grad(v1.StabilisedNoise().__call__))(jnp.zeros(3), jnp.arange(3.0))
    assert bool(jnp.isfinite(slope).all())


def test_gradients_are_finite_and_pass_through_mean_and_deviation():
    noise = v1.NeuronalNoise(0.35, 0.0)
    slope = jax.vmap(jax.grad(lambda r, z: noise(r, z)))(
        jnp.array([0.0, 1.0, 1.0]), jnp.array([1.0, 0.0, 1.0])
    )
    assert bool(jnp.isfinite(slope).all())
    assert float(slope[1]) == pytest.approx(1.0)
    # d/dr of r + z sqrt(s r + 1e-4) / s
    assert float(slope[2]) == pytest.approx(1 + 0.5 / np.sqrt(0.35 + 1e-4), rel=1e-4)


@pytest.fixture(
    params=[pytest.param(v1.NeuronalNoise(), marks=pytest.mark.slow), v1.GaussianNoise(0.5)],
    ids=["neuronal", "gaussian"],
)
def shared(request):
    """A function of responses that several draws share, a loop over draws, and responses."""
    z = jax.random.normal(jax.random.key(5), (3, 2, 4, 4, 5))
    responses = jax.random.uniform(jax.random.key(6), (2, 4, 4, 5), maxval=2.0)

    def at_once(responses):
        return jax.vmap(lambda z: jnp.sin(request.param(responses, z)))(z)

    def one_by_one(responses):
        return jnp.stack([jnp.sin(request.param(responses, draw)) for draw in z])

    return at_once, one_by_one, responses


def test_derivatives_through_several_draws_are_those_of_each(shared):
    *functions, responses = shared

    def everything(function, responses):
        loss = lambda r: jnp.sum(function(r) ** 2)  # noqa: E731
        tangent = jax.jvp(function, (responses,), (jnp.cos(responses),))[1]
        product = jax.jvp(jax.grad(loss), (responses,), (jnp.cos(responses),))[1]
        return tangent, jax.grad(loss)(responses), product

    both = (jax.jit(functools.partial(everything, each))(responses) for each in functions)
    for found, expected in zip(*both, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_gradients_of_draws_are_summed_by_a_product_of_matrices(shared):
    """jaxlib 0.10 takes 15 times as long for the sum along an axis that JAX would take."""
    at_once, _, responses = shared
    pull_back = lambda r, slope: jax.vjp(at_once, r)[1](slope)  # noqa: E731
    program = jax.jit(pull_back).lower(responses, jnp.ones((3, *responses.shape))).as_text()
    assert program.count("stablehlo.dot_general") == 1
    assert "stablehlo.reduce" not in program


def test_fano_noise_is_the_published_equation_and_keeps_signs():
    rng = np.random.default_rng(0)
    r, z = rng.standard_normal(100) * 5, rng.standard_normal(100)
    expected = r + z * np.sqrt(0.93 * np.abs(r) + 1e-5)
    result = v1.FanoNoise()(jnp.float32(r), jnp.float32(z))
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)
    assert (expected < 0).any()
    slope = jax.vmap(jax.grad(v1.FanoNoise().__call__))(jnp.zeros(3), jnp.arange(3.0))
    assert slope[0] == 1.0 and bool(jnp.isfinite(slope).all())


class Pair(nn.Module):
    """Two blocks side by side."""

    block: Any = v1.VOneBlock

    def setup(self):
        self.left, self.right = (self.block(SMALL) for _ in range(2))

    def __call__(self, images):
        return self.left(images), self.right(images)


def test_two_blocks_in_a_module_draw_different_noise_and_the_first_that_of_a_block_alone():
    images = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    rngs = {"noise": jax.random.key(3)}
    left, right = Pair().apply({}, images, rngs=rngs)
    np.testing.assert_array_equal(left, v1.VOneBlock(SMALL).apply({}, images, rngs=rngs))
    quiet = v1.noise_free_responses(SMALL, images)
    correlation = np.corrcoef(np.ravel(left - quiet), np.ravel(right - quiet))[0, 1]
    assert abs(correlation) < 0.5
    again = Pair().apply({}, images, rngs=rngs)
    np.testing.assert_array_equal(again[1], right)


@pytest.mark.slow
def test_rematerialised_blocks_draw_different_noise_also_in_gradients():
    images = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    rngs = {"noise": jax.random.key(3)}
    pair = Pair(nn.remat(v1.VOneBlock))
    noises = [x - v1.noise_free_responses(SMALL, images) for x in pair.apply({}, images, rngs=rngs)]
    assert abs(np.corrcoef(*map(np.ravel, noises))[0, 1]) < 0.5

    def total(pair, images):
        return sum(map(jnp.sum, pair.apply({}, images, rngs=rngs)))

    # A network that is rematerialised as a whole draws what it draws otherwise.
    with jax.debug_key_reuse(False):
        slopes = [jax.grad(total, 1)(each, images) for each in (Pair(), nn.remat(Pair)())]
    np.testing.assert_allclose(*slopes, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("channels", [slice(0, 3), slice(3, 5)])
def test_some_channels_have_the_same_draws_as_in_all_channels(channels):
    keys = jax.random.split(jax.random.key(0), 2)
    whole = v1.standard_normal(keys, (4, 3, 5))
    np.testing.assert_array_equal(
        v1.standard_normal(keys, (4, 3, 5), channels), whole[..., channels]
    )


@pytest.mark.slow
def test_the_groups_of_cells_of_a_tpu_are_those_of_a_cpu():
    """There simple and complex cells are joined by the bottleneck alone."""
    model = models.create("vone_cornet_z", 3, v1=SMALL, width=4)
    images = np.random.default_rng(0).random((2, 8, 8, 3)).astype(np.float32)
    variables, key = models.init(model, jax.random.key(0)), jax.random.key(1)
    found = []
    for platform in ("cpu", "tpu"):
        with fast.forms_of(platform):
            features = model.apply(variables, images, noise_key=key, method="features")
            found.append((features["v1"], features["bottleneck"]))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)
