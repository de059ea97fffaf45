"""Functions that close over arrays: when they are compiled again, and when not."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vone_jax import attacks, prng

ONE, TWO = jnp.float32(1.0), jnp.float32(2.0)
WEIGHTS = {"scale": ONE}
CALLS = 0


class Scaled:
    """A classifier whose weights are an attribute."""

    def __init__(self):
        self.weights = {"scale": [ONE]}

    def __call__(self, keys, images):
        return images * self.weights["scale"][0]

    def replace(self):
        self.weights = {"scale": [TWO]}


def closed_over():
    weights = ONE

    def replace():
        nonlocal weights
        weights = TWO

    return (lambda keys, images: images * weights), replace


def a_number():
    scale = 1.0

    def replace():
        nonlocal scale
        scale = 2.0

    return (lambda keys, images: images * scale), replace


def a_global():
    def function(keys, images):
        return jax.vmap(lambda image: image * WEIGHTS["scale"])(images)

    return function, lambda: WEIGHTS.update(scale=WEIGHTS["scale"] + 1)


def a_default():
    net = Scaled()

    def inner(images, *, net=net):
        return net(None, images)

    return (lambda keys, images: inner(images)), net.replace


def a_module():
    net = nnx.Param(ONE)

    def replace():
        net[...] = TWO

    return (lambda keys, images: images * net[...]), replace


def an_object():
    net = Scaled()
    return net, net.replace


def a_method():
    net = Scaled()
    return net.__call__, net.replace


def applied():
    net = Scaled()
    return functools.partial(Scaled.__call__, net), net.replace


def nested():
    net = Scaled()
    box = types.SimpleNamespace(nets=(net,))
    return (lambda keys, images: box.nets[0](keys, images)), net.replace


def exchanged():
    weights = [ONE, TWO]
    return (lambda keys, images: images * weights[0]), weights.reverse


def in_slots():
    class Slotted:
        __slots__ = ("scale",)

    net = Slotted()
    net.scale = ONE
    return (lambda keys, images: images * net.scale), lambda: setattr(net, "scale", TWO)


def counted(traced):
    """A compiled function that calls a pytree, and counts how often it is traced."""

    @jax.jit
    def call(function):
        traced.append(function)
        keys = jax.random.split(jax.random.key(0), 2)
        return function(keys, jnp.ones((2, 1, 1, 1)))

    return call


@pytest.mark.parametrize(
    "make",
    [closed_over, a_number, a_global, a_default, a_module, an_object, a_method, applied, nested]
    + [exchanged, in_slots],
)
@pytest.mark.parametrize("adapt", [prng.as_pytree, prng.per_example])
def test_replaced_weights_are_noticed_also_by_a_pytree_made_before(make, adapt):
    function, replace = make()
    kept, call = adapt(function), counted(traced := [])
    before = [call(kept), call(kept), call(adapt(function))]
    assert len(traced) == 1
    replace()
    after = [call(kept), call(kept), call(adapt(function))]
    assert len(traced) == 2
    assert np.min(after) > np.max(before)


def counts_its_calls():
    def function(keys, images):
        global CALLS
        CALLS += 1
        return images

    return lambda: function


def fetched_anew():
    net = Scaled()
    return lambda: net.__call__


def fills_its_attributes():
    """Weights that are put on the device when they are first needed, within the program."""
    net = types.SimpleNamespace(weights=None)

    def function(keys, images):
        if net.weights is None:
            net.weights = jnp.asarray(np.float32(2.0)) * images[0, 0, 0, 0]
        return images

    return lambda: function


def holds_itself():
    within = [ONE]
    within.append(within)

    def function(keys, images):
        return images * within[1][0]

    return lambda: function


class Odd:
    """An object whose attributes cannot be read."""

    @property
    def __dict__(self):
        raise RuntimeError("not shown")


class Proxy:
    """An object whose class cannot be read outside of a request, as in web frameworks."""

    @property
    def __class__(self):
        raise RuntimeError("no request")


class Lazy(dict):
    def values(self):
        raise OSError("closed")


def odd_objects():
    proxy, parts = Proxy(), [Odd(), Lazy(a=1), {1: ONE, "a": ONE}, np.load]

    def function(keys, images):
        return images if parts and proxy is not None else None

    return lambda: function


@pytest.mark.parametrize(
    "make", [counts_its_calls, fetched_anew, fills_its_attributes, holds_itself, odd_objects]
)
def test_a_function_with_the_same_arrays_is_compiled_once(make):
    get, call = make(), counted(traced := [])
    for _ in range(3):
        call(prng.as_pytree(get()))
    assert len(traced) == 1


def test_an_attack_sees_the_weights_of_now():
    """References: the sign of the gradient of a linear classifier of two classes."""
    sign = jnp.float32(1.0)

    def logits_fn(keys, images):
        total = sign * images.sum((1, 2, 3))
        return jnp.stack([total, -total], axis=1)

    images, labels = jnp.full((2, 2, 2, 1), 0.5), np.zeros(2, int)
    attack = attacks.FGSM("linf", 0.1)
    transfer = attacks.Transfer(attack, logits_fn)
    for sign in (jnp.float32(1.0), jnp.float32(-1.0)):
        for each in (attack, transfer):
            found = each(jax.random.key(0), logits_fn, images, labels)
            np.testing.assert_allclose(found, 0.5 - 0.1 * sign, atol=1e-6)
