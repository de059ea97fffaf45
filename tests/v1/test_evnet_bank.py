"""The bank of EVNets, and V1 behind the subcortical stage, against the original (tests/golden)."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import models, v1

PARAMETERS = ("sf", "theta", "phase", "nx", "ny")


@pytest.mark.parametrize("seed", [42, 0])
def test_parameters_equal_the_original(evnet_golden, seed):
    bank = v1.sample_evnet_parameters(256, 256, seed=seed)
    for name in PARAMETERS:
        expected = evnet_golden[f"gabor_seed{seed}_{name}"]
        np.testing.assert_allclose(getattr(bank, name), expected, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(bank.channel, evnet_golden[f"gabor_seed{seed}_colour"])
    np.testing.assert_array_equal(bank.channel, bank.channel_quadrature)


def test_the_bank_of_efficientnet_equals_the_original(evnet_golden):
    bank = v1.sample_evnet_parameters(128, 128, published_channels=True)
    for name in PARAMETERS:
        expected = evnet_golden[f"gabor_efficientnet_b0_{name}"]
        np.testing.assert_allclose(getattr(bank, name), expected, rtol=0, atol=1e-12)
    expected = evnet_golden["gabor_efficientnet_b0_colour_all"][:256]
    np.testing.assert_array_equal(bank.channel, expected)
    assert np.bincount(bank.channel).tolist() == [39, 31, 161, 25]


def test_equal_numbers_of_filters_read_each_channel():
    for simple, complex_, in_channels, counts in (
        (128, 128, 4, [64] * 4), (5, 5, 4, [2, 2, 4, 2]), (4, 3, 2, [3, 4]), (3, 0, 1, [3]),
    ):  # fmt: skip
        bank = v1.sample_evnet_parameters(simple, complex_, in_channels=in_channels)
        assert np.bincount(bank.channel).tolist() == counts


def test_the_histogram_of_all_cells_is_the_mean_of_both_kinds():
    """Equally many simple and complex cells follow it; the samples of the papers differ in size."""
    bank = v1.sample_evnet_parameters(20_000, 20_000, sf_max=11.3)
    histogram = v1.spatial_frequency_histogram("evnet", 0.0, 11.3)
    counts, _ = np.histogram(bank.sf, histogram.edges)
    np.testing.assert_allclose(histogram.weights, counts / 40_000, atol=0.01)
    # 4 of 148 simple cells, and none of 84 complex cells.
    assert histogram.weights[0] == pytest.approx(4 / 148 / 2)


def test_sampling_refuses():
    for named, fields in (
        ("no bin lies", {"sf_max": 0.6}),
        (r"simple \+ complex_", {"simple": 0, "complex_": 0}),
        ("at most 512", {"simple": 512, "published_channels": True}),
        ("in_channels", {"in_channels": 2, "published_channels": True}),
    ):
        with pytest.raises(ValueError, match=named):
            v1.sample_evnet_parameters(**({"simple": 4, "complex_": 4} | fields))


def test_kernels_equal_the_original(evnet_golden):
    kernels = models.v1_config(224, 4, "ev_resnet50").gabor_kernels()
    index = evnet_golden["kernel_index"]
    for ours, name in zip(kernels, ("kernel_q0", "kernel_q1"), strict=True):
        expected = evnet_golden[name]
        tolerance = 1e-5 * np.abs(expected).max()
        np.testing.assert_allclose(ours[index], expected, rtol=0, atol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "network", "step"),
    [
        ("v1_seed42", "ev_resnet50", 7),
        ("v1_seed42_noisy", "ev_resnet50", 7),
        ("v1_efficientnet_b0", "ev_efficientnet_b0", 14),
    ],
)
def test_responses_equal_the_original(evnet_golden, name, network, step):
    """V1 on the noise-free output of the stage before it."""
    images = np.random.Generator(np.random.PCG64(0)).random((2, 224, 224, 3)).astype(np.float32)
    before = v1.subcortical_responses(v1.SubcorticalConfig(), images)
    published = models.v1_config(224, 4, network)
    if network == "ev_efficientnet_b0":
        published = dataclasses.replace(published, distribution="evnet_published")
    responses = v1.noise_free_responses(published, before)
    if name.endswith("noisy"):
        z = np.random.Generator(np.random.PCG64(2)).standard_normal((2, 56, 56, 512))
        responses = published.noise(responses, jnp.asarray(z, jnp.float32))
    maps = np.asarray(responses).transpose(0, 3, 1, 2)
    expected = evnet_golden[f"{name}_sub"]
    tolerance = (2e-5 if name.endswith("noisy") else 1e-5) * np.abs(expected).max()
    np.testing.assert_allclose(maps[:, :, ::step, ::step], expected, rtol=0, atol=tolerance)
    mean = evnet_golden[f"{name}_mean"]
    np.testing.assert_allclose(maps.mean((2, 3)), mean, rtol=0, atol=tolerance)
