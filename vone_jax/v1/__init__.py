"""A fixed-weight model of primate primary visual cortex (V1)."""

from vone_jax.v1 import distributions
from vone_jax.v1.block import VOneBlock, VOneBlockConfig, noise_free_responses
from vone_jax.v1.gabor import (
    GaborKernels,
    GaborParameters,
    ImportedBank,
    gabor_kernels,
    sample_gabor_parameters,
    spatial_frequency_histogram,
)
from vone_jax.v1.noise import GaussianNoise, NeuronalNoise, Noise, standard_normal

__all__ = [
    "GaborKernels", "GaborParameters", "GaussianNoise", "ImportedBank", "NeuronalNoise", "Noise",
    "VOneBlock", "VOneBlockConfig", "distributions", "gabor_kernels", "noise_free_responses",
    "sample_gabor_parameters", "spatial_frequency_histogram", "standard_normal",
]  # fmt: skip
