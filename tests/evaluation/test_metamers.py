"""The condition ``Metamers``: images with the same responses of a layer."""

import jax
import numpy as np
import pytest

from tests.evaluation.tiny import tiny_images, tiny_job, tiny_trained
from vone_jax import dataclass_json, evaluation, prng, report, synthesis
from vone_jax.evaluation import suites


@pytest.fixture(scope="module")
def network():
    return tiny_trained()


def test_the_numbers_are_those_of_synthesis_in_any_batches(network, tmp_path):
    """And the page has a strip of the originals and one of the layer."""
    condition = evaluation.Metamers("v1", rounds=3, steps=20, images=4)
    stored = dataclass_json.encode(condition)
    assert dataclass_json.decode(evaluation.Condition, stored, "condition") == condition
    # Four of ten images are taken.
    index = np.array([0, 2, 5, 7])
    images = tiny_images()[0][index]
    root = prng.stream(jax.random.key(0), "evaluation")
    keys = prng.stream(prng.index_keys(root, index), "attack")
    expected = synthesis.metamers(keys, network.response_fn("v1"), images, rounds=3, steps=20)
    for size in (4, 3):
        job = tiny_job(network, tmp_path / str(size), batch_size=size)
        result = evaluation.evaluate(job, condition)
        arrays = result.arrays
        np.testing.assert_array_equal(arrays["index"], index)
        np.testing.assert_allclose(arrays["original"], images)
        np.testing.assert_allclose(arrays["decibel"], expected.decibel[0], atol=0.05)
        np.testing.assert_allclose(arrays["metamers"], expected.images[0], atol=0.02)
        assert result.value("decibel of two images") == pytest.approx(expected.null, abs=1e-3)
        assert result.value("matched") == expected.matched.mean()
        same = np.mean(arrays["predicted"] == arrays["predicted clean"])
        assert result.value("same decision") == same
        assert result.value("accuracy on metamers") == arrays["right"].mean()
    page = report.write([tmp_path / "3"], tmp_path / "page.html").read_text()
    assert '<section id="metamers">' in page and page.count(" dB</figcaption>") == 4


def test_the_suite_has_all_layers_or_those_that_are_named(network):
    setting = suites.Setting(network, layers=("v1", "logits"))
    made = suites.conditions(["metamers"], setting)
    assert made == [evaluation.Metamers("v1"), evaluation.Metamers("logits")]
    every = suites.conditions(["metamers"], suites.Setting(network))
    assert [each.layer for each in every] == list(network.layers)
    with pytest.raises(ValueError, match="layers"):
        evaluation.Metamers("v3").check(network)
