"""Devices and processes: the only module that uses the mesh API of JAX.

The program is written in the global view. A batch is one array, split over the axis ``data`` of a
one-dimensional mesh. Parameters are on every device, and ``jax.jit`` inserts the communication. The
same code runs on one CPU and on several machines.
"""

import contextlib
import os
import re
import sys
import threading
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "data"
# Seconds that a process waits for the others, and between two lines on stderr that say so.
_PATIENCE, _REPORT = 300.0, 20.0
# Exit statuses, as in ``cli``, and the seconds that wrong arguments let a process wait for others.
_FAILED, _WRONG_ARGUMENTS, _LEAVING = 1, 2, 10.0
# Statuses of the runtime if a connection breaks. Others are those of wrong calls and of files.
_BROKEN = re.compile(
    "(ABORTED|CANCELLED|DEADLINE_EXCEEDED|FAILED_PRECONDITION|INTERNAL|UNAVAILABLE|UNKNOWN): "
)
_CURE = "check that HOST:PORT reaches process 0 and that all N processes have begun"


def join_processes(cluster: str) -> None:
    """Join several processes that run the same program. Call it before JAX uses a device.

    If the others have not come after 5 minutes, the process ends with status 1 and a message on
    stderr. JAX itself would end it with a stack trace of C++.

    Args:
      cluster: ``"auto"`` under Slurm, Open MPI or on Cloud TPU, whose environment describes the
        processes. Otherwise ``"HOST:PORT,N,I"``: an address at which process 0 can be reached, the
        number of processes, and the index of this process, from 0.

    Raises:
      ValueError: if ``cluster`` has neither form, the environment describes no processes, or they
        have different numbers of devices.
      ConnectionError: if the other processes cannot be reached, or JAX has used a device already.
    """
    arguments: dict[str, Any] = {}
    if cluster != "auto":
        match = re.fullmatch(r"([^,\s]+:(\d+)),(\d+),(\d+)", cluster)
        if match is None or not (int(match[4]) < int(match[3]) and 0 < int(match[2]) < 2**16):
            raise ValueError(
                f"distributed must be auto or HOST:PORT,N,I with a port from 1 to 65535 and "
                f"0 <= I < N, got {cluster!r}"
            )
        # Detection would add settings of the scheduler, for instance one device per process.
        arguments = {
            "coordinator_address": match[1],
            "num_processes": int(match[3]),
            "process_id": int(match[4]),
            "cluster_detection_method": "deactivate",
        }
    try:
        with _waiting(cluster):
            jax.distributed.initialize(**arguments, initialization_timeout=2 * round(_PATIENCE))
    except ValueError as error:
        raise ValueError(
            f"no cluster was found ({error}); give HOST:PORT,N,I: the address of process 0, the "
            "number of processes, and the index of this process"
        ) from error
    except RuntimeError as error:
        raise ConnectionError(f"cannot join the other processes: {error}; {_CURE}") from error
    check_processes(jax.devices())


def check_jax() -> None:
    """Check that JAX finds its devices, and draws the random numbers of its default settings.

    Raises:
      ValueError: if one of the settings does not fit.
    """
    if not jax.config.jax_threefry_partitionable:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(
            "JAX_THREEFRY_PARTITIONABLE=0 gives other random numbers from the same key; leave it "
            "out, or set it to 1"
        )
    try:
        jax.devices()
    # JAX asserts that one of the platforms was found.
    except (RuntimeError, AssertionError) as error:
        wanted = f"JAX_PLATFORMS={os.environ.get('JAX_PLATFORMS', '')}"
        reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
        raise ValueError(
            f"JAX finds no device with {wanted}{reason}; install JAX for these devices, or set "
            "JAX_PLATFORMS=cpu"
        ) from error


@contextlib.contextmanager
def _waiting(cluster: str) -> Iterator[None]:
    """Say on stderr that this process waits for the others, and end it if they do not come."""
    joined = threading.Event()

    def watch() -> None:
        waited = 0.0
        while not joined.wait(_REPORT):
            waited += _REPORT
            over = waited >= _PATIENCE
            message = f"waiting for the other processes, {waited:.0f} s so far"
            if over:
                message = f"cannot join the other processes within {waited:.0f} s; {_CURE}"
            print(f"--distributed {cluster}: {message}", file=sys.stderr, flush=True)
            if over:
                os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        joined.set()


def check_processes(devices: Sequence[Any]) -> None:
    """Raise a ValueError if processes have different numbers of the ``devices``.

    JAX's functions that gather from all processes need equal numbers.
    """
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{count} in process {index}" for index, count in counts.items())
        raise ValueError(f"each process must have the same number of devices, got {listed}")


@contextlib.contextmanager
def ending_together() -> Iterator[None]:
    """End all processes of a program soon after one of them fails, within a ``with`` block.

    JAX makes a process wait for all others before it ends. After a failure the others wait in the
    middle of a computation, so no process would ever end. Here a process that fails, or exits with
    the status 1, ends without waiting, and the broken connection ends the others. Wrong arguments
    are wrong for all processes, or for one that lacks a file, so with the status 2 a process waits
    10 s at most. With any other status all processes end at the same point.
    """
    try:
        yield
    except BaseException as error:
        if not jax.distributed.is_initialized():
            raise
        status = _FAILED
        if isinstance(error, SystemExit):
            if error.code not in (_FAILED, _WRONG_ARGUMENTS):
                raise
            status = error.code
            if status == _WRONG_ARGUMENTS:
                leaving = threading.Thread(target=jax.distributed.shutdown, daemon=True)
                leaving.start()
                leaving.join(_LEAVING)
        else:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@contextlib.contextmanager
def naming_failures_elsewhere() -> Iterator[None]:
    """Turn an error of JAX's runtime in a program of several processes into a ConnectionError.

    An error about too little memory is raised unchanged, see ``too_little_memory``.
    """
    try:
        yield
    except (jax.errors.JaxRuntimeError, ValueError) as error:
        # JAX raises some as a ValueError. The message then begins with the runtime's status.
        known = isinstance(error, jax.errors.JaxRuntimeError) or _BROKEN.match(str(error))
        if not known or jax.process_count() == 1 or too_little_memory(error):
            raise
        raise ConnectionError(f"another process seems to have failed: {error}") from error


def too_little_memory(error: Exception) -> str:
    """The message for an error that too little memory has caused; empty for another error."""
    if isinstance(error, MemoryError):
        return f"the memory of the host is too small{f' ({error})' if str(error) else ''}"
    if re.search("RESOURCE_EXHAUSTED|out[ _]of[ _]memory", str(error), re.IGNORECASE):
        return f"the memory is too small ({str(error).splitlines()[0]})"
    return ""


def data_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Return a mesh with the single axis ``data`` over the ``jax.Device``s of all processes.

    By default it has all devices, ordered by process, so that the part of a batch that a process
    loads is contiguous.

    Raises:
      ValueError: if ``devices`` is empty.
    """
    if devices is None:
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    devices = list(devices)
    if not devices:
        raise ValueError("devices must name at least one device, got none")
    # Auto axes must be named: with Explicit axes, JAX refuses the gradients of some convolutions.
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def is_data_mesh(mesh: Mesh) -> bool:
    """Return True for a mesh with the axis of ``data_mesh`` alone."""
    return (mesh.axis_names, mesh.axis_types) == ((AXIS,), (AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of arrays that every device holds in full: parameters, sums."""
    return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch, whose first axis is split over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def check_batch_size(mesh: Mesh, batch_size: int, name: str = "batch_size") -> None:
    """Raise a ValueError that uses ``name`` if the devices cannot share a global batch evenly."""
    if batch_size < 1 or batch_size % mesh.size:
        raise ValueError(
            f"{name} must be a positive multiple of the number of devices, {mesh.size}, so that "
            f"each device gets the same number of examples; got {batch_size}"
        )


def shard_batch(mesh: Mesh, batch: Any) -> Any:
    """Make a tree of global arrays from the parts of a batch that the processes have loaded.

    ``batch`` is this process's part: a tree of NumPy arrays (n, ...), where n is the global batch
    size divided by the number of processes.

    Raises:
      ValueError: if the global batch size is not a multiple of the number of devices.
    """
    processes = jax.process_count()

    def place(array: Any) -> jax.Array:
        check_batch_size(mesh, len(array) * processes, "the batch size")
        return jax.make_array_from_process_local_data(sharded(mesh), np.asarray(array))

    return jax.tree.map(place, batch)


def replicate(mesh: Mesh, tree: Any) -> Any:
    """Put a tree of arrays, which is the same in all processes, on every device of the mesh."""
    return jax.device_put(tree, replicated(mesh))


def on_each_device(mesh: Mesh, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that every device applies to its share of the arguments.

    It takes arrays and returns a tree of arrays with the same first axis, whose length must be a
    multiple of the number of devices. Values that ``function`` closes over are the same on every
    device.
    """
    split = PartitionSpec(AXIS)
    return jax.shard_map(function, mesh=mesh, in_specs=split, out_specs=split, check_vma=False)


def fetch(tree: Any) -> Any:
    """Copy a tree of arrays to NumPy, including the parts that other processes hold.

    In a program of several processes all of them must call it. The copies own their memory, so the
    arrays may be donated afterwards.
    """

    def host(array: Any) -> np.ndarray:
        if isinstance(array, jax.Array) and not array.is_fully_addressable:
            if not array.is_fully_replicated:
                array = multihost_utils.process_allgather(array, tiled=True)
        return np.array(array)

    return jax.tree.map(host, tree)


def any_process(flag: bool) -> bool:
    """Return True if ``flag`` is True in any process. All processes must call this together."""
    if jax.process_count() == 1:
        return flag
    return bool(multihost_utils.process_allgather(np.asarray(flag)).any())


def differing(values: Mapping[str, Any]) -> list[str]:
    """List the names of values whose ``repr`` is not the same in all processes.

    All processes must call this together, with the same names.
    """
    if jax.process_count() == 1:
        return []
    ours = np.array([zlib.crc32(repr(value).encode()) for value in values.values()], np.uint32)
    same = (multihost_utils.process_allgather(ours) == ours).all(axis=0)
    return [name for name, equal in zip(values, same, strict=True) if not equal]


def barrier(name: str) -> None:
    """Wait until all processes have reached this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def first_process_first(name: str) -> Iterator[None]:
    """Let process 0 finish a ``with`` block before the others enter it, so it can make files.

    The others enter it after an error, too, and may find the same one.
    """
    if jax.process_index() != 0:
        barrier(name)
    try:
        yield
    finally:
        if jax.process_index() == 0:
            barrier(name)


def describe(mesh: Mesh) -> str:
    """Describe the devices in words, for instance ``"4 x cpu (cpu)"``."""
    first = mesh.devices.flat[0]
    return f"{mesh.size} x {first.device_kind} ({first.platform})"
