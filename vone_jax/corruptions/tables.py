"""Parameters of the severities 1 to 5, taken from the code of the benchmarks.

"imagenet" is ImageNet-C (224 pixels), "tiny" Tiny-ImageNet-C (64) and "cifar" CIFAR-10-C (32).
Lengths are pixels at the size of the benchmark. They are not scaled to other sizes.

Reference: Hendrycks and Dietterich, 2019, arXiv:1903.12261, and the code published with it.
"""

import math
from typing import Any

import numpy as np

TABLES = ("imagenet", "tiny", "cifar")


def _scaled(side: int, *parameters: tuple[float, ...]) -> tuple[tuple[float, ...], ...]:
    """Multiply each parameter of each severity by the side of an image."""
    return tuple(tuple(side * n for n in numbers) for numbers in zip(*parameters, strict=True))


PARAMETERS = {
    # Standard deviation.
    "gaussian_noise": {
        "imagenet": (0.08, 0.12, 0.18, 0.26, 0.38),
        "tiny": (0.04, 0.08, 0.12, 0.15, 0.18),
        "cifar": (0.04, 0.06, 0.08, 0.09, 0.10),
    },
    # Photons for a value of 1.
    "shot_noise": {
        "imagenet": (60, 25, 12, 5, 3),
        "tiny": (250, 100, 50, 30, 15),
        "cifar": (500, 250, 100, 75, 50),
    },
    # Share of the values that become 0 or 1.
    "impulse_noise": {
        "imagenet": (0.03, 0.06, 0.09, 0.17, 0.27),
        "tiny": (0.01, 0.02, 0.05, 0.08, 0.14),
        "cifar": (0.01, 0.02, 0.03, 0.05, 0.07),
    },
    # Radius of the disk and standard deviation of the smoothing of its border, in pixels.
    "defocus_blur": {
        "imagenet": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "tiny": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        "cifar": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    },
    # Standard deviation of the blur and largest displacement, in pixels; number of passes.
    "glass_blur": {
        "imagenet": ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
        "tiny": ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        "cifar": ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
    },
    # Radius and standard deviation in pixels.
    "motion_blur": {
        "imagenet": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
        "tiny": ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        "cifar": ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
    },
    # End and step of the zoom factors, which start at 1.
    "zoom_blur": {
        "imagenet": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
        "tiny": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
        "cifar": ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01)),
    },
    # Mean, standard deviation, zoom and threshold of the flakes; radius and standard deviation
    # of their motion, in pixels; share of the image that is not whitened.
    "snow": {
        "imagenet": (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
        "tiny": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
        ),
        "cifar": (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
    },
    # Weights of the image and of the frost.
    "frost": {
        "imagenet": ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
        "tiny": ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        "cifar": ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
    },
    # Amount of fog and decay of its amplitude from one level of the plasma to the next.
    "fog": {
        "imagenet": ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
        "tiny": ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        "cifar": ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
    },
    # Added to the value channel.
    "brightness": {
        "imagenet": (0.1, 0.2, 0.3, 0.4, 0.5),
        "tiny": (0.1, 0.2, 0.3, 0.4, 0.5),
        "cifar": (0.05, 0.1, 0.15, 0.2, 0.3),
    },
    # Factor on the distance from the mean.
    "contrast": {
        "imagenet": (0.4, 0.3, 0.2, 0.1, 0.05),
        "tiny": (0.4, 0.3, 0.2, 0.1, 0.05),
        "cifar": (0.75, 0.5, 0.4, 0.3, 0.15),
    },
    # Amplitude and standard deviation of the displacements, largest move of the three points of
    # the affine map, in pixels. The benchmark multiplies by 244 for images of 224 pixels.
    "elastic_transform": {
        "imagenet": _scaled(
            244,
            (2, 2, 0.05, 0.07, 0.12),
            (0.7, 0.08, 0.01, 0.01, 0.01),
            (0.1, 0.2, 0.02, 0.02, 0.02),
        ),
        "tiny": _scaled(
            64,
            (0, 0.05, 0.1, 0.1, 0.16),
            (0, 0.3, 0.08, 0.03, 0.03),
            (0.08, 0.06, 0.06, 0.03, 0.02),
        ),
        "cifar": _scaled(
            32,
            (0, 0.05, 0.08, 0.1, 0.1),
            (0, 0.2, 0.06, 0.04, 0.03),
            (0.08, 0.07, 0.06, 0.05, 0.03),
        ),
    },
    # Size relative to the image.
    "pixelate": {
        "imagenet": (0.6, 0.5, 0.4, 0.3, 0.25),
        "tiny": (0.9, 0.8, 0.7, 0.6, 0.5),
        "cifar": (0.95, 0.9, 0.85, 0.75, 0.65),
    },
    # Quality.
    "jpeg_compression": {
        "imagenet": (25, 18, 15, 10, 7),
        "tiny": (65, 58, 50, 40, 25),
        "cifar": (80, 65, 58, 50, 40),
    },
    # Standard deviation relative to the value.
    "speckle_noise": {
        "imagenet": (0.15, 0.2, 0.35, 0.45, 0.6),
        "tiny": (0.15, 0.2, 0.25, 0.3, 0.35),
        "cifar": (0.06, 0.1, 0.12, 0.16, 0.2),
    },
    # Standard deviation in pixels.
    "gaussian_blur": {
        "imagenet": (1, 2, 3, 4, 6),
        "tiny": (0.5, 0.75, 1, 1.25, 1.5),
        "cifar": (0.4, 0.6, 0.7, 0.8, 1),
    },
    # Mean, standard deviation, smoothing in pixels and threshold of the liquid; strength of
    # water or smoothing of mud; 0 for water, 1 for mud.
    "spatter": {
        "imagenet": (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
        "tiny": (
            (0.62, 0.1, 0.7, 0.7, 0.6, 0),
            (0.65, 0.1, 0.8, 0.7, 0.6, 0),
            (0.65, 0.3, 1, 0.69, 0.6, 0),
            (0.65, 0.1, 0.7, 0.68, 0.6, 1),
            (0.65, 0.1, 0.5, 0.67, 0.6, 1),
        ),
        "cifar": (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
    },
    # Factor on the saturation, and the number that is added to the product.
    "saturate": {
        "imagenet": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
        "tiny": ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
        "cifar": ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
    },
}
PARAMETERS["frost_procedural"] = PARAMETERS["frost"]

# Levels of ImageNet-C-bar. Its lengths are shares of the side, so they serve all sizes.
_LEVELS = {
    "single_frequency_greyscale": (1.0, 1.5, 2.0, 4.5, 5.0),
    "cocentric_sine_waves": (3.0, 5.0, 8.0, 9.0, 10.0),
    "plasma_noise": (4.75, 7.0, 8.5, 9.25, 10.0),
    "sparkles": (1.0, 2.0, 3.0, 5.0, 6.0),
    "inverse_sparkles": (1.0, 2.0, 4.0, 9.0, 10.0),
    "perlin_noise": (4.6, 5.2, 5.8, 7.6, 8.8),
    "brownish_noise": (1.0, 2.0, 3.0, 4.0, 5.0),
    "blue_noise_sample": (0.8, 1.6, 2.4, 4.0, 5.6),
    "checkerboard_cutout": (2.0, 3.0, 4.0, 5.0, 6.0),
    "caustic_refraction": (2.35, 3.2, 4.9, 6.6, 9.15),
}
PARAMETERS |= {name: dict.fromkeys(TABLES, of_name) for name, of_name in _LEVELS.items()}

# Corruptions whose parameters are amplitudes, shares or weights. Their formulas take any numbers
# between those of two severities, and the steps between severities are small. The parameters of the
# others are counts, lengths in whole pixels, or do not rise or fall with the severity.
CONTINUOUS = (
    "gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "gaussian_blur", "frost",
    "frost_procedural", "fog", "brightness", "contrast", *_LEVELS,
)  # fmt: skip

# Size of the frost photographs, relative to their files.
FROST_SCALE = {"imagenet": 1.0, "tiny": 0.3, "cifar": 0.2}

# The longest side of an image, in pixels, up to which the parameters of a benchmark are used. Each
# benchmark defines one size only. The limits are this project's choice, and so is the use of the
# CIFAR parameters for grey images and for images of 28 pixels.
_LARGEST_SIDE = (("cifar", 44), ("tiny", 112))


def parameters(name: str, table: str, severity: int | float) -> Any:
    """Return the parameters of a corruption at a severity from 1 to 5.

    Between two severities, each parameter is interpolated linearly.
    """
    below, above = math.floor(severity), math.ceil(severity)
    low, high = (PARAMETERS[name][table][number - 1] for number in (below, above))
    if below == above:
        return low
    part, shape = severity - below, np.shape(low)
    between = (1 - part) * np.asarray(low) + part * np.asarray(high)
    return tuple(between.tolist()) if shape else float(between)


def table_for(height: int, width: int) -> str:
    """Return the table for images of a size in pixels."""
    for table, largest in _LARGEST_SIDE:
        if max(height, width) <= largest:
            return table
    return "imagenet"
