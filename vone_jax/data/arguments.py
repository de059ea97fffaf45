"""Arguments of the batches: checked, and turned into what the pipeline needs."""

from typing import Any

import numpy as np

from vone_jax.data.sources import Source


def center_crop_share(center_crop: float | None, source: Source, image_size: int) -> float:
    """The share of the shorter side that is kept, in (0, 1]; see ``eval_batches``."""
    if center_crop is None:
        photographs = None in source.image_shape
        return 0.875 if photographs and image_size >= 112 else 1.0
    if not 0 < center_crop <= 1:
        raise ValueError(f"center_crop must be in (0, 1], got {center_crop!r}")
    return float(center_crop)


def rows_of_process(batch_size: int, process_index: int, process_count: int) -> slice:
    """The part of a global batch that belongs to a process."""
    check_count("batch_size", batch_size, 1)
    check_count("process_count", process_count, 1)
    if batch_size % process_count:
        raise ValueError(
            f"batch_size must be divisible by process_count, got {batch_size} and {process_count}"
        )
    if not 0 <= process_index < process_count:
        raise ValueError(f"process_index must be in [0, {process_count}), got {process_index!r}")
    local = batch_size // process_count
    return slice(process_index * local, (process_index + 1) * local)


def identity(source: Source, batch_size: int) -> dict[str, Any]:
    """What has to agree where a position in the batches of ``source`` is used again."""
    return {
        "dataset": source.name,
        "split": source.split,
        "examples": len(source),
        "batch_size": int(batch_size),
    }


def check_not_empty(source: Source) -> None:
    """Raises a ValueError that names the set if it has no examples."""
    if len(source) == 0:
        raise ValueError(f"{source.name!r} {source.split!r} has no examples")


def check_count(name: str, value: int, least: int) -> None:
    """Raises a ValueError unless ``value`` is an integer, ``least`` or more."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ValueError(f"{name} must be an integer, {least} or more, got {value!r}")
