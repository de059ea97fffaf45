"""Modules that are imported when they are first used.

So a command answers wrong arguments before it needs libraries that take long to import.
"""

import importlib.util
import sys
from typing import Any


def module(name: str) -> Any:
    """The module ``name``, which is imported when one of its attributes is first read.

    Raises:
      ModuleNotFoundError: if it is not installed.
    """
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    spec.loader = importlib.util.LazyLoader(spec.loader)
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded
