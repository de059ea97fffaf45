"""The fast bank against a naive float64 correlation with the dense kernels."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import fast, prng, v1
from vone_jax.v1.filter_bank import FilterBank
from vone_jax.v1.gabor import GaborKernels


def naive(images, kernels, channel, stride):
    """Dense cross-correlation in float64, zero padding k // 2."""
    size, (n, height, width, _) = kernels.shape[-1], images.shape
    pad = size // 2
    padded = np.pad(images.astype(np.float64), ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    rows, columns = range(0, height, stride), range(0, width, stride)
    out = np.zeros((n, len(rows), len(columns), len(kernels)))
    for i, r in enumerate(rows):
        for j, c in enumerate(columns):
            patch = padded[:, r : r + size, c : c + size]
            out[:, i, j] = np.einsum("nhwf,fhw->nf", patch[..., channel], kernels)
    return out


def random_bank(in_channels, num_simple=4):
    """Ten pairs of 7x7 kernels, their channels, and the bank."""
    rng = np.random.default_rng(0)
    kernels = GaborKernels(*rng.standard_normal((2, 10, 7, 7)).astype(np.float32))
    # Channel 1 of three is read by nobody in phase, and the phases read different channels.
    channel = rng.integers(0, in_channels, 10)
    channel[channel == 1] = 0
    quadrature = rng.integers(0, in_channels, 10)
    return kernels, channel, quadrature, FilterBank(kernels, channel, quadrature, num_simple)


def naive_cells(images, kernels, channel, quadrature, stride, simple):
    """The cells' equations on naive correlations."""
    q0 = naive(images, kernels.in_phase, channel, stride)
    q1 = naive(images, kernels.quadrature, quadrature, stride)
    return np.where(
        np.arange(len(channel)) < simple, np.maximum(q0, 0.0), np.sqrt((q0**2 + q1**2) / 2.0)
    )


@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize(
    ("shape", "stride", "in_channels", "simple"),
    [
        ((2, 16, 16, 3), 4, 3, 4), ((1, 17, 13, 3), 2, 3, 4), ((1, 9, 21, 1), 1, 1, 4),
        ((1, 8, 8, 5), 3, 5, 4), ((1, 9, 9, 3), 2, 3, 0), ((1, 9, 9, 3), 2, 3, 10),
    ],
)  # fmt: skip
def test_cells_equal_those_of_a_naive_correlation(shape, stride, in_channels, simple, platform):
    images = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    kernels, channel, quadrature, bank = random_bank(in_channels, simple)
    with fast.forms_of(platform):
        cells = jax.jit(lambda images: bank(images, stride))(images)
    expected = naive_cells(images, kernels, channel, quadrature, stride, simple)
    np.testing.assert_allclose(cells, expected, rtol=0, atol=2e-5)


def test_trained_kernels_give_the_same_cells():
    images = np.random.default_rng(1).standard_normal((1, 9, 9, 3)).astype(np.float32)
    kernels, channel, quadrature, bank = random_bank(3)
    cells = jax.jit(lambda *kernels: bank.with_kernels(kernels, jnp.asarray(images), 2))(*kernels)
    expected = naive_cells(images, kernels, channel, quadrature, 2, 4)
    np.testing.assert_allclose(cells, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("shape", [(2, 12, 10, 3), (1, 9, 11, 3)])
def test_platforms_agree_on_the_gradient_also_under_vmap(shape):
    """An odd and an even number of positions, and windows that end inside of a block."""
    images = jnp.asarray(np.random.default_rng(4).standard_normal((2, *shape)), jnp.float32)
    *_, bank = random_bank(3)

    def gradient(platform):
        with fast.forms_of(platform):
            slope = jax.grad(lambda x: jnp.sum(bank(x, 2) ** 2))
            return jax.jit(jax.vmap(slope))(images)

    expected = gradient("cpu")
    atol = 1e-6 * float(jnp.abs(expected).max())
    np.testing.assert_allclose(gradient("tpu"), expected, rtol=0, atol=atol)


def test_the_gradient_is_the_transpose():
    """Cells are homogeneous: x . grad(sum(w cells)) = sum(w cells) for every x and w."""
    images = jnp.asarray(np.random.default_rng(3).standard_normal((1, 12, 10, 3)), jnp.float32)
    weights = jnp.asarray(np.random.default_rng(5).standard_normal((1, 6, 5, 10)), jnp.float32)
    *_, bank = random_bank(3)
    total = jax.jit(jax.value_and_grad(lambda x: jnp.sum(weights * bank(x, 2))))
    forward, slope = total(images)
    backward = np.vdot(np.float64(images), np.float64(slope))
    assert backward == pytest.approx(float(forward), rel=1e-4)


def test_the_gradient_permutes_and_does_not_scatter():
    *_, bank = random_bank(3)
    gradient = jax.grad(lambda images: jnp.sum(jnp.square(bank(images, 2))))
    program = jax.jit(gradient).lower(jnp.ones((1, 9, 9, 3))).as_text()
    assert "gather" in program and "scatter" not in program


def convolution_shapes(function, *arguments, platform="cpu"):
    """Shapes of the images, the kernels and the result of each convolution of a program."""
    traced = jax.jit(function).trace(*arguments)
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    return [
        [[int(size) for size in shape.split("x")] for shape in re.findall(r"<([\dx]+)xf32>", line)]
        for line in program.splitlines()
        if "stablehlo.convolution" in line
    ]


def test_the_bank_runs_once_each_way_whatever_the_number_of_draws():
    """Batch sizes of all convolutions with the kernels' spatial extent, in a traced gradient."""
    config = v1.VOneBlockConfig(4, 4, image_size=16, visual_degrees=0.5, kernel_size=9)
    block = v1.VOneBlock(config)

    def loss(images):
        keys = jax.vmap(lambda n: prng.fold(jax.random.key(0), n))(jnp.arange(7))
        draws = jax.vmap(lambda key: block.apply({}, images, noise_key=key))(keys)
        return jnp.sum(draws)

    convolutions = convolution_shapes(jax.grad(loss), jnp.ones((2, 16, 16, 3)))
    batches = [images[0] for images, _, _ in convolutions]
    channels = len(np.unique(config.gabor_parameters().channel))
    assert batches == [2] * channels * 2
    convolutions = convolution_shapes(jax.grad(loss), jnp.ones((2, 16, 16, 3)), platform="tpu")
    # Three sets of kernels forward, all of them together backward.
    assert [images[0] for images, _, _ in convolutions] == [2] * 4


def test_on_accelerators_nothing_is_permuted_and_all_channels_are_read_at_once():
    """The traced program of the published block for a TPU: 48 channels, 7 x 7 blocks."""
    config = v1.VOneBlockConfig()
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    traced = jax.jit(lambda x: v1.noise_free_responses(config, x)).trace(images)
    for platform in ("tpu", "cuda"):
        assert "gather" not in traced.lower(lowering_platforms=(platform,)).as_text()
    assert (
        convolution_shapes(lambda x: v1.noise_free_responses(config, x), images, platform="tpu")
        == [[[1, 56, 56, 48], [7, 7, 48, 256], [1, 56, 56, 256]]] * 3
    )


def test_work_is_one_channel_per_filter_and_no_quadrature_for_simple_cells():
    """Multiply-adds of the convolutions, counted on the traced program."""
    config = v1.VOneBlockConfig(
        simple_channels=6, complex_channels=2, image_size=16, visual_degrees=0.5, kernel_size=9
    )
    convolutions = convolution_shapes(
        lambda x: v1.noise_free_responses(config, x), jnp.zeros((1, 16, 16, 3))
    )
    products = sum(
        np.prod(kernels) * np.prod(responses[1:3]) for _, kernels, responses in convolutions
    )
    assert products == (6 + 2 + 2) * 9 * 9 * 4 * 4
