"""Smallest changes: one run gives the accuracy at every radius, against closed forms."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import toy
from vone_jax import evaluation, prng
from vone_jax.attacks import FMN
from vone_jax.evaluation.judging import Trial

KEY = jax.random.key(2)


def test_a_linear_model_has_the_distances_of_the_closed_form():
    """The distance to the border of two classes is the margin over the norm of its slope."""
    weights = jax.random.normal(jax.random.key(3), (16, 2))
    images = jax.random.uniform(jax.random.key(4), (30, 4, 4, 1), minval=0.4, maxval=0.6)
    logits = images.reshape(30, -1) @ weights
    margin = np.asarray(logits[:, 0] - logits[:, 1])
    labels = jnp.asarray(margin < 0, jnp.int32).at[0].set(int(margin[0] > 0))
    slope = np.asarray(weights[:, 0] - weights[:, 1])
    expected = np.abs(margin) / np.linalg.norm(slope)
    expected[0] = 0.0  # misclassified as it is
    radii = (0.0, *np.quantile(expected, (0.3, 0.7)).tolist(), 1.0)
    condition = evaluation.Minimal(FMN("l2", 1.0, steps=300), radii)
    how = evaluation.Protocol("fresh", 1)
    keys = prng.example_keys(KEY, 30)
    found = condition.measure(Trial(how, keys, Partial(toy.linear, weights), images, labels))
    arrays = {name: np.asarray(value) for name, value in found.items()}
    np.testing.assert_allclose(arrays["distance"], expected, rtol=0.02, atol=1e-4)
    summary = condition.summary(arrays | {"index": np.arange(30)})
    json.dumps(summary, allow_nan=False)
    assert summary["found"] == 30 and summary["seen"] == 30
    assert summary["median_distance"] == pytest.approx(np.median(expected), rel=0.02)
    accuracy = [step["accuracy"] for step in summary["ladder"]]
    assert accuracy == pytest.approx([29 / 30, 0.7, 0.3, 0.0], abs=1 / 30 + 1e-6)
    assert [step["eps"] for step in summary["ladder"]] == list(radii)


def test_an_image_that_cannot_be_fooled_is_infinitely_far():
    def stubborn(key, images):
        logits = jnp.stack([jnp.full(images.shape[0], 2.0), jnp.zeros(images.shape[0])], axis=-1)
        return logits + 1e-6 * images.reshape(images.shape[0], -1)[:, :2]

    images = jnp.full((4, 4, 4, 1), 0.5)
    condition = evaluation.Minimal(FMN("linf", 1.0, steps=5), (0.1, 1.0))
    how = evaluation.Protocol("fresh", 1)
    labels = jnp.zeros(4, jnp.int32)
    found = condition.measure(Trial(how, prng.example_keys(KEY, 4), stubborn, images, labels))
    arrays = {name: np.asarray(value) for name, value in found.items()}
    summary = condition.summary(arrays | {"index": np.arange(4)})
    assert summary["found"] == 0 and summary["median_distance"] is None
    assert [step["accuracy"] for step in summary["ladder"]] == [1.0, 1.0]
