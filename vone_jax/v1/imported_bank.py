"""A bank whose kernels came from elsewhere and are kept exactly, as those of a checkpoint."""

import dataclasses
import functools
import hashlib
import math

import numpy as np

from vone_jax.v1.gabor import GaborKernels, GaborParameters, check_kernel_size


@dataclasses.dataclass(frozen=True, eq=False)
class ImportedBank:
    """Kernels of n quadrature pairs, with the Gabor parameters that describe them.

    The kernels are what a block applies. The parameters say what the filters are (for physiology
    and reports) and which input channel each of them reads; they need not give the kernels bit
    for bit.

    Attributes:
      in_phase: float32 (n, k, k), [row, column], read-only. k is odd.
      quadrature: the same for the quadrature partners.
      parameters: of the n pairs; ``channel`` and ``channel_quadrature`` are exact.
      pixels_per_degree: at which the kernels have the spatial frequencies ``parameters.sf``.

    Raises:
      ValueError: if shapes differ or a value is out of range or not finite.
    """

    in_phase: np.ndarray
    quadrature: np.ndarray
    parameters: GaborParameters
    pixels_per_degree: float

    def __post_init__(self):
        for name in ("in_phase", "quadrature"):
            given = np.asarray(getattr(self, name))
            k = given.shape[-1] if given.ndim == 3 else 0
            if given.ndim != 3 or given.shape != (len(self.parameters), k, k):
                raise ValueError(
                    f"{name} must have shape (n, k, k) with n = {len(self.parameters)} "
                    f"parameters, got {given.shape}"
                )
            check_kernel_size(k)
            array = np.array(given, np.float32)
            if not np.all(np.isfinite(array)):
                raise ValueError(f"{name} must be finite")
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        if self.in_phase.shape != self.quadrature.shape:
            raise ValueError(
                f"in_phase and quadrature must have one shape, got {self.in_phase.shape} and "
                f"{self.quadrature.shape}"
            )
        if not (math.isfinite(self.pixels_per_degree) and self.pixels_per_degree > 0):
            raise ValueError(f"pixels_per_degree must be > 0, got {self.pixels_per_degree}")

    def __len__(self) -> int:
        return len(self.parameters)

    @property
    def kernel_size(self) -> int:
        """Side of the kernels in pixels."""
        return self.in_phase.shape[-1]

    @property
    def kernels(self) -> GaborKernels:
        """Both phases."""
        return GaborKernels(self.in_phase, self.quadrature)

    @functools.cached_property
    def _digest(self) -> str:
        # Once: a model that holds the bank is hashed and compared whenever it is traced.
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
