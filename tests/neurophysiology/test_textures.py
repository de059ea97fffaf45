"""Texture stimuli: the aperture, the place in the visual field, the files, the proxies."""

import jax
import numpy as np
import pytest
from PIL import Image

from tests.neurophysiology.conftest import pixel_of
from vone_jax.neurophysiology import stimuli, texture_proxies, textures
from vone_jax.neurophysiology.stimuli import Display, Window

KEY = jax.random.key(5)


def texture_set(images, **changes):
    arguments = {"families": ("a",), "is_proxy": True, "source": "test"} | changes
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
    np.testing.assert_array_equal(textures.reframe(canvas, 12.0, display), expected)


@pytest.fixture(scope="module")
def freeman_ziemba(tmp_path_factory):
    """A folder of 450 files of 8 pixels, with a grey level for each family, sample and type."""
    folder = tmp_path_factory.mktemp("fz")
    for family in range(15):
        for sample in range(15):
            for kind, name in enumerate(("noise", "tex")):
                grey = np.full((8, 8), family * 15 + sample if kind else 225 + kind, np.uint8)
                number = textures.FREEMAN_ZIEMBA_FAMILIES[family]
                file = f"{name}-320x320-im{number}-smp{sample + 1}.png"
                Image.fromarray(grey).save(folder / file)
    (folder / "stimuli.csv").write_text("other files are passed over")
    return folder


def test_freeman_ziemba_images_are_read_in_order(freeman_ziemba):
    loaded = textures.load_freeman_ziemba(freeman_ziemba)
    assert loaded.shape == (15, 15, 2)
    assert not loaded.is_proxy and not loaded.has_aperture
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


def test_phase_randomisation_keeps_the_amplitude_spectrum():
    image = np.random.default_rng(0).gamma(1.0, 9.0, (15, 24)) - 5.0
    noise = texture_proxies.phase_randomised(KEY, image)
    assert noise.dtype == np.float64
    spectra = [np.abs(np.fft.fft2(i)) for i in (image, noise)]
    np.testing.assert_allclose(spectra[1], spectra[0], rtol=1e-9)
    assert noise.mean() == pytest.approx(image.mean()) and noise.std() == pytest.approx(image.std())
    assert abs(np.corrcoef(image.ravel(), noise.ravel())[0, 1]) < 0.3
    other = texture_proxies.phase_randomised(jax.random.key(6), image)
    assert abs(np.corrcoef(other.ravel(), noise.ravel())[0, 1]) < 0.3
    # The white noise of either sign, and a mean of either sign.
    for seed in range(4):
        for signed in (image, -image):
            noise = texture_proxies.phase_randomised(jax.random.key(seed), signed)
            assert noise.mean() == pytest.approx(signed.mean())


@pytest.fixture(scope="module")
def procedural():
    return texture_proxies.procedural_proxy(KEY, samples=3, pixels=64)


def test_a_procedural_proxy_has_the_form_of_the_original(procedural):
    assert procedural.shape == (15, 3, 2)
    assert procedural.is_proxy and procedural.source.startswith("proxy, not the images of Freeman")
    assert len(set(procedural.families)) == 15
    values = procedural.images.astype(np.float64)
    np.testing.assert_allclose(values.mean(axis=(-1, -2)), 128.0, atol=0.5)
    np.testing.assert_allclose(values.std(axis=(-1, -2)), 40.0, atol=0.5)


def test_noise_of_a_proxy_has_the_spectrum_of_its_texture(procedural):
    spectra = np.abs(np.fft.fft2(procedural.images.astype(np.float64) - 128.0))
    noise, texture = spectra[:, :, 0], spectra[:, :, 1]
    error = np.sqrt(np.square(noise - texture).sum(axis=(-1, -2)))
    # Rounding to 8 bits leaves an error of 1/sqrt(12) grey levels on a contrast of 40.
    assert np.all(error / np.sqrt(np.square(texture).sum(axis=(-1, -2))) < 0.03)


def test_textures_have_structure_beyond_their_spectrum(procedural):
    values = (procedural.images.astype(np.float64) - 128.0) / 40.0
    skew, kurtosis = ((values**n).mean(axis=(-1, -2)) for n in (3, 4))
    # A Gaussian process has skewness 0 and kurtosis 3; noise of random phases is close to one.
    departure = np.hypot(skew, kurtosis - 3.0).mean(axis=1)
    assert np.all(departure[:, 1] > 0.3) and departure[:, 0].mean() < 0.35
    assert departure[:, 1].mean() > 3 * departure[:, 0].mean()


def test_families_differ_in_spatial_frequency(procedural):
    spectra = np.square(np.abs(np.fft.fft2(procedural.images[:, :, 0].astype(np.float64) - 128.0)))
    axis = np.fft.fftfreq(64, 1 / 64)
    radius = np.hypot(axis[:, None], axis[None, :]) / textures.IMAGE_DEGREES
    mean = (spectra * radius).sum(axis=(1, 2, 3)) / spectra.sum(axis=(1, 2, 3))
    # 1, 2 and 4 cycles per degree in every kind, and more where edges are made sharper.
    ratio = mean.reshape(5, 3) / np.array([[1.0, 2.0, 4.0]])
    assert ratio.min() > 1.1 and ratio.max() < 2.1


def test_keys_decide_and_more_of_a_set_leaves_the_rest(procedural):
    names = ("dots-2cpd", "blobs-1cpd")
    fewer = texture_proxies.procedural_proxy(KEY, samples=2, pixels=64, families=names)
    positions = [procedural.families.index(name) for name in names]
    np.testing.assert_array_equal(fewer.images, procedural.images[positions, :2])
    other = texture_proxies.procedural_proxy(
        jax.random.key(6), samples=2, pixels=64, families=names
    )
    assert not np.array_equal(other.images, fewer.images)


def test_crops_come_from_the_image():
    image = np.random.default_rng(0).uniform(0, 1, (20, 26))
    proxy = texture_proxies.proxy_from_images(KEY, {"leaves": image}, samples=6, pixels=16)
    corners = set()
    for crop in proxy.images[0, :, 1].astype(np.float64):
        found = [
            (top, left)
            for top in range(5)
            for left in range(11)
            if np.corrcoef(crop.ravel(), image[top : top + 16, left : left + 16].ravel())[0, 1]
            > 0.999
        ]
        assert len(found) == 1
        corners |= set(found)
    assert len(corners) > 3
    assert proxy.families == ("leaves",) and proxy.is_proxy


def test_photographs_with_heavy_tails_take_less_contrast(tmp_path):
    rng = np.random.default_rng(0)
    even = rng.integers(100, 156, (120, 120)).astype(np.uint8)
    # One pixel in 40 lies 6 deviations from the mean: 240 grey levels at a contrast of 40.
    spots = np.where(rng.random((120, 120)) < 1 / 40, 250, 100).astype(np.uint8)
    for name, image in (("even", even), ("spots", spots)):
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    loaded = texture_proxies.load(tmp_path, KEY)
    assert loaded.families == ("even", "spots") and loaded.source.endswith("contrast 20")
    values = loaded.images.astype(np.float64)
    np.testing.assert_allclose(values.std(axis=(-1, -2)), 20.0, atol=0.5)


def test_load_images(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (6, 7, 3)).astype(np.uint8)
    Image.fromarray(colours).save(tmp_path / "grass.PNG")
    Image.fromarray(colours[..., 0]).save(tmp_path / "brick.tif")
    (tmp_path / "README.txt").write_text("no image")
    (tmp_path / "._brick.tif").write_bytes(b"beside the image on macOS")
    Image.fromarray(colours).convert("CMYK").save(tmp_path / "ink.tif")
    loaded = texture_proxies.load_images(tmp_path)
    assert list(loaded) == ["brick", "grass", "ink"]
    np.testing.assert_array_equal(loaded["brick"], colours[..., 0])
    luminance = colours @ np.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(loaded["grass"], luminance, atol=1)
    np.testing.assert_allclose(loaded["ink"], luminance, atol=1)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((30, 30), np.nan), "NaN"),
        # One pixel in 256 lies 16 deviations from the mean: few are clipped, and carry nearly all.
        (np.eye(16 * 16)[:1].reshape(16, 16), "keep 20.2%"),
    ],
)
def test_bad_images_of_a_proxy_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        texture_proxies.proxy_from_images(KEY, {"a": image}, samples=2, pixels=16)
