"""Devices, processes and how they start: the one place that touches mesh APIs.

The program is written in the global view: a batch is one array that is split over the axis
``data`` of a one-dimensional mesh, parameters are on every device, and ``jax.jit`` inserts the
communication. The same code runs on one CPU and on several machines.
"""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"


def join_processes(cluster: str) -> None:
    """Makes this process one of several that run the same program. To be called before all else.

    Args:
      cluster: ``"auto"`` where Slurm, Open MPI, Cloud TPU or Kubernetes tell a process of the
        others, or ``"HOST:PORT,N,I"``: an address on which process 0 can be reached, the number
        of processes, and which of them this one is, from 0.

    Raises:
      ValueError: if ``cluster`` is neither, or nothing is found to tell of the others.
      ConnectionError: if the others cannot be reached, or JAX has touched its devices already.
    """
    arguments: dict[str, Any] = {}
    if cluster != "auto":
        address, number, index = _parse_cluster(cluster)
        # Detection would add what the scheduler says, for instance one device for each process.
        arguments = {
            "coordinator_address": address,
            "num_processes": number,
            "process_id": index,
            "cluster_detection_method": "deactivate",
        }
    try:
        jax.distributed.initialize(**arguments)
    except ValueError as error:
        raise ValueError(
            f"no cluster was found ({error}); give HOST:PORT,N,I: the address of process 0, the "
            "number of processes, and which of them this one is"
        ) from error
    except RuntimeError as error:
        raise ConnectionError(f"cannot join the other processes: {error}") from error


def _parse_cluster(cluster: str) -> tuple[str, int, int]:
    """Address, number of processes and index of this one."""
    match = re.fullmatch(r"([^,\s]+:\d+),(\d+),(\d+)", cluster)
    if match is None or not int(match[3]) < int(match[2]):
        raise ValueError(
            f"the processes must be given as auto or HOST:PORT,N,I with 0 <= I < N, got {cluster!r}"
        )
    return match[1], int(match[2]), int(match[3])


@contextlib.contextmanager
def ending_together(alone: Sequence[int] = (1,)) -> Iterator[None]:
    """Around a program of several processes: if it fails in one, it ends in all, soon.

    JAX waits for every process before one may end. The others, in the middle of a computation,
    would wait for the one that failed, and it for them; so that one ends without a goodbye, and
    the broken connection ends the others.

    Args:
      alone: exit statuses with which one process may end while others go on. At any other all
        end at the same point, and are waited for.
    """
    try:
        yield
    except BaseException as error:
        if not jax.distributed.is_initialized():
            raise
        status = 1
        if isinstance(error, SystemExit):
            if not isinstance(error.code, int) or error.code not in alone:
                raise
            status = error.code
        else:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@contextlib.contextmanager
def naming_failures_elsewhere() -> Iterator[None]:
    """Turn the error of JAX after another process has failed into one that says so.

    Raises:
      ConnectionError: for a ``JaxRuntimeError`` in a program of several processes. In a single
        process the error is passed on.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1:
            raise
        raise ConnectionError(f"another process seems to have failed: {error}") from error


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the one axis ``data``.

    Args:
      devices: the ``jax.Device``s to use, of all processes; default: all there are, process by
        process, so that the part of a batch that a process loads stays together.

    Raises:
      ValueError: if ``devices`` is empty.
    """
    if devices is None:
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    devices = list(devices)
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


def on_each_device(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays as one that every device applies to its share of their first axis.

    Args:
      mesh: whose devices share the arrays; their first axis must be a multiple of its size.
      function: of arrays, to a tree of arrays with the same first axis. What it closes over is
        the same on every device.
    """
    split = PartitionSpec(AXIS)
    return jax.shard_map(function, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)


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


def same_in_all_processes(number: int) -> bool:
    """Whether all processes have the same number; returns when all have been asked."""
    if jax.process_count() == 1:
        return True
    numbers = multihost_utils.process_allgather(np.asarray(number, np.int32))
    return bool((numbers == number).all())


def barrier(name: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def first_process_first(name: str) -> Iterator[None]:
    """Process 0 goes through the block before the others enter it, for instance to make files."""
    if jax.process_index() != 0:
        barrier(name)
    yield
    if jax.process_index() == 0:
        barrier(name)


def describe(mesh: Mesh) -> str:
    """The devices in words, for instance ``"4 x cpu (cpu)"``."""
    first = mesh.devices.flat[0]
    return f"{mesh.size} x {first.device_kind} ({first.platform})"
