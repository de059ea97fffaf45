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

    Args:
      found: the networks.
      form: one of ``FORMATS``.
    """
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"svg.hashsalt": "vone_jax", "text.parse_math": False})
        figure = Figure(figsize=(6.4, 4.4), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        x = [point.match for point in found.points]
        y = np.array([point.robust for point in found.points])
        ends = np.array([point.interval for point in found.points])
        # Where images are not known there is no interval, and no bar.
        bars = np.nan_to_num(np.abs(ends.T - y))
        axes.errorbar(x, y, yerr=bars, fmt="o", capsize=2, elinewidth=0.8)
        for point in found.points:
            axes.annotate(
                point.name,
                (point.match, point.robust),
                xytext=(4, 3),
                textcoords="offset points",
                fontsize=7,
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
            + f"; n = {len(found.points)}",
            fontsize=9,
        )
        buffer = io.BytesIO()
        metadata = {"Date": None} if form == "svg" else None
        figure.savefig(buffer, format=form, dpi=150, metadata=metadata)
    return buffer.getvalue()
