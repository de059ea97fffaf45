"""Two templates behind the real V1, with the decoder that errs least."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jaxtyping import Array
from scipy.special import ndtr, ndtri

from vone_jax import attacks, certification, v1
from vone_jax.answer_key import problem
from vone_jax.answer_key.problem import Images, Problem, Shares
from vone_jax.certification.bounds import sensitivities

_NOISE = v1.StabilisedNoise(level=1.0)
# Smaller than the blocks of the published networks, so that an attack of many steps takes seconds.
_V1 = v1.VOneBlockConfig(
    simple_channels=8, complex_channels=8, image_size=28, visual_degrees=1.0, kernel_size=9,
    stride=2, in_channels=1, noise=_NOISE,
)  # fmt: skip
# The amplitude of the grating by which the templates differ.
_CONTRAST = 0.03


def v1_templates(examples: int = 20, seed: int = 0) -> Problem:
    """Return a Bayes decoder of two templates behind V1. Bounds in all norms, nothing exact.

    V1 with stabilised noise responds with u = scale r(x) + level, and the decoder sees
    s = sqrt(u) + z / 2 of all cells, see ``certification.observer``. Let m0 and m1 be the sqrt(u)
    of the two templates, m = (m0 + m1) / 2 and c = 2 (m1 - m0). The logarithm of the ratio of the
    likelihoods is the evidence of the decoder that errs least:

        2 c . (s - m),   so that   P(class 1) = Phi(2 c . (sqrt(u) - m) / ||c||).

    That is exact for each image. But sqrt(u) is no linear function of an image, so its worst case
    is only known to lie between two bounds:

    - below, a certificate: a perturbation moves 2 sqrt(u) by at most L eps, so that
      P >= Phi(Phi^-1(P(x)) - L eps). L is ``certification.local_sensitivity``, which fails with a
      probability of 1e-5 for each image, or that of all images where it is less;
    - above, the images that APGD finds on the mean evidence, without noise.

    Images lie between and beyond the templates.

    Args:
      examples: number of images.
      seed: of the templates, the certificates and the attack.
    """
    side, key = _V1.image_size, jax.random.key(seed)
    base = np.random.default_rng(seed).uniform(0.3, 0.7, (1, side, side, 1))
    # A grating of four cycles per degree, which V1 sees well.
    grating = _CONTRAST * np.sin(2 * np.pi * 4 * np.arange(side) / side).reshape(1, 1, side, 1)
    # The templates have the shares -1 and 1.
    share = np.linspace(0.4, 1.6, examples // 2)
    share = np.stack([-share, share], axis=1).reshape(-1, 1, 1, 1)
    images = jnp.asarray(base + share * grating, jnp.float32)
    labels = jnp.asarray(share.reshape(-1) > 0, jnp.int32)
    means = _roots(jnp.asarray(np.concatenate([base - grating, base + grating]), jnp.float32))
    slope, middle = 2 * (means[1:] - means[:1]), (means[1:] + means[:1]) / 2
    sign = np.where(np.asarray(labels) > 0, 1.0, -1.0)

    def probability(images: Images) -> Shares:
        away = np.asarray(_roots(jnp.asarray(images)) - middle, np.float64)
        direction = np.asarray(slope, np.float64) / np.linalg.norm(slope)
        return ndtr(sign * np.sum(2 * direction * away, axis=(1, 2, 3)))

    def bounds(eps: float, norm: str) -> tuple[Shares, Shares]:
        length = eps * (np.sqrt(images[0].size) if norm == "linf" else 1.0)
        local = certification.local_sensitivity(key, _V1, images, length)
        known, factor = sensitivities(_V1), _NOISE.scale / np.sqrt(_NOISE.level)
        distance = factor * eps * (known.linf if norm == "linf" else known.l2)
        distance = np.minimum(distance, local * length)
        below = ndtr(ndtri(probability(images)) - distance)
        attack = attacks.APGD(norm, eps, loss="margin", restarts=2)
        mean = Partial(_v1_templates, slope, middle, 0.0)
        found = attack(key, mean, images, labels)
        return below, np.minimum(probability(images), probability(found))

    network = Partial(_v1_templates, slope, middle, 0.5)
    return Problem(network, images, labels, probability, bounds)


def _roots(images: Array) -> Array:
    """Return sqrt(u) of all cells, (N, h, w, cells)."""
    return jnp.sqrt(_NOISE.scale * v1.noise_free_responses(_V1, images) + _NOISE.level)


def _v1_templates(
    slope: Array, middle: Array, deviation: float, keys: Array, images: Array
) -> Array:
    seen = _roots(images) + deviation * problem.normal(keys, *middle.shape[1:])
    return problem.two_classes(2 * jnp.sum(slope * (seen - middle), axis=(1, 2, 3)))
