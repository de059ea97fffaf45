"""A Gabor bank whose parameters are trained with the network.

Parameters are learned in a form in which every value is allowed. So no step of training leaves the
range of a Gabor function, and no frequency passes the Nyquist limit of the pixel grid. No envelope
becomes narrower than half a pixel, or than half of its start size if that is less. Without this
bound, training makes the envelopes of some filters much narrower than a pixel. The amplitude of
such filters reached 325; that of others is below 1.
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
# The least standard deviation of an envelope in pixels. An envelope that starts below twice this
# size keeps at least half of its size.
_LEAST_SIZE = 0.5


class LearnableGabor(nn.Module):
    """The kernels of a bank as functions of learned parameters.

    The learned parameters are the logit of the spatial frequency relative to the Nyquist limit, the
    direction and the phase of the carrier in radians, and the logarithms of the excess of ``nx``
    and ``ny`` over their least values. Input channels are fixed.

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
        sf, theta, phase, nx, ny = self._bounded(
            {
                name: self.param(name, lambda _, value=value: jnp.asarray(value, jnp.float32))
                for name, value in self._unbounded().items()
            }
        )
        frequency = sf / self.pixels_per_degree
        return gabor_functions(
            jnp, frequency, theta, phase, nx / frequency, ny / frequency, self.kernel_size
        )

    def learned(self, params: Mapping[str, Array]) -> GaborParameters:
        """Return the bank that learned parameters describe, such as ``params["block"]["gabor"]``.

        Directions are brought to 0 to 180 degrees, with the phase that keeps the filter, and phases
        to 0 to 360 degrees.
        """
        sf, theta, phase, nx, ny = (
            np.asarray(values, np.float64) for values in self._bounded(params)
        )
        theta = np.rad2deg(theta)
        # A carrier turned by 180 degrees equals the original with the phase negated.
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

    def _unbounded(self) -> dict[str, np.ndarray]:
        bank = self.start
        share = bank.sf / (self.pixels_per_degree / 2.0)
        frequency = bank.sf / self.pixels_per_degree
        return {
            "logit_sf": np.log(share / (1.0 - share)),
            "theta": np.deg2rad(bank.theta),
            "phase": np.deg2rad(bank.phase),
            "log_excess_nx": np.log(bank.nx - self._least(bank.nx) * frequency),
            "log_excess_ny": np.log(bank.ny - self._least(bank.ny) * frequency),
        }

    def _bounded(self, params: Mapping[str, Array]) -> tuple[Array, ...]:
        """Return frequencies in cycles per degree, angles in radians, nx and ny."""
        # In float32, the sigmoid of 17 is 1.
        share = jnp.minimum(jax.nn.sigmoid(params["logit_sf"]), _LARGEST_SHARE)
        sf = share * (self.pixels_per_degree / 2.0)
        frequency = sf / self.pixels_per_degree
        nx = jnp.exp(params["log_excess_nx"]) + self._least(self.start.nx) * frequency
        ny = jnp.exp(params["log_excess_ny"]) + self._least(self.start.ny) * frequency
        return sf, params["theta"], params["phase"], nx, ny

    def _least(self, cycles: np.ndarray) -> np.ndarray:
        """The least standard deviations in pixels, for envelopes of ``cycles`` periods."""
        start = cycles * self.pixels_per_degree / self.start.sf
        return np.minimum(_LEAST_SIZE, start / 2.0).astype(np.float32)
