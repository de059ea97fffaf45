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
from vone_jax.attacks.attack import Loss, LossAttack, Norm, Repeated, check_within_images
from vone_jax.attacks.carlini_wagner import Adam
from vone_jax.attacks.classifier import Images, Keys, Labels, LogitsFn, Values

NOISES = ("uniform", "gaussian", "signs")


class RandomNoise(Repeated):
    """Noise of norm ``eps``, clipped to the pixel box.

    If a model loses as much accuracy to noise as to an attack, that attack is too weak.

    Attributes:
      eps: norm of the noise in pixel units, before clipping.
      draws: noise patterns tried per image; the strongest is kept, as with restarts.
      noise: "uniform", a random point of the ball moved out to its surface; "gaussian", normal
        values scaled to the norm; "signs", values of equal size and random sign, the corners of
        the L-infinity ball.
    """

    norm: Norm
    eps: float
    draws: int = 1
    noise: Annotated[str, NOISES] = "uniform"

    def runs(self, classes: int) -> int:
        return self.draws

    def run(
        self, keys: Keys, number: Array, logits_fn: LogitsFn, images: Images, labels: Labels
    ) -> tuple[Images]:
        shape, noise_keys = images.shape[1:], prng.fold(keys, number)
        drawn = norms.surface(noise_keys, shape, self.norm, images.dtype, self.noise)
        return (jnp.clip(images + norms.per_image(self.eps) * drawn, 0.0, 1.0),)


class SPSA(LossAttack):
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
      eot_samples: noise draws per evaluation; the loss is averaged over them.
    """

    norm: Annotated[str, ("linf",)]
    steps: int = 100
    samples: int = 128
    delta: Positive = 0.01
    learning_rate: Positive = 0.01
    loss: Loss = dataclasses.field(default="margin", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_within_images("delta", self.delta)
        check_within_images("learning_rate", self.learning_rate)

    def perturb(self, keys: Keys, logits_fn: LogitsFn, images: Images, labels: Labels) -> Images:
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
            delta = norms.project(point + self.learning_rate * ascent - images, self.norm, self.eps)
            return jnp.clip(images + delta, 0.0, 1.0), adam

        return jax.lax.fori_loop(0, self.steps, step, (images, Adam.start(images)))[0]
