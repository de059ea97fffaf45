"""Functions of a user in compiled functions: none is measured with the weights of another."""

import functools
import gc
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx
from jax import lax
from jax.sharding import PartitionSpec
from jax.tree_util import Partial

from vone_jax import attacks, evaluation, functions
from vone_jax.network import Network

KEYS = jax.random.split(jax.random.key(0), 2)
IMAGES = jnp.asarray(np.random.default_rng(0).random((2, 3, 3, 1)), jnp.float32)
IDENTITY = jnp.eye(9)[:, :4]


def other(weights):
    """Weights of the same shape for other classes."""
    return jnp.roll(weights, 1, axis=1)


# Classifiers that differ in nothing but the weights of a compiled cell, wherever it is.


def jitted(weights):
    """A cell (N, 4) -> (N, 4) under a ``jax.jit`` of the user, with weights of its own."""
    mixing = jnp.tanh(weights[:4])
    return jax.jit(lambda x: x + jnp.matmul(x, mixing, precision="highest"))


def flat(images):
    return images.reshape(len(images), -1)[:, :4]


def within_fori_loop(weights):
    cell = jitted(weights)
    return lambda keys, images: lax.fori_loop(0, 2, lambda _, x: cell(x), flat(images))


def within_scan(weights):
    cell = jitted(weights)
    return lambda keys, images: lax.scan(lambda x, _: (cell(x), None), flat(images), length=2)[0]


def within_map(weights):
    cell = jitted(weights)
    return lambda keys, images: lax.map(lambda x: cell(x[None])[0], flat(images))


def within_cond(weights):
    cell = jitted(weights)
    return lambda keys, images: lax.cond(jnp.sum(images) > -1, cell, jnp.sin, flat(images))


def within_while_loop(weights):
    cell = jitted(weights)

    def function(keys, images):
        state = 0, flat(images)
        return lax.while_loop(lambda s: s[0] < 2, lambda s: (s[0] + 1, cell(s[1])), state)[1]

    return function


def within_checkpoint(weights):
    cell = jitted(weights)
    return lambda keys, images: jax.checkpoint(cell)(flat(images))


def within_a_rule_of_custom_jvp(weights):
    rates = weights[:1]

    @jax.custom_jvp
    def layer(x):
        return x

    @layer.defjvp
    def _(primals, tangents):
        return primals[0], tangents[0] * rates

    return lambda keys, images: layer(flat(images))


def within_a_rule_of_custom_vjp_in_scan(weights):
    rates = weights[:1]

    @jax.custom_vjp
    def layer(x):
        return x

    layer.defvjp(lambda x: (x, None), lambda _, slope: (slope * rates,))
    return lambda keys, images: lax.scan(lambda x, _: (layer(x), None), flat(images), length=2)[0]


def two_deep(weights):
    cell = jitted(weights)

    def step(x, _):
        branch = jax.checkpoint(lambda x: lax.fori_loop(0, 2, lambda _, x: cell(x), x))
        return lax.cond(jnp.sum(x) > -1e9, branch, jnp.sin, x), None

    return lambda keys, images: jax.jit(lambda x: lax.scan(step, x, length=2)[0])(flat(images))


def within_shard_map(weights):
    cell = jitted(weights)
    mesh = jax.make_mesh((2,), ("data",), (jax.sharding.AxisType.Auto,))
    rows = PartitionSpec("data")
    return lambda keys, images: jax.shard_map(cell, mesh=mesh, in_specs=rows, out_specs=rows)(
        flat(images)
    )


def of_a_key(weights):
    key = jax.random.key(int(jnp.argmax(weights[0])))
    return lambda keys, images: flat(images) + jax.random.normal(jax.random.clone(key), (1, 4))


def of_an_artefact(weights):
    """Of ``jax.export``, which holds the weights as text."""
    logits = jax.jit(lambda images: jitted(weights)(flat(images)))
    artefact = jax.export.export(logits)(jax.ShapeDtypeStruct(IMAGES.shape, IMAGES.dtype))
    return lambda keys, images: artefact.call(images)


def of_large_weights(weights):
    """Weights of which a text would show the ends alone, where they are equal."""
    middle = jnp.zeros((3000, 4)).at[1500:1504].set(jitted(weights)(jnp.eye(4)))
    return lambda keys, images: jnp.matmul(
        jnp.pad(flat(images), ((0, 0), (1500, 1496))), middle, precision="highest"
    )


PAIRS = [
    within_fori_loop, within_scan, within_map, within_cond, within_while_loop, within_checkpoint,
    within_a_rule_of_custom_jvp, within_a_rule_of_custom_vjp_in_scan, two_deep, within_shard_map,
    of_a_key, of_an_artefact, of_large_weights,
]  # fmt: skip
# These have the same logits and other gradients.
RULES = (within_a_rule_of_custom_jvp, within_a_rule_of_custom_vjp_in_scan)
WITHOUT_GRADIENT = (within_while_loop, of_an_artefact)


@jax.jit
def outputs(function, keys, images):
    return function(keys, images)


@jax.jit
def slopes(function, keys, images):
    return jax.grad(lambda images: jnp.sum(jnp.sin(function(keys, images))))(images)


def as_compiled(compiled, function):
    return compiled(functions.as_pytree(function, KEYS, IMAGES), KEYS, IMAGES)


@pytest.mark.parametrize("make", PAIRS)
def test_functions_that_differ_in_their_weights_alone_share_no_program(make):
    """Both are computed in one process, and each as if it were alone in it."""
    weights = IDENTITY, other(IDENTITY)
    for compiled in (outputs, slopes):
        if compiled is slopes and make in WITHOUT_GRADIENT:
            continue
        found = [as_compiled(compiled, make(each)) for each in weights]
        for each, result in zip(weights, found, strict=True):
            alone = jax.jit(compiled.__wrapped__, static_argnums=0)(make(each), KEYS, IMAGES)
            np.testing.assert_allclose(result, alone, rtol=1e-6)
        if compiled is slopes or make not in RULES:
            assert np.abs(found[0] - found[1]).max() > 0.01


@pytest.mark.parametrize("make", PAIRS)
def test_functions_that_are_made_again_share_their_program(make):
    outputs.clear_cache()
    first = as_compiled(outputs, make(IDENTITY))
    np.testing.assert_array_equal(as_compiled(outputs, make(1 * IDENTITY)), first)
    assert outputs._cache_size() == 1


@pytest.mark.parametrize("make", PAIRS)
def test_networks_that_differ_in_their_weights_have_other_checksums(make):
    if make in (of_an_artefact, within_shard_map):
        pytest.skip("it is for batches of two")

    def checksum(weights):
        return Network("mine", make(weights), (3, 3, 1)).checksum

    assert checksum(IDENTITY) == checksum(1 * IDENTITY) != checksum(other(IDENTITY))


def test_a_checksum_is_the_same_in_another_process():
    program = (
        "from tests.test_functions import *;"
        "print(*[functions.digest(f(IDENTITY), KEYS, IMAGES) for f in (two_deep, within_map)])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    ours = [functions.digest(f(IDENTITY), KEYS, IMAGES) for f in (two_deep, within_map)]
    assert ran.stdout.split() == ours


def test_an_attack_and_its_judgement_are_of_the_network_they_are_given():
    """The robust accuracy of two networks, one after the other and as it is known."""
    images = jnp.asarray(np.random.default_rng(1).random((12, 3, 3, 1)), jnp.float32)
    for weights in (IDENTITY, other(IDENTITY)):
        function = within_scan(weights)
        labels = jnp.argmax(function(None, images), axis=1)
        for right, expected in ((labels, 1.0), ((labels + 1) % 4, 0.0)):
            found = evaluation.robust_accuracy(
                jax.random.key(0),
                function,
                images,
                right,
                attack=attacks.PGD("linf", 0.0, steps=1),
            )
            assert found.accuracy == expected


# What else a function may read: each returns a function and what changes its result from 1 to 2.

ONE, TWO = jnp.float32(1.0), jnp.float32(2.0)
LOADED = None


class Net:
    """A classifier whose weights are an attribute."""

    def __init__(self, scale=ONE):
        self.scale = scale

    def __call__(self, keys, images):
        return jnp.ones_like(images) * self.scale


def a_variable():
    scale = ONE

    def replace():
        nonlocal scale
        scale = TWO

    return (lambda keys, images: jnp.ones_like(images) * scale), replace


def a_number():
    scale = 1.0

    def replace():
        nonlocal scale
        scale = 2.0

    return (lambda keys, images: jnp.ones_like(images) * scale), replace


def a_global_that_is_loaded_when_it_is_needed():
    global LOADED
    LOADED = None

    def function(keys, images):
        global LOADED
        if LOADED is None:
            LOADED = np.ones((), np.float32)
        return jnp.ones_like(images) * LOADED

    def replace():
        global LOADED
        LOADED = TWO

    return function, replace


def an_array_that_is_changed_in_place():
    scale = np.ones((1, 3, 3, 1), np.float32)
    return (lambda keys, images: jnp.ones_like(images) * scale), lambda: scale.fill(2.0)


def an_object():
    net = Net()
    return net, lambda: setattr(net, "scale", TWO)


def a_method():
    net = Net()
    return net.__call__, lambda: setattr(net, "scale", TWO)


def a_pytree_of_a_closure():
    net = Net()
    function = Partial(lambda weights, keys, images: net(keys, images) * weights, 1.0)
    return function, lambda: setattr(net, "scale", TWO)


def a_pytree_of_an_object():
    net = Net()
    return Partial(net), lambda: setattr(net, "scale", TWO)


def a_pytree_within_a_pytree():
    inner, replace = a_pytree_of_a_closure()
    return Partial(call, inner), replace


def call(function, keys, images):
    return function(keys, images)


def one_image_at_a_time():
    net = Net()
    return functions.per_example(net), lambda: setattr(net, "scale", TWO)


def a_linen_module():
    class Scale(linen.Module):
        @linen.compact
        def __call__(self, images):
            return jnp.ones_like(images) * self.param("scale", lambda key: ONE)

    variables = {"params": {"scale": ONE}}
    return (
        lambda keys, images: Scale().apply(variables, images),
        lambda: variables.update(params={"scale": TWO}),
    )


def an_nnx_module():
    net = nnx.Param(ONE)
    return (lambda keys, images: jnp.ones_like(images) * net[...]), lambda: net.set_value(TWO)


def a_function_compiled_anew():
    """A user's own ``jax.jit``, made again for other weights, as ``equinox.filter_jit`` does."""
    net = Net()

    def function(keys, images):
        return jax.jit(lambda images: net(keys, images))(images)

    return function, lambda: setattr(net, "scale", TWO)


CASES = [
    a_variable, a_number, a_global_that_is_loaded_when_it_is_needed, an_object, a_method,
    an_array_that_is_changed_in_place, a_pytree_of_a_closure, a_pytree_of_an_object,
    a_pytree_within_a_pytree, one_image_at_a_time, a_linen_module, an_nnx_module,
    a_function_compiled_anew,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "renewed", [attacks.prepare, lambda function: lambda *given: function(*given)],
    ids=["prepared", "wrapped"],
)  # fmt: skip
def test_a_new_object_is_measured_with_the_weights_that_its_function_holds_now(case, renewed):
    function, replace = case()
    np.testing.assert_array_equal(as_compiled(outputs, function), np.ones(IMAGES.shape))
    first = renewed(function)
    np.testing.assert_array_equal(as_compiled(outputs, first), np.ones(IMAGES.shape))
    replace()
    found = as_compiled(outputs, renewed(function))
    np.testing.assert_array_equal(found, 2 * np.ones(IMAGES.shape))


def test_a_program_that_is_compiled_later_has_the_weights_of_its_call():
    """The first object with a fingerprint may have other weights by then."""
    first, second = Net(), Net()
    as_compiled(outputs, first)
    first.scale = TWO
    again = functions.as_pytree(second, KEYS, IMAGES)
    # Another shape and another compiled function need new programs.
    assert np.all(outputs(again, KEYS[:1], IMAGES[:1]) == 1)
    assert np.all(jax.jit(outputs.__wrapped__)(again, KEYS, IMAGES) == 1)
    assert np.all(as_compiled(outputs, Net(TWO)) == 2)


def test_a_constant_may_depend_on_the_number_of_images():
    """As in a mean over the batch. It does not keep its first value."""

    def function(keys, images):
        scale = np.float32(len(images))
        return flat(images) * scale

    def with_branches(keys, images):
        return flat(images) * (2.0 if len(images) == 2 else jnp.full((1, 4), 7.0))

    for count in (2, 5, 1):
        keys, images = jax.random.split(jax.random.key(0), count), jnp.ones((count, 3, 3, 1))
        found = outputs(functions.as_pytree(function, keys, images), keys, images)
        np.testing.assert_array_equal(found, count * np.ones((count, 4)))
        found = outputs(functions.as_pytree(with_branches, keys, images), keys, images)
        np.testing.assert_array_equal(found, (2 if count == 2 else 7) * np.ones((count, 4)))
        # Also for other numbers than those of the fingerprint.
        found = outputs(functions.as_pytree(function, KEYS, IMAGES), keys, images)
        np.testing.assert_array_equal(found, count * np.ones((count, 4)))


def test_what_a_callback_calls_counts():
    """Its text is the same for all, and its identity tells it apart."""

    def of(compute):
        def function(keys, images):
            shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
            return jax.pure_callback(compute, shape, images)

        return function

    def differentiable(compute):
        @jax.custom_vjp
        def layer(images):
            return images

        layer.defvjp(lambda x: (x, None), lambda _, slope: (of(compute)(None, slope),))
        return lambda keys, images: layer(images)

    def times(factor):
        return lambda images: np.float32(factor) * np.asarray(images)

    outputs.clear_cache()
    once, twice = times(1), times(2)
    for factor, compute in ((1, once), (2, twice), (1, once)):
        np.testing.assert_allclose(as_compiled(outputs, of(compute)), factor * IMAGES, rtol=1e-6)
        slope = as_compiled(slopes, differentiable(compute))
        np.testing.assert_allclose(slope, factor * jnp.cos(IMAGES), rtol=1e-6)
    assert outputs._cache_size() == 2


def test_a_function_that_is_called_again_is_not_compiled_again():
    net, traces = Net(), []

    def counting(keys, images):
        traces.append(len(images))
        return net(keys, images)

    outputs.clear_cache()
    for function in (counting, lambda keys, images: net(keys, images), Net(), Net().__call__):
        as_compiled(outputs, function)
        as_compiled(outputs, function)
    assert outputs._cache_size() == 1
    # Lowered once, and compiled once.
    assert traces == [2, 2]


def test_an_object_that_is_gone_leaves_nothing_behind():
    """Another function at its address is lowered itself."""
    for weights in (ONE, TWO, ONE):
        found = as_compiled(outputs, Net(weights))
        np.testing.assert_array_equal(found, weights * np.ones(IMAGES.shape))
    before = len(functions._fingerprints._kept)
    nets = [Net() for _ in range(5)]
    for net in nets:
        as_compiled(outputs, net)
    assert len(functions._fingerprints._kept) == before + 5
    outputs.clear_cache()
    del nets, net
    gc.collect()
    assert len(functions._fingerprints._kept) <= before


@pytest.mark.parametrize("transform", ["jit", "grad", "vmap", "scan"])
def test_functions_that_close_over_traced_arrays_share_nothing(transform):
    """Their weights are those of the transformation, which has no text yet."""
    for make in (within_scan, lambda weights: lambda keys, images: flat(images) @ weights[:4]):

        def total(weights, make=make):
            return jnp.sum(as_compiled(outputs, make(weights)) ** 2)

        for weights in (IDENTITY, 2.0 * IDENTITY):
            alone = make(weights)(KEYS, IMAGES)
            if transform == "jit":
                found = jax.jit(total)(weights)
            elif transform == "grad":
                found, slope = jax.value_and_grad(total)(weights)
                assert float(jnp.abs(slope).max()) > 0
            elif transform == "vmap":
                (found,) = jax.vmap(total)(weights[None])
            else:
                _, (found,) = lax.scan(lambda c, w: (c, total(w)), 0, weights[None])
            np.testing.assert_allclose(found, jnp.sum(alone**2), rtol=1e-5)


def test_a_pytree_of_arrays_stays_as_it_is():
    for partial in (Partial(call, Partial(call, ONE)), Partial(jax.jit(call), ONE)):
        assert functions.as_pytree(partial, KEYS, IMAGES) is partial
    wrapped = functions.as_pytree(Net(), KEYS, IMAGES)
    assert functions.as_pytree(wrapped, KEYS, IMAGES) is wrapped and jax.tree.leaves(wrapped) == []
    # With a function among its leaves, it cannot be an argument of a compiled function.
    partial = Partial(lambda activation, keys, images: activation(images), jnp.sin)
    np.testing.assert_allclose(as_compiled(outputs, partial), jnp.sin(IMAGES), rtol=1e-6)


def test_functions_of_several_outputs_and_dtypes():
    """As the layers of a network, some of which have no gradient."""

    def features(keys, images):
        return {"mean": images.mean(), "top": jnp.argmax(images), "keys": keys, "layers": [images]}

    found = as_compiled(outputs, features)
    assert found["top"] == jnp.argmax(IMAGES)
    digests = {functions.digest(f, KEYS, IMAGES) for f in (features, functools.partial(features))}
    assert len(digests) == 1
