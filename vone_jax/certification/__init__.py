"""Proofs from V1's own noise: how far images move V1, and what an ideal observer detects."""

from vone_jax.certification.bounds import displacements, sensitivity
from vone_jax.certification.local import local_sensitivity
from vone_jax.certification.observer import detectability, information

__all__ = [
    "detectability", "displacements", "information", "local_sensitivity", "sensitivity"
]  # fmt: skip
