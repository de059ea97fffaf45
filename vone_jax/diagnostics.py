"""Measurements of networks with noise that prove nothing.

- ``measure_calibration``: how well probabilities agree with the labels, against the number of noise
  draws that are averaged. An evaluation cannot keep the logits of all draws. So the draws of an
  image are reduced to a few scores on the way (``average_draws``, ``score_averages``), and
  ``summarise_scores`` makes the numbers of all images.
- ``fourier_map``: how often gratings of each spatial frequency change the answer (Yin et al. 2019,
  arXiv:1906.08988).
- ``eigendistortions``: the perturbations of an image that an observer of noisy responses detects
  best and least (Berardino et al. 2017, arXiv:1710.02266).
"""

import dataclasses
import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float, Float32, Float64, Int, Key

from vone_jax import arguments, batches, functions, prng
from vone_jax.certification import information
from vone_jax.v1 import Noise

Images = Float[Array | np.ndarray, "n h w c"]

# The numbers of noise draws for which an evaluation has the calibration, as far as it draws.
CALIBRATION_DRAWS = (1, 3, 10, 30)
BINS = 15

# Values of an image, and their number times that of responses, up to which the information about it
# is formed: a matrix of 128 MiB from a Jacobian of 1 GiB, in a few minutes on two cores.
_DENSE_VALUES, _DENSE_ENTRIES = 4096, 2**28
# Of eigenvectors otherwise. Products are float32, so a closer tolerance is not met.
_TOLERANCE = 1e-5

# What the draws of images say: the mean probabilities (draws, n, classes), the logarithms of that
# of the label (draws, n), and the mean entropies of single draws (draws, n).
Averages = tuple[Array, Array, Array]
# The columns are the number of draws, whether the answer is right, its confidence, the logarithm of
# the label's probability, the Brier score, the entropy, and its part that the noise causes.
Scores = Float[Array | np.ndarray, "n m 7"]


@dataclasses.dataclass(frozen=True, eq=False)
class Calibration:
    """How well probabilities that are averaged over draws agree with the labels.

    Arrays have one entry for each number of draws. Entropies and likelihoods are in nats.

    Attributes:
      draws: number of draws that are averaged.
      accuracy: share of right answers.
      calibration_error: expected calibration error (Guo et al. 2017, arXiv:1706.04599): the mean
        difference of confidence and accuracy over bins of confidence, weighted by their counts.
      negative_log_likelihood: mean of -log p of the label.
      brier: mean squared distance of probabilities from the label, summed over classes, in [0, 2].
      entropy: mean entropy of averaged probabilities.
      noise_entropy: its part that the noise causes: the entropy minus the mean entropy of single
        draws, which is the mutual information of answer and draw. It is 0 for one draw.
    """

    draws: Int[np.ndarray, " m"]
    accuracy: Float64[np.ndarray, " m"]
    calibration_error: Float64[np.ndarray, " m"]
    negative_log_likelihood: Float64[np.ndarray, " m"]
    brier: Float64[np.ndarray, " m"]
    entropy: Float64[np.ndarray, " m"]
    noise_entropy: Float64[np.ndarray, " m"]


def measure_calibration(
    logits: Float[Array | np.ndarray, "n draws classes"],
    labels: Int[Array | np.ndarray, " n"],
    draws: Sequence[int] = CALIBRATION_DRAWS,
    bins: int = BINS,
) -> Calibration:
    """Return the calibration of a network for several numbers of draws.

    Args:
      logits: of each image and draw of the noise; a network without noise has one draw.
      labels: classes.
      draws: numbers of draws; the first ones of ``logits`` are averaged. Larger numbers than there
        are draws are left out.
      bins: number of bins of confidence, of equal width.

    Raises:
      ValueError: if a number or a label is out of range, or logits are not finite.
      TypeError: if labels are not integers.
    """
    arguments.count("bins", bins)
    logits = jnp.asarray(logits, jnp.float32)
    labels = batches.check_labels(labels, logits.shape[0], logits.shape[-1])
    if not bool(jnp.isfinite(logits).all()):
        raise ValueError("logits must be finite, got NaN or infinite values")
    for number in draws:
        arguments.count("draws", number)
    singles = jax.vmap(lambda one: average_draws(one[None], labels))(logits.swapaxes(0, 1))
    return summarise_scores(np.asarray(score_averages(singles, labels, draws)), bins)


def average_draws(logits: Float[Array, "draws n classes"], labels: Int[Array, " n"]) -> Averages:
    """Return the averages of several draws, without the axis of draws."""
    log_p = jax.nn.log_softmax(logits)
    p = jnp.exp(log_p)
    of_label = jnp.take_along_axis(log_p, labels[None, :, None], axis=-1)[..., 0]
    likelihood = jax.nn.logsumexp(of_label, axis=0) - math.log(len(logits))
    return p.mean(axis=0), likelihood, _entropy(p).mean(axis=0)


def score_averages(
    averages: Averages, labels: Array, draws: Sequence[int], each: int = 1
) -> Scores:
    """Return the scores of images after several numbers of averages.

    Args:
      averages: of equally many draws.
      labels: classes (n,).
      draws: numbers of averages; the first ones are used. Larger numbers than there are, are left
        out.
      each: number of draws in an average.
    """
    probability, likelihood, entropy = averages
    columns = []
    for count in [number for number in draws if number <= len(probability)]:
        mean = probability[:count].mean(axis=0)
        of_label = jax.nn.logsumexp(likelihood[:count], axis=0) - math.log(count)
        truth = jax.nn.one_hot(labels, mean.shape[-1], dtype=mean.dtype)
        total = _entropy(mean)
        columns.append(
            (
                jnp.full_like(total, count * each),
                (mean.argmax(axis=-1).astype(labels.dtype) == labels).astype(mean.dtype),
                mean.max(axis=-1),
                of_label,
                jnp.sum((mean - truth) ** 2, axis=-1),
                total,
                jnp.maximum(total - entropy[:count].mean(axis=0), 0.0),
            )
        )
    return jnp.array(columns).reshape(-1, 7, len(labels)).transpose(2, 0, 1)


def _entropy(probability: Array) -> Array:
    return -jnp.sum(jax.scipy.special.xlogy(probability, probability), axis=-1)


def summarise_scores(scores: Scores, bins: int = BINS) -> Calibration:
    """Return the calibration over all images, from the scores of each."""
    scores = np.asarray(scores, np.float64)
    draws, accuracy, _, likelihood, *others = scores.mean(axis=0).T
    errors = [
        _calibration_error(right, sure, bins) for _, right, sure, *_ in scores.transpose(1, 2, 0)
    ]
    return Calibration(draws.astype(int), accuracy, np.array(errors), -likelihood, *others)


def _calibration_error(right: np.ndarray, confidence: np.ndarray, bins: int) -> float:
    # A confidence on an edge is in the lower bin.
    inside = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    differences = np.bincount(inside, weights=confidence - right, minlength=bins)
    return float(np.abs(differences).sum() / len(right))


def fourier_basis(height: int, width: int, size: int) -> Float32[np.ndarray, "size size h w"]:
    """Return real gratings of L2 norm 1, one for each of the central size x size frequencies.

    Entry [i, j] has one pair of conjugate coefficients, at i - size // 2 cycles per image along
    rows and j - size // 2 along columns. Both of a pair have the same grating.

    Raises:
      ValueError: if ``size`` is even or larger than the image.
    """
    arguments.count("size", size, most=min(height, width))
    if size % 2 == 0:
        raise ValueError(f"size must be odd, so that frequency 0 is in the centre, got {size}")
    cycles = np.arange(size) - size // 2
    rows = cycles[:, None, None, None] * np.arange(height)[:, None] / height
    angle = 2 * np.pi * (rows + cycles[:, None, None] * np.arange(width) / width)
    gratings = np.cos(angle) + np.sin(angle)
    norms = np.linalg.norm(gratings, axis=(2, 3), keepdims=True)
    return (gratings / norms).astype(np.float32)


def fourier_map(
    key: Key[Array, "*keys"],
    logits_fn: Callable[[Array, Array], Array],
    images: Images,
    labels: Int[Array | np.ndarray, " n"],
    norm: float = 4.0,
    size: int = 31,
) -> Bool[np.ndarray, "n size size"]:
    """Return whether the answer is wrong under a grating of each frequency; 0 is in the centre.

    The mean over images is the heat map.

    Each channel of each image gets the grating, multiplied by ``norm`` and by a random sign, and is
    clipped to [0, 1]. The defaults are those of the reference for CIFAR-10; it has 15.7 and 63 for
    ImageNet.

    Args:
      key: one typed key, or one per image. Signs and noise of an image follow from its key and the
        frequency.
      logits_fn: function of (keys, images), one key per example.
      images: in [0, 1]. All of them get a grating at the same time.
      labels: classes.
      norm: L2 norm of the perturbation of a channel, in pixel units.
      size: number of frequencies along each axis, odd.

    Raises:
      ValueError: if an argument, an image or a label is out of range.
      TypeError: if images are not float32 or float64, or labels are not integers.
      FloatingPointError: if logits are not finite.
    """
    arguments.number("norm", norm)
    images = jnp.asarray(batches.check_images(images), jnp.float32)
    basis = fourier_basis(images.shape[1], images.shape[2], size)
    # The other half is the same, mirrored.
    half = basis.reshape(size**2, *basis.shape[2:])[: size**2 // 2 + 1]
    keys = prng.example_keys(key, len(images))
    classifier = functions.as_pytree(logits_fn, keys, images)
    classes = jax.eval_shape(classifier, keys, images).shape[-1]
    labels = batches.check_labels(labels, len(images), classes)
    wrong, finite = _wrong(classifier, keys, images, labels, norm * half)
    if not finite.all():
        raise FloatingPointError("logits_fn returned logits that are NaN or infinite")
    wrong = np.asarray(wrong).T
    return np.concatenate([wrong, wrong[:, -2::-1]], axis=1).reshape(-1, size, size)


@jax.jit
def _wrong(
    classifier: Any, keys: Array, images: Array, labels: Array, gratings: Array
) -> tuple[Array, Array]:
    def of_grating(number_and_grating: tuple[Array, Array]) -> tuple[Array, Array]:
        number, grating = number_and_grating
        own = prng.fold(keys, number)
        flip = functools.partial(jax.random.rademacher, shape=images.shape[3:], dtype=jnp.float32)
        signs = jax.vmap(flip)(prng.stream(own, "signs"))
        moved = images + signs[:, None, None] * grating[None, :, :, None]
        logits = classifier(prng.stream(own, "noise"), jnp.clip(moved, 0.0, 1.0))
        return jnp.argmax(logits, axis=-1) != labels, jnp.isfinite(logits).all()

    return jax.lax.map(of_grating, (jnp.arange(len(gratings)), gratings))


@dataclasses.dataclass(frozen=True, eq=False)
class Eigendistortions:
    """Perturbations of an image that an observer of noisy responses detects best and least.

    Attributes:
      most: the most detectable ones of L2 norm 1, first the best, (count, h, w, c).
      most_information: d'^2 of each per squared L2 norm, for small perturbations.
      least: the least detectable ones, first the least. Where a layer has more than ``count``
        perturbations of no information, they are some of these.
      least_information: the same for these.
    """

    most: Float[np.ndarray, "count h w c"]
    most_information: Float64[np.ndarray, " count"]
    least: Float[np.ndarray, "count h w c"]
    least_information: Float64[np.ndarray, " count"]


def eigendistortions(
    key: Key[Array, ""],
    response_fn: Callable[[Array, Array], Array],
    image: Float[Array | np.ndarray, "h w c"],
    noise: Noise = None,
    count: int = 1,
) -> Eigendistortions:
    """Return the extreme eigenvectors of the Fisher information of noisy responses about an image.

    The information is J^T I J, with the Jacobian J of the responses, and the information I of each
    noisy response. It is never formed: Jacobian-vector products multiply by it, and the method of
    Lanczos (ARPACK) finds its eigenvectors, one at a time, each orthogonal to those before. In one
    run, Lanczos may miss repeated eigenvalues, such as the 0 of a layer that ignores directions.

    The products are of float32, so Lanczos cannot tell eigenvectors apart that have less than a
    hundred-thousandth of the largest information. With ``v1.FanoNoise``, nearly silent cells have
    so much that all of the least ones are below. There the matrix is formed in float64 if the image
    is small, and a warning tells of it otherwise.

    Args:
      key: decides on the start vectors, and is the key of ``response_fn``.
      response_fn: a layer (keys, images) -> responses without noise, such as
        ``models.response_fn(models.without_noise(model), variables, "v1")``.
      image: one image in [0, 1].
      noise: noise of the responses; ``v1.NeuronalNoise`` and ``v1.StabilisedNoise`` count spikes.
        None stands for Gaussian noise of deviation 1.
      count: number of eigenvectors at either end.

    Raises:
      ValueError: if an argument is out of range.
      TypeError: if the image is not float32 or float64.
      FloatingPointError: if the information is not finite.
      scipy.sparse.linalg.ArpackNoConvergence: if an eigenvector is not found.
    """
    image = jnp.asarray(batches.check_images(jnp.asarray(image)[None])[0], jnp.float32)
    arguments.count("count", count, most=image.size - 1)
    keys = prng.example_keys(key, 1)
    layer = functions.as_pytree(response_fn, keys, image[None], "response_fn")
    starts = jax.random.normal(prng.stream(key, "start"), (count, image.size))

    def multiply(vector: np.ndarray) -> np.ndarray:
        tangent = jnp.asarray(vector.reshape(image.shape), jnp.float32)
        product = np.asarray(_information_product(layer, keys, image, tangent, noise), np.float64)
        if not np.isfinite(product).all():
            raise FloatingPointError("the information about the image is NaN or infinite")
        return product.ravel()

    def extreme(sign: float, shift: float) -> tuple[np.ndarray, np.ndarray]:
        """The first eigenvectors of shift + sign F, where F is the information."""

        def shifted(vector: np.ndarray) -> np.ndarray:
            return shift * vector + sign * multiply(vector)

        found = np.zeros((0, image.size))
        for start in np.asarray(starts, np.float64):
            operator = functools.partial(_deflated, shifted, found)
            vector = _top_eigenvector(operator, _orthogonal(start, found))
            found = np.concatenate([found, vector])
        eigenvalues = np.array([vector @ multiply(vector) for vector in found])
        order = np.argsort(-sign * eigenvalues)
        return found[order].reshape(count, *image.shape), np.maximum(eigenvalues[order], 0.0)

    first = _top_eigenvector(multiply, np.asarray(starts[0], np.float64))[0]
    top = float(first @ multiply(first))
    # With these shifts all eigenvalues are positive, so what is deflated comes last.
    most, least = extreme(1.0, top), extreme(-1.0, 2 * top)
    responses = jax.eval_shape(layer, keys, image[None])
    if least[1][0] >= _TOLERANCE * top:
        return Eigendistortions(*most, *least)
    if image.size <= _DENSE_VALUES and image.size * responses.size <= _DENSE_ENTRIES:
        matrix = _information_matrix(_scaled_jacobian(layer, keys, image, noise))
        values, vectors = scipy.linalg.eigh(matrix, subset_by_index=(0, count - 1))
        least = vectors.T.reshape(count, *image.shape), np.maximum(values, 0.0)
    else:
        warnings.warn(
            f"the least eigendistortions of {image.size} values and {responses.size} responses are "
            f"found to {_TOLERANCE:g} of the largest information, {top:g}, and have less, "
            f"{least[1][0]:g}: others may have less still. Take a smaller image, of at most "
            f"{_DENSE_VALUES} values, and {_DENSE_ENTRIES} values times responses",
            stacklevel=2,
        )
    return Eigendistortions(*most, *least)


@functools.partial(jax.jit, static_argnames="noise")
def _scaled_jacobian(layer: Any, keys: Array, image: Array, noise: Noise) -> Array:
    """The change of responses with each value of an image, in units of their noise, a row each."""

    def of_image(image: Array) -> Array:
        return layer(keys, image[None])

    with jax.default_matmul_precision("highest"):
        responses, change = jax.linearize(of_image, image)
        root = jnp.sqrt(information(noise, responses))
        values = jnp.eye(image.size, dtype=image.dtype).reshape(-1, *image.shape)
        return jax.lax.map(lambda value: (root * change(value)).ravel(), values, batch_size=32)


def _information_matrix(jacobian: Array) -> Float64[np.ndarray, "n n"]:
    # The product of a matrix of float32 with itself has small eigenvalues that are right to 1e-14
    # of the largest, if it is made in float64.
    parts = (np.asarray(part, np.float64) for part in jnp.array_split(jacobian, 64, axis=1))
    return sum((part @ part.T for part in parts), np.zeros(()))


def _orthogonal(vector: np.ndarray, found: np.ndarray) -> np.ndarray:
    return vector - found.T @ (found @ vector)


def _deflated(
    multiply: Callable[[np.ndarray], np.ndarray], found: np.ndarray, vector: np.ndarray
) -> np.ndarray:
    """The product of a matrix without the eigenvectors that are found, with a vector."""
    return _orthogonal(multiply(_orthogonal(vector.ravel(), found)), found)


def _top_eigenvector(
    multiply: Callable[[np.ndarray], np.ndarray], start: np.ndarray
) -> Float64[np.ndarray, "1 n"]:
    operator = scipy.sparse.linalg.LinearOperator((start.size,) * 2, multiply, dtype=float)
    return scipy.sparse.linalg.eigsh(operator, 1, which="LA", v0=start, tol=_TOLERANCE)[1].T


@functools.partial(jax.jit, static_argnames="noise")
def _information_product(
    layer: Any, keys: Array, image: Array, tangent: Array, noise: Noise
) -> Array:
    """The Fisher information matrix about an image, times a perturbation."""

    def of_image(image: Array) -> Array:
        return layer(keys, image[None])

    with jax.default_matmul_precision("highest"):
        responses, change = jax.jvp(of_image, (image,), (tangent,))
        _, pull_back = jax.vjp(of_image, image)
        return pull_back(information(noise, responses) * change)[0]
