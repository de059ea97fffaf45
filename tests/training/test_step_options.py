"""Options of a step: parts of a batch, less memory, corruptions, low precision."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_perturbation import context
from test_train_step import EXPERIMENT, MODEL, assert_close, host_batch, steps

from tests.networks import TinyNet
from vone_jax import corruptions, models, prng, v1
from vone_jax import mesh as meshes
from vone_jax.training import Corruptions
from vone_jax.training.step import initial_state, make_train_step

ONE, FOUR = jax.devices()[:1], jax.devices()


# With noise per example, but without batch norm and dropout.
PLAIN = TinyNet(norm=False, dropout=0.0)


def run(model, devices=ONE, number=2, **options):
    """Return state and metrics after some steps on the same batch."""
    return steps(model, devices, number, **options)[1:]


@pytest.fixture(scope="module")
def plain():
    return run(PLAIN)


@pytest.mark.parametrize(
    ("parts", "devices"), [(2, ONE), pytest.param(2, FOUR, marks=pytest.mark.slow)]
)
def test_without_batch_norm_parts_of_a_batch_learn_as_the_batch(plain, parts, devices):
    state, metrics = run(PLAIN, devices, accumulation_steps=parts)
    assert_close(state, plain[0], 1e-6)
    assert_close(metrics, plain[1], 1e-5)
    assert int(metrics.sums.seen) == 8


@pytest.mark.slow
def test_parts_of_a_batch_learn_as_the_batch_on_explicit_axes(plain):
    mesh, experiment = jax.make_mesh((4,), ("data",)), replace(EXPERIMENT, accumulation_steps=2)
    step = make_train_step(PLAIN, experiment, 3, mesh)
    with jax.set_mesh(mesh):
        state = meshes.replicate(mesh, meshes.fetch(initial_state(experiment, PLAIN)))
        for _ in range(2):
            state, _ = step(state, meshes.shard_batch(mesh, host_batch()))
    assert_close(meshes.fetch(state), plain[0], 1e-6)


@pytest.mark.slow
def test_batch_norm_sees_one_part_after_the_other():
    """Reference: the network applied to the rows 0, 2, 4, 6 and then to 1, 3, 5, 7."""
    state, _ = run(MODEL, number=1, accumulation_steps=2)
    start = initial_state(EXPERIMENT, MODEL)
    noise_key = prng.fold(prng.stream(jax.random.key(7), "train noise"), 0)
    variables, batch = start.variables, host_batch()
    for rows in (slice(0, None, 2), slice(1, None, 2)):
        _, updated = MODEL.apply(
            variables,
            batch["image"][rows],
            train=True,
            noise_key=prng.index_keys(noise_key, batch["index"][rows]),
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        variables = variables | updated
    assert_close(state.batch_stats, variables["batch_stats"], 1e-6)


@pytest.mark.slow
def test_parts_do_not_depend_on_the_number_of_devices():
    one, four = (run(MODEL, devices, accumulation_steps=2) for devices in (ONE, FOUR))
    assert_close(one, four, 1e-5)


@pytest.mark.slow
def test_computing_again_gives_the_same_step():
    """The network has noise, dropout and batch norm: keys and statistics must be the same."""
    assert_close(run(MODEL, remat=True), run(MODEL), 1e-6)


def test_what_is_computed_again_is_in_the_program():
    """The test reads the program before XLA compiles it: on CPUs, XLA undoes the difference."""
    mesh = meshes.data_mesh(ONE)
    state = jax.eval_shape(lambda: initial_state(EXPERIMENT, MODEL))
    programs = [
        str(jax.make_jaxpr(make_train_step(MODEL, each, 3, mesh))(state, host_batch()))
        for each in (EXPERIMENT, replace(EXPERIMENT, remat=True))
    ]
    assert ["remat" in program for program in programs] == [False, True]


def test_a_step_that_is_not_finite_moves_only_the_counters():
    batch = host_batch()
    batch["image"][3] = np.nan
    start = initial_state(EXPERIMENT, MODEL)
    state, metrics = run(MODEL, batch=batch)
    assert not metrics.finite and int(state.step) == 2
    two = jnp.int32(2)
    expected = start.replace(step=two, skipped=two, last_skipped=two)
    jax.tree.map(np.testing.assert_array_equal, state, meshes.fetch(expected))
    assert run(MODEL)[1].finite


def test_a_change_is_bounded_with_the_factors_of_the_rates():
    optimizer = replace(EXPERIMENT.optimizer, rates=(("logits", 1e33),))
    state, metrics = run(PLAIN, number=1, optimizer=optimizer)
    assert not metrics.finite and np.abs(state.params["logits"]["kernel"]).max() < 10


def test_parts_of_a_batch_drop_other_units():
    """Else nothing would change where two parts are exchanged."""
    dropping = TinyNet(norm=False, dropout=0.5)
    losses = [
        run(dropping, number=1, batch=host_batch(order), accumulation_steps=2)[1].sums.loss
        for order in (np.arange(8), np.arange(8) ^ 1)
    ]
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


# Corruptions.

NAMES = ("gaussian_noise", "brightness")
KEY = jax.random.key(5)


@pytest.fixture(scope="module")
def images():
    return jax.random.uniform(jax.random.key(1), (64, 8, 8, 1))


def applied(config, key, batch):
    """The batch as an objective changes it that needs keys alone."""
    return config.batch(context(key=key, keys=prng.index_keys(key, batch["index"])), batch)


def batch_of(images, order):
    return {"image": images[order], "index": jnp.asarray(order, jnp.uint32)}


@pytest.fixture(scope="module")
def corrupted(images):
    """Return 64 images, each corrupted with probability 1/2, for several keys."""
    corrupt = jax.jit(partial(applied, Corruptions(NAMES, (1, 2), 0.5)))
    return lambda key, order: corrupt(key, batch_of(images, order))["image"]


def changed(before, after):
    return np.any(np.asarray(before) != np.asarray(after), axis=(1, 2, 3))


def test_one_corruption_at_probability_1_is_that_corruption(images):
    corrupt = partial(applied, Corruptions(("gaussian_noise",), (2, 2), 1.0))
    indices = jnp.arange(64, dtype=jnp.uint32)
    keys = prng.stream(prng.index_keys(KEY, indices), "draws")
    expected = corruptions.corrupt(keys, images, "gaussian_noise", 2)
    found = corrupt(KEY, batch_of(images, np.arange(64)))["image"]
    np.testing.assert_array_equal(found, expected)


def test_which_images_are_corrupted_does_not_depend_on_what_is_drawn_for_them(images, corrupted):
    order = np.arange(64)
    keys = prng.stream(prng.index_keys(KEY, jnp.asarray(order, jnp.uint32)), "chosen")
    chosen = jax.vmap(lambda key: jax.random.bernoulli(key, 0.5))(keys)
    np.testing.assert_array_equal(changed(images, corrupted(KEY, order)), chosen)


def test_an_image_gets_the_same_in_any_place_of_a_batch(corrupted):
    order = np.random.default_rng(0).permutation(64)
    plain, permuted = corrupted(KEY, np.arange(64)), corrupted(KEY, order)
    np.testing.assert_array_equal(np.asarray(plain)[order], permuted)


def test_steps_draw_all_corruptions(images, corrupted):
    """Both names and both severities occur among 40 keys: four values of the mean brightness."""
    seen = set()
    for number in range(40):
        after = np.asarray(corrupted(prng.fold(KEY, number), np.arange(64)))
        moved = changed(images, after)
        shift = float(np.median((after - np.asarray(images))[moved]))
        spread = float(np.std((after - np.asarray(images))[moved]))
        seen.add((round(shift, 1), round(spread, 2)))
    assert len(seen) >= 4


@pytest.mark.parametrize(("severity", "probability"), [(1, 1.0), (4, 1.0), (4, 0.25), (4, 0.0)])
def test_an_experiment_says_severity_and_probability(images, severity, probability):
    """Brightness draws nothing, so the images are those of ``corrupt``."""
    config = Corruptions(("brightness",), (severity, severity), probability)
    found = np.asarray(applied(config, KEY, batch_of(images, np.arange(64)))["image"])
    keys = prng.index_keys(KEY, jnp.arange(64, dtype=jnp.uint32))
    expected = np.asarray(corruptions.corrupt(keys, images, "brightness", severity))
    moved = changed(images, found)
    np.testing.assert_array_equal(found[moved], expected[moved])
    # Within three standard deviations of a binomial distribution.
    spread = np.sqrt(64 * probability * (1 - probability))
    assert abs(moved.sum() - 64 * probability) <= 3 * spread


@pytest.mark.slow
def test_a_step_learns_from_corrupted_images_on_any_mesh():
    corrupted = (Corruptions(NAMES),)
    one, four = (run(PLAIN, devices, objectives=corrupted) for devices in (ONE, FOUR))
    assert_close(one, four, 1e-5)
    clean = run(PLAIN)
    assert one[1].sums.loss != pytest.approx(clean[1].sums.loss, rel=1e-4)


@pytest.mark.slow
def test_bfloat16_layers_train_float32_parameters_and_statistics():
    """V1 and its noise are float32 in both networks, so their responses are equal."""
    config = v1.VOneBlockConfig(
        image_size=28, visual_degrees=1.0, kernel_size=9, stride=4, simple_channels=4,
        complex_channels=4, in_channels=1,
    )  # fmt: skip
    low, high = (
        models.create("vone_resnet18", 3, 28, 1, v1=config, width=2, dtype=dtype)
        for dtype in (jnp.bfloat16, jnp.float32)
    )
    step = make_train_step(low, EXPERIMENT, 3, meshes.data_mesh(ONE))
    images = jax.random.uniform(KEY, (8, 28, 28, 1))
    batch = host_batch() | {"image": images}
    larger = replace(EXPERIMENT, model=replace(EXPERIMENT.model, image_size=28))
    start = jax.eval_shape(lambda: initial_state(larger, low))
    state, metrics = jax.eval_shape(step, start, batch)
    leaves = jax.tree.leaves((state.params, state.batch_stats, state.opt_state))
    assert {leaf.dtype for leaf in (*leaves, metrics.sums.loss)} == {np.dtype(np.float32)}
    variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), start.variables)
    keys = prng.index_keys(KEY, jnp.arange(8, dtype=jnp.uint32))

    def responses(model):
        features = partial(model.apply, noise_key=keys, method="features")
        return jax.jit(lambda v: features(v, images)["v1"])(variables)

    first, second = responses(low), responses(high)
    assert first.dtype == jnp.float32 and np.ptp(first) > 0
    np.testing.assert_array_equal(first, second)
