"""Every config builds, says what it should, and gives the shapes of a training step."""

import contextlib
import dataclasses
import json
import math
import re
from itertools import product
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
import tyro
from jax.tree_util import Partial

from tests.evaluation import tiny
from tests.photographs import write_photographs
from vone_jax import data, evaluation, training, v1
from vone_jax import mesh as meshes
from vone_jax import sweep as sweeps
from vone_jax.cli import parsing
from vone_jax.cli.train import Arguments
from vone_jax.evaluation import suites
from vone_jax.training.step import initial_state, make_train_step
from vone_jax.v1.images import normalise

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
NAMES = training.config_names(CONFIGS)
SWEEPS = training.config_names(CONFIGS, "sweep")
# The base network of each VOneNet.
CONTROLS = {name.replace("/vone_", "/") for name in NAMES if "/vone_" in name}
STEPS = [pytest.param(name, marks=pytest.mark.slow) for name in sorted({*NAMES} - CONTROLS)]


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def experiment(name):
    return training.load_config(name, CONFIGS)


def test_every_network_has_its_control():
    """Each VOneNet is there with its base network, and they differ in the front end alone."""
    assert len(NAMES) >= 14
    for name in NAMES:
        group, _, model = name.partition("/")
        if model.startswith("vone_"):
            vone = training.to_json(training.load_config(name, CONFIGS))
            base = training.to_json(
                training.load_config(f"{group}/{model.removeprefix('vone_')}", CONFIGS)
            )
            vone["model"].pop("v1")
            assert base["model"].pop("v1") is None
            assert vone["model"].pop("name") == "vone_" + base["model"].pop("name")
            assert vone.pop("name") != base.pop("name")
            assert vone == base


def test_names_are_those_of_the_files(name, experiment):
    assert experiment.name == name.replace("/", "-")
    network = name.rpartition("/")[2].removesuffix("_prime")
    assert network.startswith("photos") or network == experiment.model.name


@pytest.mark.parametrize("name", [*NAMES, *SWEEPS])
def test_the_docstring_has_the_facts(name):
    path = CONFIGS / f"{name}.py"
    text = path.read_text().split('"""')[1]
    for heading in ("Paper row:", "Expected:", "Hardware:", "Wall time:"):
        assert heading in text, f"{path} does not say: {heading}"
    program = "sweep" if name in SWEEPS else "train"
    option = " --data.source folder:DIR| --initial-weights runs/imagenet-ev_resnet50"
    option += "| --weights DIR --source folder:DIR"
    assert re.search(rf"^Command: python {program}.py {name}({option})?$", text, re.MULTILINE)


def test_fine_tuning_changes_the_recipe_alone():
    """With PRIME, EVResNet-50 learns for 50 epochs, at rates up to 0.01 after a tenth of them."""
    tuned, base = (
        training.to_json(training.load_config(f"imagenet/ev_resnet50{suffix}", CONFIGS))
        for suffix in ("_prime", "")
    )
    assert tuned["epochs"] == 50 and tuned.pop("name") != base.pop("name")
    assert tuned.pop("objectives") == [training.to_json(training.PRIME())]
    assert base.pop("objectives") == []
    for recipe, rate, rise in ((tuned["optimizer"], 0.01, 0.1), (base["optimizer"], 0.1, 0.3)):
        assert recipe.pop("learning_rate") == rate and recipe["schedule"].pop("rise") == rise
    assert tuned == base


def test_json_gives_an_equal_experiment(experiment):
    assert training.from_json(json.loads(json.dumps(training.to_json(experiment)))) == experiment


@pytest.mark.parametrize(
    "name", ["laboratory/adversarial", "laboratory/perception", "laboratory/variants"]
)
def test_sweeps_ask_the_networks_of_their_own_directory(name):
    """With --runs DIR, nothing that a command opens lies below runs."""
    sweep = sweeps.load_sweep(name, CONFIGS)
    directory = f"elsewhere/{sweep.group}"
    asked = []
    for command in sweeps.commands(name, sweep, Path("elsewhere")):
        if "--others" in command.words:
            asked += command.words[command.words.index("--others") + 1 :]
        network = command.label and sweep.members[command.label].network
        if command.step == "train" and network.objectives:
            # As train.py reads them.
            words = command.words[command.words.index("--run-dir") :]
            markers, default = (tyro.conf.AvoidSubcommands,), Arguments(network)
            given = parsing.parse(Arguments, words, "train.py", "", default, markers)
            texts = (vars(each).get("teacher", "") for each in given.experiment.objectives)
            asked += [word for text in texts for word in text.split("+")]
    asked = [word for word in asked if "/" in word]
    assert asked and all(word.startswith(f"{directory}/") for word in asked)


@pytest.mark.slow
def test_sweeps_of_a_group_mean_the_same_network_by_the_same_label():
    found: dict[tuple[str, str], training.Experiment] = {}
    for name in SWEEPS:
        sweep = sweeps.load_sweep(name, CONFIGS)
        for label, member in sweep.members.items():
            network = member.network
            assert found.setdefault((sweep.group, label), network) == network
            if isinstance(network, training.Experiment):
                assert training.from_json(training.to_json(network)) == network, label


def test_suites_of_our_files_make_their_conditions():
    network = tiny.tiny_trained(v1.GaussianNoise(2.0), visual_degrees=2.0)
    for file in ("laboratory", "drawings"):
        names = set()
        for sweep in (sweeps.load_sweep(name, CONFIGS) for name in SWEEPS):
            for member in sweep.members.values():
                for words in (*sweep.evaluations, *member.evaluations):
                    chosen = [str(w) for w in words if f"{file}/suites.py:" in str(w)]
                    names |= {each.rpartition(":")[2] for each in chosen}
        assert names
        for each in sorted(names):
            suite = suites.find([f"{CONFIGS / file / 'suites.py'}:{each}"], {}, {})
            assert suites.conditions(suite, evaluation.Evaluation(network)), each


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name.startswith("image") else [])
        for name in NAMES
    ],
)
def test_shapes_of_a_step(name):
    """Without data, memory or time: parameters come out as they went in, the loss is a scalar."""
    check_shapes_of_a_step(training.load_config(name, CONFIGS))


@pytest.mark.slow
def test_shapes_of_a_step_of_every_member():
    """With attacks, noisy images and similarities in the step; once for all seeds and sweeps."""
    members = {
        repr(dataclasses.replace(member.network, seed=0)): (label, member.network)
        for sweep in SWEEPS
        for label, member in sweeps.load_sweep(sweep, CONFIGS).members.items()
        if isinstance(member.network, training.Experiment)
    }
    assert len(members) >= 30
    for label, network in members.values():
        check_shapes_of_a_step(network, label)


def check_shapes_of_a_step(experiment, label=""):
    size, channels = experiment.model.image_size, experiment.model.in_channels or 3
    config = dataclasses.replace(experiment.model, num_classes=2, in_channels=channels)
    experiment = dataclasses.replace(experiment, model=config)
    model = experiment.build()
    state = jax.eval_shape(lambda: initial_state(experiment, model))
    classes, resources = experiment.model.num_classes, {}
    for each in experiment.objectives:
        if isinstance(each, training.Similarity):
            images = np.zeros((each.batch_size, size, size, channels), np.float32)
            similarity = np.eye(each.batch_size, dtype=np.float32)
            resources["Similarity"] = {"images": images, "similarity": similarity}
        if isinstance(each, training.Distillation):
            teacher = Partial(lambda keys, images: jnp.zeros((len(images), classes)))
            resources["Distillation"] = teacher
    step = make_train_step(model, experiment, 100, meshes.data_mesh(), resources)
    batch = {
        "image": jax.ShapeDtypeStruct((4, size, size, channels), jnp.float32),
        "label": jax.ShapeDtypeStruct((4,), jnp.int32),
        "index": jax.ShapeDtypeStruct((4,), jnp.uint32),
    }
    with jax.numpy_dtype_promotion("standard"):  # Of Optax's Adam.
        after, metrics = jax.eval_shape(step, state, batch)
    describe = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
    assert describe(after) == describe(state), label
    assert metrics.sums.loss.shape == () and metrics.sums.loss.dtype == np.float32, label


def test_configs_for_accelerators_compute_in_one_pass():
    """Six passes of the matrix unit took three times as long. The state stays float32."""
    experiment = training.load_config("imagenet/vone_resnet50", CONFIGS)
    config = dataclasses.replace(experiment.model, num_classes=2, in_channels=3, width=2)
    experiment = dataclasses.replace(experiment, model=config)
    model = experiment.build()
    state = jax.eval_shape(lambda: initial_state(experiment, model))
    step = make_train_step(model, experiment, 100, meshes.data_mesh(jax.devices()[:1]))
    batch = {
        "image": jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32),
        "label": jax.ShapeDtypeStruct((2,), jnp.int32),
        "index": jax.ShapeDtypeStruct((2,), jnp.uint32),
    }
    with jax.default_matmul_precision(experiment.matmul_precision):
        text = jax.jit(step).lower(state, batch).as_text()
    assert "HIGH" not in text and "xbf16>" in text
    floats = {x.dtype for x in jax.tree.leaves(state) if jnp.issubdtype(x.dtype, jnp.floating)}
    assert floats == {jnp.dtype("float32")}


@pytest.mark.parametrize("name", STEPS, scope="module")
def test_two_steps_on_mocked_data(experiment, tmp_path):
    """The whole program with the config's data set, shapes and recipe; only width is cut.

    Controls are left out, which differ in the front end alone and are trained by other tests.
    """
    data = experiment.data
    if data.source.startswith("folder:"):
        # An image of each class in each split.
        side = experiment.model.image_size
        folders = product(("train", "val"), range(4))
        places = (f"{split}/class{label:03d}/image.png" for split, label in folders)
        write_photographs(tmp_path / "data", *places, size=(side, side))
        data = dataclasses.replace(data, source=f"folder:{tmp_path / 'data'}")
    # The embedded set is no mock, and has 2,000 images to be validated on.
    validated_on = 4 if ":" in data.source else 200
    data = dataclasses.replace(data, batch_size=4, eval_batch_size=validated_on, workers=0)
    model = dataclasses.replace(experiment.model, width=2)
    small = dataclasses.replace(experiment, data=data, model=model, steps=2)
    # Optax's Adam needs the promotion of types that users have, for its count of steps.
    with tfds.testing.mock_data(num_examples=4), jax.numpy_dtype_promotion("standard"):
        outcome = training.train(small, tmp_path / "run")
    assert outcome.finished
    log = (tmp_path / "run" / "log.jsonl").read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    assert max(line["step"] for line in lines if line["kind"] == "train") == 2
    validated = [line for line in lines if line["kind"] == "validation"]
    assert validated and all(np.isfinite(line["loss"]) for line in lines if "loss" in line)


def test_imagenet_networks_have_the_published_number_of_parameters():
    published = {
        "resnet50": 25_557_032,
        "vone_resnet50": 25_580_264,
        "cornet_s": 53_416_616,
        "vone_cornet_s": 53_402_856,
        "alexnet": 61_100_840,
        "vone_alexnet": 74_741_800,
    }
    for name, expected in published.items():
        experiment = training.load_config(f"imagenet/{name}", CONFIGS)
        config = dataclasses.replace(experiment.model, num_classes=1000)
        model = dataclasses.replace(experiment, model=config).build()
        params = jax.eval_shape(lambda e=experiment, m=model: initial_state(e, m)).params
        assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params)) == expected


@pytest.mark.parametrize(
    ("sweep", "label", "source", "split"),
    [
        ("laboratory/training", "base-stem-noise", "fashion_mnist_small", "test"),
        pytest.param(
            "benchmark/vonenet", "stem-noise", "demo", "validation", marks=pytest.mark.extras
        ),
    ],
)
def test_noise_behind_a_stem_meets_the_mean_response_that_it_assumes(sweep, label, source, split):
    """In V1 it is about 1. With another one, the control would have more or less noise than V1."""
    if source == "demo":
        pytest.importorskip("foolbox")
    network = sweeps.load_sweep(sweep, CONFIGS).members[label].network
    assert isinstance(network, training.Experiment)
    size, model = network.model.image_size, dataclasses.replace(network.model, num_classes=10)
    batches = data.eval_batches(data.load(source, split), batch_size=16, image_size=size)
    with contextlib.closing(batches):
        images = jnp.asarray(next(batches)["image"])
    built: Any = model.build()
    normal = normalise(images, built.spec.mean, built.spec.std)
    stem = built.spec.stem(jnp.float32)
    layers, _ = jax.jit(lambda key: stem.init_with_output(key, normal, True))(jax.random.key(0))
    assert built.spec.stem_noise is not None
    assert float(built.spec.stem_gain * jnp.mean(layers["stem"])) == pytest.approx(1.0, abs=0.1)


def test_a_file_anywhere_is_a_config_and_may_build_on_ours(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from dataclasses import replace\n"
        "from configs.quickstart.resnet18 import experiment as base\n"
        "experiment = replace(base, name='mine', seed=3)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert training.load_config("mine.py", CONFIGS).seed == 3
    assert training.load_config(str(tmp_path / "mine.py"), CONFIGS).name == "mine"
    assert training.load_config("quickstart/resnet18", CONFIGS).seed == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("experiment = 3", "must define experiment"),
        ("\nfrom vone_jax.models import Spec\nSpec(name='x')", ":3:.*name"),
        ("from vone_jax.training import Constant\nConstant(\n", "SyntaxError.*line 2"),
        ("def half(n):\n    return n / 0\n\nhalf(3)\n", ":2: ZeroDivisionError"),
    ],
)
def test_a_file_that_is_no_config_is_named(tmp_path, text, message):
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(ValueError, match=f"broken.py.*{message}"):
        training.load_config(str(tmp_path / "broken.py"), CONFIGS)
