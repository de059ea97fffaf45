"""Transformers and ConvNeXts: definitions in NumPy, logits of timm, attachments, dropped paths."""

import dataclasses
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs.laboratory import trunks
from tests.networks import random_variables
from vone_jax import convert, models, v1
from vone_jax.convert.state_dict import abstract_variables
from vone_jax.models import layers
from vone_jax.models.vit import TransformerBlock, resize_positions

TINY = {"num_classes": 5, "image_size": 16, "in_channels": 1, "patch_size": 4}
VIT = {"name": "vit_ti16", **TINY, "width": 12, "depth": 2, "heads": 3}
CONVNEXT = {"name": "convnext_t", **TINY, "width": 6, "depth": (1, 1), "patch_size": 2}
# Stride 2, as for 28 pixels.
SMALL_V1 = v1.VOneBlockConfig(
    simple_channels=4, complex_channels=4, image_size=16, visual_degrees=16 / 28, in_channels=1,
    kernel_size=7, stride=2,
)  # fmt: skip


def drawn(model, seed=0):
    """Variables around 0, so that no layer is a special case."""
    shift = lambda leaf: np.float32(0.6) * (leaf - np.float32(1.0))  # noqa: E731
    return jax.tree.map(shift, random_variables(model, seed))


def images(count=2, size=16, channels=1, seed=0):
    return np.random.default_rng(seed).random((count, size, size, channels)).astype(np.float32)


# The definitions in float64.


def normed(x, params, name):
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return x * params[name, "scale"] + params[name, "bias"]


def linear(x, params, name):
    return x @ params[name, "kernel"] + params[name, "bias"]


def gelu(x):
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / np.sqrt(2)))


def patched(x, params, name):
    kernel = params[name, "kernel"]
    size = len(kernel)
    n, h, w, c = x.shape
    x = x.reshape(n, h // size, size, w // size, size, c)
    return np.einsum("nhawbc,abcf->nhwf", x, kernel) + params[name, "bias"]


def under(params, *path):
    """The parameters of a module, in float64."""
    length = len(path)
    return {
        p[length:]: np.asarray(leaf, np.float64) for p, leaf in params.items() if p[:length] == path
    }


def vit_in_numpy(params, x, heads):
    back_end = under(params, "back_end")
    x = patched(x, under(params, "stem"), "proj")
    n, features = len(x), x.shape[-1]
    token = np.broadcast_to(back_end["tokens", "class_token"], (n, 1, features))
    x = np.concatenate([token, x.reshape(n, -1, features)], 1) + back_end["tokens", "position"]
    for number in (1, 2):
        block = under(params, "back_end", f"block{number}")
        qkv = linear(normed(x, block, "norm1"), block, "qkv")
        q, k, v = (
            part.reshape(n, -1, heads, features // heads).transpose(0, 2, 1, 3)
            for part in np.split(qkv, 3, axis=-1)
        )
        scores = np.exp(q @ k.transpose(0, 1, 3, 2) / np.sqrt(features // heads))
        mixed = scores / scores.sum(-1, keepdims=True) @ v
        x = x + linear(mixed.transpose(0, 2, 1, 3).reshape(x.shape), block, "proj")
        x = x + linear(gelu(linear(normed(x, block, "norm2"), block, "fc1")), block, "fc2")
    return linear(normed(x, back_end, "norm")[:, 0], back_end, "head")


def convnext_in_numpy(params, x):
    back_end = under(params, "back_end")
    stem = under(params, "stem")
    x = normed(patched(x, stem, "conv"), stem, "norm")
    for name in ("stage1_0", "downsample2", "stage2_0"):
        if name == "downsample2":
            x = patched(normed(x, back_end, "norm2"), back_end, "downsample2")
            continue
        block = under(params, "back_end", name)
        padded = np.pad(x, ((0, 0), (3, 3), (3, 3), (0, 0)))
        y = np.zeros_like(x)
        for row in range(x.shape[1]):
            for column in range(x.shape[2]):
                window = padded[:, row : row + 7, column : column + 7]
                y[:, row, column] = np.einsum(
                    "nabc,abc->nc", window, block["depthwise", "kernel"][:, :, 0]
                )
        y = normed(y + block["depthwise", "bias"], block, "norm")
        y = linear(gelu(linear(y, block, "fc1")), block, "fc2")
        x = x + block["gamma",] * y
    return linear(normed(x.mean((1, 2)), back_end, "norm"), back_end, "head")


@pytest.mark.parametrize("fields", [VIT, CONVNEXT], ids=["vit", "convnext"])
def test_a_network_is_its_definition(fields):
    model = models.create(**fields, mean=0.25, std=0.5)
    variables, x = drawn(model), images()
    params = flatten_dict(variables["params"])
    normal = (x.astype(np.float64) - 0.25) / 0.5
    if fields is VIT:
        expected = vit_in_numpy(params, normal, heads=3)
    else:
        expected = convnext_in_numpy(params, normal)
    logits = models.logits_fn(model, variables)(jax.random.key(0), x)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


# Of timm 1.0.31 in float64: the first five logits of the first image, the last of the second one,
# the largest, and the mean size of the features behind the last layer norm or the last stage.
GOLDEN = {
    "vit_s16": ((1.351995, -0.970739, 0.536871, -0.270959, -0.180984), -1.064226, 1.5219, 0.81861),
    "convnext_t": (
        (1.423381, 1.169331, 0.372505, -0.548676, -1.153639), -1.143514, 1.4594, 1.98026,
    ),
}  # fmt: skip


def formula_weights(shapes):
    """The tensors of a network of timm by a formula of their names in alphabetical order."""
    tensors = {}
    for i, name in enumerate(sorted(shapes)):
        shape = shapes[name]
        wave = np.sin(0.7 * (i + 1) + 1.3 * np.arange(math.prod(shape), dtype=np.float64))
        if name in ("cls_token", "pos_embed"):
            wave *= 0.5
        elif len(shape) > 1:
            wave *= np.sqrt(2 / math.prod(shape[1:]))
        elif name.endswith("gamma"):
            wave = 0.5 + 0.1 * wave
        elif re.search(r"norm.*weight$|downsample\.0\.weight$|stem\.1\.weight$", name):
            wave = 1 + 0.1 * wave
        else:
            wave *= 0.1
        tensors[name] = wave.reshape(shape).astype(np.float32)
    return tensors


@pytest.mark.slow
@pytest.mark.parametrize("name", GOLDEN)
def test_logits_equal_those_of_timm(name):
    model = models.create(name, mean=0.0, std=1.0)
    zeros = jax.tree.map(
        lambda leaf: np.broadcast_to(np.float32(0), leaf.shape),
        jax.eval_shape(lambda key: models.init(model, key), jax.random.key(0)),
    )
    shapes = {n: tensor.shape for n, tensor in convert.to_torch(model, zeros).items()}
    variables = convert.from_state_dict(model, formula_weights(shapes))
    m = np.arange(2 * 3 * 224 * 224, dtype=np.float64)
    x = (0.5 + 0.5 * np.sin(0.01 * m + 0.3 * np.sin(0.37 * m))).astype(np.float32)
    x = x.reshape(2, 3, 224, 224).transpose(0, 2, 3, 1)
    found = jax.jit(models.features_fn(model, variables))(jax.random.key(0), x)
    logits = np.asarray(found["logits"], np.float64)
    first, last, largest, mean = GOLDEN[name]
    tolerance = {"rtol": 0, "atol": 1e-5 * largest}
    np.testing.assert_allclose(logits[0, :5], first, **tolerance)
    np.testing.assert_allclose(logits[1, -1], last, **tolerance)
    assert np.abs(logits).max() == pytest.approx(largest, abs=5e-5)
    if name == "vit_s16":
        tokens = found["norm"].reshape(2, 196, 384)
        behind = np.concatenate([found["class_token"][:, None], tokens], axis=1)
    else:
        behind = found["stage4"]
    assert np.abs(behind).mean(dtype=np.float64) == pytest.approx(mean, abs=1e-5)


def test_deep_transformers_keep_the_usual_heads():
    """64 channels in a head, but 80 in ViT-H."""
    for width, heads in {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16, 96: 2, 10: 1}.items():
        assert models.create("vit_s16", 2, 32, width=width, depth=1).spec.options.heads == heads


def sizes(model):
    """The shapes of the layers, and the number of parameters."""
    x = jax.ShapeDtypeStruct((2, model.image_size, model.image_size, model.in_channels), "float32")
    key = jax.random.key(0)
    features, variables = jax.eval_shape(
        lambda x: model.init_with_output(key, x, noise_key=key, method="features"), x
    )
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return {name: layer.shape[1:] for name, layer in features.items()}, count


@pytest.mark.parametrize("attachment", ["patches", "conv_stem"])
@pytest.mark.parametrize(
    ("name", "size", "channels", "grid"),
    [
        ("vit_ti16", 28, 1, 7), ("vit_ti16", 32, 3, 8), ("vit_ti16", 64, 3, 16),
        ("vit_ti16", 224, 3, 14),
        ("convnext_t", 28, 1, 14), ("convnext_t", 32, 3, 16), ("convnext_t", 64, 3, 32),
        ("convnext_t", 224, 3, 56),
    ],
)  # fmt: skip
def test_v1_and_its_control_have_the_grid_of_the_trunk(name, size, channels, grid, attachment):
    """The control has as many parameters, but for half a channel, and the same layers behind."""
    depth = 1 if name.startswith("vit") else (1, 1, 1, 1)
    fields = {"num_classes": 10, "image_size": size, "in_channels": channels, "depth": depth}
    plain, _ = sizes(models.create(name, **fields))
    vone, number = sizes(models.create(f"vone_{name}", **fields, attachment=attachment))
    control, as_many = sizes(models.create(name, **fields, attachment=attachment))
    wide = vone["bottleneck"][-1]
    assert abs(as_many - number) <= (9 * (channels + wide) + 3) / 2
    assert vone["patches"] == control["patches"]
    for stage in ("block1", "stage1", "norm", "avgpool", "logits"):
        shapes = {layers_of.get(stage) for layers_of in (plain, vone, control)}
        assert len(shapes) == 1
    assert vone["patches"][:2] == (grid, grid)
    assert control["stem"] == vone["bottleneck"]


def test_the_controls_of_the_laboratory_have_as_many_parameters_as_its_vonenets():
    """Their V1 has fewer cells than the default, so the width of their stems is given."""
    members = trunks.sweep.members
    for trunk in ("vit", "convnext"):
        base, control, vone = (
            sizes(members[f"{trunk}-{label}-0"].network.model.build())[1]
            for label in ("base", "control", "vone")
        )
        assert abs(control - vone) < 0.001 * vone and base < control


@pytest.mark.parametrize(
    "fields", [{}, {"name": "vone_vit_ti16"}, {"name": "vone_vit_ti16", "attachment": "patches"}]
)
def test_only_a_control_has_a_width_of_its_stem(fields):
    with pytest.raises(ValueError, match="stem_width is for the control"):
        models.create(**{**VIT, **fields}, stem_width=3)


def test_the_attachment_is_what_it_is_said_to_be():
    """ViT-S behind V1: a norm, and patches of 4 x 4 x 64 or a convolutional tail."""
    parts = {}
    for form in ("patches", "conv_stem"):
        leaves = abstract_variables(models.create("vone_vit_s16", attachment=form))
        parts[form] = {
            path[3:]: leaf.shape for path, leaf in leaves.items() if path[2] == "attachment"
        }
        assert leaves["params", "bottleneck", "kernel"].shape == (1, 1, 512, 64)
    assert parts["patches"] == {
        ("norm", "scale"): (64,), ("norm", "bias"): (64,),
        ("proj", "kernel"): (4, 4, 64, 384), ("proj", "bias"): (384,),
    }  # fmt: skip
    kernels = {path[0]: shape for path, shape in parts["conv_stem"].items() if path[1] == "kernel"}
    assert kernels == {
        "conv1": (3, 3, 64, 192), "conv2": (3, 3, 192, 384), "proj": (1, 1, 384, 384),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("named", "fields"),
    [
        ("image_size must be a multiple of patch_size, 4", {**VIT, "image_size": 18}),
        ("heads must divide width", {**VIT, "heads": 5}),
        ("depth of convnext_t must have", {**CONVNEXT, "depth": (3,)}),
        ("drop_path", {**VIT, "drop_path": 1.0}),
        ("attachment must be one of", {**VIT, "attachment": "patch"}),
        ("a multiple of the stride", {"name": "vone_vit_ti16", "v1": SMALL_V1, "patch_size": 1}),
    ],
)
@pytest.mark.untyped
def test_wrong_options_are_named(named, fields):
    with pytest.raises(ValueError, match=named):
        models.create(**fields)


def test_a_front_end_of_a_user_gives_the_positions():
    """A transformer takes each position of its map for a token."""
    front_end = models.ConvStem((4, 6), stride=2)
    fields = {"num_classes": 3, "image_size": 16, "in_channels": 1, "width": 8}
    layers_of, _ = sizes(models.create("vit_ti16", **fields, depth=1, front_end=front_end))
    assert layers_of["stem"] == (8, 8, 6) and layers_of["patches"] == (8, 8, 8)
    with pytest.raises(ValueError, match="must be None with front_end"):
        models.create("vit_ti16", **fields, front_end=front_end, patch_size=4)


def test_an_option_that_an_architecture_has_not_got_is_refused():
    for fields in ({"name": "resnet18", "depth": 3}, {**CONVNEXT, "heads": 2}):
        with pytest.raises(TypeError, match="depth|heads"):
            models.create(**fields)


# Stochastic depth.


def test_the_branches_of_an_example_are_dropped_by_its_key_alone():
    """The first block never drops, the mean of the factors is 1, and a batch changes nothing."""

    def drawn(rows=slice(None)):
        keys = jax.random.split(jax.random.key(0), 4000)[rows]
        return np.asarray(layers.path_scales(keys, 0.5, blocks=3, branches=2))

    scales = drawn()
    assert set(np.unique(scales[:, 0])) == {1.0}
    np.testing.assert_allclose(np.unique(scales[:, 1]), [0, 4 / 3], rtol=1e-6)
    np.testing.assert_allclose(np.unique(scales[:, 2]), [0, 2], rtol=1e-6)
    # Four standard errors of the mean of a factor.
    np.testing.assert_allclose(scales[:, 1:].mean((0, 2)), 1, atol=4 / np.sqrt(8000))
    assert abs(np.corrcoef(scales[:, 2].T)[0, 1]) < 4 / np.sqrt(4000)
    np.testing.assert_array_equal(drawn(slice(7, 9)), scales[7:9])


def test_each_branch_of_a_transformer_block_has_its_factor():
    """x + s1 attention(x) = y, then y + s2 perceptron(y) (Huang et al. 2016), against NumPy."""
    block, rng = TransformerBlock(heads=2), np.random.default_rng(0)
    tokens = jnp.asarray(rng.standard_normal((5, 3, 4)), jnp.float32)
    shapes = jax.eval_shape(block.init, jax.random.key(0), tokens, None)
    params = jax.tree.map(lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32), shapes)
    leaves = flatten_dict(params["params"])

    def perceptron(y):
        return linear(gelu(linear(normed(y, leaves, "norm2"), leaves, "fc1")), leaves, "fc2")

    first, second = np.array([0, 0, 0, 1, 2.5]), np.array([0, 1, 2.5, 1, 0])
    whole = jnp.stack([jnp.asarray(first), jnp.asarray(second)], 1).astype(jnp.float32)
    found = np.asarray(block.apply(params, tokens, whole), np.float64)
    attended = np.asarray(block.apply(params, tokens, whole.at[:, 1].set(0.0)), np.float64)
    alone = np.asarray(block.apply(params, tokens, jnp.tile(jnp.array([1.0, 0.0]), (5, 1))))
    before = np.asarray(tokens, np.float64)
    factor = first[:, None, None]
    np.testing.assert_allclose(attended, before + factor * (alone - before), atol=1e-4)
    expected = attended + second[:, None, None] * perceptron(attended)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "fields", [{**VIT, "name": "vone_vit_ti16"}, CONVNEXT], ids=["vone_vit", "convnext"]
)
def test_the_batch_does_not_change_what_is_dropped(fields):
    if fields["name"].startswith("vone_"):
        fields = {**fields, "v1": dataclasses.replace(SMALL_V1, noise=None)}
    model = models.create(**fields, drop_path=0.6)
    variables, x = drawn(model), images(6)

    @jax.jit
    def compute(keys, x):
        return model.apply(variables, x, train=True, noise_key=keys)

    def logits(rows, seed=1):
        return np.asarray(compute(jax.random.split(jax.random.key(seed), 6)[rows], x[rows]))

    together = logits(slice(None))
    for rows in (np.array([5, 4, 3, 2, 1, 0]), np.array([3, 3, 2, 0, 1, 4])):
        np.testing.assert_allclose(logits(rows), together[rows], atol=1e-5)
    still = models.logits_fn(model, variables)(jax.random.key(0), x)
    assert not np.isclose(together, still, atol=1e-3).all(1).all()
    assert np.abs(logits(slice(None), seed=2) - together).max() > 1e-3
    with pytest.raises(ValueError, match="noise_key must be given"):
        model.apply(variables, x, train=True)


# Tables of positions.


def test_a_resized_table_keeps_what_it_should():
    """The class token, a constant table, and a table of the same size; a gradient stays one."""
    rng = np.random.default_rng(0)
    table = jnp.asarray(rng.standard_normal((1, 1 + 36, 3)), jnp.float32)
    np.testing.assert_array_equal(resize_positions(table, 6, 6), table)
    for side in (4, 9):
        resized = resize_positions(table, side, side)
        assert resized.shape == (1, 1 + side**2, 3)
        np.testing.assert_array_equal(resized[:, 0], table[:, 0])
        same = resize_positions(jnp.full((1, 37, 2), 0.5), side, side)
        np.testing.assert_allclose(same, 0.5, atol=1e-6)
    ramp = jnp.arange(36.0).reshape(1, 36, 1) // 6
    ramp = jnp.concatenate([jnp.zeros((1, 1, 1)), ramp], axis=1)
    double = resize_positions(ramp, 12, 12)[0, 1:, 0].reshape(12, 12)
    # Away from borders, halves of a row apart, between the first positions of both grids.
    np.testing.assert_allclose(double[4:8, 5], 2.0 + 0.5 * np.arange(4) - 0.25, atol=0.02)
    np.testing.assert_allclose(double[:, 0], double[:, 5], atol=1e-6)


@pytest.mark.parametrize("side", [4, 6, 9, 18])
def test_a_smaller_table_is_smoothed_and_a_larger_one_interpolated(side):
    """Keys' cubic (1981) with a = -1/2, wider by the factor of a reduction, as timm resizes."""
    table = np.random.default_rng(0).standard_normal((1, 1 + 144, 2)).astype(np.float32)
    factor = 12 / side
    centre = (np.arange(side)[:, None] + 0.5) * factor
    away = np.abs(np.arange(12) + 0.5 - centre) / max(factor, 1.0)
    near = 1.5 * away**3 - 2.5 * away**2 + 1
    far = -0.5 * away**3 + 2.5 * away**2 - 4 * away + 2
    weights = np.where(away < 1, near, np.where(away < 2, far, 0.0))
    weights /= weights.sum(1, keepdims=True)
    expected = np.einsum("ai,bj,ijc->abc", weights, weights, table[0, 1:].reshape(12, 12, 2))
    resized = resize_positions(jnp.asarray(table), side, side)
    np.testing.assert_allclose(resized[0, 1:], expected.reshape(-1, 2), atol=1e-5)


@pytest.mark.parametrize("name", ["vit_ti16", "vone_vit_ti16"])
def test_a_network_at_another_size_is_that_of_a_resized_table(name):
    """A transformer accepts any image; saved weights have the table of their size."""
    fields = {**VIT, "name": name}
    if name.startswith("vone_"):
        fields["v1"] = dataclasses.replace(SMALL_V1, noise=None)
    model = models.create(**fields)
    variables, x = drawn(model), images(size=24)
    larger, resized = models.with_image_size(model, variables, 24)
    assert resized["params"]["back_end"]["tokens"]["position"].shape == (1, 37, 12)
    if name == "vit_ti16":
        assert larger == models.create(**(fields | {"image_size": 24}))
    key = jax.random.key(0)
    expected = models.logits_fn(larger, resized)(key, x)
    if name == "vit_ti16":
        np.testing.assert_allclose(models.logits_fn(model, variables)(key, x), expected, atol=1e-5)
    assert np.isfinite(expected).all()
    with pytest.raises(ValueError, match="a multiple of 4 pixels"):
        models.with_image_size(model, variables, 22)


def test_images_that_are_too_small_are_refused():
    model = models.create(**{**CONVNEXT, "depth": (1, 1, 1, 1), "image_size": 8})
    with pytest.raises(ValueError, match="too small for the stages"):
        abstract_variables(model)
