"""The batches of a run: their order, their position, and floats made of bytes on the devices."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from vone_jax import data
from vone_jax import mesh as meshes
from vone_jax.training.setup import Prefetch, prepare


class Numbers:
    """An iterator over the numbers from a position."""

    def __init__(self, position):
        self.position = position

    def __next__(self):
        self.position += 1
        return self.position - 1

    def get_state(self):
        return {"position": self.position}


@pytest.mark.parametrize("ahead", [0, 1, 3, 9])
def test_batches_come_in_order_and_none_beyond_the_last_is_loaded(ahead):
    numbers, placed = Numbers(5), []
    prefetch = Prefetch(numbers, lambda batch: placed.append(batch) or -batch, ahead, number=4)
    assert prefetch.state == {"position": 5} and placed == []
    for step in range(4):
        assert prefetch.take() == -(5 + step)
        assert prefetch.state == {"position": 6 + step}
        assert placed == list(range(5, min(6 + step + ahead, 9)))
    assert numbers.position == 9


def test_bytes_become_the_same_floats_on_the_devices(tiny):
    setup = prepare(tiny, meshes.data_mesh())
    config = tiny.data
    with contextlib.closing(setup.train_batches()) as batches:
        sent = next(batches)
    plain = data.train_batches(
        setup.train_source, batch_size=config.batch_size, seed=tiny.seed, image_size=8,
        augment=config.augment,
    )  # fmt: skip
    with contextlib.closing(plain):
        expected = next(plain)
    assert sent["image"].dtype == np.uint8 and expected["image"].dtype == np.float32
    placed = setup.shard(sent)
    for name in ("image", "label", "index"):
        np.testing.assert_array_equal(placed[name], expected[name])
    every = np.arange(256, dtype=np.uint8).reshape(8, 8, 4, 1)
    placed = setup.shard({"image": every})["image"]
    np.testing.assert_array_equal(placed, every.astype(np.float32) / np.float32(255))
    assert placed.sharding == setup.shard({"image": np.float32(every)})["image"].sharding


def test_images_are_cropped_as_the_experiment_says(tiny):
    cropped = dataclasses.replace(tiny, data=dataclasses.replace(tiny.data, center_crop=0.5))
    setup = prepare(cropped, meshes.data_mesh())
    expected = data.eval_batches(
        setup.eval_source, batch_size=4, image_size=8, preprocessing=data.Preprocessing(0.5),
        as_bytes=True,
    )  # fmt: skip
    with contextlib.closing(setup.eval_batches()) as batches, contextlib.closing(expected):
        np.testing.assert_array_equal(next(batches)["image"], next(expected)["image"])


@pytest.mark.parametrize(("asked", "parts", "taken"), [(35, 5, 20), (48, 24, 24)])
def test_a_small_set_is_a_batch_of_equal_parts(tiny, asked, parts, taken):
    """It has 24 images, and one device takes a part after the other."""
    large = dataclasses.replace(tiny.data, batch_size=asked)
    experiment = dataclasses.replace(tiny, data=large, accumulation_steps=parts)
    setup = prepare(experiment, meshes.data_mesh(jax.devices()[:1]))
    assert setup.experiment.data.batch_size == taken


def test_validation_sends_bytes_too(tiny):
    with contextlib.closing(prepare(tiny, meshes.data_mesh()).eval_batches()) as batches:
        assert next(batches)["image"].dtype == np.uint8


def test_validation_images_are_decoded_once(tiny):
    setup = prepare(tiny, meshes.data_mesh())
    reads = []

    class Counted(data.Subset):
        def __getitem__(self, index):
            reads.append(index)
            return super().__getitem__(index)

    setup = dataclasses.replace(setup, eval_source=Counted(setup.eval_source))

    def images():
        with contextlib.closing(setup.eval_batches()) as batches:
            return [batch["image"] for batch in batches]

    first, second = images(), images()
    assert sorted(reads) == list(range(len(setup.eval_source)))
    np.testing.assert_array_equal(second, first)


@pytest.mark.parametrize("split", ["train", "train[80%:]"])
def test_validation_on_training_images_is_told(tiny, monkeypatch, split):
    images = data.load(tiny.data.source, "train")
    monkeypatch.setattr(data, "load", lambda source, name, data_dir: images)
    config = dataclasses.replace(tiny.data, eval_split=split)
    with pytest.warns(UserWarning, match="validates on images of the training split train; its"):
        prepare(dataclasses.replace(tiny, data=config), meshes.data_mesh())
