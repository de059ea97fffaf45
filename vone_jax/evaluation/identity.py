"""The identity of a result: what was measured, of what, and by which code.

A kind's own code is part of what it is. The code of the project is told by its version, and that of
a user by a fingerprint of what it computes.
"""

import dataclasses
import inspect
import json
import types
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vone_jax import data, files, functions, results
from vone_jax import mesh as meshes
from vone_jax.attacks import Attack, Transfer
from vone_jax.data.sources import class_identifier
from vone_jax.dataclass_json import encode, stored_fields
from vone_jax.evaluation.condition import Condition, Judged
from vone_jax.evaluation.evaluation import Evaluation
from vone_jax.evaluation.judging import Batch
from vone_jax.network import Network

# The words of an identity that change no number: the name of a network and its place, and that of
# a data set, whose fingerprint decides.
_NAMES = {"network": ("name", "label", "source"), "dataset": ("name",)}


def identity(evaluation: Evaluation, condition: Condition) -> dict[str, Any]:
    """The identity of the result of a condition, see ``results.Result``."""
    found = {
        "condition": _described(evaluation, condition),
        "protocol": encode(evaluation.protocol_of(condition)),
        "dataset": _dataset(evaluation, condition),
        "network": _network(evaluation.network),
        "seed": evaluation.seed,
        "tag": evaluation.tag,
        # Layers that are shown images of their own are recorded with full products.
        "matmul_precision": evaluation.matmul_precision if condition.examples != 0 else "highest",
        "dtype": evaluation.network.dtype,
    }
    if condition.under_attack_noise:
        found["attack_noise"] = encode(evaluation.attack_noise)
    # As it is read from a file, so that tuples are lists.
    return json.loads(json.dumps(found))


def decisive(identity: dict[str, Any]) -> dict[str, Any]:
    """The part of an identity that decides whether two results are of the same measurement.

    A network that was renamed, and a folder that was moved, are the same.
    """
    return identity | {
        field: {n: v for n, v in identity[field].items() if n not in hidden}
        for field, hidden in _NAMES.items()
    }


def told_apart(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """What makes two identities those of different measurements, a line each.

    Code of a user is told apart by its program. Where another version of JAX or another kind of
    device wrote the other program, the code cannot be compared. If the weights are those of a
    module, the measurement is taken for the same one, with a warning.
    """
    ours, theirs = (decisive(each) for each in (ours, theirs))
    here, there = (each["network"].get("program") for each in (ours, theirs))
    if here is None or there is None or _writer(here) == _writer(there):
        return results.differences(ours, theirs)
    told = (
        f"its network has code of yours, whose program {_writer(there)} wrote; it cannot be "
        f"compared with that of {_writer(here)}"
    )
    functions = "model" not in ours["network"]["description"]
    # The checksum of functions is that of their program.
    hidden = ("program", "checksum") if functions else ("program",)
    ours, theirs = (
        each | {"network": {n: x for n, x in each["network"].items() if n not in hidden}}
        for each in (ours, theirs)
    )
    if functions:
        return [told, *results.differences(ours, theirs)]
    if not (found := results.differences(ours, theirs)):
        warnings.warn(f"a result is taken as it is: {told}", stacklevel=2)
    return found


def _writer(program: dict[str, str]) -> str:
    return f"JAX {program['jax']} on a {program['device']}"


def _described(evaluation: Evaluation, condition: Condition) -> dict[str, Any]:
    """The condition, with what its fields do not show: other networks, and a user's code."""
    described = condition.identity()
    if condition.asks_others and evaluation.others:
        described["networks"] = [[x.description, x.checksum] for x in evaluation.others]
    for attack in condition.attacks:
        if found := surrogates(attack, *evaluation.network.inputs()):
            described["surrogates"] = found
    if is_of_user(condition):
        described |= _program(evaluation, condition)
    return described


def is_of_user(condition: Condition) -> bool:
    """Whether a condition is of a class of a user, or a field of it holds one, or a function."""
    return any(not each.__module__.startswith("vone_jax.") for each in _code(condition))


def surrogates(attack: Attack, keys: Any, images: Any) -> list[str]:
    """The fingerprints of the classifiers from which an attack carries images over.

    The keys (N,) and images (N, H, W, C) may be shapes and dtypes.
    """
    found = [each.surrogate for each in _wrapped(attack) if isinstance(each, Transfer)]
    # The leaves of a Partial become constants of the program.
    return [functions.digest(lambda *x, f=f: f(*x), keys, images)[:16] for f in found]


def _wrapped(attack: Attack) -> list[Attack]:
    """An attack and those within it."""
    inner = vars(attack).get("attack"), *vars(attack).get("attacks", ())
    return [attack, *(one for each in inner if each is not None for one in _wrapped(each))]


def _program(evaluation: Evaluation, condition: Condition) -> dict[str, Any]:
    """A digest of what a user's code computes of a batch, without the network's weights.

    Code that Python computes on the host cannot be traced. Its digest is that of its files, and
    of what it computes of two images.
    """
    network = evaluation.network
    # A network of functions keeps its weights in its program.
    weights = network.variables

    def made(weights: Any, keys: jax.Array, labels: jax.Array, images: jax.Array) -> Any:
        used = network if network.model is None else network.placed(lambda _: weights)
        batch = evaluation.data.batch(used, {}, keys, images, labels)
        return condition.make(_judged(batch, evaluation, condition))

    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    labels = jax.ShapeDtypeStruct((2,), np.int32)
    images = jax.ShapeDtypeStruct((2, *network.image_shape), np.float32)
    traced = ""
    try:
        function = functions.fingerprinted(made, weights, keys, labels, images)
        traced = function.fingerprint
        if not function.callbacks:
            return {"program": traced}
    except Exception:
        pass  # It is not a program of JAX.
    digest = f"{_files_of_user(condition)}{_computed(evaluation, condition)}"
    return {"program": f"{traced[:16]}{digest}", "on_host": True}


def _judged(batch: Batch, evaluation: Evaluation, condition: Condition) -> Batch:
    protocol = evaluation.protocol_of(condition)
    return dataclasses.replace(batch, protocol=protocol, attack_noise=evaluation.attack_noise)


def _computed(evaluation: Evaluation, condition: Condition) -> str:
    """A digest of what a condition computes of two images; empty if it does not repeat it."""
    if not condition.by_example or condition.long:
        return ""  # It may take hours.
    images = jax.random.uniform(jax.random.key(0), (2, *evaluation.network.image_shape))
    keys, labels = jax.random.split(jax.random.key(0), 2), jnp.zeros(2, jnp.int32)
    batch = evaluation.data.batch(*evaluation.data.placed, keys, images, labels)
    batch = _judged(batch, evaluation, condition)
    try:
        first, second = (
            condition.perturb(batch) if isinstance(condition, Judged) else condition.make(batch)
            for _ in range(2)
        )
    except Exception:
        return ""  # The evaluation itself reports the error.
    one, two = (files.array_checksum(jax.tree.leaves(meshes.fetch(x))) for x in (first, second))
    return f"{one:08x}" if one == two else ""


def _dataset(evaluation: Evaluation, condition: Condition) -> dict[str, Any]:
    if condition.examples == 0:
        row = condition.row()
        return {"name": row.get("dataset"), "examples": row.get("examples")}
    examples, classes = evaluation.data.of(condition), evaluation.data.classes
    # By which class each label is counted.
    labels = [list(evaluation.class_names), None if classes is None else classes.tolist()]
    checksums = evaluation.data.checksums(examples.indices)
    return {
        "name": examples.name,
        "split": examples.split,
        "examples": len(examples),
        "total": examples.total,
        "classes": examples.num_classes,
        "labels": f"{zlib.crc32(json.dumps(labels).encode()):08x}",
        "fingerprint": data.fingerprint(examples, checksums),
        # ImageNet's own classes, on which published means are.
        "wordnet": set(map(class_identifier, examples.class_names))
        == set(data.imagenet_class_names()),
    }


def _network(network: Network) -> dict[str, Any]:
    """The network for a result file. Its front end and its weights are part of its identity."""
    same = ("name", "label", "source", "description", "checksum", "image_size", "stochastic")
    return {name: getattr(network, name) for name in same} | {
        "trained_noise": encode(network.trained_noise),
        "test_noise": encode(network.noise),
        "program": network.program,
    }


def _code(value: Any) -> Iterator[Any]:
    """The classes and functions of a record and its fields, of those that are stored."""
    if isinstance(value, types.FunctionType):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _code(each)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type | Network):
        yield type(value)
        for field in stored_fields(type(value)):
            yield from _code(getattr(value, field.name))


def _files_of_user(value: Any) -> str:
    """A digest of the files of the classes and functions of a user."""
    return "".join(
        f"{zlib.crc32(Path(path).read_bytes()):08x}"
        for path in sorted({inspect.getfile(each) for each in _code(value)})
    )
