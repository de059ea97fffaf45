"""Random words, normals and uniforms as a function of (key, element), cheap enough for V1 noise.

On a CPU, ``jax.random.normal`` runs the Threefry cipher as a loop over arrays in memory, and costs
more than the Gabor bank. Here the same cipher is written out element by element. XLA fuses it with
the noise equation, and no random word is ever stored. The words are those of ``jax.random.bits``,
with all 20 rounds. An element depends on its key and its index alone, so neither the batch nor the
number of devices can change it.

The two words of an element give one normal by the transform of Box and Muller. The fast form
computes logarithm and sine as polynomials, because XLA's own may round differently at the ragged
end of an array; draws would then depend on where a batch is cut. The plain form has JAX's cipher,
logarithm and sine: the same words, and normals that differ in the last digits.

References:
  Salmon et al., Parallel random numbers: as easy as 1, 2, 3, SC 2011 (Threefry-2x32-20).
  Box and Muller, A note on the generation of random normal deviates, Ann. Math. Stat. 1958.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend import random as extend_random

from vone_jax.fast import switch

Words = tuple[jax.Array, jax.Array]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_KEY_PARITY = 0x1BD11BDA

# Minimax fits, highest power first, with a relative error below half a unit in the last place of
# float32. First, -2 log(1 + f) / f for f from sqrt(1/2) - 1 to sqrt(2) - 1.
_MINUS_TWO_LOG = (
    -0.17444710, 0.28733686, -0.29904534, 0.33124786, -0.39913667, 0.50004148, -0.66668371,
    0.99999976, -1.99999995,
)  # fmt: skip
# Second, sin(pi y) / y in powers of y^2, for y from -1/2 to 1/2.
_SINE = (0.0776594083, -0.598292160, 2.55007766, -5.16771009, 3.14159264)


def standard_normal(
    key: jax.Array, shape: tuple[int, ...], channels: slice = slice(None)
) -> jax.Array:
    """Draw standard normals in float32 from one scalar typed key; see ``random_words``.

    Magnitudes reach 6.66, the square root of 64 log 2. The bits do not depend on how the
    computation is batched, sharded or compiled with ``jit``. They may differ by one unit in the
    last place between machines, and between optimisation levels of the compiler, which may round a
    product and a sum once or twice.
    """
    return _standard_normal(key, shape, channels.start, channels.stop)


# A slice is no static argument: Python 3.11 cannot hash it.
@functools.partial(jax.jit, static_argnums=(1, 2, 3))
def _standard_normal(
    key: jax.Array, shape: tuple[int, ...], start: int | None, stop: int | None
) -> jax.Array:
    return _box_muller(*random_words(key, shape, slice(start, stop)))


def symmetric_uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Draw uniform numbers in (-1, 1) from one scalar typed key; see ``random_words``.

    They are odd multiples of 2^-24 in float32, with the guarantees of ``standard_normal``.
    """
    words, _ = random_words(key, shape)
    # float32 holds 24 bits. Half a step makes the numbers symmetric, and keeps them off the ends.
    steps = (words >> jnp.uint32(8)).astype(jnp.int32).astype(jnp.float32)
    return steps * 2.0**-23 + (2.0**-24 - 1)


def random_words(key: jax.Array, shape: tuple[int, ...], channels: slice = slice(None)) -> Words:
    """Draw two independent uniform uint32 words per element from one scalar typed key.

    Of the last axis, only the elements in the slice ``channels`` are drawn, with the same words.

    Only the first two words of the key are used, as in ``prng.threefry``. For a Threefry key the
    exclusive or of the drawn words is ``jax.random.bits(key, shape, "uint32")``.

    Raises:
      ValueError: if ``shape`` has more than 2^32 elements.
    """
    size = math.prod(shape)
    if size > 2**32:
        raise ValueError(f"shape must have at most 2**32 elements, got {shape}")
    index = lax.iota(jnp.uint32, size).reshape(shape)
    if channels != slice(None):
        index = index[..., channels]
    # Reading a key's data does not consume the key, so frozen noise may be drawn again and again.
    words = jax.random.key_data(key)
    return threefry_2x32((words[0], words[1]), (jnp.zeros_like(index), index))


def threefry_2x32(key: Words, counter: Words) -> Words:
    """Encipher counters by Threefry-2x32 with 20 rounds.

    A key and a counter have two uint32 words each. The words of the key are scalars, or have the
    shape of the counter. For each key the result is a permutation of the 2^64 counters.
    """
    if not switch.enabled():
        return _plain_threefry(key, counter)
    subkeys = (*key, key[0] ^ key[1] ^ jnp.uint32(_KEY_PARITY))
    left, right = counter[0] + subkeys[0], counter[1] + subkeys[1]
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            left = left + right
            right = _rotate_left(right, rotation) ^ left
        left = left + subkeys[(group + 1) % 3]
        right = right + subkeys[(group + 2) % 3] + jnp.uint32(group + 1)
    return left, right


def _plain_threefry(key: Words, counter: Words) -> Words:
    left, right = (jnp.broadcast_to(word, counter[0].shape).ravel() for word in key)
    halves = jnp.concatenate([word.ravel() for word in counter])
    words = extend_random.threefry_2x32((left, right), halves).reshape(2, *counter[0].shape)
    return words[0], words[1]


def _rotate_left(word: jax.Array, bits: int) -> jax.Array:
    return (word << jnp.uint32(bits)) | (word >> jnp.uint32(32 - bits))


def _box_muller(radius_word: jax.Array, angle_word: jax.Array) -> jax.Array:
    # 31 of the 32 bits, because signed integers become floats in one instruction. The half keeps
    # the uniform away from 0.
    uniform = (radius_word >> jnp.uint32(1)).astype(jnp.int32).astype(jnp.float32) + 0.5
    uniform = uniform * jnp.float32(2.0**-31)
    # Half of the circle is enough: there the sine of a uniform angle has the same distribution.
    turn = lax.bitcast_convert_type(angle_word, jnp.int32).astype(jnp.float32)
    turn = turn * jnp.float32(2.0**-32)
    if not switch.enabled():
        return jnp.sqrt(-2 * jnp.log(uniform)) * jnp.sin(np.pi * turn)
    return jnp.sqrt(_minus_two_log(uniform)) * _sine_of_half_turns(turn)


def _minus_two_log(x: jax.Array) -> jax.Array:
    """Return -2 log(x) for normal floats in (0, 1], from x = 2^e (1 + f) with the smallest |f|."""
    bits = lax.bitcast_convert_type(x, jnp.int32)
    root_half = np.float32(math.sqrt(0.5)).view(np.int32)
    exponent = lax.shift_right_arithmetic(bits - root_half, jnp.int32(23))
    f = lax.bitcast_convert_type(bits - (exponent << jnp.int32(23)), jnp.float32) - 1.0
    return f * _horner(_MINUS_TWO_LOG, f) - exponent.astype(jnp.float32) * (2 * math.log(2))


def _sine_of_half_turns(y: jax.Array) -> jax.Array:
    """Return sin(pi y) for y from -1/2 to 1/2."""
    return y * _horner(_SINE, y * y)


def _horner(coefficients: tuple[float, ...], x: jax.Array) -> jax.Array:
    value = jnp.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        value = value * x + coefficient
    return value
