"""The ten corruptions of ImageNet-C-bar, which differ from those of ImageNet-C.

Mintun, Kirillov and Xie, On interaction between augmentations and corruptions in natural corruption
robustness, NeurIPS 2021, and the code published with it. A *level* is a severity's number there;
lengths are shares of the side of an image, so other sizes than 224 pixels are possible. The order
of coordinates is that of the published code.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vone_jax import prng
from vone_jax.corruptions import digital, levels, matrices, noise
from vone_jax.corruptions.levels import Images, Keys, Shape

Fields = Float[Array, "n h w _"]
Uniform = Float[Array, "n k"]

# The most rays of a star, and of stars in an image.
_RAYS, _STARS = 200, 5
# Cells of the checkerboard along an axis, at the smallest cell.
_CELLS = 40
# Octaves of Perlin's noise, and pixels between its lattice points at the first one, of 224.
_OCTAVES, _LATTICE = (1, 2, 4, 8, 16), 32 / 224


def _side(shape: Shape | tuple[int, ...]) -> int:
    return max(shape[-3:-1])


def _coordinates(images: Images) -> tuple[Array, Array]:
    """Row and column of each pixel, with axes for examples and channels."""
    height, width = images.shape[1:3]
    y, x = jnp.arange(height, dtype=jnp.float32), jnp.arange(width, dtype=jnp.float32)
    return y[None, :, None, None], x[None, None, :, None]


def _each(draws: Uniform, place: int, low: float = 0.0, high: float = 1.0) -> Array:
    """One number of each example, from (-1, 1) to a range, with axes for pixels and channels."""
    return (low + (high - low) * (draws[:, place] + 1) / 2).reshape(-1, 1, 1, 1)


def _of_channels(images: Images, fields: Fields) -> Fields:
    """Colour fields, or their luma for grey images."""
    return levels.luma(fields) if images.shape[-1] == 1 else fields


def draw_numbers(keys: Keys, shape: Shape, arrays: Any) -> Uniform:
    """Draw six numbers, uniform in (-1, 1)."""
    return noise.uniform(keys, (6,))


def single_frequency(draws: Uniform, images: Images, level: Float[Array, ""]) -> Images:
    """Add a grey grating of any orientation, up to the Nyquist frequency along the axes."""
    first = _each(draws, 0, -math.pi, math.pi)
    second = jnp.abs(first) * _each(draws, 1, -1.0, 1.0)
    swap = draws[:, 2].reshape(-1, 1, 1, 1) > 0
    along_x, along_y = jnp.where(swap, second, first), jnp.where(swap, first, second)
    y, x = _coordinates(images)
    grating = jnp.sin(x * along_x + y * along_y + _each(draws, 3, 0.0, 2 * math.pi))
    return images + level * 19.6 / 255 * grating


def concentric_waves(draws: Uniform, images: Images, level: Float[Array, ""]) -> Images:
    """Add wavy concentric rings, each a ramp from dark to bright."""
    side = _side(images.shape)
    y, x = _coordinates(images)
    y, x = y - _each(draws, 1, 0.0, side), x - _each(draws, 0, 0.0, side)
    wave = _each(draws, 3, 0.0, side / 10) * jnp.sin(jnp.arctan2(x, y) * _each(draws, 2, 0.0, 10.0))
    width = _each(draws, 4, 0.0, side / 10)
    rings = jnp.mod(jnp.sqrt(x**2 + y**2) + wave, width) / width - 0.5
    return images + level * 12.8 / 255 * rings


def plasma(draws: Uniform, images: Images, level: Float[Array, ""]) -> Images:
    """Blend in colours of cosines that are warped by each other, four to six times."""
    side = _side(images.shape)
    time, sharpness = _each(draws, 0, 0.0, 6 * math.pi), _each(draws, 1, 0.5, 1.0)
    scale = _each(draws, 2, 0.075, 0.2) * side
    rounds = jnp.floor(_each(draws, 3, 4.0, 7.0))
    y, x = _coordinates(images)
    y, x = y / scale, x / scale
    y, x = jnp.broadcast_arrays(y, x)
    for number in range(6):
        phase = time / 1.15**number
        turn = jnp.cos(y * 1.93**number + phase), jnp.sin(x * 1.93**number + phase)
        turn = [each / (2.25 - sharpness) ** number for each in turn]
        going = number < rounds
        x = jnp.where(going, x + turn[0] - 0.3 * turn[1], x)
        y = jnp.where(going, y + turn[1] + 0.3 * turn[0], y)
    colours = (x - time, (x + y + jnp.sin(time)) * 0.5, y + time)
    fields = jnp.concatenate([jnp.sin(each) for each in colours], axis=-1)
    amount = level * 6.4 / 255
    return (1 - amount) * images + amount * _of_channels(images, fields)


def draw_stars(keys: Keys, shape: Shape, arrays: Any) -> tuple[Float[Array, "n s 3"], Array]:
    """Draw place and number of rays of the stars (uniform), and the lengths of rays (normal)."""
    places = noise.uniform(prng.fold(keys, 0), (_STARS, 3))
    return places, noise.normal(prng.fold(keys, 1), (_STARS, _RAYS))


def _star(
    images: Images, centre: tuple[Array, Array], rays: Array, lengths: Array, power: Array | float
) -> Array:
    """The brightness of a star of rays around a centre, from 0 to 1, shape (N, H, W, 1)."""
    y, x = _coordinates(images)
    y, x = y - centre[0], x - centre[1]
    along = (jnp.arctan2(x, y) + math.pi) / (2 * math.pi) * rays
    ray = jnp.floor(along)
    between = along - ray

    def length(number: Array) -> Array:
        index = jnp.mod(number, rays).astype(jnp.int32).reshape(len(images), -1)
        return jnp.take_along_axis(lengths, index, axis=1).reshape(number.shape)

    here, following = length(ray), length(ray + 1)
    reach = here + between * (following - here)
    brightness = (reach**2 / (y**2 + x**2 + 1e-4)) ** power
    return jnp.clip((1 - (between - 0.5) ** 2) * brightness, 0.0, 1.0)


def sparkles(draws: tuple[Array, Array], images: Images, level: Float[Array, ""]) -> Images:
    """Blend in five white stars, one after another."""
    places, normal = draws
    side = _side(images.shape)
    radius = level * 0.01 * side
    for star in range(_STARS):
        place = places[:, star]
        centre = _each(place, 0, 0.0, side), _each(place, 1, 0.0, side)
        lengths = jnp.maximum(radius * (1 + 0.25 * normal[:, star]), 1.0)
        rays = jnp.floor(_each(place, 2, 50.0, 200.0))
        images = images + _star(images, centre, rays, lengths, 1.0) * (1 - images)
    return images


def inverse_sparkles(draws: tuple[Array, Array], images: Images, level: Float[Array, ""]) -> Images:
    """Show the image within one star, and white outside."""
    places, normal = draws
    side = _side(images.shape)
    place = places[:, 0]
    centre = _each(place, 0, 0.25 * side, 0.75 * side), _each(place, 1, 0.25 * side, 0.75 * side)
    lengths = 0.25 * side * (1 + 0.25 * normal[:, 0])
    rays = jnp.floor(_each(place, 2, 50.0, 200.0))
    return 1 + _star(images, centre, rays, lengths, level * 0.13) * (images - 1)


def draw_lattices(keys: Keys, shape: Shape, arrays: Any) -> tuple[Array, ...]:
    """Draw a normal vector at each lattice point of each octave of Perlin's noise."""
    return tuple(
        noise.normal(prng.fold(keys, octave), (*_lattice_shape(shape, frequency), 2))
        for octave, frequency in enumerate(_OCTAVES)
    )


def _lattice_shape(shape: Shape | tuple[int, ...], frequency: int) -> tuple[int, int]:
    cell = _LATTICE * _side(shape)
    rows, columns = (int((length - 1) * frequency / cell) + 2 for length in shape[-3:-1])
    return rows, columns


def perlin(draws: tuple[Array, ...], images: Images, level: Float[Array, ""]) -> Images:
    """Blend in the turbulence of five octaves of Perlin's noise.

    The lattice has a gradient of its own at each point and octave, where the published code repeats
    a table of 256. Noise is scaled by 1.5, as in the JH Labs filters that this one is made after;
    the published generator was not at hand to check this.
    """
    turbulence = sum(
        jnp.abs(_gradient_noise(lattice, images, frequency)) / frequency
        for lattice, frequency in zip(draws, _OCTAVES, strict=True)
    )
    field = jnp.clip(0.5 * turbulence + 0.5, 0.0, 1.0)
    amount = level * 0.05
    return (1 - amount) * images + amount * field


def _gradient_noise(lattice: Array, images: Images, frequency: int) -> Array:
    """Perlin's noise of 1985 at each pixel, from a vector at each lattice point."""
    lattice = lattice / jnp.linalg.norm(lattice, axis=-1, keepdims=True)
    cell = _LATTICE * _side(images.shape)
    rows, columns = (np.arange(length) * frequency / cell for length in images.shape[1:3])
    top, left = np.floor(rows).astype(int), np.floor(columns).astype(int)
    down = (rows - top).astype(np.float32)[:, None]
    right = (columns - left).astype(np.float32)[None]

    def corner(below: int, beside: int) -> Array:
        # Whole rows and columns are taken, which needs no gather of single values.
        vectors = lattice[:, top + below][:, :, left + beside]
        return vectors[..., 0] * (down - below)[None] + vectors[..., 1] * (right - beside)[None]

    def ease(part: np.ndarray) -> np.ndarray:
        return (part**2 * (3 - 2 * part))[None]

    upper = corner(0, 0) + ease(right) * (corner(0, 1) - corner(0, 0))
    lower = corner(1, 0) + ease(right) * (corner(1, 1) - corner(1, 0))
    return 1.5 * (upper + ease(down) * (lower - upper))[..., None]


def draw_phases(keys: Keys, shape: Shape, arrays: Any) -> Float[Array, "n 3 side side"]:
    """Draw the phases of the spectra of three fields, uniform in (-1, 1); one half is used."""
    side = _side(shape)
    return noise.uniform(keys, (3, side, side))


def _spectral(draws: Array, images: Images, power: np.ndarray) -> Float[Array, "n h w _"]:
    """Fields of a spectrum with random phases and a standard deviation of 1."""
    side = _side(images.shape)
    half = side // 2
    left = draws[:, :, :, :half]
    # The published phases repeat in the other half, turned by 180 degrees.
    parts = [left, left[:, :, ::-1, ::-1]]
    if side % 2:
        upper = draws[:, :, :half, half:][..., :1]
        middle = jnp.concatenate(
            [upper, jnp.full_like(upper[:, :, :1], -1.0), upper[:, :, ::-1]], 2
        )
        parts.insert(1, middle)
    phases = math.pi * (jnp.concatenate(parts, axis=3) + 1)
    spectrum = power[None, None] * jax.lax.complex(jnp.cos(phases), jnp.sin(phases))
    spectrum = jnp.roll(spectrum, (half, half), axis=(2, 3))
    fields = jnp.real(jnp.fft.ifft2(spectrum))
    fields = fields / jnp.std(fields, axis=(2, 3), keepdims=True)
    height, width = images.shape[1:3]
    return jnp.moveaxis(fields, 1, 3)[:, :height, :width]


def _distances(images: Images) -> np.ndarray:
    """The distance of each frequency from the middle of the spectrum."""
    side = _side(images.shape)
    from_centre = np.arange(side) - side / 2
    return np.hypot(from_centre[:, None], from_centre[None])


def brownish_noise(draws: Array, images: Images, level: Float[Array, ""]) -> Images:
    """Add coloured noise whose spectrum falls with the square of the frequency."""
    power = 1 / (_distances(images) ** 2 + 1)
    fields = _spectral(draws, images, power.astype(np.complex64))
    return images + level * 6.4 / 255 * _of_channels(images, fields)


def blue_noise_sample(draws: Array, images: Images, level: Float[Array, ""]) -> Images:
    """Set the pixels to black where noise of high frequencies is below a threshold."""
    power = _distances(images).astype(np.complex64)
    fields = _spectral(draws[:, :1], images, power)
    return jnp.where(fields > level * 0.3 - 2.5, images, 0.0)


def draw_board(keys: Keys, shape: Shape, arrays: Any) -> tuple[Uniform, Float[Array, "n a b"]]:
    """Draw angle and cell of the board, and a number for each cell, uniform in (-1, 1)."""
    cells = noise.uniform(prng.fold(keys, 1), (_CELLS, _CELLS))
    return noise.uniform(prng.fold(keys, 0), (2,)), cells


def checkerboard(
    draws: tuple[Uniform, Float[Array, "n a b"]], images: Images, level: Float[Array, ""]
) -> Images:
    """Set a share of the cells of one colour of a turned checkerboard to grey."""
    numbers, cells = draws
    side = _side(images.shape)
    angle = _each(numbers, 0, 0.0, 2 * math.pi)
    cell = jnp.maximum(_each(numbers, 1, 0.1, 0.25) * side, 1.0)
    y, x = _coordinates(images)
    along = (jnp.cos(angle) * y + jnp.sin(angle) * x) / cell
    across = (-jnp.sin(angle) * y + jnp.cos(angle) * x) / cell
    same = jnp.floor(jnp.mod(along, 2.0)) == jnp.floor(jnp.mod(across, 2.0))
    count = jnp.floor(4 * side / cell)

    def place(coordinate: Array) -> Array:
        # Truncated towards 0; negative places count from the end.
        return jnp.mod(jnp.trunc(coordinate), count).astype(jnp.int32)

    index = (place(along) * _CELLS + place(across)).reshape(len(images), -1)
    drawn = jnp.take_along_axis(cells.reshape(len(images), -1), index, axis=1)
    cut = (drawn.reshape(same.shape) + 1) / 2 < level * 0.1
    return jnp.where(same & cut, 128 / 255, images)


def prepare_caustics(level: float, shape: Shape) -> tuple:
    """Return the level, and the smoothing of the caustics as matrices."""
    return np.float32(level), *matrices.gaussian(1.0, shape, "reflect")


def caustics(draws: Uniform, images: Images, arrays: tuple) -> Images:
    """See the image through moving water: light that is focused, and refracted rays."""
    level, rows, columns = arrays
    side = _side(images.shape)
    light = _caustic_light(images, _each(draws, 0, 0.5, 2.0), _each(draws, 1, 0.75, 1.25) * side)
    light = jnp.pad(matrices.separable(light, rows, columns), ((0, 0), (1, 1), (1, 1), (0, 0)))
    down = light[:, 2:, 1:-1] - light[:, :-2, 1:-1]
    right = light[:, 1:-1, 2:] - light[:, 1:-1, :-2]
    # The normal of the surface, and the ray that it refracts (index 4) from above.
    steep = jnp.sqrt(down**2 + right**2)
    length = jnp.sqrt(1 + steep**2)
    sine, cosine = steep / length, 1 / length
    out = jnp.arcsin(sine / 4.0)
    share = (jnp.cos(out) - cosine * jnp.sin(out) / jnp.maximum(sine, 1e-6)) / length
    share = jnp.where(cosine >= 1 - 1e-3, 0.0, share) * level * 0.05 * side
    y, x = _coordinates(images)
    y = y + jnp.round(share * down * 1000) / 1000
    x = x + jnp.round(share * right * 1000) / 1000
    # A black frame: what lies outside of the image is black.
    height, width = images.shape[1:3]
    y, x = jnp.clip(y + 1, 0, height + 1), jnp.clip(x + 1, 0, width + 1)
    frame = ((0, 0), (1, 1), (1, 1), (0, 0))
    framed, y, x = (jnp.pad(each, frame) for each in (images, y, x))
    moved = digital.bilinear(
        framed, y[..., 0], x[..., 0], lambda at, size: jnp.clip(at, 0, size - 1)
    )
    return moved[:, 1:-1, 1:-1] + (down - right) * level * 0.2


def _caustic_light(images: Images, time: Array, size: Array) -> Array:
    """The light that waves focus, from 0 to 1."""
    y, x = _coordinates(images)
    y, x = (jnp.mod(each / size, 1.0) * 6.28318530718 - 250 for each in (y, x))
    first, second, light = *jnp.broadcast_arrays(y, x), jnp.float32(1.0)
    for number in range(5):
        t = time * (1.0 - 3.5 / (number + 1))
        first, second = (
            y + jnp.cos(t - first) + jnp.sin(t + second),
            x + jnp.sin(t - second) + jnp.cos(t + first),
        )
        one, other = (
            y / (jnp.sin(first + t) / 0.005),
            x / (jnp.cos(second + t) / 0.005),
        )
        light = light + 1 / jnp.sqrt(one**2 + other**2)
    return jnp.clip(jnp.abs(1.17 - (light / 5) ** 1.4) ** 8, 0.0, 1.0)
