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

Images = Float32[Array | np.ndarray, "n h w c"]
# Neighbouring responses of one entry of ``FilterBank.kernels``.
_Place = tuple[int, slice]


@dataclasses.dataclass(frozen=True, eq=False)
class FilterBank:
    """Kernels sorted by the input channel that they read.

    Attributes:
      kernels: one entry for each input channel that a filter reads: the channel, and float32
        kernels of shape (k, k, 1, number of kernels).
      simple: places of the responses of simple cells.
      complex_: places of both phases of complex cells, in the same order.
      order: position of each cell in the concatenation of ``simple`` and ``complex_``.
    """

    kernels: tuple[tuple[int, np.ndarray], ...]
    simple: tuple[_Place, ...]
    complex_: tuple[tuple[_Place, _Place], ...]
    order: np.ndarray

    @classmethod
    def build(
        cls,
        kernels: GaborKernels,
        channel: Int[np.ndarray, " n"],
        channel_quadrature: Int[np.ndarray, " n"],
        num_simple: int,
    ) -> "FilterBank":
        """Sort the kernels that the cells need, by the input channels of both phases.

        The first ``num_simple`` filters are simple cells, whose quadrature phase is not computed.
        """
        # Each array has the cells of one kind that read the same channel or pair of channels.
        is_simple = np.arange(len(channel)) < num_simple
        pairs = np.stack([channel, channel_quadrature], axis=-1)
        simple = {
            c: np.flatnonzero(is_simple & (channel == c))
            for c in np.unique(channel[is_simple]).tolist()
        }
        complex_ = {
            (a, b): np.flatnonzero(~is_simple & np.all(pairs == (a, b), axis=-1))
            for a, b in np.unique(pairs[~is_simple], axis=0).tolist()
        }
        channels = np.unique([*simple, *np.ravel([*complex_])]).astype(int).tolist()
        blocks: list[list[np.ndarray]] = [[] for _ in channels]

        def place(channel: int, phase: np.ndarray) -> _Place:
            entry = channels.index(channel)
            start = sum(map(len, blocks[entry]))
            blocks[entry].append(phase)
            return entry, slice(start, start + len(phase))

        simple_places = tuple(place(c, kernels.in_phase[cells]) for c, cells in simple.items())
        complex_places = tuple(
            (place(a, kernels.in_phase[cells]), place(b, kernels.quadrature[cells]))
            for (a, b), cells in complex_.items()
        )
        return cls(
            kernels=tuple(
                (c, np.ascontiguousarray(np.concatenate(block).transpose(1, 2, 0)[:, :, None]))
                for c, block in zip(channels, blocks, strict=True)
            ),
            simple=simple_places,
            complex_=complex_places,
            order=np.argsort(np.concatenate([*simple.values(), *complex_.values()])),
        )

    def linear(self, images: Images, stride: int) -> list[Float32[Array, "n _ _ _"]]:
        """Cross-correlate each channel of normalised images with its kernels.

        The zero padding is k // 2. The result for each entry of ``kernels`` has the shape
        (n, ceil(h/stride), ceil(w/stride), number of kernels).
        """
        images = jnp.asarray(images)
        return [
            fast.correlate(images[..., channel : channel + 1], kernels, stride)
            for channel, kernels in self.kernels
        ]

    def __call__(
        self,
        images: Images,
        stride: int,
        simple_cell: Callable[[jax.Array], jax.Array],
        complex_cell: Callable[[jax.Array, jax.Array], jax.Array],
        all_cells: Callable[[jax.Array, np.ndarray], jax.Array] | None = None,
    ) -> Float32[Array, "n _ _ cells"]:
        """Return the responses of all cells to normalised images, in the order of the bank.

        Args:
          images: normalised images.
          stride: in pixels.
          simple_cell: elementwise function of the in-phase response.
          complex_cell: elementwise function of the in-phase and the quadrature response.
          all_cells: function of the responses of all simple, then all complex cells, and of the
            number in the bank of each of them. It is applied before the cells are put in order,
            which leaves them in a layout that is slow to read again on a CPU.
        """
        linear = self.linear(images, stride)

        def read(place: _Place) -> jax.Array:
            return linear[place[0]][..., place[1]]

        cells = [simple_cell(read(q0)) for q0 in self.simple]
        cells += [complex_cell(read(q0), read(q1)) for q0, q1 in self.complex_]
        responses = jnp.concatenate(cells, axis=-1)
        if all_cells is not None:
            responses = all_cells(responses, np.argsort(self.order))
        return fast.permute(responses, self.order)
