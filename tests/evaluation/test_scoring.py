"""Accuracy on arrays: the coin, closed forms, and relations between runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import toy
from vone_jax import attacks, data, evaluation, prng
from vone_jax.attacks import FGSM, PGD, Square
from vone_jax.evaluation import scoring
from vone_jax.network import Network

KEY = jax.random.key(21)
ATTACK = PGD("linf", 0.05, steps=3, eot_samples=2)


@pytest.fixture(scope="module")
def batch():
    images = jax.random.uniform(jax.random.key(1), (9, 8, 8, 1))
    return images, jnp.arange(9, dtype=jnp.int32) % 4


@pytest.fixture(scope="module")
def noisy():
    return Partial(toy.noisy_network, toy.make_network(2.0), jnp.float32(2.0))


def test_a_linear_model_loses_what_the_closed_form_says():
    weights = jax.random.normal(jax.random.key(3), (16, 2))
    images = jax.random.uniform(jax.random.key(4), (200, 4, 4, 1), minval=0.3, maxval=0.7)
    logits_fn = Partial(toy.linear, weights)
    margin = np.asarray(logits_fn(KEY, images) @ jnp.asarray([1.0, -1.0]))
    labels = jnp.asarray(margin < 0, jnp.int32)
    for eps in (0.0, 0.02, 0.1):
        attack = evaluation.vonenet_pgd("linf", eps, steps=4, step_rule="eps/4", eot_samples=1)
        result = evaluation.robust_accuracy(KEY, logits_fn, images, labels, attack=attack, draws=1)
        cost = eps * float(jnp.abs(weights[:, 0] - weights[:, 1]).sum())
        expected = np.mean(np.abs(margin) > cost)
        assert result.accuracy == pytest.approx(expected, abs=0.006)
        np.testing.assert_allclose(result.distance, eps, atol=1e-6)
        assert result.interval[0] <= result.accuracy <= result.interval[1]


def test_zero_radius_equals_clean(batch, noisy):
    images, labels = batch
    clean = evaluation.accuracy(KEY, noisy, images, labels, draws=4)
    attack = PGD("linf", 0.0, steps=3, eot_samples=2)
    robust = evaluation.robust_accuracy(KEY, noisy, images, labels, attack=attack, draws=4)
    np.testing.assert_array_equal(clean.per_example, robust.per_example)
    np.testing.assert_allclose(clean.loss, robust.loss, rtol=1e-6)
    assert 0 < clean.accuracy < 1 and not set(clean.per_example) <= {0.0, 1.0}
    assert clean.distance is None


@pytest.mark.slow
def test_batches_and_order_change_nothing(batch, noisy):
    images, labels = batch
    whole = evaluation.robust_accuracy(KEY, noisy, images, labels, attack=ATTACK, draws=4)
    parts = evaluation.robust_accuracy(
        KEY, noisy, images, labels, attack=ATTACK, draws=4, batch_size=4
    )
    np.testing.assert_array_equal(whole.per_example, parts.per_example)
    np.testing.assert_allclose(whole.loss, parts.loss, rtol=1e-5)
    order = np.random.default_rng(0).permutation(9)
    keys = prng.example_keys(KEY, 9)[order]
    permuted = evaluation.robust_accuracy(
        keys, noisy, images[order], labels[order], attack=ATTACK, draws=4
    )
    np.testing.assert_array_equal(permuted.per_example, whole.per_example[order])


def test_many_draws_converge_and_are_shared_between_calls(batch, noisy):
    images, labels = batch
    few = evaluation.accuracy(KEY, noisy, images, labels, draws=4)
    many = evaluation.accuracy(KEY, noisy, images, labels, draws=23)
    assert many.right.shape == (9, 23) and np.allclose(many.per_example * 23 % 1, 0, atol=1e-9)
    assert np.abs(few.per_example - many.per_example).mean() < 0.35
    alone = [
        np.argmax(noisy(prng.fold(prng.stream(prng.example_keys(KEY, 9), "judge"), r), images), -1)
        for r in range(4)
    ]
    right = np.stack(alone) == np.asarray(labels)
    np.testing.assert_array_equal(few.per_example, np.mean(right, axis=0))


def test_among_many_classes_the_label_may_be_among_the_first_five(batch):
    images, _ = batch
    order = jnp.flip(jnp.arange(12.0))

    def ranked(keys, images):
        return jnp.broadcast_to(order, (len(images), 12))

    found = evaluation.accuracy(KEY, ranked, images, jnp.arange(9, dtype=jnp.int32))
    assert (found.accuracy, found.top_5) == (1 / 9, 5 / 9)
    few = Partial(toy.linear, jnp.ones((64, 4)))
    assert evaluation.accuracy(KEY, few, images, jnp.zeros(9, jnp.int32)).top_5 is None


@pytest.mark.filterwarnings("ignore:The attack takes no gradients")
def test_frozen_noise_stays_with_its_image_in_every_attack(batch, noisy):
    """An ensemble leaves images out, and its members are as strong as alone, in any batch."""
    images, labels = batch
    pgd = PGD("linf", 0.2, steps=5)
    members = (attacks.RandomNoise("linf", 0.2), pgd)
    several = attacks.Strongest(members)

    def right(attack, **options):
        found = evaluation.robust_accuracy(
            KEY, noisy, images, labels, attack=attack, noise="frozen", **options
        )
        return found.per_example

    alone, whole = right(pgd), right(several)
    assert 0 < whole.sum() < right(members[0]).sum()
    assert np.all(whole <= alone)
    np.testing.assert_array_equal(right(several, batch_size=4), whole)


def test_a_surrogate_is_attacked_and_the_classifier_judged(batch, noisy):
    images, labels = batch
    blind = Partial(toy.linear, jnp.zeros((64, 4)))
    result = evaluation.robust_accuracy(
        KEY, noisy, images, labels, attack=ATTACK, draws=4, surrogate=blind
    )
    # A surrogate without gradients leaves the images alone.
    clean = evaluation.accuracy(KEY, noisy, images, labels, draws=4)
    np.testing.assert_array_equal(result.distance, 0)
    np.testing.assert_array_equal(result.per_example, clean.per_example)


def test_an_attack_that_cannot_work_is_warned_of(batch, noisy):
    """Probabilities in place of logits have flat losses, and one draw is one of many networks."""
    images, labels = batch

    def probabilities(keys, images):
        return jax.nn.softmax(toy.linear(jnp.eye(64, 4), keys, images))

    with pytest.warns(UserWarning, match="logits_fn returns probabilities"):
        evaluation.robust_accuracy(KEY, probabilities, images, labels, attack=FGSM("linf", 0.1))
    single = PGD("linf", 0.05, steps=3)
    with pytest.warns(UserWarning, match="a single noise draw"):
        evaluation.robust_accuracy(KEY, noisy, images, labels, attack=single)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(), "needs norm and eps, or attack"),
        (dict(attack=ATTACK, eps=0.1), "norm, eps must not be"),
        (dict(attack="pgd"), "attack must be an attack, or a function"),
        (dict(attack=ATTACK, decision="vote:1"), "averaged must be"),
        (dict(attack=ATTACK, attack_noise="none"), "attack_noise must be one of same"),
        (dict(attack=ATTACK, noise="none"), "noise must be one of fresh, frozen"),
        (dict(attack=FGSM("linf", jnp.array([0.1, 0.2]))), "attack must have one number as eps"),
        (dict(attack=ATTACK, surrogate=len, attack_noise="frozen"), "one of same; got"),
        (dict(attack=PGD("linf", 0.1, targeted=True)), "must be untargeted"),
        (dict(norm="linf", eps=0.1, batch_size=0), "batch_size"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(batch, fields, message):
    logits_fn = Partial(toy.linear, jnp.ones((64, 4)))
    with pytest.raises(ValueError, match=message):
        evaluation.robust_accuracy(KEY, logits_fn, *batch, **fields)


def test_accuracy_is_no_function_to_compile(batch):
    logits_fn = Partial(toy.linear, jnp.ones((64, 4)))
    with pytest.raises(TypeError, match="traced array"):
        jax.jit(lambda images: evaluation.accuracy(KEY, logits_fn, images, batch[1]))(batch[0])


def test_logits_that_are_not_finite_raise(batch):
    images, labels = batch
    third = images[3, :1, 0, 0]

    def broken(key, images):
        logits = images.reshape(images.shape[0], -1)[:, :4]
        return jnp.where(images[:, :1, 0, 0] == third[None], jnp.nan, logits)

    with pytest.raises(FloatingPointError, match=r"examples \[3\]"):
        evaluation.accuracy(KEY, broken, images, labels, draws=1)
    attacked = dict(attack=FGSM("linf", 0.0), draws=1, batch_size=2)
    with pytest.raises(FloatingPointError, match=r"positions \[1\].* begins at example 2"):
        evaluation.robust_accuracy(KEY, broken, images, labels, **attacked)


@pytest.mark.filterwarnings("ignore:The attack takes no gradients")
def test_the_same_where_64_bits_are_enabled(batch):
    """Also without the promotion of types, as in all tests."""
    weights = jax.random.normal(jax.random.key(2), (64, 4))
    given = KEY, Partial(toy.linear, weights), *batch
    attack = Square("l2", 0.5, queries=5)
    expected = evaluation.robust_accuracy(*given, attack=attack, draws=1)
    with jax.enable_x64(True):
        measured = evaluation.robust_accuracy(*given, attack=attack, draws=1)
    np.testing.assert_array_equal(measured.per_example, expected.per_example)
    np.testing.assert_allclose(measured.loss, expected.loss, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:The network is stochastic")
def test_the_strongest_attack_that_fits_is_the_default(batch, noisy, monkeypatch):
    """It averages over draws where the classifier that it sees has noise."""
    made = []

    def short(norm, eps, draws):
        made.append(evaluation.worst_case(norm, eps, draws))
        return FGSM(norm, eps)

    monkeypatch.setattr(scoring, "worst_case", short)
    quiet = Partial(toy.linear, jax.random.normal(jax.random.key(2), (64, 4)))
    for logits_fn, fields, draws in (
        (noisy, {}, 10),
        (quiet, {}, 1),
        (noisy, {"surrogate": quiet}, 1),
        (noisy, {"noise": "frozen"}, 1),
    ):
        found = evaluation.robust_accuracy(KEY, logits_fn, *batch, "l2", 0.5, **fields)
        assert found.attack == FGSM("l2", 0.5)
        several = made[-1].attacks
        assert [each.eot_samples for each in several] == [draws] * 4
        assert [each.loss for each in several] == ["cross_entropy", "margin"] * 2
        assert (several[0].norm, several[0].eps) == ("l2", 0.5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:logits_fn returns probabilities")
def test_a_network_is_benchmarked_in_one_call(tmp_path, monkeypatch):
    """It goes on from few images to more, and says whether gradients are masked."""
    monkeypatch.setattr(scoring, "worst_case", lambda *given: PGD(*given[:2], steps=2))
    weights = jax.random.normal(jax.random.key(2), (28 * 28, 10))

    def logits_fn(keys, images):
        return images.reshape(len(images), -1) @ weights

    def probabilities(keys, images):
        return jax.nn.softmax(logits_fn(keys, images))

    names = data.load("fashion_mnist_small", "test").class_names
    for function, masking in ((logits_fn, "pass"), (probabilities, "fail")):
        network = Network("linear", function, (28, 28, 1), names)
        found = []
        for examples in (20, 100):
            counted = []
            found.append(
                evaluation.benchmark(
                    network, eps=0.1, examples=examples, source="fashion_mnist_small",
                    directory=tmp_path / masking,
                    progress=lambda *each, to=counted: to.append(each),
                )
            )  # fmt: skip
            first = [count for count, known in counted if known]
            assert first == [0 if examples == 20 else 20] * 2
        whole = found[-1]
        assert whole.examples == 100 and whole.masking == masking
        assert whole.robust.value <= whole.clean.value and whole.clean.low < whole.clean.high
        assert whole.attack == "PGD L∞ 0.1, 2 steps"


def test_the_authors_attack():
    authors = PGD("l2", 0.15, steps=64, step_rule="eps/32", eot_samples=10)
    assert evaluation.vonenet_pgd("l2", 0.15) == authors
