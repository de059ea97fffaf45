"""Neural-similarity regularisation: image similarities in a network should be those in a brain.

The loss gets the term

    alpha * mean over pairs of (atanh S_network - atanh S_target)^2,
    S_network = sum_k gamma_k S_k,   gamma = softmax of trained weights,

where S_k is the similarity of the two images in layer k: the cosine of their flattened features,
each image's mean subtracted. The targets are measured, or computed from V1 or from pixels.

References:
  Li et al., Learning from brains how to regularize machines, NeurIPS 2019, arXiv:1911.05072.
  Attias, Pehlevan and Obeid, 2024, arXiv:2410.03952: pixel similarity instead of neural data.
"""

import contextlib
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, data, files, models, prng
from vone_jax import mesh as meshes
from vone_jax.training.experiment import Experiment, Similarity
from vone_jax.training.state import WEIGHTS, TrainState, merge, split, training_apply, variables_of
from vone_jax.v1 import VOneBlockConfig, noise_free_responses

# The inverse hyperbolic tangent is infinite at 1. Clipped here, its largest value is 4.95.
_LARGEST = 0.9999
# Images that are compared or propagated at a time when targets are computed.
_BATCH = 100


def correlation(features: jax.Array) -> jax.Array:
    """Return the similarity of each pair of images, float32 (B, B) in [-1, 1].

    It is the cosine of the flattened features (B, ...), each image's mean subtracted. An image with
    constant features has similarity 0 with all images.
    """
    flat = features.reshape(features.shape[0], -1).astype(jnp.float32)
    flat = flat - jnp.mean(flat, axis=1, keepdims=True)
    power = jnp.sum(jnp.square(flat), axis=1, keepdims=True)
    # JAX differentiates both branches, so neither may take the root of zero.
    unit = jnp.where(power > 0, flat / jnp.sqrt(jnp.where(power > 0, power, 1.0)), 0.0)
    return jnp.clip(jnp.matmul(unit, unit.T, precision="highest"), -1.0, 1.0)


def loss(
    features: Mapping[str, jax.Array],
    layers: Sequence[str],
    weights: jax.Array,
    target: jax.Array,
) -> jax.Array:
    """Return the regularisation term without its weight alpha: a mean over B (B - 1) / 2 pairs.

    It compares layers of the features of B images with the target similarities (B, B). There is one
    weight per layer, before the softmax.
    """
    gamma = jax.nn.softmax(weights)
    similarities = jnp.stack([correlation(features[layer]) for layer in layers])
    ours = jnp.tensordot(gamma, similarities, axes=1)
    squares = jnp.square(_atanh(ours) - _atanh(target))
    pairs = jnp.triu(jnp.ones(target.shape, bool), k=1)
    return jnp.sum(jnp.where(pairs, squares, 0.0)) / jnp.sum(pairs, dtype=squares.dtype)


def _atanh(similarity: jax.Array) -> jax.Array:
    return jnp.arctanh(jnp.clip(similarity, -_LARGEST, _LARGEST))


def make_similarity_gradient(
    model: nn.Module, config: Similarity, mesh: meshes.Mesh, freeze: Collection[str] = ()
) -> Callable[[Any, Any, Any, jax.Array], Any]:
    """Return a function for alpha times ``loss`` and its gradient, on random images of the target.

    It is ``(params, batch_stats, targets, key) -> (term, gradients)``. The gradients are those of
    parameters that ``freeze`` does not match, with the layer weights under ``WEIGHTS``. Batch norm
    normalises these images with their own statistics and does not store the statistics. The noise
    of V1 and dropout are on. The images are spread over the mesh.
    """
    apply = training_apply(model, freeze)

    def gradient(params: Any, batch_stats: Any, targets: Any, key: jax.Array) -> Any:
        count = targets["images"].shape[0]
        rows = jax.random.choice(prng.stream(key, "rows"), count, (config.batch,), replace=False)
        images = jax.lax.with_sharding_constraint(targets["images"][rows], meshes.sharded(mesh))
        target = targets["similarity"][rows][:, rows]
        noise_keys = prng.index_keys(prng.stream(key, "noise"), rows.astype("uint32"))
        trained, frozen = split(params, freeze)

        def term(trained: Any) -> jax.Array:
            params = merge(trained, frozen)
            features, _ = apply(
                variables_of(params, batch_stats),
                images,
                train=True,
                noise_key=noise_keys,
                method="features",
                mutable=["batch_stats"],
                rngs={"dropout": prng.stream(key, "dropout")},
            )
            return config.alpha * loss(features, config.layers, params[WEIGHTS], target)

        return jax.value_and_grad(term)(trained)

    return gradient


def make_targets(experiment: Experiment) -> dict[str, np.ndarray]:
    """Read or compute the targets of an experiment with similarity regularisation.

    The targets are ``images``, float32 (n, H, W, C) in [0, 1], and the ``similarity`` that the
    images should have in the network, float32 (n, n) in [-1, 1], symmetric.
    """
    config, size = experiment.similarity, experiment.model.image_size
    assert config is not None
    if config.target == "neural":
        images, similarity = load_matrix(str(config.path))
        expected = (size, size, experiment.model.in_channels)
        if images.shape[1:] != expected:
            raise ValueError(
                f"{config.path}: images must have shape {expected} for this network, got "
                f"{images.shape[1:]}"
            )
        if len(images) < config.batch:
            raise ValueError(
                f"similarity.batch must be at most {len(images)}, the images of {config.path}, got "
                f"{config.batch}"
            )
    else:
        images = _images(experiment, config)
        similarity = _similarity(config, images)
    if config.shuffled:
        key = prng.stream(jax.random.key(experiment.seed), "shuffled similarity")
        order = np.asarray(jax.random.permutation(key, len(images)))
        similarity = similarity[np.ix_(order, order)]
    return {"images": images, "similarity": similarity}


def similarity_targets(
    experiment: Experiment, model: nn.Module, mesh: meshes.Mesh, shapes: TrainState
) -> Any:
    """Return images and similarities of the regularisation on every device."""
    config = experiment.similarity
    assert config is not None
    meshes.check_batch_size(mesh, config.batch, "similarity.batch")
    size, channels = experiment.model.image_size, experiment.model.in_channels
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    features = partial(model.apply, noise_key=jax.random.key(0), method="features")
    layers: Any = jax.eval_shape(features, shapes.variables, image)
    for layer in config.layers:
        arguments.choice("each of similarity.layers", layer, layers)
    return meshes.replicate(mesh, make_targets(experiment))


def load_matrix(path: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """Read measured similarities from an NPZ file.

    The file holds ``images``, (n, H, W) or (n, H, W, C), uint8 or floats in [0, 1], and
    ``similarity``, (n, n): symmetric, in [-1, 1], 1 on the diagonal. Li et al. compute it from
    responses: centre each neuron over the images, scale each image's population response to unit
    length, take cosines, and average over recordings.

    Returns:
      Images, float32 (n, H, W, C), and similarities, float32 (n, n).

    Raises:
      ValueError: if an array does not have this form.
      FileNotFoundError: if there is no such file.
    """
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of similarities {path}")
    arrays = files.read_npz(path)
    if absent := {"images", "similarity"} - arrays.keys():
        raise ValueError(f"{path} lacks {', '.join(absent)}; it has {', '.join(arrays)}")
    images, similarity = arrays["images"], arrays["similarity"].astype(np.float64)
    images = images[..., None] if images.ndim == 3 else images
    images = images.astype(np.float32) / (255 if images.dtype == np.uint8 else 1)
    n, diagonal = len(images), np.eye(len(images), dtype=bool)
    checks: tuple[tuple[str, Callable[[], Any]], ...] = (
        ("images must be (n, H, W) or (n, H, W, C)", lambda: images.ndim == 4 and images.size),
        ("images must be bytes, or floats in [0, 1]",
         lambda: ((images >= 0) & (images <= 1)).all()),
        (f"similarity must have shape ({n}, {n})", lambda: similarity.shape == (n, n)),
        ("similarity must lie in [-1, 1]", lambda: (np.abs(similarity) <= 1 + 1e-4).all()),
        ("similarity must be symmetric", lambda: np.allclose(similarity, similarity.T, atol=1e-4)),
        ("similarity must be 1 on its diagonal",
         lambda: np.allclose(similarity[diagonal], 1.0, atol=1e-4)),
    )  # fmt: skip
    for requirement, holds in checks:
        if not holds():
            raise ValueError(f"{path}: {requirement}")
    return images, np.clip(similarity, -1, 1).astype(np.float32)


def _images(experiment: Experiment, config: Similarity) -> np.ndarray:
    """Return images of the training split as the network takes them."""
    config_data, size = experiment.data, experiment.model.image_size
    source = data.load(config_data.source, config_data.train_split, data_dir=config_data.data_dir)
    if len(source) < config.images:
        raise ValueError(
            f"similarity.images must be at most {len(source)}, the training images, got "
            f"{config.images}"
        )
    crop = data.Preprocessing(config_data.center_crop)
    batches: Any = data.eval_batches(
        data.Subset(source, config.images), batch_size=_BATCH, image_size=size, preprocessing=crop
    )
    with contextlib.closing(batches):
        return np.concatenate([batch["image"][batch["mask"]] for batch in batches])


def _similarity(config: Similarity, images: np.ndarray) -> np.ndarray:
    if config.target == "pixels":
        similarity = np.asarray(correlation(jnp.asarray(images)))
        small = np.abs(similarity) < config.threshold
        return np.where(small, 0, similarity).astype(np.float32)
    # Cosines of population responses (n, units), each unit centred over the images.
    responses = _responses(models.v1_config(*images.shape[2:]), images)
    centred = responses - responses.mean(axis=0, dtype=np.float64)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    unit = centred / np.where(length > 0, length, 1)
    return np.clip(unit @ unit.T, -1, 1).astype(np.float32)


def _responses(block: VOneBlockConfig, images: np.ndarray) -> np.ndarray:
    call = jax.jit(partial(noise_free_responses, block))
    parts = []
    for start in range(0, len(images), _BATCH):
        # The last batch is filled up, so that the function is compiled once.
        rows = np.minimum(np.arange(start, start + _BATCH), len(images) - 1)
        parts.append(np.asarray(call(images[rows])).reshape(_BATCH, -1))
    return np.concatenate(parts)[: len(images)]
