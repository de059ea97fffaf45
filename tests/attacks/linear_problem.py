"""A linear classifier, and how far its images are from their class boundaries."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from tests.attacks import toy

KEY = jax.random.key(21)
WEIGHTS = jax.random.normal(jax.random.key(3), (50, 3))
IMAGES = jax.random.uniform(jax.random.key(4), (16, 5, 10, 1), minval=0.45, maxval=0.55)
_ORDER = {"linf": np.inf, "l2": 2, "l1": 1}
_DUAL = {"linf": 1, "l2": 2, "l1": np.inf}


def centred(weights, key, images):
    """Logits (x - 1/2).W, so that the boundaries are near and the pixel box is far."""
    return toy.linear(weights, key, images - 0.5)


LOGITS_FN = Partial(centred, WEIGHTS)
# With two classes there is one boundary, and an attack along gradients cannot take the farther one.
TWO_CLASSES = Partial(centred, WEIGHTS[:, :2])


def labels(logits_fn=LOGITS_FN):
    """The classifier's own predictions."""
    return jnp.argmax(logits_fn(KEY, IMAGES), axis=-1)


def distances(norm: str, logits_fn=LOGITS_FN) -> np.ndarray:
    """Smallest perturbations |f| / |w|_q over the boundaries of each image, in float64."""
    weights = np.asarray(logits_fn.args[0], np.float64)
    logits = (np.asarray(IMAGES, np.float64).reshape(16, -1) - 0.5) @ weights
    right = logits.argmax(axis=1)
    found = np.full(16, np.inf)
    for other in range(weights.shape[1]):
        slope = weights[:, [other]] - weights[:, right]
        gap = logits[np.arange(16), right] - logits[:, other]
        length = np.linalg.norm(slope, ord=_DUAL[norm], axis=0)
        found = np.minimum(found, np.where(right == other, np.inf, gap / np.maximum(length, 1e-9)))
    return found


def rounding(norm: str) -> float:
    """The norm of a change of every pixel by one unit in the last place."""
    return float(np.linalg.norm(np.full(50, 2.0**-23), ord=_ORDER[norm]))
