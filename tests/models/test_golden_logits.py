"""Logits of the original PyTorch networks, from formula weights (tests/golden/README.md)."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.golden import formula_weights
from vone_jax import convert, models, v1


@pytest.fixture(scope="module")
def images():
    generator = np.random.Generator(np.random.PCG64(0))
    return generator.random((2, 224, 224, 3)).astype(np.float32)


def original_bank(golden):
    """The bank of the original, whose two phases read separately drawn colour channels."""
    return dataclasses.replace(
        v1.sample_gabor_parameters(512, seed=0, sf_max=9.0),
        channel=golden["channel_q0"],
        channel_quadrature=golden["channel_q1"],
    )


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        pytest.param("resnet50", "resnet50", marks=pytest.mark.slow),
        ("vone_resnet50", "vone_resnet50"),
        pytest.param("alexnet", "alexnet", marks=pytest.mark.slow),
        pytest.param("cornet_s", "cornet_s", marks=pytest.mark.slow),
        pytest.param("vone_alexnet", "vone_alexnet", marks=pytest.mark.slow),
        pytest.param("vone_cornet_s", "vone_cornets", marks=pytest.mark.slow),
    ],
)
def test_logits_equal_the_original(name, reference, golden, images):
    config = None
    if name.startswith("vone_"):
        config = v1.VOneBlockConfig(noise=None, bank=original_bank(golden))
    model = models.create(name, v1=config)
    variables = convert.from_state_dict(model, formula_weights.state_dict(reference))
    logits = jax.jit(models.logits_fn(model, variables))(jax.random.key(0), images)
    np.testing.assert_allclose(logits, golden[f"logits_{reference}"], rtol=0, atol=2e-4)
