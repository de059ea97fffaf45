"""The VOneResNet and its front end, beside naive JAX and PyTorch.

Cases: the bank, the block with noise, logits, the input gradient, a step of PGD with several draws,
and a training step.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import naive, torch_baseline
from benchmarks.naive import NaiveVOneNet
from benchmarks.sizes import Sizes
from benchmarks.timing import OURS, Case, Program, jax_program, keeping_memory, twice
from vone_jax import attacks, models, prng, v1
from vone_jax.v1.block import filter_bank

NUM_CLASSES = 1000
EPS = 1 / 255


def images_of(sizes: Sizes, count: int) -> np.ndarray:
    """Return random images of the size of the front end, (N, H, W, C) in [0, 1)."""
    side = sizes.v1.image_size
    rng = np.random.default_rng(0)
    return rng.random((count, side, side, sizes.v1.in_channels)).astype(np.float32)


def _torch_front_end(sizes: Sizes, method: str) -> dict[str, Callable[[], Program]]:
    """Return PyTorch's contenders: ``method`` of its front end on a batch of images."""

    def build() -> Program:
        import torch

        run = getattr(torch_baseline.front_end(sizes.v1), method)
        images, _ = torch_baseline.tensors(images_of(sizes, sizes.batch), np.zeros(sizes.batch))
        return torch_baseline.program(torch.no_grad()(lambda: run(images)))

    return twice("PyTorch", build)


def bank(sizes: Sizes) -> Case:
    """Linear responses: all filters in both phases; in our program those that cells read.

    Two more rows have the cells as well, without noise, and cells with a normalising surround.
    """
    images = images_of(sizes, sizes.batch)
    settings = v1.SurroundNormalization(largest_extent=0.25 * sizes.v1.visual_degrees)
    surround = dataclasses.replace(sizes.v1, normalization=settings)

    def program(run: Callable[..., Any]) -> Callable[[], Program]:
        return keeping_memory(lambda: jax_program(run, images))

    contenders = {
        OURS: program(lambda images: filter_bank(sizes.v1).linear(images, sizes.v1.stride)),
        f"{OURS} with cells": program(lambda images: v1.noise_free_responses(sizes.v1, images)),
        f"{OURS} with surround": program(lambda images: v1.noise_free_responses(surround, images)),
        "naive JAX": program(lambda images: naive.dense_bank(sizes.v1, images)),
        **_torch_front_end(sizes, "bank"),
    }
    return Case("bank", len(images), contenders, sizes.repeats)


def block(sizes: Sizes) -> Case:
    """The whole block with neuronal noise, from the same key in every call."""
    images = images_of(sizes, sizes.batch)

    def noisy(config: v1.VOneBlockConfig, responses: Callable) -> Callable[[], Program]:
        def run(key: jax.Array, images: jax.Array) -> Any:
            parts = [responses(config, images)]
            return v1.VOneBlock(config).apply({}, parts, key, method="noisy")

        return keeping_memory(lambda: jax_program(run, jax.random.key(0), images))

    jax_noise = dataclasses.replace(sizes.v1, noise_generator="jax")
    contenders = {
        OURS: noisy(sizes.v1, v1.noise_free_responses),
        "vone_jax, noise of jax.random": noisy(jax_noise, v1.noise_free_responses),
        "naive JAX": noisy(jax_noise, naive.dense_responses),
        **_torch_front_end(sizes, "forward"),
    }
    return Case("block with noise", len(images), contenders, sizes.repeats)


@dataclasses.dataclass(frozen=True)
class _Networks:
    """One set of weights in two networks, with a key, images and labels."""

    ours: models.VOneNet
    naive: NaiveVOneNet
    variables: Any
    key: jax.Array
    images: jax.Array
    labels: jax.Array


def _networks(sizes: Sizes, batch: int) -> _Networks:
    ours = models.create(f"vone_{sizes.network}", NUM_CLASSES, v1=sizes.v1, width=sizes.width)
    assert isinstance(ours, models.VOneNet)
    images = jnp.asarray(images_of(sizes, batch))
    key = jax.random.key(0)
    # Weights of the usual size, drawn without compiling an initialisation.
    shapes = jax.eval_shape(ours.init, {"params": key, "noise": key}, images)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: _weights(rng, leaf.shape), shapes)
    naive = NaiveVOneNet(
        v1=dataclasses.replace(sizes.v1, noise_generator="jax"),
        back_end=ours.back_end,
        bottleneck_features=ours.bottleneck_features,
    )
    return _Networks(ours, naive, variables, key, images, jnp.zeros(batch, jnp.int32))


def _weights(rng: np.random.Generator, shape: tuple[int, ...]) -> jax.Array:
    if len(shape) < 2:
        return jnp.ones(shape, jnp.float32)
    return jnp.asarray(rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape), jnp.float32)


def _torch(sizes: Sizes, batch: int, train: bool = False) -> tuple[Any, Any, Any]:
    model = torch_baseline.network(sizes.v1, sizes.network, NUM_CLASSES).train(train)
    tensors = torch_baseline.tensors(images_of(sizes, batch), np.zeros(batch))
    return model, *tensors


def _loss(logits_fn: Any, key: jax.Array, images: jax.Array, labels: jax.Array) -> jax.Array:
    logits = logits_fn(key, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _program(run: Callable[..., Any], networks: _Networks, model: models.VOneNet) -> Program:
    """Compile ``run(logits_fn, key, images, labels)`` for one of the networks."""
    logits_fn = models.logits_fn(model, networks.variables)
    return jax_program(run, logits_fn, networks.key, networks.images, networks.labels)


def _case(
    name: str,
    sizes: Sizes,
    batch: int,
    program: Callable[[_Networks, models.VOneNet], Program],
    by_torch: Callable[[], Program],
    naive_program: Callable[[_Networks, models.VOneNet], Program] | None = None,
) -> Case:
    """Return a case: ``program`` of both networks in JAX, and PyTorch's programs."""

    def ours() -> Program:
        networks = _networks(sizes, batch)
        return program(networks, networks.ours)

    def plain() -> Program:
        networks = _networks(sizes, batch)
        return (naive_program or program)(networks, networks.naive)

    contenders = {
        OURS: keeping_memory(ours),
        "naive JAX": keeping_memory(plain),
        **twice("PyTorch", by_torch),
    }
    return Case(f"network, {name}", batch, contenders, sizes.repeats)


def forward(sizes: Sizes) -> Case:
    """Logits of a batch, with noise."""

    def by_torch() -> Program:
        import torch

        model, images, _ = _torch(sizes, sizes.batch)
        return torch_baseline.program(torch.no_grad()(lambda: model(images)))

    program = functools.partial(
        _program, lambda logits_fn, key, images, labels: logits_fn(key, images)
    )
    return _case("forward", sizes, sizes.batch, program, by_torch)


def input_gradient(sizes: Sizes) -> Case:
    """Gradient of the loss with respect to the images, one draw."""

    def by_torch() -> Program:
        model, images, labels = _torch(sizes, sizes.batch)
        model.requires_grad_(False)
        return torch_baseline.program(lambda: torch_baseline.image_gradient(model, images, labels))

    program = functools.partial(_program, jax.grad(_loss, argnums=2))
    return _case("input gradient", sizes, sizes.batch, program, by_torch)


def averaged_step(sizes: Sizes) -> Case:
    """One step of PGD along a gradient that is averaged over several draws."""
    attack = attacks.PGD(norm="linf", eps=EPS, steps=1, step_size=EPS / 8, eot_samples=sizes.draws)

    def ours(networks: _Networks, model: models.VOneNet) -> Program:
        keys = prng.example_keys(networks.key, sizes.draw_batch)
        logits_fn = models.logits_fn(model, networks.variables)
        return jax_program(attack.perturb, keys, logits_fn, networks.images, networks.labels)

    def in_a_loop(networks: _Networks, model: models.VOneNet) -> Program:
        gradient = _program(jax.grad(_loss, argnums=2), networks, model)

        def step():
            mean = sum(gradient.run() for _ in range(sizes.draws)) / sizes.draws
            moved = networks.images + EPS / 8 * jnp.sign(mean)
            moved = jnp.clip(moved, networks.images - EPS, networks.images + EPS)
            return jax.block_until_ready(jnp.clip(moved, 0.0, 1.0))

        return dataclasses.replace(gradient, run=step)

    def by_torch() -> Program:
        model, images, labels = _torch(sizes, sizes.draw_batch)
        model.requires_grad_(False)

        def step():
            gradient = torch_baseline.image_gradient(model, images, labels)
            for _ in range(sizes.draws - 1):
                gradient += torch_baseline.image_gradient(model, images, labels)
            moved = images + EPS / 8 * gradient.sign()
            return moved.clamp(images - EPS, images + EPS).clamp(0, 1)

        return torch_baseline.program(step)

    name = f"PGD step with {sizes.draws} draws"
    return _case(name, sizes, sizes.draw_batch, ours, by_torch, in_a_loop)


def training_step(sizes: Sizes) -> Case:
    """Loss, gradient of all weights, batch statistics, and SGD with momentum."""
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, momentum=0.9))

    def program(networks: _Networks, model: models.VOneNet) -> Program:
        def run(variables: Any, opt_state: Any, key: jax.Array, images: jax.Array, labels: Any):
            def loss(params: Any):
                logits, updated = model.apply(
                    {**variables, "params": params}, images, train=True, noise_key=key,
                    mutable=["batch_stats"],
                )  # fmt: skip
                losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
                return losses.mean(), updated

            (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(
                variables["params"]
            )
            updates, opt_state = optimizer.update(gradients, opt_state, variables["params"])
            params = optax.apply_updates(variables["params"], updates)
            return value, {"params": params, **updated}, opt_state

        opt_state = optimizer.init(networks.variables["params"])
        return jax_program(
            run, networks.variables, opt_state, networks.key, networks.images, networks.labels
        )

    def by_torch() -> Program:
        import torch

        model, images, labels = _torch(sizes, sizes.batch, train=True)
        trained = [p for p in model.parameters() if p.requires_grad]
        sgd = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=1e-4)

        def run():
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            sgd.step()

        return torch_baseline.program(run)

    return _case("training step", sizes, sizes.batch, program, by_torch)
