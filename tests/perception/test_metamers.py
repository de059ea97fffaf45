"""The condition ``Metamers``: images with the same responses of a layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation.tiny import tiny_evaluation, tiny_images, tiny_network, tiny_trained
from tests.specs import rows_of
from vone_jax import evaluation, prng
from vone_jax.network import Network
from vone_jax.perception import Metamers, humans, synthesis
from vone_jax.perception.metamers import metamers


@pytest.fixture(scope="module")
def network():
    return tiny_trained()


@pytest.mark.slow
def test_the_numbers_are_those_of_synthesis_in_any_batches(network, tmp_path):
    condition = Metamers("v1", rounds=3, steps=20, images=4)
    # Four of ten images are taken.
    index = np.array([0, 2, 5, 7])
    images = tiny_images()[0][index]
    root = prng.stream(jax.random.key(0), "evaluation")
    keys = prng.stream(prng.index_keys(root, index), "attack")
    expected = synthesis.metamers(keys, network.response_fn("v1"), images, rounds=3, steps=20)
    result = evaluation.evaluate(
        tiny_evaluation(network, tmp_path / "run", batch_size=3), condition
    )
    arrays = result.arrays
    np.testing.assert_array_equal(arrays["index"], index)
    np.testing.assert_allclose(arrays["original"], images)
    np.testing.assert_allclose(arrays["decibel"], expected.decibel[0], atol=0.05)
    np.testing.assert_allclose(arrays["metamers"], expected.images[0], atol=0.02)
    # The null is that of all ten images.
    keys = prng.stream(prng.index_keys(root, np.arange(10)), "null")
    every = network.response_fn("v1")(keys, jnp.asarray(tiny_images()[0]))
    null = synthesis.null_decibel(every)
    assert result.value("decibel of two images") == pytest.approx(null, abs=1e-3)
    assert result.value("images of the null") == 10
    assert result.value("matched") == np.mean(arrays["decibel"] > null)
    same = np.mean(arrays["predicted"] == arrays["predicted clean"])
    assert result.value("same decision") == same
    assert result.value("accuracy", observer="itself") == arrays["right"].mean()
    # They are shown beside the originals, with their match.
    shown = result.views[-1]
    assert shown.arrays == ("shown originals", "shown metamers") and len(shown.captions) == 4
    np.testing.assert_array_equal(arrays["shown metamers"], arrays["metamers"])
    for caption, decibel, true, taken in zip(
        shown.captions, arrays["decibel"], arrays["label"], arrays["predicted"], strict=True
    ):
        assert caption == f"{'abc'[true]}, taken for {'abc'[taken]}, {decibel:.1f} dB"


BRIGHT = """
import jax.numpy as jnp

def logits_fn(keys, images):
    mean = images.mean(axis=(1, 2, 3))
    return jnp.stack([mean, 0.5 + 0 * mean, 0 * mean], axis=1)

def bright():
    return logits_fn, (12, 12, 1), ("a", "b", "c")
"""


@pytest.mark.slow
def test_other_networks_are_asked_beside_humans(network, tmp_path):
    (tmp_path / "bright.py").write_text(BRIGHT)
    condition = Metamers("logits", rounds=1, steps=5, images=4)
    others = (f"{tmp_path}/bright.py:bright",)
    given = tiny_evaluation(network, tmp_path / "results", others=others)
    (name,) = (other.name for other in given.others)
    found = evaluation.evaluate(given, condition)
    for number, images in (("accuracy", "metamers"), ("accuracy on originals", "original")):
        decided = np.where(found.arrays[images].mean(axis=(1, 2, 3)) > 0.5, 0, 1)
        expected = np.mean(decided == found.arrays["label"])
        assert found.value(number, observer=name) == expected
    asked = {row["observer"] for row in found.rows if row["number"] == "accuracy on originals"}
    assert asked == {"itself", name}
    described = found.identity["condition"]["networks"]
    assert [checksum for _, checksum in described] == [given.others[0].checksum]
    lines, published, _ = found.views
    assert (lines.number, lines.x, lines.order) == ("accuracy", "layer", tuple(network.layers))
    shown = rows_of(published.spec, "metamers of")
    shares = tuple(row["accuracy"] for row in shown if row["metamers of"] == "VOneAlexNet")
    assert shares == humans.METAMERS["VOneAlexNet"].accuracy
    with pytest.raises(ValueError, match="must take images"):
        tiny_evaluation(
            tiny_trained(module=tiny_network(classes=4), class_names=tuple("abcd")), tmp_path,
            others=others,
        )  # fmt: skip


def test_logits_that_are_not_finite_are_no_answer(network, tmp_path):
    """NaN counted as a wrong answer of the network, and of another one that was asked."""

    def broken(keys, images):
        return jnp.full((len(images), 3), jnp.nan)

    other = Network("broken", broken, (12, 12, 1), ("a", "b", "c"), source="a function")
    condition = Metamers("v1", rounds=1, steps=1, images=2)
    with pytest.raises(FloatingPointError, match="not finite"):
        evaluation.evaluate(tiny_evaluation(network, tmp_path, others=(other,)), condition)


def test_the_suite_has_all_layers_or_those_that_are_named(network):
    given = evaluation.Evaluation(network)
    assert metamers(given, layers=("v1", "logits")) == [Metamers("v1"), Metamers("logits")]
    assert [each.layer for each in metamers(given)] == list(network.layers)
    with pytest.raises(ValueError, match="layers"):
        Metamers("v3").check(network)
