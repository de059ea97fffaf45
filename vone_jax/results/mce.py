"""Summaries of errors under the 15 common corruptions: the mean corruption error, and its parts.

Errors are shares from 0 to 1: ``errors[name][severity]`` for exactly the 15 corruptions
``names.COMMON_CORRUPTIONS`` and the severities 1 to 5. Summaries are in percent.

Reference: Hendrycks and Dietterich, 2019, arXiv:1903.12261, section 4.2.
"""

import statistics
from collections.abc import Mapping

from vone_jax import arguments
from vone_jax.names import COMMON_CORRUPTIONS, SEVERITIES

Errors = Mapping[str, Mapping[int, float]]

# The errors of AlexNet on ImageNet-C, mean over the severities, and on ImageNet. They are published
# with AugMix (Hendrycks et al., 2020, arXiv:1912.02781). For other image sets there are none.
ALEXNET_ERRORS = {
    "gaussian_noise": 0.886428,
    "shot_noise": 0.894468,
    "impulse_noise": 0.922640,
    "defocus_blur": 0.819880,
    "glass_blur": 0.826268,
    "motion_blur": 0.785948,
    "zoom_blur": 0.798360,
    "snow": 0.866816,
    "frost": 0.826572,
    "fog": 0.819324,
    "brightness": 0.564592,
    "contrast": 0.853204,
    "elastic_transform": 0.646056,
    "pixelate": 0.717840,
    "jpeg_compression": 0.606500,
}
ALEXNET_CLEAN_ERROR = 0.4348


def corruption_errors(errors: Errors, clean_error: float | None = None) -> dict[str, float]:
    """Return CE of each corruption: its error summed over severities, in percent of AlexNet's.

    With the error on clean images it is relative CE: the increase over this error, in percent of
    AlexNet's increase.

    Raises:
      ValueError: unless ``errors`` has exactly the 15 x 5 errors, each from 0 to 1, and
        ``clean_error`` is from 0 to 1.
    """
    ours, alexnet = 0.0, 0.0
    if clean_error is not None:
        arguments.number("clean_error", clean_error, arguments.SHARE)
        ours, alexnet = clean_error, ALEXNET_CLEAN_ERROR
    return {
        name: 100 * (mean - ours) / (ALEXNET_ERRORS[name] - alexnet)
        for name, mean in _means(errors).items()
    }


def mean_corruption_error(errors: Errors, clean_error: float | None = None) -> float:
    """Return mCE, the mean of the 15 CE, in percent; with a clean error it is relative mCE."""
    return statistics.fmean(corruption_errors(errors, clean_error).values())


def _means(errors: Errors) -> dict[str, float]:
    """Check the errors and return the mean over severities of each corruption, in order."""
    for name in errors:
        arguments.choice("errors", name, COMMON_CORRUPTIONS)
    if missing := [name for name in COMMON_CORRUPTIONS if name not in errors]:
        raise ValueError(f"errors lacks {', '.join(missing)} of the 15 common corruptions")
    for name, of in errors.items():
        if sorted(of) != list(SEVERITIES):
            raise ValueError(f"errors[{name!r}] must have the severities 1 to 5, got {list(of)}")
        for severity, error in of.items():
            arguments.number(f"errors[{name!r}][{severity}]", error, arguments.SHARE)
    return {name: statistics.fmean(errors[name].values()) for name in COMMON_CORRUPTIONS}
