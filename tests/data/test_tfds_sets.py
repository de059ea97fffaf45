import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from vone_jax import data


@pytest.mark.parametrize(
    ("name", "shape", "num_classes"),
    [
        ("imagenet2012", (None, None, 3), 1000),
        ("imagenet_resized/64x64", (64, 64, 3), 1000),
        ("fashion_mnist", (28, 28, 1), 10),
    ],
)
def test_registered_sets(name, shape, num_classes):
    with tfds.testing.mock_data(num_examples=5):
        source = data.load(f"tfds:{name}", "train")
    assert isinstance(source, data.Source)
    assert (len(source), source.num_classes) == (5, num_classes)
    assert source.image_shape == shape
    assert source[3]["image"].dtype == np.uint8 and 0 <= source[3]["label"] < num_classes
    batches = list(data.eval_batches(source, batch_size=3, image_size=32))
    assert [batch["mask"].tolist() for batch in batches] == [[True] * 3, [True, True, False]]
    assert batches[0]["image"].shape == (3, 32, 32, shape[2])


def test_an_unprepared_set_says_the_command(tmp_path):
    command = f"tfds build cifar10 --file_format=array_record --data_dir={tmp_path}"
    with pytest.raises(FileNotFoundError, match=command):
        data.load("tfds:cifar10", "train", data_dir=tmp_path)


def test_other_names_and_kinds_of_sets_are_refused(tmp_path):
    for name, message in (("imagenet2013", "imagenet2012"), ("voc", "image classification")):
        with pytest.raises(ValueError, match=message):
            data.load(f"tfds:{name}", "train", data_dir=tmp_path)


def write_set(
    data_dir, encoded, *, shape=(None, None, 3), dtype=np.uint8, file_format="array_record"
):
    """Writes a set of our own, ``oddities``, with already encoded images."""
    builder = tfds.core.DatasetIdentity(
        name="oddities", version=tfds.core.Version("1.0.0"), data_dir=str(data_dir), module_name=""
    )
    info = tfds.core.DatasetInfo(
        builder=builder,
        features=tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=shape, dtype=dtype),
                "label": tfds.features.ClassLabel(names=["a", "b"]),
            }
        ),
        supervised_keys=("image", "label"),
    )
    writer = tfds.core.SequentialWriter(info, 1000, file_format=file_format)
    writer.initialize_splits(["test"])
    writer.add_examples({"test": [{"image": image, "label": 1} for image in encoded]})
    writer.close_all()


def png(mode="RGB", size=(9, 7)):
    file = io.BytesIO()
    Image.new(mode, size).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def own_set(tmp_path):
    """Writes images into a set and opens it."""

    def open_set(*encoded, **options):
        folder = tmp_path / "oddities" / "1.0.0"
        folder.mkdir(parents=True)
        write_set(folder, encoded, **options)
        return data.load("tfds:oddities", "test", data_dir=tmp_path)

    return open_set


def test_a_set_with_one_split_has_parts_of_it(own_set, tmp_path):
    own_set(*[png()] * 5)
    with pytest.raises(ValueError, match="with splits test, has no 'train'"):
        data.load("tfds:oddities", "train", data_dir=tmp_path)
    assert len(data.load("tfds:oddities", "test[80%:]", data_dir=tmp_path)) == 1


def test_the_fingerprint_is_of_the_stored_images(own_set):
    """A run went on with a new version of its set, and results of the old one were used again."""
    source = own_set(png(), png(size=(9, 8)), png())
    first, other, again = source.checksums(np.arange(3))
    assert first == again != other


def test_corrupt_image_names_the_example(own_set):
    source = own_set(png(), png()[:30])
    with pytest.raises(ValueError, match="image 1 of tfds:oddities test cannot be decoded"):
        source[1]


@pytest.mark.parametrize(
    ("mode", "shape", "dtype"),
    [("RGBA", (None, None, 4), np.uint8), ("I;16", (None, None, 1), np.uint16)],
)
def test_images_of_other_kinds_are_refused(own_set, mode, shape, dtype):
    with pytest.raises(ValueError, match="an Image of 8 bits with 1 or 3 channels"):
        own_set(png(mode), shape=shape, dtype=dtype)


def test_colours_in_a_grey_set_name_the_example(own_set):
    source = own_set(png("L"), png("RGB"), shape=(None, None, 1))
    assert source[0]["image"].shape == (7, 9, 1)
    with pytest.raises(ValueError, match="image 1 of tfds:oddities test has colours"):
        source[1]
