"""Applies a Gabor bank and its cells to images, in the form that each platform is fast at.

Each filter reads one input channel, and only complex cells need the quadrature phase.

A CPU is fast if it multiplies nothing in vain (``ByChannel``). Each input channel is correlated on
its own with the kernels that read it. Filters that read the same channels are neighbours, so cells
are computed on slices. Then one permutation puts the cells in the order of the bank.

TPUs and GPUs multiply matrices of a hundred channels at once, and move data slowly in comparison
(``together``). The pixels of a stride become channels, and one convolution has all kernels of a
phase in the order of the cells, with zeros for the channels that a kernel does not read. Nothing is
permuted or cut. By the compiler for a TPU v5e the published block takes 30 % of the cycles of
``ByChannel``, although it multiplies three times as often (docs/accelerators.md).
"""

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

Images = Float32[Array | np.ndarray, "n h w c"]
# Neighbouring responses of one entry of ``ByChannel.kernels``.
_Place = tuple[int, slice]


class Cells(NamedTuple):
    """Responses of the cells of a block, in the order of the bank: (n, h, w, cells) each."""

    simple: jax.Array
    complex: jax.Array


class CellModel(NamedTuple):
    """The functions that make the responses of cells from the linear responses of filters.

    Attributes:
      simple: elementwise function of the in-phase response.
      complex: elementwise function of the in-phase and the quadrature response.
      normalise: function of the responses of all cells and of the number in the bank of each of
        them; None changes nothing.
    """

    simple: Callable[[jax.Array], jax.Array]
    complex: Callable[[jax.Array, jax.Array], jax.Array]
    normalise: Callable[[Cells, np.ndarray], Cells] | None = None


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

        Args:
          images: normalised images.
          stride: in pixels.
          cells: what cells make of the responses of filters.
        """
        images = jnp.asarray(images)

        def by_channel(images: jax.Array) -> Cells:
            return self.by_channel(images, stride, cells)

        if not fast.enabled():
            return by_channel(images)
        return fast.by_platform(
            images, cpu=by_channel, default=lambda images: together(self, images, stride, cells)
        )

    @functools.cached_property
    def by_channel(self) -> "ByChannel":
        """The form for CPUs."""
        return ByChannel.build(self)


def together(bank: FilterBank, images: Images, stride: int, cells: CellModel) -> Cells:
    """Return what ``bank`` returns, by one correlation for each kind of cell and phase."""
    (in_phase, quadrature), simple = bank.kernels, bank.num_simple

    def dense(kernels: np.ndarray, channel: np.ndarray) -> jax.Array:
        # Kernels with the zeros of the other channels are several times as large, so the program
        # stores them without: the barrier keeps XLA from computing them while it compiles.
        stored = lax.optimization_barrier(jnp.asarray(kernels.transpose(1, 2, 0)))
        reads = np.arange(images.shape[3])[:, None] == channel
        return jnp.where(reads, stored[:, :, None], 0.0)

    kernels = [
        dense(in_phase[:simple], bank.channel[:simple]),
        dense(in_phase[simple:], bank.channel[simple:]),
        dense(quadrature[simple:], bank.channel_quadrature[simple:]),
    ]
    q0_simple, q0, q1 = fast.correlate_blocks(jnp.asarray(images), kernels, stride)
    responses = Cells(cells.simple(q0_simple), cells.complex(q0, q1))
    if cells.normalise is None:
        return responses
    return cells.normalise(responses, np.arange(len(bank.channel)))


def with_kernels(
    bank: FilterBank, kernels: tuple[Array, Array], images: Images, stride: int, cells: CellModel
) -> Cells:
    """Return what ``bank`` returns with kernels that are trained, which may be traced.

    Kernels have the zeros of the channels that they do not read, and gradients of their own.
    """
    (in_phase, quadrature), simple = kernels, bank.num_simple
    reach = in_phase.shape[-1] // 2

    def correlated(kernels: jax.Array, channel: np.ndarray) -> jax.Array:
        reads = np.arange(images.shape[3])[:, None] == channel
        dense = jnp.where(reads, kernels.transpose(1, 2, 0)[:, :, None], 0.0)
        return fast.convolve(jnp.asarray(images), dense, (stride, stride), [(reach, reach)] * 2)

    q0 = correlated(in_phase, bank.channel)
    q1 = correlated(quadrature[simple:], bank.channel_quadrature[simple:])
    return Cells(cells.simple(q0[..., :simple]), cells.complex(q0[..., simple:], q1))


@dataclasses.dataclass(frozen=True, eq=False)
class ByChannel:
    """Kernels sorted by the input channel that they read; called like ``FilterBank``.

    Attributes:
      kernels: one entry for each input channel that a filter reads: the channel, and float32
        kernels of shape (k, k, 1, number of kernels).
      simple: places of the responses of simple cells.
      complex_: places of both phases of complex cells, in the same order.
      order: position of each cell in the concatenation of ``simple`` and ``complex_``.
      num_simple: number of simple cells.
    """

    kernels: tuple[tuple[int, np.ndarray], ...]
    simple: tuple[_Place, ...]
    complex_: tuple[tuple[_Place, _Place], ...]
    order: np.ndarray
    num_simple: int

    @classmethod
    def build(cls, bank: FilterBank) -> "ByChannel":
        """Sort the kernels that the cells need, by the input channels of both phases."""
        # Each array has the cells of one kind that read the same channel or pair of channels.
        is_simple = np.arange(len(bank.channel)) < bank.num_simple
        pairs = np.stack([bank.channel, bank.channel_quadrature], axis=-1)
        simple = {
            c: np.flatnonzero(is_simple & (bank.channel == c))
            for c in np.unique(bank.channel[is_simple]).tolist()
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

        in_phase, quadrature = bank.kernels
        simple_places = tuple(place(c, in_phase[cells]) for c, cells in simple.items())
        complex_places = tuple(
            (place(a, in_phase[cells]), place(b, quadrature[cells]))
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
            num_simple=bank.num_simple,
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

    def __call__(self, images: Images, stride: int, cells: CellModel) -> Cells:
        """Return the responses of all cells, see ``FilterBank.__call__``.

        Only the responses of cells are put in order. To order both phases instead would cost a
        third as much as the convolutions. Normalisation comes before that, because the order is in
        a layout that is slow to read again.
        """
        linear = self.linear(images, stride)

        def read(place: _Place) -> jax.Array:
            return linear[place[0]][..., place[1]]

        # Apart, because XLA gathers a part of an array in order again wherever it is used.
        nothing = jnp.zeros((*linear[0].shape[:3], 0), linear[0].dtype)
        responses = Cells(
            jnp.concatenate([nothing, *(cells.simple(read(q0)) for q0 in self.simple)], axis=-1),
            jnp.concatenate(
                [nothing, *(cells.complex(read(q0), read(q1)) for q0, q1 in self.complex_)], axis=-1
            ),
        )
        if cells.normalise is not None:
            responses = cells.normalise(responses, np.argsort(self.order))
        order = self.order[: self.num_simple], self.order[self.num_simple :] - self.num_simple
        return Cells(*map(fast.permute, responses, order))
