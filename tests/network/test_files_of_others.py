"""What a stranger sent is opened without running code that it names."""

import hashlib
import json
import sys
from dataclasses import replace

import pytest

import vone_jax
from vone_jax import data, models
from vone_jax.cli import convert, evaluate
from vone_jax.training import DataConfig, Experiment, RunDescription, run, to_json

EXPERIMENT = Experiment(
    name="test",
    model=models.Spec(name="resnet18", num_classes=2, width=2, image_size=32),
    data=DataConfig(source="tfds:cifar10", eval_split="test"),
)
# Leaves a mark when it runs.
FRONT_END = """
import pathlib
import flax.linen as nn
pathlib.Path({mark!r}).write_text("ran")
class Payload(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        return {{"layer": nn.Conv(4, (3, 3), 4)(x)}}
"""
STORED = {"type": "Payload", "module": "payload"}


@pytest.fixture
def mark(tmp_path, monkeypatch):
    """The mark of code that ran. The working directory is on Python's path, as with eval.py."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "mark"
    for name in set(sys.modules) - before:
        if name.partition(".")[0] in ("payload", "file_payload", "runs", "lib"):
            del sys.modules[name]


def write_code(mark, place):
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(FRONT_END.format(mark=str(mark)))
    return place


def write_run(directory, front_end=STORED, code=None, **fields):
    """A run whose description has a front end of some code, and further fields."""
    directory.mkdir(parents=True)
    run.write_run(directory, RunDescription(EXPERIMENT, EXPERIMENT, ("cat", "dog"), 12))
    config = json.loads((directory / run.CONFIG).read_text())
    for name in ("experiment", "unresolved"):
        config[name]["model"]["front_end"] = front_end
        config[name] |= fields
    if code is not None:
        digest = hashlib.sha256(code.read_bytes()).hexdigest()[:16]
        config["made_from"] = {f"{run.CODE}payload": digest}
    (directory / run.CONFIG).write_text(json.dumps(config))
    return directory


def test_code_in_a_run_directory_never_runs(mark, tmp_path, capsys):
    """The directory is a namespace package for a command that is started above it."""
    directory = write_run(tmp_path / "runs/payload", STORED | {"module": "runs.payload.payload"})
    code = write_code(mark, directory / "payload.py")
    for command in (evaluate, convert):
        assert command.main([str(directory)]) == 2
        said = capsys.readouterr().err
        assert "'runs.payload.payload'" in said and "--code runs.payload.payload" in said
    # Not even if it is named, in any way.
    for named in ("runs.payload.payload", str(code), "runs/payload/payload.py"):
        assert evaluate.main([str(directory), "--code", named]) == 2
        assert "lies in" in capsys.readouterr().err
        with pytest.raises(ValueError, match="lies in"):
            vone_jax.open_network(directory, code=(named,))
    assert not mark.exists()


def test_the_code_of_an_opened_working_directory_is_not_taken_for_ones_own(mark, tmp_path):
    write_code(mark, write_run(tmp_path / "run") / "payload.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path / "run")
        with pytest.raises(ValueError, match="lies in"):
            vone_jax.open_network(".", code=("payload",))
    assert not mark.exists()


@pytest.mark.parametrize("named", ["payload", "payload.py", "elsewhere/payload.py"])
def test_code_that_the_user_names_is_imported(mark, tmp_path, named):
    write_code(mark, tmp_path / named if named.endswith(".py") else tmp_path / "payload.py")
    directory = write_run(tmp_path / "runs/a")
    with pytest.raises(ValueError, match="--code payload"):
        run.read_run(directory)
    assert not mark.exists()
    found = run.read_run(directory, code=(named,)).experiment.model.front_end
    assert type(found).__name__ == "Payload" and mark.exists()
    # It is imported by then.
    assert run.read_run(directory).experiment.model.front_end == found


def test_the_commands_and_python_take_the_name(mark, tmp_path, capsys):
    """The run has no checkpoint, which is told after its description was read."""
    code = write_code(mark, tmp_path / "payload.py")
    directory = write_run(tmp_path / "runs/a", code=code)
    for command in (evaluate, convert):
        assert command.main([str(directory), "--code", "payload"]) in (1, 2)
        assert "no checkpoint yet" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="no checkpoint yet"):
        vone_jax.open_network(directory, code=("payload",))


def test_the_file_of_a_suite_counts_as_named(mark, tmp_path, capsys):
    code = write_code(mark, tmp_path / "lib/payload.py")
    code.write_text(code.read_text() + "\n\ndef SUITE(evaluation):\n    return []\n")
    directory = write_run(tmp_path / "runs/a", code=code)
    assert evaluate.main([str(directory), "--suite", "lib/payload.py:SUITE"]) == 2
    assert "no checkpoint yet" in capsys.readouterr().err


def test_unknown_fields_are_refused_before_any_module(mark, tmp_path):
    write_code(mark, tmp_path / "payload.py")
    for number, fields in enumerate(
        ({"extra": STORED}, {"optimizer": {"type": "OptimizerConfig", "extra": STORED}})
    ):
        for front_end in (None, STORED):
            directory = write_run(
                tmp_path / f"runs/{number}{front_end is None}", front_end, **fields
            )
            with pytest.raises(ValueError, match="no field 'extra'"):
                run.read_run(directory, code=("payload",))
    assert not mark.exists()


@pytest.mark.parametrize(
    "module", ["x; rm -rf y", "../payload", "", None, ["payload"], "vone_jax.no"]
)
def test_what_is_no_module_is_refused(mark, tmp_path, module):
    directory = write_run(tmp_path / "runs/a", STORED | {"module": module})
    with pytest.raises(ValueError, match="module"):
        run.read_run(directory)


def test_a_class_is_one_that_its_module_has_defined(mark, tmp_path):
    """The names of a package that imports its parts when they are asked for are no classes."""
    (tmp_path / "lib.py").write_text(
        "import pathlib\n"
        f"def __getattr__(name):\n    pathlib.Path({str(mark)!r}).write_text(name)\n"
    )
    __import__("lib")
    directory = write_run(tmp_path / "runs/a", {"type": "Payload", "module": "lib"})
    with pytest.raises(ValueError, match="lib has no class 'Payload'"):
        run.read_run(directory)
    assert not mark.exists()


def test_an_experiment_with_a_front_end_names_its_module(mark, tmp_path):
    write_code(mark, tmp_path / "payload.py")
    front_end = __import__("payload").Payload()
    changed = replace(EXPERIMENT, model=replace(EXPERIMENT.model, front_end=front_end))
    assert to_json(changed)["model"]["front_end"] == STORED


def test_a_prepared_set_cannot_name_code_either(mark, tmp_path):
    """TFDS imports the modules of the features that ``features.json`` names."""
    pytest.importorskip("tensorflow_datasets")
    write_code(mark, tmp_path / "runs/a/payload.py")
    place = tmp_path / "runs/a/sets/private/1.0.0"
    place.mkdir(parents=True)
    (place / "features.json").write_text(json.dumps({"pythonClassName": "runs.a.payload.Image"}))
    (place / "dataset_info.json").write_text(
        json.dumps({"name": "private", "version": "1.0.0", "fileFormat": "array_record"})
    )
    for name in ("tfds:private", "tfds:private:1.0.0"):
        with pytest.raises(ValueError, match=r"features.json.*runs.a.payload"):
            data.load(name, "train", data_dir=tmp_path / "runs/a/sets")
    assert not mark.exists()
    with pytest.raises(ValueError, match="namespace"):
        data.load("tfds:huggingface:anything", "train")
