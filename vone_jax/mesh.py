"""Devices and processes: the one place that touches mesh APIs.

The program is written in the global view: a batch is one array that is split over the axis
``data`` of a one-dimensional mesh, parameters are on every device, and ``jax.jit`` inserts the
communication. The same code runs on one CPU and on several machines.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the one axis ``data``.

    Args:
      devices: the ``jax.Device``s to use, of all processes; default: all there are.

    Raises:
      ValueError: if ``devices`` is empty.
    """
    devices = jax.devices() if devices is None else list(devices)
    if not devices:
        raise ValueError("devices must name at least one device, got none")
    # Auto axes are written out: with Explicit ones some convolution gradients are refused.
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds in full: parameters, sums."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: the first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def check_batch_size(mesh: Mesh, batch_size: int, name: str = "batch_size") -> None:
    """Raises a ValueError unless a global batch divides evenly over the devices of the mesh."""
    if batch_size < 1 or batch_size % mesh.size:
        raise ValueError(
            f"{name} must be a positive multiple of the number of devices, {mesh.size}, so that "
            f"each device gets the same number of examples; got {batch_size}"
        )


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """Global arrays from the part of a batch that this process has loaded.

    Args:
      mesh: where the batch goes.
      batch: tree of NumPy arrays (n, ...), n the global batch size over the number of processes.

    Returns:
      The tree with ``jax.Array`` leaves of the global batch size.

    Raises:
      ValueError: if the global batch size is not a multiple of the number of devices.
    """
    processes = jax.process_count()

    def place(array):
        check_batch_size(mesh, len(array) * processes, "the batch size")
        return jax.make_array_from_process_local_data(sharded(mesh), np.asarray(array))

    return jax.tree.map(place, batch)


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Puts a tree of arrays, the same in all processes, on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def fetch(tree: Any) -> Any:
    """NumPy copies of a tree of arrays, whole also where processes hold only parts.

    In a program with several processes all of them must call it. The result owns its memory,
    so the arrays may be donated afterwards.
    """

    def host(array):
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            if not array.is_fully_replicated:
                array = multihost_utils.process_allgather(array, tiled=True)
        return np.array(array)

    return jax.tree.map(host, tree)


def any_process(flag: bool) -> bool:
    """Whether ``flag`` is set in any process. All processes must call it at the same point."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def barrier(name: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def describe(mesh: Mesh) -> str:
    """The devices in words, for instance ``"4 x cpu (cpu)"``."""
    first = mesh.devices.flat[0]
    return f"{mesh.size} x {first.device_kind} ({first.platform})"
