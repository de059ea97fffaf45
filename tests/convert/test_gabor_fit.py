"""The bank is read back from weights: channels, kernels and parameters, or the filter to blame."""

import numpy as np
import pytest

from vone_jax import v1
from vone_jax.convert.gabor_fit import read_bank


def weights(kernels, channel, in_channels=3):
    tensor = np.zeros((len(kernels), in_channels, *kernels.shape[1:]), np.float32)
    tensor[np.arange(len(kernels)), channel] = kernels
    return tensor


def bank_weights(bank, kernel_size=25, ppd=28.0):
    kernels = v1.gabor_kernels(bank, kernel_size, ppd)
    rng = np.random.default_rng(0)
    channels = rng.integers(0, 3, (2, len(bank)))
    return [weights(k, c) for k, c in zip(kernels, channels, strict=True)], channels, kernels


@pytest.mark.parametrize(
    ("distribution", "seed", "sf_max"), [("physiological", 0, 9.0), ("uniform", 5, 6.0)]
)
def test_parameters_channels_and_kernels_come_back(distribution, seed, sf_max):
    sampled = v1.sample_gabor_parameters(128, seed, sf_max=sf_max, distribution=distribution)
    tensors, channels, kernels = bank_weights(sampled)
    bank, residual = read_bank(*tensors, 28.0, [])
    assert residual.max() < 1e-6
    np.testing.assert_array_equal(bank.in_phase, kernels.in_phase)
    np.testing.assert_array_equal(bank.quadrature, kernels.quadrature)
    fitted = bank.parameters
    np.testing.assert_array_equal(fitted.channel, channels[0])
    np.testing.assert_array_equal(fitted.channel_quadrature, channels[1])
    for name in ("sf", "nx", "ny"):
        np.testing.assert_allclose(getattr(fitted, name), getattr(sampled, name), rtol=1e-6)
    for name in ("theta", "phase"):
        difference = getattr(fitted, name) - getattr(sampled, name)
        np.testing.assert_allclose((difference + 180) % 360 - 180, 0, atol=1e-5)


def test_half_precision_still_fits():
    tensors, _, _ = bank_weights(v1.sample_gabor_parameters(64))
    _, residual = read_bank(*(t.astype(np.float16) for t in tensors), 28.0, [])
    assert 1e-6 < residual.max() < 2e-3


@pytest.fixture
def tensors():
    return bank_weights(v1.sample_gabor_parameters(16))[0]


def problems(tensors):
    lines = []
    assert read_bank(*tensors, 28.0, lines) is None
    return "\n".join(lines)


def test_filters_that_are_not_gabors_are_named(tensors):
    tensors[0][3] = np.where(tensors[0][3] != 0, np.random.default_rng(1).random((25, 25)), 0)
    tensors[1][7] *= 0.97
    report = problems(tensors)
    assert "filter 3 is not a Gabor pair" in report and "filter 7 is not a Gabor pair" in report
    assert report.count("\n") == 1


def test_filters_of_several_channels_are_named(tensors):
    tensors[0][2] += 1e-12
    tensors[1][5] = 0
    tensors[1][6, 1, 0, 0] = np.nan
    report = problems(tensors)
    for place in ("2 (in phase)", "5 (in quadrature)", "6 (in quadrature)"):
        assert f"filter {place} must be finite and read exactly one channel" in report


def test_a_blob_without_carrier_is_no_gabor(tensors):
    x = np.arange(-12.0, 13.0)
    blob = np.exp(-(x[:, None] ** 2 + x[None] ** 2) / 20).astype(np.float32)
    tensors[0][0], tensors[1][0] = 0, 0
    tensors[0][0, 0], tensors[1][0, 0] = blob, blob[::-1]
    assert "filter 0 is not a Gabor pair" in problems(tensors)


@pytest.mark.parametrize(
    "shapes",
    [[(4, 3, 24, 24)] * 2, [(4, 3, 25, 25), (5, 3, 25, 25)], [(4, 3, 25)] * 2, [(4, 3, 1, 1)] * 2],
)
def test_shapes_are_checked(shapes):
    assert "shape" in problems([np.ones(shape, np.float32) for shape in shapes])
