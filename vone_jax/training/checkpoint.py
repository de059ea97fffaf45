"""Checkpoints of a run. This is the only module that imports Orbax.

A checkpoint at step k is the training state after k steps: everything that step k + 1 depends on.
It does not depend on the number of devices, processes or data workers. Process 0 alone lists, reads
and writes them, in the background, and the others get from it what it has read.
"""

import contextlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import mesh as meshes
from vone_jax.training.state import variables_of


class Checkpoints(contextlib.AbstractContextManager["Checkpoints"]):
    """The checkpoints of one run. Use it in a ``with`` block, which waits for the last write.

    All processes must make the same calls. The newest ``keep`` checkpoints stay, and with
    ``keep_best`` also the one with the highest validation accuracy.
    """

    def __init__(
        self, directory: Path, keep: int = 2, keep_best: bool = False, read_only: bool = False
    ):
        # Imported here, because the import takes long: wrong arguments are reported first.
        import orbax.checkpoint as ocp
        from orbax.checkpoint import checkpoint_managers as managers

        self._args = ocp.args
        self._manager: Any = None
        if jax.process_index() != 0:
            return

        def accuracy(metrics: dict[str, float]) -> float:
            return metrics["accuracy"]

        policies: list[Any] = [managers.LatestN(keep)]
        if keep_best:
            best = managers.BestN(
                get_metric_fn=accuracy, n=1, keep_checkpoints_without_metrics=False
            )
            policies.append(best)
        if not read_only:
            directory.mkdir(parents=True, exist_ok=True)
        # Orbax writes under a temporary name. Here process 0 does not wait for the others.
        self._manager = ocp.CheckpointManager(
            directory.absolute(),
            options=ocp.CheckpointManagerOptions(
                best_fn=accuracy,
                preservation_policy=managers.AnyPreservationPolicy(policies),
                cleanup_tmp_directories=not read_only,
                create=False,
                multiprocessing_options=ocp.options.MultiprocessingOptions(
                    primary_host=0, active_processes={0}, barrier_sync_key_prefix="process-0"
                ),
            ),
        )

    def steps(self) -> list[int]:
        """Return the steps of the checkpoints that process 0 finds, oldest first."""
        return meshes.agree(lambda: sorted(self._manager.all_steps()))

    def best(self) -> int | None:
        """Return the step with the highest validation accuracy; None if none was validated."""
        return meshes.agree(lambda: self._manager.best_step())

    def save(self, step: int, state: Any, accuracy: float | None = None) -> None:
        """Start writing a checkpoint, and return once ``state`` may be donated.

        ``accuracy`` is that of a validation at this step.
        """
        if self._manager is not None:
            metrics = None if accuracy is None else {"accuracy": accuracy}
            # Every process has the whole state, so nothing is gathered.
            host = jax.device_get(jax.tree.map(lambda x: x.addressable_data(0), state))
            self._manager.save(step, args=self._args.StandardSave(host), metrics=metrics)

    def restore(self, step: int, like: Any) -> Any:
        """Return the state at a step as NumPy arrays; ``like`` has its form, shapes and dtypes."""
        host = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        if self._manager is not None:
            host = self._manager.restore(step, args=self._args.StandardRestore(host))
        return meshes.broadcast(host)

    def restore_variables(self, step: int, like: Any) -> Any:
        """Return the variables of the network alone, whatever the optimiser was."""
        host = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
        if self._manager is not None:
            state = self._manager.restore(step, args=self._args.StandardRestore())
            host = variables_of(state["params"], state.get("batch_stats"))
        return meshes.broadcast(host)

    def __exit__(self, *error: Any) -> None:
        if self._manager is not None:
            self._manager.close()
