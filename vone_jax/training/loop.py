"""The training loop.

Order of events. "Step k" is the state after k optimiser steps. At each k the loop validates, saves,
and only then takes the next batch and steps. So a checkpoint at k holds the weights that the
validation at k has used, and the state of a data iterator that has returned k batches.

  - Nothing is validated or saved at step 0. Both happen at their intervals and at the last step,
    once: a run that resumes from a checkpoint at k does not repeat them.
  - A run of n steps makes n updates; the last one is in the checkpoint n.
  - After a request to stop at k, a run saves at k without validating. When it resumes, it validates
    first.
  - The metrics of step k are read after step k + 1 has been dispatched, so that the device does not
    wait for the log. So the batch of step k + 1 is loaded and placed while step k runs, unless
    ``data.prefetch`` is 0. Before a validation or a checkpoint, metrics are read at once.
  - With several processes, the metrics carry a request to stop from one process to all. So all stop
    at the same step, which is one or two steps later.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import arguments, fast, files
from vone_jax import mesh as meshes
from vone_jax.experiments import run_dir as run_dirs
from vone_jax.experiments.checkpoint import Checkpoints, Position, saved_steps
from vone_jax.experiments.experiment import Experiment
from vone_jax.experiments.optimizer import Step, after_validation
from vone_jax.experiments.state import TrainState
from vone_jax.progress import Progress
from vone_jax.training import initial
from vone_jax.training.monitor import Monitor, RunLog, Stop
from vone_jax.training.setup import Prefetch, Setup, prepare
from vone_jax.training.step import Sums

# A run gets a warning if it has fewer steps, or if its accuracy is below this multiple of chance.
_FEW_STEPS = 100
_NEAR_CHANCE = 1.2


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a call of ``train``."""

    # Number of optimiser steps done, all of them in a checkpoint.
    step: int
    # False if the run was stopped before its end.
    finished: bool


def train(
    experiment: Experiment,
    run_dir: Path | str,
    *,
    devices: Sequence[Any] | None = None,
    stop: Callable[[], bool] = lambda: False,
    command: str = "",
    tensorboard: bool = False,
    progress: bool = False,
) -> Outcome:
    """Train, from the last checkpoint in the run directory if there is one.

    A run on CPUs that was stopped or killed, and resumed on the same number of devices, ends with
    the same bits as an uninterrupted run. On other meshes the results agree up to rounding.

    Args:
      experiment: the experiment to train.
      run_dir: directory of the run, see ``run_dir.py``. It is made if it does not exist.
      devices: the ``jax.Device``s to train on; default: all.
      stop: polled at every step. Once it returns True in any process, the run saves and the call
        returns. It must then keep returning True. ``cli.StopOnSignal`` is such an object.
      command: the command that started the program, to be stored in ``config.json``.
      tensorboard: also write TensorBoard files, to ``run_dir/tensorboard``.
      progress: report on stderr.

    Raises:
      ValueError: if parts of the experiment do not fit each other or the data, if nothing in the
        initial weights fits the network, or without the package for TensorBoard files.
      RunDirectoryError: if the directory is in use or holds another experiment, or if its path has
        a character with which checkpoints may be lost.
      CheckpointError: if a checkpoint cannot be written, or all checkpoints are damaged.
      NonFiniteError: at a loss or gradient that is NaN or infinite, see ``Experiment.non_finite``.
      OSError: if the log cannot be written.
    """
    arguments.instance("experiment", experiment, Experiment, "; training.load_config reads one")
    run_dir = Path(run_dir)
    run_dirs.check_path(run_dir)
    if tensorboard and importlib.util.find_spec("tensorboardX") is None:
        raise ValueError(
            'tensorboard needs the package tensorboardX: pip install "vone-jax[tracking]"'
        )
    if experiment.compilation_cache is not None:
        fast.keep_compiled(experiment.compilation_cache)
    mesh = meshes.data_mesh(devices)
    configured_size = experiment.data.batch_size
    setup = prepare(experiment, mesh)
    experiment = setup.experiment
    similarity_digest = None
    if experiment.similarity is not None and experiment.similarity.path is not None:
        similarity_digest = files.digest(Path(os.path.expanduser(experiment.similarity.path)))
    weights = None
    # A run that resumes has its weights in a checkpoint. The source may be gone.
    if experiment.initial_weights is not None and not saved_steps(run_dir / run_dirs.CHECKPOINTS):
        weights = initial.choose(setup)
    stop_request = Stop(stop)
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(jax.default_matmul_precision(experiment.matmul_precision))
        description = run_dirs.RunDescription(
            experiment,
            class_names=tuple(setup.train_source.class_names),
            parameters=setup.parameters,
            device=meshes.describe(mesh),
            command=command,
            initial_digest=None if weights is None else weights.digest,
            teacher_weights=setup.teacher_weights,
            similarity_digest=similarity_digest,
            names_digest=getattr(setup.train_source, "names_digest", None),
            validation_names_digest=getattr(setup.eval_source, "names_digest", None),
        )
        enter(run_dirs.open_run(run_dir, description))
        checkpoints = enter(
            Checkpoints(run_dir / run_dirs.CHECKPOINTS, experiment.keep_checkpoints)
        )
        # Restore a checkpoint of this run if there is one; else start from initial weights if they
        # are given, or from random ones.
        step, state, position = 0, setup.initial_state(), Position()
        restored = checkpoints.restore(jax.eval_shape(lambda: state))
        if restored is not None:
            step, host_state, position = restored
            checkpoints.set_aside(newer_than=step)
            state = meshes.replicate(mesh, host_state)
        elif weights is not None:
            state = weights.put_into(state, mesh)
        batches = enter(contextlib.closing(setup.train_batches(step)))
        # One batch is placed during a step anyway.
        ahead = max(0, experiment.data.prefetch - 1)
        upcoming = Prefetch(batches, setup.shard, ahead, setup.total_steps - step)
        saved, validated = step, position.validated
        tensorboard_dir = run_dir / "tensorboard" if tensorboard else None
        log = enter(RunLog(run_dir / run_dirs.LOG, step, validated, tensorboard_dir))
        shown = progress and jax.process_index() == 0
        report = enter(Progress(setup.total_steps, step, shown=shown))
        begin = f"from step {step}" if step else "from the start"
        report.line(
            f"{experiment.name}: {experiment.model.name}, {setup.parameters:,} parameters, on "
            f"{len(setup.train_source):,} images of {experiment.data.source}, {begin} to step "
            f"{setup.total_steps}, {meshes.describe(mesh)}"
        )
        for warning in _warnings(setup, configured_size):
            report.line(f"warning: {warning}")
        if restored is None and weights is not None:
            report.line(weights.table())
            for name, part in weights.parts.items():
                log.write({"kind": "initial_weights", "step": 0, "part": name, **part})
        interval = Sums(**position.interval)
        monitor = Monitor(setup, run_dir, log, report, stop_request, interval, position.passed_over)

        def save() -> None:
            with monitor.clock.paused():
                log.sync()
                sums = dataclasses.asdict(monitor.interval)
                position = Position(validated, sums, monitor.passed_over)
                checkpoints.save(step, state, position)

        def rescue() -> None:
            """Save after a failed validation. An error of saving must not hide that failure."""
            try:
                save()
                checkpoints.wait()
            except Exception as error:
                report.line(f"step {step} could not be saved: {error}")
            else:
                report.line(f"saved at step {step}, the validation failed")

        while True:
            stop_request.poll()
            stopping = stop_request.everywhere
            last = step == setup.total_steps
            validating = (last or setup.due(experiment.evaluate_every, step)) and validated < step
            saving = (
                last or stopping or setup.due(experiment.checkpoint_every, step)
            ) and saved < step

            # Read the metrics of the last step if they are needed now.
            if validating or saving:
                monitor.read(saved)
                # The metrics may carry a request to stop.
                if stop_request.everywhere and not stopping:
                    continue

            # Validate.
            if validating and not stopping:
                report.doing(f"validating on {len(setup.eval_source):,} images")
                try:
                    with monitor.clock.paused():
                        result = validate(setup, state, stop_request)
                except Exception:
                    # Keep what was trained, as at a stop. One process of several cannot save.
                    if saved < step and jax.process_count() == 1:
                        rescue()
                    raise
                report.doing("training")
                if result is None:
                    continue
                largest = result.pop("largest_class")
                monitor.validation(step, result)
                if last and (guess := _as_good_as(result["accuracy"], largest, setup.num_classes)):
                    report.line(
                        f"warning: {100 * result['accuracy']:.1f} % is {guess}: the network has "
                        "learned little; try a longer run or another --optimizer.learning-rate"
                    )
                plateau = after_validation(
                    experiment.optimizer.schedule, meshes.fetch(state.plateau), result["loss"]
                )
                state = dataclasses.replace(state, plateau=meshes.replicate(mesh, plateau))
                validated = step

            # Save.
            if saving:
                save()
                saved = step

            if last or stopping:
                break

            # Take the next batch and step; read the metrics of the step before.
            if experiment.data.prefetch == 0:
                monitor.read(saved)
            batch = setup.mark(upcoming.take(), stop_request.here)
            state, metrics = setup.train_step(state, batch)
            step += 1
            monitor.read(saved)
            monitor.follow(step, batch, metrics)

        checkpoints.wait()
        finished = last and validated == step
        stopped = f"stopped and saved at step {step}" if step else "stopped before the first step"
        report.line(f"finished at step {step}" if finished else stopped)
        return Outcome(step, finished)


def _warnings(setup: Setup, configured_size: int) -> Iterator[str]:
    """Yield warnings about a reduced batch size, and about a run that probably learns little."""
    size = setup.experiment.data.batch_size
    if size < configured_size:
        yield (
            f"the set has {len(setup.train_source)} training images, so batches have {size} "
            f"instead of {configured_size}; a smaller --data.batch-size gives more steps"
        )
    if setup.num_classes == 1:
        yield (
            f"{setup.experiment.data.source} has one class, so there is nothing to learn; each "
            "class needs a folder of its own"
        )
    if setup.total_steps < _FEW_STEPS:
        cure = "more --epochs or a smaller --data.batch-size give more steps"
        cure = cure if setup.experiment.steps is None else "give more --steps"
        yield f"a run of {setup.total_steps} steps learns little; {cure}"
    optimizer, end = setup.experiment.optimizer, setup.total_steps / setup.steps_per_epoch
    falls = optimizer.schedule.epochs if isinstance(optimizer.schedule, Step) else ()
    planned = {"schedule.epochs": falls, "warmup-epochs": (optimizer.warmup_epochs,)}
    for option, epochs in planned.items():
        if later := [f"{epoch:g}" for epoch in epochs if epoch >= end]:
            yield (
                f"the run ends at epoch {end:.4g} and does not get beyond --optimizer.{option} "
                f"{' '.join(later)}; choose smaller values"
            )


def _as_good_as(accuracy: float, largest: float, num_classes: int) -> str:
    """A guess that reaches the accuracy without learning, in words; "" if none does.

    ``largest`` is the share of the largest class.
    """
    chance = 1 / num_classes
    if num_classes > 1 and accuracy <= _NEAR_CHANCE * chance:
        return f"near chance, {100 * chance:.1f} %"
    if num_classes > 1 and accuracy <= largest:
        return f"no more than the largest class has, {100 * largest:.1f} %"
    return ""


def validate(setup: Setup, state: TrainState, stop: Stop) -> dict[str, float] | None:
    """Return the mean ``loss`` and ``accuracy`` on the validation split, and ``seen``, its size.

    ``largest_class`` is the share of the most frequent class among the images of this process. The
    result is None after a request to stop, which is polled before each batch.
    """
    batch_sums, labels = [], []
    with contextlib.closing(setup.eval_batches()) as batches:
        for batch in batches:
            if stop.poll_all():
                return None
            labels.append(np.asarray(batch["label"])[np.asarray(batch["mask"])])
            batch_sums.append(setup.eval_step(state.variables, setup.shard(batch)))
            # Images that load faster than the network works must not pile up on the devices.
            jax.block_until_ready(batch_sums[-2:-1])
    sums = functools.reduce(Sums.plus, meshes.fetch(batch_sums), Sums())
    if sums.seen != len(setup.eval_source):
        raise RuntimeError(
            f"validation counted {sums.seen} of {len(setup.eval_source)} examples: the mask of "
            "the batches is wrong"
        )
    counts = np.unique(np.concatenate(labels), return_counts=True)[1]
    largest = counts.max(initial=0) / max(counts.sum(), 1)
    return sums.means() | {"seen": sums.seen, "largest_class": float(largest)}
