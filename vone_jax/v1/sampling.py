"""Gabor banks sampled from the distributions of receptive fields in V1.

The generator is NumPy's legacy ``RandomState``, and the order of the draws is fixed, because they
define the published banks.
"""

import dataclasses

import numpy as np
import scipy
from jaxtyping import Float

from vone_jax import arguments
from vone_jax.v1 import distributions
from vone_jax.v1.gabor import GaborParameters

# Spatial frequencies: a histogram for all cells, or one for simple and one for complex cells.
_EVNET_FREQUENCIES = (
    distributions.SPATIAL_FREQUENCY_SIMPLE,
    distributions.SPATIAL_FREQUENCY_COMPLEX,
)
_FREQUENCIES = {
    "physiological": (distributions.SPATIAL_FREQUENCY,),
    "physiological_extended": (distributions.SPATIAL_FREQUENCY_EXTENDED,),
    "uniform": (distributions.SPATIAL_FREQUENCY,),
    "evnet": _EVNET_FREQUENCIES,
    "evnet_published": _EVNET_FREQUENCIES,
}
# The number of filters for which the published EVNets choose input channels.
_PUBLISHED_FILTERS = 512


def spatial_frequency_histogram(
    distribution: str, sf_min: float, sf_max: float
) -> distributions.Histogram:
    """Return the part of the spatial-frequency histogram that a bank samples from.

    ``sf_min`` and ``sf_max`` select whole bins: ``sf_max=9`` keeps bins up to 8 cycles per
    degree, ``sf_max=6`` up to 5.6. The uniform variant gives each of these bins the same weight.
    Like the original, it drops an edge that equals ``sf_max``. EVNets have a histogram for simple
    and one for complex cells; this is their mean.

    Raises:
      ValueError: if the distribution is unknown, or if no bin is left.
    """
    arguments.choice("distribution", distribution, _FREQUENCIES)
    parts = [
        histogram.between(sf_min, sf_max, include_high=distribution != "uniform")
        for histogram in _FREQUENCIES[distribution]
    ]
    if distribution == "uniform":
        return dataclasses.replace(parts[0], weights=(1.0,) * len(parts[0].weights))
    if len(parts) == 1:
        return parts[0]
    shares = [np.divide(part.weights, sum(part.weights)) for part in parts]
    return dataclasses.replace(parts[0], weights=tuple(np.mean(shares, axis=0).tolist()))


def sample_gabor_parameters(
    num_filters: int,
    seed: int = 0,
    sf_min: float = 0.0,
    sf_max: float = 9.0,
    distribution: str = "physiological",
    correlation: float = distributions.SIZE_FREQUENCY_CORRELATION,
    in_channels: int = 3,
) -> GaborParameters:
    """Sample a bank. Seed 0 with 512 filters gives the bank of the published VOneNets.

    Each quadrature pair gets one colour channel, drawn from the same seed after a restart, as in
    the receptive-field variants of arXiv:2310.10575.

    Args:
      num_filters: number n of quadrature pairs. Another n gives another bank, not a prefix.
      seed: seed of the bank, 0 <= seed < 2**32.
      sf_min: lowest spatial frequency in cycles per degree, see ``spatial_frequency_histogram``.
      sf_max: highest spatial frequency in cycles per degree.
      distribution: ``"physiological"``, ``"physiological_extended"`` (with the bin from 8 to
        11.2 cycles per degree) or ``"uniform"`` (no V1 statistics: all parameters independent).
        For the others see ``sample_evnet_parameters``.
      correlation: correlation of nx and spatial frequency in their Gaussian copula, in [0, 1).
        It has no effect on the uniform variant.
      in_channels: number of input channels, >= 1.

    Raises:
      ValueError: if an argument is out of range.
    """
    arguments.count("num_filters", num_filters)
    arguments.count("in_channels", in_channels)
    arguments.seed("seed", seed)
    arguments.number("correlation", correlation, arguments.Range(most=1.0, below=True))
    frequency = spatial_frequency_histogram(distribution, sf_min, sf_max)
    if distribution.startswith("evnet"):
        raise ValueError(
            f"distribution {distribution!r} depends on the kinds of cells; sample it with "
            "sample_evnet_parameters"
        )

    generator = np.random.RandomState(seed)
    phase = distributions.PHASE.inverse_cdf(generator.random_sample(num_filters))
    orientation_uniform = generator.random_sample(num_filters)
    if distribution == "uniform":
        theta = 180.0 * orientation_uniform
        low, high = np.log10([distributions.SIZE_EDGES[0], distributions.SIZE_EDGES[-1]])
        sf = frequency.inverse_cdf(generator.random_sample(num_filters))
        nx, ny = 10.0 ** (low + (high - low) * generator.random_sample((2, num_filters)))
    else:
        theta = distributions.ORIENTATION.inverse_cdf(orientation_uniform)
        theta = np.where(theta < 0, theta + 180.0, theta)
        of_size, of_frequency = _copula(generator, num_filters, correlation)
        nx = distributions.SIZE_X.inverse_cdf(of_size)
        sf = frequency.inverse_cdf(of_frequency)
        ny = distributions.size_y_given_x(nx, generator.random_sample(num_filters))
    channel = np.random.RandomState(seed).randint(0, in_channels, num_filters)
    return GaborParameters(sf=sf, theta=theta, phase=phase, nx=nx, ny=ny, channel=channel)


def sample_evnet_parameters(
    simple: int,
    complex_: int,
    seed: int = 42,
    sf_min: float = 0.0,
    sf_max: float = 8.0,
    in_channels: int = 4,
    published_channels: bool = False,
) -> GaborParameters:
    """Sample a bank in the order of EVNets. Seed 42 gives that of the published EVNets.

    Simple and complex cells have different spatial frequencies, drawn one kind after the other, and
    orientations keep their range of -22.5 to 157.5 degrees. An equal number of filters reads each
    input channel (Piper et al. 2025, arXiv:2506.03089).

    Args:
      simple: number of simple cells, which come first.
      complex_: number of complex cells.
      seed: seed of the bank, 0 <= seed < 2**32.
      sf_min: lowest spatial frequency in cycles per degree, see ``spatial_frequency_histogram``.
      sf_max: highest spatial frequency in cycles per degree.
      in_channels: number of input channels, >= 1.
      published_channels: choose channels as the published networks did. They shuffled a list for
        512 filters in which channel 2 takes all places that the others leave. So in smaller banks,
        such as that of EVEfficientNet-B0, most filters read channel 2.

    Raises:
      ValueError: if an argument is out of range.
    """
    arguments.count("simple", simple, least=0)
    arguments.count("complex_", complex_, least=0)
    num_filters = simple + complex_
    arguments.count("simple + complex_", num_filters)
    arguments.count("in_channels", in_channels)
    arguments.seed("seed", seed)
    if published_channels:
        check_published_channels("published_channels", num_filters, in_channels)
    frequencies = [histogram.between(sf_min, sf_max) for histogram in _EVNET_FREQUENCIES]

    generator = np.random.RandomState(seed)
    phase = distributions.PHASE.inverse_cdf(generator.random_sample(num_filters))
    theta = distributions.ORIENTATION.inverse_cdf(generator.random_sample(num_filters))
    cells = []
    for count, frequency in zip((simple, complex_), frequencies, strict=True):
        of_size, of_frequency = _copula(generator, count, distributions.SIZE_FREQUENCY_CORRELATION)
        sf = frequency.inverse_cdf(of_frequency)
        nx = distributions.EVNET_SIZE_X.inverse_cdf(of_size)
        joint = distributions.EVNET_SIZE_EDGES, distributions.EVNET_SIZE_COUNTS
        ny = distributions.size_y_given_x(nx, generator.random_sample(count), *joint)
        cells.append((sf, nx, ny))
    sf, nx, ny = (np.concatenate(values) for values in zip(*cells, strict=True))
    counts = np.full(in_channels, num_filters // in_channels)
    total = _PUBLISHED_FILTERS if published_channels else num_filters
    counts[min(2, in_channels - 1)] += total - counts.sum()
    channel = np.repeat(np.arange(in_channels), counts)
    generator.shuffle(channel)
    return GaborParameters(
        sf=sf, theta=theta, phase=phase, nx=nx, ny=ny, channel=channel[:num_filters]
    )


def check_published_channels(name: str, num_filters: int, in_channels: int) -> None:
    """Raise a ValueError unless a bank can have the input channels of the published EVNets."""
    if num_filters > _PUBLISHED_FILTERS or in_channels <= 2:
        raise ValueError(
            f"{name} is for at most {_PUBLISHED_FILTERS} filters and more than 2 "
            f"in_channels, got {num_filters} and {in_channels}"
        )


def _copula(
    generator: np.random.RandomState, n: int, correlation: float
) -> Float[np.ndarray, "2 n"]:
    """Draw ``n`` pairs of uniform numbers of a Gaussian copula with a correlation in [0, 1).

    The normals are those of ``RandomState.multivariate_normal``. NumPy decomposes the covariance,
    and the signs of singular vectors depend on the linear-algebra library. Written out, the bank is
    the same on every machine.
    """
    normals = generator.standard_normal((n, 2)).T
    if correlation > 0.0:
        along = np.sqrt(1.0 + correlation) * normals[0] / np.sqrt(2.0)
        across = np.sqrt(1.0 - correlation) * normals[1] / np.sqrt(2.0)
        normals = np.stack([-(along + across), -(along - across)])
    return scipy.special.ndtr(normals)
