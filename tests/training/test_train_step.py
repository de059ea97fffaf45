"""The compiled step: the same on any mesh, a function of (seed, step, examples) alone."""

from dataclasses import replace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_source

from tests.networks import TinyNet
from vone_jax import mesh as meshes
from vone_jax import models
from vone_jax.training import (
    Constant,
    Cosine,
    DataConfig,
    Experiment,
    OptimizerConfig,
)
from vone_jax.training.objective import cross_entropy
from vone_jax.training.step import Passes, Scene, initial_state, make_eval_step, make_train_step

EXPERIMENT = Experiment(
    name="step",
    model=models.Spec(name="resnet18", image_size=8, in_channels=1),
    data=DataConfig(source="tiny", batch_size=8),
    optimizer=OptimizerConfig(
        learning_rate=0.1, schedule=Cosine(), weight_decay=1e-3, label_smoothing=0.1
    ),
    steps=6,
    seed=7,
)
MODEL = TinyNet()


def host_batch(order=slice(None)):
    source = tiny_source("train")
    return {
        "image": np.stack([source[i]["image"] for i in range(8)]).astype(np.float32)[order] / 255,
        "label": np.array([source[i]["label"] for i in range(8)], np.int32)[order],
        "index": np.arange(8, dtype=np.uint32)[order],
    }


def steps(model=MODEL, devices=None, number=1, batch=None, resources=None, **fields):
    """Return the states before and after steps on the same batch, and the metrics of the last.

    ``fields`` replace those of ``EXPERIMENT``. The default is one device.
    """
    experiment = replace(EXPERIMENT, **fields)
    mesh = meshes.data_mesh(devices or jax.devices()[:1])
    step = make_train_step(model, experiment, 3, mesh, resources)
    before = meshes.fetch(initial_state(experiment, model))
    state, metrics = meshes.replicate(mesh, before), None
    for _ in range(number):
        placed = meshes.shard_batch(mesh, host_batch() if batch is None else batch)
        state, metrics = step(state, placed)
    return before, meshes.fetch(state), meshes.fetch(metrics)


def loss_of(model, params, batch_stats, batch, number=0, **fields):
    """The mean loss of a batch in training mode, and the statistics of batch norm after it."""
    experiment = replace(EXPERIMENT, **fields)
    passes = Passes(model, experiment, 3, meshes.data_mesh(jax.devices()[:1]))
    scene = Scene(jnp.int32(number), {}, batch_stats, {}, {})
    mean, (_, updated, _) = passes.loss({"network": params}, batch["image"], scene, batch)
    return mean, updated


class OnMesh:
    """The functions of a run on some devices."""

    def __init__(self, devices):
        self.mesh = meshes.data_mesh(devices)
        self.step = make_train_step(MODEL, EXPERIMENT, 3, self.mesh)
        self.eval_step = make_eval_step(MODEL, EXPERIMENT.seed, self.mesh)

    def start(self):
        state = initial_state(EXPERIMENT, MODEL)
        return meshes.replicate(self.mesh, meshes.fetch(state))

    def shard(self, batch):
        return meshes.shard_batch(self.mesh, batch)


@pytest.fixture(scope="module")
def one():
    return OnMesh(jax.devices()[:1])


@pytest.fixture(scope="module")
def four():
    return OnMesh(jax.devices())


def run(on, steps, batch=None):
    state, batch = on.start(), on.shard(host_batch() if batch is None else batch)
    metrics = None
    for _ in range(steps):
        state, metrics = on.step(state, batch)
    return meshes.fetch(state), meshes.fetch(metrics)


def assert_close(a, b, rtol, atol=None):
    atol = rtol if atol is None else atol
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=rtol, atol=atol), a, b)


def test_four_devices_do_what_one_does(one, four):
    """They agree up to the order of float32 sums; noise and dropout masks are the same."""
    (state1, metrics1), (state4, metrics4) = run(one, 4), run(four, 4)
    assert_close(state1, state4, 1e-5)
    assert_close(metrics1, metrics4, 1e-5)
    assert int(state4.step) == 4
    assert len(four.start().params["conv"]["kernel"].sharding.device_set) == 4


def test_a_step_trains_and_counts(one):
    first, metrics = run(one, 1)
    start = meshes.fetch(one.start())
    assert int(first.step) == 1
    assert int(metrics.sums.seen) == 8
    assert metrics.learning_rate == np.float32(0.1)
    assert metrics.gradient_norm > 0
    moved = jax.tree.map(lambda a, b: bool(np.any(a != b)), start.params, first.params)
    assert all(jax.tree.leaves(moved))
    assert np.isfinite(metrics.sums.loss)


def test_the_same_seed_gives_the_same_bits_and_another_step_other_noise(one):
    (first, _), (again, _) = run(one, 3), run(one, 3)
    jax.tree.map(np.testing.assert_array_equal, first, again)
    batch = one.shard(host_batch())
    state = one.start()
    _, shifted = one.step(state.replace(step=state.step + 1), batch)
    _, unshifted = run(one, 1)
    assert shifted.sums.loss != unshifted.sums.loss


def test_a_seed_gives_the_same_losses_as_before(one):
    """Expected are those of the commit fa2ef183, see ``tests/test_reproduction.py``."""
    assert run(one, 3)[1].sums.loss == pytest.approx(8.196278, rel=1e-5)
    batch = one.shard(host_batch() | {"mask": np.ones(8, bool)})
    validated = one.eval_step(one.start().variables, batch)
    assert validated.loss == pytest.approx(8.519140, rel=1e-5)


def test_a_step_goes_down_the_gradient_by_the_learning_rate():
    """Reference: the gradient of the loss of a network without noise, by ``jax.grad``."""
    model = TinyNet(norm=False, dropout=0.0, noise=0.0)
    plain = OptimizerConfig(learning_rate=0.25, momentum=0.0, weight_decay=0.0, schedule=Constant())
    before, after, metrics = steps(model, optimizer=plain)
    batch = host_batch()

    def loss(params):
        logits = model.apply({"params": params}, batch["image"], noise_key=None)
        return jnp.mean(cross_entropy(logits, jnp.asarray(batch["label"])))

    expected = jax.tree.map(lambda p, g: p - 0.25 * g, before.params, jax.grad(loss)(before.params))
    assert_close(after.params, expected, 1e-5)
    assert metrics.learning_rate == np.float32(0.25)


def test_moving_means_are_those_of_the_parameters_and_statistics():
    """The decay of step t is at most (1 + t) / (10 + t), so at first it is less than 0.15."""
    before, *_ = steps(number=0, ema_decay=0.15)
    states = [steps(number=number, ema_decay=0.15)[1] for number in (1, 2, 3)]
    mean = {"params": before.params, "batch_stats": before.batch_stats}
    for number, state in enumerate(states):
        decay = min(0.15, (1 + number) / (10 + number))
        now = {"params": state.params, "batch_stats": state.batch_stats}
        mean = jax.tree.map(lambda m, x, d=decay: d * m + (1 - d) * x, mean, now)
        assert_close(state.ema, mean, 1e-5)
    evaluated = states[-1].variables
    jax.tree.map(np.testing.assert_array_equal, evaluated, states[-1].ema)
    poisoned = host_batch()
    poisoned["image"][3] = np.nan
    before, after, _ = steps(batch=poisoned, ema_decay=0.5)
    jax.tree.map(np.testing.assert_array_equal, before.ema, after.ema)


def test_noise_belongs_to_examples_not_to_rows(one):
    """Without dropout, whose masks depend on the row, the order of a batch only reorders sums."""
    order = np.array([3, 1, 7, 0, 2, 6, 5, 4])

    def eval_sums(batch):
        batch |= {"mask": np.ones(8, bool)}
        return meshes.fetch(one.eval_step(one.start().variables, one.shard(batch)))

    plain, permuted = eval_sums(host_batch()), eval_sums(host_batch(order))
    assert_close(plain, permuted, 1e-6)
    renumbered = host_batch(order) | {"index": np.arange(8, dtype=np.uint32)}
    assert eval_sums(renumbered).loss != pytest.approx(plain.loss, rel=1e-6)


def test_validation_ignores_padded_rows(four):
    variables = four.start().variables
    batch = host_batch() | {"mask": np.arange(8) < 5}
    poisoned = {name: array.copy() for name, array in batch.items()}
    poisoned["image"][5:] = np.nan
    first, second = (
        meshes.fetch(four.eval_step(variables, four.shard(b))) for b in (batch, poisoned)
    )
    assert int(first.seen) == 5 and np.isfinite(second.loss)
    both = four.eval_step(variables, four.shard(batch), first)
    assert int(both.seen) == 10 and float(both.loss) == 2 * float(first.loss)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_the_noise_of_a_validation_is_of_the_seed(one):
    variables = one.start().variables
    batch = one.shard(host_batch() | {"mask": np.ones(8, bool)})
    other = make_eval_step(MODEL, EXPERIMENT.seed + 1, one.mesh)
    assert float(other(variables, batch).loss) != float(one.eval_step(variables, batch).loss)


def test_the_plateau_scales_the_rate(one):
    state = one.start()
    halved = state.plateau._replace(factor=jnp.float32(0.5))
    placed = meshes.replicate(one.mesh, meshes.fetch(halved))
    _, metrics = one.step(state.replace(plateau=placed), one.shard(host_batch()))
    assert metrics.learning_rate == np.float32(0.05)


def test_the_state_is_donated_and_the_step_compiled_once(four, caplog):
    batch = four.shard(host_batch())
    state, _ = four.step(four.start(), batch)
    with jax.log_compiles():
        for _ in range(2):
            previous = state
            state, _ = four.step(state, batch)
            assert previous.params["conv"]["kernel"].is_deleted()
        assert "Compiling" not in caplog.text
        # The log would show a compilation.
        jax.jit(jnp.negative)(jnp.ones(5))
    assert "Compiling" in caplog.text
    chex.assert_tree_all_finite(meshes.fetch(state.params))
