"""Applies a Gabor bank to images at the cost it must have, no more.

Each filter reads one input channel, and only complex cells need the quadrature phase. A dense
convolution of both phases with all channels spends three quarters of its products on zeros and
on responses that nobody reads. Here each input channel is convolved, on its own, with just the
kernels that read it, and the responses are put back in order.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vone_jax.v1.gabor import GaborKernels


@dataclasses.dataclass(frozen=True, eq=False)
class FilterBank:
    """Kernels sorted by the input channel that they read.

    Attributes:
      kernels: per input channel that any filter reads, the channel and its float32 kernels of
        shape (k, k, 1, number of kernels).
      order: position, in the concatenated responses, of each response in canonical order:
        the in-phase responses of all n filters, then the quadrature responses of the complex
        cells.
      num_filters: the number n of quadrature pairs.
    """

    kernels: tuple[tuple[int, np.ndarray], ...]
    order: np.ndarray
    num_filters: int

    @classmethod
    def build(
        cls,
        kernels: GaborKernels,
        channel: np.ndarray,
        channel_quadrature: np.ndarray,
        num_simple: int,
    ) -> "FilterBank":
        """Sorts the kernels that are needed.

        Args:
          kernels: both phases, float32 (n, k, k).
          channel: input channel of each in-phase kernel, (n,).
          channel_quadrature: input channel of each quadrature kernel, (n,).
          num_simple: the first ``num_simple`` filters are simple cells, whose quadrature phase
            is not computed.
        """
        needed = np.concatenate([kernels.in_phase, kernels.quadrature[num_simple:]])
        reads = np.concatenate([channel, channel_quadrature[num_simple:]])
        groups = tuple(
            (int(c), np.ascontiguousarray(needed[reads == c].transpose(1, 2, 0)[:, :, None]))
            for c in np.unique(reads)
        )
        order = np.argsort(np.argsort(reads, kind="stable"))
        return cls(groups, order, len(channel))

    def __call__(self, images: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
        """Linear responses: cross-correlation with symmetric zero padding of k // 2.

        Args:
          images: float32 (N, H, W, C).
          stride: in pixels.

        Returns:
          The in-phase responses (N, ceil(H/stride), ceil(W/stride), n) and the quadrature
          responses of the complex cells (N, ceil(H/stride), ceil(W/stride), n - num_simple).
        """
        responses = jnp.concatenate(
            [
                _correlate(images[..., channel : channel + 1], kernels, stride)
                for channel, kernels in self.kernels
            ],
            axis=-1,
        )
        if len(self.kernels) > 1:
            responses = jnp.take(responses, self.order, axis=-1, unique_indices=True)
        return responses[..., : self.num_filters], responses[..., self.num_filters :]


def _correlate(images: jax.Array, kernels: np.ndarray, stride: int) -> jax.Array:
    # 'SAME' would pad (10, 11) for a 25-pixel kernel at stride 4; the original pads (12, 12).
    padding = kernels.shape[0] // 2
    return lax.conv_general_dilated(
        images,
        jnp.asarray(kernels),
        window_strides=(stride, stride),
        padding=[(padding, padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
