"""The results that count, and conditions that several networks share: curves and rows."""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import scipy

from vone_jax import results
from vone_jax.names import NORMS, PROCEDURAL_FROST
from vone_jax.report.wording import count, dataset, form_label, listing, phrase, words
from vone_jax.results import Result, Run

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

# On fewer images, two accuracies are not compared: the normal approximation means little there.
FEW_IMAGES = 30
# Classes count as unequal if equal ones give such a share with less than this probability.
_UNEQUAL = 0.01
# Norm -> fields of an attack that make no difference in it.
_IDLE_FIELDS = {"linf": {"l1_step", "norm_offset", "projection", "order"}, "l2": {"l1_step"}}


def grouped(pairs: Iterable[tuple[_Key, _Value]]) -> dict[_Key, list[_Value]]:
    """The values of each key, in the order of the pairs."""
    groups: dict[_Key, list[_Value]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def as_deployed(run: Run, result: Result) -> bool:
    """True if a network was measured as used: with its own noise, one new draw for a decision."""
    if result.network.noise_replaced:
        return False
    protocol = result.protocol
    fresh = protocol.noise == "fresh" and result.attack_noise != "frozen"
    return not run.stochastic or (fresh and protocol.decision == "single")


def norms(runs: Sequence[Run], deployed: bool = True) -> list[str]:
    """The norms under which any run was attacked as deployed, or at all, in a fixed order."""
    used = {
        result.attack.norm
        for run in runs
        for result in run.of_kind("attack")
        if not deployed or (as_deployed(run, result) and result.attack_noise == "same")
    }
    return [norm for norm in NORMS if norm in used]


def chance(result: Result) -> float | None:
    """The accuracy of a network that guesses; None if the number of classes is not known."""
    classes = len(result.dataset.class_names)
    return 1 / classes if classes > 1 else None


def majority(result: Result) -> float | None:
    """The accuracy of the best constant answer for all images; None if classes count as equal.

    Classes count as equal unless one has more images than chance explains for equal classes.
    """
    classes = len(result.dataset.class_names)
    labels = result.arrays.get("label", np.empty(0))
    most = int(np.unique(labels, return_counts=True)[1].max(initial=0))
    if classes < 2 or most == 0:
        return None
    # The binomial probability of as many in one given class, times the number of classes.
    probability = classes * scipy.special.bdtrc(most - 1, len(labels), 1 / classes)
    return most / len(labels) if probability < _UNEQUAL else None


def guessing(result: Result) -> bool:
    """True if an accuracy is below chance or cannot be told from it; False if chance is unknown."""
    level = chance(result)
    return level is not None and result.interval[0] <= level


def near_chance(run: Run) -> bool:
    """True for a network near chance on clean images, such as one without training."""
    measured = clean(run)
    level = chance(measured) if measured else None
    if measured is None or level is None:
        return False
    largest = majority(measured)
    if largest is not None and measured.interval[0] <= largest:
        return True
    # For two classes, twice chance would be perfect accuracy. So the limit is half way to it.
    low = min(2 * level, (1 + level) / 2)
    return measured.interval[0] <= level or measured.accuracy < low


def same_places(one: Result, other: Result) -> bool:
    """True unless two results are known to use different indices of their data sets."""
    first, second = (result.arrays.get("index") for result in (one, other))
    return first is None or second is None or np.array_equal(first, second)


def common_chance(runs: Sequence[Run]) -> float | None:
    """The chance level of all results; None if it is not known or not the same for all."""
    levels = {chance(result) for run in runs for result in run.on_images}
    return levels.pop() if len(levels) == 1 else None


def clean(run: Run) -> Result | None:
    """The result of a network as deployed on clean images; None if there is none."""
    return next(iter(run.comparable(_deployed(run, "clean"))), None)


def _deployed(run: Run, kind: str) -> list[Result]:
    """The results of one kind of a network as deployed."""
    return [result for result in run.of_kind(kind) if as_deployed(run, result)]


def curve(run: Run, norm: str) -> dict[float, Result]:
    """The ``strongest`` attack on a network as deployed at each radius, ascending."""
    return {radius: strongest(attacks) for radius, attacks in attacks_by_radius(run, norm).items()}


def attacks_by_radius(run: Run, norm: str) -> dict[float, list[Result]]:
    """The attacks on a network as deployed by ascending radius, those on the most images first.

    The same attack on fewer images does not count. A radius at which the noise was replaced in
    every attack is left out: such an attack is a control, which counts only if a usual attack at
    the same radius is weaker.
    """
    in_norm = [result for result in _deployed(run, "attack") if result.attack.norm == norm]
    attacks: dict[float, list[Result]] = {}
    for result in run.comparable(in_norm):
        others = attacks.setdefault(result.attack.radius, [])
        if all(result.condition != other.condition for other in others):
            others.append(result)
    return {
        radius: each
        for radius, each in sorted(attacks.items())
        if any(result.attack_noise == "same" for result in each)
    }


def strongest(attacks: Sequence[Result]) -> Result:
    """The attack at one radius that leaves the lowest accuracy.

    An attack on other images counts only if at least ``FEW_IMAGES`` images are shared, and if the
    interval of the difference on these excludes zero.
    """
    usual = sorted(attacks, key=lambda each: (-each.images, each.attack_noise != "same"))
    lowest = usual[0]
    for result in usual[1:]:
        change = results.difference([lowest], [result])
        lower = change.sign < 0 and change.images >= FEW_IMAGES
        same = result.images == lowest.images and same_places(result, lowest)
        if lower or (same and change.value < 0):
            lowest = result
    return lowest


def ladders(run: Run) -> list[list[Result]]:
    """``curve`` of each norm that a network as deployed was attacked in, without the radii."""
    curves = (curve(run, norm) for norm in norms([run]))
    return [list(by_radius.values()) for by_radius in curves if by_radius]


class Headline(NamedTuple):
    """The results of a network that stand beside those of others at the top of the page.

    Attributes:
      clean: result on clean images; None if there is none.
      attacked: results at one radius of each norm.
      corrupted: results behind the mean under corruption.
    """

    clean: Result | None
    attacked: Sequence[Result]
    corrupted: Mapping[tuple[str, int], Result]


def headlines(runs: Sequence[Run]) -> list[Headline]:
    """The headline of each network, in the conditions that most networks have.

    A network that lacks them is shown at another radius, named in its label, and without a mean
    under corruption. If there are no such conditions, each mean is over its own corruptions.
    """
    attacked: list[list[Result]] = [[] for _ in runs]
    for norm in norms(runs):
        curves = [curve(run, norm) for run in runs]
        radii_of_most = sorted(_of_most(curves))
        middle = radii_of_most[len(radii_of_most) // 2 :][:1]
        for chosen, by_radius in zip(attacked, curves, strict=True):
            own = [eps for eps in by_radius if eps in radii_of_most] or list(by_radius)
            radii = [eps for eps in middle if eps in by_radius] or own[len(own) // 2 :][:1]
            chosen += [by_radius[eps] for eps in radii]
    corrupted = list(map(averaged, runs))
    if usual := _of_most(corrupted):
        corrupted = [
            {key: each[key] for key in sorted(usual)} if usual <= each.keys() else {}
            for each in corrupted
        ]
    return list(map(Headline, map(clean, runs), attacked, corrupted))


def _of_most(measured: Sequence[Mapping[_Key, Result]]) -> frozenset[_Key]:
    """A long list of conditions that most networks have; empty if there is none.

    The longest list is found in nearly all cases. To be certain, one would have to try every
    majority of the networks.
    """
    lists = sorted((frozenset(each) for each in measured if each), key=_in_order)
    candidates = set()
    # Each network in turn is joined by those that share most with it, until most are together.
    for common in set(lists):
        others = list(lists)
        for _ in range(len(lists) // 2 + 1):
            nearest = max(others, key=lambda each: len(common & each))
            others.remove(nearest)
            common &= nearest
        candidates.add(common)
    return max(candidates, key=lambda each: (len(each), _in_order(each)), default=frozenset())


def _in_order(conditions: Iterable[Any]) -> list[str]:
    return sorted(map(str, conditions))


def images(runs: Sequence[Run]) -> str:
    """The number of images behind the headline; by condition where these differ, else one."""
    shown: dict[str, list[Result]] = {
        "clean": [result for run in runs if (result := clean(run))],
        "attacked": [result for run in runs for ladder in ladders(run) for result in ladder],
        "corrupted": [r for shown in headlines(runs) for r in shown.corrupted.values()],
    }
    spans: dict[str, str] = {}
    for kind, measured in shown.items():
        if numbers := {result.images for result in measured}:
            spans[kind] = " to ".join(f"{n:,}" for n in sorted({min(numbers), max(numbers)}))
    if len(set(spans.values())) > 1:
        return f"{listing([f'{span} {kind}' for kind, span in spans.items()])} images"
    span = next(iter(spans.values()), "")
    return f"{span} {'image' if span == '1' else 'images'}" if span else ""


def attack_condition(result: Result) -> results.AttackCondition:
    """The condition of an attack result."""
    assert isinstance(result.condition, results.AttackCondition)
    return result.condition


def is_drawn_frost(result: Result) -> bool:
    """True for images with a drawn texture in the place of photographs of frost."""
    return getattr(result.condition, "corruption", "") == PROCEDURAL_FROST


def corruptions(run: Run) -> dict[tuple[str, int], Result]:
    """(corruption, severity) -> the result of a network as deployed, sorted."""
    return by_corruption(run.comparable(_deployed(run, "corruption")))


def averaged(run: Run) -> dict[tuple[str, int], Result]:
    """The ``corruptions`` that means are over: common ones, else all, at shared severities."""
    measured = corruptions(run)
    return results.common_corruptions(measured) or results.at_shared_severities(measured)


def by_corruption(measured: Sequence[Result]) -> dict[tuple[str, int], Result]:
    """(corruption, severity) -> the result that counts, sorted.

    ``measured`` is in the order of ``Run.comparable``. Where a condition was measured in several
    forms, the one in floating point counts.
    """
    by_condition: dict[tuple[str, int], Result] = {}
    # The empty label of floating point is the first.
    for result in sorted(measured, key=lambda each: form_label(each.form)):
        condition = result.condition
        assert isinstance(condition, results.CorruptionCondition)
        by_condition.setdefault((condition.corruption, condition.severity), result)
    return dict(sorted(by_condition.items()))


def by_radius(attacks: Sequence[Result]) -> dict[tuple[str, str], Result]:
    """(norm, label of the radius) -> the result that counts, by norm and ascending radius.

    The attacks are in the order of ``Run.comparable``.
    """
    ordered = sorted(reversed(attacks), key=lambda r: (NORMS.index(r.attack.norm), r.attack.radius))
    return {(r.attack.norm, r.attack.eps_label): r for r in ordered}


def attack_fields(fields: Mapping[str, Any], norm: str, eps: float) -> dict[str, str]:
    """The fields of an attack as text, without what may differ in a fair comparison.

    Left out are norm and radius, fields without effect in the norm, and the noise draws that a
    gradient averages over, which are one for a deterministic network. A step size is relative to
    the radius.
    """
    left_out = {"name", "norm", "eps", "eot_samples", *_IDLE_FIELDS.get(norm, ())}

    def text(name: str, value: Any) -> str:
        if name == "step_size" and isinstance(value, int | float) and value > 0:
            return f"eps/{eps / value:.4g}"
        if isinstance(value, dict) and "name" in value:
            return code(value["name"], attack_fields(value, norm, eps))
        return str(value)

    return {name: text(name, value) for name, value in fields.items() if name not in left_out}


def code(name: str, fields: Mapping[str, str]) -> str:
    """A class with fields as code."""
    return f"{name}({', '.join(f'{field}={value}' for field, value in fields.items())})"


def attack_settings(result: Result) -> str:
    """The attacks of an attack result as code, with the fields of ``attack_fields``."""
    attacks = attack_condition(result).attacks
    return "; ".join(
        code(one.name, attack_fields(one.fields, one.norm, one.eps)) for one in attacks
    )


def result_fields(result: Result, norm: str | None = None) -> dict[str, str]:
    """``attack_fields`` of an attack result; for several attacks with the name and number of each.

    Fields without effect in ``norm`` are left out. Default: the attack's norm; "" keeps all fields.
    """
    attacks = attack_condition(result).attacks
    norm = result.attack.norm if norm is None else norm
    return {
        name if len(attacks) == 1 else f"{attack.name} {place}.{name}": value
        for place, attack in enumerate(attacks, 1)
        for name, value in attack_fields(attack.fields, norm, attack.eps).items()
    }


def varying(attacks: Iterable[tuple[_Key, Mapping[str, str]]]) -> dict[_Key, set[str]]:
    """Key -> the fields that tell its attacks apart: they differ, or only some attacks have them.

    ``attacks`` are pairs of a key, such as the name of the attack, and ``attack_fields``.
    """
    return {
        key: {name for fields in every for name in fields if len({f.get(name) for f in every}) > 1}
        for key, every in grouped(attacks).items()
    }


def control(run: Run, result: Result) -> str:
    """A control of the noise in words: at the attack, in its gradients, or at the judgement.

    It is empty for a network that was attacked and judged as usual.
    """
    draws, deployed = "", as_deployed(run, result)
    if deployed and result.kind == "attack" and result.attack_noise == "same":
        # The usual number differs between networks, since one without noise needs one draw, and
        # between attacks.
        condition = attack_condition(result)
        attacks = map(attack_condition, _deployed(run, "attack"))
        usual_noise = [each for each in attacks if each.attack_noise == "same"]
        # Of two numbers that are as frequent, that of the first result.
        usual = statistics.mode(
            each.eot_samples for each in usual_noise if each.attack_name == condition.attack_name
        )
        if condition.eot_samples != usual:
            draws = f"gradients of {count(condition.eot_samples, 'draw')}"
    judged = "" if deployed else result.protocol_label
    return phrase(result.attack_noise_label, draws, judged)


@dataclasses.dataclass(frozen=True)
class Row:
    """A condition and its result for each run.

    Attributes:
      control: the control of the noise in words; empty for a usual condition.
      detail: attack, form, images that are not the usual ones, control, and the name of a result
        that repeats another one.
      repeat: whether an earlier row has the same condition.
      results: one for each run; None where a run has none.
    """

    kind: str
    control: str
    label: str
    detail: str
    repeat: bool
    results: tuple[Result | None, ...]


def rows(runs: Sequence[Run]) -> list[Row]:
    """All measured accuracies: clean first, then attacks by norm and radius, then corruptions."""
    table: dict[tuple, tuple[Sequence[str], list[Result | None]]] = {}
    for position, run in enumerate(runs):
        # Of results that are described alike, the first is the usual one, as in ``comparable``.
        measured = run.of_kind("clean", "attack", "corruption")
        repeats = Counter()
        for result in sorted(measured, key=lambda each: -each.images):
            key, *names = _described(run, result)
            _, row = table.setdefault((key, repeats[key]), (names, [None] * len(runs)))
            row[position] = result
            repeats[key] += 1
    counts = Counter(
        (key[-1], label, detail) for (key, _), ((label, detail, _), _) in table.items()
    )
    shown = []
    for (key, repeat), ((label, detail, in_full), measured) in sorted(table.items()):
        noise = key[-1]
        there = [result for result in measured if result is not None]
        details = [detail if counts[noise, label, detail] == 1 else in_full, noise]
        # A condition that a run repeats, for instance with another seed, shows the result's name.
        details += sorted({result.name for result in there}) if repeat else []
        text = phrase(*details)
        shown.append(Row(there[0].kind, noise, label, text, repeat > 0, tuple(measured)))
    return shown


def unusual_images(run: Run, result: Result) -> str:
    """The data set of a result in words; empty for the usual one, published sets and gratings."""
    usual = not run.sets or result.dataset.part == run.sets[0]
    usual = usual or result.published or result.kind == "physiology"
    return "" if usual else dataset(result.dataset.part)


def _described(run: Run, result: Result) -> tuple[tuple, str, str, str]:
    """(key that ends with the control of the noise, label, detail, detail in full)."""
    condition, noise = result.condition, control(run, result)
    images = unusual_images(run, result)
    label, detail, in_full = "Clean images", "", ""
    order: tuple = (0,)
    if isinstance(condition, results.AttackCondition):
        attack, in_full = result.attack, attack_settings(result)
        order = (1, NORMS.index(attack.norm), attack.radius, in_full)
        label, detail = attack.label, condition.attack_name
    elif isinstance(condition, results.CorruptionCondition):
        detail = in_full = form_label(condition.form)
        label = f"{words(condition.corruption)}, severity {condition.severity}"
        order = (2, condition.corruption, condition.severity, in_full)
    return (*order, images, noise), label, phrase(detail, images), phrase(in_full, images)
