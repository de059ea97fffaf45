"""Functions that close over arrays: they never meet an old program, and rarely need a new one."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from vone_jax import prng, tracing

ONE, TWO = jnp.float32(1.0), jnp.float32(2.0)
KEYS = jax.random.split(jax.random.key(0), 2)
IMAGES = jnp.ones((2, 3, 3, 1))
LOADED = None


class Net:
    """A classifier whose weights are an attribute."""

    def __init__(self, scale=ONE):
        self.scale = scale

    def __call__(self, keys, images):
        return images * self.scale


def value_of(function):
    """What a compiled function that knows the function as a pytree computes."""
    return np.asarray(COMPILED(tracing.trace(function, KEYS, IMAGES), KEYS, IMAGES))


COMPILED = jax.jit(lambda function, keys, images: function(keys, images))


def compilations(functions):
    """Return how often functions are compiled that are called one after the other."""
    COMPILED.clear_cache()
    for function in functions:
        value_of(function)
    return COMPILED._cache_size()


# Each of these returns a function and what changes its result from 1 to 2.


def a_variable():
    scale = ONE

    def replace():
        nonlocal scale
        scale = TWO

    return (lambda keys, images: images * scale), replace


def a_number():
    scale = 1.0

    def replace():
        nonlocal scale
        scale = 2.0

    return (lambda keys, images: images * scale), replace


def a_global_that_is_loaded_when_it_is_needed():
    def function(keys, images):
        global LOADED
        if LOADED is None:
            LOADED = np.ones((), np.float32)
        return images * LOADED

    def replace():
        global LOADED
        LOADED = TWO

    return function, replace


def a_property_of_a_registry():
    registry = {"net": ONE}

    class Holder:
        @property
        def scale(self):
            return registry["net"]

    holder = Holder()
    return (lambda keys, images: images * holder.scale), lambda: registry.update(net=TWO)


def an_array_that_is_changed_in_place():
    scale = np.ones((1, 3, 3, 1), np.float32)
    return (lambda keys, images: images * scale), lambda: scale.fill(2.0)


def an_object():
    net = Net()
    return net, lambda: setattr(net, "scale", TWO)


def a_pytree_of_a_closure():
    net = Net()
    function = jax.tree_util.Partial(lambda weights, keys, images: net(keys, images) * weights, 1.0)
    return function, lambda: setattr(net, "scale", TWO)


def one_image_at_a_time():
    net = Net()
    return prng.per_example(net), lambda: setattr(net, "scale", TWO)


def a_linen_module():
    class Scale(linen.Module):
        @linen.compact
        def __call__(self, images):
            return images * self.param("scale", lambda key: ONE)

    variables = {"params": {"scale": ONE}}
    return (
        lambda keys, images: Scale().apply(variables, images),
        lambda: variables.update(params={"scale": TWO}),
    )


def an_nnx_module():
    net = nnx.Param(ONE)
    return (lambda keys, images: images * net[...]), lambda: net.set_value(TWO)


def a_function_compiled_anew():
    """A user's own ``jax.jit``, made again for other weights, as ``equinox.filter_jit`` does."""
    net = Net()

    def function(keys, images):
        scale = net.scale
        return jax.jit(lambda images: jnp.sin(images) * 0 + images * scale)(images)

    return function, lambda: setattr(net, "scale", TWO)


CASES = [
    a_variable, a_number, a_global_that_is_loaded_when_it_is_needed, a_property_of_a_registry,
    an_array_that_is_changed_in_place, an_object, a_pytree_of_a_closure, one_image_at_a_time,
    a_linen_module, an_nnx_module, a_function_compiled_anew,
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_replaced_weights_are_used_and_replaced_arrays_are_not_compiled_again(case):
    function, replace = case()
    COMPILED.clear_cache()
    np.testing.assert_array_equal(value_of(function), np.ones(IMAGES.shape))
    replace()
    np.testing.assert_array_equal(value_of(function), 2 * np.ones(IMAGES.shape))
    # A number is a part of the program, and an array of NumPy of another type than one of JAX.
    again = case in (a_number, a_global_that_is_loaded_when_it_is_needed)
    assert COMPILED._cache_size() == 1 + again


def test_a_function_that_is_made_again_is_not_compiled_again():
    net, seen = Net(), {"calls": 0}

    def counting(keys, images):
        seen["calls"] += 1
        return net(keys, images)

    assert compilations([lambda keys, images: net(keys, images) for _ in range(3)]) == 1
    assert compilations([functools.partial(Net.__call__, Net()) for _ in range(3)]) == 1
    assert compilations([Net(TWO).__call__ for _ in range(3)]) == 1
    assert compilations([counting] * 3) == 1
    assert compilations([jax.jit(lambda keys, images: net(keys, images)) for _ in range(3)]) == 1


def test_what_a_custom_derivative_closes_over_counts():
    """JAX calls the rule of a gradient only later, so its arrays are in no program before."""
    rule = Net()

    @jax.custom_vjp
    def layer(images):
        return images

    layer.defvjp(lambda images: (images, None), lambda _, slope: (slope * rule.scale,))
    gradient = jax.jit(
        lambda function, images: jax.grad(lambda images: function(KEYS, images).sum())(images)
    )
    for scale in (ONE, TWO):
        rule.scale = scale
        traced = tracing.trace(lambda keys, images: layer(images), KEYS, IMAGES)
        np.testing.assert_array_equal(gradient(traced, IMAGES), scale * np.ones(IMAGES.shape))


def test_what_a_callback_calls_counts():
    def of(factor):
        def function(keys, images):
            shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
            return jax.pure_callback(lambda images: factor * np.asarray(images), shape, images)

        return function

    for factor in (np.float32(1), np.float32(2)):
        np.testing.assert_array_equal(value_of(of(factor)), factor * np.ones(IMAGES.shape))


@pytest.mark.parametrize("case", [a_variable, a_linen_module, a_function_compiled_anew])
def test_a_traced_function_is_as_good_as_the_function(case):
    """For other numbers of images, under gradients and ``vmap``, with weights that are traced."""
    function, _ = case()
    traced = tracing.trace(function, KEYS, IMAGES)
    images = jax.random.uniform(jax.random.key(1), (5, 3, 3, 1))
    keys = jax.random.split(jax.random.key(0), 5)
    np.testing.assert_allclose(traced(keys, images), function(keys, images), rtol=1e-6)

    def total(call, images):
        return jnp.sum(call(keys, images) ** 2)

    slope = jax.jit(jax.grad(functools.partial(total, traced)))(images)
    np.testing.assert_allclose(slope, jax.grad(functools.partial(total, function))(images), 1e-6)
    several = jax.vmap(traced, in_axes=(None, 0))(keys, jnp.stack([images, 2 * images]))
    np.testing.assert_allclose(several[1], 2 * several[0], rtol=1e-6)
    weights = jax.jit(jax.grad(lambda call: total(call, images)))(traced)
    np.testing.assert_allclose(sum(weights.constants), 2 * jnp.sum(images**2), rtol=1e-5)


def test_an_array_may_have_the_shape_of_the_batch():
    """It follows from the images, and so it is no weight."""
    key = jax.random.split(jax.random.key(0), 1)
    function = lambda keys, images: images * np.ones((len(images), 1, 1, 1), np.float32)  # noqa: E731
    traced = tracing.trace(function, KEYS, IMAGES)
    np.testing.assert_array_equal(traced(key, IMAGES[:1]), IMAGES[:1])
    branching = lambda keys, images: images if len(images) == 1 else function(keys, images)  # noqa: E731
    with pytest.raises(ValueError, match="the same arrays for any number of images, got 1 .* 0"):
        tracing.trace(branching, KEYS, IMAGES)(key, IMAGES[:1])


def test_a_pytree_of_arrays_stays_as_it_is():
    partial = jax.tree_util.Partial(Net.__call__, ONE)
    assert tracing.trace(partial, KEYS, IMAGES) is partial
    # With a function among its leaves, it cannot be an argument of a compiled function.
    partial = jax.tree_util.Partial(lambda activation, keys, images: activation(images), jnp.sin)
    np.testing.assert_allclose(value_of(partial), jnp.sin(IMAGES), rtol=1e-6)


def test_text_and_constants_tell_functions_apart():
    weights = jnp.full((1, 3, 3, 1), 2.0)
    made = [tracing.trace(lambda keys, images: images * weights, KEYS, IMAGES) for _ in range(2)]
    other = tracing.trace(lambda keys, images: images + weights, KEYS, IMAGES)
    assert made[0].text == made[1].text != other.text
    assert made[0].constants == (weights,) and made[0].constants[0] is weights
