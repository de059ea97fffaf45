"""Evaluates conditions over a dataset and writes their results, going on after a kill."""

import contextlib
import dataclasses
import datetime
import functools
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import data, mesh, models, prng
from vone_jax.evaluation import judging, store
from vone_jax.evaluation.conditions import Condition, Judged
from vone_jax.evaluation.judging import Trial
from vone_jax.evaluation.protocol import Protocol
from vone_jax.evaluation.subject import Examples, Subject, check_fit

FORMAT = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """What the conditions of an evaluation have in common.

    Attributes:
      subject: the network.
      examples: the images.
      protocol: how noise is drawn; ignored by a network that draws none.
      results: directory of the result files.
      devices: mesh over which a batch is split. It changes no result.
      seed: root of all randomness.
      batch_size: examples at a time, a multiple of the number of devices. It changes no result.
      other: a network whose adversarial images are carried over, in the conditions that do so.
      workers: processes that decode images, see ``data.eval_batches``.
      tag: appended to the names of the results.
      overwrite: replace results of other evaluations that have the same name.
      provenance: fields for the result files, such as versions and command.

    Raises:
      ValueError: if network, images, devices and batch size do not fit.
    """

    subject: Subject
    examples: Examples
    protocol: Protocol
    results: Path
    devices: mesh.Mesh
    seed: int = 0
    batch_size: int = 50
    other: Subject | None = None
    workers: int = 0
    tag: str = ""
    overwrite: bool = False
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        mesh.check_batch_size(self.devices, self.batch_size)
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must be in [0, 2**32), got {self.seed}")
        if self.workers < 0:
            raise ValueError(f"workers must be >= 0, got {self.workers}")
        if not re.fullmatch(r"[\w.-]*", self.tag):
            raise ValueError(
                f"tag must consist of letters, digits, '-', '_' and '.', got {self.tag!r}"
            )
        check_fit(self.subject, self.examples)
        if self.other is not None and self.other.image_shape != self.subject.image_shape:
            raise ValueError(
                f"{self.other.run} takes images of {self.other.image_shape}, {self.subject.run} "
                f"of {self.subject.image_shape}, so none carry over"
            )

    @property
    def how(self) -> Protocol:
        """The protocol as it applies to the network: one draw if it has no noise."""
        return self.protocol if self.subject.stochastic else Protocol("fresh", 1)

    def identity(self, kind: str, name: str, condition: dict[str, Any]) -> dict[str, Any]:
        """The fields of a result that say what is measured, see ``store.IDENTITY``."""
        parts = [name, self.subject.suffix, self.how.suffix, self.tag]
        values = {
            "kind": kind,
            "name": "-".join(part for part in parts if part),
            "model": self.subject.record(),
            "dataset": self.examples.record(),
            "condition": condition,
            "protocol": self.how.record(self.subject.stochastic),
            "key": {
                "seed": self.seed,
                "stream": "evaluation / index in the dataset / purpose (attack, judge, ...)",
            },
            "config": self.subject.config,
            "checkpoint_step": self.subject.checkpoint_step,
            "weights": self.subject.weights,
        }
        return {field: values[field] for field in store.IDENTITY}

    def record(self, identity: dict[str, Any], started: str, seconds: float) -> dict[str, Any]:
        """The fields that every result file has."""
        return {
            "format": FORMAT,
            "run": self.subject.run,
            **identity,
            "config_hash": store.config_hash(identity),
            **self.provenance,
            "device": mesh.describe(self.devices),
            "matmul_precision": _matmul_precision(),
            "started": started,
            "wall_seconds": round(seconds, 3),
        }

    def previous(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        """The result of this evaluation, if it has been finished before."""
        with mesh.first_process_first("finished result"):
            found = self._previous(identity)
        self.check_same_files(0 if found is None else 1)
        return found

    def _previous(self, identity: dict[str, Any]) -> dict[str, Any] | None:
        try:
            return store.finished(self.results, identity)
        except store.ResultError:
            if not self.overwrite:
                raise
            store.remove(self.results, identity["name"])
            return None

    def check_same_files(self, found: int) -> None:
        """Raises a ResultError unless all processes have found as much in the results."""
        if not mesh.same_in_all_processes(found):
            raise store.ResultError(
                f"the processes do not find the same files in {self.results}; it must be on a file "
                "system that they share"
            )

    @functools.cached_property
    def classifiers(self) -> dict[str, Any]:
        """The classifiers of a ``Trial``, on the devices."""
        subject = self.subject
        variables = mesh.replicate(self.devices, subject.variables)
        found = {
            "logits_fn": models.logits_fn(subject.model, variables),
            "renoised": lambda noise: models.logits_fn(
                models.with_noise(subject.model, noise), variables
            ),
        }
        if subject.stochastic:
            quiet = models.without_noise(subject.model)
            found["surrogate"] = models.logits_fn(quiet, variables)
        if self.other is not None:
            placed = mesh.replicate(self.devices, self.other.variables)
            found["other"] = models.logits_fn(self.other.model, placed)
        return found

    def example_keys(self, indices: jax.Array) -> jax.Array:
        """The root of everything random that happens to each example, by dataset index."""
        root = prng.stream(jax.random.key(self.seed), "evaluation")
        return _index_keys(root, indices)


_index_keys = jax.jit(prng.index_keys)


def _matmul_precision() -> str:
    return jax.config.jax_default_matmul_precision or "default"  # pyright: ignore


def now() -> str:
    """The time, for a result file."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def evaluate(
    job: Job, condition: Condition, progress: Callable[[int], Any] = lambda count: None
) -> dict[str, Any]:
    """Evaluates one condition and writes its result.

    Each batch is a chunk on disk when it is done. Called again after a kill, it computes what is
    missing, and the result is the one that an uninterrupted call would have written. A result that
    is finished is returned as it is. Of several processes all must make the same calls; each loads
    its part of a batch, and process 0 writes.

    Args:
      job: what to evaluate, and how.
      condition: what is done to the images.
      progress: called with the number of examples that are done since the last call.

    Returns:
      The content of the result's JSON file.

    Raises:
      store.ResultError: if files of the same name are damaged, of another evaluation, or being
        written by another one.
      FloatingPointError: if gradients or logits are not finite.
    """
    identity = job.identity(condition.kind, condition.name, condition.record())
    record = job.previous(identity)
    if record is not None:
        store.tidy(job.results, identity["name"])
        progress(len(job.examples))
        return record
    started = now()
    with store.locked(job.results, identity["name"]):
        with mesh.first_process_first("chunks"):
            chunks = _open_chunks(job, identity)
        done = sum(len(chunk["index"]) for chunk in chunks)
        job.check_same_files(done)
        progress(done)
        for chunk in _measured(job, condition, done):
            store.write_chunk(job.results, identity["name"], done, chunk)
            chunks.append(chunk)
            done += len(chunk["index"])
            progress(len(chunk["index"]))
        arrays = {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}
        seconds = float(arrays.pop("seconds").sum())
        record = job.record(identity, started, seconds) | condition.summary(arrays)
        constants = {"draws": np.int64(job.how.draws)} | condition.constants()
        store.publish(job.results, record, arrays | constants)
    return record


def _open_chunks(job: Job, identity: dict[str, Any]) -> list[dict[str, np.ndarray]]:
    """The chunks of an earlier call: one after the other from the first example on."""
    try:
        chunks = store.open_chunks(job.results, identity)
    except store.ResultError:
        if not job.overwrite:
            raise
        store.discard(job.results, identity["name"])
        chunks = store.open_chunks(job.results, identity)
    position, kept = 0, []
    while position in chunks:
        kept.append(chunks[position])
        position += len(kept[-1]["index"])
    return kept


def _measured(job: Job, condition: Condition, start: int):
    """Yields a chunk of arrays for each batch from the position ``start`` on."""
    with contextlib.closing(batches(job, start=start, workers=job.workers)) as parts:
        for part in parts:
            since = time.perf_counter()
            placed, trial = place(job, part)
            found = condition.measure(trial) | {"key": jax.random.key_data(trial.example_keys)}
            given = mesh.fetch(placed)
            mask, index = given["mask"], given["index"].astype(np.int64)
            found = {name: value[mask] for name, value in mesh.fetch(found).items()}
            if isinstance(condition, Judged):
                judging.check_finite(found["loss"], index[mask])
                found["probability_correct"] = judging.probability_correct(found["right"])
            chunk = {"index": index[mask], "label": given["label"][mask], **found}
            yield chunk | {"seconds": np.array([time.perf_counter() - since])}


def batches(job: Job, batch_size: int | None = None, **fields: Any) -> data.Batches:
    """This process's part of the batches of a job, see ``data.eval_batches``."""
    return data.eval_batches(
        job.examples,
        batch_size=job.batch_size if batch_size is None else batch_size,
        image_size=job.subject.image_size,
        center_crop=job.subject.center_crop,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        **fields,
    )


def place(job: Job, part: dict[str, np.ndarray]) -> tuple[dict[str, jax.Array], Trial]:
    """Puts a batch on the devices, before the network.

    Args:
      job: what to evaluate, and how.
      part: this process's part of the batch, see ``batches``.

    Returns:
      ``index`` in the dataset, ``label`` and ``mask`` of the whole batch, (N,), and the trial.
    """
    # The padding has the number of no example; which one it gets here does not matter.
    numbers = np.where(part["mask"], part["index"], 0)
    placed = mesh.shard_batch(
        job.devices,
        {
            "index": job.examples.indices[numbers].astype(np.uint32),
            "image": part["image"],
            "label": part["label"],
            "mask": part["mask"],
        },
    )
    filled = _fill_padding(job.devices)(placed)
    images = filled.pop("image")
    trial = Trial(
        how=job.how,
        example_keys=job.example_keys(filled["index"]),
        images=images,
        labels=filled["label"],
        **job.classifiers,
    )
    return filled, trial


@functools.cache
def _fill_padding(devices: mesh.Mesh):
    """Makes what the mask hides a copy of the first example.

    That is a valid image, so that padding can raise no alarm.
    """

    def fill(batch):
        rows = jnp.where(batch["mask"], jnp.arange(len(batch["mask"])), 0)
        return {name: x if name == "mask" else x[rows] for name, x in batch.items()}

    return jax.jit(fill, out_shardings=mesh.sharded(devices))
