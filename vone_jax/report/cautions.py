"""Warnings for the top of the page: reasons to read its numbers with care."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from vone_jax import names, results
from vone_jax.names import NORM_LABELS
from vone_jax.report import comparison, paired, physiology
from vone_jax.report.comparison import grouped
from vone_jax.report.wording import count, dataset, form_labels, listing, percent
from vone_jax.results import Result, Run
from vone_jax.results.runs import ranked_sets
from vone_jax.results.statistics import image_sets

# A perturbation may exceed its radius by float32 rounding only.
NORM_SLACK = 1e-4
# A warning about more networks or results than this gives their number instead of their names.
_LISTED = 3


def cautions(runs: Sequence[Run]) -> list[str]:
    """All warnings about these runs, in order of importance."""
    of_all = (_unbroken, _settings, _gaps, _corrupted, _images, _references)
    of_each = (_illustration, _mixed, _chance, _failed_checks, _attack_strength, _unmoved)
    return [
        *_datasets(runs),
        *_changed(runs),
        *_classes(runs),
        *_sizes(runs),
        *(warning for run in runs for warning in (*run.gaps, *run.warnings)),
        *(warning for check in of_each for warning in _merged(check, runs)),
        *(warning for check in of_all for warning in check(runs)),
    ]


def _merged(check: Callable[[Run], Iterator[str]], runs: Sequence[Run]) -> Iterator[str]:
    """Warnings that begin with the label of a network, once for networks that share the rest."""
    warnings = ((run.label, warning) for run in runs for warning in dict.fromkeys(check(run)))
    labels = grouped((f"\0{warning.removeprefix(label)}", label) for label, warning in warnings)
    for warning, of in labels.items():
        # Where some networks have a warning and others not, a number would not tell which.
        who = f"the {len(of)} networks" if _LISTED < len(of) == len(runs) else listing(of)
        if len(of) == 1:
            yield warning.replace("\0", who)
        else:
            shared = warning.replace("\0", f"each of {who}")
            yield shared[0].upper() + shared[1:]


def _distinct(labels: Iterable[str]) -> str:
    return listing(sorted(set(labels)))


def _datasets(runs: Sequence[Run]) -> Iterator[str]:
    used = grouped((dataset(r.dataset.part), run.label) for run in runs for r in run.on_images)
    if len(used) > 1:
        parts = [f"{name} by {_distinct(labels)}" for name, labels in sorted(used.items())]
        yield (
            "These results are of different data sets, so their numbers must not be compared: "
            f"{listing(parts)}. Figures, scores and differences use "
            f"{dataset(ranked_sets(runs)[0])} if a network has results on it; the table of all "
            "numbers also has the others."
        )


def _changed(runs: Sequence[Run]) -> Iterator[str]:
    """Folders whose files changed between evaluations."""
    measured = ((r.dataset.part, (run.label, r)) for run in runs for r in run.on_images)
    for part, on_part in grouped(measured).items():
        numbers = image_sets([result for _, result in on_part])
        named = [(label, result.name) for label, result in on_part]
        used = grouped(zip(numbers, named, strict=True))
        if len(used) > 1:
            parts = [
                " and ".join(
                    f"{listing(of) if len(of) <= _LISTED else count(len(of), 'result')} of {label}"
                    for label, of in grouped(of_set).items()
                )
                for of_set in used.values()
            ]
            yield (
                f"The files of {dataset(part)} changed between evaluations, so these results are "
                f"on different images and must not be compared: {'; '.join(parts)}. Evaluate all "
                "of them again (--overwrite)."
            )


def _classes(runs: Sequence[Run]) -> Iterator[str]:
    """Networks that choose among different numbers of classes on the same data set."""
    known = [(run.label, r.dataset) for run in runs for r in run.on_images]
    known = [(each.part, (len(each.class_names), label)) for label, each in known]
    for part, on_part in grouped(known).items():
        used = grouped((classes, label) for classes, label in on_part if classes)
        if len(used) > 1:
            parts = [f"{_distinct(of)} among {n:,}" for n, of in sorted(used.items())]
            yield (
                f"On {dataset(part)} the networks choose among different numbers of classes, "
                f"which is not equally hard: {listing(parts)}."
            )


def _sizes(runs: Sequence[Run]) -> Iterator[str]:
    """Networks whose images differ in size, where a condition depends on the number of pixels."""
    # What is compared, a norm or corruptions on a data set, with a size and a network that has it.
    compared: list[tuple[tuple, tuple[int, str]]] = []
    for run in runs:
        for result in run.on_images:
            size, by = result.network.image_size, result.kind
            if by in ("attack", "minimal"):
                by = result.attack.norm
            if size and by in ("l2", "l1", "corruption") and comparison.as_deployed(run, result):
                compared.append(((by, *result.dataset.part), (size, run.label)))
    unequal = [each for each in grouped(compared).values() if len(grouped(each)) > 1]
    used = grouped(itertools.chain(*unequal))
    if used:
        parts = [f"{size} x {size} pixels for {_distinct(of)}" for size, of in used.items()]
        yield (
            f"The images have different sizes: {listing(parts)}. An equal radius in L2 or L1, or "
            "an equal severity of a corruption, does not mean an equal change to them."
        )


def _illustration(run: Run) -> Iterator[str]:
    """The few photographs that come with the project show what it does and measure nothing."""
    shown = {r.dataset.examples for r in run.on_images if r.dataset.name == names.DEMO}
    if shown:
        yield (
            f"{run.label} was shown {count(max(shown), 'photograph')}. Its numbers are an "
            "illustration, not a measurement."
        )


def _mixed(run: Run) -> Iterator[str]:
    """Results of several checkpoints, and evaluations that do not cover all of their images."""
    networks = [result.network for result in run.results]
    steps = sorted({each.checkpoint_step for each in networks if each.checkpoint_step is not None})
    if len(steps) > 1:
        yield (
            f"{run.label}: results of different checkpoints are mixed, of steps "
            f"{listing([str(step) for step in steps])}."
        )
    elif len({network.weights for network in networks}) > 1:
        yield f"{run.label}: results of different weights are mixed; it was trained anew."
    incomplete = [
        f"{result.name} ({result.images:,} of {count(result.dataset.examples, 'image')})"
        for result in run.of_kind("clean", "attack", "corruption")
        if result.images < result.dataset.examples
    ]
    if incomplete:
        yield (
            f"{run.label}: incomplete evaluations, {listing(incomplete)}. Evaluate again with the "
            f"same options; the evaluation continues where it stopped."
        )


def _chance(run: Run) -> Iterator[str]:
    """A network with accuracy near chance: the robustness of guesses means nothing."""
    measured = comparison.clean(run)
    level = comparison.chance(measured) if measured else None
    if measured and level and comparison.near_chance(run):
        largest = comparison.majority(measured)
        guess = f"guessing is right on {percent(level)}"
        if largest is not None and measured.interval[0] <= largest:
            guess = f"the same answer to all of them is right on {percent(largest)}"
        yield (
            f"{run.label} is near chance: it is right on {percent(measured.accuracy)} of clean "
            f"images, and {guess}. Its robustness says little."
        )


def _failed_checks(run: Run) -> Iterator[str]:
    for result in run.of_kind("masking"):
        assert isinstance(result.measured, results.Checks)
        failed = [c.name.replace("_", " ") for c in result.measured.checks if c.verdict == "fail"]
        if failed:
            change = result.network.noise_change
            control = f" ({change})" if change else ""
            yield (
                f"{run.label}{control} fails {count(len(failed), 'check')} for masked gradients at "
                f"{result.attack.label} ({listing(failed)}): its robust accuracy may be "
                f"too high."
            )


def _unmoved(run: Run) -> Iterator[str]:
    """Smallest changes of a network with noise, judged where they were found."""
    for result in run.of_kind("minimal"):
        assert isinstance(result.condition, results.MinimalCondition)
        if result.protocol.noise == "fresh" and not result.condition.moved:
            yield (
                f"{run.label}: the accuracies in {result.name} are far too high, since an earlier "
                f"version judged the images at the distance where they were found. There, noise "
                f"often makes the network right. Evaluate it again, with --overwrite."
            )


def _attack_strength(run: Run) -> Iterator[str]:
    """Signs that an attack was too weak, or left its ball."""
    few = [
        result
        for result in run.of_kind("attack")
        if result.protocol.noise == "fresh"
        and result.attack_noise == "same"
        and comparison.attack_condition(result).eot_samples < 2
    ]
    if few:
        yield (
            f"{run.label} is stochastic, but {count(len(few), 'attack')} followed a single noise "
            f"draw at a time (eot_samples=1). Such an attack is weak: read its robust accuracy as "
            f"an upper bound."
        )
    short = [r for r in run.of_kind("attack") if r.attack.reach < 1]
    if short:
        reach = max(result.attack.reach for result in short)
        yield (
            f"{run.label}: {count(len(short), 'attack')} cannot use the whole radius, since all "
            f"steps together reach {percent(reach)} of it. Its robust accuracy is an upper bound: "
            f"take more steps, or longer ones (--step-rule 2.5*eps/steps)."
        )
    blind = [result.blind for result in run.results if result.blind > results.BLIND]
    if blind:
        yield (
            f"{run.label}: {count(len(blind), 'attack')} did not move images that the network has "
            f"right, or had no gradient there, {percent(max(blind))} of all. The robust accuracy "
            "is an upper bound."
        )
    for result in run.of_kind("attack"):
        largest = float(np.max(result.arrays.get("distance", 0.0), initial=0.0))
        eps = result.attack.eps
        if not largest <= eps * (1 + NORM_SLACK) + 1e-6:
            yield (
                f"{run.label}: {result.name} moved an image by {largest:.6g}, beyond its "
                f"radius {eps:.6g}."
            )
    for ladder in comparison.ladders(run):
        for weak, strong in itertools.pairwise(ladder):
            if strong.interval[0] > weak.interval[1]:
                large, small = strong.attack.eps_label, weak.attack.eps_label
                norm = NORM_LABELS[strong.attack.norm]
                yield (
                    f"{run.label}: a larger {norm} radius ({large}) leaves more "
                    f"accuracy than a smaller one ({small}), {percent(strong.accuracy)} against "
                    f"{percent(weak.accuracy)}. The attack misses adversarial images."
                )


def _unbroken(runs: Sequence[Run]) -> Iterator[str]:
    """Ladders whose largest radius leaves more than chance: they show no lower end."""
    last = [(run, ladder[-1]) for run in runs for ladder in comparison.ladders(run)]
    kept = grouped(
        (result.attack.label, (result.accuracy, run))
        for run, result in last
        if (level := comparison.chance(result)) is not None and result.interval[0] > level
    )
    parts = []
    for radius, networks in kept.items():
        if len(networks) > _LISTED:
            low, *_, high = sorted(share for share, _ in networks)
            span = " to ".join(dict.fromkeys((percent(low), percent(high))))
            parts.append(f"{len(networks)} networks keep {span} at {radius}")
        else:
            parts += [f"{run.label} keeps {percent(share)} at {radius}" for share, run in networks]
    if parts:
        alone = sum(map(len, kept.values())) == 1
        yield (
            f"Not every ladder of radii reaches chance: {listing(parts)}. Larger radii would show "
            f"where {'this network breaks' if alone else 'these networks break'}."
        )


def _settings(runs: Sequence[Run]) -> Iterator[str]:
    """Networks that were attacked in different ways under one norm, or at one of its radii."""
    for norm in comparison.norms(runs):
        # Controls of the noise are an extra test that only some networks need.
        attacked = [
            (run.label, result)
            for run in runs
            for at_radius in comparison.attacks_by_radius(run, norm).values()
            for result in at_radius
            if result.attack_noise == "same"
        ]
        at_radii = grouped((f"at {r.attack.label}", (label, r)) for label, r in attacked)
        for place, members in ({f"under {NORM_LABELS[norm]}": attacked} | at_radii).items():
            ways = grouped((comparison.attack_settings(r), label) for label, r in members)
            if len(set(map(frozenset, ways.values()))) > 1:
                told = _differing([result for _, result in attacked])
                parts = [f"{told[way]} on {_distinct(ways[way])}" for way in sorted(ways)]
                yield f"The networks were not attacked in the same way {place}: {listing(parts)}."
                break  # One warning for each norm is enough.


def _differing(attacked: Sequence[Result]) -> dict[str, str]:
    """Settings -> the name of the attack, with the fields that differ from others of that name."""
    named = [(comparison.attack_condition(r).attack_name, r) for r in attacked]
    varying = comparison.varying((name, comparison.result_fields(r)) for name, r in named)
    told: dict[str, str] = {}
    for name, result in named:
        fields = comparison.result_fields(result).items()
        shown = {field: value for field, value in fields if field in varying[name]}
        told[comparison.attack_settings(result)] = comparison.code(name, shown) if shown else name
    return told


def _gaps(runs: Sequence[Run]) -> Iterator[str]:
    """Conditions that some networks have and others lack."""
    table = [row for row in comparison.rows(runs) if not (row.control or row.repeat)]
    lacks: dict[str, int] = {}
    for position, run in enumerate(runs):
        if missing := sum(row.results[position] is None for row in table):
            lacks[run.label] = missing
    if len(lacks) > _LISTED:
        yield (
            f"{len(lacks)} networks lack up to {count(max(lacks.values()), 'condition')} that "
            f"others have; comparisons leave them out."
        )
    else:
        for label, missing in lacks.items():
            yield (
                f"{label} lacks {count(missing, 'condition')} that other networks have; "
                f"comparisons leave them out."
            )
    if len({tuple(shown.corrupted) for shown in comparison.headlines(runs)} - {()}) > 1:
        yield (
            "The means under corruption are over different corruptions, since most networks share "
            "none."
        )


def _corrupted(runs: Sequence[Run]) -> Iterator[str]:
    """Networks whose means under corruption are of images in different forms or textures."""
    kinds: dict[str, dict[str, list[str]]] = {"form": {}, "frost": {}}
    for run, shown in zip(runs, comparison.headlines(runs), strict=True):
        if measured := shown.corrupted.values():
            forms = form_labels(each.form for each in measured)
            kinds["form"].setdefault(listing(forms) or "floating point", []).append(run.label)
        frosty = [each for (name, _), each in shown.corrupted.items() if name == "frost"]
        for drawn in {comparison.is_drawn_frost(each) for each in frosty}:
            texture = "a drawn texture" if drawn else "photographs"
            kinds["frost"].setdefault(texture, []).append(run.label)
    for what, text in (("form", "images in other forms"), ("frost", "other textures of frost")):
        if len(kinds[what]) > 1:
            parts = [f"{kind} for {listing(of)}" for kind, of in sorted(kinds[what].items())]
            yield f"The means under corruption are of {text}: {listing(parts)}."


def _images(runs: Sequence[Run]) -> Iterator[str]:
    """Networks whose conditions, or pairs whose results, are on different images."""
    uneven: dict[str, str] = {}
    for run in runs:
        if (clean := comparison.clean(run)) is None:
            continue
        others = [*itertools.chain(*comparison.ladders(run)), *comparison.averaged(run).values()]
        counts = {
            f"{result.images:,} {'attacked' if result.kind == 'attack' else 'corrupted'}"
            for result in others
            if not result.published and not comparison.same_places(clean, result)
        }
        if counts:
            uneven[run.label] = listing([f"{clean.images:,} clean", *sorted(counts)])
    if len(uneven) > _LISTED:
        label, numbers = next(iter(uneven.items()))
        uneven = {f"{label}, like {count(len(uneven) - 1, 'other network')},": numbers}
    for label, numbers in uneven.items():
        yield (
            f"{label} was not tested on the same images everywhere: {numbers}. Accuracies may "
            f"differ for that reason alone."
        )
    for base, vone in paired.pairs(runs):
        first, second = comparison.clean(base), comparison.clean(vone)
        if first is None or second is None or not paired.alike(first, second):
            continue
        if not comparison.same_places(first, second):
            yield (
                f"{base.label} and {vone.label} were tested on different images "
                f"({first.images:,} and {second.images:,}); differences are over the common ones."
            )


def _references(runs: Sequence[Run]) -> Iterator[str]:
    others = physiology.shared_properties(physiology.layers(runs), same_neurons=False)
    if others:
        yield (
            f"Layers were scored against different tables of neurons, and such scores cannot be "
            f"compared. Left out: {listing([label for _, label in others])}. Evaluate all with the "
            f"same --references."
        )
