"""VOneNets in JAX: networks with a simulated primary visual cortex in front, and their evaluation.

The packages, ``open_network`` and ``Network`` are imported on first use, so that importing
``vone_jax`` is quick and reports need no JAX.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vone_jax import (
        answer_key,
        attacks,
        certification,
        convert,
        corruptions,
        data,
        diagnostics,
        evaluation,
        fast,
        front_ends,
        mesh,
        models,
        network,
        neurophysiology,
        perception,
        prng,
        report,
        results,
        sweep,
        training,
        v1,
    )
    from vone_jax.network import Network, open_network

    __version__: str

__all__ = [
    "Network",
    "__version__",
    "answer_key",
    "attacks",
    "certification",
    "convert",
    "corruptions",
    "data",
    "diagnostics",
    "evaluation",
    "fast",
    "front_ends",
    "mesh",
    "models",
    "network",
    "neurophysiology",
    "open_network",
    "perception",
    "prng",
    "report",
    "results",
    "sweep",
    "training",
    "v1",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("vone-jax")
    if name in ("Network", "open_network"):
        return getattr(importlib.import_module("vone_jax.network"), name)
    if name in __all__:
        return importlib.import_module(f"vone_jax.{name}")
    raise AttributeError(f"module 'vone_jax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
