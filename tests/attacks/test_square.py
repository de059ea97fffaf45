import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from tests.attacks import linear_problem as problem
from tests.attacks import toy
from vone_jax import prng
from vone_jax.attacks import losses, norms, square
from vone_jax.attacks.square import Square

# The networks here have keys but noise of scale 0, which no trace shows.
pytestmark = pytest.mark.filterwarnings("ignore:Square decides by single draws")

KEY = jax.random.key(11)
EPS = {"linf": 0.05, "l2": 0.3, "l1": 1.0}
INDICES = jnp.asarray([5, 9, 2, 40, 41, 7])


@pytest.fixture(scope="module")
def images():
    """Four values in ten lie on the border of the pixel box."""
    images = jax.random.uniform(jax.random.key(1), (6, 8, 10, 3), minval=-1 / 3, maxval=4 / 3)
    return jnp.clip(images, 0.0, 1.0)


@pytest.fixture(scope="module")
def weights():
    return toy.make_network(0.0, channels=3)


@pytest.fixture(scope="module")
def labels(images, weights):
    return jnp.argmax(toy.noisy_network(weights, 0.0, KEY, images), axis=-1)


def margin(weights, images, labels):
    return losses.margin(toy.noisy_network(weights, 0.0, KEY, images), labels)


def run(attack, weights, images, labels, scale=0.0, keys=None):
    logits_fn = Partial(toy.noisy_network, weights, jnp.float32(scale))
    keys = prng.index_keys(KEY, INDICES) if keys is None else keys
    return attack(keys, logits_fn, images, labels)


# The patterns.


def bump(height, width, power):
    """Written down as the paper has it: one square after the other, in float64."""
    total = np.zeros((height, width))
    row, column = height // 2, width // 2
    for k in range(max(row, column) + 1):
        rows = slice(max(row - k, 0), min(row + k + 1, height))
        columns = slice(max(column - k, 0), min(column + k + 1, width))
        total[rows, columns] += 1 / (k + 1) ** power
    return total


@pytest.mark.parametrize(("norm", "power", "order"), [("l2", 2, 2), ("l1", 4, 1)])
@pytest.mark.parametrize("side", [1, 2, 5, 8])
def test_a_pair_of_bumps_equals_the_paper(norm, power, order, side):
    upper, lower = bump(side // 2, side, power), bump(side - side // 2, side, power)
    upper /= max(np.linalg.norm(upper.ravel(), ord=order), 1e-9)
    lower /= np.linalg.norm(lower.ravel(), ord=order)
    expected = np.concatenate([upper, -lower])
    expected /= np.linalg.norm(expected.ravel(), ord=order)
    padded = np.zeros((9, 12))
    padded[1 : 1 + side, 2 : 2 + side] = expected
    rows = jnp.broadcast_to(jnp.arange(9)[:, None] - 1, (9, 12))
    columns = jnp.broadcast_to(jnp.arange(12)[None] - 2, (9, 12))
    pair = jax.jit(square.bump_pair, static_argnums=(4, 5))
    ours = pair(rows, columns, side, False, norm, jnp.float32)
    np.testing.assert_allclose(ours, padded, atol=1e-6)
    turned = pair(rows, columns, side, True, norm, jnp.float32)
    padded[1 : 1 + side, 2 : 2 + side] = expected.T
    np.testing.assert_allclose(turned, padded, atol=1e-6)


def test_the_tiles_of_a_start_are_centred_and_fill_what_they_can():
    """17 x 19 pixels hold 5 x 6 tiles with a side of 3. Two rows and a column are left."""
    tiles = jax.jit(square.tiles, static_argnums=(1, 2, 3))
    start = np.asarray(tiles(jax.random.key(0), (17, 19, 2), "l2", jnp.float32))
    tiles = start[1:16, :18].reshape(5, 3, 6, 3, 2)
    np.testing.assert_allclose(np.linalg.norm(tiles, axis=(1, 3)), 1.0, rtol=1e-5)
    assert not start[[0, 16]].any() and not start[:, 18].any()


@pytest.mark.parametrize("queries", [20, 500, 1000, 5000, 10000, 300_000])
def test_squares_shrink_as_the_authors_say(queries):
    """Their rule in integers: halved after 10, 50, ... of 10000 queries, rescaled to the budget."""
    asked = np.unique(np.linspace(0, queries, 4001).astype(int))
    scaled = asked * 10000 // queries
    of_budget, of_first = (
        0.8 / 2 ** np.sum(each[:, None] > [10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000], axis=1)
        for each in (scaled, asked)
    )
    for rescaled, expected in ((True, of_budget), (False, of_first)):
        attack = Square("linf", 0.1, queries=queries, rescale_schedule=rescaled)
        parts = jax.vmap(attack.part)(jnp.asarray(asked, jnp.int32))
        np.testing.assert_allclose(parts, expected, rtol=1e-6)


def test_the_squares_of_a_brief_run_become_small():
    """The schedule is that of the budget: the last changes of a run are windows of few pixels."""
    images = jnp.full((1, 32, 32, 1), 0.5)
    seen = []

    def logits_fn(key, images):
        jax.debug.callback(lambda image: seen.append(np.asarray(image)[..., 0]), images[0])
        return jnp.tile(jnp.asarray([[2.0, 0.0]]), (len(images), 1))

    Square("linf", 0.1, queries=100)(KEY, logits_fn, images, jnp.zeros(1, jnp.int32))
    jax.effects_barrier()
    # No change raises this loss, so each query differs from the start within its window alone.
    # The last pass looks at the outputs.
    _, start, *others, _ = seen
    rows = [np.flatnonzero(np.any(each != start, axis=1)) for each in others]
    sides = np.array([np.ptp(each) + 1 if each.size else 0 for each in rows])
    # Query 1 of 100 is query 100 of 10000, and the last 19 are beyond 8000.
    assert sides.max() == round((0.8 * 32**2 / 4) ** 0.5) and np.sum(sides <= 1) >= 19


def test_windows_lie_anywhere_and_change_one_square():
    """A window of 3 x 3 in 8 x 10 pixels has 6 x 8 places, the last ones included."""
    keys = jax.vmap(jax.random.key)(jnp.arange(2000))
    start = jnp.zeros((8, 10, 2))
    changed = jax.jit(jax.vmap(lambda key: square.signed_window(key, start, 3, 0.5)))(keys)
    changed = np.asarray(changed)
    assert set(np.unique(changed)) == {-0.5, 0.0, 0.5}
    inside = changed != 0
    np.testing.assert_array_equal(inside.sum(axis=(1, 2, 3)), 18)
    corners = {(np.argmax(hit.any(1)), np.argmax(hit.any(0))) for hit in inside[..., 0]}
    assert corners == {(row, column) for row in range(6) for column in range(8)}
    # One sign per channel, and all four combinations.
    means = {tuple(np.sign(image.sum(axis=(0, 1)))) for image in changed}
    assert len(means) == 4


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_a_moved_window_has_in_each_colour_the_budget_of_the_authors(norm):
    """Their rule: of both windows in this colour, and a share of what the whole lacks to eps."""
    delta = jax.random.normal(jax.random.key(0), (9, 11, 3))
    order = {"l2": 2, "l1": 1}[norm]
    whole = np.linalg.norm(np.asarray(delta).ravel(), order)
    eps = float(1.2 * whole)
    move = jax.jit(jax.vmap(lambda key: square.moved_window(key, delta, 3, eps, norm)))
    for moved in np.asarray(move(jax.random.split(jax.random.key(1), 20))):
        changed = np.any(moved != delta, axis=-1)
        here = changed & np.any(moved != 0, axis=-1)
        assert here.sum() == 9
        old, new = (
            np.linalg.norm(each, order, axis=0)
            for each in (np.asarray(delta)[changed], moved[here])
        )
        if norm == "l2":
            expected = np.sqrt((eps**2 - whole**2) / 3 + old**2)
        else:
            expected = 3 * ((eps - whole) / 3 + old)
        np.testing.assert_allclose(new, expected, rtol=1e-4)
        if norm == "l2":
            assert np.linalg.norm(moved) == pytest.approx(eps, rel=1e-4)


@pytest.mark.parametrize(("area", "side"), [(1, 3), (16, 5), (25, 5)])
def test_windows_of_l2_have_odd_sides_of_three_or_more(area, side):
    """The authors' rule, of the proposals that a classifier sees: round, then the next odd number.

    A query changes two windows, which overlap in some of the images and not in others. It is the
    same in L1, where most pixels are 0 before and after.
    """
    images = jnp.full((40, 20, 20, 1), 0.5)
    seen = []

    def logits_fn(key, images):
        jax.debug.callback(lambda images: seen.append(np.asarray(images)[..., 0]), images)
        return jnp.tile(jnp.asarray([[2.0, 0.0]]), (len(images), 1))

    attack = Square("l2", 0.5, queries=2, p_init=area / 400, rescale_schedule=False)
    attack(KEY, logits_fn, images, jnp.zeros(40, jnp.int32), batch_size=40)
    jax.effects_barrier()
    _, start, proposal = seen[:3]
    changed = np.abs(proposal - start) > 1e-5
    assert changed.sum(axis=(1, 2)).max() == 2 * side**2


# The attack.


@pytest.mark.parametrize(
    "norm", ["l2", *(pytest.param(n, marks=pytest.mark.slow) for n in ("linf", "l1"))]
)
def test_ball_box_progress_and_independence_of_the_batch(norm, images, weights, labels):
    attack = Square(norm, EPS[norm], queries=60)
    clean = margin(weights, images, labels)
    adversarial = run(attack, weights, images, labels)
    toy.assert_inside(adversarial, images, norm, EPS[norm])
    # The box cuts a part off.
    assert np.all(norms.size(adversarial - images, norm) > 0.7 * EPS[norm])
    reached = margin(weights, adversarial, labels)
    assert np.all(reached > clean + 0.02 * jnp.abs(clean))
    # No radius, no change; the radius is a leaf and compiles once.
    nothing = run(dataclasses.replace(attack, eps=0.0), weights, images, labels)
    np.testing.assert_array_equal(nothing, images)
    # Among other images in another order.
    order = jnp.asarray([3, 1, 0, 3, 1, 1])
    keys = prng.index_keys(KEY, INDICES)[order]
    other = run(attack, weights, images[order], labels[order], keys=keys)
    np.testing.assert_allclose(other, adversarial[order], atol=1e-6)
    # What is misclassified stays as it is.
    wrong = labels.at[2].set((labels[2] + 1) % 4)
    np.testing.assert_array_equal(run(attack, weights, images, wrong)[2], images[2])
    bad = weights | {"bias": weights["bias"].at[0].set(jnp.nan)}
    with pytest.raises(FloatingPointError, match=r"positions \[0, 1, 2, 3, 4, 5\]"):
        run(attack, bad, images, labels)


@pytest.mark.parametrize(("norm", "share"), [
    ("l2", 0.6),
    pytest.param("linf", 0.95, marks=pytest.mark.slow),
    pytest.param("l1", 0.4, marks=pytest.mark.slow),
])  # fmt: skip
def test_linear_classifier_approaches_the_optimum_from_below(norm, share):
    """The gain of the best perturbation is eps times the dual norm of the weight difference."""
    images, logits_fn = problem.IMAGES, problem.TWO_CLASSES
    labels = problem.labels(logits_fn)
    eps = {"linf": 0.02, "l2": 0.1, "l1": 0.3}[norm]
    # Several draws of a classifier without noise: nothing ends early.
    attack = Square(norm, eps, queries=1500, eot_samples=2)
    adversarial = attack(KEY, logits_fn, images, labels)
    gain = losses.margin(logits_fn(KEY, adversarial), labels) - losses.margin(
        logits_fn(KEY, images), labels
    )
    slope = problem.WEIGHTS[:, 1] - problem.WEIGHTS[:, 0]
    best = eps * np.linalg.norm(slope, ord={"linf": 1, "l2": 2, "l1": np.inf}[norm])
    assert np.all(gain <= best * (1 + 1e-4))
    assert np.mean(gain) > share * best


def test_both_images_of_a_query_have_draws_that_no_other_query_has(
    keys_of, weights, images, labels
):
    """One evaluation of the clean images, and two for each of four queries."""
    used = keys_of(Square, "evaluate")
    run(Square("linf", 0.05, queries=4, eot_samples=2), weights, images, labels)
    jax.effects_barrier()
    assert len(used) == 1 + 8 and len(set(used)) == 1 + 4


@pytest.mark.slow
def test_no_lucky_draw_moves_the_coin():
    """The coin is right with probability p whatever the image; searching must not lower it."""
    toy.assert_coin_resists(KEY, Square("linf", 0.1, queries=20, eot_samples=4, restarts=2))


def test_the_wrong_class_is_taken_although_the_loss_falls():
    """Cross-entropy is larger where three classes are equally likely and the right one leads."""

    def logits_fn(key, images):
        # No start gives two rows of a column different values.
        wrong = (images[:, 0, 0, 0] > 0.55) & (images[:, 3, 0, 0] < 0.45)
        even, sure = jnp.asarray([[0.1, 0.0, 0.0], [0.0, 0.1, -9.0]])
        return jnp.where(wrong[:, None], sure[None], even[None])

    images, labels = jnp.full((16, 4, 4, 1), 0.5), jnp.zeros(16, jnp.int32)
    made = [
        Square("linf", 0.1, queries=queries, restarts=restarts, loss="cross_entropy", p_init=0.3)
        for queries, restarts in ((8, 1), (8, 10))
    ]
    fooled = [
        int(jnp.sum(logits_fn(KEY, attack(KEY, logits_fn, images, labels)).argmax(axis=1)))
        for attack in made
    ]
    assert 0 < fooled[0] < 12 and fooled[1] > fooled[0] + 3
