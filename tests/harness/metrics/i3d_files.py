"""I3D files in the published formats with contents of our own: random weights, and small programs."""

from __future__ import annotations

import hashlib
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from harness.metrics.i3d import FEATURES, I3d
from harness.weights import Found


def vouched(path: Path) -> Found:
    """As `WeightStore.find` gives a file whose hash the user has put beside it."""
    return Found(path, hashlib.sha256(path.read_bytes()).hexdigest(), official=False)


def random_state(seed: int = 0) -> dict[str, Tensor]:
    """Weights that keep activations of order one through all layers."""
    random = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in I3d().state_dict().items()}
    state = {}
    for name, shape in shapes.items():
        drawn = torch.randn(shape, generator=random)
        if name.endswith("conv3d.weight"):
            drawn *= (2 / shape[1:].numel()) ** 0.5
        elif name.endswith(("running_var", "bn.weight")):
            drawn = drawn.abs() / 2 + 0.6
        else:
            drawn *= 0.2
        state[name] = drawn
    return state


class Program(nn.Module):
    """StyleGAN-V's arguments around a small layer. The last two features tell with which options it was called."""

    def __init__(self, features: int = FEATURES) -> None:
        super().__init__()
        self.layer = nn.Conv3d(3, features, (1, 14, 14), (1, 14, 14))

    def forward(self, x: Tensor, rescale: bool = True, resize: bool = True, return_features: bool = False) -> Tensor:
        found = torch.relu(self.layer(x)).mean(dim=[2, 3, 4])
        found[:, -2] = float(rescale) + 2 * float(resize)
        found[:, -1] = float(return_features)
        return found


class Other(nn.Module):
    """A program that is no detector."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def save_program(module: nn.Module, path: Path) -> Found:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch means to drop TorchScript, and says so at every step
        torch.jit.script(module).save(str(path))
    return vouched(path)


def small_program(path: Path, *, seed: int = 0) -> Found:
    torch.manual_seed(seed)
    return save_program(Program(), path)
