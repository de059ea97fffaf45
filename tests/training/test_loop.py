"""The loop: what happens at which step, resuming bit for bit, and all ways to stop."""

import contextlib
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from tiny import final_state, log, tiny_source

from vone_jax import data, fast, training
from vone_jax import mesh as meshes
from vone_jax.experiments import run_dir as run_dirs
from vone_jax.experiments.checkpoint import Checkpoints
from vone_jax.progress import Progress
from vone_jax.training import loop, monitor, setup
from vone_jax.training.monitor import Monitor, RunLog, read_log
from vone_jax.training.setup import Setup, prepare

pytestmark = [
    # See test_checkpoint.py.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("cached_compilation"),
]

ONE = jax.devices()[:1]


class StopAt:
    """A request to stop that is True from the n-th call on.

    The loop calls it once per step, from step 0 on. A validation calls it for each of 3 batches.
    """

    def __init__(self, number):
        self.left = number

    def __call__(self):
        self.left -= 1
        return self.left <= 0


def train(experiment, run_dir, **arguments):
    return training.train(experiment, run_dir, **{"devices": ONE, **arguments})


def steps(run_dir, kind):
    return [record["step"] for record in log(run_dir) if record["kind"] == kind]


def assert_same_run(experiment, ours, theirs):
    """Check that states, positions and logs are equal to the last bit."""
    (step1, state1, position1), (step2, state2, position2) = (
        final_state(experiment, run_dir) for run_dir in (ours, theirs)
    )
    assert step1 == step2 and position1 == position2
    jax.tree.map(np.testing.assert_array_equal, state1, state2)
    assert log(ours) == log(theirs)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The directory of a run without interruption; the first test that uses it makes the run."""
    return tmp_path_factory.mktemp("uninterrupted") / "run"


@pytest.fixture
def whole(tiny, uninterrupted):
    if not uninterrupted.exists():
        assert train(tiny, uninterrupted) == training.Outcome(step=6, finished=True)
    return uninterrupted


def test_fence_posts(tiny, whole):
    """6 steps, 3 per epoch: nothing at 0; validation and checkpoint at 3 and 6; log at 2, 4, 6."""
    assert steps(whole, "train") == [2, 4, 6]
    assert steps(whole, "validation") == [3, 6]
    step, state, position = final_state(tiny, whole)
    assert step == int(state.step) == position.validated == 6
    assert position.interval == {"loss": 0.0, "correct": 0, "seen": 0}
    step, state, position = final_state(tiny, whole, step=3)
    assert step == int(state.step) == position.validated == 3
    assert position.interval["seen"] == 8


def test_the_log_says_what_the_contract_says(whole):
    first, *_ = log(whole)
    assert first.keys() == {
        "kind", "step", "epoch", "loss", "accuracy", "learning_rate", "gradient_norm"
    }  # fmt: skip
    assert first["epoch"] == pytest.approx(2 / 3)
    assert all(0 <= record["accuracy"] <= 1 for record in log(whole))
    assert [r["seen"] for r in log(whole) if r["kind"] == "validation"] == [10, 10]
    assert read_log(whole / "log.jsonl")[0]["examples_per_second"] > 0
    config = json.loads((whole / "config.json").read_text())
    assert config["experiment"]["model"]["num_classes"] == 3
    assert training.read_run(whole).class_names == ("a", "b", "c")
    assert (whole / "log.csv").read_text().startswith("kind,step,epoch,loss,accuracy")


def test_the_rate_is_that_of_steps_also_beside_validations(tiny, tmp_path, monkeypatch):
    """On a clock where a step takes a second and a validation a hundred."""
    now = 0.0

    def taking(seconds, function):
        def timed(*args):
            nonlocal now
            now += seconds
            return function(*args)

        return timed

    monkeypatch.setattr(monitor, "time", SimpleNamespace(perf_counter=lambda: now))
    step, validate = setup.make_train_step, loop.validate
    monkeypatch.setattr(setup, "make_train_step", lambda *args: taking(1.0, step(*args)))
    monkeypatch.setattr(loop, "validate", taking(100.0, validate))
    run = tmp_path / "run"
    experiment = replace(tiny, log_every=1, checkpoint_every=2 / 3)
    assert train(experiment, run, devices=ONE).finished
    rates = [r["examples_per_second"] for r in read_log(run / "log.jsonl") if r["kind"] == "train"]
    assert rates == [0.0, 8.0, 8.0, 8.0, 8.0, 8.0]


def test_the_log_has_the_term_of_the_similarity(tiny, tmp_path, monkeypatch):
    def with_term(step):
        def stepped(state, batch):
            state, metrics = step(state, batch)
            return state, replace(metrics, similarity=np.float32(0.25))

        return stepped

    step = setup.make_train_step
    monkeypatch.setattr(setup, "make_train_step", lambda *args: with_term(step(*args)))
    train(tiny, tmp_path)
    terms = [record.get("similarity") for record in log(tmp_path) if record["kind"] == "train"]
    assert terms == [0.25] * 3


@pytest.mark.untyped
def test_a_name_is_no_experiment(tmp_path):
    with pytest.raises(
        ValueError, match=r"experiment must be Experiment\(...\), got 'tiny'; .*load"
    ):
        training.train("tiny", tmp_path)  # pyright: ignore[reportArgumentType]


def test_a_finished_run_is_left_as_it_is(tiny, whole):
    before = log(whole)
    assert train(tiny, whole) == training.Outcome(step=6, finished=True)
    assert log(whole) == before


@pytest.mark.parametrize(
    ("asked", "step", "validations"),
    [(1, 0, []), (2, 1, []), (3, 2, []), (4, 3, []), (6, 3, []), (8, 4, [3])],
)
def test_a_stopped_run_goes_on_bit_for_bit(tiny, whole, tmp_path, asked, step, validations):
    """Before the first step, on and off the steps of the log, and where a run validates, at step 3.

    The loop has polled 4 times when it validates, so a stop at 6 is at the second batch of that.
    """
    outcome = train(tiny, tmp_path, stop=StopAt(asked))
    assert outcome == training.Outcome(step, finished=False)
    assert steps(tmp_path, "validation") == validations
    if step:
        saved, _, position = final_state(tiny, tmp_path)
        assert saved == step and position.validated == max(validations, default=0)
    assert train(tiny, tmp_path).finished
    assert_same_run(tiny, tmp_path, whole)


def test_a_stop_at_the_last_step_leaves_its_validation_to_be_done(tiny, whole, tmp_path):
    assert train(tiny, tmp_path, stop=StopAt(10)) == training.Outcome(step=6, finished=False)
    assert steps(tmp_path, "validation") == [3]
    assert train(tiny, tmp_path).finished
    assert log(tmp_path) == log(whole)


def test_work_after_the_last_checkpoint_is_done_again(tiny, whole, tmp_path):
    """An error after step 4 leaves the checkpoint at 3 and a longer log, as a kill does."""
    write = RunLog.write

    def fail(self, record):
        write(self, record)
        if record["step"] == 4:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunLog, "write", fail)
        train(tiny, tmp_path)
    assert steps(tmp_path, "train") == [2, 4]
    assert final_state(tiny, tmp_path)[0] == 3
    assert train(tiny, tmp_path).finished
    assert_same_run(tiny, tmp_path, whole)


@pytest.mark.slow
def test_another_number_of_devices_gives_the_same_curve(tiny, whole, tmp_path):
    """A checkpoint that was written on one device is also resumed on four."""
    train(tiny, tmp_path, stop=StopAt(3))
    assert train(tiny, tmp_path, devices=jax.devices()).finished
    for ours, theirs in zip(log(tmp_path), log(whole), strict=True):
        assert ours.pop("kind") == theirs.pop("kind")
        assert ours == pytest.approx(theirs, rel=1e-4)
    state, expected = final_state(tiny, tmp_path)[1], final_state(tiny, whole)[1]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        state.params,
        expected.params,
    )


def test_a_damaged_checkpoint_costs_the_work_since_the_one_before(tiny, whole, tmp_path):
    assert train(tiny, tmp_path).finished
    (tmp_path / "checkpoints" / "6" / "metadata" / "metadata").write_text("{")
    expected = (
        r"going back to step 3: \S*checkpoints/6 \(metadata/metadata does not match its digest\)$"
    )
    with pytest.warns(UserWarning, match=expected):
        assert train(tiny, tmp_path).finished
    assert (tmp_path / "damaged" / "6-0").is_dir()
    assert_same_run(tiny, tmp_path, whole)


def poison_batch(monkeypatch, number, value):
    """Fill the images of the ``number``-th batch on the devices with ``value``."""
    calls, shard = [], Setup.shard

    def poison(self, batch):
        calls.append(None)
        if len(calls) == number:
            batch = batch | {"image": np.full(batch["image"].shape, value, np.float32)}
        return shard(self, batch)

    monkeypatch.setattr(Setup, "shard", poison)


def test_a_nan_in_the_images_stops_the_run_with_the_step_named(tiny, tmp_path, monkeypatch):
    """It happens at step 5, after the checkpoint at 3; the batch is stored."""
    experiment = replace(tiny, evaluate_every=10.0)
    poison_batch(monkeypatch, 5, np.nan)
    with pytest.raises(training.NonFiniteError) as error:
        train(experiment, tmp_path)
    assert re.search("the loss is nan at step 5 of 6 .* of step 3; try a lower", str(error.value))
    assert str(tmp_path / "non_finite" / "step-5.npz") in str(error.value)
    with np.load(tmp_path / "non_finite" / "step-5.npz") as batch:
        assert batch["image"].shape == (8, 8, 8, 1) and np.isnan(batch["image"]).all()
        assert len(set(batch["index"].tolist())) == 8
        assert batch["label"].tolist() == [index % 3 for index in batch["index"]]
    assert steps(tmp_path, "train") == [2, 4]
    assert all(np.isfinite(record["loss"]) for record in log(tmp_path))
    step, state, _ = final_state(experiment, tmp_path)
    assert step == 3
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


def test_a_nan_where_the_run_saves_is_not_saved(tiny, tmp_path, monkeypatch):
    """The metrics of a step are read before its state is written."""
    poison_batch(monkeypatch, 3, np.inf)
    with pytest.raises(training.NonFiniteError, match="at step 3 of 6 .* nothing is saved yet"):
        train(tiny, tmp_path)
    assert final_state(tiny, tmp_path) is None


def test_a_batch_that_cannot_be_kept_does_not_hide_the_step(tiny, tmp_path, monkeypatch):
    def full(path, **arrays):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    poison_batch(monkeypatch, 2, np.nan)
    with pytest.raises(training.NonFiniteError, match="at step 2 of 6 .*No space left on device"):
        train(tiny, tmp_path)


def test_a_skipped_step_changes_nothing_but_the_count(tiny, tmp_path, monkeypatch):
    """Step 5 of 6 is skipped, also in a run that is stopped before and after it."""
    with contextlib.closing(prepare(tiny, meshes.data_mesh(ONE)).train_batches(0)) as batches:
        order = [next(batches)["index"].tolist() for _ in range(6)]
    shard = Setup.shard

    def poison(self, batch):
        if "mask" not in batch and batch["index"].tolist() == order[4]:
            batch = batch | {"image": np.full(batch["image"].shape, np.nan, np.float32)}
        return shard(self, batch)

    monkeypatch.setattr(Setup, "shard", poison)
    experiment = replace(
        tiny, non_finite="skip", non_finite_limit=1, log_every=1, checkpoint_every=1 / 3,
        keep_checkpoints=6, evaluate_every=10.0,
    )  # fmt: skip
    assert train(experiment, tmp_path / "whole").finished
    assert steps(tmp_path / "whole", "train") == [1, 2, 3, 4, 6]
    (skipped,) = [record for record in log(tmp_path / "whole") if record["kind"] == "skipped"]
    assert skipped == {"kind": "skipped", "step": 5, "skipped": 1}
    assert (tmp_path / "whole" / "non_finite" / "step-5.npz").exists()
    before, after = (final_state(experiment, tmp_path / "whole", step) for step in (4, 5))
    assert after[1].step == 5 and after[2].passed_over == {"steps": 1}
    jax.tree.map(np.testing.assert_array_equal, before[1].replace(step=after[1].step), after[1])

    for asked in (3, 4):
        train(experiment, tmp_path / "stopped", stop=StopAt(asked))
    assert train(experiment, tmp_path / "stopped").finished
    assert_same_run(experiment, tmp_path / "stopped", tmp_path / "whole")

    # A line of the log that is due at the skipped step is written, and the progress goes on.
    counted = []
    monkeypatch.setattr(Progress, "advance", lambda self, note="": counted.append(note))
    train(replace(experiment, log_every=5), tmp_path / "rare")
    at_5, at_6 = (record for record in log(tmp_path / "rare") if record["kind"] == "train")
    first = [record["loss"] for record in log(tmp_path / "whole") if record["step"] < 5]
    assert at_5["step"] == 5 and at_5["loss"] == pytest.approx(np.mean(first), rel=1e-6)
    assert "gradient_norm" in at_6 and "gradient_norm" not in at_5
    assert len(counted) == 6


def test_too_many_skipped_steps_end_the_run_also_after_a_stop(tiny, tmp_path, monkeypatch):
    poison_batch(monkeypatch, 2, np.nan)
    experiment = replace(tiny, non_finite="skip", non_finite_limit=1, evaluate_every=10.0)
    assert train(experiment, tmp_path, stop=StopAt(4)) == training.Outcome(3, finished=False)
    poison_batch(monkeypatch, 2, np.nan)
    with pytest.raises(training.NonFiniteError, match="step 5 of 6 .* 2 such steps, non_finite_l"):
        train(experiment, tmp_path)


def load_from(monkeypatch, sources):
    monkeypatch.setattr(data, "load", lambda name, split, data_dir=None: sources[split])


def test_intervals_longer_than_the_run_are_met_at_its_end(tiny, tmp_path):
    assert train(replace(tiny, evaluate_every=1e308, checkpoint_every=1e308), tmp_path).finished
    assert [record["kind"] for record in log(tmp_path)].count("validation") == 1


def test_more_parts_of_a_batch_than_images_are_refused(tiny, tmp_path):
    data = replace(tiny.data, batch_size=800)
    message = "accumulation_steps must be at most .* training images on .*, got 100"
    with pytest.raises(ValueError, match=message):
        train(replace(tiny, data=data, accumulation_steps=100), tmp_path)


def test_more_steps_than_can_be_counted_are_refused(tiny, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"steps must be an integer .* <= 2147483647, got 21474"):
        replace(tiny, steps=2**31)
    with pytest.raises(ValueError, match=r"epochs must be .* <= 1e\+06, got 1e\+300"):
        replace(tiny, steps=None, epochs=1e300)
    monkeypatch.setattr("vone_jax.arguments.LARGEST_COUNT", 99)
    with pytest.raises(ValueError, match="epochs must make at most 99 steps, got 100 with"):
        train(replace(tiny, steps=None, epochs=100.0), tmp_path)


def test_a_full_disk_is_an_error_and_the_run_goes_on_when_there_is_room(
    tiny, whole, tmp_path, full_disk
):
    """The full disk is a limit on the size of files. It affects the checkpoint at 6."""
    save = Checkpoints.save

    def fill(self, step, state, position):
        if step == 6:
            self.wait()
            limit_to(2048)
        save(self, step, state, position)

    with pytest.MonkeyPatch.context() as patch, full_disk() as limit_to:
        patch.setattr(Checkpoints, "save", fill)
        with pytest.raises(training.CheckpointError, match=r"could not be written .*\[3\] are"):
            train(tiny, tmp_path)
    assert train(tiny, tmp_path).finished
    assert_same_run(tiny, tmp_path, whole)


@pytest.mark.slow
def test_what_changes_no_number_may_change_on_the_way(tiny, whole, tmp_path):
    train(tiny, tmp_path, stop=StopAt(3))
    moved = replace(
        tiny, data=replace(tiny.data, eval_batch_size=5), checkpoint_every=0.5, keep_checkpoints=4
    )
    assert train(moved, tmp_path).finished
    for ours, theirs in zip(log(tmp_path), log(whole), strict=True):
        assert ours.pop("kind") == theirs.pop("kind")
        assert ours == pytest.approx(theirs, rel=1e-6)
    state, expected = final_state(moved, tmp_path)[1], final_state(tiny, whole)[1]
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["experiment"]["data"]["eval_batch_size"] == 5


def test_the_log_is_on_the_disk_before_each_checkpoint(tiny, tmp_path, monkeypatch):
    done = []

    def noted(cls, name):
        method = getattr(cls, name)
        monkeypatch.setattr(cls, name, lambda *given: done.append(name) or method(*given))

    noted(RunLog, "sync")
    noted(Checkpoints, "save")
    train(tiny, tmp_path)
    assert done == ["sync", "save", "sync", "save"]


def follow(monkeypatch):
    """Return a list that collects the actions of the host in order."""
    done = []
    shard, read = Setup.shard, Monitor.read

    def place(self, batch):
        if "mask" not in batch:
            done.append("place")
        return shard(self, batch)

    def wait(self, saved):
        if self.pending is not None:
            done.append(f"read {self.pending[0]}")
        return read(self, saved)

    monkeypatch.setattr(Setup, "shard", place)
    monkeypatch.setattr(Monitor, "read", wait)
    return done


@pytest.mark.parametrize(
    ("prefetch", "expected"),
    [
        (0, ["place", "read 1", "place", "read 2", "place", "read 3", "place", "read 4"]),
        # The device always has a next step to compute.
        (1, ["place", "place", "read 1", "place", "read 2", "place", "read 3", "read 4"]),
        (3, ["place"] * 4 + ["read 1", "read 2", "read 3", "read 4"]),
    ],
)
def test_as_many_batches_wait_on_the_devices_as_are_asked_for(
    tiny, tmp_path, monkeypatch, prefetch, expected
):
    done = follow(monkeypatch)
    data = replace(tiny.data, prefetch=prefetch)
    train(replace(tiny, data=data, evaluate_every=10.0, checkpoint_every=10.0, steps=4), tmp_path)
    assert done == expected


@pytest.mark.slow
@pytest.mark.parametrize("prefetch", [0, 3])
def test_batches_that_wait_change_no_number_also_after_a_stop(tiny, whole, tmp_path, prefetch):
    ahead = replace(tiny, data=replace(tiny.data, prefetch=prefetch))
    assert train(ahead, tmp_path, stop=StopAt(3)) == training.Outcome(step=2, finished=False)
    assert train(ahead, tmp_path).finished
    assert_same_run(tiny, tmp_path, whole)


def test_compiled_programs_are_kept_where_it_is_said(tiny, tmp_path):
    before = jax.config.jax_compilation_cache_dir
    cache = tmp_path / "compiled"
    experiment = replace(tiny, steps=1, compilation_cache=str(cache))
    try:
        train(experiment, tmp_path / "run", stop=StopAt(2))
    finally:
        fast.keep_compiled(before)
    assert any("train_step" in path.name for path in cache.iterdir())


def test_a_validation_does_not_run_ahead_of_the_devices(tiny, monkeypatch):
    """Images that wait for a slow network fill the memory."""
    ready, events = prepare(tiny, meshes.data_mesh(ONE)), []

    def step(variables, batch):
        events.append("step")
        return ready.eval_step(variables, batch)

    slow = replace(ready, eval_step=step)
    monkeypatch.setattr(jax, "block_until_ready", lambda sums: events.extend("wait" for _ in sums))
    loop.validate(slow, ready.initial_state(), monitor.Stop(lambda: False))
    assert events == ["step", "step", "wait", "step", "wait"]


def test_a_nan_in_validation_stops_the_run(tiny, tmp_path, monkeypatch):
    result = {"loss": float("nan"), "accuracy": 0.0, "seen": 10, "largest_class": 0.5}
    monkeypatch.setattr(training.loop, "validate", lambda setup, state, stop: result)
    with pytest.raises(training.NonFiniteError, match="validation loss is nan at step 3"):
        train(tiny, tmp_path)


@pytest.mark.slow
def test_a_learning_rate_that_is_too_high_stops_the_run(tiny, tmp_path):
    wild = replace(tiny, optimizer=replace(tiny.optimizer, learning_rate=1e30, gradient_clip=None))
    with pytest.raises(training.NonFiniteError, match="is (nan|inf) at step [23] of 6 .learning"):
        train(wild, tmp_path)


@pytest.mark.slow
def test_plateau_follows_the_validation_loss_also_after_a_stop(tiny, tmp_path, monkeypatch):
    """The losses never fall, so the rate is halved after every second validation."""
    losses = iter([])

    def validate(setup, state, stop):
        return {"loss": next(losses), "accuracy": 0.0, "seen": 10, "largest_class": 0.5}

    monkeypatch.setattr(training.loop, "validate", validate)
    experiment = replace(
        tiny,
        optimizer=training.OptimizerConfig(
            learning_rate=0.1, schedule=training.Plateau(decay=0.5, patience=1)
        ),
        evaluate_every=1 / 3,
        checkpoint_every=1 / 3,
        log_every=1,
    )
    losses = iter([1.0] * 6)
    assert train(experiment, tmp_path / "whole").finished
    rates = [r["learning_rate"] for r in log(tmp_path / "whole") if r["kind"] == "train"]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.1, 0.05, 0.05, 0.025])
    losses = iter([1.0] * 6)
    train(experiment, tmp_path / "stopped", stop=StopAt(3))
    assert train(experiment, tmp_path / "stopped").finished
    assert_same_run(experiment, tmp_path / "stopped", tmp_path / "whole")


def test_another_experiment_does_not_touch_the_run(tiny, whole):
    before = log(whole)
    with pytest.raises(training.RunDirectoryError, match="seed: 5 here, 0 there"):
        train(replace(tiny, seed=5), whole)
    assert log(whole) == before


def test_batches_that_do_not_fit_the_devices_are_refused(tiny, tmp_path):
    uneven = replace(tiny, data=replace(tiny.data, batch_size=6))
    with pytest.raises(ValueError, match="data.batch_size .* 4.* got 6"):
        train(uneven, tmp_path / "run", devices=jax.devices())
    assert not (tmp_path / "run").exists()


def test_splits_with_other_classes_are_refused(tiny, tmp_path, monkeypatch):
    renamed = tiny_source("test")
    renamed.class_names = ("a", "c", "b")
    load_from(monkeypatch, {"train": tiny_source("train"), "test": renamed})
    with pytest.raises(ValueError, match="class 1 is 'b' in the first and 'c' in the second"):
        train(tiny, tmp_path)


def test_a_small_set_is_one_batch(tiny, tmp_path, capsys):
    large = replace(tiny, data=replace(tiny.data, batch_size=32), steps=1)
    training.train(large, tmp_path, devices=jax.devices()[:1], progress=True)
    assert "24 training images, so batches have 24 instead of 32" in capsys.readouterr().err
    assert training.read_run(tmp_path).experiment.data.batch_size == 24


def test_a_run_is_loaded_with_the_variables_of_its_last_checkpoint(tiny, whole):
    _, experiment, model, variables = training.load_run(whole)
    _, state, _ = final_state(tiny, whole)
    assert experiment == replace(tiny, model=replace(tiny.model, num_classes=3))
    assert variables.keys() == {"params", "batch_stats"}
    jax.tree.map(np.testing.assert_array_equal, variables["params"], state.params)
    logits = model.apply(variables, np.zeros((2, 8, 8, 1), np.float32))
    assert logits.shape == (2, 3)
    step, *_, earlier = training.load_run(whole, step=3)
    assert step == 3
    assert np.any(earlier["params"]["conv"]["kernel"] != variables["params"]["conv"]["kernel"])


def test_a_run_is_loaded_whatever_its_optimiser_was(whole, monkeypatch):
    _, _, _, variables = training.load_run(whole)
    other = run_dirs.initial_state
    monkeypatch.setattr(run_dirs, "initial_state", lambda *a: replace(other(*a), opt_state=()))
    jax.tree.map(np.testing.assert_array_equal, training.load_run(whole)[3], variables)


def test_what_is_no_trained_run_is_named(tiny, tmp_path):
    with pytest.raises(training.RunDirectoryError, match="holds no run"):
        training.load_run(tmp_path)
    train(tiny, tmp_path, stop=StopAt(1))
    with pytest.raises(training.RunDirectoryError, match="has no checkpoint yet"):
        training.load_run(tmp_path)


def test_a_line_for_each_validation_where_there_is_no_terminal(tiny, tmp_path, capsys):
    train(tiny, tmp_path, progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines.pop(1) == "warning: a run of 6 steps learns little; give more --steps"
    assert "from the start to step 6, 1 x cpu" in lines[0]
    assert lines[1].startswith("step 3, epoch 1: validation loss ")
    assert lines[2].startswith("step 6, epoch 2: validation loss ")
    assert lines[3] == "finished at step 6"
    assert len(lines) == 4


def test_a_validation_is_announced(tiny, tmp_path, monkeypatch):
    """A long one would look as if the training hung."""
    said = []
    monkeypatch.setattr(training.loop.Progress, "doing", lambda self, what: said.append(what))
    train(tiny, tmp_path, progress=True)
    assert said == ["validating on 10 images", "training"] * 2


@pytest.mark.parametrize(
    ("accuracy", "largest", "told"),
    [
        (0.34, 0.4, "34.0 % is near chance, 33.3 %"),
        (0.5, 0.4, None),
        (0.5, 0.5, "50.0 % is no more than the largest class has, 50.0 %"),
    ],
)
def test_a_network_that_has_learned_nothing_is_told(
    tiny, tmp_path, capsys, monkeypatch, accuracy, largest, told
):
    """At the end. There are three classes."""
    measured = {"loss": 1.0, "accuracy": accuracy, "seen": 10, "largest_class": largest}
    monkeypatch.setattr(training.loop, "validate", lambda *args: dict(measured))
    train(tiny, tmp_path, progress=True)
    shown = capsys.readouterr().err
    assert ("the network has learned little; try a" in shown) == (told is not None)
    assert told is None or shown.count(f"warning: {told}: the network has learned little") == 1


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"schedule": training.Step(epochs=(1, 2, 4))}, "beyond --optimizer.schedule.epochs 2 4;"),
        ({"schedule": training.Step(epochs=(1,))}, None),
        ({"warmup_epochs": 3.0}, "beyond --optimizer.warmup-epochs 3;"),
        ({"warmup_epochs": 1.0}, None),
    ],
)
def test_a_schedule_that_is_longer_than_the_run_is_told(tiny, tmp_path, capsys, settings, told):
    """The rate would be that of the start, all through a short run with a config for a long one."""
    optimizer = replace(tiny.optimizer, **settings)
    train(replace(tiny, optimizer=optimizer), tmp_path, stop=lambda: True, progress=True)
    shown = capsys.readouterr().err
    assert ("the run ends at epoch 2 and" in shown) == (told is not None)
    assert told is None or told in shown


def test_a_validation_counts_the_largest_class(tiny, tmp_path, monkeypatch):
    real, measured = training.loop.validate, []

    def spy(*arguments):
        measured.append(real(*arguments))
        return dict(measured[-1])

    monkeypatch.setattr(training.loop, "validate", spy)
    train(tiny, tmp_path)
    source = tiny_source("test")
    labels = [source[i]["label"] for i in range(len(source))]
    largest = max(map(labels.count, labels)) / len(labels)
    assert {each["largest_class"] for each in measured} == {largest}
    assert "largest_class" not in log(tmp_path)[-1]


def test_one_class_is_told(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Setup, "num_classes", 1)
    train(tiny, tmp_path, progress=True)
    shown = capsys.readouterr().err
    assert "warning: tiny has one class, so there is nothing to learn" in shown
    assert "near chance" not in shown
