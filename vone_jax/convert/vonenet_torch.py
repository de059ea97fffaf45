"""A VOneNet in PyTorch, which loads the file that ``vone_jax.convert`` has written beside this one.

It needs PyTorch alone. Images are float32 (N, C, H, W) in [0, 1]; the normalisation is part of the
network. The noise of V1 is drawn in training and in evaluation; ``network.noisy = False`` switches
it off.

    network = load()
    logits = network(images)
    names = [CLASS_NAMES[number] for number in logits.argmax(1)]
"""

import math
from pathlib import Path

import torch
from torch import nn

CLASS_NAMES: tuple[str, ...] = ()

_NORMALIZATIONS = {
    "vonenet": ((0.5,), (0.5,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}


def load(path=None):
    """Return the network of a file in evaluation mode. Default: the file beside this one."""
    if path is None:
        path = Path(__file__).with_name(Path(__file__).name.replace("_torch.py", ".pth"))
    content = torch.load(path, map_location="cpu", weights_only=True)
    network = VOneNet(content["flags"], content["state_dict"])
    found = network.load_state_dict(content["state_dict"], strict=False)
    missing = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or found.unexpected_keys:
        raise ValueError(f"{path} is no VOneNet of this form: {missing or found.unexpected_keys}")
    return network.eval()


class VOneNet(nn.Module):
    """V1, a 1x1 bottleneck and the back end whose tensors a state dict has."""

    def __init__(self, flags, tensors):
        super().__init__()
        self.vone_block = VOneBlock(flags, tensors)
        self.bottleneck = _convolution(tensors["bottleneck.weight"])
        inner = {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
        kinds = {"layer1": ResNet, "features": AlexNet, "V2": CORnet}
        self.model = next(kinds[first] for n in inner if (first := n.split(".")[0]) in kinds)(inner)

    @property
    def noisy(self):
        """Whether V1 draws noise."""
        return self.vone_block.noisy

    @noisy.setter
    def noisy(self, noisy):
        self.vone_block.noisy = noisy

    def forward(self, images):
        return self.model(self.bottleneck(self.vone_block(images)))


class VOneBlock(nn.Module):
    """Simple cells k max(q0, 0) and complex cells k sqrt((q0^2 + q1^2) / 2), with noise."""

    simple_conv_q0: nn.Conv2d
    simple_conv_q1: nn.Conv2d

    def __init__(self, flags, tensors):
        super().__init__()
        kernels = tensors["vone_block.simple_conv_q0.weight"]
        for phase in ("q0", "q1"):
            convolution = _convolution(kernels, flags["stride"])
            setattr(self, f"simple_conv_{phase}", convolution.requires_grad_(False))
        mean, std = _NORMALIZATIONS[flags.get("normalization", "vonenet")]
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1), persistent=False)
        self.simple, self.gain = flags["simple_channels"], flags["k_exc"]
        self.noise = flags["noise_mode"]
        self.scale, self.level = flags["noise_scale"], flags["noise_level"]
        self.noisy = True

    def forward(self, images):
        normalised = (images - self.mean) / self.std
        q0, q1 = self.simple_conv_q0(normalised), self.simple_conv_q1(normalised)
        power = q0[:, self.simple :] ** 2 + q1[:, self.simple :] ** 2
        # The gradient of the root is 0 where both responses are 0.
        positive = power > 0
        root = torch.where(positive, torch.where(positive, power, 1.0).sqrt(), 0.0)
        simple, complex_cells = torch.relu(q0[:, : self.simple]), root / math.sqrt(2)
        responses = self.gain * torch.cat([simple, complex_cells], 1)
        return self.add_noise(responses) if self.noisy else responses

    def add_noise(self, responses):
        """Add the noise of the network; ``noise_mode`` None has none."""
        z = torch.randn_like(responses)
        if self.noise == "neuronal":
            mean = self.scale * responses + self.level
            count = mean + z * (torch.relu(mean) + 1e-4).sqrt()
            return torch.relu((count - self.level) / self.scale)
        if self.noise == "gaussian":
            return torch.relu(responses + self.scale * z)
        if self.noise == "fano":
            return responses + z * (self.scale * responses.abs() + self.level).sqrt()
        return responses


def _convolution(weight, stride=1, bias=False):
    """A convolution with zero padding for the kernels of a tensor."""
    out, channels, size, _ = weight.shape
    return nn.Conv2d(channels, out, size, stride, padding=size // 2, bias=bias)


def _linear(weight):
    return nn.Linear(weight.shape[1], weight.shape[0])


class ResidualBlock(nn.Module):
    """Two kernels of 3x3, or 1x1, 3x3 and 1x1, with a skip connection."""

    def __init__(self, tensors, stride):
        super().__init__()
        self.count = sum(
            name in tensors for name in ("conv1.weight", "conv2.weight", "conv3.weight")
        )
        strided = 1 if self.count == 2 else 2
        for n in range(1, self.count + 1):
            weight = tensors[f"conv{n}.weight"]
            setattr(self, f"conv{n}", _convolution(weight, stride if n == strided else 1))
            setattr(self, f"bn{n}", nn.BatchNorm2d(len(weight)))
        self.downsample = nn.Sequential()
        if "downsample.0.weight" in tensors:
            weight = tensors["downsample.0.weight"]
            self.downsample = nn.Sequential(
                _convolution(weight, stride), nn.BatchNorm2d(len(weight))
            )

    def forward(self, x):
        y = x
        for n in range(1, self.count + 1):
            y = torch.relu(y) if n > 1 else y
            y = getattr(self, f"bn{n}")(getattr(self, f"conv{n}")(y))
        return torch.relu(y + self.downsample(x))


class ResNet(nn.Module):
    """The four stages of a ResNet, global average pooling and the classifier."""

    def __init__(self, tensors):
        super().__init__()
        for stage in range(1, 5):
            count = 1 + max(int(n.split(".")[1]) for n in tensors if n.startswith(f"layer{stage}."))
            blocks = [
                ResidualBlock(
                    _within(tensors, f"layer{stage}.{i}."), 2 if stage > 1 and not i else 1
                )
                for i in range(count)
            ]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.fc = _linear(tensors["fc.weight"])

    def forward(self, x):
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))


class AlexNet(nn.Module):
    """The convolutions 2 to 5 of VOneAlexNet and its three fully connected layers."""

    def __init__(self, tensors):
        super().__init__()
        second, third, fourth, fifth = (tensors[f"features.{n}.weight"] for n in (0, 3, 5, 7))
        self.features = nn.Sequential(
            *(_convolution(second, 2, bias=True), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
            *(_convolution(third, bias=True), nn.ReLU()),
            *(_convolution(fourth, bias=True), nn.ReLU()),
            *(_convolution(fifth, bias=True), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
        )
        first, middle, last = (_linear(tensors[f"classifier.{n}.weight"]) for n in (1, 4, 6))
        side = math.isqrt(first.in_features // len(fifth))
        self.avgpool = nn.AdaptiveAvgPool2d(side)
        self.classifier = nn.Sequential(
            nn.Dropout(), first, nn.ReLU(), nn.Dropout(), middle, nn.ReLU(), last
        )

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class CORblockZ(nn.Module):
    """A convolution, ReLU and a max pool."""

    def __init__(self, tensors):
        super().__init__()
        self.conv = _convolution(tensors["conv.weight"], bias=True)

    def forward(self, x):
        return nn.functional.max_pool2d(torch.relu(self.conv(x)), 3, 2, 1)


class CORblockS(nn.Module):
    """The same convolutions several times, each time with other batch norms."""

    conv_input: nn.Conv2d
    conv1: nn.Conv2d
    conv2: nn.Conv2d
    conv3: nn.Conv2d
    norm_skip: nn.BatchNorm2d

    def __init__(self, tensors):
        super().__init__()
        for name in ("conv_input", "conv1", "conv2", "conv3"):
            setattr(self, name, _convolution(tensors[f"{name}.weight"]))
        self.skip = _convolution(tensors["skip.weight"], 2)
        self.steps = sum(n.startswith("norm1_") and n.endswith(".weight") for n in tensors)
        for name in (
            n.removesuffix(".running_mean") for n in tensors if n.endswith("running_mean")
        ):
            setattr(self, name, nn.BatchNorm2d(len(tensors[f"{name}.running_mean"])))

    def forward(self, x):
        x = self.conv_input(x)
        for t in range(self.steps):
            # The first step halves the map.
            self.conv2.stride = (1, 1) if t else (2, 2)
            skip = x if t else self.norm_skip(self.skip(x))
            y = torch.relu(getattr(self, f"norm1_{t}")(self.conv1(x)))
            y = torch.relu(getattr(self, f"norm2_{t}")(self.conv2(y)))
            x = torch.relu(getattr(self, f"norm3_{t}")(self.conv3(y)) + skip)
        return x


class CORnet(nn.Module):
    """The areas V2, V4 and IT of CORnet-S or CORnet-Z, and the decoder."""

    V2: nn.Module
    V4: nn.Module
    IT: nn.Module

    def __init__(self, tensors):
        super().__init__()
        block = CORblockS if "V2.skip.weight" in tensors else CORblockZ
        for area in ("V2", "V4", "IT"):
            setattr(self, area, block(_within(tensors, f"{area}.")))
        self.decoder = nn.ModuleDict({"linear": _linear(tensors["decoder.linear.weight"])})

    def forward(self, x):
        return self.decoder["linear"](self.IT(self.V4(self.V2(x))).mean((2, 3)))


def _within(tensors, prefix):
    """The tensors whose names begin with a prefix, without it."""
    return {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
