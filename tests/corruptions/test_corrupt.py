"""Comparisons with references in NumPy, SciPy and Pillow; errors in grey levels (1/255)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from tests.corruptions import references
from vone_jax import corruptions, fast, prng
from vone_jax import mesh as meshes
from vone_jax.corruptions import tables

KEY = jax.random.key(3)
NOISE = (*corruptions.SETS["noise"], "speckle_noise")
# By definition these need not move the pixels further at each severity: they change the size of
# flakes, the photograph, the kind of drops, the sign of a change, or the scale of a displacement.
UNORDERED = (
    "glass_blur", "snow", "frost", "frost_procedural", "elastic_transform", "spatter", "saturate",
)  # fmt: skip


@pytest.fixture(scope="module")
def photographs():
    """Two smooth colour images of 32 pixels in eight bits, one with black and white parts."""
    rng = np.random.default_rng(0)
    images = ndimage.gaussian_filter(rng.random((2, 32, 32, 3)), (0, 2, 2, 0))
    images = (images - images.min()) / np.ptp(images)
    images[1] = np.clip(3 * images[1] - 1, 0, 1)
    images[1, :4, :4] = 0
    return jnp.asarray(np.round(images * 255) / 255, jnp.float32)


@pytest.fixture(scope="module")
def frost_images():
    """Five made-up photographs of frost of different sizes."""
    rng = np.random.default_rng(1)
    sizes = [(200, 260), (170, 230), (240, 210), (190, 190), (300, 180)]
    return corruptions.FrostImages(
        tuple(rng.integers(100, 256, (*size, 3), np.uint8) for size in sizes)
    )


@pytest.mark.parametrize("name", ["frost_procedural", "glass_blur"])
def test_the_same_where_64_bits_are_enabled(name, photographs):
    """Also without the promotion of types, as in all tests."""
    small = photographs[:, 6:14, 6:14]
    expected = corruptions.corrupt(KEY, small, name, 3)
    with jax.enable_x64(True):
        images = corruptions.corrupt(KEY, small, name, 3)
    assert images.dtype == expected.dtype
    np.testing.assert_allclose(255 * images, 255 * expected, atol=1e-2)


@pytest.mark.parametrize("shape", [(33, 21, 3), (28, 41, 1)])
def test_pixelate_is_exact_at_odd_sizes(shape):
    levels = np.random.default_rng(4).integers(0, 256, shape, np.uint8)
    box = Image.Resampling.BOX
    for share, severity in ((0.25, 5), (0.6, 1)):
        image = Image.fromarray(levels if shape[2] == 3 else levels[..., 0])
        small = [int(side * share) for side in image.size]
        expected = image.resize(small, box).resize(image.size, box)
        images = jnp.asarray(levels[None], jnp.float32) / 255
        ours = corruptions.corrupt(KEY, images, "pixelate", severity, table="imagenet")
        expected = np.asarray(expected).reshape(shape)
        np.testing.assert_allclose(255 * np.asarray(ours[0]), expected, atol=1e-3)


@pytest.mark.parametrize("severity", [1, 5])
def test_noise_has_the_moments_of_its_definition(severity):
    """Mean and variance per grey level, over 12288 values, before clipping bites."""
    for value in (0.25, 0.5):
        images = jnp.full((4, 32, 32, 3), value)
        for name in NOISE:
            p = tables.PARAMETERS[name]["cifar"][severity - 1]
            ours = np.asarray(corruptions.corrupt(KEY, images, name, severity), np.float64)
            mean, variance = {
                "gaussian_noise": (value, p**2),
                "shot_noise": (value, value / p),
                "impulse_noise": (
                    (1 - p) * value + p / 2,
                    (1 - p) * value**2 + p / 2 - ((1 - p) * value + p / 2) ** 2,
                ),
                "speckle_noise": (value, (value * p) ** 2),
            }[name]
            assert abs(ours.mean() - mean) < 4 * np.sqrt(variance / ours.size), name
            assert abs(ours.var() / variance - 1) < 0.15, name


def test_noise_has_the_shape_of_its_distribution():
    images = jnp.full((4, 32, 32, 3), 0.5)
    shot = np.asarray(corruptions.corrupt(KEY, images, "shot_noise", 5)) * 50
    np.testing.assert_allclose(shot, np.round(shot), atol=1e-4)
    impulse = np.asarray(corruptions.corrupt(KEY, images, "impulse_noise", 5))
    salt, pepper = (impulse == 1).mean(), (impulse == 0).mean()
    assert abs(salt - 0.035) < 0.008 and abs(pepper - 0.035) < 0.008
    assert (impulse == 0.5).mean() > 0.9


def test_names_and_sets():
    """The order of the benchmark: 15 common corruptions in four categories, then the others."""
    assert corruptions.NAMES[:3] == ("gaussian_noise", "shot_noise", "impulse_noise")
    assert corruptions.NAMES[14:20] == (
        "jpeg_compression", "speckle_noise", "gaussian_blur", "spatter", "saturate",
        "frost_procedural",
    )  # fmt: skip
    sets = corruptions.SETS
    assert sets["noise"] + sets["blur"] + sets["weather"] + sets["digital"] == sets["common"]
    assert sets["weather"] == ("snow", "frost", "fog", "brightness")
    assert [len(sets[name]) for name in ("common", "extra", "c_bar")] == [15, 4, 10]


@pytest.mark.parametrize("name", corruptions.NAMES)
def test_relations_between_runs(photographs, frost_images, name):
    images = photographs
    keys = prng.index_keys(KEY, jnp.asarray([4, 17]))

    def corrupt(key, images, severity):
        return corruptions.corrupt(key, images, name, severity, frost_images=frost_images)

    np.testing.assert_array_equal(corrupt(keys, images, 0), images)
    results = [corrupt(keys, images, s) for s in corruptions.SEVERITIES]
    distance = [float(jnp.abs(result - images).mean()) for result in results]
    assert min(distance) > 0
    if name not in UNORDERED:
        assert distance == sorted(distance) and distance[0] < distance[-1]
    last = results[-1]
    assert last.dtype == jnp.float32 and float(last.min()) >= 0 and float(last.max()) <= 1
    swapped = corrupt(keys[::-1], images[::-1], 5)
    np.testing.assert_allclose(swapped[::-1], last, atol=1e-6)
    other = corrupt(jax.random.key(4), images, 5)
    assert bool(jnp.any(other != last)) == (name not in references.STILL)


# Here those whose code gathers or draws in its own way; the others run with -m slow.
OWN_WAYS = ("motion_blur", "elastic_transform", "frost")


@pytest.mark.parametrize(
    "name",
    [
        name if name in OWN_WAYS else pytest.param(name, marks=pytest.mark.slow)
        for name in corruptions.NAMES
    ],
)
def test_devices_and_vmap_change_nothing(photographs, frost_images, name):
    """Four images over four devices, one by one, and under vmap."""
    images = jnp.concatenate([photographs, photographs[:, ::-1]])
    keys = prng.example_keys(KEY, 4)

    def corrupt(keys, images):
        return corruptions.corrupt(keys, images, name, 3, frost_images=frost_images)

    whole = corrupt(keys, images)
    mesh = meshes.data_mesh()
    assert mesh.size == 4
    spread = jax.jit(corrupt)(*jax.device_put((keys, images), meshes.sharded(mesh)))
    # elastic_transform reads at places that float32 computes in another order.
    np.testing.assert_allclose(spread, whole, atol=5e-6)
    mapped = jax.vmap(corrupt)(keys.reshape(2, 2), images.reshape(2, 2, 32, 32, 3))
    np.testing.assert_allclose(mapped.reshape(whole.shape), whole, atol=5e-6)


@pytest.mark.parametrize(
    "name", ["elastic_transform", pytest.param("glass_blur", marks=pytest.mark.slow)]
)
def test_forms_for_platforms_agree(photographs, name):
    def corrupted(platform):
        with fast.forms_of(platform):
            return corruptions.corrupt(KEY, photographs, name, 3)

    np.testing.assert_allclose(corrupted("tpu"), corrupted("cpu"), atol=5e-6)


def test_keys_of_other_generators_give_an_image_the_same_corruption_in_any_batch():
    images = np.random.default_rng(5).random((3, 32, 32, 3), np.float32)
    keys = jax.random.split(jax.random.key(0, impl="rbg"), 3)
    whole = corruptions.corrupt(keys, images, "shot_noise", 3)
    alone = corruptions.corrupt(keys[1:2], images[1:2], "shot_noise", 3)
    np.testing.assert_allclose(whole[1:2], alone, atol=1e-6)


# Their code treats grey images in its own way; the others work channel by channel, and snow and
# spatter take long.
OWN_GREY = ("frost", "jpeg_compression", "saturate")


@pytest.mark.parametrize(
    "name",
    [
        name if name in OWN_GREY else pytest.param(name, marks=pytest.mark.slow)
        for name in corruptions.NAMES
        if name not in NOISE
    ],
)
def test_grey_images_are_colour_images_with_equal_channels(frost_images, name):
    """The size is odd. Spatter is water at severity 3 and mud at 5."""
    grey = jnp.round(255 * jax.random.uniform(jax.random.key(1), (1, 33, 21, 1))) / 255
    for severity in (3, 5) if name == "spatter" else (5,):
        both = [
            corruptions.corrupt(KEY, images, name, severity, frost_images=frost_images)
            for images in (grey, jnp.tile(grey, (1, 1, 1, 3)))
        ]
        ours, colour = np.asarray(both[0])[..., 0], np.asarray(both[1], np.float64)
        assert ours.shape == (1, 33, 21)
        # Values that a colour channel clips at 0 or 1 have another luma.
        inside = (colour.min(axis=-1) > 0) & (colour.max(axis=-1) < 1)
        error = np.abs(ours - colour @ np.array([0.299, 0.587, 0.114]))[inside]
        assert inside.mean() > 0.3 and error.max() < 1e-5


def test_forms(photographs):
    """The published files: cut to 8 bits, then JPEG of quality 85 (here by Pillow)."""
    arguments = (KEY, photographs, "contrast", 2)
    plain, cut, coded = (
        np.asarray(corruptions.corrupt(*arguments, form=form)) for form in corruptions.FORMS
    )
    levels = np.floor(255 * plain.astype(np.float64) + 1e-4)
    np.testing.assert_allclose(255 * cut, levels, atol=1e-4)
    expected = np.stack([references.jpeg(image / 255, 85) for image in levels])
    np.testing.assert_allclose(coded, expected, atol=1e-6)


def test_uint8_truncates_exact_numbers(photographs):
    """A value that is a whole level keeps it. The float64 of ImageNet-C's code can end up just
    below and lose a level, here in a tenth of the values: twice the saturation of whole levels."""
    ours = corruptions.corrupt(KEY, photographs, "saturate", 3, table="imagenet", form="uint8")
    exact = np.stack([references.saturate(image, (2, 0)) for image in np.float64(photographs)])
    exact = 255 * np.clip(exact, 0, 1)
    np.testing.assert_array_equal(np.round(255 * np.asarray(ours)), np.floor(exact + 2e-4))
    lost = np.floor(exact + 2e-4) != np.floor(exact)
    assert 0 < lost.mean() < 0.2
    np.testing.assert_allclose(exact[lost], np.round(exact[lost]), atol=1e-6)


def test_fog_covers_images_of_a_pixel_more_than_a_power_of_two():
    images = jnp.full((1, 5, 4, 3), 0.5)
    foggy = np.asarray(corruptions.corrupt(KEY, images, "fog", 3))
    assert foggy.shape == images.shape and np.ptp(foggy, axis=2).min() > 0


# The sums of the numbers in make_imagenet_c.py, make_tinyimagenet_c.py and make_cifar_c.py, in the
# repository of the paper, each times its severity.
SUMS = {
    "gaussian_noise": (3.8, 2.06, 1.26),
    "shot_noise": (181, 795, 1850),
    "impulse_noise": (2.45, 1.22, 0.69),
    "defocus_blur": (118.1, 33.64, 18.6),
    "glass_blur": (91.4, 57.2, 43.75),
    "motion_blur": (405, 195, 143.5),
    "zoom_blur": (18.97, 18.05, 18.05),
    "snow": (388.6, 332.95, 335.7),
    "frost": (20.55, 18.9, 18.7),
    "frost_procedural": (20.55, 18.9, 18.7),
    "fog": (62.1, 54.05, 48.2),
    "brightness": (5.5, 5.5, 3),
    "contrast": (2.25, 2.25, 4.9),
    "elastic_transform": (2135, 211.84, 92.16),
    "pixelate": (5.25, 9.5, 11.55),
    "jpeg_compression": (181, 616, 784),
    "speckle_noise": (6.4, 4.25, 2.26),
    "gaussian_blur": (60, 17.5, 11.9),
    "spatter": (75.59, 50.66, 50.15),
    "saturate": (127.9, 177.9, 26.9),
}


def test_the_tables_have_the_published_numbers():
    assert {*corruptions.SETS["common"], *corruptions.SETS["extra"]} <= SUMS.keys()
    for name, sums in SUMS.items():
        for table, total in zip(corruptions.TABLES, sums, strict=True):
            numbers = np.reshape(tables.PARAMETERS[name][table], (5, -1))
            assert (np.arange(1, 6) @ numbers).sum() == pytest.approx(total, abs=1e-6), name


def test_between_two_severities_parameters_are_interpolated():
    """An extension: the pixels of noise move in proportion to its deviation."""
    still = jnp.full((2, 12, 12, 1), 0.5)
    moved = {
        severity: corruptions.corrupt(KEY, still, "gaussian_noise", severity, "cifar") - still
        for severity in (1, 1.25, 2, 2.0)
    }
    np.testing.assert_allclose(moved[1.25], moved[1] * 0.045 / 0.04, atol=1e-6)
    np.testing.assert_array_equal(moved[2.0], moved[2])


@pytest.mark.parametrize("name", sorted(corruptions.CONTINUOUS))
def test_all_parameters_of_a_continuous_severity_rise_or_fall(name):
    for table in corruptions.TABLES:
        steps = np.diff(np.array(tables.PARAMETERS[name][table]).reshape(5, -1), axis=0)
        assert np.all(np.all(steps >= 0, axis=0) | np.all(steps <= 0, axis=0))


@pytest.mark.untyped
@pytest.mark.parametrize(("name", "severity"), [("fog", 0.5), ("fog", 5.5), ("glass_blur", 2.5)])
def test_severities_without_parameters_are_refused(name, severity):
    with pytest.raises(ValueError, match="^severity must"):
        corruptions.corrupt(KEY, jnp.full((2, 12, 12, 1), 0.5), name, severity)


def test_the_size_chooses_the_table():
    for side, table in ((32, "cifar"), (64, "tiny"), (96, "tiny"), (224, "imagenet")):
        assert corruptions.table_for(side, side) == corruptions.table_for(side, 20) == table


@pytest.mark.untyped
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(name="gausian_noise"), ValueError, "gaussian_noise"),
        (dict(severity=6), ValueError, "severity"),
        (dict(name="frost"), ValueError, "load_frost"),
        (dict(images=np.zeros((1, 8, 8, 3), np.uint8)), TypeError, "255"),
        (dict(images=jnp.full((1, 8, 8, 3), 1.5)), ValueError, "1.5"),
        # One among many, which a vectorised minimum may miss.
        (dict(images=jnp.zeros((2, 32, 32, 3)).at[0, 0, 0, 0].set(jnp.nan)), ValueError, "NaN"),
        (dict(images=jnp.zeros((1, 8, 8, 4))), ValueError, "1 or 3"),
        (dict(images=jnp.zeros((1, 8, 8, 1)), name="defocus_blur"), ValueError, "larger than 10"),
        (dict(key=jnp.zeros(2, jnp.uint32)), TypeError, "key"),
    ],
)
def test_bad_input_is_refused(change, error, message):
    arguments = dict(key=KEY, images=jnp.zeros((1, 12, 12, 3)), name="contrast", severity=1)
    with pytest.raises(error, match=message):
        corruptions.corrupt(**(arguments | change))


def test_images_that_a_traced_function_closes_over_are_checked(photographs):
    bright = 2 * photographs
    with pytest.raises(ValueError, match="values from 0 to 2"):
        jax.jit(lambda: corruptions.corrupt(KEY, bright, "contrast", 1))()


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(corruptions.CORRUPTIONS.keys() - {"frost"}))
def test_five_corruptions_have_no_gradient(name):
    images = jax.random.uniform(jax.random.key(1), (1, 24, 24, 3), minval=0.4, maxval=0.6)
    slope = jax.grad(lambda x: corruptions.corrupt(KEY, x, name, 3).sum())(images)
    counted = {"shot_noise", "glass_blur", "motion_blur", "pixelate", "jpeg_compression"}
    assert np.any(slope) == (name not in counted)


@pytest.mark.parametrize("name", ["defocus_blur", "zoom_blur"])
def test_gradients_pass_through_what_is_linear(name):
    """<y, A x> = <A' y, x>, with the transpose that reverse mode finds."""
    key = jax.random.key(0)
    x, y = (jax.random.uniform(jax.random.key(seed), (1, 24, 24, 1)) for seed in (1, 2))
    # Away from 0 and 1, where clipping has no slope.
    x = 0.4 + 0.2 * x
    value, transpose = jax.vjp(lambda image: corruptions.corrupt(key, image, name, 2), x)
    np.testing.assert_allclose(
        float(jnp.vdot(transpose(y)[0], x)), float(jnp.vdot(y, value)), rtol=1e-4
    )
