"""Applies a Gabor bank and its cells to images, in the form that is fast on each platform.

Each filter reads one input channel, and only complex cells need the quadrature phase.

A CPU is fast if it multiplies no zeros. Each input channel is correlated on its own with the
kernels that read it, and one permutation puts the cells in the order of the bank.

TPUs and GPUs multiply matrices of a hundred channels at once, and move data slowly in comparison.
There, blocks of pixels become channels, and one convolution has all kernels of a phase, with zeros
for the channels that a kernel does not read. The compiler for a TPU v5e estimates 30 % of the
cycles for the published block, although it has three times as many multiplications
(docs/accelerators.md).
"""

import collections
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float32, Int

from vone_jax import fast
from vone_jax.v1.gabor import GaborKernels
from vone_jax.v1.images import HIGHEST, Precision, root

Images = Float32[Array, "n h w c"]
Responses = Float32[Array, "n _ _ cells"]


@dataclasses.dataclass(frozen=True, eq=False)
class FilterBank:
    """Kernels, the input channels that they read, and the cells that they drive.

    With the linear responses q0 of a filter and q1 of its quadrature partner, the responses are
    max(q0, 0) of a simple cell and sqrt(q0^2 + q1^2) / sqrt(2) of a complex cell.

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

    def __call__(self, images: Images, stride: int, precision: Precision = HIGHEST) -> Responses:
        """Return the responses of all cells to normalised images, in the order of the bank.

        The zero padding is k // 2, so responses have ceil(h/stride) rows and ceil(w/stride)
        columns.
        """
        by_channel = functools.partial(self._by_channel, stride=stride, precision=precision)
        if not fast.enabled():
            return by_channel(images)
        together = functools.partial(self._together, stride=stride, precision=precision)
        return fast.by_platform(images, cpu=by_channel, default=together)

    @functools.cached_property
    def groups(self) -> list[np.ndarray]:
        """The filters that read the same input channels, simple cells first."""
        is_simple = np.arange(len(self.channel)) < self.num_simple
        quadrature = np.where(is_simple, -1, self.channel_quadrature)
        reads = np.stack([~is_simple, self.channel, quadrature], axis=-1)
        return [
            np.flatnonzero(np.all(reads == group, axis=-1)) for group in np.unique(reads, axis=0)
        ]

    def _by_channel(self, images: jax.Array, stride: int, precision: Precision) -> jax.Array:
        """Correlate each input channel with the kernels that read it."""
        blocks: dict[int, list[np.ndarray]] = collections.defaultdict(list)
        places: list[list[tuple[int, int]]] = []
        for members in self.groups:
            phases = [(self.kernels.in_phase, self.channel)]
            if members[0] >= self.num_simple:
                phases.append((self.kernels.quadrature, self.channel_quadrature))
            places.append([])
            for kernels, channels in phases:
                channel = int(channels[members[0]])
                places[-1].append((channel, len(blocks[channel])))
                blocks[channel].append(kernels[members])
        linear = {}
        for channel, parts in blocks.items():
            kernels = np.concatenate(parts).transpose(1, 2, 0)[:, :, None]
            stored = jnp.asarray(np.ascontiguousarray(kernels))
            both = _correlate(images[..., channel : channel + 1], stored, stride, precision)
            ends = np.cumsum([len(part) for part in parts[:-1]])
            linear[channel] = jnp.split(both, ends, axis=-1)
        simple, complex_ = [], []
        for place in places:
            phases = [linear[channel][part] for channel, part in place]
            if len(phases) == 1:
                simple.append(_simple(*phases))
            else:
                complex_.append(_complex(*phases))
        # One permutation for each kind: a single one takes half as long again in the gradient.
        order = np.split(np.argsort(np.concatenate(self.groups)), [self.num_simple])
        kinds = (simple, order[0]), (complex_, order[1] - self.num_simple)
        ordered = [fast.permute(jnp.concatenate(cells, axis=-1), o) for cells, o in kinds if cells]
        return jnp.concatenate(ordered, axis=-1)

    def _together(self, images: jax.Array, stride: int, precision: Precision) -> jax.Array:
        """Correlate all input channels with all kernels of a kind of cell and a phase."""
        # Kernels with the zeros of the other channels are several times as large, so the program
        # stores them without: the barrier keeps XLA from computing them while it compiles.
        in_phase, quadrature = map(lax.optimization_barrier, map(jnp.asarray, self.kernels))
        kernels = self._dense((in_phase, quadrature), images.shape[3])
        return _cells(*fast.correlate_blocks(images, kernels, stride, precision))

    def with_kernels(
        self,
        kernels: tuple[Array, Array],
        images: Images,
        stride: int,
        precision: Precision = HIGHEST,
    ) -> Responses:
        """Return what ``__call__`` returns, but with kernels that are trained and may be traced.

        The kernels get zeros for the channels that they do not read, and they have gradients.
        """
        dense = self._dense(kernels, images.shape[3])
        return _cells(*(_correlate(images, one, stride, precision) for one in dense))

    def _dense(self, kernels: tuple[Array, Array], channels: int) -> list[jax.Array]:
        """Kernels (k, k, channels, filters) of simple cells, and of both phases of complex cells.

        They have zeros for the channels that a filter does not read.
        """
        simple, (in_phase, quadrature) = self.num_simple, kernels
        sets = (
            (in_phase[:simple], self.channel[:simple]),
            (in_phase[simple:], self.channel[simple:]),
            (quadrature[simple:], self.channel_quadrature[simple:]),
        )
        return [
            jnp.where(
                np.arange(channels)[:, None] == read, filters.transpose(1, 2, 0)[:, :, None], 0.0
            )
            for filters, read in sets
        ]


def _cells(simple: jax.Array, q0: jax.Array, q1: jax.Array) -> jax.Array:
    return jnp.concatenate([_simple(simple), _complex(q0, q1)], axis=-1)


def _simple(q0: jax.Array) -> jax.Array:
    return fast.relu(q0)


def _complex(q0: jax.Array, q1: jax.Array) -> jax.Array:
    return root(jnp.square(q0) + jnp.square(q1)) / math.sqrt(2.0)


def _correlate(
    images: jax.Array, kernels: jax.Array, stride: int, precision: Precision
) -> jax.Array:
    if not kernels.shape[-1]:
        # JAX refuses a convolution without kernels.
        rows, columns = (-(-side // stride) for side in images.shape[1:3])
        return jnp.zeros((images.shape[0], rows, columns, 0), images.dtype)
    half = kernels.shape[0] // 2
    padding = [(half, half)] * 2
    return fast.convolve(images, kernels, (stride, stride), padding, precision=precision)
