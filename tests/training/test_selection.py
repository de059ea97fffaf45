"""Frozen parts and learning rates by part: what patterns mean, and what a step then changes."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from test_perturbation import FeaturesNet
from test_train_step import EXPERIMENT, MODEL, host_batch, steps

from vone_jax import mesh as meshes
from vone_jax import training
from vone_jax.attacks import PGD
from vone_jax.training import OptimizerConfig, Similarity
from vone_jax.training.objective import cross_entropy, variables_of
from vone_jax.training.optimizer import matches
from vone_jax.training.step import initial_state, make_train_step

# Decay, momentum and clipping, none of which may reach a frozen parameter.
OPTIMIZER = OptimizerConfig(learning_rate=0.1, weight_decay=0.5, gradient_clip=1.0)


def run(model=MODEL, number=3, **options):
    """Return the states before and after some steps on the same batch."""
    before, after, metrics = steps(model, number=number, **{"optimizer": OPTIMIZER, **options})
    assert metrics.finite
    return before, after


def changed(before, after):
    """Return the paths of the parameters and running values that are not equal bit for bit."""
    return {
        "/".join(path)
        for old, new in ((before.params, after.params), (before.batch_stats, after.batch_stats))
        for path in flatten_dict(old)
        if not np.array_equal(flatten_dict(old)[path], flatten_dict(new)[path])
    }


EVERYTHING = {
    "conv/kernel", "norm/scale", "norm/bias", "norm/mean", "norm/var",
    "logits/kernel", "logits/bias",
}  # fmt: skip


@pytest.mark.parametrize(
    ("freeze", "kept"),
    [
        ((), set()),
        # Running values alone: a batch norm that is trained, but keeps its statistics.
        (("*/var",), {"norm/mean", "norm/var"}),
        (("conv", "norm", "*/bias"), EVERYTHING - {"logits/kernel"}),
    ],
)
def test_frozen_variables_keep_their_bits_and_all_others_change(freeze, kept):
    before, after = run(freeze=freeze)
    assert changed(before, after) == EVERYTHING - kept


@pytest.mark.parametrize(
    "fields",
    [
        {"accumulation_steps": 2, "remat": True, "devices": jax.devices()},
        {"objectives": (PGD("linf", eps=0.1, steps=2),)},
    ],
)
def test_other_options_of_a_step_do_not_touch_frozen_parts(fields):
    before, after = run(freeze=("conv", "norm"), **fields)
    assert changed(before, after) == {"logits/kernel", "logits/bias"}


@pytest.mark.slow
def test_the_similarity_term_does_not_touch_frozen_parts():
    rng = np.random.default_rng(1)
    images = jnp.asarray(rng.random((4, 8, 8, 1)), jnp.float32)
    targets = {"images": images, "similarity": jnp.eye(4)}
    term = Similarity(target="pixels", layers=("pixels", "logits"), images=4, batch_size=4)
    resources = {"Similarity": targets}
    fields = {"model": FeaturesNet(), "resources": resources, "objectives": (term,)}
    before, after = run(freeze=("conv", "norm"), **fields)
    assert changed(before, after) == {"logits/kernel", "logits/bias"}
    assert np.any(after.own["Similarity"] != before.own["Similarity"])
    before, after = run(freeze=("logits",), **fields)
    assert changed(before, after) == EVERYTHING - {"logits/kernel", "logits/bias"}


def test_gradients_of_frozen_parameters_are_not_computed():
    mesh = meshes.data_mesh(jax.devices()[:1])
    programs = []
    for freeze in ((), ("conv",)):
        experiment = replace(EXPERIMENT, freeze=freeze)
        state = jax.eval_shape(lambda e=experiment: initial_state(e, MODEL))
        step = make_train_step(MODEL, experiment, 3, mesh)
        programs.append(str(jax.make_jaxpr(step)(state, host_batch())))
    # The first layer has a forward pass and a gradient of its kernel.
    assert [program.count("= conv_general_dilated") for program in programs] == [2, 1]


@pytest.mark.slow
def test_a_frozen_batch_norm_uses_its_running_values():
    """Reference: the gradient of a network whose batch norms are all in evaluation mode."""
    plain = OptimizerConfig(learning_rate=1.0, momentum=0.0, weight_decay=0.0)

    # With running values unlike those of the batch.
    experiment = replace(EXPERIMENT, optimizer=plain, freeze=("norm",))
    mesh = meshes.data_mesh(jax.devices()[:1])
    state = initial_state(experiment, MODEL)
    stats = {"norm": {"mean": jnp.full(4, 0.3), "var": jnp.full(4, 2.5)}}
    state = meshes.fetch(state.replace(batch_stats=stats))
    batch = host_batch()

    def loss(params):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("flax.linen.Dropout.__call__", lambda self, x: x)
            logits = MODEL.apply(variables_of(params, stats), batch["image"])
        return jnp.mean(cross_entropy(logits, jnp.asarray(batch["label"]), plain.label_smoothing))

    expected = jax.grad(loss)(state.params)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("flax.linen.Dropout.__call__", lambda self, x: x)
        patch.setattr(jax.random, "normal", lambda key, shape: jnp.zeros(shape))
        step = make_train_step(MODEL, experiment, 3, mesh)
        after, _ = step(meshes.replicate(mesh, state), meshes.shard_batch(mesh, batch))
    for name in ("conv", "logits"):
        jax.tree.map(
            lambda old, new, g: np.testing.assert_allclose(old - new, g, rtol=1e-4, atol=1e-6),
            state.params[name], meshes.fetch(after.params)[name], expected[name],
        )  # fmt: skip


def test_rates_of_parts_are_those_of_parameter_groups_in_pytorch():
    """Two steps by hand: v = m v + g + d p; p = p - rate * factor * v."""
    config = replace(OPTIMIZER, momentum=0.9, gradient_clip=None, schedule=training.Constant())
    rates = (("*", 0.5), ("logits", 10.0), ("logits/bias", 3.0))
    factors = {"conv": 0.5, "norm": 0.5, "logits": 10.0}
    plain = replace(config, momentum=0.0, weight_decay=0.0, learning_rate=1.0)

    def gradient(state):
        """Read the gradient off a step of rate 1 from the given state."""
        mesh = meshes.data_mesh(jax.devices()[:1])
        fields = replace(EXPERIMENT, optimizer=plain)
        start = initial_state(fields, MODEL).replace(
            step=state.step, params=state.params, batch_stats=state.batch_stats
        )
        placed = meshes.replicate(mesh, meshes.fetch(start))
        batch = meshes.shard_batch(mesh, host_batch())
        after, _ = make_train_step(MODEL, fields, 3, mesh)(placed, batch)
        return jax.tree.map(np.subtract, state.params, meshes.fetch(after.params))

    before, first = run(optimizer=replace(config, rates=rates), number=1)
    _, second = run(optimizer=replace(config, rates=rates), number=2)
    velocity = jax.tree.map(np.zeros_like, before.params)
    params = before.params
    for state, after in ((before, first), (first, second)):
        velocity = jax.tree.map(
            lambda v, g, p: 0.9 * v + g + 0.5 * p, velocity, gradient(state), params
        )
        for (module, leaf), value in flatten_dict(params).items():
            factor = 3.0 if (module, leaf) == ("logits", "bias") else factors[module]
            expected = value - 0.1 * factor * velocity[module][leaf]
            got = after.params[module][leaf]
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
        params = after.params


def test_a_pattern_means_variables_or_modules():
    def chosen(pattern):
        paths = (
            "stem/conv1/kernel",
            "back_end/layer1_0/conv1/kernel",
            "back_end/layer1_0/bn1/mean",
        )
        return [path.split("/")[-2] for path in paths if matches(path, pattern)]

    assert chosen("back_end/layer1*") == ["conv1", "bn1"]
    assert chosen("back_end/layer1_0") == ["conv1", "bn1"]
    assert chosen("back_end/layer1") == chosen("layer1*") == chosen("conv1") == []
    assert chosen("*/conv1") == ["conv1", "conv1"]
    assert chosen("*/kernel") == ["conv1", "conv1"]
    assert chosen("back_end/layer[12]_0/bn1/mean") == ["bn1"]


@pytest.mark.parametrize(
    ("freeze", "rates", "message"),
    [
        (("conv", "nrom*"), (), "freeze: nothing .*did you mean 'norm'"),
        (("conv", "norm", "logits"), (), "freeze must leave a parameter to train"),
        # Running values have no learning rate.
        ((), (("norm/mean", 10.0),), "optimizer.rates: nothing .* 'norm/mean'"),
    ],
)
def test_patterns_that_mean_nothing_are_refused(tiny, tmp_path, freeze, rates, message):
    optimizer = replace(tiny.optimizer, rates=rates)
    with pytest.raises(ValueError, match=message):
        training.train(replace(tiny, freeze=freeze, optimizer=optimizer), tmp_path)


def test_frozen_parameters_are_told_and_do_not_count_as_trained(tiny, tmp_path, capsys):
    trained, told = [], []
    for name, freeze in (("whole", ()), ("partly", ("logits",))):
        training.train(
            replace(tiny, freeze=freeze), tmp_path / name, stop=lambda: True, progress=True
        )
        trained.append(training.read_run(tmp_path / name).parameters)
        told.append(capsys.readouterr().err.splitlines()[0])
    assert trained[0] - trained[1] == 4 * 3 + 3
    assert f", {trained[0]} trained parameters, on" in told[0]
    assert f", {trained[1]} trained parameters and 15 frozen, on" in told[1]
