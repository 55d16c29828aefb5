"""SigLIP2's image tower: the encoder starts from it (paper 3.2, 3.4) and it teaches images (eq. 7)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from atoken import checkpoint
from atoken.errors import CheckpointError
from atoken.network import Network
from atoken.patches import Pixels, pack_pixels
from atoken.tokens import SparseTokens
from atoken.training.data.pack import Pack
from atoken.training.errors import TrainingError
from atoken.training.start.siglip2_weights import PATCH, open_image_tower
from atoken.transformer import Encoder

__all__ = ["Teacher", "load_encoder"]


def load_encoder(model: Network, path: str | Path) -> None:
    """Replace the encoder's weights, pooling head included, by those of SigLIP2's image tower.

    The first frame of a patch gets the tower's patch embedding, the others zero, so that images are seen as the tower
    sees them (paper 3.2). Rotary positions, which the tower has not, come on top.

    Args:
        path: as `open_image_tower`.

    Raises:
        CheckpointError: as `open_image_tower`, or a tower of another shape than the model's encoder.
    """
    weights = open_image_tower(path, frames=model.config.patch[0])
    heads = model.config.encoder.heads
    if weights.heads is not None and weights.heads != heads:
        raise CheckpointError(f"{weights.path}: has {weights.heads} heads, the encoder of {model.config.name} {heads}")
    checkpoint.load_into(model.encoder, weights, device=model.device, dtype=model.dtype)


class Teacher(nn.Module):
    """A frozen image tower: images to unit vectors that texts of its own text tower can be compared with.

    It is our encoder without rotary positions. Images keep their size; sides that are no multiple of 16 are padded as
    `pack_pixels` does.

    Attributes:
        width: of the vectors.
        scale: exp of the logarithmic scale that scores with texts were trained with, if the file holds it (a whole
            Siglip2Model does).
    """

    def __init__(self, encoder: Encoder, width: int, scale: float | None) -> None:
        super().__init__()
        self.encoder = encoder.eval().requires_grad_(False)
        self.width = width
        self._scale = scale

    @classmethod
    def from_pretrained(
        cls, path: str | Path, *, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> Teacher:
        """Load it, strictly.

        Args:
            path: as `open_image_tower`.
            dtype: of the weights in memory, whatever is stored.

        Raises:
            CheckpointError: as `open_image_tower`, or a file without pooling head, or whose heads are not known.
        """
        weights = open_image_tower(path)
        config = weights.config()
        with torch.device("meta"):
            encoder = Encoder(config, PATCH, rotary=False)
        checkpoint.load_into(encoder, weights, device=torch.device(device), dtype=dtype)
        return cls(encoder, config.width, None if weights.log_scale is None else math.exp(weights.log_scale))

    @property
    def scale(self) -> float:
        """exp of the logarithmic scale of scores.

        Raises:
            TrainingError: the file has only the image tower.
        """
        if self._scale is None:
            raise TrainingError("the teacher's file holds no logit_scale; give that of the whole Siglip2Model")
        return self._scale

    def train(self, mode: bool = True) -> Teacher:  # noqa: ARG002 - it is frozen, whatever holds it
        """Stays in evaluation mode."""
        return super().train(False)

    def embed(self, pixels: Sequence[Pixels]) -> Tensor:
        """Unit vectors [N, width], float32, of images [H, W, 3] as `pack_pixels` takes them (uint8 0..255, say).

        Raises:
            InputError: no images, or broken ones.
        """
        weight = self.encoder.input_layer.weight
        return self.embed_tokens(pack_pixels(pixels, patch=(1, 16, 16), device=weight.device))

    def embed_pack(self, pack: Pack, device: torch.device) -> Tensor:
        """`embed_tokens` of a batch's part, moved to the teacher's device."""
        return self.embed_tokens(pack.tokens((1, 16, 16), device))

    @torch.no_grad()
    def embed_tokens(self, tokens: SparseTokens) -> Tensor:
        """Unit vectors [N, width], float32, of packed images.

        Args:
            tokens: features [L, 768 or more] in [-1, 1]; what comes behind the first frame is not looked at.

        Raises:
            TrainingError: another kind of item.
        """
        if any(item.kind != "image" for item in tokens.items):
            raise TrainingError("the teacher sees images; videos and assets are aligned with texts")
        dtype = self.encoder.input_layer.weight.dtype
        frame = tokens.with_features(tokens.features[:, :PATCH]).to(dtype=dtype)
        pooled = self.encoder.head(self.encoder(frame, 1), tokens.lengths)
        return F.normalize(pooled.float(), dim=-1)
