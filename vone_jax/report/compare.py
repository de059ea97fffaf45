"""Brings results of several runs together: rows of equal conditions, curves, and differences."""

import dataclasses
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vone_jax.report.load import Run
from vone_jax.report.results import NORMS, Result
from vone_jax.report.wording import NORM_NAMES, count, eps_label, words

# The 97.5 % quantile of the normal distribution: intervals cover 95 %.
QUANTILE = 1.959964


def as_deployed(run: Run, result: Result) -> bool:
    """Whether a network was measured as it would be used: with the noise that it was trained with,
    fresh if it is stochastic, one draw for a decision."""
    if result.test_noise:
        return False
    return not run.stochastic or (result.noise == "fresh" and result.decision == "single")


def protocol(run: Run, result: Result) -> str:
    """The protocol in words where it is not that of a network as deployed, else nothing."""
    return "" if as_deployed(run, result) else result.protocol


def budget(result: Result) -> float:
    # Rounded, so that 4/255 computed in two ways is one budget.
    return float(f"{result.condition['eps']:.6g}")


def norms(runs: Sequence[Run]) -> list[str]:
    """The norms under which any run was attacked, in a fixed order."""
    used = {result.condition["norm"] for run in runs for result in run.of_kind("attack")}
    return [norm for norm in NORMS if norm in used]


def clean(run: Run) -> Result | None:
    """The accuracy of a network on clean images, as deployed; None if not measured."""
    results = [result for result in run.of_kind("clean") if as_deployed(run, result)]
    return results[0] if results else None


def curve(run: Run, norm: str) -> dict[float, Result]:
    """Robust accuracy of a network as deployed, by budget.

    Where several attacks share a budget, the one that leaves the lowest accuracy counts.

    Returns:
      Ascending eps -> result.
    """
    worst: dict[float, Result] = {}
    for result in run.of_kind("attack"):
        if result.condition["norm"] == norm and as_deployed(run, result):
            eps = budget(result)
            if eps not in worst or result.accuracy < worst[eps].accuracy:
                worst[eps] = result
    return dict(sorted(worst.items()))


def form(condition: Mapping[str, Any]) -> str:
    """In what form the network got corrupted images, where that is not floating point."""
    value = condition.get("form", "float")
    return {"float": "", "uint8": "8 bits", "jpeg85": "JPEG 85"}.get(value, str(value))


def corruptions(run: Run) -> dict[tuple[str, int], Result]:
    """(corruption, severity) -> result of a network as deployed, in the order of the files.

    Where a condition was measured in several forms, that in floating point counts.
    """
    results = [result for result in run.of_kind("corruption") if as_deployed(run, result)]
    # Sorted backwards: where a condition was measured in several forms, floating point stays.
    results.sort(key=lambda result: form(result.condition), reverse=True)
    found = {
        (result.condition["corruption"], result.condition["severity"]): result for result in results
    }
    return {key: found[key] for key in sorted(found)}


@dataclasses.dataclass(frozen=True)
class Row:
    """One condition and its result for each run, None where a run has none.

    ``control`` is empty if networks were measured as deployed, by the usual attack, else says what
    was done about their noise.
    """

    kind: str
    control: str
    label: str
    detail: str
    results: tuple[Result | None, ...]


def attack_settings(result: Result) -> str:
    """How an attack was set, without what may differ between networks in a fair comparison.

    Left out are norm and budget, which the row states, and the noise draws averaged, which are
    one for a deterministic network. The step size is written relative to the budget.
    """

    def relative(match: re.Match) -> str:
        step = float(match[1])
        return f"step_size=eps/{result.condition['eps'] / step:.4g}" if step > 0 else match[0]

    text = str(result.condition.get("attack", ""))
    text = re.sub(r"\bstep_size=([0-9.]+(?:e-?[0-9]+)?)", relative, text)
    text = re.sub(r"\b(?:norm|eps|eot_samples)=[^,()]*(?:,\s*|(?=\)))", "", text)
    return text.replace(", )", ")")


def _draws(result: Result) -> int:
    return result.condition.get("eot_samples", 1)


def control(run: Run, result: Result) -> str:
    """What was done about the noise that is not usual: at the attack, in its gradients, or in how
    the network was judged; else nothing."""
    draws = ""
    if result.kind == "attack" and not result.attack_noise:
        # Of a network's attacks most have the same number; it differs between networks, since one
        # without noise needs no more than one.
        counts = Counter(_draws(other) for other in run.of_kind("attack") if not other.attack_noise)
        usual = min(counts, key=lambda draws: (-counts[draws], draws))
        if _draws(result) != usual:
            draws = f"gradients of {count(_draws(result), 'draw')}"
    return ", ".join(filter(None, (result.attack_noise, draws, protocol(run, result))))


def _row_key(run: Run, result: Result) -> tuple:
    noise = control(run, result)
    condition = result.condition
    if result.kind == "attack":
        order = NORMS.index(condition["norm"])
        return (1, order, budget(result), attack_settings(result), noise)
    if result.kind == "corruption":
        return (2, condition["corruption"], condition["severity"], form(condition), noise)
    return (0, noise)


def rows(runs: Sequence[Run]) -> list[Row]:
    """Every measured number: clean first, then attacks by norm and budget, then corruptions."""
    table: dict[tuple, list[Result | None]] = {}
    for position, run in enumerate(runs):
        for result in run.of_kind("clean", "attack", "corruption"):
            repeat = 0
            while True:
                key = (*_row_key(run, result), repeat)
                row = table.setdefault(key, [None] * len(runs))
                if row[position] is None:
                    row[position] = result
                    break
                repeat += 1
    short = [_row(key, table[key], full=False) for key in sorted(table)]
    names = [(row.label, row.detail) for row in short]
    return [
        row if names.count(name) == 1 else _row(key, table[key], full=True)
        for row, name, key in zip(short, names, sorted(table), strict=True)
    ]


def _row(key: tuple, results: list[Result | None], full: bool) -> Row:
    """The row of a key; ``full`` spells an attack out, to tell it from another in the table."""
    first = next(result for result in results if result is not None)
    noise = key[-2]
    condition = first.condition
    if first.kind == "attack":
        attack = attack_settings(first) if full else str(condition.get("attack", ""))
        label = f"{NORM_NAMES[condition['norm']]} {eps_label(condition)}"
        name = attack if full else attack.partition("(")[0]
        detail = ", ".join(filter(None, (name, noise)))
    elif first.kind == "corruption":
        label = f"{words(condition['corruption'])}, severity {condition['severity']}"
        detail = ", ".join(filter(None, (form(condition), noise)))
    else:
        label, detail = "Clean images", noise
    return Row(first.kind, noise, label, detail, tuple(results))


def pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """(base network, its VOneNet) for every VOneNet whose base is there on the same data.

    Several runs of one network, for instance seeds, are paired in the given order.
    """
    found = []
    for vone in runs:
        if not vone.model.startswith("vone_"):
            continue
        bases = [
            run
            for run in runs
            if run.model == vone.model.removeprefix("vone_") and _data(run) == _data(vone)
        ]
        siblings = [run for run in runs if run.model == vone.model and _data(run) == _data(vone)]
        if bases:
            found.append((bases[min(siblings.index(vone), len(bases) - 1)], vone))
    return found


def _data(run: Run) -> frozenset[tuple[str, str]]:
    return frozenset((result.dataset.name, result.dataset.split) for result in run.on_images)


@dataclasses.dataclass(frozen=True)
class Difference:
    """Accuracy of a network minus that of another, with a 95 % interval.

    Attributes:
      value: the difference, in [-1, 1].
      low: lower end; minus infinity if no interval can be given.
      high: upper end; plus infinity if no interval can be given.
      images: number of images it rests on.
      paired: whether the same images were compared one by one.
    """

    value: float
    low: float
    high: float
    images: int
    paired: bool

    @property
    def sign(self) -> int:
        """1 or -1 if the interval excludes zero, else 0."""
        return (self.low > 0) - (self.high < 0)


def _per_image(results: Sequence[Result], index: np.ndarray) -> np.ndarray:
    """Mean over conditions of the probability of a correct answer, for each image of ``index``."""
    total = np.zeros(len(index))
    for result in results:
        order = np.argsort(result.arrays["index"], kind="stable")
        place = np.searchsorted(result.arrays["index"], index, sorter=order)
        total += result.arrays["probability_correct"][order[place]]
    return total / len(results)


def _common_images(results: Sequence[Result]) -> np.ndarray:
    if not all("index" in result.arrays for result in results):
        return np.zeros(0, np.int64)
    common = results[0].arrays["index"]
    for result in results[1:]:
        common = np.intersect1d(common, result.arrays["index"])
    return np.unique(common)


def mean_accuracy(results: Sequence[Result]) -> tuple[float, float, float]:
    """Mean accuracy over conditions on the same images, with a 95 % interval over images.

    Returns:
      (mean, low, high). The ends are NaN where the conditions share fewer than two images.
    """
    mean = float(np.mean([result.accuracy for result in results]))
    index = _common_images(results)
    if len(index) < 2:
        return mean, math.nan, math.nan
    values = _per_image(results, index)
    half = QUANTILE * values.std(ddof=1) / math.sqrt(len(index))
    return mean, max(0.0, mean - half), min(1.0, mean + half)


def difference(base: Sequence[Result], other: Sequence[Result]) -> Difference:
    """How much more accurate ``other`` is than ``base``, as a mean over conditions.

    On common images the interval is that of the mean of paired differences, which leaves out
    what makes an image hard for both. Otherwise, for one condition, it is combined from the
    intervals of the two accuracies (Newcombe, Statistics in Medicine 17, 1998, method 10).

    Args:
      base: results of one network, one per condition; not empty.
      other: results of another network for the same conditions.
    """
    index = _common_images([*base, *other])
    if len(index) >= 2:
        values = _per_image(other, index) - _per_image(base, index)
        value = float(values.mean())
        half = QUANTILE * float(values.std(ddof=1)) / math.sqrt(len(index))
        return Difference(value, value - half, value + half, len(index), paired=True)
    images = min(result.images for result in (*base, *other))
    value = float(np.mean([r.accuracy for r in other]) - np.mean([r.accuracy for r in base]))
    if len(base) > 1:
        return Difference(value, -math.inf, math.inf, images, paired=False)
    (low_a, high_a), (low_b, high_b) = base[0].interval, other[0].interval
    below = math.hypot(other[0].accuracy - low_b, high_a - base[0].accuracy)
    above = math.hypot(high_b - other[0].accuracy, base[0].accuracy - low_a)
    return Difference(value, value - below, value + above, images, paired=False)
