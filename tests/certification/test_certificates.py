"""Certificates against decoders whose answer is known, and against attacks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from tests.certification.test_bounds import bank, block
from vone_jax import attacks, certification, models, prng, v1
from vone_jax.certification import certificates, observer

KEY = jax.random.key(0)
SIDE, GAIN, GREY = 4, 20.0, 0.9
# Responses of a delta kernel to a uniform image, and their number.
RESPONSE, CELLS = GAIN * (GREY - 0.5) / 0.5, SIDE**2
GAUSSIAN, NEURONAL = v1.GaussianNoise(0.5), v1.NeuronalNoise(2.0, 3.0)
STABILISED = v1.StabilisedNoise(2.0, 3.0)


def two(score):
    """Logits of two classes: the first one if the score is positive."""
    return jnp.stack([score, jnp.zeros_like(score)], axis=-1)


def decoder(noise, margin):
    """V1 of one delta kernel, and a half-space ``margin`` deviations from a uniform image."""
    delta = np.zeros((2, 1, 3, 3))
    delta[0, 0, 1, 1] = 1.0
    config = block(
        (1, 0), size=SIDE, kernel_size=3, stride=1, in_channels=1, k_exc=GAIN, noise=noise,
        bank=bank([0], 3, delta),
    )  # fmt: skip

    def back_end(keys, responses):
        noisy = noise(responses, v1.standard_normal(keys, responses.shape[1:]))
        if isinstance(noise, v1.StabilisedNoise):
            root = jnp.sqrt(noise.scale * noisy + noise.level + 0.25)
            moved = 2 * (root - np.float32(np.sqrt(noise.scale * RESPONSE + noise.level)))
        elif isinstance(noise, v1.NeuronalNoise):
            variance = noise.scale * RESPONSE + noise.level
            moved = (noisy - RESPONSE) * np.float32(noise.scale / variance**0.5)
        else:
            moved = (noisy - RESPONSE) / noise.scale
        return two(jnp.sum(moved, axis=(1, 2, 3)) / np.float32(CELLS**0.5) + margin)

    return certification.NoisyClassifier(config, back_end, noise)


def uniform(value=GREY):
    return jnp.full((1, SIDE, SIDE, 1), value, jnp.float32)


def certify(classifier, images, draws=20_000, **options):
    return certification.certify(
        KEY, classifier, images, draws=draws, at_once=1000, progress=False, **options
    )


def share(classifier, images, draws=20_000):
    """The share of other draws that vote for the first class."""
    found = certification.certify(
        jax.random.key(7), classifier, images, draws=draws, at_once=1000, progress=False
    )
    return np.where(found.prediction == 0, found.votes, draws - found.votes) / draws


def test_the_confidence_bound_is_that_of_clopper_and_pearson():
    for votes, draws, bound in [(990, 1000, 0.976036), (9990, 10_000, 0.997588)]:
        assert certificates.lower_bound(votes, draws, 0.001) == pytest.approx(bound, abs=1e-6)
    assert certificates.lower_bound(100_000, 100_000, 0.001) == pytest.approx(0.001**1e-5)
    assert certificates.lower_bound(0, 10, 0.001) == 0.0


def test_a_half_space_behind_gaussian_noise_meets_its_certificate():
    classifier = decoder(GAUSSIAN, margin=2.0)
    found = certify(classifier, uniform())
    probability = scipy.stats.norm.cdf(2.0)
    assert found.votes[0] / 20_000 == pytest.approx(probability, abs=0.005)
    sensitivity = GAIN / 0.5
    exact = 0.5 * 2.0 / sensitivity
    assert 0.95 * exact < found.l2[0] <= exact
    assert found.l2[0] == pytest.approx(0.5 * scipy.stats.norm.ppf(found.lower[0]) / sensitivity)
    # A uniform change is the worst one of both norms.
    assert found.linf[0] == pytest.approx(found.l2[0] / SIDE)
    assert share(classifier, uniform(GREY - found.linf[0])) > 0.5
    assert share(classifier, uniform(GREY - 1.1 * exact / SIDE)) < 0.5


def test_a_half_space_behind_stabilised_noise_meets_its_region():
    """A margin of 2 in the units of d' is right with Phi(2), and certified up to d' = 2."""
    noise, classifier = STABILISED, decoder(STABILISED, margin=2.0)
    found = certify(classifier, uniform())
    assert found.votes[0] / 20_000 == pytest.approx(scipy.stats.norm.cdf(2.0), abs=0.005)
    limit = scipy.stats.norm.ppf(found.lower[0])
    # The uniform change that has d' = limit: 2 sqrt(cells) (sqrt(u) - sqrt(u')) = limit.
    root = np.sqrt(noise.scale * RESPONSE + noise.level)
    change = RESPONSE - ((root - limit / (2 * SIDE)) ** 2 - noise.level) / noise.scale
    change /= GAIN / 0.5
    for factor, covered in ((0.999, True), (1.001, False)):
        delta = uniform(-factor * change)
        assert found.covers(uniform(), delta)[0] == covered
    seen = certification.detectability(
        classifier.front_end, uniform(), uniform(GREY - change), noise
    )
    assert float(seen[0]) == pytest.approx(limit, rel=1e-4)
    assert share(classifier, uniform(GREY - change)) > 0.5
    assert share(classifier, uniform(GREY - change * 2.1 / limit)) < 0.5
    # One bound for all images is far too careful where cells fire; the local one less so.
    near = certify(classifier, uniform(), local=True)
    assert 2 * found.l2[0] < 0.7 * change * SIDE < near.l2[0] <= change * SIDE


def test_no_uniform_change_within_the_radius_of_neuronal_noise_changes_the_answer():
    classifier = decoder(NEURONAL, margin=2.0)
    found = certify(classifier, uniform(), local=True)
    assert found.l2[0] > 0 and found.linf[0] >= found.l2[0] / SIDE * (1 - 1e-9)
    assert found.covers(uniform(), uniform(-0.999 * found.linf[0]))[0]
    assert share(classifier, uniform(GREY - found.linf[0])) > 0.5
    # It is not far below what the decoder stands.
    assert share(classifier, uniform(GREY - 2.0 * found.l2[0] / SIDE)) < 0.5


def test_spontaneous_activity_and_not_strength_buys_a_certificate():
    """The variance of silent cells tells of a change, whatever the strength of the noise."""

    def radius(noise):
        return observer.certified_radius(noise, 0.997, lambda _: (30.0, 8.0))[0]

    base = radius(v1.NeuronalNoise(level=0.07))
    assert radius(v1.NeuronalNoise(level=0.07, strength=4.0)) < 1.5 * base
    assert radius(v1.NeuronalNoise(level=2.0)) > 10 * base
    assert radius(v1.StabilisedNoise(level=2.0)) == pytest.approx(
        scipy.stats.norm.ppf(0.997) * np.sqrt(2.0) / (0.35 * 30.0), rel=1e-6
    )


def test_smoothed_pixels_have_the_radius_of_cohen():
    def logits_fn(keys, images):
        return two(jnp.sum(images - 0.25, axis=(1, 2, 3)) / SIDE)

    found = certify(certification.smooth_pixels(logits_fn, 0.5), uniform(0.5))
    # The score is 1, with a deviation of 0.5.
    assert found.votes[0] / 20_000 == pytest.approx(scipy.stats.norm.cdf(2.0), abs=0.005)
    assert found.l2[0] == pytest.approx(0.5 * scipy.stats.norm.ppf(found.lower[0]))
    assert 0.95 < found.l2[0] <= 1.0 and found.linf[0] == pytest.approx(found.l2[0] / SIDE)


def test_a_function_gets_the_radius_of_its_sensitivity():
    def logits_fn(keys, images):
        z = v1.standard_normal(keys, (1,))
        return two(3.0 * images.mean(axis=(1, 2, 3)) + 0.5 * z[:, 0])

    found = certify(certification.from_function(logits_fn, 3.0 / SIDE, 0.5), uniform(0.3))
    assert found.l2[0] == pytest.approx(0.5 * scipy.stats.norm.ppf(found.lower[0]) * SIDE / 3)


def test_an_answer_without_a_majority_is_not_certified():
    found = certify(decoder(GAUSSIAN, margin=0.0), uniform(), draws=2000)
    assert found.abstained[0] and found.l2[0] == 0 and found.linf[0] == 0
    assert not found.certified([0], 0.0)[0] and not found.covers(uniform(), uniform(0.0))[0]


class Head(nn.Module):
    """A back end of one nonlinear layer."""

    @nn.compact
    def __call__(self, x, train=False):
        pooled = x.reshape(x.shape[0], 4, -1).mean(axis=1)
        return {"logits": 3.0 * nn.Dense(3)(nn.relu(nn.Dense(16)(pooled)))}


def network(noise):
    config = block((6, 6), size=8, k_exc=20.0, in_channels=1, noise=noise)
    model = models.create("vone_resnet18", 3, v1=config, back_end=Head(), width=8)
    return model, models.init(model, jax.random.key(3))


@pytest.fixture(scope="module")
def photographs():
    return jax.random.uniform(jax.random.key(5), (8, 8, 8, 1))


@pytest.mark.slow
def test_no_attack_of_a_certified_radius_changes_the_answer(photographs):
    model, variables = network(v1.NeuronalNoise(level=2.0))
    classifier = certification.from_model(model, variables)
    found = certify(classifier, photographs, draws=1000)
    labels = found.prediction
    assert 2 <= found.certified(labels, 0.0).sum()
    logits_fn = models.logits_fn(model, variables)
    last = np.inf
    for radius in np.quantile(found.l2[~found.abstained], [0.2, 0.8]):
        attack = attacks.PGD(norm="l2", eps=float(radius), steps=10, eot_samples=8)
        adversarial = attack(jax.random.key(1), logits_fn, photographs, jnp.asarray(labels))
        attacked = certify(classifier, adversarial, draws=1000).prediction == labels
        certified = found.certified(labels, radius)
        assert np.all(attacked[certified])
        assert certified.mean() <= min(attacked.mean(), last)
        last = certified.mean()


def test_certificates_depend_on_the_key_of_an_image_alone(photographs):
    classifier = certification.from_model(*network(v1.GaussianNoise(1.0)))
    options = {"choose": 30, "draws": 250, "progress": False}
    whole = certification.certify(KEY, classifier, photographs[:3], **options)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.array([2, 1]))
    part = certification.certify(keys, classifier, photographs[2:0:-1], at_once=7, **options)
    for name in ("prediction", "votes", "lower", "l2", "linf"):
        np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[[2, 1]])
    other = certification.certify(jax.random.key(9), classifier, photographs[:3], **options)
    assert np.any(other.votes != whole.votes)


def recorded(draws, at_once, choose=8):
    """The certificate of a classifier that votes by the bits of its key, and the votes and keys."""
    keys, votes = [], []

    def record(data, chosen):
        keys.extend(map(tuple, data.tolist()))
        votes.extend(chosen.tolist())

    def logits_fn(own, images):
        data = jax.random.key_data(own)
        chosen = (data[:, 1] % 3 + images[:, 0, 0, 0].astype(jnp.uint32)).astype(jnp.int32)
        jax.debug.callback(record, data, chosen)
        return jax.nn.one_hot(chosen, 3)

    found = certification.certify(
        KEY, certification.from_function(logits_fn, 1.0, 1.0), uniform(0.0), choose=choose,
        draws=draws, at_once=at_once, progress=False,
    )  # fmt: skip
    jax.effects_barrier()
    return found, keys, votes


def test_a_class_is_counted_on_other_draws_than_those_that_chose_it():
    found, keys, votes = recorded(draws=40, at_once=4)
    # No key serves twice, neither for choosing and counting nor within either.
    assert len(set(keys)) == len(keys) == 8 + 40
    assert votes[:8].count(found.prediction[0]) == max(map(votes[:8].count, range(3)))
    assert found.votes[0] == votes[8:].count(found.prediction[0])


def test_the_streams_of_a_certificate_are_select_and_estimate():
    own = prng.example_keys(KEY, 1)[0]
    expected = [
        prng.index_keys(prng.stream(own, name), jnp.arange(count))
        for name, count in (("select", 8), ("estimate", 40))
    ]
    data = np.concatenate([jax.random.key_data(each) for each in expected])
    assert recorded(draws=40, at_once=4)[1] == list(map(tuple, data.tolist()))


@pytest.mark.parametrize("at_once", [1, 7, 20, 64])
def test_each_draw_has_one_vote_whatever_is_computed_at_once(at_once):
    found, _, _ = recorded(draws=20, at_once=at_once)
    assert found.votes[0] == recorded(draws=20, at_once=5)[0].votes[0]
    always = certification.from_function(lambda keys, x: two(jnp.ones(len(keys))), 1.0, 1.0)
    found = certification.certify(
        KEY, always, uniform(), choose=3, draws=20, at_once=at_once, progress=False
    )
    assert found.votes[0] == found.draws == 20


@pytest.mark.parametrize("probability", [0.5, 0.8])
def test_certificates_claim_too_much_as_rarely_as_alpha_says(probability):
    """The classes are independent of the image, and of known probability.

    At 1/2 no class has a majority, so each certificate is wrong. The rate of wrong bounds is that
    of the binomial distribution.
    """
    draws, alpha, count = 60, 0.25, 400

    def logits_fn(keys, images):
        won = jax.vmap(jax.random.uniform)(keys) < probability
        return jax.nn.one_hot(jnp.where(won, 0, 1), 2)

    classifier = certification.from_function(logits_fn, 1.0, 1.0)
    found = certification.certify(
        KEY, classifier, jnp.full((count, 2, 2, 1), 0.5), choose=draws, draws=draws, alpha=alpha,
        at_once=draws, progress=False,
    )  # fmt: skip
    wrong = np.mean(found.lower > probability)
    votes = np.arange(draws + 1)
    bound = np.array([certificates.lower_bound(each, draws, alpha) for each in votes])
    expected = scipy.stats.binom.pmf(votes, draws, probability)[bound > probability].sum()
    assert expected <= alpha
    assert wrong == pytest.approx(expected, abs=4 * (expected / count) ** 0.5)
    radius = scipy.stats.norm.ppf(probability)
    np.testing.assert_array_equal(found.certified(found.prediction, radius), found.l2 > radius)
    assert np.mean(found.l2 > radius) <= wrong


@pytest.mark.parametrize("local", [False, True])
def test_what_may_fail_together_fails_with_alpha_at_most(monkeypatch, local):
    """The bound of the votes and all bounds of the local sensitivity."""
    failures = []

    def local_sensitivity(*arguments, failure, **options):
        failures.append(failure)
        return certification.local_sensitivity(*arguments, failure=failure, **options)

    monkeypatch.setattr(certificates, "local_sensitivity", local_sensitivity)
    found = certify(decoder(GAUSSIAN, 2.0), uniform(), draws=1000, alpha=0.01, local=local)
    # The bound is the probability at which so many votes are as rare as its level.
    level = scipy.stats.binom.sf(found.votes[0] - 1, 1000, found.lower[0])
    assert bool(failures) == local
    assert 0.0099 < level + sum(failures) <= 0.01 * (1 + 1e-6)


def test_a_certified_radius_is_exclusive():
    """At the radius itself, the half-space has half of the votes, which is no majority."""
    found = certify(decoder(GAUSSIAN, 2.0), uniform(), draws=1000)
    for norm, radius in (("l2", found.l2[0]), ("linf", found.linf[0])):
        assert found.certified([0], np.nextafter(radius, 0), norm)[0]
        assert not found.certified([0], radius, norm)[0]


def test_networks_without_a_certificate_are_refused():
    model, variables = network(v1.GaussianNoise(1.0))
    with pytest.raises(ValueError, match="level > 0"):
        certification.from_model(models.with_noise(model, v1.NeuronalNoise(level=0.0)), variables)
    with pytest.raises(ValueError, match="smooth_pixels"):
        certification.from_model(models.create("resnet18", image_size=28), {})
    with pytest.raises(ValueError, match="EVNet"):
        certification.from_model(models.create("ev_resnet18", image_size=64), {})


@pytest.mark.untyped
def test_a_plain_function_is_sent_to_the_noise_of_pixels():
    with pytest.raises(TypeError, match="smooth_pixels"):
        certification.certify(KEY, lambda keys, images: images, jnp.zeros((1, 4, 4, 1)))


def test_logits_that_are_not_finite_are_reported():
    classifier = certification.from_function(lambda keys, x: jnp.log(x[:, 0, 0] - 1), 1.0, 1.0)
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        certification.certify(KEY, classifier, uniform(), draws=10, progress=False)
