"""Neural-similarity regularisation: images are as similar in the network as in a brain.

The loss gets the term

    alpha * mean over pairs of (atanh S_network - atanh S_target)^2,
    S_network = sum_k gamma_k S_k,   gamma = softmax of trained weights,

where S_k is the similarity of two images in layer k: the cosine of their flattened features, each
image's mean subtracted. The images are of their own, not those of the batch. The targets are
measured, or computed from V1 or from pixels.

References:
  Li et al., Learning from brains how to regularize machines, NeurIPS 2019, arXiv:1911.05072.
  Attias, Pehlevan and Obeid, 2024, arXiv:2410.03952: pixel similarity instead of neural data.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import arguments, data, files, models, prng
from vone_jax import mesh as meshes
from vone_jax.arguments import Range, Share
from vone_jax.training.objective import Batch, Context, Gradient, Objective, Setup
from vone_jax.v1 import VOneBlockConfig, noise_free_responses

# The inverse hyperbolic tangent is infinite at 1. Clipped here, its largest value is 4.95.
_LARGEST = 0.9999
# Images that are compared or propagated at a time when targets are computed.
_BATCH = 100


@dataclasses.dataclass(frozen=True)
class Similarity(Objective):
    """Neural-similarity regularisation (Li et al. 2019).

    Batch norm normalises the images with their own statistics and does not store these. The noise
    of V1 and dropout are on. The gradient does not enter that of the batch's loss, which the log
    shows without the term.
    """

    stream = "similarity"

    # "neural" reads a measured matrix from path; "v1" compares noise-free responses of a
    # VOneBlock, "pixels" the images themselves.
    target: Literal["neural", "v1", "pixels"]
    # NPZ file for "neural": its array images is (n, H, W) or (n, H, W, C), and its array
    # similarity is (n, n).
    path: str | None = None
    # Weight of the term in the loss; Li et al. use 20.
    alpha: float = 20.0
    # Layers of the network to compare, by their names in features. Li et al. use five convolutions
    # spread over the depth of ResNet-18.
    layers: tuple[str, ...] = ("stem", "layer1", "layer2", "layer3", "layer4")
    # Number of training images, evenly spread over the split. The matrix is images x images. The
    # file of "neural" has its own images, all of which are used.
    images: Annotated[int, Range(2)] = 1000
    # Images in a training step; all their pairs are compared.
    batch_size: Annotated[int, Range(2)] = 32
    # For "pixels": similarities with a smaller absolute value are set to 0.
    threshold: Share = 0.8
    # Permute the images of the target: a control that keeps only its distribution.
    shuffled: bool = False

    def __post_init__(self):
        arguments.fields(self)
        if (self.target == "neural") != (self.path is not None):
            raise ValueError(
                f"path must be given for target 'neural' and for no other; got target "
                f"{self.target!r} and path {self.path!r}"
            )
        if not self.layers or len(set(self.layers)) != len(self.layers):
            raise ValueError(f"layers must be different names, at least one, got {self.layers!r}")
        if self.batch_size > self.images and self.target != "neural":
            raise ValueError(f"batch_size must be <= images, {self.images}, got {self.batch_size}")
        if self.target == "v1" and self.images < 3:
            # Units are centred over the images. Two images then always have similarity -1.
            raise ValueError(f"images must be at least 3 for target 'v1', got {self.images}")

    def resources(self, run: Setup) -> dict[str, np.ndarray]:
        """Return ``images`` (n, H, W, C) and their target ``similarity`` (n, n)."""
        meshes.check_batch_size(run.mesh, self.batch_size, "Similarity.batch_size")
        image = jax.ShapeDtypeStruct((1, *run.image_shape), jnp.float32)
        features = partial(run.model.apply, noise_key=jax.random.key(0), method="features")
        layers: Any = jax.eval_shape(features, jax.eval_shape(run.variables), image)
        for layer in self.layers:
            arguments.choice("each of Similarity.layers", layer, layers)
        return make_targets(self, run.experiment)

    def init(self, key: jax.Array, run: Setup) -> tuple[jax.Array, None]:
        """Return the trained weights of the layers, before the softmax: all equal."""
        return jnp.zeros(len(self.layers), jnp.float32), None

    def gradient(
        self, context: Context, gradient_fn: Callable[..., Gradient], params: Any, batch: Batch
    ) -> tuple[Gradient, None]:
        images, similarity = (context.resources[name] for name in ("images", "similarity"))
        key, shape = context.key, (self.batch_size,)
        rows = jax.random.choice(prng.stream(key, "rows"), len(images), shape, replace=False)
        chosen = jax.lax.with_sharding_constraint(images[rows], meshes.sharded(context.mesh))
        target = similarity[rows][:, rows]
        noise_keys = prng.index_keys(prng.stream(key, "noise"), rows.astype("uint32"))

        def term(params: Any) -> jax.Array:
            features = context.apply(
                params, chosen, noise_keys, prng.stream(key, "dropout"), method="features"
            )
            weights = params[context.name]
            return self.alpha * similarity_loss(features, self.layers, weights, target)

        found = gradient_fn(params, batch)
        value, gradient = jax.value_and_grad(term)(params)
        context.log("term", value)
        total = jax.tree.map(jnp.add, found.params, gradient)
        return dataclasses.replace(found, params=total), None


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


def similarity_loss(
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


def make_targets(config: Similarity, experiment: Any) -> dict[str, np.ndarray]:
    """Read or compute the targets for a resolved experiment.

    The targets are ``images``, float32 (n, H, W, C) in [0, 1], and the ``similarity`` that the
    images should have in the network, float32 (n, n) in [-1, 1], symmetric.
    """
    size = experiment.model.image_size
    if config.target == "neural":
        images, similarity = load_matrix(str(config.path))
        expected = (size, size, experiment.model.in_channels)
        if images.shape[1:] != expected:
            raise ValueError(
                f"{config.path}: images must have shape {expected} for this network, got "
                f"{images.shape[1:]}"
            )
        if len(images) < config.batch_size:
            raise ValueError(
                f"Similarity.batch_size must be at most {len(images)}, the images of "
                f"{config.path}, got {config.batch_size}"
            )
    else:
        images = _images(config, experiment)
        similarity = _similarity(config, images)
    if config.shuffled:
        key = prng.stream(jax.random.key(experiment.seed), "shuffled similarity")
        order = np.asarray(jax.random.permutation(key, len(images)))
        similarity = similarity[np.ix_(order, order)]
    return {"images": images, "similarity": similarity}


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


def _images(config: Similarity, experiment: Any) -> np.ndarray:
    """Return images of the training split as the network takes them."""
    config_data, size = experiment.data, experiment.model.image_size
    source = data.load(config_data.source, config_data.train_split, data_dir=config_data.data_dir)
    if len(source) < config.images:
        raise ValueError(
            f"Similarity.images must be at most {len(source)}, the training images, got "
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
