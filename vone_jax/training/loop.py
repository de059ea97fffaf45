"""The training loop.

Fence posts. "Step k" is the state after k optimiser steps. At each k the loop does, in this order:
validate, save, and only then take the next batch and step. So a checkpoint at k holds the weights
that the validation at k has judged, and the data iterator that has given k batches.

  - Nothing is validated or saved at step 0. Both happen at their intervals and at the last step,
    once: a run that goes on from a checkpoint at k does not repeat them.
  - A run of n steps makes n updates; the last one is in the checkpoint n.
  - A run that is asked to stop at k saves at k without validating; the next start validates first.
  - The metrics of step k are read after step k + 1 has been dispatched, so that the device does not
    wait for the log; before validating or saving they are read at once. So the batch of step k + 1
    is loaded and placed while step k runs, unless ``data.prefetch`` is 0.
  - Several processes hear in the metrics that one of them was asked to stop, so that they stop at
    the same step; that is one or two steps later.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from vone_jax import fast
from vone_jax import mesh as meshes
from vone_jax.training import run_dir as run_dirs
from vone_jax.training.checkpoint import Checkpoints, Position
from vone_jax.training.experiment import Experiment
from vone_jax.training.log import RunLog
from vone_jax.training.meters import Interval, PassedOver
from vone_jax.training.monitor import Monitor, NonFiniteError
from vone_jax.training.prefetch import Prefetch
from vone_jax.training.progress import Progress
from vone_jax.training.schedules import after_validation
from vone_jax.training.setup import Setup, prepare


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How ``train`` ended.

    Attributes:
      step: optimiser steps done, all of them in a checkpoint.
      finished: False if the run was asked to stop before its end.
    """

    step: int
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
    """Trains, from the last checkpoint in the run directory if there is one.

    On CPUs a run that was stopped, or killed, and started again ends with the same bits as one that
    was not, on the same number of devices; on other meshes up to rounding.

    Args:
      experiment: what to train.
      run_dir: see ``run_dir.py``; made if it is not there.
      devices: the ``jax.Device``s to train on; default: all.
      stop: asked at every step; once it says True (and it must stay there), in any process, the
        run is saved and the call returns.
      command: for the record in ``config.json``.
      tensorboard: write TensorBoard's files too, to ``run_dir/tensorboard``.
      progress: report on stderr.

    Returns:
      How far it came.

    Raises:
      ValueError: if parts of the experiment do not fit each other or the data.
      RunDirectoryError: if the directory is in use or of another experiment.
      CheckpointError: if a checkpoint cannot be written, or all there are damaged.
      NonFiniteError: at a loss or gradient that is NaN or infinite, see ``Experiment.non_finite``.
      UnreadableDataError: if too many images cannot be read, see ``DataConfig.unreadable``.
      OSError: if a data worker dies, or the log cannot be written.
    """
    run_dir = Path(run_dir)
    if experiment.compilation_cache is not None:
        fast.keep_compiled(experiment.compilation_cache)
    mesh = meshes.data_mesh(devices)
    setup = prepare(experiment, mesh)
    experiment = setup.experiment
    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(jax.default_matmul_precision(experiment.matmul_precision))
        enter(
            run_dirs.open_run(
                run_dir,
                experiment,
                parameters=setup.parameters,
                device=meshes.describe(mesh),
                command=command,
            )
        )
        checkpoints = enter(
            Checkpoints(run_dirs.checkpoints_path(run_dir), experiment.keep_checkpoints)
        )
        batches = enter(contextlib.closing(setup.train_batches()))

        # Restore: from a checkpoint of this run if there is one, else a new start.
        state = setup.initial_state()
        step, validated, interval, passed_over = 0, 0, Interval(), PassedOver()
        restored = checkpoints.restore(jax.eval_shape(lambda: state))
        if restored is not None:
            step, host_state, position = restored
            checkpoints.set_aside(newer_than=step)
            state = meshes.replicate(mesh, host_state)
            batches.set_state(position.data)
            validated, interval = position.validated, Interval(**position.interval)
            passed_over = PassedOver(**position.passed_over)
        placed = Prefetch(
            batches, setup.shard, max(0, experiment.data.prefetch - 1), setup.total_steps - step
        )
        saved, pending = step, None
        log = enter(
            RunLog(
                run_dirs.log_path(run_dir),
                step,
                validated,
                tensorboard=run_dir / "tensorboard" if tensorboard else None,
            )
        )
        report = enter(Progress(step, setup.total_steps, progress))
        report.line(_opening(setup, step))
        monitor = Monitor(setup, run_dir, log, report, interval, passed_over)

        while True:
            asked = stop()
            stopping = monitor.stop if jax.process_count() > 1 else asked
            last = step == setup.total_steps
            validating = (last or setup.validates_at(step)) and validated < step
            saving = (last or stopping or setup.saves_at(step)) and saved < step

            # Metrics of the last step, where somebody needs them now.
            if pending is not None and (validating or saving):
                monitor.read(pending, saved)
                pending = None
                # Also those who asked for a stop with it want it now.
                if monitor.stop and not stopping:
                    continue

            # Validate.
            if validating and not stopping:
                with monitor.clock.paused():
                    result = setup.validate(state, stop)
                if result is None:  # It was asked to stop; so are we.
                    monitor.stop = True
                    continue
                if not math.isfinite(result["loss"]):
                    raise NonFiniteError(f"the validation loss is {result['loss']} at step {step}")
                plateau = after_validation(
                    experiment.optimizer.schedule, meshes.fetch(state.plateau), result["loss"]
                )
                state = dataclasses.replace(state, plateau=meshes.replicate(mesh, plateau))
                validated = step
                epoch = step / setup.steps_per_epoch
                log.write({"kind": "validation", "step": step, "epoch": epoch, **result})
                report.line(
                    f"step {step}, epoch {epoch:.4g}: validation loss {result['loss']:.4f}, "
                    f"accuracy {100 * result['accuracy']:.2f} %"
                )

            # Save.
            if saving:
                with monitor.clock.paused():
                    log.sync()
                    position = Position(
                        placed.get_state(),
                        validated,
                        dataclasses.asdict(interval),
                        dataclasses.asdict(passed_over),
                    )
                    checkpoints.save(step, state, position)
                saved = step

            if last or stopping:
                break

            # Next batch, step, metrics of the step before.
            if pending is not None and experiment.data.prefetch == 0:
                monitor.read(pending, saved)
                pending = None
            try:
                batch = setup.mark(placed.take(), asked)
            except ChildProcessError:
                # A signal to all processes also ends workers that have not begun, see
                # data/worker.py.
                if asked or not stop():
                    raise
                continue
            state, metrics = setup.train_step(state, batch)
            step += 1
            if pending is not None:
                monitor.read(pending, saved)
            pending = (step, batch, metrics)

        checkpoints.wait()
        finished = last and validated == step
        report.line(f"finished at step {step}" if finished else f"stopped and saved at step {step}")
        return Outcome(step, finished)


def _opening(setup: Setup, step: int) -> str:
    """The line that a run starts with."""
    experiment = setup.experiment
    begin = f"from step {step}" if step else "from the start"
    return (
        f"{experiment.name}: {experiment.model.name}, {setup.parameters:,} parameters, on "
        f"{len(setup.train_source):,} images of {experiment.data.source}, {begin} to step "
        f"{setup.total_steps}, {meshes.describe(setup.mesh)}"
    )
