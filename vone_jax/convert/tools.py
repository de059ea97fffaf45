"""Networks of this project inside Foolbox and Brain-Score.

Neither is imported before it is needed. Brain-Score is not a dependency, and its versions of NumPy
are older than those of JAX (see docs/convert.md). Its model contract names no framework: batches of
image files go in, named activations in N,C,H,W come out. A plugin registers

    activations = ActivationsModel("vone", model, variables, key, trials=20)
    ModelCommitment("vone", activations, layers=["v1", "layer1"])
"""

import zlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from vone_jax import arguments, models, prng
from vone_jax.data.images import decode_image

LogitsFn = Callable[[jax.Array, jax.Array], jax.Array]
Noise = Literal["fresh", "frozen"]


class CallKeys:
    """The keys of successive calls of a noisy classifier, in tools that have no keys.

    With ``"frozen"`` noise, all calls get the same key. Set ``calls``, the number of calls so far,
    to 0 to repeat a run.

    Raises:
      TypeError: if ``key`` is not a typed key.
      ValueError: if ``noise`` is neither ``"fresh"`` nor ``"frozen"``.
    """

    def __init__(self, key: jax.Array, noise: Noise):
        prng.check_key(key)
        arguments.choice("noise", noise, ("fresh", "frozen"))
        self._key = prng.stream(key, "interop call")
        self._noise = noise
        self.calls = 0

    def next(self) -> jax.Array:
        """Return the key of the next call. ``prng.example_keys`` turns it into example keys."""
        number = self.calls if self._noise == "fresh" else 0
        self.calls += 1
        return prng.fold(self._key, number)


def foolbox_model(logits_fn: LogitsFn, key: jax.Array, noise: Noise = "fresh") -> Any:
    """A classifier as a ``foolbox.models.JAXModel`` with bounds (0, 1) and channels last.

    It takes images and labels as arrays of JAX, not of NumPy.
    Foolbox takes one gradient per step, so its attacks use one draw of the noise at a time. To
    average gradients over draws, pass a ``logits_fn`` that averages, or use ``vone_jax.attacks``.
    Reference: Rauber, Zimmermann, Bethge, Brendel, Foolbox Native, JOSS 2020.

    Args:
      logits_fn: ``(keys, images) -> logits`` with one key per example, for instance
        ``models.logits_fn(model, variables)``.
      key, noise: see ``CallKeys``.

    Raises:
      ImportError: without foolbox.
    """
    from foolbox.models.jax import JAXModel

    prng.check_function(logits_fn)
    keys, call = CallKeys(key, noise), jax.jit(classify)

    def classifier(images: jax.Array) -> jax.Array:
        shapes = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), len(images)))
        return call(prng.trace(logits_fn, shapes, images), keys.next(), images)

    return JAXModel(classifier, bounds=(0, 1), data_format="channels_last")


def classify(logits_fn: LogitsFn, key: jax.Array, images: jax.Array) -> jax.Array:
    """Compute logits with one key for the batch; each example gets a key by its position."""
    return logits_fn(prng.example_keys(key, len(images)), images)


class ActivationsModel:
    """A network as Brain-Score's ``activations_model``.

    It gives the activations of the layers that ``method="features"`` names, averaged over trials.
    The noise of an image is a function of (key, pixels, trial): the same in any batch, and in a
    second call. Brain-Score itself shows an image once and caches the activations.

    Attributes:
      image_size: side in pixels to which images are resized.
      layers: names of all layers, sorted.
    """

    def __init__(
        self,
        identifier: str,
        model: models.Model,
        variables: Any,
        key: jax.Array,
        trials: int = 1,
        image_size: int | None = None,
        extractor: Callable[..., Any] | None = None,
    ):
        """Wrap a network.

        Args:
          identifier: name of the model. Brain-Score caches activations under it.
          model, variables: a network of ``models.create`` and its weights.
          key: typed key of the noise.
          trials: number of stochastic passes to average, >= 1.
          image_size: side of the images in pixels. Default: that of the model.
          extractor: class to use instead of Brain-Score's ``ActivationsExtractorHelper``.

        Raises:
          TypeError: if ``key`` is not a typed key.
          ValueError: if ``trials`` is out of range.
          ImportError: without Brain-Score and without ``extractor``.
        """
        prng.check_key(key)
        arguments.count("trials", trials)
        if extractor is None:
            # Not in our environments: its releases need an older NumPy.
            from brainscore_vision.model_helpers.activations.core import (  # pyright: ignore
                ActivationsExtractorHelper as extractor,
            )
        assert extractor is not None
        self.image_size = image_size or model.image_size
        self._channels = model.in_channels
        self._key = prng.stream(key, "brain-score")
        self._trials = trials if models.is_stochastic(model) else 1
        self._features = models.features_fn(model, variables)
        images = jnp.zeros((1, self.image_size, self.image_size, self._channels))
        self.layers = tuple(jax.eval_shape(self._features, key[None], images))

        def chosen(features: Any, keys: jax.Array, images: jax.Array, names: Any) -> Any:
            layers = features(keys, images)
            return {name: layers[name] for name in names}

        self._chosen = jax.jit(chosen, static_argnums=3)
        self._extractor = extractor(
            get_activations=self.get_activations,
            preprocessing=self.preprocessing,
            identifier=identifier,
        )
        self._extractor.insert_attrs(self)

    @property
    def identifier(self) -> str:
        """The name of the model."""
        return self._extractor.identifier

    @identifier.setter
    def identifier(self, value: str) -> None:
        self._extractor.identifier = value

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Compute activations of stimuli with the extractor."""
        return self._extractor(*args, **kwargs)

    def preprocessing(self, paths: Sequence[str]) -> np.ndarray:
        """Read image files as float32 (N, C, size, size) in [0, 1]; the network normalises.

        Raises:
          ValueError: for a file that cannot be decoded to 8 bits, see ``data.decode_image``.
        """
        mode = "L" if self._channels == 1 else "RGB"
        size = (self.image_size, self.image_size)
        images = []
        for path in paths:
            image = Image.fromarray(decode_image(path, channels=3)).convert(mode)
            resized = image.resize(size, Image.Resampling.BILINEAR)
            pixels = np.asarray(resized, np.float32) / 255.0
            images.append(np.atleast_3d(pixels).transpose(2, 0, 1))
        return np.stack(images)

    def get_activations(
        self, images: np.ndarray, layer_names: Sequence[str]
    ) -> "OrderedDict[str, np.ndarray]":
        """Compute activations of images (N, C, H, W) in [0, 1], averaged over trials.

        Returns:
          In the order of ``layer_names``: float32 (N, C, H, W) for maps, (N, features) for vectors.

        Raises:
          ValueError: for an unknown layer.
        """
        for name in layer_names:
            arguments.choice("layer_names", name, self.layers)
        images = np.ascontiguousarray(np.transpose(np.asarray(images, np.float32), (0, 2, 3, 1)))
        labels = jnp.asarray([zlib.crc32(image.tobytes()) for image in images], jnp.uint32)
        keys = prng.index_keys(self._key, labels)
        names, pixels = tuple(layer_names), jnp.asarray(images)
        total: dict[str, Any] = {}
        for trial in range(self._trials):
            layers = self._chosen(self._features, prng.fold(keys, trial), pixels, names)
            # In float32, since half precision loses the sum of many trials.
            single = {name: value.astype(jnp.float32) for name, value in layers.items()}
            total = {name: total.get(name, 0.0) + value for name, value in single.items()}
        averages = {name: np.asarray(total[name]) / self._trials for name in names}
        return OrderedDict(
            (name, a.transpose(0, 3, 1, 2) if a.ndim == 4 else a) for name, a in averages.items()
        )
