"""The loss against its definition; sums do not depend on batches and padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax.training import step

LABELS = np.array([0, 3, 4, 1, 1, 2, 0], np.int32)


@pytest.fixture(scope="module")
def logits():
    return jax.random.normal(jax.random.key(0), (7, 5)) * 3


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_with_the_smoothed_target(logits, smoothing):
    x = np.asarray(logits, np.float64)
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    target = (1 - smoothing) * np.eye(5)[LABELS] + smoothing / 5
    losses = step.cross_entropy(logits, jnp.asarray(LABELS), smoothing)
    np.testing.assert_allclose(losses, -(target * log_p).sum(1), rtol=1e-5)


def test_the_loss_is_float32_for_bfloat16_logits(logits):
    low = step.cross_entropy(logits.astype(jnp.bfloat16), jnp.asarray(LABELS))
    assert low.dtype == jnp.float32


def test_sums_over_any_partition_are_equal_and_padding_may_hold_nan(logits):
    labels = jnp.asarray(LABELS)
    losses = step.cross_entropy(logits, labels)
    whole = step.batch_sums(losses, logits, labels)
    pad = jnp.full((1, 5), jnp.nan)
    first = step.batch_sums(losses[:3], logits[:3], labels[:3])
    rest = step.batch_sums(
        jnp.concatenate([losses[3:], jnp.asarray([jnp.nan])]),
        jnp.concatenate([logits[3:], pad]),
        jnp.concatenate([labels[3:], jnp.asarray([0], jnp.int32)]),
        jnp.arange(5) < 4,
    )
    assert int(whole.seen) == int(first.seen + rest.seen) == 7
    assert int(whole.correct) == int(first.correct + rest.correct)
    assert int(whole.correct) == int((np.asarray(logits).argmax(1) == LABELS).sum())
    np.testing.assert_allclose(whole.loss, first.loss + rest.loss, rtol=1e-6)
