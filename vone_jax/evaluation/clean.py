"""The condition ``Clean``: the images as they are, with calibration, classes and mistakes."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from vone_jax import diagnostics, results
from vone_jax.evaluation.attacked import guessing
from vone_jax.evaluation.condition import Judged, Number, Numbers, accuracy_numbers, number
from vone_jax.evaluation.judging import Batch
from vone_jax.results import View

# A chart of more classes would be unreadable; the confusions that are most frequent are listed.
_MOST_CLASSES = 30
_CONFUSIONS = 10


@dataclasses.dataclass(frozen=True)
class Clean(Judged):
    """The images as they are."""

    section = "Clean images"

    def perturb(self, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        return batch.images, {}

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        measured = [*accuracy_numbers(arrays), *_calibration(arrays["scores"])]
        views: list[View] = [
            results.Lines(
                "calibration error", "averaged draws", section="Calibration",
                about="How well the probabilities agree with the labels, if they are averaged over "
                "noise draws. The calibration error has 15 bins; entropies are in nats.",
            )
        ]  # fmt: skip
        names, label = evaluation.class_names, arrays["label"]
        known = np.unique(label)

        def name(each: int) -> str:
            return names[each] if each < len(names) else str(each)

        chance = [guessing(evaluation)]
        if len(known) < 2:
            return Numbers(measured, views, chance)
        right = arrays["right"]
        for each in known:
            column: dict[str, Any] = {"class": name(int(each))}
            of = right[label == each]
            measured.append(number("accuracy of a class", of=of, section="Classes", **column))
        places = results.confident_mistakes(arrays)
        views += _confusion(label, arrays["predicted"], name)
        confidence = arrays["scores"][places, -1, results.CONFIDENCE]
        told = zip(label[places], arrays["predicted"][places], confidence, places, strict=True)
        captions = tuple(
            f"{name(int(true))} taken for {name(int(taken))} with {sure:.1%}, "
            f"image {arrays['index'][place]}"
            for true, taken, sure, place in told
        )
        if not captions:
            return Numbers(measured, views, chance)
        views.append(results.Pictures(("mistakes",), captions, "Most confident mistakes",
                                      section="Classes"))  # fmt: skip
        mistakes = {"mistakes": evaluation.prepared(self, places)}
        return Numbers(measured, views, chance, arrays=mistakes)


def _calibration(scores: np.ndarray) -> Iterator[Number]:
    """The numbers of the calibration for each number of averaged draws."""
    found = diagnostics.summarise_scores(scores)
    for name, values in (
        ("calibration error", found.calibration_error),
        ("negative log likelihood", found.negative_log_likelihood),
        ("Brier score", found.brier),
        ("entropy from noise", found.noise_entropy),
    ):
        for draws, value in zip(found.draws.tolist(), values, strict=True):
            yield number(name, float(value), section="Calibration", **{"averaged draws": draws})


def _confusion(label: np.ndarray, predicted: np.ndarray, name: Any) -> Iterator[View]:
    """The numbers of images of each true and predicted class."""
    import altair as alt

    pairs, counts = np.unique(np.stack([label, predicted]), axis=1, return_counts=True)
    cells = [
        {"true": name(true), "predicted": name(taken), "images": int(count)}
        for (true, taken), count in zip(pairs.T.tolist(), counts, strict=True)
    ]
    wrong = sorted((c for c in cells if c["true"] != c["predicted"]), key=lambda c: -c["images"])
    listed = ", ".join(
        f"{c['true']} taken for {c['predicted']} ({c['images']})" for c in wrong[:_CONFUSIONS]
    )
    told = f"Images of each class and what they were taken for. Most frequent: {listed}."
    about = (
        "Clean images. The accuracy of a class is over its images and all decisions. Predictions "
        "and confidences are from probabilities that are averaged over noise draws."
    )
    order = [name(each) for each in np.union1d(label, predicted).tolist()]
    if len(order) > _MOST_CLASSES:
        cells, order = (
            wrong[:_CONFUSIONS],
            list({c[n]: 0 for c in wrong[:_CONFUSIONS] for n in ("true", "predicted")}),
        )
    base = alt.Chart(alt.InlineData(values=cells)).encode(
        x=alt.X("predicted:N", sort=order, title="predicted class", axis=alt.Axis(labelAngle=-40)),
        y=alt.Y("true:N", sort=order, title="true class"),
        tooltip=["true:N", "predicted:N", "images:Q"],
    )
    most = max((c["images"] for c in cells), default=1)
    # The scale is that of square roots, so half of its colours lie below a quarter.
    dark = alt.condition(alt.datum.images > most / 3, alt.value("white"), alt.value("black"))
    squares = base.mark_rect().encode(
        color=alt.Color(
            "images:Q", legend=None,
            scale=alt.Scale(scheme="blues", type="sqrt", domain=[0, most]),
        )
    )  # fmt: skip
    text = base.mark_text(fontSize=10).encode(text="images:Q", color=dark)
    chart = alt.LayerChart(layer=[squares, text])
    chart = chart.properties(width="container", height=22 * len(order) + 40)
    yield results.Chart(chart.to_dict(validate=False), told, about, "Classes")


def clean(evaluation: Any) -> list[Clean]:
    """the images as they are (10; 1 without noise)"""
    return [Clean()]


SUITES = {"clean": clean}
