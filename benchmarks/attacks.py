"""Whole attacks on a small CNN, beside other toolkits and a loop in naive JAX.

The loop itself is a large part of the time. The CNN is trained a little against attacks. With
random weights no image would resist, and AutoAttack would end after its first member.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import torch_baseline
from benchmarks.timing import OURS, Contenders, Program
from vone_jax import attacks, data, mesh, prng

EPS = 8 / 255
STEP = 2 / 255
NUM_CLASSES = 10
SIDE = 32
_OPTIMIZER = optax.adam(3e-3)


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of all cases. The defaults are the full sizes.

    Attributes:
      batch, part: images per attack, and images at a time where the batch is split.
      steps, auto_steps: steps of PGD, and of Auto-PGD.
      width, training: channels of the first layer of the CNN, and its training steps.
      ensemble_batch, ensemble_part: ``batch`` and ``part`` of AutoAttack.
      ensemble_steps: steps of its members; None for those of version "standard".
    """

    batch: int = 256
    part: int = 16
    steps: int = 50
    auto_steps: int = 100
    width: int = 32
    training: int = 150
    ensemble_batch: int = 32
    ensemble_part: int = 8
    ensemble_steps: int | None = None


QUICK = Sizes(2, 1, 2, 2, 4, 20, 2, 1, 2)


@dataclasses.dataclass(frozen=True)
class Target:
    """The network and images that it classifies right.

    Attributes:
      weights: three kernels (HWIO) and the matrix of the linear layer.
      images: float32 NHWC in [0, 1].
      labels: int32.
    """

    weights: list[jax.Array]
    images: np.ndarray
    labels: np.ndarray

    def first(self, count: int) -> "Target":
        """Return the same network with the first images only."""
        return Target(self.weights, self.images[:count], self.labels[:count])

    def resisting(self, adversarial: jax.Array | np.ndarray) -> int:
        """Count images that resist: classified right, or attacked with an invalid image.

        An adversarial image is valid if it is finite, in [0, 1] and within ``EPS`` of the image.
        """
        adversarial = np.asarray(adversarial)
        distance = np.abs(adversarial - self.images).max(axis=(1, 2, 3))
        low, high = adversarial.min(axis=(1, 2, 3)), adversarial.max(axis=(1, 2, 3))
        # A comparison with NaN is false.
        valid = (distance <= EPS + 1e-6) & (low >= 0) & (high <= 1)
        predicted = np.argmax(logits(self.weights, jnp.asarray(adversarial)), axis=-1)
        return int(np.sum((predicted == self.labels) | ~valid))


def logits(weights: list[jax.Array], images: jax.Array) -> jax.Array:
    """Return the logits of NHWC images, by the network of ``torch_baseline.small_cnn``."""
    x = images
    for number, kernel in enumerate(weights[:-1]):
        stride = 1 if number == 0 else 2
        x = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), [(1, 1), (1, 1)],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        x = jax.nn.relu(x)
    return x.mean((1, 2)) @ weights[-1]


def _keyed_logits(weights: list[jax.Array], keys: jax.Array, images: jax.Array) -> jax.Array:
    del keys  # The network has no noise.
    return logits(weights, images)


def _data(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return Fashion-MNIST with a black rim, as images of three equal colours, and labels."""
    source = data.load("fashion_mnist_small", split)
    examples = [source[index] for index in range(len(source))]
    images = np.stack([example["image"] for example in examples]).astype(np.float32) / 255
    rim = (SIDE - images.shape[1]) // 2
    images = np.pad(images, ((0, 0), (rim, rim), (rim, rim), (0, 0)))
    return np.repeat(images, 3, axis=-1), np.array([e["label"] for e in examples], np.int32)


@jax.jit
def _training_step(weights: Any, moments: Any, key: jax.Array, images: Any, labels: Any) -> Any:
    """Take one step of Adam on images after one signed step from a random start."""

    def loss(weights: Any, x: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(logits(weights, x), labels).mean()

    start = images + jax.random.uniform(key, images.shape, images.dtype, -EPS, EPS)
    moved = start + 1.25 * EPS * jnp.sign(jax.grad(loss, argnums=1)(weights, start))
    adversarial = jnp.clip(jnp.clip(moved, images - EPS, images + EPS), 0.0, 1.0)
    updates, moments = _OPTIMIZER.update(jax.grad(loss)(weights, adversarial), moments)
    return optax.apply_updates(weights, updates), moments


@functools.cache
def target_of(sizes: Sizes) -> Target:
    """Return the trained network and ``sizes.batch`` test images, the same in every call."""
    images, labels = _data("train")
    rng = np.random.default_rng(0)
    rows = rng.permutation(len(images))
    features = [3, sizes.width, 2 * sizes.width, 4 * sizes.width]
    shapes: list[tuple[int, ...]] = [
        (3, 3, a, b) for a, b in zip(features[:-1], features[1:], strict=True)
    ]
    weights = [
        jnp.asarray(rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape), jnp.float32)
        for shape in (*shapes, (features[-1], NUM_CLASSES))
    ]
    moments = _OPTIMIZER.init(weights)
    for number, batch in enumerate(np.resize(rows, (sizes.training, 32))):
        key = prng.fold(jax.random.key(0), number)
        # Optax's Adam mixes integers and floats.
        with jax.numpy_dtype_promotion("standard"):
            weights, moments = _training_step(weights, moments, key, images[batch], labels[batch])
    images, labels = _data("test")
    right = np.asarray(jnp.argmax(jax.jit(logits)(weights, images), axis=-1)) == labels
    # Only these: the other libraries skip images that are misclassified from the start.
    chosen = rng.permutation(np.flatnonzero(right))[: sizes.batch]
    if len(chosen) < sizes.batch:
        raise ValueError(f"the small CNN classifies only {len(chosen)} test images right")
    return Target(weights, images[chosen], labels[chosen])


def _ours(sizes: Sizes, attack: attacks.Attack, part: int | None = None) -> Program:
    """Our attack on all images at once, or on a part at a time on every device."""
    target = target_of(sizes)
    keys = prng.example_keys(jax.random.key(0), sizes.batch)
    logits_fn = jax.tree_util.Partial(_keyed_logits, target.weights)
    arguments = [jnp.asarray(target.images), jnp.asarray(target.labels)]
    size = sizes.batch
    if part is not None:
        devices = mesh.data_mesh()
        keys, *arguments = jax.device_put((keys, *arguments), mesh.sharded(devices))
        logits_fn, size = mesh.replicate(devices, logits_fn), part * devices.size
    run = functools.partial(attack, keys, logits_fn, *arguments, batch_size=size)
    return Program(lambda: jax.block_until_ready(run()), sizes.batch, target.resisting)


def _both(sizes: Sizes, attack: attacks.Attack) -> Contenders:
    return {
        OURS: functools.partial(_ours, sizes, attack),
        f"{OURS}, {sizes.part} at a time on every device": functools.partial(
            _ours, sizes, attack, sizes.part
        ),
    }


def naive_pgd(sizes: Sizes) -> Program:
    """Build a loop in Python around a compiled gradient."""
    target = target_of(sizes)
    clean, labels = jnp.asarray(target.images), jnp.asarray(target.labels)

    @jax.jit
    @jax.grad
    def gradient(x: jax.Array) -> jax.Array:
        predicted = logits(target.weights, x)
        return optax.softmax_cross_entropy_with_integer_labels(predicted, labels).mean()

    def attack() -> jax.Array:
        x = clean
        for _ in range(sizes.steps):
            x = x + STEP * jnp.sign(gradient(x))
            x = jnp.clip(jnp.clip(x, clean - EPS, clean + EPS), 0.0, 1.0)
        return jax.block_until_ready(x)

    return Program(attack, sizes.batch, target.resisting)


def pgd(sizes: Sizes) -> Contenders:
    """Linf-PGD on a deterministic classifier; all programs start from the image itself."""

    def by_foolbox() -> Program:
        from foolbox.attacks import LinfPGD
        from foolbox.models.jax import JAXModel

        target = target_of(sizes)
        images, labels = jnp.asarray(target.images), jnp.asarray(target.labels)
        model = JAXModel(jax.jit(lambda x: logits(target.weights, x)), bounds=(0, 1))
        attack = LinfPGD(abs_stepsize=STEP, steps=sizes.steps, random_start=False)
        run = functools.partial(attack, model, images, labels, epsilons=EPS)
        return Program(lambda: jax.block_until_ready(run()[1]), sizes.batch, target.resisting)

    options = {"eps": EPS, "alpha": STEP, "steps": sizes.steps, "random_start": False}
    return {
        **_both(sizes, attacks.PGD("linf", EPS, steps=sizes.steps, step_size=STEP)),
        "naive JAX": functools.partial(naive_pgd, sizes),
        "torchattacks": functools.partial(_torchattacks, sizes, "PGD", options),
        "foolbox, JAX": by_foolbox,
    }


def apgd(sizes: Sizes) -> Contenders:
    """Auto-PGD on the cross-entropy: one run, from a random start that differs in each program."""

    def by_pyautoattack() -> Program:
        target = target_of(sizes)
        ensemble = _pyautoattack(target, version="custom", attacks=["apgd-ce"])
        ensemble.apgd.n_restarts = 1
        ensemble.apgd.n_iter = sizes.auto_steps
        return _ensemble_program(ensemble, target)

    options = {"norm": "Linf", "eps": EPS, "steps": sizes.auto_steps}
    return {
        **_both(sizes, attacks.APGD("linf", EPS, steps=sizes.auto_steps)),
        "torchattacks": functools.partial(_torchattacks, sizes, "APGD", options),
        "pyautoattack": by_pyautoattack,
    }


def auto_attack(sizes: Sizes) -> Contenders:
    """AutoAttack with its loop on the host, which drops images that are misclassified already.

    Its batches have one size and are padded, so smaller batches waste less work on padding.
    """
    steps = sizes.ensemble_steps

    def ours(batch: int) -> Program:
        attack: attacks.Attack = attacks.AutoAttack("linf", EPS)
        if steps is not None:
            members = tuple(_shortened(member, steps) for member in attack.members(NUM_CLASSES))
            attack = attacks.Strongest(members)
        target = target_of(sizes).first(sizes.ensemble_batch)
        keys = prng.example_keys(jax.random.key(0), sizes.ensemble_batch)
        logits_fn = jax.tree_util.Partial(_keyed_logits, target.weights)
        images, labels = jnp.asarray(target.images), jnp.asarray(target.labels)
        run = functools.partial(attack, keys, logits_fn, images, labels, batch_size=batch)
        return Program(lambda: jax.block_until_ready(run()), sizes.ensemble_batch, target.resisting)

    def by_pyautoattack() -> Program:
        target = target_of(sizes).first(sizes.ensemble_batch)
        ensemble = _pyautoattack(target, version="standard")
        if steps is not None:
            for member in (ensemble.apgd, ensemble.apgd_targeted, ensemble.fab):
                member.n_iter = steps
            ensemble.square.n_queries = steps
        return _ensemble_program(ensemble, target)

    return {
        OURS: functools.partial(ours, sizes.ensemble_batch),
        f"{OURS}, {sizes.ensemble_part} at a time": functools.partial(ours, sizes.ensemble_part),
        "pyautoattack": by_pyautoattack,
    }


def _shortened(member: Any, steps: int) -> Any:
    field = "queries" if isinstance(member, attacks.Square) else "steps"
    return dataclasses.replace(member, **{field: steps})


def _torchattacks(sizes: Sizes, name: str, options: dict[str, Any]) -> Program:
    """Build an attack of torchattacks by its name."""
    import torchattacks

    target = target_of(sizes)
    attack = getattr(torchattacks, name)(torch_baseline.small_cnn(target.weights), **options)
    return _torch_program(attack, target)


def _torch_program(attack: Callable[..., Any], target: Target) -> Program:
    """Build a program of a function from images and labels to adversarial images."""
    tensors = torch_baseline.tensors(target.images, target.labels)
    return torch_baseline.program(
        lambda: attack(*tensors),
        len(target.images),
        lambda adversarial: target.resisting(torch_baseline.from_tensor(adversarial)),
    )


def _pyautoattack(target: Target, **options: Any) -> Any:
    import pyautoattack

    model = torch_baseline.small_cnn(target.weights)
    return pyautoattack.AutoAttack(
        model, norm="Linf", eps=EPS, seed=0, device=torch_baseline.device(), **options
    )


def _ensemble_program(ensemble: Any, target: Target) -> Program:
    size = len(target.images)
    return _torch_program(
        lambda images, labels: ensemble.run_standard_evaluation(images, labels, batch_size=size)[0],
        target,
    )
