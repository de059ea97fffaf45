"""The work of data workers: images and labels of a batch, from the numbers of its examples.

Workers are processes that Grain starts, or threads. The callables here are pickled for processes.
Their results depend on nothing but their fields and the numbers that they are called with.
"""

import dataclasses
import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing import resource_tracker
from multiprocessing.connection import wait
from typing import Any

import numpy as np
from absl import flags

from vone_jax.data.sources import Source
from vone_jax.data.transforms import Augment, Preprocessing

Batch = dict[str, np.ndarray]

# A set with this many unreadable examples in a row is broken.
_REPLACEMENTS = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class _MakeBatch:
    source: Source
    # This process's part of a global batch.
    rows: slice
    image_size: int
    preprocessing: Preprocessing


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainBatch(_MakeBatch):
    """Make this process's part of a global batch, from the numbers of its examples.

    A number is ``epoch * len(source) + index``. With ``replace_unreadable``, the next readable
    example of the set takes the place of one that cannot be read, with its own label and index.
    The batch then has ``problem`` (b,): the error message of the replaced example, or "".
    """

    seed: int
    augment: Augment
    replace_unreadable: bool = False

    def __call__(self, numbers: np.ndarray) -> Batch:
        epochs, indices = np.divmod(numbers[self.rows], len(self.source))
        read = map(self._read_one_of, epochs.tolist(), indices.tolist())
        used, examples, problems = zip(*read, strict=True)
        batch = {
            "image": np.stack([example["image"] for example in examples]),
            "label": np.array([example["label"] for example in examples], np.int32),
            "index": np.array(used, np.uint32),
        }
        return batch | ({"problem": np.array(problems)} if self.replace_unreadable else {})

    def _read_one_of(self, epoch: int, index: int) -> tuple[int, dict[str, Any], str]:
        """Return the first readable example from ``index`` on: index, content, earlier problems."""

        def prepare(image: np.ndarray) -> np.ndarray:
            random = np.random.default_rng((self.seed, epoch, index))
            return self.augment(image, self.image_size, random, self.preprocessing)

        total, problems = len(self.source), []
        for offset in range(min(_REPLACEMENTS, total) if self.replace_unreadable else 1):
            used = (index + offset) % total
            try:
                return used, _read(self.source, used, prepare), "; ".join(problems)
            except UnreadableError as error:
                if not self.replace_unreadable:
                    raise
                problems.append(str(error))
        raise UnreadableError(f"{len(problems)} examples in a row: " + "; ".join(problems))


class EvalBatch(_MakeBatch):
    """Make this process's part of a global batch. Indices beyond the end of the set are padding."""

    def __call__(self, numbers: np.ndarray) -> Batch:
        numbers = numbers[self.rows]
        size = self.image_size
        images = np.zeros((len(numbers), size, size, self.source.image_shape[-1]), np.uint8)
        labels = np.zeros(len(numbers), np.int32)
        mask = numbers < len(self.source)
        prepare = functools.partial(self.preprocessing, size=size)
        for row, index in enumerate(numbers[mask]):
            example = _read(self.source, int(index), prepare)
            images[row], labels[row] = example["image"], example["label"]
        index = np.minimum(numbers, len(self.source)).astype(np.uint32)
        return {"image": images, "label": labels, "index": index, "mask": mask}


class UnreadableError(ValueError):
    """An example of a set cannot be read or prepared; the message names it."""


def _read(
    source: Source, index: int, prepare: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """Read an example, check its shape and label, and prepare its image for a batch."""
    place = f"{index} of {source.name!r} {source.split!r}"
    try:
        example = source[index]
    # Sources read files of any kind with any library, which may raise anything.
    except Exception as error:
        raise UnreadableError(f"example {place} cannot be read: {error}") from error
    image, label = example["image"], example["label"]
    channels = source.image_shape[-1]
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != channels:
        raise ValueError(
            f"image {place} is {image.dtype} of shape {image.shape}; expected uint8 with "
            f"{channels} channel(s)"
        )
    if not 0 <= label < source.num_classes:
        raise ValueError(f"label {label} of example {place} is not in [0, {source.num_classes})")
    try:
        return {**example, "image": prepare(image)}
    except ValueError as error:
        raise UnreadableError(f"example {place}: {error}") from error


def prepare() -> None:
    """Prepare this program for worker processes, before Grain starts them."""
    # Grain 0.2.18 reads this flag without checking that flags were parsed if JAX can be imported,
    # and absl raises an error (google/grain#1355). Grain marks its other flags as present itself;
    # marking this one does not change the flags of the program.
    name = "grain_enable_multiprocess_worker_profiling"
    if name in flags.FLAGS:
        flags.FLAGS[name].present = True
    # Starts the process that frees the shared memory of workers. Without the option, it would warn
    # of the memory of a killed worker, below the error that says what happened.
    sys.warnoptions.append("ignore:resource_tracker")
    resource_tracker.ensure_running()
    sys.warnoptions.remove("ignore:resource_tracker")


def begin(index: int, count: int) -> None:
    """Prepare a worker process: it ignores signals and ends when its program ends.

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
