"""A bank whose exact kernels are given, such as the bank of a checkpoint."""

import dataclasses
import functools
import hashlib

import numpy as np
from jaxtyping import Float32

from vone_jax import arguments
from vone_jax.v1.gabor import GaborKernels, GaborParameters, check_kernel_size


@dataclasses.dataclass(frozen=True, eq=False)
class ImportedBank:
    """The kernels of n quadrature pairs, with the Gabor parameters that describe them.

    A block applies the kernels. The parameters describe the filters for physiology and reports, and
    name the input channel of each filter. They need not give the kernels bit by bit.

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
            kernels = np.asarray(getattr(self, name))
            k = kernels.shape[-1] if kernels.ndim == 3 else 0
            if kernels.ndim != 3 or kernels.shape != (len(self.parameters), k, k):
                raise ValueError(
                    f"{name} must have shape (n, k, k) with n = {len(self.parameters)} "
                    f"parameters, got {kernels.shape}"
                )
            check_kernel_size(k)
            array = np.array(kernels, np.float32)
            if not np.all(np.isfinite(array)):
                raise ValueError(f"{name} must be finite")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.in_phase.shape != self.quadrature.shape:
            raise ValueError(
                "in_phase and quadrature must have the same shape, got "
                f"{self.in_phase.shape} and "
                f"{self.quadrature.shape}"
            )
        arguments.number("pixels_per_degree", self.pixels_per_degree, positive=True)

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
    def _digest(self) -> str:
        # Computed once, because JAX hashes and compares a model at every trace.
        digest = hashlib.sha256(self.in_phase.tobytes())
        digest.update(self.quadrature.tobytes())
        digest.update(repr((self.parameters, self.pixels_per_degree)).encode())
        return digest.hexdigest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ImportedBank) and self._digest == other._digest

    def __hash__(self) -> int:
        return hash(self._digest)

    def __repr__(self) -> str:
        return (
            f"<ImportedBank: {len(self)} pairs of {self.kernel_size}x{self.kernel_size} kernels "
            f"at {self.pixels_per_degree:g} pixels per degree, sha256 {self._digest[:12]}>"
        )
