"""Training on perturbed images, and the similarity term, inside the compiled step."""

import contextlib
import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_train_step import EXPERIMENT, MODEL, assert_close, loss_of, steps
from tiny import log

from tests.fast.test_jaxprs import FAST, layouts
from tests.networks import TinyNet
from vone_jax import data, prng, training
from vone_jax import mesh as meshes
from vone_jax.attacks import PGD
from vone_jax.training import (
    AWP,
    MART,
    TRADES,
    Fast,
    Free,
    GaussianImageNoise,
    OptimizerConfig,
    Similarity,
    loop,
)
from vone_jax.training.objective import Context, cross_entropy, divergence
from vone_jax.training.step import initial_state, make_eval_step, make_train_step


class Halving(GaussianImageNoise):
    """A perturbation that halves the images, so that its effect on the step can be computed."""

    def perturb(self, keys, images):
        return 0.5 * images


class Drawing(GaussianImageNoise):
    """A perturbation that shows its keys: each image becomes what its key draws."""

    def perturb(self, keys, images):
        return drawn(keys)


def drawn(keys):
    return jax.vmap(lambda key: jax.random.uniform(key, (8, 8, 1)))(keys)


class FeaturesNet(TinyNet):
    """A network with the method that similarity regularisation needs."""

    def features(self, images, train=False, noise_key=None):
        logits = self(images, train, noise_key)
        return {"pixels": images, "logits": logits}


BATCH = {
    "image": jnp.asarray(np.random.default_rng(0).random((8, 8, 8, 1)), jnp.float32),
    "label": jnp.arange(8, dtype=jnp.int32) % 3,
    "index": jnp.arange(8, dtype=jnp.uint32),
}
GRADIENT = OptimizerConfig(learning_rate=1.0, momentum=0.0, weight_decay=0.0)
# One step that subtracts the gradient.
step = partial(steps, batch=BATCH, seed=0, optimizer=GRADIENT)


def logits_of(model, variables, keys, images):
    return model.apply(variables, images, train=False, noise_key=keys)


def test_the_step_learns_from_the_perturbed_images():
    _, after, metrics = step(objectives=(Halving(1.0),))
    _, expected, other = step(batch=BATCH | {"image": 0.5 * BATCH["image"]})
    jax.tree.map(np.testing.assert_allclose, after.params, expected.params)
    np.testing.assert_allclose(metrics.sums.loss, other.sums.loss)


def test_a_perturbation_has_keys_of_its_own():
    """With those of the noise, it would know the draws that the network is trained with."""
    _, after, _ = step(objectives=(Drawing(1.0),))
    root = prng.fold(prng.stream(jax.random.key(0), "perturbation"), 0)
    images = drawn(prng.index_keys(root, BATCH["index"]))
    _, expected, _ = step(batch=BATCH | {"image": images})
    assert_close(after.params, expected.params, rtol=1e-5)


def test_the_loop_of_an_attack_is_in_the_fast_layout():
    """Out of it, CPUs take twice as long for a step; the step has no other gradient of images."""
    mesh = meshes.data_mesh(jax.devices()[:1])
    state = initial_state(EXPERIMENT, MODEL)

    def others(*objectives):
        experiment = dataclasses.replace(EXPERIMENT, objectives=objectives)
        step = make_train_step(MODEL, experiment, 3, mesh)
        return set(layouts(step, state, BATCH)) - {FAST}

    assert others(PGD("linf", 0.1, steps=2)) == others()


@pytest.mark.slow
def test_an_attack_sees_the_network_as_it_is():
    """The step of adversarial training is compared with a direct call of the attack."""
    attack = PGD("linf", 0.1, steps=2, random_start=True)
    before, after, _ = step(objectives=(attack,))
    root = prng.fold(prng.stream(jax.random.key(0), "perturbation"), before.step)
    keys = prng.index_keys(root, BATCH["index"])
    logits_fn = partial(logits_of, TinyNet(), before.variables)
    images = attack.perturb(keys, logits_fn, BATCH["image"], BATCH["label"])
    assert 0.05 < float(abs(images - BATCH["image"]).max()) <= 0.1 + 1e-6
    _, expected, _ = step(batch=BATCH | {"image": images})
    assert_close(after.params, expected.params, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_fast_attacks_the_network_in_training_mode():
    """Batch norm has the statistics of the images at the start, as in the authors' code."""
    attack, net = Fast(0.1), TinyNet(dropout=0.0)
    before, after, _ = step(net, objectives=(attack,))
    root = prng.fold(prng.stream(jax.random.key(0), "perturbation"), before.step)
    keys = prng.index_keys(root, BATCH["index"])

    def in_training(keys, images):
        return net.apply(
            before.variables, images, train=True, noise_key=keys, mutable=["batch_stats"]
        )[0]

    still = partial(logits_of, net, before.variables)
    images, others = (
        attack.perturb(keys, logits_fn, BATCH["image"], BATCH["label"])
        for logits_fn in (in_training, still)
    )
    assert np.mean(np.abs(images - others) > 1e-3) > 0.1
    _, expected, _ = step(net, batch=BATCH | {"image": images})
    assert_close(after.params, expected.params, rtol=1e-4, atol=1e-6)
    # The running values are those of one pass.
    assert_close(after.batch_stats, expected.batch_stats, rtol=1e-4, atol=1e-6)


def test_gaussian_image_noise_has_its_scale_and_share():
    images = jnp.full((400, 8, 8, 1), 0.5)
    keys = prng.index_keys(jax.random.key(0), jnp.arange(400))
    found = GaussianImageNoise(0.05, share=0.75).perturb(keys, images)
    changed = np.asarray(jnp.any(found != images, axis=(1, 2, 3)))
    # Four standard deviations of a binomial share.
    assert abs(changed.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 400)
    deviations = np.asarray(found - images)[changed]
    assert abs(deviations.std() - 0.05) < 0.001 and abs(deviations.mean()) < 0.002
    clipped = GaussianImageNoise(1.0, share=1.0).perturb(keys, images)
    assert clipped.min() == 0 and clipped.max() == 1
    # Rusak et al., 2020: half of the images stay clean.
    assert GaussianImageNoise(0.1).share == 0.5


TARGETS = {
    "images": BATCH["image"],
    "similarity": np.corrcoef(np.random.default_rng(1).random((8, 20))).astype(np.float32),
}


@pytest.mark.slow
def test_the_similarity_term_adds_its_gradient():
    config = Similarity("v1", alpha=3.0, layers=("pixels", "logits"), images=8, batch_size=8)
    before, after, metrics = step(
        FeaturesNet(), objectives=(config,), resources={"Similarity": TARGETS}
    )
    _, expected, other = step(FeaturesNet())
    # The loss that is reported is the classifier's.
    np.testing.assert_allclose(metrics.sums.loss, other.sums.loss, rtol=1e-6)
    np.testing.assert_array_equal(before.own["Similarity"], [0, 0])
    assert np.all(np.abs(after.own["Similarity"]) > 1e-4)
    np.testing.assert_allclose(np.sum(after.own["Similarity"]), 0, atol=1e-6)
    assert not np.allclose(after.params["conv"]["kernel"], expected.params["conv"]["kernel"])


def test_pixels_alone_give_the_network_no_gradient_and_the_weights_the_known_one():
    """The compared layer is the input, so the term does not depend on the network."""
    config = Similarity("v1", layers=("pixels",), images=8, batch_size=8)
    _, after, metrics = step(FeaturesNet(), objectives=(config,), resources={"Similarity": TARGETS})
    np.testing.assert_allclose(after.own["Similarity"], [0], atol=1e-6)
    _, without, plain = step(FeaturesNet())
    assert_close(after.params, without.params, rtol=1e-7, atol=1e-6)
    # The term is alpha times the mean over all pairs of the batch.
    ours = np.corrcoef(np.asarray(BATCH["image"], np.float64).reshape(8, -1))
    pairs = np.triu_indices(8, k=1)
    apart = np.arctanh(ours[pairs]) - np.arctanh(TARGETS["similarity"][pairs])
    term = config.alpha * np.mean(apart**2)
    np.testing.assert_allclose(metrics.numbers["Similarity.term"], term, rtol=1e-4)
    assert plain.numbers == {}


def test_layer_weights_are_no_part_of_the_network():
    config = Similarity("v1", layers=("pixels", "logits"), images=8, batch_size=8)
    state = initial_state(dataclasses.replace(EXPERIMENT, objectives=(config,)), FeaturesNet())
    assert set(state.own) == {"Similarity"} and "Similarity" not in state.variables["params"]
    assert set(dataclasses.replace(state, batch_stats={}).variables) == {"params"}


TRADES_LINF = TRADES(0.1, 0.03, steps=4, beta=3.0)


@pytest.mark.parametrize("attack", [TRADES_LINF, TRADES(0.5, 0.2, "l2", steps=4)])
def test_trades_stays_in_the_ball_and_raises_the_divergence(attack):
    model = TinyNet(dropout=0.0, noise=0.0)
    variables = model.init(jax.random.key(3), BATCH["image"])
    logits_fn = lambda keys, images: logits_of(model, variables, None, images)  # noqa: E731
    keys = prng.index_keys(jax.random.key(1), BATCH["index"])
    images = attack.perturb(keys, logits_fn, BATCH["image"], None)
    delta = np.asarray(images - BATCH["image"]).reshape(8, -1)
    sizes = np.linalg.norm(delta, ord=np.inf if attack.norm == "linf" else 2, axis=1)
    assert (sizes <= attack.eps + 1e-6).all() and (images >= 0).all() and (images <= 1).all()
    clean = logits_fn(keys, BATCH["image"])
    start = BATCH["image"] + 0.001
    further = divergence(clean, logits_fn(keys, images))
    assert (further > 5 * divergence(clean, logits_fn(keys, start))).all()


def context(**fields):
    """A context of nothing but some fields."""
    names = [field.name for field in dataclasses.fields(Context)]
    fields = {"name": "pair", "log": lambda *_: None, "cross_entropy": cross_entropy} | fields
    return Context(**dict.fromkeys(names) | fields)


QUIET = TinyNet(norm=False, dropout=0.0, noise=0.0)
NORMED = TinyNet(dropout=0.0, noise=0.0)


def log_softmax(logits):
    logits = np.asarray(logits, np.float64)
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def trades_in_numpy(clean, perturbed, labels, beta):
    """CrossEntropyLoss()(clean, y) + beta / N KLDivLoss(sum)(log q, p), p clean, q perturbed."""
    log_p, log_q = log_softmax(clean), log_softmax(perturbed)
    entropy = -log_p[np.arange(len(labels)), labels].mean()
    return entropy + beta / len(labels) * (np.exp(log_p) * (log_p - log_q)).sum()


def mart_in_numpy(clean, perturbed, labels, beta):
    """The loss of the authors' code, with their constants and their choice of another class."""
    rows, p, q = np.arange(len(labels)), np.exp(log_softmax(clean)), np.exp(log_softmax(perturbed))
    order = np.argsort(q, axis=1)
    other = np.where(order[:, -1] == labels, order[:, -2], order[:, -1])
    of_labels = -np.log(q[rows, labels]) - np.log(1.0001 - q[rows, other] + 1e-12)
    away = (p * (np.log(p) - np.log(q + 1e-12))).sum(axis=1)
    return of_labels.mean() + beta * (away * (1.0000001 - p[rows, labels])).mean()


@pytest.mark.parametrize(
    ("perturbation", "in_numpy"),
    [(TRADES(0.1, 0.03, beta=3.0), trades_in_numpy), (MART(0.1, 0.03, beta=5.0), mart_in_numpy)],
)
def test_the_losses_of_pairs_are_those_of_the_authors(perturbation, in_numpy):
    params = QUIET.init(jax.random.key(3), BATCH["image"])["params"]
    # The probabilities are neither alike nor 0 and 1, so that the divergence is a part of the loss.
    params["logits"]["kernel"] *= 4.0
    labels, moved = BATCH["label"], 0.2 * BATCH["image"]

    def loss(params):
        logits, other = (QUIET.apply({"params": params}, x) for x in (BATCH["image"], moved))
        plain = cross_entropy(logits, labels)
        seen = context(forward=lambda images: other)
        return jnp.mean(perturbation.losses(seen, BATCH | {"pair": moved}, logits, plain))

    clean, other = (QUIET.apply({"params": params}, x) for x in (BATCH["image"], moved))
    expected = in_numpy(clean, other, np.asarray(labels), perturbation.beta)
    np.testing.assert_allclose(loss(params), expected, rtol=1e-5)
    without = in_numpy(clean, other, np.asarray(labels), 0.0)
    assert expected - without > 0.1 * expected
    swapped = in_numpy(other, clean, np.asarray(labels), perturbation.beta)
    assert abs(swapped - expected) > 0.1
    # The authors' gradient passes through both images: it is that of the whole loss.
    rng = np.random.default_rng(2)
    direction = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), params)

    def value(step):
        moved_to = jax.tree.map(lambda x, d: x + step * d, params, direction)
        logits = (QUIET.apply({"params": moved_to}, x) for x in (BATCH["image"], moved))
        return in_numpy(*logits, np.asarray(labels), perturbation.beta)

    gradient = jax.grad(loss)(params)
    slope = sum(map(np.vdot, jax.tree.leaves(gradient), jax.tree.leaves(direction)))
    np.testing.assert_allclose(slope, (value(1e-3) - value(-1e-3)) / 2e-3, rtol=1e-2)


def test_both_images_of_a_pair_have_the_same_noise():
    """Else the divergence of images that are not perturbed would not be 0."""
    noisy = TinyNet(norm=False, dropout=0.0, noise=1.0)
    params = noisy.init(jax.random.key(3), BATCH["image"])["params"]
    batch = BATCH | {"TRADES": BATCH["image"]}
    found, plain = (
        loss_of(noisy, params, {}, batch, objectives=each)[0] for each in ((TRADES_LINF,), ())
    )
    np.testing.assert_allclose(found, plain, rtol=1e-6)


@pytest.mark.parametrize("attack", [TRADES(0.1, 1e-9, steps=1), MART(0.1, 1e-9, steps=1)])
def test_trades_and_mart_start_at_a_thousandth_of_a_normal_draw(attack):
    images = jnp.full((50, 8, 8, 1), 0.5)
    keys = prng.index_keys(jax.random.key(1), jnp.arange(50))
    logits_fn = lambda keys, images: jnp.mean(images, axis=(1, 2))  # noqa: E731
    delta = np.asarray(attack.perturb(keys, logits_fn, images, jnp.zeros(50, jnp.int32)) - images)
    assert abs(delta.std() / 0.001 - 1) < 0.05
    # Of 3,200 normal draws, .3 % are beyond three standard deviations.
    assert 1e-4 < np.mean(np.abs(delta) > 0.003) < 1e-2


def trades_attack_in_numpy(weights, images, delta, eps, step_size, steps, of_logits, noise=None):
    """The authors' loop for L-infinity against a linear classifier, from their start.

    The noise (steps + 1, N, classes) is added to the logits, that of the clean images first.
    """
    flat = images.reshape(len(images), -1).astype(np.float64)
    added = np.zeros((steps + 1, 1, 1)) if noise is None else noise
    log_p, moved = log_softmax(flat @ weights + added[0]), flat + delta.reshape(flat.shape)
    for number in range(steps):
        gradient = of_logits(log_p, log_softmax(moved @ weights + added[number + 1])) @ weights.T
        moved = np.clip(moved + step_size * np.sign(gradient), flat - eps, flat + eps)
        moved = np.clip(moved, 0, 1)
    return moved.reshape(images.shape)


def test_trades_climbs_the_divergence_from_the_clean_to_the_perturbed_image():
    """KL(p || q) has the gradient q - p in the logits of q. That of KL(q || p) is another one."""
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(64, 3)).astype(np.float32)
    logits_fn = lambda keys, images: images.reshape(-1, 64) @ weights  # noqa: E731
    images = jnp.asarray(0.3 + 0.4 * rng.random((16, 8, 8, 1)), jnp.float32)
    keys = prng.index_keys(jax.random.key(1), jnp.arange(16))
    start = TRADES(0.3, 1e-9, steps=1).perturb(keys, logits_fn, images, None) - images
    found = TRADES(0.3, 0.05, steps=8).perturb(keys, logits_fn, images, None)
    rest = np.asarray(images), np.asarray(start), 0.3, 0.05, 8

    def reversed_direction(log_p, log_q):
        q, away = np.exp(log_q), log_q - log_p
        return q * (away - (q * away).sum(axis=1, keepdims=True))

    forward = trades_attack_in_numpy(
        weights, *rest, lambda log_p, log_q: np.exp(log_q) - np.exp(log_p)
    )
    backward = trades_attack_in_numpy(weights, *rest, reversed_direction)
    # A sign of a gradient near 0 may be rounded.
    assert np.mean(np.abs(found - forward) < 1e-5) > 0.99
    assert np.mean(np.abs(found - backward) < 1e-5) < 0.95


def test_each_pass_of_trades_draws_noise_of_its_own():
    """The draws are those of named streams: start, clean, and noise for each step."""
    rng, steps = np.random.default_rng(0), 6
    weights = rng.normal(size=(64, 3)).astype(np.float32)
    drawn = jax.vmap(lambda key: 2.0 * jax.random.normal(key, (3,)))
    noisy = lambda keys, images: images.reshape(-1, 64) @ weights + drawn(keys)  # noqa: E731
    images = jnp.asarray(0.3 + 0.4 * rng.random((16, 8, 8, 1)), jnp.float32)
    keys = prng.index_keys(jax.random.key(1), jnp.arange(16))
    start_keys, clean_keys, step_keys = (prng.stream(keys, x) for x in ("start", "clean", "noise"))
    found = TRADES(0.3, 0.05, steps=steps).perturb(keys, noisy, images, None)
    start = 0.001 * jax.vmap(lambda key: jax.random.normal(key, (8, 8, 1)))(start_keys)
    in_steps = [drawn(prng.fold(step_keys, number)) for number in range(steps)]
    expected = trades_attack_in_numpy(
        weights, np.asarray(images), np.asarray(start), 0.3, 0.05, steps,
        lambda log_p, log_q: np.exp(log_q) - np.exp(log_p),
        np.stack([drawn(clean_keys), *in_steps]),
    )  # fmt: skip
    # A sign of a gradient near 0 may be rounded.
    assert np.mean(np.abs(found - expected) < 1e-5) > 0.99


@pytest.mark.parametrize("clipped", [True, False])
def test_fast_makes_one_step_of_five_quarters_from_an_even_start(clipped):
    """Behind it, five of eight pixels are at the radius, the others even from a quarter of it."""
    images = jnp.full((50, 8, 8, 1), 0.5).at[:, :4].set(0.0)
    # The loss of class 0 grows with each pixel.
    logits_fn = lambda keys, images: jnp.stack([-images.sum((1, 2, 3)), jnp.zeros(50)], 1)  # noqa: E731
    keys = prng.index_keys(jax.random.key(1), jnp.arange(50))
    attack = Fast(0.1, clipped_start=clipped)
    moved = attack.perturb(keys, logits_fn, images, jnp.zeros(50, jnp.int32)) - images
    dark, grey = np.asarray(moved[:, :4]), np.asarray(moved[:, 4:])
    if clipped:
        # At pixels of 0 the start is not negative, so the step always reaches the radius.
        np.testing.assert_allclose(dark, 0.1, atol=1e-6)
    for part in [grey] if clipped else [grey, dark]:
        full = part > 0.1 - 1e-6
        # Four standard deviations.
        assert abs(full.mean() - 5 / 8) < 4 * np.sqrt(15 / 64 / part.size)
        even = (part[~full] - 0.025) / 0.075
        assert -1e-5 < even.min() < 0.01 and 0.99 < even.max() < 1
        assert abs(even.mean() - 0.5) < 4 / np.sqrt(12 * even.size)


def test_mart_attacks_the_cross_entropy_of_the_label():
    """Against a linear classifier, all steps have the sign of the same gradient."""
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(64, 2)), jnp.float32)
    logits_fn = lambda keys, images: images.reshape(-1, 64) @ weights  # noqa: E731
    images, labels = BATCH["image"], BATCH["label"] % 2
    keys = prng.index_keys(jax.random.key(1), BATCH["index"])
    found = MART(0.1, 0.03, steps=10).perturb(keys, logits_fn, images, labels)
    towards = np.sign(np.asarray(weights[:, 1] - weights[:, 0])).reshape(1, 8, 8, 1)
    signs = np.where(np.asarray(labels)[:, None, None, None] == 0, towards, -towards)
    expected = np.clip(np.asarray(images) + 0.1 * signs, 0, 1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def gradient_at(params, images=BATCH["image"]):
    """The loss of the quiet network and its gradient, on a batch."""
    (loss, _), gradients = of_loss(QUIET, params, {}, BATCH | {"image": images})
    return loss, gradients


def of_loss(net, params, batch_stats, batch, **fields):
    """The loss, with the batch statistics behind it, and the gradient."""
    value = partial(loss_of, net, batch_stats=batch_stats, batch=batch)
    fields = {"optimizer": GRADIENT, "seed": 0} | fields
    return jax.value_and_grad(lambda params: value(params, **fields), has_aux=True)(params)


def test_awp_has_the_gradient_at_worse_kernels_and_restores_them():
    before, after, _ = step(NORMED, objectives=(AWP(0.1),))
    (first, _), gradients = of_loss(NORMED, before.params, before.batch_stats, BATCH)

    def ascended(path, weight, gradient):
        if weight.ndim == 1:
            return weight
        return weight + 0.1 * np.linalg.norm(weight) / np.linalg.norm(gradient) * gradient

    moved = jax.tree_util.tree_map_with_path(ascended, before.params, gradients)
    (worse, stats), at_moved = of_loss(NORMED, moved, before.batch_stats, BATCH)
    assert worse > first + 1e-3
    # The learning rate is 1. The weights from which the update leads are those before the ascent.
    expected = jax.tree.map(jnp.subtract, before.params, at_moved)
    assert_close(after.params, expected, rtol=1e-4, atol=1e-5)
    # The pass that finds the ascent is that of a proxy, whose statistics are not kept.
    assert_close(after.batch_stats, stats, rtol=1e-5, atol=1e-6)


def test_awp_moves_kernels_by_a_share_of_their_norm_and_nothing_else():
    """The authors leave out vectors, and tensors whose name has no "weight"."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    params = {
        "tokens": {"position": draw(1, 5, 3), "class_token": draw(1, 1, 3)},
        "fc": {"kernel": draw(3, 4), "bias": draw(4)},
        "norm": {"scale": draw(3)},
    }
    moved = AWP(0.1).ascended(params, jax.tree.map(lambda x: 5.0 * x**2, params), jnp.bool_(True))
    away = jax.tree.map(lambda a, b: float(jnp.linalg.norm(a - b)), moved, params)
    kernel = away["fc"].pop("kernel")
    assert kernel == pytest.approx(0.1 * np.linalg.norm(params["fc"]["kernel"]), rel=1e-5)
    assert set(jax.tree.leaves(away)) == {0.0}


def test_awp_waits_for_its_warm_up():
    waiting, plain, active = (
        step(QUIET, number=2, objectives=each)[1].params["conv"]["kernel"]
        for each in ((AWP(0.1, warmup_epochs=2 / 3),), (), (AWP(0.1, warmup_epochs=1 / 3),))
    )
    np.testing.assert_allclose(waiting, plain, rtol=1e-6)
    assert np.abs(active - plain).max() > 1e-5


def test_free_steps_along_one_gradient_and_keeps_the_perturbation():
    before, first, _ = step(QUIET, objectives=(Free(0.1, step_size=0.04, replays=2),))
    _, second, _ = step(QUIET, number=2, objectives=(Free(0.1, step_size=0.04, replays=2),))
    np.testing.assert_array_equal(before.objectives["Free"], 0)
    ascent = jax.grad(lambda images: gradient_at(before.params, images)[0])(BATCH["image"])
    images = np.asarray(BATCH["image"])
    moved = np.clip(images + 0.04 * np.sign(ascent), 0, 1) - images
    np.testing.assert_allclose(first.objectives["Free"], moved, atol=1e-6)
    # The first step is at the clean images, the second at those that the first has perturbed.
    for start, end, delta in ((before, first, 0.0), (first, second, first.objectives["Free"])):
        gradients = gradient_at(start.params, BATCH["image"] + delta)[1]
        expected = jax.tree.map(jnp.subtract, start.params, gradients)
        assert_close(end.params, expected, rtol=1e-5, atol=1e-6)
    again = jax.grad(lambda images: gradient_at(first.params, images)[0])(
        images + first.objectives["Free"]
    )
    moved = np.clip(first.objectives["Free"] + 0.04 * np.sign(again), -0.1, 0.1)
    moved = np.clip(images + moved, 0, 1) - images
    # A sign of a gradient near 0 may be rounded.
    assert np.mean(np.abs(second.objectives["Free"] - moved) < 1e-5) > 0.98


def test_free_stays_in_the_ball_and_the_box():
    images = jnp.asarray([0.0, 0.05, 0.5, 1.0]).reshape(4, 1, 1, 1)
    delta, gradient = jnp.full((4, 1, 1, 1), -0.08), jnp.full((4, 1, 1, 1), -3.0)
    moved = Free(0.1).after(delta, gradient, images)
    np.testing.assert_allclose(moved.ravel(), [0.0, -0.05, -0.1, -0.1], atol=1e-7)


def test_free_replays_each_batch_also_behind_a_resumption(tiny):
    source = data.load("tiny", "train")

    def first(number, skip, **fields):
        batches = loop.train_batches(dataclasses.replace(tiny, **fields), source, skip)
        with contextlib.closing(batches):
            return [next(batches)["index"] for _ in range(number)]

    plain = first(3, 0)
    replayed = first(8, 0, objectives=(Free(0.1, replays=3),))
    np.testing.assert_array_equal(replayed, np.repeat(plain, 3, axis=0)[:8])
    resumed = first(4, 4, objectives=(Free(0.1, replays=3),))
    np.testing.assert_array_equal(resumed, replayed[4:])


@pytest.mark.slow
def test_a_run_of_free_has_more_steps_and_watches_its_robustness(tiny, tmp_path):
    free = dataclasses.replace(
        tiny, steps=None, epochs=1, objectives=(Free(0.1, replays=2),), log_every=1
    )
    outcome = training.train(free, tmp_path / "free")
    assert outcome.step == 2 * 3 and outcome.finished
    (validation,) = [each for each in log(tmp_path / "free") if each["kind"] == "validation"]
    assert validation["epoch"] == 1 and 0 <= validation["robust_accuracy"] <= 1


def test_the_accuracy_under_attack_is_that_of_the_attacked_images():
    """At a radius of 1, PGD turns every answer of a classifier by brightness."""

    class Brightness(TinyNet):
        def __call__(self, images, train=False, noise_key=None):
            bright = jnp.mean(images, axis=(1, 2, 3))[:, None]
            return jnp.concatenate([jnp.full_like(bright, 0.5), bright], axis=1)

    labels = (BATCH["image"].mean(axis=(1, 2, 3)) > 0.5).astype(jnp.int32)
    batch = BATCH | {"label": labels, "mask": jnp.ones(8, bool)}
    mesh = meshes.data_mesh(jax.devices()[:1])
    variables = {"params": {}}
    for attack, correct in ((None, 8), (PGD("linf", 1.0, steps=10), 0)):
        eval_step = make_eval_step(Brightness(), 0, mesh, attack)
        assert int(eval_step(variables, batch, None).correct) == correct


@pytest.mark.parametrize(
    "make",
    [
        lambda: Fast(8.0),
        lambda: TRADES(8.0, step_size=2 / 255),
        lambda: TRADES(8 / 255, step_size=8.0),
        lambda: MART(8.0, step_size=8.0),
        lambda: Free(8.0),
        lambda: Free(8 / 255, step_size=8.0),
        lambda: GaussianImageNoise(8.0),
    ],
)
def test_a_radius_or_step_in_levels_of_grey_is_not_trained_with(make):
    with pytest.raises(ValueError, match="at most 1.* did you mean 8/255"):
        make()
    assert TRADES(8.0, step_size=2.0, norm="l2").eps == 8.0


def test_a_step_of_length_zero_is_refused():
    with pytest.raises(ValueError, match="step_size must be .*> 0"):
        Free(0.1, step_size=0.0)


@pytest.mark.slow
@pytest.mark.parametrize("attack", [TRADES_LINF, MART(0.1, 0.03, steps=4)])
def test_trades_and_mart_attack_in_evaluation_mode_and_learn_in_training_mode(attack):
    before, after, _ = step(NORMED, objectives=(attack,))
    keys = prng.index_keys(
        prng.fold(prng.stream(jax.random.key(0), "perturbation"), 0), BATCH["index"]
    )
    logits_fn = partial(logits_of, NORMED, before.variables)
    images = attack.perturb(keys, logits_fn, BATCH["image"], BATCH["label"])
    (_, stats), gradients = of_loss(
        NORMED, before.params, before.batch_stats, BATCH | {type(attack).__name__: images},
        objectives=(attack,),
    )  # fmt: skip
    expected = jax.tree.map(jnp.subtract, before.params, gradients)
    assert_close(after.params, expected, rtol=1e-4, atol=1e-5)
    # Both images pass in training mode.
    assert_close(after.batch_stats, stats, rtol=1e-5, atol=1e-6)
    one_pass = of_loss(NORMED, before.params, before.batch_stats, BATCH)[0][1]
    assert np.abs(stats["norm"]["mean"] - one_pass["norm"]["mean"]).max() > 1e-4
