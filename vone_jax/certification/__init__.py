"""Proofs from V1's own noise: certificates, and what an ideal observer of V1 detects."""

from vone_jax.certification.bounds import displacements, sensitivity
from vone_jax.certification.certificates import (
    Certificates,
    NoisyClassifier,
    certify,
    from_function,
    from_model,
    smooth_pixels,
)
from vone_jax.certification.discriminability import Discriminability
from vone_jax.certification.local import local_sensitivity
from vone_jax.certification.observer import detectability, information

__all__ = [
    "Certificates", "Discriminability", "NoisyClassifier", "certify", "detectability",
    "displacements", "from_function", "from_model", "information", "local_sensitivity",
    "sensitivity", "smooth_pixels",
]  # fmt: skip
