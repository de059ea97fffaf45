"""ImageNet-C-bar against loops over pixels that are written from its published definitions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from vone_jax import corruptions

SIDE = 24
SHAPE = (SIDE, SIDE, 3)


def images(number=2):
    raw = np.random.default_rng(0).uniform(0, 1, (number, *SHAPE))
    return np.float32(scipy.ndimage.gaussian_filter(raw, (0, 2, 2, 0)) * 2 - 0.5).clip(0, 1)


def keys(number=2):
    return jax.random.split(jax.random.key(3), number)


def between(draw, low, high):
    return low + (high - low) * (float(draw) + 1) / 2


def by_pixel(function, channels=1):
    """An image from a function of row and column."""
    values = [[function(float(y), float(x)) for x in range(SIDE)] for y in range(SIDE)]
    return np.array(values, np.float64).reshape(SIDE, SIDE, -1)


def single_frequency(draws, image, level):
    first = between(draws[0], -math.pi, math.pi)
    second = abs(first) * between(draws[1], -1, 1)
    along_x, along_y = (second, first) if draws[2] > 0 else (first, second)
    phase = between(draws[3], 0, 2 * math.pi)
    grating = by_pixel(lambda y, x: math.sin(x * along_x + y * along_y + phase))
    return image + 196 * level / 10 / 255 * grating


def concentric(draws, image, level):
    x0, y0 = between(draws[0], 0, SIDE), between(draws[1], 0, SIDE)
    frequency, amplitude = between(draws[2], 0, 10), between(draws[3], 0, SIDE / 10)
    width = between(draws[4], 0, SIDE / 10)

    def ring(y, x):
        angle = math.atan2(x - x0, y - y0) * frequency
        distance = math.hypot(x - x0, y - y0) + math.sin(angle) * amplitude
        return (distance % width) / width - 0.5

    return image + 128 * level / 10 / 255 * by_pixel(ring)


def plasma(draws, image, level):
    time, sharpness = between(draws[0], 0, 6 * math.pi), between(draws[1], 0.5, 1.0)
    scale = between(draws[2], 0.075, 0.2) * SIDE
    rounds = math.floor(between(draws[3], 4, 7))

    def colour(y, x):
        y, x = y / scale, x / scale
        frequency, slower, divisor = 1.0, 1.0, 1.0
        for _ in range(rounds):
            one = math.cos(y * frequency + time / slower) / divisor
            two = math.sin(x * frequency + time / slower) / divisor
            x, y = x + one - 0.3 * two, y + two + 0.3 * one
            frequency, slower, divisor = (
                frequency * 1.93,
                slower * 1.15,
                divisor * (2.25 - sharpness),
            )
        green = math.sin((x + y + math.sin(time)) / 2)
        return math.sin(x - time), green, math.sin(y + time)

    amount = 64 * level / 10 / 255
    return (1 - amount) * image + amount * by_pixel(colour)


def star(image, centre, rays, lengths, power, colour):
    """A star's brightness at each pixel."""

    def brightness(y, x):
        dy, dx = y - centre[0], x - centre[1]
        along = (math.atan2(dx, dy) + math.pi) / (2 * math.pi) * rays
        number = int(along)
        part = along - number
        one, two = lengths[number % rays], lengths[(number + 1) % rays]
        reach = one + part * (two - one)
        bright = (reach**2 / (dy**2 + dx**2 + 1e-4)) ** power
        return min(max((1 - (part - 0.5) ** 2) * bright, 0), 1)

    return by_pixel(brightness)


def sparkles(draws, image, level):
    places, normal = draws
    radius = 0.1 * level / 10 * SIDE
    for place, lengths in zip(places, normal, strict=True):
        centre = between(place[0], 0, SIDE), between(place[1], 0, SIDE)
        rays = math.floor(between(place[2], 50, 200))
        lengths = [max(1.0, radius + 0.25 * radius * float(each)) for each in lengths]
        shine = star(image, centre, rays, lengths, 1.0, 1)
        image = image + shine * (1 - image)
    return image


def inverse_sparkles(draws, image, level):
    places, normal = (each[0] for each in draws)
    centre = [between(place, 0.25, 0.75) * SIDE for place in places[:2]]
    rays = math.floor(between(places[2], 50, 200))
    lengths = [0.25 * SIDE * (1 + 0.25 * float(each)) for each in normal]
    shine = star(image, centre, rays, lengths, level * 65 / 10 / 50, 1)
    return 1 + shine * (image - 1)


def perlin(draws, image, level):
    cell = 32 * SIDE / 224

    def noise(lattice, y, x):
        row, column = math.floor(y), math.floor(x)
        down, right = y - row, x - column

        def corner(i, j):
            vector = np.asarray(lattice[row + i, column + j], np.float64)
            vector = vector / np.linalg.norm(vector)
            return vector[0] * (down - i) + vector[1] * (right - j)

        ease_y, ease_x = (3 * part**2 - 2 * part**3 for part in (down, right))
        upper = corner(0, 0) * (1 - ease_x) + corner(0, 1) * ease_x
        lower = corner(1, 0) * (1 - ease_x) + corner(1, 1) * ease_x
        return 1.5 * (upper * (1 - ease_y) + lower * ease_y)

    def turbulence(y, x):
        octaves = zip((1, 2, 4, 8, 16), draws, strict=True)
        return sum(abs(noise(each, y * f / cell, x * f / cell)) / f for f, each in octaves)

    field = by_pixel(lambda y, x: min(max(0.5 * turbulence(y, x) + 0.5, 0), 1))
    amount = 0.5 * level / 10
    return (1 - amount) * image + amount * field


def spectral(draws, power):
    left = math.pi * (np.asarray(draws, np.float64)[:, : SIDE // 2] + 1)
    phases = np.concatenate([left, left[::-1, ::-1]], axis=1)
    spectrum = np.array(
        [[power(math.hypot(y - SIDE / 2, x - SIDE / 2)) for x in range(SIDE)] for y in range(SIDE)]
    ) * np.exp(1j * phases)
    spectrum = np.roll(spectrum, SIDE // 2, axis=(0, 1))
    field = np.real(np.fft.ifft2(spectrum))
    return field / field.std()


def brownish(draws, image, level):
    fields = [spectral(each, lambda d: 1 / (d**2 + 1)) for each in draws]
    return image + 64 * level / 10 / 255 * np.stack(fields, axis=2)


def blue_sample(draws, image, level):
    kept = spectral(draws[0], lambda d: d) > 3 * level / 10 - 2.5
    return image * kept[..., None]


def board(draws, image, level):
    numbers, cells = draws
    angle = between(numbers[0], 0, 2 * math.pi)
    cell = max(between(numbers[1], 0.1, 0.25) * SIDE, 1)
    count = int(4 * SIDE // cell)
    # The drawn numbers within the grid of the published code.
    grid = (np.asarray(cells)[:count, :count] + 1) / 2 < level / 10
    out = np.array(image, np.float64)
    for y in range(SIDE):
        for x in range(SIDE):
            along = (math.cos(angle) * y + math.sin(angle) * x) / cell
            across = (-math.sin(angle) * y + math.cos(angle) * x) / cell
            if int(along % 2) == int(across % 2) and grid[int(along), int(across)]:
                out[y, x] = 128 / 255
    return out


def caustics(draws, image, level):
    time, size = between(draws[0], 0.5, 2.0), between(draws[1], 0.75, 1.25) * SIDE

    def light(y, x):
        point = np.array([y, x]) / size % 1 * 6.28318530718 - 250
        moving, total = point.copy(), 1.0
        for number in range(5):
            t = time * (1 - 3.5 / (number + 1))
            moving = point + [
                math.cos(t - moving[0]) + math.sin(t + moving[1]),
                math.sin(t - moving[1]) + math.cos(t + moving[0]),
            ]
            one = point[0] / (math.sin(moving[0] + t) / 0.005)
            two = point[1] / (math.cos(moving[1] + t) / 0.005)
            total += 1 / math.hypot(one, two)
        return min(max(abs(1.17 - (total / 5) ** 1.4) ** 8, 0), 1)

    surface = scipy.ndimage.gaussian_filter(by_pixel(light)[..., 0], 1.0)
    padded, framed = (
        np.pad(surface, 1),
        np.pad(np.asarray(image, np.float64), ((1, 2), (1, 2), (0, 0))),
    )

    def seen(y, x):
        y, x = int(y), int(x)
        down = padded[y + 2, x + 1] - padded[y, x + 1]
        right = padded[y + 1, x + 2] - padded[y + 1, x]
        normal = np.array([down, right, 1.0]) / np.linalg.norm([down, right, 1.0])
        ray = np.array([0.0, 0.0, 1.0])
        if ray @ normal < 1 - 1e-3:
            angle = math.asin(math.sin(math.acos(ray @ normal)) / 4)
            beside = np.cross(ray, normal) / np.linalg.norm(np.cross(ray, normal))
            ray = math.cos(angle) * normal + math.sin(angle) * np.cross(normal, beside)
        at = np.array([y, x]) + np.round(ray[:2] * 0.5 * SIDE * level / 10, 3)
        value = np.zeros(3)
        for row in (math.floor(at[0]), math.floor(at[0]) + 1):
            for column in (math.floor(at[1]), math.floor(at[1]) + 1):
                weight = (1 - abs(at[0] - row)) * (1 - abs(at[1] - column))
                if 0 <= row < SIDE and 0 <= column < SIDE:
                    value += weight * framed[row + 1, column + 1]
        return value + (down - right) * 2 * level / 10

    return by_pixel(seen)


REFERENCES = {
    "single_frequency_greyscale": single_frequency,
    "cocentric_sine_waves": concentric,
    "plasma_noise": plasma,
    "sparkles": sparkles,
    "inverse_sparkles": inverse_sparkles,
    "perlin_noise": perlin,
    "brownish_noise": brownish,
    "blue_noise_sample": blue_sample,
    "checkerboard_cutout": board,
    "caustic_refraction": caustics,
}


def test_the_set_has_its_ten_corruptions():
    assert set(corruptions.SETS["c_bar"]) == set(REFERENCES)


@pytest.mark.parametrize("name", REFERENCES)
def test_a_corruption_is_its_definition(name):
    corruption, shape = corruptions.CORRUPTIONS[name], SHAPE
    level = float(corruptions.tables.PARAMETERS[name]["imagenet"][2])
    arrays = jax.tree.map(jnp.asarray, corruption.prepare(level, shape))
    draws = jax.jit(lambda keys: corruption.draw(keys, shape, arrays))(keys())
    made = jax.jit(corruption.apply)(draws, jnp.asarray(images()), arrays)
    made = np.asarray(made).clip(0, 1)
    for place in range(2):
        own = jax.tree.map(lambda each, place=place: np.asarray(each)[place], draws)
        expected = REFERENCES[name](own, images()[place].astype(np.float64), level).clip(0, 1)
        # A pixel at the edge of a ring, ray or cell can fall on the other side by rounding.
        apart = np.abs(made[place] - expected).max(axis=-1) > 2e-3
        assert apart.mean() < 0.005, f"{apart.sum()} pixels differ"


def test_odd_sides_have_spectra_too():
    odd = jnp.asarray(images()[:, :23, :23])
    for name in ("brownish_noise", "blue_noise_sample"):
        made = corruptions.corrupt(jax.random.key(0), odd, name, 3)
        assert made.shape == odd.shape and bool(jnp.all(jnp.isfinite(made)))
