"""Whole attacks on a small CNN, where the loop itself is a large part of the time.

The CNN is trained a little against attacks. With random weights, no image would resist an attack
at 8/255: AutoAttack would end after its first member, and counts of resisting images would be zero.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import torch_baseline
from benchmarks.sizes import Sizes
from benchmarks.timing import OURS, Case, Program, jax_program, keeping_memory, twice
from vone_jax import attacks, mesh, prng
from vone_jax.data import embedded
from vone_jax.fast import convolve

EPS = 8 / 255
STEP = 2 / 255
NUM_CLASSES = 10
SIDE = 32

_BATCH = 32
_OPTIMIZER = optax.adam(3e-3)


@dataclasses.dataclass(frozen=True)
class Target:
    """The network and images that it classifies right.

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
        """The network as a classifier of keys and images."""
        return jax.tree_util.Partial(_keyed_logits, self.weights)

    def first(self, count: int) -> "Target":
        """Return the same network with the first images only."""
        return Target(self.weights, self.images[:count], self.labels[:count], self.keys[:count])

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
        x = jax.nn.relu(convolve(x, kernel, (stride, stride), [(1, 1), (1, 1)]))
    return x.mean((1, 2)) @ weights[-1]


def _keyed_logits(weights: list[jax.Array], key: jax.Array, images: jax.Array) -> jax.Array:
    del key  # The network has no noise.
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
    """Return Fashion-MNIST with a black rim, as images of three equal colours, and labels."""
    source = embedded.embedded_source(split)
    examples = [source[index] for index in range(len(source))]
    images = np.stack([example["image"] for example in examples]).astype(np.float32) / 255
    rim = (SIDE - images.shape[1]) // 2
    images = np.pad(images, ((0, 0), (rim, rim), (rim, rim), (0, 0)))
    labels = np.array([example["label"] for example in examples], np.int32)
    return np.repeat(images, 3, axis=-1), labels


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
    """Return the trained network and ``sizes.loop_batch`` test images, the same in every call."""
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
    # Only these: the other libraries skip images that are misclassified from the start.
    chosen = np.random.default_rng(0).permutation(np.flatnonzero(right))[: sizes.loop_batch]
    if len(chosen) < sizes.loop_batch:
        raise ValueError(f"the small CNN classifies only {len(chosen)} test images right")
    keys = prng.example_keys(jax.random.key(0), sizes.loop_batch)
    return Target(weights, images[chosen], labels[chosen], keys)


def naive_pgd(
    sizes: Sizes,
    classify: Callable[[list[jax.Array], jax.Array], jax.Array],
    at_once: int | None = None,
    devices: int = 1,
) -> Program:
    """Build a loop in Python around a compiled gradient, ``at_once`` images at a time or all.

    ``classify`` takes the weights of the target and images to logits.
    """
    target = target_of(sizes)
    share = mesh.data_mesh(jax.devices()[:devices])

    def loss(x: jax.Array, labels: jax.Array) -> jax.Array:
        predicted = classify(target.weights, x)
        return optax.softmax_cross_entropy_with_integer_labels(predicted, labels).mean()

    gradient = jax.jit(jax.grad(loss))
    size = at_once or sizes.loop_batch
    cuts = [slice(start, start + size) for start in range(0, sizes.loop_batch, size)]
    parts = [mesh.shard_batch(share, (target.images[cut], target.labels[cut])) for cut in cuts]

    def attack(clean: jax.Array, labels: jax.Array) -> jax.Array:
        x = clean
        for _ in range(sizes.loop_steps):
            x = x + STEP * jnp.sign(gradient(x, labels))
            x = jnp.clip(jnp.clip(x, clean - EPS, clean + EPS), 0.0, 1.0)
        return x

    return Program(
        lambda: jax.block_until_ready(jnp.concatenate([attack(*part) for part in parts])),
        compile_seconds=None,
        resisting=target.resisting,
    )


def pgd(sizes: Sizes) -> Case:
    """Linf-PGD on a deterministic classifier; all programs start from the image itself."""

    options = {"eps": EPS, "alpha": STEP, "steps": sizes.loop_steps, "random_start": False}
    by_torchattacks = functools.partial(_torchattacks, sizes, "PGD", options)

    def by_foolbox() -> Program:
        """Build Foolbox's attack on a compiled function in JAX."""
        from foolbox.attacks import LinfPGD
        from foolbox.models.jax import JAXModel

        target = target_of(sizes)
        images, labels = jnp.asarray(target.images), jnp.asarray(target.labels)
        model = JAXModel(jax.jit(lambda x: logits(target.weights, x)), bounds=(0, 1))
        attack = LinfPGD(abs_stepsize=STEP, steps=sizes.loop_steps, random_start=False)
        return Program(
            lambda: jax.block_until_ready(attack(model, images, labels, epsilons=EPS)[1]),
            resisting=target.resisting,
        )

    contenders = {
        **_ours(attacks.PGD("linf", EPS, steps=sizes.loop_steps, step_size=STEP), sizes),
        "naive JAX": keeping_memory(functools.partial(naive_pgd, sizes, logits)),
        **twice("torchattacks", by_torchattacks),
        "foolbox, JAX": keeping_memory(by_foolbox),
    }
    name = f"PGD-{sizes.loop_steps} on a small CNN"
    return Case(name, sizes.loop_batch, contenders, sizes.repeats)


class PlainCNN(nn.Module):
    """The small CNN in plain Flax, without code of this project, as most users have it."""

    width: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images
        for number in range(3):
            stride = 1 if number == 0 else 2
            convolution = nn.Conv(self.width * 2**number, (3, 3), stride, padding=1, use_bias=False)
            x = nn.relu(convolution(x))
        return nn.Dense(NUM_CLASSES, use_bias=False)(x.mean((1, 2)))


def plain_logits(weights: list[jax.Array], images: jax.Array) -> jax.Array:
    """Return the logits of NHWC images, with the weights of the target."""
    *kernels, matrix = weights
    params = {f"Conv_{number}": {"kernel": kernel} for number, kernel in enumerate(kernels)}
    params["Dense_0"] = {"kernel": matrix}
    model = PlainCNN(kernels[0].shape[-1])
    return cast(jax.Array, model.apply({"params": params}, images))


def foreign(sizes: Sizes) -> Case:
    """Linf-PGD on the plain network: our call against a loop in Python, on the same images."""
    part = sizes.loop_part
    sharing = math.gcd(jax.device_count(), sizes.loop_batch)

    def ours(in_batches: bool) -> Program:
        target = target_of(sizes)
        attack = attacks.PGD("linf", EPS, steps=sizes.loop_steps, step_size=STEP)
        if in_batches:
            attack = attacks.InBatches(attack, part, mesh.data_mesh())
        images, labels = jnp.asarray(target.images), jnp.asarray(target.labels)

        def logits_fn(keys: jax.Array, images: jax.Array) -> jax.Array:
            del keys  # The network has no noise.
            return plain_logits(target.weights, images)

        return Program(
            lambda: jax.block_until_ready(attack(target.keys, logits_fn, images, labels)),
            compile_seconds=None,
            resisting=target.resisting,
        )

    naive = functools.partial(naive_pgd, sizes, plain_logits)
    contenders = {
        OURS: functools.partial(ours, in_batches=False),
        f"{OURS}, {part} at a time on every device": functools.partial(ours, in_batches=True),
        "naive JAX": naive,
        f"naive JAX, {part} at a time": functools.partial(naive, at_once=part),
    }
    if sharing > 1:
        contenders["naive JAX on every device"] = functools.partial(naive, devices=sharing)
    contenders = {name: keeping_memory(build) for name, build in contenders.items()}
    name = f"PGD-{sizes.loop_steps} on a small CNN in plain Flax"
    return Case(name, sizes.loop_batch, contenders, sizes.repeats)


def apgd(sizes: Sizes) -> Case:
    """Auto-PGD on the cross-entropy: one run, from a random start that differs in each program."""

    options = {"norm": "Linf", "eps": EPS, "steps": sizes.auto_steps}
    by_torchattacks = functools.partial(_torchattacks, sizes, "APGD", options)

    def by_pyautoattack() -> Program:
        target = target_of(sizes)
        ensemble = _pyautoattack(target, version="custom", attacks=["apgd-ce"])
        ensemble.apgd.n_restarts = 1
        ensemble.apgd.n_iter = sizes.auto_steps
        return _ensemble_program(ensemble, target)

    contenders = {
        **_ours(attacks.APGD("linf", EPS, steps=sizes.auto_steps), sizes),
        **twice("torchattacks", by_torchattacks),
        "pyautoattack": by_pyautoattack,
    }
    name = f"APGD-{sizes.auto_steps} on a small CNN"
    return Case(name, sizes.loop_batch, contenders, sizes.repeats)


def auto_attack(sizes: Sizes) -> Case:
    """AutoAttack with its loop on the host, which drops images that are misclassified already.

    Its batches have one size and are padded, so smaller batches waste less work on padding.
    """
    steps = sizes.ensemble_steps

    def ours(batch: int) -> Program:
        target = target_of(sizes).first(sizes.ensemble_batch)
        attack = attacks.AutoAttack("linf", EPS, batch_size=batch)
        if steps is not None:
            members = tuple(_shortened(member, steps) for member in attack.members(NUM_CLASSES))
            attack = dataclasses.replace(attack, version="custom", attacks=members)
        images, labels = jnp.asarray(target.images), jnp.asarray(target.labels)
        sharing = math.gcd(jax.device_count(), sizes.ensemble_batch)
        if sharing > 1:
            devices = mesh.data_mesh(jax.devices()[:sharing])
            images, labels = mesh.shard_batch(devices, (target.images, target.labels))
        return Program(
            lambda: jax.block_until_ready(attack(target.keys, target.logits_fn, images, labels)),
            compile_seconds=None,
            resisting=target.resisting,
        )

    def by_pyautoattack() -> Program:
        target = target_of(sizes).first(sizes.ensemble_batch)
        ensemble = _pyautoattack(target, version="standard")
        if steps is not None:
            for member in (ensemble.apgd, ensemble.apgd_targeted, ensemble.fab):
                member.n_iter = steps
            ensemble.square.n_queries = steps
        # Measuring its memory would take another run of minutes.
        return dataclasses.replace(_ensemble_program(ensemble, target), memory=lambda: None)

    contenders = {
        OURS: keeping_memory(functools.partial(ours, sizes.ensemble_batch)),
        f"{OURS}, {sizes.ensemble_part} at a time": keeping_memory(
            functools.partial(ours, sizes.ensemble_part)
        ),
        "pyautoattack": by_pyautoattack,
    }
    name = "AutoAttack" if steps is None else f"AutoAttack cut to {steps} steps"
    return Case(f"{name} on a small CNN", sizes.ensemble_batch, contenders, sizes.ensemble_repeats)


def _shortened(member: Any, steps: int) -> Any:
    field = "queries" if isinstance(member, attacks.Square) else "steps"
    return dataclasses.replace(member, **{field: steps})


def _ours(attack: attacks.Attack, sizes: Sizes) -> dict[str, Callable[[], Program]]:
    """Return our attack on all images at once, and on a part at a time on every device."""

    def program(attack: attacks.Attack) -> Program:
        target = target_of(sizes)
        images, labels = jnp.asarray(target.images), jnp.asarray(target.labels)
        compiled = jax_program(attack.perturb, target.keys, target.logits_fn, images, labels)
        return dataclasses.replace(compiled, resisting=target.resisting)

    def in_batches() -> Program:
        return program(attacks.InBatches(attack, sizes.loop_part, mesh.data_mesh()))

    return {
        OURS: keeping_memory(lambda: program(attack)),
        f"{OURS}, {sizes.loop_part} at a time on every device": keeping_memory(in_batches),
    }


def _torchattacks(sizes: Sizes, name: str, options: dict[str, Any]) -> Program:
    """Build an attack of torchattacks by its name."""
    import torchattacks

    target = target_of(sizes)
    attack = getattr(torchattacks, name)(torch_baseline.small_cnn(target.weights), **options)
    return _torch_program(attack, target)


def _torch_program(attack: Callable[..., Any], target: Target) -> Program:
    """Build a program of a function from images and labels to adversarial images."""
    tensors = torch_baseline.tensors(target.images, target.labels)
    return dataclasses.replace(
        torch_baseline.program(lambda: attack(*tensors)),
        resisting=lambda adversarial: target.resisting(torch_baseline.from_tensor(adversarial)),
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
