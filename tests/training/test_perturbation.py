"""Training on perturbed images, and the similarity term, inside the compiled step."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_train_step import EXPERIMENT, MODEL, assert_close, steps

from tests.fast.test_jaxprs import FAST, layouts
from tests.networks import TinyNet
from vone_jax import mesh as meshes
from vone_jax import prng
from vone_jax.attacks import PGD
from vone_jax.training import TRADES, GaussianImageNoise, OptimizerConfig, Similarity, objectives
from vone_jax.training.objectives import WEIGHTS
from vone_jax.training.step import initial_state, make_loss, make_train_step


class Halving(GaussianImageNoise):
    """A perturbation that halves the images, so that its effect on the step can be computed."""

    def perturb(self, keys, logits_fn, images, labels):
        return 0.5 * images


class Drawing(GaussianImageNoise):
    """A perturbation that shows its keys: each image becomes what its key draws."""

    def perturb(self, keys, logits_fn, images, labels):
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
    _, after, metrics = step(perturbation=Halving(1.0))
    _, expected, other = step(batch=BATCH | {"image": 0.5 * BATCH["image"]})
    jax.tree.map(np.testing.assert_allclose, after.params, expected.params)
    np.testing.assert_allclose(metrics.sums.loss, other.sums.loss)


def test_a_perturbation_has_keys_of_its_own():
    """With those of the noise, it would know the draws that the network is trained with."""
    _, after, _ = step(perturbation=Drawing(1.0))
    root = prng.fold(prng.stream(jax.random.key(0), "perturbation"), 0)
    images = drawn(prng.index_keys(root, BATCH["index"]))
    _, expected, _ = step(batch=BATCH | {"image": images})
    assert_close(after.params, expected.params, rtol=1e-5)


def test_the_loop_of_an_attack_is_in_the_fast_layout():
    """Out of it, CPUs take twice as long for a step; the step has no other gradient of images."""
    mesh = meshes.data_mesh(jax.devices()[:1])
    state = initial_state(EXPERIMENT, MODEL)

    def others(perturbation):
        experiment = dataclasses.replace(EXPERIMENT, perturbation=perturbation)
        step = make_train_step(MODEL, experiment, 3, mesh)
        return set(layouts(step, state, BATCH)) - {FAST}

    assert others(PGD("linf", 0.1, steps=2)) == others(None)


@pytest.mark.slow
def test_an_attack_sees_the_network_as_it_is():
    """The step of adversarial training is compared with a direct call of the attack."""
    attack = PGD("linf", 0.1, steps=2, random_start=True)
    before, after, _ = step(perturbation=attack)
    root = prng.fold(prng.stream(jax.random.key(0), "perturbation"), before.step)
    keys = prng.index_keys(root, BATCH["index"])
    logits_fn = partial(logits_of, TinyNet(), before.variables)
    images = attack.perturb(keys, logits_fn, BATCH["image"], BATCH["label"])
    assert 0.05 < float(abs(images - BATCH["image"]).max()) <= 0.1 + 1e-6
    _, expected, _ = step(batch=BATCH | {"image": images})
    assert_close(after.params, expected.params, rtol=1e-4, atol=1e-6)


def test_gaussian_image_noise_has_its_scale_and_share():
    images = jnp.full((400, 8, 8, 1), 0.5)
    keys = prng.index_keys(jax.random.key(0), jnp.arange(400))
    found = GaussianImageNoise(0.05, share=0.75).perturb(keys, None, images, None)
    changed = np.asarray(jnp.any(found != images, axis=(1, 2, 3)))
    # Four standard deviations of a binomial share.
    assert abs(changed.mean() - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 400)
    deviations = np.asarray(found - images)[changed]
    assert abs(deviations.std() - 0.05) < 0.001 and abs(deviations.mean()) < 0.002
    clipped = GaussianImageNoise(5.0, share=1.0).perturb(
        prng.index_keys(jax.random.key(0), jnp.arange(400)), None, images, None
    )
    assert clipped.min() == 0 and clipped.max() == 1
    # Rusak et al., 2020: half of the images stay clean.
    assert GaussianImageNoise(0.1).share == 0.5


TARGETS = {
    "images": BATCH["image"],
    "similarity": np.corrcoef(np.random.default_rng(1).random((8, 20))).astype(np.float32),
}


@pytest.mark.slow
def test_the_similarity_term_adds_its_gradient():
    config = Similarity("v1", alpha=3.0, layers=("pixels", "logits"), images=8, batch=8)
    before, after, metrics = step(FeaturesNet(), targets=TARGETS, similarity=config)
    _, expected, other = step(FeaturesNet())
    # The loss that is reported is the classifier's.
    np.testing.assert_allclose(metrics.sums.loss, other.sums.loss, rtol=1e-6)
    np.testing.assert_array_equal(before.params[WEIGHTS], [0, 0])
    assert np.all(np.abs(after.params[WEIGHTS]) > 1e-4)
    np.testing.assert_allclose(np.sum(after.params[WEIGHTS]), 0, atol=1e-6)
    assert not np.allclose(after.params["conv"]["kernel"], expected.params["conv"]["kernel"])


def test_pixels_alone_give_the_network_no_gradient_and_the_weights_the_known_one():
    """The compared layer is the input, so the term does not depend on the network."""
    config = Similarity("v1", layers=("pixels",), images=8, batch=8)
    _, after, metrics = step(FeaturesNet(), targets=TARGETS, similarity=config)
    after = after.params
    np.testing.assert_allclose(after.pop(WEIGHTS), [0], atol=1e-6)
    _, without, plain = step(FeaturesNet())
    assert_close(after, without.params, rtol=1e-7, atol=1e-6)
    # The term is alpha times the mean over all pairs of the batch.
    ours = np.corrcoef(np.asarray(BATCH["image"], np.float64).reshape(8, -1))
    pairs = np.triu_indices(8, k=1)
    apart = np.arctanh(ours[pairs]) - np.arctanh(TARGETS["similarity"][pairs])
    np.testing.assert_allclose(metrics.similarity, config.alpha * np.mean(apart**2), rtol=1e-4)
    assert plain.similarity is None


def test_layer_weights_are_no_part_of_the_network():
    config = Similarity("v1", layers=("pixels", "logits"), images=8, batch=8)
    state = initial_state(dataclasses.replace(EXPERIMENT, similarity=config), FeaturesNet())
    assert WEIGHTS in state.params and WEIGHTS not in state.variables["params"]
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
    further = objectives.divergence(clean, logits_fn(keys, images), 1.0)
    assert (further > 5 * objectives.divergence(clean, logits_fn(keys, start), 1.0)).all()


def test_the_loss_of_trades_is_that_of_labels_and_divergence():
    model = TinyNet(norm=False, dropout=0.0, noise=0.0)
    experiment = dataclasses.replace(EXPERIMENT, perturbation=TRADES_LINF)
    params = model.init(jax.random.key(3), BATCH["image"])["params"]
    moved = jnp.clip(BATCH["image"] + 0.05, 0, 1)
    keys = jax.random.key(0), jax.random.key(1)
    found, _ = make_loss(model, experiment)(params, {}, {}, BATCH | {"perturbed": moved}, *keys)
    clean, other = (model.apply({"params": params}, x) for x in (BATCH["image"], moved))
    smoothing = experiment.optimizer.label_smoothing
    expected = objectives.cross_entropy(clean, BATCH["label"], smoothing)
    expected += 3.0 * objectives.divergence(clean, other, 1.0)
    np.testing.assert_allclose(found, jnp.mean(expected), rtol=1e-5)


@pytest.mark.slow
def test_a_step_of_trades_trains():
    _, after, metrics = step(perturbation=TRADES_LINF, optimizer=OptimizerConfig(learning_rate=0.1))
    assert metrics.finite and metrics.gradient_norm > 0
