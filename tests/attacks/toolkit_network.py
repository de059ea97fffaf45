"""One small network in JAX and in PyTorch, and the CIFAR-10 images that foolbox ships.

Two 3x3 convolutions of stride 2 with 16 and 32 channels, ReLU, a mean over space and a linear
map to 10 classes, with the same seeded weights. Its own predictions serve as labels.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="module", autouse=True)
def full_speed(optimised):
    """For modules that import it: here the steps take longer than the compilation."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def weights() -> dict[str, np.ndarray]:
    """Weights in PyTorch's layout: (out, in, height, width) and (out, in).

    The bias makes the mean logits over the images zero, or one class would win everywhere.
    """
    values = draw_weights(0)
    centre = np.mean(_features(values, jnp.asarray(images())) @ values["head"].T, axis=0)
    return values | {"bias": -np.asarray(centre)}


def draw_weights(seed: int) -> dict[str, np.ndarray]:
    """Weights with a bias of zero."""
    rng = np.random.default_rng(seed)
    shapes = {"first": (16, 3, 3, 3), "second": (32, 16, 3, 3), "head": (10, 32)}
    values = {
        name: (rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[1:]))).astype(np.float32)
        for name, shape in shapes.items()
    }
    # The factor spreads the logits, so that losses are of order one.
    values["head"] *= 20
    return values | {"bias": np.zeros(10, np.float32)}


@functools.cache
def images() -> np.ndarray:
    """20 images of CIFAR-10 from the foolbox package, float32 NHWC in [0, 1]."""
    import foolbox

    folder = Path(foolbox.__file__).parent / "data"
    files = sorted(folder.glob("cifar10_*.png"))
    return np.stack([np.asarray(Image.open(file), np.float32) / 255 for file in files])


def logits_fn(key, images: jax.Array) -> jax.Array:
    """The network in JAX; it does not use its key."""
    del key
    return _features(weights(), images) @ weights()["head"].T + weights()["bias"][None]


def _features(parameters, images):
    hidden = images
    for name in ("first", "second"):
        hidden = jax.nn.relu(jax.lax.conv_general_dilated(
            hidden, parameters[name], (2, 2), ((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "OIHW", "NHWC"),
        ))  # fmt: skip
    return jnp.mean(hidden, axis=(1, 2))


def torch_network():
    """The network in PyTorch, on contiguous NCHW tensors."""
    import torch

    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, value in weights().items():
                self.register_buffer(name, torch.from_numpy(value))

        def forward(self, images):
            hidden = images
            for kernel in (self.first, self.second):
                hidden = torch.nn.functional.conv2d(hidden, kernel, stride=2, padding=1).relu()
            return hidden.mean(dim=(2, 3)) @ self.head.T + self.bias

    return Network().eval()


def to_torch(images):
    """NHWC arrays as contiguous NCHW tensors."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(images), -1, 1)))


def torch_labels(labels):
    """Labels as PyTorch's int64."""
    import torch

    return torch.from_numpy(np.asarray(labels, np.int64))


def from_torch(images) -> np.ndarray:
    """NCHW tensors as NHWC arrays."""
    return np.ascontiguousarray(np.moveaxis(images.detach().numpy(), 1, -1))


def labels() -> np.ndarray:
    """The network's predictions on the images, int32 of shape (20,)."""
    return np.asarray(jnp.argmax(logits_fn(None, jnp.asarray(images())), axis=-1), np.int32)
