"""Sampled parameters and kernels against the original (tests/golden) and their equations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import v1
from vone_jax.v1.gabor import GaborParameters


def one_filter(**overrides):
    values = {"sf": 2.0, "theta": 30.0, "phase": 0.0, "nx": 0.5, "ny": 0.5} | overrides
    return GaborParameters(**{k: np.array([v]) for k, v in values.items()}, channel=np.array([0]))


@pytest.mark.parametrize("sf_max", [6, 9])
@pytest.mark.parametrize("distribution", ["physiological", "uniform"])
def test_parameters_equal_the_original(golden, sf_max, distribution):
    bank = v1.sample_gabor_parameters(512, seed=0, sf_max=sf_max, distribution=distribution)
    for name in ("sf", "theta", "phase", "nx", "ny"):
        reference = golden[f"gabor_sfmax{sf_max}_{distribution}_{name}"]
        np.testing.assert_allclose(getattr(bank, name), reference, rtol=1e-13)


def test_extended_bank_equals_published_values():
    """First values of the bank of arXiv:2110.10645 (edge 11.2 appended), sf_max 11.3."""
    bank = v1.sample_gabor_parameters(512, sf_max=11.3, distribution="physiological_extended")
    np.testing.assert_allclose(
        bank.sf[:5], [2.284210, 6.432919, 4.621965, 6.665000, 4.092417], atol=5e-7
    )


def test_colour_channels_come_from_the_seed():
    """First colours of the banks of arXiv:2310.10575, which draw them the same way."""
    bank = v1.sample_gabor_parameters(512, seed=0)
    assert bank.channel[:10].tolist() == [0, 1, 0, 1, 1, 2, 0, 2, 0, 0]
    np.testing.assert_array_equal(bank.channel, bank.channel_quadrature)
    assert v1.sample_gabor_parameters(64, in_channels=1).channel.max() == 0
    assert set(v1.sample_gabor_parameters(64, in_channels=5).channel) == set(range(5))


@pytest.mark.parametrize("seed", [1, 1234])
def test_other_seeds_sample_numpys_multivariate_normal(seed):
    """nx and sf are the images of numpy's correlated normals, drawn after 2 n uniforms."""
    from scipy.special import ndtr

    n, rho = 300, 0.4
    generator = np.random.RandomState(seed)
    generator.random_sample(2 * n)
    pairs = generator.multivariate_normal([0, 0], [[1, rho], [rho, 1]], n)
    bank = v1.sample_gabor_parameters(n, seed=seed, correlation=rho)
    frequency = v1.spatial_frequency_histogram("physiological", 0.0, 9.0)
    np.testing.assert_allclose(bank.nx, v1.distributions.SIZE_X.inverse_cdf(ndtr(pairs[:, 0])))
    np.testing.assert_allclose(bank.sf, frequency.inverse_cdf(ndtr(pairs[:, 1])))


def test_kernels_equal_the_original(golden):
    kernels = v1.gabor_kernels(v1.sample_gabor_parameters(512, sf_max=9.0), 25, 28.0)
    index = golden["kernel_index"]
    np.testing.assert_allclose(kernels.in_phase[index], golden["kernel_q0"], atol=2e-8)
    np.testing.assert_allclose(kernels.quadrature[index], golden["kernel_q1"], atol=2e-8)


def test_rows_are_x():
    """theta 0: the carrier runs down the rows, so a horizontal grating drives the filter."""
    kernel = v1.gabor_kernels(one_filter(theta=0.0), 21, 20.0).in_phase[0]
    rows, columns = kernel[:, 10], kernel[10, :]
    assert (np.diff(np.sign(rows)) != 0).sum() >= 2
    assert (columns > 0).all()


def test_aliased_frequencies_need_permission():
    with pytest.raises(ValueError, match="Nyquist"):
        v1.gabor_kernels(one_filter(sf=5.0), 15, 10.0)
    v1.gabor_kernels(one_filter(sf=5.0), 15, 10.0, allow_aliasing=True)
    v1.gabor_kernels(one_filter(sf=4.9), 15, 10.0)


def test_sampling_refuses():
    for field, value in (("num_filters", 0), ("seed", -1), ("correlation", 1.0), ("sf_max", 0.6)):
        with pytest.raises(ValueError, match=field):
            v1.sample_gabor_parameters(**({"num_filters": 4} | {field: value}))
    with pytest.raises(ValueError, match="did you mean 'evnet'"):
        v1.sample_gabor_parameters(4, distribution="evnets")


def test_parameters_are_checked_read_only_and_compared_by_value():
    bank = v1.sample_gabor_parameters(4)
    assert bank == v1.sample_gabor_parameters(4) and hash(bank) == hash(
        v1.sample_gabor_parameters(4)
    )
    assert bank != v1.sample_gabor_parameters(4, seed=1)
    with pytest.raises(ValueError, match="read-only"):
        bank.sf[0] = 1.0
    for field, value in (("nx", 0.0), ("theta", np.nan)):
        with pytest.raises(ValueError, match=f"{field} must be"):
            one_filter(**{field: value})
    for channel in (np.full(2, 0.5), np.array([0, -1])):
        with pytest.raises(ValueError, match="channel must be integers >= 0"):
            GaborParameters(*[np.ones(2)] * 5, channel=channel)
    with pytest.raises(ValueError, match="ny must be an array of shape"):
        GaborParameters(*[np.ones(2)] * 4, ny=np.ones(3), channel=np.array([0, 1]))


@pytest.mark.untyped
def test_traced_parameters_are_refused():
    with pytest.raises(TypeError, match="sf must be known numbers, .* v1.LearnableGabor has"):
        jax.grad(lambda sf: GaborParameters(sf, *[np.ones(2)] * 4, np.arange(2)))(jnp.ones(2))
