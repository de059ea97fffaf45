"""Foolbox's attacks on a classifier of this project. Needs the package foolbox.

Reference: Rauber, Zimmermann, Bethge, Brendel, Foolbox Native, JOSS 2020.
"""

from collections.abc import Callable

import jax
from foolbox.models.jax import JAXModel

from vone_jax import prng
from vone_jax.interop.calls import CallKeys, Noise


def foolbox_model(
    logits_fn: Callable[[jax.Array, jax.Array], jax.Array], key: jax.Array, noise: Noise = "fresh"
) -> JAXModel:
    """A Foolbox model with bounds (0, 1) and channels last.

    Foolbox takes one gradient per step, so an attack on a noisy network sees one draw of the noise
    at a time. For gradients averaged over draws, pass a ``logits_fn`` that averages, or use
    ``vone_jax.attacks``.

    Args:
      logits_fn: ``(keys, images) -> logits`` with one key per example, for instance
        ``models.logits_fn(model, variables)``.
      key: typed key of the noise.
      noise: ``"fresh"`` noise at every call, or ``"frozen"`` noise.

    Raises:
      TypeError: if ``key`` is not a typed key.
      ValueError: for another ``noise``.
    """
    keys = CallKeys(key, noise)
    # A Partial passes its weights as arguments; any other function is static.
    partial = isinstance(logits_fn, jax.tree_util.Partial)
    call = jax.jit(
        lambda f, key, images: f(prng.example_keys(key, len(images)), images),
        static_argnums=() if partial else 0,
    )
    return JAXModel(
        lambda images: call(logits_fn, keys.next(), images),
        bounds=(0, 1),
        data_format="channels_last",
    )
