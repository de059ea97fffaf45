"""Networks with other noise than they were trained with, and labels matched by class name."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.evaluation import tiny
from vone_jax import evaluation, models, v1
from vone_jax.attacks import PGD
from vone_jax.dataclass_json import encode
from vone_jax.evaluation.judging import Trial

ATTACK = PGD("linf", 0.05, steps=2, eot_samples=2)
TRAINED = encode(tiny.CONFIG.noise)


@pytest.mark.slow
def test_a_network_with_other_noise_says_so_in_its_results(tmp_path):
    """Other names and other identities."""
    network = tiny.tiny_trained()
    quiet = network.with_noise(None)
    added = tiny.tiny_trained(noise=None).with_noise(v1.GaussianNoise(2.0))
    assert network.with_noise(tiny.CONFIG.noise) is network
    made = [
        evaluation.evaluate(tiny.tiny_job(each, tmp_path), evaluation.Clean())
        for each in (network, quiet, added)
    ]
    assert [result.name for result in made] == ["clean", "clean-test-none", "clean-test-gaussian-2"]
    noises = [result.identity["network"] for result in made]
    assert [(each["trained_noise"], each["test_noise"]) for each in noises] == [
        (TRAINED, TRAINED), (TRAINED, None), (None, encode(v1.GaussianNoise(2.0)))
    ]  # fmt: skip
    protocols = [result.identity["protocol"]["noise"] for result in made]
    assert protocols == ["fresh", "none", "fresh"]
    # Without noise all that is left is the network itself.
    images, labels = tiny.tiny_images()
    logits_fn = models.logits_fn(models.without_noise(network.model), network.variables)
    right = np.argmax(logits_fn(jax.random.key(0), images), -1) == labels
    np.testing.assert_array_equal(made[1].arrays["right"], right[:, None])


@pytest.mark.slow
def test_noise_at_the_attack_only(tmp_path):
    """The adversarial images are those of the noisy network; the quiet one is judged."""
    noisy, quiet = tiny.tiny_trained(), tiny.tiny_trained().with_noise(None)
    condition = evaluation.Attacked(ATTACK, attack_noise=tiny.CONFIG.noise)
    job = tiny.tiny_job(quiet, tmp_path)
    result = evaluation.evaluate(job, condition)
    assert result.name == "attack-linf-0.05-attacked-gaussian-3-test-none"
    assert result.condition["attack_noise"] == TRAINED
    assert result.label == "PGD L∞ 0.05, gradients with gaussian 3"
    images, labels = (jnp.asarray(array) for array in tiny.tiny_images(4))

    def perturbed(network, condition):
        job = tiny.tiny_job(network, tmp_path)
        return condition.perturb(job.trial(np.arange(4, dtype=np.uint32), images, labels))[0]

    adversarial = perturbed(quiet, condition)
    np.testing.assert_array_equal(adversarial, perturbed(noisy, evaluation.Attacked(ATTACK)))
    assert np.abs(adversarial - perturbed(quiet, evaluation.Attacked(ATTACK))).max() > 0
    keys = job.example_keys(np.arange(4, dtype=np.uint32))
    trial = Trial(job.protocol, keys, Partial(jnp.sum), images, labels)
    with pytest.raises(ValueError, match="needs the classifier with that noise, got none"):
        trial.classifier(tiny.CONFIG.noise)


def matched(class_names, known=("a", "b", "c"), trained_on=False):
    """The network's class for each label, of a network that knows the classes ``known``."""
    source, network = tiny.tiny_source(), tiny.tiny_trained(class_names=known)
    source.class_names = class_names
    return tiny.tiny_job(network, Path(), source=source, trained_on=trained_on).classes


def test_labels_are_matched_by_class_name():
    assert matched(("c", "a", "b")).tolist() == [2, 0, 1]
    assert matched(("b", "a")).tolist() == [1, 0]
    assert matched(("a", "b", "c")) is None
    # Labels without names are the network's classes.
    assert matched(("0", "1", "2"), known=()) is None
    assert matched(("0", "1", "2")) is None


def test_labels_are_matched_in_both_forms_of_unicode():
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    assert matched(("bar", composed), known=(decomposed, "bar")).tolist() == [1, 0]
    assert matched(("bar", decomposed), known=(composed, "bar")).tolist() == [1, 0]


def test_folders_that_are_numbers_are_matched_by_name():
    """Folders are sorted as text, and some of them may be missing."""
    digits = tuple(map(str, range(10)))
    assert matched(("1", "3", "7"), known=digits).tolist() == [1, 3, 7]
    assert matched(("0", "1", "2"), known=("0", "1", "10", "2")).tolist() == [0, 1, 3]
    assert matched(digits, known=digits) is None


def test_labels_are_matched_by_wordnet_number():
    known = ("n01440764 tench", "n01443537 goldfish", "n02979186")
    assert matched(("n02979186", "n01440764_tench"), known).tolist() == [2, 0]
    with pytest.raises(ValueError, match="does not know 'n99999999'"):
        matched(("n99999999", "n01440764"), known)


def test_a_name_of_several_classes_matches_no_label():
    """Lists of words for the classes of ImageNet have "crane" twice."""
    known = ("crane", "maillot", "crane")
    assert matched(("maillot",), known).tolist() == [1]
    assert matched(known, known) is None
    with pytest.raises(ValueError, match="several classes of the name 'crane'"):
        matched(("crane", "maillot"), known)
    # It hides another class, which is then not known.
    with pytest.raises(ValueError, match="several classes of the name 'crane'"):
        matched(("crane", "goldfish", "maillot"), known)


def test_labels_without_a_match_are_never_scored_by_position():
    """Unless the network was trained on these labels, by a version that kept no names."""
    for known in ((), ("0", "1", "2")):
        assert matched(("c", "a", "b"), known=known, trained_on=True) is None
        with pytest.raises(ValueError, match="no names; give class_names"):
            matched(("c", "a", "b"), known=known)


def test_classes_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(ValueError, match="does not know 'dog'; its classes are 'a', 'b', 'c'"):
        matched(("b", "a", "dog"))
    with pytest.raises(ValueError, match="'tiny' .* there are 4, and tiny-run has 3"):
        matched(("0", "1", "2", "3"))
    source = tiny.tiny_source(class_names=("a", "b", "c", "d"))
    with pytest.raises(ValueError, match="'tiny' .* there are 4, and tiny-run has 3"):
        tiny.tiny_job(tiny.tiny_trained(), tmp_path, source=source)


def test_classes_in_another_order_are_scored_as_those_of_the_network(tmp_path):
    """Labels in a result are the network's classes, and so are the names beside them."""
    known = tiny.tiny_trained(class_names=("a", "b", "c"))
    other = tiny.tiny_source(class_names=("c", "a", "b"))
    for condition in (evaluation.Clean(), evaluation.Attacked(ATTACK)):
        first, second, unmatched = (
            evaluation.evaluate(tiny.tiny_job(network, tmp_path / name, source=source), condition)
            for name, network, source in (
                ("original", known, None),
                ("matched", known, other),
                ("unmatched", tiny.tiny_trained(), other),
            )
        )
        assert first.value() == second.value() != unmatched.value()
        for field, values in first.arrays.items():
            np.testing.assert_array_equal(second.arrays[field], values)
        names = [result.provenance["class_names"] for result in (second, unmatched)]
        assert names == [["a", "b", "c"], ["c", "a", "b"]]
        labels = [each.identity["dataset"]["labels"] for each in (first, second, unmatched)]
        assert len(set(labels)) == 3
    # Some of the classes: their images are as often right as among all.
    quiet = tiny.tiny_trained(noise=None, class_names=("a", "b", "c"))
    whole = evaluation.evaluate(tiny.tiny_job(quiet, tmp_path / "whole"), evaluation.Clean())
    job = tiny.tiny_job(quiet, tmp_path / "few", source=tiny.tiny_source(2, class_names=("b", "a")))
    right = evaluation.evaluate(job, evaluation.Clean()).arrays["right"]
    np.testing.assert_array_equal(right, whole.arrays["right"][:2])
