"""The one answer to the question whether a module that a file names may be imported.

A run directory, a folder, a checkpoint or a result may come from a stranger. Its text is data: it
can name a module, but naming is no permission to run it.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from vone_jax import files


def of_file(name: Any, code: Sequence[str] = (), opened: Path | None = None) -> ModuleType:
    """Return the module that a file asks for, if the user permits it.

    Permitted are the modules of this package, those that are imported already, and those in
    ``code``. A FILE.py that was loaded or is in ``code`` stands for every module of its name.

    Args:
      name: name of the module, as the file has it.
      code: modules by name, also in the working directory, or paths of files, as FILE.py.
      opened: the directory that is opened. A module that lies in it is never imported.

    Raises:
      ValueError: if it is not permitted, lies in ``opened`` or does not exist.
      Exception: what the module raises.
    """
    if not isinstance(name, str) or not all(map(str.isidentifier, name.split("."))):
        raise ValueError(f"a module must have a name such as package.module, got {name!r:.80}")
    last = name.rpartition(".")[2]
    loaded = sys.modules.get(name) or sys.modules.get(f"file_{last}")
    if loaded is not None:
        return loaded
    if name.startswith("vone_jax."):
        return importlib.import_module(name)
    for each in (code,) if isinstance(code, str) else code:
        if each == name or Path(each).name == f"{last}.py":
            if opened is not None and _lies_in(each, opened.resolve()):
                raise ValueError(
                    f"{each} lies in {opened}, which is opened, and code that came with it is not "
                    "run; read it, and name a copy in another place"
                )
            inside = opened is not None and Path().resolve().is_relative_to(opened.resolve())
            # Else the module would find what it imports in there.
            own = inside and not each.endswith(".py")
            return importlib.import_module(each) if own else files.loaded(each)
    raise ValueError(
        f"the module {name!r} is not imported, since a file may not choose what code runs; if you "
        f"trust this code, add --code {name}, or --code and the path of {last}.py; in Python, "
        f"import {name} first, or give code=({name!r},)"
    )


def is_of_user(module: ModuleType, code: Sequence[str] = ()) -> bool:
    """Return True for a module that the user has named, or imported from files of his own."""
    file = getattr(module, "__file__", None)
    installed = (sys.prefix, sys.base_prefix, str(Path(__file__).parent))
    own = file is not None and not any(Path(file).is_relative_to(each) for each in installed)
    return own or module.__name__ in code


def _lies_in(code: str, directory: Path) -> bool:
    """Return True if a directory has a file that loading ``code`` might run."""
    if code.endswith(".py"):
        places = [Path(os.path.expanduser(code))]
    else:
        # No finder is asked, since finders import the packages around a module.
        parts = code.split(".")
        counts = range(1, len(parts) + 1)
        stems = [Path(base, *parts[:n]) for base in ("", *sys.path) for n in counts]
        places = [
            place
            for stem in stems
            for place in (*stem.parent.glob(f"{stem.name}.*"), *stem.glob("__init__.*"))
        ]
    real = {path.resolve() for place in places for path in (place, place.parent)}
    return any(path.is_relative_to(directory) for path in real)
