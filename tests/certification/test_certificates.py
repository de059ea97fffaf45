"""Certificates against decoders whose answer is known, and against attacks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from tests.certification.test_bounds import bank, block
from vone_jax import attacks, certification, models, v1
from vone_jax.certification import certificates

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
        return certificates.largest_size(noise, 0.997, 30.0, 8.0)[0]

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
    model = models.VOneNet(config, Head(), bottleneck_features=8)
    return model, models.init(model, jax.random.key(3))


@pytest.fixture(scope="module")
def photographs():
    return jax.random.uniform(jax.random.key(5), (8, 8, 8, 1))


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


def test_networks_without_a_certificate_are_refused():
    model, variables = network(v1.GaussianNoise(1.0))
    with pytest.raises(ValueError, match="level > 0"):
        certification.from_model(models.with_noise(model, v1.NeuronalNoise(level=0.0)), variables)
    with pytest.raises(ValueError, match="smooth_pixels"):
        certification.from_model(models.create("resnet18", image_size=28), {})
    with pytest.raises(ValueError, match="EVNet"):
        certification.from_model(models.create("ev_resnet18", image_size=64), {})


def test_logits_that_are_not_finite_are_reported():
    classifier = certification.from_function(lambda keys, x: jnp.log(x[:, 0, 0] - 1), 1.0, 1.0)
    with pytest.raises(FloatingPointError, match="NaN or infinite"):
        certification.certify(KEY, classifier, uniform(), draws=10, progress=False)
