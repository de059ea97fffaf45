"""The checks for masked gradients: an honest network passes, masked ones fail, each in its way."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import toy
from tests.evaluation import tiny
from vone_jax import answer_key, evaluation
from vone_jax.evaluation import masking_checks

KEY = jax.random.key(5)
EPS = 0.02


def honest(weights, key, images):
    """Twelve classes, linear in the image: every attack finds what is there."""
    return toy.linear(weights, key, images)


def saturated(weights, key, images):
    """The same decisions from huge logits: in float32 the cross-entropy has no gradient."""
    return 1e4 * toy.linear(weights, key, images)


def detour(weights, key, images):
    """Honest decisions, but the backward pass runs into the opposite direction."""
    logits = toy.linear(weights, key, images)
    return 2 * jax.lax.stop_gradient(logits) - logits


def probabilities(weights, key, images):
    return jax.nn.softmax(10 * toy.linear(weights, key, images))


@pytest.fixture(scope="module")
def batch():
    weights = jax.random.normal(jax.random.key(3), (64, 12))
    images = jax.random.uniform(jax.random.key(4), (40, 8, 8, 1), minval=0.2, maxval=0.8)
    labels = jnp.argmax(toy.linear(weights, KEY, images), axis=-1).astype(jnp.int32)
    return weights, images, labels


SMALL = dict(steps=8, queries=100, restarts=2, eot_samples=2)


def examine(logits_fn, batch, stochastic=False, draws=1, **given):
    condition = evaluation.Masking("linf", EPS, stochastic, **SMALL)
    given |= {"protocol": evaluation.Protocol("fresh", draws)}
    checks = condition.checks(evaluation.on_arrays(KEY, logits_fn, *batch[1:], condition, **given))
    assert len({check.name for check in checks}) == len(checks)
    for check in checks:
        json.dumps(dataclasses.asdict(check), allow_nan=False)
        assert check.question.endswith("?") and check.meaning.endswith(".") and check.numbers
    return {check.name: check for check in checks}


def verdicts(checks, verdict):
    return {name for name, check in checks.items() if check.verdict == verdict}


@pytest.mark.slow
def test_an_honest_network_passes(batch):
    found = examine(Partial(honest, batch[0]), batch)
    assert verdicts(found, "pass") == set(found), found
    assert len(found) == 14
    parts = examine(Partial(honest, batch[0]), batch, batch_size=15)
    assert parts["radius"].numbers == found["radius"].numbers and set(parts) == set(found)
    numbers = found["radius"].numbers
    assert numbers["accuracy, clean"] == 1 > numbers["accuracy, eps"] > numbers["accuracy, 4 eps"]
    assert found["unbounded"].numbers["accuracy at eps = 1"] == 0


@pytest.mark.slow  # The quick code of the default tests has no exponential that is 0.
@pytest.mark.parametrize(
    ("network", "verdicts"),
    [
        (saturated, dict(gradients="fail", unbounded="fail", other_loss="fail", black_box="fail")),
        (detour, dict(gradients="pass", unbounded="fail", loss="fail", black_box="fail")),
        (probabilities, dict(logits="fail")),
    ],
)
def test_masked_gradients_fail_each_in_its_way(batch, network, verdicts):
    found = examine(Partial(network, batch[0]), batch)
    assert verdicts.items() <= {name: check.verdict for name, check in found.items()}.items()
    if network is saturated:
        assert found["gradients"].numbers["share zero, margin loss"] == 0


@pytest.mark.slow
def test_networks_whose_answer_is_known_get_the_verdicts_that_they_deserve():
    """Noise that hides nothing passes; a mean in steps, which no attack can climb, fails."""

    def judged(problem, **given):
        quiet = lambda keys, images: (images.reshape(len(images), -1) - 0.5) @ weights  # noqa: E731
        weights = problem.logits_fn.args[0].T
        if weights.shape[1] == 1:
            quiet = lambda keys, images: jnp.zeros((len(images), 2))  # noqa: E731
        batch = None, problem.images, problem.labels
        return examine(problem.logits_fn, batch, draws=4, surrogate=quiet, **given)

    honest = answer_key.linear_classes(classes=12, examples=40, shape=(8, 8))
    found = judged(honest, stochastic=True)
    assert not verdicts(found, "fail"), found
    assert {"draws", "equal_cost", "noise_off"} <= set(found)
    assert found["randomness"].numbers["random"]
    # Taken for deterministic it is found out.
    assert judged(honest)["randomness"].verdict == "fail"
    # The truth is 24 points below what all attacks leave.
    stepped = judged(answer_key.quantised(examples=40, shape=(8, 8)), stochastic=True)
    assert {"gradients", "unbounded", "loss"} <= verdicts(stepped, "fail")
    assert stepped["random_noise"].verdict == "warning"


@pytest.mark.slow
def test_noise_that_masks_gradients_fails(batch):
    """Gradients come from a draw of an unrelated network; without noise they are honest."""

    def masked(weights, key, images):
        logits = toy.linear(weights, key, images)
        other = jax.vmap(lambda key: jax.random.normal(key, weights.shape))(key)
        flat = images.reshape(images.shape[0], -1)
        misleading = jnp.einsum("nd,ndc->nc", flat, other) / 8
        random = jax.vmap(lambda key: jax.random.normal(key, (12,)))(jax.random.wrap_key_data(
            jax.random.key_data(key) ^ jnp.uint32(1)
        ))  # fmt: skip
        visible = jax.lax.stop_gradient(logits + 0.01 * random)
        return visible + misleading - jax.lax.stop_gradient(misleading)

    quiet = Partial(honest, batch[0])
    found = examine(
        Partial(masked, batch[0]), batch, stochastic=True, draws=4, surrogate=quiet,
        others={"other": quiet},
    )  # fmt: skip
    assert {"noise_off", "transfer", "black_box"} <= verdicts(found, "fail")


def test_attacks_differ_in_what_their_names_say():
    """Steps keep their share of the radius, or their length where only their number differs."""
    condition = evaluation.Masking("l2", 0.4, True, steps=40, eot_samples=10)
    attacks = condition.by_name()

    def told(name):
        attack = attacks[name]
        return attack.norm, attack.eps, attack.steps, attack.step_size, attack.eot_samples

    step = 2.5 * 0.4 / 40
    assert told("eps") == ("l2", 0.4, 40, step, 10)
    assert told("eps 0") == ("l2", 0.0, 40, 0.0, 10)
    assert told("4 eps") == ("l2", 1.6, 40, 4 * step, 10)
    assert told("unbounded") == ("linf", 1.0, 40, 2.5 / 40, 10)
    assert told("S/4 steps") == ("l2", 0.4, 10, step, 10)
    assert told("4 S steps") == ("l2", 0.4, 160, step, 10)
    assert told("k S steps of 1 draw") == ("l2", 0.4, 400, pytest.approx(step / 10), 1)
    assert told("4 k draws") == ("l2", 0.4, 40, step, 40)
    assert attacks["restarts"] == dataclasses.replace(attacks["1 restart"], restarts=5)
    # A ball of radius 1 holds all images, in L-infinity alone.
    largest = dataclasses.replace(condition, norm="linf").by_name()["4 eps"]
    assert largest.eps == 1.0
    # Few steps to a large radius are long: 4 * 2.5 * 0.6 / 4 of them crosses all images.
    longest = dataclasses.replace(condition, norm="linf", eps=0.6, steps=4).by_name()["4 eps"]
    assert longest.step_size == 1.0
    for fields in (dict(eps=0.0), dict(steps=3), dict(restarts=1)):
        with pytest.raises(ValueError, match="eps > 0, steps >= 4 and restarts >= 2"):
            dataclasses.replace(condition, **fields)


def test_each_attack_is_on_the_network_that_its_name_says(batch):
    def with_noise(weights, keys, images):
        return toy.linear(weights, keys, images) + jax.vmap(jax.random.normal)(keys)[:, None]

    noisy = Partial(with_noise, batch[0])
    quiet = Partial(honest, batch[0])

    def runs(stochastic, **fields):
        condition = evaluation.Masking("linf", EPS, stochastic, **SMALL)
        protocol = evaluation.Protocol("fresh", 2)
        trial = evaluation.Batch(
            protocol, jax.random.split(jax.random.key(7), 40), quiet, *batch[1:], **fields
        )
        found = condition.runs(trial)
        assert {c for n, (_, c) in found.items() if n in condition.by_name()} == {quiet}
        others = found.keys() - condition.by_name().keys()
        return {name: (found[name][0].eot_samples, found[name][1]) for name in others}

    assert runs(True) == runs(False) == {}
    silent = Partial(toy.linear, batch[0])
    assert runs(True, with_noise=lambda noise: silent) == {"without noise": (1, silent)}
    # Images through a noisy network average its draws, also where the network has no noise.
    for stochastic, other, draws in ((True, silent, 2), (False, silent, 1), (False, noisy, 2)):
        assert runs(stochastic, others={"other": other}) == {"transfer": (draws, other)}
    with pytest.raises(ValueError, match="one network for masking, got 2"):
        runs(True, others={"one": silent, "two": noisy})


def test_the_losses_along_a_run_are_those_of_its_parts():
    condition = evaluation.Masking("linf", EPS, False, **SMALL)
    rng = np.random.default_rng(0)
    arrays = {"classes": np.full(20, 10), "gradient constant": np.ones((20, 3))}
    numbers = ("lowest", "highest", "sum error", "spread")
    for name in (*numbers, "gradient cross_entropy", "gradient margin"):
        arrays[name] = rng.random(20)
    for name in ("clean", *condition.by_name()):
        arrays |= {f"right {name}": rng.random((20, 2)) < 0.5, f"loss {name}": rng.random(20)}
    (found,) = [check for check in condition.checks(arrays) if check.name == "loss"]
    for part, name in (("clean", "clean"), ("S/4 steps", "S/4 steps"), ("S steps", "eps")):
        assert found.numbers[f"loss, {part}"] == pytest.approx(arrays[f"loss {name}"].mean())


def test_gradients_are_of_both_losses_and_at_three_greys():
    """The margin is twice the sum of the squared pixels, and the label is the lower class."""

    def squares(keys, images):
        total = jnp.sum(jnp.square(images), axis=(1, 2, 3))
        return jnp.stack([total, -total], axis=-1)

    images = jnp.full((2, 1, 2, 1), 0.25)
    keys = jax.random.split(KEY, 2)
    found = masking_checks.diagnose(Partial(squares), keys, images, jnp.ones(2, jnp.int32))

    def of_cross_entropy(grey):
        return 4 * grey / (1 + np.exp(-4 * grey**2))

    np.testing.assert_allclose(found["gradient margin"], 1.0, rtol=1e-5)
    np.testing.assert_allclose(found["gradient cross_entropy"], of_cross_entropy(0.25), rtol=1e-5)
    constant = np.array([[of_cross_entropy(grey) for grey in (0.0, 0.5, 1.0)]] * 2)
    np.testing.assert_allclose(found["gradient constant"], constant, rtol=1e-5)


@pytest.mark.parametrize(("gap", "zero"), [(80.0, False), (95.0, True), (1e6, True)])
def test_the_rounding_of_a_saturated_softmax_is_no_gradient(batch, gap, zero):
    """The other classes have probabilities up to exp(-gap), which float32 holds to exp(-87)."""
    weights, images, labels = batch

    def scaled(images, keys, others):
        logits = toy.linear(weights, keys, others)
        rivals = jnp.sort(toy.linear(weights, keys, images), axis=-1)
        return logits * gap / (rivals[:, -1:] - rivals[:, -2:-1])

    keys = jax.random.split(jax.random.key(1), len(labels))
    found = masking_checks.diagnose(Partial(scaled, images), keys, images, labels)
    assert np.all((found["gradient cross_entropy"] == 0) == zero)
    assert np.all(found["gradient margin"] > 0)


def test_gradients_that_are_not_finite_fail_and_do_not_end_the_checks(batch):
    def broken(weights, key, images):
        # As the energy of a complex cell: the root of zero has no finite slope.
        size = jnp.sqrt(jnp.sum(jnp.square(images - images[:, :1, :1]), axis=(1, 2, 3)))
        return toy.linear(weights, key, images) + 0.0 * size[:, None]

    weights, images, labels = batch
    images = images.at[0].set(0.4)
    found = examine(Partial(broken, weights), (weights, images, labels))
    assert found["gradients"].verdict == "fail"
    assert found["gradients"].numbers["share not finite, constant images"] == 1
    assert found["gradients"].numbers["share not finite, margin loss"] == pytest.approx(1 / 40)
    assert "not finite" in found["radius"].meaning and found["radius"].verdict == "fail"


# The checks on numbers alone.

rng = np.random.default_rng(0)
SAME = rng.random(50)
LOW, HIGH = np.zeros(50), np.ones(50)
DIM = np.array([0.7, 0.8, 0.8])


def few(count):
    """One in ``count`` of the images, else 0."""
    return np.where(np.arange(50) < count, 1.0, 0.0)


@pytest.mark.parametrize(
    ("count", "verdict"), [(1, "pass"), (3, "pass"), (4, "warning"), (9, "fail")]
)
def test_a_rise_counts_in_standard_errors(count, verdict):
    """If c of 50 pairs differ by one, the mean is c/50 and its error sqrt(c/50 (1 - c/50) / 49)."""
    share = count / 50
    mean, error = masking_checks.paired(LOW, few(count))
    assert (mean, error) == pytest.approx((share, np.sqrt(share * (1 - share) / 49)))
    check = masking_checks.falls({"weak": LOW, "strong": few(count)}, "good", "bad")
    assert check.verdict == verdict
    # A rise of more than 2 points that is not certain is no reason to praise the attack.
    assert ("weak and strong cannot be told apart on 50" in check.meaning) == (count == 3)
    other = masking_checks.falls({"a": few(count), "b": LOW}, "good", "bad")
    assert (other.verdict, other.meaning) == ("pass", "good")
    one = masking_checks.falls({"a": HIGH[:1], "b": HIGH[:1]}, "good", "bad")
    assert (one.verdict, "cannot be told apart on 1 image" in one.meaning) == ("pass", True)


@pytest.mark.parametrize(
    ("images", "fall", "meaning"),
    [
        (50, 3, "by 6.0 points, which may be chance on 50"),  # 1.8 standard errors
        (50, 1, "a fall of up to 6 points may be missed on 50"),
        (20, 0, "a fall of up to 16 points may be missed on 20"),
        (200, 0, "has converged"),
    ],
)
def test_restarts_that_may_have_helped_have_not_converged(images, fall, meaning):
    last = np.where(np.arange(images) < fall, 0.0, 1.0)
    check = masking_checks.plateau({"1": np.ones(images), "5": last}, "restarts")
    assert check.verdict == "pass" and meaning in check.meaning


def test_few_images_need_more_standard_errors():
    """The t of two degrees of freedom is above 2.8 in one case of 19, a normal one in 390."""
    rises = np.array([0.02, 0.1, 0.09])
    mean, error = masking_checks.paired(np.zeros(3), rises)
    assert 2 < mean / error < 4
    assert masking_checks.falls({"a": np.zeros(3), "b": rises}, "good", "bad").verdict == "pass"
    rng, verdicts = np.random.default_rng(0), []
    for _ in range(400):
        draws = rng.binomial(10, rng.beta(2, 1, 5), (2, 5)) / 10
        verdicts.append(masking_checks.falls(dict(zip("ab", draws, strict=True)), "", "").verdict)
    assert verdicts.count("fail") <= 6 and verdicts.count("pass") > 370


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        (masking_checks.plateau({"1": SAME, "5": SAME}, "runs"), "pass"),
        (masking_checks.plateau({"1": SAME, "5": SAME - 0.01}, "runs"), "pass"),
        (masking_checks.plateau({"1": HIGH, "5": 1 - few(12)}, "runs"), "warning"),
        (masking_checks.plateau({"1": LOW, "5": few(12)}, "runs"), "fail"),
        (masking_checks.unbounded({"1": LOW}, 10, False), "pass"),
        (masking_checks.unbounded({"1": few(1)}, 10, False), "warning"),
        (masking_checks.unbounded({"1": few(1)}, 10, True), "pass"),  # luck
        (masking_checks.unbounded({"1": few(8)}, 10, True), "pass"),  # luck, too
        (masking_checks.unbounded({"1": few(8)}, 10, False), "warning"),
        (masking_checks.unbounded({"1": few(12)}, 10, True), "fail"),
        (masking_checks.falls({"a": SAME, "b": SAME + 0.01}, "", ""), "fail"),  # certain in pairs
        (masking_checks.beats_noise({"a": HIGH, "b": LOW}), "pass"),
        (masking_checks.beats_noise({"a": HIGH, "b": HIGH}), "warning"),
        (masking_checks.beats_noise({"a": LOW, "b": few(5)}), "warning"),  # 2.3 standard errors
        # A fall by 40 points with a standard error of 20.
        (masking_checks.beats_noise({"a": DIM, "b": DIM - [0.0, 0.4, 0.8]}), "warning"),
        (masking_checks.beats_noise({"a": LOW, "b": few(12)}), "fail"),
        (masking_checks.loss_rises({"0": SAME, "10": SAME + 1}), "pass"),
        (masking_checks.loss_rises({"0": SAME, "9": SAME + 1, "10": SAME + 0.99}), "pass"),
        (masking_checks.loss_rises({"0": SAME, "9": SAME + 2, "10": SAME + 1}), "fail"),
        (masking_checks.loss_rises({"0": SAME, "10": SAME}), "fail"),
        (masking_checks.loss_rises({"0": SAME, "10": SAME + few(20)}), "fail"),  # of too few images
        (masking_checks.zero_radius({"a": SAME, "b": SAME}), "pass"),
        (masking_checks.zero_radius({"a": few(1), "b": LOW}), "fail"),
        (masking_checks.randomness(np.full(5, 1e-5), False), "pass"),
        (masking_checks.randomness(np.full(5, 1e-3), False), "fail"),
        (masking_checks.randomness(np.zeros(5), True), "warning"),
        (masking_checks.randomness(np.full(5, np.nan), True), "pass"),
        (masking_checks.outputs(np.zeros(5), np.ones(5), np.full(5, 1e-6)), "fail"),
        (masking_checks.outputs(np.zeros(5), np.ones(5), np.full(5, 2.0**-8)), "fail"),  # bfloat16
        (masking_checks.outputs(np.zeros(5), np.ones(5), np.full(5, 0.1)), "pass"),
        (masking_checks.outputs(np.full(5, -1.0), np.ones(5), np.zeros(5)), "pass"),
        (masking_checks.outputs(np.full(5, np.nan), np.ones(5), np.zeros(5)), "fail"),
        (masking_checks.enough_classes(10), "pass"),
        (masking_checks.enough_classes(9), "warning"),
        (masking_checks.gradients({"a": HIGH}, np.ones((50, 3))), "pass"),
        (masking_checks.gradients({"a": 1 - few(3)}, np.ones((50, 3))), "warning"),
        (masking_checks.gradients({"a": 1 - few(9)}, np.ones((50, 3))), "fail"),
        (masking_checks.gradients({"a": HIGH}, np.zeros((50, 3))), "warning"),
        (masking_checks.gradients({"a": HIGH}, np.full((50, 3), np.inf)), "fail"),
        (masking_checks.beats_noise({"a": HIGH, "b": np.full(50, np.nan)}), "fail"),
    ],
)
def test_verdicts(check, verdict):
    assert check.verdict == verdict, check


@pytest.mark.slow
def test_the_checks_of_a_run_are_written_and_continue(tmp_path):
    network = tiny.tiny_trained()
    condition = evaluation.Masking("linf", 0.05, True, **SMALL)
    result = evaluation.evaluate(tiny.tiny_evaluation(network, tmp_path / "whole"), condition)
    assert result.name == "masking-linf-0.05-8-steps-eot-samples-2-queries-100-restarts-2"
    arrays = result.arrays
    assert arrays["right eps"].shape == (10, 3) and arrays["gradient constant"].shape == (10, 3)
    checks = condition.checks(arrays)
    assert len(checks) == 17

    def told(result):
        return [(row["check"], row["verdict"]) for row in result.rows if "verdict" in row]

    assert told(result) == [(check.name, check.verdict) for check in checks]
    for check in checks:
        assert result.find(check.question)["meaning"] == check.meaning
        for name, value in check.numbers.items():
            row = result.find(name, check=check.name)
            assert row.get("value") == (None if value is None else pytest.approx(float(value)))
    failed = [name for name, verdict in told(result) if verdict == "fail"]
    assert bool(failed) == any("fails" in warning for warning in result.warnings)
    # Passing is no proof, which the page says.
    assert bool(failed) != any("only that no sign" in warning for warning in result.warnings)
    again = tiny.tiny_evaluation(network, tmp_path / "other", batch_size=8, devices=4)
    assert told(evaluation.evaluate(again, condition)) == told(result)
