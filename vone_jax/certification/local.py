"""The sensitivity of the ideal observer near one image.

The matrix W A has the rows of A times factors that hold for perturbations of this image up to a
radius, see ``observer.weights``. Cells that fire much hide more under noise that grows with the
rate. A simple cell whose in-phase response is far below 0 stays silent, and its factor is 0.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float64, Key

from vone_jax import batches, fast, prng
from vone_jax.certification.bounds import Images, linear_responses, of_cells, row_norms
from vone_jax.certification.observer import check_noise, last_positive, weights
from vone_jax.v1 import VOneBlockConfig


def local_sensitivity(
    key: Key[Array, "*keys"],
    config: VOneBlockConfig,
    images: Images,
    radius: float | np.ndarray,
    order: float = 1.35,
    steps: int = 64,
    failure: float = 1e-5,
) -> Float64[np.ndarray, " n"]:
    """Return an upper bound of (distance of x + d) / ||d|| for each image x and ||d|| <= radius.

    The distance is that of the noise ``config.noise``, see ``certification.observer``. The bound is
    the largest singular value of W A, by the method of Lanczos from a random start. A Lanczos
    estimate is too low; ``shortfall`` bounds how much. The bound is exceeded with a probability of
    at most ``failure`` over keys.

    Args:
      key: one typed key, or one per image.
      config: configuration of the block.
      images: in [0, 1].
      radius: L2 norm of the perturbations, one number or one per image.
      order: of the Renyi divergence, for neuronal noise.
      steps: of the Lanczos method. More give a tighter bound.
      failure: probability that the bound is too low, for each image.

    Raises:
      ValueError: for a block or a noise without a bound.
    """
    check_noise(config.noise)
    images = jnp.asarray(batches.check_images(images), jnp.float32)
    keys = prng.stream(prng.example_keys(key, len(images)), "lanczos")
    radii = np.broadcast_to(np.asarray(radius, np.float64), (len(images),))
    mean = np.broadcast_to(np.asarray(config.image_mean, np.float32), (config.in_channels,))
    number = int(np.prod(images.shape[1:]))
    loss = shortfall(number, min(steps, number), failure)
    bounds = np.empty(len(images))
    for i, size in enumerate(radii):
        linear = linear_responses(config, images[i : i + 1] - mean.reshape(1, 1, 1, -1))
        factors = _factors(config, np.asarray(linear, np.float64), size, order)
        if np.isfinite(factors).all():
            # A common factor keeps float32 in its range.
            scale = max(float(factors.max()), 1e-30)
            projected = _krylov(
                config, keys[i], images.shape[1:], jnp.float32(factors / scale), steps
            )
            value = np.linalg.eigvalsh(np.asarray(projected, np.float64))[-1]
            bounds[i] = scale * math.sqrt(max(value, 0.0) / (1.0 - loss))
        else:
            bounds[i] = np.inf
    return bounds


def _factors(
    config: VOneBlockConfig, linear: np.ndarray, radius: float, order: float
) -> np.ndarray:
    """The factor of each row of A, from the linear responses to an image."""
    simple, channels = config.simple_channels, config.num_channels
    change = radius * row_norms(config)
    responses = of_cells(config, linear)
    responses[..., :simple] = np.maximum(linear[..., :simple], 0.0)
    factors = np.asarray(weights(config.noise, responses, change, order))
    silent = linear[..., :simple] <= -change[:simple]
    factors[..., :simple] = np.where(silent, 0.0, factors[..., :simple])
    return np.concatenate([factors, factors[..., simple:channels]], axis=-1)


@functools.partial(jax.jit, static_argnums=(0, 2, 4))
def _krylov(
    config: VOneBlockConfig, key: Key[Array, ""], shape: tuple[int, ...], factors: Array, steps: int
) -> Float[Array, "k k"]:
    """The matrix (W A)^T W A in an orthonormal basis of the Krylov space of a random vector."""

    def weighted(image: Array) -> Array:
        return factors * linear_responses(config, image.reshape(1, *shape))

    number = math.prod(shape)
    steps = min(steps, number)
    start = jax.random.normal(key, (number,), jnp.float32)
    transposed = jax.linear_transpose(weighted, start)

    def normal(vector: Array) -> Array:
        return transposed(weighted(vector))[0]

    def orthogonal(vector: Array, basis: Array) -> Array:
        rest = vector
        for _ in range(2):  # Once is not enough in float32.
            rest = rest - jnp.matmul(jnp.matmul(basis, rest), basis)
        norm = jnp.linalg.norm(rest)
        # Nothing but rounding is left where the Krylov space has an end.
        return jnp.where(norm > 1e-6 * jnp.linalg.norm(vector), rest / norm, 0.0)

    def step(i: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        basis, images = state
        image = normal(basis[i])
        basis = basis.at[i + 1].set(orthogonal(image, basis))
        return basis, images.at[i].set(image)

    @fast.in_fast_layout
    def iterate(basis: Array) -> tuple[Array, Array]:
        return jax.lax.fori_loop(0, steps, step, (basis, jnp.zeros((steps, number))))

    basis = jnp.zeros((steps + 1, number)).at[0].set(start / jnp.linalg.norm(start))
    basis, images = iterate(basis)
    projected = jnp.matmul(basis[:-1], images.T)
    return (projected + projected.T) / 2


def shortfall(number: int, steps: int, failure: float) -> float:
    """Return e such that a Lanczos estimate is below (1 - e) times the largest eigenvalue rarely.

    Let b be a random unit vector of n numbers, and b_1 its part along the top eigenvector. The
    Lanczos estimate after k steps is the largest Rayleigh quotient of p(M) b for polynomials p of
    degree k - 1. Take the Chebyshev polynomial T that is at most 1 on [0, (1 - e) top]. If the
    estimate is below (1 - e) top, then b_1^2 e T(top)^2 < (1 - e) (1 - b_1^2). The density of b_1
    is at most sqrt(n / (2 pi)), so this has a probability of at most

        sqrt(2 n / pi) sqrt((1 - e) / e) / cosh((k - 1) arccosh((1 + e) / (1 - e))).

    Kuczynski and Wozniakowski (1992, SIAM J. Matrix Anal. Appl. 13:1094-1122) have a similar bound.

    Args:
      number: n.
      steps: k.
      failure: the probability.
    """

    def excess(e: float) -> float:
        e = max(e, 1e-12)
        growth = (steps - 1) * math.acosh((1 + e) / (1 - e))
        log_cosh = growth + math.log1p(math.exp(-2 * growth)) - math.log(2)
        ratio = 0.5 * math.log(2 * number / math.pi * (1 - e) / e)
        return ratio - log_cosh - math.log(failure)

    # The probability falls with e. What is found lies just below the smallest e.
    return last_positive(excess, 1.0 - 1e-9) + 1e-9
