"""An attack on a network that uses no code of this project, as most users have it."""

import functools
import math
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from benchmarks.attacks import EPS, NUM_CLASSES, STEP, naive_pgd, target_of
from benchmarks.sizes import Sizes
from benchmarks.timing import OURS, Case, Program, keeping_memory
from vone_jax import attacks, mesh


class PlainCNN(nn.Module):
    """The small CNN of ``benchmarks.attacks`` in plain Flax."""

    width: int

    @nn.compact
    def __call__(self, images: jax.Array) -> jax.Array:
        x = images
        for number in range(3):
            stride = 1 if number == 0 else 2
            convolution = nn.Conv(self.width * 2**number, (3, 3), stride, padding=1, use_bias=False)
            x = nn.relu(convolution(x))
        return nn.Dense(NUM_CLASSES, use_bias=False)(x.mean((1, 2)))


def logits(weights: list[jax.Array], images: jax.Array) -> jax.Array:
    """Return the logits of NHWC images, with the weights of the target."""
    *kernels, matrix = weights
    params = {f"Conv_{number}": {"kernel": kernel} for number, kernel in enumerate(kernels)}
    params["Dense_0"] = {"kernel": matrix}
    model = PlainCNN(kernels[0].shape[-1])
    return cast(jax.Array, model.apply({"params": params}, images))


def pgd(sizes: Sizes) -> Case:
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
            return logits(target.weights, images)

        return Program(
            lambda: jax.block_until_ready(attack(target.keys, logits_fn, images, labels)),
            compiles_when_run=True,
            resisting=target.resisting,
        )

    naive = functools.partial(naive_pgd, sizes, logits)
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
