import numpy as np
import pytest
from PIL import Image

from vone_jax import data
from vone_jax.data import load_corrupted


@pytest.fixture
def imagenet_c(tmp_path):
    """fog at severities 1 and 5, snow at 1; two classes with one image each, of a level each."""
    for level, (name, severity) in enumerate([("fog", 1), ("fog", 5), ("snow", 1)]):
        for label, wnid in enumerate(("n01440764", "n01443537")):
            path = tmp_path / name / str(severity) / wnid / "ILSVRC2012_val_00000001.JPEG"
            path.parent.mkdir(parents=True)
            Image.new("L", (8, 8), 40 * level + 10 * label).save(path, "PNG")
    return tmp_path


@pytest.fixture
def cifar_10_c(tmp_path):
    """Three images per severity; every pixel is 10 times the severity plus the index."""
    levels = [10 * severity + index for severity in range(1, 6) for index in range(3)]
    images = np.zeros((15, 32, 32, 3), np.uint8) + np.array(levels, np.uint8)[:, None, None, None]
    np.save(tmp_path / "fog.npy", images)
    np.save(tmp_path / "labels.npy", np.array([9, 1, 4] * 5, np.uint8))
    return tmp_path


def test_folder_of_imagenet_c(imagenet_c):
    source = load_corrupted(f"folder:{imagenet_c}", "fog", 5)
    assert isinstance(source, data.Source)
    assert source.class_names == ("n01440764", "n01443537") and len(source) == 2
    assert source[1]["label"] == 1 and (source[1]["image"] == 50).all()


def test_rows_of_cifar_10_c_are_ordered_by_severity(cifar_10_c):
    source = load_corrupted(f"npy:{cifar_10_c}", "fog", 4)
    assert isinstance(source, data.Source) and len(source) == 3
    assert [source[i]["label"] for i in range(3)] == [9, 1, 4]
    assert [int(source[i]["image"].mean()) for i in range(3)] == [40, 41, 42]


@pytest.mark.parametrize(
    ("shape", "named"),
    [((50_000, 32, 32, 3), True), ((50_000, 28, 28, 1), False), ((15, 32, 32, 3), False)],
)
def test_only_files_as_large_as_cifar_10_c_have_its_names(tmp_path, shape, named):
    """Other sets of ten classes in this layout were refused by their own networks."""
    np.lib.format.open_memmap(tmp_path / "fog.npy", "w+", np.uint8, shape).flush()
    np.save(tmp_path / "labels.npy", np.arange(shape[0]) % 10)
    names = load_corrupted(f"npy:{tmp_path}", "fog", 1).class_names
    assert names[9] == ("truck" if named else "9") and len(names) == 10


def test_missing_sets_say_what_there_is(imagenet_c, cifar_10_c):
    with pytest.raises(FileNotFoundError, match="no frog; it has fog, "):
        load_corrupted(f"folder:{imagenet_c}", "frog", 1)
    with pytest.raises(ValueError, match="its folders are 1, 5"):
        load_corrupted(f"folder:{imagenet_c}", "fog", 3)
    with pytest.raises(FileNotFoundError, match="no fogg.npy; it has fog, fog.npy"):
        load_corrupted(f"npy:{cifar_10_c}", "fogg", 1)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((14, 4, 4, 3), np.uint8), np.zeros(14, int), "5 severities"),
        (np.zeros((15, 4, 4, 3), np.uint8), np.zeros(15), "labels must be 3 integers"),
        (np.zeros((15, 4, 4, 3), np.float32), np.zeros(15, int), "images must be uint8"),
    ],
)
def test_arrays_of_another_layout_are_refused(tmp_path, images, labels, message):
    np.save(tmp_path / "fog.npy", images)
    np.save(tmp_path / "labels.npy", labels)
    with pytest.raises(ValueError, match=message):
        load_corrupted(f"npy:{tmp_path}", "fog", 1)


def test_images_of_a_file_that_was_replaced_have_another_fingerprint(cifar_10_c):
    """Else an evaluation would use the numbers of the images that were there before."""

    def fingerprint():
        return data.fingerprint(data.Subset(load_corrupted(f"npy:{cifar_10_c}", "fog", 1), 2))

    first = fingerprint()
    assert fingerprint() == first
    np.save(cifar_10_c / "fog.npy", 255 - np.load(cifar_10_c / "fog.npy"))
    second = fingerprint()
    assert second != first
    np.save(cifar_10_c / "labels.npy", 9 - np.load(cifar_10_c / "labels.npy"))
    assert fingerprint() != second
