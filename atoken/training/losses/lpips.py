"""LPIPS as taming-transformers, latent diffusion and LightningDiT train with it (L_LPIPS of eq. 6; PROTOCOLS 11.3).

VGG16, features normalised over channels, squared differences weighed by the learned linear heads of version 0.1, mean
over places, sum over the five maps. The heads come with the package ``lpips``; its ``vgg.pth`` is, byte for byte, the
file that taming-transformers downloads. The value is a LPIPS only where the features come from the official trunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from atoken.checkpoint import Source, open_weights, sha256_file
from atoken.errors import CheckpointError
from atoken.training.errors import TrainingError
from atoken.training.losses.unit import unit_channels
from atoken.training.losses.vgg import CHANNELS

__all__ = ["LpipsHeads"]

SHA256 = "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"


class LpipsHeads(nn.Module):
    """The part of LPIPS after the trunk; its constants are buffers that no checkpoint holds.

    Raises:
        TrainingError: the package ``lpips`` is not installed.
        CheckpointError: its heads are not those of version 0.1.
    """

    def __init__(self) -> None:
        super().__init__()
        path = _heads_file()
        if sha256_file(path) != SHA256:
            raise CheckpointError(f"{path}: not the linear heads of LPIPS 0.1 for VGG; install the package lpips again")
        file = open_weights(Source(path, None))
        for index, channels in enumerate(CHANNELS):
            weight = file.read(f"lin{index}.model.1.weight").clone().view(channels, 1, 1)
            self.register_buffer(f"head{index}", weight, persistent=False)

    def forward(self, rebuilt: Sequence[Tensor], original: Sequence[Tensor]) -> Tensor:
        """LPIPS of each pair of images, [N] float32, from the five maps of both; symmetric, 0 where they are equal."""
        total: Tensor = torch.zeros(len(rebuilt[0]), device=rebuilt[0].device)
        for index, (one, other) in enumerate(zip(rebuilt, original, strict=True)):
            squares = (unit_channels(one) - unit_channels(other)).square()
            # Products and sums, not a convolution: that would run in half precision under autocast.
            total = total + (squares * self.get_buffer(f"head{index}")).sum(dim=1).mean(dim=(1, 2))
        return total


def _heads_file() -> Path:
    # Found without importing the package, which pulls in all that its own trainer needs.
    spec = find_spec("lpips")
    if spec is None or spec.origin is None:
        raise TrainingError("LPIPS needs the linear heads in the package lpips; install it: pip install lpips")
    return Path(spec.origin).parent / "weights" / "v0.1" / "vgg.pth"
