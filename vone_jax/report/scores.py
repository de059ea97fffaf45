"""Aggregate scores: one line for each network and each way of attacking and judging it.

White box: the mean over the radii of a norm, and over the norms. Corruptions: the mean over
severities and corruptions, and the mean of the four group means. What the authors of VOneNets put
into their aggregate is not published, so the parts and two means of them are given, each by both
rules for corruptions.
"""

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd

from vone_jax import results
from vone_jax.names import CORRUPTION_GROUPS, NORM_LABELS, NORMS, PROCEDURAL_FROST
from vone_jax.report import comparison
from vone_jax.report.wording import listing, markdown
from vone_jax.results import Noise, Result, Run

# Score -> title, in the order of the columns.
TITLES = {
    "clean": "Clean",
    **{norm: f"{NORM_LABELS[norm]} mean" for norm in NORMS},
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
# The two tables of the page: each is narrow enough to be read without scrolling.
PARTS = (
    ("clean", *NORMS, "white_box", "corruptions", "robust", "overall"),
    (*CORRUPTION_GROUPS, "groups", "robust_groups", "overall_groups"),
)
_SETUP = ("network", "trained", "attacked", "judged", "attack")
_HEADINGS = ("Network", "Noise in training", "at the attack", "at the test", "Attack")
# Fields of an attack that make no difference in a norm.
_WITHOUT_EFFECT = {
    "linf": frozenset({"l1_step", "norm_offset", "projection", "order"}),
    "l2": frozenset({"l1_step"}),
    "l1": frozenset(),
}
# Fields that a description of the steps contains.
_STEPS = ("steps", "step_size", "step_rule")


@dataclasses.dataclass(frozen=True)
class Score:
    """A mean of accuracies in [0, 1] and its interval; the ends are None where there is none."""

    value: float
    low: float | None
    high: float | None


@dataclasses.dataclass(frozen=True)
class AttackSettings:
    """The settings of an attack, apart from norm and radius.

    Attributes:
      name: the name of the attack.
      fields: as in ``comparison.attack_fields``.
      draws: noise draws that a gradient averages over.
      noise: the noise of the network while it was attacked.
    """

    name: str
    fields: Mapping[str, str]
    draws: int
    noise: results.AttackNoise

    @classmethod
    def of(cls, result: Result) -> "AttackSettings":
        """The settings of an attack result."""
        condition = result.condition
        assert isinstance(condition, results.AttackCondition)
        fields = comparison.result_fields(result)
        return cls(condition.attack_name, fields, condition.eot_samples, condition.attack_noise)

    def effective(self, norm: str) -> tuple:
        """The settings that matter in a norm; equal for attacks that are the same there."""
        fields = {n: v for n, v in self.fields.items() if n not in _WITHOUT_EFFECT[norm]}
        return self.name, tuple(sorted(fields.items())), self.draws, self.noise

    def label(self, varying: Collection[str], used: Collection[str]) -> str:
        """The attack in short: steps, draws, and those fields that tell attacks apart.

        Args:
          varying: fields that tell attacks apart.
          used: norms it was used in; fields without effect in all of them are left out.
        """
        idle = frozenset.intersection(*(_WITHOUT_EFFECT[norm] for norm in used))
        parts = [self.name]
        if "steps" in self.fields:
            length = self.fields.get("step_size", "None")
            if length == "None":
                length = self.fields.get("step_rule", "")
            parts.append(f"{self.fields['steps']} steps of {length}" if length else "")
        parts += [
            f"{name} {value}"
            for name, value in self.fields.items()
            if name in varying and name not in _STEPS and name not in idle
        ]
        if self.draws > 1:
            parts.append(f"{self.draws} draws")
        return ", ".join(filter(None, parts))


@dataclasses.dataclass(frozen=True)
class Line:
    """A network, measured in one way.

    Attributes:
      label: of the network.
      trained: its noise in training, in words.
      attacked: the noise at the attack, in words; empty without an attack.
      judged: the noise at the test and the input of a decision, in words.
      attack: the attack in words; empty without one.
      scores: by the names of ``TITLES``. Missing are those that were not measured, or not in the
        same conditions as in the other lines.
      radii: (norm, label of the radius) -> accuracy, ascending.
    """

    label: str
    trained: str
    attacked: str
    judged: str
    attack: str
    scores: Mapping[str, Score]
    radii: Mapping[tuple[str, str], Score]

    @property
    def setup(self) -> tuple[str, ...]:
        """The network and how it was attacked and judged."""
        return self.label, self.trained, self.attacked, self.judged, self.attack

    def has(self, columns: Collection[str]) -> bool:
        """Whether the line has a score in any of these columns."""
        return any(name in self.scores for name in columns)

    @property
    def noise(self) -> str:
        """The noise in training, at the attack and at the test in one phrase."""
        used = {self.trained, self.judged, *([self.attacked] if self.attack else [])}
        if len(used) == 1:
            return {"none": "no noise", "noise": "noise"}.get(self.trained, f"noise {self.trained}")
        attacked = f", {self.attacked} at the attack" if self.attack else ""
        return f"noise: {self.trained} in training{attacked}, {self.judged} at the test"


@dataclasses.dataclass(frozen=True)
class Table:
    """The lines, the columns that any of them has, and what the means are over, in words."""

    lines: tuple[Line, ...]
    columns: tuple[str, ...]
    radii: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]

    def to_csv(self) -> str:
        """One line for each network and way of measuring it, with full precision.

        A score has three columns: its name, and the name with ``_low`` and ``_high``.
        """
        names = [*self.columns, *(f"{norm}_{label}" for norm, label in self.radii)]
        rows = []
        for line in self.lines:
            row = dict(zip(_SETUP, line.setup, strict=True))
            for name, score in zip(names, self._scores(line), strict=True):
                ends = (None,) * 3 if score is None else dataclasses.astuple(score)
                row |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
            rows.append(row)
        return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")

    def to_markdown(self) -> str:
        """The scores in percent with their intervals, then the accuracy at each radius."""
        parts = ["\n".join(f"- {note}" for note in self.notes)]
        radii = [f"{NORM_LABELS[norm]} {label}" for norm, label in self.radii]
        titles = [TITLES[name] for name in self.columns]
        places = slice(None, len(titles)), slice(len(titles), None)
        for heading, place in zip((titles, radii), places, strict=True):
            if heading:
                rows = [
                    [*line.setup, *map(_cell, self._scores(line)[place])] for line in self.lines
                ]
                parts.append(markdown([*_HEADINGS, *heading], rows))
        return "\n\n".join(parts) + "\n"

    def _scores(self, line: Line) -> list[Score | None]:
        scores = [line.scores.get(name) for name in self.columns]
        return scores + [line.radii.get(radius) for radius in self.radii]


def _cell(score: Score | None) -> str:
    if score is None:
        return "–"
    if score.low is None or score.high is None:
        return f"{100 * score.value:.1f}"
    return f"{100 * score.value:.1f} ({100 * score.low:.1f} to {100 * score.high:.1f})"


@dataclasses.dataclass(frozen=True)
class _Measured:
    """The results behind a line."""

    run: Run
    settings: AttackSettings | None
    clean: Result | None
    attacks: Mapping[str, tuple[Result, ...]]
    corruptions: Mapping[tuple[str, int], Result]

    @property
    def results(self) -> list[Result]:
        """All results of the line, each once."""
        attacks = [result for ladder in self.attacks.values() for result in ladder]
        return [*([self.clean] if self.clean else []), *attacks, *self.corruptions.values()]

    def ladder(self, norm: str) -> tuple[str, ...]:
        """The labels of the radii of a norm."""
        return tuple(_eps_label(result) for result in self.attacks.get(norm, ()))


def table(runs: Sequence[Run]) -> Table:
    """The scores of all runs."""
    measured = [each for run in runs for each in _measured(run)]
    ladders = {norm: _usual([(m.run, m.ladder(norm)) for m in measured]) for norm in NORMS}
    ladders = {norm: ladder for norm, ladder in ladders.items() if ladder}
    corrupted = _usual([(m.run, tuple(m.corruptions)) for m in measured])
    varying = _varying([each.settings for each in measured if each.settings is not None])
    lines = tuple(_line(each, ladders, corrupted, varying) for each in measured)
    columns = tuple(name for name in TITLES if any(name in line.scores for line in lines))
    places = {
        (norm, _eps_label(result)): (NORMS.index(norm), comparison.epsilon(result))
        for each in measured
        for norm, ladder in each.attacks.items()
        for result in ladder
    }
    radii = tuple(sorted(places, key=lambda radius: places[radius]))
    return Table(lines, columns, radii, tuple(_notes(ladders, corrupted)))


def _eps_label(result: Result) -> str:
    return comparison.attack_of(result).eps_label


def _measured(run: Run) -> Iterator[_Measured]:
    """The results of a run by how it was judged and attacked."""
    groups: dict[tuple, list[Result]] = {}
    for result in run.of_kind("clean", "attack", "corruption"):
        protocol = result.protocol
        # The number of draws is left out: it only makes a number more exact.
        judged = (
            result.network.noise_change,
            protocol.noise == "frozen",
            protocol.decision,
            protocol.averaged,
        )
        groups.setdefault(judged, []).append(result)
    for members in groups.values():
        clean = next((result for result in members if result.kind == "clean"), None)
        corruptions = _corruptions([r for r in members if r.kind == "corruption"])
        attacks = attack_groups([result for result in members if result.kind == "attack"])
        for settings, by_norm in attacks or [(None, {})]:
            yield _Measured(run, settings, clean, by_norm, corruptions)


def attack_groups(
    attacks: Sequence[Result],
) -> list[tuple[AttackSettings, dict[str, tuple[Result, ...]]]]:
    """Results of attacks on one network, by settings.

    A result belongs to all settings that differ from its own in nothing that matters in its norm.
    Settings whose results all belong to others, too, are left out.

    Returns:
      (settings, norm -> results by ascending radius), in the order of the results.
    """
    own = [(AttackSettings.of(result), result) for result in attacks]
    groups: list[tuple[AttackSettings, list[int]]] = []
    for settings, _ in own:
        if all(settings != other for other, _ in groups):
            members = [
                place
                for place, (other, result) in enumerate(own)
                if settings.effective(norm := comparison.attack_of(result).norm)
                == other.effective(norm)
            ]
            groups.append((settings, members))
    whole = []
    for place, (settings, members) in enumerate(groups):
        within = (
            set(members) < set(others) or (set(members) == set(others) and other < place)
            for other, (_, others) in enumerate(groups)
        )
        if not any(within):
            whole.append((settings, _by_norm([attacks[member] for member in members])))
    return whole


def _by_norm(attacks: Sequence[Result]) -> dict[str, tuple[Result, ...]]:
    ladders = {}
    for norm in NORMS:
        ladder = {
            comparison.epsilon(result): result
            for result in attacks
            if comparison.attack_of(result).norm == norm
        }
        if ladder:
            ladders[norm] = tuple(ladder[eps] for eps in sorted(ladder))
    return ladders


def _corruptions(corrupted: Sequence[Result]) -> dict[tuple[str, int], Result]:
    """(common corruption, severity) -> the result, in floating point if there are several.

    A drawn texture stands in for frost where there is no result with photographs of frost.
    """
    # Later results replace earlier ones, so the preferred ones come last.
    ordered = sorted(
        corrupted,
        key=lambda result: (
            comparison.form_label(comparison.corruption_condition(result).form),
            comparison.corruption_condition(result).corruption == PROCEDURAL_FROST,
        ),
        reverse=True,
    )
    by_condition = {}
    for result in ordered:
        condition = comparison.corruption_condition(result)
        name = "frost" if condition.corruption == PROCEDURAL_FROST else condition.corruption
        if any(name in members for members in CORRUPTION_GROUPS.values()):
            by_condition[name, condition.severity] = result
    return dict(sorted(by_condition.items()))


def _usual(conditions: Sequence[tuple[Run, tuple]]) -> tuple:
    """The conditions that most networks have; the most among equals, empty if there are none."""
    counts = Counter(measured for _, measured in {(run.path, each) for run, each in conditions})
    del counts[()]
    return max(counts, key=lambda each: (counts[each], len(each), each), default=())


def _varying(used: Sequence[AttackSettings]) -> frozenset[str]:
    """Fields of attacks that tell lines apart."""
    fields = {(settings.name, field) for settings in used for field in settings.fields}
    return frozenset(
        field
        for name, field in fields
        if len({each.fields.get(field) for each in used if each.name == name}) > 1
    )


def _line(
    measured: _Measured,
    ladders: Mapping[str, tuple],
    corrupted: tuple,
    varying: frozenset[str],
) -> Line:
    members = measured.results
    accuracy = np.array([result.accuracy for result in members])
    resampled = results.bootstrap_accuracies(members)

    def score(weights: np.ndarray) -> Score:
        low, high = (None, None) if resampled is None else results.middle(resampled @ weights)
        return Score(float(accuracy @ weights), low, high)

    def mean_of(chosen: Sequence[Result]) -> np.ndarray:
        return np.array([any(r is each for each in chosen) for r in members]) / len(chosen)

    weights = _weights(measured, ladders, corrupted, mean_of)
    first, settings = members[0], measured.settings
    trained = results.noise_label(first.network.trained_noise)
    if first.network.stochastic and first.network.trained_noise is None:
        trained = "noise"
    replaced = first.network.noise_replaced
    tested = results.noise_label(first.network.test_noise) if replaced else trained
    if first.protocol.noise == "frozen":
        tested = f"{tested}, frozen"
    decision = ""
    if first.protocol.decision != "single":
        words = first.protocol.decision.replace("_", " ")
        decision = f"{words} of {first.protocol.averaged} draws"
    return Line(
        label=measured.run.label,
        trained=trained,
        attacked="" if settings is None else _attacked(settings, tested),
        judged="; ".join(filter(None, (tested, decision))),
        attack="" if settings is None else settings.label(varying, measured.attacks),
        scores={name: score(weights[name]) for name in TITLES if name in weights},
        radii={
            (norm, _eps_label(result)): score(mean_of([result]))
            for norm, ladder in measured.attacks.items()
            for result in ladder
        },
    )


def _attacked(settings: AttackSettings, tested: str) -> str:
    """The noise at the attack in words, for the noise at the test in words."""
    if isinstance(settings.noise, Noise):
        return str(settings.noise)
    return {"same": tested, "none": "none", "frozen": f"{tested}, frozen"}[settings.noise]


def _weights(
    measured: _Measured, ladders: Mapping[str, tuple], corrupted: tuple, mean_of
) -> dict[str, np.ndarray]:
    """Score -> the weight of each result in it."""
    weights = {} if measured.clean is None else {"clean": mean_of([measured.clean])}

    def add(name: str, parts: Sequence[str]) -> None:
        if parts and all(part in weights for part in parts):
            weights[name] = np.mean([weights[part] for part in parts], axis=0)

    for norm, ladder in ladders.items():
        if measured.ladder(norm) == ladder:
            weights[norm] = mean_of(measured.attacks[norm])
    add("white_box", list(ladders))
    if corrupted and tuple(measured.corruptions) == corrupted:
        names = list(dict.fromkeys(name for name, _ in corrupted))
        groups = {g: [n for n in names if n in of] for g, of in CORRUPTION_GROUPS.items()}
        for group, members in {**groups, "corruptions": names}.items():
            # The mean over corruptions of the mean over the severities of each.
            means = [
                mean_of([r for (other, _), r in measured.corruptions.items() if other == name])
                for name in members
            ]
            if means:
                weights[group] = np.mean(means, axis=0)
        add("groups", list(CORRUPTION_GROUPS))
    for rule, suffix in (("corruptions", ""), ("groups", "_groups")):
        add(f"robust{suffix}", ["white_box", rule])
        if ladders:
            add(f"overall{suffix}", ["clean", *ladders, rule])
    return weights


def _notes(ladders: Mapping[str, tuple[str, ...]], corrupted: tuple) -> Iterator[str]:
    """What the means are over."""
    for norm, ladder in ladders.items():
        radii = f"radius {ladder[0]}" if len(ladder) == 1 else f"radii {listing(ladder)}"
        mean = "accuracy at the" if len(ladder) == 1 else "over the"
        yield f"{NORM_LABELS[norm]} mean: {mean} {radii}."
    norms = listing([NORM_LABELS[norm] for norm in ladders])
    if len(ladders) == 1:
        yield f"White box: the same, since {norms} is the only norm."
    elif ladders:
        yield f"White box: the mean over {norms}."
    if corrupted:
        names = {name for name, _ in corrupted}
        severities = comparison.severity_label([severity for _, severity in corrupted])
        yield (
            f"Corruptions: the mean over {len(names)} of the 15 common ones at {severities}; by "
            f"group: the mean of the means of {listing(list(CORRUPTION_GROUPS))} corruptions."
        )
    if ladders and corrupted:
        yield "White box and corruptions: the mean of the two."
        parts = ["clean", *(NORM_LABELS[norm] for norm in ladders), "corruptions"]
        yield f"All: the mean of {listing(parts)}."
    yield (
        "A mean is left out where a line lacks conditions that most networks have. "
        f"Intervals: {results.BOOTSTRAP}; they do not cover another training seed."
    )
