"""Batches for training and evaluation: the only module that imports Grain.

Everything is a function of numbers. Grain shuffles the numbers ``epoch * len(source) + index``,
cuts them into global batches, and one callable turns the numbers of a batch into images. So the
order depends on the seed alone, the augmentation of an example on (seed, epoch, index) alone, and
the position in the stream is one integer: it can be restored with another number of workers or
processes.
"""

import os
import warnings
import weakref
import zlib
from typing import Any

import grain
import numpy as np
from absl import flags

from vone_jax.data import worker
from vone_jax.data.arguments import (
    center_crop_share,
    check_count,
    check_not_empty,
    identity,
    rows_of_process,
)
from vone_jax.data.augment import Augment
from vone_jax.data.collate import Batch, EvalBatch, TrainBatch
from vone_jax.data.sources import Source

# Whole batches are made in parallel: Pillow releases the interpreter lock while it decodes.
_THREADS = min(4, os.cpu_count() or 1)
# More deaths at one batch have a cause in it.
_RESTARTS = 3


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    image_size: int,
    augment: Augment | None = None,
    center_crop: float | None = None,
    epochs: int | None = None,
    workers: int = 0,
    unreadable: str = "raise",
    process_index: int = 0,
    process_count: int = 1,
) -> "Batches":
    """Shuffled, augmented batches.

    Every epoch is a new permutation of the whole split; the last ``len(source) % batch_size``
    examples of each are dropped. The global batches do not depend on ``workers`` and
    ``process_count``: process p gets the p-th contiguous part of each.

    Args:
      source: the split.
      batch_size: examples per batch over all processes.
      seed: decides order and augmentation, in [0, 2**32).
      image_size: side of the images, in pixels.
      augment: random transforms; none by default.
      center_crop: share of the shorter side that is kept when an image is fitted without a random
        resized crop, see ``eval_batches``.
      epochs: number of epochs; without end by default.
      workers: processes that prepare batches; 0 uses threads of this process. Scripts that ask
        for workers need an ``if __name__ == "__main__"`` guard, as they are spawned.
      unreadable: ``"raise"``, or ``"skip"``: an example that cannot be read is named in a warning
        and gives its place to the next one that can; a worker process that dies is started again,
        a few times. Which examples a batch holds then still depends on the files alone.
      process_index: which of the processes this one is.
      process_count: number of processes, a divisor of ``batch_size``.

    Returns:
      An iterator of ``{"image": float32 (b, H, W, C) in [0, 1], "label": int32 (b,),
      "index": uint32 (b,)}`` with ``b = batch_size // process_count``, see ``Batches``. With
      ``unreadable="skip"`` also ``"unreadable"``: bool (b,), True for what took another's place.

    Raises:
      ValueError: if an argument is out of its range, or the split has fewer than ``batch_size``
        examples. The iterator raises one, which names the example, where it cannot be read, and a
        ChildProcessError where a worker process dies.
    """
    rows = rows_of_process(batch_size, process_index, process_count)
    batches_per_epoch(source, batch_size)
    check_count("image_size", image_size, 1)
    if unreadable not in ("raise", "skip"):
        raise ValueError(f"unreadable must be 'raise' or 'skip', got {unreadable!r}")
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be in [0, 2**32), got {seed!r}")
    if epochs is not None:
        check_count("epochs", epochs, 1)
    # Grain's order of epoch e is a function of seed + e. The hash keeps seeds that differ by one
    # from being the same run, shifted by an epoch.
    order_seed = zlib.crc32(f"order {seed}".encode())
    numbers = grain.MapDataset.range(len(source)).map_with_index(_number).shuffle(order_seed)
    make = TrainBatch(
        source=source,
        rows=rows,
        seed=int(seed),
        image_size=image_size,
        augment=augment or Augment(),
        center_crop=center_crop_share(center_crop, source, image_size),
        replace_unreadable=unreadable == "skip",
    )
    return Batches(
        numbers.batch(batch_size, drop_remainder=True).repeat(epochs).map(make),
        workers,
        {"kind": "train", **identity(source, batch_size), "seed": int(seed)},
        restarts=_RESTARTS if unreadable == "skip" else 0,
    )


def eval_batches(
    source: Source,
    *,
    batch_size: int,
    image_size: int,
    center_crop: float | None = None,
    start: int = 0,
    workers: int = 0,
    restart_workers: bool = False,
    process_index: int = 0,
    process_count: int = 1,
) -> "Batches":
    """Batches that show every example once, in the order of the set.

    The last batch is padded with black images whose mask is False, label 0 and index
    ``len(source)``, which is out of range on purpose. All processes get the same number of batches,
    and over all of them the mask sums to ``len(source) - start``.

    Args:
      source: the split.
      batch_size: examples per batch over all processes.
      image_size: side of the images, in pixels. The shorter side of an image is resized to
        ``image_size / center_crop`` and the central square is cut out.
      center_crop: in (0, 1]. By default 0.875 for photographs, that is, sets whose images vary in
        size, at 112 px or more (224 px: Resize(256), CenterCrop(224)); else 1, a plain resize.
      start: first example, in [0, len(source)]; an interrupted evaluation goes on from there.
      workers: see ``train_batches``.
      restart_workers: whether a worker process that dies is named in a warning and started again, a
        few times; the batches stay the same. By default it ends the iteration.
      process_index: which of the processes this one is.
      process_count: number of processes, a divisor of ``batch_size``.

    Returns:
      An iterator of the batches of ``train_batches`` with ``"mask"``: bool (b,) in addition.

    Raises:
      ValueError: if an argument is out of its range. The iterator raises what that of
        ``train_batches`` does; an example that cannot be read is never left out.
    """
    rows = rows_of_process(batch_size, process_index, process_count)
    check_count("image_size", image_size, 1)
    check_not_empty(source)
    if not 0 <= start <= len(source):
        raise ValueError(f"start must be in [0, {len(source)}], got {start!r}")
    num_batches = -(-(len(source) - start) // batch_size)
    # Numbers from len(source) on are the padding.
    numbers = grain.MapDataset.range(start, start + num_batches * batch_size)
    make = EvalBatch(
        source=source,
        rows=rows,
        image_size=image_size,
        center_crop=center_crop_share(center_crop, source, image_size),
    )
    return Batches(
        numbers.batch(batch_size).map(make),
        workers,
        {"kind": "eval", **identity(source, batch_size), "start": int(start)},
        restarts=_RESTARTS if restart_workers else 0,
    )


def batches_per_epoch(source: Source, batch_size: int) -> int:
    """Number of full batches in an epoch of ``train_batches``.

    Raises:
      ValueError: if ``source`` is empty or smaller than ``batch_size``.
    """
    check_not_empty(source)
    check_count("batch_size", batch_size, 1)
    if batch_size > len(source):
        raise ValueError(
            f"batch_size {batch_size} is larger than the {len(source)} examples of "
            f"{source.name!r} {source.split!r}; incomplete batches are dropped in training, so an "
            f"epoch would be empty"
        )
    return len(source) // batch_size


class Batches(grain.DatasetIterator):
    """Iterator over batches, with a position that can be saved and restored exactly.

    The state is a small dict that JSON can hold. It is the same on all processes and fits any
    number of workers and processes. Close the iterator when done (``contextlib.closing`` helps):
    threads and worker processes end with it. After an error the position is still at the batch
    that failed.

    Args:
      batches: of uint8 images, see ``collate.py``.
      workers: processes that make them; 0 uses threads.
      identity: what has to agree when a position is restored.
      restarts: how often in a row workers are started again when one has died.
    """

    def __init__(
        self,
        batches: grain.MapDataset,
        workers: int,
        identity: dict[str, Any],
        restarts: int = 0,
    ):
        super().__init__()
        # Holds the Grain iterator while it runs. The finalizer empties it at interpreter exit too,
        # while the modules that Grain needs for closing are still there.
        self._running: list[grain.DatasetIterator] = []
        weakref.finalize(self, _close_all, self._running)
        check_count("workers", workers, 0)
        self._batches = batches
        self._workers = workers
        self._identity = identity
        self._restarts = restarts
        self._position = 0

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
        """The batch at the position."""
        try:
            return next(self._open())
        except StopIteration:
            raise
        except BaseException as error:
            # Grain has passed the batch that failed; start again from it.
            _close_all(self._running)
            if self._workers and isinstance(error, RuntimeError):
                where = f"{self._identity['dataset']!r} {self._identity['split']!r}"
                raise ChildProcessError(
                    f"a data worker died at batch {self._position} of {where}, as it does where "
                    f"memory runs out ({error})"
                ) from error
            raise

    def get_state(self) -> dict[str, Any]:
        """The number of batches delivered, and what has to agree when it is restored."""
        return {"position": self._position, **self._identity}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to a saved position.

        Raises:
          ValueError: if the state was saved for another set, split, seed or batch size.
        """
        self._assert_not_closed()
        for name, value in self._identity.items():
            if state.get(name) != value:
                raise ValueError(
                    f"the saved position is of a pipeline with {name}={state.get(name)!r}, "
                    f"this one has {name}={value!r}"
                )
        _close_all(self._running)
        self._position = int(state["position"])

    def start_prefetch(self) -> None:
        self._open().start_prefetch()

    def close(self) -> None:
        """Stops threads and workers. The iterator cannot be used afterwards."""
        _close_all(self._running)
        self._closed = True

    def _open(self) -> grain.DatasetIterator:
        self._assert_not_closed()
        if not self._running:
            threads = 1 if self._workers else _THREADS
            batches = self._batches[self._position :].to_iter_dataset(
                grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
            )
            if self._workers:
                _let_grain_read_its_flag()
                batches = batches.mp_prefetch(
                    grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=2),
                    worker_init_fn=worker.begin,
                )
            # Last, in this process: bytes are cheaper than floats to send from a worker.
            self._running.append(iter(batches.map(_to_float)))
        return self._running[0]


def _close_all(iterators: list[grain.DatasetIterator]) -> None:
    while iterators:
        iterators.pop().close()


def _number(number: int, _: int) -> int:
    return number


def _to_float(batch: Batch) -> Batch:
    # Arrays of a worker live in shared memory; what leaves here is ordinary memory.
    plain = {name: np.array(value) for name, value in batch.items() if name != "image"}
    if "problem" in plain:
        plain["unreadable"] = plain["problem"] != ""
    # In two steps: division with a dtype is buffered, and several times slower.
    image = np.asarray(batch["image"]).astype(np.float32)
    image /= np.float32(255)
    return {"image": image, **plain}


def _let_grain_read_its_flag() -> None:
    """Lets Grain 0.2.18 start workers in a program that never parses absl flags.

    With JAX importable it reads this flag without asking whether flags are parsed, and absl
    refuses (google/grain#1355). Marking the one flag as present, as Grain does with its others,
    leaves the program's own flags alone.
    """
    name = "grain_enable_multiprocess_worker_profiling"
    if name in flags.FLAGS:
        flags.FLAGS[name].present = True
