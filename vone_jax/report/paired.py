"""A VOneNet beside its base network: the paired differences, and one sentence about them."""

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vone_jax import names, results
from vone_jax.report import comparison
from vone_jax.report.wording import corruption_label, count, listing
from vone_jax.results import Result, Run

# How a network is trained, in config.json; a network and its VOneNet differ elsewhere, too.
_TRAINING = (
    *("data.source", "data.train_split", "data.batch_size", "data.augment", "data.corruptions"),
    *("data.corruption_severity", "data.corruption_probability", "model.stem_noise"),
    *("model.stem_gain", "model.width", "model.image_size", "optimizer", "epochs", "steps"),
    *("initial_weights", "freeze", "perturbation", "similarity", "distillation", "precision"),
)


def pairs(runs: Sequence[Run]) -> list[tuple[Run, Run]]:
    """(base network, its VOneNet) for every VOneNet with a base network on the same data.

    Of several base networks, the one whose training differs in the fewest settings counts, if
    possible with the same seed. Several equal runs are paired in the given order.
    """
    paired = []
    for vone in runs:
        if not names.front_end(vone.model):
            continue
        likenesses = {run: _likeness(run, vone) for run in runs if _sets(run) & _sets(vone)}
        bases = [run for run in likenesses if run.model == names.base_network(vone.model)]
        if bases:
            most = max(likenesses[base] for base in bases)
            bases = [base for base in bases if likenesses[base] == most]
            siblings = [
                run
                for run, likeness in likenesses.items()
                if run.model == vone.model and likeness >= (0, most[1])
            ]
            paired.append((bases[min(siblings.index(vone), len(bases) - 1)], vone))
    return paired


def _likeness(one: Run, other: Run) -> tuple[int, bool]:
    """(minus the number of settings in which two trainings differ, whether the seed is the same)"""
    differing = sum(_setting(one, name) != _setting(other, name) for name in _TRAINING)
    return -differing, _setting(one, "seed") == _setting(other, "seed")


def _setting(run: Run, path: str) -> Any:
    """A setting of the experiment; None if it is off or not known."""
    value: Any = run.config.get("experiment")
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value or None


def _sets(run: Run) -> set[tuple[str, str]]:
    """The data sets and splits of a run; published corrupted images count as one."""
    on_images = [result for result in run.results if result.kind != "physiology"]
    return {("published", "") if each.published else each.dataset.part for each in on_images}


@dataclasses.dataclass(frozen=True)
class Line:
    """A condition in the comparison of two networks.

    Attributes:
      base: the results of the base network, several for a mean.
      vone: the results of its VOneNet.
      difference: the accuracy of the VOneNet minus that of its base.
      tone: "good", "bad" or "neutral", for the VOneNet.
    """

    kind: str
    label: str
    base: tuple[Result, ...]
    vone: tuple[Result, ...]
    difference: results.Difference
    verdict: str
    tone: str

    @property
    def images(self) -> str:
        """The number of images behind the difference, where a result has more."""
        return on_common(self.difference, (*self.base, *self.vone))


def on_common(difference: results.Difference, members: Sequence[Result]) -> str:
    """The number of common images behind a difference, if a member has more; else ""."""
    fewer = difference.images < max(result.images for result in members)
    of = count(difference.images, "common image")
    return f"on {of}" if difference.paired and fewer else ""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A VOneNet beside its base network: one sentence, and the table behind it."""

    base: Run
    vone: Run
    sentence: str
    lines: tuple[Line, ...]


BROKEN = "both at chance or below"
TOO_FEW = "too few images"
ALIKE = "cannot be told apart"
UNKNOWN = "no interval"


def comparisons(runs: Sequence[Run]) -> list[Comparison]:
    """A comparison for each pair of networks."""
    compared = []
    for base, vone in pairs(runs):
        lines = tuple(_lines(base, vone))
        compared.append(Comparison(base, vone, _sentence(base, vone, lines), lines))
    return compared


def _lines(base: Run, vone: Run):
    first, second = comparison.clean(base), comparison.clean(vone)
    if first and second and alike(first, second):
        yield _line("clean", "Clean images", [first], [second])
    for norm in comparison.norms([base, vone]):
        of_base, of_vone = (comparison.attacks_by_radius(run, norm) for run in (base, vone))
        for eps in of_base:
            if eps in of_vone:
                first, second, same = _under_attack(of_base[eps], of_vone[eps])
                if alike(first, second):
                    label = second.attack.label + ("" if same else ", by different attacks")
                    yield _line("attack", label, [first], [second])
    of_base, of_vone = comparison.averaged(base), comparison.averaged(vone)
    shared = [key for key in of_base if key in of_vone and alike(of_base[key], of_vone[key])]
    if shared:
        first, second = ([conditions[key] for key in shared] for conditions in (of_base, of_vone))
        yield _line("corruption", corruption_label(shared), first, second)


def alike(one: Result, other: Result) -> bool:
    """True for results on the same images, with the same corruption and form if there is one."""
    corruptions = (getattr(each.condition, "corruption", None) for each in (one, other))
    return len(set(corruptions)) == 1 and one.form == other.form and one.same_images(other)


def _under_attack(base: list[Result], vone: list[Result]) -> tuple[Result, Result, bool]:
    """The strongest attack on each network at a radius, among attacks with common settings.

    Without common settings it is the strongest attack on each, and the last value is False.
    """
    common = set.intersection(*({_settings(each) for each in of} for of in (base, vone)))
    shared = [[each for each in of if _settings(each) in common] or of for of in (base, vone)]
    return comparison.strongest(shared[0]), comparison.strongest(shared[1]), bool(common)


def _settings(result: Result) -> tuple[str, str]:
    return comparison.attack_settings(result), result.attack_noise_label


def _line(kind: str, label: str, base: list[Result], vone: list[Result]) -> Line:
    item = results.difference(base, vone)
    better = {"clean": "accurate"}.get(kind, "robust")
    verdicts = {1: (f"more {better}", "good"), -1: (f"less {better}", "bad")}
    unclear = UNKNOWN if math.isinf(item.low) else ALIKE
    verdict, tone = verdicts.get(item.sign, (unclear, "neutral"))
    if item.images < comparison.FEW_IMAGES:
        verdict, tone = TOO_FEW, "neutral"
    # Where attacks break both networks, a stochastic one is still right now and then by chance.
    elif kind == "attack" and comparison.guessing(base[0]) and comparison.guessing(vone[0]):
        verdict, tone = BROKEN, "neutral"
    return Line(kind, label, tuple(base), tuple(vone), item, verdict, tone)


def _sentence(base: Run, vone: Run, lines: Sequence[Line]) -> str:
    attacks = [line for line in lines if line.kind == "attack"]
    if not attacks:
        of_base, of_vone = ([r.dataset for r in run.of_kind("attack")] for run in (base, vone))
        if any(one.changed(other) for one in of_base for other in of_vone):
            return f"{vone.label} and {base.label} were attacked on different images."
        return f"{vone.label} and {base.label} share no attack."
    attacks = [line for line in attacks if line.verdict != TOO_FEW]
    if not attacks:
        return f"Too few images to tell whether {vone.label} is more robust than {base.label}."
    weak = [run.label for run in (base, vone) if comparison.near_chance(run)]
    if weak:
        are = "is" if len(weak) == 1 else "are"
        return f"{listing(weak)} {are} near chance on clean images, so robustness says little."
    counts = Counter(line.verdict for line in attacks)
    total = len(attacks) - counts[BROKEN]
    if total == 0:
        return f"Every attack here leaves {vone.label} and {base.label} at chance or below."
    of = f"of {count(total, 'attack condition')}"
    parts = [
        f"{verdict} than {base.label} in {counts[verdict]} {of}"
        for verdict in ("more robust", "less robust")
        if counts[verdict]
    ]
    alike = f"{ALIKE} in {counts[ALIKE]}"
    if parts:
        rest = f"; the two {alike}" if counts[ALIKE] else ""
        text = f"{vone.label} is {' and '.join(parts)}{rest}"
    else:
        text = f"{vone.label} and {base.label} {alike} {of}"
    broken = counts[BROKEN]
    rest = f". {count(broken, 'further attack')} left both at chance or below" if broken else ""
    return f"{text}{rest}."
