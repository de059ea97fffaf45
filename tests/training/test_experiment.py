"""Experiments survive JSON unchanged, and errors name the wrong field.

Errors about JSON are in test_dataclass_json.py and test_run.py.
"""

import json
import math
import typing
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from vone_jax import attacks, data, models, names, training, v1
from vone_jax.training import DataConfig, Experiment, ModelConfig, OptimizerConfig
from vone_jax.training.experiment import MatmulPrecision
from vone_jax.training.experiment_files import differences


def run(name="test", **fields):
    return Experiment(
        name=name,
        model=ModelConfig(
            name="vone_resnet18",
            num_classes=10,
            image_size=28,
            in_channels=1,
            v1=models.v1_config(28, 1),
        ),
        data=DataConfig(source="fashion_mnist_small", augment=data.AUGMENTS["tiny_imagenet"]),
        optimizer=OptimizerConfig(schedule=training.Step(epochs=(1, 2.5)), gradient_clip=5),
        **fields,
    )


@pytest.fixture
def experiment():
    return run()


def through_json(experiment):
    return training.from_json(json.loads(json.dumps(training.to_json(experiment), allow_nan=False)))


@pytest.mark.parametrize(
    "schedule",
    [
        training.Constant(),
        training.Step(epochs=(20, 40), decay=0.2),
        training.Cosine(final=0.01),
        training.OneCycle(rise=0.1),
        training.Plateau(patience=3),
    ],
)
@pytest.mark.parametrize(
    "noise", [v1.StabilisedNoise(level=2.0), v1.GaussianNoise(scale=4.0), None]
)
def test_json_gives_an_equal_experiment(experiment, schedule, noise):
    names = ("gaussian_noise", "contrast")
    changed = replace(
        experiment,
        model=replace(experiment.model, v1=replace(experiment.model.v1, noise=noise)),
        data=replace(experiment.data, corruptions=names, corruption_severity=(2, 4)),
        optimizer=replace(experiment.optimizer, schedule=schedule),
        non_finite_limit=3,
        accumulation_steps=4,
    )
    assert through_json(changed) == changed
    assert type(through_json(changed).optimizer.schedule) is type(schedule)


def test_json_keeps_the_normalisation(experiment):
    settings = v1.SurroundNormalization(frequency_tuning=1.0, largest_extent=0.2)
    config = replace(experiment.model.v1, normalization=settings)
    changed = replace(experiment, model=replace(experiment.model, v1=config))
    assert through_json(changed) == changed
    # A file that was written before there was a normalisation.
    content = training.to_json(experiment)
    del content["model"]["v1"]["normalization"]
    assert training.from_json(content) == experiment


def test_json_keeps_an_explicit_bank(experiment):
    config = replace(experiment.model.v1, simple_channels=2, complex_channels=2)
    bank = config.gabor_parameters()
    changed = replace(experiment, model=replace(experiment.model, v1=replace(config, bank=bank)))
    restored = through_json(changed).model.v1.bank
    for name in ("sf", "theta", "phase", "nx", "ny", "channel"):
        np.testing.assert_array_equal(getattr(restored, name), getattr(bank, name))


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
    ("make", "message"),
    [
        (lambda: ModelConfig(name="resnet18", num_classes=0), "num_classes must be .*>= 1, got 0"),
        (lambda: ModelConfig(name=3), "name must be one of resnet18, .*; got 3$"),
        (lambda: ModelConfig(name="resnet18", width=10**9), "width must be .* and <= 65536, got 1"),
        (lambda: ModelConfig(name="resnet18", v1=v1.VOneBlockConfig()), "v1 is for VOneNets"),
        (
            lambda: ModelConfig(name="vone_resnet18", image_size=64, v1=v1.VOneBlockConfig()),
            "image_size is 64, but v1.image_size is 224",
        ),
        (lambda: run(""), "name must be usable"),
        (
            lambda: run(perturbation=attacks.PGD("linf", 0.1, targeted=True)),
            "perturbation must be untargeted, since the labels are the true classes, got PGD",
        ),
        # A run with another attack could be trained, and then neither evaluated nor continued.
        (
            lambda: run(perturbation=attacks.FGSM("linf", 0.1)),
            r"perturbation must be PGD\(...\), GaussianImageNoise.*, PRIME.* or None, got FGSM",
        ),
        (lambda: OptimizerConfig(schedule="cosine"), "schedule must be Constant.*got 'cosine'"),
        (lambda: OptimizerConfig(weight_decay=2.0), "weight_decay must be .*<= 1, got 2.0"),
        (
            lambda: training.Similarity("neural", path="x.npz", source="cifar10"),
            "source must be None for target 'neural', whose file has the images, got 'cifar10'",
        ),
        (lambda: training.Similarity("v1", images=8, batch=9), "batch must be <= images, 8, got 9"),
        (lambda: run(non_finite_limit=-1), "non_finite_limit must be an integer >= 0"),
        (lambda: run(checkpoint_every=math.nan), "checkpoint_every must be a finite number > 0"),
        (lambda: DataConfig(source="x", corruption_severity=(0, 2)), r"got \(0, 2\)"),
        (lambda: DataConfig(source="x", corruption_severity=(1,)), r"1 <= low <= .*, got \(1,\)"),
        (lambda: OptimizerConfig(label_smoothing=-0.1), "label_smoothing must be .* >= 0"),
        (lambda: OptimizerConfig(gradient_clip=0.0), "gradient_clip must be a finite number > 0"),
        (lambda: OptimizerConfig(decayed="kernel"), "did you mean 'kernels'"),
        (lambda: OptimizerConfig(momentum=0, nesterov=True), "nesterov needs momentum"),
        (
            lambda: OptimizerConfig(schedule=training.OneCycle(), warmup_epochs=1),
            "warmup_epochs must be 0 with OneCycle",
        ),
    ],
)
def test_impossible_parts_are_refused_by_name(make, message):
    """More are in test_wrong_commands.py."""
    with pytest.raises(ValueError, match=message):
        make()


def test_the_file_of_measured_similarities_says_how_many_images_there_are():
    assert training.Similarity("neural", path="x.npz", batch=1100).batch == 1100


def test_steps_take_precedence_over_epochs(experiment):
    assert replace(experiment, epochs=2.5).total_steps(10) == 25
    assert replace(experiment, epochs=2.57).total_steps(10) == 26
    assert replace(experiment, epochs=0.001).total_steps(10) == 1
    assert replace(experiment, epochs=2.5, steps=7).total_steps(10) == 7


def test_a_network_has_the_precision_of_its_experiment(experiment):
    assert replace(experiment, precision="bfloat16").build().back_end.dtype == jnp.bfloat16


def test_a_network_is_built_for_a_number_of_classes(experiment):
    unknown = replace(experiment, model=replace(experiment.model, num_classes=None))
    with pytest.raises(ValueError, match=r"model\.num_classes must be .* got None; give it"):
        unknown.build()


def test_json_keeps_both_stages_of_an_evnet(experiment):
    stage = v1.SubcorticalConfig(28, 28 / 32, in_channels=1)
    cells = replace(v1.P_CELLS, k_exc=2.0)
    stage = replace(stage, p_cells=cells, m_cells=None, noise=None)
    changed = ModelConfig(
        name="ev_cornet_z", num_classes=10, image_size=28, in_channels=1, subcortical=stage
    )
    assert changed.build().v1.in_channels == 1
    assert through_json(replace(experiment, model=changed)).model == changed
    assert changed.build().subcortical == stage


def test_a_subcortical_stage_is_for_evnets(experiment):
    with pytest.raises(ValueError, match="subcortical is for EVNets"):
        replace(experiment.model, subcortical=v1.SubcorticalConfig(28, 0.875, 1))


def test_training_and_evaluation_have_the_same_precisions():
    assert typing.get_args(MatmulPrecision) == names.MATMUL_PRECISIONS
