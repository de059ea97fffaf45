"""Trained networks of any origin: ``open_network`` makes a ``Network`` of a run, file or function.

Evaluation, sweeps and initial weights take any ``Network``, whatever its origin.
"""

from vone_jax.network.ensembles import ensemble
from vone_jax.network.network import Network, Split
from vone_jax.network.opening import NetworkError, open_network
from vone_jax.network.pytorch import of_torch

__all__ = ["Network", "NetworkError", "Split", "ensemble", "of_torch", "open_network"]
