"""Texture stimuli: the aperture, the place in the visual field, the files."""

import numpy as np
import pytest
from PIL import Image

from tests.neurophysiology.conftest import pixel_of
from vone_jax.neurophysiology import stimuli, textures
from vone_jax.neurophysiology.stimuli import Display, Window


def texture_set(images, **changes):
    arguments = {"families": ("a",)} | changes
    return textures.TextureSet(np.asarray(images), **arguments)


def white(pixels):
    return texture_set(np.full((1, 1, 2, pixels, pixels), 255, np.uint8))


def test_aperture_is_a_raised_cosine_around_the_stimulus_centre():
    # 28 pixels per degree, no resize.
    image = textures.render(white(112), np.array([0]), Display(8.0, 224))[0]
    y, x = np.meshgrid(*[(np.arange(224) - 112) / 28 - 0.5] * 2, indexing="ij")
    for row, col in ((126, 126), (126, 140), (126, 154), (98, 126), (146, 106), (126, 182)):
        distance = np.hypot(y[row, col], x[row, col])
        share = 0.5 * (1 + np.cos(np.pi * distance / 2)) if distance < 2 else 0.0
        assert image[row, col] == int(127 * share + 128), (row, col)
    assert image[126, 126] == 255
    assert image[126, 154] == 128 + 63  # one degree to the right: half of 127
    assert np.all(image[np.hypot(y, x) >= 2] == 128)


@pytest.mark.parametrize(("degrees", "size"), [(8.0, 224), (7.0, 224), (10.0, 160), (8.0, 64)])
def test_the_stimulus_lies_at_half_a_degree_for_any_field_of_view(degrees, size):
    display = Display(degrees, size)
    image = textures.render(white(320), np.array([0]), display)[0].astype(np.float64) - 128
    assert image.shape == (size, size)
    for axis in (0, 1):
        profile = image.sum(axis=1 - axis)
        centre = (profile * np.arange(size)).sum() / profile.sum()
        # Pixels of the image and of the gratings' canvas have different sizes.
        assert centre == pytest.approx(pixel_of(display, 0.5), abs=0.3)
    # Half of the peak is reached one degree away: the width in degrees stays.
    peak = image[round(pixel_of(display, 0.5))]
    width = np.sum(peak > peak.max() / 2) / display.pixels_per_degree
    assert width == pytest.approx(2.0, abs=2 / display.pixels_per_degree)


def test_a_window_is_a_part_of_the_image():
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 2, 56, 56)).astype(np.uint8)
    sets = texture_set(images, families=("a", "b"))
    display = Display(7.0, 96)
    whole = textures.render(sets, np.arange(12), display)
    part = textures.render(sets, np.array([7, 2]), display, Window(30, 40, 20, 9))
    np.testing.assert_array_equal(part, whole[[7, 2], 30:50, 40:49])


def test_the_type_varies_fastest_then_the_sample():
    levels = np.arange(12, dtype=np.uint8).reshape(2, 3, 2) * 10 + 130
    images = np.broadcast_to(levels[..., None, None], (2, 3, 2, 56, 56))
    sets = texture_set(np.ascontiguousarray(images), families=("a", "b"))
    assert (len(sets), sets.shape) == (12, (2, 3, 2))
    centre = textures.render(sets, np.arange(12), Display(8.0, 112))[:, 63, 63]
    np.testing.assert_array_equal(centre.reshape(sets.shape), levels)


@pytest.mark.parametrize(("degrees", "size"), [(8.0, 224), (7.0, 100), (13.0, 224), (12.0, 672)])
def test_reframing_is_what_gratings_go_through(degrees, size):
    # The gratings have a resize of their own; both must give the same 8-bit pixels.
    table = stimuli.orientation_set().table[[0, 500, 1100]]
    canvas = np.asarray(stimuli.render(table, Display(12.0, 672)))
    display = Display(degrees, size)
    expected = stimuli.render(table, display)
    np.testing.assert_array_equal(
        textures.reframe(canvas, 12.0, display.visual_degrees, display.image_size), expected
    )


def write_freeman_ziemba(folder, image_of):
    """Write 450 files, of the images ``image_of(family, sample, kind)``."""
    for place, family in enumerate(textures.FREEMAN_ZIEMBA_FAMILIES):
        for sample in range(15):
            for kind, name in enumerate(("noise", "tex")):
                file = f"{name}-320x320-im{family}-smp{sample + 1}.png"
                Image.fromarray(image_of(place, sample, kind)).save(folder / file)


@pytest.fixture(scope="module")
def freeman_ziemba(tmp_path_factory):
    """A folder of 450 files of 8 pixels, with a grey level for each family, sample and type."""
    folder = tmp_path_factory.mktemp("fz")

    def image_of(family, sample, kind):
        return np.full((8, 8), family * 15 + sample if kind else 225 + kind, np.uint8)

    write_freeman_ziemba(folder, image_of)
    (folder / "stimuli.csv").write_text("other files are passed over")
    return folder


def test_freeman_ziemba_images_are_read_in_order(freeman_ziemba):
    loaded = textures.load_freeman_ziemba(freeman_ziemba)
    assert loaded.shape == (15, 15, 2)
    assert not loaded.has_aperture
    assert loaded.families[:2] == ("im13", "im18") and loaded.families[-1] == "im402"
    assert np.all(loaded.images[:, :, 0] == 225)
    # Samples in numerical order: 2 before 10.
    expected = np.arange(225).reshape(15, 15)
    np.testing.assert_array_equal(loaded.images[:, :, 1, 0, 0], expected)


def test_images_with_the_aperture_are_not_masked_again(freeman_ziemba, tmp_path):
    for path in freeman_ziemba.glob("*.png"):
        (tmp_path / f"aperture_{path.name}").write_bytes(path.read_bytes())
    loaded = textures.load_freeman_ziemba(tmp_path)
    assert loaded.has_aperture
    rendered = textures.render(loaded, np.array([1]), Display(8.0, 16))
    assert np.all(rendered == loaded.images[0, 0, 1, 0, 0])


def test_incomplete_and_other_images_are_refused(freeman_ziemba, tmp_path):
    missing = tmp_path / "noise-320x320-im52-smp7.png"
    for path in freeman_ziemba.glob("*.png"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    missing.unlink()
    with pytest.raises(ValueError, match=r"\[\(52, 7, 'noise'\)\]"):
        textures.load_freeman_ziemba(tmp_path)
    missing.write_bytes(b"not an image")
    with pytest.raises(ValueError, match="smp7.png cannot be decoded"):
        textures.load_freeman_ziemba(tmp_path)
