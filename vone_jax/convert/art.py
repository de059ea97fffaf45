"""A classifier of this project as an estimator of the Adversarial Robustness Toolbox.

Needs the package adversarial-robustness-toolbox. Attacks of the toolbox that need only the loss and
the gradients of an estimator, such as PGD, work with this one. Attacks that need a network of a
framework that the toolbox supports refuse this estimator. Square and AutoAttack are among them;
``vone_jax.attacks`` has both.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from art.estimators.classification.classifier import ClassGradientsMixin, ClassifierMixin
from art.estimators.estimator import BaseEstimator, LossGradientsMixin
from jax import Array

from vone_jax import arguments, prng
from vone_jax.attacks import losses
from vone_jax.convert.tools import CallKeys, LogitsFn, Noise, classify


class ArtClassifier(ClassGradientsMixin, ClassifierMixin, LossGradientsMixin, BaseEstimator):
    """A classifier of float32 NHWC NumPy images in [0, 1]. Its predictions are logits."""

    estimator_params = BaseEstimator.estimator_params
    channels_first = False

    def __init__(
        self,
        logits_fn: LogitsFn,
        key: Array,
        input_shape: tuple[int, int, int],
        num_classes: int,
        noise: Noise = "fresh",
        eot_samples: int = 1,
    ):
        """Wrap a classifier.

        Args:
          logits_fn: ``(keys, images) -> logits``, with one key per example.
          key, noise: see ``tools.CallKeys``.
          input_shape: (H, W, C) of the images.
          num_classes: number of logits.
          eot_samples: number of noise draws that the loss averages over, >= 1.

        Raises:
          ValueError: for ``eot_samples`` out of range.
        """
        arguments.count("eot_samples", eot_samples)
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
        image = jax.ShapeDtypeStruct((1, *input_shape), np.float32)
        super().__init__(model=prng.trace(logits_fn, keys, image), clip_values=(0.0, 1.0))
        self._input_shape = tuple(input_shape)
        self.nb_classes = num_classes
        self._keys = CallKeys(key, noise)
        self._draws = eot_samples
        self._logits = jax.jit(classify)
        self._losses = jax.jit(_losses)
        self._loss_gradient = jax.jit(_loss_gradient)
        self._class_gradient = jax.jit(_class_gradient)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape (H, W, C) of the images."""
        return self._input_shape

    def predict(self, x: np.ndarray, batch_size: int = 128, **kwargs: Any) -> np.ndarray:
        """Compute logits (N, num_classes). Each batch counts as a call in ``tools.CallKeys``."""
        batches = (x[i : i + batch_size] for i in range(0, len(x), batch_size))
        logits = [
            self._logits(self.model, self._keys.next(), np.asarray(batch, np.float32))
            for batch in batches
        ]
        return np.concatenate([np.zeros((0, self.nb_classes), np.float32), *logits])

    def compute_loss(
        self, x: np.ndarray, y: np.ndarray, reduction: str = "none", **kwargs: Any
    ) -> np.ndarray:
        """Compute each example's cross-entropy (N,), or the "mean" or "sum" of all.

        Labels ``y`` are class indices (N,) or one-hot (N, num_classes).

        Raises:
          ValueError: for another ``reduction`` than "none", "mean" and "sum".
        """
        reduced = {"none": np.asarray, "mean": np.mean, "sum": np.sum}
        arguments.choice("reduction", reduction, reduced)
        return reduced[reduction](self._losses(*self._loss_arguments(x, y)))

    def loss_gradient(self, x: np.ndarray, y: np.ndarray, **kwargs: Any) -> np.ndarray:
        """Compute the gradient of each example's cross-entropy with respect to its image.

        Labels ``y`` are class indices (N,) or one-hot (N, num_classes).
        """
        return np.array(self._loss_gradient(*self._loss_arguments(x, y)))

    def _loss_arguments(
        self, x: np.ndarray, y: np.ndarray
    ) -> tuple[Any, Array, np.ndarray, np.ndarray]:
        """The arguments of ``_losses`` in this call."""
        images, labels = np.asarray(x, np.float32), np.asarray(y)
        if labels.ndim > 1 and labels.shape[1] > 1:
            labels = np.argmax(labels, axis=1)
        key = self._keys.next()
        keys = jnp.stack([prng.fold(key, draw) for draw in range(self._draws)])
        return self.model, keys, images, labels.astype(np.int32).ravel()

    def class_gradient(
        self, x: np.ndarray, label: int | list[int] | np.ndarray | None = None, **kwargs: Any
    ) -> np.ndarray:
        """Compute gradients of logits with respect to the images.

        All classes of one call share one draw of the noise. A ``label`` is one class, or one class
        for each example.

        Returns:
          Gradients (N, num_classes, H, W, C), or (N, 1, H, W, C) with ``label``.
        """
        key, images = self._keys.next(), np.asarray(x, np.float32)
        gradients = [
            self._class_gradient(self.model, key, images, np.full(len(x), wanted, np.int32))
            for wanted in (range(self.nb_classes) if label is None else [label])
        ]
        return np.stack(gradients, axis=1)

    def fit(self, x: np.ndarray, y: np.ndarray, **kwargs: Any) -> None:
        """Raise NotImplementedError: networks are trained by ``train.py``."""
        raise NotImplementedError("fit is not supported; train with train.py and wrap the result")


def _losses(f: LogitsFn, draws: Array, images: Array, labels: Array) -> Array:
    logits = jax.vmap(lambda key: classify(f, key, images))(draws)
    return jnp.mean(losses.cross_entropy(logits, labels), axis=0)


def _loss_gradient(f: LogitsFn, draws: Array, images: Array, labels: Array) -> Array:
    return jax.grad(lambda images: jnp.sum(_losses(f, draws, images, labels)))(images)


def _class_gradient(f: LogitsFn, key: Array, images: Array, classes: Array) -> Array:
    def total(images: Array) -> Array:
        logits = classify(f, key, images)
        return jnp.sum(jnp.take_along_axis(logits, classes[:, None], axis=1))

    return jax.grad(total)(images)
