"""The network of LPIPS and of the Gram loss: the convolutions of torchvision's VGG16, from a file of the user's.

LPIPS and taming-transformers share its conventions: images in [-1, 1], shifted and scaled by `SHIFT` and `SCALE`, and
the five feature maps relu1_2, relu2_2, relu3_3, relu4_3, relu5_3 (PROTOCOLS 11.3).
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from atoken.checkpoint import Source, open_weights, sha256_file
from atoken.errors import CheckpointError
from atoken.training.losses.precision import widened

__all__ = ["CHANNELS", "FILE", "SHA256", "VGG16Trunk"]

FILE = "vgg16-397923af.pth"
"""torchvision's VGG16_Weights.IMAGENET1K_V1, 553 MB."""
SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's colour means and deviations, in [-1, 1] units."""
CHANNELS = (64, 128, 256, 512, 512)
"""Of the five feature maps."""
_TAPS = (3, 8, 15, 22, 29)
"""Places of the five ReLUs among the layers."""


class VGG16Trunk(nn.Module):
    """VGG16 up to relu5_3, frozen. Gradients pass through it to the images.

    Convolutions run in the ambient autocast precision. Where it is to see originals, call it under `torch.no_grad()`.

    Args:
        weights: `FILE`, or its convolutions alone (keys ``features...``). Only the published file is taken, or, on
            purpose, another whose SHA-256 stands in ``NAME.sha256`` beside it.
        random_for_tests: a seed, instead of weights. What such a network computes is no perceptual distance.

    Attributes:
        official: whether the weights are those of the published file.
        sha256: of the file; None without one.

    Raises:
        CheckpointError: no such file, another hash, or other keys or shapes.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, weights: str | Path | None = None, *, random_for_tests: int | None = None) -> None:
        super().__init__()
        if (weights is None) == (random_for_tests is None):
            raise ValueError("give a weights file, or a seed for tests")
        from torchvision.models import vgg16

        # On the meta device nothing is drawn or kept: the classifier alone would be 0.5 GB of random numbers.
        with torch.device("meta"):
            network = vgg16()
        self.features = network.features[: _TAPS[-1] + 1]
        self.official, self.sha256 = False, None if weights is None else _checked_hash(Path(weights))
        if weights is None:
            self.features.to_empty(device="cpu")
            _draw(self.features, random_for_tests)
        else:
            self.official = self.sha256 == SHA256
            _load(self, Path(weights), {key: tuple(value.shape) for key, value in network.state_dict().items()})
        self.register_buffer("shift", torch.tensor(SHIFT).view(3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor(SCALE).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> list[Tensor]:
        """The five feature maps, [N, `CHANNELS`, H / 2^i, W / 2^i], of images [N, 3, H, W] in [-1, 1]; not normalised.

        H and W are at least 16. Values beyond [-1, 1] are taken as they are.
        """
        x = (widened(images) - self.shift) / self.scale
        maps = []
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in _TAPS:
                maps.append(x)
        return maps


def _draw(features: nn.Module, seed: int | None) -> None:
    """He initialisation, as torchvision's, from a generator of its own."""
    generator = torch.Generator().manual_seed(seed or 0)
    for layer in features.modules():
        if isinstance(layer, nn.Conv2d) and layer.bias is not None:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)


def _checked_hash(path: Path) -> str:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file; LPIPS and the Gram loss need torchvision's {FILE} (553 MB)")
    digest = sha256_file(path)
    beside = path.with_name(f"{path.name}.sha256")
    vouched = (
        (beside.read_text(encoding="utf-8", errors="replace").split() or [""])[0].lower() if beside.is_file() else None
    )
    if digest not in (SHA256, vouched):
        raise CheckpointError(
            f"{path}: its SHA-256 is {digest}, that of the published {FILE} {SHA256}; get the file again, or, to train "
            f"with other weights on purpose, write its SHA-256 into {beside.name} beside it"
        )
    return digest


def _load(trunk: VGG16Trunk, path: Path, classifier: dict[str, tuple[int, ...]]) -> None:
    """Fill the convolutions; `classifier` are the shapes of the whole network, which a file may hold besides."""
    file = open_weights(Source(path, None))
    wanted = list(trunk.state_dict())
    faults = [f"missing {key}" for key in wanted if key not in file.shapes]
    for key, shape in file.shapes.items():
        if key not in classifier:
            faults.append(f"unexpected {key}")
        elif shape != classifier[key]:
            faults.append(f"{key} is {list(shape)}, not {list(classifier[key])}")
    if faults:
        more = f" and {len(faults) - 5} more" if len(faults) > 5 else ""
        raise CheckpointError(f"{path}: not torchvision's VGG16: {', '.join(faults[:5])}{more}; give {FILE}")
    # Copied: the file is mapped into memory, and the classifier is nine tenths of it.
    state = {key: file.read(key).to(torch.float32, copy=True) for key in wanted}
    broken = [key for key, value in state.items() if not bool(torch.isfinite(value).all())]
    if broken:
        raise CheckpointError(f"{path}: {broken[0]} holds NaN or infinity; get the file again")
    trunk.load_state_dict(state, strict=True, assign=True)
