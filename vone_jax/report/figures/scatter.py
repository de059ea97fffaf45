"""A scatter plot of networks as files of its own."""

import io

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from vone_jax.report.v1_match import Match
from vone_jax.report.wording import NORM_NAMES

FORMATS = ("png", "svg")


def v1_match(found: Match, form: str) -> bytes:
    """V1 match against robust accuracy, a point with its interval and name for each network.

    Networks with the same front end have one V1 match, so names stand in a column beside the plot,
    in the order of the accuracies, each with a line to its point.

    Args:
      found: the networks.
      form: one of ``FORMATS``.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.hashsalt": "vone_jax", "text.parse_math": False})
        count = len(found.points)
        figure = Figure(figsize=(7.2, max(4.4, 0.18 * count)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        x = [point.match for point in found.points]
        y = np.array([point.robust for point in found.points])
        ends = np.array([point.interval for point in found.points])
        # Where images are not known there is no interval, and no bar.
        bars = np.nan_to_num(np.abs(ends.T - y))
        axes.errorbar(x, y, yerr=bars, fmt="o", capsize=2, elinewidth=0.8)
        upwards = sorted(found.points, key=lambda point: point.robust)
        for height, point in zip(np.linspace(0, 1, count), upwards, strict=True):
            axes.annotate(
                point.name,
                (point.match, point.robust),
                xytext=(1.03, height),
                textcoords="axes fraction",
                va="center",
                fontsize=7,
                arrowprops={
                    "arrowstyle": "-",
                    "relpos": (0, 0.5),
                    "linewidth": 0.4,
                    "color": "0.6",
                },
            )
        axes.set_xlabel("V1 match: mean property score of the best layer")
        budgets = ", ".join(f"{NORM_NAMES[norm]} {label}" for norm, label in found.budgets)
        axes.set_ylabel(f"Accuracy at {budgets}")
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_title(
            "; ".join(
                f"{item.name} {item.value:.2f} ({item.low:.2f} to {item.high:.2f})"
                for item in found.correlations
            )
            + f"; n = {count}",
            fontsize=9,
        )
        buffer = io.BytesIO()
        metadata = {"Date": None} if form == "svg" else None
        figure.savefig(buffer, format=form, dpi=150, metadata=metadata)
    return buffer.getvalue()
