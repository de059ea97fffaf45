"""A whole PGD attack on a small CNN, where the loop itself is a large part of the time."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import torch_baseline
from benchmarks.sizes import Sizes
from benchmarks.timing import OURS, Measurement, Program, jax_program, measure
from vone_jax import attacks, prng

EPS = 8 / 255
STEP = 2 / 255
NUM_CLASSES = 10
SIDE = 32


def small_cnn(weights, images: jax.Array) -> jax.Array:
    """The network of ``torch_baseline.small_cnn``: logits of NHWC images."""
    x = images
    for number, kernel in enumerate(weights[:-1]):
        x = jax.lax.conv_general_dilated(
            x, kernel, (1 if number == 0 else 2,) * 2, [(1, 1)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        x = jax.nn.relu(x)
    return x.mean((1, 2)) @ weights[-1]


def pgd(sizes: Sizes) -> list[Measurement]:
    """Linf-PGD on a deterministic classifier, from the image itself, the same for all."""
    rng = np.random.default_rng(0)
    images = rng.random((sizes.loop_batch, SIDE, SIDE, 3)).astype(np.float32)
    labels = rng.integers(0, NUM_CLASSES, sizes.loop_batch)
    features = [3, *(sizes.loop_width * factor for factor in (1, 2, 4))]
    weights = [
        jnp.asarray(rng.normal(0, (2 / (9 * a)) ** 0.5, (3, 3, a, b)), jnp.float32)
        for a, b in zip(features[:-1], features[1:], strict=True)
    ]
    weights.append(jnp.asarray(rng.normal(0, 1, (features[-1], NUM_CLASSES)), jnp.float32))
    keys = prng.example_keys(jax.random.key(0), sizes.loop_batch)

    def ours() -> Program:
        attack = attacks.PGD(norm="linf", eps=EPS, steps=sizes.loop_steps, step_size=STEP)
        logits_fn = jax.tree_util.Partial(
            lambda weights, key, images: small_cnn(weights, images), weights
        )
        return jax_program(
            attack.perturb, keys, logits_fn, jnp.asarray(images), jnp.asarray(labels, jnp.int32)
        )

    def naive() -> Program:
        """A loop in Python around a compiled gradient."""
        clean = jnp.asarray(images)

        def loss(x):
            logits = small_cnn(weights, x)
            return optax.softmax_cross_entropy_with_integer_labels(
                logits, jnp.asarray(labels, jnp.int32)
            ).mean()

        gradient = jax.jit(jax.grad(loss))

        def run():
            x = clean
            for _ in range(sizes.loop_steps):
                x = x + STEP * jnp.sign(gradient(x))
                x = jnp.clip(jnp.clip(x, clean - EPS, clean + EPS), 0.0, 1.0)
            return jax.block_until_ready(x)

        return Program(run)

    def by_torchattacks() -> Program:
        import torchattacks

        model = torch_baseline.small_cnn(sizes.loop_width, NUM_CLASSES)
        attack = torchattacks.PGD(
            model, eps=EPS, alpha=STEP, steps=sizes.loop_steps, random_start=False
        )
        tensors = torch_baseline.tensors(images, labels)
        return torch_baseline.program(lambda: attack(*tensors))

    def by_foolbox() -> Program:
        from foolbox.attacks import LinfPGD
        from foolbox.models.pytorch import PyTorchModel

        model = PyTorchModel(
            torch_baseline.small_cnn(sizes.loop_width, NUM_CLASSES),
            bounds=(0, 1),
            device=torch_baseline.device(),
        )
        attack = LinfPGD(abs_stepsize=STEP, steps=sizes.loop_steps, random_start=False)
        tensors = torch_baseline.tensors(images, labels)
        return torch_baseline.program(lambda: attack(model, *tensors, epsilons=EPS))

    return measure(
        f"PGD-{sizes.loop_steps} on a small CNN",
        sizes.loop_batch,
        {OURS: ours, "naive JAX": naive, "torchattacks": by_torchattacks, "foolbox": by_foolbox},
        sizes.repeats,
    )
