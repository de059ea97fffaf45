"""Adversarial training with single steps, Fast and Free, and AWP, a step of the weights.

References:
  Wong, Rice and Kolter, 2020, arXiv:2001.03994: Fast.
  Shafahi et al., 2019, arXiv:1904.12843: Free.
  Wu, Xia and Wang, 2020, arXiv:2004.05884: AWP.
"""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp

from vone_jax import arguments, prng
from vone_jax.arguments import Positive, Range
from vone_jax.attacks import Attack, losses, norms
from vone_jax.training.objective import (
    Batch,
    Context,
    Gradient,
    Objective,
    Setup,
    attacked,
    watched_by,
)


@dataclasses.dataclass(frozen=True)
class Fast(Objective):
    """One step along the sign of the gradient from a random start (Wong et al. 2020).

    The start is uniform in the L-infinity ball, and the step 1.25 times its radius. The network is
    in training mode, as in the authors' code: batch norm uses the statistics of the images at the
    start, which here do not enter the running values. So an image's change depends on its batch.
    """

    by_part = True
    stream = "perturbation"

    # Radius in pixel units, in L-infinity.
    eps: Positive
    # Whether the start is clipped to the pixel range, as in the authors' code for CIFAR-10 and
    # ImageNet. Their code for MNIST clips the result alone.
    clipped_start: bool = True

    def __post_init__(self):
        arguments.fields(self)
        arguments.within_images("eps", self.eps)

    @property
    def watched(self) -> Attack:
        """PGD of ten steps."""
        return watched_by(self)

    def batch(self, context: Context, batch: Batch) -> Batch:
        in_training = lambda keys, images: context.forward(images, keys)  # noqa: E731
        images = attacked(self.perturb, context.keys, in_training, batch["image"], batch["label"])
        return batch | {"image": images}

    def perturb(
        self, keys: jax.Array, logits_fn: Any, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        """Return the perturbed images. The signature is that of attacks."""
        delta = norms.Linf().sample(
            prng.stream(keys, "start"), images.shape[1:], self.eps, images.dtype
        )
        if self.clipped_start:
            delta = jnp.clip(images + delta, 0.0, 1.0) - images
        noise_keys = prng.stream(keys, "noise")
        gradient = jax.grad(
            lambda delta: losses.cross_entropy(logits_fn(noise_keys, images + delta), labels).sum()
        )
        moved = delta + 1.25 * self.eps * jnp.sign(gradient(delta))
        return jnp.clip(images + jnp.clip(moved, -self.eps, self.eps), 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class Free(Objective):
    """Adversarial training at the cost of plain training (Shafahi et al. 2019), as Wong et al. do.

    Each batch is used ``replays`` times in a row. One backward pass of the network in training mode
    gives the gradient of the weights and that of the perturbation, which both make a step. The
    perturbation belongs to the place in the batch: that of one batch is the start of the next.
    """

    # Radius in pixel units, in L-infinity.
    eps: Positive
    # Length of a step. None is eps.
    step_size: Positive | None = None
    # Training steps on a batch. An epoch has as many times more steps.
    replays: Annotated[int, Range(1)] = 8

    def __post_init__(self):
        arguments.fields(self)
        arguments.within_images("eps", self.eps)
        arguments.within_images("step_size", self.step_size or 0.0)

    @property
    def watched(self) -> Attack:
        """PGD of ten steps."""
        return watched_by(self)

    def init(self, key: jax.Array, run: Setup) -> tuple[None, jax.Array]:
        """Return the perturbation before the first step, 0, of a batch (N, H, W, C)."""
        return None, jnp.zeros((run.experiment.data.batch_size, *run.image_shape))

    def gradient(
        self, context: Context, gradient_fn: Callable[..., Gradient], params: Any, batch: Batch
    ) -> tuple[Gradient, jax.Array]:
        images, delta = batch["image"], context.state
        found = gradient_fn(params, batch | {"image": images + delta})
        return found, self.after(delta, found.images, images)

    def after(self, delta: jax.Array, gradient: jax.Array, images: jax.Array) -> jax.Array:
        """Return the perturbation of images after a step along the gradient of the loss."""
        moved = delta + (self.step_size or self.eps) * jnp.sign(gradient)
        return jnp.clip(jnp.clip(moved, -self.eps, self.eps), -images, 1.0 - images)


@dataclasses.dataclass(frozen=True)
class AWP(Objective):
    """Adversarial weight perturbation: the gradient of a step is that at worse weights.

    The kernels w move to w + gamma d with d = g |w| / |g|, where g is the gradient of the loss of
    the batch at w in training mode, and the norms are those of each kernel. The update, at the
    gradient there, is that of the weights w. Both gradients see the same images and noise. The
    authors have gamma .01 for PGD, and .005 after 10 epochs for TRADES.
    """

    by_part = True

    # Norm of the perturbation of a kernel divided by that of the kernel.
    gamma: Positive = 0.01
    # Epochs of training before the first perturbation.
    warmup_epochs: Annotated[float, Range()] = 0.0

    def gradient(
        self, context: Context, gradient_fn: Callable[..., Gradient], params: Any, batch: Batch
    ) -> tuple[Gradient, None]:
        ascent = gradient_fn(params, batch).params["network"]
        active = context.step >= round(self.warmup_epochs * context.steps_per_epoch)
        worse = self.ascended(params["network"], ascent, active)
        return gradient_fn(params | {"network": worse}, batch), None

    def ascended(self, params: Any, gradients: Any, active: jax.Array) -> Any:
        """Return the parameters at which the gradient is taken; where not active, the same."""
        gamma = jnp.where(active, jnp.float32(self.gamma), 0.0)

        def moved(path: Any, weight: jax.Array, gradient: jax.Array) -> jax.Array:
            if path[-1].key != "kernel":
                return weight
            length = jnp.linalg.norm(weight) / (jnp.linalg.norm(gradient) + 1e-20)
            return weight + gamma * length * gradient

        return jax.tree_util.tree_map_with_path(moved, params, gradients)
