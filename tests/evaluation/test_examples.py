"""Networks with other noise than they were trained with, and labels matched by class name."""

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.evaluation import tiny
from vone_jax import evaluation, results, v1
from vone_jax.attacks import PGD
from vone_jax.dataclass_json import encode
from vone_jax.evaluation.examples import match_classes
from vone_jax.evaluation.identity import identity
from vone_jax.evaluation.judging import Batch

ATTACK = PGD("linf", 0.05, steps=2, eot_samples=2)
TRAINED = encode(tiny.CONFIG.noise)


def test_a_network_with_other_noise_says_so_in_its_results(tmp_path):
    """Other names and other identities."""
    network, other = tiny.tiny_trained(), v1.GaussianNoise(2.0)
    assert network.with_noise(tiny.CONFIG.noise) is network
    for each, name, trained, noise, protocol in (
        (network, "clean", TRAINED, TRAINED, "fresh"),
        (network.with_noise(None), "clean-without-noise", TRAINED, None, "none"),
        (
            tiny.tiny_trained(noise=None).with_noise(other),
            "clean-gaussian-2", None, encode(other), "fresh",
        ),
    ):  # fmt: skip
        job = tiny.tiny_evaluation(each, tmp_path)
        what = identity(job, evaluation.Clean())
        assert results.stem(job.row(evaluation.Clean())) == name
        assert what["protocol"]["noise"] == protocol
        noises = [what["network"][of] for of in ("trained_noise", "test_noise")]
        assert noises == [trained, noise]


@pytest.mark.slow
def test_noise_at_the_attack_only(tmp_path):
    """The adversarial images are those of the noisy network; the quiet one is judged."""
    noisy, quiet = tiny.tiny_trained(), tiny.tiny_trained().with_noise(None)
    condition = evaluation.Attacked(ATTACK)
    job = tiny.tiny_evaluation(quiet, tmp_path, attack_noise=tiny.CONFIG.noise)
    result = evaluation.evaluate(job, condition)
    assert result.row["attack_noise"] == "gaussian 3" and result.row["noise"] == "none"
    assert result.row["attack_draws"] == 2 and result.identity["attack_noise"] == TRAINED

    def perturbed(network, noise="same"):
        job = tiny.tiny_evaluation(network, tmp_path, attack_noise=noise)
        return condition.perturb(tiny.first_batch(job, condition))[0]

    adversarial = perturbed(quiet, tiny.CONFIG.noise)
    np.testing.assert_array_equal(adversarial, perturbed(noisy))
    assert np.abs(adversarial - perturbed(quiet)).max() > 0
    first = tiny.first_batch(job, condition)
    batch = Batch(job.protocol, first.example_keys, Partial(jnp.sum), first.images, first.labels)
    with pytest.raises(ValueError, match="needs the classifier with that noise, got none"):
        batch.classifier(tiny.CONFIG.noise)


def matched(class_names, known=("a", "b", "c"), trained_on=False):
    """The network's class for each label, of a network that knows the classes ``known``."""
    source, network = tiny.tiny_source(), tiny.tiny_trained(class_names=known)
    source.class_names = class_names
    return match_classes(network, source, trained_on)


DIGITS = tuple(map(str, range(10)))
IMAGENET = ("n01440764 tench", "n01443537 goldfish", "n02979186")
CRANES = ("crane", "maillot", "crane")  # lists of words for the classes of ImageNet have it twice


@pytest.mark.parametrize(("given", "known", "expected"), [
    (("c", "a", "b"), ("a", "b", "c"), [2, 0, 1]),
    (("b", "a"), ("a", "b", "c"), [1, 0]),
    (("a", "b", "c"), ("a", "b", "c"), None),
    # Labels without names are the network's classes.
    (("0", "1", "2"), (), None),
    (("0", "1", "2"), ("a", "b", "c"), None),
    # Folders are sorted as text, and some of them may be missing.
    (("1", "3", "7"), DIGITS, [1, 3, 7]),
    (("0", "1", "2"), ("0", "1", "10", "2"), [0, 1, 3]),
    (("bar", "caf\u00e9"), ("cafe\u0301", "bar"), [1, 0]),
    (("bar", "cafe\u0301"), ("caf\u00e9", "bar"), [1, 0]),
    (("n02979186", "n01440764_tench"), IMAGENET, [2, 0]),
    (("maillot",), CRANES, [1]),
    (CRANES, CRANES, None),
])  # fmt: skip
def test_labels_are_matched_by_class_name(given, known, expected):
    found = matched(given, known)
    assert (None if found is None else found.tolist()) == expected


@pytest.mark.parametrize(("given", "known", "message"), [
    (("n99999999", "n01440764"), IMAGENET, "does not know 'n99999999'"),
    (("crane", "goldfish", "maillot"), CRANES, "several classes of the name 'crane'"),
    (("c", "a", "b"), (), "no names; give class_names"),
    (("c", "a", "b"), ("0", "1", "2"), "no names; give class_names"),
    (("0", "1", "2", "3"), ("a", "b", "c"), "there are 4, and tiny-run has 3"),
])  # fmt: skip
def test_labels_without_a_match_are_never_scored_by_position(given, known, message):
    with pytest.raises(ValueError, match=message):
        matched(given, known)


def test_labels_of_a_training_without_names_are_the_classes_of_the_network():
    assert matched(("c", "a", "b"), (), trained_on=True) is None
    with pytest.raises(ValueError, match="there are 4, and tiny-run has 3"):
        matched(("a", "b", "c", "d"), (), trained_on=True)


@pytest.mark.slow
def test_classes_in_another_order_are_scored_as_those_of_the_network(tmp_path):
    """Labels in a result are the network's classes, and so are the names beside them."""
    known = tiny.tiny_trained(class_names=("a", "b", "c"))
    other = tiny.tiny_source(class_names=("c", "a", "b"))
    jobs = [
        tiny.tiny_evaluation(network, tmp_path / name, source=source)
        for name, network, source in (
            ("original", known, None),
            ("matched", known, other),
            ("unmatched", tiny.tiny_trained(), other),
        )
    ]
    condition = evaluation.Attacked(ATTACK)
    first, second, unmatched = (evaluation.evaluate(job, condition) for job in jobs)
    assert first.value() == second.value() != unmatched.value()
    for field, values in first.arrays.items():
        if field != "checksum":  # It has the label that the source gives.
            np.testing.assert_array_equal(second.arrays[field], values)
    names = [result.provenance["class_names"] for result in (second, unmatched)]
    assert names == [["a", "b", "c"], ["c", "a", "b"]]
    labels = [each.identity["dataset"]["labels"] for each in (first, second, unmatched)]
    assert len(set(labels)) == 3
    # Some of the classes: their images are as often right as among all.
    quiet = tiny.tiny_trained(noise=None, class_names=("a", "b", "c"))
    whole = evaluation.evaluate(tiny.tiny_evaluation(quiet, tmp_path / "whole"), evaluation.Clean())
    job = tiny.tiny_evaluation(
        quiet, tmp_path / "few", source=tiny.tiny_source(2, class_names=("b", "a"))
    )
    right = evaluation.evaluate(job, evaluation.Clean()).arrays["right"]
    np.testing.assert_array_equal(right, whole.arrays["right"][:2])
