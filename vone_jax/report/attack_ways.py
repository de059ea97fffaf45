"""Ways of attacking: results of several norms and budgets that were attacked alike."""

import dataclasses
import re
from collections.abc import Collection, Mapping, Sequence

from vone_jax.report import compare
from vone_jax.report.results import NORMS, Result

# Fields of an attack that make no difference in a norm.
_WITHOUT_EFFECT = {
    "linf": frozenset({"l1_step", "norm_offset", "projection", "order"}),
    "l2": frozenset({"l1_step"}),
    "l1": frozenset(),
}
# Told in words of their own.
_STEPS = ("steps", "step_size", "step_rule")


@dataclasses.dataclass(frozen=True)
class Way:
    """How attacks were set, apart from norm and budget.

    Attributes:
      kind: the attack's name, or all of its text if that has an attack within.
      fields: its settings as text.
      draws: noise draws that a gradient averages over.
      noise: what it saw of the noise if not what the judgement has: "none", "frozen", or other
        noise as the result states it.
    """

    kind: str
    fields: Mapping[str, str]
    draws: int
    noise: str

    def agrees(self, other: "Way", norm: str) -> bool:
        """Whether the two are the same attack in a norm."""

        def effective(way: Way) -> tuple:
            fields = {n: v for n, v in way.fields.items() if n not in _WITHOUT_EFFECT[norm]}
            return way.kind, fields, way.draws, way.noise

        return effective(self) == effective(other)

    def words(self, varying: frozenset[str], used: Collection[str]) -> str:
        """The attack in short: steps, draws, and those further fields that are asked for.

        Args:
          varying: fields that tell attacks apart.
          used: norms it was used in; fields without effect in all of them are left out.
        """
        idle = frozenset.intersection(*(_WITHOUT_EFFECT[norm] for norm in used))
        parts = [self.kind]
        if "steps" in self.fields:
            length = self.fields.get("step_size", "None")
            if length == "None":
                length = self.fields.get("step_rule", "").strip("'\"")
            parts.append(f"{self.fields['steps']} steps of {length}" if length else "")
        parts += [
            f"{name} {self.fields[name]}".replace("'", "")
            for name in self.fields
            if name in varying and name not in _STEPS and name not in idle
        ]
        if self.draws > 1:
            parts.append(f"{self.draws} draws")
        return ", ".join(filter(None, parts))


def ways(results: Sequence[Result]) -> list[tuple[Way, dict[str, tuple[Result, ...]]]]:
    """The ways of attacks on one network that was judged in one way.

    A result belongs to all ways that differ from its own in nothing that matters in its norm; a way
    that has no result of its own is left out.

    Returns:
      (way, norm -> results by ascending budget), in the order of the results.
    """
    own = [(_way(result), result) for result in results]
    found = []
    for way in dict.fromkeys(_key(way) for way, _ in own):
        candidate = next(other for other, _ in own if _key(other) == way)
        members = [
            result for other, result in own if candidate.agrees(other, result.condition["norm"])
        ]
        found.append((candidate, members))
    whole = [
        (way, members)
        for place, (way, members) in enumerate(found)
        if not any(
            _within(members, others) and (len(members) < len(others) or other < place)
            for other, (_, others) in enumerate(found)
            if other != place
        )
    ]
    return [(way, _by_norm(members)) for way, members in whole]


def _by_norm(results: Sequence[Result]) -> dict[str, tuple[Result, ...]]:
    found: dict[str, tuple[Result, ...]] = {}
    for norm in NORMS:
        ladder = {
            compare.budget(result): result for result in results if result.condition["norm"] == norm
        }
        if ladder:
            found[norm] = tuple(ladder[eps] for eps in sorted(ladder))
    return found


def _within(some: Sequence[Result], others: Sequence[Result]) -> bool:
    return all(any(one is other for other in others) for one in some)


def _key(way: Way) -> tuple:
    return way.kind, tuple(sorted(way.fields.items())), way.draws, way.noise


def _way(result: Result) -> Way:
    text = compare.attack_settings(result).partition(" on the network ")[0]
    match = re.fullmatch(r"(\w+)\(([^()]*)\)", text)
    fields = {}
    if match is not None:
        pairs = [part.partition("=") for part in match[2].split(", ") if "=" in part]
        fields = {name: value for name, _, value in pairs}
    noise = "frozen" if result.noise == "frozen_attack" else ""
    if result.condition.get("noise_free_gradients"):
        noise = "none"
    return Way(
        kind=text if match is None else match[1],
        fields=fields,
        draws=result.condition.get("eot_samples", 1),
        noise=str(result.condition.get("attack_noise", noise)),
    )
