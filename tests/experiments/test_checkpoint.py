"""A checkpoint returns what was saved, or the error names its damage."""

import dataclasses
import errno
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vone_jax import files
from vone_jax import mesh as meshes
from vone_jax.experiments.checkpoint import CheckpointError, Checkpoints, Position, saved_steps
from vone_jax.experiments.optimizer import PlateauState
from vone_jax.experiments.state import TrainState

# When one of several reads or writes fails, Orbax closes its event loop under the others.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

POSITION = Position(validated=2, interval={"loss": 0.1, "seen": 4})


def make_state(seed, size=40):
    params = {
        "kernel": jax.random.normal(jax.random.key(seed), (size, size)),
        "bias": jnp.full((3,), seed, jnp.float32),
    }
    return TrainState(
        step=jnp.int32(seed),
        params=params,
        batch_stats={},
        opt_state=optax.chain(optax.trace(0.9)).init(params),
        plateau=PlateauState(),
    )


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


LIKE = jax.eval_shape(lambda: make_state(0))


def write(directory, keep):
    with Checkpoints(directory, keep) as checkpoints:
        for step in (1, 2, 3):
            checkpoints.save(step, make_state(step), POSITION)
    return directory


@pytest.fixture
def written(tmp_path):
    """A directory with the checkpoints 1, 2 and 3."""
    return write(tmp_path / "checkpoints", keep=3)


def restore(directory, like=LIKE, **arguments):
    with Checkpoints(directory, read_only=True) as checkpoints:
        return checkpoints.restore(like, **arguments)


def largest_file(directory):
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip_a_bit(path):
    _, changed, _ = flipped(path.read_bytes())
    path.write_bytes(changed)


def test_nothing_there_is_nothing_restored(tmp_path):
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.restore(LIKE) is None


def test_the_newest_is_restored_bit_for_bit(written):
    step, state, position = restore(written)
    assert step == 3 and position == POSITION
    assert_same(state, make_state(3))


@pytest.mark.parametrize("batch_stats", [{}, {"mean": jnp.ones(3)}])
def test_variables_are_read_from_the_checkpoint_of_any_optimiser(tmp_path, batch_stats):
    """Evaluations need no more, and a new version of Optax may name its state in another way."""
    saved = dataclasses.replace(make_state(1), batch_stats=batch_stats)
    renamed = dataclasses.replace(saved, opt_state={"momentum": saved.opt_state})
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, renamed, POSITION)
        checkpoints.wait()
        with pytest.raises(ValueError, match="belongs to another network or optimiser"):
            checkpoints.restore(jax.eval_shape(lambda: saved))
        step, state, position = checkpoints.restore(jax.eval_shape(lambda: saved.variables))
    assert step == 1 and position == POSITION
    assert_same(state.variables, jax.tree.map(np.asarray, saved.variables))


def test_an_older_one_can_be_asked_for(written):
    step, state, _ = restore(written, step=1)
    assert step == 1
    assert_same(state, make_state(1))
    with pytest.raises(CheckpointError, match=r"no checkpoint 7 .* there are \[1, 2, 3\]"):
        restore(written, step=7)


def test_the_oldest_ones_are_dropped(tmp_path):
    assert saved_steps(write(tmp_path / "checkpoints", keep=2)) == [2, 3]


def test_a_state_may_be_donated_as_soon_as_save_returns(tmp_path):
    """The file is written in the background while the memory of the state is reused."""
    mesh = meshes.data_mesh()
    state = meshes.replicate(mesh, make_state(1, size=500))
    expected = meshes.fetch(state)
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    like = jax.eval_shape(lambda: make_state(0, size=500))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, state, POSITION)
        for _ in range(5):
            state = overwrite(state)
        checkpoints.wait()
        assert_same(checkpoints.restore(like)[1], expected)


def test_a_restored_state_goes_on_any_mesh(written):
    _, state, _ = restore(written)
    for devices in (jax.devices()[:1], jax.devices()):
        placed = meshes.replicate(meshes.data_mesh(devices), state)
        assert len(placed.params["bias"].sharding.device_set) == len(devices)
        assert_same(meshes.fetch(placed), make_state(3))


def flipped(content):
    """Flip one bit of the first, the middle or the last byte."""
    for place in (0, len(content) // 2, len(content) - 1):
        changed = bytearray(content)
        changed[place] ^= 8
        yield bytes(changed)


def truncated(content):
    return (content[:length] for length in (0, len(content) // 2, len(content) - 1))


def gone(content):
    return (None,)


@pytest.mark.parametrize("damage", [flipped, truncated, gone])
def test_any_damaged_file_is_named_and_the_checkpoint_before_used(written, damage):
    files = [path for path in (written / "3").rglob("*") if path.is_file()]
    assert {"SHA256SUMS", "metadata", "_METADATA", "manifest.ocdbt"} <= {p.name for p in files}
    with Checkpoints(written, read_only=True) as checkpoints:
        for path in files:
            content = path.read_bytes()
            name = path.relative_to(written / "3").as_posix()
            for changed in damage(content):
                path.unlink() if changed is None else path.write_bytes(changed)
                said = f"damaged, going back to step 2: .*checkpoints/3 \\({name} [^;]*\\)$"
                with pytest.warns(UserWarning, match=said):
                    step, state, position = checkpoints.restore(LIKE)
                assert step == 2 and position == POSITION
                assert_same(state, make_state(2))
            path.write_bytes(content)
        assert checkpoints.restore(LIKE)[0] == 3


def test_all_damaged_files_of_a_checkpoint_are_named(written):
    (written / "3" / "state" / "_METADATA").unlink()
    listed = written / "3" / "metadata" / "metadata"
    listed.unlink()
    listed.mkdir()
    said = r"metadata/metadata cannot be read: Is a directory; state/_METADATA is missing\)"
    with pytest.warns(UserWarning, match=said):
        assert restore(written)[0] == 2


def test_a_file_that_may_not_be_read_is_no_damage(written, monkeypatch):
    """The run neither goes back nor moves the checkpoint: the error may pass."""
    digest = files.digest

    def barred(path):
        if path.name == "manifest.ocdbt":
            raise PermissionError(errno.EACCES, "Permission denied")
        return digest(path)

    monkeypatch.setattr(files, "digest", barred)
    said = r"checkpoints/3 may be whole, but .*manifest.ocdbt cannot be read: Permission denied\. "
    with pytest.raises(CheckpointError, match=said + ".*move the checkpoint away"):
        restore(written)
    monkeypatch.setattr(files, "digest", digest)
    assert restore(written)[0] == 3


def test_a_file_that_was_added_is_no_damage(written):
    (written / "3" / "state" / "notes.txt").write_text("from a person")
    assert restore(written)[0] == 3


def as_before_there_were_lists(directory):
    (directory / "SHA256SUMS").unlink()
    path = directory / "metadata" / "metadata"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 1}))


@pytest.mark.parametrize("like", [LIKE, LIKE.variables], ids=["state", "variables"])
def test_a_checkpoint_without_a_list_of_digests_is_judged_by_its_content(written, like):
    for step in (2, 3):
        as_before_there_were_lists(written / str(step))
    step, state, _ = restore(written, like)
    assert step == 3
    assert_same(state.variables, make_state(3).variables)
    assert_same(jax.tree.leaves(state), jax.tree.leaves(make_state(3)))
    flip_a_bit(largest_file(written / "3" / "state"))
    with pytest.warns(UserWarning, match="damaged, going back to step 2: .*checkpoints/3"):
        assert restore(written, like)[0] == 2


def test_a_damaged_checkpoint_that_was_asked_for_is_an_error(written):
    flip_a_bit(largest_file(written / "3" / "state"))
    with pytest.raises(CheckpointError, match="no checkpoint can be read: .*checkpoints/3"):
        restore(written, step=3)


def test_all_damaged_is_an_error_that_names_them(written):
    for step in (1, 2, 3):
        flip_a_bit(largest_file(written / str(step) / "state"))
    with pytest.raises(CheckpointError, match=r"checkpoints/3 .*checkpoints/2 .*checkpoints/1 "):
        restore(written)


def test_a_position_that_was_changed_is_damage_without_a_list_too(written):
    as_before_there_were_lists(written / "3")
    path = written / "3" / "metadata" / "metadata"
    path.write_text(path.read_text().replace('"validated": 2', '"validated": 1'))
    with pytest.warns(UserWarning, match="its content does not match its digest"):
        assert restore(written)[0] == 2


def test_another_network_is_refused_and_not_taken_for_damage(written):
    params = dict(LIKE.params)
    renamed = {"kernel": params["kernel"], "beam": params["bias"]}
    halved = params | {"bias": jax.ShapeDtypeStruct((3,), jnp.bfloat16)}
    with Checkpoints(written, read_only=True) as checkpoints:
        for other in (
            jax.eval_shape(lambda: make_state(0, size=41)),
            dataclasses.replace(LIKE, params=renamed),
            dataclasses.replace(LIKE, params=halved),
        ):
            for like, what in ((other, "network or optimiser"), (other.variables, "network")):
                with pytest.raises(ValueError, match=f"belongs to another {what}: "):
                    checkpoints.restore(like)


def test_damaged_checkpoints_are_set_aside_so_that_new_ones_take_their_place(written):
    with Checkpoints(written, keep=3) as checkpoints:
        checkpoints.set_aside(newer_than=2)
        assert checkpoints.steps() == [1, 2]
        checkpoints.save(3, make_state(30), POSITION)
        checkpoints.wait()
        checkpoints.set_aside(newer_than=2)
    assert sorted(p.name for p in (written.parent / "damaged").iterdir()) == ["3-0", "3-1"]
    assert restore(written)[0] == 2


def test_what_an_interrupted_write_left_is_removed_by_the_next_writer_alone(written):
    temporary = ("4.partial.orbax-checkpoint-tmp", "9.partial.orbax-checkpoint-tmp")
    for leftover in (*temporary, "4.partial", "1.partial"):
        (written / leftover / "state").mkdir(parents=True)
    before = sorted(written.rglob("*"))
    assert restore(written)[0] == 3
    assert sorted(written.rglob("*")) == before
    with Checkpoints(written, keep=3) as checkpoints:
        assert checkpoints.steps() == [1, 2, 3]
        checkpoints.save(4, make_state(4), POSITION)
    assert sorted(path.name for path in written.iterdir()) == ["2", "3", "4"]
    assert restore(written)[0] == 4


def test_a_step_is_not_written_twice(written):
    with Checkpoints(written, keep=3) as checkpoints:
        with pytest.raises(CheckpointError, match="checkpoint 3 is not newer than"):
            checkpoints.save(3, make_state(3), POSITION)


def test_a_disk_without_room_is_named_before_anything_is_written(tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=100)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, make_state(1), POSITION)
        checkpoints.wait()
        with monkeypatch.context() as patch:
            patch.setattr(shutil, "disk_usage", lambda path: full)
            expected = r"No space left on device, 0.0001 MB are free .* steps \[1\] are intact"
            with pytest.raises(CheckpointError, match=expected):
                checkpoints.save(2, make_state(2), POSITION)
        assert checkpoints.steps() == [1]
        checkpoints.save(2, make_state(2), POSITION)


def test_a_last_checkpoint_that_was_not_completed_is_an_error(tmp_path, monkeypatch):
    """It is written in the background, and the block ends before anybody asks for it."""

    def full(directory):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files, "write_digests", full)
    with pytest.raises(
        CheckpointError, match="No space left on device; .* steps \\[\\] are intact"
    ):
        with Checkpoints(tmp_path / "checkpoints") as checkpoints:
            checkpoints.save(1, make_state(1), POSITION)


def test_a_full_disk_is_an_error_and_older_checkpoints_stay(tmp_path, full_disk):
    directory = tmp_path / "checkpoints"
    expected = r"could not be written to .*: File too large: .* steps \[1\] are intact"
    with pytest.raises(CheckpointError, match=expected):
        with Checkpoints(directory) as checkpoints:
            checkpoints.save(1, make_state(1), POSITION)
            checkpoints.wait()
            with full_disk() as limit_to:
                limit_to(4096)
                checkpoints.save(2, make_state(2), POSITION)
                checkpoints.wait()
    step, state, _ = restore(directory)
    assert step == 1
    assert_same(state, make_state(1))
