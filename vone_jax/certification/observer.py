"""What an ideal observer of the noisy responses of V1 can tell about a perturbation.

Everything behind the noise is a function of the noisy responses. It cannot tell two images apart
better than an ideal observer of these responses. Each kind of noise is independent Gaussian noise
of known mean and variance, if not in the responses, then in a function of them (``moments``).

Two numbers follow. ``detectability`` is the observer's d' of one image against another. The
**distance** of a certificate is a bound for all perturbations in a region:

    Gaussian noise       d' = ||r' - r|| / scale
    stabilised noise     d' = 2 ||sqrt(u') - sqrt(u)||          u = scale r + level
    neuronal noise       root of the Renyi divergence of order a > 1 of the populations

The variance of neuronal noise depends on the image, so no single d' describes its observer. With
m = u + 1e-4, the variance strength^2 m, and a change D of u, the divergence of one cell is

    D^2 c(D),   c(D) = (a / 2) int_0^1 t dt / ((m + t D) (m - (a-1) t D))
                       + a / (2 strength^2 (m - (a-1) D)),        if (a-1) D < m.

c is convex in D, so its largest value in an interval is at an end. It falls if m grows, so its
largest value for all images is that of a silent cell.

References:
  Cohen, Rosenfeld, Kolter (2019), arXiv:1902.02918: certificates from Gaussian noise.
  Li, Chen, Wang, Carin (2019), arXiv:1809.03113: certificates from Renyi divergences.
  Gil, Alajaji, Linder (2013), Information Sciences 249:124-131: divergences of Gaussians.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Float

from vone_jax import fast
from vone_jax.v1 import (
    FanoNoise,
    GaussianNoise,
    NeuronalNoise,
    Noise,
    StabilisedNoise,
    VOneBlockConfig,
    noise_free_responses,
)
from vone_jax.v1.noise import VARIANCE_FLOOR

Images = Float[Array | np.ndarray, "n h w c"]
Real = np.ndarray | np.floating | float
# Orders of the Renyi divergence that are tried. The best is about 1.35 for small changes.
ORDERS = (1.02, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35, 1.4, 1.5, 1.7, 2.0, 2.5, 3.5, 6.0)


def check_noise(noise: Noise) -> None:
    """Check that a certificate exists for a noise.

    Raises:
      ValueError: for no noise, noise of strength 0, and noise without a useful bound.
    """
    amount = {GaussianNoise: "scale", NeuronalNoise: "strength"}.get(type(noise))
    if not isinstance(noise, (GaussianNoise, NeuronalNoise, StabilisedNoise)):
        raise ValueError(
            "a certificate needs GaussianNoise, NeuronalNoise or StabilisedNoise in V1, got "
            f"{noise}. Without noise there is none, and the variance of FanoNoise is so small at "
            "rest that it hides nothing"
        )
    if amount is not None and getattr(noise, amount) == 0:
        raise ValueError(f"a certificate needs noise whose {amount} is > 0, got {noise}")
    if isinstance(noise, NeuronalNoise) and noise.level == 0:
        raise ValueError(f"a certificate needs spontaneous activity, level > 0, got {noise}")


def moments(noise: Noise, responses: Array) -> tuple[Array, Array]:
    """Return the mean and the variance of noisy responses, where these are Gaussian.

    They are those of the responses for Gaussian noise, noise of a fixed Fano factor, and None,
    which stands for a variance of 1. They are those of the spike count for neuronal noise, and of
    the root of the count for stabilised noise.
    """
    if isinstance(noise, StabilisedNoise):
        mean = jnp.sqrt(noise.scale * fast.relu(responses) + noise.level)
        return mean, jnp.full_like(mean, 0.25)
    if isinstance(noise, NeuronalNoise):
        mean = noise.scale * responses + noise.level
        return mean, noise.strength**2 * (fast.relu(mean) + VARIANCE_FLOOR)
    if isinstance(noise, FanoNoise):
        return responses, noise.fano_factor * jnp.abs(responses) + noise.floor
    return responses, jnp.full_like(responses, 1.0 if noise is None else noise.scale**2)


def information(noise: Noise, responses: Array) -> Array:
    """Return the Fisher information of each noisy response about its noise-free response.

    With the mean m and the variance v, it is m'^2 / v + v'^2 / (2 v^2). For neuronal noise with the
    count u and m = u + 1e-4 this is scale^2 (1 / (strength^2 m) + 1 / (2 m^2)). The second term
    does not depend on the strength: a silent cell tells of a change by its variance.
    """
    of_noise = functools.partial(moments, noise)
    (_, variance), slopes = jax.jvp(of_noise, (responses,), (jnp.ones_like(responses),))
    return slopes[0] ** 2 / variance + slopes[1] ** 2 / (2 * variance**2)


def detectability(
    config: VOneBlockConfig, images: Images, others: Images, noise: Noise = None
) -> Float[Array, " n"]:
    """Return the ideal observer's d' for each image against another, from the responses of V1.

    If the noise of V1 has a d' well below 1 for a perturbation, then no network behind V1 can tell
    the perturbed image from the original, whatever it has learned.

    Where the variance depends on the image, d' is the root of the symmetric Kullback-Leibler
    divergence, which equals d' for equal variances.

    Args:
      config: configuration of the block. It may have any normalisation.
      images: in [0, 1].
      others: of the same shape.
      noise: default ``config.noise``.
    """
    noise = config.noise if noise is None else noise
    if noise is None:
        raise ValueError("without noise an observer detects every change; give a noise")
    (mean, variance), (other, other_variance) = (
        moments(noise, noise_free_responses(config, each)) for each in (images, others)
    )
    squares = (other - mean) ** 2 * (1 / variance + 1 / other_variance)
    ratios = (other_variance - variance) ** 2 / (variance * other_variance)
    return jnp.sqrt(jnp.sum(squares + ratios, axis=(1, 2, 3)) / 2)


def weights(noise: Noise, responses: Real, change: Real, order: float) -> Real:
    """Return factors w with distance^2 <= sum_i w_i^2 (r'_i - r_i)^2.

    Args:
      noise: see ``check_noise``.
      responses: noise-free responses r >= 0 to the image. 0 gives factors that hold for all images.
      change: largest |r'_i - r_i| for which the factors hold; r' is >= 0, too.
      order: of the Renyi divergence, > 1; only neuronal noise uses it.

    Returns:
      Factors in float64, infinite where the divergence is. They grow with ``change``.
    """
    responses, change = (np.asarray(values, np.float64) for values in (responses, change))
    fall = np.minimum(change, responses)
    if isinstance(noise, GaussianNoise):
        return np.full(np.broadcast_shapes(responses.shape, change.shape), 1.0 / noise.scale)
    if isinstance(noise, StabilisedNoise):
        # |sqrt(u') - sqrt(u)| = |u' - u| / (sqrt(u') + sqrt(u)), and u' >= u - scale * fall.
        now, lowest = (
            np.sqrt(noise.scale * rate + noise.level) for rate in (responses, responses - fall)
        )
        return 2.0 * noise.scale / (now + lowest)
    assert isinstance(noise, NeuronalNoise)
    mean = noise.scale * responses + noise.level + VARIANCE_FLOOR
    up = renyi_rate(mean, noise.scale * change, order, noise.strength)
    down = renyi_rate(mean, -noise.scale * fall, order, noise.strength)
    return noise.scale * np.sqrt(np.maximum(up, down))


def renyi_rate(mean: Real, change: Real, order: float, strength: float) -> Real:
    """Return c(D) of the equation above: the divergence of a cell, divided by the change squared.

    Args:
      mean: m = u + 1e-4 of the clean image.
      change: D, the change of u; the variance becomes strength^2 (m + D).
      order: a > 1.
      strength: factor of the deviation.
    """
    x, excess = change / mean, order - 1.0
    inside = (excess * x < 1.0) & (x > -1.0)
    x = np.where(inside, x, 0.0)
    small = np.abs(x) < 1e-3
    far = np.where(small, 1e-3, x)
    closed = -0.5 * (np.log1p(far) + np.log1p(-excess * far) / excess) / far**2
    # The integral of the series of the integrand.
    series = 0.25 + (excess - 1) * x / 6 + (1 - excess + excess**2) * x**2 / 8
    of_variance = np.where(small, order * series, closed) / mean**2
    of_mean = order / (2.0 * strength**2 * mean * (1.0 - excess * x))
    return np.where(inside, of_variance + of_mean, np.inf)


def certified_distance(noise: Noise, probability: float, order: float) -> float:
    """Return the distance below which a class keeps more than half of the votes.

    It is Phi^-1(p) for Gaussian and stabilised noise (the observer's likelihood ratio is Gaussian),
    and the root of the Renyi divergence of a coin of 1/2 from one of p for neuronal noise.

    Args:
      noise: see ``check_noise``.
      probability: p > 1/2 of the class for the clean image, or a lower bound of it.
      order: of the divergence.
    """
    if not isinstance(noise, NeuronalNoise):
        return float(scipy.special.ndtri(probability))
    p, q, power = probability, 1.0 - probability, 1.0 - order
    moment = 0.5**order * (p**power + q**power)
    return float(np.sqrt(max(np.log(moment), 0.0) / (order - 1.0)))


def orders(noise: Noise) -> tuple[float, ...]:
    """The orders to try; each gives a valid certificate, so the best one counts."""
    return ORDERS if isinstance(noise, NeuronalNoise) else (2.0,)


def certified_radius(
    noise: Noise, probability: float, rates: Callable[[float], tuple[float, float]]
) -> tuple[float, float]:
    """Return the norm below which no perturbation changes the class, and its order.

    Args:
      noise: see ``check_noise``.
      probability: lower bound of the class's probability.
      rates: function of a radius. It returns bounds, for perturbations up to the radius, of the
        change of all responses and of that of a single response, both divided by the radius. They
        grow with the radius, or are constant.

    Returns:
      0 if the probability is at most 1/2. The order is that of the divergence.
    """
    if probability <= 0.5:
        return 0.0, orders(noise)[0]
    radii = {}
    for order in orders(noise):
        limit = certified_distance(noise, probability, order)

        def slack(radius: float, order: float = order, limit: float = limit) -> float:
            everything, of_cell = rates(radius)
            factor = float(weights(noise, 0.0, radius * of_cell, order))
            return limit - radius * everything * factor

        smallest = float(weights(noise, 0.0, 0.0, order))
        radii[order] = last_positive(slack, limit / (rates(0.0)[0] * smallest))
    best = max(radii, key=lambda order: radii[order])
    return radii[best], best


def last_positive(slack: Callable[[float], float], top: float) -> float:
    """Return, from below, the number in [0, top] where a falling function stops being positive."""
    if top == 0.0 or slack(top) > 0:
        return top
    tolerance = 1e-12 * top
    return max(scipy.optimize.bisect(slack, 0.0, top, xtol=tolerance) - 2 * tolerance, 0.0)
