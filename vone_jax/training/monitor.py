"""Reads the metrics of finished steps, logs them, and says when a run cannot go on.

The step itself never takes an update that is not finite, so what is in a checkpoint is sound
however late its metrics are read.
"""

import math
from pathlib import Path

import jax
import numpy as np

from vone_jax import mesh as meshes
from vone_jax.training.log import RunLog
from vone_jax.training.meters import Clock, Interval, PassedOver
from vone_jax.training.progress import Progress
from vone_jax.training.setup import Setup
from vone_jax.training.step import Batch, StepMetrics

Pending = tuple[int, Batch, StepMetrics]


class NonFiniteError(FloatingPointError):
    """A loss or gradient is NaN or infinite; the message names the step."""


class UnreadableDataError(RuntimeError):
    """More training images could not be read than the experiment allows."""


class Monitor:
    """Follows a run from step to step. All processes make the same calls.

    Args:
      setup: of the run.
      run_dir: where batches go that gave a step that is not finite.
      log: of the run.
      report: for people.
      interval: sums since the last line of the log.
      passed_over: since the run began.

    Attributes:
      stop: whether any process was asked to stop, as far as the metrics read say.
    """

    def __init__(
        self,
        setup: Setup,
        run_dir: Path,
        log: RunLog,
        report: Progress,
        interval: Interval,
        passed_over: PassedOver,
    ):
        self.clock = Clock()
        self.stop = False
        self.interval = interval
        self.passed_over = passed_over
        self._setup = setup
        self._run_dir = run_dir
        self._log = log
        self._report = report

    def read(self, pending: Pending, saved: int) -> None:
        """Waits for the metrics of a step.

        Args:
          pending: its number, its batch and its metrics.
          saved: step of the last checkpoint, 0 if there is none.

        Raises:
          NonFiniteError: if the step was not finite and may not, or not any more, be passed over.
          UnreadableDataError: if too many examples could not be read.
        """
        step, batch, metrics = pending
        host = meshes.fetch(metrics)
        self.stop |= bool(host.marks.get("stop", 0))
        self._count_unreadable(step, int(host.marks.get("unreadable", 0)))
        if not host.finite:
            self._pass_over(step, batch, host, saved)
            return
        self.interval.add(host.sums)
        self.clock.add(host.sums.seen)
        self._report.advance(float(host.sums.loss) / int(host.sums.seen))
        experiment = self._setup.experiment
        if step % experiment.log_every == 0 or step == self._setup.total_steps:
            counts = {}
            if experiment.data.unreadable == "skip":
                counts["unreadable"] = self.passed_over.examples
            self._log.write(
                {
                    "kind": "train",
                    "step": step,
                    "epoch": step / self._setup.steps_per_epoch,
                    **self.interval.take_means(),
                    "learning_rate": float(host.learning_rate),
                    "gradient_norm": float(host.gradient_norm),
                    "examples_per_second": self.clock.take_rate(),
                    **counts,
                }
            )

    def _count_unreadable(self, step: int, number: int) -> None:
        self.passed_over.examples += number
        limit = self._setup.experiment.data.unreadable_limit
        if number and self.passed_over.examples > limit:
            raise UnreadableDataError(
                f"{self.passed_over.examples} training images could not be read up to step {step}, "
                f"data.unreadable_limit is {limit}"
            )

    def _pass_over(self, step: int, batch: Batch, host: StepMetrics, saved: int) -> None:
        """Keeps the batch of a step that is not finite; ends the run unless it may go on."""
        experiment = self._setup.experiment
        where = f"at step {step} of {self._setup.total_steps}"
        loss = float(host.sums.loss) / int(host.sums.seen)
        values = {"loss": loss, "gradient norm": float(host.gradient_norm)}
        bad = [f"the {n} is {v}" for n, v in values.items() if not math.isfinite(v)]
        what = (
            f"{bad[0] if bad else 'the update is not finite'} {where} "
            f"(learning rate {float(host.learning_rate):.4g}); {self._keep(step, batch)}"
        )
        self.passed_over.steps += 1
        limit = 0 if experiment.non_finite == "stop" else experiment.non_finite_limit
        if self.passed_over.steps > limit:
            last = (
                f"the last checkpoint is that of step {saved}" if saved else "nothing is saved yet"
            )
            number = self.passed_over.steps
            many = f"; {number} such steps, non_finite_limit is {limit}" if number > 1 else ""
            raise NonFiniteError(f"{what}{many}; {last}")
        self._report.line(f"passed over: {what}")
        self._log.write({"kind": "skipped", "step": step, "skipped": self.passed_over.steps})

    def _keep(self, step: int, batch: Batch) -> str:
        """Writes a batch as the devices got it, before any augmentation there; says where."""
        host = meshes.fetch(batch)
        path = self._run_dir / "non_finite" / f"step-{step}.npz"
        if jax.process_index() == 0:
            try:
                path.parent.mkdir(exist_ok=True)
                np.savez(path, **host)
            except OSError as error:
                return f"its batch could not be written ({error})"
        return f"its batch is in {path}"
