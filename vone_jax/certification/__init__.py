"""Proofs from V1's own noise: certificates, what an ideal observer detects, and calibration."""

from vone_jax.certification.bounds import displacements, sensitivity
from vone_jax.certification.calibration import Calibration, measure_calibration
from vone_jax.certification.certificates import (
    Certificates,
    NoisyClassifier,
    certify,
    from_function,
    from_model,
    smooth_pixels,
)
from vone_jax.certification.fourier import fourier_basis, fourier_map
from vone_jax.certification.local import local_sensitivity
from vone_jax.certification.observer import detectability, information
from vone_jax.certification.vision import (
    CertifiedContrast,
    Eigendistortions,
    certified_contrast,
    eigendistortions,
)

__all__ = [
    "Calibration", "Certificates", "CertifiedContrast", "Eigendistortions", "NoisyClassifier",
    "certified_contrast", "certify", "detectability", "displacements", "eigendistortions",
    "fourier_basis", "fourier_map", "from_function", "from_model", "information",
    "local_sensitivity", "measure_calibration", "sensitivity", "smooth_pixels",
]  # fmt: skip
