"""IDX files -> TFDS files -> the reading path that every TFDS set takes."""

import gzip
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from vone_jax import data
from vone_jax.cli import prepare
from vone_jax.cli.prepare import read_idx, read_idx_folder
from vone_jax.data import embedded, tfds_sets

DEBIAN = Path(prepare.DEBIAN_FASHION_MNIST)
needs_debian = pytest.mark.skipif(
    not DEBIAN.is_dir(), reason=f"{DEBIAN} is missing: apt install dataset-fashion-mnist"
)


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    content = header + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture(scope="module")
def synthetic(tmp_path_factory):
    """A folder of IDX files, two of them gzipped, and what they hold."""
    folder = tmp_path_factory.mktemp("idx")
    rng = np.random.default_rng(0)
    arrays = {}
    for split, prefix, count, ending in [("train", "train", 23, ".gz"), ("test", "t10k", 12, "")]:
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = rng.integers(0, 10, count).astype(np.uint8)
        write_idx(folder / f"{prefix}-images-idx3-ubyte{ending}", images)
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{ending}", labels)
        arrays[split] = images[:, :, :, None], labels
    return folder, arrays


def contents(images, labels):
    """Examples as a sorted list, for comparing sets in different order."""
    return sorted(
        (image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)
    )


@pytest.fixture(scope="module")
def prepared(synthetic, tmp_path_factory):
    """The directory in which the command has prepared the synthetic set."""
    data_dir = tmp_path_factory.mktemp("tfds")
    status = prepare.main(["idx", "--source", str(synthetic[0]), "--data-dir", str(data_dir)])
    assert status == 0
    return data_dir


class TestIdx:
    def test_plain_and_gzipped(self, synthetic):
        folder, arrays = synthetic
        read = read_idx_folder(folder)
        for split, (images, labels) in arrays.items():
            np.testing.assert_array_equal(read[split][0], images)
            np.testing.assert_array_equal(read[split][1], labels)

    def test_a_damaged_file_is_named(self, tmp_path):
        path = tmp_path / "x"
        write_idx(path, np.zeros((2, 3), np.uint8))
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ValueError, match=str(path)):
            read_idx(path)

    def test_a_missing_file_is_named(self, tmp_path, capsys):
        with pytest.raises(SystemExit, match="2"):
            prepare.main(["idx", "--source", str(tmp_path)])
        assert "train-images-idx3-ubyte" in capsys.readouterr().err


class TestTfdsLayout:
    @pytest.mark.parametrize("split", ["train", "test"])
    def test_every_example_is_read_back(self, synthetic, prepared, split):
        source = data.load("tfds:fashion_mnist", split, data_dir=prepared)
        examples = [source[i] for i in range(len(source))]
        read = contents(*zip(*[(e["image"], e["label"]) for e in examples], strict=True))
        assert read == contents(*synthetic[1][split])
        assert source.image_shape == examples[0]["image"].shape == (28, 28, 1)
        assert source.class_names == embedded.CLASS_NAMES

    def test_existing_set_is_left_alone(self, synthetic, prepared, capsys):
        record = prepared / "fashion_mnist/3.0.1/fashion_mnist-test.array_record-00000-of-00001"
        before = os.stat(record).st_mtime_ns
        prepare.main(["idx", "--source", str(synthetic[0]), "--data-dir", str(prepared)])
        assert os.stat(record).st_mtime_ns == before
        assert str(prepared / "fashion_mnist") in capsys.readouterr().out

    def test_the_configuration_that_is_named_is_written(self, tmp_path):
        name, images = "cifar10_corrupted/spatter_3", np.full((1, 32, 32, 3), 7, np.uint8)
        tfds_sets.prepare_from_arrays(name, {"test": (images, np.array([4]))}, tmp_path)
        example = data.load(f"tfds:{name}", "test", data_dir=tmp_path)[0]
        np.testing.assert_array_equal(example["image"], images[0])
        assert example["label"] == 4

    def test_other_images_are_refused(self, tmp_path):
        for shape, labels in (((1, 32, 32, 1), [0]), ((1, 28, 28, 1), [10]), ((0, 28, 28, 1), [])):
            arrays = {"train": (np.zeros(shape, np.uint8), np.array(labels, np.uint8))}
            with pytest.raises(ValueError, match="the train images have the shape"):
                tfds_sets.prepare_from_arrays("fashion_mnist", arrays, tmp_path)

    def test_slices_of_a_split(self, prepared):
        assert len(data.load("tfds:fashion_mnist", "train[:10]", data_dir=prepared)) == 10
        with pytest.raises(ValueError, match=r"cannot open split 'train\[:0\]'"):
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
    def test_embedded_subset_is_what_the_command_makes(self, tmp_path, monkeypatch):
        """The first images of each class, whether from the command or from the package."""
        assert prepare.main(["embedded", "--source", str(DEBIAN), "--output", str(tmp_path)]) == 0
        published = read_idx_folder(DEBIAN)
        for folder in (embedded.FOLDER, tmp_path):
            monkeypatch.setattr(embedded, "FOLDER", folder)
            for split, (images, labels) in published.items():
                source = data.load("fashion_mnist_small", split)
                first = prepare.select(labels, embedded.PER_CLASS[split])
                for i, index in enumerate(first):
                    np.testing.assert_array_equal(source[i]["image"], images[index])
                    assert source[i]["label"] == labels[index]

    @pytest.mark.slow
    def test_full_set_by_the_command(self, tmp_path):
        """All 70,000 images: ten seconds on an idle machine."""
        assert prepare.main(["idx", "--data-dir", str(tmp_path)]) == 0
        splits = read_idx_folder(DEBIAN)
        for split, size in {"train": 60_000, "test": 10_000}.items():
            source = data.load("tfds:fashion_mnist", split, data_dir=tmp_path)
            read = [source[i] for i in range(size)]
            read = contents(*zip(*[(e["image"], e["label"]) for e in read], strict=True))
            assert read == contents(*splits[split])
