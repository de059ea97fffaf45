"""Random noise of a given norm: the baseline that every attack has to beat."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array

from vone_jax import prng
from vone_jax.attacks import checks, classifier, losses, norms
from vone_jax.attacks.attack import Attack, pytree
from vone_jax.attacks.classifier import LogitsFn

NOISES = ("uniform", "gaussian", "signs")


@pytree("eps")
@dataclasses.dataclass(frozen=True)
class RandomNoise(Attack):
    """Noise of norm ``eps``, clipped to the pixel box.

    A model that loses as much to noise as to an attack was not attacked well.

    Attributes:
      norm: "linf", "l2" or "l1".
      eps: norm of the noise in pixel units, before clipping.
      draws: number of noises tried; each image keeps the one with the largest averaged margin.
      noise: "uniform", a random point of the ball moved out to its surface; "gaussian", normal
        values scaled to the norm; "signs", values of equal size and random sign, the corners of
        the L-infinity ball.
      eot_samples: draws of the classifier's own noise that the margin is averaged over; used only
        to choose among several noises, which all see the same draws.

    Raises:
      ValueError, TypeError: if a field is out of range; the message names it.
    """

    norm: str
    eps: float
    draws: int = 1
    noise: str = "uniform"
    eot_samples: int = 1

    def __post_init__(self):
        checks.fields(self, noise=NOISES)

    def perturb(self, keys: Array, logits_fn: LogitsFn, images: Array, labels: Array) -> Array:
        def noisy(number):
            way = surface(
                prng.fold(keys, number), images.shape[1:], self.norm, images.dtype, self.noise
            )
            return jnp.clip(images + self.eps * way, 0.0, 1.0)

        if self.draws == 1:
            return noisy(0)
        judge_keys = prng.stream(keys, "judge")

        def draw(best, number):
            best_images, best_margin = best
            rival = noisy(number)
            logits = classifier.draws(logits_fn, judge_keys, rival, self.eot_samples)
            margin = losses.averaged(losses.margin, "mean_loss", logits, labels)
            # Nothing else carries a NaN of the classifier into the result.
            finite = jnp.isfinite(margin)[:, None, None, None]
            rival = jnp.where(finite, rival, jnp.nan)
            wins = ~(margin <= best_margin)
            best_images = jnp.where(wins[:, None, None, None], rival, best_images)
            return (best_images, jnp.where(wins, margin, best_margin)), None

        nothing = (images, jnp.full(images.shape[:1], -jnp.inf, images.dtype))
        numbers = jnp.arange(self.draws, dtype=jnp.uint32)
        return jax.lax.scan(draw, nothing, numbers)[0][0]


def surface(keys: Array, shape: tuple[int, ...], norm: str, dtype, noise: str = "uniform") -> Array:
    """Random perturbations of norm one, one per key, shape (N, *shape); see ``RandomNoise``."""
    if noise == "uniform":
        drawn = norms.sample(keys, shape, norm, 1.0, dtype)
    else:
        generator = {"gaussian": jax.random.normal, "signs": jax.random.rademacher}[noise]
        drawn = jax.vmap(lambda key: generator(key, shape, dtype))(keys)
    return drawn / norms.size(drawn, norm)[:, None, None, None]
