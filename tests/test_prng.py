"""Named key streams."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.tree_util import Partial

from vone_jax import functions, prng
from vone_jax.attacks import norms
from vone_jax.corruptions import frost
from vone_jax.training import GaussianImageNoise
from vone_jax.training.objectives import prime


def bits(key):
    return np.asarray(jax.random.key_data(key))


def test_streams_and_steps_differ_and_repeat():
    key = jax.random.key(0)
    derived = [
        key,
        prng.stream(key, "noise"),
        prng.stream(key, "data"),
        prng.fold(key, 0),
        prng.fold(key, 1),
    ]
    assert len({bits(k).tobytes() for k in derived}) == len(derived)
    np.testing.assert_array_equal(bits(prng.stream(key, "noise")), bits(derived[1]))


def test_streams_are_the_same_in_every_process():
    """The name is hashed with CRC-32, not with Python's hash, which differs between runs."""
    expected = jax.random.fold_in(jax.random.key(0), jnp.uint32(0xFDA99629))
    np.testing.assert_array_equal(bits(prng.stream(jax.random.key(0), "noise")), bits(expected))


def test_arrays_of_keys_are_folded_elementwise():
    keys = prng.example_keys(jax.random.key(0), 6).reshape(2, 3)
    folded = prng.fold(keys, 7)
    assert folded.shape == (2, 3)
    np.testing.assert_array_equal(bits(folded[1, 2]), bits(jax.random.fold_in(keys[1, 2], 7)))


def test_positions_number_examples_like_indices():
    key = jax.random.key(0)
    by_position = prng.example_keys(key, 4)
    by_index = prng.index_keys(key, jnp.arange(4))
    np.testing.assert_array_equal(bits(by_position), bits(by_index))
    np.testing.assert_array_equal(bits(prng.example_keys(by_index, 4)), bits(by_index))


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
def test_the_generator_of_jax_makes_no_difference(implementation):
    """In batches, those generators draw for all examples from the first key."""

    def derived(key):
        own = jax.random.wrap_key_data(jax.random.key_data(key))
        streams = prng.stream(key, "noise"), prng.example_keys(key, 3), prng.index_keys(key, [5, 8])
        return *streams, prng.example_keys(prng.fold(own[None], 1), 1)

    with jax.default_prng_impl(implementation):
        theirs = derived(jax.random.key(3))
    for key, expected in zip(theirs, derived(jax.random.key(3)), strict=True):
        assert key.dtype == expected.dtype
        np.testing.assert_array_equal(bits(key), bits(expected))
    with jax.default_prng_impl(implementation):
        keys = jax.random.split(jax.random.key(3), 4)
    kept = prng.example_keys(keys, 4)
    np.testing.assert_array_equal(bits(kept), bits(keys)[:, :2])


def test_wrong_keys_are_refused():
    with pytest.raises(TypeError, match="typed key made by jax.random.key, got ArrayImpl"):
        prng.example_keys(jax.random.PRNGKey(0), 4)
    with pytest.raises(TypeError, match="got int"):
        prng.fold(3, 1)
    with pytest.raises(ValueError, match=r"\(4,\), got shape \(3,\)"):
        prng.example_keys(prng.example_keys(jax.random.key(0), 3), 4)


def test_a_function_of_a_single_key_is_adapted():
    """Example i gets key i, outputs may be a dictionary, and weights stay leaves."""

    def layer(weight, key, images):
        assert key.shape == () and images.shape == (1, 2, 2, 1)
        noise = jax.random.normal(key, (1,))
        return {"mean": weight * jnp.mean(images, axis=(1, 2, 3)) + noise, "key": noise}

    def keys():
        return prng.example_keys(jax.random.key(0), 3)

    images = jnp.arange(12.0).reshape(3, 2, 2, 1)
    adapted = functions.per_example(Partial(layer, jnp.float32(2.0)))
    outputs = adapted(keys(), images)
    for i in range(3):
        expected = layer(2.0, keys()[i], images[i : i + 1])
        np.testing.assert_allclose(outputs["mean"][i], expected["mean"][0], rtol=1e-6)
        np.testing.assert_array_equal(outputs["key"][i], expected["key"][0])
    by_position = adapted(jax.random.key(0), images)
    np.testing.assert_array_equal(by_position["mean"], outputs["mean"])
    assert jax.tree.leaves(adapted) == [jnp.float32(2.0)]


SHAPE = (8, 8, 3)
DRAWS = {
    "random signs": lambda key: norms.random_signs(key, SHAPE, jnp.float32),
    "surface of L2": lambda key: norms.surface(key[None], SHAPE, norms.L2(), jnp.float32),
    "L1 ball": lambda key: norms.L1().sample(key[None], SHAPE, 1.0, jnp.float32),
    "frost": lambda key: frost.draw(key[None], SHAPE, (None, None, np.array([[40, 50]] * 5))),
    "share of noisy images": lambda key: GaussianImageNoise(1.0, 0.5).perturb(
        jax.random.split(key, 20), jnp.full((20, 1, 1, 1), 0.5, jnp.float32)
    ),
    "displacements": lambda key: prime.draw_temperature(key, SHAPE, 9)[0],
    "colours": lambda key: prime.draw_colours(key, (3, 2), 9, 0.1),
    "chains": lambda key: prime.PRIME(chains=1)._chain(key, jnp.full(SHAPE, 0.25, jnp.float32)),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_a_key_draws_the_same_where_64_bits_are_enabled(draw):
    """JAX draws other integers, and other signs, where the type is not given."""
    expected = [draw(jax.random.key(seed)) for seed in range(3)]
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        drawn = [draw(jax.random.key(seed)) for seed in range(3)]
    for one, other in zip(jax.tree.leaves(drawn), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_random_signs_are_those_of_jax():
    expected = jax.random.rademacher(jax.random.key(0), SHAPE, jnp.float32)
    np.testing.assert_array_equal(DRAWS["random signs"](jax.random.key(0)), expected)


def test_functions_that_do_not_fit_are_refused():
    for wrong in (
        "resnet18", nn.Dense(10), nn.Dense(10).bind({}), lambda images: images,
        Partial(lambda weights, keys, images, *, train: images, 1.0),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"^net must be a function of \(keys, images\)"):
            functions.check_function(wrong, "net")
    with pytest.raises(TypeError, match="without its variables; see models.logits_fn"):
        functions.check_function(nn.Dense(10), "net")
