"""Functions that close over arrays: when they are compiled again, and when not."""

import functools
import gc
import types
import weakref
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

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


def of_settings(kind, before, after):
    """A setting in an attribute, which is a number, a string or an object with numbers."""

    def make():
        net = types.SimpleNamespace(setting=before)

        def function(keys, images):
            return images * kind(net.setting)

        return function, lambda: setattr(net, "setting", after)

    return make


class Fixed(linen.Module):
    """A module with a setting in a tuple."""

    scale: tuple[float, ...]

    def __call__(self, images):
        return images * self.scale[0]


def a_reloaded_module():
    """A module of the user that is loaded again after it was edited."""
    net: Any = types.ModuleType("net")
    net.forward = lambda images: images * ONE
    return (
        lambda keys, images: net.forward(images),
        lambda: setattr(net, "forward", lambda images: images * TWO),
    )


def a_linen_module():
    net = Fixed((1.0,))

    def replace():
        nonlocal net
        net = net.clone(scale=(2.0,))

    return (lambda keys, images: net.apply({}, images)), replace


def beside_odd_objects():
    proxy, odd, scale = Proxy(), Odd(), ONE

    def replace():
        nonlocal scale
        scale = TWO

    return (lambda keys, images: images * scale if proxy and not odd.hidden else odd), replace


def a_function():
    helper = lambda images: images  # noqa: E731

    def replace():
        nonlocal helper
        helper = lambda images: 2 * images  # noqa: E731

    return (lambda keys, images: helper(images)), replace


def of_another_class():
    """The methods of a class are no attributes of its objects."""

    class Net:
        def forward(self, images):
            return images

    class Other(Net):
        def forward(self, images):
            return 2 * images

    net = Net()

    def replace():
        nonlocal net
        net = Other()

    return (lambda keys, images: net.forward(images)), replace


def in_a_partial():
    scale = 1.0

    def replace():
        nonlocal scale
        scale = 2.0

    return jax.tree_util.Partial(lambda weights, keys, images: images * scale, ONE), replace


def a_method_in_a_partial():
    class Net:
        scale = 1.0

        def logits(self, weights, keys, images):
            return images * self.scale

    net = Net()
    return jax.tree_util.Partial(net.logits, ONE), lambda: setattr(net, "scale", 2.0)


SETTINGS = [
    of_settings(float, 1.0, 2.0),
    of_settings({"low": 1, "high": 2}.get, "low", "high"),
    of_settings(lambda setting: 2.0 if setting is None else 1.0, True, None),
]


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
    + [exchanged, in_slots, a_linen_module, beside_odd_objects, a_function, of_another_class]
    + [in_a_partial, a_method_in_a_partial, a_reloaded_module, *SETTINGS],
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


def counts_in_an_attribute():
    class Net:
        def __init__(self):
            self.calls = 0

        def __call__(self, keys, images):
            self.calls += 1
            return images

    net = Net()
    return lambda: net


def makes_modules():
    """A bound module makes those within it anew in each call."""

    class Outer(linen.Module):
        @linen.compact
        def __call__(self, images):
            return linen.BatchNorm(use_running_average=True)(images)

    bound = Outer().bind(Outer().init(jax.random.key(0), jnp.ones((1, 1, 1, 1))))
    for _ in range(2):
        bound(jnp.ones((2, 1, 1, 1)))  # The first calls make attributes of it.

    def function(keys, images):
        return bound(images)

    return lambda: function


def of_a_trainer(kind):
    """A method or function that reads some attributes of an object, of which others change."""

    class Trainer:
        def __init__(self):
            self.net, self.steps, self.losses, self.state = Scaled(), 0, [], ONE

        def logits(self, keys, images):
            return self.net(keys, images)

    def make():
        trainer = Trainer()
        function = kind(trainer)

        def get():
            trainer.steps += 1
            trainer.losses.append(0.5)
            trainer.state = ONE * trainer.steps
            return function

        return get

    return make


TRAINERS = [
    of_a_trainer(lambda trainer: trainer.logits),
    of_a_trainer(lambda trainer: lambda keys, images: trainer.net(keys, images)),
    of_a_trainer(
        lambda trainer: jax.tree_util.Partial(lambda _, keys, images: trainer.net(keys, images), 1)
    ),
]


def reads_an_attribute():
    """The attribute has the name of a global variable, which the function does not read."""

    def function(keys, images):
        return images + types.SimpleNamespace(CALLS=1).CALLS

    def get():
        global CALLS
        CALLS += 1
        return function

    return get


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
    """An object whose attributes cannot be read, but for one."""

    hidden = False

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
    "make",
    [counts_its_calls, fetched_anew, fills_its_attributes, holds_itself, odd_objects]
    + [counts_in_an_attribute, makes_modules, reads_an_attribute, *TRAINERS],
)
def test_a_function_with_the_same_arrays_is_compiled_once(make):
    get, call = make(), counted(traced := [])
    for _ in range(3):
        call(prng.as_pytree(get()))
    assert len(traced) == 1


def test_a_function_and_its_weights_are_freed():
    def known():
        net = Scaled()
        jax.tree.structure(prng.as_pytree(lambda keys, images: net(keys, images)))
        return weakref.ref(net)

    gone = known()
    gc.collect()
    assert gone() is None


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
