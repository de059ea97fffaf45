"""Auto-PGD against closed forms, its published schedule, and relations between runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from vone_jax import functions, prng
from vone_jax.attacks import APGD, apgd, losses, norms

KEY = jax.random.key(11)


# The published schedule.


def test_checkpoints_are_those_of_the_paper():
    for steps, norm, expected in (
        (100, "l2", [22, 41, 57, 70, 80, 87, 93, 99]),
        (50, "linf", [11, 21, 29, 35, 40, 44, 47, 50]),
        (3, "linf", [1, 2, 3]),
        (100, "l1", list(range(4, 101, 4))),
        (5, "l1", [1, 2, 3, 4, 5]),
    ):
        assert apgd.checkpoints(steps, norm) == expected
    assert apgd.stages(100, True) == [(3, 30), (2, 30), (1, 40)]
    assert apgd.stages(50, True) == [(3, 15), (2, 15), (1, 20)]
    assert apgd.stages(100, False) == [(1, 100)]
    (gaps,) = APGD("linf", 0.1)._gaps()
    assert gaps[22] == 22 and gaps[41] == 19 and gaps[57] == 16 and gaps.sum() == 99


def test_stages_of_larger_radii_end_in_the_ball_and_share_no_draws(keys_of):
    """Three stages of 3, 3 and 4 steps, and an evaluation of the last point of each."""
    used = keys_of(APGD, "gradient")
    attack = APGD("l1", 0.05, steps=10, large_eps_schedule=True)
    labels = problem.labels(problem.TWO_CLASSES)
    adversarial = attack(KEY, problem.TWO_CLASSES, problem.IMAGES, labels)
    jax.effects_barrier()
    assert np.all(norms.size(adversarial - problem.IMAGES, "l1") <= 0.05 * (1 + 1e-5))
    assert len(used) == len(set(used)) == 4 + 4 + 5


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_runs_start_on_the_surface_of_the_ball(norm):
    images = jnp.full((3, 2, 6, 1), 0.5)
    start = APGD(norm, 0.1)._start(prng.example_keys(KEY, 3), images, 0.1)
    np.testing.assert_allclose(norms.size(start - images, norm), 0.1, rtol=1e-5)
    # Scaled and not cut off: of the 12 values of an image, one has the largest size.
    assert norm == "l2" or np.sum(np.abs(start - images) > 0.0999) == 3


def test_a_step_is_not_halved_twice_in_a_row_for_want_of_a_better_loss():
    """By hand: four stretches of four steps, each with three rises, enough for rho = 0.7.

    The first loss is the best one. So from the second stretch on, the best loss stands still: the
    step is halved there, not in the third stretch, because it was halved last time, and again in
    the fourth. In the other example two rises of four are too few, so each stretch halves.
    """
    losses_of_a_stretch = np.array([[1.0, 0.0], [2.0, 1.0], [3.0, 1.0], [4.0, 2.0]])
    control = apgd.Halving.start(jnp.ones(2))
    control = control.observe(jnp.full(2, 9.0), jnp.int32(0))
    lengths, backs = [], []
    for stretch in range(4):
        for number, loss in enumerate(losses_of_a_stretch, start=1 + 4 * stretch):
            control = control.observe(jnp.asarray(loss, jnp.float32), jnp.int32(number))
        control, back = control.check(jnp.int32(4), jnp.full(2, 9.0), jnp.float32(0.7))
        lengths.append(control.step_size.tolist())
        backs.append(back.tolist())
    np.testing.assert_array_equal(np.transpose(lengths)[0], [1, 1 / 2, 1 / 2, 1 / 4])
    np.testing.assert_array_equal(np.transpose(lengths)[1], [1 / 2, 1 / 4, 1 / 8, 1 / 16])
    np.testing.assert_array_equal(np.transpose(backs)[0], [False, True, False, True])


def test_a_step_is_halved_where_just_the_share_rho_of_steps_raised_the_loss():
    """The authors' code halves where the number of rises is <= rho times that of steps."""
    losses_seen = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0], [3.0, 4.0]])
    control = apgd.Halving.start(jnp.ones(2))
    for number, loss in enumerate(losses_seen):
        control = control.observe(jnp.asarray(loss, jnp.float32), jnp.int32(number))
    control, _ = control.check(jnp.int32(4), jnp.asarray([3.0, 4.0]), jnp.float32(0.75))
    np.testing.assert_array_equal(control.step_size, [0.5, 1.0])


def test_sparsity_restarts_the_step_or_shortens_it():
    steps = jnp.asarray([0.5, 0.5, 0.9])
    control = apgd.Sparsity(steps, jnp.full(3, 20.0), jnp.full(3, 100.0))
    after, back = control.check(jnp.asarray([94.0, 95.0, 100.0]), jnp.float32(4.0))
    np.testing.assert_array_equal(back, [True, False, False])
    # A shorter step has two thirds of its length, and not less than a tenth of eps.
    np.testing.assert_allclose(after.step_size, [4.0, 0.4, 0.6], rtol=1e-6)
    np.testing.assert_allclose(after.moved, np.array([94.0, 95.0, 100.0]) / 1.5, rtol=1e-6)


def test_a_run_is_the_algorithm_of_the_paper():
    """Croce and Hein (2020), algorithm 1 in NumPy, on a loss with its peak inside the ball.

    The condition of too few rises is that of the authors' code, <=; algorithm 1 has <.
    """
    peak, steps, eps = np.asarray([0.53, 0.42, 0.515]), 20, 0.1

    def logits_fn(key, images):
        distance = jnp.sum(
            jnp.square(images.reshape(-1, 3) - peak[None].astype(np.float32)), axis=1
        )
        return jnp.stack([jnp.zeros_like(distance), -200 * distance], axis=-1)

    images, labels = jnp.full((1, 1, 3, 1), 0.5), jnp.zeros(1, jnp.int32)
    attack = APGD("linf", eps, steps=steps)
    keys = prng.example_keys(KEY, 1)
    start = attack._start(prng.stream(prng.fold(keys, 0), "start"), images, eps)
    now = before = best = np.asarray(start, np.float64).reshape(3)
    highest, rises, last, length, returns = -np.inf, 0, np.inf, 2 * eps, 0
    since, best_then, halved = 0, -np.inf, False
    for number in range(steps + 1):
        loss = -np.sum((now - peak) ** 2)
        rises, last = rises + (loss > last), loss
        if loss > highest:
            best, highest = now, loss
        if number in apgd.checkpoints(steps, "linf"):
            stuck = rises <= 0.75 * (number - since) or (not halved and highest == best_then)
            if stuck:
                length, now, returns = length / 2, best, returns + 1
            since, rises, halved, best_then = number, 0, stuck, highest
        ahead = np.clip(now + length * np.sign(peak - now), 0.5 - eps, 0.5 + eps)
        share = 0.75 if number else 1.0
        mixed = now + share * (ahead - now) + (1 - share) * (now - before)
        before, now = now, np.clip(mixed, 0.5 - eps, 0.5 + eps)
    assert returns > 3
    adversarial = attack(keys, logits_fn, images, labels)
    np.testing.assert_allclose(adversarial.reshape(3), best, atol=1e-5)


# Closed forms.


@pytest.mark.parametrize("norm", ["linf", "l2", pytest.param("l1", marks=pytest.mark.slow)])
def test_linear_model_reaches_the_closed_form(norm):
    """The margin moves by eps times the dual norm of the weight difference, and no further."""
    weights = jax.random.normal(jax.random.key(3), (12, 2))
    images = jax.random.uniform(jax.random.key(4), (5, 2, 6, 1), minval=0.4, maxval=0.6)
    logits_fn = Partial(problem.centred, weights)
    labels = jnp.argmax(logits_fn(KEY, images), axis=-1).astype(jnp.int32)
    before = np.asarray(losses.margin(logits_fn(KEY, images), labels))
    slope = np.asarray(weights[:, 1] - weights[:, 0])
    dual = np.linalg.norm(slope, ord={"linf": 1, "l2": 2, "l1": np.inf}[norm])
    distance = np.sort(-before / dual)
    assert distance[-1] < 0.3  # so far the box does not count
    for eps, fallen in ((0.99 * distance[2], 2), (1.01 * distance[2], 3)):
        attack = APGD(norm, float(eps), steps=60)
        adversarial = attack(KEY, logits_fn, images, labels)
        after = np.asarray(losses.margin(logits_fn(KEY, adversarial), labels))
        assert (after > 0).sum() == fallen
        # What is misclassified may be any iterate; the others have to be the optimum.
        resists = after <= 0
        np.testing.assert_allclose(after[resists], before[resists] + eps * dual, atol=1e-5 * dual)


def test_targets_are_the_likeliest_other_classes():
    """Only the third likeliest class can be reached; one target does not find it."""
    images = jnp.full((2, 2, 2, 1), 0.5)

    def steps_to_class(key, images):
        value = images.reshape(2, -1)[:, 0]
        flat = jnp.zeros_like(value)
        reachable = jnp.where(value > 0.55, 3.0, 0.0) + value - 0.5
        return jnp.stack([flat - 2.0, flat + 1.0, reachable, flat + 0.5, flat - 1.0], axis=-1)

    labels = jnp.ones(2, jnp.int32)
    for targets, broken in ((1, False), (9, True)):
        attack = APGD("linf", 0.1, steps=10, loss="targeted_dlr", targets=targets)
        # The start is random: a seed where no run begins beyond the step.
        adversarial = attack(jax.random.key(4), steps_to_class, images, labels)
        wrong = jnp.argmax(steps_to_class(KEY, adversarial), axis=-1) != labels
        assert bool(jnp.all(wrong)) == broken, targets


# Noise.


@pytest.mark.slow
def test_success_has_to_be_borne_out_by_other_draws():
    """A lucky draw far from the truth must not replace the point of the highest loss.

    The classifier is wrong by luck in a tenth of the draws, whatever the image, and it is surely
    wrong beyond 0.58 in the mean. Iterates below that are taken for a success by luck often.
    """

    @functions.per_example
    def lucky(key, images):
        luck = jax.random.uniform(key, (images.shape[0],)) < 0.1
        evidence = 40.0 * (jnp.mean(images, axis=(1, 2, 3)) - 0.58) + jnp.where(luck, 9.0, 0.0)
        return jnp.stack([jnp.zeros_like(evidence), evidence], axis=-1)

    images = jnp.full((40, 4, 4, 1), 0.5)
    attack = APGD("linf", 0.1, steps=10, eot_samples=4)
    adversarial = attack(KEY, lucky, images, jnp.zeros(40, jnp.int32))
    assert np.all(jnp.mean(adversarial, axis=(1, 2, 3)) > 0.58)


def test_an_image_that_is_solved_keeps_its_result_whatever_is_beside_it():
    """Further runs, which only another image needs, may find a larger margin."""

    def logits_fn(keys, images):
        # The first pixel decides, and the second says by how much. A third of 1 is never fooled.
        pixels = images.reshape(len(images), -1)
        margin = (0.5 - pixels[:, 0]) * (1 + jnp.square(pixels[:, 1]))
        margin = margin - jnp.where(pixels[:, 2] > 0.8, 5.0, 0.0)
        return jnp.stack([-margin, jnp.zeros_like(margin)], axis=-1)

    easy, hard = (np.full((1, 1, 3, 1), each, np.float32) for each in (0.55, 1.0))
    keys = jax.random.split(KEY, 2)
    attack = APGD("linf", 0.15, steps=1, restarts=4)
    among_easy, beside_hard, at_once = (
        attack.choose(
            keys, logits_fn, np.concatenate([easy, other]), np.zeros(2, int), batch_size=size
        ).images
        for other, size in ((easy, 1), (hard, 1), (hard, 2))
    )
    assert np.all(np.argmax(logits_fn(keys, among_easy), axis=1) == 1)
    np.testing.assert_array_equal(beside_hard[0], among_easy[0])
    np.testing.assert_array_equal(at_once[0], among_easy[0])
