"""TRADES and MART: adversarial training whose loss needs the clean and the perturbed image.

References:
  Zhang et al., 2019, arXiv:1901.08573: TRADES.
  Wang et al., Improving adversarial robustness requires revisiting misclassified examples, ICLR
    2020: MART.
"""

import abc
import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vone_jax import arguments, prng
from vone_jax.arguments import Positive
from vone_jax.attacks import losses as of_attacks
from vone_jax.attacks import norms
from vone_jax.training.objective import (
    Batch,
    Context,
    Objective,
    attacked,
    cross_entropy,
    divergence,
)


@dataclasses.dataclass(frozen=True)
class _Pair(Objective, abc.ABC):
    """The perturbation of TRADES and MART. The batch gets the images under the objective's name.

    It starts at a normal draw of 0.001 and makes steps along the gradient of a value. Batch norm
    uses its running values meanwhile, as in the code of the authors. In the loss, both images have
    the same noise, so that only the perturbation is between them.
    """

    by_part = True
    stream = "perturbation"

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

    def batch(self, context: Context, batch: Batch) -> Batch:
        images = attacked(
            self.perturb, context.keys, context.logits_fn, batch["image"], batch["label"]
        )
        return batch | {context.name: images}

    @abc.abstractmethod
    def raised(
        self, keys: jax.Array, logits_fn: Any, images: jax.Array, labels: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """Return the function of the logits at perturbed images that the perturbation raises."""

    def perturb(
        self, keys: jax.Array, logits_fn: Any, images: jax.Array, labels: jax.Array
    ) -> jax.Array:
        """Return the perturbed images. The signature is that of attacks."""
        raised = self.raised(keys, logits_fn, images, labels)
        noise_keys, norm = prng.stream(keys, "noise"), norms.of(self.norm)

        def value(perturbed: jax.Array, keys: jax.Array) -> jax.Array:
            return raised(logits_fn(keys, perturbed))

        def step(delta: jax.Array, number: jax.Array) -> tuple[jax.Array, None]:
            gradient = jax.grad(value)(images + delta, prng.fold(noise_keys, number))
            moved = delta + self.step_size * norm.direction(gradient)
            moved = norm.project(moved, self.eps)
            return jnp.clip(images + moved, 0.0, 1.0) - images, None

        draw = jax.vmap(lambda key: jax.random.normal(key, images.shape[1:], images.dtype))
        start = 0.001 * draw(prng.stream(keys, "start"))
        delta, _ = jax.lax.scan(step, start, jnp.arange(self.steps))
        return images + delta


@dataclasses.dataclass(frozen=True)
class TRADES(_Pair):
    """Adversarial training by a divergence (Zhang et al. 2019).

    The loss of the clean images gets ``beta`` times KL(network at the image || network at the
    perturbed image) in addition. The perturbation raises this divergence.

    One thing differs from the authors' code. They compute the logits of the clean images once for
    the cross-entropy and once more for the divergence, both in training mode, so their loss has
    three forward passes. Each moves the running values of batch norm. Here the logits of the clean
    images are computed once, and two passes move them.
    """

    def losses(
        self, context: Context, batch: Batch, logits: jax.Array, losses: jax.Array
    ) -> jax.Array:
        away = divergence(logits, context.forward(batch[context.name]))
        context.log("divergence", jnp.mean(away))
        return losses + self.beta * away

    def raised(
        self, keys: jax.Array, logits_fn: Any, images: jax.Array, labels: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """Return the divergence without the entropy of the clean prediction, a constant."""
        clean = jax.nn.softmax(logits_fn(prng.stream(keys, "clean"), images))
        return lambda logits: -jnp.sum(clean * jax.nn.log_softmax(logits))


@dataclasses.dataclass(frozen=True)
class MART(_Pair):
    """Adversarial training that weighs misclassified images more (Wang et al. 2020).

    The perturbation raises the cross-entropy. With the probabilities p of the clean and q of the
    perturbed image, and the label y, the loss is

        -log q_y - log(1.0001 - max_{k != y} q_k) + beta KL(p || q) (1.0000001 - p_y).

    The first term has the label smoothing of the experiment; the authors have none.
    """

    replaces_losses = True

    def losses(
        self, context: Context, batch: Batch, logits: jax.Array, losses: jax.Array
    ) -> jax.Array:
        labels, perturbed = batch["label"], context.forward(batch[context.name])
        probabilities = jax.nn.softmax(perturbed)
        others = jnp.where(labels[:, None] == jnp.arange(logits.shape[1])[None], 0.0, probabilities)
        of_labels = context.cross_entropy(perturbed, labels)
        of_labels -= jnp.log(1.0001 - jnp.max(others, axis=1))
        right = jnp.exp(-cross_entropy(logits, labels))
        # As in the authors' code, a probability of 0 has a finite logarithm.
        log_clean, log_perturbed = jax.nn.log_softmax(logits), jnp.log(probabilities + 1e-12)
        away = jnp.sum(jnp.exp(log_clean) * (log_clean - log_perturbed), axis=1)
        context.log("divergence", jnp.mean(away))
        return of_labels + self.beta * away * (1.0000001 - right)

    def raised(
        self, keys: jax.Array, logits_fn: Any, images: jax.Array, labels: jax.Array
    ) -> Callable[[jax.Array], jax.Array]:
        """Return the cross-entropy."""
        return lambda logits: of_attacks.cross_entropy(logits, labels).sum()
