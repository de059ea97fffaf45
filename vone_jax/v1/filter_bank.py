"""Applies a Gabor bank and its cells to images, with no more work than the model needs.

Each filter reads one input channel, and only complex cells need the quadrature phase. A dense
convolution of both phases with all channels would spend three quarters of its products on zeros and
on responses that nothing reads. Here each input channel is correlated on its own with the kernels
that read it. Filters that read the same channels are neighbours, so cells are computed on slices.
Only the responses of cells are then put in order, by one permutation of n channels; to order both
phases instead would cost a third as much as the convolutions.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int

from vone_jax import fast
from vone_jax.v1.gabor import GaborKernels


@dataclasses.dataclass(frozen=True)
class _Slice:
    """Neighbouring responses of one entry of ``FilterBank.kernels``."""

    entry: int
    start: int
    stop: int

    def read(self, responses: list[jax.Array]) -> jax.Array:
        return responses[self.entry][..., self.start : self.stop]


@dataclasses.dataclass(frozen=True, eq=False)
class FilterBank:
    """Kernels sorted by the input channel that they read.

    Attributes:
      kernels: one entry for each input channel that a filter reads: the channel, and float32
        kernels of shape (k, k, 1, number of kernels).
      simple: slices with the responses of simple cells.
      complex_: pairs of slices with both phases of complex cells, in the same order.
      order: position of each cell in the concatenation of ``simple`` and ``complex_``.
    """

    kernels: tuple[tuple[int, np.ndarray], ...]
    simple: tuple[_Slice, ...]
    complex_: tuple[tuple[_Slice, _Slice], ...]
    order: np.ndarray

    @classmethod
    def build(
        cls,
        kernels: GaborKernels,
        channel: Int[np.ndarray, " n"],
        channel_quadrature: Int[np.ndarray, " n"],
        num_simple: int,
    ) -> "FilterBank":
        """Sort the kernels that the cells need.

        Args:
          kernels: both phases of n filters.
          channel: input channel of each in-phase kernel.
          channel_quadrature: input channel of each quadrature kernel.
          num_simple: the first ``num_simple`` filters are simple cells, whose quadrature phase
            is not computed.
        """
        # Each array has the cells of one kind that read the same channel or pair of channels.
        number = np.arange(len(channel))
        simple = {
            int(c): number[:num_simple][channel[:num_simple] == c]
            for c in np.unique(channel[:num_simple])
        }
        pairs = np.stack([channel, channel_quadrature], axis=-1)[num_simple:]
        complex_ = {
            (int(a), int(b)): number[num_simple:][np.all(pairs == (a, b), axis=-1)]
            for a, b in np.unique(pairs, axis=0)
        }
        blocks: dict[int, list[np.ndarray]] = {}

        def place(channel: int, phase: np.ndarray) -> tuple[int, int, int]:
            start = sum(map(len, blocks.setdefault(channel, [])))
            blocks[channel].append(phase)
            return channel, start, start + len(phase)

        simple_places = [place(c, kernels.in_phase[cells]) for c, cells in simple.items()]
        complex_places = [
            (place(a, kernels.in_phase[cells]), place(b, kernels.quadrature[cells]))
            for (a, b), cells in complex_.items()
        ]
        channels = sorted(blocks)

        def located(place: tuple[int, int, int]) -> _Slice:
            return _Slice(channels.index(place[0]), *place[1:])

        return cls(
            kernels=tuple(
                (c, np.ascontiguousarray(np.concatenate(blocks[c]).transpose(1, 2, 0)[:, :, None]))
                for c in channels
            ),
            simple=tuple(map(located, simple_places)),
            complex_=tuple((located(q0), located(q1)) for q0, q1 in complex_places),
            order=np.argsort(np.concatenate([*simple.values(), *complex_.values()])),
        )

    def linear(
        self, images: Float32[Array | np.ndarray, "n h w c"], stride: int
    ) -> list[Float32[Array, "n _ _ _"]]:
        """Cross-correlate each input channel with its kernels, with zero padding k // 2.

        Args:
          images: normalised images.
          stride: in pixels.

        Returns:
          For each entry of ``kernels``, (n, ceil(h/stride), ceil(w/stride), number of kernels).
        """
        images = jnp.asarray(images)
        return [
            fast.correlate(images[..., channel : channel + 1], kernels, stride)
            for channel, kernels in self.kernels
        ]

    def __call__(
        self,
        images: Float32[Array | np.ndarray, "n h w c"],
        stride: int,
        simple_cell: Callable[[jax.Array], jax.Array],
        complex_cell: Callable[[jax.Array, jax.Array], jax.Array],
    ) -> Float32[Array, "n _ _ cells"]:
        """Return the responses of all cells.

        Args:
          images: normalised images.
          stride: in pixels.
          simple_cell: elementwise function of the in-phase response.
          complex_cell: elementwise function of the in-phase and the quadrature response.

        Returns:
          (n, ceil(h/stride), ceil(w/stride), cells), in the order of the bank.
        """
        linear = self.linear(images, stride)
        cells = [simple_cell(q0.read(linear)) for q0 in self.simple]
        cells += [complex_cell(q0.read(linear), q1.read(linear)) for q0, q1 in self.complex_]
        return fast.permute(jnp.concatenate(cells, axis=-1), self.order)
