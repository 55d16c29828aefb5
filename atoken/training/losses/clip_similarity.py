"""The CLIP perceptual term of eq. 6 (PROTOCOLS 11.5): the angle between embeddings of an image and its reconstruction.

The authors publish neither network nor distance. Here: 1 - cosine, of any frozen image tower.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atoken.errors import CheckpointError
from atoken.training.errors import TrainingError
from atoken.training.losses.precision import widened
from atoken.training.losses.resize import SIDE

__all__ = ["Embed", "OpenClipTower", "clip_distance"]

Embed = Callable[[Tensor], Tensor]
"""Images [N, 3, 224, 224] in [-1, 1] -> embeddings [N, D]."""


def clip_distance(embed: Embed, rebuilt: Tensor, original: Tensor) -> Tensor:
    """1 - cosine between the embeddings of each pair of images [N, 3, 224, 224]: [N] float32, 0 to 2.

    No gradient flows to `original`.
    """
    with torch.no_grad():
        wanted = F.normalize(widened(embed(original)), dim=-1)
    # Half the squared distance of unit vectors is 1 - cosine, without the rounding error of that difference.
    return 0.5 * (F.normalize(widened(embed(rebuilt)), dim=-1) - wanted).square().sum(dim=-1)


class OpenClipTower(nn.Module):
    """The frozen image tower of an open_clip model, from a file of the user's.

    Args:
        name: an architecture that open_clip ships, of 224 x 224 pixels, e.g. ``ViT-B-16``.
        weights: whole checkpoint of that architecture, loaded strictly and as data.

    Raises:
        TrainingError: open_clip is not installed, or has no such architecture, or one of another resolution.
        CheckpointError: no such file, or not of that architecture.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, name: str, weights: str | Path) -> None:
        super().__init__()
        if find_spec("open_clip") is None:
            raise TrainingError("the CLIP term needs open_clip; install it: pip install open_clip_torch")
        open_clip = import_module("open_clip")
        if name not in open_clip.list_models():
            raise TrainingError(f"open_clip has no architecture {name!r}; `open_clip.list_models()` names those it has")
        # A name that is no file would be taken for a tag, and fetched.
        if not Path(weights).is_file():
            raise CheckpointError(f"{weights}: no such file; give the checkpoint of open_clip's {name}")
        mean, std = _statistics(open_clip, name)
        try:
            model = open_clip.create_model(name, pretrained=str(weights))
        except Exception as error:  # Foreign bytes make the reader fail in any way at all.
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise CheckpointError(f"{weights}: not a checkpoint of open_clip's {name} ({first})") from None
        size = model.visual.image_size
        if tuple(size if isinstance(size, tuple | list) else (size, size)) != (SIDE, SIDE):
            raise TrainingError(f"open_clip's {name} takes {size} pixels, the perceptual terms are of {SIDE}")
        self.visual: nn.Module = model.visual
        self.register_buffer("shift", 2 * torch.tensor(mean).view(3, 1, 1) - 1, persistent=False)
        self.register_buffer("scale", 2 * torch.tensor(std).view(3, 1, 1), persistent=False)
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Embeddings [N, D], not normalised, of images [N, 3, 224, 224] in [-1, 1]."""
        embeddings: Tensor = self.visual((widened(images) - self.shift) / self.scale)
        return embeddings


def _statistics(open_clip: Any, name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Colour means and deviations in [0, 1] units.

    open_clip ties them to the tag of published weights, and takes CLIP's for a file, wrongly for SigLIP among others.
    """
    known = {
        (
            tuple(config.get("mean", open_clip.OPENAI_DATASET_MEAN)),
            tuple(config.get("std", open_clip.OPENAI_DATASET_STD)),
        )
        for tag in open_clip.list_pretrained_tags_by_model(name)
        for config in [open_clip.get_pretrained_cfg(name, tag)]
    }
    if len(known) != 1:
        raise TrainingError(f"open_clip does not say which colour statistics {name} wants; take another architecture")
    return known.pop()
