"""V1 match against robustness over a pool of networks: do V1-like networks resist attacks?

Of each network the layer that is most like V1 counts, and the mean accuracy at the weakest budgets
of each norm (after Dapello, Marques et al., NeurIPS 2020, who compare explained variance of V1
neurons with accuracy under white-box attacks).
"""

import csv
import dataclasses
import io
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from scipy import stats

from vone_jax.report import compare, physiology
from vone_jax.report.load import Run
from vone_jax.report.physiology_records import KIND, SCORED
from vone_jax.report.records import ReportError
from vone_jax.report.results import NORMS, Result
from vone_jax.report.wording import NORM_NAMES, count, eps_label, listing

# With fewer, an interval of a correlation spans nearly everything.
MINIMUM = 5
RESAMPLES = 10000
SEED = 0


@dataclasses.dataclass(frozen=True)
class Point:
    """A network.

    Attributes:
      path: its run directory.
      name: the name of that.
      label: name of the network.
      layer: the layer that is most like V1.
      match: mean score of that layer over the properties that all layers of the pool have.
      clean: clean accuracy; None if not measured.
      robust: mean over norms of the mean accuracy over the weak budgets.
      interval: of ``robust``, 95 % over images; NaN where images are not known.
      accuracies: at each weak budget.
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


@dataclasses.dataclass(frozen=True)
class Correlation:
    """A correlation coefficient over networks, its p value and 95 % interval."""

    name: str
    value: float
    p: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Match:
    """What was found.

    Attributes:
      points: the networks, in the order of the runs.
      properties: what the V1 match is the mean of.
      budgets: the weak budgets, (norm, label).
      attacks: how all networks were attacked, by norm.
      correlations: Pearson's and Spearman's.
    """

    points: tuple[Point, ...]
    properties: tuple[str, ...]
    budgets: tuple[tuple[str, str], ...]
    attacks: Mapping[str, str]
    correlations: tuple[Correlation, ...]


def match(runs: Sequence[Run], weakest: int = 2, seed: int = SEED) -> Match:
    """Pairs the V1 match of networks with their robustness.

    Args:
      runs: at least ``MINIMUM`` networks with results of physiology and attacks.
      weakest: budgets of each norm, the smallest that all networks have been attacked with.
      seed: of the bootstrap over networks.

    Raises:
      ReportError: if there are too few networks, some have no such results (they are named), they
        share too few budgets, or all have the same match or robustness.
    """
    if weakest < 1:
        raise ReportError(f"v1_match must be a number of budgets >= 1, got {weakest}")
    if len(runs) < MINIMUM:
        raise ReportError(f"v1_match needs at least {MINIMUM} networks, got {len(runs)}")
    layers = [_layers(run) for run in runs]
    _check_there(runs, layers, "no scored layer", "physiology")
    attacked = [bool(compare.norms([run])) for run in runs]
    _check_there(runs, attacked, "no attack", "linf")
    attacks = _usual_attacks(runs)
    budgets = _weak_budgets(runs, attacks, weakest)
    columns = physiology.shared_properties([result for found in layers for result in found])
    if not columns:
        raise ReportError("v1_match: no property is scored in all layers of these networks")
    points = tuple(
        _point(run, found, columns, budgets, attacks)
        for run, found in zip(runs, layers, strict=True)
    )
    first = [_curve(runs[0], norm, attacks[norm])[eps] for norm, eps in budgets]
    return Match(
        points,
        tuple(label for _, label in columns),
        tuple((result.condition["norm"], eps_label(result.condition)) for result in first),
        {norm: attacks[norm] for norm, _ in budgets},
        correlations([p.match for p in points], [p.robust for p in points], seed),
    )


def correlations(
    x: Sequence[float], y: Sequence[float], seed: int = SEED
) -> tuple[Correlation, ...]:
    """Pearson's and Spearman's correlation with percentile intervals.

    The pairs are drawn anew with replacement. Draws in which one side does not vary have no
    correlation and are left out.

    Raises:
      ReportError: if one side does not vary at all.
    """
    pairs = np.array([x, y], float)
    for name, values in zip(("V1 match", "robust accuracy"), pairs, strict=True):
        if np.ptp(values) == 0:
            raise ReportError(f"v1_match: all networks have the same {name}, {values[0]:.4g}")
    rng = np.random.default_rng(seed)
    drawn = pairs[:, rng.integers(0, pairs.shape[1], (RESAMPLES, pairs.shape[1]))]
    found: list[tuple[str, Callable, np.ndarray]] = [
        ("Pearson", stats.pearsonr, drawn),
        ("Spearman", stats.spearmanr, stats.rankdata(drawn, axis=-1)),
    ]
    return tuple(
        Correlation(name, *map(float, function(*pairs)), *_middle(_pearson(*values)))
        for name, function, values in found
    )


def _pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's coefficient along the last axis, where both sides vary."""
    varies = (np.ptp(x, axis=-1) > 0) & (np.ptp(y, axis=-1) > 0)
    x, y = (each[varies] - each[varies].mean(-1, keepdims=True) for each in (x, y))
    return np.sum(x * y, -1) / np.sqrt(np.sum(x * x, -1) * np.sum(y * y, -1))


def _middle(values: np.ndarray) -> tuple[float, float]:
    low, high = np.percentile(values, (2.5, 97.5))
    return float(low), float(high)


def _layers(run: Run) -> list[Result]:
    """The scored layers of a network with the noise that it was trained with."""
    return [
        result
        for result in run.of_kind(KIND)
        if result.record["status"] == SCORED and not result.test_noise
    ]


def _check_there(runs: Sequence[Run], found: Sequence, what: str, suite: str) -> None:
    lacking = [str(run.path) for run, there in zip(runs, found, strict=True) if not there]
    if lacking:
        raise ReportError(
            f"v1_match: {what} among the results of {listing(lacking)}; make them with python "
            f"eval.py {lacking[0]} --suite {suite}"
        )


def _attacked(run: Run, norm: str) -> list[Result]:
    """The results of attacks on a network as deployed, without controls of the noise."""
    return [
        result
        for result in run.of_kind("attack")
        if result.condition["norm"] == norm and not compare.control(run, result)
    ]


def _usual_attacks(runs: Sequence[Run]) -> dict[str, str]:
    """Norm -> the settings that most networks were attacked with: stronger ones of a few of them
    would make these look weak."""
    found = {}
    for norm in NORMS:
        each = [{compare.attack_settings(r) for r in _attacked(run, norm)} for run in runs]
        counts = Counter(settings for used in each for settings in used)
        if counts:
            found[norm] = max(counts, key=lambda settings: (counts[settings], settings))
    return found


def _curve(run: Run, norm: str, settings: str) -> dict[float, Result]:
    """eps -> result of the attack with such settings."""
    return {
        compare.budget(result): result
        for result in _attacked(run, norm)
        if compare.attack_settings(result) == settings
    }


def _weak_budgets(
    runs: Sequence[Run], attacks: Mapping[str, str], weakest: int
) -> list[tuple[str, float]]:
    """(norm, eps): the smallest that all networks share, of each norm that all were attacked in."""
    found = []
    for norm, settings in attacks.items():
        curves = [_curve(run, norm, settings) for run in runs]
        if not all(curves):
            continue
        shared = sorted(eps for eps in set.intersection(*map(set, curves)) if eps > 0)
        if len(shared) < weakest:
            raise ReportError(
                f"v1_match needs {count(weakest, 'budget')} in {NORM_NAMES[norm]} that all "
                f"networks were attacked with, there are {len(shared)}"
            )
        found += [(norm, eps) for eps in shared[:weakest]]
    if not found:
        raise ReportError("v1_match: there is no norm in which all networks were attacked alike")
    return found


def _point(
    run: Run,
    layers: Sequence[Result],
    columns: Sequence[tuple[str, str]],
    budgets: Sequence[tuple[str, float]],
    attacks: Mapping[str, str],
) -> Point:
    means = [float(np.mean(physiology.property_scores(result, columns))) for result in layers]
    best = int(np.argmax(means))
    results = [_curve(run, norm, attacks[norm])[eps] for norm, eps in budgets]
    # As many budgets of each norm: the mean over norms is that over all.
    robust, low, high = compare.mean_accuracy(results)
    clean = compare.clean(run)
    return Point(
        path=run.path,
        name=run.name,
        label=run.label,
        layer=str(layers[best].condition["layer"]),
        match=means[best],
        clean=None if clean is None else clean.accuracy,
        robust=robust,
        interval=(low, high),
        accuracies=tuple(result.accuracy for result in results),
    )


def to_csv(found: Match) -> str:
    """One line per network, full precision."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    accuracies = [f"{norm}_{label}" for norm, label in found.budgets]
    writer.writerow(
        ["run", "network", "layer", "v1_match", "clean", "robust", "low", "high", *accuracies]
    )
    for point in found.points:
        ends = ("" if np.isnan(end) else end for end in point.interval)
        clean = "" if point.clean is None else point.clean
        numbers = (point.match, clean, point.robust, *ends, *point.accuracies)
        writer.writerow([point.path, point.label, point.layer, *numbers])
    return text.getvalue()


def to_markdown(found: Match, seed: int = SEED) -> str:
    """The correlations, then the networks, the most robust first."""
    budgets = listing([f"{NORM_NAMES[norm]} {label}" for norm, label in found.budgets])
    lines = [
        f"{len(found.points)} networks. V1 match: mean score of the best layer over "
        f"{listing(found.properties)}. Robust accuracy: mean over {budgets}.",
        "",
        "| Correlation | Value | 95 % interval | p |",
        "| --- | --- | --- | --- |",
    ]
    for item in found.correlations:
        interval = f"{item.low:.2f} to {item.high:.2f}"
        lines.append(f"| {item.name} | {item.value:.3f} | {interval} | {item.p:.2g} |")
    lines += ["", *(f"{NORM_NAMES[n]}: `{settings}`." for n, settings in found.attacks.items())]
    lines += [
        "",
        f"Intervals: bootstrap over networks, {RESAMPLES} resamples, seed {seed}. Networks of one "
        "kind with other seeds count as networks of their own.",
        "",
        "| Network | Run | Best layer | V1 match | Clean % | Robust % |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for point in sorted(found.points, key=lambda point: -point.robust):
        clean = "–" if point.clean is None else f"{100 * point.clean:.1f}"
        robust = f"{100 * point.robust:.1f}"
        if not np.isnan(point.interval).any():
            robust += " ({:.1f} to {:.1f})".format(*(100 * end for end in point.interval))
        cells = (point.label, point.name, point.layer, f"{point.match:.3f}", clean, robust)
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
