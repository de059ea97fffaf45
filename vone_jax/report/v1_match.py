"""V1 match against robustness over a pool of networks: do V1-like networks resist attacks?

For each network, the score of the layer that is most like V1 is compared with the mean accuracy at
the smallest radii of each norm (after Dapello, Marques et al., NeurIPS 2020, who compare explained
variance of V1 neurons with accuracy under white-box attacks).
"""

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np
import pandas as pd
import scipy
import vl_convert

from vone_jax import results
from vone_jax.names import NORM_LABELS, NORMS, command
from vone_jax.report import charts, comparison, physiology
from vone_jax.report.scores import Score
from vone_jax.report.wording import count, datasets, listing, markdown
from vone_jax.results import Result, ResultError, Run
from vone_jax.results.statistics import QUANTILE, image_sets

# With fewer, an interval of a correlation spans nearly everything.
MINIMUM = 5
RESAMPLES = 10000
SEED = 0
# The columns of the robust accuracy and its interval.
_ROBUST = ("robust", "low", "high")
# Means that differ by the rounding of their sums alone are equal.
_DECIMALS = 12
_HEADINGS = ("Network", "Run", "Best layer", "Units", "V1 match", "Clean %", "Robust %")


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
      networks: a line for each network: its run directory and the directory's name, its label, the
        layer that is most like V1, the least number of its units behind a score ("units"), the
        mean score of that layer ("v1_match"), the clean accuracy, the mean over norms of the mean
        accuracy over the weak radii ("robust"), its 95 % interval over images ("low", "high"; NaN
        where images are not known), and the accuracy at each weak radius.
      properties: the properties that the V1 match is the mean of: those that all layers have.
      radii: the weak radii, (norm, label).
      attacks: the settings of the attacks on all networks, by norm.
      correlations: Pearson's and Spearman's.
      images: sentences on networks that differ in the images of the attacks, or in the number of
        classes; empty if none do.
    """

    networks: pd.DataFrame
    properties: tuple[str, ...]
    radii: tuple[tuple[str, str], ...]
    attacks: Mapping[str, str]
    correlations: tuple[Correlation, ...]
    images: str = ""

    def to_csv(self) -> str:
        """One line for each network, with full precision."""
        return self.networks.drop(columns="name").to_csv(index=False, lineterminator="\n")

    def to_markdown(self) -> str:
        """The correlations, then the networks, the most robust first."""
        correlations = [
            (item.name, f"{item.value:.3f}", f"{item.low:.2f} to {item.high:.2f}", f"{item.p:.2g}")
            for item in self.correlations
        ]
        rows = []
        downwards = self.networks.sort_values("robust", ascending=False, kind="stable")
        for line in downwards.to_dict("records"):
            known = (line["network"], line["name"], line["layer"], f"{line['units']:,}")
            clean = "–" if np.isnan(line["clean"]) else f"{100 * line['clean']:.1f}"
            robust = Score(*(line[name] for name in _ROBUST))
            rows.append((*known, f"{line['v1_match']:.3f}", clean, str(robust)))
        parts = [
            f"{len(rows)} networks. V1 match: mean score of the best layer over "
            f"{listing(self.properties)}. Robust accuracy: mean over {listing(self._radii())}."
            f"{self.images}",
            markdown(("Correlation", "Value", "95 % interval", "p"), correlations),
            "\n".join(f"{NORM_LABELS[n]}: `{settings}`." for n, settings in self.attacks.items()),
            f"p: twice the smaller tail of {RESAMPLES} permutations of the networks, seed {SEED}, "
            "or of all if they are fewer. Intervals: Fisher's. Both assume that the networks are "
            "independent. Networks of one kind with other seeds are not, so p is too small if a "
            "few kinds have many seeds. With more layers, the score of the best one is larger by "
            "chance. Units: the least number behind a score of the layer; with fewer than "
            f"{physiology.FEW_UNITS} it is uncertain.",
            markdown(_HEADINGS, rows),
        ]
        return "\n\n".join(parts) + "\n"

    def _radii(self) -> list[str]:
        return [f"{NORM_LABELS[norm]} {label}" for norm, label in self.radii]

    def chart(self) -> dict[str, Any]:
        """A Vega-Lite specification: a point with its interval and name for each network.

        Networks with the same front end have one V1 match, so names stand in a column beside the
        plot, in the order of the accuracies, each with a line to its point.
        """
        upwards = self.networks.sort_values("robust", kind="stable").to_dict("list")
        matches, robust = upwards["v1_match"], upwards["robust"]
        # Where images are not known there is no interval, and no bar.
        lows = np.where(np.isnan(upwards["low"]), robust, upwards["low"]).tolist()
        highs = np.where(np.isnan(upwards["high"]), robust, upwards["high"]).tolist()
        low, high = min(lows), max(highs)
        span = max(max(matches) - min(matches), 1e-3)
        left, column = min(matches) - 0.08 * span, max(matches) + 0.2 * span
        heights = np.linspace(low, high, len(robust)).tolist()
        values = {"match": matches, "robust": robust, "low": lows, "high": highs}
        places = {"column": column, "height": heights, "name": upwards["name"]}
        rows = pd.DataFrame(values | places).to_dict("records")
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


def match(runs: Sequence[Run], weakest: int = 2) -> Match:
    """Pair the V1 match of networks with their robustness.

    Args:
      runs: at least ``MINIMUM`` networks with results of physiology and attacks.
      weakest: number of radii of each norm: the smallest at which all networks were attacked.

    Raises:
      ResultError: if there are too few networks, some have no such results (they are named), they
        share too few radii, or all have the same match or robustness.
    """
    if weakest < 1:
        raise ResultError(f"v1_match_radii must be an integer >= 1, got {weakest}")
    if len(runs) < MINIMUM:
        raise ResultError(f"v1_match needs at least {MINIMUM} networks, got {len(runs)}")
    # The scored layers of each network with the noise that it was trained with.
    layers = [[each for each in physiology.layers([run]) if not each.is_control] for run in runs]
    _check_there(runs, layers, "no scored layer", "physiology")
    _check_there(runs, [run.of_kind("attack") for run in runs], "no attack", "linf")
    attacks, weak = _weakest(runs, weakest)
    columns = physiology.shared_properties([layer for each in layers for layer in each])
    if not columns:
        raise ResultError(
            "v1_match: no property is scored in all layers of these networks against the same "
            "neurons; evaluate all with the same --references"
        )
    radii = tuple((result.attack.norm, result.attack.eps_label) for result in weak[0])
    rows = []
    for run, members, attacked in zip(runs, layers, weak, strict=True):
        # A layer whose rates mean nothing counts only if there is no other.
        members = [layer for layer in members if not layer.clipped] or members
        matches = [float(np.mean(layer.scores(columns))) for layer in members]
        best, clean = int(np.argmax(np.round(matches, _DECIMALS))), comparison.clean(run)
        known = {"run": run.path, "network": run.label, "name": run.name}
        accuracies = {
            "v1_match": matches[best],
            "clean": np.nan if clean is None else clean.accuracy,
            # Each norm has the same number of radii, so this is also the mean over norms.
            **dict(zip(_ROBUST, results.mean_accuracy(attacked), strict=True)),
            **{"_".join(r): each.accuracy for r, each in zip(radii, attacked, strict=True)},
        }
        scored = members[best].measured.properties
        units = min(scored[name].units or 0 for name, _ in columns)
        rows.append(known | {"layer": members[best].name, "units": units} | accuracies)
    networks = pd.DataFrame(rows)
    measured = correlations(networks["v1_match"].tolist(), networks["robust"].tolist())
    properties = tuple(label for _, label in columns)
    return Match(networks, properties, radii, attacks, measured, _different_images(weak))


def _different_images(attacked: Sequence[Sequence[Result]]) -> str:
    """Sentences where networks were attacked on other images, or have other classes; else empty."""
    used = [result for members in attacked for result in members]
    told = ""
    # At each radius; another one may have been measured on other images.
    at_radii = zip(*attacked, strict=True)
    if not all(comparison.same_places(each[0], r) for each in at_radii for r in each):
        numbers = [result.images for result in used]
        span = " to ".join(f"{number:,}" for number in sorted({min(numbers), max(numbers)}))
        told = f" The networks were attacked on different images, {span} of them."
    classes = sorted({len(result.dataset.class_names) for result in used} - {0})
    if len(classes) > 1:
        told += f" The networks have {listing([f'{number:,}' for number in classes])} classes."
    return told


def correlations(x: Sequence[float], y: Sequence[float]) -> tuple[Correlation, ...]:
    """Pearson's and Spearman's correlation of two numbers of each network, at least four networks.

    The p value is twice the smaller tail of all permutations, or of ``RESAMPLES`` of them. The
    interval is Fisher's, with the variance of Bonett and Wright (Psychometrika 65, 2000) for ranks.
    For a perfect correlation, it is that of the next largest one that so many ranks can have.

    Raises:
      ResultError: if one side does not vary at all.
    """
    pairs = np.round(np.array([x, y], float), _DECIMALS)
    for name, side in zip(("V1 match", "robust accuracy"), pairs, strict=True):
        if np.ptp(side) == 0:
            raise ResultError(f"v1_match: all networks have the same {name}, {side[0]:.4g}")
    number = pairs.shape[1]
    largest = 1 - 12 / (number * (number**2 - 1))
    ranks = scipy.stats.rankdata(pairs, axis=1)
    measured = []
    for name, sides, of_ranks in (("Pearson", pairs, 0.0), ("Spearman", ranks, 1.0)):
        permuted = scipy.stats.PermutationMethod(RESAMPLES, rng=np.random.default_rng(SEED))
        value, p = map(float, scipy.stats.pearsonr(*sides, method=permuted))
        shown = np.copysign(largest, value) if abs(value) > 1 - 1e-12 else value
        half = QUANTILE * np.sqrt((1 + of_ranks * shown**2 / 2) / (number - 3))
        low, high = (float(np.tanh(np.arctanh(shown) + sign * half)) for sign in (-1, 1))
        measured.append(Correlation(name, value, p, min(low, value), max(high, value)))
    return tuple(measured)


def _check_there(runs: Sequence[Run], needed: Sequence, lacking: str, suite: str) -> None:
    paths = [str(run.path) for run, there in zip(runs, needed, strict=True) if not there]
    if paths:
        raise ResultError(
            f"v1_match: {lacking} among the results of {listing(paths)}; make them with "
            f"{command('eval.py')} {shlex.quote(paths[0])} --suite {suite}"
        )


def _weakest(runs: Sequence[Run], number: int) -> tuple[dict[str, str], list[list[Result]]]:
    """(norm -> settings, results of each network at so many of the smallest radii of each norm)."""
    attacks: dict[str, str] = {}
    weak: list[list[Result]] = [[] for _ in runs]
    # Controls of the noise do not count.
    usual = [[r for r in run.of_kind("attack") if not comparison.control(run, r)] for run in runs]
    for norm in NORMS:
        # Settings -> radius -> result, for each network.
        by_settings: dict[str, list[dict[float, Result]]] = {}
        for place, run in enumerate(runs):
            for result in run.comparable(r for r in usual[place] if r.attack.norm == norm):
                settings = comparison.attack_settings(result)
                same = by_settings.setdefault(settings, [{} for _ in runs])
                same[place].setdefault(result.attack.radius, result)
        # Only the settings count that most networks were attacked with: stronger attacks on a few
        # of the networks would make these look weak.
        # Settings -> the number of networks, and the radii that all have, ascending.
        common = {
            settings: (
                sum(map(bool, curves)),
                sorted(eps for eps in set.intersection(*map(set, curves)) if eps > 0),
            )
            for settings, curves in by_settings.items()
        }
        chosen = max(common, key=lambda s: (common[s][0], len(common[s][1]), s), default="")
        curves = by_settings.get(chosen, [{}])
        if not all(curves):
            continue
        _, shared = common[chosen]
        if len(shared) < number:
            raise ResultError(
                f"v1_match: all networks were attacked at {count(len(shared), 'radius', 'radii')} "
                f"in {NORM_LABELS[norm]}, {number} are needed; take fewer, or attack at more"
            )
        attacks[norm] = chosen
        for members, curve in zip(weak, curves, strict=True):
            members += [curve[eps] for eps in shared[:number]]
    if not attacks:
        raise ResultError("v1_match: there is no norm in which all networks were attacked alike")
    used = [result for members in weak for result in members]
    if len(sets := {result.dataset.part for result in used}) > 1:
        raise ResultError(
            f"v1_match: the networks were attacked on different data sets: {datasets(sets)}; "
            f"evaluate all with one --source and --split"
        )
    if any(image_sets(used)):
        raise ResultError(
            f"v1_match: the files of {datasets(sets)} changed between the attacks on the networks; "
            f"evaluate all of them again"
        )
    return attacks, weak
