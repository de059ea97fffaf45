"""The condition ``FourierMap``: the error under a grating of each frequency."""

import types

import jax.numpy as jnp
import pytest

from tests.certification.test_certificates import two
from tests.certification.test_measured import measured
from tests.specs import rows_of
from vone_jax import diagnostics
from vone_jax.evaluation import FourierMap, fourier_map
from vone_jax.network import Network


def test_the_heat_map_of_a_classifier_of_one_frequency():
    basis = diagnostics.fourier_basis(8, 8, 5)

    def logits_fn(keys, images):
        amplitude = jnp.abs(jnp.einsum("nhwc,hw->n", images, jnp.asarray(basis[0, 1])))
        return two(amplitude - 1.0)

    network = Network("function", logits_fn, (8, 8, 1))
    condition = FourierMap(l2=1.5, size=5)
    condition.check(network)
    images, labels = jnp.full((3, 8, 8, 1), 0.5), jnp.ones(3, jnp.int32)
    found, arrays = measured(condition, network, images, labels)
    (chart,) = found.views
    drawn = {(row["down"], row["across"]): row["error"] for row in rows_of(chart.spec, "error")}
    # The frequency and its mirror image; the centre is no grating.
    assert len(drawn) == 25
    assert [place for place, error in drawn.items() if error] == [(-2, -1), (2, 1)]
    assert drawn[-2, -1] == drawn[2, 1] == 1.0
    assert found["mean error"].value == pytest.approx(2 / 24)
    assert arrays["wrong"].shape == (3, 5, 5)


def test_the_suite_has_gratings_for_the_size_of_the_images():
    network = types.SimpleNamespace(image_shape=(28, 28, 1))
    (made,) = fourier_map.fourier(types.SimpleNamespace(network=network))
    assert made == FourierMap(l2=3.5, size=27)
    large = types.SimpleNamespace(image_shape=(224, 224, 3))
    (made,) = fourier_map.fourier(types.SimpleNamespace(network=large))
    assert made == FourierMap(15.7, 63)
