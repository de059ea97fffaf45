"""The condition ``FourierMap``: the error rate under a grating of each spatial frequency."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import numpy as np

from vone_jax import arguments, diagnostics, results
from vone_jax.arguments import Range
from vone_jax.evaluation.condition import Condition, Numbers, fields_of_row, number
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.judging import Batch
from vone_jax.network import Network


@dataclasses.dataclass(frozen=True)
class FourierMap(Condition):
    """The Fourier heat map of Yin et al. (2019), see ``diagnostics.fourier_map``.

    Attributes:
      l2: L2 norm of the grating on a channel, in pixel units.
      size: number of frequencies along each axis, odd.
    """

    section = "Errors over spatial frequency"
    long: ClassVar[bool] = True

    l2: Annotated[float, Range(above=True)] = 4.0
    size: int = 31

    def __post_init__(self):
        arguments.fields(self)

    def row(self) -> dict[str, Any]:
        own = fields_of_row(self, "l2")
        return {"condition": "fourier map", "norm": "l2", "eps": self.l2, **own}

    def check(self, network: Network) -> None:
        super().check(network)
        diagnostics.fourier_basis(*network.image_shape[:2], self.size)

    def make(self, batch: Batch) -> dict[str, jax.Array | np.ndarray]:
        keys, classifier = batch.keys("judge"), batch.classifier()
        wrong = diagnostics.fourier_map(
            keys, classifier, batch.images, batch.labels, self.l2, self.size
        )
        # Logits that are not finite are found in the loss, and not counted as wrong.
        return {"wrong": wrong, "loss": batch.judge(batch.images)["loss"]}

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        errors = arrays["wrong"].mean(axis=0, dtype=np.float64)
        # The centre is a change of brightness.
        gratings = np.delete(arrays["wrong"].reshape(len(arrays["wrong"]), -1), errors.size // 2, 1)
        return Numbers([number("mean error", of=gratings.astype(bool))], [_heat_map(errors)])


def _heat_map(errors: np.ndarray) -> results.Chart:
    """The error rate under a grating of each spatial frequency, with frequency 0 in the centre."""
    import altair as alt

    middle = len(errors) // 2
    rows = [
        {"down": down - middle, "across": across - middle, "error": round(float(error), 4)}
        for (down, across), error in np.ndenumerate(errors)
    ]
    axis = alt.Axis(labelOverlap=True, tickCount=5)
    scale = alt.Scale(scheme="viridis", domain=[0, 1])
    chart = (
        alt.Chart(alt.InlineData(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("across:O", title="cycles per image, along rows", axis=axis),
            y=alt.Y("down:O", title="along columns", axis=axis),
            color=alt.Color("error:Q", scale=scale, legend=alt.Legend(format="%", title="error")),
            tooltip=["down:O", "across:O", alt.Tooltip("error:Q", format=".1%")],
        )
        .properties(width="container", height=260)
    )
    about = (
        "The error rate under a full-field grating of each frequency. The centre is a change of "
        "brightness."
    )
    return results.Chart(chart.to_dict(validate=False), about=about)


def fourier(evaluation: Evaluation) -> list[Condition]:
    """the Fourier heat map of the error of Yin et al. (2019), with their change (2,000)"""
    side = min(evaluation.network.image_shape[:2])
    if side < 64:
        return [FourierMap(side / 8, min(31, side - 1 + side % 2))]
    return [FourierMap(15.7 * side / 224, 63)]


SUITES = {"fourier": fourier}
