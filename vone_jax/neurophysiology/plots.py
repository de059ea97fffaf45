"""Charts of a scored layer, by Vega-Altair. The page of a report has the same ones."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from vone_jax.neurophysiology.comparison import PropertyScore
from vone_jax.neurophysiology.explained_variance import ExplainedVariance
from vone_jax.neurophysiology.score import Scores

_WIDTH = 320


def plot_tuning(scores: Scores, curve: str = "orientation", units: Sequence[int] = ()) -> Any:
    """Tuning curves of units, each divided by its largest value, as an ``altair.Chart``.

    Args:
      scores: of a layer, see ``score``.
      curve: "orientation", "spatial_frequency", or "size", over diameters.
      units: positions of units. Default: four, spread over the preferred spatial frequencies.
    """
    # Altair takes half a second to import.
    from vone_jax.report import layer_charts

    return layer_charts.tuning(scores.arrays(), curve, units).properties(width=_WIDTH)


def plot_receptive_fields(scores: Scores, units: Sequence[int] = ()) -> Any:
    """Receptive-field maps of units, each divided by its largest value, as a chart.

    Args:
      scores: of a layer, see ``score``.
      units: positions of units. Default: those of ``plot_tuning``.
    """
    from vone_jax.report import layer_charts

    return layer_charts.receptive_fields(scores.arrays(), units)


def plot_explained_variance(found: ExplainedVariance) -> Any:
    """The correlation of each neuron with its prediction against its reliability, as a chart.

    Both are means over splits. Neurons without one are left out.
    """
    from vone_jax.report import layer_charts

    with warnings.catch_warnings():
        # A neuron may be constant in every split.
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        r, reliability = (np.nanmean(x, axis=0) for x in (found.correlations, found.reliabilities))
    return layer_charts.explained(r, reliability).properties(width=_WIDTH)


def plot_property(score: PropertyScore) -> Any:
    """The distribution of a property beside that of neurons of macaque V1, as a chart.

    Args:
      score: of a property that was scored, such as ``scores["pref_or"]``.
    """
    from vone_jax.report import layer_charts

    if score.distribution is None or score.reference_distribution is None:
        raise ValueError(f"{score.label} must be a scored property, it is {score.status!r}")
    shares = {"neurons of macaque V1": score.reference_distribution, "units": score.distribution}
    title = f"{score.label}, {score.unit}" if score.unit else score.label
    return layer_charts.property_histogram(title, score.edges, shares).properties(width=_WIDTH)
