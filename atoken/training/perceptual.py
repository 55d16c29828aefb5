"""The perceptual terms of eq. 6 at 224 x 224, by frozen networks of the user's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from atoken.training.errors import TrainingError
from atoken.training.losses import (
    Embed,
    LpipsHeads,
    OpenClipTower,
    VGG16Trunk,
    clip_distance,
    gram_from,
    to_square,
)
from atoken.training.recipe import Losses

__all__ = ["Perceptual", "load_perceptual"]


class Perceptual:
    """LPIPS, Gram and CLIP terms, those that are weighed; each network sees an image and its reconstruction once."""

    def __init__(
        self,
        losses: Losses,
        *,
        trunk: VGG16Trunk | None = None,
        heads: LpipsHeads | None = None,
        clip: Embed | None = None,
    ) -> None:
        """The networks that the weights of `losses` ask for: a trunk for LPIPS and Gram, heads for LPIPS, a tower."""
        self._losses, self._trunk, self._heads, self._clip = losses, trunk, heads, clip

    def __call__(self, originals: Sequence[Tensor], copies: Sequence[Tensor]) -> dict[str, Tensor]:
        """Terms summed over images.

        Args:
            originals, copies: [H, W, 3] each, in [-1, 1]; gradients flow to the copies.
        """
        terms: dict[str, Tensor] = {}
        with torch.no_grad():
            wanted = to_square(originals)
        made = to_square(copies)
        if self._trunk is not None:
            with torch.no_grad():
                target = self._trunk(wanted)
            features = self._trunk(made)
            if self._heads is not None:
                terms["lpips"] = self._heads(features, target).sum()
            if self._losses.gram:
                terms["gram"] = gram_from(features, target, self._losses.gram_form).sum()
        if self._clip is not None:
            terms["clip"] = clip_distance(self._clip, made, wanted).sum()
        return terms


def load_perceptual(losses: Losses, *, vgg: Path | None, clip: str | None, device: torch.device) -> Perceptual | None:
    """The networks that the losses need, frozen, or None where they need none.

    Args:
        vgg: torchvision's VGG16 weights.
        clip: "NAME:FILE" of an open_clip model.

    Raises:
        TrainingError: weights that are needed and not given, or not usable.
    """
    if not (losses.lpips or losses.gram or losses.clip):
        return None
    if (losses.lpips or losses.gram) and vgg is None:
        raise TrainingError(
            "the recipe weighs LPIPS or Gram: give torchvision's VGG16 weights with --vgg FILE, or --set "
            "losses.lpips=0 --set losses.gram=0"
        )
    if losses.clip and clip is None:
        raise TrainingError(
            "the recipe weighs CLIP similarity: give an open_clip model with --clip NAME:FILE, or --set losses.clip=0"
        )
    name, _, path = (clip or "").partition(":")
    return Perceptual(
        losses,
        trunk=VGG16Trunk(vgg).to(device) if losses.lpips or losses.gram else None,
        heads=LpipsHeads().to(device) if losses.lpips else None,
        clip=OpenClipTower(name, path).to(device) if losses.clip else None,
    )
