import math

import numpy as np
import pytest
from PIL import Image

from vone_jax.data import Augment, transforms


@pytest.fixture
def photo():
    """A smooth, lopsided RGB image, 40 x 60."""
    y, x = np.mgrid[:40, :60]
    channels = [128 + 100 * np.sin(x / 7 + y / 11 * k) for k in (1, 2, 3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def rng(*seed):
    return np.random.default_rng(seed or (0,))


class TestEvaluationTransform:
    def test_the_longer_side_is_truncated_and_the_shorter_one_rounded(self):
        """int(256 * 403 / 300) is int(343.9), and 96 / 0.875 is 109.7."""
        for size, short, shape, box in (
            (224, 256, (300, 403), (slice(16, 240), slice(60, 284))),
            (96, 110, (220, 220), (slice(7, 103), slice(7, 103))),
        ):
            image = rng().integers(0, 256, (*shape, 3), np.uint8)
            new = short * shape[1] // shape[0], short
            resized = np.asarray(Image.fromarray(image).resize(new, Image.Resampling.BILINEAR))
            np.testing.assert_array_equal(
                transforms.Preprocessing(0.875)(image, size), resized[box]
            )

    def test_result_is_square(self):
        for shape, center_crop in (((50, 30, 1), 1.0), ((7, 9, 3), 0.875)):
            image = transforms.Preprocessing(center_crop)(np.zeros(shape, np.uint8), 28)
            assert image.shape == (28, 28, shape[2]) and image.dtype == np.uint8

    def test_squash_resizes_both_sides_as_pillow(self):
        image = rng().integers(0, 256, (30, 41, 3), np.uint8)
        resized = Image.fromarray(image).resize((28, 28), Image.Resampling.BICUBIC)
        squash = transforms.Preprocessing(squash=True, interpolation="bicubic")
        np.testing.assert_array_equal(squash(image, 28), np.asarray(resized))


class TestRandomResizedCrop:
    def test_boxes_are_uniform_in_area_and_log_ratio(self):
        """On a square image most boxes fit, so the draws show through."""
        boxes = [
            transforms._crop_box(1000, 1000, rng(i), (0.08, 0.5), (3 / 4, 4 / 3))
            for i in range(2000)
        ]
        area = np.array([height * width for _, _, height, width in boxes]) / 1e6
        log_ratio = np.log([width / height for _, _, height, width in boxes])
        assert area.min() >= 0.0795 and area.max() <= 0.5005
        assert abs(area.mean() - 0.29) < 0.01
        assert np.abs(log_ratio).max() <= math.log(4 / 3) + 0.01
        assert abs(log_ratio.mean()) < 0.01
        tops = np.array([top / (1000 - height) for top, _, height, _ in boxes])
        assert abs(tops.mean() - 0.5) < 0.02 and tops.min() >= 0 and tops.max() <= 1

    def test_falls_back_to_the_largest_central_crop(self):
        # No box of at least the whole area and a ratio near 1 fits a 10 x 100 image.
        box = transforms._crop_box(10, 100, rng(), (1.0, 1.0), (3 / 4, 4 / 3))
        assert box == (0, 43, 10, 13)
        box = transforms._crop_box(100, 10, rng(), (1.0, 1.0), (3 / 4, 4 / 3))
        assert box == (43, 0, 13, 10)

    def test_whole_image_is_a_plain_resize(self, photo):
        square = photo[:, :40]
        crop = transforms.random_resized_crop(square, 20, rng(), (1.0, 1.0), (1.0, 1.0))
        np.testing.assert_array_equal(crop, transforms.Preprocessing()(square, 20))


class TestAffine:
    def test_identity(self, photo):
        same = transforms.affine(photo, degrees=0, shift=(0, 0), scale=1.0)
        np.testing.assert_array_equal(same, photo)

    def test_positive_angles_turn_clockwise(self, photo):
        square = photo[:, :40]
        turned = transforms.affine(square, degrees=90, shift=(0, 0), scale=1.0)
        np.testing.assert_array_equal(turned, np.rot90(square, k=-1))

    def test_shift_moves_right_and_down_over_black(self, photo):
        moved = transforms.affine(photo, degrees=0, shift=(3, 5), scale=1.0)
        np.testing.assert_array_equal(moved[5:, 3:], photo[:-5, :-3])
        assert not moved[:5].any() and not moved[:, :3].any()

    def test_scale_magnifies_about_the_centre(self):
        image = np.zeros((20, 20, 1), np.uint8)
        image[8:12, 8:12] = 255
        doubled = transforms.affine(image, degrees=0, shift=(0, 0), scale=2.0)
        expected = np.zeros_like(image)
        expected[6:14, 6:14] = 255
        np.testing.assert_array_equal(doubled, expected)

    @pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
    def test_a_magnification_alone_is_applied_as_it_was_asked_for(self, photo, interpolation):
        square = photo[:, :40]
        augment = Augment(affine_scale=(1.5, 1.5), affine_interpolation=interpolation)
        options = {"degrees": 0, "shift": (0, 0), "scale": 1.5, "interpolation": interpolation}
        np.testing.assert_array_equal(
            augment(square, 40, rng()), transforms.affine(square, **options)
        )

    def test_random_draws_stay_in_range(self, photo, monkeypatch):
        drawn = []
        monkeypatch.setattr(
            transforms, "affine", lambda image, **values: drawn.append(values) or image
        )
        augment = transforms.Augment(
            affine_degrees=30.0, affine_shift=0.05, affine_scale=(1.0, 1.2)
        )
        for i in range(300):
            augment(photo, 60, rng(i))
        degrees = np.array([values["degrees"] for values in drawn])
        shifts = np.array([values["shift"] for values in drawn])
        scales = np.array([values["scale"] for values in drawn])
        assert -30 <= degrees.min() < -25 and 25 < degrees.max() <= 30
        # 5 % of 60 pixels.
        assert np.abs(shifts).max(axis=0).tolist() == [3, 3]
        assert 1 <= scales.min() < 1.02 and 1.18 < scales.max() <= 1.2


def test_shifted_crop_reaches_every_offset():
    image = np.arange(1, 17, dtype=np.uint8).reshape(4, 4, 1)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    windows = {padded[t : t + 4, s : s + 4].tobytes() for t in range(3) for s in range(3)}
    seen = {transforms.random_shifted_crop(image, 1, rng(i)).tobytes() for i in range(200)}
    assert seen == windows


def test_flip_mirrors_half_of_the_images(photo):
    square = photo[:40, :40]
    flipped = [transforms.Augment(flip=True)(square, 40, rng(i)) for i in range(200)]
    mirrored = sum(np.array_equal(image, square[:, ::-1]) for image in flipped)
    assert mirrored + sum(np.array_equal(image, square) for image in flipped) == 200
    assert 70 < mirrored < 130


class TestAugment:
    @pytest.mark.parametrize(
        "augment",
        [
            Augment(random_resized_crop=True, flip=True),
            Augment(crop_padding=4, flip=True),
            Augment(affine_degrees=30.0, affine_shift=0.05, affine_scale=(1.0, 1.2), flip=True),
        ],
        ids=["imagenet", "cifar10", "tiny_imagenet"],
    )
    @pytest.mark.parametrize("channels", [1, 3])
    def test_recipes_give_square_images_that_depend_on_the_generator_alone(self, augment, channels):
        image = rng(9).integers(0, 256, (40, 60, channels), np.uint8)
        first, again = (augment(image, 32, rng(5)) for _ in range(2))
        assert first.shape == (32, 32, channels) and first.dtype == np.uint8
        np.testing.assert_array_equal(first, again)
        assert any((augment(image, 32, rng(seed)) != first).any() for seed in range(20))

    @pytest.mark.parametrize("span", [(0.5, 0.1), (0.5, 1.5)])
    def test_an_impossible_span_is_refused(self, span):
        with pytest.raises(ValueError, match="crop_scale"):
            Augment(crop_scale=span)

    def test_the_crop_is_that_of_torchvision_by_default(self):
        assert Augment().crop_scale == (0.08, 1.0) and Augment().crop_ratio == (3 / 4, 4 / 3)


class TestRandAugment:
    def test_operations_and_directions_are_drawn(self, photo):
        """Each of 14 in turn: nearly all images of one operation differ."""
        results = {
            transforms.rand_augment(photo, 1, 15, rng(seed)).tobytes() for seed in range(400)
        }
        # Nine have two directions.
        assert len(results) == 14 + 9
        plain = Augment(rand_augment=2, rand_magnitude=9)
        once, again = (plain(photo, 40, rng(7)) for _ in range(2))
        np.testing.assert_array_equal(once, again)
        assert once.shape == (40, 40, 3) and once.dtype == np.uint8

    @pytest.mark.parametrize("name", transforms.OPERATIONS)
    def test_grey_images_have_all_operations(self, photo, name):
        grey = transforms.to_pillow(photo[:, :, :1])
        assert transforms.OPERATIONS[name](grey, 0.5).mode == "L"

    @pytest.mark.parametrize("magnitude", range(31))
    def test_solarize_inverts_from_its_threshold(self, magnitude):
        """The 31 thresholds of torchvision are evenly spaced from 255 to 0: 170 at magnitude 10."""
        levels = np.arange(256, dtype=np.uint8)[None]
        solarized = transforms.OPERATIONS["solarize"](Image.fromarray(levels), magnitude / 30)
        inverted = 2 * levels.astype(int) >= 17 * (30 - magnitude)
        np.testing.assert_array_equal(solarized, np.where(inverted, 255 - levels, levels))

    @pytest.mark.extras
    @pytest.mark.parametrize("magnitude", [-21, -9, 0, 9, 30])
    def test_operations_are_those_of_torchvision(self, photo, magnitude):
        torchvision = pytest.importorskip("torchvision")
        F = torchvision.transforms.functional
        image, share = Image.fromarray(photo), magnitude / 30
        degrees = math.degrees(math.atan(0.3 * share))
        shift = [int(150 / 331 * side * share) for side in image.size]
        still = {"angle": 0.0, "scale": 1.0}

        def affine(translate, shear, center=None):
            return F.affine(image, translate=translate, shear=shear, center=center, **still)

        expected = {
            "shear_x": affine([0, 0], [degrees, 0.0], [0, 0]),
            "shear_y": affine([0, 0], [0.0, degrees], [0, 0]),
            "translate_x": affine([shift[0], 0], [0.0, 0.0]),
            "translate_y": affine([0, shift[1]], [0.0, 0.0]),
            "rotate": F.rotate(image, 30 * share),
            "brightness": F.adjust_brightness(image, 1 + 0.9 * share),
            "colour": F.adjust_saturation(image, 1 + 0.9 * share),
            "contrast": F.adjust_contrast(image, 1 + 0.9 * share),
            "sharpness": F.adjust_sharpness(image, 1 + 0.9 * share),
        }
        if magnitude >= 0:
            expected |= {
                "posterize": F.posterize(image, 8 - round(4 * share)),
                "solarize": F.solarize(image, 255 * (1 - share)),
                "autocontrast": F.autocontrast(image),
                "equalize": F.equalize(image),
                "identity": image,
            }
        for name, theirs in expected.items():
            ours = transforms.OPERATIONS[name](image, share)
            np.testing.assert_array_equal(np.asarray(ours), np.asarray(theirs), name)


def test_a_box_is_erased_with_its_probability_share_and_ratio():
    image = np.full((60, 80, 3), 255, np.uint8)
    boxes = []
    for seed in range(300):
        erased = Augment(erasing=0.5)(image, 60, rng(seed))[..., 0] != 255
        if erased.any():
            rows, columns = np.flatnonzero(erased.any(axis=1)), np.flatnonzero(erased.any(axis=0))
            boxes.append((np.ptp(rows) + 1, np.ptp(columns) + 1))
            # Values are random; one of 256 is the old one.
            assert erased.sum() > 0.95 * boxes[-1][0] * boxes[-1][1]
    # Three standard deviations of a binomial distribution are 26.
    assert abs(len(boxes) - 150) <= 26
    areas = np.array([height * width for height, width in boxes]) / 60**2
    ratios = np.array([height / width for height, width in boxes])
    assert areas.min() > 0.015 and 0.25 < areas.max() < 0.34
    assert (
        ratios.min() < 0.5 and ratios.max() > 2 and (ratios < 3.6).all() and (ratios > 0.27).all()
    )
