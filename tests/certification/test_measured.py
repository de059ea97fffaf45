"""The condition ``Certified``: what is proved, beside what an attack breaks."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.certification.test_certificates import (
    GAUSSIAN,
    STABILISED,
    decoder,
    network,
    two,
    uniform,
)
from tests.evaluation import tiny
from tests.networks import changed
from vone_jax import certification, evaluation, models, prng, results, v1
from vone_jax.attacks import APGD
from vone_jax.certification import measured as conditions
from vone_jax.certification.measured import Certified
from vone_jax.evaluation.judging import Batch
from vone_jax.network import Network

KEY = jax.random.key(0)
# A short attack.
WEAK = {"steps": 5, "eot_samples": 2}


def measured(condition, network, images, labels):
    """What a condition finds of arrays, and the arrays that it makes."""
    keys = prng.example_keys(KEY, len(images))
    protocol = evaluation.Protocol("fresh", 1)
    batch = Batch(protocol, keys, network.logits_fn, images, labels, network=network)
    arrays = {name: np.asarray(each) for name, each in condition.make(batch).items()}
    return found_of(condition, arrays, network), arrays


def found_of(condition, arrays, network):
    return condition.result(arrays, types.SimpleNamespace(network=network))


def values(found, number):
    """The values of a number, such as one for each radius."""
    return [each.value for each in found.measured if each.name == number]


def half_space(classifier, monkeypatch):
    """The network of a ``decoder``, whose certificates are tight."""

    def logits_fn(keys, images):
        return classifier.back_end(keys, v1.noise_free_responses(classifier.front_end, images))

    monkeypatch.setattr(certification, "from_model", lambda model, variables: classifier)
    return types.SimpleNamespace(
        logits_fn=logits_fn, model=None, variables=None, num_classes=2, stochastic=True
    )


@pytest.fixture(scope="module")
def vonenet():
    return Network.of_model("toy", *network(v1.GaussianNoise(1.0)))


def test_certified_accuracy_is_that_of_the_certificates(vonenet):
    images = jax.random.uniform(jax.random.key(5), (4, 8, 8, 1))
    keys = prng.stream(prng.example_keys(KEY, 4), "judge")
    classifier = certification.from_model(vonenet.model, vonenet.variables)
    expected = certification.certify(keys, classifier, images, 20, 300, progress=False)
    labels = jnp.asarray(expected.prediction).at[0].add(1) % 3
    radius = float(np.median(expected.l2))
    condition = Certified((radius / 2, radius), draws=300, choose=20, **WEAK)
    condition.check(vonenet)
    summary, arrays = measured(condition, vonenet, images, labels)
    np.testing.assert_array_equal(arrays["votes"], expected.votes)
    found = values(summary, "certified accuracy")
    assert found == [expected.certified(labels, each).mean() for each in condition.radii]
    assert found[1] <= found[0] <= summary["accuracy of the vote"].value


def test_certificates_at_a_lower_contrast_are_those_of_images_of_that_contrast(vonenet):
    images, labels = jax.random.uniform(jax.random.key(5), (3, 8, 8, 1)), jnp.array([0, 1, 2])
    full = Certified((0.1,), draws=300, choose=20, **WEAK)
    faint = dataclasses.replace(full, contrast=0.25)
    _, expected = measured(full, vonenet, 0.5 + 0.25 * (images - 0.5), labels)
    _, arrays = measured(faint, vonenet, images, labels)
    for name, each in expected.items():
        np.testing.assert_array_equal(arrays[name], each)
    assert "contrast 0.25" in faint.label and "contrast" not in full.label


def test_a_function_is_certified_by_noise_on_its_pixels_alone():
    def logits_fn(keys, images):
        return two(images.mean(axis=(1, 2, 3)) - 0.25)

    function = Network("function", logits_fn, (4, 4, 1))
    with pytest.raises(ValueError, match="pixel_noise"):
        Certified((0.1,)).check(function)
    condition = Certified((0.1, 3.0), draws=200, choose=10, pixel_noise=0.5, **WEAK)
    condition.check(function)
    images, labels = jnp.full((2, 4, 4, 1), 0.5), jnp.array([0, 1])
    summary, _ = measured(condition, function, images, labels)
    # Of two images with the same answer, one has it as its label. A large change takes it away.
    assert values(summary, "certified accuracy") == [0.5, 0.0]
    assert values(summary, "accuracy under attack") == [0.5, 0.0]
    assert Certified((0.1,), pixel_noise=0.5).label == "certified L2, pixel noise 0.5"


def test_noise_on_pixels_does_not_hide_the_noise_of_the_network(tmp_path):
    """It stands beside the network's own noise, or in its place: two certificates of two names."""
    condition = Certified((0.1,), contrast=0.5, pixel_noise=0.25)
    own = tiny.tiny_trained()
    rows = [
        tiny.tiny_evaluation(each, tmp_path).row(condition)
        for each in (own, own.with_noise(None), own.with_noise(v1.GaussianNoise(2.0)))
    ]
    assert [row.get("noise") for row in rows] == [None, "none", "gaussian 2"]
    assert all("contrast 0.5" in results.label(row) for row in rows)
    assert all("pixel noise 0.25" in results.label(row) for row in rows)
    assert len({results.stem(row) for row in rows}) == 3


def test_an_attack_breaks_the_vote_just_outside_the_certified_radius_and_never_inside(monkeypatch):
    """The decoder is a half-space, whose certificate is tight. All images have the class 0."""
    classifier = decoder(GAUSSIAN, 2.0)
    images, labels = jnp.repeat(uniform(), 3, axis=0), jnp.zeros(3, jnp.int32)
    network = half_space(classifier, monkeypatch)
    found = certification.certify(KEY, classifier, images, 200, 2000, progress=False)
    radius = float(np.median(found.l2))
    # More draws vote than prove, so the attack has to go a little further.
    condition = Certified((0.9 * radius, 1.4 * radius), draws=2000, choose=200, **WEAK)
    summary, arrays = measured(condition, network, images, labels)
    assert values(summary, "certified accuracy") == [1.0, 0.0]
    assert values(summary, "accuracy under attack") == [1.0, 0.0]
    assert not summary.warnings
    # A proof that is wrong is noticed.
    broken = found_of(condition, arrays | {"radius": 2 * arrays["radius"]}, network)
    assert len(broken.warnings) == 1 and "3 of 3" in broken.warnings[0]


def test_the_suites_certify_v1_where_it_has_noise_and_pixels_elsewhere(vonenet):
    given = evaluation.Evaluation(vonenet)
    (made,) = conditions.certified(given, eps=(0.1, 0.2), norm="l2")
    assert made == Certified((0.1, 0.2))
    assert [(each.norm, each.eps) for each in made.attacks] == [("l2", 0.1), ("l2", 0.2)]
    (strongest,) = conditions.certified_local(given, eps=(0.1, 0.2), norm="l2")
    assert strongest.local and strongest.draws == made.draws
    assert strongest.attacks == tuple(
        evaluation.worst_case("l2", eps, evaluation.evaluation.ATTACK_DRAWS) for eps in (0.1, 0.2)
    )
    assert strongest.row()["attack"].startswith("strongest of PGD, APGD ")
    model = models.create("resnet18", image_size=28, width=2)
    shapes = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    base = Network.of_model("base", model, zeros)
    (first,) = conditions.certified(evaluation.Evaluation(base), norm="l2")
    assert first.pixel_noise == 0.25 and len(first.radii) == 4


def test_a_certificate_near_images_leaves_nothing_open_where_it_is_tight(monkeypatch):
    """On a half-space behind stabilised noise, with the sensitivity near the image at hand."""
    classifier = decoder(STABILISED, 2.0)
    images, labels = jnp.repeat(uniform(), 3, axis=0), jnp.zeros(3, jnp.int32)
    network = half_space(classifier, monkeypatch)
    plain, near = (
        certification.certify(KEY, classifier, images, 200, 2000, local=local, progress=False).l2
        for local in (False, True)
    )
    # The first radius is beyond what the sensitivity of all images certifies.
    first, beyond = (max(1.1 * plain.max(), 0.8 * near.min()), 2.2 * near.max())
    assert first < near.min()
    attack = APGD("l2", first, **WEAK)
    strongest = (attack, dataclasses.replace(attack, eps=beyond))
    condition = Certified(
        (first, beyond), draws=2000, choose=200, local=True, attacks=strongest
    )  # fmt: skip
    summary, arrays = measured(condition, network, images, labels)
    assert values(summary, "certified accuracy") == [1.0, 0.0]
    assert values(summary, "accuracy under attack") == [1.0, 0.0]
    assert values(summary, "share left open") == [0.0, 0.0] and not summary.warnings
    # Of three images that resist the attack, the proof is silent about one.
    radius = np.array([0.0, 2.0, 2.0]) * first
    silent = found_of(condition, arrays | {"radius": radius}, network)
    assert values(silent, "share left open")[0] == pytest.approx(1 / 3)


def test_certificates_near_images_are_attacked_where_they_alone_prove(monkeypatch):
    """On a half-space behind stabilised noise, between both radii: the proof holds."""
    classifier = decoder(STABILISED, 2.0)
    images, labels = uniform(), jnp.zeros(1, jnp.int32)
    network = half_space(classifier, monkeypatch)
    plain, near = (
        certification.certify(KEY, classifier, images, 200, 2000, local=local, progress=False).l2[0]
        for local in (False, True)
    )
    condition = Certified(((plain + near) / 2,), draws=2000, choose=200, **WEAK)
    of_all, _ = measured(condition, network, images, labels)
    condition = dataclasses.replace(condition, local=True)
    of_each, arrays = measured(condition, network, images, labels)
    assert values(of_all, "certified accuracy") == [0.0]
    assert values(of_each, "certified accuracy") == [1.0]
    assert values(of_each, "accuracy under attack") == [1.0] and not of_each.warnings
    # A local bound that is wrong is noticed.
    lost = np.zeros_like(arrays["right under attack"])
    broken = found_of(condition, arrays | {"right under attack": lost}, network)
    assert len(broken.warnings) == 1 and "1 of 1" in broken.warnings[0]
    with pytest.raises(ValueError, match="local is of V1's own noise"):
        dataclasses.replace(condition, pixel_noise=0.25)


@pytest.mark.slow
def test_gain_control_has_its_own_bound_near_images():
    model, variables = network(v1.GaussianNoise(1.0))
    model = changed(model, v1=dataclasses.replace(model.v1, normalization=v1.GainControl(0.5)))
    gained = Network.of_model("toy", model, variables)
    images, labels = jax.random.uniform(jax.random.key(5), (2, 8, 8, 1)), jnp.zeros(2, jnp.int32)
    classifier = certification.from_model(model, variables)
    keys = prng.stream(prng.example_keys(KEY, 2), "judge")
    expected = certification.certify(keys, classifier, images, 20, 200, progress=False)
    condition = Certified((0.1,), draws=200, choose=20, local=True, **WEAK)
    condition.check(gained)
    _, arrays = measured(condition, gained, images, labels)
    np.testing.assert_array_equal(arrays["radius"], expected.l2)


def test_there_is_one_attack_in_the_norm_for_each_radius():
    attacks = (APGD("l2", 0.1, **WEAK), APGD("l2", 0.2, **WEAK))
    assert Certified((0.1, 0.2), attacks=attacks).attacks == attacks
    for radii, norm in (((0.1,), "l2"), ((0.2, 0.1), "l2"), ((0.1, 0.2), "linf")):
        with pytest.raises(ValueError, match="one in .* for each radius"):
            Certified(radii, norm, attacks=attacks)
