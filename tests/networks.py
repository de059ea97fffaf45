"""Small networks that several tests use: of this project, and as users write them.

Those of users are for the classes of Fashion-MNIST. Some do not keep the contract of a network.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from flax import nnx
from flax.traverse_util import unflatten_dict

import vone_jax
from vone_jax import attacks, data, models, prng, v1
from vone_jax.convert.state_dict import abstract_variables
from vone_jax.models.layers import BatchNorm

SHAPE = (28, 28, 1)
CLASS_NAMES = data.load("fashion_mnist_small", "test").class_names


def small(name, **arguments):
    """A narrow network in the 224-pixel form; VOneNets and EVNets have 8 + 8 filters."""
    if name.startswith("vone_"):
        arguments["v1"] = v1.VOneBlockConfig(simple_channels=8, complex_channels=8)
    if name.startswith("ev_"):
        published = models.v1_config(224, 4, name)
        arguments["v1"] = dataclasses.replace(published, simple_channels=8, complex_channels=8)
    return models.create(name, 5, width=2, **arguments)


def changed(model, **fields):
    """The network with other fields of its specification."""
    return dataclasses.replace(model.spec, **fields).build(model.dtype)


def random_variables(model, seed=0):
    """Random values for every variable; nothing is compiled."""
    rng = np.random.default_rng(seed)
    return unflatten_dict(
        {
            path: (0.5 + rng.random(leaf.shape)).astype(np.float32)
            for path, leaf in abstract_variables(model).items()
        }
    )


class MeanBackEnd(nn.Module):
    """The mean over the map and a linear layer, with ``norm`` behind batch norm and dropout."""

    classes: int = 3
    norm: bool = False

    @nn.compact
    def __call__(self, x, train):
        if self.norm:
            x = nn.Dropout(0.2, deterministic=not train)(nn.relu(BatchNorm(name="norm")(x, train)))
        return {"logits": nn.Dense(self.classes)(jnp.mean(x, axis=(1, 2)))}


class TinyNet(nn.Module):
    """A network with everything the loop must handle: noise per example, batch norm, dropout."""

    num_classes: int = 3
    norm: bool = True
    dropout: float = 0.2
    noise: float = 0.1

    @nn.compact
    def __call__(self, images, train=False, noise_key=None):
        keys = prng.example_keys(noise_key, len(images)) if noise_key is not None else None
        x = nn.Conv(4, (3, 3), use_bias=False, name="conv")(images)
        if keys is not None:
            x += self.noise * jax.vmap(lambda key: jax.random.normal(key, x.shape[1:]))(keys)
        x = nn.relu(BatchNorm(name="norm")(x, train) if self.norm else x)
        x = nn.Dropout(self.dropout, deterministic=not train)(jnp.mean(x, axis=(1, 2)))
        return nn.Dense(self.num_classes, name="logits")(x)


class Cnn(nnx.Module):
    """Two convolutions and a linear layer, in Flax NNX."""

    def __init__(self, rngs):
        self.first = nnx.Conv(1, 4, (5, 5), strides=2, rngs=rngs)
        self.second = nnx.Conv(4, 8, (3, 3), strides=2, rngs=rngs)
        self.head = nnx.Linear(8, 10, rngs=rngs)

    def features(self, images):
        first = nnx.relu(self.first(images - 0.5))
        second = nnx.relu(self.second(first))
        return {"first": first, "second": second, "logits": self.head(second.mean((1, 2)))}


def cnn():
    """The weights are leaves of a Partial, so they are arguments of the compiled programs."""
    module = Cnn(nnx.Rngs(0))
    graph, state = nnx.split(module)

    def features(state, keys, images):
        return nnx.merge(graph, state).features(images)

    def logits(state, keys, images):
        return features(state, keys, images)["logits"]

    return vone_jax.Network(
        name="cnn",
        logits_fn=jax.tree_util.Partial(logits, state),
        image_shape=SHAPE,
        class_names=CLASS_NAMES,
        features=jax.tree_util.Partial(features, state),
    )


def closed_over():
    """The same network as functions that close over the module."""
    module = Cnn(nnx.Rngs(0))
    return (lambda keys, images: module.features(images)["logits"]), SHAPE, CLASS_NAMES


def noisy():
    """A function of a single key, adapted; its logits depend on the key."""
    weights = jax.random.normal(jax.random.key(0), (784, 10))

    def logits(key, images):
        logits = images.reshape(len(images), -1) @ weights
        return logits + 0.1 * jax.random.normal(key, logits.shape)

    return attacks.per_example(logits), SHAPE, CLASS_NAMES


def unstated():
    """A stochastic network that does not say so."""
    logits_fn, shape, names = noisy()
    return vone_jax.Network("unstated", logits_fn, shape, names)


def without_names():
    return noisy()[:2]


def wrong_names():
    return dataclasses.replace(cnn(), class_names=("a", "b"))


def wrong_size():
    """The images have another size than stated."""
    return (lambda keys, images: images.reshape(-1, 100) @ jnp.ones((100, 10))), SHAPE


def wrong_logits():
    return (lambda keys, images: images.mean((1, 2, 3))), SHAPE


def images_alone():
    return (lambda images: images.reshape(len(images), -1)), SHAPE


def one_class():
    return (lambda keys, images: images.mean((1, 2))), SHAPE


def whole_numbers():
    return (lambda keys, images: _linear(images).astype(int)), SHAPE


def not_finite():
    return (lambda keys, images: jnp.full((len(images), 10), jnp.nan)), SHAPE


def _linear(images):
    return images.reshape(len(images), -1) @ jax.random.normal(jax.random.key(0), (784, 10))


def noise_of_numpy():
    """The noise does not come from the keys."""
    rng = np.random.default_rng(0)
    return (lambda keys, images: _linear(images) + rng.normal(size=(len(images), 10))), SHAPE


def one_key_for_all():
    """The noise of all images comes from the key of the first."""
    draw = lambda keys, logits: logits + jax.random.normal(keys[0], logits.shape)  # noqa: E731
    return (lambda keys, images: draw(keys, _linear(images))), SHAPE


def last_key_for_all():
    draw = lambda keys, logits: logits + jax.random.normal(keys[-1], logits.shape)  # noqa: E731
    return (lambda keys, images: draw(keys, _linear(images))), SHAPE


def indexed_by_values():
    return (lambda keys, images: _linear(images) + images[images > 0.5].sum()), SHAPE


def batch_statistics():
    """A batch norm in training mode."""
    return (lambda keys, images: _linear(images - images.mean(0, keepdims=True))), SHAPE


def not_in_jax():
    return (lambda keys, images: jnp.asarray(np.asarray(images).reshape(-1, 784)[:, :10])), SHAPE


def nested_layers():
    features = lambda keys, images: {"first": images, "second": [images]}  # noqa: E731
    return dataclasses.replace(cnn(), features=features)


def listed_layers():
    """The features are a list, not a dictionary."""
    features = lambda keys, images: [images]  # noqa: E731
    return dataclasses.replace(cnn(), features=features)


def raising():
    raise RuntimeError("the weights are on another machine")


def nothing():
    return None


def oblong():
    return (lambda keys, images: images.mean((2, 3))), (28, 32, 1)
