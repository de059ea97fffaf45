"""The files of one evaluation: written in chunks, published whole, never mixed.

    NAME.partial/identity.json   what is being evaluated
    NAME.partial/00000300.npz    one value per example of a chunk, from position 300 on
    NAME.json, NAME.npz          the finished result

Every file appears under its name complete, so a process may be killed at any moment and loses at
most the chunk it was working on. Of several processes that evaluate together all make the same
calls, and process 0 writes.
"""

import contextlib
import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vone_jax import files, results
from vone_jax.results import ResultError

# In a chunk: the names of its arrays.
_FIELDS = "fields"


@dataclasses.dataclass(frozen=True, eq=False)
class Store:
    """The files of one evaluation.

    Attributes:
      directory: directory of the results of the network.
      identity: what is evaluated.
    """

    directory: Path
    identity: results.Identity

    @property
    def _partial(self) -> Path:
        return self.directory / f"{self.identity.name}.partial"

    @property
    def _lock(self) -> Path:
        return self.directory / f".{self.identity.name}.lock"

    def finished(self) -> results.Result | None:
        """The finished result of this evaluation; None if there is no result of its name.

        Raises:
          ResultError: if a result of its name is damaged or of another evaluation.
        """
        path = self.directory / f"{self.identity.name}.json"
        if not path.exists():
            return None
        result = results.read(path)
        self._check_same(path, result)
        # A layer that could not be scored has no arrays.
        scored = not isinstance(result.measured, results.Physiology) or result.measured.scores
        if scored and not result.arrays:
            raise ResultError(f"{path} has lost its arrays; delete it and evaluate again")
        return result

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other programs from this evaluation within a ``with`` block.

        Raises:
          ResultError: if another program is at it.
        """
        if not _writes():
            yield
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(files.locked(self._lock))
            except files.LockedError as error:
                raise ResultError(
                    f"another process is writing {self.directory / self.identity.name}; wait for "
                    f"it, or give this one another name (--tag): {error}"
                ) from None
            try:
                yield
            finally:
                self._lock.unlink(missing_ok=True)

    def chunks(self) -> list[dict[str, np.ndarray]]:
        """The chunks that were written so far, in order and without a gap from the first example.

        Raises:
          ResultError: if they are damaged or of another evaluation.
        """
        described = self._partial / "identity.json"
        if described.exists():
            self._check_same(described, results.read_json(described))
        elif _writes():
            self._partial.mkdir(parents=True, exist_ok=True)
            files.replace_json(described, results.to_json(self.identity))
        by_position = {
            int(path.stem): _read_chunk(path) for path in sorted(self._partial.glob("*.npz"))
        }
        chunks, position = [], 0
        while position in by_position:
            chunks.append(by_position[position])
            position += len(chunks[-1]["index"])
        return chunks

    def add_chunk(self, position: int, arrays: dict[str, Any]) -> None:
        """Write the chunk that begins at a position."""
        if not _writes():
            return
        # The list in a damaged archive can miss an array.
        whole: dict[str, Any] = arrays | {_FIELDS: np.array(sorted(arrays))}
        path = self._partial / f"{position:08d}.npz"
        files.replace(path, lambda file: np.savez(file, **whole))

    def publish(self, result: results.Result) -> None:
        """Write the finished result and remove its chunks."""
        if _writes():
            results.write(self.directory, result)
            self.discard_chunks()

    def discard_chunks(self) -> None:
        """Remove the chunks."""
        if _writes():
            shutil.rmtree(self._partial, ignore_errors=True)

    def tidy(self) -> None:
        """Remove what a process leaves that was killed just after it had published its result."""
        if _writes():
            self.discard_chunks()
            self._lock.unlink(missing_ok=True)

    def remove(self) -> None:
        """Remove the result, finished or not."""
        if _writes():
            self.discard_chunks()
            for suffix in (".json", ".npz"):
                (self.directory / f"{self.identity.name}{suffix}").unlink(missing_ok=True)

    def _check_same(self, path: Path, found: results.Identity | dict[str, Any]) -> None:
        if differing := results.differences(self.identity, found):
            raise ResultError(
                f"{path} is of another evaluation ({'; '.join(differing)}); overwrite it "
                f"(--overwrite) or give this one another name (--tag)"
            )


def _writes() -> bool:
    return jax.process_index() == 0


def _read_chunk(path: Path) -> dict[str, np.ndarray]:
    arrays = results.read_arrays(path)
    fields = arrays.pop(_FIELDS, None)
    if fields is None or fields.tolist() != sorted(arrays):
        raise ResultError(f"{path} has lost arrays; delete it and evaluate again")
    return arrays
