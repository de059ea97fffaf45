"""Every checked field of every configuration, out of its range: the error names the field.

A test is a class; the kinds of wrong values are those of tests/test_arguments.py. Fields that do
not fit each other are tested beside their classes.
"""

import dataclasses
import math
import types
import typing

import pytest

from vone_jax import attacks, corruptions, data, evaluation, models, training, v1
from vone_jax.arguments import Range
from vone_jax.certification.measured import Certified, Discriminable
from vone_jax.evaluation import Attacked, Corrupted, FourierMap, Masking, Minimal, Protocol
from vone_jax.neurophysiology.measured import Physiology
from vone_jax.perception import CriticalBands, Geometry, Metamers, Psychophysics
from vone_jax.v1.divisive import GDN, OrientedPools

IN_L2 = ("APGD", "CW", "DDN", "DeepFool", "FAB", "FGSM", "FMN", "PGD", "RandomNoise")
ATTACKS = [getattr(attacks, name)("l2", 0.5) for name in (*IN_L2, "Square", "AutoAttack")]
ATTACKS.append(attacks.SPSA("linf", 0.5))
EXPERIMENT = training.Experiment(
    name="fields", model=models.Spec("resnet18"), data=training.DataConfig("x")
)
# One valid object of each class.
EXAMPLES = [
    *ATTACKS,
    attacks.Strongest((ATTACKS[0],)),
    attacks.Transfer(ATTACKS[0], lambda keys, images: images),
    attacks.Function(lambda keys, logits_fn, images, labels: images),
    EXPERIMENT,
    EXPERIMENT.model,
    EXPERIMENT.data,
    EXPERIMENT.optimizer,
    training.Corruptions(("fog",)),
    training.Similarity("v1"),
    training.Distillation("runs/a"),
    training.Step(epochs=(2,)),
    training.Cosine(),
    training.OneCycle(),
    training.Plateau(),
    training.Mixing(),
    training.Cyclic(),
    training.TRADES(0.1, 0.02),
    training.MART(0.1, 0.02),
    training.Fast(0.1),
    training.Free(0.1),
    training.AWP(),
    training.GaussianImageNoise(0.1),
    training.PRIME(),
    training.Diet(),
    data.Augment(),
    data.Preprocessing(),
    v1.VOneBlockConfig(),
    v1.NeuronalNoise(),
    v1.GaussianNoise(1.0),
    v1.StabilisedNoise(),
    v1.FanoNoise(),
    v1.GainControl(),
    v1.SurroundNormalization(),
    v1.SubcorticalConfig(),
    v1.P_CELLS,
    GDN(),
    OrientedPools(),
    Attacked(ATTACKS[0]),
    Corrupted("fog", 3),
    Certified((0.1,)),
    CriticalBands(),
    Discriminable(v1.VOneBlockConfig(noise=v1.GaussianNoise(1.0)), (1.0,)),
    FourierMap(),
    Geometry("stem"),
    Minimal(ATTACKS[IN_L2.index("FMN")], (0.1,)),
    Masking("linf", 0.1, True),
    Metamers("stem"),
    Physiology("v1"),
    Protocol(),
    Psychophysics(next(iter(corruptions.DISTORTIONS))),
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


def wrong_value(hint):
    """A value that a field of a type must not have; None for types that are not checked."""
    kinds = [(kind, notes) for kind, notes in members(hint) if kind is not types.NoneType]
    if len(kinds) > 1:
        return "other" if all(dataclasses.is_dataclass(kind) for kind, _ in kinds) else None
    ((kind, notes),) = kinds
    limits = next((note for note in notes if isinstance(note, Range)), None)
    if kind is bool:
        return "yes"
    if kind is int:
        return (limits.least if limits else 1) - 1
    if kind is float:
        return math.nan
    if typing.get_origin(kind) is typing.Literal or (kind is str and notes):
        return "none of them"
    if dataclasses.is_dataclass(kind):
        return "other"
    return 3 if kind is str else None


@pytest.mark.untyped
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: type(example).__name__)
def test_a_field_out_of_its_range_is_named(example):
    for field in dataclasses.fields(example):
        value = wrong_value(field.type)
        if field.init and value is not None:
            with pytest.raises((ValueError, TypeError), match=rf"\b{field.name}\b"):
                dataclasses.replace(example, **{field.name: value})


def test_every_attack_and_every_condition_is_here():
    def below(cls):
        return {cls}.union(*map(below, cls.__subclasses__()))

    here = {type(example) for example in EXAMPLES}
    for base in (attacks.Attack, evaluation.Condition):
        ours = {cls for cls in below(base) if cls.__module__.startswith("vone_jax.")}
        checked = {c for c in ours if hasattr(c, "__post_init__") and not c.__subclasses__()}
        assert checked <= here, f"add {checked - here}"
