"""The condition ``FrontEnd``: V1 of a VOneNet, for a picture."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from vone_jax import prng, v1
from vone_jax.evaluation.conditions import Condition, Numbers
from vone_jax.evaluation.judging import Batch
from vone_jax.network import Network


@dataclasses.dataclass(frozen=True)
class FrontEnd(Condition):
    """The Gabor bank of a VOneNet and its responses to the first example, as arrays."""

    by_example: ClassVar[bool] = False
    examples: ClassVar[int | None] = 1
    row: ClassVar[dict[str, Any]] = {"condition": "front end"}

    def check(self, network: Network) -> None:
        if network.v1 is None:
            raise ValueError(f"suite v1 is for VOneNets, {network.name} has no V1")

    def make(self, batch: Batch) -> dict[str, Any]:
        config = batch.network.v1
        bank, kernels = config.gabor_parameters(), config.gabor_kernels()
        keys = prng.fold(batch.keys("judge"), 0)
        call = jax.jit(lambda response_fn, *inputs: response_fn(*inputs))
        quiet, noisy = (
            call(each.response_fn("v1"), keys, batch.images)[0]
            for each in (batch.network.quiet(), batch.network)
        )
        return {
            "kernels_in_phase": kernels.in_phase,
            "kernels_quadrature": kernels.quadrature,
            **{name: getattr(bank, name) for name in ("sf", "theta", "phase", "nx", "ny")},
            "channel": bank.channel,
            "image": batch.images[0],
            "responses_clean": quiet,
            "responses_noisy": noisy,
            "simple_channels": np.int64(config.simple_channels),
            "pixels_per_degree": np.float64(config.pixels_per_degree),
            **_published(config),
        }

    def numbers(self, arrays: Mapping[str, np.ndarray]) -> Numbers:
        return Numbers([])


def _published(config: v1.VOneBlockConfig) -> dict[str, np.ndarray]:
    """The published histograms, over the spatial frequencies of the block's configuration."""
    measured = "physiological" if config.distribution == "uniform" else config.distribution
    known = v1.distributions
    nx, ny = known.SIZE_X, known.SIZE_Y
    if measured.startswith("evnet"):
        nx, ny = known.EVNET_SIZE_X, known.EVNET_SIZE_Y
    histograms = {
        "sf": v1.spatial_frequency_histogram(measured, config.sf_min, config.sf_max),
        "theta": known.ORIENTATION,
        "nx": nx,
        "ny": ny,
    }
    arrays = {}
    for name, histogram in histograms.items():
        arrays[f"published_{name}_edges"] = np.asarray(histogram.edges)
        arrays[f"published_{name}_weights"] = np.asarray(histogram.weights)
    return arrays
