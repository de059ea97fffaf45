"""The condition ``Metamers``: images with the same responses of a layer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.evaluation.tiny import tiny_evaluation, tiny_images, tiny_network, tiny_trained
from tests.report.test_charts import rows_of
from vone_jax import evaluation, prng, report, synthesis
from vone_jax.evaluation import suites
from vone_jax.network import Network
from vone_jax.report import observer_charts
from vone_jax.results import Run, Runs, humans


@pytest.fixture(scope="module")
def network():
    return tiny_trained()


def test_the_numbers_are_those_of_synthesis_in_any_batches(network, tmp_path):
    """And the page has a strip of the originals and one of the layer."""
    condition = evaluation.Metamers("v1", rounds=3, steps=20, images=4)
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
    assert result.value("accuracy on metamers") == arrays["right"].mean()
    page = report.write([tmp_path / "run"], tmp_path / "page.html").read_text()
    assert '<section id="metamers">' in page and page.count(" dB</figcaption>") == 4


BRIGHT = """
import jax.numpy as jnp

def logits_fn(keys, images):
    mean = images.mean(axis=(1, 2, 3))
    return jnp.stack([mean, 0.5 + 0 * mean, 0 * mean], axis=1)

def bright():
    return logits_fn, (12, 12, 1), ("a", "b", "c")
"""


def test_other_networks_are_asked_and_the_page_draws_them_beside_humans(network, tmp_path):
    (tmp_path / "bright.py").write_text(BRIGHT)
    condition = evaluation.Metamers("logits", rounds=1, steps=5, images=4)
    others = (f"{tmp_path}/bright.py:bright",)
    given = tiny_evaluation(network, tmp_path / "results", others=others)
    (name,) = (other.name for other in given.others)
    found = evaluation.evaluate(given, condition)
    for kind, images in (("metamers", "metamers"), ("originals", "original")):
        decided = np.where(found.arrays[images].mean(axis=(1, 2, 3)) > 0.5, 0, 1)
        expected = np.mean(decided == found.arrays["label"])
        assert found.value(f"accuracy on {kind}, {name}") == expected
    described = found.identity["condition"]["networks"]
    assert [checksum for _, checksum in described] == [given.others[0].checksum]
    # The page also has another layer, which comes before it.
    row, *before = ({**row, "layer": "v1"} for row in (found.row, *found.rows))
    made = [dataclasses.replace(found, row=row, rows=before, details={"place": 0}), found]
    ours, published = observer_charts.metamers(Runs([Run(tmp_path, "tiny", made)]))
    rows = {(row["layer"], row["asked"]): row["value"] for row in rows_of(ours)}
    assert len(rows) == 6 and rows["originals", "itself"] == made[0].value("accuracy on originals")
    assert rows["logits", name] == made[1].value(f"accuracy on metamers, {name}")
    # A network with fewer layers does not change the order.
    other = dataclasses.replace(made[1], details={"place": 1})
    two = Runs([Run(tmp_path, "small", [other]), Run(tmp_path, "tiny", made)])
    first = observer_charts.metamers(two)[0].to_dict()["layer"][0]["encoding"]["x"]
    assert first["sort"] == ["originals", "v1", "logits"]
    shown = [row["accuracy"] for row in rows_of(published) if row["metamers of"] == "VOneAlexNet"]
    assert tuple(shown) == humans.METAMERS["VOneAlexNet"].accuracy
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
    condition = evaluation.Metamers("v1", rounds=1, steps=1, images=2)
    with pytest.raises(FloatingPointError, match="not finite"):
        evaluation.evaluate(tiny_evaluation(network, tmp_path, others=(other,)), condition)


def test_the_suite_has_all_layers_or_those_that_are_named(network):
    given = evaluation.Evaluation(network, layers=("v1", "logits"))
    made = suites.conditions(["metamers"], given)
    assert made == [evaluation.Metamers("v1"), evaluation.Metamers("logits")]
    every = suites.conditions(["metamers"], evaluation.Evaluation(network))
    assert [each.layer for each in every] == list(network.layers)
    with pytest.raises(ValueError, match="layers"):
        evaluation.Metamers("v3").check(network)
