"""LPIPS through the modules of the ``lpips`` package, with the trunk from the user's torchvision file.

The linear heads are those of version 0.1 in the package's own wheel. Its ``vgg.pth`` is, byte for byte
(MD5 d507d7349b931f0638a25a48a722f98a), the file that taming-transformers' copy of LPIPS downloads, so
"taming weights" and ``lpips.LPIPS(net="vgg")`` are one metric.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from harness.errors import BenchError
from harness.metrics.base import Pairs
from harness.metrics.clip_column import FrameColumn
from harness.metrics.column import ColumnMetric
from harness.metrics.loading import load_state
from harness.metrics.precision import exact_float32
from harness.weights import UNOFFICIAL, Found, sha256_of

# Smallest side that leaves each trunk a feature map in its last slice.
SMALLEST: Mapping[str, int] = MappingProxyType({"vgg": 16, "alex": 31})
INPUTS = ("float", "clamped", "8bit")
# Pixels that pass the trunk at once: VGG's first slice holds 64 float32 channels of each.
_PIXELS = 1 << 19


class _Network:
    """The network of one trunk on a device, and what a record says of it.

    Raises:
        BenchError: a file that is not this trunk's.
    """

    def __init__(self, net: str, trunk: Found, device: torch.device) -> None:
        with resources.as_file(resources.files("lpips") / "weights" / "v0.1" / f"{net}.pth") as heads:
            self.weights = {trunk.path.name: trunk.sha256, f"lpips/weights/v0.1/{net}.pth": sha256_of(heads)}
            self.model = build(net, trunk.path, heads).to(device)
        self.smallest = SMALLEST[net]
        self.parameters: dict[str, Any] = {"net": net, "version": "0.1", "weights": dict(self.weights)}
        if not trunk.official:
            self.parameters["official"] = False
        self.suffix = "" if trunk.official else UNOFFICIAL

    def measure(self, reference: Tensor, reconstruction: Tensor, batch: int) -> np.ndarray:
        """LPIPS of images float32 ``[N, 3, H, W]``, `batch` of them at once: float64 ``[N]``."""
        pairs = zip(torch.split(reference, batch), torch.split(reconstruction, batch), strict=True)
        with exact_float32():
            parts = [self.model(x, y).flatten() for x, y in pairs]
        return np.asarray(torch.cat(parts).double().cpu().numpy())


class Lpips(ColumnMetric):
    """Mean over images of LPIPS v0.1; see `harness.metrics.families.METRICS` for the options.

    Args:
        trunk: the torchvision file of the whole classifier; only its convolutions are used.

    Raises:
        BenchError: an option that does not exist, or a file that is not this trunk's.
    """

    higher_is_better = False

    def __init__(
        self,
        *,
        name: str,
        resamples: int,
        trunk: Found,
        device: torch.device,
        net: Literal["vgg", "alex"] = "vgg",
        input: str = "float",
    ) -> None:
        if input not in INPUTS:
            raise BenchError(f"{name}: LPIPS of input {input!r}; there are: {', '.join(INPUTS)}")
        self.network = _Network(net, trunk, device)
        self.weights = self.network.weights
        self.input = input
        parameters = {**self.network.parameters, "input": input}
        undefined = f"image smaller than {self.network.smallest}x{self.network.smallest}"
        super().__init__(name, resamples, parameters=parameters, undefined=undefined)
        self.title = name + self.network.suffix

    def values(self, pairs: Pairs) -> np.ndarray:
        if min(pairs.reference.shape[-2:]) < self.network.smallest:
            return np.full(len(pairs.reference), np.nan)
        images = (pairs.reference, pairs.reconstruction)
        if self.input == "8bit":
            images = (pairs.reference_u8, pairs.reconstruction_u8)
        batch = max(1, _PIXELS // (images[0].shape[-2] * images[0].shape[-1]))
        return self.network.measure(self._prepared(images[0]), self._prepared(images[1]), batch)

    def _prepared(self, images: Tensor) -> Tensor:
        if self.input == "8bit":
            return _unit_range(images)
        return images.clamp(-1, 1) if self.input == "clamped" else images


def _unit_range(images: Tensor) -> Tensor:
    """uint8 in [-1, 1]."""
    return images.to(torch.float32) / 127.5 - 1


class ClipLpips(FrameColumn):
    """Mean over clips of the mean of LPIPS over a clip's 8-bit frames.

    One frame at a time, as TokenBench does: a batch's size moves the last bits, and a frame of a video is large
    enough to fill a device. VGG takes 3 KB a pixel, 6 GB for a frame of 1080p.
    """

    higher_is_better = False

    def __init__(
        self, *, name: str, resamples: int, trunk: Found, device: torch.device, net: str = "vgg", input: str = "8bit"
    ) -> None:
        """Raises BenchError for another input, or a file that is not this trunk's."""
        if input != "8bit":
            raise BenchError(f"{name}: LPIPS of input {input!r}; of videos there is: 8bit")
        self.network = _Network(net, trunk, device)
        self.weights = self.network.weights
        parameters = {**self.network.parameters, "input": input}
        undefined = f"frames smaller than {self.network.smallest}x{self.network.smallest}"
        super().__init__(name, resamples, parameters=parameters, undefined=undefined)
        self.title = name + self.network.suffix

    def values(self, reference: Tensor, reconstruction: Tensor) -> np.ndarray:
        if min(reference.shape[-2:]) < self.network.smallest:
            return np.full(len(reference), np.nan)
        frames = zip(torch.split(reference, 1), torch.split(reconstruction, 1), strict=True)
        return np.concatenate([self.network.measure(_unit_range(x), _unit_range(y), 1) for x, y in frames])


def build(net: str, trunk: Path, heads: Path) -> nn.Module:
    """``lpips.LPIPS(net=net)`` in evaluation, without its download and without its ``strict=False``.

    Args:
        trunk: state of torchvision's ``vgg16`` or ``alexnet``, every key of it.
        heads: state of the five linear layers.

    Raises:
        BenchError: a file has other keys or shapes.
    """
    import lpips
    from lpips.lpips import ScalingLayer
    from torchvision import models

    # On the meta device nothing is drawn or kept: VGG16's classifier alone would be 0.5 GB of random numbers.
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package calls torchvision by its old names
        model: nn.Module = lpips.LPIPS(net=net, pretrained=False, pnet_rand=True, verbose=False)
        classifier = models.vgg16() if net == "vgg" else models.alexnet()
    whole = load_state(trunk, {name: value.shape for name, value in classifier.state_dict().items()})
    layers = model.state_dict()
    linear = load_state(
        heads, {name: layers[name].shape for name in layers if name.startswith("lin") and name[3] != "s"}
    )
    state = {f"scaling_layer.{name}": value for name, value in ScalingLayer().state_dict().items()}
    for name in layers:
        kind, _, rest = name.partition(".")
        if kind == "net":
            state[name] = whole["features." + rest.partition(".")[2]]
        elif kind == "lins":
            # The package registers each head twice, as lin0 and as lins.0.
            index, _, rest = rest.partition(".")
            state[name] = linear[f"lin{index}.{rest}"]
    state |= linear
    model.load_state_dict(state, strict=True, assign=True)
    return model.eval().requires_grad_(False)
