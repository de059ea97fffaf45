"""Runs that start from given weights: what is taken, what is left, what is new, and resuming."""

import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from test_loop import StopAt, assert_same_run, train
from tiny import source_of, tiny_source

from tests import networks
from tests.networks import TinyNet
from vone_jax import mesh as meshes
from vone_jax import models, training, v1
from vone_jax.training import DataConfig, Experiment, initial
from vone_jax.training.step import initial_state

pytestmark = pytest.mark.usefixtures("cached_compilation")

CLASSES = tiny_source("train").class_names
V1 = v1.VOneBlockConfig(
    simple_channels=3, complex_channels=3, image_size=8, visual_degrees=8 / 28, kernel_size=9,
    stride=2, in_channels=1,
)  # fmt: skip


def experiment(name, width=2, **model):
    config = models.Spec(name=name, image_size=8, in_channels=1, width=width, **model)
    return Experiment(
        name="start", model=config, data=DataConfig("tiny", eval_split="test", batch_size=8)
    )


def random_variables(model, seed=0):
    """Random values for every variable; nothing is compiled."""
    image = jax.ShapeDtypeStruct((1, 8, 8, getattr(model, "in_channels", 1)), np.float32)
    key = jax.random.key(0)
    shapes = jax.eval_shape(lambda x: model.init(key, x, noise_key=key), image)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: (0.5 + rng.random(x.shape)).astype(np.float32), shapes)


def network(name, classes=3, class_names=CLASSES, width=2, **options):
    """A network with weights, as ``open_network`` returns it."""
    options = {"image_size": 8, "in_channels": 1, **options}
    model = models.create(name, classes, width=width, **options)
    return source_of(model, random_variables(model), name, class_names)


def choose(target, source, class_names=CLASSES):
    """Return the resolved experiment, and the weights that its network takes from a source."""
    images = tiny_source("train")
    images.class_names = tuple(class_names)
    target = training.resolve(target, images, source)
    return target, initial.take_weights(target, target.build(), class_names, source)


def counts(weights):
    return {name: (p["taken"], p["not taken"], p["new"]) for name, p in weights.parts.items()}


def size(variables, *path):
    for name in path:
        variables = variables[name]
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


def started(target, weights=None):
    """Return the variables of the state at step 0, by path."""
    state = jax.jit(lambda: initial_state(target, target.build()))()
    state = state if weights is None else weights.put_into(state)
    return flatten_dict(meshes.fetch({"params": state.params, "batch_stats": state.batch_stats}))


def test_the_same_network_takes_everything_bit_for_bit():
    source = network("resnet18")
    target, weights = choose(experiment("resnet18"), source)
    assert all(left == new == 0 for _, left, new in counts(weights).values())
    assert sum(n for n, *_ in counts(weights).values()) == size(source.variables, "params")
    assert weights.notes == ()
    ours, theirs = started(target, weights), flatten_dict(source.variables)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[path], theirs[path]) for path in ours)


@pytest.mark.slow
def test_a_vonenet_takes_the_trunk_of_its_base_network():
    source = network("resnet18")
    target, weights = choose(experiment("vone_resnet18", v1=V1), source)
    params = source.variables["params"]
    table = counts(weights)
    assert list(table) == [
        "bottleneck", "stem", "back_end/fc", *(f"back_end/layer{i}" for i in (1, 2, 3, 4))
    ]  # fmt: skip
    assert table["stem"] == (0, size(params, "stem"), 0)
    assert table["bottleneck"] == (0, 0, 6 * 2)
    assert table["back_end/fc"] == (size(params, "back_end", "fc"), 0, 0)
    stage = size(params, "back_end", "layer1_0") + size(params, "back_end", "layer1_1")
    assert table["back_end/layer1"] == (stage, 0, 0)
    # A base network normalises images, its trunk does not: V1 keeps its own normalisation.
    assert weights.notes == ()
    ours, theirs = started(target, weights), flatten_dict(source.variables)
    drawn = started(target)
    for path, value in ours.items():
        expected = drawn[path] if path[1] == "bottleneck" else theirs[path]
        np.testing.assert_array_equal(value, expected)


def test_other_classes_make_a_new_head():
    source = network("resnet18", 3, tuple("abx"))
    target, weights = choose(experiment("resnet18"), source)
    assert counts(weights)["back_end/fc"] == (0, 16 * 3 + 3, 16 * 3 + 3)
    assert sum(left for _, left, _ in counts(weights).values()) == 16 * 3 + 3
    assert weights.notes == ("the source has other classes, so the head is new",)
    head = {path for path in started(target, weights) if path[1:3] == ("back_end", "fc")}
    assert head.isdisjoint(weights.taken) and len(head) == 2


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (("1", "2", "0"), ("0", "1", "2")),
        (("n01440764_tench", "n01443537", "n01484850"), ("n01484850", "n01440764", "n01443537")),
    ],
)
def test_the_same_classes_in_another_order_reorder_the_head(ours, theirs):
    """Class folders that are numbers, too: as text, 10 comes before 2. So are those of ImageNet."""
    source = network("alexnet", class_names=theirs)
    _, weights = choose(experiment("alexnet"), source, tuple(ours))
    assert all(left == new == 0 for _, left, new in counts(weights).values())
    head = source.variables["params"]["back_end"]["fc8"]
    taken = unflatten_dict(dict(weights.taken))["params"]["back_end"]
    np.testing.assert_array_equal(taken["fc8"]["kernel"], head["kernel"][:, [1, 2, 0]])
    np.testing.assert_array_equal(taken["fc8"]["bias"], head["bias"][[1, 2, 0]])
    inner = source.variables["params"]["back_end"]["fc7"]
    np.testing.assert_array_equal(taken["fc7"]["kernel"], inner["kernel"])


@pytest.mark.parametrize("class_names", [(), ("0", "1", "2")])
def test_classes_without_names_are_taken_by_position(class_names):
    _, weights = choose(experiment("alexnet"), network("alexnet", 3, class_names))
    assert all(left == new == 0 for _, left, new in counts(weights).values())
    assert weights.notes == ("the head was taken by position, because the classes are not named",)
    _, weights = choose(experiment("alexnet"), network("alexnet", 5, ()))
    assert weights.notes == ()


def test_a_module_is_taken_as_a_whole_or_not_at_all():
    """The biases of a narrower head fit, its kernel does not."""
    source = network("alexnet", width=4)
    variables = source.variables["params"]
    variables["back_end"]["conv2"] = network("alexnet").variables["params"]["back_end"]["conv2"]
    _, weights = choose(experiment("alexnet"), source)
    assert {path[:3] for path in weights.taken} == {("params", "back_end", "conv2")}
    assert counts(weights)["back_end/fc8"][0] == 0


def test_a_network_of_which_nothing_fits_or_that_is_a_function_is_refused():
    for source in (network("alexnet"), source_of(None, None, "", ())):
        with pytest.raises(ValueError, match="initial_weights"):
            choose(experiment("resnet18"), source)


# The front end.

BANK = v1.sample_gabor_parameters(6, seed=5, sf_max=6.0, in_channels=1)
THEIRS = replace(
    V1, k_exc=17.0, image_mean=(0.3,), image_std=(0.2,), noise=None,
    bank=v1.ImportedBank(*v1.gabor_kernels(BANK, 9, 28.0), BANK, 28.0),
)  # fmt: skip


def test_front_ends_that_differ_are_named():
    source = network("vone_resnet18", v1=THEIRS)
    _, weights = choose(experiment("vone_resnet18", v1=V1), source)
    named = {note.split(" is ")[0].removeprefix("model.v1.") for note in weights.notes}
    assert named == {"k_exc", "image_mean", "image_std", "noise", "bank"}
    assert choose(experiment("vone_resnet18"), source)[1].notes == ()


# Whole runs, on the tiny network.


@pytest.fixture
def weights():
    """A network like ``TinyNet`` with two more classes."""
    model = TinyNet(5)
    source = source_of(model, random_variables(model), "tiny", tuple("vwxyz"))
    source.name, source.opened = "weights", lambda spec: source
    return source


@pytest.fixture
def start(tiny, monkeypatch):
    """An experiment on ``TinyNet`` that starts from ``weights``.

    Parts are frozen, and parts have a learning rate of their own.
    """
    monkeypatch.setattr(Experiment, "build", lambda self: TinyNet(self.model.num_classes))
    optimizer = replace(tiny.optimizer, rates=(("logits", 10.0),))
    return replace(tiny, initial_weights="weights", freeze=("conv",), optimizer=optimizer)


def test_a_part_that_is_new_cannot_be_frozen(start, weights):
    """Its kernel would stay random. A bias, and what is taken, can be frozen."""
    start = replace(start, optimizer=replace(start.optimizer, rates=()))
    with pytest.raises(ValueError, match="logits at random values"):
        choose(replace(start, freeze=("norm", "log*")), weights)
    _, taken = choose(replace(start, freeze=("conv", "*/bias")), weights)
    assert taken.parts["logits"]["new"] == 15


@pytest.mark.slow
def test_a_stopped_run_resumes_bit_for_bit_without_the_weights(start, weights, tmp_path):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(start, whole, open_network=weights.opened).finished
    assert train(start, stopped, open_network=weights.opened, stop=StopAt(3)).step == 2
    assert train(start, stopped).finished
    assert_same_run(start, stopped, whole)


def test_a_run_without_a_checkpoint_refuses_other_weights(start, weights, tmp_path):
    assert train(start, tmp_path, open_network=weights.opened, stop=StopAt(1)).step == 0
    weights.variables = random_variables(TinyNet(5), seed=7)
    with pytest.raises(training.RunDirectoryError, match="its initial weights are .*, now they"):
        train(start, tmp_path, open_network=weights.opened)


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_from_the_weights_again(
    start, weights, tmp_path
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(start, whole, open_network=weights.opened).finished
    assert train(start, killed, open_network=weights.opened, stop=StopAt(1)).step == 0
    shutil.rmtree(killed / "checkpoints", ignore_errors=True)
    with pytest.raises(ValueError, match="'weights'; give open_network=vone_jax.open_network"):
        train(start, killed)
    assert train(start, killed, open_network=weights.opened).finished
    assert_same_run(start, killed, whole)


def test_a_vonevit_takes_the_blocks_and_the_positions_of_a_vit():
    """The table of positions of smaller images is resized."""
    form = {"width": 4, "options": models.ViT(depth=2, patch_size=4)}
    model = models.create("vit_ti16", 3, image_size=12, in_channels=1, **form)
    source = source_of(model, networks.random_variables(model), "vit_ti16", CLASSES)
    vone = replace(V1, kernel_size=7)
    _, weights = choose(experiment("vone_vit_ti16", v1=vone, **form), source)
    parts = counts(weights)
    assert all(
        parts[f"back_end/{name}"][2] == 0 for name in ("block1", "block2", "norm", "tokens", "head")
    )
    assert parts["back_end/attachment"][0] == parts["bottleneck"][0] == 0
    assert parts["stem"][1] > 0
    table = weights.taken["params", "back_end", "tokens", "position"]
    assert table.shape == (1, 5, 4)
    smaller = source.variables["params"]["back_end"]["tokens"]["position"]
    np.testing.assert_array_equal(table[0, 0], smaller[0, 0])
    assert smaller.shape == (1, 10, 4)
