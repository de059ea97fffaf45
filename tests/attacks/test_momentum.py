"""The momentum attack against its definition in numpy and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import toy
from vone_jax import prng
from vone_jax.attacks import FGSM, MIFGSM, losses, norms

KEY = jax.random.key(11)
EPS = {"linf": 0.05, "l2": 0.3, "l1": 1.0}


def bent(weights, key, images):
    """Two logits whose gradient changes from place to place."""
    evidence = jnp.sum(jnp.sin(weights[None] * images.reshape(images.shape[0], -1)), axis=-1)
    return jnp.stack([jnp.zeros_like(evidence), evidence], axis=-1)


@pytest.mark.parametrize("variant", ["paper", "foolbox"])
def test_it_equals_its_definition(variant):
    weights = np.random.default_rng(0).normal(size=16) * 20
    images = np.random.default_rng(1).uniform(0.2, 0.8, (3, 16))
    eps, steps, decay = 0.1, 5, 0.9
    adversarial, momentum = images, np.zeros_like(images)
    for _ in range(steps):
        slope = weights * np.cos(weights * adversarial)
        unit = slope / np.abs(slope).sum(1, keepdims=True) if variant == "paper" else np.sign(slope)
        momentum = decay * momentum + unit
        adversarial = np.clip(
            adversarial + eps / steps * np.sign(momentum), images - eps, images + eps
        )
        adversarial = np.clip(adversarial, 0, 1)
    attack = MIFGSM("linf", eps, steps=steps, decay=decay, variant=variant, loss="margin")
    logits_fn = Partial(bent, jnp.asarray(weights, jnp.float32))
    square = jnp.asarray(images, jnp.float32).reshape(3, 4, 4, 1)
    ours = attack(KEY, logits_fn, square, jnp.zeros(3, jnp.int32))
    np.testing.assert_allclose(ours.reshape(3, 16), adversarial, atol=1e-5)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_linear_model_reaches_the_closed_form(norm):
    weights = jax.random.normal(jax.random.key(3), (12, 2))
    images = jax.random.uniform(jax.random.key(4), (5, 2, 6, 1), minval=0.4, maxval=0.6)
    labels = jnp.asarray([0, 1, 0, 1, 1])
    slope = np.asarray(weights[:, 1] - weights[:, 0])
    gain = 0.1 * np.linalg.norm(slope, ord={"linf": 1, "l2": 2}[norm])
    logits_fn = Partial(toy.linear, weights)
    before = losses.margin(logits_fn(KEY, images), labels)
    adversarial = MIFGSM(norm, 0.1)(KEY, logits_fn, images, labels)
    after = losses.margin(logits_fn(KEY, adversarial), labels)
    np.testing.assert_allclose(after, before + gain, rtol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("norm", norms.NORMS)
def test_ball_box_batches_and_one_step(norm):
    images = jnp.round(3 * jax.random.uniform(jax.random.key(1), (6, 8, 8, 1))) / 3
    labels = jnp.asarray([0, 1, 2, 3, 0, 1])
    noisy = Partial(toy.noisy_network, toy.make_network(0.5), jnp.float32(0.5))
    keys = prng.example_keys(KEY, 6)
    attack = MIFGSM(norm, EPS[norm], steps=4, eot_samples=2)
    whole = attack(keys, noisy, images, labels)
    assert np.all(norms.size(whole - images, norm) <= EPS[norm] * (1 + 1e-5))
    assert np.all(whole >= 0) and np.all(whole <= 1)
    parts = [attack(keys[part], noisy, images[part], labels[part]) for part in
             (slice(0, 3), slice(3, 6))]  # fmt: skip
    np.testing.assert_allclose(jnp.concatenate(parts), whole, atol=1e-6)
    # One step of a network without noise is the fast gradient method.
    still = Partial(toy.noisy_network, toy.make_network(0.5), jnp.float32(0.0))
    one = MIFGSM(norm, EPS[norm], steps=1)(KEY, still, images, labels)
    fast = FGSM(norm, EPS[norm])(KEY, still, images, labels)
    np.testing.assert_allclose(one, fast, atol=1e-6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(norm="l3"), "norm must be one of"),
        (dict(decay=-1.0), "decay"),
        (dict(variant="art"), "variant must be one of paper, foolbox"),
        (dict(loss="dlr", targeted=True), "untargeted"),
    ],
)
def test_fields_out_of_range_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        MIFGSM(**{"norm": "linf", "eps": 0.1, **fields})
