"""Batches for training and evaluation. This is the only module that imports Grain.

Everything is a function of numbers. Grain shuffles the numbers ``epoch * len(source) + index`` and
cuts them into global batches; one callable turns the numbers of a batch into images. So the order
depends only on the seed, and the augmentation of an example only on (seed, epoch, index). The
position in the stream is the number of batches, for any number of workers and processes.
"""

import atexit
import dataclasses
import functools
import multiprocessing
import os
import signal
import threading
import weakref
import zlib
from collections.abc import Callable, Generator
from multiprocessing.connection import wait
from typing import Any

import grain
import numpy as np
from absl import flags

from vone_jax import arguments
from vone_jax.data.sources import Prepared, Source
from vone_jax.data.transforms import Augment, Preprocessing

Batch = dict[str, np.ndarray]
# An iterator over batches. Close it when done, which stops threads and worker processes.
Batches = Generator[Batch, None, None]

# Whole batches are made in parallel: Pillow releases the interpreter lock while it decodes. More
# threads than these wait for the lock, and hold a batch each; ``workers`` are for more cores.
_THREADS = min(16, os.cpu_count() or 1)
_OPEN: "weakref.WeakSet[Batches]" = weakref.WeakSet()


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    image_size: int,
    augment: Augment | None = None,
    preprocessing: Preprocessing | None = None,
    epochs: int | None = None,
    skip: int = 0,
    workers: int = 0,
    as_bytes: bool = False,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
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
      skip: number of batches to leave out at the start. A run that resumes at a step skips as many.
      workers: processes that prepare batches; 0 uses threads of this process. A script with
        workers needs an ``if __name__ == "__main__"`` guard, because they are spawned.
      as_bytes: leave images uint8, 0 to 255, to send a quarter of the data to a device.
      process_index: index of this process, in [0, process_count).
      process_count: number of processes, a divisor of ``batch_size``.

    Returns:
      An iterator of ``{"image": float32 (b, H, W, C) in [0, 1] or uint8, "label": int32 (b,),
      "index": uint32 (b,)}`` with ``b = batch_size // process_count``.

    Raises:
      ValueError: if an argument is out of its range, or the split has fewer than ``batch_size``
        examples. The iterator raises a ValueError that names an example that cannot be read.
    """
    arguments.seed("seed", seed)
    arguments.count("skip", skip, least=0)
    arguments.count("workers", workers, least=0)
    if epochs is not None:
        arguments.count("epochs", epochs)
    make = _TrainBatch(
        **_shared(source, batch_size, image_size, preprocessing, process_index, process_count),
        seed=int(seed),
        augment=augment or Augment(),
    )
    batches_per_epoch(source, batch_size)
    # Grain's order of epoch e is a function of seed + e. Without the hash, a run with the next seed
    # would be this run without its first epoch.
    order_seed = zlib.crc32(f"order {seed}".encode())
    numbers = grain.MapDataset.range(len(source)).map_with_index(_number).shuffle(order_seed)
    batches = numbers.batch(batch_size, drop_remainder=True).repeat(epochs).map(make)
    return _iterate(batches[skip:], workers, as_bytes)


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    preprocessing: Preprocessing | None = None,
    start: int = 0,
    workers: int = 0,
    as_bytes: bool = False,
    process_index: int = 0,
    process_count: int = 1,
) -> Batches:
    """Return batches that contain every example once, in the order of the set.

    The last batch is padded with black images whose mask is False, label 0 and index
    ``len(source)``, which is out of range on purpose. All processes get the same number of batches,
    and over all of them the mask sums to ``len(source) - start``. The other arguments are those of
    ``train_batches``.

    Args:
      source: the split. See ``Prepared`` for one that is read several times.
      batch_size: examples per batch over all processes.
      image_size: side of the images, in pixels.
      preprocessing: resizing and cropping to that size. Default: ``Preprocessing()``.
      start: index of the first example, in [0, len(source)], to continue an evaluation.

    Returns:
      An iterator of the batches of ``train_batches``, with ``"mask"``: bool (b,) in addition.

    Raises:
      ValueError: if an argument is out of its range. The iterator raises a ValueError that names an
        example that cannot be read.
    """
    fields = _shared(source, batch_size, image_size, preprocessing, process_index, process_count)
    arguments.count("start", start, 0, most=len(source))
    arguments.count("workers", workers, least=0)
    if isinstance(source, Prepared) and source.kept:
        workers = 0  # They could not share what is kept.
    num_batches = -(-(len(source) - start) // batch_size)
    # Numbers from len(source) on are the padding.
    numbers = grain.MapDataset.range(start, start + num_batches * batch_size)
    return _iterate(numbers.batch(batch_size).map(_EvalBatch(**fields)), workers, as_bytes)


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


def _shared(
    source: Source,
    batch_size: int,
    image_size: int,
    preprocessing: Preprocessing | None,
    process_index: int,
    process_count: int,
) -> dict[str, Any]:
    """Check arguments, and return the fields that ``_TrainBatch`` and ``_EvalBatch`` share."""
    if len(source) == 0:
        raise ValueError(f"{source.name!r} {source.split!r} has no examples")
    arguments.count("batch_size", batch_size)
    arguments.count("image_size", image_size)
    if batch_size % process_count:
        raise ValueError(
            f"batch_size must be divisible by process_count, got {batch_size} and {process_count}"
        )
    local = batch_size // process_count
    preprocessing = preprocessing or Preprocessing()
    return {
        "source": source,
        "rows": slice(process_index * local, (process_index + 1) * local),
        "image_size": image_size,
        "preprocessing": preprocessing.resolved(source.image_shape, image_size),
    }


def _number(number: int, _: int) -> int:
    return number


@dataclasses.dataclass(frozen=True, kw_only=True)
class _MakeBatch:
    """Makes this process's part of a global batch from the numbers of its examples.

    Worker processes get it pickled. Its results depend on nothing but its fields and the numbers.
    """

    source: Source
    rows: slice
    image_size: int
    preprocessing: Preprocessing

    def _read(self, index: int, prepare: Callable[[np.ndarray], np.ndarray]) -> dict[str, Any]:
        """Read an example, check its shape and label, and prepare its image for a batch."""
        source = self.source
        place = f"{index} of {source.name!r} {source.split!r}"
        try:
            example = source[index]
            image, label = example["image"], example["label"]
            channels = source.image_shape[-1]
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != channels:
                raise ValueError(
                    f"its image is {image.dtype} of shape {image.shape}; expected uint8 with "
                    f"{channels} channel(s)"
                )
            if not 0 <= label < source.num_classes:
                raise ValueError(f"its label {label} is not in [0, {source.num_classes})")
            return {**example, "image": prepare(image)}
        # Sources read files of any kind with any library, which may raise anything.
        except Exception as error:
            raise ValueError(f"example {place} cannot be read: {error}") from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class _TrainBatch(_MakeBatch):
    """A number is ``epoch * len(source) + index``."""

    seed: int
    augment: Augment

    def __call__(self, numbers: np.ndarray) -> Batch:
        epochs, indices = np.divmod(numbers[self.rows], len(self.source))

        def read(epoch: int, index: int) -> dict[str, Any]:
            random = np.random.default_rng((self.seed, epoch, index))
            size, preprocessing = self.image_size, self.preprocessing
            return self._read(index, lambda image: self.augment(image, size, random, preprocessing))

        examples = list(map(read, epochs.tolist(), indices.tolist()))
        return {
            "image": np.stack([example["image"] for example in examples]),
            "label": np.array([example["label"] for example in examples], np.int32),
            "index": indices.astype(np.uint32),
        }


class _EvalBatch(_MakeBatch):
    """A number is an index. Those beyond the end of the set are padding."""

    def __call__(self, numbers: np.ndarray) -> Batch:
        numbers = numbers[self.rows]
        size = self.image_size
        images = np.zeros((len(numbers), size, size, self.source.image_shape[-1]), np.uint8)
        labels = np.zeros(len(numbers), np.int32)
        mask = numbers < len(self.source)
        prepare = functools.partial(self.preprocessing, size=size)
        for row, index in enumerate(numbers[mask].tolist()):
            example = self._read(index, prepare)
            images[row], labels[row] = example["image"], example["label"]
        index = np.minimum(numbers, len(self.source)).astype(np.uint32)
        return {"image": images, "label": labels, "index": index, "mask": mask}


@atexit.register
def _close_open_batches() -> None:
    # At the end of the program, while the modules that Grain needs for closing still exist.
    for batches in list(_OPEN):
        batches.close()


def _iterate(batches: grain.MapDataset, workers: int, as_bytes: bool) -> Batches:
    iterator = _made(batches, workers, as_bytes)
    _OPEN.add(iterator)
    return iterator


def _made(batches: grain.MapDataset, workers: int, as_bytes: bool) -> Batches:
    """Make the batches in threads, or in processes if there are ``workers``."""
    threads = 1 if workers else _THREADS
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + 2)
    dataset = batches.to_iter_dataset(options)
    if workers:
        _allow_processes()
        processes = grain.MultiprocessingOptions(workers, per_worker_buffer_size=2)
        dataset = dataset.mp_prefetch(processes, worker_init_fn=_begin_worker)
    iterator = iter(dataset)
    try:
        for batch in iterator:
            # Arrays of a worker are in shared memory, which the next batch may overwrite.
            copied = {name: np.array(value) for name, value in batch.items()} if workers else batch
            if not as_bytes:
                # Division with a dtype would be buffered, and several times slower.
                image = copied["image"].astype(np.float32)
                image /= np.float32(255)
                copied = copied | {"image": image}
            yield copied
    finally:
        iterator.close()


def _allow_processes() -> None:
    # Grain 0.2.18 reads this flag without checking that flags were parsed if JAX can be imported,
    # and absl raises an error (google/grain#1355). Marking it does not change the program's flags.
    name = "grain_enable_multiprocess_worker_profiling"
    if name in flags.FLAGS:
        flags.FLAGS[name].present = True


def _begin_worker(index: int, count: int) -> None:
    """Make a worker process ignore signals, and end when its program ends.

    A terminal sends Ctrl-C, and a cluster SIGTERM, to all processes of a program. A worker that
    ended then would lose the batch that the program waits for before it saves. A program that is
    killed cannot end its workers, so each of them watches the program.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def end_with_program() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=end_with_program, daemon=True).start()
