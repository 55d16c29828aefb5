"""SigLIP2's text tower (FACTS section 10), from the folder of transformers' `Siglip2Model` or `Siglip2TextModel`."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from atoken.errors import CheckpointError
from atoken.text.clean import clean
from atoken.text.pretrained import load_model, load_tokenizer
from atoken.text.tower import TokenTower

__all__ = ["Siglip2Tower"]

LENGTH, PAD, EOS = 64, 0, 1
"""Every text: no begin, cut so that its end token stays, padded at the right (PROTOCOLS 4.1). The tower sees the
padding (no mask), as it was trained. Laid out here, since folders differ in what their tokenizer adds by itself."""
FILES = ("model.safetensors", "pytorch_model.bin")
TOKENIZER = ("tokenizer.json", "tokenizer.model")
BESIDE = ("vision_model.", "logit_scale", "logit_bias")


class Siglip2Tower(TokenTower):
    """Cleaned texts to what SigLIP2's images are compared with."""

    name = "siglip2"

    def __init__(self, folder: str | Path, *, device: torch.device | str = "cpu") -> None:
        """Load weights and tokenizer from one folder.

        Raises:
            MissingPackage: transformers or ftfy is not installed.
            CheckpointError: no such folder, or files that are missing, broken or another model's.
        """
        clean("")  # Without ftfy this fails now, not at the first text.
        folder = Path(folder).expanduser()
        self._model = load_model("Siglip2TextModel", folder, beside=BESIDE)
        self._tokenizer = load_tokenizer(folder)
        held = self._model.config.max_position_embeddings
        ends = (self._tokenizer.pad_token_id, self._tokenizer.eos_token_id)
        if held != LENGTH or ends != (PAD, EOS):
            raise CheckpointError(
                f"{folder}: its texts have {held} tokens, pad and end are {ends}; SigLIP2's {LENGTH} and {(PAD, EOS)}"
            )
        files = [folder / name for name in (*FILES, *TOKENIZER) if (folder / name).is_file()]
        super().__init__(files=files, settings={"length": LENGTH, "clean": "canonical"}, device=device)
        self._model.to(self._device)

    @property
    def width(self) -> int:
        """Of the vectors: the tower's projection."""
        return int(self._model.config.projection_size)

    def _tokens(self, texts: list[str]) -> list[tuple[Tensor, Tensor]]:
        rows = self._tokenizer([clean(text) for text in texts], add_special_tokens=False)["input_ids"]
        tokens = torch.full((len(rows), LENGTH), PAD)
        for ids, row in zip(tokens, rows, strict=True):
            said = [*row[: LENGTH - 1], EOS]
            ids[: len(said)] = torch.tensor(said)
        return [(ids, torch.ones_like(ids)) for ids in tokens]

    def _encode(self, ids: Tensor, mask: Tensor) -> Tensor:  # noqa: ARG002 - it sees the padding
        pooled: Tensor = self._model(input_ids=ids).pooler_output
        return pooled
