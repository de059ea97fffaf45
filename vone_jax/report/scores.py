"""Aggregate scores: one line for each network and each way of attacking and judging it.

White box: the mean over the radii of a norm, and over the norms. Corruptions: the mean over
severities and corruptions, and the mean of the four group means. What the authors of VOneNets put
into their aggregate is not published, so the parts and two means of them are given, each by both
rules for corruptions.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

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
    **{group: group.capitalize() for group in CORRUPTION_GROUPS},
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
# Field of a line -> title.
_HEADINGS = {
    "network": "Network",
    "trained": "Noise in training",
    "attacked": "at the attack",
    "judged": "at the test",
    "attack": "Attack",
}
# Fields of an attack that make no difference in a norm.
_WITHOUT_EFFECT = {
    "linf": frozenset({"l1_step", "norm_offset", "projection", "order"}),
    "l2": frozenset({"l1_step"}),
    "l1": frozenset(),
}
# Fields that a description of the steps contains.
_STEPS = ("steps", "step_size", "step_rule")


class Score(NamedTuple):
    """A mean of accuracies in [0, 1] and its interval; the ends are None where there is none."""

    value: float
    low: float | None
    high: float | None


class AttackSettings(NamedTuple):
    """The settings of an attack, apart from norm and radius."""

    name: str
    fields: Mapping[str, str]
    draws: int
    noise: results.AttackNoise

    def effective(self, norm: str) -> "AttackSettings":
        """The settings that matter in a norm; equal for attacks that are the same there."""
        fields = {n: v for n, v in self.fields.items() if n not in _WITHOUT_EFFECT[norm]}
        return self._replace(fields=fields)

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
        shown = set(varying) - set(_STEPS) - idle
        parts += [f"{name} {value}" for name, value in self.fields.items() if name in shown]
        if self.draws > 1:
            parts.append(f"{self.draws} draws")
        return ", ".join(filter(None, parts))


@dataclasses.dataclass(frozen=True)
class Line:
    """A network, measured in one way.

    Attributes:
      network: its label.
      trained: its noise in training, in words.
      attacked: the noise at the attack, in words; empty without an attack.
      judged: the noise at the test and the input of a decision, in words.
      attack: the attack in words; empty without one.
      scores: by the names of ``TITLES``. Missing are those that were not measured, or not in the
        same conditions as in the other lines.
      radii: norm and label of the radius, as in "linf_4/255" -> accuracy, ascending.
    """

    network: str
    trained: str
    attacked: str
    judged: str
    attack: str
    scores: Mapping[str, Score]
    radii: Mapping[str, Score]

    @property
    def setup(self) -> dict[str, str]:
        """The network, and how it was attacked and judged."""
        return {name: getattr(self, name) for name in _HEADINGS}

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
    """The scores of all networks.

    Attributes:
      columns: score that any line has -> its title.
      radii: radius that any line has -> its title.
      notes: what the means are over, in words.
    """

    lines: tuple[Line, ...]
    columns: Mapping[str, str]
    radii: Mapping[str, str]
    notes: tuple[str, ...]

    def to_csv(self) -> str:
        """One line for each network and way of measuring it, with full precision.

        A score has three columns: its name, and the name with ``_low`` and ``_high``.
        """
        rows = []
        for line in self.lines:
            row, scores = dict[str, Any](line.setup), {**line.scores, **line.radii}
            for name in (*self.columns, *self.radii):
                ends = (name, f"{name}_low", f"{name}_high")
                row |= zip(ends, scores.get(name, (None, None, None)), strict=True)
            rows.append(row)
        return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")

    def to_markdown(self) -> str:
        """The scores in percent with their intervals, then the accuracy at each radius."""
        parts = ["\n".join(f"- {note}" for note in self.notes)]
        for titles in filter(None, (self.columns, self.radii)):
            rows = []
            for line in self.lines:
                scores = {**line.scores, **line.radii}
                cells = [_cell(scores.get(name)) for name in titles]
                rows.append([*line.setup.values(), *cells])
            parts.append(markdown([*_HEADINGS.values(), *titles.values()], rows))
        return "\n\n".join(parts) + "\n"


def _cell(score: Score | None) -> str:
    if score is None:
        return "–"
    value, low, high = score
    interval = "" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})"
    return f"{100 * value:.1f}{interval}"


class _Measured(NamedTuple):
    """The results behind a line; those of attacks by norm and label of the radius, ascending."""

    run: Run
    settings: AttackSettings | None
    clean: Result | None
    attacks: Mapping[tuple[str, str], Result]
    corruptions: Mapping[tuple[str, int], Result]

    def ladder(self, norm: str) -> tuple[str, ...]:
        """The labels of the radii of a norm."""
        return tuple(label for each, label in self.attacks if each == norm)


def table(runs: Sequence[Run]) -> Table:
    """The scores of all runs."""
    measured = [each for run in runs for each in _measured(run)]
    ladders = {norm: _usual([(m.run, m.ladder(norm)) for m in measured]) for norm in NORMS}
    ladders = {norm: ladder for norm, ladder in ladders.items() if ladder}
    corrupted = _usual([(m.run, tuple(m.corruptions)) for m in measured])
    varying = _varying([each.settings for each in measured if each.settings is not None])
    lines = tuple(_line(each, ladders, corrupted, varying) for each in measured)
    columns = {n: title for n, title in TITLES.items() if any(n in line.scores for line in lines)}
    attacked = _by_radius([result for each in measured for result in each.attacks.values()])
    radii = {"_".join(radius): result.attack.label for radius, result in attacked.items()}
    return Table(lines, columns, radii, tuple(_notes(ladders, corrupted)))


def _measured(run: Run) -> Iterator[_Measured]:
    """The results of a run by how it was judged and attacked."""
    groups: dict[tuple, list[Result]] = {}
    for result in run.of_kind("clean", "attack", "corruption"):
        protocol = result.protocol
        # The number of draws is left out: it only makes a number more exact.
        frozen = protocol.noise == "frozen"
        judged = (result.network.noise_change, frozen, protocol.decision, protocol.averaged)
        groups.setdefault(judged, []).append(result)
    for members in groups.values():
        clean = next((result for result in members if result.kind == "clean"), None)
        attacks = attack_groups([result for result in members if result.kind == "attack"])
        for settings, by_radius in attacks or [(None, {})]:
            yield _Measured(run, settings, clean, by_radius, _corruptions(members))


def attack_groups(
    attacks: Sequence[Result],
) -> list[tuple[AttackSettings, dict[tuple[str, str], Result]]]:
    """Results of attacks on one network, by settings.

    A result belongs to all settings that differ from its own in nothing that matters in its norm.
    Settings whose results all belong to others, too, are left out.

    Returns:
      (settings, (norm, label of the radius) -> result), in the order of the results.
    """
    own = []
    for result in attacks:
        condition, fields = comparison.attack_condition(result), comparison.result_fields(result)
        draws, noise = condition.eot_samples, condition.attack_noise
        own.append((AttackSettings(condition.attack_name, fields, draws, noise), result))
    groups: list[tuple[AttackSettings, list[Result]]] = []
    for settings, _ in own:
        if all(settings != other for other, _ in groups):
            norms = {norm: settings.effective(norm) for norm in NORMS}
            same = [r for other, r in own if other.effective(r.attack.norm) == norms[r.attack.norm]]
            groups.append((settings, same))
    sets = [set(members) for _, members in groups]
    return [
        (settings, _by_radius(members))
        for place, (settings, members) in enumerate(groups)
        if not any(sets[place] < other for other in sets) and sets[place] not in sets[:place]
    ]


def _by_radius(attacks: Sequence[Result]) -> dict[tuple[str, str], Result]:
    """(norm, label of the radius) -> the last result, by norm and ascending radius."""

    def rank(result: Result) -> tuple[int, float]:
        return NORMS.index(result.attack.norm), result.attack.radius

    return {(r.attack.norm, r.attack.eps_label): r for r in sorted(attacks, key=rank)}


def _corruptions(members: Sequence[Result]) -> dict[tuple[str, int], Result]:
    """(common corruption, severity) -> the result.

    A drawn texture stands in for frost where there is no result with photographs of frost.
    """
    measured = comparison.by_corruption(members)
    drawn = {("frost", each[1]): r for each, r in measured.items() if each[0] == PROCEDURAL_FROST}
    common = {name for group in CORRUPTION_GROUPS.values() for name in group}
    return dict(sorted((key, r) for key, r in (drawn | measured).items() if key[0] in common))


def _usual(conditions: Sequence[tuple[Run, tuple]]) -> tuple:
    """The conditions that most networks have; the most among equals, empty if there are none."""
    counts = Counter(measured for _, measured in {(run.path, each) for run, each in conditions})
    del counts[()]
    return max(counts, key=lambda each: (counts[each], len(each), each), default=())


def _varying(used: Sequence[AttackSettings]) -> set[str]:
    """Fields of attacks that tell lines apart."""
    fields = {(settings.name, field) for settings in used for field in settings.fields}
    return {
        field
        for name, field in fields
        if len({each.fields.get(field) for each in used if each.name == name}) > 1
    }


def _line(
    measured: _Measured, ladders: Mapping[str, tuple], corrupted: tuple, varying: set[str]
) -> Line:
    settings, clean = measured.settings, [measured.clean] if measured.clean else []
    members = [*clean, *measured.attacks.values(), *measured.corruptions.values()]
    accuracy = np.array([result.accuracy for result in members])
    resampled = results.bootstrap_accuracies(members)

    def score(weights: np.ndarray) -> Score:
        ends = (None, None) if resampled is None else results.middle(resampled @ weights)
        return Score(float(accuracy @ weights), *ends)

    def mean_of(chosen: Sequence[Result]) -> np.ndarray:
        return np.array([result in chosen for result in members]) / len(chosen)

    weights = _weights(measured, ladders, corrupted, mean_of)
    network, protocol = members[0].network, members[0].protocol
    trained = results.noise_label(network.trained_noise)
    if network.stochastic and network.trained_noise is None:
        trained = "noise"
    tested = results.noise_label(network.test_noise) if network.noise_replaced else trained
    if protocol.noise == "frozen":
        tested = f"{tested}, frozen"
    judged, attacked, attack = tested, "", ""
    if protocol.decision != "single":
        judged += f"; {protocol.decision.replace('_', ' ')} of {protocol.averaged} draws"
    if settings is not None:
        named = {"same": tested, "none": "none", "frozen": f"{tested}, frozen"}
        noise = settings.noise
        attacked = str(noise) if isinstance(noise, Noise) else named[noise]
        attack = settings.label(varying, {norm for norm, _ in measured.attacks})
    means = {name: score(weights[name]) for name in TITLES if name in weights}
    radii = {"_".join(each): score(mean_of([r])) for each, r in measured.attacks.items()}
    return Line(measured.run.label, trained, attacked, judged, attack, means, radii)


def _weights(
    measured: _Measured,
    ladders: Mapping[str, tuple],
    corrupted: tuple,
    mean_of: Callable[[Sequence[Result]], np.ndarray],
) -> dict[str, np.ndarray]:
    """Score -> the weight of each result in it."""
    weights = {} if measured.clean is None else {"clean": mean_of([measured.clean])}

    def add(name: str, parts: Sequence[str]) -> None:
        if parts and all(part in weights for part in parts):
            weights[name] = np.mean([weights[part] for part in parts], axis=0)

    for norm, ladder in ladders.items():
        if measured.ladder(norm) == ladder:
            weights[norm] = mean_of([measured.attacks[norm, label] for label in ladder])
    add("white_box", list(ladders))
    if corrupted and tuple(measured.corruptions) == corrupted:
        # The mean over the severities of each corruption.
        means = {
            name: mean_of([r for (other, _), r in measured.corruptions.items() if other == name])
            for name, _ in corrupted
        }
        for group, names in {**CORRUPTION_GROUPS, "corruptions": tuple(means)}.items():
            if measured_names := [name for name in names if name in means]:
                weights[group] = np.mean([means[name] for name in measured_names], axis=0)
        add("groups", list(CORRUPTION_GROUPS))
    for rule, suffix in (("corruptions", ""), ("groups", "_groups")):
        add(f"robust{suffix}", ["white_box", rule])
        if ladders:
            add(f"overall{suffix}", ["clean", *ladders, rule])
    return weights


def _notes(ladders: Mapping[str, tuple[str, ...]], corrupted: tuple) -> Iterator[str]:
    """The conditions that the means are over."""
    for norm, ladder in ladders.items():
        over = "over the radii" if len(ladder) > 1 else "accuracy at the radius"
        yield f"{NORM_LABELS[norm]} mean: {over} {listing(ladder)}."
    norms = [NORM_LABELS[norm] for norm in ladders]
    if len(norms) == 1:
        yield f"White box: the same, since {norms[0]} is the only norm."
    elif norms:
        yield f"White box: the mean over {listing(norms)}."
    if corrupted:
        names = {name for name, _ in corrupted}
        severities = comparison.severity_label([severity for _, severity in corrupted])
        yield (
            f"Corruptions: the mean over {len(names)} of the 15 common ones at {severities}; by "
            f"group: the mean of the means of {listing(list(CORRUPTION_GROUPS))} corruptions."
        )
    if norms and corrupted:
        yield "White box and corruptions: the mean of the two."
        yield f"All: the mean of {listing(['clean', *norms, 'corruptions'])}."
    yield (
        "A mean is left out where a line lacks conditions that most networks have. "
        f"Intervals: {results.BOOTSTRAP}; they do not cover another training seed."
    )
