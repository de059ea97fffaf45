"""Fixed-weight models of primate primary visual cortex (V1) and of the stage before it."""

from vone_jax.v1 import distributions
from vone_jax.v1.block import (
    VOneBlock,
    VOneBlockConfig,
    noise_free_cells,
    noise_free_responses,
)
from vone_jax.v1.filter_bank import Cells
from vone_jax.v1.gabor import (
    GaborKernels,
    GaborParameters,
    ImportedBank,
    gabor_kernels,
)
from vone_jax.v1.noise import FanoNoise, GaussianNoise, NeuronalNoise, Noise, standard_normal
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
    "Cells", "M_CELLS", "P_CELLS", "FanoNoise", "GaborKernels", "GaborParameters", "GaussianNoise",
    "ImportedBank", "LGNCells", "NeuronalNoise", "Noise", "SubcorticalBlock", "SubcorticalConfig",
    "SurroundNormalization", "VOneBlock", "VOneBlockConfig", "distributions", "gabor_kernels",
    "noise_free_cells", "noise_free_responses", "sample_evnet_parameters",
    "sample_gabor_parameters", "spatial_frequency_histogram", "standard_normal",
    "subcortical_responses",
]  # fmt: skip
