"""Any AToken checkpoint behind the adapter contract: ``atoken``, ``atoken:NAME``, ``atoken:PATH``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from atoken import checkpoint
from atoken.config import PRESETS, ATokenConfig
from harness.errors import BenchError
from harness.plan import slug
from harness.tokenizers.base import Encoded, LatentMode, Tokenizer, TokenizerCard

if TYPE_CHECKING:
    from atoken.tokenizer import AToken

DEFAULT = "atoken-nano"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """How the paper speaks of an architecture.

    Attributes:
        title: its name there.
        row: `TokenizerCard.paper_row`, family and method of Table 4.
        compression: as printed: Stage 1 has seen images only, so that its 4-frame patches count as 1.
    """

    title: str
    row: str
    compression: tuple[int, int, int] = (4, 16, 16)


PUBLISHED = {
    "so-c": Published(title="AToken-So/C", row="AToken-So/C / Stage 3"),
    "so-c-s1": Published(title="AToken-So/C Stage 1", row="AToken-So/C / Stage 1", compression=(1, 16, 16)),
    "so-d": Published(title="AToken-So/D", row="AToken-So/D"),
}


class ATokenAdapter(Tokenizer):
    """Images as 1-frame clips; sides are padded by reflection to whole patches and cropped back.

    A continuous model decodes the mean or a sample of its posterior; a quantized one its codes.
    """

    def __init__(self, model: AToken, card: TokenizerCard) -> None:
        self._model = model
        self.card = card

    @property
    def device(self) -> torch.device:
        return self._model.device

    def encode(self, images: Sequence[Tensor], *, latent: LatentMode, seeds: Sequence[int]) -> Encoded:
        latents = self._model.encode([image.permute(1, 2, 0) for image in images], fit="pad")
        counts = latents.mean.lengths
        quantizer = self._model.config.quantizer
        if quantizer is None:
            return Encoded(payload=latents.mean if latent == "mean" else latents.sample(seeds), tokens=counts)
        codes = self._model.quantize(latents)
        bits = quantizer.codebooks * math.log2(quantizer.codebook_size)
        return Encoded(
            payload=codes,
            tokens=counts,
            bits=[bits * count for count in counts],
            codes=[item.features for item in codes.split()],
        )

    def decode(self, encoded: Encoded) -> list[Tensor]:
        return [clip[0].permute(2, 0, 1) for clip in self._model.decode_pixels(encoded.payload)]


def create(argument: str | None, *, device: str, dtype: str, preset: str | None = None) -> ATokenAdapter:
    """Factory of ``atoken``.

    Args:
        argument: path of a checkpoint or name of a packaged model; `DEFAULT` if None.
        dtype: of weights and arithmetic: float32, bfloat16 or float16.
        preset: architecture of a file whose shapes do not tell it (So/D has So/C's).

    Raises:
        CheckpointError: no such checkpoint, or a broken or undecidable one.
        BenchError: an unknown dtype.
    """
    from atoken.tokenizer import AToken

    if dtype not in DTYPES:
        raise BenchError(f"dtype {dtype!r} is none of {', '.join(DTYPES)}")
    name = argument or DEFAULT
    model = AToken.from_pretrained(name, preset=preset, device=device, dtype=DTYPES[dtype])
    return ATokenAdapter(model, _card(name, model.config))


def _card(name: str, config: ATokenConfig) -> TokenizerCard:
    weights = checkpoint.locate(name).weights
    sha256 = checkpoint.sha256_file(weights)
    if name in checkpoint.packaged_models():
        label, title = name, name
        source = f"shipped with this package; its model card lies in atoken/models/{name}"
    else:
        # A file's own name says little (model.safetensors); the hash keeps two checkpoints apart.
        label, title = f"atoken-{config.name}-{sha256[:8]}", f"AToken {config.name} ({sha256[:8]})"
        source = f"the user's checkpoint {weights.name}"
    published = PUBLISHED.get(config.name) if config == PRESETS.get(config.name) else None
    if published is not None:
        title = published.title
        source += "; the official weights are Apple's, under Apple's model licence"
    quantizer = config.quantizer
    settings: dict[str, Any] = {"config": config.to_dict(), "padding": "reflect"}
    return TokenizerCard(
        name=slug(label),
        title=title,
        token_type="VAE" if quantizer is None else "FSQ",
        compression=config.patch if published is None else published.compression,
        latent_size=config.latent_channels,
        codebook_size=None if quantizer is None else quantizer.codebook_size,
        latent_modes=("mean", "sample") if quantizer is None else ("mean",),
        paper_row=None if published is None else published.row,
        weights_sha256={weights.name: sha256},
        source=source,
        settings=settings,
    )
