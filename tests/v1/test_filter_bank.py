"""The fast bank against a naive float64 correlation with the dense kernels."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import fast, prng, v1
from vone_jax.v1.filter_bank import CellModel, FilterBank
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


def in_phase(q0):
    return q0


def both(q0, q1):
    """Shows each phase, as long as they are compared to an absolute tolerance."""
    return q0 + 100 * q1


PLATFORMS = pytest.mark.parametrize("platform", ["cpu", "tpu"])


def joined(cells):
    return jnp.concatenate(cells, axis=-1)


@PLATFORMS
@pytest.mark.parametrize(
    ("shape", "stride", "in_channels"),
    [((2, 16, 16, 3), 4, 3), ((1, 17, 13, 3), 2, 3), ((1, 9, 21, 1), 1, 1), ((1, 8, 8, 5), 3, 5)],
)
def test_bank_equals_naive_correlation(shape, stride, in_channels, platform):
    images = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    kernels, channel, quadrature, bank = random_bank(in_channels)
    with fast.forms_of(platform):
        cells = jax.jit(lambda images: joined(bank(images, stride, CellModel(in_phase, both))))(
            images
        )
    expected = naive(images, kernels.in_phase, channel, stride)
    expected[..., 4:] += 100 * naive(images, kernels.quadrature[4:], quadrature[4:], stride)
    np.testing.assert_allclose(cells[..., :4], expected[..., :4], rtol=0, atol=2e-5)
    np.testing.assert_allclose(cells[..., 4:], expected[..., 4:], rtol=0, atol=2e-3)


@PLATFORMS
@pytest.mark.parametrize("num_simple", [0, 10])
def test_banks_of_one_kind_of_cell(num_simple, platform):
    images = np.random.default_rng(2).standard_normal((1, 9, 9, 3)).astype(np.float32)
    kernels, channel, _, bank = random_bank(3, num_simple)
    with fast.forms_of(platform):
        cells = joined(bank(jnp.asarray(images), 2, CellModel(in_phase, lambda q0, q1: q0)))
    expected = naive(images, kernels.in_phase, channel, 2)
    np.testing.assert_allclose(cells, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("platform", [pytest.param("cpu", marks=pytest.mark.slow), "tpu"])
def test_derivatives_are_the_bank_and_its_transpose(platform):
    """The bank is linear: its derivative is itself, and <A u, v> = <u, A' v>, also under vmap."""
    rng = np.random.default_rng(3)
    *_, bank = random_bank(3)

    def apply(images):
        with fast.forms_of(platform):
            return joined(bank(images, 2, CellModel(in_phase, lambda q0, q1: q0 - q1)))

    u = jnp.asarray(rng.standard_normal((2, 1, 12, 10, 3)), jnp.float32)
    responses, tangents = jax.jit(jax.vmap(lambda u: jax.jvp(apply, (jnp.ones_like(u),), (u,))))(u)
    np.testing.assert_allclose(tangents, jax.vmap(apply)(u), rtol=0, atol=2e-5)
    v = jnp.asarray(rng.standard_normal(responses.shape), jnp.float32)
    (pulled,) = jax.jit(jax.vmap(lambda u, v: jax.vjp(apply, u)[1](v)))(u, v)
    for draw in range(2):
        forward = np.vdot(np.float64(tangents[draw]), np.float64(v[draw]))
        backward = np.vdot(np.float64(u[draw]), np.float64(pulled[draw]))
        assert forward == pytest.approx(backward, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(2, 12, 10, 3), (1, 9, 11, 3)])
def test_platforms_agree_on_the_gradient(shape):
    """An odd and an even number of positions, and windows that end inside of a block."""
    images = jnp.asarray(np.random.default_rng(4).standard_normal(shape), jnp.float32)
    *_, bank = random_bank(3)

    def gradient(platform):
        with fast.forms_of(platform):
            cells = lambda x: joined(bank(x, 2, CellModel(in_phase, jnp.multiply)))  # noqa: E731
            return jax.grad(lambda x: jnp.sum(cells(x) ** 2))(images)

    expected = gradient("cpu")
    atol = 1e-6 * float(jnp.abs(expected).max())
    np.testing.assert_allclose(gradient("tpu"), expected, rtol=0, atol=atol)


def test_the_gradient_permutes_and_does_not_scatter():
    *_, bank = random_bank(3)
    gradient = jax.grad(
        lambda images: jnp.sum(joined(bank(images, 2, CellModel(jnp.square, both))))
    )
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
