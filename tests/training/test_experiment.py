"""Experiments survive JSON unchanged, and errors name the wrong field."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import attacks, data, models, training, v1
from vone_jax.training import DataConfig, Experiment, OptimizerConfig, config


def run(name="test", **fields):
    return Experiment(
        name=name,
        model=models.Spec(
            name="vone_resnet18",
            num_classes=10,
            image_size=28,
            in_channels=1,
            v1=models.v1_config(28, 1),
        ),
        data=DataConfig(
            source="fashion_mnist_small", augment=data.Augment(affine_degrees=30.0, flip=True)
        ),
        optimizer=OptimizerConfig(schedule=training.Step(epochs=(1, 2.5)), gradient_clip=5),
        **fields,
    )


@pytest.fixture
def experiment():
    return run()


def through_json(experiment):
    return training.from_json(json.loads(json.dumps(training.to_json(experiment), allow_nan=False)))


@pytest.mark.parametrize(
    ("schedule", "noise"),
    [
        (training.Constant(), None),
        (training.Step(epochs=(20, 40), decay=0.2), v1.StabilisedNoise(level=2.0)),
        (training.Plateau(patience=3), v1.GaussianNoise(scale=4.0)),
    ],
)
def test_json_gives_an_equal_experiment(experiment, schedule, noise):
    surround = v1.SurroundNormalization(frequency_tuning=1.0, largest_extent=0.2)
    front_end = replace(experiment.model.v1, noise=noise, normalization=surround)
    corrupted = training.Corruptions(("gaussian_noise", "contrast"), (2, 4))
    pgd = attacks.PGD("linf", 8 / 255, steps=3, random_start=True)
    changed = replace(
        experiment,
        model=replace(experiment.model, v1=front_end),
        objectives=(corrupted, pgd, training.AWP()),
        optimizer=replace(experiment.optimizer, schedule=schedule, rates=(("conv*", 0.1),)),
        freeze=("norm", "conv/bias"),
        non_finite_limit=3,
        accumulation_steps=4,
    )
    assert through_json(changed) == changed
    assert type(through_json(changed).optimizer.schedule) is type(schedule)


def test_json_keeps_an_explicit_bank(experiment):
    config = replace(experiment.model.v1, simple_channels=2, complex_channels=2)
    bank = config.gabor_parameters()
    changed = replace(experiment, model=replace(experiment.model, v1=replace(config, bank=bank)))
    restored = through_json(changed).model.v1.bank
    for name in ("sf", "theta", "phase", "nx", "ny", "channel"):
        np.testing.assert_array_equal(getattr(restored, name), getattr(bank, name))


def differences(ours, theirs):
    return config.differences(training.to_json(ours), training.to_json(theirs))


def test_differing_fields_are_named(experiment):
    other = replace(
        experiment, seed=3, optimizer=replace(experiment.optimizer, schedule=training.Cosine())
    )
    assert differences(experiment, experiment) == []
    assert differences(replace(experiment, epochs=3), replace(experiment, epochs=3.0)) == []
    named = differences(experiment, other)
    moved = replace(experiment, data=replace(experiment.data, workers=8), remat=True)
    assert differences(experiment, moved) == []
    assert "seed: 0 here, 3 there" in named
    assert 'optimizer.schedule.type: "Step" here, "Cosine" there' in named
    assert "optimizer.schedule.final: absent here, 0.0 there" in named


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: models.Spec(name="resnet18", v1=v1.VOneBlockConfig()), "v1"),
        (lambda: models.Spec(name="vone_resnet18", image_size=64, v1=v1.VOneBlockConfig()), "v1"),
        (lambda: models.Spec(name="resnet18", subcortical=v1.SubcorticalConfig()), "subcortical"),
        (lambda: run(""), "name"),
        (lambda: run(freeze="conv"), "freeze"),
        (lambda: run(objectives=(attacks.PGD("linf", 0.1, targeted=True),)), "untargeted"),
        (lambda: run(objectives=[training.AWP()]), "objectives must be a tuple"),
        (lambda: run(objectives=(training.Cosine(),)), r"objectives\[0\] must be Objective"),
        (lambda: run(accumulation_steps=3), "accumulation_steps"),
        (lambda: training.Similarity("neural"), "path"),
        (lambda: training.Similarity("v1", images=8, batch_size=9), "batch_size"),
        (lambda: training.Corruptions(("frost",)), "names"),
        (lambda: training.Corruptions(("fog",), (1,)), "severity"),
        (lambda: OptimizerConfig(rates=(("a", 0.0),)), "rates"),
        (lambda: OptimizerConfig(rates=("a", 1.0)), "rates"),
        (lambda: OptimizerConfig(schedule=training.OneCycle(), warmup_epochs=1), "warmup_epochs"),
        (lambda: training.Step(epochs=()), "epochs"),
        (lambda: training.Step(epochs=(20, 10)), "epochs"),
        (lambda: training.Step(epochs=20), "epochs"),
        (lambda: training.PRIME(filter_size=4), "filter_size"),
        (lambda: training.PRIME(colour_cutoff=19), "colour_cutoff"),
    ],
)
def test_parts_that_do_not_fit_each_other_are_refused_by_name(make, field):
    """Fields that are wrong by themselves are in tests/test_fields.py."""
    with pytest.raises(ValueError, match=field):
        make()


def test_steps_take_precedence_over_epochs(experiment):
    assert replace(experiment, epochs=2.5).total_steps(10) == 25
    assert replace(experiment, epochs=2.57).total_steps(10) == 26
    assert replace(experiment, epochs=0.001).total_steps(10) == 1
    assert replace(experiment, epochs=2.5, steps=7).total_steps(10) == 7


def test_a_network_has_the_precision_of_its_experiment(experiment):
    assert replace(experiment, precision="bfloat16").build().dtype == jnp.bfloat16


def test_json_keeps_both_stages_of_an_evnet(experiment):
    stage = v1.SubcorticalConfig(28, 28 / 32, in_channels=1)
    cells = replace(v1.P_CELLS, k_exc=2.0)
    stage = replace(stage, p_cells=cells, m_cells=None, noise=None)
    changed = models.Spec(
        name="ev_cornet_z", num_classes=10, image_size=28, in_channels=1, subcortical=stage
    )
    assert changed.build().v1.in_channels == 1
    assert through_json(replace(experiment, model=changed)).model == changed
    assert changed.build().subcortical == stage
