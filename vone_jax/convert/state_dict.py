"""PyTorch state dicts as Flax variables, and back.

The names are those of torchvision (ResNet, AlexNet, EfficientNet-B0), of CORnet, of the published
EfficientNet-Lite0 and of the published checkpoints of VOneNets and EVNets, where the back end is
called ``model``. For transformers and ConvNeXts see ``trunks.py``.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vone_jax.convert import trunks
from vone_jax.convert.architecture import BANKS, BOTTLENECKS
from vone_jax.convert.subcortical import subcortical_tensors
from vone_jax.convert.torch_file import CheckpointError
from vone_jax.models import V1_MODULES, Model, VOneNet, init
from vone_jax.models.alexnet import AlexNetBackEnd
from vone_jax.models.convnext import ConvNeXtBackEnd
from vone_jax.models.cornet import CORnetSBackEnd, CORnetZBackEnd
from vone_jax.models.efficientnet import STAGES, EfficientNetBackEnd
from vone_jax.models.vit import ViTBackEnd

_COUNTER = "num_batches_tracked"
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
_ALEXNET_CONVOLUTIONS = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}
_ALEXNET_LINEAR = {"fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"}
# EfficientNets: modules outside blocks, and modules of a block. The numbers in B0 are those of a
# block with expansion; in a block without expansion they are smaller by one.
_LITE = {
    "conv": "_conv_stem",
    "conv_norm": "_bn0",
    "head": "_conv_head",
    "head_norm": "_bn1",
    "fc": "_fc",
    "expand": "_expand_conv",
    "expand_norm": "_bn0",
    "depthwise": "_depthwise_conv",
    "depthwise_norm": "_bn1",
    "project": "_project_conv",
    "project_norm": "_bn2",
}
_B0 = {
    "expand": (0, "0"),
    "expand_norm": (0, "1"),
    "depthwise": (1, "0"),
    "depthwise_norm": (1, "1"),
    "squeeze": (2, "fc1"),
    "excite": (2, "fc2"),
    "project": (3, "0"),
    "project_norm": (3, "1"),
}


class Source(NamedTuple):
    """The name of the PyTorch tensor for a leaf, without ``module.``, and layout conversions."""

    name: str
    to_flax: Callable[[np.ndarray], np.ndarray]
    to_torch: Callable[[np.ndarray], np.ndarray]


def source(model: Model, path: tuple[str, ...], convention: trunks.Convention = "timm") -> Source:
    """The source of a leaf with a path such as ``("back_end", "fc", "kernel")``.

    Transformers and ConvNeXts have the names of ``convention``.
    """
    part, *modules, leaf = path
    back_end, with_v1 = model.back_end, isinstance(model, VOneNet)
    if part != "bottleneck" and isinstance(back_end, ViTBackEnd | ConvNeXtBackEnd):
        name = trunks.tensor_name(back_end, path, convention)
        scales = leaf == "gamma" and convention == "torchvision"
        layouts = (np.ravel, _scale_to_torch) if scales else (_to_flax, _to_torch)
        return Source(f"model.{name}" if with_v1 else name, *layouts)
    if part == "bottleneck":
        assert isinstance(model, VOneNet)
        name = BOTTLENECKS[_kind(model)].removesuffix(".weight")
    elif isinstance(back_end, AlexNetBackEnd):
        name = _alexnet_module(modules[0], with_v1)
    elif isinstance(back_end, EfficientNetBackEnd):
        name = _efficientnet_module(*modules, lite=back_end.lite, with_v1=with_v1)
    else:
        name = ".".join(_module(m) for m in modules)
    if isinstance(back_end, CORnetSBackEnd) and part == "stem":
        name = f"V1.{name}"
    if isinstance(back_end, CORnetSBackEnd | CORnetZBackEnd) and name == "linear":
        name = f"decoder.{name}"
    if with_v1 and part == "back_end":
        name = f"model.{name}"
    flattened = isinstance(back_end, AlexNetBackEnd) and path[1:] == ("fc6", "kernel")
    layouts = _after_flatten(back_end.pool_size) if flattened else (_to_flax, _to_torch)
    return Source(f"{name}.{_LEAVES[leaf]}", *layouts)


def _kind(model: VOneNet) -> str:
    """The beginning of the network's name, see ``names.PREFIXES``."""
    return "vone_" if model.subcortical is None else "ev_"


def _module(name: str) -> str:
    """layer1_0 -> layer1.0, downsample_0 -> downsample.0; CORnet's norm1_0 stays."""
    return name.replace("_", ".") if name.startswith(("layer", "downsample")) else name


def _alexnet_module(name: str, with_v1: bool) -> str:
    """The module of AlexNet. Behind V1, its numbers begin at the second convolution."""
    if name in _ALEXNET_LINEAR:
        return _ALEXNET_LINEAR[name]
    return f"features.{_ALEXNET_CONVOLUTIONS[name] - 3 * with_v1}"


def _efficientnet_module(place: str, name: str = "", *, lite: bool, with_v1: bool) -> str:
    """The module ``name`` of the block ``place``, such as stage3_1; or the module ``place`` itself.

    Lite0 numbers blocks through all stages. In B0, the stem is number 0 and the stages follow;
    behind V1 there is no stem, as in EVNet.
    """
    if not name and lite:
        return _LITE[place]
    if place == "fc":
        return "classifier.1"
    if not name:
        number = 0 if place.startswith("conv") else len(STAGES) + 1 - with_v1
        return f"features.{number}.{int(place.endswith('_norm'))}"
    stage, block = map(int, place.removeprefix("stage").split("_"))
    if lite:
        return f"_blocks.{sum(count for *_, count in STAGES[: stage - 1]) + block}.{_LITE[name]}"
    number, inner = _B0[name]
    unexpanded = STAGES[stage - 1][0] == 1
    return f"features.{stage - with_v1}.{block}.block.{number - unexpanded}.{inner}"


def _to_flax(tensor: np.ndarray) -> np.ndarray:
    """OIHW -> HWIO for convolutions, (out, in) -> (in, out) for linear layers."""
    return tensor.transpose({4: (2, 3, 1, 0), 2: (1, 0)}.get(tensor.ndim, range(tensor.ndim)))


def _to_torch(leaf: np.ndarray) -> np.ndarray:
    """HWIO -> OIHW for convolutions, (in, out) -> (out, in) for linear layers."""
    return leaf.transpose({4: (3, 2, 0, 1), 2: (1, 0)}.get(leaf.ndim, range(leaf.ndim)))


def _scale_to_torch(leaf: np.ndarray) -> np.ndarray:
    """(c,) -> (c, 1, 1), the shape of a layer scale in torchvision."""
    return leaf[:, None, None]


def _after_flatten(size: int) -> tuple[Callable[[np.ndarray], np.ndarray], ...]:
    """Layouts of the linear layer behind a size x size map: PyTorch flattens CHW, Flax HWC."""

    def to_flax(tensor: np.ndarray) -> np.ndarray:
        if tensor.ndim != 2 or tensor.shape[1] % size**2:
            return tensor  # The shape check reports the misfit.
        maps = tensor.reshape(tensor.shape[0], -1, size, size)
        return maps.transpose(2, 3, 1, 0).reshape(tensor.shape[1], tensor.shape[0])

    def to_torch(leaf: np.ndarray) -> np.ndarray:
        maps = leaf.reshape(size, size, -1, leaf.shape[1])
        return maps.transpose(3, 2, 0, 1).reshape(leaf.shape[1], leaf.shape[0])

    return to_flax, to_torch


def from_state_dict(model: Model, state_dict: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Fill the variables of a network with the tensors of a PyTorch state dict.

    The network has the architecture, width and number of classes of the state dict. The names have
    no ``module.`` in front. The state dict must not contain the Gabor bank (``vone_block.*``) or
    the subcortical stage, which are part of ``model``. ``num_batches_tracked`` is ignored.

    Returns:
      float32 ``{"params": ..., "batch_stats": ...}``, the latter for networks with batch norms.

    Raises:
      CheckpointError: (a ValueError) listing all problems: leaves without a tensor, tensors
        without a leaf, shapes that differ, values that are not finite or not floating point,
        variances below 0.
    """
    variables, problems = fill(model, state_dict)
    if problems:
        raise CheckpointError("the state dict does not fit the network:", problems)
    return variables


def fill(model: Model, state_dict: Mapping[str, np.ndarray]) -> tuple[dict[str, Any], list[str]]:
    """Do the same as ``from_state_dict``, but return the problems instead of raising them."""
    targets = abstract_variables(model)
    state_dict = trunks.current(state_dict)
    inner = {name.removeprefix("model.") for name in state_dict}
    _, convention = trunks.convention_of(inner) or (False, "timm")
    unused = {name for name in state_dict if not name.endswith(_COUNTER)}
    problems, filled = [], {}
    for path, target in targets.items():
        origin = source(model, path[1:], convention)
        if origin.name not in state_dict:
            problems.append(f"missing: {origin.name} for {'/'.join(path)}")
            continue
        unused.discard(origin.name)
        tensor = np.asarray(state_dict[origin.name])
        if not jnp.issubdtype(tensor.dtype, jnp.floating):
            problems.append(f"type: {origin.name} is {tensor.dtype}, not floating point")
            continue
        value = origin.to_flax(tensor)
        if value.shape != target.shape:
            problems.append(
                f"shape: {origin.name} gives {value.shape}, {'/'.join(path)} has {target.shape}"
            )
            continue
        value = np.ascontiguousarray(value, np.float32)
        if not np.all(np.isfinite(value)):
            problems.append(f"not finite: {origin.name}")
        if path[-1] == "var" and np.any(value < 0):
            problems.append(f"negative variance: {origin.name}")
        # A copy: the tensor may be a view of a file.
        filled[path] = jnp.array(value)
    problems += [f"unused: {name}" for name in sorted(unused)]
    return unflatten_dict(filled), problems


def to_torch(
    model: Model, variables: Any, convention: trunks.Convention = "timm"
) -> dict[str, np.ndarray]:
    """The state dict that the original's (or torchvision's, CORnet's) model class loads.

    Transformers and ConvNeXts have the names of ``convention``, "timm", "torchvision" or "meta".
    For a VOneNet it includes the Gabor bank, with every filter in the one input channel that it
    reads; for an EVNet, also the subcortical stage. ``num_batches_tracked`` is 0, as no batches are
    counted.

    Returns:
      float32 (int64 for the counters) NumPy arrays by name. ``from_torch`` of a file with them
      gives back the same model and variables, bit for bit.

    Raises:
      ValueError: if variables are not those of the model, or if it has a learned normalisation,
        for which the original has no place. ``models.with_fixed_bank`` makes a tuned bank fit.
    """
    values = checked_variables(model, flatten_dict(variables))
    if names := sorted({path[1] for path in values} & {*V1_MODULES}):
        cure = "; models.with_fixed_bank makes a tuned bank fit" if "block" in names else ""
        raise ValueError(
            f"the original has no place for what is learned in {', '.join(names)}{cure}"
        )
    tensors = _front_end_tensors(model) if isinstance(model, VOneNet) else {}
    for path, value in values.items():
        origin = source(model, path[1:], convention)
        tensors[origin.name] = np.ascontiguousarray(origin.to_torch(value))
        if path[-1] == "var":
            tensors[origin.name.replace("running_var", _COUNTER)] = np.array(0, np.int64)
    return tensors


def _front_end_tensors(model: VOneNet) -> dict[str, np.ndarray]:
    tensors = {} if model.subcortical is None else subcortical_tensors(model.subcortical)
    parameters = model.v1.gabor_parameters()
    channels = (parameters.channel, parameters.channel_quadrature)
    bank = BANKS[_kind(model)]
    for name, kernels, channel in zip(bank, model.v1.gabor_kernels(), channels, strict=True):
        n, k, _ = kernels.shape
        tensors[name] = np.zeros((n, model.v1.in_channels, k, k), np.float32)
        tensors[name][np.arange(n), channel] = kernels
    return tensors


def abstract_variables(model: Model) -> dict[tuple[str, ...], Any]:
    """Path -> shape and type of every variable of a network, without computing anything."""
    return flatten_dict(jax.eval_shape(lambda key: init(model, key), jax.random.key(0)))


def checked_variables(
    model: Model, variables: Mapping[tuple[str, ...], Any]
) -> dict[tuple[str, ...], np.ndarray]:
    """Return variables as NumPy arrays in the network's order; raise if they do not fit it."""
    arrays = {path: np.asarray(leaf) for path, leaf in variables.items()}
    expected = abstract_variables(model)
    problems = [f"missing: {'.'.join(path)}" for path in sorted(expected.keys() - arrays.keys())]
    problems += [f"unused: {'.'.join(path)}" for path in sorted(arrays.keys() - expected.keys())]
    for path in sorted(expected.keys() & arrays.keys()):
        name, array, shape = ".".join(path), arrays[path], expected[path].shape
        if array.shape != shape or array.dtype != np.float32:
            problems.append(
                f"shape: {name} is {array.dtype}{array.shape}, the network has float32{shape}"
            )
        elif not np.isfinite(array).all():
            problems.append(f"not finite: {name}")
    if problems:
        raise CheckpointError("the variables do not fit the network:", problems)
    return {path: arrays[path] for path in expected}
