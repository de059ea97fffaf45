"""The corruptions as they are defined, for one image at a time, in float64 on the host.

They are written from the definitions with NumPy, SciPy and Pillow, with the random draws as
arguments. Images are (H, W, C) in [0, 1] and on 8-bit levels; results are before clipping.
"""

import colorsys
import io
import math

import numpy as np
from PIL import Image
from scipy import ndimage


def eight_bit(image):
    return np.round(image * 255).astype(np.uint8)


def smooth(image, deviation, **options):
    return ndimage.gaussian_filter(
        image, deviation, **({"mode": "nearest", "truncate": 4} | options)
    )


def gaussian(image, deviation):
    return smooth(image, (deviation, deviation, 0))


def defocus(image, parameters):
    radius, smoothing = parameters
    reach = max(8, int(np.ceil(radius)))
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disk = (x**2 + y**2 <= radius**2) / (x**2 + y**2 <= radius**2).sum()
    window = 1 if radius <= 8 else 2
    disk = ndimage.gaussian_filter(disk, smoothing, mode="mirror", radius=window)
    planes = [ndimage.correlate(image[..., c], disk, mode="mirror") for c in range(3)]
    return np.stack(planes, axis=-1)


def glass(image, parameters, moves):
    """Blur, copy and blur; ``moves`` (passes, 2, H, W) may have more passes than are used."""
    deviation, reach, passes = parameters
    # As in the package, a number within 2e-4 below a whole number counts as that number.
    levels = np.floor(255 * gaussian(image, deviation) + 2e-4)
    return gaussian(walk(levels, reach, moves[:passes]) / 255, deviation)


def walk(values, reach, moves):
    """Copy from a neighbour, pixel by pixel, in the order of ImageNet-C's code."""
    values = values.copy()
    height, width = values.shape[:2]
    for move in moves.astype(int):
        for y in range(height - reach, reach, -1):
            for x in range(width - reach, reach, -1):
                down, right = move[:, y, x]
                values[y, x] = values[y + down, x + right]
    return values


def motion(levels, parameters, angle):
    """Blur float levels; the result is not truncated yet."""
    radius, deviation = parameters
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * deviation**2))
    y, x = np.mgrid[: levels.shape[0], : levels.shape[1]]
    out = np.zeros(levels.shape)
    for step, weight in zip(steps, weights / weights.sum(), strict=True):
        down = math.ceil(step * math.sin(math.radians(angle)) - 0.5)
        right = math.ceil(step * math.cos(math.radians(angle)) - 0.5)
        row = np.clip(y + down, 0, levels.shape[0] - 1)
        column = np.clip(x + right, 0, levels.shape[1] - 1)
        out += weight * levels[row, column]
    return out


def zoomed(image, factor):
    """The central part, enlarged by SciPy, and the centre of that."""
    side = image.shape[0]
    inside = math.ceil(side / factor)
    first = (side - inside) // 2
    part = image[first : first + inside, first : first + inside]
    large = ndimage.zoom(part, (factor, factor, 1), order=1)
    trim = (large.shape[0] - side) // 2
    return large[trim : trim + side, trim : trim + side]


def zoom(image, parameters):
    stop, step = parameters
    factors = np.arange(1, stop, step)
    return (image + sum(zoomed(image, factor) for factor in factors)) / (len(factors) + 1)


def snow(image, parameters, normal, angle):
    mean, deviation, factor, threshold, radius, streak, mix = parameters
    flakes = zoomed((mean + deviation * normal)[..., None], factor)[..., 0]
    flakes[flakes < threshold] = 0
    flakes = np.floor(255 * np.clip(np.asarray(flakes), 0, 1))
    flakes = np.floor(motion(flakes, (radius, streak), angle) + 1e-6)[..., None] / 255
    grey = (image @ np.array([0.299, 0.587, 0.114]))[..., None]
    image = mix * image + (1 - mix) * np.maximum(image, 1.5 * grey + 0.5)
    return image + flakes + np.rot90(flakes, 2)


def plasma(draws, side, decay):
    """Diamond-square in place, with the draws in the order of the visits."""
    grid = np.zeros((side, side))
    amplitude, draws = 100.0, iter(draws)

    def moved(mean):
        numbers = [next(draws) for _ in range(mean.size)]
        return mean + amplitude**2 * np.reshape(numbers, mean.shape)

    step = side
    while step > 1:
        half = step // 2
        corners = grid[::step, ::step].copy()
        below, right = np.roll(corners, -1, 0), np.roll(corners, -1, 1)
        centres = moved((corners + below + right + np.roll(below, -1, 1)) / 4)
        grid[half::step, half::step] = centres
        grid[::step, half::step] = moved((corners + right + centres + np.roll(centres, 1, 0)) / 4)
        grid[half::step, ::step] = moved((corners + below + centres + np.roll(centres, 1, 1)) / 4)
        step, amplitude = half, amplitude / decay
    grid -= grid.min()
    return grid / grid.max()


def fog(image, parameters, draws, side):
    amount, decay = parameters
    veil = plasma(draws, side, decay)[: image.shape[0], : image.shape[1], None]
    return (image + amount * veil) * image.max() / (image.max() + amount)


def recoloured(image, change):
    """Change the hue, saturation and value of each pixel."""
    out = np.empty_like(image)
    for place in np.ndindex(image.shape[:2]):
        out[place] = colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*image[place])))
    return out


def brightness(image, amount):
    return recoloured(image, lambda h, s, v: (h, s, min(v + amount, 1)))


def saturate(image, parameters):
    factor, addend = parameters
    return recoloured(image, lambda h, s, v: (h, min(max(s * factor + addend, 0), 1), v))


def contrast(image, factor):
    mean = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * factor + mean


def elastic(image, parameters, moves, fields):
    amplitude, deviation, move = parameters
    height, width = image.shape[:2]
    centre, reach = np.array([width // 2, height // 2]), min(height, width) // 3
    before = centre + reach * np.array([[1, 1], [1, -1], [-1, -1]])
    after = before + move * moves
    # The map from positions after to positions before, rows (x, y), then turned to (y, x).
    matrix = np.linalg.solve(np.c_[after, np.ones(3)], before).T
    inverse = matrix[::-1, [1, 0, 2]]
    planes = [
        ndimage.affine_transform(
            image[..., c], inverse[:, :2], inverse[:, 2], order=1, mode="mirror"
        )
        for c in range(image.shape[2])
    ]
    x_field, y_field = (
        amplitude * smooth(field, deviation, mode="reflect", truncate=3)
        for field in (fields[..., 0], fields[..., 1])
    )
    y, x = np.mgrid[:height, :width]
    places = [y + y_field, x + x_field]
    return np.stack(
        [ndimage.map_coordinates(plane, places, order=1, mode="reflect") for plane in planes], -1
    )


def pixelate(image, share):
    size = [int(side * share) for side in image.shape[:2]]
    small = Image.fromarray(eight_bit(image)).resize(size, Image.Resampling.BOX)
    return np.asarray(small.resize(image.shape[:2], Image.Resampling.BOX)) / 255


def jpeg(image, quality):
    file = io.BytesIO()
    levels = eight_bit(image)
    Image.fromarray(levels[..., 0] if image.shape[2] == 1 else levels).save(
        file, "JPEG", quality=quality
    )
    decoded = np.asarray(Image.open(file))
    return decoded.reshape(image.shape) / 255


def mud(image, parameters, normal):
    mean, deviation, smoothing, threshold, softness, _ = parameters
    liquid = smooth(mean + deviation * normal, smoothing)
    mask = smooth((liquid > threshold).astype(float), softness)
    mask[mask < 0.8] = 0
    mask = mask[..., None]
    return image * (1 - mask) + mask * np.array([63, 42, 20]) / 255


# Corruptions that draw nothing: their definitions, and the largest errors in grey levels.
STILL = {
    "defocus_blur": (defocus, 0.01),
    "zoom_blur": (zoom, 5e-4),
    "brightness": (brightness, 0.01),
    "contrast": (contrast, 0.01),
    "pixelate": (pixelate, 0.01),
    "jpeg_compression": (jpeg, 1e-3),
    "gaussian_blur": (gaussian, 0.01),
    "saturate": (saturate, 2e-3),
}
