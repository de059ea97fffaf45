"""A plain function of a user's file trains a network, and is stored and opened with it."""

import importlib
import json
import sys

import pytest

from vone_jax import cli, training
from vone_jax.cli import train

FILE = """
import jax.numpy as jnp


def darker(keys, logits_fn, images, labels):
    return jnp.clip(images - 0.1, 0.0, 1.0)


def certainty(logits, labels):
    return jnp.max(logits, axis=-1)
"""
CONFIG = """
from dataclasses import replace

from configs.quickstart.resnet18 import experiment as quickstart
from functions_of_a_user import certainty, darker
from vone_jax import attacks

fgsm = attacks.FGSM("linf", 0.1, loss=certainty)
experiment = replace(quickstart, name="mine", steps=2, log_every=1, objectives=(darker, fgsm))
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "functions_of_a_user.py").write_text(FILE)
    (tmp_path / "mine.py").write_text(CONFIG)
    yield tmp_path
    forget()


def forget():
    sys.modules.pop("functions_of_a_user", None)
    importlib.invalidate_caches()


@pytest.fixture
def stored(place):
    return training.to_json(training.load_config("mine.py", cli.configs()))


def test_functions_are_stored_and_opened_with_their_code(stored):
    again = training.from_json(stored)
    darker, fgsm = again.objectives
    assert [each.name for each in again.applied] == ["darker", "FGSM"]
    assert darker.function.__name__ == "darker" and fgsm.loss.__name__ == "certainty"
    assert training.to_json(again) == stored
    # Who has not imported the file must name it.
    forget()
    with pytest.raises(ValueError, match="--code functions_of_a_user"):
        training.from_json(stored)
    assert training.from_json(stored, code=("functions_of_a_user.py",)).objectives[0].eps == 1.0


@pytest.mark.parametrize(("module", "name"), [("os", "fdopen"), ("vone_jax.files", "read_npz")])
def test_a_file_may_not_ask_for_functions_of_other_modules(stored, module, name):
    stored["objectives"][0]["function"] = {"type": name, "module": module}
    with pytest.raises(ValueError, match="if you trust this function"):
        training.from_json(stored)


@pytest.mark.slow
def test_a_run_that_learns_from_functions_goes_on(place):
    words = ["mine.py", "--run-dir", "run", "--model.width", "4"]
    assert train.main([*words, "--steps", "1"]) == 0
    description = json.loads((place / "run" / "config.json").read_text())
    assert any("functions_of_a_user" in name for name in description["made_from"])
    # Edited code is another objective.
    (place / "functions_of_a_user.py").write_text(FILE.replace("0.1", "0.2"))
    assert train.main([*words, "--steps", "1"]) != 0
