"""A part of a split."""

from typing import Any

import numpy as np

from vone_jax.data.sources import Source


class Subset:
    """Every k-th example of a split, itself a ``Source``; k is ``len(source) // count``.

    Args:
      source: the split.
      count: number of examples; None takes all.

    Raises:
      ValueError: if ``count`` is not between 1 and the number there are.
    """

    def __init__(self, source: Source, count: int | None = None):
        total = len(source)
        count = total if count is None else count
        if not 1 <= count <= total:
            raise ValueError(
                f"examples must be between 1 and the {total} of {source.name!r} "
                f"{source.split!r}, got {count}"
            )
        self.name = source.name
        self.split = source.split
        self.class_names = source.class_names
        self.image_shape = source.image_shape
        self.stride = total // count
        self.total = total
        self.indices = np.arange(count) * self.stride
        self._source = source

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._source[int(self.indices[index])]
