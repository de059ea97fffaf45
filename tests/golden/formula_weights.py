"""The formula weights of README.md: every tensor is a function of its PyTorch name."""

import json
import zlib
from pathlib import Path

import numpy as np

_SHAPES = json.loads((Path(__file__).parent / "state_dict_keys.json").read_text())
_EVNET_SHAPES = json.loads((Path(__file__).parent / "evnet_state_dict_keys.json").read_text())


def state_dict(network: str) -> dict[str, np.ndarray]:
    """The state dict of a network of ``state_dict_keys.json``, without its Gabor bank."""
    return {
        name: tensor(name, tuple(shape))
        for name, shape in _SHAPES[network].items()
        if not name.startswith("vone_block.") and not name.endswith("num_batches_tracked")
    }


def evnet_shapes(network: str) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors of a network of ``evnet_state_dict_keys.json``."""
    return {name: tuple(shape) for name, shape in _EVNET_SHAPES[network].items()}


def evnet_state_dict(network: str) -> dict[str, np.ndarray]:
    """The state dict of an EVNet, without its front end."""
    fixed = ("subcorticalblock.", "voneblock.")
    drawn = {
        name: tensor(name, shape)
        for name, shape in evnet_shapes(network).items()
        if not name.startswith(fixed) and not name.endswith("num_batches_tracked")
    }
    if network == "evefficientnet_b0":
        # Without this factor, its logits do not depend on the image.
        return {n: t * np.float32(1.7) if t.ndim == 4 else t for n, t in drawn.items()}
    return drawn


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(name.encode())))
    if name.endswith("running_var"):
        value = 0.5 + rng.random(shape)
    elif name.endswith("running_mean"):
        value = 0.1 * rng.standard_normal(shape)
    elif name.endswith(".weight") and len(shape) == 1:
        value = 0.5 + 0.5 * rng.random(shape)
    elif name.endswith(".bias"):
        value = 0.1 * rng.standard_normal(shape)
    else:
        value = rng.standard_normal(shape) * np.sqrt(1.0 / np.prod(shape[1:]))
    return value.astype(np.float32)
