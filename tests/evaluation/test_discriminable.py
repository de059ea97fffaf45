"""The condition ``Discriminable``: attacks and certificates in d'."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from tests.certification.test_certificates import network
from tests.evaluation import tiny
from tests.evaluation.test_certified import KEY, at_radii, measured
from vone_jax import certification, data, evaluation, models, prng, results, v1
from vone_jax.network import Network

SHORT = {"steps": 4, "eot_samples": 2, "choose": 50, "draws": 300}


@pytest.fixture(scope="module")
def vonenet():
    return Network.of_model("toy", *network(v1.GaussianNoise(1.0)))


def test_the_certified_accuracy_is_a_floor_in_the_same_set(vonenet):
    images = jax.random.uniform(jax.random.key(5), (6, 8, 8, 1))
    keys = prng.stream(prng.example_keys(KEY, 6), "judge")
    classifier = certification.from_model(vonenet.model, vonenet.variables)
    found = certification.certify(keys, classifier, images, 50, 300, progress=False)
    labels = jnp.asarray(found.prediction)
    radii = (0.05, max(float(np.quantile(scipy.special.ndtri(found.lower), 0.6)), 0.1), 200.0)
    condition = evaluation.Discriminable(vonenet.model.v1, radii, **SHORT)
    condition.check(vonenet)
    summary, arrays = measured(condition, vonenet, images, labels)
    certified = at_radii(summary, "certified accuracy")
    expected = [np.mean(scipy.special.ndtri(found.lower) > each) for each in radii]
    assert certified == pytest.approx(expected) and certified[-1] == 0 < certified[0]
    attacked = at_radii(summary, "accuracy under PGD")
    assert np.all(np.array(certified) <= attacked) and attacked[-1] < attacked[0]
    assert not summary.warnings
    # A proof that is wrong is noticed.
    wrong = np.zeros_like(arrays["right under attack"])
    broken = condition.numbers(arrays | {"right under attack": wrong})
    assert "did not survive" in broken.warnings[0]


def test_the_numbers_of_one_radius_are_stored_and_found_again(vonenet, tmp_path):
    """They were written under a name with the radius, and not found under that of the condition."""
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    source = data.ArraySource(images, np.array([0, 1, 0]), class_names=("a", "b"), name="grey")
    condition = evaluation.Discriminable(vonenet.model.v1, (0.5,), **SHORT)
    plan = tiny.tiny_evaluation(vonenet, tmp_path, source=source)
    first = evaluation.evaluate(plan, condition)
    assert 0 <= first.value("certified accuracy", 0.5) <= first.value("accuracy under PGD", 0.5)
    assert "eps" not in first.row and {each["eps"] for each in first.rows} == {0.5}
    seen = []
    again = evaluation.evaluate(plan, condition, lambda *counted: seen.append(counted))
    assert seen == [(3, True)] and again.rows == first.rows
    assert results.load([tmp_path]).to_frame()["eps"].tolist() == [0.5] * 3


def test_a_network_without_the_v1_of_the_observer_has_no_certificate(vonenet):
    observer = dataclasses.replace(vonenet.model.v1, noise=v1.GaussianNoise(2.0))
    condition = evaluation.Discriminable(observer, (0.5,), **SHORT)
    images, labels = jax.random.uniform(jax.random.key(5), (2, 8, 8, 1)), jnp.array([0, 1])
    assert not at_radii(measured(condition, vonenet, images, labels)[0], "certified accuracy")
    quiet = models.without_noise(vonenet.model)
    quiet = Network.of_model("quiet", quiet, vonenet.variables)
    summary, arrays = measured(condition, quiet, images, labels)
    assert arrays["right under attack"].shape == (2, 1)
    assert not at_radii(summary, "certified accuracy")
    assert 0 < at_radii(summary, "median largest change of a pixel")[0] <= 1


def test_an_observer_without_a_d_prime_is_refused():
    with pytest.raises(ValueError, match="discriminability needs"):
        evaluation.Discriminable(v1.VOneBlockConfig(), (1.0,))
