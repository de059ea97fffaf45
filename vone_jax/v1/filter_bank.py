"""Applies a Gabor bank and its cells to images, in the form that is fast on each platform.

Each filter reads one input channel, and only complex cells need the quadrature phase.

A CPU is fast if it multiplies no zeros (``by_channel``). Each input channel is correlated on its
own with the kernels that read it. Filters that read the same channels are neighbours, so cells are
computed on slices. Then one permutation puts the cells in the order of the bank.

TPUs and GPUs multiply matrices of a hundred channels at once, and move data slowly in comparison
(``together``). Blocks of pixels become channels, and one convolution has all kernels of a phase in
the order of the cells, with zeros for the channels that a kernel does not read. Nothing is permuted
or cut. The compiler for a TPU v5e estimates 30 % of the cycles of ``by_channel`` for the published
block, although it has three times as many multiplications (docs/accelerators.md).
"""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int

from vone_jax import fast
from vone_jax.v1.gabor import GaborKernels

Images = Float32[Array, "n h w c"]


class Cells(NamedTuple):
    """Responses of the cells of a block, in the order of the bank: (n, h, w, cells) each."""

    simple: jax.Array
    complex: jax.Array


class CellModel(NamedTuple):
    """The functions that make the responses of cells from the linear responses of filters.

    Attributes:
      simple: elementwise function of the in-phase response.
      complex: elementwise function of the in-phase and the quadrature response.
      normalise: function of the responses of all cells and of the index of each cell in the bank;
        None changes nothing.
    """

    simple: Callable[[jax.Array], jax.Array]
    complex: Callable[[jax.Array, jax.Array], jax.Array]
    normalise: Callable[[Cells, np.ndarray], Cells] | None = None


class _Sorted(NamedTuple):
    """A bank sorted by the input channels that the cells read, simple cells first."""

    # Input channel -> the kernels of the cells that read it, (k, k, 1, number of kernels).
    kernels: dict[int, np.ndarray]
    # For each group of cells with the same input channels: channel and kernels of each phase.
    places: list[list[tuple[int, slice]]]
    # The index of each cell in the bank.
    numbers: np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class FilterBank:
    """Kernels and the input channels that they read.

    Attributes:
      kernels: of both phases of all filters.
      channel: the input channel that the in-phase kernel of each filter reads.
      channel_quadrature: the same for the quadrature kernel.
      num_simple: the first filters are simple cells, whose quadrature phase is not computed.
    """

    kernels: GaborKernels
    channel: Int[np.ndarray, " n"]
    channel_quadrature: Int[np.ndarray, " n"]
    num_simple: int

    def __call__(self, images: Images, stride: int, cells: CellModel) -> Cells:
        """Return the responses of all cells to normalised images, in the order of the bank.

        The zero padding is k // 2, so responses have ceil(h/stride) rows and ceil(w/stride)
        columns.
        """
        by_channel = functools.partial(self.by_channel, stride=stride, cells=cells)
        if not fast.enabled():
            return by_channel(images)
        together = functools.partial(self.together, stride=stride, cells=cells)
        return fast.by_platform(images, cpu=by_channel, default=together)

    @functools.cached_property
    def sorted_bank(self) -> _Sorted:
        """The form of the bank for CPUs."""
        is_simple = np.arange(len(self.channel)) < self.num_simple
        # Rows sort simple cells before complex ones, whose quadrature phase is read.
        quadrature = np.where(is_simple, -1, self.channel_quadrature)
        reads = np.stack([~is_simple, self.channel, quadrature], axis=-1)
        blocks: dict[int, list[np.ndarray]] = collections.defaultdict(list)
        places, numbers = [], []
        for group in np.unique(reads, axis=0):
            members = np.flatnonzero(np.all(reads == group, axis=-1))
            places.append([])
            for channel, kernels in zip(group[1:].tolist(), self.kernels, strict=True):
                if channel >= 0:
                    start = sum(map(len, blocks[channel]))
                    blocks[channel].append(kernels[members])
                    places[-1].append((channel, slice(start, start + len(members))))
            numbers.append(members)
        kernels = {
            channel: np.ascontiguousarray(np.concatenate(block).transpose(1, 2, 0)[:, :, None])
            for channel, block in sorted(blocks.items())
        }
        return _Sorted(kernels, places, np.concatenate(numbers))

    def linear(self, images: Images, stride: int) -> dict[int, Float32[Array, "n _ _ _"]]:
        """Cross-correlate each channel of normalised images with the kernels that read it."""
        return {
            channel: fast.correlate(images[..., channel : channel + 1], kernels, stride)
            for channel, kernels in self.sorted_bank.kernels.items()
        }

    def by_channel(self, images: jax.Array, stride: int, cells: CellModel) -> Cells:
        """Return what ``__call__`` returns, by one correlation for each input channel.

        Only the responses of cells are put in the order of the bank. To order both phases instead
        would cost a third as much as the convolutions. Normalisation comes before, because ordered
        responses have a layout that is slow to read.
        """
        linear = self.linear(images, stride)
        some = next(iter(linear.values()))
        nothing = jnp.zeros((*some.shape[:3], 0), some.dtype)
        simple, complex_ = [nothing], [nothing]
        for places in self.sorted_bank.places:
            phases = [linear[channel][..., part] for channel, part in places]
            if len(phases) == 1:
                simple.append(cells.simple(*phases))
            else:
                complex_.append(cells.complex(*phases))
        # Two arrays, because XLA repeats the gather of a part of one array wherever it is used.
        responses = Cells(*(jnp.concatenate(parts, axis=-1) for parts in (simple, complex_)))
        numbers = self.sorted_bank.numbers
        if cells.normalise is not None:
            responses = cells.normalise(responses, numbers)
        order = np.split(np.argsort(numbers), [self.num_simple])
        return Cells(*map(fast.permute, responses, (order[0], order[1] - self.num_simple)))

    def together(self, images: jax.Array, stride: int, cells: CellModel) -> Cells:
        """Return what ``__call__`` returns, by one correlation for each kind of cell and phase."""
        (in_phase, quadrature), simple = self.kernels, self.num_simple

        def dense(kernels: np.ndarray, channel: np.ndarray) -> jax.Array:
            # Kernels with the zeros of the other channels are several times as large, so the
            # program stores them without: the barrier keeps XLA from computing them while it
            # compiles.
            stored = lax.optimization_barrier(jnp.asarray(kernels.transpose(1, 2, 0)))
            return _dense(stored, channel, images.shape[3])

        kernels = [
            dense(in_phase[:simple], self.channel[:simple]),
            dense(in_phase[simple:], self.channel[simple:]),
            dense(quadrature[simple:], self.channel_quadrature[simple:]),
        ]
        q0_simple, q0, q1 = fast.correlate_blocks(images, kernels, stride)
        responses = Cells(cells.simple(q0_simple), cells.complex(q0, q1))
        if cells.normalise is None:
            return responses
        return cells.normalise(responses, np.arange(len(self.channel)))

    def with_kernels(
        self, kernels: tuple[Array, Array], images: Images, stride: int, cells: CellModel
    ) -> Cells:
        """Return what ``__call__`` returns, but with kernels that are trained and may be traced.

        The kernels get zeros for the channels that they do not read, and they have gradients. The
        cells must not have ``normalise``, see ``VOneBlockConfig.tuned``.
        """
        (in_phase, quadrature), simple = kernels, self.num_simple
        reach = in_phase.shape[-1] // 2

        def correlated(kernels: jax.Array, channel: np.ndarray) -> jax.Array:
            dense = _dense(kernels.transpose(1, 2, 0), channel, images.shape[3])
            return fast.convolve(images, dense, (stride, stride), [(reach, reach)] * 2)

        q0 = correlated(in_phase, self.channel)
        q1 = correlated(quadrature[simple:], self.channel_quadrature[simple:])
        return Cells(cells.simple(q0[..., :simple]), cells.complex(q0[..., simple:], q1))


def _dense(kernels: jax.Array, channel: np.ndarray, channels: int) -> jax.Array:
    """Kernels (k, k, filters) with zeros for the channels that each filter does not read."""
    reads = np.arange(channels)[:, None] == channel
    return jnp.where(reads, kernels[:, :, None], 0.0)
