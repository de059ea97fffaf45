"""A paper model of training on many chips: operations and bytes of a step, divided by rates.

JAX counts the operations, the parameters and the activations that are kept for the backward pass.
It counts them on the network itself before compilation, and computes nothing.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import table
from benchmarks.chips import Chip
from vone_jax.training import DataConfig, Experiment, ModelConfig
from vone_jax.training.state import initial_state
from vone_jax.training.step import make_loss

CHIPS = 256
PER_CHIP = (32, 128, 256)
# The least number of passes over each activation that is kept: it is written and read forward, it
# is read backward, and its gradient is written and read.
_PASSES = 5
# In each layer of global batch norm, a chip waits for the sums of all chips once forward and once
# backward.
_WAITS = 2
# The batch size at which work is counted.
_IMAGES = 2
_COLUMNS = (
    "images/chip", "operations, ms", "memory, ms", "gradients over links, ms",
    "sums of batch norm, ms", "share of time not spent waiting",
)  # fmt: skip


# Data sheet of the H100 SXM; a network port of 400 Gbit/s for each. For TPUs
# ``benchmarks.compiled`` has the compiled program, whose compiler knows all chips.
H100 = Chip(clock=1.98e9, operations=989e12, traffic=3.35e12, memory=80e9, link=50e9)
# Seconds that a small sum over all chips takes; an assumption, not a published rate.
WAIT = 25e-6


def times(name: str, size: int) -> str:
    """Return the least time of a step of a network on ``CHIPS`` chips, as Markdown."""
    work = Work(name, size, "bfloat16")
    rows = []
    for images in PER_CHIP:
        limits = step_times(work, H100, images)
        cells = (f"{1e3 * seconds:.2f}" for seconds in limits)
        rows.append([str(images), *cells, f"{efficiency(*limits):.2f}"])
    return (
        f"{name}, {size} px, bfloat16: {work.operations / 1e9:.1f} GFLOP and "
        f"{work.kept / 1e6:.0f} MB kept per image, {work.parameters / 1e6:.1f} million parameters, "
        f"{work.batch_norms} layers of batch norm; {CHIPS} H100 SXM, 400 Gbit/s each.\n\n"
        + table.markdown(_COLUMNS, rows, left=0)
    )


def step_times(work: "Work", chip: Chip, images: int) -> tuple[float, float, float, float]:
    """Return the least seconds of a step with ``images`` on each chip for each possible limit.

    They are those of operations, of memory traffic, of the sum of the gradients over the links,
    and of waiting for the sums of batch norm.
    """
    # A ring sends each float32 gradient twice, without the chip's own share.
    gradients = 2 * (CHIPS - 1) / CHIPS * 4 * work.parameters
    return (
        images * work.operations / chip.operations,
        images * work.kept * _PASSES / chip.traffic,
        gradients / chip.link,
        _WAITS * work.batch_norms * WAIT,
    )


def efficiency(operations: float, memory: float, link: float, waits: float) -> float:
    """Return the share of a step in which a chip works.

    The gradients of late layers are sent while those of early layers are computed. So the links
    count only beyond the backward pass, two thirds of the work. Nothing overlaps with the waits.
    """
    working = max(operations, memory)
    return working / (working + max(0.0, link - 2 / 3 * working) + waits)


def kept(names: Sequence[str], size: int) -> str:
    """Return a table of the memory kept for the backward pass, with and without ``remat``."""
    rows = []
    for name in names:
        cells = (
            f"{Work(name, size, precision, remat).kept / 1e6:.0f}"
            for precision in ("float32", "bfloat16")
            for remat in (False, True)
        )
        rows.append([f"{name}, {size} px", *cells])
    columns = ["kept, MB/image", "with `remat`", "with bfloat16", "with both"]
    return table.markdown(["network", *columns], rows)


class Work:
    """The work of a training step on images of ``size`` pixels with 1000 classes.

    It is the gradient of the loss of a few images, as shapes without values.
    """

    def __init__(self, name: str, size: int, precision: str, remat: bool = False):
        config = ModelConfig(name=name, num_classes=1000, image_size=size)
        data = DataConfig(source="none")
        experiment = Experiment(name="paper", model=config, data=data, remat=remat)
        self.model = config.build(dtype=getattr(jnp, precision))
        self.loss_fn = make_loss(self.model, experiment)
        self.state = jax.eval_shape(lambda: initial_state(experiment, self.model))
        self.size = size

    def _batch(self, images: int) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            "image": jax.ShapeDtypeStruct((images, self.size, self.size, 3), jnp.float32),
            "label": jax.ShapeDtypeStruct((images,), jnp.int32),
            "index": jax.ShapeDtypeStruct((images,), jnp.uint32),
        }

    def _loss(self, params: Any, batch_stats: Any, batch: Any) -> Any:
        key = jax.random.key(0)
        return self.loss_fn(params, {}, batch_stats, batch, key, key)

    @functools.cached_property
    def operations(self) -> float:
        """The floating-point operations of the forward and backward pass, per image."""
        gradient = jax.jit(jax.grad(self._loss, has_aux=True))
        batch = self._batch(_IMAGES)
        traced = gradient.trace(self.state.params, self.state.batch_stats, batch)
        # The operations of an accelerator. On a CPU the bank takes fewer, in the frequency domain.
        lowered = traced.lower(lowering_platforms=("tpu",))
        counted = lowered.cost_analysis()
        if counted is None:
            raise RuntimeError("this backend does not count operations; set JAX_PLATFORMS=cpu")
        return counted["flops"] / _IMAGES

    @functools.cached_property
    def kept(self) -> int:
        """The bytes that the backward pass keeps of the forward pass, per extra image.

        So weights, and values that depend on weights alone, do not count.
        """

        def backward(params: Any, batch_stats: Any, batch: Any) -> Any:
            # The leaves of the function that ``vjp`` returns are the values it keeps.
            loss = functools.partial(self._loss, batch_stats=batch_stats, batch=batch)
            return jax.vjp(loss, params, has_aux=True)[1]

        held = [
            jax.eval_shape(backward, self.state.params, self.state.batch_stats, self._batch(images))
            for images in (_IMAGES, _IMAGES + 1)
        ]
        return _bytes(held[1]) - _bytes(held[0])

    @property
    def parameters(self) -> int:
        """The number of trained parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.state.params))

    @property
    def batch_norms(self) -> int:
        """The number of layers of batch norm."""
        # Each layer has a mean and a variance.
        return len(jax.tree.leaves(self.state.batch_stats)) // 2


def _bytes(tree: Any) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
