"""V1 match against robustness over a pool of networks: do V1-like networks resist attacks?

Of each network the layer that is most like V1 counts, and the mean accuracy at the weakest radii of
each norm (after Dapello, Marques et al., NeurIPS 2020, who compare explained variance of V1
neurons with accuracy under white-box attacks).
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from scipy import stats

from vone_jax import results
from vone_jax.names import NORM_LABELS, NORMS
from vone_jax.report import charts, comparison, physiology
from vone_jax.report.wording import count, listing, markdown
from vone_jax.results import Result, ResultError, Run

# With fewer, an interval of a correlation spans nearly everything.
MINIMUM = 5
RESAMPLES = 10000
SEED = 0


@dataclasses.dataclass(frozen=True)
class Point:
    """A network.

    Attributes:
      name: the name of its run directory.
      layer: the layer that is most like V1.
      match: mean score of that layer over the properties that all layers of the pool have.
      robust: mean over norms of the mean accuracy over the weak radii.
      interval: of ``robust``, 95 % over images; NaN where images are not known.
      accuracies: at each weak radius.
    """

    path: Path
    name: str
    label: str
    layer: str
    match: float
    clean: float | None
    robust: float
    interval: tuple[float, float]
    accuracies: tuple[float, ...]


class Correlation(NamedTuple):
    """A correlation coefficient over networks, its p value and 95 % interval."""

    name: str
    value: float
    p: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Match:
    """The V1 match and the robustness of several networks.

    Attributes:
      properties: the properties that the V1 match is the mean of.
      radii: the weak radii, (norm, label).
      attacks: the settings of the attacks on all networks, by norm.
      correlations: Pearson's and Spearman's.
    """

    points: tuple[Point, ...]
    properties: tuple[str, ...]
    radii: tuple[tuple[str, str], ...]
    attacks: Mapping[str, str]
    correlations: tuple[Correlation, ...]

    def to_csv(self) -> str:
        """One line for each network, with full precision."""
        rows = [
            {
                "run": point.path,
                "network": point.label,
                "layer": point.layer,
                "v1_match": point.match,
                "clean": point.clean,
                "robust": point.robust,
                "low": point.interval[0],
                "high": point.interval[1],
                **dict(zip(map("_".join, self.radii), point.accuracies, strict=True)),
            }
            for point in self.points
        ]
        return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")

    def to_markdown(self, seed: int = SEED) -> str:
        """The correlations, then the networks, the most robust first."""
        correlations = [
            (item.name, f"{item.value:.3f}", f"{item.low:.2f} to {item.high:.2f}", f"{item.p:.2g}")
            for item in self.correlations
        ]
        networks = []
        for point in sorted(self.points, key=lambda point: -point.robust):
            clean = "–" if point.clean is None else f"{100 * point.clean:.1f}"
            robust = f"{100 * point.robust:.1f}"
            if not np.isnan(point.interval).any():
                robust += " ({:.1f} to {:.1f})".format(*(100 * end for end in point.interval))
            match = f"{point.match:.3f}"
            networks.append((point.label, point.name, point.layer, match, clean, robust))
        parts = [
            f"{len(self.points)} networks. V1 match: mean score of the best layer over "
            f"{listing(self.properties)}. Robust accuracy: mean over {listing(self._radii())}.",
            markdown(("Correlation", "Value", "95 % interval", "p"), correlations),
            "\n".join(f"{NORM_LABELS[n]}: `{settings}`." for n, settings in self.attacks.items()),
            f"Intervals: bootstrap over networks, {RESAMPLES} resamples, seed {seed}. Networks of "
            "one kind with other seeds count as networks of their own.",
            markdown(("Network", "Run", "Best layer", "V1 match", "Clean %", "Robust %"), networks),
        ]
        return "\n\n".join(parts) + "\n"

    def _radii(self) -> list[str]:
        return [f"{NORM_LABELS[norm]} {label}" for norm, label in self.radii]

    def chart(self) -> dict[str, Any]:
        """A Vega-Lite specification: a point with its interval and name for each network.

        Networks with the same front end have one V1 match, so names stand in a column beside the
        plot, in the order of the accuracies, each with a line to its point.
        """
        upwards = sorted(self.points, key=lambda point: point.robust)
        matches = [point.match for point in self.points]
        ends = [end for point in self.points for end in (*point.interval, point.robust)]
        low, high = float(np.nanmin(ends)), float(np.nanmax(ends))
        span = max(max(matches) - min(matches), 1e-3)
        left, column = min(matches) - 0.08 * span, max(matches) + 0.2 * span
        heights = np.linspace(low, high, len(upwards)).tolist()
        rows = [
            {
                "match": point.match,
                "robust": point.robust,
                # Where images are not known there is no interval, and no bar.
                "low": point.robust if np.isnan(point.interval[0]) else point.interval[0],
                "high": point.robust if np.isnan(point.interval[1]) else point.interval[1],
                "column": column,
                "height": height,
                "name": point.name,
            }
            for height, point in zip(heights, upwards, strict=True)
        ]
        below = "V1 match: mean property score of the best layer"
        x = alt.X("match:Q", title=below, scale=alt.Scale(domain=[left, column], nice=False))
        scale = alt.Scale(domain=[low, high], zero=False)
        title = f"Accuracy at {', '.join(self._radii())}"

        def y(field: str) -> alt.Y:
            return alt.Y(f"{field}:Q", title=title, scale=scale, axis=charts.share_axis(title))

        base = charts.chart_of(rows).encode(x=x)
        names = base.mark_text(align="left", dx=4, fontSize=9)
        beside = alt.X("column:Q", scale=alt.Scale(domain=[left, column]))
        lines = base.mark_rule(color="#bbbbbb", strokeWidth=0.5)
        chart = alt.layer(
            lines.encode(y=y("robust"), x2="column:Q", y2="height:Q"),
            base.mark_rule(color="#0b62a8").encode(y=y("low"), y2="high:Q"),
            base.mark_point(filled=True, color="#0b62a8", size=40, opacity=1).encode(y=y("robust")),
            names.encode(x=beside, y=y("height"), text="name:N"),
        )
        correlations = "; ".join(
            f"{item.name} {item.value:.2f} ({item.low:.2f} to {item.high:.2f})"
            for item in self.correlations
        )
        sized = chart.properties(
            width=480, height=max(300, 13 * len(rows)), title=f"{correlations}; n = {len(rows)}"
        )
        return sized.configure_view(stroke=None).configure_title(fontSize=12).to_dict()

    def to_svg(self) -> str:
        """The chart as SVG."""
        return vl_convert.vegalite_to_svg(self.chart(), allowed_base_urls=[])

    def to_png(self) -> bytes:
        """The chart as PNG."""
        return vl_convert.vegalite_to_png(self.chart(), scale=2, allowed_base_urls=[])


def match(runs: Sequence[Run], weakest: int = 2, seed: int = SEED) -> Match:
    """Pair the V1 match of networks with their robustness.

    Args:
      runs: at least ``MINIMUM`` networks with results of physiology and attacks.
      weakest: radii of each norm, the smallest that all networks were attacked with.
      seed: of the bootstrap over networks.

    Raises:
      ResultError: if there are too few networks, some have no such results (they are named), they
        share too few radii, or all have the same match or robustness.
    """
    if weakest < 1:
        raise ResultError(f"v1_match must be a number of radii >= 1, got {weakest}")
    if len(runs) < MINIMUM:
        raise ResultError(f"v1_match needs at least {MINIMUM} networks, got {len(runs)}")
    layers = [_layers(run) for run in runs]
    _check_there(runs, layers, "no scored layer", "physiology")
    _check_there(runs, [comparison.norms([run]) for run in runs], "no attack", "linf")
    attacks = _usual_attacks(runs)
    radii = _weak_radii(runs, attacks, weakest)
    columns = physiology.shared_properties([result for each in layers for result in each])
    if not columns:
        raise ResultError("v1_match: no property is scored in all layers of these networks")
    points = tuple(
        _point(run, each, columns, radii, attacks) for run, each in zip(runs, layers, strict=True)
    )
    first = [_curve(runs[0], norm, attacks[norm])[eps] for norm, eps in radii]
    labels = [result.attack.eps_label for result in first]
    return Match(
        points,
        tuple(label for _, label in columns),
        tuple((norm, label) for (norm, _), label in zip(radii, labels, strict=True)),
        {norm: attacks[norm] for norm, _ in radii},
        correlations([p.match for p in points], [p.robust for p in points], seed),
    )


def correlations(
    x: Sequence[float], y: Sequence[float], seed: int = SEED
) -> tuple[Correlation, ...]:
    """Pearson's and Spearman's correlation with percentile intervals.

    The pairs are drawn anew with replacement. Draws in which one side does not vary have no
    correlation and are left out.

    Raises:
      ResultError: if one side does not vary at all.
    """
    pairs = np.array([x, y], float)
    for name, side in zip(("V1 match", "robust accuracy"), pairs, strict=True):
        if np.ptp(side) == 0:
            raise ResultError(f"v1_match: all networks have the same {name}, {side[0]:.4g}")
    rng = np.random.default_rng(seed)
    drawn = pairs[:, rng.integers(0, pairs.shape[1], (RESAMPLES, pairs.shape[1]))]
    ranks = stats.rankdata(drawn, axis=-1)
    measured = []
    for name, function, resampled in (
        ("Pearson", stats.pearsonr, drawn),
        ("Spearman", stats.spearmanr, ranks),
    ):
        value, p = map(float, function(*pairs))
        measured.append(Correlation(name, value, p, *results.middle(_pearson(*resampled))))
    return tuple(measured)


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's coefficient along the last axis, where both sides vary."""
    varies = (np.ptp(x, axis=-1) > 0) & (np.ptp(y, axis=-1) > 0)
    x, y = (each[varies] - each[varies].mean(-1, keepdims=True) for each in (x, y))
    return np.sum(x * y, -1) / np.sqrt(np.sum(x * x, -1) * np.sum(y * y, -1))


def _layers(run: Run) -> list[Result]:
    """The scored layers of a network with the noise that it was trained with."""
    scored = filter(physiology.is_scored, run.of_kind("physiology"))
    return [result for result in scored if not result.network.noise_replaced]


def _check_there(runs: Sequence[Run], needed: Sequence, lacking: str, suite: str) -> None:
    paths = [str(run.path) for run, there in zip(runs, needed, strict=True) if not there]
    if paths:
        raise ResultError(
            f"v1_match: {lacking} among the results of {listing(paths)}; make them with python "
            f"eval.py {paths[0]} --suite {suite}"
        )


def _attacked(run: Run, norm: str) -> list[Result]:
    """The results of attacks on a network as deployed, without controls of the noise."""
    return [
        result
        for result in run.of_kind("attack")
        if result.attack.norm == norm and not comparison.control(run, result)
    ]


def _usual_attacks(runs: Sequence[Run]) -> dict[str, str]:
    """Norm -> the settings that most networks were attacked with.

    Stronger attacks on a few of the networks would make these look weak.
    """
    usual = {}
    for norm in NORMS:
        used = [{comparison.attack_settings(r) for r in _attacked(run, norm)} for run in runs]
        counts = Counter(settings for each in used for settings in each)
        if counts:
            usual[norm] = max(counts, key=lambda settings: (counts[settings], settings))
    return usual


def _curve(run: Run, norm: str, settings: str) -> dict[float, Result]:
    """Radius -> the result of the attack with such settings."""
    same = [r for r in _attacked(run, norm) if comparison.attack_settings(r) == settings]
    return {result.attack.radius: result for result in same}


def _weak_radii(
    runs: Sequence[Run], attacks: Mapping[str, str], weakest: int
) -> list[tuple[str, float]]:
    """(norm, eps): the smallest that all networks share, of each norm that all were attacked in."""
    radii = []
    for norm, settings in attacks.items():
        curves = [_curve(run, norm, settings) for run in runs]
        if not all(curves):
            continue
        shared = sorted(eps for eps in set.intersection(*map(set, curves)) if eps > 0)
        if len(shared) < weakest:
            raise ResultError(
                f"v1_match: the networks share {count(len(shared), 'radius', 'radii')} in "
                f"{NORM_LABELS[norm]} at which all were attacked, {weakest} needed"
            )
        radii += [(norm, eps) for eps in shared[:weakest]]
    if not radii:
        raise ResultError("v1_match: there is no norm in which all networks were attacked alike")
    return radii


def _point(
    run: Run,
    layers: Sequence[Result],
    columns: Sequence[tuple[str, str]],
    radii: Sequence[tuple[str, float]],
    attacks: Mapping[str, str],
) -> Point:
    means = [float(np.mean(physiology.property_scores(result, columns))) for result in layers]
    best = int(np.argmax(means))
    weak = [_curve(run, norm, attacks[norm])[eps] for norm, eps in radii]
    # As many radii of each norm: the mean over norms is that over all.
    robust, *interval = results.mean_accuracy(weak)
    clean = comparison.clean(run)
    return Point(
        path=run.path,
        name=run.name,
        label=run.label,
        layer=physiology.layer_name(layers[best]),
        match=means[best],
        clean=None if clean is None else clean.accuracy,
        robust=robust,
        interval=(interval[0], interval[1]),
        accuracies=tuple(result.accuracy for result in weak),
    )
