"""Batches for training and evaluation. This is the only module that imports Grain.

Everything is a function of numbers. Grain shuffles the numbers ``epoch * len(source) + index`` and
cuts them into global batches; one callable turns the numbers of a batch into images. So the order
depends only on the seed, and the augmentation of an example only on (seed, epoch, index). The
position in the stream is one integer, which is valid for any number of workers and processes.
"""

import dataclasses
import functools
import os
import warnings
import weakref
import zlib
from typing import Any

import grain
import numpy as np

from vone_jax import arguments
from vone_jax.data import workers as worker_processes
from vone_jax.data.sources import KeptImages, Source
from vone_jax.data.transforms import Augment, Preprocessing
from vone_jax.data.workers import Batch, EvalBatch, TrainBatch

# Whole batches are made in parallel: Pillow releases the interpreter lock while it decodes.
_THREADS = min(4, os.cpu_count() or 1)
# If workers die at one batch more often than this, the batch is the cause.
_RESTARTS = 3


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    image_size: int,
    augment: Augment | None = None,
    preprocessing: Preprocessing | None = None,
    epochs: int | None = None,
    workers: int = 0,
    unreadable: str = "raise",
    as_bytes: bool = False,
    process_index: int = 0,
    process_count: int = 1,
) -> "Batches":
    """Return shuffled, augmented batches.

    Every epoch is a new permutation of the whole split; its last ``len(source) % batch_size``
    examples are dropped. The global batches do not depend on ``workers`` and ``process_count``:
    process p gets the p-th contiguous part of each global batch.

    Args:
      source: the split.
      batch_size: examples per batch over all processes.
      seed: seed of order and augmentation, in [0, 2**32).
      image_size: side of the images, in pixels.
      augment: random transforms. Default: none.
      preprocessing: preprocessing of images that ``augment`` does not crop to ``image_size``.
      epochs: number of epochs. Default: the iterator does not end.
      workers: processes that prepare batches; 0 uses threads of this process. A script with
        workers needs an ``if __name__ == "__main__"`` guard, because they are spawned.
      unreadable: ``"raise"`` an error at an example that cannot be read, or ``"skip"`` it. Skipping
        warns and takes the next readable example instead. It also restarts a worker process that
        dies, up to three times in a row. The batches still depend only on the files.
      as_bytes: leave images uint8, 0 to 255. In this process, the conversion to floats takes longer
        than all other work. Bytes are also a quarter of the data to send to a device.
      process_index: index of this process, in [0, process_count).
      process_count: number of processes, a divisor of ``batch_size``.

    Returns:
      An iterator of ``{"image": float32 (b, H, W, C) in [0, 1] or uint8, "label": int32 (b,),
      "index": uint32 (b,)}`` with ``b = batch_size // process_count``, see ``Batches``. With
      ``unreadable="skip"`` also ``"unreadable"``: bool (b,), True for an example that took the
      place of another one.

    Raises:
      ValueError: if an argument is out of its range, or the split has fewer than ``batch_size``
        examples. The iterator raises a ValueError that names an example that cannot be read, and
        a ChildProcessError if a worker process dies.
    """
    arguments.choice("unreadable", unreadable, ("raise", "skip"))
    arguments.seed("seed", seed)
    if epochs is not None:
        arguments.count("epochs", epochs)
    make = TrainBatch(
        **_images_of(source, batch_size, image_size, preprocessing, process_index, process_count),
        seed=int(seed),
        augment=augment or Augment(),
        replace_unreadable=unreadable == "skip",
    )
    batches_per_epoch(source, batch_size)
    # Grain's order of epoch e is a function of seed + e. Without the hash, a run with the next seed
    # would be this run without its first epoch.
    order_seed = zlib.crc32(f"order {seed}".encode())
    numbers = grain.MapDataset.range(len(source)).map_with_index(_number).shuffle(order_seed)
    return Batches(
        numbers.batch(batch_size, drop_remainder=True).repeat(epochs).map(make),
        workers,
        _identity("train", source, batch_size, seed=seed),
        restarts=_RESTARTS if unreadable == "skip" else 0,
        as_bytes=as_bytes,
    )


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    preprocessing: Preprocessing | None = None,
    start: int = 0,
    workers: int = 0,
    restart_workers: bool = False,
    as_bytes: bool = False,
    process_index: int = 0,
    process_count: int = 1,
    kept: KeptImages | None = None,
) -> "Batches":
    """Return batches that contain every example once, in the order of the set.

    The last batch is padded with black images whose mask is False, label 0 and index
    ``len(source)``, which is out of range on purpose. All processes get the same number of batches,
    and over all of them the mask sums to ``len(source) - start``. The other arguments are those of
    ``train_batches``.

    Args:
      source: the split.
      batch_size: examples per batch over all processes.
      image_size: side of the images, in pixels.
      preprocessing: resizing and cropping to that size. Default: ``Preprocessing()``.
      start: index of the first example, in [0, len(source)], to continue an evaluation.
      restart_workers: restart a worker process that dies, with a warning, up to three times in a
        row. The batches stay the same. By default it ends the iteration.
      kept: a place in memory for the images of ``source``, prepared in this way. The batches fill
        it. Once it has all images that a call needs, the call reads them from there.

    Returns:
      An iterator of the batches of ``train_batches``, with ``"mask"``: bool (b,) in addition.

    Raises:
      ValueError: if an argument is out of its range. The iterator raises the errors of
        ``train_batches``; it never skips an example.
    """
    fields = _images_of(source, batch_size, image_size, preprocessing, process_index, process_count)
    arguments.count("start", start, 0, most=len(source))
    if kept is not None:
        rows = range(batch_size)[fields["rows"]]
        if kept.has(i for i in range(start, len(source)) if (i - start) % batch_size in rows):
            fields |= {"source": kept, "preprocessing": Preprocessing(1.0)}
            workers, kept = 0, None
    make = EvalBatch(**fields)
    num_batches = -(-(len(source) - start) // batch_size)
    # Numbers from len(source) on are the padding.
    numbers = grain.MapDataset.range(start, start + num_batches * batch_size)
    return Batches(
        numbers.batch(batch_size).map(make),
        workers,
        _identity("eval", source, batch_size, start=start),
        restarts=_RESTARTS if restart_workers else 0,
        as_bytes=as_bytes,
        kept=kept,
    )


def batches_per_epoch(source: Source, batch_size: int) -> int:
    """Return the number of batches in an epoch of ``train_batches``.

    Raises:
      ValueError: if ``source`` is smaller than ``batch_size``.
    """
    arguments.count("batch_size", batch_size)
    if batch_size > len(source):
        raise ValueError(
            f"batch_size {batch_size} is larger than the {len(source)} examples of "
            f"{source.name!r} {source.split!r}; incomplete batches are dropped in training, so an "
            f"epoch would be empty"
        )
    return len(source) // batch_size


class Batches(grain.DatasetIterator):
    """An iterator over batches whose position can be saved and restored exactly.

    The state is a small dict that JSON can hold. It is the same on all processes and is valid for
    any number of workers and processes. The entries of ``identity`` must agree when the state is
    restored. Close the iterator when done, for instance with ``contextlib.closing``: this stops
    threads and worker processes. After an error the position is still at the batch that failed.
    ``restarts`` is how many times in a row dead workers are started again.
    """

    def __init__(
        self,
        batches: grain.MapDataset,
        workers: int,
        identity: dict[str, Any],
        restarts: int = 0,
        as_bytes: bool = False,
        kept: KeptImages | None = None,
    ):
        super().__init__()
        # Holds the Grain iterator while it runs. The finalizer empties the list at interpreter exit
        # too, while the modules that Grain needs for closing still exist.
        self._running: list[grain.DatasetIterator] = []
        weakref.finalize(self, self._close_all, self._running)
        arguments.count("workers", workers, least=0)
        self._batches, self._workers, self._identity = batches, workers, identity
        self._restarts, self._as_bytes, self._kept = restarts, as_bytes, kept
        self._position, self._ended = 0, False

    def __next__(self) -> Batch:
        for restarts_left in reversed(range(self._restarts + 1)):
            try:
                batch = self._read()
                break
            except ChildProcessError as error:
                if not restarts_left:
                    raise
                warnings.warn(f"{error}; starting it again", stacklevel=2)
        self._position += 1
        for problem in filter(None, batch.pop("problem", ())):
            warnings.warn(f"{problem}; the next one takes its place", stacklevel=2)
        return batch

    def _read(self) -> Batch:
        """Return the batch at the position."""
        try:
            return next(self._open())
        except StopIteration:
            raise
        except BaseException as error:
            # Grain is already past the batch that failed; start again from it.
            self._close_all(self._running)
            if self._workers and isinstance(error, RuntimeError):
                where = f"{self._identity['dataset']!r} {self._identity['split']!r}"
                raise ChildProcessError(
                    f"a data worker died at batch {self._position} of {where}; the cause may be "
                    f"that memory ran out ({error})"
                ) from error
            raise

    def get_state(self) -> dict[str, Any]:
        """Return the number of batches delivered, and the identity of the stream."""
        return {"position": self._position, **self._identity}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go to a saved position.

        Raises:
          ValueError: if the state was saved for another set, split, seed or batch size.
        """
        self._check_open()
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise ValueError(
                    f"the saved position is of a pipeline with {name}={state.get(name)!r}, "
                    f"this one has {name}={value!r}"
                )
        self._close_all(self._running)
        self._position = int(state["position"])

    def close(self) -> None:
        """Stop threads and workers. The iterator cannot be used afterwards."""
        self._close_all(self._running)
        self._ended = True

    # A static method, because the iterator may close at interpreter exit, after Python has cleared
    # the functions of modules.
    @staticmethod
    def _close_all(iterators: "list[grain.DatasetIterator]") -> None:
        while iterators:
            iterators.pop().close()

    def _check_open(self) -> None:
        if self._ended:
            raise ValueError("these batches are closed; make new ones")

    def _open(self) -> grain.DatasetIterator:
        self._check_open()
        if not self._running:
            threads = 1 if self._workers else _THREADS
            batches = self._batches[self._position :].to_iter_dataset(
                grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
            )
            if self._workers:
                worker_processes.prepare()
                batches = batches.mp_prefetch(
                    grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=2),
                    worker_init_fn=worker_processes.begin,
                )
            # The conversion to floats comes last, in this process: workers send bytes faster.
            received = functools.partial(_received, as_bytes=self._as_bytes, kept=self._kept)
            self._running.append(iter(batches.map(received)))
        return self._running[0]


def _number(number: int, _: int) -> int:
    return number


def _received(batch: Batch, as_bytes: bool, kept: KeptImages | None) -> Batch:
    if kept is not None:
        kept.add(batch)
    # Arrays of a worker are in shared memory; copy them to ordinary memory.
    plain = {name: np.array(value) for name, value in batch.items() if name != "image"}
    if "problem" in plain:
        plain["unreadable"] = plain["problem"] != ""
    # In two steps: division with a dtype is buffered, and several times slower.
    image = np.array(batch["image"], None if as_bytes else np.float32)
    if not as_bytes:
        image /= np.float32(255)
    return {"image": image, **plain}


def _images_of(
    source: Source,
    batch_size: int,
    image_size: int,
    preprocessing: Preprocessing | None,
    process_index: int,
    process_count: int,
) -> dict[str, Any]:
    """Check arguments, and return the fields that ``TrainBatch`` and ``EvalBatch`` share."""
    if len(source) == 0:
        raise ValueError(f"{source.name!r} {source.split!r} has no examples")
    arguments.count("batch_size", batch_size)
    arguments.count("image_size", image_size)
    arguments.count("process_count", process_count)
    if batch_size % process_count:
        raise ValueError(
            f"batch_size must be divisible by process_count, got {batch_size} and {process_count}"
        )
    arguments.count("process_index", process_index, 0, most=process_count - 1)
    preprocessing = preprocessing or Preprocessing()
    if preprocessing.center_crop is None and not preprocessing.squash:
        photographs = None in source.image_shape and image_size >= 112
        preprocessing = dataclasses.replace(
            preprocessing, center_crop=0.875 if photographs else 1.0
        )
    local = batch_size // process_count
    return {
        "source": source,
        "rows": slice(process_index * local, (process_index + 1) * local),
        "image_size": image_size,
        "preprocessing": preprocessing,
    }


def _identity(kind: str, source: Source, batch_size: int, **others: int) -> dict[str, Any]:
    return {
        "kind": kind,
        "dataset": source.name,
        "split": source.split,
        "examples": len(source),
        "batch_size": int(batch_size),
        **{name: int(value) for name, value in others.items()},
    }
