"""Runs that start from given weights: what is taken, what is left, what is new, and resuming."""

import json
import re
import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from test_loop import StopAt, assert_same_run, final_state, log, train
from tiny import TinyNet, source_of, tiny_source

import vone_jax.network
from vone_jax import data, models, training, v1
from vone_jax import mesh as meshes
from vone_jax.experiments import run_dir
from vone_jax.experiments.run_dir import RunDirectoryError
from vone_jax.training import DataConfig, Experiment, ModelConfig, initial
from vone_jax.training import setup as setups

pytestmark = [
    # See test_checkpoint.py.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("cached_compilation"),
]

MESH = meshes.data_mesh(jax.devices()[:1])
CLASSES = tiny_source("train").class_names
V1 = v1.VOneBlockConfig(
    simple_channels=3, complex_channels=3, image_size=8, visual_degrees=8 / 28, kernel_size=9,
    stride=2, in_channels=1,
)  # fmt: skip


def experiment(name, width=2, **model):
    config = ModelConfig(name=name, image_size=8, in_channels=1, width=width, **model)
    return Experiment(name="start", model=config, data=DataConfig(source="tiny", batch_size=8))


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


@pytest.fixture
def sources(monkeypatch):
    """Networks by the text under which ``open_network`` finds them."""
    found = {}
    monkeypatch.setattr(vone_jax.network, "open_network", found.__getitem__)
    monkeypatch.setattr(data, "load", lambda name, split, data_dir=None: tiny_source(split))
    return found


def choose(sources, target, source):
    """Return the weights that the network of an experiment takes from a source."""
    sources["source"] = source
    setup = setups.prepare(replace(target, initial_weights="source"), MESH)
    return setup, initial.choose(setup)


def counts(weights):
    return {name: (p["taken"], p["left"], p["new"]) for name, p in weights.parts.items()}


def size(variables, *path):
    for name in path:
        variables = variables[name]
    return sum(leaf.size for leaf in jax.tree.leaves(variables))


def started(setup, weights):
    """Return the variables of the state at step 0, by path."""
    state = weights.put_into(setup.initial_state(), MESH)
    return flatten_dict(meshes.fetch({"params": state.params, "batch_stats": state.batch_stats}))


def test_the_same_network_takes_everything_bit_for_bit(sources):
    source = network("resnet18")
    setup, weights = choose(sources, experiment("resnet18"), source)
    assert all(left == new == 0 for _, left, new in counts(weights).values())
    assert sum(taken for taken, *_ in counts(weights).values()) == setup.parameters
    assert weights.notes == ()
    ours, theirs = started(setup, weights), flatten_dict(source.variables)
    assert ours.keys() == theirs.keys()
    assert all(np.array_equal(ours[path], theirs[path]) for path in ours)


@pytest.mark.slow
def test_a_vonenet_takes_the_trunk_of_its_base_network(sources):
    source = network("resnet18")
    setup, weights = choose(sources, experiment("vone_resnet18", v1=V1), source)
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
    ours, theirs = started(setup, weights), flatten_dict(source.variables)
    drawn = flatten_dict(meshes.fetch({"params": setup.initial_state().params, "batch_stats": {}}))
    for path, value in ours.items():
        expected = drawn[path] if path[1] == "bottleneck" else theirs[path]
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize("class_names", [pytest.param("vwxyz", marks=pytest.mark.slow), "abx"])
def test_other_classes_make_a_new_head(sources, class_names):
    """Their number may be that of the file or another."""
    number = len(class_names)
    source = network("resnet18", number, tuple(class_names))
    setup, weights = choose(sources, experiment("resnet18"), source)
    assert counts(weights)["back_end/fc"] == (0, 16 * number + number, 16 * 3 + 3)
    assert sum(left for _, left, _ in counts(weights).values()) == 16 * number + number
    assert weights.notes == ("the source has other classes, so the head is new",)
    head = {path for path in started(setup, weights) if path[1:3] == ("back_end", "fc")}
    assert head.isdisjoint(weights.taken) and len(head) == 2


def with_names(split, class_names):
    images = tiny_source(split)
    images.class_names = tuple(class_names)
    return images


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("abc", ("c", "a", "b")),
        (("1", "2", "0"), ("0", "1", "2")),
        (("n01440764_tench", "n01443537", "n01484850"), ("n01484850", "n01440764", "n01443537")),
    ],
)
def test_the_same_classes_in_another_order_reorder_the_head(sources, monkeypatch, ours, theirs):
    """Class folders that are numbers, too: as text, 10 comes before 2. So are those of ImageNet."""
    monkeypatch.setattr(data, "load", lambda name, split, data_dir=None: with_names(split, ours))
    source = network("alexnet", class_names=theirs)
    _, weights = choose(sources, experiment("alexnet"), source)
    assert all(left == new == 0 for _, left, new in counts(weights).values())
    head = source.variables["params"]["back_end"]["fc8"]
    taken = unflatten_dict(dict(weights.taken))["params"]["back_end"]
    np.testing.assert_array_equal(taken["fc8"]["kernel"], head["kernel"][:, [1, 2, 0]])
    np.testing.assert_array_equal(taken["fc8"]["bias"], head["bias"][[1, 2, 0]])
    inner = source.variables["params"]["back_end"]["fc7"]
    np.testing.assert_array_equal(taken["fc7"]["kernel"], inner["kernel"])
    (note,) = weights.notes
    assert "another order" in note


def test_a_class_name_that_comes_twice_is_not_matched(sources, monkeypatch):
    monkeypatch.setattr(data, "load", lambda name, split, data_dir=None: with_names(split, "aab"))
    _, weights = choose(
        sources, experiment("alexnet"), network("alexnet", class_names=tuple("aba"))
    )
    assert weights.notes == ("the source has other classes, so the head is new",)


@pytest.mark.parametrize("class_names", [(), ("0", "1", "2")])
def test_classes_without_names_are_taken_by_position(sources, class_names):
    _, weights = choose(sources, experiment("alexnet"), network("alexnet", 3, class_names))
    assert all(left == new == 0 for _, left, new in counts(weights).values())
    assert weights.notes == ("the head was taken by position, because the classes are not named",)
    _, weights = choose(sources, experiment("alexnet"), network("alexnet", 5, ()))
    assert weights.notes == ()


def test_a_module_is_taken_as_a_whole_or_not_at_all(sources):
    """The biases of a narrower head fit, its kernel does not."""
    source = network("alexnet", width=4)
    variables = source.variables["params"]
    variables["back_end"]["conv2"] = network("alexnet").variables["params"]["back_end"]["conv2"]
    _, weights = choose(sources, experiment("alexnet"), source)
    assert {path[:3] for path in weights.taken} == {("params", "back_end", "conv2")}
    assert counts(weights)["back_end/fc8"][0] == 0


@pytest.mark.parametrize(
    ("name", "width"), [("alexnet", 2), pytest.param("resnet18", 4, marks=pytest.mark.slow)]
)
def test_weights_of_which_nothing_fits_are_refused(sources, name, width):
    message = (
        rf"initial_weights: nothing in source \({name}\) fits resnet18 of width 2. It has "
        r".*kernel \(.*\).*; this network has .*kernel \("
    )
    with pytest.raises(ValueError, match=message):
        choose(sources, experiment("resnet18"), network(name, width=width))


def test_a_module_with_more_or_fewer_variables_is_not_taken():
    kernel, bias = np.zeros((2, 2), np.float32), np.zeros(2, np.float32)
    plain = {("params", "fc", "kernel"): kernel}
    biased = plain | {("params", "fc", "bias"): bias}
    assert initial._fitting(plain, biased) == initial._fitting(biased, plain) == {}
    assert initial._fitting(biased, biased).keys() == biased.keys()


def test_a_function_without_weights_is_refused(sources):
    function = source_of(None, None, "", ())
    with pytest.raises(ValueError, match="initial_weights: only functions of source are known"):
        choose(sources, experiment("resnet18"), function)


def test_the_digest_is_that_of_the_weights(sources):
    digests = set()
    for seed, class_names in ((0, CLASSES), (0, ()), (1, CLASSES)):
        source = network("alexnet", class_names=class_names)
        source.variables = random_variables(source.model, seed=seed)
        digests.add(choose(sources, experiment("alexnet"), source)[1].digest)
    assert len(digests) == 2


def test_the_table_has_a_line_for_each_part_and_their_sum(sources):
    source = network("alexnet", classes=5, class_names=())
    _, weights = choose(sources, experiment("alexnet"), source)
    lines = weights.table().splitlines()
    assert re.fullmatch(r"initial weights: source \(alexnet\), sha256 [0-9a-f]{12}", lines[0])
    assert lines[1].split() == ["parameters", "of", "taken", "left", "new"]
    assert len({len(line) for line in lines[1:]}) == 1
    rows = {name: numbers for name, *numbers in map(str.split, lines[2:])}
    features = source.variables["params"]["back_end"]["fc7"]["bias"].size
    assert rows["back_end/fc8"] == ["0", f"{5 * features + 5:,}", f"{3 * features + 3:,}"]
    assert rows["all"][1:] == rows["back_end/fc8"][1:]


def test_what_was_assumed_of_a_file_is_below_the_table(sources):
    source = network("alexnet")
    source.notes = ("published values for what the file does not say: stride",)
    _, weights = choose(sources, experiment("alexnet"), source)
    assert weights.table().splitlines()[-1].strip() == f"source: {source.notes[0]}"


# The front end.

BANK = v1.sample_gabor_parameters(6, seed=5, sf_max=6.0, in_channels=1)
THEIRS = replace(
    V1, k_exc=17.0, image_mean=(0.3,), image_std=(0.2,), noise=None,
    bank=v1.ImportedBank(*v1.gabor_kernels(BANK, 9, 28.0), BANK, 28.0),
)  # fmt: skip


def test_a_vonenet_takes_the_front_end_of_the_source_but_its_noise(sources):
    sources["source"] = network("vone_resnet18", v1=THEIRS)
    ours = experiment("vone_resnet18", v1=replace(V1, simple_channels=8, sf_max=6.0))
    start = training.start_from(ours, "source")
    assert start == replace(
        ours,
        initial_weights="source",
        model=replace(ours.model, v1=replace(THEIRS, noise=v1.NeuronalNoise())),
    )


def test_a_bank_that_is_to_be_tuned_is_tuned_from_that_of_the_source(sources):
    """Sources are opened with the bank that they have learned, which is fixed."""
    learned = replace(V1, bank=replace(V1, gabor_seed=3).gabor_parameters())
    sources["source"] = network("vone_resnet18", v1=learned)
    target = experiment("vone_resnet18", v1=replace(V1, tuned=True, noise_generator="jax"))
    front = initial.start_from(target, "source").model.v1
    assert front == replace(learned, tuned=True, noise_generator="jax")


def test_a_bank_of_a_file_is_tuned_from_its_parameters(sources):
    """A file may have any frequencies; tuning has those below the limit of Nyquist alone."""
    sources["file"] = network("vone_resnet18", v1=replace(THEIRS, allow_aliasing=True))
    target = experiment("vone_resnet18", v1=replace(V1, tuned=True))
    front = initial.start_from(target, "file").model.v1
    assert (front.bank, front.tuned, front.allow_aliasing) == (BANK, True, False)
    sf = np.full(len(BANK), 20.0, np.float32)
    beyond = replace(THEIRS, bank=replace(BANK, sf=sf), allow_aliasing=True)
    sources["beyond"] = network("vone_resnet18", v1=beyond)
    with pytest.raises(ValueError, match="20 .*Nyquist"):
        initial.start_from(target, "beyond")


def test_images_of_another_size_keep_the_pixels_per_degree(sources):
    sources["source"] = network("vone_resnet18", v1=THEIRS)
    larger = replace(V1, image_size=16, visual_degrees=0.1, allow_aliasing=True)
    ours = replace(experiment("resnet18"), model=ModelConfig(
        name="vone_resnet18", image_size=16, in_channels=1, v1=larger
    ))  # fmt: skip
    front_end = training.start_from(ours, "source").model.v1
    assert (front_end.image_size, front_end.pixels_per_degree) == (16, pytest.approx(28.0))
    assert front_end.bank == THEIRS.bank


def test_a_base_network_takes_the_normalisation_of_the_source(sources):
    sources["source"] = network("resnet18", mean=(0.2,), std=(0.4,))
    start = training.start_from(experiment("resnet18"), "source")
    assert (start.model.mean, start.model.std) == ((0.2,), (0.4,))


def test_no_front_end_is_taken_from_a_network_of_another_kind(sources):
    base, vone = experiment("resnet18"), experiment("vone_resnet18", v1=V1)
    sources["base"] = network("resnet18", mean=(0.2,))
    sources["vone"] = network("vone_resnet18", v1=THEIRS)
    sources["rgb"] = network("resnet18", in_channels=3)
    sources["vone rgb"] = network("vone_resnet18", in_channels=3, v1=replace(V1, in_channels=3))
    for ours, name in ((base, "vone"), (vone, "base"), (base, "rgb"), (vone, "vone rgb")):
        assert training.start_from(ours, name).model == ours.model


def test_an_evnet_takes_both_stages_of_the_source_but_their_noise(sources):
    stage = v1.SubcorticalConfig(8, 0.25, in_channels=1, noise=None)
    block = replace(models.v1_config(8, 2, "ev_resnet18"), simple_channels=3, complex_channels=3)
    theirs = replace(stage, p_cells=replace(v1.P_CELLS, k_exc=1.0), noise=v1.FanoNoise())
    front_end = {"v1": replace(block, k_exc=2.0, noise=None), "subcortical": theirs}
    sources["source"] = network("ev_resnet18", **front_end)
    ours = experiment("ev_resnet18", v1=block, subcortical=stage)
    model = training.start_from(ours, "source").model
    assert model.v1 == replace(block, k_exc=2.0)
    assert model.subcortical == replace(theirs, noise=None)
    larger = ModelConfig(name="ev_resnet18", image_size=16, in_channels=1)
    model = training.start_from(replace(ours, model=larger), "source").model
    assert (model.v1.k_exc, model.subcortical.p_cells.k_exc) == (2.0, 1.0)
    assert (model.subcortical.image_size, model.subcortical.pixels_per_degree) == (16, 32)
    vone = experiment("vone_resnet18", v1=V1)
    assert training.start_from(vone, "source").model == vone.model
    _, weights = choose(sources, ours, sources["source"])
    notes = "\n".join(weights.notes)
    assert "model.subcortical.p_cells is LGNCells" in notes
    assert "model.subcortical.m_cells" not in notes


@pytest.mark.slow
def test_stems_that_move_otherwise_are_named(sources):
    """Those for 64 and 224 pixels have weights of the same shapes and other strides."""
    target = experiment("resnet18")
    target = replace(target, model=replace(target.model, image_size=64))
    _, weights = choose(sources, target, network("resnet18", image_size=224))
    assert "model.stem.stride is 1, that of the source 2" in weights.notes
    _, weights = choose(sources, target, network("resnet18", image_size=96))
    assert not [note for note in weights.notes if "stem" in note]


def test_front_ends_that_differ_are_named(sources):
    source = network("vone_resnet18", v1=THEIRS)
    _, weights = choose(sources, experiment("vone_resnet18", v1=V1), source)
    notes = "\n".join(weights.notes)
    assert "model.v1.k_exc is 25.0, that of the source 17.0" in notes
    assert "model.v1.image_mean is 0.5, that of the source (0.3,)" in notes
    assert "model.v1.noise is NeuronalNoise" in notes and "the source None" in notes
    assert re.search("model.v1.bank is sha256 [0-9a-f]{12}, that of the source sha256 ", notes)
    assert len(weights.notes) == 5
    same = training.start_from(experiment("vone_resnet18", v1=V1), "source")
    _, weights = choose(sources, same, source)
    assert [note.split()[0] for note in weights.notes] == ["model.v1.noise"]


# Whole runs, on the tiny network.


@pytest.fixture
def start(tiny, sources, monkeypatch):
    """An experiment on ``TinyNet`` that starts from another one with two more classes.

    Parts are frozen, and parts have a learning rate of their own.
    """
    monkeypatch.setattr(Experiment, "build", lambda self: TinyNet(self.model.num_classes))
    model = TinyNet(5)
    sources["weights"] = source_of(model, random_variables(model), "tiny", tuple("vwxyz"))
    optimizer = replace(tiny.optimizer, rates=(("logits", 10.0),))
    return replace(tiny, initial_weights="weights", freeze=("conv",), optimizer=optimizer)


def test_a_part_that_is_new_cannot_be_frozen(start, sources):
    """Its kernel would stay random. A bias, and what is taken, can be frozen."""
    start = replace(start, optimizer=replace(start.optimizer, rates=()))
    for pattern in ("logits", "log*"):
        message = re.escape(f"freeze {pattern} would leave logits at random values, since ")
        with pytest.raises(ValueError, match=message):
            choose(sources, replace(start, freeze=("norm", pattern)), sources["weights"])
    _, weights = choose(sources, replace(start, freeze=("conv", "*/bias")), sources["weights"])
    assert weights.parts["logits"]["new"] == 15


@pytest.mark.slow
def test_a_run_logs_once_what_it_took_and_stores_the_digest(start, sources, tmp_path, capsys):
    assert train(start, tmp_path, progress=True).finished
    records = [record for record in log(tmp_path) if record["kind"] == "initial_weights"]
    assert [(r["step"], r["part"], r["taken"], r["left"], r["new"]) for r in records] == [
        (0, "conv", 36, 0, 0), (0, "logits", 0, 25, 15), (0, "norm", 8, 0, 0)
    ]  # fmt: skip
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["experiment"]["initial_weights"] == "weights"
    _, weights = choose(sources, start, sources["weights"])
    assert config["initial_digest"] == weights.digest
    assert config["parameters"] == 8 + 15
    error = capsys.readouterr().err
    assert weights.table().replace("source (", "weights (") in error
    final = final_state(start, tmp_path)[1]
    theirs = sources["weights"].variables["params"]
    np.testing.assert_array_equal(final.params["conv"]["kernel"], theirs["conv"]["kernel"])
    assert np.any(final.params["norm"]["scale"] != theirs["norm"]["scale"])
    capsys.readouterr()
    assert train(start, tmp_path, progress=True).finished
    assert "initial weights" not in capsys.readouterr().err
    assert [r for r in log(tmp_path) if r["kind"] == "initial_weights"] == records


@pytest.mark.parametrize("devices", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_a_stopped_run_resumes_bit_for_bit_without_the_weights(start, sources, tmp_path, devices):
    options = {"devices": jax.devices()[:devices]}
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert train(start, whole, **options).finished
    assert train(start, stopped, stop=StopAt(3), **options).step == 2
    del sources["weights"]
    assert train(start, stopped, **options).finished
    assert_same_run(start, stopped, whole)


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_from_the_weights_again(
    start, sources, tmp_path
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train(start, whole).finished
    assert train(start, killed, stop=StopAt(1)).step == 0
    shutil.rmtree(killed / "checkpoints", ignore_errors=True)
    assert train(start, killed).finished
    assert_same_run(start, killed, whole)


def test_other_weights_are_refused_where_a_run_has_started(start, sources, tmp_path):
    assert train(start, tmp_path, stop=StopAt(1)).step == 0
    before = (tmp_path / "config.json").read_text()
    changed = jax.tree.map(lambda x: x + 1, sources["weights"].variables)
    sources["weights"].variables = changed
    sources["moved"] = sources["weights"]
    message = "sha256 of initial_weights: [0-9a-f]{64} here, [0-9a-f]{64} there"
    with pytest.raises(RunDirectoryError, match=message):
        train(start, tmp_path)
    with pytest.raises(RunDirectoryError, match='initial_weights: "moved" here, "weights" there'):
        train(replace(start, initial_weights="moved"), tmp_path)
    with pytest.raises(RunDirectoryError, match='initial_weights: null here, "weights" there'):
        train(replace(start, initial_weights=None), tmp_path)
    assert (tmp_path / "config.json").read_text() == before


def test_weights_of_which_nothing_fits_make_no_directory(start, sources, tmp_path):
    variables = {"params": {"other": {"kernel": np.ones((2, 2), np.float32)}}}
    sources["weights"].variables = variables
    with pytest.raises(ValueError, match="nothing in weights"):
        train(start, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_front_end_of_a_run_that_has_started_needs_no_weights(sources, tmp_path):
    sources["source"] = network("vone_resnet18", v1=THEIRS)
    ours = experiment("vone_resnet18", v1=V1)
    start = training.start_from(ours, "source", tmp_path)
    description = training.RunDescription(start)
    with run_dir.open_run(tmp_path, description):
        pass
    del sources["source"]
    assert training.start_from(ours, "source", tmp_path) == start
    with pytest.raises(KeyError):
        training.start_from(ours, "source", tmp_path / "elsewhere")
