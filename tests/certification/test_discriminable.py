"""The condition ``Discriminable``: attacks and certificates in d'."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy

from tests.certification.test_certificates import network
from tests.certification.test_measured import KEY, found_of, measured, values
from tests.evaluation import tiny
from vone_jax import certification, data, evaluation, models, prng, results, v1
from vone_jax.certification.measured import Discriminable
from vone_jax.network import Network

SHORT = {"steps": 4, "eot_samples": 2, "choose": 50, "draws": 300}


@pytest.fixture(scope="module")
def vonenet():
    return Network.of_model("toy", *network(v1.GaussianNoise(1.0)))


@pytest.mark.slow
def test_the_certified_accuracy_is_a_floor_in_the_same_set(vonenet):
    images = jax.random.uniform(jax.random.key(5), (6, 8, 8, 1))
    keys = prng.stream(prng.example_keys(KEY, 6), "judge")
    classifier = certification.from_model(vonenet.model, vonenet.variables)
    found = certification.certify(keys, classifier, images, 50, 300, progress=False)
    labels = jnp.asarray(found.prediction)
    radii = (0.05, max(float(np.quantile(scipy.special.ndtri(found.lower), 0.6)), 0.1), 200.0)
    condition = Discriminable(vonenet.model.v1, radii, **SHORT)
    condition.check(vonenet)
    summary, arrays = measured(condition, vonenet, images, labels)
    certified = values(summary, "certified accuracy")
    expected = [np.mean(scipy.special.ndtri(found.lower) > each) for each in radii]
    assert certified == pytest.approx(expected) and certified[-1] == 0 < certified[0]
    attacked = values(summary, "accuracy under attack")
    assert np.all(np.array(certified) <= attacked) and attacked[-1] < attacked[0]
    assert not summary.warnings
    # A proof that is wrong is noticed.
    wrong = np.zeros_like(arrays["right under attack"])
    broken = found_of(condition, arrays | {"right under attack": wrong}, vonenet)
    assert "did not survive" in broken.warnings[0]


@pytest.mark.slow
def test_the_numbers_of_one_radius_are_stored_and_found_again(vonenet, tmp_path):
    """They were written under a name with the radius, and not found under that of the condition."""
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 1)).astype(np.uint8)
    source = data.ArraySource(images, np.array([0, 1, 0]), class_names=("a", "b"), name="grey")
    condition = Discriminable(vonenet.model.v1, (0.5,), **SHORT)
    plan = tiny.tiny_evaluation(vonenet, tmp_path, source=source)
    first = evaluation.evaluate(plan, condition)
    radius = {"d'": 0.5}
    certified = first.value("certified accuracy", **radius)
    assert 0 <= certified <= first.value("accuracy under attack", **radius)
    # A bound of d' is no radius of a norm of pixels.
    assert not any("eps" in each for each in first.rows)
    seen = []
    again = evaluation.evaluate(plan, condition, lambda *counted: seen.append(counted))
    assert seen == [(3, True)] and again.rows == first.rows
    assert results.load([tmp_path]).to_frame()["d'"].tolist() == [0.5] * 3


def test_a_network_without_the_v1_of_the_observer_has_no_certificate(vonenet, tmp_path):
    observer = dataclasses.replace(vonenet.model.v1, noise=v1.GaussianNoise(2.0))
    condition = Discriminable(observer, (0.5,), **SHORT)
    images, labels = jax.random.uniform(jax.random.key(5), (2, 8, 8, 1)), jnp.array([0, 1])
    assert not values(measured(condition, vonenet, images, labels)[0], "certified accuracy")
    quiet = models.without_noise(vonenet.model)
    quiet = Network.of_model("quiet", quiet, vonenet.variables)
    summary, arrays = measured(condition, quiet, images, labels)
    assert arrays["right under attack"].shape == (2, 1)
    assert not values(summary, "certified accuracy")
    assert 0 < values(summary, "median largest change of a pixel")[0] <= 1
    # The result is whole without it.
    images = np.zeros((2, 8, 8, 1), np.uint8)
    source = data.ArraySource(images, np.array([0, 1]), class_names=("a", "b"), name="grey")
    result = evaluation.evaluate(tiny.tiny_evaluation(quiet, tmp_path, source=source), condition)
    assert [view.number for view in result.views] == ["accuracy under attack"]


def test_an_observer_without_a_d_prime_is_refused():
    with pytest.raises(ValueError, match="discriminability needs"):
        Discriminable(v1.VOneBlockConfig(), (1.0,))
