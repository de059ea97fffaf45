"""The gradient of similarity regularisation, once per training step."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from vone_jax import mesh as meshes
from vone_jax import prng
from vone_jax.training import similarity
from vone_jax.training.similarity import Similarity

# Where the trained layer weights are among the parameters: beside those of the network.
WEIGHTS = "similarity_weights"


def make_similarity_gradient(
    model: nn.Module, config: Similarity, mesh: meshes.Mesh
) -> Callable[[Any, Any, Any, jax.Array], Any]:
    """The gradient of alpha times ``similarity.loss`` on a random batch of the target's images.

    Batch norm normalises these images with their own statistics and keeps none of them; the noise
    of V1 and dropout are on.

    Args:
      model: see ``models.create``.
      config: what to compare.
      mesh: that the images are spread over.

    Returns:
      ``(params, batch_stats, targets, key) -> gradients`` like params, which hold the layer weights
      under ``WEIGHTS``. Targets are ``{"images": (n, H, W, C), "similarity": (n, n)}``.
    """

    def term(params: Any, batch_stats: Any, images: Any, target: Any, keys: Any, dropout_key: Any):
        variables = {"params": params} | ({"batch_stats": batch_stats} if batch_stats else {})
        features, _ = model.apply(
            variables,
            images,
            train=True,
            noise_key=keys,
            method="features",
            mutable=["batch_stats"],
            rngs={"dropout": dropout_key},
        )
        weights = params[WEIGHTS]
        return config.alpha * similarity.loss(features, config.layers, weights, target)

    def gradient(params: Any, batch_stats: Any, targets: Any, key: jax.Array) -> Any:
        count = targets["images"].shape[0]
        rows = jax.random.choice(prng.stream(key, "rows"), count, (config.batch,), replace=False)
        images = jax.lax.with_sharding_constraint(targets["images"][rows], meshes.sharded(mesh))
        target = targets["similarity"][rows][:, rows]
        keys = prng.index_keys(prng.stream(key, "noise"), rows.astype("uint32"))
        dropout_key = prng.stream(key, "dropout")
        return jax.grad(term)(params, batch_stats, images, target, keys, dropout_key)

    return gradient
