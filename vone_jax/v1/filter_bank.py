"""Applies a Gabor bank and its cells to images at the cost it must have, no more.

Each filter reads one input channel, and only complex cells need the quadrature phase. A dense
convolution of both phases with all channels spends three quarters of its products on zeros and
on responses that nobody reads. Here each input channel is convolved, on its own, with just the
kernels that read it; by a CPU in the frequency domain, if they are large. Filters that read the
same channels lie side by side, so that cells are computed on slices, and only their responses are
put in order: one permutation of n channels, where that of both phases costs as much as a third of
the convolutions.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import fast
from vone_jax.v1.gabor import GaborKernels


@dataclasses.dataclass(frozen=True)
class _Slice:
    """Some responses of one convolution, by its place in ``FilterBank.kernels``."""

    convolution: int
    start: int
    stop: int

    def of(self, responses: list[jax.Array]) -> jax.Array:
        return responses[self.convolution][..., self.start : self.stop]


@dataclasses.dataclass(frozen=True, eq=False)
class FilterBank:
    """Kernels sorted by the input channel that they read.

    Attributes:
      kernels: per input channel that any filter reads, the channel and its float32 kernels of
        shape (k, k, 1, number of kernels).
      simple: where the responses of simple cells are.
      complex_: where both phases of complex cells are, pair by pair in the same order.
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
        # A population is all cells of a kind that read the same channel or pair of channels.
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

    def linear(self, images: jax.Array, stride: int) -> list[jax.Array]:
        """Linear responses that cells need, by input channel, in the order of ``kernels``.

        They are cross-correlations with symmetric zero padding of k // 2.

        Args:
          images: float32 (N, H, W, C).
          stride: in pixels.

        Returns:
          per entry of ``kernels``, (N, ceil(H/stride), ceil(W/stride), number of kernels).
        """
        return [
            fast.correlate(images[..., channel : channel + 1], kernels, stride)
            for channel, kernels in self.kernels
        ]

    def __call__(
        self,
        images: jax.Array,
        stride: int,
        simple_cell: Callable[[jax.Array], jax.Array],
        complex_cell: Callable[[jax.Array, jax.Array], jax.Array],
    ) -> jax.Array:
        """Responses of the cells.

        Args:
          images: float32 (N, H, W, C).
          stride: in pixels.
          simple_cell: elementwise, from the in-phase response.
          complex_cell: elementwise, from the in-phase and the quadrature response.

        Returns:
          (N, ceil(H/stride), ceil(W/stride), n), the cells in the order of the bank.
        """
        linear = self.linear(images, stride)
        cells = [simple_cell(q0.of(linear)) for q0 in self.simple]
        cells += [complex_cell(q0.of(linear), q1.of(linear)) for q0, q1 in self.complex_]
        return fast.permute(jnp.concatenate(cells, axis=-1), self.order)
