import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vone_jax import data
from vone_jax.data import Source, loading
from vone_jax.data.images import decode_image


def save(path, colour=(10, 20, 30), size=(8, 6), mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, colour).save(path)
    return path


@pytest.fixture
def folder(tmp_path):
    """train: cat (2 images), dog (1); val: dog (1)."""
    save(tmp_path / "train/cat/b.png", (1, 0, 0))
    save(tmp_path / "train/cat/deeper/a.JPEG", (2, 0, 0))
    save(tmp_path / "train/dog/c.png", (3, 0, 0), size=(5, 9))
    save(tmp_path / "val/dog/d.png", (4, 0, 0))
    (tmp_path / "train/cat/notes.txt").write_text("not an image")
    (tmp_path / "train/.cache").mkdir()
    return tmp_path


class TestArraySource:
    def test_holds_what_it_is_given(self):
        images = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4, 1)
        source = data.ArraySource(images, np.array([1, 0]), class_names=("a", "b"))
        assert isinstance(source, Source)
        assert (len(source), source.num_classes, source.image_shape) == (2, 2, (3, 4, 1))
        np.testing.assert_array_equal(source[0]["image"], images[0])
        assert source[0]["label"] == 1

    @pytest.mark.parametrize(
        ("images", "labels", "message"),
        [
            (np.zeros((2, 4, 4, 1)), np.zeros(2, int), "uint8"),
            (np.zeros((2, 4, 4, 1), np.uint8), np.zeros(3, int), "one per image"),
            (np.zeros((2, 4, 4, 1), np.uint8), np.array([0, 2]), r"in \[0, 2\)"),
        ],
    )
    def test_refuses(self, images, labels, message):
        with pytest.raises(ValueError, match=message):
            data.ArraySource(images, labels, class_names=("a", "b"))

    def test_other_images_or_labels_have_another_checksum(self):
        images, labels = np.zeros((4, 2, 2, 1), np.uint8), np.array([0, 1, 0, 1])

        def checksum(images=images, labels=labels, count=None):
            source = data.ArraySource(images, labels, class_names=("a", "b"))
            return data.fingerprint(data.Subset(source, count))

        assert checksum() == checksum(images.copy(), labels.astype(np.uint8))
        changed = images + np.uint8(1) * (np.arange(4) == 3)[:, None, None, None]
        assert len({checksum(), checksum(changed), checksum(labels=labels[::-1])}) == 3
        # The last image is not among the chosen ones.
        assert checksum(count=2) == checksum(changed, count=2) != checksum()


class TestNpz:
    @pytest.fixture
    def arrays(self):
        """In the layout of MedMNIST; class 2 is in the split val only."""
        draw = np.random.default_rng(0).integers
        return {
            "train_images": draw(0, 256, (4, 6, 5), np.uint8),
            "train_labels": np.array([[1], [0], [1], [1]], np.uint8),
            "val_images": draw(0, 256, (2, 6, 5), np.uint8),
            "val_labels": np.array([[2], [0]], np.uint8),
        }

    @pytest.fixture
    def opened(self, tmp_path):
        def opened(split, **arrays):
            np.savez(tmp_path / "set.npz", **arrays)
            return data.load(f"npz:{tmp_path}/set.npz", split)

        return opened

    def test_a_file_of_medmnist_is_opened(self, arrays, opened):
        source = opened("train", **arrays)
        assert isinstance(source, Source)
        assert (source.image_shape, source.class_names) == ((6, 5, 1), ("0", "1", "2"))
        examples = [source[index] for index in range(4)]
        images = np.stack([example["image"][..., 0] for example in examples])
        np.testing.assert_array_equal(images, arrays["train_images"])
        assert [example["label"] for example in examples] == [1, 0, 1, 1]
        assert data.evaluation_split(source.name) == "val"
        assert opened("val", **arrays).class_names == source.class_names

    def test_arrays_in_colour_and_class_names_of_ones_own(self, arrays, opened):
        arrays["train_images"] = np.stack(3 * [arrays["train_images"]], axis=-1)
        arrays["train_labels"] = arrays["train_labels"][:, 0]
        source = opened("train", **arrays, class_names=[b"cat", b"dog", b"elk"])
        assert (source.image_shape, source.class_names) == ((6, 5, 3), ("cat", "dog", "elk"))

    @pytest.mark.parametrize(
        ("replaced", "message"),
        [
            ({"train_images": np.zeros((4, 6, 5))}, "images must be uint8"),
            ({"train_labels": np.zeros((4, 14), int)}, r"shape \(4, 14\)"),
            ({"train_labels": np.array([0, -1, 0, 0])}, "got -1 to 0"),
            ({"class_names": np.array([None])}, "has Python objects"),
        ],
    )
    def test_another_layout_is_refused(self, arrays, opened, replaced, message):
        with pytest.raises(ValueError, match=f"set.npz.*{message}"):
            opened("train", **arrays | replaced)

    def test_the_splits_of_the_file_are_named(self, arrays, opened):
        with pytest.raises(ValueError, match="its splits are train, val"):
            opened("test", **arrays)


@pytest.mark.parametrize(("count", "stride"), [(20, 5), (60, 100 / 60)])
def test_a_subset_has_every_class_of_a_sorted_set(count, stride):
    labels = np.arange(100) // 10
    source = data.ArraySource(np.zeros((100, 4, 4, 1), np.uint8), labels, class_names="abcdefghij")
    subset = data.Subset(source, count)
    assert subset.stride == stride and len(set(subset.indices)) == count
    each = np.bincount([subset[place]["label"] for place in range(count)], minlength=10)
    assert each.max() - each.min() <= 1


def test_the_split_of_an_evaluation_is_the_first_that_there_is(monkeypatch):
    def load(name, split, data_dir=None):
        if split not in ("valid", "test"):
            raise ValueError(f"no split {split!r}")
        return SimpleNamespace(split=split)

    monkeypatch.setattr(loading, "load", load)
    assert data.evaluation_split("tfds:pets") == "valid"


class TestFolder:
    def test_classes_files_and_pixels(self, folder):
        source = data.load(f"folder:{folder}", "train")
        assert isinstance(source, Source)
        assert source.class_names == ("cat", "dog") and source.num_classes == 2
        assert source.image_shape == (None, None, 3)
        assert [source[i]["label"] for i in range(len(source))] == [0, 0, 1]
        assert source[2]["image"].shape == (9, 5, 3)
        assert source[2]["image"][0, 0].tolist() == [3, 0, 0]

    def test_train_numbers_the_classes_of_every_split(self, folder):
        source = data.load(f"folder:{folder}", "val")
        assert source.class_names == ("cat", "dog")
        assert len(source) == 1 and source[0]["label"] == 1

    def test_classes_are_the_same_in_both_forms_of_unicode(self, tmp_path):
        """A split that was copied from macOS has the longer one."""
        for split, name in (("train", "caf\u00e9"), ("val", "cafe\u0301")):
            for each in ("bar", name):
                save(tmp_path / split / each / "a.png")
        val = data.load(f"folder:{tmp_path}", "val")
        assert (
            val.class_names
            == data.load(f"folder:{tmp_path}", "train").class_names
            == ("bar", "caf\u00e9")
        )
        assert [val[place]["label"] for place in range(2)] == [0, 1]

    def test_grey_and_palette_images_become_rgb(self, tmp_path):
        save(tmp_path / "train/a/1.png", 77, mode="L")
        save(tmp_path / "train/a/2.gif", 3, mode="P")
        save(tmp_path / "train/a/3.png", (1, 2, 3, 0), mode="RGBA")
        image = Image.new("P", (4, 4), 1)
        image.putpalette([0, 0, 0, 10, 20, 30])
        image.save(tmp_path / "train/a/4.png", transparency=b"\x80\x40")
        source = data.load(f"folder:{tmp_path}", "train")
        assert source[0]["image"][0, 0].tolist() == [77, 77, 77]
        assert source[1]["image"].shape == (6, 8, 3)
        assert source[2]["image"][0, 0].tolist() == [1, 2, 3]
        assert source[3]["image"][0, 0].tolist() == [10, 20, 30]

    def test_a_directory_of_classes_is_divided(self, tmp_path):
        """About one image of five is for validation, and none is in both parts."""
        for name, count in (("cat", 99), ("dog", 101)):
            for number in range(count):
                save(tmp_path / name / f"{number:02}.png", (number, 0, 0))
        parts = [data.load(f"folder:{tmp_path}", split) for split in ("train", "validation")]
        files = [set(source.files) for source in parts]
        assert not files[0] & files[1] and len(files[0] | files[1]) == 200
        # Two standard deviations of a binomial distribution with p = 1/5 are 11.
        assert abs(len(files[1]) - 40) <= 11
        assert len(data.load(f"folder:{tmp_path}", ".")) == 200
        # Added and removed images move no other one to another part.
        save(tmp_path / "cat/00a.png")
        (tmp_path / "dog/50.png").unlink()
        for source, before in zip(parts, files, strict=True):
            after = set(data.load(f"folder:{tmp_path}", source.split).files)
            assert after ^ before <= {"cat/00a.png", "dog/50.png"}
        assert [source.split for source in parts] == ["train", "validation"]
        assert data.evaluation_split(f"folder:{tmp_path}") == "."
        with pytest.raises(ValueError, match="divided into train and validation"):
            data.load(f"folder:{tmp_path}", "test")
        name = next(file for file in files[1] if file.startswith("cat/"))
        save(tmp_path / "eel" / name[4:])
        with pytest.raises(ValueError, match="eel is too small to be divided .* none is for train"):
            data.load(f"folder:{tmp_path}", "train")
        (tmp_path / "val").mkdir()
        with pytest.raises(ValueError, match="has no split 'train'"):
            data.load(f"folder:{tmp_path}", "train")

    def test_splits_of_other_names_are_no_classes(self, tmp_path):
        """Kaggle has such folders. A network would learn to tell the splits apart."""
        for part in ("Training", "Testing"):
            for name in ("cat", "dog"):
                save(tmp_path / part / name / "0.png")
        with pytest.raises(ValueError, match="Testing, Training of .* look like splits"):
            data.load(f"folder:{tmp_path}", "train")
        assert data.load(f"folder:{tmp_path}", "Training").class_names == ("cat", "dog")

    def test_hidden_files_and_folders_are_no_images(self, folder):
        """Notebooks keep copies in such folders, and macOS writes such files."""
        before = len(data.load(f"folder:{folder}", "train"))
        cat = folder / "train/cat"
        save(cat / ".ipynb_checkpoints/0.png")
        save(cat / "deeper/.thumbnails/1.png")
        (cat / ".linked").symlink_to("../dog")
        save(cat / "._b.png")
        assert len(data.load(f"folder:{folder}", "train")) == before

    def test_only_regular_files_are_images(self, folder):
        """A pipe never ends, and neither does /dev/zero."""
        before = len(data.load(f"folder:{folder}", "train"))
        cat = folder / "train/cat"
        os.mkfifo(cat / "pipe.png")
        (cat / "zero.png").symlink_to("/dev/zero")
        assert len(data.load(f"folder:{folder}", "train")) == before
        for name in ("pipe", "zero"):
            with pytest.raises(ValueError, match=f"{name}.png is no regular file"):
                decode_image(cat / f"{name}.png", 3)
        # A link that leads nowhere is a loss that is told.
        (cat / "gone.png").symlink_to("nowhere")
        source = data.load(f"folder:{folder}", "train")
        assert len(source) == before + 1
        with pytest.raises(FileNotFoundError, match="gone.png"):
            list(source)

    def test_a_farm_of_links_into_a_shared_set_is_read(self, folder, tmp_path_factory):
        """Links of files, of classes and of splits; the names are those of the links."""
        farm = tmp_path_factory.mktemp("farm")
        (farm / "train/cat").mkdir(parents=True)
        (farm / "train/cat/b.png").symlink_to(folder / "train/cat/b.png")
        (farm / "train/cat/deeper").symlink_to(folder / "train/cat/deeper")
        (farm / "train/dog").symlink_to(folder / "train/dog")
        (farm / "val").symlink_to(folder / "val")
        for split in ("train", "val"):
            linked, plain = (data.load(f"folder:{each}", split) for each in (farm, folder))
            assert len(linked) == len(plain)
            for one, other in zip(linked, plain, strict=True):
                assert one["label"] == other["label"]
                np.testing.assert_array_equal(one["image"], other["image"])
            assert data.fingerprint(linked) == data.fingerprint(plain)

    def test_a_directory_is_entered_once_per_class(self, folder):
        """Loops end, and a second name of a directory brings no image twice."""
        cat = folder / "train/cat"
        (cat / "deeper/loop").symlink_to("..")
        (cat / "z").symlink_to("deeper")
        (folder / "train/eel").symlink_to("cat")
        source = data.load(f"folder:{folder}", "train")
        assert [source[i]["label"] for i in range(len(source))] == [0, 0, 1, 2, 2]

    def test_images_are_in_the_order_of_torchvision(self, folder):
        """Those of a directory come before those of the directories in it."""
        save(folder / "train/cat/z.png", (9, 0, 0))
        source = data.load(f"folder:{folder}", "train")
        assert [int(source[i]["image"][0, 0, 0]) for i in range(4)] == [1, 9, 2, 3]

    def test_the_fingerprint_of_a_folder_is_of_names_and_pixels_and_not_of_its_place(
        self, tmp_path
    ):
        """A file of the same size with other pixels is another one, as every BMP of a camera is."""

        def made(place, colour, name="a.bmp"):
            save(tmp_path / place / "val/cat" / name, colour)
            return data.FolderSource(tmp_path / place, "val")

        first = made("one", (1, 2, 3))
        assert data.fingerprint(first) == data.fingerprint(made("two", (1, 2, 3)))
        others = [made("three", (1, 2, 4)), made("four", (1, 2, 3), "b.bmp")]
        others.append(made("two", (1, 2, 3), "b.bmp"))
        assert len({data.fingerprint(each) for each in (first, *others)}) == 4
        # Only the chosen images count.
        chosen = data.Subset(others[-1], 1)
        assert data.fingerprint(chosen) == data.fingerprint(first)
        assert data.fingerprint(data.Subset(chosen)) == data.fingerprint(first)

    @pytest.mark.parametrize(
        ("files", "split", "message"),
        [
            (("train/image.png",), "train", "no class folders"),
            (("train/cat/a.txt",), "train", "holds no image"),
            (("train/cat/a.png",), "test", "'test'.*train"),
            (("train/cat/a.png", "val/newt/b.png"), "val", "'newt'"),
        ],
    )
    def test_what_is_no_set_is_refused(self, tmp_path, files, split, message):
        for file in map(tmp_path.joinpath, files):
            if file.suffix == ".png":
                save(file)
            else:
                file.parent.mkdir(parents=True)
                file.touch()
        with pytest.raises(ValueError, match=message):
            data.load(f"folder:{tmp_path}", split)
        with pytest.raises(FileNotFoundError, match="nowhere"):
            data.load(f"folder:{tmp_path / 'nowhere'}", split)


class TestDecode:
    @pytest.mark.parametrize("ending", ["png", "jpg"])
    def test_damaged_file_is_named(self, tmp_path, ending):
        path = tmp_path / f"x.{ending}"
        noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(noise).save(path)
        content = path.read_bytes()
        for damaged in (b"", b"not an image", content[: len(content) // 2]):
            path.write_bytes(damaged)
            with pytest.raises(ValueError, match=f"{path} cannot be decoded"):
                decode_image(path, 3)

    def test_other_modes_are_refused(self, tmp_path):
        path = tmp_path / "deep.tiff"
        Image.new("I;16", (4, 4)).save(path)
        with pytest.raises(ValueError, match="'I;16'"):
            decode_image(path, 3)

    def test_colours_of_sixteen_bits_are_reduced(self, tmp_path):
        path = tmp_path / "deep.ppm"
        pixels = np.array([[[0, 1, 2], [127, 128, 255]]])
        path.write_bytes(b"P6 2 1 65535 " + (257 * pixels).astype(">u2").tobytes())
        np.testing.assert_array_equal(decode_image(path, 3), pixels)

    def test_the_kind_of_a_set_is_part_of_its_name(self):
        with pytest.raises(ValueError, match="tfds:<name>"):
            data.load("cifar10", "train")
