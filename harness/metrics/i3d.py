"""I3D, the video network of the Frechet video distance: a module of our own, and the frames that it takes.

The network is Inception-v1 inflated to three dimensions (Carreira and Zisserman 2017) with 400 Kinetics classes; a
clip's feature is its 400 logits, averaged over time. Layers, padding and epsilon are those of TensorFlow Hub's
``deepmind/i3d-kinetics-400/1`` (read in its graph), which the Frechet video distance was defined with. The files that
hold its weights are the matter of `harness.metrics.i3d_detectors`.

Shapes: N clips, T frames, H rows, W columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional

SIDE: Final = 224
FEATURES: Final = 400
MIN_FRAMES: Final = 9
"""Time is halved three times, rounding up, and the last pooling needs two steps: fewer frames have no feature."""

_EPSILON = 1e-3
# Frames that are resized at once: 8 of 1080p are 0.2 GB as float32. Each is resized by itself either way.
_FRAMES = 8


def crop(frames: Tensor) -> Tensor:
    """Frames as the detectors take them: shorter side to 224, centre crop, [-1, 1]; TokenBench's preprocessing.

    The longer side is rounded up, in floating point, so that a square may become 225 x 224 before it is cropped.
    Resizing is bilinear with half-pixel centres and without antialiasing.

    Args:
        frames: uint8 ``[T, 3, H, W]``.

    Returns:
        float32 ``[T, 3, 224, 224]`` on the same device.
    """
    height, width = frames.shape[-2:]
    scale = SIDE / min(height, width)
    size = (SIDE, math.ceil(width * scale)) if height < width else (math.ceil(height * scale), SIDE)
    top, left = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
    # A tensor, since CUDA multiplies by the reciprocal of a number.
    peak = torch.tensor(255.0, device=frames.device)
    parts = []
    for part in torch.split(frames, _FRAMES):
        # Each channel as an image: for three channels torch has another way, 15 times slower and off by a rounding.
        channels = part.flatten(0, 1).unsqueeze(1).float().div_(peak)
        resized = functional.interpolate(channels, size=size, mode="bilinear", align_corners=False)
        centre = resized[:, 0, top : top + SIDE, left : left + SIDE]
        parts.append(((centre - 0.5) * 2).view(len(part), -1, SIDE, SIDE))
    return torch.cat(parts)


def _same(x: Tensor, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> Tensor:
    """TensorFlow's padding "SAME" with zeros: outputs are ``ceil(size / stride)``, the odd zero comes last.

    Before a max-pooling of values that are not negative, zeros are as good as minus infinity.
    """
    padding: list[int] = []
    for size, k, s in reversed(list(zip(x.shape[2:], kernel, stride, strict=True))):
        total = max((-(-size // s) - 1) * s + k - size, 0)
        padding += [total // 2, total - total // 2]
    return functional.pad(x, padding) if any(padding) else x


class _Normalisation(nn.Module):
    """Batch normalisation with stored statistics, in place: at 300 frames a copy would be half a gigabyte."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        scale = torch.rsqrt(self.running_var + _EPSILON) * self.weight
        shift = self.bias - self.running_mean * scale
        return x.mul_(scale.view(-1, 1, 1, 1)).add_(shift.view(-1, 1, 1, 1))


class _Unit(nn.Module):
    """Convolution with padding "SAME", normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.kernel = (kernel,) * 3
        self.stride = (stride,) * 3
        self.conv3d = nn.Conv3d(inputs, outputs, self.kernel, self.stride, bias=False)
        self.bn = _Normalisation(outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.conv3d(_same(x, self.kernel, self.stride)))
        return out.relu_()


class _MaxPool(nn.Module):
    def __init__(self, kernel: tuple[int, int, int], stride: tuple[int, int, int]) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool3d(_same(x, self.kernel, self.stride), self.kernel, self.stride)


class _Mixed(nn.Module):
    """Four branches side by side: 1, 1 then 3, 1 then 3, pooling then 1.

    Args:
        widths: channels of b0, b1a, b1b, b2a, b2b, b3b.
    """

    def __init__(self, inputs: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        self.b0 = _Unit(inputs, widths[0], 1)
        self.b1a, self.b1b = _Unit(inputs, widths[1], 1), _Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = _Unit(inputs, widths[3], 1), _Unit(widths[3], widths[4], 3)
        self.b3a = _MaxPool((3, 3, 3), (1, 1, 1))
        self.b3b = _Unit(inputs, widths[5], 1)
        self.outputs = widths[0] + widths[2] + widths[4] + widths[5]

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], dim=1)


class _Logits(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(inputs, FEATURES, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv3d(functional.avg_pool3d(x, (2, 7, 7), stride=1))
        return out


class I3d(nn.Module):
    """The network of the module's docstring; 12.7 M parameters. Its keys are those of the community's state dicts."""

    def __init__(self) -> None:
        super().__init__()
        for name, layer in _layers():
            self.add_module(name, layer)

    def forward(self, clips: Tensor) -> Tensor:
        """Logits before the softmax, averaged over time.

        Args:
            clips: float32 ``[N, 3, T, 224, 224]`` in [-1, 1], T from `MIN_FRAMES` on.

        Returns:
            float32 ``[N, 400]``.
        """
        x = clips
        for layer in self.children():
            x = layer(x)
        return x.mean(dim=2).flatten(1)


def _layers() -> Iterator[tuple[str, nn.Module]]:
    """The layers in order, under the names that they have in the graph and in the files."""
    yield "Conv3d_1a_7x7", _Unit(3, 64, 7, stride=2)
    yield "MaxPool3d_2a_3x3", _MaxPool((1, 3, 3), (1, 2, 2))
    yield "Conv3d_2b_1x1", _Unit(64, 64, 1)
    yield "Conv3d_2c_3x3", _Unit(64, 192, 3)
    yield "MaxPool3d_3a_3x3", _MaxPool((1, 3, 3), (1, 2, 2))
    width = 192
    mixed: dict[str, tuple[int, int, int, int, int, int] | None] = {
        "Mixed_3b": (64, 96, 128, 16, 32, 32),
        "Mixed_3c": (128, 128, 192, 32, 96, 64),
        "MaxPool3d_4a_3x3": None,
        "Mixed_4b": (192, 96, 208, 16, 48, 64),
        "Mixed_4c": (160, 112, 224, 24, 64, 64),
        "Mixed_4d": (128, 128, 256, 24, 64, 64),
        "Mixed_4e": (112, 144, 288, 32, 64, 64),
        "Mixed_4f": (256, 160, 320, 32, 128, 128),
        "MaxPool3d_5a_2x2": None,
        "Mixed_5b": (256, 160, 320, 32, 128, 128),
        "Mixed_5c": (384, 192, 384, 48, 128, 128),
    }
    for name, widths in mixed.items():
        if widths is None:
            side = int(name[-1])
            yield name, _MaxPool((side,) * 3, (2, 2, 2))
        else:
            block = _Mixed(width, widths)
            width = block.outputs
            yield name, block
    yield "logits", _Logits(width)
