"""IDX files -> the lines of the guide -> TFDS files -> the reading path of every TFDS set."""

import functools
import gzip
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from vone_jax import data
from vone_jax.data import tfds_sets

GUIDE = Path(__file__).parents[2] / "docs/guide.md"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason=f"{DEBIAN} is missing: apt install dataset-fashion-mnist"
)


def prepare(folder, data_dir):
    """Run the lines of the guide on the IDX files of a folder."""
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    (lines,) = (block for block in blocks if "prepare_from_arrays" in block)
    known: dict = {}
    with pytest.MonkeyPatch.context() as patch:
        there = functools.partial(tfds_sets.prepare_from_arrays, data_dir=data_dir)
        patch.setattr(tfds_sets, "prepare_from_arrays", there)
        exec(lines.replace(str(DEBIAN), str(folder)), known)
    return known["splits"]


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """A folder of IDX files, and what they hold."""
    folder = tmp_path_factory.mktemp("idx")
    rng = np.random.default_rng(0)
    arrays = {}
    for split, prefix, count in [("train", "train", 23), ("test", "t10k", 12)]:
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = rng.integers(0, 10, count).astype(np.uint8)
        for kind, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
            content = gzip.compress(header + array.tobytes())
            (folder / f"{prefix}-{kind}-ubyte.gz").write_bytes(content)
        arrays[split] = images[:, :, :, None], labels
    return folder, arrays


def contents(images, labels):
    """Examples as a sorted list, for comparing sets in different order."""
    return sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


@pytest.fixture(scope="module")
def prepared(synthetic, tmp_path_factory):
    """The directory in which the synthetic set is prepared."""
    data_dir = tmp_path_factory.mktemp("tfds")
    prepare(synthetic[0], data_dir)
    return data_dir


class TestTfdsLayout:
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_every_example_is_read_back(self, synthetic, prepared, split):
        source = data.load("tfds:fashion_mnist", split, data_dir=prepared)
        examples = [source[i] for i in range(len(source))]
        read = contents(*zip(*[(e["image"], e["label"]) for e in examples], strict=True))
        assert read == contents(*synthetic[1][split])
        assert source.image_shape == examples[0]["image"].shape == (28, 28, 1)
        assert source.class_names == data.load("fashion_mnist_small", "test").class_names

    def test_existing_set_is_left_alone(self, synthetic, prepared):
        record = prepared / "fashion_mnist/3.0.1/fashion_mnist-test.array_record-00000-of-00001"
        before = os.stat(record).st_mtime_ns
        prepare(synthetic[0], prepared)
        assert os.stat(record).st_mtime_ns == before

    def test_the_configuration_that_is_named_is_written(self, tmp_path):
        name, images = "cifar10_corrupted/spatter_3", np.full((1, 32, 32, 3), 7, np.uint8)
        tfds_sets.prepare_from_arrays(name, {"test": (images, np.array([4]))}, tmp_path)
        example = data.load(f"tfds:{name}", "test", data_dir=tmp_path)[0]
        np.testing.assert_array_equal(example["image"], images[0])
        assert example["label"] == 4

    def test_other_images_are_refused(self, tmp_path):
        for shape, label, message in (
            ((1, 32, 32, 1), 0, "the train images have the shape"),
            ((1, 28, 28, 1), 10, "label"),
        ):
            arrays = {"train": (np.zeros(shape, np.uint8), np.array([label], np.uint8))}
            with pytest.raises(ValueError, match=message):
                tfds_sets.prepare_from_arrays("fashion_mnist", arrays, tmp_path)

    def test_slices_of_a_split(self, prepared):
        assert len(data.load("tfds:fashion_mnist", "train[:10]", data_dir=prepared)) == 10
        with pytest.raises(ValueError, match=r"has no 'train\[:0\]'"):
            data.load("tfds:fashion_mnist", "train[:0]", data_dir=prepared)

    def test_source_goes_to_workers(self, prepared):
        source = data.load("tfds:fashion_mnist", "test", data_dir=prepared)
        copy = pickle.loads(pickle.dumps(source))
        assert (copy.name, len(copy), copy.class_names) == (
            "tfds:fashion_mnist",
            len(source),
            source.class_names,
        )
        np.testing.assert_array_equal(copy[3]["image"], source[3]["image"])


@needs_debian
@pytest.mark.extras
class TestDebianPackage:
    @pytest.mark.slow
    def test_full_set_and_the_subset_that_is_embedded(self, tmp_path):
        """All 70,000 images: ten seconds on an idle machine."""
        splits = prepare(DEBIAN, tmp_path)
        for split, size in {"train": 60_000, "test": 10_000}.items():
            images, labels = splits[split]
            source = data.load("tfds:fashion_mnist", split, data_dir=tmp_path)
            read = [source[i] for i in range(size)]
            read = contents(*zip(*[(e["image"], e["label"]) for e in read], strict=True))
            assert read == contents(images, labels)
            # The first images of each class, in file order.
            per_class = {"train": 1000, "test": 200}[split]
            first = [np.flatnonzero(labels == label)[:per_class] for label in range(10)]
            small = data.load("fashion_mnist_small", split)
            for i, index in enumerate(np.sort(np.concatenate(first))):
                np.testing.assert_array_equal(small[i]["image"], images[index])
                assert small[i]["label"] == labels[index]
