"""Tensors by the names of their files, read with the tables of the architectures, both ways.

An architecture has its names in its own file, see ``models.Architecture.names``. A name of this
project is made of modules, ``stem/conv1.weight`` or ``layer1_0/bn1.running_mean``.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from vone_jax import arguments, models
from vone_jax.convert.torch_file import CheckpointError
from vone_jax.models.architecture import Architecture, Names, Tensors, kinds

# Tensors of the front ends of VOneNets and EVNets.
BANKS = {
    kind: tuple(f"{block}.simple_conv_{phase}.weight" for phase in ("q0", "q1"))
    for kind, block in (("vone_", "vone_block"), ("ev_", "voneblock"))
}
BOTTLENECKS = {"vone_": "bottleneck.weight", "ev_": "voneblock_bottleneck.weight"}
# In front of the names of the back end, if it is behind V1.
BACK_END = "model."
# How PyTorch calls the variables of modules; it counts batches, which nothing reads.
COUNTER = "num_batches_tracked"
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_NUMBER = re.compile(r"\{(\d*)([a-z])([+-]\d+)?\}")


def leaf_name(path: tuple[str, ...]) -> str:
    """The name of a variable with a path such as ``("back_end", "layer1_0", "bn1", "mean")``."""
    part, *modules, leaf = path
    if part != "back_end":
        modules = [part, *modules]
    if leaf in _LEAVES:
        return f"{'/'.join(modules)}.{_LEAVES[leaf]}"
    return "/".join((*modules, leaf))


class Table:
    """Names of this project and of a file, from either to the other."""

    def __init__(self, names: Names):
        pairs = [
            (ours, theirs)
            for ours, each in names.items()
            for theirs in ((each,) if isinstance(each, str) else each)
        ]
        self._ours = [(_pattern(ours), _template(theirs)) for ours, theirs in pairs]
        self._theirs = [(_pattern(theirs), _template(ours)) for ours, theirs in pairs]

    def theirs(self, name: str) -> str | None:
        """The name in files of a tensor of this project, if there is one."""
        return _translated(name, self._ours)

    def ours(self, name: str) -> str | None:
        """The name in this project of a tensor of a file, if there is one."""
        return _translated(name, self._theirs)


@functools.cache
def _table(items: tuple[tuple[str, str | tuple[str, ...]], ...]) -> Table:
    return Table(dict(items))


def _numbers(text: str) -> Iterable[tuple[int, str, int]]:
    """Factor, letter and summand of each number in a name."""
    for factor, letter, summand in _NUMBER.findall(text):
        yield int(factor or 1), letter, int(summand or 0)


def _pattern(text: str) -> Callable[[str], dict[str, int] | None]:
    """A function that reads the numbers in a name, or returns None for other names."""
    literal = _NUMBER.split(text)[::4]
    pattern, numbers = re.compile(r"(\d+)".join(map(re.escape, literal))), [*_numbers(text)]

    def read(name: str) -> dict[str, int] | None:
        found = pattern.fullmatch(name)
        if found is None:
            return None
        values: dict[str, int] = {}
        for value, (factor, letter, summand) in zip(found.groups(), numbers, strict=True):
            number, rest = divmod(int(value) - summand, factor)
            if rest or values.setdefault(letter, number) != number:
                return None
        return values

    return read


def _template(text: str) -> Callable[[dict[str, int]], str]:
    """A function that makes a name of its numbers."""
    literal, numbers = _NUMBER.split(text)[::4], [*_numbers(text)]

    def write(values: dict[str, int]) -> str:
        words = [str(factor * values[letter] + summand) for factor, letter, summand in numbers]
        return "".join(part + word for part, word in zip(literal, [*words, ""], strict=True))

    return write


def _translated(name: str, pairs: Iterable[tuple[Callable, Callable]]) -> str | None:
    """A name by the first pair that has it, as a tensor or as one of a module."""
    module, dot, ending = name.rpartition(".")
    for read, write in pairs:
        for text, rest in ((name, ""), (module, dot + ending)):
            if (values := read(text)) is not None:
                return write(values) + rest
    return None


def table(spec: models.Spec, convention: str) -> tuple[str, Table]:
    """The names of a network in files of a convention, or of the only one that it has."""
    names = models.family(spec.name).names(spec.base, spec.front)
    every = {each for cls in kinds() for name in cls.SIZES for each in cls.names(name, "")}
    arguments.choice("convention", convention, sorted(every))
    found = convention if convention in names else next(iter(names))
    return found, _table(tuple(names[found].items()))


def read_names(
    cls: type[Architecture], tensors: Mapping[str, Any], front: str, file_name: str = ""
) -> Tensors | None:
    """The tensors of a file by our names, if they are of an architecture.

    Raises:
      CheckpointError: for a network of this architecture that is not known.
    """
    inside = BACK_END if front else ""
    seen: list[Names] = []
    for name in cls.SIZES:
        for convention, names in cls.names(name, front).items():
            if any(names is other for other in seen):
                continue
            seen.append(names)
            ours = _table(tuple(names.items())).ours
            shapes = {
                known: tuple(np.shape(tensor))
                for theirs, tensor in tensors.items()
                if theirs.startswith(inside)
                and (known := ours(theirs.removeprefix(inside))) is not None
            }
            found = Tensors(shapes, convention, file_name)
            try:
                if cls.told(found, {}) is not None:
                    return found
            except ValueError as error:
                raise CheckpointError(str(error)) from None
    return None


def recognise(
    tensors: Mapping[str, Any], name: str | None = None, stored: str = "", file_name: str = ""
) -> tuple[str, Tensors]:
    """The name of a network, and its tensors by the names of this project.

    Args:
      tensors: by their names in the file.
      name: that of the network, if it is given.
      stored: the name in the flags of the file, without underscores.
      file_name: that of the file.

    Raises:
      CheckpointError: for an unknown network, or a flag of another one.
    """
    if name is not None:
        found = read_names(models.family(name), tensors, models.prefix(name), file_name)
        return name, found or Tensors({}, "", file_name)
    fronts = (kind for kind, bank in BANKS.items() if any(each in tensors for each in bank))
    front = next(fronts, "")
    for cls in kinds():
        if (found := read_names(cls, tensors, front, file_name)) is None:
            continue
        fields = cls.told(found, {})
        assert fields is not None
        possible: list[str] = fields["name"]
        if stored and stored not in {each.replace("_", "") for each in possible}:
            raise CheckpointError(
                f"the flags say {stored[:40]!r}, but the tensors are those of {front}{possible[0]}"
            )
        return front + _likely(cls, possible, fields.get("width"), front, stored, file_name), found
    some = ", ".join(each[:80] for each in sorted(tensors)[:8])
    names = models.list_models(exclude_filters=[f"{each}*" for each in models.PREFIXES])
    raise CheckpointError(
        f"the state dict is of no known architecture ({', '.join(names)}, most also behind a "
        f"VOneBlock); its tensors begin with: {some[:400]}. Any other torch.nn.Module is opened by "
        "a function, see docs/networks.md#a-module-of-pytorch"
    )


def _likely(
    cls: type[Architecture],
    possible: list[str],
    width: int | None,
    front: str,
    stored: str,
    file_name: str,
) -> str:
    """The network of a flag; else that after which a file is named; else the first."""
    by_flag = [name for name in possible if name.replace("_", "") == stored]
    words = {name: name.split("_")[0] for name in possible if cls.SIZES[name].width == width}
    by_file = [name for name, word in words.items() if word in file_name.lower()]
    # "deit" says more than "vit", which older files of DeiT also have in their names.
    by_file.sort(key=lambda name: -len(words[name]))
    name = (by_flag or by_file or possible)[0]
    if not (front and getattr(cls.SIZES[name], "alone", False)):
        return name
    # Behind V1 it is another network of the table.
    others = (each for each in possible if not getattr(cls.SIZES[each], "alone", False))
    return next(each for each in others if cls.SIZES[each].width == cls.SIZES[name].width)
