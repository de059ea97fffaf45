import re
import sys
import zlib
from importlib import resources

import numpy as np
import pytest

from vone_jax import data


@pytest.mark.parametrize(
    ("split", "per_class", "checksum"), [("train", 1000, "75b82558"), ("test", 200, "d6e38f54")]
)
def test_the_set_is_balanced_named_and_in_its_order(split, per_class, checksum):
    """The checksums are those of the first images of each class in the published files."""
    source = data.load("fashion_mnist_small", split)
    assert len(source) == 10 * per_class
    assert source.image_shape == (28, 28, 1) and source.num_classes == 10
    assert (source.name, source.split) == ("fashion_mnist_small", split)
    labels = [source[i]["label"] for i in range(len(source))]
    assert np.bincount(labels).tolist() == [per_class] * 10
    pixels = [source[i]["image"].tobytes() for i in range(len(source))]
    content = np.array(labels, np.int64).tobytes() + b"".join(pixels)
    assert f"{zlib.crc32(content):08x}" == checksum


def test_class_names_fit_the_images():
    """Trousers are tall and leave the sides empty; ankle boots come first in the file."""
    source = data.load("fashion_mnist_small", "train")
    assert source.class_names[source[0]["label"]] == "Ankle boot"
    images = np.stack([source[i]["image"] for i in range(len(source))])
    labels = np.array([source[i]["label"] for i in range(len(source))])
    sides = images[:, :, :6].mean(axis=(1, 2, 3))
    emptiest = np.argmin([sides[labels == label].mean() for label in range(10)])
    assert source.class_names[emptiest] in ("Trouser", "Dress")


def test_licence_travels_with_the_images():
    folder = resources.files("vone_jax.data").joinpath("fashion_mnist_small")
    licence = folder.joinpath("LICENSE").read_text()
    assert "MIT" in licence and "Zalando" in licence


def test_without_tfds_the_other_sets_still_open(monkeypatch):
    monkeypatch.setitem(sys.modules, "vone_jax.data.tfds_sets", None)
    assert len(data.load("fashion_mnist_small", "test")) == 2000
    with pytest.raises(FileNotFoundError, match=re.escape("vone-jax[tfds]")):
        data.load("tfds:cifar10", "test")
    for name, split in (("fashion_mnist_smal", "test"), ("fashion_mnist_small", "validation")):
        with pytest.raises(ValueError, match="fashion_mnist_small"):
            data.load(name, split)
