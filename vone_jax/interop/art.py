"""A classifier of this project as an estimator of the Adversarial Robustness Toolbox.

Needs the package adversarial-robustness-toolbox. Its white-box attacks run on the gradients that
this estimator gives.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from art.estimators.classification.classifier import ClassGradientsMixin, ClassifierMixin
from art.estimators.estimator import BaseEstimator, LossGradientsMixin

from vone_jax import prng
from vone_jax.interop.calls import CallKeys, Noise


class ArtClassifier(ClassGradientsMixin, ClassifierMixin, LossGradientsMixin, BaseEstimator):
    """Images are float32 NHWC NumPy arrays in [0, 1]; predictions are logits."""

    estimator_params = BaseEstimator.estimator_params

    def __init__(
        self,
        logits_fn: Callable[[jax.Array, jax.Array], jax.Array],
        key: jax.Array,
        input_shape: tuple[int, int, int],
        num_classes: int,
        noise: Noise = "fresh",
        eot_samples: int = 1,
    ):
        """Wraps a classifier.

        Args:
          logits_fn: ``(keys, images) -> logits``, with one key per example.
          key: typed key of the noise.
          input_shape: (H, W, C) of the images.
          num_classes: number of logits.
          noise: ``"fresh"`` noise at every call, or ``"frozen"`` noise.
          eot_samples: noise draws whose averaged loss is differentiated, >= 1.

        Raises:
          TypeError: if ``key`` is not a typed key.
          ValueError: for a ``noise`` or ``eot_samples`` out of range.
        """
        if eot_samples < 1:
            raise ValueError(f"eot_samples must be >= 1, got {eot_samples}")
        super().__init__(model=logits_fn, clip_values=(0.0, 1.0))
        self._input_shape = tuple(input_shape)
        self.nb_classes = num_classes
        self._keys = CallKeys(key, noise)
        # A Partial passes its weights as arguments; any other function is static.
        static = () if isinstance(logits_fn, jax.tree_util.Partial) else 0

        def loss(images, f, keys, labels):
            logits = jax.vmap(lambda key: f(prng.example_keys(key, len(images)), images))(keys)
            each = optax.losses.softmax_cross_entropy(logits, labels[None])
            return jnp.sum(jnp.mean(each, axis=0))

        def class_logits(images, f, key, classes):
            logits = f(prng.example_keys(key, len(images)), images)
            return jnp.sum(jnp.take_along_axis(logits, classes[:, None], axis=1))

        self._logits = jax.jit(
            lambda f, key, x: f(prng.example_keys(key, len(x)), x), static_argnums=static
        )
        self._loss_gradient = jax.jit(
            lambda f, keys, x, labels: jax.grad(loss)(x, f, keys, labels), static_argnums=static
        )
        self._class_gradient = jax.jit(
            lambda f, key, x, classes: jax.grad(class_logits)(x, f, key, classes),
            static_argnums=static,
        )
        self._draws = eot_samples

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(H, W, C)."""
        return self._input_shape

    def predict(self, x: np.ndarray, batch_size: int = 128, **kwargs: Any) -> np.ndarray:
        """Logits (N, num_classes); one key for each batch."""
        batches = [x[i : i + batch_size] for i in range(0, len(x), batch_size)]
        return np.concatenate(
            [self._logits(self.model, self._keys.next(), _float32(batch)) for batch in batches]
        )

    def loss_gradient(self, x: np.ndarray, y: np.ndarray, **kwargs: Any) -> np.ndarray:
        """Gradient of every example's own cross-entropy; ``y`` is one-hot or class indices."""
        labels = np.asarray(y)
        if labels.ndim == 1 or labels.shape[1] == 1:
            labels = np.eye(self.nb_classes)[labels.astype(int).ravel()]
        key = self._keys.next()
        keys = jnp.stack([prng.fold(key, draw) for draw in range(self._draws)])
        return np.array(
            self._loss_gradient(self.model, keys, _float32(x), labels.astype(np.float32))
        )

    def class_gradient(
        self, x: np.ndarray, label: int | list[int] | np.ndarray | None = None, **kwargs: Any
    ) -> np.ndarray:
        """Gradients of logits (N, classes, H, W, C): of all classes, or of one for each example.

        All classes of one call see the same noise.
        """
        key = self._keys.next()
        if label is None:
            wanted = [np.full(len(x), c) for c in range(self.nb_classes)]
        else:
            wanted = [np.broadcast_to(np.asarray(label), (len(x),))]
        return np.stack(
            [
                self._class_gradient(self.model, key, _float32(x), classes.astype(np.int32))
                for classes in wanted
            ],
            axis=1,
        )

    def fit(self, x: np.ndarray, y: np.ndarray, **kwargs: Any) -> None:
        """Not offered: networks are trained by ``train.py``."""
        raise NotImplementedError("train with train.py, and wrap the result")


def _float32(x: np.ndarray) -> jax.Array:
    return jnp.asarray(x, jnp.float32)
