"""The names that all packages share: norms, step sizes, corruptions and commands.

This module imports only the standard library, so that reports and data frames can use it without
JAX.
"""

import sys
from pathlib import Path

# In the order in which tables and figures show them.
NORMS = ("linf", "l2", "l1")
NORM_LABELS = {"linf": "L∞", "l2": "L2", "l1": "L1"}

# Step sizes of PGD by name, from the radius and the number of steps. The first is Madry's. The
# VOneNet authors published code with each of the others, whose 64 steps add up to 2 eps and 16 eps.
STEP_RULES = {
    "2.5*eps/steps": lambda eps, steps: 2.5 * eps / steps,
    "eps/32": lambda eps, steps: eps / 32,
    "eps/4": lambda eps, steps: eps / 4,
    "eps/steps": lambda eps, steps: eps / steps,
}

# The 15 common corruptions of ImageNet-C by category (Hendrycks and Dietterich, 2019,
# arXiv:1903.12261), and its four extra ones.
CORRUPTION_CATEGORIES = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
# The 15 corruptions that are compared.
COMMON_CORRUPTIONS = tuple(name for each in CORRUPTION_CATEGORIES.values() for name in each)
EXTRA_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
# ImageNet-C-bar (Mintun et al. 2021), spelled as published.
C_BAR_CORRUPTIONS = (
    "single_frequency_greyscale", "cocentric_sine_waves", "plasma_noise", "sparkles",
    "inverse_sparkles", "perlin_noise", "brownish_noise", "blue_noise_sample",
    "checkerboard_cutout", "caustic_refraction",
)  # fmt: skip
# Stands in for "frost" where its photographs are not at hand.
PROCEDURAL_FROST = "frost_procedural"
SEVERITIES = (1, 2, 3, 4, 5)


def category(corruption: str) -> str:
    """The category of a corruption: one of the four of ImageNet-C, or the set of others."""
    if corruption == PROCEDURAL_FROST:
        return "weather"
    sets = {**CORRUPTION_CATEGORIES, "extra corruptions of ImageNet-C": EXTRA_CORRUPTIONS}
    sets["ImageNet-C-bar"] = C_BAR_CORRUPTIONS
    return next((name for name, members in sets.items() if corruption in members), "others")


# Precisions of float32 matrix products and convolutions: on a TPU 1, 3 and 6 passes of bfloat16, on
# a GPU TF32, TF32 and float32. A CPU always uses float32.
MATMUL_PRECISIONS = ("default", "high", "highest")

# The data set of 20 photographs of ImageNet, see ``vone_jax.data``.
DEMO = "demo"


def eps_label(norm: str, eps: float) -> str:
    """A radius in pixel units as papers write it.

    A radius in L-infinity that is a fraction such as 4/255 or 1/1020 becomes ``"4/255"`` or
    ``"1/1020"``. Any other radius is a number with four digits.
    """
    if norm == "linf" and eps > 0:
        levels = 255 * eps
        if levels >= 1 and abs(levels - round(levels)) < 1e-6 * levels:
            return f"{round(levels)}/255"
        share = 1 / eps
        if levels < 1 and share < 1e9 and abs(share - round(share)) < 1e-6 * share:
            return f"1/{round(share)}"
    return f"{eps:.4g}"


def installed() -> bool:
    """Return True where users call the installed commands, and False in a checkout."""
    # "python -m" runs without a name of its own, in a checkout and in a wheel.
    checkout = (Path(__file__).parents[1] / "eval.py").exists()
    return not checkout or Path(sys.argv[0]).name.startswith("vone-")


def command(script: str) -> str:
    """Return the call of a script: ``python eval.py``, or ``vone-eval`` where it is installed."""
    return f"vone-{script.removesuffix('.py')}" if installed() else f"python {script}"
