"""Front ends, back ends and architectures of somebody else, in one file outside the package."""

import gc
import importlib
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import vone_jax
from tests.networks import random_variables
from vone_jax import convert, data, evaluation, models, results
from vone_jax.cli import train
from vone_jax.evaluation.identity import told_apart

FILE = """
import dataclasses
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from vone_jax import models


class Edges(nn.Module):
    cells: int = 6

    @nn.compact
    def __call__(self, x, train):
        return nn.relu(nn.Conv(self.cells, (5, 5), 2)(x))


class Readout(nn.Module):
    classes: int = 10

    @nn.compact
    def __call__(self, x, train):
        return nn.Dense(self.classes)(jnp.mean(nn.POWER(x), axis=(1, 2)))


class Size(NamedTuple):
    label: str
    width: int


@dataclasses.dataclass(frozen=True)
class Mine(models.Architecture):
    SIZES = {"mine_small": Size("Mine-S", 6)}
    classes: int | None = None

    def complete(self, spec):
        return Mine(self.classes or spec.num_classes)

    def stem(self, spec, dtype):
        return Edges(spec.width)

    def back_end(self, spec, dtype):
        return Readout(self.classes)
"""
CONFIG = """
from dataclasses import replace

from configs.quickstart.resnet18 import experiment as quickstart
from parts_of_a_user import Edges, Readout
from vone_jax.models import Spec

model = Spec("resnet18", image_size=28, in_channels=1, front_end=Edges(), back_end=Readout())
experiment = replace(quickstart, name="mine", model=model, steps=2)
"""


def code(power):
    return FILE.replace("nn.POWER", power)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A directory with the user's file, from which the commands are started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "parts_of_a_user.py").write_text(code("jnp.square"))
    (tmp_path / "mine.py").write_text(CONFIG)
    yield tmp_path
    forget()


def forget():
    sys.modules.pop("parts_of_a_user", None)
    importlib.invalidate_caches()
    gc.collect()


@pytest.mark.slow
def test_ends_of_a_user_are_trained_opened_exported_and_evaluated(place, capsys):
    """Both return an array alone. What opens them must be named."""
    assert train.main(["mine.py", "--data.batch-size", "8"]) == 0
    assert "--code parts_of_a_user" in capsys.readouterr().out
    network = vone_jax.open_network("runs/mine")
    assert network.layers == ("stem", "logits") and network.program["jax"] == jax.__version__
    convert.save_folder("folder", network.model, network.variables)
    forget()
    for opened in ("runs/mine", "folder"):
        with pytest.raises(ValueError, match="--code parts_of_a_user"):
            vone_jax.open_network(opened)
    code_of = ("parts_of_a_user",)
    images = data.load("fashion_mnist_small", "test")
    again, folder = (vone_jax.open_network(x, code=code_of) for x in ("runs/mine", "folder"))
    assert again.model.spec == folder.model.spec and again.program == network.program
    assert again.checksum == folder.checksum == network.checksum
    plan = evaluation.Evaluation(again, images, Path("results"), examples=20)
    assert evaluation.evaluate(plan, evaluation.Clean()).value("accuracy") >= 0
    # Edited code is another network, with the same weights and the same words.
    forget()
    (place / "parts_of_a_user.py").write_text(code("jnp.abs"))
    with pytest.warns(UserWarning, match="parts_of_a_user has changed since"):
        edited = vone_jax.open_network("runs/mine", code=code_of)
    assert edited.checksum == network.checksum and edited.program != network.program
    plan = evaluation.Evaluation(edited, images, Path("results"), examples=20)
    with pytest.raises(results.ResultError, match="network.program.digest is"):
        evaluation.evaluate(plan, evaluation.Clean())


def test_an_architecture_of_a_user_has_names_alone_and_behind_v1(place):
    mine = importlib.import_module("parts_of_a_user").Mine
    assert {"mine_small", "vone_mine_small", "ev_mine_small"} <= {*models.list_models()}
    model = models.create("vone_mine_small", 4, 32)
    assert models.label("vone_mine_small") == "VOneMine-S"
    assert model.spec.options == mine(4) and model.spec.code == ("--code", "parts_of_a_user")
    content = json.loads(json.dumps(models.to_json(model.spec)))
    assert models.from_json(models.Spec, content, "spec") == model.spec
    variables = random_variables(model)
    assert variables["params"]["bottleneck"]["kernel"].shape[-1] == 6
    logits = models.logits_fn(model, variables)(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert logits.shape == (1, 4)
    with pytest.raises(ValueError, match="options must be Mine"):
        models.Spec("mine_small", options=models.ViT())
    del mine


def test_a_program_of_another_jax_is_not_called_another_network():
    """Of a module the weights are known to be the same; of functions nothing is."""
    theirs = {"digest": "a", "jax": "0.9", "device": "gpu"}
    ours = {"digest": "b", "jax": "0.10", "device": "cpu"}

    def identity(program, checksum="1", **description):
        network = {"name": "", "label": "", "source": "", "checksum": checksum}
        network |= {"description": description, "program": program}
        return {"network": network, "dataset": {"name": ""}}

    here, there = (identity(each, model="mine") for each in (ours, theirs))
    with pytest.warns(UserWarning, match=r"JAX 0.9 on a gpu.*JAX 0.10 on a cpu"):
        assert told_apart(here, there) == []
    assert told_apart(here, identity(theirs, "2", model="mine")) == [
        'network.checksum is "1", was "2"'
    ]
    (told,) = told_apart(identity(ours, "1"), identity(theirs, "2"))
    assert "cannot be compared" in told and "JAX 0.9 on a gpu" in told
    changed = {**ours, "digest": "c"}
    assert told_apart(here, identity(changed, model="mine")) == [
        'network.program.digest is "b", was "c"'
    ]
