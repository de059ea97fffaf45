"""The Gabor filter bank: its parameters, its kernels, and imported kernels.

Reference: Dapello, Marques et al., Simulating a primary visual cortex at the front of CNNs
improves robustness to image perturbations, NeurIPS 2020.
"""

import dataclasses
import functools
import hashlib
from typing import Any, NamedTuple

import numpy as np
from jax.core import Tracer
from jaxtyping import Float32

from vone_jax import arguments


@dataclasses.dataclass(frozen=True, eq=False)
class GaborParameters:
    """Parameters of a bank of n quadrature pairs. Arrays of shape (n,), read-only.

    Attributes:
      sf: spatial frequency of the carrier in cycles per degree, > 0.
      theta: direction of the carrier in degrees. The grating that drives a filter best has the
        orientation (90 - theta) mod 180 in image coordinates (0: luminance varies from left to
        right).
      phase: phase of the carrier in degrees.
      nx: standard deviation of the envelope along the carrier, in carrier periods, > 0.
      ny: standard deviation of the envelope across the carrier, in carrier periods, > 0.
      channel: index of the one input channel that the filter reads.
      channel_quadrature: index of the input channel that the quadrature partner (phase + 90
        degrees) reads. Default: ``channel``. Original checkpoints have other values, because the
        original drew them separately, which breaks the phase invariance of complex cells on
        coloured images.

    Raises:
      ValueError: if shapes differ, or if a value is out of range or not finite.
      TypeError: if an array is traced.
    """

    sf: np.ndarray
    theta: np.ndarray
    phase: np.ndarray
    nx: np.ndarray
    ny: np.ndarray
    channel: np.ndarray
    channel_quadrature: np.ndarray = dataclasses.field(default=None)  # pyright: ignore

    def __post_init__(self):
        if self.channel_quadrature is None:
            object.__setattr__(self, "channel_quadrature", self.channel)
        n = np.size(self.sf)
        for field in dataclasses.fields(self):
            if isinstance(getattr(self, field.name), Tracer):
                raise TypeError(
                    f"{field.name} must be known numbers, got a traced array; a bank is a constant "
                    "within jit, grad and vmap, v1.LearnableGabor has traced parameters"
                )
            values = np.asarray(getattr(self, field.name))
            if values.shape != (n,) or n == 0:
                raise ValueError(
                    f"{field.name} must be an array of shape (n,) like sf, got shape "
                    f"{values.shape}; sf has shape {np.shape(self.sf)}"
                )
            integer = field.name.startswith("channel")
            if integer and not np.issubdtype(values.dtype, np.integer):
                raise ValueError(f"{field.name} must be integers >= 0, got {values.dtype}")
            array = np.array(values, np.int64 if integer else np.float64)
            if not np.all(np.isfinite(array)):
                wrong = array[~np.isfinite(array)][0]
                raise ValueError(f"{field.name} must be finite, got {wrong}")
            if integer and array.min() < 0:
                raise ValueError(f"{field.name} must be integers >= 0, got {array.min()}")
            if field.name in ("sf", "nx", "ny") and array.min() <= 0:
                raise ValueError(f"{field.name} must be > 0, got {array.min()}")
            array.flags.writeable = False
            object.__setattr__(self, field.name, array)

    def __len__(self) -> int:
        return len(self.sf)

    def _bytes(self) -> tuple[bytes, ...]:
        return tuple(getattr(self, field.name).tobytes() for field in dataclasses.fields(self))

    # Compared by value, so that a model with a bank stays a hashable, comparable description.
    def __eq__(self, other: object) -> bool:
        return isinstance(other, GaborParameters) and self._bytes() == other._bytes()

    def __hash__(self) -> int:
        return hash(self._bytes())

    def __repr__(self) -> str:
        values = ", ".join(
            f"{field.name}={getattr(self, field.name).tolist()}"
            for field in dataclasses.fields(self)
        )
        return f"GaborParameters({values})"


class GaborKernels(NamedTuple):
    """The kernels of a bank, indexed as [filter, row, column]."""

    in_phase: Float32[np.ndarray, "n k k"]
    quadrature: Float32[np.ndarray, "n k k"]


def gabor_kernels(
    parameters: GaborParameters,
    kernel_size: int,
    pixels_per_degree: float,
    allow_aliasing: bool = False,
) -> GaborKernels:
    """Sample Gabor functions on the pixel grid.

    With x the row offset and y the column offset from the centre pixel,

        x_r = x cos(theta) + y sin(theta),   y_r = -x sin(theta) + y cos(theta),
        g = exp(-(x_r^2 / sigma_x^2 + y_r^2 / sigma_y^2) / 2) / (2 pi sigma_x sigma_y)
            * cos(2 pi f x_r + phase),

    where f = sf / pixels_per_degree, sigma_x = nx / f and sigma_y = ny / f (Dapello, Marques et
    al., section 3). There is no further normalisation, and the mean is not removed.

    Args:
      parameters: n quadrature pairs.
      kernel_size: side k of the kernels in pixels, odd.
      pixels_per_degree: pixels per degree of visual angle, > 0.
      allow_aliasing: accept frequencies of half a cycle per pixel and above, which the pixel
        grid cannot represent.

    Returns:
      Kernels at ``phase`` and at ``phase`` + 90 degrees.

    Raises:
      ValueError: if an argument is out of range, or a frequency is aliased.
    """
    check_kernel_size(kernel_size)
    arguments.number("pixels_per_degree", pixels_per_degree, arguments.POSITIVE)
    if not allow_aliasing:
        check_nyquist(float(parameters.sf.max()), pixels_per_degree)

    frequency = parameters.sf / pixels_per_degree
    kernels = gabor_functions(
        np,
        frequency,
        theta=np.deg2rad(parameters.theta),
        phase=np.deg2rad(parameters.phase),
        sigma_x=parameters.nx / frequency,
        sigma_y=parameters.ny / frequency,
        size=kernel_size,
    )
    return GaborKernels(*(phase.astype(np.float32) for phase in kernels))


def gabor_functions(
    numpy: Any, frequency: Any, theta: Any, phase: Any, sigma_x: Any, sigma_y: Any, size: int
) -> tuple[Any, Any]:
    """Return the functions of ``gabor_kernels`` at both phases, as arrays (n, size, size).

    Args:
      numpy: ``numpy``, or ``jax.numpy`` for a bank that is trained.
      frequency: of the carriers, in cycles per pixel, shape (n,) as all parameters.
      theta: directions of the carriers, in radians.
      phase: of the carriers, in radians.
      sigma_x: standard deviations along the carrier, in pixels.
      sigma_y: standard deviations across the carrier, in pixels.
      size: side of the kernels in pixels, odd.
    """
    # Python floats and [:, None, None] keep every operand three-dimensional.
    frequency, theta, phase, sigma_x, sigma_y = (
        values[:, None, None] for values in (frequency, theta, phase, sigma_x, sigma_y)
    )
    offset = numpy.arange(size, dtype=frequency.dtype) - size // 2
    x, y = offset[None, :, None], offset[None, None, :]
    x_r = x * numpy.cos(theta) + y * numpy.sin(theta)
    y_r = -x * numpy.sin(theta) + y * numpy.cos(theta)
    envelope = numpy.exp(-0.5 * ((x_r / sigma_x) ** 2 + (y_r / sigma_y) ** 2))
    envelope /= 2.0 * np.pi * sigma_x * sigma_y
    carrier = 2.0 * np.pi * frequency * x_r + phase
    return envelope * numpy.cos(carrier), envelope * numpy.cos(carrier + np.pi / 2)


@dataclasses.dataclass(frozen=True, eq=False)
class ImportedBank:
    """Given kernels of n quadrature pairs, such as a checkpoint's, and the parameters they have.

    A block applies the kernels. The parameters describe the filters for physiology and reports, and
    name the input channel of each filter. They need not give exactly these kernels.

    Attributes:
      in_phase: kernels, indexed as [filter, row, column], read-only. k is odd.
      quadrature: kernels of the quadrature partners.
      parameters: parameters of the n pairs; ``channel`` and ``channel_quadrature`` are exact.
      pixels_per_degree: the resolution at which the kernels have the spatial frequencies
        ``parameters.sf``, in pixels per degree of visual angle.

    Raises:
      ValueError: if shapes differ, or if a value is out of range or not finite.
    """

    in_phase: Float32[np.ndarray, "n k k"]
    quadrature: Float32[np.ndarray, "n k k"]
    parameters: GaborParameters
    pixels_per_degree: float

    def __post_init__(self):
        for name in ("in_phase", "quadrature"):
            array = np.array(getattr(self, name), np.float32)
            if array.ndim != 3 or array.shape != (len(self.parameters), *array.shape[-1:] * 2):
                raise ValueError(
                    f"{name} must have shape (n, k, k) with n = {len(self.parameters)} "
                    f"parameters, got {array.shape}"
                )
            check_kernel_size(array.shape[-1])
            if not np.all(np.isfinite(array)):
                raise ValueError(f"{name} must be finite, got NaN or infinite values")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.in_phase.shape != self.quadrature.shape:
            raise ValueError(
                f"in_phase and quadrature must have the same shape, got {self.in_phase.shape} and "
                f"{self.quadrature.shape}"
            )
        arguments.number("pixels_per_degree", self.pixels_per_degree, arguments.POSITIVE)

    def __len__(self) -> int:
        return len(self.parameters)

    @property
    def kernel_size(self) -> int:
        """The side k of the kernels in pixels."""
        return self.in_phase.shape[-1]

    @property
    def kernels(self) -> GaborKernels:
        """The kernels of both phases."""
        return GaborKernels(self.in_phase, self.quadrature)

    @functools.cached_property
    def digest(self) -> str:
        """The SHA-256 digest of the kernels, the parameters and the resolution, in hexadecimal."""
        # Computed once, because JAX hashes and compares a model at every trace.
        digest = hashlib.sha256(self.in_phase.tobytes())
        digest.update(self.quadrature.tobytes())
        digest.update(repr((self.parameters, self.pixels_per_degree)).encode())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImportedBank) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return (
            f"<ImportedBank: {len(self)} pairs of {self.kernel_size}x{self.kernel_size} kernels "
            f"at {self.pixels_per_degree:g} pixels per degree, sha256 {self.digest[:12]}>"
        )


def check_kernel_size(kernel_size: int) -> None:
    """Raise a ValueError unless ``kernel_size`` is an odd number of pixels >= 1."""
    arguments.count("kernel_size", kernel_size)
    if kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and >= 1, got {kernel_size}")


def check_nyquist(sf: float, pixels_per_degree: float) -> None:
    """Raise a ValueError if ``sf`` cycles per degree are half a cycle per pixel or more."""
    if sf / pixels_per_degree >= 0.5:
        raise ValueError(
            f"a spatial frequency of {sf:.3g} cycles per degree is {sf / pixels_per_degree:.3g} "
            f"cycles per pixel at {pixels_per_degree:.3g} pixels per degree, beyond the Nyquist "
            f"limit of 0.5; lower sf_max (below {pixels_per_degree / 2:.3g}), reduce the field of "
            "view, enlarge the image, or pass allow_aliasing=True"
        )
