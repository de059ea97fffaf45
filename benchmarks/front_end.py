"""The bank alone, and the block with neuronal noise."""

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from benchmarks import naive, torch_baseline
from benchmarks.sizes import Sizes
from benchmarks.timing import KEEPING, OURS, Case, Program, jax_program, keeping_memory
from vone_jax import v1
from vone_jax.v1.block import filter_bank


def images_of(sizes: Sizes, count: int) -> np.ndarray:
    """Random images of the front end's size, (N, H, W, C) in [0, 1)."""
    side = sizes.v1.image_size
    rng = np.random.default_rng(0)
    return rng.random((count, side, side, sizes.v1.in_channels)).astype(np.float32)


def bank(sizes: Sizes) -> Case:
    """Linear responses: of both phases of all filters; ours of those that cells read.

    Another row has the cells as well, without noise.
    """
    images = images_of(sizes, sizes.batch)

    def by_torch() -> Program:
        import torch

        front_end = torch_baseline.front_end(sizes.v1)
        tensor, _ = torch_baseline.tensors(images, np.zeros(len(images)))
        return torch_baseline.program(torch.no_grad()(lambda: front_end.bank(tensor)))

    def program(run) -> Callable[[], Program]:
        return keeping_memory(lambda: jax_program(run, images))

    contenders = {
        OURS: program(lambda images: filter_bank(sizes.v1).linear(images, sizes.v1.stride)),
        f"{OURS} with cells": program(lambda images: v1.noise_free_responses(sizes.v1, images)),
        "naive JAX": program(lambda images: naive.dense_bank(sizes.v1, images)),
        "PyTorch": by_torch,
        f"PyTorch, {KEEPING}": keeping_memory(by_torch),
    }
    return Case("bank", len(images), contenders, sizes.repeats)


def block(sizes: Sizes) -> Case:
    """The whole block with neuronal noise, fresh in every call but for the same key."""
    images = images_of(sizes, sizes.batch)

    def noisy(config: v1.VOneBlockConfig, responses) -> Callable[[], Program]:
        def run(key, images):
            return v1.VOneBlock(config).apply(
                {}, responses(config, images), key, method="add_noise"
            )

        return keeping_memory(lambda: jax_program(run, jax.random.key(0), images))

    def by_torch() -> Program:
        import torch

        front_end = torch_baseline.front_end(sizes.v1)
        tensor, _ = torch_baseline.tensors(images, np.zeros(len(images)))
        return torch_baseline.program(torch.no_grad()(lambda: front_end(tensor)))

    jax_noise = dataclasses.replace(sizes.v1, noise_generator="jax")
    contenders = {
        OURS: noisy(sizes.v1, v1.noise_free_responses),
        "vone_jax, noise of jax.random": noisy(jax_noise, v1.noise_free_responses),
        "naive JAX": noisy(jax_noise, naive.dense_responses),
        "PyTorch": by_torch,
        f"PyTorch, {KEEPING}": keeping_memory(by_torch),
    }
    return Case("block with noise", len(images), contenders, sizes.repeats)
