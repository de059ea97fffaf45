"""The VOneResNet-50 and its front end, beside naive JAX and PyTorch.

Cases: the block with noise, logits, the input gradient, a step of PGD with several draws, and a
training step.
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
from benchmarks.timing import OURS, Contenders, Program, jax_program
from vone_jax import attacks, fast, models, prng, v1

NUM_CLASSES = 1000
EPS = 1 / 255


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of all cases. The defaults are the full sizes.

    Attributes:
      front_end: the VOneBlock.
      network: base network behind it, as torchvision names it.
      width: channels behind the bottleneck; torchvision's networks always have 64.
      batch: images per call.
      draws: noise draws per gradient of an attack, on ``draw_batch`` images.
    """

    front_end: v1.VOneBlockConfig = v1.VOneBlockConfig()
    network: str = "resnet50"
    width: int = 64
    batch: int = 8
    draws: int = 10
    draw_batch: int = 2


QUICK = Sizes(
    v1.VOneBlockConfig(4, 4, image_size=32, visual_degrees=1.0, kernel_size=5),
    "resnet18", width=4, batch=2, draws=2, draw_batch=1,
)  # fmt: skip


def images_of(sizes: Sizes, count: int) -> np.ndarray:
    """Return random images of the size of the front end, (N, H, W, C) in [0, 1)."""
    side = sizes.front_end.image_size
    rng = np.random.default_rng(0)
    return rng.random((count, side, side, sizes.front_end.in_channels)).astype(np.float32)


def block(sizes: Sizes) -> Contenders:
    """The whole block with neuronal noise, from the same key; also with a surround."""
    images = images_of(sizes, sizes.batch)
    settings = v1.SurroundNormalization(largest_extent=sizes.front_end.visual_degrees / 8)

    def ours(config: v1.VOneBlockConfig) -> Program:
        def run(key: jax.Array, images: jax.Array) -> Any:
            return v1.VOneBlock(config).apply({}, images, noise_key=key)

        return jax_program(run, jax.random.key(0), images, images=len(images))

    def plain() -> Program:
        block = functools.partial(naive.block, sizes.front_end)
        return jax_program(block, jax.random.key(0), images, images=len(images))

    def by_torch() -> Program:
        import torch

        front_end = torch_baseline.front_end(sizes.front_end)
        tensors, _ = torch_baseline.tensors(images, np.zeros(len(images)))
        run = torch.no_grad()(lambda: front_end(tensors))
        return torch_baseline.program(run, len(images))

    return {
        OURS: functools.partial(ours, sizes.front_end),
        f"{OURS}, with surround": functools.partial(
            ours, dataclasses.replace(sizes.front_end, normalization=settings)
        ),
        "naive JAX": plain,
        "PyTorch": by_torch,
    }


@dataclasses.dataclass(frozen=True)
class Networks:
    """One set of weights in two networks, with a key, images and labels."""

    ours: models.VOneNet
    naive: naive.NaiveVOneNet
    variables: Any
    key: jax.Array
    images: jax.Array
    labels: jax.Array

    def program(self, run: Callable[..., Any], model: models.VOneNet) -> Program:
        """Compile ``run(logits_fn, key, images, labels)`` for one of the networks."""
        logits_fn = models.logits_fn(model, self.variables)
        arguments = logits_fn, self.key, self.images, self.labels
        return jax_program(run, *arguments, images=len(self.images))


def networks(sizes: Sizes, batch: int) -> Networks:
    """Return both networks with weights of the usual size."""
    ours = models.create(
        f"vone_{sizes.network}", NUM_CLASSES, v1=sizes.front_end, width=sizes.width
    )
    assert isinstance(ours, models.VOneNet)
    images = jnp.asarray(images_of(sizes, batch))
    key, rng = jax.random.key(0), np.random.default_rng(0)

    def weights(leaf: jax.ShapeDtypeStruct) -> jax.Array:
        if leaf.ndim < 2:
            return jnp.ones(leaf.shape, jnp.float32)
        deviation = (2 / np.prod(leaf.shape[:-1])) ** 0.5
        return jnp.asarray(rng.normal(0, deviation, leaf.shape), jnp.float32)

    # Without compiling an initialisation.
    shapes = jax.eval_shape(ours.init, {"params": key, "noise": key}, images)
    plain = naive.NaiveVOneNet(ours.spec)
    variables = jax.tree.map(weights, shapes)
    return Networks(ours, plain, variables, key, images, jnp.zeros(batch, jnp.int32))


def _contenders(
    networks_of: Callable[[], Networks],
    ours: Callable[[Networks, models.VOneNet], Program],
    by_torch: Callable[[], Program],
    plain: Callable[[Networks, models.VOneNet], Program] | None = None,
) -> Contenders:
    def program(build: Callable[..., Program], field: str) -> Program:
        both = networks_of()
        return build(both, getattr(both, field))

    return {
        OURS: functools.partial(program, ours, "ours"),
        "naive JAX": functools.partial(program, plain or ours, "naive"),
        "PyTorch": by_torch,
    }


def _loss(logits_fn: Any, key: jax.Array, images: jax.Array, labels: jax.Array) -> jax.Array:
    logits = logits_fn(key, images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def _torch(sizes: Sizes, batch: int, train: bool = False) -> tuple[Any, Any, Any]:
    model = torch_baseline.network(sizes.front_end, sizes.network, NUM_CLASSES).train(train)
    return model, *torch_baseline.tensors(images_of(sizes, batch), np.zeros(batch))


def forward(sizes: Sizes) -> Contenders:
    """Logits of a batch, with noise."""

    def ours(both: Networks, model: models.VOneNet) -> Program:
        return both.program(lambda logits_fn, key, images, labels: logits_fn(key, images), model)

    def by_torch() -> Program:
        import torch

        model, images, _ = _torch(sizes, sizes.batch)
        return torch_baseline.program(torch.no_grad()(lambda: model(images)), sizes.batch)

    return _contenders(functools.partial(networks, sizes, sizes.batch), ours, by_torch)


def gradient(sizes: Sizes) -> Contenders:
    """Gradient of the loss with respect to the images, one draw."""

    def ours(both: Networks, model: models.VOneNet) -> Program:
        return both.program(jax.grad(_loss, argnums=2), model)

    def by_torch() -> Program:
        model, images, labels = _torch(sizes, sizes.batch)
        model.requires_grad_(False)
        run = functools.partial(torch_baseline.image_gradient, model, images, labels)
        return torch_baseline.program(run, sizes.batch)

    return _contenders(functools.partial(networks, sizes, sizes.batch), ours, by_torch)


def pgd(sizes: Sizes) -> Contenders:
    """One step of PGD along a gradient that is averaged over several draws."""
    attack = attacks.PGD(norm="linf", eps=EPS, steps=1, step_size=EPS / 8, eot_samples=sizes.draws)

    def ours(both: Networks, model: models.VOneNet) -> Program:
        def run(logits_fn: Any, key: jax.Array, images: jax.Array, labels: jax.Array) -> jax.Array:
            return attack.perturb(prng.example_keys(key, len(images)), logits_fn, images, labels)

        # A called attack is in this layout.
        return both.program(fast.in_fast_layout(run), model)

    def in_a_loop(both: Networks, model: models.VOneNet) -> Program:
        gradient = both.program(jax.grad(_loss, argnums=2), model)

        def step() -> jax.Array:
            mean = sum(gradient.run() for _ in range(sizes.draws)) / sizes.draws
            moved = both.images + EPS / 8 * jnp.sign(mean)
            moved = jnp.clip(moved, both.images - EPS, both.images + EPS)
            return jax.block_until_ready(jnp.clip(moved, 0.0, 1.0))

        return dataclasses.replace(gradient, run=step)

    def by_torch() -> Program:
        import torch

        model, images, labels = _torch(sizes, sizes.draw_batch)
        model.requires_grad_(False)

        def step() -> Any:
            slope = torch.zeros_like(images)
            for _ in range(sizes.draws):
                slope = slope + torch_baseline.image_gradient(model, images, labels)
            moved = images + EPS / 8 * slope.sign()
            return moved.clamp(images - EPS, images + EPS).clamp(0, 1)

        return torch_baseline.program(step, sizes.draw_batch)

    networks_of = functools.partial(networks, sizes, sizes.draw_batch)
    return _contenders(networks_of, ours, by_torch, in_a_loop)


def train(sizes: Sizes) -> Contenders:
    """Loss, gradient of all weights, batch statistics, and SGD with momentum."""
    optimizer = optax.chain(optax.add_decayed_weights(1e-4), optax.sgd(0.1, momentum=0.9))

    def ours(both: Networks, model: models.VOneNet) -> Program:
        def run(variables: Any, opt_state: Any, key: jax.Array, images: jax.Array, labels: Any):
            def loss(params: Any):
                logits, updated = model.apply(
                    {**variables, "params": params}, images, train=True, noise_key=key,
                    mutable=["batch_stats"],
                )  # fmt: skip
                losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
                return losses.mean(), updated

            (value, updated), slope = jax.value_and_grad(loss, has_aux=True)(variables["params"])
            updates, opt_state = optimizer.update(slope, opt_state, variables["params"])
            params = optax.apply_updates(variables["params"], updates)
            return value, {"params": params, **updated}, opt_state

        state = both.variables, optimizer.init(both.variables["params"])
        return jax_program(run, *state, both.key, both.images, both.labels, images=sizes.batch)

    def by_torch() -> Program:
        import torch

        model, images, labels = _torch(sizes, sizes.batch, train=True)
        trained = [p for p in model.parameters() if p.requires_grad]
        sgd = torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=1e-4)

        def run() -> None:
            sgd.zero_grad()
            torch.nn.functional.cross_entropy(model(images), labels).backward()
            sgd.step()

        return torch_baseline.program(run, sizes.batch)

    return _contenders(functools.partial(networks, sizes, sizes.batch), ours, by_torch)
