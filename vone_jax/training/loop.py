"""The training loop.

"Step k" is the state after k optimiser steps. At each k the loop validates, saves, and only then
takes the next batch and steps. A step takes one batch, so a run that resumes at k skips k batches.

  - Nothing is validated or saved at step 0. Both happen at their intervals and at the last step,
    once: a run that resumes from a checkpoint at k does not repeat them.
  - A run of n steps makes n updates; the last one is in the checkpoint n.
  - After a request to stop at k, a run saves at k without validating. When it resumes, it validates
    first. Several processes agree on k by JAX's preemption sync point, after a SIGTERM to any.
  - The host waits for the devices where it logs, validates or saves. In between it is at most one
    step ahead: the batch of step k + 1 is loaded while step k runs.
"""

import contextlib
import dataclasses
import functools
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, data, files
from vone_jax import mesh as meshes
from vone_jax.attacks import Attack
from vone_jax.progress import Progress
from vone_jax.training import run
from vone_jax.training.config import DataConfig, Experiment, resolve, resumed, to_json
from vone_jax.training.initial import take_weights
from vone_jax.training.objective import Batch, Setup, open_no_network
from vone_jax.training.optimizer import check_patterns, split
from vone_jax.training.speed import Profile, Speed, operations
from vone_jax.training.step import (
    Sums,
    TrainState,
    initial_state,
    make_eval_step,
    make_train_step,
)

_CURE = "try a lower optimizer.learning_rate in a new run"
# A loss so many times that of guessing has exploded.
_EXPLODED = 10.0


class NonFiniteError(FloatingPointError):
    """A loss or gradient is NaN or infinite; the message names the step."""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The end of a call of ``train``."""

    # Number of optimiser steps done, all of them in a checkpoint.
    step: int
    # False if the run was stopped before its end.
    finished: bool


def train(
    experiment: Experiment,
    directory: Path | str,
    *,
    open_network: Callable[[str], Any] = open_no_network,
    devices: Sequence[Any] | None = None,
    stop: Callable[[], bool] = lambda: False,
    command: str = "",
    tensorboard: bool = False,
    progress: bool = False,
    on_log: Callable[[dict[str, Any]], Any] | None = None,
    profile: int | None = None,
    changed_code: bool = False,
) -> Outcome:
    """Train, from the last checkpoint in the directory of the run if there is one.

    A run on CPUs that was stopped or killed, and resumed on the same number of devices, ends with
    the same bits as an uninterrupted run. On other meshes the results agree up to rounding.

    Args:
      experiment: the experiment to train. Its fields that are None are filled in, see ``resolve``.
      directory: directory of the run, see ``run.py``, also in a bucket, as text. It is made if it
        does not exist.
      open_network: opens the networks that the experiment names, such as
        ``vone_jax.open_network``. A run that resumes needs those of objectives again, but not that
        of ``initial_weights``, since it has a checkpoint.
      devices: the ``jax.Device``s to train on; default: all.
      stop: polled at every step of a program of one process. Once it returns True, the run saves
        and the call returns. Several processes stop after a SIGTERM to one of them.
      command: the command that started the program, to be stored in ``config.json``.
      tensorboard: also write TensorBoard files, to ``tensorboard`` in the directory.
      progress: report on stderr.
      on_log: called with each record of the log, in process 0.
      profile: write a trace of ten steps from this one on, to ``profile`` in the directory; from a
        bucket, to ``profile`` in the working directory.
      changed_code: resume a run also if the code of its objectives has changed since it started.

    Raises:
      ValueError: if parts of the experiment do not fit each other or the data, if nothing in the
        initial weights fits the network, or without the package for TensorBoard files.
      RunDirectoryError: if the directory is in use or holds another experiment.
      NonFiniteError: if more steps than ``Experiment.non_finite_limit`` are not finite.
      OSError: if the log cannot be written. What befalls a checkpoint is told by Orbax.
    """
    arguments.instance("experiment", experiment, Experiment, "; training.load_config reads one")
    directory, unresolved, given = run.checked_path(directory), experiment, experiment.data
    mesh = meshes.data_mesh(devices)

    # 1. Open the data, and fill in what follows from them.
    source = data.load(given.source, given.train_split, data_dir=given.data_dir)
    # Of this run, if it goes on.
    before, steps, initial = _begun(directory), run.saved_steps(directory), None
    # A run with a checkpoint has its weights there.
    if unresolved.initial_weights is not None and not steps:
        initial = open_network(unresolved.initial_weights)
    if before is None:
        experiment = resolve(unresolved, source, initial)
    else:
        experiment = _continued(directory, before, unresolved, source)
    eval_source = open_eval_split(experiment, source)
    _check(experiment, mesh)
    steps_per_epoch = data.batches_per_epoch(source, experiment.data.batch_size)
    steps_per_epoch *= experiment.replays
    total = experiment.total_steps(steps_per_epoch)
    due = functools.partial(_is_due, steps_per_epoch, total)

    with contextlib.ExitStack() as stack:
        enter = stack.enter_context
        enter(jax.default_matmul_precision(experiment.matmul_precision))

        # 2. Build the network and the compiled functions.
        model, names = experiment.build(), tuple(source.class_names)
        opened = _Opened(open_network)
        setup = Setup(experiment, model, mesh, names, opened, total)
        shapes = jax.eval_shape(lambda: initial_state(experiment, model, setup))
        check_patterns(
            experiment.freeze, experiment.optimizer.rates, shapes.params, shapes.batch_stats
        )
        made = {each.name: each.objective.resources(setup) for each in experiment.applied}
        made = {name: resources for name, resources in made.items() if resources is not None}
        resources = meshes.replicate(mesh, made)
        train_step = make_train_step(model, experiment, steps_per_epoch, mesh, resources)
        eval_step = make_eval_step(setup.model, experiment.seed, mesh)
        attack = _watched(experiment)
        robust_step = attack and make_eval_step(setup.model, experiment.seed, mesh, attack)
        trained, frozen = split(shapes.params, experiment.freeze)
        parameters = sum(x.size for x in jax.tree.leaves((trained, shapes.own)))
        held = sum(x.size for x in jax.tree.leaves(frozen))
        device = meshes.describe(mesh)
        weights = initial and take_weights(experiment, model, names, initial)
        made_from = _made_from(experiment, source, eval_source, weights, opened.checksums)
        if before is not None:
            run.check_made_from(directory, made_from, before.made_from, changed_code)
            made_from = before.made_from | made_from
        described = run.RunDescription(
            experiment, unresolved, names, parameters, device, command, made_from=made_from
        )
        meshes.from_process_0(lambda: _begin(directory, described, enter))

        # 3. The state: that of the last checkpoint, else initial weights, else random ones.
        checkpoints = enter(
            run.Checkpoints(directory / run.CHECKPOINTS, described, experiment.keep_checkpoints)
        )
        if steps:
            state = meshes.replicate(mesh, checkpoints.restore(steps[-1], shapes))
        else:
            state = _random_state(experiment, model, setup)
            state = state if weights is None else weights.put_into(state)
        step = saved = int(state.step)
        validated, collapsed = int(state.validated), ""

        curves = directory / "tensorboard" if tensorboard else None
        log = enter(run.RunLog(directory / run.LOG, step, curves, on_log))
        traces = Path("profile") if files.in_bucket(directory) else directory / "profile"
        profiled = enter(Profile(traces, profile))
        # The validations of the best checkpoint and of the one from which the run resumes.
        best, judged = meshes.from_process_0(lambda: run.validations(directory, steps))
        highest = -1.0
        if best is not None and experiment.keep_best:
            checkpoints.best, highest = best["step"], best["accuracy"]
        report = enter(Progress(total, step, shown=progress and jax.process_index() == 0))
        report.line(
            f"{experiment.name}: {experiment.model.name}, {parameters:,} trained parameters"
            f"{f' and {held:,} frozen' if held else ''}, on "
            f"{len(source):,} images of {experiment.data.source}, from "
            f"{f'step {step}' if step else 'the start'} to step {total}, {device}"
        )
        if weights is not None:
            report.line(weights.table())
        batches = enter(contextlib.closing(train_batches(experiment, source, step)))
        counted = functools.cache(lambda: operations(train_step, state, batch))
        speed, running, note = Speed(list(mesh.devices.flat), counted), None, ""

        while True:
            stopping = stop() if jax.process_count() == 1 else meshes.stop_requested(step)
            last, better = step == total, False

            # 4. Validate.
            if (last or due(experiment.evaluate_every, step)) and validated < step and not stopping:
                _check_finite(experiment, state, saved)
                means = judged if judged and judged["step"] == step else None
                if means is None:
                    with (
                        report.between(f"validating on {len(eval_source):,} images"),
                        speed.paused(),
                        contextlib.closing(eval_batches(experiment, eval_source)) as parts,
                    ):
                        sums = validate(eval_step, state, parts, mesh, stop)
                        if sums is not None:
                            means = _means(experiment, sums)
                            if robust_step:
                                robust = _robust(robust_step, experiment, eval_source, state, mesh)
                                means["robust_accuracy"] = robust
                            _log_validation(log, report, step, step / steps_per_epoch, means, sums)
                if means is None:
                    stopping = True
                else:
                    validated = step
                    told, collapsed = collapsed, _collapse(directory, len(names))
                    if collapsed and not told:
                        report.line(f"warning: {collapsed}")
                    state = _after_validation(experiment, state, means["loss"], mesh)
                    if experiment.keep_best and means["accuracy"] > highest:
                        highest, checkpoints.best, better = means["accuracy"], step, True

            # 5. Save.
            if (
                last or stopping or better or due(experiment.checkpoint_every, step)
            ) and saved < step:
                _check_finite(experiment, state, saved)
                with speed.paused():
                    checkpoints.save(step, state)
                saved = step
            if last or stopping:
                break

            # 6. Take the next batch and step.
            profiled.before_step(step, running)
            with speed.waiting():
                loaded = next(batches)
            batch = place(mesh, loaded)
            state, metrics = train_step(state, batch)
            step += 1
            jax.block_until_ready(running)
            running = metrics
            speed.count(experiment.data.batch_size)

            # 7. Log.
            if step % experiment.log_every == 0 or step == total:
                _check_finite(experiment, state, saved)
                if record := _train_record(
                    experiment, step, step / steps_per_epoch, state, metrics
                ):
                    log.write(record | speed.take())
                    note = f"loss {record['loss']:.4f}"
            report.advance(note=note)

        finished = last and validated == step
        stopped = f"stopped and saved at step {step}" if step else "stopped before the first step"
        collapsed = _collapse(directory, len(names)) if finished else ""
        done = f"finished at step {step}{', at chance' if collapsed else ''}"
        report.line(done if finished else stopped)
    # Behind the report, and also without one.
    if collapsed:
        warnings.warn(collapsed, stacklevel=2)
    return Outcome(step, finished)


def validate(
    eval_step: Callable[..., Any],
    state: TrainState,
    batches: Any,
    mesh: meshes.Mesh,
    stop: Callable[[], bool] = lambda: False,
) -> Sums | None:
    """Return the sums over validation batches.

    They stay on the devices until the end. The result is None if ``stop`` returns True, which a
    program of one process polls before each batch.
    """
    total = before = None
    for batch in batches:
        if jax.process_count() == 1 and stop():
            return None
        # Images that load faster than the network works must not pile up on the devices.
        jax.block_until_ready(before)
        before, total = total, eval_step(state.variables, place(mesh, batch), total)
    return meshes.fetch(total)


def open_eval_split(experiment: Experiment, train_source: data.Source) -> data.Source:
    """Open the validation images of a resolved experiment, prepared for its network."""
    config, split = experiment.data, experiment.data.eval_split
    assert split is not None
    source = data.load(config.source, split, data_dir=config.data_dir)
    if source.class_names != train_source.class_names:
        pairs = zip(train_source.class_names, source.class_names, strict=False)
        first = next((pair for pair in pairs if pair[0] != pair[1]), ("one more", "one less"))
        raise ValueError(
            f"the splits {train_source.split!r} and {split!r} of {source.name!r} must have the "
            f"same classes, but one has {first[0]!r} where the other has {first[1]!r}"
        )
    if split.partition("[")[0] == config.train_split:
        warnings.warn(
            f"data.eval_split {split} validates on images of the training split "
            f"{config.train_split}; its accuracy says nothing about new images",
            stacklevel=2,
        )
    crop = data.Preprocessing(config.center_crop)
    return data.Prepared(source, experiment.model.image_size, crop)


def train_batches(experiment: Experiment, source: data.Source, skip: int) -> Any:
    """Return this process's part of the training batches after ``skip`` steps, without end."""
    config, replays = experiment.data, experiment.replays
    batches = data.train_batches(
        source,
        batch_size=config.batch_size,
        seed=experiment.seed,
        image_size=experiment.model.image_size,
        augment=config.augment,
        preprocessing=data.Preprocessing(config.center_crop),
        skip=skip // replays,
        **_process(config),
    )
    return batches if replays == 1 else _replayed(batches, replays, skip % replays)


def _replayed(batches: "data.Batches", replays: int, done: int) -> Iterator[dict[str, Any]]:
    """Yield each batch several times, the first one only as often as is left."""
    with contextlib.closing(batches):
        for batch in batches:
            yield from itertools.repeat(batch, replays - done)
            done = 0


def eval_batches(experiment: Experiment, source: data.Source) -> "data.Batches":
    """Return this process's part of the validation batches, padded and masked."""
    config = experiment.data
    size = experiment.model.image_size
    return data.eval_batches(
        source, batch_size=config.eval_batch_size, image_size=size, **_process(config)
    )


def _process(config: DataConfig) -> dict[str, Any]:
    count, index = jax.process_count(), jax.process_index()
    options = {"process_count": count, "process_index": index, "as_bytes": True}
    return options | {"workers": config.workers}


def place(mesh: meshes.Mesh, batch: dict[str, Any]) -> Batch:
    """Put this process's part of a batch on the devices, where bytes become floats."""
    placed = meshes.shard_batch(mesh, batch)
    return placed | {"image": _in_unit_range(placed["image"])}


@jax.jit
def _in_unit_range(images: jax.Array) -> jax.Array:
    # If XLA knows that the divisor is a constant, it multiplies by the inverse, which rounds
    # differently from the division.
    white = jax.lax.optimization_barrier(jnp.full(images.shape, 255, jnp.float32))
    return images.astype(jnp.float32) / white


def _begun(directory: Path) -> run.RunDescription | None:
    """Return the description of a run that was begun in a directory, if any."""
    begun = meshes.from_process_0(lambda: (directory / run.CONFIG).exists())
    return run.read_run(directory) if begun else None


def _continued(
    directory: Path, before: run.RunDescription, unresolved: Experiment, source: data.Source
) -> Experiment:
    """Return the experiment of a run that was begun, with our values of what may change."""
    run.check_same(directory, unresolved, before.unresolved)
    if before.class_names != tuple(source.class_names):
        raise run.RunDirectoryError(
            f"{directory} holds a run on {len(before.class_names)} classes, "
            f"{', '.join(before.class_names[:3])}, ...; the images now have "
            f"{len(source.class_names)}, {', '.join(source.class_names[:3])}, ..."
        )
    return resumed(before.experiment, unresolved)


class _Opened:
    """Opens networks for objectives, and keeps their checksums, by what a run is made from."""

    def __init__(self, open_network: Callable[[str], Any]):
        self._open_network = open_network
        self.checksums: dict[str, str] = {}

    def __call__(self, spec: str) -> Any:
        network = self._open_network(spec)
        self.checksums[f"weights of {spec}"] = network.checksum
        return network


def _made_from(
    experiment: Experiment,
    source: data.Source,
    eval_source: Any,
    weights: Any,
    opened: dict[str, str],
) -> dict[str, str]:
    """Return what the run is made from, see ``run.RunDescription``."""

    def describe() -> dict[str, str | None]:
        return {
            run.TRAIN_IMAGES: data.describe(source),
            run.VALIDATION_IMAGES: data.describe(eval_source.source),
            run.WEIGHTS: weights and weights.checksum,
            **opened,
            **run.code_digests(experiment),
        }

    found: dict[str, str | None] = meshes.from_process_0(describe)
    return {name: digest for name, digest in found.items() if digest is not None}


def _check(experiment: Experiment, mesh: meshes.Mesh) -> None:
    """Check that an experiment fits the devices, and that it can be stored."""
    to_json(experiment)
    part = experiment.data.batch_size // experiment.accumulation_steps
    meshes.check_batch_size(mesh, part, "data.batch_size / accumulation_steps")
    meshes.check_batch_size(mesh, experiment.data.eval_batch_size, "data.eval_batch_size")


def _begin(directory: Path, described: run.RunDescription, enter: Callable[[Any], Any]) -> None:
    """Make the directory of a run, lock it and write its description, in process 0."""
    directory.mkdir(parents=True, exist_ok=True)
    try:
        if not files.in_bucket(directory):
            enter(files.locked(directory / "lock"))
    except files.LockedError as error:
        raise run.RunDirectoryError(
            f"another process is training in {directory}; wait for it, or choose another "
            f"--run-dir: {error}"
        ) from error
    run.write_run(directory, described)


def _random_state(experiment: Experiment, model: Any, setup: Setup) -> TrainState:
    """Return the state at step 0, on every device."""
    return jax.jit(
        lambda: initial_state(experiment, model, setup),
        out_shardings=meshes.replicated(setup.mesh),
        # It runs once, and XLA would take long to optimise its many random draws.
        compiler_options={"xla_backend_optimization_level": 0},
    )()


def _is_due(steps_per_epoch: int, total: int, epochs: float, step: int) -> bool:
    """Return True if an action that is done every so many epochs is due at a step."""
    interval = min(epochs * steps_per_epoch, total)
    return step > 0 and step % max(1, round(interval)) == 0


def _check_finite(experiment: Experiment, state: TrainState, saved: int) -> None:
    """Raise a ``NonFiniteError`` if too many steps were skipped, before their state is used."""
    number, limit = int(state.skipped), experiment.non_finite_limit
    if number > limit:
        many = f"; {number} such steps, non_finite_limit is {limit}" if limit else ""
        kept = f"the last checkpoint is that of step {saved}" if saved else "nothing is saved yet"
        raise NonFiniteError(
            f"the loss, the gradient or the update is NaN or infinite at step "
            f"{int(state.last_skipped)}{many}; {kept}; {_CURE}"
        )


def _train_record(
    experiment: Experiment, step: int, epoch: float, state: TrainState, metrics: Any
) -> dict[str, Any]:
    """Return a line of the log: means since the line before, and values of the last step."""
    sums, host, skipped = meshes.fetch((state.sums, metrics, state.skipped))
    if not sums.seen:
        return {}  # All steps were skipped.
    record = {"kind": "train", "step": step, "epoch": epoch, **_means(experiment, sums)}
    record["learning_rate"] = float(host.learning_rate)
    if host.finite:
        record["gradient_norm"] = float(host.gradient_norm)
        record |= {name: float(number) for name, number in host.numbers.items()}
    return record | ({"skipped": int(skipped)} if skipped else {})


def _means(experiment: Experiment, sums: Sums) -> dict[str, float]:
    """Return the means; that over five classes only where there are more."""
    means = sums.means()
    if (experiment.model.num_classes or 0) <= 5:
        del means["top5_accuracy"]
    return means


def _watched(experiment: Experiment) -> Attack | None:
    """Return the first attack under which an objective has validations watched, if any."""
    attacks = (each.objective.watched for each in experiment.applied)
    return next((attack for attack in attacks if attack is not None), None)


def _robust(
    robust_step: Any, experiment: Experiment, source: Any, state: TrainState, mesh: meshes.Mesh
) -> float:
    """Return the accuracy of the first validation batch under the attack of ``_watched``."""
    with contextlib.closing(eval_batches(experiment, source)) as batches:
        sums = validate(robust_step, state, itertools.islice(batches, 1), mesh)
    assert sums is not None  # nothing stops it
    return sums.means()["accuracy"]


def _log_validation(
    log: run.RunLog, report: Progress, step: int, epoch: float, means: dict[str, float], sums: Sums
) -> None:
    if not math.isfinite(means["loss"]):
        raise NonFiniteError(f"the validation loss is {means['loss']} at step {step}; {_CURE}")
    log.write({"kind": "validation", "step": step, "epoch": epoch, **means, "seen": int(sums.seen)})
    report.line(
        f"step {step}, epoch {epoch:.4g}: validation loss {means['loss']:.4f}, "
        f"accuracy {100 * means['accuracy']:.2f} %"
    )


def _collapse(directory: Path, classes: int) -> str:
    """Say that the last validation is at chance after the loss exploded; empty if it is not so."""
    if jax.process_index() != 0:
        return ""
    records = run.read_log(directory / run.LOG)
    trained, validations = (
        [record for record in records if record["kind"] == kind] for kind in ("train", "validation")
    )
    if not trained or not validations:
        return ""
    worst, last = max(trained, key=lambda record: record["loss"]), validations[-1]
    chance = 1 / classes
    # Three standard deviations of the accuracy of guessing.
    highest = chance + 3 * math.sqrt(chance * (1 - chance) / last["seen"])
    if worst["loss"] < _EXPLODED * math.log(max(classes, 2)) or last["accuracy"] > highest:
        return ""
    return (
        f"the training loss was {worst['loss']:,.4g} at step {worst['step']}, and the network at "
        f"step {last['step']} is no better than guessing; {_CURE}"
    )


def _after_validation(
    experiment: Experiment, state: TrainState, loss: float, mesh: meshes.Mesh
) -> TrainState:
    """Return the state after a validation: the schedule may follow its loss."""
    before = meshes.fetch(state.plateau)
    plateau = experiment.optimizer.schedule.after_validation(before, loss)
    plateau, validated = meshes.replicate(mesh, (plateau, np.int32(state.step)))
    return dataclasses.replace(state, plateau=plateau, validated=validated)
