"""The description of a run: its experiment in both forms, and its imported banks."""

import importlib
import json
from dataclasses import replace

import numpy as np
import pytest

from vone_jax import models, v1
from vone_jax.training import (
    DataConfig,
    Experiment,
    RunDescription,
    RunDirectoryError,
    from_json,
    read_run,
    run,
    to_json,
)
from vone_jax.training.run import CONFIG, write_run

EXPERIMENT = Experiment(
    name="test", model=models.Spec(name="resnet18"), data=DataConfig(source="tfds:cifar10")
)


def describe(directory, experiment=EXPERIMENT):
    write_run(directory, RunDescription(experiment, EXPERIMENT, ("cat", "dog"), 12, "1 x abacus"))
    return read_run(directory)


def with_bank():
    """An experiment whose front end has given kernels, as one that starts from a checkpoint."""
    parameters = v1.sample_gabor_parameters(6, sf_max=6.0)
    bank = v1.ImportedBank(*v1.gabor_kernels(parameters, 9, 28.0), parameters, 28.0)
    config = v1.VOneBlockConfig(simple_channels=3, complex_channels=3, kernel_size=9, bank=bank)
    return replace(EXPERIMENT, model=models.Spec(name="vone_resnet18", v1=config))


def test_a_description_comes_back(tmp_path):
    found = describe(tmp_path, replace(EXPERIMENT, seed=3))
    assert (found.experiment.seed, found.unresolved) == (3, EXPERIMENT)
    assert (found.class_names, found.parameters, found.device) == (("cat", "dog"), 12, "1 x abacus")
    assert {"python", "jax", "flax", "numpy"} <= found.versions.keys()


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (None, RunDirectoryError, "holds no run: there is no config.json"),
        ("{", ValueError, "config.json cannot be read"),
        ("{}", ValueError, "it has the form None, and this version reads 1"),
        ('{"schema": 2}', ValueError, "it has the form 2, and this version reads 1"),
        (
            '{"schema": 1, "experiment": {"nam": "x"}}',
            ValueError,
            "no field 'nam'; did you mean 'name'",
        ),
    ],
)
def test_what_is_no_run_is_named(tmp_path, content, error, message):
    if content is not None:
        (tmp_path / CONFIG).write_text(content)
    with pytest.raises(error, match=message):
        read_run(tmp_path)


def test_a_front_end_whose_code_changed_is_told(tmp_path, monkeypatch):
    """The weights belong to the code of then."""
    file = tmp_path / "own_front_end.py"
    code = (
        "import flax.linen as nn\n"
        "class Mine(nn.Module):\n"
        "    stride = 2\n"
        "    @nn.compact\n"
        "    def __call__(self, x):\n"
        "        return nn.Conv(8, (3, 3), 2)(x)\n"
    )
    file.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    front_end = importlib.import_module("own_front_end").Mine()
    model = models.Spec(name="resnet18", front_end=front_end)
    before = run.code_digests(replace(EXPERIMENT, model=model))
    file.write_text(code.replace("(3, 3)", "(5, 5)"))
    after = run.code_digests(replace(EXPERIMENT, model=model))
    assert before != after
    with pytest.warns(UserWarning, match="own_front_end has changed"):
        run.check_made_from(tmp_path, after, before, changed_code=True)
    with pytest.raises(RunDirectoryError, match="code of own_front_end"):
        run.check_made_from(tmp_path, after, before)
    assert run.code_digests(EXPERIMENT) == {}


def test_what_a_run_was_made_from_is_compared_by_name(tmp_path):
    """Initial weights are not opened again when a run has a checkpoint."""
    before = {"initial weights": "a", "weights of runs/a": "b"}
    run.check_made_from(tmp_path, {"weights of runs/a": "b"}, before)
    with pytest.raises(RunDirectoryError, match="its weights of runs/a are b, now they are c"):
        run.check_made_from(tmp_path, {"weights of runs/a": "c"}, before)


def test_imported_banks_are_stored_as_arrays(tmp_path):
    experiment = with_bank()
    found = describe(tmp_path, experiment)
    assert found.experiment == experiment
    bank = experiment.model.v1.bank
    stored = json.loads((tmp_path / CONFIG).read_text())["experiment"]["model"]["v1"]["bank"]
    assert stored == {"type": "ImportedBank", "sha256": bank.digest}
    kernels = found.experiment.model.v1.gabor_kernels()
    np.testing.assert_array_equal(kernels.in_phase, bank.in_phase)
    with pytest.raises(ValueError, match="the arrays of the bank .* must be given"):
        from_json(to_json(experiment))
