"""The objectives of a training: what is done to a batch, and what is added to the loss.

A change is a function ``(key, batch) -> batch`` of a global batch, see ``changes``: corruptions,
mixing, the logits of a teacher. A perturbation also needs the network. ``losses`` makes the loss of
each example from the logits of a batch. Each reads from the batch what it needs:

    image         (N, H, W, C), float32 in [0, 1]
    label         (N,), int32
    index         (N,), uint32, number of the example in the data set
    other_label   (N,), label of the smaller share of a mixed image
    share         (N,), share of ``label``, from 0.5 to 1
    teacher       (N, classes), logits of the teacher
    perturbed     (N, H, W, C), images of TRADES or MART beside the clean ones

Neural-similarity regularisation has images of its own. Similarities of images in the network should
be those in a brain, and the loss gets the term

    alpha * mean over pairs of (atanh S_network - atanh S_target)^2,
    S_network = sum_k gamma_k S_k,   gamma = softmax of trained weights,

where S_k is the similarity of the two images in layer k: the cosine of their flattened features,
each image's mean subtracted. The targets are measured, or computed from V1 or from pixels.

References:
  Zhang et al., mixup: beyond empirical risk minimization, ICLR 2018, arXiv:1710.09412.
  Yun et al., CutMix: regularization strategy to train strong classifiers, 2019, arXiv:1905.04899.
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

from vone_jax import arguments, corruptions, data, fast, files, models, prng
from vone_jax import mesh as meshes
from vone_jax.training.config import Experiment, Mixing, Similarity
from vone_jax.training.parts import merge, split, training_apply
from vone_jax.training.perturbations import MART, TRADES, PairedPerturbation
from vone_jax.v1 import VOneBlockConfig, noise_free_responses

Batch = dict[str, jax.Array]
Change = Callable[[jax.Array, Batch], Batch]
# Name of the trained layer weights of similarity regularisation among the parameters.
WEIGHTS = "similarity_weights"
# The inverse hyperbolic tangent is infinite at 1. Clipped here, its largest value is 4.95.
_LARGEST = 0.9999
# Images that are compared or propagated at a time when targets are computed.
_BATCH = 100


def variables_of(params: Any, batch_stats: Any) -> dict[str, Any]:
    """Return the variables that ``model.apply`` takes: no layer weights, no empty collection."""
    network = {name: leaf for name, leaf in params.items() if name != WEIGHTS}
    return {"params": network} | ({"batch_stats": batch_stats} if batch_stats else {})


def changes(experiment: Experiment, teacher: Any = None) -> dict[str, Change]:
    """Return the changes of a global batch in their order, by the names of their keys' streams."""
    config, chosen = experiment.data, {}
    if config.corruptions and config.corruption_probability:
        chosen["augmentation"] = corruption(
            config.corruptions, config.corruption_severity, config.corruption_probability
        )
    if experiment.mixing is not None:
        chosen["mixing"] = partial(mix, experiment.mixing)
    if teacher is not None:
        chosen["teacher"] = partial(ask, teacher)
    return chosen


def corruption(names: tuple[str, ...], severities: tuple[int, int], probability: float) -> Change:
    """Return a change that corrupts some images of a batch.

    It draws one corruption and one severity for the whole batch: with a draw for each image, all
    corruptions would be computed. For each image it draws whether the image is corrupted.
    """
    low, high = severities
    branches = [
        partial(corruptions.corrupt, name=name, severity=severity)
        for name in names
        for severity in range(low, high + 1)
    ]

    def corrupt(key: jax.Array, batch: Batch) -> Batch:
        images, indices = batch["image"], batch["index"]
        choice = jax.random.randint(prng.stream(key, "choice"), (), 0, len(branches), jnp.int32)
        keys = prng.index_keys(key, indices)
        corrupted = jax.lax.switch(choice, branches, prng.stream(keys, "draws"), images)
        draw = jax.vmap(lambda k: jax.random.bernoulli(k, jnp.float32(probability)))
        chosen = draw(prng.stream(keys, "chosen"))
        return batch | {"image": jnp.where(chosen[:, None, None, None], corrupted, images)}

    return corrupt


def mix(config: Mixing, key: jax.Array, batch: Batch) -> Batch:
    """Mix each image and its label with those of the example before it in the batch.

    Mixup takes the mean of the two images with weights s and 1 - s, s from Beta(alpha, alpha).
    CutMix replaces a rectangle, whose sides are sqrt(1 - s) of those of the image before it is cut
    off at the edges. The shares of the labels are those of the pixels. The draws of an example
    depend on its key alone, its partner on the order of the batch.
    """

    def one(key: jax.Array, image: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
        cuts = jax.random.bernoulli(prng.stream(key, "kind"), jnp.float32(config.cutmix_share))
        alpha = jnp.where(cuts, jnp.float32(config.cutmix), jnp.float32(config.mixup))
        share = jax.random.beta(prng.stream(key, "share"), alpha, alpha, dtype=jnp.float32)
        sides = jnp.asarray(image.shape[:2], jnp.float32)
        middle = sides * jax.random.uniform(prng.stream(key, "place"), (2,), jnp.float32)
        half = sides * jnp.sqrt(1.0 - share) / 2
        within = [
            (places >= jnp.round(middle[axis] - half[axis]))
            & (places < jnp.round(middle[axis] + half[axis]))
            for axis, places in enumerate(map(_places, image.shape[:2]))
        ]
        box = (within[0][:, None] & within[1][None])[..., None]
        mixed = jnp.where(cuts, jnp.where(box, other, image), share * image + (1 - share) * other)
        share = jnp.where(cuts, 1.0 - jnp.mean(box.astype(jnp.float32)), share)
        chosen = jax.random.bernoulli(prng.stream(key, "chosen"), jnp.float32(config.probability))
        return jnp.where(chosen, mixed, image), jnp.where(chosen, share, 1.0)

    keys = prng.index_keys(key, batch["index"])
    others, other_labels = (jnp.roll(batch[name], 1, axis=0) for name in ("image", "label"))
    images, shares = jax.vmap(one)(keys, batch["image"], others)
    most = shares >= 0.5
    return batch | {
        "image": images,
        "label": jnp.where(most, batch["label"], other_labels),
        "other_label": jnp.where(most, other_labels, batch["label"]),
        "share": jnp.where(most, shares, 1.0 - shares),
    }


def _places(side: int) -> jax.Array:
    return jnp.arange(side, dtype=jnp.float32)


def ask(teacher: Any, key: jax.Array, batch: Batch) -> Batch:
    """Add the logits of a teacher ``(keys, images) -> logits``."""
    return batch | {"teacher": teacher(prng.index_keys(key, batch["index"]), batch["image"])}


def perturb(perturbation: Any, keys: jax.Array, logits_fn: Any, batch: Batch) -> Batch:
    """Perturb the images of a batch, or for TRADES and MART add the perturbed images."""
    # An attack is a loop of gradients, which CPUs compute slowly in other layouts.
    attacked = fast.in_fast_layout(lambda keys, *rest: perturbation.perturb(keys, logits_fn, *rest))
    images = attacked(keys, batch["image"], batch["label"])
    paired = isinstance(perturbation, PairedPerturbation)
    return batch | {"perturbed" if paired else "image": images}


def cross_entropy(logits: jax.Array, labels: jax.Array, label_smoothing: float = 0.0) -> jax.Array:
    """Return the cross-entropy of each example in nats, computed in float32.

    A share s = ``label_smoothing`` of the target is spread evenly over the classes. The target is
    1 - s + s / classes for the right class and s / classes for the others, as in PyTorch.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    right = jnp.take_along_axis(log_probabilities, labels[:, None], axis=1)[:, 0]
    return -(1.0 - label_smoothing) * right - label_smoothing * jnp.mean(log_probabilities, axis=1)


def divergence(teacher: jax.Array, logits: jax.Array, temperature: float) -> jax.Array:
    """Return KL(teacher || network) of the softmax of logits / temperature, (N,), in nats.

    It is computed in float32, also from logits of lower precision.
    """
    theirs, ours = (
        jax.nn.log_softmax(each.astype(jnp.float32) / temperature) for each in (teacher, logits)
    )
    return jnp.sum(jnp.exp(theirs) * (theirs - ours), axis=-1)


def losses(experiment: Experiment, logits: jax.Array, batch: Batch) -> jax.Array:
    """Return the loss of each example (N,), from logits at its image."""
    smoothing, distillation = experiment.optimizer.label_smoothing, experiment.distillation
    of_labels = cross_entropy(logits, batch["label"], smoothing)
    if "other_label" in batch:
        of_others = cross_entropy(logits, batch["other_label"], smoothing)
        of_labels = of_others + batch["share"] * (of_labels - of_others)
    if distillation is None:
        return of_labels
    away = divergence(batch["teacher"], logits, distillation.temperature)
    return of_labels + distillation.weight * (away - of_labels)


def paired_losses(
    experiment: Experiment, clean: jax.Array, perturbed: jax.Array, batch: Batch
) -> jax.Array:
    """Return the loss of each example (N,) in TRADES and MART, from logits at both its images."""
    perturbation = experiment.perturbation
    if isinstance(perturbation, TRADES):
        away = divergence(clean, perturbed, 1.0)
        return losses(experiment, clean, batch) + perturbation.beta * away
    assert isinstance(perturbation, MART)
    labels, probabilities = batch["label"], jax.nn.softmax(perturbed)
    others = jnp.where(labels[:, None] == jnp.arange(clean.shape[1])[None], 0.0, probabilities)
    of_labels = cross_entropy(perturbed, labels) - jnp.log(1.0001 - jnp.max(others, axis=1))
    right = jnp.exp(-cross_entropy(clean, labels))
    # As in the authors' code, a probability of 0 has a finite logarithm.
    log_clean, log_perturbed = jax.nn.log_softmax(clean), jnp.log(probabilities + 1e-12)
    away = jnp.sum(jnp.exp(log_clean) * (log_clean - log_perturbed), axis=1)
    return of_labels + perturbation.beta * away * (1.0000001 - right)


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


def make_similarity_gradient(
    model: nn.Module, config: Similarity, mesh: meshes.Mesh, freeze: Collection[str] = ()
) -> Callable[[Any, Any, Any, jax.Array], Any]:
    """Return a function for alpha times ``similarity_loss`` and its gradient.

    It is ``(params, batch_stats, targets, key) -> (term, gradients)``, on random images of the
    targets. The gradients are those of parameters that ``freeze`` does not match, with the layer
    weights under ``WEIGHTS``. Batch norm normalises these images with their own statistics and does
    not store the statistics. The noise of V1 and dropout are on. The images are spread over the
    mesh.
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
            return config.alpha * similarity_loss(features, config.layers, params[WEIGHTS], target)

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
    experiment: Experiment, model: nn.Module, mesh: meshes.Mesh, variables: Any
) -> Any:
    """Return images and similarities of the regularisation on every device."""
    config = experiment.similarity
    assert config is not None
    meshes.check_batch_size(mesh, config.batch, "similarity.batch")
    size, channels = experiment.model.image_size, experiment.model.in_channels
    image = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    features = partial(model.apply, noise_key=jax.random.key(0), method="features")
    layers: Any = jax.eval_shape(features, variables, image)
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
