"""Every checked field of every configuration, out of its range: the error names the field.

What is wrong with a field by itself is tested here alone. Fields that do not fit each other are
tested beside their classes.
"""

import dataclasses
import math
import types
import typing

import numpy as np
import pytest

from vone_jax import attacks, corruptions, data, evaluation, sweep, training, v1
from vone_jax.arguments import Range
from vone_jax.evaluation.certified import Certified
from vone_jax.evaluation.conditions import Attacked, Corrupted
from vone_jax.evaluation.critical_bands import CriticalBands
from vone_jax.evaluation.fourier_map import FourierMap
from vone_jax.evaluation.geometry import Geometry
from vone_jax.evaluation.judging import Protocol
from vone_jax.evaluation.masking import Masking
from vone_jax.evaluation.metamers import Metamers
from vone_jax.evaluation.physiology import Physiology
from vone_jax.evaluation.psychophysics import Psychophysics
from vone_jax.v1.divisive import GDN, OrientedPools

IN_L2 = ("APGD", "CW", "DDN", "DeepFool", "FAB", "FGSM", "FMN", "PGD", "RandomNoise")
ATTACKS = [getattr(attacks, name)("l2", 0.5) for name in (*IN_L2, "Square", "AutoAttack")]
ATTACKS.append(attacks.SPSA("linf", 0.5))
EXPERIMENT = training.Experiment(
    name="fields", model=training.ModelConfig("resnet18"), data=training.DataConfig("x")
)
# One valid object of each class.
EXAMPLES = [
    *ATTACKS,
    attacks.Strongest((ATTACKS[0],)),
    attacks.InBatches(ATTACKS[0], 8),
    attacks.Transfer(ATTACKS[0], lambda keys, images: images),
    EXPERIMENT,
    EXPERIMENT.model,
    EXPERIMENT.data,
    EXPERIMENT.optimizer,
    training.Similarity("v1"),
    training.Distillation("runs/a"),
    training.Step(epochs=(2,)),
    training.Cosine(),
    training.OneCycle(),
    training.Plateau(),
    training.GaussianImageNoise(0.1),
    training.PRIME(),
    data.Augment(),
    data.Preprocessing(),
    v1.VOneBlockConfig(),
    v1.NeuronalNoise(),
    v1.GaussianNoise(1.0),
    v1.StabilisedNoise(),
    v1.FanoNoise(),
    v1.SurroundNormalization(),
    v1.SubcorticalConfig(),
    v1.P_CELLS,
    GDN(),
    OrientedPools(),
    Attacked(ATTACKS[0]),
    Corrupted("fog", 3),
    Certified((0.1,)),
    CriticalBands(),
    FourierMap(),
    Geometry("stem"),
    Masking("linf", 0.1, True),
    Metamers("stem"),
    Physiology("v1"),
    Protocol(),
    Psychophysics(next(iter(corruptions.DISTORTIONS))),
    evaluation.Options(),
    sweep.Options(),
]


def members(hint):
    """The types of a union, or the type itself, each with its annotations."""
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        return [each for member in typing.get_args(hint) for each in members(member)]
    if origin is typing.Annotated:
        inner, *notes = typing.get_args(hint)
        return [(kind, (*known, *notes)) for kind, known in members(inner)]
    return [(hint, ())]


def wrong_values(hint):
    """Values that a field of a type must not have; none for types that are not checked."""
    kinds = [(kind, notes) for kind, notes in members(hint) if kind is not types.NoneType]
    if len(kinds) > 1:
        return ["other"] if all(dataclasses.is_dataclass(kind) for kind, _ in kinds) else []
    ((kind, notes),) = kinds
    limits = next((note for note in notes if isinstance(note, Range)), None)
    if kind is bool:
        return [1, "yes"]
    if kind is int:
        least, most = (limits.least, limits.most) if limits else (1, math.inf)
        beyond = [most + 1] if most < math.inf else [2**31]
        return [least - 1, *beyond, least + 0.5, "many", True]
    if kind is float:
        limits = limits or Range()
        low = limits.least if limits.above else np.nextafter(limits.least, -math.inf)
        high = limits.most if limits.below else np.nextafter(limits.most, math.inf)
        high = [high] if math.isfinite(limits.most) else []
        return [float(low), *map(float, high), math.nan, math.inf, -math.inf, "much", True]
    choices = kind if typing.get_origin(kind) is typing.Literal else None
    if choices or (kind is str and notes):
        return ["none of them", 3]
    if dataclasses.is_dataclass(kind):
        return ["other", 3]
    return [3] if kind is str else []


CASES = [
    pytest.param(example, field.name, value, id=f"{type(example).__name__}-{field.name}-{value}")
    for example in EXAMPLES
    for field in dataclasses.fields(example)
    if field.init
    for value in wrong_values(field.type)
]


@pytest.mark.untyped
@pytest.mark.parametrize(("example", "field", "value"), CASES)
def test_a_field_out_of_its_range_is_named(example, field, value):
    with pytest.raises((ValueError, TypeError), match=rf"\b{field}\b"):
        dataclasses.replace(example, **{field: value})


def test_every_attack_and_every_condition_is_here():
    def below(cls):
        return {cls}.union(*map(below, cls.__subclasses__()))

    here = {type(example) for example in EXAMPLES}
    for base in (attacks.Attack, evaluation.Condition):
        ours = {cls for cls in below(base) if cls.__module__.startswith("vone_jax.")}
        checked = {c for c in ours if hasattr(c, "__post_init__") and not c.__subclasses__()}
        assert checked <= here, f"add {checked - here}"
