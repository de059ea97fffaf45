"""Fixed-weight models of primate primary visual cortex (V1) and of the stage before it."""

from vone_jax.v1 import distributions
from vone_jax.v1.block import VOneBlock, noise_free_responses
from vone_jax.v1.config import VOneBlockConfig
from vone_jax.v1.divisive import (
    GDN,
    LearnedNormalization,
    OrientedPools,
    divide_by_oriented_pools,
    divide_by_pooled_squares,
)
from vone_jax.v1.gabor import GaborKernels, GaborParameters, ImportedBank, gabor_kernels
from vone_jax.v1.gain_control import GainControl
from vone_jax.v1.learnable import LearnableGabor
from vone_jax.v1.noise import (
    FanoNoise,
    GaussianNoise,
    NeuronalNoise,
    Noise,
    StabilisedNoise,
    standard_normal,
)
from vone_jax.v1.normalization import SurroundNormalization
from vone_jax.v1.sampling import (
    sample_evnet_parameters,
    sample_gabor_parameters,
    spatial_frequency_histogram,
)
from vone_jax.v1.subcortical import (
    M_CELLS,
    P_CELLS,
    LGNCells,
    SubcorticalBlock,
    SubcorticalConfig,
    subcortical_responses,
)

__all__ = [
    "GDN", "M_CELLS", "P_CELLS", "FanoNoise", "GaborKernels", "GaborParameters", "GainControl",
    "GaussianNoise", "ImportedBank", "LGNCells", "LearnableGabor", "LearnedNormalization",
    "NeuronalNoise", "Noise", "OrientedPools", "StabilisedNoise",
    "SubcorticalBlock", "SubcorticalConfig", "SurroundNormalization", "VOneBlock",
    "VOneBlockConfig",    "distributions", "divide_by_oriented_pools",
    "divide_by_pooled_squares", "gabor_kernels", "noise_free_responses",
    "sample_evnet_parameters", "sample_gabor_parameters", "spatial_frequency_histogram",
    "standard_normal", "subcortical_responses",
]  # fmt: skip
