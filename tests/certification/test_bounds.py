"""Bounds of how far perturbations move V1, against dense matrices and power iteration."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import certification, fast, v1
from vone_jax.certification import bounds, local, observer


def bank(channel, size, kernels=None):
    """An imported bank with random kernels, or with given ones."""
    rng, n = np.random.default_rng(0), len(channel)
    kernels = rng.standard_normal((2, n, size, size)) if kernels is None else kernels
    one = np.ones(n)
    parameters = v1.GaborParameters(one, one, one, one, one, np.array(channel))
    return v1.ImportedBank(*np.float32(kernels), parameters, pixels_per_degree=28.0)


def block(cells=(5, 6), size=12, **fields):
    fields = {"k_exc": 3.0, "kernel_size": 5, "stride": 2} | fields
    return v1.VOneBlockConfig(*cells, image_size=size, visual_degrees=size / 28.0, **fields)


CONFIGS = [
    block(size=14, stride=1, in_channels=1),
    block(stride=4, kernel_size=3, image_mean=(0.1, 0.2, 0.3), image_std=(0.2, 0.5, 0.9)),
    block(distribution="evnet", sf_max=8.0),
    block((2, 3), bank=bank([0, 2, 1, 1, 0], 5), image_std=0.7),
    block((0, 4)),
    block((4, 0), stride=5),
]


def matrix(config, height, width):
    """A as a dense matrix, from the kernels and an explicit loop over positions."""
    kernels, parameters = config.gabor_kernels(), config.gabor_parameters()
    deviations = np.broadcast_to(config.image_std, (config.in_channels,))
    reach, stride, rows = config.kernel_size // 2, config.stride, []
    for i in range(config.num_channels):
        phases = [(kernels.in_phase[i], parameters.channel[i], 1.0)]
        if i >= config.simple_channels:
            of_quadrature = kernels.quadrature[i], parameters.channel_quadrature[i], 0.5**0.5
            phases = [(*phases[0][:2], 0.5**0.5), of_quadrature]
        for kernel, channel, share in phases:
            kernel = kernel.astype(np.float64)
            for y in range(0, height, stride):
                for x in range(0, width, stride):
                    padded = np.zeros((height + 2 * reach, width + 2 * reach, config.in_channels))
                    window = slice(y, y + 2 * reach + 1), slice(x, x + 2 * reach + 1), channel
                    padded[window] = kernel * (config.k_exc * share / deviations[channel])
                    rows.append(padded[reach : reach + height, reach : reach + width].ravel())
    return np.array(rows)


@pytest.mark.parametrize("shape", [(0, 0), (12, 0), (-1, 12)])
def test_the_bound_of_no_image_is_refused(shape):
    with pytest.raises(ValueError, match="rows and columns"):
        certification.sensitivity(CONFIGS[0], shape)


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_the_bound_is_just_above_the_largest_singular_value(config):
    height, width = config.image_size, config.image_size + 3
    dense = matrix(config, height, width)
    exact = np.linalg.norm(dense, 2)
    bound = certification.sensitivity(config, (height, width))
    # The border of these images is a large part of them.
    assert exact <= bound <= 1.2 * exact
    rows = jnp.eye(height * width * config.in_channels)
    linear = bounds.linear_responses(config, rows.reshape(-1, height, width, config.in_channels))
    ours = np.asarray(linear).reshape(len(rows), -1)
    assert np.linalg.norm(ours, 2) == pytest.approx(exact, rel=1e-5)
    # A cell has one row for each phase and position.
    simple, pixels = config.simple_channels, dense.shape[1]
    positions = -(-height // config.stride) * -(-width // config.stride)
    phases = dense.reshape(-1, positions, pixels)
    pairs = phases[simple:].reshape(-1, 2, positions, pixels).swapaxes(1, 2)
    cells = [phases[:simple, :, None], pairs]
    farthest = [np.linalg.norm(each, 2, axis=(2, 3)).max(axis=1) for each in cells if len(each)]
    np.testing.assert_allclose(bounds.row_norms(config), np.concatenate(farthest), rtol=1e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=range(len(CONFIGS)))
def test_no_response_moves_by_more_than_the_bound_of_its_cell(config):
    shape = (4, config.image_size, config.image_size, config.in_channels)
    near, far = jax.random.uniform(jax.random.key(0), (2, *shape))
    far = far.at[:2].set(near[:2] + 1e-2 * far[:2])
    moved = jnp.abs(v1.noise_free_responses(config, far) - v1.noise_free_responses(config, near))
    limits = certification.displacements(config, far - near)
    assert bool(jnp.all(moved <= limits * (1 + 1e-4) + 1e-5))
    assert float(jnp.max(moved / limits)) > 0.99
    size = jnp.sqrt(jnp.sum((far - near) ** 2, axis=(1, 2, 3)))
    reach = bounds.row_norms(config) * np.asarray(size)[:, None, None, None]
    assert np.all(np.asarray(limits) <= reach * (1 + 1e-4))


def test_the_published_block_has_the_published_sensitivity():
    found = bounds.sensitivities(v1.VOneBlockConfig())
    np.testing.assert_allclose(found.channels, (33.9768, 33.3465, 33.1376), rtol=1e-5)
    assert found.linf == pytest.approx(224 * np.linalg.norm(found.channels))


@pytest.mark.slow
def test_power_iteration_on_the_published_block_stays_just_below_the_bound():
    config = v1.VOneBlockConfig()
    linear = lambda image: bounds.linear_responses(config, image)  # noqa: E731
    start = jax.random.normal(jax.random.key(0), (1, 224, 224, 3))
    transposed = jax.linear_transpose(linear, start)

    @jax.jit
    @fast.in_fast_layout
    def step(image):
        image = transposed(linear(image / jnp.linalg.norm(image)))[0]
        return image, jnp.sqrt(jnp.linalg.norm(image))

    image = start
    for _ in range(40):
        image, estimate = step(image)
    bound = certification.sensitivity(config)
    assert 0.99 * bound < float(estimate) <= bound


def test_on_images_larger_than_kernels_the_bound_is_a_few_percent_too_high():
    config = block((4, 4), size=36, in_channels=1, stride=4, kernel_size=7)
    exact = np.linalg.norm(matrix(config, 36, 36), 2)
    assert 0.96 * certification.sensitivity(config) < exact <= certification.sensitivity(config)


def test_blocks_without_a_bound_are_refused():
    surround = v1.SurroundNormalization(largest_extent=0.2)
    with pytest.raises(ValueError, match="normalization"):
        certification.sensitivity(block(size=28, normalization=surround))
    with pytest.raises(ValueError, match="with_fixed_bank"):
        certification.sensitivity(block(tuned=True))


@pytest.mark.parametrize(
    "noise", [v1.GaussianNoise(2.0), v1.StabilisedNoise(level=0.5), v1.NeuronalNoise(level=0.5)]
)
@pytest.mark.parametrize("radius", [0.0, 0.3])
def test_the_local_bound_is_just_above_the_local_singular_value(noise, radius):
    config = block(in_channels=1, noise=noise)
    images = jax.random.uniform(jax.random.key(0), (2, 12, 12, 1))
    found = certification.local_sensitivity(jax.random.key(1), config, images, radius, steps=60)
    rows = matrix(config, 12, 12)
    cells, positions = config.num_channels, 36
    for image, bound in zip(np.asarray(images, np.float64), found, strict=True):
        linear = (rows @ (image.ravel() - 0.5)).reshape(-1, positions)
        simple, complex_ = linear[:5], np.hypot(linear[5:cells], linear[cells:])
        responses = np.concatenate([np.maximum(simple, 0), complex_])
        reach = radius * bounds.row_norms(config)[:, None]
        factors = observer.weights(noise, responses, reach, 1.35)
        factors[:5] = np.where(simple <= -reach[:5], 0.0, factors[:5])
        factors = np.concatenate([factors, factors[5:]]).ravel()
        exact = np.linalg.norm(factors[:, None] * rows, 2)
        assert exact <= bound <= 1.02 * exact
        everywhere = factors.max() * certification.sensitivity(config)
        assert bound < everywhere


def test_lanczos_falls_short_as_rarely_as_it_says():
    rng, number, steps = np.random.default_rng(0), 60, 8
    values = np.linspace(0.0, 1.0, number)
    estimates = []
    for start in rng.standard_normal((400, number)):
        powers = np.polynomial.chebyshev.chebvander(2 * values - 1, steps - 1)
        basis, _ = np.linalg.qr(powers * start[:, None])
        estimates.append(np.linalg.eigvalsh(basis.T @ (values[:, None] * basis))[-1])
    for failure in (0.5, 0.1):
        short = np.mean(np.array(estimates) < 1.0 - local.shortfall(number, steps, failure))
        assert short <= failure
