"""Suites of few steps, for commands in tests."""

import dataclasses

from vone_jax import evaluation
from vone_jax.attacks import APGD, AutoAttack, Strongest
from vone_jax.suites import SUITES


def linf(given, *, eps: tuple[float, ...] = ()):
    few = min(2, given.attack_draws)
    return evaluation.white_box(given, "linf", eps=eps, steps=2, eot_samples=few)


def attacks(given, *, eps: tuple[float, ...] = ()):
    """All suites of other attacks, with few steps."""
    names = ("apgd", "square", "worst", "minimal", "autoattack")
    return [_short(each) for name in names for each in SUITES[name](given, eps=eps)]


def masking(given, *, eps: tuple[float, ...] = ()):
    (condition,) = SUITES["masking"](given, eps=eps)
    few = {"steps": 8, "queries": 20, "restarts": 2, "eot_samples": 2}
    return dataclasses.replace(condition, **few)


def worst(given, *, eps: tuple[float, ...] = ()):
    return [_short(each) for each in SUITES["worst"](given, eps=eps)]


def _short(condition):
    # The shortened AutoAttack is a ``Strongest``, of which there is another one.
    changed = {"variant": "AutoAttack"} if isinstance(condition.attack, AutoAttack) else {}
    return dataclasses.replace(condition, attack=_fewer(condition.attack), **changed)


def _fewer(attack):
    if isinstance(attack, Strongest):
        return Strongest(tuple(map(_fewer, attack.attacks)), draws=2)
    if isinstance(attack, AutoAttack):
        return Strongest((APGD(attack.norm, attack.eps, steps=2, eot_samples=2),), draws=2)
    few = {"steps": 2, "queries": 10, "eot_samples": 2}
    names = {field.name for field in dataclasses.fields(attack)}
    return dataclasses.replace(attack, **{n: v for n, v in few.items() if n in names})


noise = evaluation.Corrupted("gaussian_noise", 3)
