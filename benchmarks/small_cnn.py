"""The classifier of the attack loops: a small CNN, trained a little against attacks.

Random weights would not do. Every image of theirs falls within 8/255, so that AutoAttack would end
after its first member, and counts of what resists would say nothing.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.sizes import Sizes
from vone_jax import prng
from vone_jax.data import embedded
from vone_jax.fast import convolve

EPS = 8 / 255
NUM_CLASSES = 10
SIDE = 32

_BATCH = 32
_LEARNING_RATE = 3e-3


@dataclasses.dataclass(frozen=True)
class Target:
    """A network and images that it classifies right.

    Attributes:
      weights: three kernels (HWIO) and the matrix of the linear layer.
      images: float32 NHWC in [0, 1].
      labels: int32.
      keys: one per image.
    """

    weights: list[jax.Array]
    images: np.ndarray
    labels: np.ndarray
    keys: jax.Array

    @property
    def logits_fn(self) -> jax.tree_util.Partial:
        """The network as our attacks take it."""
        return jax.tree_util.Partial(_keyed_logits, self.weights)

    def first(self, count: int) -> "Target":
        """The same network with the first images only."""
        return Target(self.weights, self.images[:count], self.labels[:count], self.keys[:count])

    def resisting(self, adversarial: jax.Array | np.ndarray) -> int:
        """Images that still stand: classified right, or attacked with what is no valid image.

        Valid is what is finite, in [0, 1], and within ``EPS`` of the image.
        """
        adversarial = np.asarray(adversarial)
        distance = np.abs(adversarial - self.images).max(axis=(1, 2, 3))
        low, high = adversarial.min(axis=(1, 2, 3)), adversarial.max(axis=(1, 2, 3))
        # A comparison with NaN is false.
        valid = (distance <= EPS + 1e-6) & (low >= 0) & (high <= 1)
        predicted = np.argmax(logits(self.weights, jnp.asarray(adversarial)), axis=-1)
        return int(np.sum((predicted == self.labels) | ~valid))


def logits(weights: list[jax.Array], images: jax.Array) -> jax.Array:
    """The network of ``torch_baseline.small_cnn``: logits of NHWC images."""
    x = images
    for number, kernel in enumerate(weights[:-1]):
        stride = 1 if number == 0 else 2
        x = jax.nn.relu(convolve(x, kernel, (stride, stride), [(1, 1), (1, 1)]))
    return x.mean((1, 2)) @ weights[-1]


def _keyed_logits(weights, key, images):
    del key  # no noise in it
    return logits(weights, images)


def _initial(width: int) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    features = [3, *(width * factor for factor in (1, 2, 4))]
    shapes: list[tuple[int, ...]] = [
        (3, 3, a, b) for a, b in zip(features[:-1], features[1:], strict=True)
    ]
    shapes.append((features[-1], NUM_CLASSES))
    return [
        jnp.asarray(rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape), jnp.float32)
        for shape in shapes
    ]


def _data(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST with a black rim, as images of three equal colours."""
    source = embedded.embedded_source(split)
    examples = [source[index] for index in range(len(source))]
    images = np.stack([example["image"] for example in examples]).astype(np.float32) / 255
    rim = (SIDE - images.shape[1]) // 2
    images = np.pad(images, ((0, 0), (rim, rim), (rim, rim), (0, 0)))
    labels = np.array([example["label"] for example in examples], np.int32)
    return np.repeat(images, 3, axis=-1), labels


_OPTIMIZER = optax.adam(_LEARNING_RATE)


@jax.jit
def _training_step(weights, moments, key, images, labels):
    """One step of Adam on images after one signed step from a random start."""

    def loss(weights, x):
        return optax.softmax_cross_entropy_with_integer_labels(logits(weights, x), labels).mean()

    start = images + jax.random.uniform(key, images.shape, images.dtype, -EPS, EPS)
    moved = start + 1.25 * EPS * jnp.sign(jax.grad(loss, argnums=1)(weights, start))
    adversarial = jnp.clip(jnp.clip(moved, images - EPS, images + EPS), 0.0, 1.0)
    updates, moments = _OPTIMIZER.update(jax.grad(loss)(weights, adversarial), moments)
    return optax.apply_updates(weights, updates), moments


@functools.cache
def target(sizes: Sizes) -> Target:
    """The trained network and ``sizes.loop_batch`` test images; the same in every call."""
    images, labels = _data("train")
    rows = np.random.default_rng(0).permutation(len(images))
    weights = _initial(sizes.loop_width)
    moments = _OPTIMIZER.init(weights)
    for number, batch in enumerate(np.resize(rows, (sizes.loop_training, _BATCH))):
        key = prng.fold(jax.random.key(0), number)
        # Optax's Adam mixes integers and floats.
        with jax.numpy_dtype_promotion("standard"):
            weights, moments = _training_step(weights, moments, key, images[batch], labels[batch])
    images, labels = _data("test")
    right = np.asarray(jnp.argmax(jax.jit(logits)(weights, images), axis=-1)) == labels
    # The opponents leave out what is misclassified from the start: they would have less to do.
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(right))[: sizes.loop_batch]
    if len(chosen) < sizes.loop_batch:
        raise ValueError(f"the small CNN classifies only {len(chosen)} test images right")
    keys = prng.example_keys(jax.random.key(0), sizes.loop_batch)
    return Target(weights, images[chosen], labels[chosen], keys)
