"""Classes on clean images: the accuracy of each, what it is confused with, confident mistakes."""

from typing import Any

import altair as alt
import numpy as np

from vone_jax import results
from vone_jax.report.charts import chart_of
from vone_jax.report.images import photograph
from vone_jax.report.tables import is_main
from vone_jax.results import Result, Runs, statistics

# A table of more classes would be unreadable, so the confusions that are most frequent are listed.
_MOST_CLASSES = 30
_CONFUSIONS = 10
_NEEDED = {"label", "predicted", "right", "scores", "kept"}


def classes(runs: Runs) -> list[dict[str, Any]]:
    """The classes of each network that was measured on clean images of several classes."""
    found = []
    for run in runs:
        measured = [each for each in run.of("clean") if _NEEDED <= each.arrays.keys()]
        for result in [each for each in measured if is_main(each.row)] or measured:
            if len(np.unique(result.arrays["label"])) > 1:
                found.append({"run": run, "result": result, **_of(result)})
    return found


def _of(result: Result) -> dict[str, Any]:
    arrays = dict(result.arrays)
    label, predicted, right, index = (arrays[n] for n in ("label", "predicted", "right", "index"))
    images = dict(zip(arrays["kept"].tolist(), arrays["original"], strict=True))
    name = result.class_name
    known = np.unique(label)
    pairs, counts = np.unique(np.stack([label, predicted]), axis=1, return_counts=True)
    rows = [
        {"true": name(true), "predicted": name(taken), "images": int(count)}
        for (true, taken), count in zip(pairs.T.tolist(), counts, strict=True)
    ]
    order = [name(number) for number in np.union1d(known, predicted).tolist()]
    confidence = arrays["scores"][:, -1, statistics.CONFIDENCE]
    confused = [row for row in rows if row["true"] != row["predicted"]]
    return {
        "accuracies": sorted(
            ((name(each), results.accuracy(right[label == each])) for each in known.tolist()),
            key=lambda pair: pair[1].value,
        ),
        "chart": _chart(rows, order) if len(order) <= _MOST_CLASSES else None,
        "confusions": sorted(confused, key=lambda row: -row["images"])[:_CONFUSIONS],
        "mistakes": [
            {"index": int(index[i]), "true": name(int(label[i])),
             "predicted": name(int(predicted[i])), "confidence": float(confidence[i]),
             "uri": photograph(images[int(index[i])])}
            for i in results.confident_mistakes(arrays)
        ],
    }  # fmt: skip


def _chart(rows: list[dict[str, Any]], order: list[str]) -> alt.LayerChart:
    """The numbers of images of each true and predicted class."""
    base = chart_of(rows).encode(
        x=alt.X("predicted:N", sort=order, title="predicted class", axis=alt.Axis(labelAngle=-40)),
        y=alt.Y("true:N", sort=order, title="true class"),
        tooltip=["true:N", "predicted:N", "images:Q"],
    )
    cells = base.mark_rect().encode(
        color=alt.Color("images:Q", scale=alt.Scale(scheme="blues", type="sqrt"), legend=None)
    )
    most = max(row["images"] for row in rows)
    dark = alt.condition(alt.datum.images > most / 3, alt.value("white"), alt.value("black"))
    text = base.mark_text(fontSize=10).encode(text="images:Q", color=dark)
    return alt.LayerChart(layer=[cells, text]).properties(height=22 * len(order) + 40)
