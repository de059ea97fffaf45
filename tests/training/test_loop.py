"""The loop: what happens at which step, resuming bit for bit, and all ways to stop."""

import json
import shutil
from dataclasses import replace

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from tiny import final_state, log, tiny_source

from tests.networks import TinyNet
from vone_jax import data, models, runs, training
from vone_jax.network import Network
from vone_jax.training import loop, objective
from vone_jax.training.run import Checkpoints, RunLog, read_log
from vone_jax.training.step import Sums

pytestmark = pytest.mark.usefixtures("cached_compilation")

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
    """Check that states and logs are equal to the last bit."""
    states = (final_state(experiment, run_dir) for run_dir in (ours, theirs))
    jax.tree.map(np.testing.assert_array_equal, *states)
    assert log(ours) == log(theirs)


def sums_of(correct, loss=10.0):
    """The sums of a validation of 10 images."""
    return Sums(loss=np.float32(loss), correct=correct, seen=10)


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
    assert training.saved_steps(whole) == [3, 6]
    for step, seen in ((3, 8), (6, 16)):
        state = final_state(tiny, whole, step)
        assert int(state.step) == int(state.validated) == step
        # Since the last line of the log.
        assert int(state.sums.seen) == seen and int(state.skipped) == 0


def test_the_log_says_what_the_contract_says(whole):
    first, *_ = log(whole)
    assert first.keys() == {
        "kind", "step", "epoch", "loss", "accuracy", "learning_rate", "gradient_norm"
    }  # fmt: skip
    assert first["epoch"] == pytest.approx(2 / 3)
    assert all(0 <= record["accuracy"] <= 1 for record in log(whole))
    assert [r["seen"] for r in log(whole) if r["kind"] == "validation"] == [10, 10]
    assert read_log(whole / "log.jsonl")[-2]["examples_per_second"] > 0


def test_a_run_describes_itself(tiny, whole):
    described = training.read_run(whole)
    assert described.unresolved == tiny and described.class_names == ("a", "b", "c")
    assert described.experiment == training.resolve(tiny, tiny_source("train"))


def test_the_means_of_a_line_are_those_of_the_steps_since_the_last(tiny, whole, tmp_path):
    """Also where a checkpoint, from which the run resumes, lies between the two."""
    train(replace(tiny, log_every=1), tmp_path / "each")
    each = [record["loss"] for record in log(tmp_path / "each") if record["kind"] == "train"]
    pairs = [record["loss"] for record in log(whole) if record["kind"] == "train"]
    np.testing.assert_allclose(pairs, np.mean(np.reshape(each, (3, 2)), axis=1), rtol=1e-6)


def test_a_finished_run_is_left_as_it_is(tiny, whole):
    before = log(whole)
    assert train(tiny, whole) == training.Outcome(step=6, finished=True)
    assert log(whole) == before


@pytest.mark.parametrize(("asked", "step", "validations"), [(4, 3, []), (6, 3, []), (8, 4, [3])])
def test_a_stopped_run_goes_on_bit_for_bit(tiny, whole, tmp_path, asked, step, validations):
    """On and off the steps of the log, and where a run validates, at step 3.

    The loop has polled 4 times when it validates, so a stop at 6 is at the second batch of that.
    """
    outcome = train(tiny, tmp_path, stop=StopAt(asked))
    assert outcome == training.Outcome(step, finished=False)
    assert steps(tmp_path, "validation") == validations
    assert training.saved_steps(tmp_path)[-1:] == ([step] if step else [])
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
    assert training.saved_steps(tmp_path) == [3]
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
    state, expected = final_state(tiny, tmp_path), final_state(tiny, whole)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        state.params,
        expected.params,
    )


@pytest.fixture
def poison(tiny, monkeypatch):
    """A function that makes the images of some batches NaN, by their numbers from 1."""
    source = tiny_source("train")
    experiment = training.resolve(tiny, source)
    batches = loop.train_batches(experiment, source, 0)
    order = [next(batches)["index"].tolist() for _ in range(6)]
    place = loop.place

    def poisoned(*numbers):
        def placed(mesh, batch):
            result = place(mesh, batch)
            if "mask" not in batch and order.index(batch["index"].tolist()) + 1 in numbers:
                result["image"] = result["image"] * np.float32(np.nan)
            return result

        monkeypatch.setattr(loop, "place", placed)

    return poisoned


def test_a_nan_in_the_images_stops_the_run_with_the_step_named(tiny, tmp_path, poison):
    """It happens at step 5, after the checkpoint at 3, and is noticed with the next line."""
    poison(5)
    with pytest.raises(training.NonFiniteError, match="step 5; .* that of step 3"):
        train(tiny, tmp_path)
    assert steps(tmp_path, "train") == [2, 4]
    assert training.saved_steps(tmp_path) == [3]
    state = final_state(tiny, tmp_path)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@pytest.mark.slow
def test_a_skipped_step_changes_nothing_but_the_counters(tiny, tmp_path, poison):
    """Step 5 of 6 is skipped, also in a run that is stopped after it."""
    poison(5)
    experiment = replace(
        tiny, non_finite_limit=1, log_every=1, checkpoint_every=1 / 3, keep_checkpoints=6
    )
    assert train(experiment, tmp_path / "whole").finished
    assert steps(tmp_path / "whole", "train") == [1, 2, 3, 4, 6]
    assert [record.get("skipped") for record in log(tmp_path / "whole")][-2:] == [1, None]
    before, after = (final_state(experiment, tmp_path / "whole", step) for step in (4, 5))
    assert (int(after.skipped), int(after.last_skipped), int(after.sums.seen)) == (1, 5, 0)
    for part in ("params", "batch_stats", "opt_state"):
        jax.tree.map(np.testing.assert_array_equal, getattr(before, part), getattr(after, part))
    assert train(experiment, tmp_path / "stopped", stop=StopAt(9)).step == 5
    assert train(experiment, tmp_path / "stopped").finished
    assert_same_run(experiment, tmp_path / "stopped", tmp_path / "whole")
    # A line that is due at the skipped step has the means of those before it.
    train(replace(experiment, log_every=5), tmp_path / "rare")
    at_5, _ = (record for record in log(tmp_path / "rare") if record["kind"] == "train")
    first = [r["loss"] for r in log(tmp_path / "whole") if r["kind"] == "train" and r["step"] < 5]
    assert at_5["loss"] == pytest.approx(np.mean(first), rel=1e-6)
    assert "gradient_norm" not in at_5


def test_too_many_skipped_steps_end_the_run_also_after_a_stop(tiny, tmp_path, poison):
    poison(2, 5)
    experiment = replace(tiny, non_finite_limit=1)
    assert train(experiment, tmp_path, stop=StopAt(4)) == training.Outcome(3, finished=False)
    with pytest.raises(training.NonFiniteError, match="step 5; 2 such steps"):
        train(experiment, tmp_path)


def test_the_best_checkpoint_is_kept_and_loaded_if_it_is_asked_for(tiny, tmp_path, monkeypatch):
    """Validations at 2, 4, ..., 12: the best is that at 4, and the last two are kept beside it."""
    accuracies = iter([3, 8, 5, 6, 7, 2])

    def validate(*args):
        return sums_of(next(accuracies))

    monkeypatch.setattr(loop, "validate", validate)
    experiment = replace(tiny, steps=12, evaluate_every=2 / 3, checkpoint_every=2.0)
    assert train(replace(experiment, keep_best=True), tmp_path / "best").finished
    # Beside the last, an interval of checkpoints and the best.
    assert training.saved_steps(tmp_path / "best") == [4, 6, 12]
    assert runs.load_run(tmp_path / "best").step == 4
    assert runs.load_run(tmp_path / "best", step=12).step == 12
    accuracies = iter([3, 8, 5, 6, 7, 2])
    assert train(experiment, tmp_path / "last").finished
    assert training.saved_steps(tmp_path / "last") == [6, 12]
    assert runs.load_run(tmp_path / "last").step == 12
    # Only what is kept differs.
    states = (final_state(experiment, tmp_path / name) for name in ("best", "last"))
    jax.tree.map(np.testing.assert_array_equal, *states)


def test_a_run_stopped_and_killed_in_its_best_validation_keeps_that_checkpoint(
    tiny, tmp_path, monkeypatch
):
    """The validation at 2 is stopped, then killed, and then it is the best of the run."""
    experiment = replace(tiny, steps=12, evaluate_every=2 / 3, checkpoint_every=2.0, keep_best=True)
    answers = {}

    def validate(step, state, *args):
        answer = answers[int(jax.tree.leaves(state.step)[0])].pop(0)
        if answer is KeyboardInterrupt:
            raise KeyboardInterrupt
        return None if answer is None else sums_of(answer)

    monkeypatch.setattr(loop, "validate", validate)
    answers |= {2: [None, KeyboardInterrupt, 8], 4: [3], 6: [5], 8: [6], 10: [7], 12: [2]}
    assert train(experiment, tmp_path) == training.Outcome(2, finished=False)
    with pytest.raises(KeyboardInterrupt):
        train(experiment, tmp_path)
    assert train(experiment, tmp_path).finished
    assert steps(tmp_path, "validation") == [2, 4, 6, 8, 10, 12]
    assert runs.load_run(tmp_path).step == 2
    # A command that is run again after the end, and killed, loses nothing.
    assert train(experiment, tmp_path, stop=StopAt(1)).step == 12
    assert runs.load_run(tmp_path).step == 2
    (tmp_path / "log.jsonl").unlink()
    with pytest.raises(training.RunDirectoryError, match="has lost its log.jsonl"):
        runs.load_run(tmp_path)


@pytest.mark.slow
def test_what_changes_no_number_may_change_on_the_way(tiny, whole, tmp_path):
    train(tiny, tmp_path, stop=StopAt(3))
    # Also the place of the images, whose fingerprint is compared.
    elsewhere = replace(tiny.data, source="moved", eval_batch_size=5)
    moved = replace(tiny, data=elsewhere, checkpoint_every=0.5, keep_checkpoints=4)
    assert train(moved, tmp_path).finished
    for ours, theirs in zip(log(tmp_path), log(whole), strict=True):
        assert ours.pop("kind") == theirs.pop("kind")
        assert ours == pytest.approx(theirs, rel=1e-6)
    jax.tree.map(
        np.testing.assert_array_equal, final_state(moved, tmp_path), final_state(tiny, whole)
    )
    described = training.read_run(tmp_path)
    assert described.experiment.data.eval_batch_size == 5 and described.unresolved == moved
    assert described.experiment.data.source == "moved"


def test_another_experiment_does_not_touch_the_run(tiny, whole):
    before = log(whole)
    with pytest.raises(training.RunDirectoryError, match="seed: 5 here, 0 there"):
        train(replace(tiny, seed=5), whole)
    assert log(whole) == before


def test_a_run_does_not_go_on_with_other_images(tiny, whole, monkeypatch):
    """Replaced, added or removed ones: otherwise the result is of a mixture."""
    before = log(whole)
    for changed in ("train", "test"):
        for count in (24 if changed == "train" else 10, 9):
            sources = {split: tiny_source(split) for split in ("train", "test")}
            source = sources[changed]
            images = np.stack([source[i]["image"] for i in range(count)])
            images[-1] = 255 - images[-1]
            labels = np.array([source[i]["label"] for i in range(count)])
            sources[changed] = data.ArraySource(
                images, labels, class_names=source.class_names, name="tiny", split=changed
            )
            monkeypatch.setattr(
                data, "load", lambda name, split, data_dir=None, s=sources: s[split]
            )
            which = "training" if changed == "train" else "validation"
            with pytest.raises(training.RunDirectoryError, match=f"its {which} images are [12]."):
                train(tiny, whole)
    assert log(whole) == before


def test_targets_are_computed_in_the_precision_of_the_run(tiny, tmp_path, monkeypatch):
    def targets(*args):
        raise InterruptedError(jax.config.jax_default_matmul_precision)

    monkeypatch.setattr(training.Similarity, "resources", targets)
    pixels = training.Similarity("pixels")
    similar = replace(tiny, objectives=(pixels,), matmul_precision="high")
    with pytest.raises(InterruptedError, match="^high$"):
        train(similar, tmp_path)


def test_steps_and_validations_are_computed_in_the_precision_of_the_run(
    tiny, tmp_path, monkeypatch
):
    seen, cross_entropy = [], objective.cross_entropy

    def watched(*args):
        seen.append((len(args), jax.config.jax_default_matmul_precision))
        return cross_entropy(*args)

    monkeypatch.setattr(objective, "cross_entropy", watched)
    train(replace(tiny, matmul_precision="high", steps=1), tmp_path)
    # The loss of a step has a label smoothing.
    assert set(seen) == {(3, "high"), (2, "high")}


@pytest.mark.slow
@pytest.mark.usefixtures("standard_promotion")
def test_means_mixing_and_adam_resume_bit_for_bit(tiny, tmp_path):
    optimizer = training.OptimizerConfig(
        method="adamw", learning_rate=0.01, schedule=training.OneCycle(), gradient_clip=1.0
    )
    experiment = replace(
        tiny,
        optimizer=optimizer,
        ema_decay=0.9,
        objectives=(training.Mixing(0.4, 1.0),),
        keep_best=True,
    )
    assert train(experiment, tmp_path / "whole").finished
    for stop in (3, 7):
        train(experiment, tmp_path / "stopped", stop=StopAt(stop))
    assert train(experiment, tmp_path / "stopped").finished
    assert_same_run(experiment, tmp_path / "stopped", tmp_path / "whole")
    # The means are what is evaluated.
    state = final_state(experiment, tmp_path / "whole")
    loaded = runs.load_run(tmp_path / "whole", step=6).variables
    jax.tree.map(np.testing.assert_array_equal, loaded, state.ema)
    assert np.any(state.ema["params"]["conv"]["kernel"] != state.params["conv"]["kernel"])


def test_a_run_is_loaded_in_float32_unless_it_is_asked_otherwise(tiny, tmp_path, monkeypatch):
    """Also one that was trained in bfloat16."""
    built = []

    def build(self):
        built.append(self.precision)
        return TinyNet()

    monkeypatch.setattr(training.Experiment, "build", build)
    train(replace(tiny, precision="bfloat16", steps=1), tmp_path)
    built.clear()
    runs.load_run(tmp_path)
    runs.load_run(tmp_path, precision="bfloat16")
    assert built == ["float32", "bfloat16"]


def test_a_checkpoint_with_other_weights_than_were_saved_is_refused(tiny, whole, tmp_path):
    """Orbax reads a number whose bytes were changed. Here a sound checkpoint has another one."""
    copy = shutil.copytree(whole, tmp_path / "run")
    of_step = copy / "checkpoints/6"
    with ocp.StandardCheckpointer() as saved:
        state = saved.restore(of_step.absolute() / "state")
        state["params"]["conv"]["kernel"][0, 0, 0, 0] *= 1 + 1e-6
        saved.save(of_step.absolute() / "state", state, force=True)
    for use in (runs.load_run, lambda directory: train(tiny, directory)):
        with pytest.raises(training.RunDirectoryError, match="/checkpoints/6 has other weights"):
            use(copy)
    assert runs.load_run(copy, step=3).step == 3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda config: config["experiment"]["model"].update(stem_gain=2.0), "stem_gain: 2.0"),
        (lambda config: config["experiment"]["data"].update(center_crop=0.5), "center_crop: 0.5"),
        (lambda config: config["experiment"].update(seed=7), "\n  seed: 7 here, 0 there"),
        (lambda config: config["class_names"].reverse(), "class_names: .*here"),
    ],
    ids=["network", "images", "training", "classes"],
)
def test_a_run_whose_description_was_changed_after_the_training_is_refused(
    tiny, whole, tmp_path, change, field
):
    copy = shutil.copytree(whole, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    change(config)
    (copy / "config.json").write_text(json.dumps(config))
    with pytest.raises(training.RunDirectoryError, match=field):
        runs.load_run(copy)
    with pytest.raises(training.RunDirectoryError):
        train(tiny, copy)


def test_a_checkpoint_has_the_checksum_that_results_bear(whole):
    loaded = runs.load_run(whole)
    network = Network.of_model("tiny", models.create("resnet18"), loaded.variables)
    written = json.loads((whole / "checkpoints/6/description/metadata").read_text())
    assert written["weights"] == network.checksum


def test_where_images_lie_may_change_after_the_training(whole, tmp_path):
    copy = shutil.copytree(whole, tmp_path / "run")
    config = json.loads((copy / "config.json").read_text())
    config["experiment"]["data"]["data_dir"] = "elsewhere"
    (copy / "config.json").write_text(json.dumps(config))
    assert runs.load_run(copy).step == 6


def test_a_run_that_could_not_be_opened_is_refused_before_it_begins(tiny, tmp_path):
    """A config is no module, so nothing could import a class that it defines itself."""
    lost = type("Lost", (training.Cosine,), {"__module__": "<run_path>"})()
    optimizer = replace(tiny.optimizer, schedule=lost)
    with pytest.raises(ValueError, match="Lost: .*a file of its own, which lies beside the config"):
        train(replace(tiny, optimizer=optimizer), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_go_on_with_other_classes(tiny, whole, monkeypatch):
    renamed = tiny_source("train")
    renamed.class_names = ("a", "b", "x")
    monkeypatch.setattr(data, "load", lambda name, split, data_dir=None: renamed)
    with pytest.raises(training.RunDirectoryError, match="a, b, x"):
        train(tiny, whole)


def test_a_second_process_in_a_directory_is_refused(tiny, tmp_path):
    def stop():
        with pytest.raises(training.RunDirectoryError, match="another process is training in"):
            train(tiny, tmp_path)
        return True

    train(tiny, tmp_path, stop=stop)


def test_the_host_waits_only_where_it_logs_validates_or_saves(tiny, tmp_path, monkeypatch):
    """Otherwise an accelerator would idle while the host loads the next batch."""
    fetched = []
    monkeypatch.setattr(
        loop.meshes, "fetch", lambda tree: fetched.append(None) or jax.device_get(tree)
    )
    train(replace(tiny, steps=40, log_every=20, evaluate_every=100.0), tmp_path)
    # Two lines of the log, the sums of one validation, and the schedule after it.
    assert len(fetched) == 4


def test_a_nan_in_validation_stops_the_run(tiny, tmp_path, monkeypatch):
    result = sums_of(0, np.nan)
    monkeypatch.setattr(loop, "validate", lambda *args: result)
    with pytest.raises(training.NonFiniteError, match="validation loss is nan at step 3"):
        train(tiny, tmp_path)


def test_a_training_that_ends_at_chance_after_its_loss_exploded_is_told(
    tiny, tmp_path, monkeypatch, capsys
):
    """At the first validation, and at the end, also of a run that is started again."""
    monkeypatch.setattr(training.Experiment, "build", lambda self: TinyNet(norm=False))

    def at_rate(rate):
        return replace(tiny, optimizer=training.OptimizerConfig(learning_rate=rate))

    # Without normalisation, one step of 300 times the gradient gives a loss of hundreds.
    for _ in range(2):
        with pytest.warns(UserWarning, match="guessing"):
            train(at_rate(300.0), tmp_path / "exploded", progress=True)
    assert max(r["loss"] for r in log(tmp_path / "exploded") if r["kind"] == "train") > 100
    lines = capsys.readouterr().err.splitlines()
    told = [line.split(",")[0] for line in lines if line.startswith(("step", "warning"))]
    assert [line.split(":")[0] for line in told] == ["step 3", "warning", "step 6"]
    assert len([line for line in lines if line.startswith("finished at step 6, at chance")]) == 2
    # A network that has not learnt yet is at chance, too, without such a loss.
    train(at_rate(1e-6), tmp_path / "calm", progress=True)
    assert "guessing" not in capsys.readouterr().err


@pytest.mark.slow
def test_plateau_follows_the_validation_loss_also_after_a_stop(tiny, tmp_path, monkeypatch):
    """The losses never fall, so the rate is halved after every second validation."""

    monkeypatch.setattr(loop, "validate", lambda *args: sums_of(0))
    schedule = training.Plateau(decay=0.5, patience=1)
    experiment = replace(
        tiny,
        optimizer=training.OptimizerConfig(learning_rate=0.1, schedule=schedule),
        evaluate_every=1 / 3,
        checkpoint_every=1 / 3,
        log_every=1,
    )
    assert train(experiment, tmp_path / "whole").finished
    rates = [r["learning_rate"] for r in log(tmp_path / "whole") if r["kind"] == "train"]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.1, 0.05, 0.05, 0.025])
    train(experiment, tmp_path / "stopped", stop=StopAt(3))
    assert train(experiment, tmp_path / "stopped").finished
    assert_same_run(experiment, tmp_path / "stopped", tmp_path / "whole")


def test_batches_that_do_not_fit_are_refused(tiny, tmp_path, monkeypatch):
    uneven = replace(tiny, data=replace(tiny.data, batch_size=6))
    with pytest.raises(ValueError, match="data.batch_size"):
        train(uneven, tmp_path / "run", devices=jax.devices())
    large = replace(tiny, data=replace(tiny.data, batch_size=32))
    with pytest.raises(ValueError, match="batch_size 32"):
        train(large, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_splits_with_other_classes_or_the_same_images_are_told(tiny, tmp_path, monkeypatch):
    sources = {split: tiny_source("train") for split in ("train", "test", "train[80%:]")}
    sources["test"].class_names = ("a", "c", "b")
    monkeypatch.setattr(data, "load", lambda name, split, data_dir=None: sources[split])
    with pytest.raises(ValueError, match="one has 'b' where the other has 'c'"):
        train(tiny, tmp_path)
    watched = replace(tiny, data=replace(tiny.data, eval_split="train[80%:]"))
    with pytest.warns(UserWarning, match="validates on images of the training split"):
        train(watched, tmp_path, stop=lambda: True)


def test_a_run_is_loaded_with_the_variables_of_its_last_checkpoint(tiny, whole):
    run = runs.load_run(whole)
    state = final_state(tiny, whole)
    assert run.variables.keys() == {"params", "batch_stats"} and run.step == 6
    jax.tree.map(np.testing.assert_array_equal, run.variables["params"], state.params)
    logits = run.model.apply(run.variables, np.zeros((2, 8, 8, 1), np.float32))
    assert logits.shape == (2, 3)
    earlier = runs.load_run(whole, step=3).variables
    assert np.any(earlier["params"]["conv"]["kernel"] != run.variables["params"]["conv"]["kernel"])
    with pytest.raises(training.RunDirectoryError, match=r"no checkpoint 5 in .*; there are \[3"):
        runs.load_run(whole, step=5)


def test_what_is_no_trained_run_is_named(tiny, tmp_path):
    with pytest.raises(training.RunDirectoryError, match="holds no run"):
        runs.load_run(tmp_path)
    train(tiny, tmp_path, stop=StopAt(1))
    with pytest.raises(training.RunDirectoryError, match="has no checkpoint yet"):
        runs.load_run(tmp_path)


def test_a_path_in_which_checkpoints_would_be_lost_is_refused(tiny, tmp_path):
    """In some of these Orbax writes a checkpoint that it cannot read."""
    with pytest.raises(training.RunDirectoryError, match="has one of the characters"):
        train(tiny, tmp_path / "a[1]/run")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_an_error_and_the_run_goes_on_when_there_is_room(
    tiny, whole, tmp_path, full_disk
):
    """The full disk is a limit on the size of files. It affects the checkpoint at 6."""
    save = Checkpoints.save

    def fill(self, step, state):
        if step == 6:
            self._manager.wait_until_finished()
            limit_to(2048)
        save(self, step, state)

    with pytest.MonkeyPatch.context() as patch, full_disk() as limit_to:
        patch.setattr(Checkpoints, "save", fill)
        with pytest.raises(Exception, match="File too large|EFBIG"):
            train(tiny, tmp_path)
    assert training.saved_steps(tmp_path) == [3]
    assert train(tiny, tmp_path).finished
    assert_same_run(tiny, tmp_path, whole)
