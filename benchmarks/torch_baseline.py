"""A PyTorch VOneNet as usually written: two dense banks, ``torch.randn``, torchvision's trunk.

It is written from the published equations. Each function imports PyTorch when it is called, because
the benchmarks also run without PyTorch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.naive import dense_kernels
from benchmarks.timing import Program
from vone_jax.v1 import NeuronalNoise, VOneBlockConfig


def device() -> str:
    """Return PyTorch's device, after switching its convolutions from TF32 to full float32."""
    import torch

    torch.backends.cudnn.allow_tf32 = False
    return "cuda" if torch.cuda.is_available() else "cpu"


def front_end(config: VOneBlockConfig) -> Any:
    """Return the block of a configuration as a module on NCHW images in [0, 1]."""
    import torch
    from torch import nn

    def convolution(kernels: np.ndarray):
        weight = torch.from_numpy(np.ascontiguousarray(kernels.transpose(3, 2, 0, 1)))
        shape = (config.in_channels, config.num_channels, config.kernel_size)
        conv = nn.Conv2d(*shape, stride=config.stride, padding=config.kernel_size // 2, bias=False)
        conv.weight = nn.Parameter(weight, requires_grad=False)
        return conv

    class FrontEnd(nn.Module):
        def __init__(self):
            super().__init__()
            self.q0, self.q1 = map(convolution, dense_kernels(config))

        def forward(self, images):
            images = (images - config.image_mean) / config.image_std
            q0, q1 = self.q0(images), self.q1(images)
            n = config.simple_channels
            simple = torch.relu(q0[:, :n])
            complex_ = torch.sqrt(q0[:, n:] ** 2 + q1[:, n:] ** 2) / 2**0.5
            responses = config.k_exc * torch.cat([simple, complex_], dim=1)
            noise = config.noise
            if noise is None:
                return responses
            assert isinstance(noise, NeuronalNoise)
            mean = noise.scale * responses + noise.level
            count = mean + torch.randn_like(mean) * torch.sqrt(torch.relu(mean) + 1e-4)
            return torch.relu((count - noise.level) / noise.scale)

    return FrontEnd().to(device())


def network(config: VOneBlockConfig, name: str, num_classes: int) -> Any:
    """Return the front end, a 1x1 bottleneck and a torchvision ResNet without its stem."""
    import torchvision
    from torch import nn

    trunk = getattr(torchvision.models, name)(num_classes=num_classes)
    for stem in ("conv1", "bn1", "relu", "maxpool"):
        setattr(trunk, stem, nn.Identity())
    bottleneck = nn.Conv2d(config.num_channels, 64, 1, bias=False)
    return nn.Sequential(front_end(config), bottleneck, trunk).to(device())


def small_cnn(weights: Sequence[Any]) -> Any:
    """Return three 3x3 convolutions with ReLU, average pooling and a linear layer, without bias.

    Args:
      weights: three kernels (HWIO) and the matrix of the linear layer, as arrays.
    """
    import torch
    from torch import nn

    def with_weight(layer: Any, weight: Any) -> Any:
        weight = torch.from_numpy(np.ascontiguousarray(weight))
        layer.weight = nn.Parameter(weight, requires_grad=False)
        return layer

    layers = []
    for number, kernel in enumerate(weights[:-1]):
        kernel = np.asarray(kernel).transpose(3, 2, 0, 1)
        conv = nn.Conv2d(
            kernel.shape[1], kernel.shape[0], 3,
            stride=1 if number == 0 else 2, padding=1, bias=False,
        )  # fmt: skip
        layers += [with_weight(conv, kernel), nn.ReLU()]
    matrix = np.asarray(weights[-1]).T
    linear = with_weight(nn.Linear(matrix.shape[1], matrix.shape[0], bias=False), matrix)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear).eval().to(device())


def from_tensor(images: Any) -> np.ndarray:
    """Return NCHW images on the device as NHWC images."""
    return images.detach().cpu().numpy().transpose(0, 2, 3, 1)


def tensors(images: np.ndarray, labels: np.ndarray) -> tuple[Any, Any]:
    """Return NHWC images and labels as NCHW tensors on the device."""
    import torch

    nchw = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return nchw.to(device()), torch.from_numpy(labels.astype(np.int64)).to(device())


def image_gradient(model: Any, images: Any, labels: Any) -> Any:
    """Return the gradient of the mean cross-entropy with respect to images."""
    import torch

    images = images.detach().requires_grad_()
    loss = torch.nn.functional.cross_entropy(model(images), labels)
    return torch.autograd.grad(loss, images)[0]


def program(
    run: Callable[[], Any], images: int, resisting: Callable[[Any], int] | None = None
) -> Program:
    """Build a program that waits for the device after each run."""
    import torch

    def run_and_wait() -> Any:
        result = run()
        if device() == "cuda":
            torch.cuda.synchronize()
        return result

    return Program(run_and_wait, images, resisting)
