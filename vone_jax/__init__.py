"""VOneNets in JAX: networks with a simulated primary visual cortex in front, and their judges.

``open_network`` and ``Network`` are imported on first use, since the reports need no JAX.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vone_jax.network import Network, open_network

__all__ = ["Network", "open_network"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'vone_jax' has no attribute {name!r}")
    from vone_jax import network

    return getattr(network, name)
