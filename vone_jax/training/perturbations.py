"""Perturbations of the training images on the device, and AWP, that of the weights.

All randomness comes from keys, so what an image draws depends on the key and on the index of the
image in the data set. It does not depend on the image's place in the batch.

References:
  Madry et al., 2018, arXiv:1706.06083: training on the images of a PGD attack.
  Wong, Rice and Kolter, 2020, arXiv:2001.03994: Fast.
  Zhang et al., 2019, arXiv:1901.08573: TRADES.
  Wang et al., Improving adversarial robustness requires revisiting misclassified examples, ICLR
    2020: MART.
  Wu, Xia and Wang, 2020, arXiv:2004.05884: AWP.
  Shafahi et al., 2019, arXiv:1904.12843: Free.
  Rusak et al., 2020, arXiv:2001.06057: training with Gaussian noise, half of the images clean.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp

from vone_jax import arguments, prng
from vone_jax.arguments import Positive, Range
from vone_jax.attacks import PGD, losses, norms
from vone_jax.attacks.classifier import LogitsFn
from vone_jax.training.prime import PRIME


@dataclasses.dataclass(frozen=True)
class GaussianImageNoise:
    """Independent Gaussian noise on every pixel value, then clipping to [0, 1]."""

    # Standard deviation in pixel units, above 0 and at most 1.
    scale: Positive
    # Probability that an image is changed, in (0, 1].
    share: Annotated[float, Range(most=1.0, above=True)] = 0.5

    def __post_init__(self):
        arguments.fields(self)
        arguments.within_images("scale", self.scale)

    def perturb(
        self, keys: jax.Array, logits_fn: LogitsFn, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        """Return noisy images. The signature is that of attacks; the network is not used."""

        def add_noise(key: jax.Array, image: jax.Array) -> jax.Array:
            noise = jax.random.normal(prng.stream(key, "noise"), image.shape, image.dtype)
            hit = jax.random.bernoulli(prng.stream(key, "share"), jnp.float32(self.share))
            return jnp.where(hit, jnp.clip(image + self.scale * noise, 0.0, 1.0), image)

        return jax.vmap(add_noise)(keys, images)


@dataclasses.dataclass(frozen=True)
class Fast:
    """One step along the sign of the gradient from a random start (Wong et al. 2020).

    The start is uniform in the L-infinity ball, and the step 1.25 times its radius. The network is
    in training mode, as in the authors' code: batch norm uses the statistics of the images at the
    start, which here do not enter the running values. So an image's change depends on its batch.
    """

    # Radius in pixel units, in L-infinity.
    eps: Positive
    # Whether the start is clipped to the pixel range, as in the authors' code for CIFAR-10 and
    # ImageNet. Their code for MNIST clips the result alone.
    clipped_start: bool = True

    def __post_init__(self):
        arguments.fields(self)
        arguments.within_images("eps", self.eps)

    def perturb(
        self, keys: jax.Array, logits_fn: LogitsFn, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        """Return the perturbed images."""
        delta = norms.sample(
            prng.stream(keys, "start"), images.shape[1:], "linf", self.eps, images.dtype
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
class PairedPerturbation(abc.ABC):
    """The perturbation of TRADES and MART, whose loss needs the clean and the perturbed image.

    It starts at a normal draw of 0.001 and makes steps along the gradient of an objective. Batch
    norm uses its running values meanwhile, as in the code of the authors.
    """

    # Radius in pixel units.
    eps: Positive
    # Length of a step.
    step_size: Positive
    # Norm of the ball.
    norm: Literal["linf", "l2"] = "linf"
    # Number of steps.
    steps: int = 10
    # Weight of the divergence in the loss.
    beta: Positive = 6.0

    def __post_init__(self):
        arguments.fields(self)
        if self.norm == "linf":
            arguments.within_images("eps", self.eps, "linf")
            arguments.within_images("step_size", self.step_size, "linf")

    @abc.abstractmethod
    def objective(
        self, keys: jax.Array, logits_fn: LogitsFn, images: jax.Array, labels: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """Return the function of the logits at perturbed images that the perturbation raises."""

    def perturb(
        self, keys: jax.Array, logits_fn: LogitsFn, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        """Return the perturbed images."""
        objective = self.objective(keys, logits_fn, images, labels)
        noise_keys = prng.stream(keys, "noise")

        def value(perturbed: jax.Array, keys: jax.Array) -> jax.Array:
            return objective(logits_fn(keys, perturbed))

        def step(delta: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
            gradient = jax.grad(value)(images + delta, prng.fold(noise_keys, number))
            moved = delta + self.step_size * norms.direction(gradient, self.norm)
            moved = norms.project(moved, self.norm, self.eps)
            return jnp.clip(images + moved, 0.0, 1.0) - images, None

        draw = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))
        start = 0.001 * draw(prng.stream(keys, "start"))
        delta, _ = jax.lax.scan(step, start, jnp.arange(self.steps))
        return images + delta


@dataclasses.dataclass(frozen=True)
class TRADES(PairedPerturbation):
    """Adversarial training by a divergence (Zhang et al. 2019).

    The loss of the clean images gets ``beta`` times KL(network at the image || network at the
    perturbed image) in addition. The perturbation raises this divergence.
    """

    def objective(
        self, keys: jax.Array, logits_fn: LogitsFn, images: jax.Array, labels: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """Return the divergence without the entropy of the clean prediction, a constant."""
        clean = jax.nn.softmax(logits_fn(prng.stream(keys, "clean"), images))
        return lambda logits: -jnp.sum(clean * jax.nn.log_softmax(logits))


@dataclasses.dataclass(frozen=True)
class MART(PairedPerturbation):
    """Adversarial training that weighs misclassified images more (Wang et al. 2020).

    The perturbation raises the cross-entropy. With the probabilities p of the clean and q of the
    perturbed image, and the label y, the loss is

        -log q_y - log(1.0001 - max_{k != y} q_k) + beta KL(p || q) (1.0000001 - p_y).
    """

    def objective(
        self, keys: jax.Array, logits_fn: LogitsFn, images: jax.Array, labels: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """Return the cross-entropy."""
        return lambda logits: losses.cross_entropy(logits, labels).sum()


@dataclasses.dataclass(frozen=True)
class Free:
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

    def after(self, delta: jax.Array, gradient: jax.Array, images: jax.Array) -> jax.Array:
        """Return the perturbation of images after a step along the gradient of the loss."""
        moved = delta + (self.step_size or self.eps) * jnp.sign(gradient)
        return jnp.clip(jnp.clip(moved, -self.eps, self.eps), -images, 1.0 - images)


@dataclasses.dataclass(frozen=True)
class AWP:
    """Adversarial weight perturbation: the gradient of a step is that at worse weights.

    The kernels w move to w + gamma d with d = g |w| / |g|, where g is the gradient of the loss of
    the batch at w in training mode, and the norms are those of each kernel. The update, at the
    gradient there, is that of the weights w. Both gradients see the same images and noise. The
    authors have gamma .01 for PGD, and .005 after 10 epochs for TRADES.
    """

    # Norm of the perturbation of a kernel divided by that of the kernel.
    gamma: Positive = 0.01
    # Epochs of training before the first perturbation.
    warmup_epochs: Annotated[float, Range()] = 0.0

    def __post_init__(self):
        arguments.fields(self)

    def ascended(self, params: Any, gradients: Any, active: jax.Array) -> Any:
        """Return the parameters at which the gradient is taken; where not active, the same."""
        gamma = jnp.where(active, jnp.float32(self.gamma), 0.0)

        def moved(path: Any, weight: jax.Array, gradient: jax.Array) -> jax.Array:
            if path[-1].key != "kernel":
                return weight
            length = jnp.linalg.norm(weight) / (jnp.linalg.norm(gradient) + 1e-20)
            return weight + gamma * length * gradient

        return jax.tree_util.tree_map_with_path(moved, params, gradients)


Perturbation = PGD | GaussianImageNoise | PRIME | Fast | TRADES | MART | Free | None
