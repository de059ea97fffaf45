"""The loss against its definition; sums do not depend on batches and padding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_perturbation import context

from vone_jax import prng
from vone_jax.training import Mixing, objective, step

LABELS = np.array([0, 3, 4, 1, 1, 2, 0], np.int32)


@pytest.fixture(scope="module")
def logits():
    return jax.random.normal(jax.random.key(0), (7, 5)) * 3


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_with_the_smoothed_target(logits, smoothing):
    x = np.asarray(logits, np.float64)
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    target = (1 - smoothing) * np.eye(5)[LABELS] + smoothing / 5
    losses = objective.cross_entropy(logits, jnp.asarray(LABELS), smoothing)
    np.testing.assert_allclose(losses, -(target * log_p).sum(1), rtol=1e-5)


def test_the_loss_is_float32_for_bfloat16_logits(logits):
    low = objective.cross_entropy(logits.astype(jnp.bfloat16), jnp.asarray(LABELS))
    assert low.dtype == jnp.float32


def test_sums_over_any_partition_are_equal_and_padding_may_hold_nan(logits):
    labels = jnp.asarray(LABELS)
    losses = objective.cross_entropy(logits, labels)
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


def test_the_five_largest_logits_are_counted_as_argmax_counts_the_largest():
    rng = np.random.default_rng(0)
    logits = rng.integers(0, 6, (200, 12)).astype(np.float32)
    labels = rng.integers(0, 12, 200).astype(np.int32)
    # A stable sort: of equal logits the first comes first.
    order = np.argsort(-logits, axis=1, kind="stable")
    place = np.argmax(order == labels[:, None], axis=1)
    sums = step.batch_sums(jnp.zeros(200), jnp.asarray(logits), jnp.asarray(labels))
    assert int(sums.correct5) == (place < 5).sum()
    assert int(sums.correct) == (place == 0).sum()
    nothing = jnp.full((200, 12), jnp.nan)
    assert int(step.batch_sums(jnp.zeros(200), nothing, jnp.asarray(labels)).correct5) == 0


def mixed(config, order=None, key=None, shape=(16, 16)):
    """Images whose pixels all have the value of their label, mixed."""
    order = np.arange(64) if order is None else order
    batch = {
        "image": jnp.asarray(order, jnp.float32)[:, None, None, None] * jnp.ones((1, *shape, 1)),
        "label": jnp.asarray(order, jnp.int32),
        "index": jnp.asarray(order, jnp.uint32),
    }
    key = jax.random.key(2) if key is None else key
    found = config.batch(context(keys=prng.index_keys(key, batch["index"])), batch)
    return {name: np.asarray(value) for name, value in found.items()}


@pytest.mark.parametrize(
    "config", [Mixing(0.4), Mixing(0.0, 1.0), Mixing(0.8, 1.0), Mixing(0.3, 0.7, 0.9, 0.5)]
)
def test_labels_are_mixed_in_the_shares_of_the_pixels(config):
    found = mixed(config)
    own, other, share = (found[name] for name in ("label", "other_label", "share"))
    assert ((share >= 0.5) & (share <= 1.0)).all() and len(np.unique(share)) > 20
    means = found["image"].mean(axis=(1, 2, 3))
    np.testing.assert_allclose(means, share * own + (1 - share) * other, rtol=1e-4, atol=1e-3)
    pairs = {frozenset(pair) for pair in zip(own.tolist(), other.tolist(), strict=True)}
    assert pairs == {frozenset((i, (i - 1) % 64)) for i in range(64)}
    both = np.stack([own, other], axis=1)
    cut = np.array([np.isin(*each).all() for each in zip(found["image"], both, strict=True)])
    untouched = share == 1.0
    whole = (cut & ~untouched).mean() / (~untouched).mean()
    expected = config.switch if config.mixup and config.cutmix else float(config.cutmix > 0)
    assert abs(whole - expected) < 0.2
    if config.probability < 1:
        assert 10 < untouched.sum() < 54


def test_the_draws_of_mixing_are_of_the_example_and_the_step():
    order = np.random.default_rng(0).permutation(64)
    plain, permuted = mixed(Mixing(0.4)), mixed(Mixing(0.4), order)
    shares = dict(zip(order.tolist(), permuted["share"].tolist(), strict=True))
    assert [shares[i] for i in range(64)] == plain["share"].tolist()
    other = mixed(Mixing(0.4), key=jax.random.key(3))
    assert (other["share"] != plain["share"]).mean() > 0.9


def draws_of_mixing(alpha):
    """The shares (64,) and the middles (64, 2), in sides, of the key and the examples of ``mixed``.

    Each is of a named stream of the example's key.
    """
    keys = prng.index_keys(jax.random.key(2), jnp.arange(64))
    beta = jax.vmap(lambda key: jax.random.beta(key, alpha, alpha))
    place = jax.vmap(lambda key: jax.random.uniform(key, (2,)))
    return np.asarray(beta(prng.stream(keys, "share"))), place(prng.stream(keys, "place"))


def test_mixup_draws_its_share_from_the_beta_distribution_of_the_authors():
    share, _ = draws_of_mixing(0.4)
    expected = np.maximum(share, 1 - share)
    np.testing.assert_allclose(mixed(Mixing(0.4))["share"], expected, rtol=1e-6)


def test_the_box_of_cutmix_has_the_place_and_the_sides_of_the_authors():
    """Yun et al., equation 2: sides of sqrt(1 - share) of those of the image, then cut off."""
    share, middle = draws_of_mixing(0.7)
    found = mixed(Mixing(0.0, 0.7), shape=(20, 48))["image"][..., 0]
    for number, image in enumerate(found):
        boxed = image == (number - 1) % 64
        assert np.isin(image[~boxed], number).all()
        for axis, side in enumerate(boxed.shape):
            half = side * np.sqrt(1 - share[number]) / 2
            centre = side * middle[number, axis]
            low, high = np.clip([centre - half, centre + half], 0, side)
            # Either end is that of the nearest pixel. A box may be smaller than one.
            if boxed.any():
                places = np.flatnonzero(boxed.any(axis=1 - axis))
                assert abs(places[0] - low) <= 0.51 and abs(places[-1] + 1 - high) <= 0.51
    assert np.mean([(image != number).any() for number, image in enumerate(found)]) > 0.8


def test_the_loss_of_mixed_labels_is_that_of_the_mixed_target(logits):
    share = np.linspace(0.5, 1.0, 7)
    others = np.array([1, 1, 0, 4, 2, 2, 3], np.int32)
    batch = {"label": jnp.asarray(LABELS), "other_label": jnp.asarray(others)}
    batch["share"] = jnp.asarray(share, jnp.float32)
    seen = context(cross_entropy=partial(objective.cross_entropy, label_smoothing=0.1))
    found = Mixing().losses(seen, batch, logits, None)
    x = np.asarray(logits, np.float64)
    log_p = x - np.log(np.exp(x).sum(1, keepdims=True))
    target = share[:, None] * np.eye(5)[LABELS] + (1 - share)[:, None] * np.eye(5)[others]
    target = 0.9 * target + 0.1 / 5
    np.testing.assert_allclose(found, -(target * log_p).sum(1), rtol=1e-5)
