"""Experiments in files: Python modules that define ``experiment = Experiment(...)``."""

import contextlib
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

from vone_jax.training.codec import nearest
from vone_jax.training.experiment import Experiment


def config_names(configs: Path) -> list[str]:
    """Names of the experiments below a directory, for instance ``"quickstart/resnet18"``."""
    return sorted(
        path.relative_to(configs).with_suffix("").as_posix()
        for path in configs.rglob("*.py")
        if not path.name.startswith("_")
    )


def load_config(name: str, configs: Path) -> Experiment:
    """Reads an experiment.

    Args:
      name: one of ``config_names(configs)``, or the path of any Python file (ending in ``.py``)
        that defines ``experiment``. A config may build on another one, which it imports as
        ``configs.<group>.<name>``.
      configs: the directory of configs.

    Raises:
      ValueError: if there is no such file (the names are listed), or it defines no experiment, or
        one that is wrong.
    """
    names = config_names(configs)
    path = configs / f"{name}.py" if name in names else Path(name)
    if path.suffix != ".py" or not path.is_file():
        raise ValueError(
            f"no config {name!r}{nearest(name, names)}; give the path of a .py file or one of:\n  "
            + "\n  ".join(names)
        )
    with _importable(configs.parent):
        try:
            experiment = runpy.run_path(str(path)).get("experiment")
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path}: {error}") from error
    if not isinstance(experiment, Experiment):
        raise ValueError(f"{path} must define experiment = Experiment(...), it has {experiment!r}")
    return experiment


@contextlib.contextmanager
def _importable(directory: Path) -> Iterator[None]:
    sys.path.insert(0, str(directory))
    try:
        yield
    finally:
        sys.path.remove(str(directory))
