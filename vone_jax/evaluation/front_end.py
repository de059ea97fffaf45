"""The condition ``FrontEnd``: V1 of a VOneNet, for a picture."""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np

from vone_jax import dataclass_json, prng, v1
from vone_jax.evaluation.conditions import Condition, Summary
from vone_jax.evaluation.judging import Protocol, Trial
from vone_jax.network import Network


@dataclasses.dataclass(frozen=True)
class FrontEnd(Condition):
    """The Gabor bank of a VOneNet and its responses to the first example, as arrays."""

    by_example: ClassVar[bool] = False
    limit: ClassVar[int | None] = 1
    name: ClassVar[str] = "v1"
    label: ClassVar[str] = "kernels and responses of V1"

    def check(self, network: Network) -> None:
        if network.v1 is None:
            raise ValueError(f"suite v1 is for VOneNets, {network.name} has no V1")

    def context(self, network: Network) -> dict[str, Any]:
        return {"protocol": dataclass_json.encode(Protocol("none", 1))}

    def measure(self, trial: Trial) -> dict[str, Any]:
        config = trial.network.v1
        bank, kernels = config.gabor_parameters(), config.gabor_kernels()
        keys = prng.fold(trial.keys("judge"), 0)
        call = jax.jit(lambda response_fn, *inputs: response_fn(*inputs))
        quiet, noisy = (
            call(each.response_fn("v1"), keys, trial.images)[0]
            for each in (trial.network.quiet(), trial.network)
        )
        return {
            "kernels_in_phase": kernels.in_phase,
            "kernels_quadrature": kernels.quadrature,
            **{name: getattr(bank, name) for name in ("sf", "theta", "phase", "nx", "ny")},
            "channel": bank.channel,
            "image": trial.images[0],
            "responses_clean": quiet,
            "responses_noisy": noisy,
            "simple_channels": np.int64(config.simple_channels),
            "pixels_per_degree": np.float64(config.pixels_per_degree),
            **_published(config),
        }

    def summary(self, arrays: Mapping[str, np.ndarray]) -> Summary:
        return Summary({})


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
