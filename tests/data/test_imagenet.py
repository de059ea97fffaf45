"""The names of ImageNet's classes, and the photographs of the set "demo"."""

import importlib.util
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds

from vone_jax import data

needs_foolbox = pytest.mark.skipif(
    importlib.util.find_spec("foolbox") is None, reason="foolbox is not installed (extra: demo)"
)


def test_class_names_are_those_of_tfds():
    names = data.imagenet_class_names()
    assert names == tuple(tfds.builder("imagenet2012").info.features["label"].names)
    # Labels follow the sorted ids, as in folders of ImageNet.
    assert len(names) == 1000 and list(names) == sorted(names)


@pytest.mark.extras
@needs_foolbox
def test_photographs_have_their_labels():
    source = data.load("demo", "validation")
    assert len(source) == 20 and source.num_classes == 1000
    examples = [source[i] for i in range(20)]
    # A bull mastiff, a folding chair, a beaker.
    ids = [source.class_names[example["label"]] for example in examples]
    assert ids[:3] == ["n02108422", "n03376595", "n02815834"]
    shapes = [example["image"].shape for example in examples]
    assert shapes.count((512, 512, 3)) == 19 and (683, 1024, 3) in shapes
    assert all(example["image"].dtype == np.uint8 for example in examples)
    assert data.evaluation_split("demo") == "validation"
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[3]["image"], examples[3]["image"])


def test_without_foolbox_the_extra_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = r'there is no package foolbox; install it with: pip install "vone-jax\[demo\]"'
    with pytest.raises(FileNotFoundError, match=message):
        data.load("demo", "validation")
