"""Arrays survive the way to a mesh and back; batches that do not fit are refused."""

import os
import socket
import subprocess
import sys
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from vone_jax import attacks, corruptions, models
from vone_jax import mesh as meshes


@pytest.fixture(scope="module")
def mesh():
    return meshes.data_mesh()


def test_the_mesh_has_all_devices_on_one_auto_axis(mesh):
    assert mesh.axis_names == ("data",)
    assert mesh.axis_types == (AxisType.Auto,)
    assert mesh.size == jax.device_count() == 4
    assert meshes.data_mesh(jax.devices()[1:3]).devices.tolist() == jax.devices()[1:3]


def test_auto_axes_are_enough_on_a_mesh_with_explicit_ones():
    """The page docs/clusters.md advises them, since JAX refuses pools and loops otherwise."""
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Explicit,))
    model = models.create("vone_cornet_z", num_classes=10, image_size=28, in_channels=1, width=8)
    logits_fn = models.logits_fn(model, models.init(model, jax.random.key(0)))
    attack = attacks.PGD("l2", 0.5, steps=1)

    def attacked(images, labels):
        blurred = corruptions.corrupt(jax.random.key(1), images, "motion_blur", 3)
        return attack(jax.random.key(2), logits_fn, blurred, labels)

    arrays = np.random.default_rng(0).random((4, 28, 28, 1), np.float32), np.arange(4)
    images, labels = jax.device_put(arrays, meshes.sharded(mesh))
    call: Any = jax.sharding.auto_axes(attacked, out_sharding=images.sharding)
    split = call(images, labels)
    assert len(split.sharding.device_set) == 4
    np.testing.assert_allclose(split, attacked(*arrays), atol=1e-5)


def test_a_mesh_needs_a_device():
    with pytest.raises(ValueError, match="devices must name at least one"):
        meshes.data_mesh([])


def test_processes_must_have_as_many_devices_as_each_other():
    devices = [SimpleNamespace(process_index=index) for index in (0, 1, 1, 1)]
    with pytest.raises(ValueError, match="same number of .*, got 1 in process 0, 3 in process 1"):
        meshes.check_processes(devices)
    meshes.check_processes(devices[:2])


def test_a_batch_is_split_over_the_devices_in_order(mesh):
    batch = {"image": np.arange(24, dtype=np.float32).reshape(8, 3), "label": np.arange(8)}
    placed = meshes.shard_batch(mesh, batch)
    assert [shard.data.shape for shard in placed["image"].addressable_shards] == [(2, 3)] * 4
    shard = placed["image"].addressable_shards[2]
    np.testing.assert_array_equal(shard.data, batch["image"][shard.index[0]])
    np.testing.assert_array_equal(meshes.fetch(placed)["image"], batch["image"])


def test_a_replicated_tree_is_whole_on_every_device(mesh):
    placed = meshes.replicate(mesh, {"a": np.arange(3, dtype=np.int32)})
    assert len(placed["a"].addressable_shards) == 4
    for shard in placed["a"].addressable_shards:
        np.testing.assert_array_equal(shard.data, [0, 1, 2])


def test_fetched_arrays_survive_the_donation_of_the_originals(mesh):
    placed = meshes.replicate(mesh, np.ones(1000, np.float32))
    host = meshes.fetch(placed)
    jax.block_until_ready(jax.jit(lambda x: x + 1, donate_argnums=0)(placed))
    np.testing.assert_array_equal(host, 1)
    assert host.flags.owndata


@pytest.mark.parametrize("size", [0, 6, -4])
def test_a_batch_that_does_not_divide_is_refused_by_name(mesh, size):
    with pytest.raises(ValueError, match=f"data.batch_size .* number of devices, 4,.* got {size}"):
        meshes.check_batch_size(mesh, size, "data.batch_size")
    meshes.check_batch_size(mesh, 4)
    meshes.check_batch_size(meshes.data_mesh(jax.devices()[:1]), 1)


def test_a_batch_that_does_not_divide_is_not_placed(mesh):
    with pytest.raises(ValueError, match="got 6"):
        meshes.shard_batch(mesh, np.zeros((6, 2), np.float32))


def test_one_process_speaks_for_itself_and_any_of_two_for_both(monkeypatch):
    assert meshes.any_process(True) is True
    assert meshes.any_process(False) is False
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    for other in (True, False):
        gather = partial(np.append, other)
        monkeypatch.setattr(meshes.multihost_utils, "process_allgather", gather)
        assert meshes.any_process(True) is True
        assert meshes.any_process(False) is other


def test_values_that_differ_between_processes_are_named(monkeypatch):
    assert meshes.differing({"images": "of one process"}) == []
    gathered = []

    def gather(ours):
        gathered.append(ours)
        return np.stack([gathered[0], ours])

    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(meshes.multihost_utils, "process_allgather", gather)
    assert meshes.differing({"images": ("a", None), "size": 8, "seed": 0}) == []
    assert meshes.differing({"images": ("b", None), "size": 8, "seed": 1}) == ["images", "seed"]


def test_an_error_of_the_first_process_lets_the_others_find_it(monkeypatch):
    reached = []
    monkeypatch.setattr(meshes, "barrier", reached.append)
    with pytest.raises(ValueError, match="damaged"), meshes.first_process_first("file"):
        raise ValueError("damaged")
    assert reached == ["file"]


def test_the_devices_in_words(mesh):
    assert meshes.describe(mesh) == "4 x cpu (cpu)"


@pytest.mark.parametrize(
    "cluster",
    ["", "localhost", "localhost:1234", "localhost:1234,2", "localhost:1234,2,2", "host,2,0",
     "localhost:1234,2,-1", "localhost:1234,2,0,1", "localhost:0,2,0", "localhost:65536,2,0",
     "Auto"],
)  # fmt: skip
def test_processes_that_are_not_named_as_they_should_be_are_refused(cluster):
    with pytest.raises(ValueError, match="auto or HOST:PORT,N,I with .* 0 <= I < N, got "):
        meshes.join_processes(cluster)


def test_too_late_to_join_is_said():
    """This process has used its devices already."""
    with pytest.raises(ConnectionError, match="cannot join the other processes: .*before any JAX"):
        meshes.join_processes("localhost:1234,1,0")


@pytest.mark.parametrize("index", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_process_whose_others_do_not_come_says_so_and_ends(index, free_port):
    """JAX would be silent for 5 minutes and end with a stack trace of C++."""
    cluster = f"localhost:{free_port},2,{index}"
    source = (
        "from vone_jax import mesh\n"
        "mesh._PATIENCE, mesh._REPORT = 2.0, 1.0\n"
        f"mesh.join_processes({cluster!r})\n"
    )
    command = [sys.executable, "-c", source]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 1
    said = [line for line in result.stderr.splitlines() if line.startswith("--distributed")]
    assert said[0] == f"--distributed {cluster}: waiting for the other processes, 1 s so far"
    assert "cannot join the other processes within 2 s; check that HOST:PORT" in said[-1]


PROGRAM = """
import sys
from vone_jax import mesh

with mesh.ending_together():
    if sys.argv[1] == "nowhere":
        try:
            mesh.join_processes("auto")
        except ValueError as error:
            print(error)
        sys.exit(0)
    mesh.join_processes(f"localhost:{sys.argv[2]},1,0")
    print("joined", flush=True)
    if sys.argv[1] == "error":
        raise KeyError("lost")
    sys.exit(int(sys.argv[1]))
"""


def program(*arguments):
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_no_cluster_is_named():
    result = program("nowhere")
    assert "no cluster was found (" in result.stdout and "give HOST:PORT,N,I" in result.stdout


@pytest.mark.parametrize(("ending", "status"), [
    ("75", 75),
    pytest.param("1", 1, marks=pytest.mark.slow),
    pytest.param("error", 1, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_program_of_processes_ends_with_its_status(ending, status, free_port):
    result = program(ending, str(free_port))
    assert (result.stdout, result.returncode) == ("joined\n", status)
    assert ("KeyError: 'lost'" in result.stderr) == (ending == "error")


def test_wrong_arguments_of_one_process_do_not_wait_for_the_others(free_port):
    """JAX would wait for 5 minutes, and then abort."""
    source = (
        "import sys, time\n"
        "from vone_jax import mesh\n"
        "mesh._LEAVING = 1.0\n"
        "with mesh.ending_together():\n"
        f"    mesh.join_processes('localhost:{free_port},2,' + sys.argv[1])\n"
        "    time.sleep(600) if sys.argv[1] == '1' else sys.exit(2)\n"
    )
    first, second = (
        subprocess.Popen([sys.executable, "-c", source, index], stderr=subprocess.DEVNULL)
        for index in "01"
    )
    try:
        assert first.wait(timeout=60) == 2
    finally:
        for process in (first, second):
            process.kill()
            process.wait()


@pytest.mark.parametrize(("status", "calls"), [(2, ["shutdown", 2]), (1, [1])])
def test_a_process_takes_leave_after_wrong_arguments_only(monkeypatch, status, calls):
    """After a failure the others wait in the middle of a computation, and would not answer."""
    made = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: made.append("shutdown"))
    monkeypatch.setattr(os, "_exit", made.append)
    with meshes.ending_together():
        sys.exit(status)
    assert made == calls


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def test_too_little_memory_here_is_no_failure_elsewhere(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    error = jax.errors.JaxRuntimeError
    with pytest.raises(error, match="RESOURCE"), meshes.naming_failures_elsewhere():
        raise error("RESOURCE_EXHAUSTED: Failed to allocate request for 2.00GiB")
    with (
        pytest.raises(ConnectionError, match="another process"),
        meshes.naming_failures_elsewhere(),
    ):
        raise error("UNAVAILABLE: the connection was closed")
    with (
        pytest.raises(ConnectionError, match="failed: UNKNOWN"),
        meshes.naming_failures_elsewhere(),
    ):
        raise ValueError("UNKNOWN: Gloo AllGather failed: Connection closed by peer")
    # TensorStore begins its errors about files with a status, and a name can be in capitals.
    for message in ("images must lie in [0, 1]", "NOT_FOUND: no file", "DOG: no images"):
        with pytest.raises(ValueError, match=message[:6]), meshes.naming_failures_elsewhere():
            raise ValueError(message)
    assert meshes.too_little_memory(MemoryError()) == "the memory of the host is too small"
    assert not meshes.too_little_memory(error("INTERNAL: another reason"))
