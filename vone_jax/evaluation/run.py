"""The evaluation of tasks over a data set. It continues after a kill and writes result files."""

import abc
import contextlib
import dataclasses
import datetime
import functools
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, data, mesh, names, prng, results
from vone_jax.evaluation import judging
from vone_jax.evaluation.conditions import Condition, Judged
from vone_jax.evaluation.examples import Examples, match_labels, network_record, noise_slug
from vone_jax.evaluation.judging import Trial
from vone_jax.evaluation.store import Store
from vone_jax.network import Network
from vone_jax.results import Protocol, ResultError


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """The common part of the tasks of an evaluation: network, examples, protocol, devices.

    Attributes:
      network: the network.
      examples: the images.
      protocol: how noise is drawn; a network without noise has one draw.
      directory: of the result files.
      devices: mesh over which a batch is split. It changes no result.
      seed: root of all randomness, in [0, 2**32).
      batch_size: examples at a time, a multiple of the number of devices. It changes no result.
      matmul_precision: one of ``names.MATMUL_PRECISIONS``. Default: "high" on TPUs, "highest" on
        GPUs. A CPU always has the highest.
      other: a network whose adversarial images are carried over, in the conditions that do so.
      workers: processes that decode images, see ``data.eval_batches``.
      tag: appended to the names of the results.
      overwrite: replace results of other evaluations that have the same name.
      versions: package -> version, for the result files.
      command: the command line, for the result files.
      trained_on: whether the network was trained on the data set of the examples, see
        ``match_labels``.

    Raises:
      ValueError: if network, images, devices and batch size do not fit.
    """

    network: Network
    examples: Examples
    protocol: Protocol
    directory: Path
    devices: mesh.Mesh
    seed: int = 0
    batch_size: int = 50
    matmul_precision: str | None = None
    other: Network | None = None
    workers: int = 0
    tag: str = ""
    overwrite: bool = False
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    command: str = ""
    trained_on: bool = False

    def __post_init__(self):
        mesh.check_batch_size(self.devices, self.batch_size)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {self.seed}")
        if self.workers < 0:
            raise ValueError(f"workers must be >= 0, got {self.workers}")
        if self.matmul_precision is not None:
            arguments.choice("matmul_precision", self.matmul_precision, names.MATMUL_PRECISIONS)
        if not re.fullmatch(r"[\w.-]*", self.tag):
            raise ValueError(
                f"tag must consist of letters, digits, '-', '_' and '.', got {self.tag!r}"
            )
        _ = self.classes  # raises for examples that do not fit
        if self.other is not None and self.other.image_shape != self.network.image_shape:
            raise ValueError(
                f"{self.other.name} takes images of {self.other.image_shape}, {self.network.name} "
                f"of {self.network.image_shape}, so none carry over"
            )
        known = {each.class_names for each in (self.network, self.other) if each is not None}
        if len(known - {()}) > 1:
            assert self.other is not None
            raise ValueError(
                f"{self.other.name} and {self.network.name} must have the same classes in the same "
                f"order, else the labels by which images are attacked are those of other classes"
            )

    @functools.cached_property
    def classes(self) -> np.ndarray | None:
        """The network's class for each label of the examples, see ``match_labels``."""
        return match_labels(self.network, self.examples, self.trained_on)

    @property
    def effective_protocol(self) -> Protocol:
        """The protocol as it applies to the network: one draw if the network has no noise."""
        return self.protocol if self.network.stochastic else Protocol("none", 1)

    @property
    def effective_precision(self) -> str:
        """The precision of matrix products as it applies to the devices."""
        platform = self.devices.devices.flat[0].platform
        if platform == "cpu" or self.matmul_precision is None:
            # The lowest at which the accuracy of no image changed, see docs/accelerators.md.
            return "high" if platform == "tpu" else "highest"
        return self.matmul_precision

    def identity(
        self, name: str, condition: results.Condition, /, **fields: Any
    ) -> results.Identity:
        """The identity of a result of this job.

        Args:
          name: the task in the name of the files.
          condition: for the result file.
          **fields: of ``results.Identity``, in place of those of the job.
        """
        dataset = self.examples.record
        if self.classes is not None:
            # The labels in a result are the network's classes.
            dataset = dataclasses.replace(dataset, class_names=self.network.class_names)
        values = {
            "network": network_record(self.network),
            "dataset": dataset,
            "condition": condition,
            "protocol": self.effective_protocol,
            "key": results.Key(
                self.seed, "evaluation / index in the dataset / purpose (attack, judge, ...)"
            ),
            "matmul_precision": self.effective_precision,
        } | fields
        # Replaced noise is part of the name; the network as it was trained has none there.
        noise = self.network.noise
        test_noise = "" if self.network.trained is None else f"test-{noise_slug(noise)}"
        parts = (name, test_noise, values["protocol"].slug, self.tag)
        return results.Identity(name="-".join(filter(None, parts)), **values)

    @functools.cached_property
    def classifier(self) -> dict[str, Any]:
        """The fields of a ``Trial`` about the network, on the devices."""
        place = functools.partial(mesh.replicate, self.devices)
        network = self.network.placed(place)
        fields: dict[str, Any] = {
            "logits_fn": network.logits_fn,
            "with_noise": lambda noise: network.with_noise(noise).logits_fn,
        }
        if self.other is not None:
            fields["other"] = self.other.placed(place).logits_fn
        return fields

    def example_keys(self, indices: jax.Array) -> jax.Array:
        """The root of everything random that happens to each example, by dataset index."""
        root = prng.stream(jax.random.key(self.seed), "evaluation")
        return _index_keys(root, indices)


_index_keys = jax.jit(prng.index_keys)


class Exhibit(abc.ABC):
    """A result that is made at once: pictures, a recorded layer, or means over other results.

    Attributes:
      name: the stem of its result files.
      replaces: whether a result of the same name and another identity is replaced without asking,
        because nothing is lost with it.
    """

    name: str
    replaces: bool = False

    @abc.abstractmethod
    def identity(self, job: Job, earlier: Sequence[results.Result]) -> results.Identity | None:
        """The identity of the result, given the results of earlier tasks. None: nothing to make."""

    @abc.abstractmethod
    def make(
        self, job: Job, earlier: Sequence[results.Result]
    ) -> tuple[results.Measured | None, dict[str, Any]]:
        """The numbers, if there are any, and the arrays."""


Task = Condition | Exhibit


def evaluate(
    job: Job,
    task: Task,
    earlier: Sequence[results.Result] = (),
    progress: Callable[[int], Any] = lambda count: None,
) -> results.Result | None:
    """Evaluate one task and write its result.

    Each batch of a condition is a chunk on disk when it is done. After a kill, a second call
    computes what is missing, and its result equals that of an uninterrupted call. A finished
    result is returned as it is. Of several processes all must make the same calls; each loads
    its part of a batch, and process 0 writes.

    Args:
      job: what the tasks have in common.
      task: what is done.
      earlier: results of the tasks before, for those that need them.
      progress: called with the number of examples that were finished since the last call.

    Returns:
      The result, or None if there is nothing to make.

    Raises:
      ResultError: if files of the same name are damaged, of another evaluation, or being
        written by another program.
      FloatingPointError: if gradients or logits are not finite.
    """
    if isinstance(task, Condition):
        identity = job.identity(task.name, task.record())
        replaces = False
    else:
        identity, replaces = task.identity(job, earlier), task.replaces
        if identity is None:
            return None
    store = Store(job.directory, identity)
    result = _finished(job, store, replaces)
    if result is not None:
        store.tidy()
        progress(len(job.examples) if isinstance(task, Condition) else 0)
        return result
    started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    with store.locked(), jax.default_matmul_precision(identity.matmul_precision):
        if isinstance(task, Condition):
            measured, arrays, seconds = _measured(job, task, store, progress)
        else:
            since = time.perf_counter()
            measured, arrays = task.make(job, earlier)
            seconds = time.perf_counter() - since
        result = results.Result(
            **vars(identity),
            run=job.network.name,
            provenance=results.Provenance(
                versions=job.versions,
                command=job.command,
                device=mesh.describe(job.devices),
                started=started,
                wall_seconds=round(seconds, 3),
            ),
            measured=measured,
            arrays=arrays,
        )
        store.publish(result)
    return result


def _finished(job: Job, store: Store, replaces: bool) -> results.Result | None:
    """The finished result of an evaluation, if there is one. All processes must agree on it."""
    with mesh.first_process_first("finished result"):
        try:
            result = store.finished()
        except ResultError:
            if not (job.overwrite or replaces):
                raise
            store.remove()
            result = None
    _check_same_files(job, int(result is not None))
    return result


def _check_same_files(job: Job, count: int) -> None:
    """Check that all processes have found as much in the results.

    Raises:
      ResultError: if they have not.
    """
    if not mesh.same_in_all_processes(count):
        raise ResultError(
            f"the processes do not find the same files in {job.directory}; it must be on a file "
            "system that they share"
        )


def _measured(
    job: Job, condition: Condition, store: Store, progress: Callable[[int], Any]
) -> tuple[results.Measured, dict[str, Any], float]:
    """The numbers, the arrays and the seconds of a condition; its chunks are written on the way."""
    with mesh.first_process_first("chunks"):
        try:
            chunks = store.chunks()
        except ResultError:
            if not job.overwrite:
                raise
            store.discard_chunks()
            chunks = store.chunks()
    done = sum(len(chunk["index"]) for chunk in chunks)
    _check_same_files(job, done)
    progress(done)
    for chunk in _new_chunks(job, condition, done):
        store.add_chunk(done, chunk)
        chunks.append(chunk)
        done += len(chunk["index"])
        progress(len(chunk["index"]))
    arrays = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
    seconds = float(arrays.pop("seconds").sum())
    constants = {"draws": np.int64(job.effective_protocol.draws)} | condition.constants()
    return condition.summary(arrays), arrays | constants, seconds


def _new_chunks(job: Job, condition: Condition, start: int) -> Iterator[dict[str, np.ndarray]]:
    """A chunk of arrays for each batch from the position ``start`` on."""
    with contextlib.closing(batches(job, start=start, workers=job.workers)) as parts:
        for part in parts:
            since = time.perf_counter()
            placed, trial = place(job, part)
            arrays = condition.measure(trial) | {"key": jax.random.key_data(trial.example_keys)}
            batch = mesh.fetch(placed)
            mask, index = batch["mask"], batch["index"].astype(np.int64)
            arrays = {name: value[mask] for name, value in mesh.fetch(arrays).items()}
            if isinstance(condition, Judged):
                judging.check_finite(arrays["loss"], index[mask])
                arrays["probability_correct"] = judging.probability_correct(arrays["right"])
            chunk = {"index": index[mask], "label": batch["label"][mask], **arrays}
            yield chunk | {"seconds": np.array([time.perf_counter() - since])}


def batches(job: Job, batch_size: int | None = None, **fields: Any) -> "data.Batches":
    """This process's part of the batches of a job, see ``data.eval_batches``."""
    return data.eval_batches(
        job.examples,
        batch_size=job.batch_size if batch_size is None else batch_size,
        image_size=job.network.image_size,
        preprocessing=job.network.preprocessing,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        **fields,
    )


def place(job: Job, part: dict[str, np.ndarray]) -> tuple[dict[str, jax.Array], Trial]:
    """Put a batch on the devices, as a trial for the network.

    Args:
      job: what the tasks have in common.
      part: this process's part of the batch, see ``batches``.

    Returns:
      ``index`` in the dataset, ``label`` (the network's class) and ``mask`` of the whole batch,
      each (N,), and the trial.
    """
    # The padding has the number of no example; which one it gets here does not matter.
    numbers = np.where(part["mask"], part["index"], 0)
    labels = part["label"]
    if job.classes is not None:
        labels = job.classes[labels].astype(labels.dtype)
    placed = mesh.shard_batch(
        job.devices,
        {
            "index": job.examples.indices[numbers].astype(np.uint32),
            "image": part["image"],
            "label": labels,
            "mask": part["mask"],
        },
    )
    filled = _fill_padding(job.devices)(placed)
    images = filled.pop("image")
    trial = Trial(
        protocol=job.effective_protocol,
        example_keys=job.example_keys(filled["index"]),
        images=images,
        labels=filled["label"],
        **job.classifier,
    )
    return filled, trial


@functools.cache
def _fill_padding(devices: mesh.Mesh) -> Callable[..., dict[str, jax.Array]]:
    """A function that makes what the mask hides a copy of the first example.

    That is a valid image, so padding cannot raise an error.
    """

    def fill(batch):
        rows = jnp.where(batch["mask"], jnp.arange(len(batch["mask"])), 0)
        return {name: x if name == "mask" else x[rows] for name, x in batch.items()}

    return jax.jit(fill, out_shardings=mesh.sharded(devices))
