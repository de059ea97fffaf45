"""A Gabor bank whose parameters are trained with the network.

Parameters are learned in a form in which every value is allowed. So no step of training leaves the
range of a Gabor function, and no frequency passes the Nyquist limit of the pixel grid.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from vone_jax.v1.gabor import GaborParameters, gabor_functions

# The highest spatial frequency relative to the Nyquist limit.
_LARGEST_SHARE = 1.0 - 2.0**-16


class LearnableGabor(nn.Module):
    """The kernels of a bank as functions of learned parameters.

    Learned are the logit of the spatial frequency relative to the Nyquist limit, the orientation
    and the phase in radians, and the logarithms of ``nx`` and ``ny``. Input channels are fixed.

    Attributes:
      start: the bank before training. All frequencies are below the Nyquist limit.
      kernel_size: side k of the kernels in pixels, odd.
      pixels_per_degree: pixels per degree of visual angle.
    """

    start: GaborParameters
    kernel_size: int
    pixels_per_degree: float

    @nn.compact
    def __call__(self) -> tuple[Array, Array]:
        """Return the kernels of both phases, float32 (n, k, k)."""
        sf, theta, phase, nx, ny = _bounded(
            {
                name: self.param(name, lambda _, value=value: jnp.asarray(value, jnp.float32))
                for name, value in _unbounded(self.start, self.pixels_per_degree).items()
            },
            self.pixels_per_degree,
        )
        frequency = sf / self.pixels_per_degree
        return gabor_functions(
            jnp, frequency, theta, phase, nx / frequency, ny / frequency, self.kernel_size
        )

    def learned(self, params: Mapping[str, Array]) -> GaborParameters:
        """Return the bank that learned parameters describe, such as ``params["block"]["gabor"]``.

        Orientations are brought to 0 to 180 degrees, with the phase that keeps the filter, and
        phases to 0 to 360.
        """
        sf, theta, phase, nx, ny = (
            np.asarray(values, np.float64) for values in _bounded(params, self.pixels_per_degree)
        )
        theta = np.rad2deg(theta)
        # Half a turn of the carrier is a change of its sign.
        turned = np.floor(theta / 180.0) % 2 == 1
        phase = np.where(turned, -np.rad2deg(phase), np.rad2deg(phase)) % 360.0
        return GaborParameters(
            sf=sf,
            theta=theta % 180.0,
            phase=phase,
            nx=nx,
            ny=ny,
            channel=self.start.channel,
            channel_quadrature=self.start.channel_quadrature,
        )


def _unbounded(bank: GaborParameters, pixels_per_degree: float) -> dict[str, np.ndarray]:
    share = bank.sf / (pixels_per_degree / 2.0)
    return {
        "logit_sf": np.log(share / (1.0 - share)),
        "theta": np.deg2rad(bank.theta),
        "phase": np.deg2rad(bank.phase),
        "log_nx": np.log(bank.nx),
        "log_ny": np.log(bank.ny),
    }


def _bounded(params: Mapping[str, Array], pixels_per_degree: float) -> tuple[Array, ...]:
    """Return frequencies in cycles per degree, angles in radians, nx and ny."""
    # In float32, the sigmoid of 17 is 1.
    share = jnp.minimum(jax.nn.sigmoid(params["logit_sf"]), _LARGEST_SHARE)
    sf = share * (pixels_per_degree / 2.0)
    sizes = (jnp.exp(params[name]) for name in ("log_nx", "log_ny"))
    return sf, params["theta"], params["phase"], *sizes
