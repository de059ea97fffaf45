"""Aggregate scores: one line for each network and way of attacking and judging it.

White box: the mean over the budgets of a norm, and over the norms. Corruptions: the mean over
severities and corruptions, and the mean of the four group means. What the authors of VOneNets put
into their aggregate is not published, so the parts and two means of them are given, each by both
rules for corruptions.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from vone_jax.report import bootstrap, compare
from vone_jax.report.attack_ways import Way, ways
from vone_jax.report.load import Run
from vone_jax.report.results import NORMS, Result
from vone_jax.report.wording import NORM_NAMES, count, eps_label, listing, noise_words

# The common corruptions of ImageNet-C. Where photographs of frost are not at hand, a drawn texture
# takes their place.
GROUPS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
}
_DRAWN = {"frost_procedural": "frost"}

# Score -> title, in the order of the columns.
TITLES = {
    "clean": "Clean",
    "linf": f"{NORM_NAMES['linf']} mean",
    "l2": f"{NORM_NAMES['l2']} mean",
    "l1": f"{NORM_NAMES['l1']} mean",
    "white_box": "White box",
    "noise": "Noise",
    "blur": "Blur",
    "weather": "Weather",
    "digital": "Digital",
    "corruptions": "Corruptions",
    "groups": "Corruptions, by group",
    "robust": "White box and corruptions",
    "robust_groups": "White box and corruptions, by group",
    "overall": "All",
    "overall_groups": "All, by group",
}


@dataclasses.dataclass(frozen=True)
class Score:
    """A mean of accuracies in [0, 1] and its interval; the ends are None where there is none."""

    value: float
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class Line:
    """A network, measured in one way.

    Attributes:
      label: of the network.
      trained: its noise in training, in words.
      attacked: the noise that the attack saw, in words; empty without an attack.
      judged: the noise in the judgement, and what a decision is made from, in words.
      attack: how it was attacked, in words; empty without an attack.
      scores: by the names of ``TITLES``; missing are those that were not measured, or not in the
        same conditions as in the other lines.
      budgets: (norm, label of the budget) -> accuracy, ascending.
    """

    label: str
    trained: str
    attacked: str
    judged: str
    attack: str
    scores: Mapping[str, Score]
    budgets: Mapping[tuple[str, str], Score]


@dataclasses.dataclass(frozen=True)
class Table:
    """The lines, the columns that any of them has, and what the means are over, in words."""

    lines: tuple[Line, ...]
    columns: tuple[str, ...]
    budgets: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class _Measured:
    """The results behind a line."""

    run: Run
    way: Way | None
    clean: Result | None
    attacks: Mapping[str, tuple[Result, ...]]
    corruptions: Mapping[tuple[str, int], Result]

    @property
    def any(self) -> Result:
        """One of them."""
        attacks = [result for ladder in self.attacks.values() for result in ladder]
        first = [self.clean] if self.clean else [*attacks, *self.corruptions.values()]
        return first[0]


def table(runs: Sequence[Run]) -> Table:
    """The scores of all runs."""
    measured = [found for run in runs for found in _measured(run)]
    ladders = {norm: _usual([(m.run, _ladder(m, norm)) for m in measured]) for norm in NORMS}
    ladders = {norm: ladder for norm, ladder in ladders.items() if ladder}
    corrupted = _usual([(m.run, tuple(m.corruptions)) for m in measured])
    varying = _varying([found.way for found in measured if found.way is not None])
    lines = tuple(_line(found, ladders, corrupted, varying) for found in measured)
    columns = tuple(name for name in TITLES if any(name in line.scores for line in lines))
    order = {budget: place for found in measured for place, budget in _ordered(found)}
    budgets = tuple(sorted(order, key=order.__getitem__))
    return Table(lines, columns, budgets, tuple(_notes(ladders, corrupted)))


def _measured(run: Run) -> list[_Measured]:
    """What was measured of a run, by how it was judged and attacked."""
    groups: dict[tuple, list[Result]] = {}
    for result in run.of_kind("clean", "attack", "corruption"):
        groups.setdefault(_judged_key(result), []).append(result)
    found = []
    for results in groups.values():
        of = {kind: [r for r in results if r.kind == kind] for kind in ("clean", "attack")}
        clean = of["clean"][0] if of["clean"] else None
        corruptions = _corruptions([r for r in results if r.kind == "corruption"])
        attacked = ways(of["attack"])
        for way, attacks in attacked or [(None, {})]:
            found.append(_Measured(run, way, clean, attacks, corruptions))
    return found


def _judged_key(result: Result) -> tuple:
    """Equal for results that were judged in the same way, whatever the attack saw. The number of
    draws is left out: it only makes a number more exact."""
    frozen = result.noise == "frozen"
    averaged = result.record["protocol"].get("averaged", 1)
    return (result.test_noise, frozen, result.decision, averaged)


def _corruptions(results: Sequence[Result]) -> dict[tuple[str, int], Result]:
    """(common corruption, severity) -> result, that in floating point if there are several."""
    # What is preferred comes last, and stays: floating point, photographs of frost.
    ordered = sorted(
        results,
        key=lambda r: (compare.form(r.condition), r.condition["corruption"] in _DRAWN),
        reverse=True,
    )
    found = {}
    for result in ordered:
        name = result.condition["corruption"]
        name = _DRAWN.get(name, name)
        if any(name in names for names in GROUPS.values()):
            found[name, result.condition["severity"]] = result
    return dict(sorted(found.items()))


def _ladder(found: _Measured, norm: str) -> tuple[str, ...]:
    return tuple(eps_label(result.condition) for result in found.attacks.get(norm, ()))


def _ordered(found: _Measured):
    """(place, (norm, label)) of the budgets of a line."""
    for norm, ladder in found.attacks.items():
        for result in ladder:
            place = (NORMS.index(norm), compare.budget(result))
            yield place, (norm, eps_label(result.condition))


def _usual(conditions: Sequence[tuple[Run, tuple]]) -> tuple:
    """The conditions that most networks have; the most among equals, empty if there are none."""
    counts = Counter(found for _, found in {(run.path, found) for run, found in conditions})
    del counts[()]
    return max(counts, key=lambda found: (counts[found], len(found), found), default=())


def _varying(found: Sequence[Way]) -> frozenset[str]:
    """Fields of attacks that tell lines apart, beyond steps and their length."""
    names = {(way.kind, name) for way in found for name in way.fields}
    return frozenset(
        name
        for kind, name in names
        if len({way.fields.get(name) for way in found if way.kind == kind}) > 1
    )


def _line(
    found: _Measured, ladders: Mapping[str, tuple], corrupted: tuple, varying: frozenset[str]
) -> Line:
    results = [found.clean] if found.clean else []
    results += [result for ladder in found.attacks.values() for result in ladder]
    results += list(found.corruptions.values())
    accuracy = np.array([result.accuracy for result in results])
    resampled = bootstrap.accuracies(results)

    def score(weights: np.ndarray) -> Score:
        low, high = (None, None) if resampled is None else bootstrap.interval(resampled @ weights)
        return Score(float(accuracy @ weights), low, high)

    def mean_of(members: Sequence[Result]) -> np.ndarray:
        chosen = [any(result is member for member in members) for result in results]
        return np.asarray(chosen) / len(members)

    weights = _weights(found, ladders, corrupted, mean_of)
    trained = _training_noise(found.run, found.any)
    judged = _judged(found.any, trained)
    return Line(
        label=found.run.label,
        trained=trained,
        attacked="" if found.way is None else _attacked(found.way, judged),
        judged=judged,
        attack="" if found.way is None else found.way.words(varying, found.attacks),
        scores={name: score(weights[name]) for name in TITLES if name in weights},
        budgets={
            (norm, eps_label(result.condition)): score(mean_of([result]))
            for norm, ladder in found.attacks.items()
            for result in ladder
        },
    )


def _weights(found: _Measured, ladders, corrupted, mean_of) -> dict[str, np.ndarray]:
    """Score -> the weight of each result in it."""
    weights = {} if found.clean is None else {"clean": mean_of([found.clean])}

    def add(name: str, parts: Sequence[str]) -> None:
        if parts and all(part in weights for part in parts):
            weights[name] = np.mean([weights[part] for part in parts], axis=0)

    for norm, ladder in ladders.items():
        if _ladder(found, norm) == ladder:
            weights[norm] = mean_of(found.attacks[norm])
    add("white_box", list(ladders))
    if corrupted and tuple(found.corruptions) == corrupted:
        there = list(dict.fromkeys(name for name, _ in found.corruptions))
        members = {group: [n for n in there if n in names] for group, names in GROUPS.items()}
        for group, names in {**members, "corruptions": there}.items():
            if names:
                weights[group] = _over_names(found.corruptions, names, mean_of)
        add("groups", list(GROUPS))
    for rule, suffix in (("corruptions", ""), ("groups", "_groups")):
        add(f"robust{suffix}", ["white_box", rule])
        if ladders:
            add(f"overall{suffix}", ["clean", *ladders, rule])
    return weights


def _over_names(corruptions, names, mean_of) -> np.ndarray:
    """The mean over corruptions of the mean over the severities of each."""
    severities = [[r for (other, _), r in corruptions.items() if other == n] for n in names]
    return np.mean([mean_of(members) for members in severities], axis=0)


def _training_noise(run: Run, result: Result) -> str:
    """The noise of V1 or stem in training, from the experiment that the result states."""
    if not run.stochastic:
        return "none"
    model = result.record.get("config", {}).get("model", {})
    config = (model.get("v1") or {}).get("noise") or model.get("stem_noise")
    if not config:
        return "noise"
    numbers = ", ".join(f"{name}={value}" for name, value in config.items() if name != "kind")
    return noise_words(f"{config.get('kind')}({numbers})")


def _judged(result: Result, trained: str) -> str:
    """The noise in the judgement and what a decision is made from."""
    other = result.record["model"].get("noise_at_test")
    noise = trained if other is None else noise_words(other["given"])
    parts = [f"{noise}, frozen" if result.noise == "frozen" else noise]
    if result.decision != "single":
        averaged = result.record["protocol"].get("averaged", "several")
        parts.append(f"{result.decision.replace('_', ' ')} of {averaged} draws")
    return "; ".join(parts)


def _attacked(way: Way, judged: str) -> str:
    """The noise that an attack saw, for a judgement in words."""
    noise = judged.partition(";")[0]
    if way.noise == "frozen":
        return f"{noise}, frozen"
    return noise_words(way.noise) if way.noise else noise


def _notes(ladders: Mapping[str, tuple[str, ...]], corrupted: tuple):
    """What the means are over."""
    for norm, ladder in ladders.items():
        yield f"{NORM_NAMES[norm]} mean: over the budgets {listing(ladder)}."
    if ladders:
        names = listing([NORM_NAMES[norm] for norm in ladders])
        yield f"White box: the mean over the norms {names}."
    if corrupted:
        names = {name for name, _ in corrupted}
        severities = sorted({severity for _, severity in corrupted})
        yield (
            f"Corruptions: the mean over {len(names)} of the 15 common ones at "
            f"{'the severities' if len(severities) > 1 else 'severity'} "
            f"{listing([str(severity) for severity in severities])}; by group: the mean of the "
            f"means of noise, blur, weather and digital."
        )
    if ladders and corrupted:
        yield "White box and corruptions: the mean of the two."
        yield f"All: the mean of clean, the {count(len(ladders), 'norm')} and corruptions."
    yield (
        "A mean is left out where a line has not the conditions that most networks have. "
        f"Intervals: {bootstrap.METHOD}; they do not cover another training seed."
    )
