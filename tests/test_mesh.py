"""Arrays survive the way to a mesh and back; processes agree; a failure ends all of them."""

import os
import socket
import subprocess
import sys
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
    assert meshes.describe(mesh) == "4 x cpu (cpu)"


@pytest.mark.slow
def test_auto_axes_are_enough_on_a_mesh_with_explicit_ones():
    """The page docs/clusters.md advises them for corruptions."""
    mesh = jax.make_mesh((4,), ("data",))
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


def test_a_batch_that_does_not_divide_is_refused_by_name(mesh):
    for size in (0, 6, -4):
        with pytest.raises(ValueError, match=f"^data.batch_size .* got {size}"):
            meshes.check_batch_size(mesh, size, "data.batch_size")
    with pytest.raises(ValueError, match="got 6"):
        meshes.shard_batch(mesh, np.zeros((6, 2), np.float32))
    meshes.check_batch_size(mesh, 4)


def test_processes_that_are_not_named_as_they_should_be_are_refused():
    for cluster in ("", "localhost:1234,2", "localhost:1234,2,2", "host,2,0"):
        with pytest.raises(ValueError, match="auto or HOST:PORT,N,I with"):
            meshes.join_processes(cluster)


def test_one_process_decides_for_itself():
    assert meshes.from_process_0(lambda: {"runs": ["a", 1]}) == {"runs": ["a", 1]}
    with pytest.raises(ValueError, match="no such run"):
        meshes.from_process_0(lambda: int("no such run"))


TWO = """
import sys
import jax
import numpy as np
from vone_jax import mesh as meshes

index = int(sys.argv[1])
meshes._ENDING = 2
meshes.join_processes(f"localhost:{sys.argv[2]},2,{index}")
print(meshes.from_process_0(lambda: {"of": index, "name": "\u00e9"}))
try:
    meshes.from_process_0(lambda: int("damaged"))
except (ValueError, RuntimeError) as error:
    print(type(error).__name__, "damaged" in str(error))
mesh = meshes.data_mesh()
batch = meshes.shard_batch(mesh, np.arange(2, dtype=np.int32) + 2 * index)
print(meshes.fetch({"batch": batch})["batch"].tolist(), flush=True)
if index == 1:
    sys.exit(sys.argv[3] or 0)
if sys.argv[3]:
    meshes.barrier("that process 1 does not reach")
"""


@pytest.mark.parametrize("failure", ["", pytest.param("lost", marks=pytest.mark.slow)])
def test_two_processes_agree_and_end_together(failure):
    """Without a failure they end as usual; after one, JAX ends the other that waits for it."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    pair = [
        subprocess.Popen(
            [sys.executable, "-c", TWO, index, port, failure],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for index in "01"
    ]  # fmt: skip
    try:
        outputs = [process.communicate(timeout=120) for process in pair]
    finally:
        for process in pair:
            process.kill()
    ours = [[line for line in output.splitlines() if "Gloo" not in line] for output, _ in outputs]
    agreed = "{'of': 0, 'name': 'é'}"
    assert ours[0] == [agreed, "ValueError True", "[0, 1, 2, 3]"], outputs
    assert ours[1] == [agreed, "RuntimeError True", "[0, 1, 2, 3]"], outputs
    statuses = [process.returncode for process in pair]
    assert all(statuses) if failure else statuses == [0, 0], outputs
