"""Suites: named functions of an evaluation that return conditions.

A suite is a function of an ``Evaluation`` and of options of its own, its keyword parameters, such
as ``eps: tuple[float, ...] = ()``. It returns conditions, or a single one. The first line of its
docstring says what it measures. Each kind of measurement has its suites in its own module, as
``SUITES``; one of a user's own is given as ``FILE.py:NAME``.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vone_jax import arguments, files, results
from vone_jax.evaluation.condition import Condition, check_row
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.network import Network

Suite = Callable[..., Sequence[Condition] | Condition]


def default_directory(network: Network) -> Path:
    """The directory of the results of a network.

    It is RUN_DIR/results, or runs/NAME/results. Another checkpoint of a run than its last, whose
    name has its step, has a directory beside that of the run. So has a network of the name of a
    run: runs/NAME-network/results.
    """
    run_dir = network.run_dir
    if run_dir is None:
        beside = Path("runs", network.name)
        if (beside / "config.json").exists():
            beside = Path("runs", f"{network.name}-network")
        return beside / "results"
    chosen = network.name.rpartition("@")[2] == str(network.checkpoint_step)
    return (run_dir.with_name(network.name) if chosen else run_dir) / "results"


def find(
    names: Sequence[str], suites: Mapping[str, Suite], groups: Mapping[str, Sequence[str]]
) -> dict[str, Suite]:
    """The suites of some names, each once.

    Args:
      names: names of ``suites`` and of ``groups`` of them, or ``FILE.py:NAME`` for one in a file.
      suites, groups: those that are known.

    Raises:
      ValueError: for an unknown suite, with the nearest name.
    """
    found: dict[str, Suite] = {}
    for name in names:
        for each in groups.get(name, (name,)):
            suite = _load(each) if ":" in each else suites.get(each)
            if suite is None:
                raise ValueError(arguments.not_among("suite", each, (*suites, *groups)))
            found[each] = suite
    return found


def options(suites: Mapping[str, Suite]) -> dict[str, inspect.Parameter]:
    """The options of some suites: their keyword parameters by name, each with a type.

    Raises:
      ValueError: for an option without a type, or if two suites have options of one name and
        different defaults.
    """
    found: dict[str, inspect.Parameter] = {}
    for name, suite in suites.items():
        for option in _options(suite):
            if option.annotation is inspect.Parameter.empty:
                raise ValueError(f"suite {name}: the option {option} must have a type")
            known = found.setdefault(option.name, option)
            # One suite may allow fewer values than another: it refuses the others itself.
            if known.default != option.default:
                raise ValueError(
                    f"suite {name} has the option {option}, and another suite {known}; evaluate "
                    "each by a command of its own"
                )
    return found


def _options(suite: Suite) -> list[inspect.Parameter]:
    if not callable(suite) or isinstance(suite, type):
        return []
    parameters = inspect.signature(suite, eval_str=True).parameters.values()
    return [each for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY]


def conditions(
    suites: Mapping[str, Suite], evaluation: Evaluation, given: Mapping[str, Any] | None = None
) -> list[Condition]:
    """The conditions of suites, each once.

    Args:
      suites: those of ``find``.
      evaluation: the evaluation, whose network and noise suites read.
      given: options by name. Each suite gets those that it has.

    Raises:
      ValueError: for two conditions of one name, or a condition that does not fit.
      TypeError: if a suite returns something else.
    """
    found: dict[str, Condition] = {}
    given = given or {}
    for name, suite in suites.items():
        made: Any = suite
        if isinstance(suite, type):
            raise TypeError(
                f"suite {name} is a class; name an object of it, such as x = {suite.__name__}()"
            )
        if callable(suite):
            own = {each.name for each in _options(suite)}
            made = suite(evaluation, **{n: value for n, value in given.items() if n in own})
        several = isinstance(made, Sequence) and not isinstance(made, str)
        for condition in made if several else [made]:
            if not isinstance(condition, Condition):
                raise TypeError(f"suite {name} must return conditions, got {condition!r:.80}")
            check_row(condition)
            stem = results.stem(evaluation.row(condition))
            if found.setdefault(stem, condition) != condition:
                raise ValueError(
                    f"two conditions of the suites have the name {stem!r}; give one of them a "
                    "variant, or radii that differ in the first six digits"
                )
    every = list(found.values())
    for option, is_given, used in (
        ("attack_noise", evaluation.attack_noise != "same", any(x.attacks for x in every)),
        ("others", bool(evaluation.others), any(x.asks_others for x in every)),
    ):
        if is_given and not used:
            raise ValueError(f"{option} has no effect on the suites {', '.join(suites)}")
    for condition in every:
        evaluation.check(condition)
    return every


def explained(suites: Mapping[str, Suite], groups: Mapping[str, Sequence[str]]) -> str:
    """A line for each suite: its name, what it measures, and its options."""
    lines = []
    for name, suite in suites.items():
        own = "".join(f" --{each.name}" for each in _options(suite))
        about = (inspect.getdoc(suite) or "").splitlines()[:1]
        lines.append(f"{name:18}  {''.join(about)}{own and f'  [{own.strip()}]'}")
    lines += [f"{name:18}  stands for {', '.join(each)}" for name, each in groups.items()]
    rows = "\n".join(lines)
    return (
        f"{rows}\nIn brackets: passes through the network per image, with ten noise draws, and for "
        "a network\nwithout noise. FILE.py:NAME is a suite of your own."
    )


def _load(name: str) -> Suite:
    """The suite NAME of FILE.py:NAME."""
    # The configs are part of the package, wherever the command is started.
    root, file = Path(__file__).parents[1], name.rpartition(":")[0]
    if (root / file).is_file() and not Path(file).exists():
        name = str(root / name)
    try:
        return files.imported(name)
    except ValueError as error:
        raise ValueError(f"suite {name}: {error}") from error
