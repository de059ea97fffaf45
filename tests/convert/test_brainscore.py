"""Brain-Score's contract, with a stand-in for its extractor."""

import functools
import zlib
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.convert.conftest import random_variables
from vone_jax import models, prng, v1
from vone_jax.convert.tools import ActivationsModel


class Extractor:
    """A stand-in for Brain-Score's helper: batches of 64, the last one padded."""

    def __init__(self, get_activations, preprocessing, identifier):
        self._get_activations = get_activations
        self._preprocess = preprocessing
        self.identifier = identifier

    def insert_attrs(self, wrapper):
        wrapper.from_paths = functools.partial(self.__call__)

    def __call__(self, paths, layers, batch=64):
        paths = list(paths)
        padded = paths + [paths[-1]] * (-len(paths) % batch)
        collected = {name: [] for name in layers}
        for start in range(0, len(padded), batch):
            images = self._preprocess(padded[start : start + batch])
            activations = self._get_activations(images, layers)
            assert isinstance(activations, OrderedDict) and list(activations) == list(layers)
            for name, values in activations.items():
                assert isinstance(values, np.ndarray) and len(values) == batch
                collected[name].append(values)
        return {name: np.concatenate(v)[: len(paths)] for name, v in collected.items()}


@pytest.fixture(scope="module")
def network():
    config = v1.VOneBlockConfig(
        simple_channels=4, complex_channels=2, image_size=16, visual_degrees=0.5, kernel_size=7
    )
    model = models.create("vone_alexnet", 5, width=2, v1=config)
    return model, random_variables(model)


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stimuli")
    rng = np.random.default_rng(0)
    paths = []
    for i in range(3):
        paths.append(str(folder / f"{i}.png"))
        pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels if i < 2 else pixels[..., 0]).save(paths[-1])
    return paths


def wrap(network, seed=1, **arguments):
    key = jax.random.key(seed)
    return ActivationsModel("vone", *network, key, extractor=Extractor, **arguments)


def test_the_contract(network, paths):
    wrapped = wrap(network)
    assert wrapped.identifier == "vone" and wrapped.image_size == 16
    wrapped.identifier = "other"
    assert wrapped.identifier == wrapped._extractor.identifier == "other"
    assert "logits" in wrapped.layers and "v1" in wrapped.layers
    images = wrapped.preprocessing(paths)
    assert images.shape == (3, 3, 16, 16) and images.dtype == np.float32
    assert images.min() >= 0 and images.max() <= 1
    with Image.open(paths[0]) as image:
        np.testing.assert_allclose(images[0, 1, 2, 3], np.asarray(image)[2, 3, 1] / 255, atol=1e-7)
    activations = wrapped(paths, layers=["v1", "conv3", "logits"], batch=2)
    assert activations["v1"].shape == (3, 6, 4, 4)
    assert activations["logits"].shape == (3, 5)
    with pytest.raises(ValueError, match="layer_names must be one of bottleneck, .*got 'V1'"):
        wrapped.get_activations(images, ["V1"])


def test_images_of_another_size(network, paths):
    assert wrap(network, image_size=32).preprocessing(paths).shape == (3, 3, 32, 32)


def test_images_of_16_bits_are_refused(network, tmp_path):
    """Pillow would make them white."""
    path = tmp_path / "deep.png"
    Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16).reshape(16, 16)).save(path)
    with pytest.raises(ValueError, match="deep.png has Pillow mode 'I;16'"):
        wrap(network).preprocessing([str(path)])


@pytest.mark.slow
def test_maps_are_channels_first(network, paths):
    model, variables = network
    quiet = models.without_noise(model)
    wrapped = wrap((quiet, variables), trials=4)
    images = wrapped.preprocessing(paths)
    ours = v1.noise_free_responses(quiet.v1, jnp.asarray(images.transpose(0, 2, 3, 1)))
    (responses,) = wrapped.get_activations(images, ["v1"]).values()
    np.testing.assert_allclose(responses, np.asarray(ours).transpose(0, 3, 1, 2), atol=1e-5)


def test_noise_belongs_to_the_image_not_to_the_batch(network, paths):
    wrapped = wrap(network)
    a = wrapped(paths, layers=["v1"], batch=1)["v1"]
    b = wrapped(paths[::-1], layers=["v1"], batch=4)["v1"]
    np.testing.assert_allclose(a, b[::-1], atol=1e-4)


@pytest.mark.slow
def test_trials_are_averaged(network, paths):
    images = wrap(network).preprocessing(paths)

    def responses(seed, trials):
        return wrap(network, seed, trials=trials).get_activations(images, ["v1"])["v1"]

    def distance(trials):
        return np.abs(responses(1, trials) - responses(2, trials)).mean()

    assert distance(trials=16) == pytest.approx(distance(trials=1) / 4, rel=0.35)
    with pytest.raises(ValueError, match="trials must be an integer >= 1"):
        wrap(network, trials=0)


@pytest.mark.slow
def test_half_precision_is_averaged_in_float32(network, paths):
    half = models.create(
        "vone_alexnet", 5, width=2, v1=network[0].v1, dtype=jnp.bfloat16, image_size=16
    )
    wrapped = wrap((half, network[1]), trials=20)
    images = wrapped.preprocessing(paths)
    (averaged,) = wrapped.get_activations(images, ["conv3"]).values()
    pixels = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    labels = jnp.asarray([zlib.crc32(image.tobytes()) for image in pixels], jnp.uint32)
    keys = prng.index_keys(prng.stream(jax.random.key(1), "brain-score"), labels)
    features = jax.jit(models.features_fn(half, network[1]))
    trials = [features(prng.fold(keys, trial), pixels)["conv3"] for trial in range(20)]
    expected = np.mean([np.asarray(each, np.float64) for each in trials], axis=0)
    assert averaged.dtype == np.float32 and trials[0].dtype == jnp.bfloat16
    np.testing.assert_allclose(averaged, expected.transpose(0, 3, 1, 2), rtol=1e-5, atol=1e-6)
