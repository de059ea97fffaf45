"""A network from anywhere: ``open_network`` makes a ``Network`` of a run, a file or a function.

Evaluation, sweeps and the start of a training take a ``Network`` and do not ask where it is from.
"""

from vone_jax.network.ensembles import ensemble
from vone_jax.network.network import Network, Split
from vone_jax.network.opening import NetworkError, open_network

__all__ = ["Network", "NetworkError", "Split", "ensemble", "open_network"]
