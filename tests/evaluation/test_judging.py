"""Protocols and keys of the judgement, on classifiers with known answers."""

import dataclasses
import math
import re
import typing
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import stats

from tests.attacks import toy
from vone_jax import diagnostics, evaluation, fast, prng
from vone_jax.attacks import FGSM, PGD, AutoAttack, Strongest
from vone_jax.evaluation import judging
from vone_jax.evaluation.judging import Batch

KEY = jax.random.key(21)
ATTACKS = (
    PGD("linf", 0.1, steps=2, restarts=3, random_start=True, eot_samples=3),
    PGD("linf", 0.1, steps=2, loss="margin"),
    FGSM("linf", 0.1),
)
PROTOCOLS = {
    "fresh": dict(draws=10),
    "frozen": dict(noise="frozen"),
    "mean_logits": dict(draws=5, decision="mean_logits:3"),
    "mean_probability": dict(draws=5, decision="mean_probability:3"),
    "vote": dict(draws=5, decision="vote:3"),
}


def truth(p: float, protocol: str) -> float:
    """Probability that a decision of the coin is right, in closed form.

    A decision of three draws goes with the majority: two of either outcome outweigh the third in
    logits (+1 against -1) and in probability (+.147 against -.258).
    """
    return p if protocol in ("fresh", "frozen") else float(stats.binom.sf(1, 3, p))


@pytest.mark.filterwarnings("ignore:The network is stochastic")
@pytest.mark.parametrize(
    ("p", "protocol", "attack"),
    [
        *((0.7, name, ATTACKS[0]) for name in ("fresh", "frozen", "mean_probability")),
        (0.9, "vote", Strongest(ATTACKS)),
        (0.7, "vote", None),
        pytest.param(0.7, "mean_logits", ATTACKS[0], marks=pytest.mark.slow),
        pytest.param(0.7, "vote", ATTACKS[0], marks=pytest.mark.slow),
        pytest.param(0.9, "fresh", Strongest(ATTACKS), marks=pytest.mark.slow),
    ],
)
def test_the_coin_is_reported_as_it_is(p, protocol, attack):
    """Right with probability p under any attack: reports p, and not a power of it."""
    images = jax.random.uniform(jax.random.key(1), (400, 4, 4, 1))
    labels = jnp.zeros(400, jnp.int32)
    logits_fn = Partial(toy.coin, jnp.float32(p))
    measure = partial(evaluation.robust_accuracy, attack=attack) if attack else evaluation.accuracy
    result = measure(KEY, logits_fn, images, labels, **PROTOCOLS[protocol])
    expected, draws = truth(p, protocol), PROTOCOLS[protocol].get("draws", 1)
    assert abs(result.accuracy - expected) < 4 * math.sqrt(expected * (1 - expected) / 400 / draws)
    if draws > 1:
        # Over images too, the shares scatter as chance has it: no example is worse than another.
        spread = expected * (1 - expected) / draws
        assert abs(result.per_example.var() - spread) < 0.2 * spread
        error = math.sqrt(expected * (1 - expected) / 400 / draws)
        numbers = {x.name: x.value for x in evaluation.accuracy_numbers({"right": result.right})}
        assert 0.4 * error < numbers["standard error over draws"] < 1.9 * error
        assert numbers["right in every draw"] == pytest.approx(expected**draws, abs=0.1)
        assert numbers["right in every draw"] < result.accuracy
    assert (result.winner is not None) == isinstance(attack, Strongest)


@pytest.mark.slow
def test_the_coin_survives_autoattack():
    """The ensemble drops an image on one noisy pass in its authors' code, and reports p cubed."""
    images = jax.random.uniform(jax.random.key(1), (400, 3, 4, 1))
    logits_fn = Partial(toy.coin, jnp.float32(0.9))
    attack = AutoAttack("linf", 0.1, version="rand")
    result = evaluation.robust_accuracy(
        KEY, logits_fn, images, jnp.zeros(400, jnp.int32), attack=Strongest((attack, ATTACKS[0]))
    )
    assert abs(result.accuracy - 0.9) < 4 * math.sqrt(0.9 * 0.1 / 4000)


def test_decisions_of_several_draws():
    """Three draws and three classes, worked out by hand."""

    @partial(jax.jit, static_argnums=1)
    def decide(logits, rule):
        return jnp.argmax(judging.preference(logits, rule), axis=-1)

    logits = np.log(np.float32([
        [[0.5, 0.4, 0.1]], [[0.5, 0.4, 0.1]], [[0.001, 0.4, 0.599]],
    ]))  # fmt: skip
    assert decide(logits, "vote") == 0
    assert decide(logits, "mean_probability") == 1  # .334, .4, .266
    assert decide(logits, "mean_logits") == 1
    # One draw of overwhelming logits decides their mean, not the mean probability.
    certain = logits * np.float32([1, 1, 20])[:, None, None]
    assert decide(certain, "mean_logits") == 2
    # Nor the vote, although its class is the most probable.
    assert decide(certain, "vote") == 0 != decide(certain, "mean_probability")
    # Two against two: the more probable wins, not the lower number.
    tied = np.log([[[0.5, 0.4, 0.1]], [[0.01, 0.39, 0.6]]]).astype(np.float32)
    assert decide(tied, "vote") == 2
    # However little more: four votes each, and 1e-7 between the probabilities.
    near = jnp.asarray(4 * [[[2.0, 0.0, 0.0]], [[0.0, 2.0 + 1e-6, 0.0]]])
    assert decide(near, "vote") == 1


def test_the_top_five_of_each_decision_are_counted_where_there_are_many_classes():
    """Logits that order the classes by their number, behind noise that swaps two of them."""

    def ordered(classes):
        def logits_fn(keys, images):
            logits = jnp.broadcast_to(-jnp.arange(classes, dtype=jnp.float32), (12, classes))
            swapped = logits.at[:, 4].set(logits[:, 5]).at[:, 5].set(logits[:, 4])
            coin = jax.vmap(jax.random.bernoulli)(keys)[:, None]
            return jnp.where(coin, swapped, logits)

        return Partial(logits_fn)

    labels, images = jnp.arange(12) % 11, jnp.zeros((12, 2, 2, 1))
    keys = prng.example_keys(KEY, 12)
    for decision, averaged in (("single", 1), ("vote", 3)):
        protocol = evaluation.Protocol("fresh", 40, decision, averaged)
        judged = judging.judge(ordered(11), keys, images, labels, protocol)
        share = np.asarray(judged["right in top 5"]).mean(axis=1)
        np.testing.assert_array_equal(share[[0, 1, 2, 3, 11]], 1.0)
        np.testing.assert_array_equal(share[6:11], 0.0)
        assert 0.2 < share[4] < 0.8 and 0.2 < share[5] < 0.8
        np.testing.assert_array_equal(judged["right"].mean(axis=1), labels == 0)
    assert "right in top 5" not in judging.judge(ordered(10), keys, images, labels % 10, protocol)


@pytest.mark.slow
def test_repeated_decisions_use_new_draws():
    """R decisions of K draws are made from the first R K single draws, each used once."""
    network = Partial(toy.noisy_network, toy.make_network(2.0), jnp.float32(2.0))
    images = jax.random.uniform(jax.random.key(1), (6, 8, 8, 1))
    labels = jnp.arange(6, dtype=jnp.int32) % 4
    keys = prng.example_keys(KEY, 6)
    protocol = evaluation.Protocol("fresh", 4, "mean_logits", 3)
    judged = judging.judge(network, keys, images, labels, protocol)
    singles = jnp.stack([network(prng.fold(keys, r), images) for r in range(12)])
    means = singles.reshape(4, 3, 6, 4).mean(1)
    np.testing.assert_array_equal(judged["right"], (jnp.argmax(means, -1) == labels[None]).T)
    probable = jnp.argmax(jax.nn.softmax(singles).mean(0), -1)
    np.testing.assert_array_equal(judged["predicted"], probable)
    # Calibration after 1 and 3 decisions, which are 3 and 9 draws.
    logits = singles.swapaxes(0, 1)
    expected = diagnostics.measure_calibration(logits, labels, draws=(3, 9))
    found = diagnostics.summarise_scores(judged["scores"])
    assert found.draws.tolist() == [3, 9]
    for each in dataclasses.fields(expected):
        ours, theirs = (getattr(given, each.name) for given in (found, expected))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    single = judging.judge(network, keys, images, labels, evaluation.Protocol("fresh", 12))
    np.testing.assert_allclose(judged["loss"], single["loss"], rtol=1e-5)


def test_attack_and_judgement_share_no_key():
    keys = prng.example_keys(KEY, 50)
    batch = Batch(evaluation.Protocol(), keys, Partial(toy.coin), jnp.zeros(50), jnp.zeros(50))
    streams = [batch.keys(purpose) for purpose in typing.get_args(judging.Purpose)]
    assert len(streams) == 4
    data = np.concatenate([jax.random.key_data(stream) for stream in [keys, *streams]])
    assert len(np.unique(data, axis=0)) == 250


def test_noise_frozen_at_the_attack_alone():
    """The attack uses one draw for each image, whatever its key; the judgement uses others."""

    def noise(keys, images):
        return jax.random.key_data(keys).astype(jnp.float32)

    keys, other = (jax.random.split(jax.random.key(seed), 4) for seed in (0, 1))
    images, labels = jnp.zeros((4, 2, 2, 1)), jnp.zeros(4, jnp.int32)
    batch = Batch(evaluation.Protocol("fresh", 3), keys, Partial(noise), images, labels)
    frozen = Batch(
        evaluation.Protocol("frozen", 1), keys, Partial(noise), images, labels
    ).classifier()
    attacked = batch.classifier("frozen")
    np.testing.assert_array_equal(attacked(keys, images), attacked(other, images))
    np.testing.assert_array_equal(attacked(keys, images), frozen(keys, images))
    np.testing.assert_array_equal(batch.classifier()(other, images), noise(other, images))


@pytest.mark.parametrize(
    "fields",
    [
        dict(averaged=2), dict(decision="vote"), dict(noise="frozen"),
        dict(noise="frozen", draws=1, decision="vote", averaged=2),
    ],
)  # fmt: skip
def test_protocols_that_make_no_sense_are_refused(fields):
    with pytest.raises(ValueError, match="must be 1 "):
        evaluation.Protocol(**fields)


def test_a_network_in_another_layout_is_judged_in_the_fast_one():
    """Draws follow each other in loops, where XLA computes these convolutions slowly on CPUs."""
    kernel = jax.random.normal(jax.random.key(2), (4, 1, 3, 3))

    def logits_fn(keys, images):
        x = images.transpose(0, 3, 1, 2)
        numbers = ("NCHW", "OIHW", "NCHW")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        return jnp.tanh(x).mean((2, 3))

    images = jax.random.uniform(jax.random.key(1), (2, 6, 6, 1))
    keys, labels = prng.example_keys(KEY, 2), jnp.zeros(2, jnp.int32)

    def judged(images):
        protocol = evaluation.Protocol("fresh", 3)
        batch = judging.Batch(protocol, keys, Partial(logits_fn), images, labels)
        return batch.judge(images), batch.flat(batch.logits_fn, 3)

    program = jax.jit(judged).lower(images).as_text()
    layouts = re.findall(r"dim_numbers = (.*?), window", program)
    assert layouts and set(layouts) == {"[b, 0, 1, f]x[0, 1, i, o]->[b, 0, 1, f]"}
    quick = judged(images)
    with fast.plain():
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), quick, judged(images)
        )
