"""Aggregate scores: one line for each network and each way of attacking and judging it.

White box: the mean over the radii of a norm, and over the norms. Corruptions: the mean over
severities and corruptions, and the mean of the four category means. The aggregate of the authors of
VOneNets is not published, so the parts and two means are given, by both rules for corruptions.
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from vone_jax import results
from vone_jax.names import CORRUPTION_CATEGORIES, NORM_LABELS, NORMS
from vone_jax.report import comparison
from vone_jax.report.wording import datasets, form_labels, listing, markdown, phrase, severity_label
from vone_jax.results import Result, Run

# Score -> title, in the order of the columns.
TITLES = {
    "clean": "Clean",
    **{norm: f"{NORM_LABELS[norm]} mean" for norm in NORMS},
    "white_box": "White box",
    **{name: name.capitalize() for name in CORRUPTION_CATEGORIES},
    "corruptions": "Corruptions",
    "categories": "Corruptions, by category",
    "robust": "White box and corruptions",
    "robust_categories": "White box and corruptions, by category",
    "overall": "All",
    "overall_categories": "All, by category",
}
# The two tables of the page: each is narrow enough to be read without scrolling.
PARTS = (
    ("clean", *NORMS, "white_box", "corruptions", "robust", "overall"),
    (*CORRUPTION_CATEGORIES, "categories", "robust_categories", "overall_categories"),
)
# Field of a line -> title.
_HEADINGS = {
    "network": "Network",
    "trained": "Noise in training",
    "attacked": "at the attack",
    "judged": "at the test",
    "attack": "Attack",
}


class Score(NamedTuple):
    """A mean of accuracies in [0, 1] and its interval; the ends are NaN where there is none."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        value, low, high = (100 * each for each in self)
        return f"{value:.1f}" if math.isnan(low) else f"{value:.1f} ({low:.1f} to {high:.1f})"


class AttackSettings(NamedTuple):
    """The settings of an attack, apart from norm and radius."""

    name: str
    fields: Mapping[str, str]
    draws: int
    noise: results.AttackNoise

    def label(self, varying: Set[str]) -> str:
        """The attack in short: steps, draws, and the ``varying`` fields, which differ elsewhere."""
        parts, of_steps = [self.name], ("steps", "step_size", "step_rule")
        steps, size, rule = (self.fields.get(name, "None") for name in of_steps)
        length = rule if size == "None" else size
        if "None" not in (steps, length):
            parts.append(f"{steps} steps of {length}")
            varying = varying - {*of_steps}
        parts += [f"{name} {value}" for name, value in self.fields.items() if name in varying]
        return phrase(*parts, f"{self.draws} draws" if self.draws > 1 else "")


@dataclasses.dataclass(frozen=True)
class Line:
    """A network, measured in one way.

    Attributes:
      network: its label.
      trained, attacked, judged: the noise in training, at the attack and at the test in words.
        ``judged`` also has the input of a decision. Without an attack, ``attacked`` is empty.
      attack: the attack in short; empty without one.
      scores: by the names of ``TITLES``, without those that were not measured, or not in the same
        conditions as in the other lines.
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
    def numbers(self) -> dict[str, Score]:
        """The scores, and the accuracy at each radius."""
        return {**self.scores, **self.radii}

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
      columns, radii: scores and radii that at least one line has, each with its title.
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
        rows = [dict[str, Any](line.setup) for line in self.lines]
        for row, line in zip(rows, self.lines, strict=True):
            for name in (*self.columns, *self.radii):
                score = line.numbers.get(name, (math.nan, math.nan, math.nan))
                row |= zip((name, f"{name}_low", f"{name}_high"), score, strict=True)
        columns = None if rows else pd.Index(list(_HEADINGS))
        return pd.DataFrame(rows, columns=columns).to_csv(index=False, lineterminator="\n")

    def to_markdown(self) -> str:
        """The scores in percent with their intervals, then the accuracy at each radius."""
        parts = ["\n".join(f"- {note}" for note in self.notes)]
        for titles in filter(None, (self.columns, self.radii)):
            rows = [
                [*line.setup.values(), *(str(line.numbers.get(name, "–")) for name in titles)]
                for line in self.lines
            ]
            parts.append(markdown([*_HEADINGS.values(), *titles.values()], rows))
        return "\n\n".join(parts) + "\n"


class _Measured(NamedTuple):
    """The results behind a line; those of attacks by norm and label of the radius, ascending."""

    run: Run
    settings: AttackSettings | None
    clean: Result | None
    attacks: Mapping[tuple[str, str], Result]
    corruptions: Mapping[tuple[str, int], Result]

    @property
    def results(self) -> list[Result]:
        """All results: the clean one if there is one, attacks and corruptions."""
        clean = [self.clean] if self.clean else []
        return [*clean, *self.attacks.values(), *self.corruptions.values()]

    def ladder(self, norm: str) -> tuple[str, ...]:
        """The labels of the radii of a norm."""
        return tuple(label for each, label in self.attacks if each == norm)

    @property
    def corrupted(self) -> tuple[tuple[str, int, str], ...]:
        """The corruptions, with severity and form."""
        return tuple((*key, result.form) for key, result in self.corruptions.items())

    @property
    def is_deployed(self) -> bool:
        """True for a network that was attacked and judged as it was trained."""
        return all(
            comparison.as_deployed(self.run, each) and each.attack_noise == "same"
            for each in self.results
        )


def table(runs: Sequence[Run]) -> Table:
    """The scores of all runs."""
    measured = [each for run in runs for each in _measured(run)]
    # Controls of the noise do not decide what a mean is over.
    deciding = [each for each in measured if each.is_deployed] or measured
    usual = ((norm, _usual([(m.run, m.ladder(norm)) for m in deciding])) for norm in NORMS)
    ladders = {norm: ladder for norm, ladder in usual if ladder}
    # A norm that only few networks were attacked in must not remove the means of the others.
    attacked = {m.run.path for m in measured if m.attacks}
    joined = [
        norm
        for norm, ladder in ladders.items()
        if 2 * len({m.run.path for m in measured if m.ladder(norm) == ladder}) > len(attacked)
    ] or list(ladders)
    corrupted = _usual([(m.run, m.corrupted) for m in deciding])
    # Network -> whether its frost is a drawn texture, in any of its lines.
    drawn: dict[str, bool] = {}
    for each in measured:
        if corrupted and each.corrupted == corrupted:
            frost = any(map(comparison.is_drawn_frost, each.corruptions.values()))
            drawn[each.run.label] = drawn.get(each.run.label, False) or frost
    used = [
        ((each.settings.name, norm), comparison.result_fields(result))
        for each in measured
        if each.settings is not None
        for (norm, _), result in each.attacks.items()
    ]
    varying = set().union(*comparison.varying(used).values())
    lines = tuple(_line(each, ladders, joined, corrupted, varying) for each in measured)
    columns = {n: title for n, title in TITLES.items() if any(n in line.scores for line in lines)}
    attacks = [result for each in measured for result in each.attacks.values()]
    at_radii = comparison.by_radius(attacks).items()
    radii = {"_".join(radius): result.attack.label for radius, result in at_radii}
    notes = list(_notes(ladders, joined, corrupted, columns, drawn, lines))
    sets = {r.dataset.part for each in measured for r in each.results if not r.published}
    if len(sets) > 1:
        notes.insert(
            0, f"The lines are of different data sets and must not be compared: {datasets(sets)}."
        )
    return Table(lines, columns, radii, tuple(notes))


def _measured(run: Run) -> Iterator[_Measured]:
    """The results of a run by how it was judged and attacked, each on one data set."""
    # The number of draws is left out: it only makes a number more exact.
    groups = comparison.grouped(
        ((result.network.noise_change, result.protocol.slug), result)
        for result in run.of_kind("clean", "attack", "corruption")
    )
    for members in groups.values():
        kinds = comparison.grouped((each.kind, each) for each in run.comparable(members))
        clean = next(iter(kinds.get("clean", [])), None)
        corrupted = results.common_corruptions(
            comparison.by_corruption(kinds.get("corruption", []))
        )
        # Extra corruptions alone are in no mean.
        unattacked = [(None, {})] if clean or corrupted else []
        for settings, by_radius in attack_groups(kinds.get("attack", [])) or unattacked:
            yield _Measured(run, settings, clean, by_radius, corrupted)


def attack_groups(
    attacks: Sequence[Result],
) -> list[tuple[AttackSettings, dict[tuple[str, str], Result]]]:
    """(settings, (norm, label of the radius) -> result) of the attacks on one network.

    A result belongs to each group whose settings are its own, apart from fields without effect in
    its norm. A group whose results are all part of another group is left out.
    """
    within = {result: {norm: _settings(result, norm) for norm in NORMS} for result in attacks}
    groups: list[tuple[AttackSettings, list[Result]]] = []
    for result, own in within.items():
        members = [r for r, other in within.items() if other[r.attack.norm] == own[r.attack.norm]]
        groups.append((_settings(result, ""), members))
    sets = [set(members) for _, members in groups]
    return [
        (settings, comparison.by_radius(members))
        for place, (settings, members) in enumerate(groups)
        if not any(sets[place] < other for other in sets) and sets[place] not in sets[:place]
    ]


def _settings(result: Result, norm: str) -> AttackSettings:
    """The settings of an attack without those that make no difference in a norm."""
    of, fields = comparison.attack_condition(result), comparison.result_fields(result, norm)
    return AttackSettings(of.attack_name, fields, of.eot_samples, of.attack_noise)


def _usual(conditions: Sequence[tuple[Run, tuple]]) -> tuple:
    """The most frequent conditions; of equally frequent lists the longest; () if there are none."""
    counts = Counter(each for _, each in {(run.path, each) for run, each in conditions} if each)
    return max(counts, key=lambda each: (counts[each], len(each), each), default=())


def _line(
    measured: _Measured,
    ladders: Mapping[str, tuple],
    joined: Sequence[str],
    corrupted: tuple,
    varying: set[str],
) -> Line:
    settings, members = measured.settings, measured.results

    def score(weights: np.ndarray) -> Score:
        return Score(*results.mean_accuracy(members, weights))

    def mean_of(chosen: Sequence[Result]) -> np.ndarray:
        return np.array([result in chosen for result in members]) / len(chosen)

    # Score -> the weight of each result in it.
    weights = {"clean": mean_of([measured.clean])} if measured.clean else {}

    def add(name: str, parts: Sequence[str]) -> None:
        if parts and all(part in weights for part in parts):
            weights[name] = np.mean([weights[part] for part in parts], axis=0)

    for norm, ladder in ladders.items():
        if measured.ladder(norm) == ladder:
            weights[norm] = mean_of([measured.attacks[norm, label] for label in ladder])
    add("white_box", joined)
    if corrupted and measured.corrupted == corrupted:
        # The mean over the severities of each corruption.
        items = measured.corruptions.items()
        kinds = dict.fromkeys(name for name, *_ in corrupted)
        means = {name: mean_of([r for (other, _), r in items if other == name]) for name in kinds}
        for category, names in {**CORRUPTION_CATEGORIES, "corruptions": tuple(means)}.items():
            if known := [means[name] for name in names if name in means]:
                weights[category] = np.mean(known, axis=0)
        add("categories", list(CORRUPTION_CATEGORIES))
    for rule, suffix in (("corruptions", ""), ("categories", "_categories")):
        add(f"robust{suffix}", ["white_box", rule])
        if joined:
            add(f"overall{suffix}", ["clean", *joined, rule])
    network, protocol = members[0].network, members[0].protocol
    judged = tested = f"{network.test_label}{', frozen' if protocol.noise == 'frozen' else ''}"
    if protocol.decision != "single":
        judged += f"; {protocol.decision.replace('_', ' ')} of {protocol.averaged} draws"
    attacked = attack = ""
    if settings is not None:
        named = {"same": tested, "frozen": f"{tested}, frozen"}
        attacked = named.get(str(settings.noise), str(settings.noise))
        attack = settings.label(varying)
    means = {name: score(weights[name]) for name in TITLES if name in weights}
    radii = {"_".join(each): score(mean_of([r])) for each, r in measured.attacks.items()}
    return Line(measured.run.label, network.trained_label, attacked, judged, attack, means, radii)


def _notes(
    ladders: Mapping[str, tuple[str, ...]],
    joined: Sequence[str],
    corrupted: tuple,
    columns: Mapping[str, str],
    drawn: Mapping[str, bool],
    lines: Sequence[Line],
) -> Iterator[str]:
    """The conditions that the means in the columns are over."""
    if not lines:
        yield "No network has a score."
        return
    for norm, ladder in ladders.items():
        over = "over the radii" if len(ladder) > 1 else "accuracy at the radius"
        alone = "; in no other mean, since at most half of the networks have these radii"
        alone = "" if norm in joined else alone
        yield f"{NORM_LABELS[norm]} mean: {over} {listing(ladder)}{alone}."
    norms = [NORM_LABELS[norm] for norm in joined]
    if "white_box" in columns:
        over = f"the mean over {listing(norms)}"
        if len(norms) == 1:
            over = f"the {norms[0]} mean"
        yield f"White box: {over}."
    if corrupted:
        names = {name for name, *_ in corrupted}
        severities = severity_label([severity for _, severity, _ in corrupted])
        frost = ", with a drawn texture in the place of frost" if any(drawn.values()) else ""
        if frost and not all(drawn.values()):
            frost += f" for {listing([label for label, is_drawn in drawn.items() if is_drawn])}"
        forms = listing(form_labels(form for *_, form in corrupted))
        means = f"the mean of the means of {listing(list(CORRUPTION_CATEGORIES))} corruptions"
        yield (
            f"Corruptions: the mean over {len(names)} of the 15 common ones at {severities}"
            f"{f', in {forms}' if forms else ''}{frost}"
            f"{f'; by category: {means}' if 'categories' in columns else ''}."
        )
    if "robust" in columns:
        yield "White box and corruptions: the mean of the two."
    if norms and "overall" in columns:
        yield f"All: the mean of {listing(['clean', *norms, 'corruptions'])}."
    if any(columns.keys() - line.scores.keys() for line in lines):
        yield "A mean is left out where a line lacks conditions that most networks have."
    yield "Intervals: 95 % over images (Agresti and Coull), not over training seeds."
