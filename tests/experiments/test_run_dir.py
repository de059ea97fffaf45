"""A run directory belongs to one experiment and to one process at a time."""

import errno
import fcntl
import json
import os
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.damage import flipped_bits
from vone_jax import mesh as meshes
from vone_jax import v1
from vone_jax.experiments import run_dir as run_dirs
from vone_jax.experiments.run_dir import CONFIG, open_run
from vone_jax.training import (
    DataConfig,
    Experiment,
    ModelConfig,
    RunDescription,
    RunDirectoryError,
    Similarity,
    from_json,
    read_run,
    to_json,
    train,
)

EXPERIMENT = Experiment(
    name="test", model=ModelConfig(name="resnet18"), data=DataConfig(source="tfds:cifar10")
)


CLASSES = ("cat", "dog")


def opened(run_dir, experiment=EXPERIMENT, class_names=CLASSES, device="1 x abacus"):
    description = RunDescription(
        experiment, class_names, parameters=12, device=device, command="train it"
    )
    return open_run(run_dir, description)


def describe(*arguments, **options):
    """Open the directory of a run, and leave it."""
    with opened(*arguments, **options):
        pass


def test_processes_with_other_experiments_or_images_are_refused(tmp_path, monkeypatch):
    """Only places of files may differ, and how images are loaded."""
    data, optimizer = EXPERIMENT.data, EXPERIMENT.optimizer
    moved = replace(EXPERIMENT, data=replace(data, data_dir="here", workers=3))
    others = {
        "experiment.optimizer": [
            {"experiment": replace(EXPERIMENT, optimizer=replace(optimizer, learning_rate=3.0))},
        ],
        # With other steps at which they wait for each other, processes would wait for ever.
        "experiment.data": [
            {"experiment": replace(EXPERIMENT, data=replace(data, eval_batch_size=1))},
        ],
        "experiment.checkpoint_every": [{"experiment": replace(EXPERIMENT, checkpoint_every=7.0)}],
        "class names": [{"class_names": ("a", "b")}],
        "training images": [{"names_digest": "1a"}],
        "validation images": [{"validation_names_digest": "1a"}],
        "initial weights": [{"initial_digest": "1a"}],
    }
    shared = []
    monkeypatch.setattr(meshes, "differing", lambda values: shared.append(values) or [*values])

    def different(**fields):
        description = replace(RunDescription(EXPERIMENT), **fields)
        with pytest.raises(RunDirectoryError, match="the processes have different class names, "):
            with open_run(tmp_path / "run", description):
                pass
        return [name for name, value in shared[0].items() if value != shared[-1][name]]

    assert different() == different(experiment=moved) == []
    for name, changes in others.items():
        for fields in changes:
            assert different(**fields) == [name]
    assert not (tmp_path / "run").exists()


def test_a_directory_that_processes_do_not_share_is_refused_at_once(tmp_path, monkeypatch):
    """The first checkpoint failed, hours later."""
    monkeypatch.setattr(run_dirs, "_DELAY", 0.0)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(RunDirectoryError, match="not all processes find .*config.json, which"):
        describe(tmp_path / "here")
    assert not (tmp_path / "here").exists()
    monkeypatch.undo()
    describe(tmp_path / "shared")
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    describe(tmp_path / "shared")


def test_a_run_knows_the_names_of_its_latest_validation_images(tmp_path):
    for digest in (None, "0f", "1a"):
        with open_run(tmp_path, RunDescription(EXPERIMENT, validation_names_digest=digest)):
            pass
        assert read_run(tmp_path).validation_names_digest == digest


@pytest.mark.parametrize(
    ("field", "what"),
    [
        ("similarity_digest", "sha256 of similarity.path"),
        ("teacher_weights", "weights of distillation.teacher"),
        ("names_digest", "training images .files were .*, or the TFDS set has another .*"),
    ],
)
def test_a_run_keeps_what_it_depends_on(tmp_path, field, what):
    def go_on(digest):
        with open_run(tmp_path, RunDescription(EXPERIMENT, **{field: digest})):
            pass

    go_on(None)  # As runs of earlier versions.
    go_on("0f")
    go_on("1a")  # Nothing is trained yet.
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)
    go_on("1a")
    with pytest.raises(RunDirectoryError, match=f"{what}: 2b here, 1a there"):
        go_on("2b")


def test_a_run_goes_on_without_its_weights_and_not_from_others(tmp_path):
    def go_on(name, digest):
        with open_run(tmp_path / name, RunDescription(EXPERIMENT, initial_digest=digest)):
            pass

    go_on("given", "0f")
    go_on("given", None)
    with pytest.raises(RunDirectoryError, match="sha256 of initial_weights: 1a here, 0f there"):
        go_on("given", "1a")
    go_on("drawn", None)
    with pytest.raises(RunDirectoryError, match="sha256 of initial_weights: 0f here, None there"):
        go_on("drawn", "0f")


def test_a_new_run_describes_itself(tmp_path):
    describe(tmp_path / "runs" / "a")
    config = json.loads((tmp_path / "runs" / "a" / CONFIG).read_text())
    assert config["format"] == 1
    assert config["parameters"] == 12
    assert config["device"] == "1 x abacus"
    assert config["command"] == "train it"
    assert config["versions"]["jax"] == jax.__version__
    assert {"python", "flax", "numpy"} <= config["versions"].keys()
    description = read_run(tmp_path / "runs" / "a")
    assert (description.experiment, description.class_names) == (EXPERIMENT, CLASSES)
    assert (description.parameters, description.device) == (12, "1 x abacus")
    assert (description.command, description.versions) == ("train it", config["versions"])


def test_the_same_experiment_may_go_on(tmp_path):
    describe(tmp_path)
    before = (tmp_path / CONFIG).read_text()
    describe(tmp_path)
    assert (tmp_path / CONFIG).read_text() == before


def test_another_experiment_is_refused_and_the_fields_named(tmp_path):
    describe(tmp_path)
    other = replace(EXPERIMENT, seed=1, optimizer=replace(EXPERIMENT.optimizer, momentum=0.5))
    expected = (
        "another experiment.*\n.*optimizer.momentum: 0.5 here, 0.9 there\n.*seed: 1 here, 0 there"
    )
    with pytest.raises(RunDirectoryError, match=expected):
        describe(tmp_path, other)
    assert read_run(tmp_path).experiment == EXPERIMENT


def test_other_devices_of_a_small_set_are_named(tmp_path):
    """They share what they can of it, so the size of the batch was not typed."""
    describe(tmp_path)
    smaller = replace(EXPERIMENT, data=replace(EXPERIMENT.data, batch_size=8))
    with pytest.raises(RunDirectoryError, match="batch_size: 8 here.*\n.*devices: 8 x abacus here"):
        describe(tmp_path, smaller, device="8 x abacus")


def test_a_second_process_is_refused(tmp_path):
    with opened(tmp_path):
        with pytest.raises(RunDirectoryError, match=f"wait for it, .* process {os.getpid()} on"):
            describe(tmp_path)
    describe(tmp_path)


def test_the_lock_is_free_after_an_error(tmp_path):
    with pytest.raises(KeyError):
        with opened(tmp_path):
            raise KeyError
    describe(tmp_path)


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="must be on a file system with flock: No locks available"):
        describe(tmp_path)


def test_what_changes_no_number_may_change_and_is_written_down(tmp_path):
    describe(tmp_path)
    moved = replace(
        EXPERIMENT,
        data=replace(EXPERIMENT.data, workers=3, data_dir="/elsewhere"),
        keep_checkpoints=5,
        non_finite="skip",
    )
    describe(tmp_path, moved, device="9 x abacus")
    assert read_run(tmp_path).experiment == moved
    # The run began with these.
    assert read_run(tmp_path).device == "1 x abacus"
    assert read_run(tmp_path).command == "train it"


def test_remains_without_a_description_are_not_built_upon(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(RunDirectoryError, match="holds checkpoints but no config.json"):
        describe(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "holds no run: there is no config.json"),
        ("{", "is not JSON: .*; restore the file"),
        ("\xff", "config.json is not JSON"),
        ("[" * 100_000, "config.json is not JSON: it is nested too deeply"),
        ("[]", r"config.json must hold a JSON object, it holds \[\]"),
        ('{"format": 9}', "has format 9, this version reads 1"),
        ('{"format": 1}', "experiment must be a JSON object"),
        ('{"format": 1, "digest": "0f"}', "config.json does not match its digest"),
        ('{"format": 1, "experiment": {"nam": "x"}}', "no field 'nam'; did you mean 'name'"),
    ],
)
def test_what_is_no_run_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / CONFIG).write_text(content, encoding="latin-1")
    with pytest.raises(RunDirectoryError, match=message):
        read_run(tmp_path)


@pytest.mark.slow
def test_every_flipped_bit_of_the_description_is_refused_or_harmless(tmp_path):
    describe(tmp_path)
    path = tmp_path / CONFIG
    description, harmless = read_run(tmp_path), 0
    for _ in flipped_bits(path):
        try:
            assert read_run(tmp_path) == description
            harmless += 1
        except RunDirectoryError as error:
            assert str(path) in str(error)
    # Bits of the name of the digest itself, and of white space.
    assert harmless < path.stat().st_size / 8


def without(run_dir, *names):
    """Rewrite the description as earlier versions did, without some fields."""
    config = json.loads((run_dir / CONFIG).read_text())
    for name in names:
        del config[name]
    (run_dir / CONFIG).write_text(json.dumps(config, indent=2))


def test_a_run_of_an_earlier_version_is_read_and_gets_what_it_lacks(tmp_path):
    describe(tmp_path)
    without(tmp_path, "digest", "class_names")
    assert read_run(tmp_path).class_names is None
    assert read_run(tmp_path).experiment == EXPERIMENT
    describe(tmp_path)
    assert read_run(tmp_path).class_names == CLASSES
    assert "digest" in json.loads((tmp_path / CONFIG).read_text())


@pytest.mark.parametrize("name", ["a[1]/run", "a*", "a?", "a\\b"])
def test_a_path_in_which_checkpoints_may_be_lost_is_refused_at_once(tmp_path, name):
    """In some Orbax writes them, ends well, and nothing can read them."""
    with pytest.raises(
        RunDirectoryError, match="has one of the characters .* rename the directory"
    ):
        train(EXPERIMENT, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_a_path_that_is_not_in_utf_8_is_refused_at_once(tmp_path):
    """Orbax cannot write to it, which a run found at its first checkpoint."""
    with pytest.raises(RunDirectoryError, match=r"run-\\udcfc' is not read as UTF-8, .*PYTHONUTF8"):
        train(EXPERIMENT, tmp_path / os.fsdecode(b"run-\xfc"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS])
def test_a_directory_that_may_not_be_written_is_named_with_the_cure(tmp_path, monkeypatch, number):
    def mkdir(self, **options):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "mkdir", mkdir)
    with pytest.raises(RunDirectoryError, match="run cannot be opened: .* another --run-dir"):
        describe(tmp_path / "run")


def test_a_run_does_not_resume_with_other_classes(tmp_path):
    describe(tmp_path)
    for classes, message in {
        ("dog", "cat"): "2 here, 2 there; class 0 is 'dog' here, 'cat' there",
        ("cat",): "1 here, 2 there; class 1 is None here, 'dog' there",
        ("cat", "dog", "e\u0301"): r"3 here, 2 there; class 2 is 'e\\u0301' here, None there",
    }.items():
        with pytest.raises(RunDirectoryError, match=f"class names: {message}"):
            describe(tmp_path, class_names=classes)


def with_bank(scale=1.0):
    """An experiment whose front end has given kernels, as one that starts from a checkpoint."""
    parameters = v1.sample_gabor_parameters(6, sf_max=6.0)
    kernels = (scale * phase for phase in v1.gabor_kernels(parameters, 9, 28.0))
    bank = v1.ImportedBank(*kernels, parameters, 28.0)
    config = v1.VOneBlockConfig(simple_channels=3, complex_channels=3, kernel_size=9, bank=bank)
    return replace(EXPERIMENT, model=ModelConfig(name="vone_resnet18", v1=config))


def test_an_imported_bank_is_stored_once_as_arrays(tmp_path):
    experiment = with_bank()
    for _ in range(2):
        describe(tmp_path, experiment)
    stored = json.loads((tmp_path / CONFIG).read_text())["experiment"]["model"]["v1"]["bank"]
    bank = experiment.model.v1.bank
    assert stored == {"type": "ImportedBank", "sha256": bank.digest}
    assert [path.name for path in (tmp_path / "banks").iterdir()] == [f"{bank.digest}.npz"]
    assert read_run(tmp_path).experiment == experiment
    np.testing.assert_array_equal(
        read_run(tmp_path).experiment.model.v1.gabor_kernels().in_phase, bank.in_phase
    )


def test_both_banks_of_an_experiment_are_stored(tmp_path):
    like = Similarity(target="v1", v1=with_bank(2.0).model.v1)
    experiment = replace(with_bank(), similarity=like)
    describe(tmp_path, experiment)
    assert len(list((tmp_path / "banks").iterdir())) == 2
    assert read_run(tmp_path).experiment == experiment


def test_another_bank_is_another_experiment(tmp_path):
    describe(tmp_path, with_bank())
    with pytest.raises(RunDirectoryError, match="model.v1.bank.sha256: .* here, .* there"):
        describe(tmp_path, with_bank(1.5))


def test_a_damaged_or_missing_bank_is_named(tmp_path):
    describe(tmp_path, with_bank())
    (path,) = (tmp_path / "banks").iterdir()
    content = path.read_bytes()
    path.write_bytes(content[:-40])
    with pytest.raises(RunDirectoryError, match=f"bank {path} cannot be read: .*; restore it"):
        read_run(tmp_path)
    describe(tmp_path / "other", with_bank(2.0))
    (other,) = (tmp_path / "other" / "banks").iterdir()
    path.write_bytes(other.read_bytes())
    with pytest.raises(RunDirectoryError, match=f"bank {path} does not match its digest; restore"):
        read_run(tmp_path)
    path.unlink()
    with pytest.raises(RunDirectoryError, match=f"bank {path} cannot be read"):
        read_run(tmp_path)


def test_an_experiment_with_a_bank_needs_its_arrays():
    with pytest.raises(ValueError, match="the arrays of the bank .* must be given"):
        from_json(to_json(with_bank()))
