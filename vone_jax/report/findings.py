"""Plain sentences, computed from the numbers: what a VOneNet gains and loses against its base."""

import dataclasses
from collections.abc import Sequence

from vone_jax.report import compare
from vone_jax.report.load import Run
from vone_jax.report.wording import (
    NORM_NAMES,
    count,
    eps_label,
    interval,
    listing,
    percent,
    points,
)

# Below this the normal approximation behind an interval of differences means little.
FEW_IMAGES = 30


@dataclasses.dataclass(frozen=True)
class Finding:
    """One sentence. ``tone`` is good, bad, mixed or neutral, from the VOneNet's side."""

    tone: str
    text: str


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A VOneNet against its base: one verdict on attacks, and the sentences behind it."""

    base: Run
    vone: Run
    verdict: Finding | None
    findings: tuple[Finding, ...]


@dataclasses.dataclass(frozen=True)
class _Outcome:
    """How two networks differ at one budget. ``broken``: both are at chance or below, where a
    stochastic network is right now and then by luck, so that a difference means nothing."""

    difference: compare.Difference
    broken: bool

    @property
    def sign(self) -> int:
        """1 if the VOneNet is certainly more robust, -1 if certainly less, else 0."""
        return 0 if self.broken else self.difference.sign


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """A comparison for each VOneNet whose base network is among the runs."""
    found = []
    for base, vone in compare.pairs(runs):
        ladders = {norm: _outcomes(base, vone, norm) for norm in compare.norms([base, vone])}
        sentences = (
            _clean(base, vone),
            *(_attack(base, vone, norm, outcomes) for norm, outcomes in ladders.items()),
            _corruption(base, vone),
        )
        everything = [item for outcomes in ladders.values() for item in outcomes.values()]
        found.append(
            Comparison(
                base,
                vone,
                _verdict(base, vone, everything) if everything else None,
                tuple(sentence for sentence in sentences if sentence),
            )
        )
    return found


def _outcomes(base: Run, vone: Run, norm: str) -> dict[float, _Outcome]:
    """eps -> outcome, over the budgets at which both networks were attacked."""
    of_base, of_vone = compare.curve(base, norm), compare.curve(vone, norm)
    found = {}
    for eps in of_base:
        if eps in of_vone:
            first, second = of_base[eps], of_vone[eps]
            classes = len(first.dataset.class_names)
            broken = classes > 1 and max(first.accuracy, second.accuracy) <= 1 / classes
            found[eps] = _Outcome(compare.difference([first], [second]), broken)
    return found


def _verdict(base: Run, vone: Run, outcomes: Sequence[_Outcome]) -> Finding:
    more = f"{vone.label} is more robust than {base.label}"
    if min(item.difference.images for item in outcomes) < FEW_IMAGES:
        return Finding(
            "neutral",
            f"Too few images to tell whether {vone.label} is more robust than {base.label}.",
        )
    total = sum(not item.broken for item in outcomes)
    if total == 0:
        return Finding("neutral", "Every attack measured breaks both networks.")

    def share(part: int) -> str:
        return f"{part} of {total} attack conditions" if total > 1 else "the one attack condition"

    won = sum(item.sign > 0 for item in outcomes)
    lost = sum(item.sign < 0 for item in outcomes)
    if won == total:
        every = f"all {total} attack conditions" if total > 1 else share(1)
        tone, text = "good", f"{more} in {every}"
    elif won and lost:
        tone, text = "mixed", f"{more} in {share(won)}, and less robust in {lost}"
    elif won:
        tone = "good" if 2 * won > total else "mixed"
        text = f"{more} in {share(won)}; in the others the two cannot be told apart"
    elif lost:
        tone = "bad"
        text = (
            f"{vone.label} is not more robust than {base.label}: it is less robust in "
            f"{share(lost)} and more robust in none"
        )
    else:
        tone = "neutral"
        text = (
            f"{vone.label} is not measurably more robust than {base.label}: the two cannot be "
            f"told apart in {f'any of {total} attack conditions' if total > 1 else share(1)}"
        )
    broken = len(outcomes) - total
    rest = f". {count(broken, 'further attack')} left both at chance or below" if broken else ""
    return Finding(tone, f"{text}{rest}.")


def _ends(item: compare.Difference) -> str:
    """The difference in words, with its interval where there is one."""
    text = f"{points(item.value)} points"
    if item.high - item.low > 2:
        return text
    return f"{text}, 95 % interval {points(item.low)} to {points(item.high)}"


def _clean(base: Run, vone: Run) -> Finding | None:
    of_base, of_vone = compare.clean(base), compare.clean(vone)
    if of_base is None or of_vone is None:
        return None
    item = compare.difference([of_base], [of_vone])
    numbers = (
        f"{percent(of_vone.accuracy)} for {vone.label} and {percent(of_base.accuracy)} for "
        f"{base.label} ({_ends(item)})"
    )
    if item.sign == 0:
        return Finding("neutral", f"Clean images: no measurable difference, {numbers}.")
    word = "costs accuracy" if item.sign < 0 else "gains accuracy"
    return Finding("bad" if item.sign < 0 else "good", f"Clean images: V1 {word}, {numbers}.")


def _attack(base: Run, vone: Run, norm: str, outcomes: dict[float, _Outcome]) -> Finding | None:
    if not outcomes:
        return None
    name = f"{NORM_NAMES[norm]} attacks"
    of_base, of_vone = compare.curve(base, norm), compare.curve(vone, norm)
    groups = {
        phrase: [eps for eps, item in outcomes.items() if belongs(item)]
        for phrase, belongs in (
            ("more robust", lambda item: item.sign > 0),
            ("less robust", lambda item: item.sign < 0),
            ("no measurable difference", lambda item: item.sign == 0 and not item.broken),
            ("both at chance or below", lambda item: item.broken),
        )
    }

    def labels(budgets: Sequence[float]) -> str:
        return listing([eps_label(of_vone[eps].condition) for eps in budgets])

    parts = [f"{phrase} at {labels(budgets)}" for phrase, budgets in groups.items() if budgets]
    won, lost = groups["more robust"], groups["less robust"]
    if not won and not lost:
        return Finding("neutral", f"{name}: {'; '.join(parts)}.")
    # Only where nothing is gained is the largest loss worth a number.
    eps = max(won or lost, key=lambda eps: abs(outcomes[eps].difference.value))
    parts.append(
        f"the {'gain' if won else 'loss'} is largest at {labels([eps])}, "
        f"{percent(of_vone[eps].accuracy)} against {percent(of_base[eps].accuracy)} "
        f"({_ends(outcomes[eps].difference)})"
    )
    tone = "mixed" if won and lost else "good" if won else "bad"
    return Finding(tone, f"{name}: {'; '.join(parts)}.")


def _corruption(base: Run, vone: Run) -> Finding | None:
    of_base, of_vone = compare.corruptions(base), compare.corruptions(vone)
    common = [key for key in of_base if key in of_vone]
    if not common:
        return None
    first = [of_base[key] for key in common]
    second = [of_vone[key] for key in common]
    item = compare.difference(first, second)
    kinds = len({name for name, _ in common})
    numbers = (
        f"mean over {count(kinds, 'corruption')} {percent(compare.mean_accuracy(second)[0])} for "
        f"{vone.label} and {percent(compare.mean_accuracy(first)[0])} for {base.label} "
        f"({_ends(item)})"
    )
    word = {1: "more robust", -1: "less robust", 0: "no measurable difference"}[item.sign]
    tone = {1: "good", -1: "bad", 0: "neutral"}[item.sign]
    return Finding(tone, f"Corruptions: {word}, {numbers}.")


def single(run: Run) -> str:
    """What is known of one network, for a page without a pair to compare."""
    measured = compare.clean(run)
    parts = []
    if measured is not None:
        parts.append(
            f"is right on {percent(measured.accuracy)} of clean images "
            f"({interval(*measured.interval)})"
        )
    for norm in compare.norms([run]):
        budgets = compare.curve(run, norm)
        if budgets:
            worst = budgets[max(budgets)]
            parts.append(
                f"on {percent(worst.accuracy)} under {NORM_NAMES[norm]} attacks of "
                f"{eps_label(worst.condition)}"
            )
    return f"{run.label} {listing(parts)}." if parts else f"{run.label} has no measured accuracy."
