"""What a text tower is, and what all of them share: one text's vector never depends on its batch mates."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from atoken.checkpoint import sha256_file
from atoken.errors import InputError
from atoken.text.store import Store, text_keys

__all__ = ["TextTower", "TokenTower"]

BATCH = 16
"""Rows of every forward pass. Short batches are filled up: with the shape the order of sums is fixed."""


class TextTower(Protocol):
    """Texts to vectors that images are compared with.

    Attributes:
        width: of the vectors.
        fingerprint: 64 hexadecimal digits of its weights, tokenizer and settings: equal ones give equal vectors.
    """

    @property
    def width(self) -> int: ...

    @property
    def fingerprint(self) -> str: ...

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, width], float32, on the CPU.

        Raises:
            InputError: no list of texts.
        """
        ...


class TokenTower(ABC):
    """A frozen transformer over tokens, with a memory of what it has read.

    Attributes:
        name: of the kind of tower, as `load_tower` takes it.
    """

    name: str

    def __init__(self, *, files: Iterable[Path], settings: Mapping[str, Any], device: torch.device | str) -> None:
        """What only subclasses call.

        Args:
            files: weights and tokenizer, for the fingerprint.
            settings: all else that moves a vector.
        """
        self._files = sorted(files, key=lambda path: path.name)
        self._settings = {"tower": self.name, **settings}
        self._device = torch.device(device)
        self._store = Store()

    @property
    @abstractmethod
    def width(self) -> int:
        """Of the vectors."""

    @cached_property
    def fingerprint(self) -> str:
        """Of weights, tokenizer and settings; the files are read once for it."""
        facts = {**self._settings, "files": {path.name: sha256_file(path) for path in self._files}}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def embed(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors [N, width], float32, on the CPU; each text is read once in the tower's life.

        Raises:
            InputError: no list of texts, or weights that make a vector which is not finite.
        """
        keys = text_keys(texts)
        vectors = self._store.find(keys)
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in vectors}
        if new:
            fresh = dict(zip(new, self._fresh(list(new.values())), strict=True))
            self._store.add(fresh)
            vectors |= fresh
        return torch.stack([vectors[key] for key in keys]) if keys else torch.empty(0, self.width)

    def remember_in(self, cache: Path) -> None:
        """Keep vectors in a folder of its own inside `cache`, and take those that lie there.

        Raises:
            CheckpointError: what lies there is damaged.
        """
        about = {"name": self.name, "width": self.width, "fingerprint": self.fingerprint}
        self._store = Store(cache / f"{self.name}-{self.fingerprint[:16]}", about)

    @abstractmethod
    def _tokens(self, texts: list[str]) -> list[tuple[Tensor, Tensor]]:
        """Ids [T] and mask [T] of each text; T may differ, but not with the other texts."""

    @abstractmethod
    def _encode(self, ids: Tensor, mask: Tensor) -> Tensor:
        """[B, T] and [B, T] -> [B, width]."""

    @torch.no_grad()
    def _fresh(self, texts: list[str]) -> Tensor:
        tokens = self._tokens(texts)
        by_length: dict[int, list[int]] = {}
        for index, (ids, _) in enumerate(tokens):
            by_length.setdefault(len(ids), []).append(index)
        vectors = torch.empty(len(texts), self.width)
        for rows in by_length.values():
            for start in range(0, len(rows), BATCH):
                batch = rows[start : start + BATCH]
                filled = batch + batch[-1:] * (BATCH - len(batch))
                ids, mask = (torch.stack([tokens[row][part] for row in filled]).to(self._device) for part in (0, 1))
                encoded = self._encode(ids, mask)[: len(batch)].float().cpu()
                vectors[batch] = F.normalize(encoded, dim=-1)
        if not bool(vectors.isfinite().all()):
            raise InputError(f"the text tower {self.name} gives vectors that are not finite; are its weights damaged?")
        return vectors
