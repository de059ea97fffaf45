"""Devices and processes: the only module that makes meshes.

The program is written in the global view. A batch is one array, split over the axis ``data`` of a
one-dimensional mesh. Parameters are on every device, and ``jax.jit`` inserts the communication. The
same code runs on one CPU and on several machines.
"""

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding

AXIS = "data"
# Seconds that a process which ends waits for the others. Then JAX ends all of them.
_ENDING = 60


def join_processes(cluster: str) -> None:
    """Join several processes that run the same program. Call it before JAX uses a device.

    JAX ends all processes about a minute after one of them failed, and each of them if the others
    do not come within 5 minutes.

    Args:
      cluster: ``"auto"`` under Slurm, Open MPI or on Cloud TPU, whose environment describes the
        processes. Otherwise ``"HOST:PORT,N,I"``: an address at which process 0 can be reached, the
        number of processes, and the index of this process, from 0.

    Raises:
      ValueError: if ``cluster`` has neither form, or the environment describes no processes.
    """
    arguments: dict[str, Any] = {}
    if cluster != "auto":
        match = re.fullmatch(r"([^,\s]+:\d+),(\d+),(\d+)", cluster)
        if match is None or not int(match[3]) < int(match[2]):
            raise ValueError(
                f"distributed must be auto or HOST:PORT,N,I with 0 <= I < N, got {cluster!r}"
            )
        # Detection would add settings of the scheduler, for instance one device per process.
        arguments = {
            "coordinator_address": match[1],
            "num_processes": int(match[2]),
            "process_id": int(match[3]),
            "cluster_detection_method": "deactivate",
        }
    try:
        jax.distributed.initialize(**arguments, shutdown_timeout_seconds=_ENDING)
    except ValueError as error:
        raise ValueError(
            f"no cluster was found ({error}); give HOST:PORT,N,I: the address of process 0, the "
            "number of processes, and the index of this process"
        ) from error


def check_jax() -> None:
    """Raise a ValueError if JAX is set to draw other random numbers from the same key."""
    if not jax.config.jax_threefry_partitionable:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(
            "JAX_THREEFRY_PARTITIONABLE=0 gives other random numbers from the same key; leave it "
            "out, or set it to 1"
        )


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Return a mesh with the single axis ``data`` over the ``jax.Device``s of all processes.

    By default it has all devices, ordered by process, so that the part of a batch that a process
    loads is contiguous.

    Raises:
      ValueError: if ``devices`` is empty.
    """
    if devices is None:
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if not devices:
        raise ValueError("devices must name at least one device, got none")
    # ``jax.make_mesh`` may order the devices otherwise. Networks and attacks work with Explicit
    # axes, too, but JAX refuses many reshapes of corruptions there.
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def is_data_mesh(mesh: Mesh) -> bool:
    """Return True for a mesh with the axis of ``data_mesh`` alone."""
    return (mesh.axis_names, mesh.axis_types) == ((AXIS,), (AxisType.Auto,))


def describe(mesh: Mesh) -> str:
    """Describe the devices in words, for instance ``"4 x cpu (cpu)"``."""
    first = mesh.devices.flat[0]
    return f"{mesh.size} x {first.device_kind} ({first.platform})"


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays that every device holds in full: parameters, sums."""
    return NamedSharding(mesh, jax.P())


def sharded(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch, whose first axis is split over the devices."""
    return NamedSharding(mesh, jax.P(AXIS))


def check_batch_size(mesh: Mesh, batch_size: int, name: str = "batch_size") -> None:
    """Raise a ValueError that uses ``name`` if the devices cannot share a global batch evenly."""
    if batch_size < 1 or batch_size % mesh.size:
        raise ValueError(
            f"{name} must be a positive multiple of the number of devices, {mesh.size}, so that "
            f"each device gets the same number of examples; got {batch_size}"
        )


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Put a tree of arrays, which is the same in all processes, on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """Make a tree of global arrays from the parts of a batch that the processes have loaded.

    ``batch`` is this process's part: a tree of NumPy arrays (n, ...), where n is the global batch
    size divided by the number of processes.

    Raises:
      ValueError: if the global batch size is not a multiple of the number of devices.
    """
    for array in jax.tree.leaves(batch):
        check_batch_size(mesh, len(array) * jax.process_count(), "the batch size")
    sharding = sharded(mesh)
    return jax.tree.map(
        lambda array: jax.make_array_from_process_local_data(sharding, np.asarray(array)), batch
    )


def on_each_device(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that every device applies to its share of the arguments.

    It takes arrays and returns a tree of arrays with the same first axis, whose length must be a
    multiple of the number of devices. Values that ``function`` closes over are the same on every
    device.
    """
    split = jax.P(AXIS)
    # JAX's check of what differs between devices refuses loops that begin with a constant, of which
    # attacks and corruptions have many.
    return jax.shard_map(function, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)


def fetch(tree: Any) -> Any:
    """Copy a tree of arrays to NumPy, including the parts that other processes hold.

    In a program of several processes all of them must call it.
    """

    def whole(array: Any) -> Any:
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            if not array.is_fully_replicated:
                return multihost_utils.process_allgather(array, tiled=True)
        return array

    return jax.device_get(jax.tree.map(whole, tree))


def barrier(name: str) -> None:
    """Wait until all processes have reached this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def from_process_0(decide: Callable[[], Any]) -> Any:
    """Let process 0 decide: return what ``decide()`` returns there, in all processes.

    All processes must call this together. If process 0 fails, they all do.

    Args:
      decide: function that returns a JSON value. Only process 0 calls it.

    Raises:
      RuntimeError: in the other processes, with the message of the error of process 0.
    """
    if jax.process_count() == 1:
        return decide()
    decision, failure = None, None
    if jax.process_index() == 0:
        try:
            decision = decide()
        except Exception as error:
            failure = error
    text = json.dumps([decision, failure and str(failure)]).encode()
    length = multihost_utils.broadcast_one_to_all(np.int32(len(text)))
    padded = np.frombuffer(text.ljust(int(length))[: int(length)], np.uint8)
    decision, message = json.loads(bytes(multihost_utils.broadcast_one_to_all(padded)))
    if failure is not None:
        raise failure
    if message is not None:
        raise RuntimeError(f"process 0 failed: {message}")
    return decision


def broadcast(tree: Any) -> Any:
    """Return a tree of NumPy arrays of process 0 in all processes, which pass trees of its form."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)


def stop_requested(step: int) -> bool:
    """Return True at the step at which all processes should save and stop, after a SIGTERM to one.

    All processes of a program of several must call this once per step. With one process it is
    False.
    """
    return jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step)
