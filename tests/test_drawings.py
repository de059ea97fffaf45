"""The set of coloured drawings: its pixels, its splits, its licences, and colours that change."""

import io
import json
import tarfile
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from configs.drawings import prepare, suites
from vone_jax import data

PACKAGES = [
    Path(__file__).parent / "golden" / "drawings" / name for name in ("noto", "fluent-emoji-flat")
]
# Made with vl-convert 1.9.0 and with 1.7.0, on x86-64.
CHECKSUM = "c031b2b91f8edc0480a31e5a761a8a23c48bf8e6928aa09aa1afaea3b431bfdb"


@pytest.fixture(scope="module")
def drawings(tmp_path_factory):
    out = tmp_path_factory.mktemp("set") / "drawings"
    prepare.prepare(PACKAGES, out, 64)
    return out


def archive(package, out):
    """The package as npm packs it."""
    path = out / f"{package.name}.tgz"
    with tarfile.open(path, "w:gz") as packed:
        packed.add(package, "package")
    return path


def pictures(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.png"))


def test_the_bytes_are_the_same_on_every_machine_and_in_any_order(tmp_path):
    packed = [archive(package, tmp_path) for package in PACKAGES]
    assert prepare.prepare(packed[::-1], tmp_path / "set", 64) == CHECKSUM


def test_a_drawing_is_blended_with_its_background():
    square = '<path fill="{}" d="M0 0h{}v{}h-{}z"/>'
    half = square.format("#f00", 16, 32, 16)
    svg = prepare._svg({"left": 0, "top": 0, "width": 32, "height": 32, "body": half})
    pixels = prepare.rasterise(svg, (200, 220, 240), 64)
    assert pixels.shape == (64, 64, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels[:, :32], np.broadcast_to([255, 0, 0], (64, 32, 3)))
    np.testing.assert_array_equal(pixels[:, 32:], np.broadcast_to([200, 220, 240], (64, 32, 3)))
    # A tall drawing is in the middle, 64 / 40 as large.
    tall = square.format("#00f", 20, 40, 20)
    svg = prepare._svg({"left": 0, "top": 0, "width": 20, "height": 40, "body": tall})
    blue = (prepare.rasterise(svg, (200, 220, 240), 64) == [0, 0, 255]).all(axis=2)
    assert blue[:, 16:48].all() and not blue[:, :16].any() and not blue[:, 48:].any()


@pytest.mark.parametrize("side", [8, 64, 200])
def test_a_png_holds_its_pixels(side):
    pixels = np.random.default_rng(side).integers(0, 256, (side, side + 1, 3), np.uint8)
    with Image.open(io.BytesIO(prepare.png(pixels))) as image:
        np.testing.assert_array_equal(np.asarray(image), pixels)


def test_every_drawing_is_in_one_split_by_its_thing_and_its_style(drawings):
    whole = pictures(drawings / "noto") + pictures(drawings / "fluent-emoji-flat")
    assert len(whole) == 20
    for left_out, kept in (("noto", "fluent-emoji-flat"), ("fluent-emoji-flat", "noto")):
        folder = drawings / f"without-{left_out}"
        found = {split.name: pictures(split) for split in folder.iterdir()}
        assert Counter(name for names in found.values() for name in names) == Counter(
            f"{path.parent.name}/{style}/{path.name}"
            for style in (left_out, kept)
            for path in (drawings / style).rglob("*.png")
        )
        styles = {split: {name.split("/")[1] for name in names} for split, names in found.items()}
        assert styles == {
            "train": {kept}, "new_things": {kept},
            "new_style": {left_out}, "new_things_new_style": {left_out},
        }  # fmt: skip
        things = {split: {name.split("/")[2] for name in names} for split, names in found.items()}
        assert things["train"] == things["new_style"]
        assert things["new_things"] == things["new_things_new_style"]
        assert things["train"].isdisjoint(things["new_things"])


def test_the_splits_are_read_as_folders_wherever_the_set_is_moved(drawings, tmp_path):
    moved = drawings.rename(tmp_path / "elsewhere")
    try:
        source = data.load(f"folder:{moved}/without-noto", "train")
        assert set(source.class_names) <= {*prepare.CLASSES}
        for index, file in enumerate(source.files):
            category, style, name = file.split("/")
            example = source[index]
            assert source.class_names[example["label"]] == category
            with Image.open(moved / style / category / name) as image:
                np.testing.assert_array_equal(example["image"], np.asarray(image))
        other = data.load(f"folder:{moved}/without-noto", "new_style")
        assert other.class_names == source.class_names
    finally:
        moved.rename(drawings)


@pytest.mark.parametrize(
    "forms",
    [
        ("cook", "man-cook", "woman-cook"),
        ("cat", "black-cat"),
        ("up-arrow", "up-right-arrow", "left-arrow", "down-arrow"),
        ("thumbs-up", "thumbs-down"),
    ],
)
def test_forms_of_a_thing_are_in_one_split(forms):
    assert len({prepare.thing(name) for name in forms}) == 1
    for left_out in (False, True):
        assert len({prepare.split(name, left_out) for name in forms}) == 1


def test_other_skins_hair_mirror_images_clocks_and_flags_are_left_out(tmp_path):
    names = (
        "artist", "artist-dark-skin-tone", "woman-red-hair", "man-beard",
        "man-walking-facing-right", "eleven-oclock", "one-oclock", "eleven-thirty",
    )  # fmt: skip
    packages = []
    for package in PACKAGES:
        copied = tmp_path / package.name
        copied.mkdir()
        for file in package.iterdir():
            (copied / file.name).write_bytes(file.read_bytes())
        icons = json.loads((copied / "icons.json").read_text())
        icons["icons"] |= dict.fromkeys((*names, "white-flag"), icons["icons"]["frog"])
        (copied / "icons.json").write_text(json.dumps(icons))
        categories = json.loads((package / "metadata.json").read_text())["categories"]
        categories["People & Body"] += names
        categories["Flags"] = ["white-flag"]
        (copied / "metadata.json").write_text(json.dumps({"categories": categories}))
        packages.append(prepare.read_package(copied))
    before = {name for name, _ in prepare.shared(list(map(prepare.read_package, PACKAGES)))}
    assert {name for name, _ in prepare.shared(packages)} - before == {"artist", "eleven-oclock"}


def test_every_style_has_its_licence_and_every_drawing_its_checksum(drawings):
    licences = (drawings / "LICENSES.md").read_text()
    for words in (("noto", "Google", "Apache"), ("fluent-emoji-flat", "Microsoft", "MIT")):
        assert any(all(word in line for word in words) for line in licences.splitlines())
    listed = [line.split()[1] for line in (drawings / "SHA256SUMS").read_text().splitlines()]
    styles = ("fluent-emoji-flat", "noto")
    assert listed == [f"{style}/{name}" for style in styles for name in pictures(drawings / style)]


def test_hue_rotates_about_greys():
    images = jax.random.uniform(jax.random.key(0), (2, 4, 4, 3))
    np.testing.assert_allclose(suites.rotate_hue(images, 0.0), images, atol=1e-6)
    # A third of a turn permutes the channels.
    third = images[..., [2, 0, 1]]
    np.testing.assert_allclose(suites.rotate_hue(images, 120.0), third, atol=1e-6)
    grey = np.repeat(images.mean(axis=-1, keepdims=True), 3, axis=-1)
    np.testing.assert_allclose(suites.rotate_hue(grey, 77.0), grey, atol=1e-6)
