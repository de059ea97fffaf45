"""What a characterisation finds, for people and for files."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from vone_jax.neurophysiology import stimuli
from vone_jax.neurophysiology.comparison import PropertyScore, group_scores
from vone_jax.neurophysiology.display import Display
from vone_jax.neurophysiology.rates import RateMap
from vone_jax.neurophysiology.recording import Site
from vone_jax.neurophysiology.references import PUBLISHED


@dataclasses.dataclass(frozen=True, eq=False)
class Scores(Mapping[str, PropertyScore]):
    """A layer beside V1: a mapping from the 22 properties to their scores, and what is behind them.

    Attributes:
      properties: the scores.
      site: the units, and the part of the images that they were shown.
      rate_map: from activations to spikes per second.
      trials: presentations over which responses were averaged.
      units: row, col and channel of each unit, int64, and the centre of its receptive field in
        degrees below (y) and right (x) of fixation; each (U,).
      per_unit: property -> (U,) for all units; NaN where undefined or where the unit does not
        respond enough to count. Also baseline and min_dc.
      counted: property -> bool (U,), the units that count.
      curves: "orientation" (12, U), "spatial_frequency" (22, U), "size" (12, U): rates in spikes
        per second through each unit's best condition; the last is evoked.
      field_maps: what a small grating at each position (y, x) of
        ``stimuli.RECEPTIVE_FIELD_POSITIONS`` evokes above grey, in activations and without noise,
        float32 (21, 21, U).
    """

    properties: Mapping[str, PropertyScore]
    site: Site
    rate_map: RateMap
    trials: int
    units: Mapping[str, np.ndarray]
    per_unit: Mapping[str, np.ndarray]
    counted: Mapping[str, np.ndarray]
    curves: Mapping[str, np.ndarray]
    field_maps: np.ndarray

    def __getitem__(self, name: str) -> PropertyScore:
        return self.properties[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.properties)

    def __len__(self) -> int:
        return len(self.properties)

    @property
    def display(self) -> Display:
        """What the layer saw."""
        return self.site.display

    @property
    def mean_score(self) -> float:
        """Mean over the 7 properties that can always be scored: one number for a layer."""
        scores = [self.properties[name].score or 0.0 for name in PUBLISHED]
        return sum(scores) / len(scores)

    @property
    def groups(self) -> dict[str, float | None]:
        """Mean score of each group; None where a member could not be scored."""
        return group_scores(self.properties)

    def summary(self) -> dict[str, Any]:
        """Scores, distributions and settings as JSON-able values; no value per unit."""
        return {
            "visual_degrees": self.display.visual_degrees,
            "image_size": self.display.image_size,
            "trials": self.trials,
            "units": len(self.units["channel"]),
            "slope": self.rate_map.slope,
            "offset": self.rate_map.offset,
            "mean_score": self.mean_score,
            "groups": self.groups,
            "properties": {name: score.summary() for name, score in self.properties.items()},
        }

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything per unit under flat names, for ``numpy.savez``.

        Receptive-field maps are relative to their largest value, float16.
        """
        axes = {
            "axis/orientation": stimuli.ORIENTATIONS,
            "axis/spatial_frequency": stimuli.SPATIAL_FREQUENCIES,
            "axis/radius": stimuli.RADII,
            "axis/position": stimuli.RECEPTIVE_FIELD_POSITIONS,
        }
        parts = {
            "unit": self.units,
            "value": self.per_unit,
            "counted": self.counted,
            "curve": self.curves,
        }
        flat = {f"{part}/{name}": a for part, group in parts.items() for name, a in group.items()}
        fields = self.field_maps / self.field_maps.max(axis=(0, 1))
        return axes | flat | {"field/map": fields.astype(np.float16)}

    def __str__(self) -> str:
        row = "{:30}{:>14}{:>8}{:>9}{:>7}{:>9}"
        lines = [row.format("property", "score", "raw", "ceiling", "units", "median")]
        for name, score in self.properties.items():
            outcome = score.status if score.score is None else f"{score.score:.3f}"
            numbers = (score.similarity, score.ceiling, score.units, score.median)
            lines.append(row.format(name, outcome, *(_text(number) for number in numbers)))
        return "\n".join(lines)


def _text(number: float | None) -> str:
    if number is None:
        return ""
    return str(number) if isinstance(number, int) else f"{number:.3g}"
