"""A model of V1 cells in closed form, whose tuning has a gradient with respect to V1's constants.

A cell is a Gabor function with standard deviations s_x and s_y in degrees. Its spectrum has two
lobes. To a grating of a contrast c in a disc of radius R, its linear response is that to a large
grating times ``c (1 - exp(-R^2 / (2 s_x s_y)))``, which is exact for s_x = s_y. The divisor is that
of ``v1.SurroundNormalization``, with two simplifications: the cells in the pools of a cell have its
size, and the kernel has no pixels. ``docs/laws.md`` compares the model with the block.

Soft and hard measures. A peak is an average whose weights are a power of the response, and a width
the integral of a sigmoid, so they have a gradient. ``measure(..., soft=False)`` takes the curves at
the places of the experiments, and the measures of ``tuning``. On the published bank of seed 100
with the default surround, the median distance between soft and hard of a cell is 0.41 degrees of
the half-bandwidth, 0.058 cycles per degree, 0.0025 of the suppression index, a contrast of 0.0026,
0.0003 of the circular variance and 0.0001 degrees of the surround. Masks have one form.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.special import ndtri

from vone_jax import arguments, v1
from vone_jax.neurophysiology import tuning
from vone_jax.neurophysiology.experiments import CONTRASTS, fit_saturation
from vone_jax.neurophysiology.stimuli import ORIENTATIONS, RADII, SPATIAL_FREQUENCIES

PerCell = Float[Array | np.ndarray, " cells"]


class Constants(NamedTuple):
    """Twelve constants of a bank and of its surround.

    The bank is the published one. Its sizes are multiplied by ``size_x`` and ``size_y``. Its
    frequencies f become ``m frequency (f / m) ** frequency_spread``, with their geometric mean m.
    They stay between 0.25 and 13 cycles per degree, which images of 28 pixels per degree hold. The
    other constants are those of ``v1.SurroundNormalization``. The defaults are the published bank
    and the surround whose constants were set before.
    """

    frequency: Any = 1.0
    frequency_spread: Any = 1.0
    size_x: Any = 1.0
    size_y: Any = 1.0
    c50: Any = 0.11
    own: Any = 0.385
    local: Any = 0.07
    orientation_tuning: Any = 0.7
    position_pooling: Any = 0.41
    extent: Any = 0.45
    growth: Any = 0.75
    scatter: Any = 0.28

    def bank(self, start: v1.GaborParameters) -> v1.GaborParameters:
        """Return the bank that these constants make of a published one."""
        sf, nx, ny = (np.asarray(each, np.float64) for each in _shapes(self, start))
        return dataclasses.replace(start, sf=sf, nx=nx, ny=ny)

    def surround(self, **fields: Any) -> v1.SurroundNormalization:
        """Return the surround of these constants, with the other fields as given."""
        bank = ("frequency", "frequency_spread", "size_x", "size_y")
        learned = {name: float(x) for name, x in self._asdict().items() if name not in bank}
        # Rounding of float32 must not leave the range.
        learned["local"] = min(learned["local"], 1.0 - 2.0 * learned["own"])
        return v1.SurroundNormalization(**learned | fields)


@dataclasses.dataclass(frozen=True, eq=False)
class Cells:
    """Cells of a published bank, the first half simple, and what scatters among them.

    Attributes:
      seed: of the bank, and of the scatter.
      number: of cells.
    """

    seed: int
    number: int = 256

    def __post_init__(self):
        arguments.seed("seed", self.seed)
        arguments.count("number", self.number, 2)

    @functools.cached_property
    def start(self) -> v1.GaborParameters:
        """The published bank."""
        return v1.sample_gabor_parameters(self.number, self.seed)

    @functools.cached_property
    def simple(self) -> np.ndarray:
        """True for simple cells."""
        return np.arange(self.number) < self.number // 2

    @functools.cached_property
    def ranks(self) -> np.ndarray:
        """Evenly spaced numbers in (0, 1) in random order, for the share and for the extent."""
        generator = np.random.default_rng(self.seed)
        order = [generator.permutation(self.number) for _ in range(2)]
        return (np.stack(order) + 0.5) / self.number


def _shapes(constants: Constants, start: v1.GaborParameters) -> tuple[Any, Any, Any]:
    """Frequencies in cycles per degree, and the sizes nx and ny in periods."""
    middle = np.exp(np.log(start.sf).mean())
    spread = jnp.asarray(start.sf / middle, jnp.float32) ** constants.frequency_spread
    sf = jnp.clip(middle * constants.frequency * spread, 0.25, 13.0)
    return sf, start.nx * constants.size_x, start.ny * constants.size_y


class _Population(NamedTuple):
    """Parameters of all cells: frequency, sizes in degrees, direction and phase in radians."""

    sf: PerCell
    size_x: PerCell
    size_y: PerCell
    theta: np.ndarray
    phase: np.ndarray
    simple: np.ndarray

    def squares(self, sf: Any, angle: Any) -> tuple[Any, Any]:
        """Squared amplitude and mean squared response of cells to large gratings.

        The gratings have a spatial frequency and a direction in radians; arrays are broadcast
        against the cells in the last axis.
        """
        row = (1,) * (np.ndim(angle) - 1) + (-1,)
        own_sf, size_x, size_y, theta, phase, simple = (jnp.reshape(each, row) for each in self)
        turned = angle - theta
        along, across = sf * jnp.cos(turned), sf * jnp.sin(turned)

        def lobe(distance: Any) -> Any:
            return jnp.exp(-2 * np.pi**2 * ((size_x * distance) ** 2 + (size_y * across) ** 2))

        near, far = lobe(along - own_sf), lobe(along + own_sf)
        both = near**2 + far**2
        of_phase = jnp.where(simple, 2 * near * far * jnp.cos(2 * phase), 0.0)
        amplitude = (both + of_phase) / 4
        return amplitude, amplitude / jnp.where(simple, 4.0, 2.0)


def _covered(radius: Any, size: Any, deviation: Any) -> Any:
    """Mean over positions of the squared share of a receptive field within a disc.

    Positions have a Gaussian distribution around the centre of the disc. The share at a distance is
    the distribution function of a noncentral chi-square variable, in Sankaran's approximation.
    """
    size = jnp.asarray(size)
    # Squared distances of a Gaussian are exponential; nodes are a new first axis.
    nodes, weights = (
        jnp.asarray(each, jnp.float32).reshape(-1, *(1,) * size.ndim)
        for each in np.polynomial.laguerre.laggauss(8)
    )
    offset = 2.0 * nodes * ((deviation / size) ** 2)[None]
    mean = 2.0 + offset
    h = 1.0 - 2.0 / 3.0 * mean * (2.0 + 3.0 * offset) / (2.0 + 2.0 * offset) ** 2
    p = (2.0 + 2.0 * offset) / mean**2
    m = (h - 1.0) * (1.0 - 3.0 * h)
    root = (((radius / size) ** 2)[None] / mean) ** h
    z = root - (1.0 + h * p * (h - 1.0 - 0.5 * (2.0 - h) * m * p))
    share = jax.scipy.special.ndtr(z / (h * jnp.sqrt(2.0 * p) * (1.0 + 0.5 * m * p)))
    return (weights * share**2).sum(0)


# Orientations at which soft widths are integrated, in degrees; every third is an experiment's.
_FINE = np.arange(36) * 5.0
_WAVE = np.maximum(np.cos(np.arange(8) * np.pi / 4), 0.0) ** 2
_TEST, _MASK = 0.25, 0.5


def curves(
    constants: Constants, cells: Cells, normalised: bool = True
) -> dict[str, Float[Array, "levels cells"]]:
    """Return the tuning curves of cells, mean responses over the phases of gratings.

    Args:
      constants: of the bank and of the surround.
      cells: of the published bank.
      normalised: whether there is a surround.

    Returns:
      "orientation" at 36 orientations from the preferred one, "spatial_frequency" at
      ``stimuli.SPATIAL_FREQUENCIES``, "size" at ``stimuli.RADII``, "contrast" at
      ``experiments.CONTRASTS``, and "mask": without and with an orthogonal mask.
    """
    sf, nx, ny = _shapes(constants, cells.start)
    theta, phase = np.deg2rad(cells.start.theta), np.deg2rad(cells.start.phase)
    population = _Population(sf, nx / sf, ny / sf, theta, phase, cells.simple)
    size = jnp.sqrt(population.size_x * population.size_y)
    largest, _ = population.squares(sf, theta)

    rank_own, rank_extent = cells.ranks
    own = 2.0 * constants.own * jnp.asarray(rank_own, jnp.float32)
    envelope = jnp.sqrt((population.size_x**2 + population.size_y**2) / 2)
    pooling = jnp.minimum(constants.position_pooling, 1.0)
    field = jnp.where(cells.simple, envelope, jnp.hypot(envelope, pooling))
    extent = constants.extent * (field / 0.25) ** constants.growth
    extent *= jnp.exp(constants.scatter * ndtri(rank_extent))
    extent = jnp.minimum(extent, 1.0)

    default = v1.SurroundNormalization()
    apart = (jnp.log2(sf)[:, None] - jnp.log2(sf)[None]) / default.frequency_tuning
    tuned = 1.0 + constants.orientation_tuning * np.cos(2 * (theta[:, None] - theta))
    weights = jnp.exp(-0.5 * apart**2) * tuned

    # The mean squares of all cells (last axis) at the grating of each cell (last but one).
    def driven(frequency: Any, turned: Any) -> Any:
        return population.squares(frequency[..., None], (theta + turned)[..., None])[1]

    best = driven(sf, 0.0)
    whole, alike = (weights * best).sum(-1), best.sum(-1)

    def respond(gratings: Any) -> Any:
        """The response to gratings (contrast, frequency, turn, radius) that are shown at once."""
        drive = surround = local = jnp.zeros_like(sf)
        for contrast, frequency, turned, radius in gratings:
            amplitude, _ = population.squares(frequency, theta + turned)
            covered = jnp.where(
                cells.simple,
                (1.0 - jnp.exp(-(radius**2) / (2.0 * size**2))) ** 2,
                0.5 * _covered(radius, size, pooling),
            )
            drive += contrast**2 * covered * amplitude / largest
            around = driven(frequency, turned)
            surround += contrast**2 * (
                (weights * around).sum(-1) / whole * _covered(radius, size, extent)
            )
            local += contrast**2 * (
                around.sum(-1) / alike * _covered(radius, size, default.local_extent)
            )
        # Simple cells follow the phase. Two gratings drift apart, so their squares add.
        waves = jnp.where(cells.simple[None], _WAVE[:, None], 1.0)
        squares = drive[None] * waves
        if not normalised:
            return jnp.sqrt(squares).mean(0)
        around = constants.local * local + (1.0 - own - constants.local) * surround
        return (squares / (constants.c50**2 + own[None] * squares + around[None])).mean(0)

    def along(function: Callable[[Any], Any], levels: np.ndarray) -> Any:
        return jax.lax.map(function, jnp.asarray(levels, jnp.float32))

    def at(frequency: Any) -> Any:
        return respond([(1.0, frequency + 0 * sf, 0.0, 1.5 / frequency)])

    frequency_curve = along(at, SPATIAL_FREQUENCIES)
    peak = jnp.exp2(_soft_peak(frequency_curve, np.log2(SPATIAL_FREQUENCIES)))
    test = [(_TEST, peak, 0.0, 1.0)]
    return {
        "orientation": along(
            lambda turn: respond([(1.0, peak, jnp.deg2rad(turn), 1.5 / peak)]), _FINE
        ),
        "spatial_frequency": frequency_curve,
        "size": along(lambda radius: respond([(1.0, peak, 0.0, radius)]), RADII),
        "contrast": along(lambda contrast: respond([(contrast, peak, 0.0, 1.0)]), CONTRASTS),
        "mask": jnp.stack([respond(test), respond([*test, (_MASK, peak, np.pi / 2, 1.0)])]),
    }


def _soft_peak(curve: Any, places: np.ndarray, power: float = 12.0) -> Any:
    """The mean of places, weighted by a power of the response."""
    return (_peaked(curve, power) * places[:, None]).sum(0)


def _peaked(curve: Any, power: float) -> Any:
    return jax.nn.softmax(power * jnp.log(jnp.maximum(curve, 1e-12)), axis=0)


def measure(
    constants: Constants, cells: Cells, normalised: bool = True, soft: bool = True
) -> Mapping[str, PerCell]:
    """Return seven properties of cells, see ``fit.REFERENCES``.

    Those that are soft have a gradient. Those that are not are NaN where they are undefined.
    """
    found = curves(constants, cells, normalised)
    if not soft:
        return _hard({name: np.asarray(curve, np.float64) for name, curve in found.items()})
    orientation, size, contrast = (found[n] for n in ("orientation", "size", "contrast"))
    # Bandwidths are those of a curve that is smoothed, as in ``tuning.half_bandwidth``.
    smooth = orientation + 0.4 * sum(jnp.roll(orientation, shift, axis=0) for shift in (-3, 3))
    top = (_peaked(smooth, 40.0) * smooth).sum(0)
    above = jax.nn.sigmoid(40.0 * jnp.log(jnp.maximum(smooth / top[None], 1e-6) / tuning.HEIGHT))
    angle = 2 * np.deg2rad(_FINE)[:, None]
    across, along = ((orientation * wave(angle)).sum(0) for wave in (np.sin, np.cos))
    best = (_peaked(size, 40.0) * size).sum(0)
    # Response and contrast c are related by c^2 / r = (c^2 + c50^2) / r_max, a line in c^2.
    x = jnp.asarray(CONTRASTS**2, jnp.float32)[:, None]
    weight = contrast**2
    y = x / jnp.maximum(contrast, 1e-12)
    mean_x, mean_y = (weight * x).sum(0) / weight.sum(0), (weight * y).sum(0) / weight.sum(0)
    from_mean = x - mean_x[None]
    slope = (weight * from_mean * y).sum(0) / (weight * from_mean**2).sum(0)
    squared = jnp.maximum(mean_y / jnp.maximum(slope, 1e-9) - mean_x, 1e-6)
    # The smallest size beyond the peak at which suppression is complete.
    left = jax.nn.sigmoid(20.0 * (size / size[-1:] - 1.05) / 0.05)
    step = np.log2(RADII[1] / RADII[0])
    beyond = jnp.cumsum(_peaked(size, 40.0), axis=0)
    last = jnp.log2(2 * RADII[0]) + step * (1.0 - beyond + beyond * left).sum(0)
    return {
        "or_bandwidth": above.sum(0) * 2.5,
        "peak_sf": jnp.exp2(_soft_peak(found["spatial_frequency"], np.log2(SPATIAL_FREQUENCIES))),
        "surround_suppression_index": 1.0 - size[-1] / best,
        "half_saturation": jnp.sqrt(squared),
        "circular_variance": 1.0 - jnp.hypot(across, along) / orientation.sum(0),
        "surround_diameter": jnp.exp2(last),
        "orthogonal_mask": found["mask"][1] / found["mask"][0],
    }


def _hard(found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    step = len(_FINE) // len(ORIENTATIONS)
    orientation, size = found["orientation"][::step], found["size"]
    index = tuning.suppression_index(size)
    diameter = tuning.surround_diameter(size)
    return {
        "or_bandwidth": tuning.half_bandwidth(orientation),
        "peak_sf": tuning.peak_frequency(found["spatial_frequency"]),
        "surround_suppression_index": index,
        "half_saturation": fit_saturation(CONTRASTS, found["contrast"])[1],
        "circular_variance": tuning.circular_variance(orientation),
        "surround_diameter": np.where(index > 0.1, diameter, np.nan),
        "orthogonal_mask": tuning.ratio(found["mask"][1], found["mask"][0]),
    }
