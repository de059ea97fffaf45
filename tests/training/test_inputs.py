"""The batches of a run: floats made of bytes on the devices, and images as the experiment says."""

import contextlib
from dataclasses import replace

import numpy as np
import pytest
from tiny import tiny_source

from vone_jax import data, training
from vone_jax import mesh as meshes
from vone_jax.training import loop


@pytest.fixture
def resolved(tiny):
    return training.resolve(tiny, tiny_source("train"))


def test_bytes_become_the_same_floats_on_the_devices(resolved):
    source = tiny_source("train")
    with contextlib.closing(loop.train_batches(resolved, source, skip=1)) as batches:
        sent = next(batches)
    plain = data.train_batches(
        source, batch_size=8, seed=0, image_size=8, augment=resolved.data.augment, skip=1
    )
    with contextlib.closing(plain):
        expected = next(plain)
    assert sent["image"].dtype == np.uint8 and expected["image"].dtype == np.float32
    placed = loop.place(meshes.data_mesh(), sent)
    for name in ("image", "label", "index"):
        np.testing.assert_array_equal(placed[name], expected[name])
    every = np.arange(256, dtype=np.uint8).reshape(8, 8, 4, 1)
    placed = loop.place(meshes.data_mesh(), {"image": every})["image"]
    np.testing.assert_array_equal(placed, every.astype(np.float32) / np.float32(255))


def test_images_are_cropped_as_the_experiment_says(resolved):
    source = tiny_source("train")
    plain = data.Augment()
    cropped = replace(resolved, data=replace(resolved.data, center_crop=0.5, augment=plain))
    trained = data.train_batches(
        source, batch_size=8, seed=0, image_size=8, preprocessing=data.Preprocessing(0.5),
        as_bytes=True,
    )  # fmt: skip
    with contextlib.closing(loop.train_batches(cropped, source, 0)) as batches:
        np.testing.assert_array_equal(next(batches)["image"], next(trained)["image"])
    prepared = loop.open_eval_split(cropped, source)
    expected = data.eval_batches(
        tiny_source("test"), batch_size=4, image_size=8, preprocessing=data.Preprocessing(0.5),
        as_bytes=True,
    )  # fmt: skip
    with contextlib.closing(loop.eval_batches(cropped, prepared)) as batches:
        np.testing.assert_array_equal(next(batches)["image"], next(expected)["image"])
