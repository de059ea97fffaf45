"""What V1 cells make of an image: response maps with and without noise."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from vone_jax.report.figures import images
from vone_jax.report.figures.bank import tile

_CELLS_OF_A_KIND = 4
# Cells shown together differ by at least this many degrees of orientation, if the bank allows.
_TURN = 25.0


@dataclasses.dataclass(frozen=True)
class Cell:
    """A V1 channel with its filter and its maps, as data URIs."""

    kind: str
    caption: str
    kernel: str
    clean: str
    noisy: str


def response_maps(arrays: Mapping[str, np.ndarray]) -> list[Cell]:
    """Simple and complex cells from coarse to fine, of several orientations.

    Both maps of a cell share one scale, from 0 to the largest response without noise.

    Args:
      arrays: the arrays of a result of the kind ``v1``.
    """
    clean, noisy = arrays["responses_clean"], arrays["responses_noisy"]
    simple = int(arrays["simple_channels"])
    colors = arrays["image"].shape[-1]
    found = []
    for kind, cells in (
        ("simple", np.arange(simple)),
        ("complex", np.arange(simple, clean.shape[-1])),
    ):
        for i in _chosen(cells, arrays) if len(cells) else []:
            high = float(max(clean[..., i].max(), np.quantile(noisy[..., i], 0.98)))
            kernel = arrays["kernels_in_phase"][i]
            found.append(
                Cell(
                    kind,
                    f"{arrays['sf'][i]:.1f} cycles/°, θ {arrays['theta'][i] % 180:.0f}°",
                    images.data_uri(
                        tile(kernel, np.abs(kernel).max(), arrays["channel"][i], colors)
                    ),
                    images.heat_map(clean[..., i], 0.0, high),
                    images.heat_map(noisy[..., i], 0.0, high),
                )
            )
    return found


def _chosen(cells: np.ndarray, arrays: Mapping[str, np.ndarray]) -> list[int]:
    """From coarse to fine, the cell with the most varied map, each of another orientation."""
    theta = arrays["theta"]
    spread = arrays["responses_clean"][..., cells].reshape(-1, len(cells)).std(axis=0)
    chosen: list[int] = []
    by_frequency = np.argsort(arrays["sf"][cells], kind="stable")
    for band in np.array_split(by_frequency, min(_CELLS_OF_A_KIND, len(cells))):
        order = [int(i) for i in cells[band[np.argsort(-spread[band], kind="stable")]]]
        turned = (
            i
            for i in order
            if all(abs((theta[i] - theta[j] + 90) % 180 - 90) >= _TURN for j in chosen)
        )
        chosen.append(next(turned, order[0]))
    return chosen
