"""CORnet-S and the VOneNet's front end in PyTorch, written from the published description.

Used to compare the conversion with; see docs/convert.md for the facts they follow.
"""

import torch
from torch import nn


class Area(nn.Module):
    """An area of CORnet-S: one set of convolutions applied several times."""

    def __init__(self, inputs, outputs, steps):
        super().__init__()
        wide = 4 * outputs
        self.steps = steps
        self.conv_input = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.skip = nn.Conv2d(outputs, outputs, 1, stride=2, bias=False)
        self.norm_skip = nn.BatchNorm2d(outputs)
        self.conv1 = nn.Conv2d(outputs, wide, 1, bias=False)
        self.conv2 = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.conv3 = nn.Conv2d(wide, outputs, 1, bias=False)
        for t in range(steps):
            for layer, features in ((1, wide), (2, wide), (3, outputs)):
                self.add_module(f"norm{layer}_{t}", nn.BatchNorm2d(features))

    def forward(self, x):
        x = self.conv_input(x)
        for t in range(self.steps):
            stride = 2 if t == 0 else 1
            skip = self.norm_skip(self.skip(x)) if t == 0 else x
            y = torch.relu(getattr(self, f"norm1_{t}")(self.conv1(x)))
            y = nn.functional.conv2d(y, self.conv2.weight, stride=stride, padding=1)
            y = torch.relu(getattr(self, f"norm2_{t}")(y))
            x = torch.relu(getattr(self, f"norm3_{t}")(self.conv3(y)) + skip)
        return x


class V1Stage(nn.Module):
    """The learned first stage of CORnet-S."""

    def __init__(self, width):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)

    def forward(self, x):
        x = torch.relu(self.norm1(self.conv1(x)))
        x = nn.functional.max_pool2d(x, 3, stride=2, padding=1)
        return torch.relu(self.norm2(self.conv2(x)))


class Decoder(nn.Module):
    def __init__(self, features, classes):
        super().__init__()
        self.linear = nn.Linear(features, classes)

    def forward(self, x):
        return self.linear(x.mean((2, 3)))


class CORnetS(nn.Module):
    def __init__(self, width, classes):
        super().__init__()
        self.V1 = V1Stage(width)
        self.V2 = Area(width, 2 * width, 2)
        self.V4 = Area(2 * width, 4 * width, 4)
        self.IT = Area(4 * width, 8 * width, 2)
        self.decoder = Decoder(8 * width, classes)

    def forward(self, x):
        return self.decoder(self.IT(self.V4(self.V2(self.V1(x)))))


class FrontEnd(nn.Module):
    """Simple and complex cells on images in [-1, 1], without noise."""

    def __init__(self, simple, complex_, kernel_size=25):
        super().__init__()
        self.simple = simple
        for name in ("simple_conv_q0", "simple_conv_q1"):
            conv = nn.Conv2d(
                3, simple + complex_, kernel_size, 4, padding=kernel_size // 2, bias=False
            )
            self.add_module(name, conv)

    def forward(self, x):
        q0, q1 = self.simple_conv_q0(x), self.simple_conv_q1(x)
        simple = torch.relu(q0[:, : self.simple])
        size = torch.sqrt(q0[:, self.simple :] ** 2 + q1[:, self.simple :] ** 2)
        return 25.0 * torch.cat([simple, size / 2**0.5], 1)


class VOneNet(nn.Module):
    """Front end, bottleneck and a back end called ``model``."""

    def __init__(self, front_end, back_end, width):
        super().__init__()
        self.vone_block = front_end
        channels = front_end.simple_conv_q0.out_channels
        self.bottleneck = nn.Conv2d(channels, width, 1, bias=False)
        self.model = back_end

    def forward(self, x):
        return self.model(self.bottleneck(self.vone_block(x)))
