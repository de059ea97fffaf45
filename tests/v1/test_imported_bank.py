"""Kernels that came with a checkpoint are a value: exact, read-only, hashable, checked."""

import jax
import numpy as np
import pytest

from vone_jax import v1

PARAMETERS = v1.sample_gabor_parameters(6, sf_max=6.0)
KERNELS = v1.gabor_kernels(PARAMETERS, 9, 28.0)


def bank(**overrides):
    fields = {
        "in_phase": KERNELS.in_phase,
        "quadrature": KERNELS.quadrature,
        "parameters": PARAMETERS,
        "pixels_per_degree": 28.0,
    }
    return v1.ImportedBank(**(fields | overrides))


def config(**overrides):
    fields = dict(simple_channels=3, complex_channels=3, kernel_size=9, noise=None)
    return v1.VOneBlockConfig(**(fields | overrides))


def test_it_is_a_value():
    assert bank() == bank() and hash(bank()) == hash(bank())
    changed = KERNELS.in_phase.copy()
    changed[0, 0, 0] = np.nextafter(changed[0, 0, 0], 1, dtype=np.float32)
    assert bank(in_phase=changed) != bank()
    assert config(bank=bank()) == config(bank=bank())
    with pytest.raises(ValueError, match="read-only"):
        bank().in_phase[0, 0, 0] = 1.0
    assert "6 pairs of 9x9 kernels at 28 pixels per degree" in repr(bank())


def test_a_block_applies_its_kernels():
    """Not those of the parameters: doubled kernels double the responses."""
    images = np.random.default_rng(0).random((1, 32, 32, 3)).astype(np.float32)
    sampled = v1.noise_free_responses(config(bank=PARAMETERS), images)
    same = v1.noise_free_responses(config(bank=bank()), images)
    np.testing.assert_array_equal(same, sampled)
    doubled = bank(in_phase=2 * KERNELS.in_phase, quadrature=2 * KERNELS.quadrature)
    twice = jax.jit(lambda x: v1.noise_free_responses(config(bank=doubled), x))(images)
    np.testing.assert_allclose(twice, 2 * sampled, rtol=1e-5, atol=1e-5)
    assert config(bank=doubled).gabor_parameters() == PARAMETERS


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("named", "kernels"),
    [
        ("in_phase", {"in_phase": KERNELS.in_phase[:5]}),
        ("finite", {"in_phase": np.full_like(KERNELS.in_phase, np.nan)}),
        ("kernel_size", {"quadrature": KERNELS.quadrature[:, :8, :8]}),
        ("same shape", {"quadrature": KERNELS.quadrature[:, 1:8, 1:8]}),
    ],
)
def test_it_is_checked(named, kernels):
    with pytest.raises(ValueError, match=named):
        bank(**kernels)


def test_a_block_checks_that_it_fits():
    for named, overrides in (
        ("kernel_size", {"kernel_size": 11}),
        ("pixels_per_degree", {"visual_degrees": 4.0}),
        ("filters, got 6", {"simple_channels": 4}),
        ("in_channels", {"in_channels": 1}),
    ):
        with pytest.raises(ValueError, match=named):
            config(bank=bank(), **overrides)
