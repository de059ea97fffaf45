"""The conditions ``Certified`` and ``FourierMap`` of evaluations."""

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
from vone_jax import certification, diagnostics, evaluation, models, prng, results, v1
from vone_jax.attacks import APGD
from vone_jax.evaluation import suites
from vone_jax.evaluation.judging import Batch
from vone_jax.network import Network

KEY = jax.random.key(0)
# A short attack.
WEAK = {"steps": 5, "eot_samples": 2}


def measured(condition, network, images, labels):
    keys = prng.example_keys(KEY, len(images))
    protocol = evaluation.Protocol("fresh", 1)
    batch = Batch(protocol, keys, network.logits_fn, images, labels, network=network)
    arrays = {name: np.asarray(each) for name, each in condition.make(batch).items()}
    return condition.numbers(arrays), arrays


def at_radii(summary, number):
    return [each["value"] for each in summary.measured if each["number"] == number]


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
    condition = evaluation.Certified((radius / 2, radius), draws=300, choose=20, **WEAK)
    condition.check(vonenet)
    summary, arrays = measured(condition, vonenet, images, labels)
    np.testing.assert_array_equal(arrays["votes"], expected.votes)
    found = at_radii(summary, "certified accuracy")
    assert found == [expected.certified(labels, each).mean() for each in condition.radii]
    assert found[1] <= found[0] <= summary["accuracy of the vote"]["value"]


def test_certificates_at_a_lower_contrast_are_those_of_images_of_that_contrast(vonenet):
    images, labels = jax.random.uniform(jax.random.key(5), (3, 8, 8, 1)), jnp.array([0, 1, 2])
    full = evaluation.Certified((0.1,), draws=300, choose=20, **WEAK)
    faint = dataclasses.replace(full, contrast=0.25)
    _, expected = measured(full, vonenet, 0.5 + 0.25 * (images - 0.5), labels)
    _, arrays = measured(faint, vonenet, images, labels)
    for name, each in expected.items():
        np.testing.assert_array_equal(arrays[name], each)
    assert faint.label.startswith("certified contrast 0.25") and faint.label != full.label


def test_a_function_is_certified_by_noise_on_its_pixels_alone():
    def logits_fn(keys, images):
        return two(images.mean(axis=(1, 2, 3)) - 0.25)

    function = types.SimpleNamespace(
        name="function", logits_fn=logits_fn, model=None, num_classes=2, image_shape=(4, 4, 1)
    )
    with pytest.raises(ValueError, match="pixel_noise"):
        evaluation.Certified((0.1,)).check(function)
    condition = evaluation.Certified((0.1, 3.0), draws=200, choose=10, pixel_noise=0.5, **WEAK)
    condition.check(function)
    images, labels = jnp.full((2, 4, 4, 1), 0.5), jnp.array([0, 1])
    summary, _ = measured(condition, function, images, labels)
    # Of two images with the same answer, one has it as its label. A large change takes it away.
    assert at_radii(summary, "certified accuracy") == [0.5, 0.0]
    assert at_radii(summary, "accuracy under APGD") == [0.5, 0.0]
    assert condition.label.startswith("certified pixel noise 0.5 L2, draws ")


def test_noise_on_pixels_does_not_hide_the_noise_of_the_network(tmp_path):
    """It stands beside the network's own noise, or in its place: two certificates of two names."""
    condition = evaluation.Certified((0.1,), contrast=0.5, pixel_noise=0.25)
    own = tiny.tiny_trained()
    rows = [
        tiny.tiny_evaluation(each, tmp_path).row(condition)
        for each in (own, own.with_noise(None), own.with_noise(v1.GaussianNoise(2.0)))
    ]
    assert [row.get("noise") for row in rows] == [None, "none", "gaussian 2"]
    assert all("contrast 0.5" in results.label(row) for row in rows)
    assert all("pixel noise 0.25" in results.label(row) for row in rows)
    assert len({results.stem(row) for row in rows}) == 3


def test_the_heat_map_of_a_classifier_of_one_frequency():
    basis = diagnostics.fourier_basis(8, 8, 5)

    def logits_fn(keys, images):
        amplitude = jnp.abs(jnp.einsum("nhwc,hw->n", images, jnp.asarray(basis[0, 1])))
        return two(amplitude - 1.0)

    function = types.SimpleNamespace(
        name="function", logits_fn=logits_fn, num_classes=2, image_shape=(8, 8, 1)
    )
    condition = evaluation.FourierMap(l2=1.5, size=5)
    condition.check(function)
    images, labels = jnp.full((3, 8, 8, 1), 0.5), jnp.ones(3, jnp.int32)
    summary, arrays = measured(condition, function, images, labels)
    errors = np.array(summary.details["errors"])
    assert errors.sum() == errors[0, 1] + errors[4, 3] == 2.0
    assert summary["mean error"]["value"] == pytest.approx(2 / 24)
    assert arrays["wrong"].shape == (3, 5, 5)


def test_an_attack_breaks_the_vote_just_outside_the_certified_radius_and_never_inside(monkeypatch):
    """The decoder is a half-space, whose certificate is tight. All images have the class 0."""
    classifier = decoder(GAUSSIAN, 2.0)
    images, labels = jnp.repeat(uniform(), 3, axis=0), jnp.zeros(3, jnp.int32)
    logits_fn = lambda keys, images: classifier.back_end(  # noqa: E731
        keys, v1.noise_free_responses(classifier.front_end, images)
    )
    network = types.SimpleNamespace(logits_fn=logits_fn, model=None, variables=None)
    monkeypatch.setattr(certification, "from_model", lambda model, variables: classifier)
    found = certification.certify(KEY, classifier, images, 200, 2000, progress=False)
    radius = float(np.median(found.l2))
    # More draws vote than prove, so the attack has to go a little further.
    condition = evaluation.Certified((0.9 * radius, 1.4 * radius), draws=2000, choose=200, **WEAK)
    summary, arrays = measured(condition, network, images, labels)
    assert at_radii(summary, "certified accuracy") == [1.0, 0.0]
    assert at_radii(summary, "accuracy under APGD") == [1.0, 0.0]
    assert not summary.warnings
    # A proof that is wrong is noticed.
    broken = condition.numbers(arrays | {"radius": 2 * arrays["radius"]})
    assert len(broken.warnings) == 1 and "3 of 3" in broken.warnings[0]


def test_the_suite_certifies_v1_where_it_has_noise_and_pixels_elsewhere(vonenet):
    given = evaluation.Evaluation(vonenet, norm="l2", eps=(0.1, 0.2))
    (made,) = suites.conditions(["certified"], given)
    assert made == evaluation.Certified((0.1, 0.2))
    assert [(each.norm, each.eps) for each in made.attacks] == [("l2", 0.1), ("l2", 0.2)]
    model = models.create("resnet18", image_size=28, width=2)
    shapes = jax.eval_shape(lambda: models.init(model, jax.random.key(0)))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    base = Network.of_model("base", model, zeros)
    (first,) = suites.conditions(["certified"], evaluation.Evaluation(base, norm="l2"))
    assert first.pixel_noise == 0.25
    (fourier,) = suites.conditions(["fourier"], evaluation.Evaluation(base))
    assert fourier == evaluation.FourierMap(l2=3.5, size=27)


def test_a_sandwich_closes_where_the_certificate_is_tight(monkeypatch):
    """On a half-space behind stabilised noise, with the sensitivity near the image at hand."""
    classifier = decoder(STABILISED, 2.0)
    images, labels = jnp.repeat(uniform(), 3, axis=0), jnp.zeros(3, jnp.int32)
    logits_fn = lambda keys, images: classifier.back_end(  # noqa: E731
        keys, v1.noise_free_responses(classifier.front_end, images)
    )
    network = types.SimpleNamespace(logits_fn=logits_fn, model=None, variables=None)
    monkeypatch.setattr(certification, "from_model", lambda model, variables: classifier)
    plain, near = (
        certification.certify(KEY, classifier, images, 200, 2000, local=local, progress=False).l2
        for local in (False, True)
    )
    # The first radius is beyond what the sensitivity of all images certifies.
    first, beyond = (max(1.1 * plain.max(), 0.8 * near.min()), 2.2 * near.max())
    assert first < near.min()
    attack = APGD("l2", first, **WEAK)
    strongest = (attack, dataclasses.replace(attack, eps=beyond))
    condition = evaluation.Sandwich(strongest, draws=2000, choose=200)
    summary, arrays = measured(condition, network, images, labels)
    assert at_radii(summary, "certified accuracy") == [1.0, 0.0]
    assert at_radii(summary, "accuracy under attack") == [1.0, 0.0]
    assert at_radii(summary, "distance") == [0.0, 0.0] and not summary.warnings
    # What neither the proof nor the attack decides is the distance.
    open_ = condition.numbers(arrays | {"radius": np.array([0.0, 2.0, 2.0]) * first})
    assert at_radii(open_, "distance")[0] == pytest.approx(1 / 3)


def test_certificates_near_images_are_attacked_where_they_alone_prove(monkeypatch):
    """On a half-space behind stabilised noise, between both radii: the proof holds."""
    classifier = decoder(STABILISED, 2.0)
    images, labels = uniform(), jnp.zeros(1, jnp.int32)
    logits_fn = lambda keys, images: classifier.back_end(  # noqa: E731
        keys, v1.noise_free_responses(classifier.front_end, images)
    )
    network = types.SimpleNamespace(logits_fn=logits_fn, model=None, variables=None)
    monkeypatch.setattr(certification, "from_model", lambda model, variables: classifier)
    plain, near = (
        certification.certify(KEY, classifier, images, 200, 2000, local=local, progress=False).l2[0]
        for local in (False, True)
    )
    condition = evaluation.Certified(((plain + near) / 2,), draws=2000, choose=200, **WEAK)
    of_all, _ = measured(condition, network, images, labels)
    condition = dataclasses.replace(condition, local=True)
    of_each, arrays = measured(condition, network, images, labels)
    assert at_radii(of_all, "certified accuracy") == [0.0]
    assert at_radii(of_each, "certified accuracy") == [1.0]
    assert at_radii(of_each, "accuracy under APGD") == [1.0] and not of_each.warnings
    # A local bound that is wrong is noticed.
    lost = np.zeros_like(arrays["right under attack"])
    broken = condition.numbers(arrays | {"right under attack": lost})
    assert len(broken.warnings) == 1 and "1 of 1" in broken.warnings[0]
    assert condition.label.startswith("certified near images L2, draws ")
    with pytest.raises(ValueError, match="local is of V1's own noise"):
        dataclasses.replace(condition, pixel_noise=0.25)


def test_a_sandwich_attacks_only_images_that_are_still_open(vonenet, monkeypatch):
    """Right, not certified at the radius, and not broken at a smaller one."""
    n = 7
    images, labels = jax.random.uniform(jax.random.key(5), (n, 8, 8, 1)), jnp.zeros(n, jnp.int32)
    found = certification.Certificates(
        certification.from_model(vonenet.model, vonenet.variables),
        np.array([1, 0, 0, 0, 0, 0, 0]), np.full(n, 90), 100,
        np.array([0.9, 0.5, 0.9, 0.9, 0.9, 0.9, 0.9]),
        np.array([5.0, 0.0, 0.3, 0.15, 0.1, 0.1, 0.1]), np.zeros(n), np.ones(n),
    )  # fmt: skip
    monkeypatch.setattr(certification, "certify", lambda *args, **fields: found)
    attacked = {0.1: set(), 0.2: set()}

    def judged(batch, place, attack):
        equal = np.asarray(batch.images)[:, None] == np.asarray(images)
        places = np.argmax(equal.all(axis=(2, 3, 4)), axis=1).tolist()
        attacked[attack.eps] |= set(places)
        return batch.images, np.array(places)[:, None] != 5

    monkeypatch.setattr("vone_jax.evaluation.certified._judged_under", judged)
    # In any order of the radii.
    condition = evaluation.Sandwich((APGD("l2", 0.2, **WEAK), APGD("l2", 0.1, **WEAK)))
    _, arrays = measured(condition, vonenet, images, labels)
    # A radius is exclusive, so images with the radius 0.1 are not certified at 0.1.
    assert attacked == {0.1: {4, 5, 6}, 0.2: {3, 4, 6}}
    expected = np.array([False, False, True, True, True, False, True])
    np.testing.assert_array_equal(arrays["right under attack"], np.stack([expected] * 2, axis=1))


def test_a_sandwich_takes_gain_control_with_its_own_bound():
    model, variables = network(v1.GaussianNoise(1.0))
    model = model.clone(v1=dataclasses.replace(model.v1, normalization=v1.GainControl(0.5)))
    gained = Network.of_model("toy", model, variables)
    images, labels = jax.random.uniform(jax.random.key(5), (2, 8, 8, 1)), jnp.zeros(2, jnp.int32)
    classifier = certification.from_model(model, variables)
    keys = prng.stream(prng.example_keys(KEY, 2), "judge")
    expected = certification.certify(keys, classifier, images, 20, 200, progress=False)
    attack = APGD("l2", 0.1, **WEAK)
    condition = evaluation.Sandwich((attack,), draws=200, choose=20)
    condition.check(gained)
    _, arrays = measured(condition, gained, images, labels)
    np.testing.assert_array_equal(arrays["radius"], expected.l2)


def test_the_suite_of_the_sandwich_has_the_strongest_attack_at_each_radius(vonenet):
    given = evaluation.Evaluation(vonenet, norm="l2", eps=(0.1, 0.2))
    (made,) = suites.conditions(["sandwich"], given)
    assert made.strongest == tuple(suites.worst_case("l2", eps, 10) for eps in (0.1, 0.2))
    assert made.label.startswith("sandwich L2, strongest of PGD, APGD ")
    with pytest.raises(ValueError, match="one norm, l2 or linf"):
        suites.conditions(["sandwich"], dataclasses.replace(given, norm="l1"))
