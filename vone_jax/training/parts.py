"""The parts of a network, chosen by patterns: those that are frozen, and those with own rates.

The path of a variable is its names joined by "/", such as ``back_end/layer1_0/conv1/kernel``. A
pattern is a glob over whole paths in which ``*`` also stands for "/". It matches a variable, or a
module with everything in it: ``back_end/layer1*`` is the first stage of a ResNet, ``stem`` the
stem. The running values of a batch norm have paths, too: ``back_end/layer1_0/bn1/mean``.
"""

import fnmatch
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import flax.linen as nn
from flax.traverse_util import flatten_dict, path_aware_map, unflatten_dict

from vone_jax import arguments

# Rates by pattern: (pattern, factor on the learning rate).
Rates = tuple[tuple[str, float], ...]


def matches(pattern: str, path: str) -> bool:
    """Return True if a pattern matches the path of a variable, or of a module above it."""
    return fnmatch.fnmatchcase(path, pattern) or fnmatch.fnmatchcase(path, f"{pattern}/*")


def is_frozen(freeze: Iterable[str], path: str) -> bool:
    """Return True if one of the patterns ``freeze`` matches the variable with this path."""
    return any(matches(pattern, path) for pattern in freeze)


def split(params: Any, freeze: Collection[str]) -> tuple[Any, Any]:
    """Divide a tree of parameters into those that are trained and those that are frozen."""
    flat = flatten_dict(params, sep="/")
    frozen = {path: leaf for path, leaf in flat.items() if is_frozen(freeze, path)}
    trained = {path: leaf for path, leaf in flat.items() if path not in frozen}
    return unflatten_dict(trained, sep="/"), unflatten_dict(frozen, sep="/")


def merge(trained: Any, frozen: Any) -> Any:
    """Put the two trees of ``split`` together again."""
    return unflatten_dict(flatten_dict(trained) | flatten_dict(frozen))


def rate_factors(params: Any, rates: Rates) -> Any:
    """Return the factor on the learning rate of each parameter, as a tree of floats.

    The last pattern that matches a parameter counts. If none matches, the factor is 1.
    """

    def factor_at(path: tuple[Any, ...], _: Any) -> float:
        name = "/".join(path)
        return next((factor for pattern, factor in reversed(rates) if matches(pattern, name)), 1.0)

    return path_aware_map(factor_at, params)


def training_apply(model: nn.Module, freeze: Collection[str]) -> Callable[..., Any]:
    """Return ``model.apply``, but batch norms with a frozen running value use and keep them."""

    def intercept(call: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        module = context.module
        is_norm = context.method_name == "__call__" and module.has_variable("batch_stats", "mean")
        paths = ("/".join((*module.path, name)) for name in ("mean", "var"))
        if is_norm and any(is_frozen(freeze, path) for path in paths):
            args, kwargs = args[:1], {"train": False}
        return call(*args, **kwargs)

    def apply(*args: Any, **kwargs: Any) -> Any:
        with nn.intercept_methods(intercept):
            return model.apply(*args, **kwargs)

    return apply if freeze else model.apply


def check_patterns(freeze: Collection[str], rates: Rates, params: Any, batch_stats: Any) -> None:
    """Check that each pattern matches a variable of the network, and a parameter is trained."""
    parameters = list(flatten_dict(params, sep="/"))
    variables = [*parameters, *flatten_dict(batch_stats, sep="/")]
    for pattern in freeze:
        _check_pattern("freeze", pattern, variables)
    trained = [path for path in parameters if not is_frozen(freeze, path)]
    if not trained:
        raise ValueError(f"freeze must leave a parameter to train, got {', '.join(freeze)}")
    for pattern, _ in rates:
        _check_pattern("optimizer.rates", pattern, parameters)
        if not any(matches(pattern, path) for path in trained):
            raise ValueError(f"optimizer.rates: freeze covers {pattern!r}; leave out one of them")


def _check_pattern(field: str, pattern: str, paths: Sequence[str]) -> None:
    if not any(matches(pattern, path) for path in paths):
        modules = {path.rpartition("/")[0] for path in paths}
        raise ValueError(
            f"{field}: nothing in the network has the name {pattern!r}"
            f"{arguments.nearest(pattern.rstrip('*/'), sorted(modules))}; there are "
            f"{', '.join(sorted({'/'.join(path.split('/')[:2]) for path in modules}))}"
        )
