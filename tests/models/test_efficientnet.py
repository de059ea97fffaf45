"""EfficientNets: a block against NumPy, training, and the place behind V1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from vone_jax import models, v1
from vone_jax.models import layers
from vone_jax.models.efficientnet import EfficientNetBackEnd, MBConv

EPS = {True: 1e-3, False: 1e-5}


def convolved(x, kernel, stride, padding, depthwise=False):
    """The sum over every window, written out in float64."""
    x = np.pad(x, ((0, 0), padding, padding, (0, 0)))
    size = kernel.shape[0]
    places = range(0, x.shape[1] - size + 1, stride)
    result = np.zeros((len(x), len(places), len(places), kernel.shape[3]))
    for i, row in enumerate(places):
        for j, column in enumerate(places):
            window = x[:, row : row + size, column : column + size]
            subscripts = "nabc,abc->nc" if depthwise else "nabc,abcf->nf"
            weights = kernel[:, :, 0] if depthwise else kernel
            result[:, i, j] = np.einsum(subscripts, window, weights)
    return result


def block_in_numpy(params, stats, x, lite, size, stride, padding):
    def activate(x):
        return np.clip(x, 0, 6) if lite else x / (1 + np.exp(-x))

    def normed(x, name):
        scale, bias = params[name, "scale"], params[name, "bias"]
        mean, var = stats[name, "mean"], stats[name, "var"]
        return (x - mean) / np.sqrt(var + EPS[lite]) * scale + bias

    y = activate(normed(x @ params["expand", "kernel"][0, 0], "expand_norm"))
    y = convolved(y, params["depthwise", "kernel"], stride, padding, depthwise=True)
    y = activate(normed(y, "depthwise_norm"))
    if not lite:
        gate = y.mean((1, 2), keepdims=True)
        gate = activate(gate @ params["squeeze", "kernel"][0, 0] + params["squeeze", "bias"])
        gate = gate @ params["excite", "kernel"][0, 0] + params["excite", "bias"]
        y = y / (1 + np.exp(-gate))
    y = normed(y @ params["project", "kernel"][0, 0], "project_norm")
    return x + y if y.shape == x.shape else y


# Lite0 pads as TensorFlow: at stride 2, an even side needs no more than (1, 2) for a 5x5 kernel.
@pytest.mark.parametrize(
    ("lite", "side", "size", "stride", "padding"),
    [
        pytest.param(False, 6, 3, 1, (1, 1), marks=pytest.mark.slow),
        pytest.param(False, 8, 5, 2, (2, 2), marks=pytest.mark.slow),
        (False, 7, 3, 2, (1, 1)),
        (True, 6, 5, 1, (2, 2)), (True, 8, 5, 2, (1, 2)),
        pytest.param(True, 7, 5, 2, (2, 2), marks=pytest.mark.slow),
    ],
)  # fmt: skip
def test_a_block_is_the_published_one(lite, side, size, stride, padding):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, side, side, 8)).astype(np.float32)
    features = 8 if stride == 1 else 12
    block = MBConv(lite, jnp.float32, features, expansion=6, kernel=size, stride=stride)
    shapes = flatten_dict(
        jax.eval_shape(lambda x: block.init(jax.random.key(0), x, False, None), x)
    )
    values = {
        path: (0.5 + rng.random(leaf.shape) if path[-1] == "var"
               else 0.3 * rng.standard_normal(leaf.shape)).astype(np.float32)
        for path, leaf in shapes.items()
    }  # fmt: skip
    assert (("params", "squeeze", "kernel") in values) is not lite
    found = block.apply(unflatten_dict(values), jnp.asarray(x), False, None)
    params, stats = (
        {path[1:]: leaf.astype(np.float64) for path, leaf in values.items() if path[0] == part}
        for part in ("params", "batch_stats")
    )
    expected = block_in_numpy(params, stats, x.astype(np.float64), lite, size, stride, padding)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_examples_skip_blocks_by_their_keys():
    """As often as published: block i of 16 with a probability of 0.2 i / 16, in float64.

    The rest of a network in training, batch norm and dropout, is the same for all keys.
    """
    back_end = EfficientNetBackEnd(True, jnp.float32, num_classes=3, width=8)
    keys = jax.random.split(jax.random.key(0), 4000)
    scales = np.asarray(layers.path_scales(keys, back_end.drop_path, 16, branches=1))[..., 0]
    rates = 0.2 * np.arange(16) / 16
    spread = np.sqrt(rates * (1 - rates) / 4000)
    assert (np.abs((scales == 0).mean(axis=0) - rates) <= 4 * spread).all()
    x = jax.random.normal(jax.random.key(1), (2, 4, 4, 8))
    variables = jax.jit(back_end.init, static_argnums=2)(jax.random.key(2), x, False)

    @jax.jit
    def stages(keys):
        layers_of, _ = back_end.apply(
            variables, x, True, keys, rngs={"dropout": jax.random.key(3)}, mutable=["batch_stats"]
        )
        return layers_of["stage5"]

    skips = (scales == 0)[:, :11].sum(axis=1)
    order = np.argsort(skips)
    some, none, none_either = order[-2:], order[:2], order[2:4]
    assert skips[some].all() and not skips[none].any() and not skips[none_either].any()
    # They were drawn from above, to choose them.
    with jax.debug_key_reuse(False):
        found = [np.asarray(stages(keys[chosen])) for chosen in (some, none, none_either)]
    np.testing.assert_array_equal(found[1], found[2])
    assert np.abs(found[0] - found[1]).max() > 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vone_efficientnet_lite0", "vone_efficientnet_b0"])
def test_a_step_of_training_reaches_every_parameter(name):
    config = v1.VOneBlockConfig(
        8, 8, image_size=48, visual_degrees=1.5, kernel_size=15, stride=2, k_exc=5.0
    )
    model = models.create(name, 4, v1=config, width=8)
    images = jax.random.uniform(jax.random.key(0), (6, 48, 48, 3))
    labels = jnp.arange(6) % 4
    key = jax.random.key(1)
    variables = jax.jit(model.init)({"params": key, "noise": key}, images)

    def loss(params):
        logits, updates = model.apply(
            {**variables, "params": params},
            images,
            train=True,
            noise_key=key,
            rngs={"dropout": jax.random.key(2)},
            mutable=["batch_stats"],
        )
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
        return -jnp.mean(chosen), updates

    step = jax.jit(jax.value_and_grad(loss, has_aux=True))
    (before, updates), gradient = step(variables["params"])
    sizes = jax.tree.map(lambda leaf: float(jnp.abs(leaf).max()), gradient)
    assert all(0 < size < np.inf for size in jax.tree.leaves(sizes)), sizes
    moved = jax.tree.map(
        lambda a, b: float(jnp.abs(a - b).max()), updates["batch_stats"], variables["batch_stats"]
    )
    assert min(jax.tree.leaves(moved)) > 0
    changed = jax.tree.map(lambda p, g: p - 0.01 * g, variables["params"], gradient)
    assert step(changed)[0][0] < before
