"""What a classifier's outputs and gradients look like, before it is attacked."""

import jax
import jax.numpy as jnp

from vone_jax import prng
from vone_jax.attacks import classifier, losses

# Passes by which randomness is looked for, as in AutoAttack.
_PASSES = 5
_GREYS = (0.0, 0.5, 1.0)


@jax.jit
def diagnose(
    logits_fn: classifier.LogitsFn, example_keys: jax.Array, images: jax.Array, labels: jax.Array
) -> dict[str, jax.Array]:
    """What outputs and gradients look like for each image, arrays (N, ...).

    Args:
      logits_fn: the classifier, a pytree.
      example_keys: (N,) typed keys.
      images: float32 (N, H, W, C) in [0, 1].
      labels: integers (N,).

    Returns:
      the number of classes; lowest and highest output and the distance of their sum from 1, over
      passes; the greatest distance between two passes' outputs of unit length; and the greatest
      magnitude of the gradients of two losses, and of one on constant images. A gradient that
      is not finite anywhere is NaN.
    """
    keys = prng.stream(example_keys, "diagnosis")
    call = classifier.checked(logits_fn, keys, images)
    passes = classifier.draws(call, keys, images, _PASSES)
    size = jnp.sqrt(jnp.sum(jnp.square(passes), axis=-1, keepdims=True))
    unit = passes / jnp.maximum(size, jnp.finfo(size.dtype).tiny)
    apart = jnp.sqrt(jnp.sum(jnp.square(unit[:, None] - unit[None]), axis=-1))

    def gradient(loss, images, name):
        noise_keys = prng.stream(keys, name)

        def total(images):
            return jnp.sum(loss(call(noise_keys, images), labels))

        return _largest(jax.grad(total)(images))

    greys = [jnp.full_like(images, grey) for grey in _GREYS]
    constant = [gradient(losses.cross_entropy, grey, f"grey {i}") for i, grey in enumerate(greys)]
    return {
        "classes": jnp.full(labels.shape, passes.shape[-1], jnp.int32),
        "lowest": jnp.min(passes, axis=(0, 2)),
        "highest": jnp.max(passes, axis=(0, 2)),
        "sum error": jnp.max(jnp.abs(jnp.sum(passes, axis=-1) - 1.0), axis=0),
        "spread": jnp.max(apart, axis=(0, 1)),
        "gradient cross_entropy": gradient(losses.cross_entropy, images, "cross_entropy"),
        "gradient margin": gradient(losses.margin, images, "margin"),
        "gradient constant": jnp.stack(constant, axis=-1),
    }


def _largest(gradients: jax.Array) -> jax.Array:
    """Greatest magnitude in each image's gradient, NaN where any of it is not finite: (N,)."""
    magnitudes = jnp.abs(gradients)
    # Said apart, since XLA's maximum passes over a NaN in larger arrays on CPUs.
    finite = jnp.all(jnp.isfinite(magnitudes), axis=(1, 2, 3))
    return jnp.where(finite, jnp.max(magnitudes, axis=(1, 2, 3)), jnp.nan)
