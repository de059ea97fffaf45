"""The stage before V1: P and M cells of the retina and the lateral geniculate nucleus (LGN).

Light adaptation, differences of Gaussians, contrast normalisation and noise. Nothing is learned.
Reference: Piper, Oliveira and Marques, Explicitly modeling subcortical vision with a
neuro-inspired front-end improves CNN robustness, NeurIPS 2025, arXiv:2506.03089.
"""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from vone_jax import arguments
from vone_jax.arguments import Positive
from vone_jax.filters import filter_matrix
from vone_jax.v1 import noise as noise_models
from vone_jax.v1.images import HIGHEST, Images, check_images, root

Responses = Float32[Array, "n h w cells"]
Maps = Float32[Array, "n maps h w"]
Taps = Float[np.ndarray, " k"]
# For each cell: the weights of the image channels in the centre and in the surround.
ColourWeights = tuple[tuple[tuple[float, ...], tuple[float, ...]], ...]

_RED, _GREEN, _BLUE, _YELLOW = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.5, 0.5, 0.0)
_LUMINANCE = (1 / 3, 1 / 3, 1 / 3)
# R+/G-, G+/R-, B+/Y-.
_P_COLOURS: ColourWeights = ((_RED, _GREEN), (_GREEN, _RED), (_BLUE, _YELLOW))
_M_COLOURS: ColourWeights = ((_LUMINANCE, _LUMINANCE),)
_GREY: ColourWeights = (((1.0,), (1.0,)),)

# Keeps light adaptation finite on black images. It is part of the published model.
_DARK = 1e-5


@dataclasses.dataclass(frozen=True)
class LGNCells:
    """The constants of a class of cells. Radii are those at which a Gaussian falls to 1/e.

    Attributes:
      centre_radius: radius of the centre in degrees of visual angle, > 0.
      surround_radius: radius of the surround in degrees, > 0.
      surround_weight: peak of the surround relative to that of the centre, >= 0.
      pool_radius: radius in degrees of the region whose contrast divides the response, > 0.
      c50: pooled response that is added to the divisor, > 0.
      exponent: power of the divisor, >= 0.
      k_exc: gain, > 0. The published gains give spikes per 50 ms.

    Raises:
      ValueError: if a field is out of range.
    """

    centre_radius: Positive
    surround_radius: Positive
    surround_weight: float
    pool_radius: Positive
    c50: Positive
    exponent: float
    k_exc: Positive

    def __post_init__(self):
        arguments.fields(self)
        if self.surround_radius < self.centre_radius:
            raise ValueError(
                f"surround_radius must be at least centre_radius, {self.centre_radius:g} degrees, "
                f"got {self.surround_radius:g}"
            )


# Fitted by the authors to recordings in macaques. They print pixels at 32 pixels per degree.
P_CELLS = LGNCells(
    centre_radius=1.494800846305186 / 32,
    surround_radius=7.1528 / 32,
    surround_weight=0.011894632845946745,
    pool_radius=13.4115 / 32,
    c50=1.0,
    exponent=1.0,
    k_exc=5.29525198895458,
)
M_CELLS = LGNCells(
    centre_radius=2.4203904 / 32,
    surround_radius=17.091879253424104 / 32,
    surround_weight=0.0037506100912582663,
    pool_radius=28.872192 / 32,
    c50=0.18501829502844522,
    exponent=0.8068704487883759,
    k_exc=2.8494928592250206,
)


@dataclasses.dataclass(frozen=True)
class SubcorticalConfig:
    """The configuration of a subcortical stage. The defaults are those of the published EVNets.

    Attributes:
      image_size: number of pixels that span ``visual_degrees``. Images of other sizes and aspect
        ratios are accepted; they have the same number of pixels per degree.
      visual_degrees: field of view in degrees of visual angle.
      in_channels: number of image channels: 3 (RGB) or 1 (grey). For RGB there are three kinds of
        P cells (R+/G-, G+/R-, B+/Y-) and one of M cells; for grey, where the colours of centre and
        surround are the same, one of each.
      p_cells: the constants of the P cells; None for a stage without them.
      m_cells: the constants of the M cells; None for a stage without them.
      light_adaptation: subtract the mean of an image and divide by it. Without it, as in the
        authors' lesion, images are scaled to -1 to 1, and a file of weights does not show it.
      noise: ``FanoNoise`` or None.

    Raises:
      ValueError: if a field is out of range; the message names it.
    """

    image_size: int = 224
    visual_degrees: Positive = 7.0
    in_channels: int = 3
    p_cells: LGNCells | None = P_CELLS
    m_cells: LGNCells | None = M_CELLS
    light_adaptation: bool = True
    noise: noise_models.FanoNoise | None = noise_models.FanoNoise(fano_factor=0.4, floor=4e-6)

    def __post_init__(self):
        arguments.fields(self)
        if self.in_channels not in (1, 3):
            raise ValueError(f"in_channels must be 3 (RGB) or 1 (grey), got {self.in_channels!r}")
        if self.p_cells is None and self.m_cells is None:
            raise ValueError("p_cells and m_cells must not both be None")
        for _, cells, _ in self.populations:
            self.centre_and_surround(cells)

    @property
    def pixels_per_degree(self) -> float:
        """The number of pixels per degree of visual angle."""
        return self.image_size / self.visual_degrees

    @property
    def populations(self) -> tuple[tuple[str, LGNCells, ColourWeights], ...]:
        """The name, the constants and the colours of P cells, then of M cells, where present."""
        grey = self.in_channels == 1
        everything = (
            ("p", self.p_cells, _GREY if grey else _P_COLOURS),
            ("m", self.m_cells, _GREY if grey else _M_COLOURS),
        )
        return tuple((name, cells, colours) for name, cells, colours in everything if cells)

    @property
    def num_channels(self) -> int:
        """The number of cells per position: 4 for RGB, 2 for grey, fewer without P or M cells."""
        return sum(len(colours) for _, _, colours in self.populations)

    def centre_and_surround(self, cells: LGNCells) -> tuple[Taps, Taps]:
        """The taps of the centre and of the surround along one axis, both of the same length.

        The receptive field is outer(centre, centre) - outer(surround, surround). Its sum is 1 or
        -1.

        Raises:
          ValueError: if centre and surround cancel, so that there is no such field.
        """
        reach = self._reach(cells.surround_radius)
        centre = self._gaussian(cells.centre_radius, reach)
        surround = self._gaussian(cells.surround_radius, reach)
        surround *= math.sqrt(cells.surround_weight)
        total = abs(centre.sum() ** 2 - surround.sum() ** 2)
        if total < 1e-3 * centre.sum() ** 2:
            raise ValueError(
                f"surround_weight must leave a difference between centre and surround, whose sum "
                f"scales the receptive field; at {cells.surround_weight} they cancel"
            )
        return centre / math.sqrt(total), surround / math.sqrt(total)

    def pool(self, cells: LGNCells) -> Taps:
        """The taps of the contrast pool along one axis; their sum is 1."""
        taps = self._gaussian(cells.pool_radius, self._reach(cells.pool_radius))
        return taps / taps.sum()

    def _reach(self, radius: float) -> int:
        """The pixels on either side of the centre at which a Gaussian is cut: at 1/4 of its peak.

        They are fewer than the pixels of an image's side.
        """
        deviation = radius * self.pixels_per_degree / math.sqrt(2.0)
        return min(math.ceil(math.sqrt(-2.0 * math.log(0.25)) * deviation), self.image_size - 1)

    def _gaussian(self, radius: float, reach: int) -> Taps:
        offset = np.arange(-reach, reach + 1)
        return np.exp(-((offset / (radius * self.pixels_per_degree)) ** 2))


def subcortical_responses(config: SubcorticalConfig, images: Images) -> Responses:
    """Return the responses of P cells, then of M cells, before noise.

    With the mean m of an image over pixels and channels, centre and surround Gaussians C and S on
    the channels that a cell reads, and a pool G (a Gaussian of sum 1),

        a = (x - m) / (m + 1e-5),                           light adaptation
        y = (C * a - w S * a) / |sum of the kernel|,        opponent receptive field
        r = k_exc y / (sqrt(G * y^2) + c50)^n               contrast normalisation

    where images continue beyond their border by reflection. The gradient of the root is defined as
    0 where the pool is 0, as in uniform images, so that gradients are finite for every image.

    Args:
      config: configuration of the stage.
      images: in [0, 1], with ``config.in_channels`` channels.

    Returns:
      Responses of either sign, of shape (n, h, w, config.num_channels). With light adaptation, 0
      is the response to a uniform image.

    Raises:
      TypeError: if images are not floating point.
      ValueError: if their shape does not fit the configuration.
    """
    check_images(images, config.in_channels)
    maps = jnp.asarray(images, jnp.float32).transpose(0, 3, 1, 2)
    adapted = light_adaptation(maps) if config.light_adaptation else 2.0 * maps - 1.0
    responses = []
    for _, cells, colours in config.populations:
        linear = opponent_responses(config, cells, colours, adapted)
        responses.append(cells.k_exc * contrast_normalisation(config, cells, linear))
    return jnp.concatenate(responses, axis=1).transpose(0, 2, 3, 1)


def grating_amplitudes(
    config: SubcorticalConfig, frequencies: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n cells"]:
    """The amplitudes of the responses of each kind of cell to large grey gratings of full contrast.

    With the amplitude D of the response of the receptive field, the pooled contrast is D / sqrt(2),
    so the amplitude is k_exc D / (D / sqrt(2) + c50)^n. Its ripple at twice the frequency, which
    matters where a period is wider than a pool, is left out.

    Args:
      config: configuration of the stage.
      frequencies: of the gratings, in cycles per degree.
    """
    amplitudes = []
    for _, cells, colours in config.populations:
        centre, surround = config.centre_and_surround(cells)
        offset = np.arange(len(centre)) - len(centre) // 2
        waves = np.cos(2.0 * np.pi * np.outer(frequencies, offset) / config.pixels_per_degree)
        # Light adaptation, or the scale of -1 to 1 without it, gives the grating an amplitude of 1.
        parts = [(waves @ taps) * taps.sum() for taps in (centre, surround)]
        for weights in colours:
            excitation, inhibition = (
                sum(weight) * part for weight, part in zip(weights, parts, strict=True)
            )
            linear = np.abs(excitation - inhibition)
            divisor = (linear / math.sqrt(2.0) + cells.c50) ** cells.exponent
            amplitudes.append(cells.k_exc * linear / divisor)
    return np.stack(amplitudes, axis=1)


def light_adaptation(maps: Maps) -> Maps:
    """Return the channels of images relative to the mean over channels and pixels of an image."""
    # The mean of differences is exactly 0 for a uniform image. The rounding of a plain mean depends
    # on the batch, and would set the noise of such an image, whose responses are 0.
    first = maps[:, :1, :1, :1]
    mean = first + (maps - first).mean(axis=(1, 2, 3), keepdims=True)
    return (maps - mean) / (mean + _DARK)


def opponent_responses(
    config: SubcorticalConfig, cells: LGNCells, colours: ColourWeights, adapted: Maps
) -> Float32[Array, "n cells h w"]:
    """Return the linear responses of a population to light-adapted images."""
    centre, surround = config.centre_and_surround(cells)
    # (cells, centre or surround, image channels)
    weights = np.array(colours, np.float32)
    excitation, inhibition = (
        jnp.einsum("oc,nchw->nohw", weights[:, part], adapted, precision=HIGHEST) for part in (0, 1)
    )
    return _filtered(excitation, centre) - _filtered(inhibition, surround)


def contrast_normalisation(config: SubcorticalConfig, cells: LGNCells, responses: Maps) -> Maps:
    """Divide the responses of each cell by their pooled contrast."""
    contrast = root(_filtered(jnp.square(responses), config.pool(cells)))
    return responses / (contrast + cells.c50) ** cells.exponent


def _filtered(maps: Maps, taps: Taps) -> Maps:
    """Correlate maps with ``taps`` along both axes; maps continue by reflection."""
    height, width = maps.shape[2:]
    rows, columns = (filter_matrix(side, taps, "mirror") for side in (height, width))
    along_columns = jnp.einsum("jw,nchw->nchj", columns, maps, precision=HIGHEST)
    return jnp.einsum("ih,nchj->ncij", rows, along_columns, precision=HIGHEST)


class SubcorticalBlock(noise_models.NoisyBlock):
    """The stage as a Flax module: responses of either sign, of P cells, then of M cells.

    It has no variables, because nothing is learned.
    """

    config: SubcorticalConfig = SubcorticalConfig()
    stream = "subcortical noise"

    def noise_free(self, images: Images) -> Responses:
        return subcortical_responses(self.config, images)
