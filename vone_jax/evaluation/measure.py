"""The one loop over batches, behind files of results and behind arrays."""

from collections.abc import Iterable, Iterator

import jax
import numpy as np

from vone_jax import mesh
from vone_jax.evaluation import judging
from vone_jax.evaluation.conditions import Condition, Judged
from vone_jax.evaluation.judging import Batch

Arrays = dict[str, np.ndarray]


def measure(condition: Condition, batches: Iterable[Batch]) -> Iterator[Arrays]:
    """Measure the batches of a condition, and yield the arrays of each.

    Arrays have a row for each example that is not masked: "index", "label" and "key", those of the
    condition, and for judged images "probability_correct". A condition that is not measured by
    example has its arrays alone, of the first batch.

    Raises:
      FloatingPointError: if gradients or logits are not finite; the message names the examples.
    """
    for batch in batches:
        index = np.arange(len(batch.labels)) if batch.index is None else mesh.fetch(batch.index)
        try:
            made = mesh.fetch(condition.make(batch))
        except FloatingPointError as error:
            error.args = (f"{error}; the batch begins at example {int(index[0])}",)
            raise
        if not condition.by_example:
            yield {name: np.asarray(value) for name, value in made.items()}
            return
        keys = jax.random.key_data(batch.example_keys)
        whole = {"index": index.astype(np.int64), **mesh.fetch({"label": batch.labels}), **made}
        whole |= mesh.fetch({"key": keys})
        mask = slice(None) if batch.mask is None else mesh.fetch(batch.mask)
        arrays = {name: np.asarray(value)[mask] for name, value in whole.items()}
        if not condition.reports_faults:
            for name in (each for each in arrays if each.startswith("loss")):
                loss = arrays[name].reshape(len(arrays[name]), -1).sum(axis=1)
                judging.check_finite(loss, arrays["index"])
        if isinstance(condition, Judged):
            arrays["probability_correct"] = judging.probability_correct(arrays["right"])
        yield arrays
