"""A condition: one measurement of a network, as a record that measures itself.

A kind of measurement is one file with one frozen dataclass, and nothing else has to know it. Its
fields are stored in results as they are. ``make`` makes arrays of a batch, and ``result`` makes
numbers of all arrays, and says how they are shown.
"""

import abc
import dataclasses
import inspect
import math
import re
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np

from vone_jax import dataclass_json, files, results
from vone_jax.attacks import Attack
from vone_jax.evaluation.judging import Batch
from vone_jax.network import Network
from vone_jax.results import Interval, Row, View
from vone_jax.results import row as rows

# The largest change of one value of an image.
_LARGEST = {"linf": lambda values: 1.0, "l2": np.sqrt, "l1": float, "l0": float}
# Messages print the largest radius with six digits. A user who types that value is accepted.
_ROUNDING = 1e-5

# The longest text of a dataclass or of several values in a row.
_LONGEST = 40

# Of the columns that every row may have, those that ``row`` and ``number`` may give. A kind that
# shows images of its own says which, and an attack over how many draws it averages.
_OF_KIND = ("condition", "dataset", "examples", "attack_draws")
_OF_NUMBER = ("verdict", "meaning", "over")

FUNCTIONS = {types.FunctionType: lambda function: {"name": function.__qualname__}}


class KindError(TypeError):
    """A method of a user's condition returns something else; the message names class and file."""


@dataclasses.dataclass(frozen=True, eq=False)
class Number:
    """A number of a condition, see ``number``."""

    name: str
    interval: Interval
    of: np.ndarray | None
    columns: Mapping[str, Any]

    @property
    def value(self) -> float:
        """The number; NaN if it is not defined."""
        return self.interval.value

    def row(self) -> dict[str, Any]:
        """The columns that it adds to the row of its condition."""
        found = {n: float(v) for n, v in dataclasses.asdict(self.interval).items()}
        finite = {name: value for name, value in found.items() if math.isfinite(value)}
        return {"number": self.name, **self.columns, **finite}


def number(
    name: str,
    value: float | Interval | None = None,
    of: Any = None,
    *,
    unit: str | None = None,
    main: bool = False,
    section: str | None = None,
    note: str | None = None,
    **columns: Any,
) -> Number:
    """A number of a condition, with its 95 % interval if it has one.

    Args:
      name: its name, such as "accuracy".
      value: the number, or the number with its interval. A number that is not finite is shown as
        not defined.
      of: in place of ``value``, the values by example (N,), or decisions (N, R), booleans. The
        number is their mean, its interval is over examples, and its difference from another network
        on the same examples is paired. Beside them, ``value`` may be their mean with another
        interval, such as one that ends at 0.
      unit: "share" for a number from 0 to 1 that is shown in percent, or the unit in words.
        Default: "share" of booleans.
      main: whether it stands in the first table of the page.
      section: heading of the page under which it stands. Default: that of its condition.
      note: words that stand below a main number's condition, in the place of a column "steps".
      **columns: what sets it apart from numbers of the same name, such as ``eps=4/255`` or
        ``layer="v1"``: text, numbers, or True and False.

    Raises:
      ValueError: for a column that every row has, such as "draws".
    """
    if of is not None:
        of = np.asarray(of)
        unit = unit or ("share" if of.dtype == bool else None)
    if isinstance(value, Interval):
        found = value
    elif of is not None:
        found = results.mean(of, share=unit == "share")
    else:
        found = Interval(math.nan if value is None else float(value), math.nan, math.nan)
    shown = {"unit": unit, "main": main, "section": section, "note": note}
    given = {column: _plain(each) for column, each in columns.items()}
    _check_columns(f"number {name!r}", given, _OF_NUMBER)
    return Number(name, found, of, {**given, **{n: each for n, each in shown.items() if each}})


def _check_columns(whose: str, columns: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Raise a ValueError for columns that every row has, or with values that no row can have."""
    if taken := sorted({*rows.RESERVED}.intersection(columns).difference(allowed)):
        raise ValueError(
            f"{whose}: {', '.join(taken)} must have another name, since every row of a result has "
            "a column of this name"
        )
    for name, value in columns.items():
        for each in value if isinstance(value, list | tuple) else [value]:
            infinite = isinstance(each, float) and not math.isfinite(each)
            if infinite or not isinstance(each, str | bool | int | float | None):
                raise ValueError(
                    f"{whose}: {name} must be text, a finite number, True or False, or a list of "
                    f"them, got {value!r:.80}"
                )


def _plain(value: Any) -> Any:
    """A scalar of NumPy or JAX as one of Python."""
    return value.item() if getattr(value, "shape", None) == () else value


@dataclasses.dataclass(frozen=True, eq=False)
class Numbers:
    """What a condition has found.

    Attributes:
      measured: the numbers, each made by ``number``.
      views: how they are shown, see ``results.Lines``, ``results.Chart`` and ``results.Pictures``.
      references: numbers of other observers, such as humans or guessing, beside which those of the
        network are drawn: rows with "network", "number", "value" and the columns of the axes. One
        without the column of the axis is a line across the chart.
      warnings: sentences about the numbers.
      details: what is no number, as JSON values.
      arrays: further arrays of the result, such as pictures.
    """

    measured: Sequence[Number] = ()
    views: Sequence[View] = ()
    references: Sequence[Row] = ()
    warnings: Sequence[str] = ()
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> Number:
        """The first number of a name."""
        return next(each for each in self.measured if each.name == name)


class Condition(abc.ABC):
    """One measurement of a network; subclasses are frozen dataclasses.

    Attributes:
      section: heading of the page under which its numbers and views stand. Default: the name of the
        class in words.
      judged: whether images are judged by the rules of the evaluation. Only then do noise, decision
        and draws of the protocol belong to the measurement.
      by_example: whether ``make`` returns arrays with a row for each example. Then the examples are
        measured in batches, and a stopped evaluation continues. Otherwise ``make`` is called once.
      examples: the largest number of examples that are used; None for all, 0 for a condition that
        shows images of its own.
      long: whether an example takes very many passes through the network, so that few are measured
        at a time on CPUs.
      under_attack_noise: whether its attacks see the noise at the attack of an evaluation. Other
        conditions with attacks are refused with another noise at the attack.
      asks_others: whether it uses the other networks of an evaluation.
      reports_faults: whether it reports logits that are not finite as a finding. For other
        conditions they are an error, found in the arrays whose names begin with "loss".
      shown: names of arrays that are kept to be shown, of ``kept`` examples only.
      kept: number of these examples, spread over all.
    """

    section: ClassVar[str] = ""
    judged: ClassVar[bool] = False
    by_example: ClassVar[bool] = True
    examples: ClassVar[int | None] = None
    long: ClassVar[bool] = False
    under_attack_noise: ClassVar[bool] = False
    asks_others: ClassVar[bool] = False
    reports_faults: ClassVar[bool] = False
    shown: ClassVar[tuple[str, ...]] = ()
    kept: ClassVar[int] = 0

    def row(self) -> dict[str, Any]:
        """What its numbers are of: "condition" and the columns that set it apart, as JSON values.

        Default: the name of the class in words, and the stored fields that differ from their
        defaults.
        """
        return {"condition": _in_words(type(self)), **fields_of_row(self)}

    @property
    def label(self) -> str:
        """The condition in words."""
        return rows.label(self.row())

    @property
    def heading(self) -> str:
        """The heading of the page under which it stands."""
        return self.section or self.row()["condition"].capitalize()

    @property
    def attacks(self) -> tuple[Attack, ...]:
        """The attacks that are made, whose radii and losses must fit the network."""
        return ()

    def check(self, network: Network) -> None:
        """Raise a ValueError if the network cannot be measured in this way."""
        if network.num_classes < 2:
            raise ValueError(f"{self.label} needs at least 2 classes, {network.name} has 1")
        for attack in self.attacks:
            # The largest change in a norm of a user is not known.
            norm = attack.norm if isinstance(attack.norm, str) else ""
            largest = _LARGEST.get(norm, lambda values: np.inf)(np.prod(network.image_shape))
            if attack.eps > largest * (1 + _ROUNDING):
                raise ValueError(
                    f"eps must be at most {largest:g} in norm {attack.norm}, the largest change of "
                    f"an image of {network.name}, got {attack.eps:.6g}"
                )
            if attack.least_classes > 2 and network.num_classes < attack.least_classes:
                raise ValueError(
                    f"{self.label} needs at least {attack.least_classes} classes for its losses, "
                    f"{network.name} has {network.num_classes}"
                )

    def stimuli(self, network: Network) -> int:
        """The number of stimuli of its own that it shows, for reports on progress."""
        return 0

    def identity(self) -> dict[str, Any]:
        """The condition as JSON values, with checksums of the files and arrays that it uses.

        A function, such as the loss of an attack, has its name there. What it computes is in the
        program of the condition, which an evaluation adds.
        """
        return dataclass_json.encode(self, FUNCTIONS)

    @abc.abstractmethod
    def make(self, batch: Batch) -> Mapping[str, Any]:
        """Measure a batch."""

    @abc.abstractmethod
    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        """What was found, from the arrays of all examples.

        Args:
          arrays: those that ``make`` made, and "index", "label" and "key" of the examples.
          evaluation: the ``Evaluation``, with the network, its class names and the images.
        """


class Judged(Condition):
    """A condition whose images are judged; subclasses make the images."""

    judged: ClassVar[bool] = True

    @abc.abstractmethod
    def perturb(self, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The images that are judged, and further arrays to store."""

    def make(self, batch: Batch) -> Mapping[str, Any]:
        images, stored = self.perturb(batch)
        return batch.judge(images) | stored

    def result(self, arrays: Mapping[str, np.ndarray], evaluation: Any) -> Numbers:
        return Numbers(accuracy_numbers(arrays))


def fields_of_row(condition: Any, *left_out: str) -> dict[str, Any]:
    """The stored fields of a condition that differ from their defaults, as columns of a row.

    A field whose name is a column of every kind, such as "draws", has the name of the class before.
    """
    columns = {}
    for field in dataclass_json.stored_fields(type(condition)):
        value = getattr(condition, field.name)
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if field.name not in left_out and (default is dataclasses.MISSING or value != default):
            apart = f"{_in_words(type(condition))} " if field.name in rows.RESERVED else ""
            columns[f"{apart}{field.name}"] = _column(value)
    return columns


def _in_words(cls: type) -> str:
    """The name of a class in words, such as "my measurement"."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", cls.__name__).lower()


def _column(value: Any) -> Any:
    if isinstance(value, Path):
        return value.name
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, tuple | list):
        content: Any = [_column(each) for each in value]
        kind, told = f"{len(value)} values", content
    else:
        content = dataclass_json.encode(value, FUNCTIONS)
        kind, told = type(value).__name__, results.code(content)
    # A column stands in names of files, so what is long is told by its kind and a digest.
    short = len(results.code(content)) <= _LONGEST
    return told if short else f"{kind} {files.json_digest(content)[:8]}"


def place_of(condition: Condition) -> str:
    """The class of a condition with its file and line, for messages about a user's code."""
    cls = type(condition)
    try:
        _, line = inspect.getsourcelines(cls)
        return f"{cls.__name__} ({inspect.getfile(cls)}, line {line})"
    except (OSError, TypeError):
        return cls.__name__


def check_row(condition: Condition) -> dict[str, Any]:
    """The row of a condition.

    Raises:
      KindError: if a user's ``row`` returns something else.
      ValueError: for a column that every row has, or a value that no row can have.
    """
    found: Any = condition.row() if callable(condition.row) else "an attribute"
    if not isinstance(found, dict) or not isinstance(found.get("condition"), str):
        raise KindError(
            f"{place_of(condition)}: row() must return a dictionary with the text 'condition', got "
            f"{found!r:.80}"
        )
    found = {name: _plain(value) for name, value in found.items()}
    _check_columns(f"{place_of(condition)}: row()", found, _OF_KIND)
    return found


def accuracy_numbers(
    arrays: Mapping[str, np.ndarray], main: bool = True, **columns: Any
) -> list[Number]:
    """The numbers of judged images, see ``judging.judge``: the accuracy, and what its draws say.

    "standard error over draws" shows the effect of the network's noise, for fixed images. "right in
    every draw" is the share of images that were; it falls with the number of draws.
    """
    right = arrays["right"]
    every = float(right.all(axis=1).mean())
    measured = [
        number("accuracy", of=right, main=main, **columns),
        number("right in every draw", every, unit="share", **columns),
    ]
    draws = right.mean(axis=0, dtype=np.float64)
    if len(draws) > 1:
        error = float(draws.std(ddof=1)) / len(draws) ** 0.5
        measured.append(number("standard error over draws", error, unit="share", **columns))
    if "right in top 5" in arrays:
        top = arrays["right in top 5"]
        measured.append(number("top-5 accuracy", of=top, main=main, **columns))
    return measured
