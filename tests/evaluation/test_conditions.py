"""Conditions beside closed forms: the smallest changes, and the strongest of several attacks."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy.stats import norm

from tests.attacks import toy
from tests.evaluation import tiny
from vone_jax import dataclass_json, evaluation, prng, results, v1
from vone_jax.attacks import APGD, FAB, FGSM, FMN, PGD, SPSA, AutoAttack, Strongest
from vone_jax.certification.measured import Certified, Discriminable
from vone_jax.evaluation.judging import Batch
from vone_jax.neurophysiology.measured import FrontEnd, Physiology
from vone_jax.perception import CriticalBands, Geometry, Metamers, Psychophysics

KEY = jax.random.key(21)
# Of the members of AutoAttack for classifiers with noise.
RAND = {"attack_draws": 20}
ONCE = evaluation.Protocol("fresh", 1)


@pytest.fixture(scope="module")
def of():
    """An evaluation, of which results read classes and noise."""
    return tiny.tiny_evaluation(tiny.tiny_trained(), "unused")


def measured(condition, logits_fn, images, labels, of, protocol=ONCE):
    """The numbers and the arrays of a condition."""
    arrays = evaluation.on_arrays(KEY, logits_fn, images, labels, condition, protocol=protocol)
    return condition.result(arrays, of), arrays


def curve(found):
    """The accuracy at each radius."""
    return {each.columns["eps"]: each.value for each in found.measured if "eps" in each.columns}


def test_a_linear_model_has_the_distances_of_the_closed_form(of):
    """The distance to the border of two classes is the margin over the norm of its slope."""
    weights = jax.random.normal(jax.random.key(3), (16, 2))
    images = jax.random.uniform(jax.random.key(4), (30, 4, 4, 1), minval=0.4, maxval=0.6)
    logits = images.reshape(30, -1) @ weights
    margin = np.asarray(logits[:, 0] - logits[:, 1])
    labels = jnp.asarray(margin < 0, jnp.int32).at[0].set(int(margin[0] > 0))
    slope = np.asarray(weights[:, 0] - weights[:, 1])
    expected = np.abs(margin) / np.linalg.norm(slope)
    expected[0] = 0.0  # misclassified as it is
    radii = (0.0, *np.quantile(expected, (0.3, 0.7)).tolist(), 1.0)
    condition = evaluation.Minimal(FMN("l2", 1.0, steps=300), radii)
    found, arrays = measured(condition, Partial(toy.linear, weights), images, labels, of)
    np.testing.assert_allclose(arrays["distance"], expected, rtol=0.02, atol=1e-4)
    assert found["share of broken images"].value == 1
    assert found["median distance"].value == pytest.approx(np.median(expected), rel=0.02)
    assert list(curve(found)) == list(radii) and not found.warnings
    accuracy = [29 / 30, 0.7, 0.3, 0.0]
    assert list(curve(found).values()) == pytest.approx(accuracy, abs=1 / 30 + 1e-6)


def test_an_image_at_its_distance_is_judged_as_it_was_found(of):
    """The images are right as they are, and wrong where the attack found them."""
    condition, right = evaluation.Minimal(FMN("l2", 1.0), (0.25, 0.5)), np.ones((2, 1), bool)
    arrays = {"right": ~right, "right clean": right, "distance": np.array([0.5, np.inf])}
    arrays |= {"loss": np.zeros(2), "loss clean": np.zeros(2), "index": np.arange(2)}
    assert list(curve(condition.result(arrays, of)).values()) == [1.0, 0.5]
    # Images that cannot be fooled are infinitely far, which JSON cannot hold.
    found = condition.result(arrays | {"distance": np.full(2, np.inf)}, of)
    assert found["share of broken images"].value == 0
    assert found["median distance"].row() == {"number": "median distance"}
    assert list(curve(found).values()) == [1.0, 1.0] and found.warnings


def test_a_search_by_single_draws_of_noise_is_warned_of(of):
    wrong = np.zeros((2, 3), bool)
    arrays = {"right": wrong, "right clean": ~wrong, "distance": np.full(2, 0.1)}
    for draws, noisy, warned in ((1, False, 0), (1, True, 1), (10, True, 0)):
        condition = evaluation.Minimal(FMN("l2", 1.0, eot_samples=draws), (0.25,))
        differ = wrong | (noisy & (np.arange(3) == 0))
        found = condition.result(arrays | {"right": differ}, of)
        assert len(found.warnings) == warned and all("single" in each for each in found.warnings)


def _noisy_linear(weights, keys, images):
    """A linear model that sees Gaussian noise of a standard deviation of 0.05."""
    noise = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)
    return toy.linear(weights, keys, images + 0.05 * noise)


def test_a_noisy_linear_model_has_the_accuracies_of_the_closed_form(of):
    """The margin at a radius is normal: its mean falls by the radius times the slope's norm."""
    weights = jax.random.normal(jax.random.key(3), (16, 2))
    images = jax.random.uniform(jax.random.key(4), (40, 4, 4, 1), minval=0.4, maxval=0.6)
    logits = images.reshape(40, -1) @ weights
    slope = np.linalg.norm(weights[:, 0] - weights[:, 1])
    distance = np.abs(np.asarray(logits[:, 0] - logits[:, 1])) / slope
    labels = jnp.argmax(logits, axis=1).astype(jnp.int32)
    radii = (0.0, *np.quantile(distance, (0.3, 0.7)).tolist(), 0.3)
    expected = [norm.cdf((distance - radius) / 0.05).mean() for radius in radii]
    assert expected[-1] < 0.01
    condition = evaluation.Minimal(FMN("l2", 1.0, steps=300, eot_samples=10), radii, moved=True)
    classifier, protocol = Partial(_noisy_linear, weights), evaluation.Protocol("fresh", 100)
    found, arrays = measured(condition, classifier, images, labels, of, protocol)
    assert list(curve(found).values()) == pytest.approx(expected, abs=0.03)
    assert arrays["right at radii"].shape == (40, 4, 100)
    # Images that are judged where they were found are right in many draws, whatever the radius.
    where_found = np.where(arrays["distance"][:, None] <= 0.3, arrays["right"], 1)
    assert where_found.mean() > 0.2


def test_moved_images_stay_within_the_pixels_and_wrong_ones_where_they_are(of):
    """The first is wrong as it is, and the second is moved against the border of the box."""
    weights = jnp.asarray([[1.0, -1.0], [-0.5, 0.5]])
    images = jnp.asarray([[0.4, 0.0], [0.6, 1.0]]).reshape(2, 1, 2, 1)
    labels = jnp.asarray([1, 0], jnp.int32)
    shown = []

    class Watched(Batch):
        def judge(self, images, purpose="judge"):
            shown.append(images)
            return super().judge(images, purpose)

    keys = prng.example_keys(KEY, 2)
    trial = Watched(ONCE, keys, Partial(toy.linear, weights), images, labels)
    condition = evaluation.Minimal(FMN("l2", 1.0, steps=100), (0.05, 10.0), moved=True)
    arrays = condition.make(trial)
    found = condition.result({"index": np.arange(2)} | jax.tree.map(np.asarray, arrays), of)
    assert list(curve(found).values()) == [0.5, 0.0]
    assert arrays["distance"][0] == 0 and jnp.array_equal(shown[-1][0], images[0])
    assert 0 <= jnp.min(shown[-1]) and jnp.max(shown[-1]) <= 1


def test_attacks_from_random_points_say_where_there_is_no_gradient(of):
    weights = jax.random.normal(jax.random.key(3), (64, 4))
    images = jax.random.uniform(jax.random.key(4), (4, 8, 8, 1))
    labels = jnp.argmax(toy.linear(weights, KEY, images), axis=-1).astype(jnp.int32)

    def half(weights, keys, images):
        """Without a gradient where the first pixel is bright."""
        seen = jnp.where(images[:, :1, :1] > 0.5, jax.lax.stop_gradient(images), images)
        return toy.linear(weights, keys, seen)

    images = images.at[:, 0, 0, 0].set(jnp.array([0.2, 0.8, 0.1, 0.9]))
    strongest = Strongest((APGD("linf", 0.01, steps=2),))
    # PGD begins at the image, so its distance says it.
    pgd = PGD("linf", 0.01, 2)
    started = dataclasses.replace(pgd, random_start=True)
    conditions = [evaluation.Attacked(attack) for attack in (pgd, strongest, started)]
    for condition in (*conditions, evaluation.Attacked(Strongest((pgd, started)))):
        _, arrays = measured(condition, Partial(half, weights), images, labels, of)
        told = None if condition is conditions[0] else [False, True, False, True]
        assert (arrays["flat"].tolist() if "flat" in arrays else None) == told


def test_noise_that_hides_the_gradient_in_some_draws_alone_is_not_flat(of):
    weights = jax.random.normal(jax.random.key(3), (64, 4))
    images = jax.random.uniform(jax.random.key(4), (8, 8, 8, 1))

    def sometimes(weights, keys, images):
        hidden = jax.vmap(jax.random.bernoulli)(keys)[:, None, None, None]
        seen = jnp.where(hidden, jax.lax.stop_gradient(images), images)
        return toy.linear(weights, keys, seen)

    labels = jnp.argmax(toy.linear(weights, KEY, images), axis=-1).astype(jnp.int32)
    for draws, some in ((1, True), (20, False)):
        attack = evaluation.Attacked(APGD("linf", 0.01, steps=2, eot_samples=draws))
        _, arrays = measured(attack, Partial(sometimes, weights), images, labels, of)
        assert arrays["flat"].any() == some


def random_start(**fields):
    return PGD("linf", 0.1, 3, random_start=True, **fields)


def stored():
    """The arrays of an attack on four images that the network has right in both draws."""
    checks = {"lowest": -1.0, "highest": 1.0, "sum error": 1.0, "spread": 1.0}
    checks |= {"gradient cross_entropy": 1.0, "gradient margin": 1.0}
    arrays = {f"check {name}": np.full(4, value) for name, value in checks.items()}
    arrays |= {"loss": np.ones(4), "distance": np.full(4, 0.1), "winner": np.array([0, 1, 1, 2])}
    return arrays | {"right": np.ones((4, 2), bool)}


STILL = {"distance": np.zeros(4)}
DIFFER = {"right": np.array([[True, False]] * 4)}
FLAT, STEEP = {"flat": np.ones(4) > 0}, {"flat": np.zeros(4) > 0}


@pytest.mark.parametrize(
    ("attack", "changed", "told"),
    [
        (PGD("linf", 0.1, 3), STILL, "On 100% of the images"),
        (PGD("linf", 0.1, 3), {"loss": np.zeros(4)}, "On 100% of the images"),
        (PGD("linf", 0.1, 3, loss="margin"), {"loss": np.zeros(4)}, None),
        (random_start(), STILL | FLAT, "On 100% of the images"),
        (random_start(), STILL | STEEP, None),
        # Nothing to find, nothing allowed, and an attack that returns what it cannot fool.
        (PGD("linf", 0.1, 3), STILL | {"right": np.zeros((4, 2)) > 0}, None),
        (PGD("linf", 0.0, 3), STILL, None),
        (FMN("linf", 0.1), STILL, None),
        (evaluation.vonenet_pgd("linf", 0.05, steps=2), {}, "reach 6% of its radius"),
        (evaluation.vonenet_pgd("linf", 0.05, steps=32), {}, None),
        (random_start(step_size=0.001), {}, None),
        # Weak by their nature; of several attacks the strongest counts.
        (SPSA("linf", 0.1), {}, "takes no gradients"),
        (FGSM("l1", 0.1), {}, "weak in L1"),
        (Strongest((FGSM("l1", 0.1), PGD("l1", 0.1, 3))), {}, "weak in L1"),
        (Strongest((FGSM("l1", 0.1), APGD("l1", 0.1))), {}, None),
        # Draws that differ.
        (FMN("linf", 0.1, eot_samples=2), DIFFER, "smallest change"),
        (APGD("linf", 0.1, loss="dlr", eot_samples=2), DIFFER, "is weak on a network with noise"),
    ],
)
def test_attacks_that_say_little_have_a_warning(attack, changed, told, of):
    warnings = evaluation.Attacked(attack).result(stored() | changed, of).warnings
    assert [told in warning for warning in warnings] == ([True] if told else [])


def test_the_result_names_the_attack_that_won(of):
    network = Partial(toy.noisy_network, toy.make_network(0.0), jnp.float32(0.0))
    images = jax.random.uniform(jax.random.key(3), (4, 8, 8, 1))
    labels = jnp.argmax(network(KEY, images), axis=-1).astype(jnp.int32)
    # The second does nothing, as the image itself; the first raises the loss.
    weak = PGD("linf", 0.02, steps=1, step_size=0.0)
    condition = evaluation.Attacked(Strongest((weak, PGD("linf", 0.02, steps=2))))
    found, arrays = measured(condition, network, images, labels, of)
    assert [each["images"] for each in found.details["won"]] == [0, 4, 0]
    told = [each["attack"] for each in found.details["won"]]
    assert told == [*condition.identity()["attack"]["attacks"], "the image itself"]
    assert set(arrays["winner"]) == {1}
    expected = {"attack": "strongest of PGD", "norm": "linf", "eps": 0.02, "attack_draws": 1}
    assert condition.row() == {"condition": "attack", **expected}
    assert condition.label == "strongest of PGD L∞ 0.02"


def test_attacks_with_equal_losses_of_a_user_are_named_alike(of):
    def with_loss():
        def margin(logits, labels):
            return -jnp.take_along_axis(logits, labels[:, None], axis=1)[:, 0]

        return Strongest((PGD("linf", 0.02), PGD("linf", 0.02, loss=margin)))

    first, second = (evaluation.Attacked(with_loss()).result(stored(), of) for _ in range(2))
    assert first.details == second.details == json.loads(json.dumps(first.details))
    assert [each["images"] for each in first.details["won"]] == [1, 2, 1]


def test_the_strongest_is_no_minimum_of_noisy_estimates(of):
    """Equal attacks on a coin: the lowest of their accuracies is far below the truth."""

    def coin(keys, images):
        sides = jax.vmap(jax.random.bernoulli)(keys).astype(images.dtype)
        return (
            jnp.stack([2 * sides, 1 - sides], axis=1) + 0 * images.reshape(len(images), -1)[:, :2]
        )

    images, labels = jnp.full((400, 2, 2, 1), 0.5), jnp.zeros(400, jnp.int32)
    attacks = tuple(PGD("linf", 0.02, steps=1, step_size=size) for size in (0.0, 0.01, 0.02))
    condition = evaluation.Attacked(Strongest(attacks, choice_draws=3))
    found, _ = measured(condition, coin, images, labels, of, evaluation.Protocol("fresh", 3))
    entry = found["accuracy"].interval
    assert entry.low <= 0.5 <= entry.high and entry.high - entry.low < 0.1


def test_conditions_that_do_not_fit_a_network_are_refused():
    few = types.SimpleNamespace(name="net", num_classes=2, image_shape=(4, 4, 1))
    one = types.SimpleNamespace(name="net", num_classes=1, image_shape=(4, 4, 1))
    for condition, network, message in (
        (evaluation.Clean(), one, "at least 2 classes"),
        (evaluation.Attacked(PGD("l2", 4.1)), few, "eps must be at most 4 in norm l2"),
        (evaluation.Attacked(APGD("linf", 0.1, loss="dlr")), few, "at least 3 classes"),
        (evaluation.Corrupted("defocus_blur", 3), few, "defocus_blur needs images"),
    ):
        with pytest.raises(ValueError, match=message):
            condition.check(network)
    evaluation.Attacked(PGD("l2", 4.0)).check(few)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Certified((8.0,), norm="linf"),
        lambda: evaluation.Minimal(FAB("linf", 0.1), (8.0,)),
        lambda: Geometry("logits", "fgsm", 8.0),
    ],
)
def test_radii_in_levels_of_grey_are_told_apart(make):
    with pytest.raises(ValueError, match="did you mean 8/255"):
        make()


@pytest.mark.parametrize("make", [
    lambda **fields: evaluation.Attacked(PGD("linf", **fields)),
    lambda **fields: evaluation.Minimal(FMN("linf", **fields), (0.1,)),
    lambda **fields: Certified((0.1,), "linf", attacks=(PGD("linf", **fields),)),
])  # fmt: skip
def test_an_attack_of_an_evaluation_has_one_radius_and_no_targets(make):
    with pytest.raises(ValueError, match=r"one number as eps in an evaluation.*shape \(2,\)"):
        make(eps=np.array([0.1, 0.2]))
    with pytest.raises(ValueError, match="untargeted"):
        make(eps=0.1, targeted=True)


def test_conditions_are_stored_as_they_print():
    """And read again, by the codec of the house."""
    for condition in (
        evaluation.Clean(),
        evaluation.Attacked(PGD("linf", 4 / 255, 8), variant="short"),
        evaluation.Attacked(Strongest((PGD("l2", 1.0), APGD("l2", 1.0)))),
        evaluation.Corrupted("fog", 3, "uint8"),
        evaluation.Minimal(FMN("linf", 1.0), (0.1, 0.2), True),
        evaluation.Masking("linf", 0.1, True),
        FrontEnd(),
        Physiology("v1", trials=2),
        Psychophysics("phase_noise"),
        Geometry("v1", "corruption", corruption="fog", severity=2),
        Metamers("v1", rounds=3),
        Certified((0.1, 0.2), draws=300, contrast=0.5),
        Discriminable(v1.VOneBlockConfig(noise=v1.GaussianNoise(1.0)), (1.0, 2.0)),
    ):
        stored = json.loads(json.dumps(condition.identity()))
        stored.pop("files", None)
        assert stored["type"] == type(condition).__name__
        assert dataclass_json.decode(evaluation.Condition, stored, "condition") == condition


def certified(eps=0.1, steps=10, wrap=lambda attack: attack):
    return Certified((eps,), attacks=(wrap(PGD("l2", eps, steps=steps)),))


def strongest(attack):
    return Strongest((attack,))


OBSERVERS = [v1.VOneBlockConfig(noise=v1.GaussianNoise(scale)) for scale in (1.0, 2.0)]
LEVELS = tuple(np.linspace(0.1, 1.0, 100).tolist())
PAIRS = [
    (Certified((0.1,)), Certified((0.1,), draws=300)),
    (Certified((0.1,)), Certified((0.1,), steps=20)),
    (Certified((0.1,)), Certified((0.1,), local=True)),
    (certified(), certified(steps=20)),
    (certified(wrap=strongest), certified(steps=20, wrap=strongest)),
    (evaluation.FourierMap(4.0), evaluation.FourierMap(4.0, size=15)),
    (Metamers("v1"), Metamers("v1", steps=3000)),
    (Metamers("v1"), Metamers("v1", null_images=20)),
    (Geometry("v1"), Geometry("v1", points=20)),
    (Psychophysics("contrast"), Psychophysics("contrast", levels=(0.5, 0.25))),
    (Psychophysics("contrast"), Psychophysics("contrast", levels=LEVELS)),
    (CriticalBands(), CriticalBands(deviations=(0.02, 0.5))),
    (evaluation.Masking("linf", 0.1, True), evaluation.Masking("linf", 0.1, True, queries=200)),
    (Physiology("v1"), Physiology("v1", trials=20)),
    tuple(Discriminable(observer, (1.0,)) for observer in OBSERVERS),
    (evaluation.Attacked(PGD("l2", 0.1)), evaluation.Attacked(PGD("l2", 0.1, loss="margin"))),
    (evaluation.Attacked(PGD("l2", 0.1)), evaluation.Attacked(PGD("l2", 0.1, momentum=1.0))),
]


@pytest.mark.parametrize(("one", "two"), PAIRS, ids=[type(one).__name__ for one, _ in PAIRS])
def test_two_settings_are_two_rows(one, two):
    """They were one line of the page, and one file."""
    network = {"network": "net", "number": "accuracy", "seed": 0}
    rows = [json.loads(json.dumps(network | each.row())) for each in (one, two)]
    assert not results.same_condition(*rows)
    assert results.condition_key(rows[0]) != results.condition_key(rows[1])
    assert results.label(rows[0]) != results.label(rows[1])
    stems = list(map(results.stem, rows))
    # The longest name of a file that file systems take is 255 bytes.
    assert stems[0] != stems[1] and max(map(len, stems)) < 150


@pytest.mark.parametrize(("condition", "columns"), [
    (Certified((0.1, 0.2), "linf"), {"condition", "norm"}),
    (evaluation.FourierMap(2.0), {"condition", "norm", "eps"}),
    (Metamers("v1"), {"condition", "layer"}),
    (Geometry("v1", "fgsm", 0.1), {"condition", "norm", "eps", "layer", "manifold"}),
    (CriticalBands(), {"condition"}),
    (evaluation.Masking("linf", 0.1, True), {"condition", "norm", "eps"}),
])  # fmt: skip
def test_usual_settings_are_not_named(condition, columns):
    assert condition.row().keys() == columns


def test_a_copy_with_other_settings_has_their_attacks():
    """A certificate makes its attacks of its fields, unless they were given."""
    first = Certified((0.1,))
    for changed in (dict(steps=20), dict(radii=(0.2, 0.3)), dict(norm="linf")):
        again = Certified(**{"radii": (0.1,)} | changed)
        copied = dataclasses.replace(first, **changed)
        assert copied == again and copied.row() == again.row()
    # The radii are those of the numbers, so they are not named with the attacks.
    assert certified(0.1).row() == certified(0.2).row()
    assert dataclasses.replace(certified(), draws=300).attacks == certified().attacks


def test_attacks_in_words():
    """A composed attack has its norm and radius, and what is beyond the columns a variant."""
    pgd, apgd = PGD("l2", 0.5, steps=7, eot_samples=3), APGD("l2", 0.5, eot_samples=2)
    for attack, variant, expected in (
        (pgd, "", {"attack": "PGD", "steps": 7, "attack_draws": 3}),
        (pgd, "eps-4", {"attack": "PGD eps-4", "steps": 7, "attack_draws": 3}),
        (Strongest((pgd, apgd, pgd)), "", {"attack": "strongest of PGD, APGD", "attack_draws": 2}),
        (AutoAttack("l2", 0.5, version="rand"), "", {"attack": "AutoAttack rand"} | RAND),
        (AutoAttack("l2", 0.5), "", {"attack": "AutoAttack", "attack_draws": 1}),
    ):
        row = evaluation.Attacked(attack, variant=variant).row()
        assert row == {"condition": "attack", "norm": "l2", "eps": 0.5} | expected


def test_a_number_that_is_not_finite_has_no_value():
    number = evaluation.number
    assert number("r", float("nan")).row() == number("r").row() == {"number": "r"}
    whole = results.Interval(0.5, 0.4, float("inf"))
    expected = {"number": "r", "eps": 1.0, "value": 0.5, "low": 0.4}
    assert number("r", whole, eps=np.float32(1.0)).row() == expected
