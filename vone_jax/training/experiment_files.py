"""Experiments in files: Python configs, and JSON.

A config is a Python module that defines ``experiment`` or ``sweep``. A sweep names several
experiments; ``"sweep:label"`` is one of them.

In JSON, see ``dataclass_json``, an imported Gabor bank is replaced by its digest, because it has a
million numbers. A run directory stores these numbers as arrays, see ``run.py``. A front end of a
user has the module that defines it. Reading it imports this module by its name, from the Python
path only: a run of a stranger cannot bring code of its own.
"""

import dataclasses
import importlib
import json
import os
import re
import runpy
import sys
import traceback
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
from flax.traverse_util import flatten_dict

from vone_jax import arguments, dataclass_json
from vone_jax.arguments import nearest
from vone_jax.names import WITHOUT_EFFECT, command
from vone_jax.training.experiment import Experiment
from vone_jax.v1 import ImportedBank


def config_names(configs: Path, variable: str = "experiment") -> list[str]:
    """List the config files below a directory that define a variable, as "quickstart/resnet18"."""
    return sorted(
        path.relative_to(configs).with_suffix("").as_posix()
        for path in configs.rglob("*.py")
        if re.search(rf"^{variable}(:.*)? = ", path.read_text(encoding="utf-8"), re.MULTILINE)
    )


def load_config(name: str, configs: Path) -> Experiment:
    """Read an experiment from the directory of configs.

    The name is one of ``config_names(configs)``, or the path of a Python file (ending in ``.py``)
    that defines ``experiment``. A config may build on another one, which it imports as
    ``configs.<group>.<name>``. ``"NAME:LABEL"`` is a member of the sweep in NAME.

    Raises:
      ValueError: if there is no such file (the message lists the names), if running it fails, or
        if it defines no valid experiment.
    """
    if ":" not in name:
        return load(name, configs, "experiment", Experiment)
    file, _, label = name.rpartition(":")
    members = getattr(load(file, configs, "sweep"), "members", {})
    if label not in members:
        raise ValueError(
            f"{file} has no member {label!r}{nearest(label, members) or '.'} "
            f"It has {', '.join(members)}"
        )
    experiment = members[label].network
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{name} is not trained; {command('sweep.py')} {file} evaluates it")
    return experiment


def load(name: str, configs: Path, variable: str, cls: type | None = None) -> Any:
    """Run a config file and return one of its variables.

    For the name and errors see ``load_config``. A variable that is not a ``cls`` is an error, too.
    """
    names = config_names(configs, variable)
    # A config that defines the other variable has a message of its own, below.
    known = {*config_names(configs), *config_names(configs, "sweep")}
    path = configs / f"{name}.py" if name in known else Path(name)
    arguments.in_reach("CONFIG", path)
    if path.suffix != ".py" or not os.path.isfile(path):
        if path.suffix == ".py":
            raise ValueError(f"there is no file {name}")
        raise ValueError(
            f"no config {name!r}{nearest(name, names) or '.'} "
            "Give the path of a .py file or one of:\n  " + "\n  ".join(names)
        )
    # Configs import each other by this name, wherever the package is installed.
    package = types.ModuleType("configs")
    package.__path__ = [str(configs)]
    sys.modules.setdefault("configs", package)
    try:
        defined = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f":{frame.lineno}" for frame in frames if frame.filename == str(path)]
        where = f"{path}{lines[-1] if lines else ''}"
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from error
    value = defined.get(variable)
    if value is None and hasattr(defined.get("sweep"), "members"):
        raise ValueError(
            f"{name} is a sweep; {command('sweep.py')} {name} runs all, {command('train.py')} "
            f"{name}:LABEL trains one of {', '.join(defined['sweep'].members)}"
        )
    if value is None or (cls is not None and not isinstance(value, cls)):
        raise ValueError(
            f"{name} must define {variable} = {variable.capitalize()}(...), it has {value!r:.80}"
        )
    return value


def to_json(experiment: Experiment) -> dict[str, Any]:
    """Return the experiment as a tree of JSON values, which ``from_json`` turns back."""
    return dataclass_json.encode(experiment, _FORMS)


def _describe_front_end(module: nn.Module) -> dict[str, Any]:
    """A front end of a user in JSON: the module of its class, and its fields."""
    cls = type(module)
    _front_end_class(cls.__module__, cls.__name__)
    # Flax adds two fields.
    names = [
        field.name for field in dataclasses.fields(cls) if field.name not in ("parent", "name")
    ]
    fields = {name: dataclass_json.encode(getattr(module, name), path=name) for name in names}
    return {"module": cls.__module__, **fields}


_FORMS: dataclass_json.Forms = {
    ImportedBank: lambda bank: {"sha256": bank.digest},
    nn.Module: _describe_front_end,
}


def _front_end_class(module: str, name: str) -> Any:
    """The class of a front end of a user, by the module that defines it."""
    try:
        cls = getattr(importlib.import_module(module), name, None)
    except ImportError as error:
        raise ValueError(
            f"front_end {name}: there is no module {module!r}, or it cannot be imported ({error}); "
            "define the class in a file of its own, which the config imports, and name the "
            "directory of this file in PYTHONPATH, also for eval.py"
        ) from error
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ValueError(f"front_end: {module} has no Flax module {name!r}")
    return cls


def _read_front_end(content: dict[str, Any]) -> Any:
    fields = dict(content)
    cls = _front_end_class(fields.pop("module"), fields[dataclass_json.TYPE])
    return dataclass_json.decode(cls, fields, "front_end")


def from_json(content: Any, read_bank: Callable[[str], ImportedBank] | None = None) -> Experiment:
    """Return the experiment that ``to_json`` turned into ``content``.

    The function ``read_bank`` returns the imported bank with a given digest.

    Raises:
      ValueError: for an unknown or missing field, or one of another type.
    """
    if not isinstance(content, dict):
        raise ValueError(f"experiment must be a JSON object, got {content!r:.80}")
    return dataclass_json.decode(Experiment, _with_objects(content, read_bank), "experiment")


def _with_objects(content: Any, read_bank: Callable[[str], ImportedBank] | None) -> Any:
    """Replace digests in a tree of JSON values by their banks, and front ends by their modules."""
    if not isinstance(content, dict):
        return content
    if content.get(dataclass_json.TYPE) == ImportedBank.__name__ and "sha256" in content:
        if read_bank is None:
            raise ValueError(f"the arrays of the bank {content['sha256']} must be given")
        return read_bank(content["sha256"])
    if "module" in content:
        return _read_front_end(content)
    return {name: _with_objects(value, read_bank) for name, value in content.items()}


_ABSENT = object()


def differences(ours: Experiment, theirs: Experiment) -> list[str]:
    """List the fields in which two experiments differ, as ``"seed: 3 here, 4 there"``.

    Those in ``names.WITHOUT_EFFECT`` are ignored: they may change when a run resumes.
    """
    first, second = (flatten_dict(to_json(experiment), sep=".") for experiment in (ours, theirs))

    def show(fields: dict[str, Any], name: str) -> str:
        return json.dumps(fields[name]) if name in fields else "absent"

    return [
        f"{name}: {show(first, name)} here, {show(second, name)} there"
        for name in sorted(first.keys() | second.keys())
        # Values are compared, not texts: 3 and 3.0 epochs are the same.
        if name not in WITHOUT_EFFECT and first.get(name, _ABSENT) != second.get(name, _ABSENT)
    ]


def resumed(before: Experiment, ours: Experiment) -> Experiment:
    """Return ``before`` with our values of the fields that may change when a run resumes."""
    own = [name.partition(".")[2] for name in WITHOUT_EFFECT if name.startswith("data.")]
    config = dataclasses.replace(before.data, **{name: getattr(ours.data, name) for name in own})
    fields = {name: getattr(ours, name) for name in WITHOUT_EFFECT if "." not in name}
    return dataclasses.replace(before, data=config, **fields)
