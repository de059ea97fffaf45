"""The fast bank against a naive float64 correlation with the dense kernels."""

import jax
import numpy as np
import pytest

from vone_jax import v1
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


@pytest.mark.parametrize(
    ("shape", "stride", "in_channels"),
    [((2, 16, 16, 3), 4, 3), ((1, 17, 13, 3), 2, 3), ((1, 9, 21, 1), 1, 1), ((1, 8, 8, 5), 3, 5)],
)
def test_bank_equals_naive_correlation(shape, stride, in_channels):
    rng = np.random.default_rng(0)
    images = rng.standard_normal(shape).astype(np.float32)
    kernels = GaborKernels(*rng.standard_normal((2, 10, 7, 7)).astype(np.float32))
    # Channel 1 of three is read by nobody in phase, and the phases read different channels.
    channel = rng.integers(0, in_channels, 10)
    channel[channel == 1] = 0
    quadrature = rng.integers(0, in_channels, 10)
    bank = FilterBank.build(kernels, channel, quadrature, num_simple=4)
    in_phase, out_of_phase = jax.jit(bank, static_argnums=1)(images, stride)
    expected = naive(images, kernels.in_phase, channel, stride)
    np.testing.assert_allclose(in_phase, expected, rtol=0, atol=2e-5)
    expected = naive(images, kernels.quadrature[4:], quadrature[4:], stride)
    np.testing.assert_allclose(out_of_phase, expected, rtol=0, atol=2e-5)


def test_work_is_one_channel_per_filter_and_no_quadrature_for_simple_cells():
    """Multiply-adds of the convolutions, counted on the traced program."""
    config = v1.VOneBlockConfig(
        simple_channels=6, complex_channels=2, image_size=16, visual_degrees=0.5, kernel_size=5
    )
    jaxpr = jax.make_jaxpr(lambda x: v1.noise_free_responses(config, x))(
        np.zeros((1, 16, 16, 3), np.float32)
    )
    convolutions = [e for e in jaxpr.eqns if e.primitive.name == "conv_general_dilated"]
    products = sum(
        np.prod(e.invars[1].aval.shape) * np.prod(e.outvars[0].aval.shape[1:3])
        for e in convolutions
    )
    assert products == (6 + 2 + 2) * 5 * 5 * 4 * 4
