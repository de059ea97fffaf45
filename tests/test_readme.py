"""The README tells the truth: its code runs, and the pages' code, too."""

import dataclasses
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vone_jax
from tests.results import built
from vone_jax import (
    attacks,
    convert,
    corruptions,
    data,
    evaluation,
    models,
    prng,
    report,
    results,
    training,
    v1,
)
from vone_jax.cli import evaluate, train
from vone_jax.evaluation import scoring
from vone_jax.neurophysiology import measured

ROOT = Path(__file__).parents[1]


def names_of(document, **names):
    """Run the Python code of a document on given names, and return all names after it.

    Code that reads what Debian installs is run by ``tests/data/test_prepare.py``.
    """
    code = re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)
    code = [block for block in code if "/usr/share/" not in block]
    exec(compile("\n".join(code), document, "exec"), names)
    return names


def files_of(document, directory):
    """Write the programs of a document that begin with the name of their file."""
    for name, code in re.findall(
        r"```python\n# (\w+\.py)(?:: .*?)?\n(.*?)```", (ROOT / document).read_text(), re.DOTALL
    ):
        (directory / name).write_text(code)
        sys.modules.pop(Path(name).stem, None)


@pytest.mark.slow
def test_the_code_runs():
    names = names_of("README.md")
    assert names["adversarial"].shape == names["images"].shape
    change = abs(names["adversarial"] - names["images"]).max()
    assert 0 < float(change) <= 4 / 255 + 1e-6


@pytest.mark.slow
def test_the_code_of_the_page_on_ones_own_runs(tmp_path, monkeypatch):
    """The suite of the page measures a run, and a clean decision is repeated from its key."""
    monkeypatch.chdir(tmp_path)
    files_of("docs/your_own.md", tmp_path)
    small = ["--model.width", "2", "--steps", "2", "--data.batch-size", "8"]
    assert train.main(["quickstart/vone_resnet18", "--run-dir", "runs/loud", *small]) == 0
    few = ["runs/loud", "--examples", "8", "--draws", "3"]
    assert evaluate.main([*few, "--suite", "clean", "mine.py:suite"]) == 0
    names = names_of("docs/your_own.md")
    labels = [each.label for each in names["found"]]
    assert {"shadow, severity 5", "confidence", "clean", "few values L∞ 16/255"} <= {*labels}
    assert len({label for label in labels if "few values" in label}) == 2
    (mean,) = results.means(results.load("runs/loud").to_frame())["label"]
    assert mean == "mean over light (shadow), severities 1, 3, 5"
    page = report.write("runs/loud", tmp_path / "page.html").read_text()
    own = page[page.index("<h2>Confidence</h2>") :]
    assert "How sure the network is." in own and "The surest images" in own


@pytest.mark.slow
def test_the_code_of_the_page_on_ones_own_training_runs(tmp_path, monkeypatch):
    """The loss and the optimiser are trained and opened by the commands, the loop is run."""
    monkeypatch.chdir(tmp_path)
    files_of("docs/your_training.md", tmp_path)
    small = ["--model.width", "2", "--steps", "2", "--log-every", "1", "--data.batch-size", "8"]
    for config, code in (("mine", "sure"), ("with_lion", "lion")):
        assert train.main([f"{config}.py", *small]) == 0
        sys.modules.pop(code)
        command = [f"runs/{config}", "--suite", "clean", "--examples", "8", "--code", f"{code}.py"]
        assert evaluate.main(command) == 0
    lines = (tmp_path / "runs/mine/log.jsonl").read_text().splitlines()
    assert 0 < json.loads(lines[0])["Sure.apart"] < 2
    assert training.read_run("runs/with_lion", ("lion.py",)).experiment.optimizer.momentum == 0.9
    loop = (tmp_path / "loop.py").read_text()
    assert len([line for line in loop.splitlines() if line]) <= 31
    names = {}
    exec(compile(loop.replace("STEPS = 300", "STEPS = 10"), "loop.py", "exec"), names)
    assert int(names["state"].step) == 10 and 0 < names["losses"][0] < 10
    assert vone_jax.open_network("trained").num_classes == 10


@pytest.mark.slow
def test_the_code_of_the_attacks_page_runs():
    names = names_of("docs/attacks.md")
    for found in ("adversarial", "transferred"):
        change = abs(names[found] - names["images"]).max()
        assert 0 < float(change) <= 4 / 255 + 1e-6
    assert names["result"].protocol.draws == 20 and names["closest"].found.shape == (4,)
    # Four steps of a quarter of each radius.
    way = np.array([1, 2, 4]) / 255
    assert abs(names["ladder"] - way[:, None]).max() < 2**-22
    assert (names["control"].distance <= 4 / 255 + 1e-6).all() and names[
        "control"
    ].protocol.draws == 10
    assert names["voted"].protocol.averaged > 1 and names["frozen"].protocol.draws == 1
    assert names["worst"].winner.shape == (4,) and names["sevens"].shape == (4, 28, 28, 1)


@pytest.mark.slow
def test_the_code_of_the_page_on_evaluation_runs(tmp_path, monkeypatch):
    made = [
        dataclasses.replace(
            each, arrays=each.arrays | {"probability_correct": share, "predicted": share > 0.5}
        )
        for each in built.measure()
        for share in [each.arrays["right"].mean(1)]
    ]
    built.write(tmp_path / "runs", made, "vone")
    monkeypatch.chdir(tmp_path)
    # The benchmark's photographs are not ours to ship.
    grey = corruptions.FrostImages((np.full((64, 64, 3), 128, np.uint8),))
    monkeypatch.setattr(corruptions, "load_frost", lambda folder: grey)
    # A linear classifier and a short attack in the place of the run and the strongest attack.
    weights = jax.random.normal(jax.random.key(0), (28 * 28, 10))
    linear = vone_jax.Network(
        "linear",
        lambda keys, images: images.reshape(len(images), -1) @ weights,
        (28, 28, 1),
        data.load("fashion_mnist_small", "test").class_names,
    )
    measure = evaluation.benchmark

    def benchmark(network, **given):
        assert network == "runs/loud"
        place = {"source": "fashion_mnist_small", "directory": tmp_path / "linear"}
        return measure(linear, **given, **place)

    monkeypatch.setattr(evaluation, "benchmark", benchmark)
    monkeypatch.setattr(scoring, "worst_case", lambda norm, eps, draws: attacks.FGSM(norm, eps))
    names = names_of("docs/evaluation.md")
    assert names["found"].masking == "pass" and names["found"].examples == 500
    assert [condition.severity for condition in names["frost"](None)] == [1, 3, 5]
    # A row for each attack and a column for each network.
    assert names["table"].shape == (5, 1) and len(names["result"].arrays["label"]) == 100


@pytest.mark.slow
def test_the_code_of_the_guide_runs():
    names = names_of("docs/guide.md")
    assert names["madry"].objectives[0].steps == 7 and names["like_v1"].objectives[0].alpha == 20
    assert names["awp"].objectives[0] == names["trades"].objectives[0]
    change = abs(names["adversarial"] - names["images"]).max()
    assert 0 < float(change) <= 1 / 255 + 1e-6 and names["layers"]["v1"].shape == (2, 56, 56, 512)


@pytest.mark.slow
def test_the_code_of_the_certificates_page_runs():
    names = names_of("docs/certificates.md")
    assert names["found"].l2.shape == (2,) and names["wrong"].shape == (2, 3, 3)
    assert names["of_v1"].most.shape == (1, 28, 28, 1)
    assert names["of_layer"].most_information[0] > names["of_layer"].least_information[0]
    assert names["scores"].draws.tolist() == [1, 5]


@pytest.mark.slow
def test_an_attack_of_ones_own_is_graded_in_ten_lines():
    names = names_of("docs/truth.md")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/truth.md").read_text(), re.DOTALL)
    assert code.count("\n") <= 10
    assert -1e-4 < names["exact"] - names["truth"] < 0.002


@pytest.mark.slow
def test_the_code_of_the_protocol_page_runs():
    names = names_of("docs/protocol.md")
    assert names["judged"].protocol.draws == 10 and names["worst"].winner.shape == (8,)
    assert abs(names["adversarial"] - names["images"]).max() <= 4 / 255 + 1e-6
    assert names["frozen"].protocol.noise == "frozen" and names["surrogate"].protocol.draws == 10
    apart = names["surrogate"].accuracy - names["attacked"].accuracy
    assert names["difference"].value == pytest.approx(apart)


def test_the_result_on_the_protocol_page_is_of_the_form_that_is_written():
    page = (ROOT / "docs/protocol.md").read_text()
    (text,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    values = json.loads(text)
    assert values.pop("schema") == 1
    views = list(map(results.view.decode, values.pop("views")))
    result = results.Result(**values | {"views": views})
    attack = result.identity["condition"]["attack"]
    protocol = dict(result.identity["protocol"])
    assert attacks.from_json(attack) == evaluation.vonenet_pgd("linf", 4 / 255)
    assert attacks.to_json(attacks.from_json(attack)) == attack
    assert protocol.pop("type") == "Protocol"
    assert evaluation.Protocol(**protocol) == evaluation.Protocol()
    number = result.find("accuracy")
    assert number["low"] < result.value() < number["high"]


def test_the_code_of_the_perception_page_runs():
    names = names_of("docs/perception.md")
    matched = names["found"].matched(names["null"])
    assert matched.shape == (1, 4) and matched.all()
    assert 0 < names["measured"].capacity.value < 2
    assert names["blurred"].shape == names["masked"].shape == (2, 64, 64, 3)
    told = results.error_consistency(names["network"], names["person"])
    assert [f"{x:.2f}" for x in (told.value, told.low, told.high)] == ["0.50", "0.34", "0.66"]
    assert names["curve"].levels[4] == 7.0 and names["curve"].accuracy[4] == 0.588


def test_the_code_of_the_corruptions_page_runs():
    names = names_of("docs/corruptions.md")
    assert names["foggy"].shape == names["as_cifar10_c"].shape == (2, 32, 32, 3)


@pytest.mark.slow
@pytest.mark.extras
def test_the_code_of_the_neurophysiology_page_gives_its_table(tmp_path, monkeypatch):
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    monkeypatch.chdir(tmp_path)
    names = names_of("docs/neurophysiology.md")
    page = (ROOT / "docs/neurophysiology.md").read_text()
    rows = re.findall(r"^\| `(\w+)` ((?:\| 0\.\d\d ){3}\| \d+ \|)", page, re.MULTILINE)
    assert len(rows) == 7
    for name, told in rows:
        each = names["scores"][name]
        numbers = [f"{x:.2f}" for x in (each.score, each.similarity, each.ceiling)]
        assert told == f"| {' | '.join(numbers)} | {each.neurons} |", name
    assert names["responses"].shape == (2, 36, 8, len(names["site"]))
    assert 0.8 < np.nanmedian(names["fano"]) < 1.1
    assert 0.1 < names["result"].score() < names["result"].score("v1-v2") < 0.4


@pytest.mark.slow
@pytest.mark.extras
def test_the_code_of_the_convert_page_runs(tmp_path, monkeypatch):
    """On a small network in place of the published one and of a run."""
    pytest.importorskip("art", reason="adversarial-robustness-toolbox is not installed")
    pytest.importorskip("foolbox", reason="foolbox is not installed")
    monkeypatch.chdir(tmp_path)
    config = v1.VOneBlockConfig(4, 4, image_size=32, visual_degrees=1.0, kernel_size=9, stride=2)
    model = models.create("vone_cornet_z", v1=config, width=2)
    variables = models.init(model, jax.random.key(0))
    convert.save_torch("voneresnet50_e70.pth.tar", model, variables)
    convert.save_folder("runs/loud", model, variables)
    x = np.random.default_rng(0).random((2, 32, 32, 3), np.float32)
    weights = np.random.default_rng(1).standard_normal((x[0].size, 1000), np.float32)
    names = names_of(
        "docs/convert.md",
        images=x,
        x=x,
        y=np.array([3, 7]),
        key=jax.random.key(1),
        logits_fn=lambda keys, images: images.reshape(len(images), -1) @ weights,
        config=config,
        channels=3,
        their_network=nn.Dense(5),
    )
    jax.tree.map(np.testing.assert_array_equal, names["variables"], variables)
    # The artefact gives the draws and slopes of the network, also within vmap.
    draws = jax.random.split(jax.random.key(4), (3, 2))

    def slope(classify):
        return jax.grad(lambda x: jax.vmap(classify, (0, None))(draws, x)[..., 0].mean())(x)

    # The backward pass draws the same noise again.
    with jax.debug_key_reuse(False):
        artefact, network = map(slope, (names["classify"], models.logits_fn(model, variables)))
    np.testing.assert_allclose(artefact, network, atol=1e-3 * abs(network).max())
    # Without noise, the attacks of the tools are ours.
    for found, settings in (
        ("clipped", {"steps": 40, "step_size": 4 / 255 / 30}),
        ("adversarial", {"steps": 100, "step_size": 1 / 255}),
    ):
        ours = attacks.PGD(norm="linf", eps=4 / 255, random_start=False, **settings)
        expected = ours(jax.random.key(0), names["logits_fn"], jnp.asarray(x), jnp.array([3, 7]))
        np.testing.assert_allclose(names[found], expected, atol=1e-6)
    keys = {"params": jax.random.key(2), "noise": jax.random.key(3)}
    assert names["network"].init_with_output(keys, x)[0].shape == (2, 16, 16, 5)


@pytest.mark.slow
def test_the_code_of_the_front_ends_page_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = v1.VOneBlockConfig(4, 4, image_size=32, visual_degrees=1.0, kernel_size=9, tuned=True)
    model = models.create("vone_cornet_z", 10, v1=config, width=2)
    variables = models.init(model, jax.random.key(0))
    convert.save_folder("runs/tuned", *models.with_fixed_bank(model, variables))
    monkeypatch.syspath_prepend(tmp_path)
    files_of("docs/front_ends.md", tmp_path)
    names = names_of("docs/front_ends.md")
    assert names["v1"].normalization.largest_extent == 0.5
    assert names["experiment"].model.front_end == names["Energy"](cells=32)
    np.testing.assert_allclose(names["learned"].sf, config.gabor_parameters().sf, rtol=1e-5)
    # A network in NNX draws noise for each image and call, and has the parameters of Linen's.
    module, logits, images = names["module"], names["logits"], jnp.full((2, 32, 32, 3), 0.5)
    assert np.all(logits[0] != logits[1]) and np.all(module(images) != logits)
    params = jax.tree.leaves(names["nnx"].state(module, names["nnx"].Param))
    expected = jax.eval_shape(lambda: models.init(names["model"], jax.random.key(0)))["params"]
    shapes = [sorted(x.shape for x in leaves) for leaves in (params, jax.tree.leaves(expected))]
    assert shapes[0] == shapes[1]
    # A front end in NNX, with its gradients.
    model = models.create("cornet_z", 10, image_size=32, width=2, front_end=names["FrontEnd"](2))
    variables = models.init(model, jax.random.key(0))
    keys = jax.random.split(jax.random.key(0), 2)

    def total(variables):
        return jnp.sum(models.logits_fn(model, variables)(keys, images) ** 2)

    slopes = jax.jit(jax.grad(total))(variables)["params"]["stem"]
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(slopes))
    assert models.response_fn(model, variables, "energy")(keys, images).shape == (2, 16, 16, 2)


@pytest.mark.slow
def test_a_front_end_of_a_user_is_trained_evaluated_and_scored(tmp_path, monkeypatch, capsys):
    """The commands of the page, on fewer steps and images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    files_of("docs/front_ends.md", tmp_path)
    small = ["--model.width", "2", "--steps", "2", "--data.batch-size", "8"]
    assert train.main(["with_energy.py", *small]) == 0
    network: Any = vone_jax.open_network("runs/with_energy")
    assert (network.label, network.layers[:3]) == ("with_energy", ("energy", "divided", "layer1"))
    energy = network.model.spec.front_end
    assert (type(energy).__name__, energy.cells, energy.stride) == ("Energy", 32, 2)
    keys, images = jax.random.split(jax.random.key(0), 2), jnp.full((2, 28, 28, 1), 0.3)
    layers: Any = energy.apply({"params": network.variables["params"]["stem"]}, images, False)
    np.testing.assert_allclose(
        network.response_fn("divided")(keys, images), layers["divided"], rtol=1e-5
    )

    # Physiology shows the layer larger images.
    side = measured.display(network).image_size
    shown = jax.ShapeDtypeStruct((2, side, side, 1), jnp.float32)
    responses = jax.eval_shape(network.response_fn("divided"), keys, shown)
    assert responses.shape == (2, side // 2, side // 2, 32)

    few = ["runs/with_energy", "--code", "energy", "--examples", "8", "--draws", "1"]
    assert evaluate.main([*few, "--suite", "clean"]) == 0
    (clean,) = results.load("runs/with_energy")[0].results
    described = clean.identity["network"]["description"]
    assert described["model"]["front_end"] == {"type": "Energy", "cells": 32, "stride": 2}

    # With other code in the same class, the stored results are of another network.
    changed = (tmp_path / "energy.py").read_text().replace("first**2", "2.0 * first**2")
    (tmp_path / "energy.py").write_text(changed)
    importlib.reload(sys.modules["energy"])
    capsys.readouterr()
    with pytest.warns(UserWarning, match="energy has changed since"):
        assert evaluate.main([*few, "--suite", "clean"]) == 2
    assert "network.program" in capsys.readouterr().err
    # Without the file there is no network.
    monkeypatch.delitem(sys.modules, "energy")
    (tmp_path / "energy.py").unlink()
    assert evaluate.main([*few, "--suite", "clean"]) == 2
    assert "there is no module 'energy'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_code_of_the_evnets_page_runs():
    names = names_of("docs/evnets.md")
    assert names["cells"].shape == (2, 224, 224, 4)
    assert names["lesioned"].v1.in_channels == 3


@pytest.mark.slow
def test_the_recipes_of_attack_research_do_what_they_say():
    """Each of the five recipes is at most fifteen lines long."""
    names = names_of("docs/attack_research.md")
    images, logits_fn = names["images"], names["logits_fn"]

    def entropy(images):
        return -names["entropy"](logits_fn(names["keys"], images), None).mean()

    assert entropy(names["confused"]) != entropy(images)
    step = jnp.float32(0.05)
    finite = (names["loss"](0.5 + step) - names["loss"](0.5 - step)) / (2 * step)
    assert np.isfinite(names["slope"]) and abs(names["slope"] - finite) < 0.5 * abs(finite) + 0.05
    assert abs(names["universal"]).max() <= 8 / 255 + 1e-6

    def margin(images):
        draws = [logits_fn(prng.fold(names["keys"], draw), images) for draw in range(40)]
        return np.mean([attacks.losses.margin(each, names["labels"]) for each in draws])

    assert margin(jnp.clip(images + names["universal"], 0, 1)) > margin(images)
    radii = np.asarray(names["shares"])[:, None] * np.asarray(names["sizes"])
    lengths = np.sqrt(
        np.sum((np.asarray(names["ladder"]) - np.asarray(images)) ** 2, axis=(2, 3, 4))
    )
    assert (lengths <= radii * 1.001).all() and (lengths > 0.5 * radii).all()
    slopes = jax.tree.leaves(names["of_v1"])
    assert all(np.isfinite(each).all() for each in slopes) and any(each.any() for each in slopes)
    page = (ROOT / "docs/attack_research.md").read_text()
    recipes = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[1:]
    assert len(recipes) == 5
    assert all(sum(map(bool, each.splitlines())) <= 15 for each in recipes)
