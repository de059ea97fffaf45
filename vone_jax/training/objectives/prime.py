"""PRIME: training images that are random mixtures of filtered, warped and recoloured ones.

PRIME mixes the clean image with chains of random filters, smooth displacements and colour maps. A
chain applies up to three of these primitives in turn, and the result is a random mean of the chains
and the image. Its functions take one scalar key or one image (H, W, C) in [0, 1]; ``PRIME.perturb``
maps them over a batch. The constants are those of EVNet's training (Piper, Oliveira and Marques
2025, arXiv:2506.03089). Three choices are this project's: pixels beyond the border repeat the
border, all channels share a filter, and each channel has its own colour map.

References:
  Modas et al., 2022, arXiv:2112.13547: PRIME.
  Petrini et al., 2021, arXiv:2105.02468: displacements of maximum entropy and their temperature.
"""

import dataclasses
import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, fast, prng
from vone_jax.arguments import Range
from vone_jax.corruptions import digital, matrices
from vone_jax.training.objective import Batch, Context, Objective


@dataclasses.dataclass(frozen=True)
class PRIME(Objective):
    """Training images of PRIME, one random mixture per image.

    The chains have weights of a Dirichlet(1, 1, 1) distribution, and their mean is mixed with the
    clean image by a weight of a Beta(1, 1) distribution, which is uniform. As in EVNet's training,
    the loss is that of the mixed images alone: there is no Jensen-Shannon term.
    """

    by_part = True
    stream = "perturbation"

    # Chains of primitives, >= 1.
    chains: int = 3
    # Largest number of primitives in a chain, >= 1. The number is uniform from 1 to this.
    depth: int = 3
    # Side of the filter in pixels, odd.
    filter_size: int = 3
    # Largest standard deviation, >= 0, of the weights that are added to the filter that changes
    # nothing. The standard deviation is uniform from 0 to this.
    filter_scale: float = 4.0
    # Largest frequency of displacements in half cycles per image, 2 to 1000.
    warp_cutoff: Annotated[int, Range(2, 1000)] = 500
    # Sines in a colour map, 1 to 1000. Their frequencies are consecutive.
    colour_terms: Annotated[int, Range(1, 1000)] = 20
    # Largest frequency of these sines in half cycles over [0, 1], from colour_terms to 1000.
    colour_cutoff: int = 500
    # Largest variance of their coefficients, >= 0. The variance is uniform from 0 to this.
    colour_variance: float = 0.05

    def __post_init__(self):
        arguments.fields(self)
        if self.filter_size % 2 == 0:
            raise ValueError(f"filter_size must be odd, got {self.filter_size}")
        arguments.count("colour_cutoff", self.colour_cutoff, self.colour_terms, most=1000)

    def batch(self, context: Context, batch: Batch) -> Batch:
        return batch | {"image": self.perturb(context.keys, batch["image"])}

    def perturb(self, keys: jax.Array, images: jax.Array) -> jax.Array:
        """Return images (N, H, W, C) of PRIME, with one key for each image (N, H, W, C) in [0, 1].

        The random numbers of an image depend on its key alone. A colour map of a high frequency
        magnifies rounding errors, so platforms can differ visibly on some images.
        """
        # A CPU computes the chosen primitives only. Under vmap all are computed.
        return fast.by_platform(
            keys,
            images,
            cpu=lambda keys, images: jax.lax.map(lambda pair: self._mixed(*pair), (keys, images)),
            default=jax.vmap(self._mixed),
        )

    def _mixed(self, key: jax.Array, image: jax.Array) -> jax.Array:
        keys = prng.index_keys(prng.stream(key, "chains"), jnp.arange(self.chains))
        chained = jax.lax.map(lambda key: self._chain(key, image), keys)
        return mixture(image, chained, *draw_weights(key, self.chains))

    def _chain(self, key: jax.Array, image: jax.Array) -> jax.Array:
        primitives = [self._filtered, self._warped, self._recoloured]
        length = jax.random.randint(prng.stream(key, "length"), (), 1, self.depth + 1, jnp.int32)
        choice_key = prng.stream(key, "choices")
        choices = jax.random.randint(choice_key, (self.depth,), 0, len(primitives), jnp.int32)
        choices = jnp.where(jnp.arange(self.depth) < length, choices, len(primitives))
        keys = prng.index_keys(prng.stream(key, "steps"), jnp.arange(self.depth))
        # The branches get raw key data: under vmap, all branches read it, which JAX's check would
        # take for a reuse of a key.
        words, implementation = jax.random.key_data(keys), jax.random.key_impl(keys)

        def branch(primitive: Any) -> Any:
            key = lambda words: jax.random.wrap_key_data(words, impl=implementation)  # noqa: E731
            return lambda words, image: primitive(key(words), image)

        branches = [*map(branch, primitives), lambda words, image: image]

        def step(image: jax.Array, draws: tuple) -> tuple[jax.Array, None]:
            choice, words = draws
            return jax.lax.switch(choice, branches, words, image), None

        return jax.lax.scan(step, image, (choices, words))[0]

    def _filtered(self, key: jax.Array, image: jax.Array) -> jax.Array:
        return filtered(image, draw_filter(key, self.filter_size, self.filter_scale))

    def _warped(self, key: jax.Array, image: jax.Array) -> jax.Array:
        cut, temperature = draw_temperature(key, image.shape, self.warp_cutoff)
        modes = draw_modes(key, image.shape, self.warp_cutoff, cut)
        return warped(image, displacements(jnp.sqrt(temperature) * modes, image.shape))

    def _recoloured(self, key: jax.Array, image: jax.Array) -> jax.Array:
        shape = image.shape[-1], self.colour_terms
        return recoloured(
            image, *draw_colours(key, shape, self.colour_cutoff, self.colour_variance)
        )


def draw_weights(key: jax.Array, chains: int) -> tuple[jax.Array, jax.Array]:
    """Draw the weights of chains (chains,), which sum to 1, and the weight of their mean."""
    shares = jax.random.exponential(prng.stream(key, "weights"), (chains,), jnp.float32)
    weight = jax.random.uniform(prng.stream(key, "mix"), (), jnp.float32)
    return shares / jnp.sum(shares), weight


def mixture(
    image: jax.Array, chained: jax.Array, shares: jax.Array, weight: jax.Array
) -> jax.Array:
    """Return (1 - weight) image + weight sum_i shares_i chained_i, for chained (n, H, W, C)."""
    mean = jnp.sum(shares[:, None, None, None] * chained, axis=0)
    return jnp.clip(image + weight * (mean - image), 0.0, 1.0)


def draw_filter(key: jax.Array, size: int, scale: float) -> jax.Array:
    """Draw a filter (size, size): one at the centre plus N(0, s^2), s uniform from 0 to scale."""
    deviation = scale * jax.random.uniform(prng.stream(key, "deviation"), (), jnp.float32)
    noise = deviation * fast.standard_normal(prng.stream(key, "filter"), (size, size))
    return noise.at[size // 2, size // 2].add(1.0)


def filtered(image: jax.Array, kernel: jax.Array) -> jax.Array:
    """Correlate each channel with the kernel (k, k), and clip."""
    height, width = image.shape[:2]
    reach = len(kernel) // 2
    padded = jnp.pad(image, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    total = jnp.zeros_like(image)
    for row, column in np.ndindex(*kernel.shape):
        part = padded[row : row + height, column : column + width]
        total = total + kernel[row, column] * part
    return jnp.clip(total, 0.0, 1.0)


def draw_temperature(
    key: jax.Array, shape: tuple[int, ...], cutoff: int
) -> tuple[jax.Array, jax.Array]:
    """Draw the largest frequency of displacements in images of a shape, and their temperature.

    The frequency, int32, is uniform from 2 to a number that is uniform from 2 to ``cutoff``. The
    temperature is uniform between two bounds of Petrini et al. (2021): for displacements of half a
    pixel (root mean square), and for the largest ones that do not fold the image. At high
    frequencies the second bound is the smaller one.
    """
    largest = jax.random.randint(prng.stream(key, "largest"), (), 2, cutoff + 1, jnp.int32)
    cut = jax.random.randint(prng.stream(key, "cut"), (), 2, largest + 1, jnp.int32)
    frequency = cut.astype(jnp.float32)
    half_pixel = 1 / (math.pi * shape[0] * shape[1] * jnp.log(frequency))
    unfolded = 4 / (math.pi**3 * frequency**2 * jnp.log(frequency))
    place = jax.random.uniform(prng.stream(key, "temperature"), (), jnp.float32)
    return cut, half_pixel + place * (unfolded - half_pixel)


def draw_modes(
    key: jax.Array, shape: tuple[int, ...], cutoff: int, cut: int | jax.Array
) -> jax.Array:
    """Draw amplitudes (rows, columns, 2) of sines for ``displacements``, at a temperature of 1.

    The sine of frequencies (k, l) has an amplitude of N(0, 1 / (k^2 + l^2)) if k^2 + l^2 <= cut^2.
    Sampled at the pixels, a frequency above the number of pixels equals a lower one, see
    ``_aliases``. Amplitudes of such sines add up, and so do their variances, so one number is drawn
    for all of them. The distribution is the same, with far fewer draws for small images.
    """
    squares = [jnp.asarray(_aliases(side, cutoff) ** 2) for side in shape[:2]]
    total = squares[0][:, None, :, None] + squares[1][None, :, None, :]
    within = total <= jnp.float32(cut) ** 2
    # On a CPU this product is many times faster than a sum, which XLA would fuse with what follows
    # and compute again for each of its values.
    ones = jnp.ones(total.shape[2:], jnp.float32)
    terms = jnp.where(within, 1 / total, 0.0)
    variance = jnp.einsum("klij,ij->kl", terms, ones, precision=matrices.PRECISION)
    normal = fast.standard_normal(prng.stream(key, "modes"), (*variance.shape, 2))
    return jnp.sqrt(variance)[..., None] * normal


def displacements(amplitudes: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Return displacements (H, W, 2) in pixels, down and to the right.

    They are sums of sin(pi k y) sin(pi l x), with y and x from 0 at the first to 1 at the last
    pixel, where the displacement is 0. The ``amplitudes`` are in units of the sides of the image.
    """
    rows, columns = (
        _sines(side, frequencies)
        for side, frequencies in zip(shape[:2], amplitudes.shape[:2], strict=True)
    )
    sides = jnp.asarray(shape[:2], jnp.float32)
    return sides[None, None] * matrices.separable(amplitudes[None], rows, columns)[0]


def _aliases(side: int, cutoff: int) -> np.ndarray:
    """Return the frequencies that are alike on ``side`` pixels, float32 (frequencies, aliases).

    Row k - 1 has k, 2 p - k, 2 p + k, ... with p = side - 1: at the pixels, their sines are equal
    or opposite. Multiples of p have sines of zero. Some frequencies of the last columns exceed
    ``cutoff``.
    """
    period = 2 * max(side - 1, 1)
    lowest = np.arange(1, min(side - 2, cutoff) + 1)[:, None]
    starts = np.arange(0, cutoff + period, period)
    alike = np.concatenate([starts + lowest, starts[1:] - lowest], axis=1).astype(np.float32)
    return alike[:, (alike <= cutoff).any(axis=0)]


def _sines(side: int, frequencies: int) -> jax.Array:
    places = np.arange(side)[:, None] * np.arange(1, frequencies + 1)
    return jnp.asarray(np.sin(np.pi * places / max(side - 1, 1)), jnp.float32)


def warped(image: jax.Array, displacements: jax.Array) -> jax.Array:
    """Read the image at displaced pixels, by bilinear interpolation."""
    height, width = image.shape[:2]
    y, x = (jnp.arange(side, dtype=jnp.float32) for side in (height, width))
    y = jnp.clip(y[:, None] + displacements[..., 0], 0, height - 1)
    x = jnp.clip(x[None] + displacements[..., 1], 0, width - 1)
    last = lambda position, side: jnp.minimum(position, side - 1)  # noqa: E731
    return digital.bilinear(image[None], y[None], x[None], last)[0]


def draw_colours(
    key: jax.Array, shape: tuple[int, int], cutoff: int, variance: float
) -> tuple[jax.Array, jax.Array]:
    """Draw coefficients of a shape (C, terms), and the first of as many consecutive frequencies.

    Coefficients are N(0, v), v uniform from 0 to ``variance``. The upper limit of the frequencies
    is uniform from ``terms`` to ``cutoff``; all positions below the limit are equally likely.
    """
    drawn = variance * jax.random.uniform(prng.stream(key, "variance"), (), jnp.float32)
    normal = fast.standard_normal(prng.stream(key, "coefficients"), shape)
    largest = jax.random.randint(prng.stream(key, "largest"), (), shape[1], cutoff + 1, jnp.int32)
    first = jax.random.randint(prng.stream(key, "first"), (), 1, largest - shape[1] + 2, jnp.int32)
    return jnp.sqrt(drawn) * normal, first


def recoloured(image: jax.Array, coefficients: jax.Array, first: int | jax.Array) -> jax.Array:
    """Return x + sum_j a_j sin(pi (first + j) x), clipped, with coefficients a (C, terms)."""
    sine, cosine = jnp.sin(math.pi * image), jnp.cos(math.pi * image)
    # Horner's rule for the sum of a_j z^j with z = exp(i pi x), which needs only a few sines.
    real = imaginary = jnp.zeros_like(image)
    for term in reversed(range(coefficients.shape[1])):
        real, imaginary = real * cosine - imaginary * sine, real * sine + imaginary * cosine
        real = real + coefficients[None, None, :, term]
    # Reduced to one turn, since a float32 angle of many turns has fewer correct digits.
    angle = math.pi * jnp.remainder(jnp.float32(first) * image, 2.0)
    change = real * jnp.sin(angle) + imaginary * jnp.cos(angle)
    return jnp.clip(image + change, 0.0, 1.0)
