"""Attacks without gradients: random noise, the baseline, and SPSA, which estimates gradients.

References:
  Uesato et al., Adversarial risk and the dangers of evaluating against weak attacks, 2018,
    arXiv:1802.05666.
"""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from jaxtyping import Array

from vone_jax import prng
from vone_jax.arguments import Positive
from vone_jax.attacks import norms
from vone_jax.attacks.attack import Attack, Estimator, Loss, Norm, check_within_images
from vone_jax.attacks.carlini_wagner import Adam
from vone_jax.attacks.classifier import Images, Keys, Labels, LogitsFn, Values

NOISES = ("uniform", "gaussian", "signs")
WITHOUT_GRADIENTS = (
    "The attack takes no gradients, and is weaker than attacks that do. The accuracy is an upper "
    "bound.",
)


@dataclasses.dataclass(frozen=True)
class RandomNoise(Attack):
    """Noise of norm ``eps``, clipped to the pixel box.

    If a model loses as much accuracy to noise as to an attack, that attack is too weak.

    Attributes:
      eps: norm of the noise in pixel units, before clipping.
      restarts: noise patterns tried per image; the strongest is kept.
      noise: "uniform", a random point of the ball moved out to its surface; "gaussian", normal
        values scaled to the norm; "signs", values of equal size and random sign, the corners of
        the L-infinity ball.
    """

    norm: Norm
    eps: float
    restarts: int = 1
    noise: Annotated[str, NOISES] = "uniform"

    def doubts(self, noisy: bool) -> tuple[str, ...]:
        return WITHOUT_GRADIENTS

    def run(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        norm, shape = norms.of(self.norm), images.shape[1:]
        if self.noise == "uniform":
            drawn = norms.surface(keys, shape, norm, images.dtype)
        else:
            generator = {"gaussian": jax.random.normal, "signs": norms.random_signs}[self.noise]
            drawn = jax.vmap(lambda key: generator(key, shape, images.dtype))(keys)
            drawn = drawn / norm.size(drawn)[:, None, None, None]
        return jnp.clip(images + norms.per_image(self.eps) * drawn, 0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class SPSA(Attack):
    """Adam on simultaneous perturbations: differences of scores along random directions.

    A direction has a random sign for each value of an image. The loss is compared on both sides of
    the image under the same draws of the classifier's noise. Each example has directions of its
    own. The result is the last iterate. A step costs 2 x ``samples`` evaluations of
    ``eot_samples`` draws.

    Attributes:
      steps: steps of Adam.
      samples: random directions per step.
      delta: distance at which the loss is compared; the compared images may leave the pixel box
        by this distance.
      learning_rate: learning rate of Adam, in pixel units.
      norm, eps, eot_samples, loss, targeted, estimator: see ``Attack``.
    """

    norm: Annotated[str, ("linf",)]
    eps: float
    steps: int = 100
    samples: int = 128
    delta: Positive = 0.01
    learning_rate: Positive = 0.01
    _: dataclasses.KW_ONLY
    eot_samples: int = 1
    loss: Loss = "margin"
    targeted: bool = False
    estimator: Estimator = "mean_loss"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_within_images("delta", self.delta)
        check_within_images("learning_rate", self.learning_rate)

    def doubts(self, noisy: bool) -> tuple[str, ...]:
        return WITHOUT_GRADIENTS

    def run(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
        def loss(point: Images, keys: Keys) -> Values:
            return self.evaluate(keys, logits_fn, point, labels)[0]

        def slope(point: Images, keys: Keys) -> Images:
            def add(number: Array, total: Images) -> Images:
                sample_keys = prng.fold(keys, number)
                direction_keys = prng.stream(sample_keys, "direction")
                noise_keys = prng.stream(sample_keys, "noise")
                signs = jax.vmap(
                    lambda key: norms.random_signs(key, images.shape[1:], images.dtype)
                )(direction_keys)
                sides = jnp.stack([point + self.delta * signs, point - self.delta * signs])
                ahead, behind = jax.vmap(loss, in_axes=(0, None))(sides, noise_keys)
                rise = (ahead - behind) / (2 * self.delta)
                return total + rise[:, None, None, None] * signs

            return jax.lax.fori_loop(0, self.samples, add, jnp.zeros_like(point)) / self.samples

        def step(number: Array, state: tuple[Images, Adam]) -> tuple[Images, Adam]:
            point, adam = state
            ascent, adam = adam.direction(slope(point, prng.fold(keys, number)), number)
            delta = norms.Linf().project(point + self.learning_rate * ascent - images, self.eps)
            return jnp.clip(images + delta, 0.0, 1.0), adam

        return jax.lax.fori_loop(0, self.steps, step, (images, Adam.start(images)))[0]
