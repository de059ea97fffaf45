"""The developmental visual diet: training images as an infant, a child and an adult see them.

With the age, images get sharper, more colourful and richer in contrast. At m months an image of s
pixels a side is

1. blurred by a Gaussian of (18.06 exp(-0.79 m) + 1.60 exp(-0.027 m)) s / 224 pixels, see
   ``blur_deviation``;
2. mixed with its grey version, see ``colour_sensitivity``;
3. freed of its weak spatial frequencies, see ``contrast_sensitivity`` and ``above_threshold``.

The equations and constants are those of the authors' code. Versions of that code differ in one
place: the power of the threshold halves where the contrast sensitivity reaches a half (55 months),
as here, or at 150 months.

The one intended difference is the reference of the threshold. Here it is the largest power in the
example's own spectrum. In the authors' code it is the largest power in the batch, so an image
depends on its neighbours, and most images lose more. In batches of 128 test images of Fashion-MNIST
the third stage changes a pixel by this much on average:

    age in months                 0      6     24     60    120    240
    threshold of the example    0.009  0.019  0.018  0.008  0.003  0.000
    threshold of the batch      0.017  0.040  0.038  0.020  0.010  0.002
    between the two results     0.014  0.034  0.033  0.018  0.009  0.001

Reference:
  Lu, Thorat, Cichy and Kietzmann, 2025, arXiv:2507.03168: the developmental visual diet.
"""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, prng
from vone_jax.arguments import Positive
from vone_jax.corruptions import levels, matrices
from vone_jax.training.objective import Batch, Context, Objective, Setup

# Age of an adult in months, at which the contrast sensitivity is 1.
ADULT = 300.0


@dataclasses.dataclass(frozen=True)
class Diet(Objective):
    """Training images at an age that rises with the steps of the run.

    Step t of T shows the images at the age of ``months`` t / T. The authors train for 300 epochs,
    with two months in each. The log has the age as ``Diet.months``.

    Grey images have no second stage. From 300 months on they stay as they are, up to rounding.
    Colour images then lose some colour, since the colour sensitivity is highest at 20 years: 2 % at
    300 months and 25 % at 600 months.
    """

    # "true" is the age that rises. "shuffled" has the same ages in an order that the seed of the
    # experiment draws, and "adult" has 300 months in all steps.
    order: Literal["true", "shuffled", "adult"] = "true"
    # Age at the end of the run, in months.
    months: Positive = 600.0

    def resources(self, run: Setup) -> np.ndarray:
        """Return the age in months of each step of the run, float32 (steps,)."""
        if run.total_steps is None:
            raise ValueError("Diet needs the number of steps: Setup(..., total_steps=STEPS)")
        ages = self.months * np.arange(run.total_steps) / run.total_steps
        if self.order == "adult":
            ages = np.full(run.total_steps, ADULT)
        if self.order == "shuffled":
            key = prng.stream(jax.random.key(run.experiment.seed), "order of ages")
            ages = ages[np.asarray(jax.random.permutation(key, run.total_steps))]
        return ages.astype(np.float32)

    def batch(self, context: Context, batch: Batch) -> Batch:
        months = context.resources[context.step]
        context.log("months", months)
        return batch | {"image": at_age(batch["image"], months)}


def at_age(images: jax.Array, months: float | jax.Array) -> jax.Array:
    """Return images (N, H, W, C) in [0, 1] as they are seen at an age >= 0 in months.

    The age may be traced, so that one compiled program serves all ages.
    """
    if not isinstance(months, jax.Array):
        arguments.number("months", months)
    age = jnp.asarray(months, jnp.float32)
    images = blurred(images, blur_deviation(age, min(images.shape[1:3])))
    if images.shape[-1] == 3:
        grey = levels.luma(images)
        images = grey + colour_sensitivity(age) * (images - grey)
    return jnp.clip(above_threshold(images, contrast_sensitivity(age)), 0.0, 1.0)


def blur_deviation(months: jax.Array, side: int) -> jax.Array:
    """Return the standard deviation of the blur in pixels, for images with a side in pixels."""
    at_224 = 18.06 * jnp.exp(-0.79 * months) + 1.60 * jnp.exp(-0.027 * months)
    return at_224 * (side / 224)


def colour_sensitivity(months: jax.Array) -> jax.Array:
    """Return the share of the colour that is seen: 0 at birth, 1 at 20 years, then less."""

    def threshold(years: Any) -> Any:
        return 0.008604134 * years**-0.880761 + 4.38074e-5 * years**0.880761

    return threshold(20.367) / threshold(months / 12)


def contrast_sensitivity(months: jax.Array) -> jax.Array:
    """Return the contrast sensitivity: 0 at birth, 1 at 300 months, and at most 1.03 later."""

    def growth(months: Any) -> Any:
        return 1 / (1 + (57.6 / months) ** 2.16333759)

    return growth(months) / growth(ADULT)


def blurred(images: jax.Array, deviation: jax.Array) -> jax.Array:
    """Blur images (N, H, W, C) by a Gaussian of a traced deviation in pixels.

    The kernel has ``int(8 deviation)`` taps, or one more if that is even. Images are reflected
    beyond their border, without a second border pixel, so the kernel must end within a reflection.
    """
    # A smaller deviation has a kernel of one tap, too, and could be 0.
    deviation = jnp.maximum(deviation, 1e-3)
    radius = jnp.floor(8 * deviation) // 2

    def matrix(side: int) -> jax.Array:
        place = jnp.arange(side, dtype=jnp.float32)
        target, source, last = place[:, None], place[None], side - 1

        def taps(distance: jax.Array) -> jax.Array:
            within = jnp.abs(distance) <= radius
            return jnp.where(within, jnp.exp(-0.5 * (distance / deviation) ** 2), 0.0)

        # A pixel within the border is read a second time by its reflection.
        weights = taps(source - target)
        weights += jnp.where(source > 0, taps(source + target), 0.0)
        weights += jnp.where(source < last, taps(2 * last - source - target), 0.0)
        return weights / jnp.sum(weights, axis=1, keepdims=True)

    return matrices.separable(images, *map(matrix, images.shape[1:3]))


def above_threshold(images: jax.Array, sensitivity: jax.Array) -> jax.Array:
    """Set to 0 the Fourier coefficients of images (N, H, W, C) that a sensitivity does not reach.

    With the sensitivity s they are those whose power is below
    ``1e-4 (1 - s) / max(2 floor(2 s), 1)`` of the largest power in the channels of the image.
    """
    spectrum = jnp.fft.rfft2(images, axes=(1, 2))
    power = jnp.square(jnp.real(spectrum)) + jnp.square(jnp.imag(spectrum))
    share = 1e-4 * (1 - sensitivity) / jnp.maximum(2 * jnp.floor(2 * sensitivity), 1.0)
    seen = power >= share * jnp.max(power, axis=(1, 2, 3), keepdims=True)
    return jnp.fft.irfft2(jnp.where(seen, spectrum, 0.0), images.shape[1:3], axes=(1, 2))
