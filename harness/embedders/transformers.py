"""Models of transformers as rows, from a local folder: ``transformers:FOLDER``.

SigLIP2 of any size (NaFlex), SigLIP and SigLIP2 of fixed resolution, CLIP, as `save_pretrained` writes them with their
tokenizer and preprocessor_config.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from atoken.checkpoint import sha256_file
from atoken.errors import CheckpointError
from atoken.text import TextTower
from atoken.text.clean import clean
from atoken.text.pretrained import load_model, load_tokenizer
from atoken.text.siglip2 import EOS, FILES, PAD, TOKENIZER, Siglip2Tower
from atoken.text.tower import TokenTower
from harness.embedders.base import EmbedderCard, TextReader
from harness.embedders.pixels import PixelEmbedder, dtype_of, safe_name, triple
from harness.errors import BenchError

# model_type -> the classes of its halves and the attribute that holds what is compared
_HALVES = {
    "siglip2": ("Siglip2VisionModel", "Siglip2TextModel", "pooler_output"),
    "siglip": ("SiglipVisionModel", "SiglipTextModel", "pooler_output"),
    "clip": ("CLIPVisionModelWithProjection", "CLIPTextModelWithProjection", "embeds"),
}
_SCALES = ("logit_scale", "logit_bias")
PREPROCESSOR = "preprocessor_config.json"


def create(argument: str | None, *, device: str, dtype: str) -> PixelEmbedder:
    """Factory of ``transformers:FOLDER``.

    Args:
        dtype: of the image half; texts are read in float32.

    Raises:
        MissingPackage: transformers is not installed, or ftfy where the model's texts are cleaned.
        CheckpointError: no such folder, or files that are missing, broken or another model's.
        BenchError: no argument, an unknown dtype, or a model of another kind.
    """
    if argument is None:
        raise BenchError("transformers needs a folder: transformers:FOLDER")
    kind = dtype_of(dtype)
    folder = Path(argument).expanduser()
    config = _json(folder / "config.json")
    model_type = config.get("model_type")
    if model_type not in _HALVES:
        raise BenchError(f"{folder}: a model of type {model_type!r}; run are {', '.join(_HALVES)}")
    wanted = _json(folder / PREPROCESSOR)
    mean, std = (triple(wanted.get(key), f"{folder / PREPROCESSOR}: {key}") for key in ("image_mean", "image_std"))
    vision, _, held = _HALVES[model_type]
    beside = ("text_model.", "text_projection.", *_SCALES)
    model = load_model(vision, folder, beside=beside).to(kind).to(device)
    tower: TextTower = Siglip2Tower(folder, device=device) if model_type == "siglip2" else _Texts(folder, model_type)
    patch, flexible = int(model.config.patch_size), model_type == "siglip2"

    def network(pixels: Tensor) -> Tensor:
        found = model(**_patches(pixels, patch)) if flexible else model(pixel_values=pixels)
        vectors: Tensor = found.image_embeds if held == "embeds" else found.pooler_output
        return vectors

    card = EmbedderCard(
        name=safe_name("transformers", folder.resolve()),
        title=f"{folder.resolve().name} (transformers)",
        weights_sha256={name: sha256_file(folder / name) for name in FILES if (folder / name).is_file()},
        source="local weights of a model of transformers; licence and data are those of whoever published them",
        settings={"model_type": model_type, "config": config, "mean": mean, "std": std},
        width=tower.width,
        text=TextReader(name="siglip2" if flexible else "transformers", fingerprint=tower.fingerprint),
        side=None if flexible else int(model.config.image_size),
        input=f"[0, 1], mean {list(mean)}, std {list(std)}",
    )
    return PixelEmbedder(
        card, network, mean=mean, std=std, device=device, dtype=kind, patch=patch if flexible else 1, tower=tower
    )


class _Texts(TokenTower):
    """The text half of SigLIP or CLIP.

    SigLIP2 of fixed resolution is of type ``siglip`` with SigLIP2's tokenizer, told by its pad and end tokens; its
    texts are cleaned and laid out as `Siglip2Tower` does. All others are left to the folder's own tokenizer.
    """

    name = "transformers"

    def __init__(self, folder: Path, model_type: str) -> None:
        self._held = _HALVES[model_type][2]
        self._model = load_model(
            _HALVES[model_type][1], folder, beside=("vision_model.", "visual_projection.", *_SCALES)
        )
        self._tokenizer = load_tokenizer(folder)
        self._length = int(self._model.config.max_position_embeddings)
        ends = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id)
        self._gemma = model_type == "siglip" and ends == (PAD, EOS)
        if self._gemma:
            clean("")  # Without ftfy this fails now, not at the first text.
        files = [folder / name for name in (*FILES, *TOKENIZER, "vocab.json", "merges.txt", "spiece.model")]
        super().__init__(
            files=[file for file in files if file.is_file()],
            settings={"type": model_type, "length": self._length, "clean": "canonical" if self._gemma else None},
            device="cpu",
        )

    @property
    def width(self) -> int:
        """Of the vectors."""
        config = self._model.config
        return int(config.projection_dim if self._held == "embeds" else config.projection_size)

    def _tokens(self, texts: list[str]) -> list[tuple[Tensor, Tensor]]:
        if self._gemma:
            rows = self._tokenizer([clean(text) for text in texts], add_special_tokens=False)["input_ids"]
            said = [[*row[: self._length - 1], EOS] for row in rows]
            ids = torch.tensor([row + [PAD] * (self._length - len(row)) for row in said])
            return [(row, torch.ones_like(row)) for row in ids]
        read = self._tokenizer(
            texts, padding="max_length", max_length=self._length, truncation=True, return_attention_mask=True
        )
        masks = read["attention_mask"]
        if self._held != "embeds":  # SigLIP sees its padding, as it was trained
            masks = [[1] * self._length for _ in masks]
        return [(torch.tensor(row), torch.tensor(mask)) for row, mask in zip(read["input_ids"], masks, strict=True)]

    def _encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        if self._held == "embeds":
            vectors: Tensor = self._model(input_ids=ids, attention_mask=mask).text_embeds
            return vectors
        pooled: Tensor = self._model(input_ids=ids).pooler_output
        return pooled


def _patches(pixels: Tensor, patch: int) -> dict[str, Tensor]:
    """What NaFlex takes: patches ``[B, h w, patch patch 3]``, none of them padding, and their grid ``(h, w)``."""
    count, _, height, width = pixels.shape
    rows, columns = height // patch, width // patch
    cut = pixels.reshape(count, 3, rows, patch, columns, patch).permute(0, 2, 4, 3, 5, 1)
    return {
        "pixel_values": cut.reshape(count, rows * columns, -1),
        "pixel_attention_mask": torch.ones(count, rows * columns, dtype=torch.int32, device=pixels.device),
        "spatial_shapes": torch.tensor([[rows, columns]] * count, device=pixels.device),
    }


def _json(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no JSON"
        raise CheckpointError(f"{path}: {reason}; give a folder as transformers' save_pretrained writes it") from None
    if not isinstance(found, dict):
        raise CheckpointError(f"{path}: holds no settings; give a folder as transformers' save_pretrained writes it")
    return found
