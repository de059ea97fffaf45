"""The VOneBlock against the original (tests/golden), and relations that must hold."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import prng, v1

SMALL = v1.VOneBlockConfig(
    simple_channels=6,
    complex_channels=6,
    image_size=24,
    visual_degrees=1.0,
    kernel_size=9,
    stride=3,
)
QUIET = dataclasses.replace(SMALL, noise=None)


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).random((8, 24, 24, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def noisy():
    block = v1.VOneBlock(SMALL)
    return jax.jit(lambda key, x: block.apply({}, x, noise_key=key))


@pytest.fixture(scope="module")
def quiet():
    return jax.jit(lambda x: v1.noise_free_responses(QUIET, x))


@pytest.fixture(scope="module")
def original(golden):
    """Responses of the original's block, and ours on the same bank, images and draws."""
    bank = dataclasses.replace(
        v1.sample_gabor_parameters(512),
        channel=golden["channel_q0"],
        channel_quadrature=golden["channel_q1"],
    )
    x = np.random.Generator(np.random.PCG64(0)).random((2, 224, 224, 3)).astype(np.float32)
    z = np.random.Generator(np.random.PCG64(1)).standard_normal((2, 56, 56, 512))

    def respond(noise):
        config = v1.VOneBlockConfig(noise=noise, bank=bank)
        responses = v1.noise_free_responses(config, jnp.asarray(x))
        if noise is not None:
            responses = noise(responses, jnp.asarray(z, jnp.float32))
        return np.asarray(responses).transpose(0, 3, 1, 2)

    return respond


@pytest.mark.parametrize(
    ("noise", "reference"),
    [
        (None, "response"),
        (v1.NeuronalNoise(0.35, 0.07), "neuronal"),
        (v1.GaussianNoise(0.5), "gaussian05"),
    ],
)
def test_responses_equal_the_original(original, golden, noise, reference):
    responses = original(noise)
    expected = golden[f"vone_block_{reference}_sub"]
    np.testing.assert_allclose(
        responses[:, :, ::7, ::7], expected, rtol=0, atol=1e-5 * expected.max()
    )
    if reference != "gaussian05":
        mean = golden[f"vone_block_{reference}_mean"]
        np.testing.assert_allclose(responses.mean((2, 3)), mean, rtol=0, atol=1e-5 * mean.max())


@pytest.mark.slow
def test_gradient_is_finite_on_constant_images():
    block = v1.VOneBlock(dataclasses.replace(SMALL, noise=v1.NeuronalNoise(0.35, 0.0)))
    total = lambda x: block.apply({}, x, rngs={"noise": jax.random.key(0)}).sum()  # noqa: E731
    levels = jnp.asarray([0.0, 0.5, 1.0])[:, None, None, None] * jnp.ones((1, 24, 24, 3))
    assert bool(jnp.isfinite(jax.grad(total)(levels)).all())


@pytest.mark.slow
def test_gradient_equals_finite_differences(images):
    x = jnp.asarray(images[:1])
    direction = jax.random.normal(jax.random.key(1), x.shape)

    def total(step):
        return jnp.sum(v1.noise_free_responses(QUIET, x + step * direction) ** 2)

    slope = jax.grad(total)(0.0)
    numeric = (total(1e-2) - total(-1e-2)) / 2e-2
    assert float(slope) == pytest.approx(float(numeric), rel=2e-3)


def test_responses_scale_with_contrast(quiet, images):
    contrast = 0.5 + 0.25 * (images - 0.5)
    np.testing.assert_allclose(quiet(contrast), 0.25 * quiet(images), rtol=1e-4, atol=1e-5)


def test_half_a_period_silences_simple_cells_and_leaves_complex_cells(quiet):
    """A grating of opposite contrast: a simple cell answers one of the two, a complex cell both."""
    rng = np.random.default_rng(1)
    pattern = 0.4 * (rng.random((1, 24, 24, 3)) - 0.5)
    plus, minus = (quiet((0.5 + sign * pattern).astype(np.float32)) for sign in (1, -1))
    assert float(jnp.minimum(plus, minus)[..., :6].max()) < 1e-5
    np.testing.assert_allclose(plus[..., 6:], minus[..., 6:], rtol=1e-4, atol=1e-4)


def test_an_image_in_one_colour_drives_the_filters_of_that_colour(quiet):
    image = np.full((1, 24, 24, 3), 0.5, np.float32)
    image[..., 1] = np.random.default_rng(2).random((1, 24, 24))
    driven = np.asarray(quiet(image)).max((0, 1, 2)) > 1e-4
    np.testing.assert_array_equal(driven, SMALL.gabor_parameters().channel == 1)


def test_moving_the_image_by_one_stride_moves_the_map_by_one(quiet, images):
    moved = np.roll(images, 3, axis=1)
    inner = slice(3, -3)
    np.testing.assert_allclose(
        quiet(moved)[:, 3:-2, inner], quiet(images)[:, 2:-3, inner], rtol=1e-4, atol=1e-4
    )


def test_noise_does_not_depend_on_the_batch(noisy, images):
    key = jax.random.key(3)
    whole = noisy(key, images)
    np.testing.assert_array_equal(whole[:3], noisy(key, images[:3]))
    np.testing.assert_array_equal(whole, noisy(prng.example_keys(key, 8), images))
    last = noisy(prng.index_keys(key, jnp.arange(5, 8)), images[5:])
    np.testing.assert_allclose(last, whole[5:], rtol=1e-5, atol=1e-5)


@pytest.mark.untyped
def test_wrong_keys_and_images_are_refused(images):
    block = v1.VOneBlock(SMALL)
    with pytest.raises(ValueError, match=r"rngs=\{'noise': key\}"):
        block.apply({}, images)
    with pytest.raises(TypeError, match="typed key"):
        block.apply({}, images, noise_key=jax.random.PRNGKey(0))
    for shape in ((1, 24, 24, 1), (24, 24, 3)):
        with pytest.raises(ValueError, match=r"\(N, H, W, 3\)"):
            v1.noise_free_responses(QUIET, np.zeros(shape, np.float32))
    with pytest.raises(TypeError, match="floating point"):
        v1.noise_free_responses(QUIET, np.zeros((1, 24, 24, 3), np.uint8))


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("named", "overrides"),
    [
        ("kernel_size", {"kernel_size": 8}),
        ("distribution", {"distribution": "evnet_published", "in_channels": 2}),
        ("sf_max=1.0", {"distribution": "evnet", "sf_max": 1.0}),
        ("image_mean", {"image_mean": "0.5"}),
        ("Nyquist", {"visual_degrees": 8.0}),
        ("must not both be 0", {"simple_channels": 0, "complex_channels": 0}),
        ("12 filters, got 5", {"bank": v1.sample_gabor_parameters(5)}),
        ("reads channel 3", {"bank": v1.sample_gabor_parameters(12, in_channels=4)}),
    ],
)
def test_fields_that_do_not_fit_each_other_are_refused(named, overrides):
    with pytest.raises(ValueError, match=named):
        dataclasses.replace(SMALL, **overrides)
