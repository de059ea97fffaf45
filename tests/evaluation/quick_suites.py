"""Suites of few steps, for commands in tests."""

import dataclasses

from vone_jax import evaluation
from vone_jax.evaluation.suites import SUITES


def linf(setting):
    return evaluation.white_box(setting, "linf", steps=2, eot_samples=min(2, setting.draws))


def attacks(setting):
    """All suites of other attacks, with few steps."""
    names = ("apgd", "square", "worst", "minimal", "autoattack")
    return [_short(each) for name in names for each in SUITES[name](setting)]


def masking(setting):
    (condition,) = SUITES["masking"](setting)
    few = {"steps": 8, "queries": 20, "restarts": 2, "eot_samples": 2}
    return [dataclasses.replace(condition, **few)]


def _short(condition):
    if isinstance(condition, evaluation.Worst):
        return dataclasses.replace(condition, several=tuple(map(_fewer, condition.several)))
    return dataclasses.replace(condition, attack=_fewer(condition.attack))


def _fewer(attack):
    few = {"steps": 2, "queries": 10, "eot_samples": 2}
    names = {field.name for field in dataclasses.fields(attack)}
    return dataclasses.replace(attack, **{n: v for n, v in few.items() if n in names})


noise = evaluation.corrupted(["gaussian_noise"], (3,))
