"""Objectives in a tuple: their names and keys, what is combined, and what is refused."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_perturbation import BATCH, GRADIENT, NORMED, QUIET, step
from test_train_step import EXPERIMENT, assert_close, loss_of

from vone_jax import attacks, training
from vone_jax.attacks import FGSM, PGD
from vone_jax.training import (
    AWP,
    MART,
    TRADES,
    Corruptions,
    Distillation,
    Fast,
    Free,
    GaussianImageNoise,
    Mixing,
    Objective,
    Similarity,
)

MART_LINF, TRADES_LINF = MART(0.1, 0.03, steps=2), TRADES(0.1, 0.03, steps=2)


@pytest.mark.parametrize(
    ("objectives", "parts", "message"),
    [
        ((Mixing(), MART_LINF), 1, "MART has a loss of its own, which leaves out that of Mixing"),
        ((MART_LINF, Mixing()), 1, "leave one of them out"),
        ((Distillation("a"), MART_LINF), 1, "put Distillation behind MART"),
        ((TRADES_LINF, Mixing()), 1, "put TRADES behind Mixing"),
        ((Free(0.1), Free(0.2)), 1, "Free and Free 2 both say how often a batch is replayed"),
        ((Fast(0.1), Mixing()), 2, "Mixing, which works on whole batches, must come before Fast"),
        ((Similarity("v1"), AWP()), 2, "AWP, which works on parts .* before Similarity"),
    ],
)
def test_objectives_that_cannot_be_combined_are_refused_with_the_reason(objectives, parts, message):
    with pytest.raises(ValueError, match=message):
        replace(EXPERIMENT, objectives=objectives, accumulation_steps=parts)


@pytest.mark.parametrize(
    ("objectives", "parts"),
    [
        ((Corruptions(("fog",)), Mixing(), Distillation("a"), TRADES_LINF, AWP()), 2),
        ((MART_LINF, Distillation("a"), AWP(), Similarity("v1")), 2),
        ((Fast(0.1), Mixing()), 1),
        ((Similarity("v1"), AWP(), Free(0.1)), 1),
    ],
)
def test_others_are_combined(objectives, parts):
    made = replace(EXPERIMENT, objectives=objectives, accumulation_steps=parts)
    assert training.from_json(training.to_json(made)) == made


def test_the_second_of_a_kind_has_a_name_and_keys_of_its_own():
    """Also beside another objective whose keys are of the same stream."""
    noise, pgd = GaussianImageNoise(0.1), PGD("linf", 0.1)
    applied = replace(EXPERIMENT, objectives=(noise, pgd, noise)).applied
    assert [each.name for each in applied] == ["GaussianImageNoise", "PGD", "GaussianImageNoise 2"]
    assert len({each.stream for each in applied}) == 3
    # The second draw of noise is another one: the variances add up.
    grey = BATCH | {"image": jnp.full((8, 8, 8, 1), 0.5)}
    twice = (GaussianImageNoise(0.05, 1.0), GaussianImageNoise(0.05, 1.0))
    drawn = []

    @dataclass(frozen=True)
    class Seen(Objective):
        def batch(self, context, batch):
            context.log("deviation", jnp.std(batch["image"]))
            return batch

    for objectives in (twice[:1], twice):
        _, _, metrics = step(QUIET, batch=grey, objectives=(*objectives, Seen()))
        drawn.append(float(metrics.numbers["Seen.deviation"]))
    np.testing.assert_allclose(drawn, [0.05, 0.05 * np.sqrt(2)], rtol=0.1)


def test_any_attack_in_the_tuple_trains_on_its_images():
    """For a linear classifier without noise, FGSM is one step of the sign of the gradient."""
    before, after, _ = step(QUIET, objectives=(FGSM("linf", 0.1),))

    def loss(images):
        return loss_of(QUIET, before.params, {}, BATCH | {"image": images}, optimizer=GRADIENT)[0]

    sign = jnp.sign(jax.grad(loss)(BATCH["image"]))
    moved = jnp.clip(BATCH["image"] + 0.1 * sign, 0, 1)
    _, expected, _ = step(QUIET, batch=BATCH | {"image": moved})
    assert_close(after.params, expected.params, rtol=1e-4, atol=1e-6)


def test_attacks_of_a_single_step_are_watched():
    def watched(*objectives):
        experiment = replace(EXPERIMENT, objectives=objectives)
        return [each.objective.watched for each in experiment.applied]

    pgd = attacks.PGD("l2", 0.5, steps=10, random_start=True)
    assert watched(PGD("l2", 0.5, steps=1), FGSM("l2", 0.5), PGD("l2", 0.5)) == [pgd, pgd, None]
    assert watched(Fast(0.1), AWP())[1] is None


@pytest.mark.parametrize("parts", [1, 2])
def test_the_order_of_the_tuple_is_that_of_the_gradients(parts):
    """Each adds its number to the biases and then doubles them: 2 (2 (g + 1) + 3) = 4 g + 10."""

    @dataclass(frozen=True)
    class Added(Objective):
        number: float

        def gradient(self, context, gradient_fn, params, batch):
            found = gradient_fn(params, batch)
            bias = 2 * (found.params["network"]["logits"]["bias"] + self.number)
            network = found.params["network"] | {"logits": {"bias": bias} | {
                "kernel": found.params["network"]["logits"]["kernel"]}}  # fmt: skip
            return replace(found, params=found.params | {"network": network}), None

    fields = {"accumulation_steps": parts}
    before, plain, _ = step(QUIET, **fields)
    _, after, _ = step(QUIET, objectives=(Added(1.0), Added(3.0)), **fields)
    start, one, other = (each.params["logits"]["bias"] for each in (before, plain, after))
    np.testing.assert_allclose(start - other, 4 * (start - one) + 10, rtol=1e-5)


@dataclass(frozen=True)
class Mean(Objective):
    """An objective with parameters and a state: a learned scale of the loss, and its history."""

    by_part: bool = False

    def init(self, key, run):
        return {"scale": jnp.float32(2.0)}, jnp.float32(0.0)

    def losses(self, context, batch, logits, losses):
        context.log("scale", context.own["scale"])
        return losses * context.own["scale"]

    def gradient(self, context, gradient_fn, params, batch):
        return gradient_fn(params, batch), context.state + 1.0


def test_an_objective_has_trained_parameters_a_state_and_lines_of_the_log():
    before, after, metrics = step(QUIET, objectives=(Mean(),))
    _, _, plain = step(QUIET)
    # The gradient of the scale is the mean loss without it, and the learning rate is 1.
    mean = plain.sums.loss / 8
    np.testing.assert_allclose(after.own["Mean"]["scale"], 2.0 - mean, rtol=1e-5)
    np.testing.assert_allclose(metrics.sums.loss, 2 * plain.sums.loss, rtol=1e-5)
    assert metrics.numbers == {"Mean.scale": 2.0}
    assert (before.objectives["Mean"], after.objectives["Mean"]) == (0.0, 1.0)
    # Called for each part, it has the state of the part before.
    _, parts, metrics = step(QUIET, objectives=(Mean(by_part=True),), accumulation_steps=4)
    assert parts.objectives["Mean"] == 4.0 and metrics.numbers == {"Mean.scale": 2.0}
    np.testing.assert_allclose(parts.own["Mean"]["scale"], 2.0 - mean, rtol=1e-5)


@dataclass(frozen=True)
class Scalar(Objective):
    def losses(self, context, batch, logits, losses):
        return jnp.mean(losses)


@dataclass(frozen=True)
class Counting(Mean):
    def gradient(self, context, gradient_fn, params, batch):
        return gradient_fn(params, batch), jnp.int32(1)


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Scalar(), r"Scalar.losses must return the loss of each example, shape \(8,\), got \(\)"),
        (Counting(), r"of the form that init gave, float32\[\], got int32\[\]"),
    ],
)
def test_a_result_of_another_form_is_told(objective, message):
    with pytest.raises(ValueError, match=message):
        step(QUIET, objectives=(objective,))


def test_a_number_for_the_log_that_is_not_finite_skips_the_step():
    @dataclass(frozen=True)
    class Lost(Objective):
        def batch(self, context, batch):
            context.log("nothing", jnp.nan)
            return batch

    before, after, metrics = step(QUIET, objectives=(Lost(), Mean()))
    assert not metrics.finite and int(after.skipped) == 1
    for name in ("params", "own", "objectives"):
        jax.tree.map(np.testing.assert_array_equal, getattr(before, name), getattr(after, name))


def test_free_has_the_same_perturbation_for_any_number_of_parts():
    free = Free(0.1, step_size=0.04, replays=2)
    whole, parts = (
        step(QUIET, number=2, objectives=(free,), accumulation_steps=parts)[1] for parts in (1, 4)
    )
    assert_close(whole.params, parts.params, rtol=1e-5, atol=1e-6)
    same = np.isclose(whole.objectives["Free"], parts.objectives["Free"], atol=1e-6)
    # A sign of a gradient near 0 may be rounded.
    assert same.mean() > 0.98 and np.abs(whole.objectives["Free"]).max() > 0.03


def test_another_pass_in_a_gradient_of_ones_own_moves_no_statistics():
    """A penalty on the gradient of the images, of a network in training mode."""

    @dataclass(frozen=True)
    class Penalty(Objective):
        def losses(self, context, batch, logits, losses):
            def total(images):
                rest = context.keys, context.key
                logits = context.apply(context.params, images, *rest)
                return jnp.sum(context.cross_entropy(logits, batch["label"]))

            slope = jax.grad(total)(batch["image"])
            return losses + jnp.sum(slope**2, axis=(1, 2, 3))

    before, after, metrics = step(NORMED, objectives=(Penalty(),))
    _, plain, other = step(NORMED)
    assert_close(after.batch_stats, plain.batch_stats, rtol=1e-6)
    assert metrics.sums.loss > other.sums.loss + 1e-4
