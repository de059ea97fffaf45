"""Severity parameters 1 to 5 of the benchmarks, exactly as their code has them.

"imagenet" is ImageNet-C (224 pixels), "tiny" Tiny-ImageNet-C (64), "cifar" CIFAR-10-C (32).
Reference: Hendrycks and Dietterich, 2019, arXiv:1903.12261, and the code published with it.
"""

TABLES = ("imagenet", "tiny", "cifar")

SEVERITIES = {
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
    # Share of the values that are hit.
    "impulse_noise": {
        "imagenet": (0.03, 0.06, 0.09, 0.17, 0.27),
        "tiny": (0.01, 0.02, 0.05, 0.08, 0.14),
        "cifar": (0.01, 0.02, 0.03, 0.05, 0.07),
    },
    # Standard deviation relative to the value.
    "speckle_noise": {
        "imagenet": (0.15, 0.2, 0.35, 0.45, 0.6),
        "tiny": (0.15, 0.2, 0.25, 0.3, 0.35),
        "cifar": (0.06, 0.1, 0.12, 0.16, 0.2),
    },
    # Radius of the disk and standard deviation of the smoothing of its border, in pixels.
    "defocus_blur": {
        "imagenet": ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
        "tiny": ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        "cifar": ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
    },
    # Standard deviation in pixels.
    "gaussian_blur": {
        "imagenet": (1, 2, 3, 4, 6),
        "tiny": (0.5, 0.75, 1, 1.25, 1.5),
        "cifar": (0.4, 0.6, 0.7, 0.8, 1),
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
    # Size relative to the image.
    "pixelate": {
        "imagenet": (0.6, 0.5, 0.4, 0.3, 0.25),
        "tiny": (0.9, 0.8, 0.7, 0.6, 0.5),
        "cifar": (0.95, 0.9, 0.85, 0.75, 0.65),
    },
}

# Up to which larger side of an image a benchmark's parameters apply. The benchmarks define one
# size each; the borders between them, and with them the use of the CIFAR parameters for 28-pixel
# images, grey ones included, are this project's choice.
_LARGEST_SIDE = (("cifar", 44), ("tiny", 112))


def table_for(height: int, width: int) -> str:
    """The benchmark whose parameters suit an image size in pixels."""
    for table, largest in _LARGEST_SIDE:
        if max(height, width) <= largest:
            return table
    return "imagenet"
