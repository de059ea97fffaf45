"""Experiments and sweeps in files: Python modules that define ``experiment`` or ``sweep``.

A sweep names several experiments; ``"sweep:label"`` is one of them.
"""

import contextlib
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vone_jax.training.codec import nearest
from vone_jax.training.experiment import Experiment


def config_names(configs: Path, variable: str = "experiment") -> list[str]:
    """Names of the files below a directory that define a variable.

    Returns:
      For instance ``"quickstart/resnet18"``, sorted.
    """
    return sorted(
        path.relative_to(configs).with_suffix("").as_posix()
        for path in configs.rglob("*.py")
        if re.search(rf"^{variable} = ", path.read_text(), re.MULTILINE)
    )


def load_config(name: str, configs: Path) -> Experiment:
    """Reads an experiment.

    Args:
      name: one of ``config_names(configs)``, or the path of any Python file (ending in ``.py``)
        that defines ``experiment``. A config may build on another one, which it imports as
        ``configs.<group>.<name>``. ``"NAME:LABEL"`` is a member of the sweep that NAME defines.
      configs: the directory of configs.

    Raises:
      ValueError: if there is no such file (the names are listed), or it defines no experiment, or
        one that is wrong.
    """
    if ":" not in name:
        experiment = load(name, configs, "experiment")
        if not isinstance(experiment, Experiment):
            raise ValueError(
                f"{name} must define experiment = Experiment(...), it has {experiment!r}"
            )
        return experiment
    file, _, label = name.rpartition(":")
    members = getattr(load(file, configs, "sweep"), "members", {})
    if label not in members:
        raise ValueError(
            f"{file} has no member {label!r}{nearest(label, members)}; it has {', '.join(members)}"
        )
    return members[label].experiment


def load(name: str, configs: Path, variable: str) -> Any:
    """What a file defines under the name ``variable``, None if it does not.

    Raises:
      ValueError: if there is no such file, or running it fails.
    """
    names = config_names(configs, variable)
    path = configs / f"{name}.py" if name in names else Path(name)
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(
            f"no config {name!r}{nearest(name, names)}; give the path of a .py file or one of:\n  "
            + "\n  ".join(names)
        )
    with _importable(configs.parent):
        try:
            return runpy.run_path(str(path)).get(variable)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error
        except Exception as error:
            raise ValueError(f"{path}: {type(error).__name__}: {error}") from error


@contextlib.contextmanager
def _importable(directory: Path) -> Iterator[None]:
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        sys.path.remove(str(directory))
